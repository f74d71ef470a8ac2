"""Tell who wrote a journal, and whether that process is still there."""

import os
import platform
from collections.abc import Mapping
from typing import Any


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _machine() -> dict[str, Any]:
    """Name this boot of this machine and the namespace that process ids count in, where Linux tells."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return {"host": platform.node(), "boot": _read("/proc/sys/kernel/random/boot_id").strip(), "pidns": namespace}


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks, so that a reused process id is not taken for it."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def this_process() -> dict[str, Any]:
    """Return what a journal records about its writer."""
    pid = os.getpid()
    return {**_machine(), "pid": pid, "started": _started(pid), "user": user()}


def user() -> str:
    """Return the name of the user, or the number where there is no name."""
    name = os.environ.get("USER") or os.environ.get("LOGNAME") or os.environ.get("USERNAME")
    return name or str(os.getuid() if hasattr(os, "getuid") else "")


def alive(writer: Mapping[str, Any]) -> bool | None:
    """Tell whether the process that `writer` describes runs: None if that cannot be known from here."""
    here = _machine()
    if not here["boot"] or any(writer.get(name) != here[name] for name in here):
        return None
    return bool(writer.get("started")) and _started(int(writer.get("pid", 0))) == writer["started"]

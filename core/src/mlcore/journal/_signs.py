"""Tell who writes a journal."""

import os
import platform
from contextlib import suppress
from typing import Any


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read()
    return ""


def started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks, so that a reused process id is not taken for it."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def this_process() -> dict[str, Any]:
    """Return what a journal records about its writer; `boot` and `pidns` tell what process ids count in, on Linux."""
    pid, boot = os.getpid(), _read("/proc/sys/kernel/random/boot_id").strip()
    about = {"host": platform.node(), "boot": boot, "pidns": 0, "pid": pid, "started": started(pid), "user": user()}
    with suppress(OSError):
        about["pidns"] = os.stat("/proc/self/ns/pid").st_ino
    return about


def user() -> str:
    """Return the name of the user, or the number where there is no name."""
    name = os.environ.get("USER") or os.environ.get("LOGNAME") or os.environ.get("USERNAME")
    return name or str(os.getuid() if hasattr(os, "getuid") else "")

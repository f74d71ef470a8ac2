"""Interpreters of this machine: which there are, what they are, and which one is meant by a version."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from mlcore.config import user_cache
from mlcore_projects.locks import EnvironmentFailed
from mlcore_projects.reasons import reason

__all__ = ["Interpreter", "fetched", "found", "running", "satisfies"]

# Run by every interpreter that is found, and by this one: what it says decides what can be installed for it.
_TOLD = """
import os, platform, sys, sysconfig
def told():
    libc = ""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION").replace(" ", "-")
    except Exception:
        pass
    here, system = sys.implementation, os.uname() if hasattr(os, "uname") else None
    tag = here.cache_tag + getattr(sys, "abiflags", "").replace("d", "")
    version = platform.python_version()
    return {
        "path": getattr(sys, "_base_executable", None) or sys.executable,
        "version": version,
        "platform": " ".join(filter(None, [sysconfig.get_platform(), tag, libc])),
        "markers": {
            "implementation_name": here.name,
            "implementation_version": "%d.%d.%d" % here.version[:3],
            "os_name": os.name,
            "platform_machine": system.machine if system else platform.machine(),
            "platform_python_implementation": platform.python_implementation(),
            "platform_release": system.release if system else platform.release(),
            "platform_system": system.sysname if system else platform.system(),
            "platform_version": system.version if system else platform.version(),
            "python_full_version": version,
            "python_version": "%d.%d" % sys.version_info[:2],
            "sys_platform": sys.platform,
        },
    }
"""
_SECONDS = 20


@attrs.frozen
class Interpreter:
    """Describe an interpreter: its program, full version, platform with ABI and libc, and its values of markers."""

    path: Path
    version: str
    platform: str
    markers: dict[str, str] = attrs.field(factory=dict, eq=False, repr=False)


def _interpreter(told: dict[str, Any]) -> Interpreter:
    return Interpreter(Path(told["path"]), told["version"], told["platform"], told["markers"])


def running() -> Interpreter:
    """Return the interpreter that runs this, or the one that its virtual environment was made from."""
    scope: dict[str, Any] = {}
    exec(_TOLD, scope)  # noqa: S102 - the constant above, so that both are asked the same
    return _interpreter(scope["told"]())


def satisfies(version: str, wanted: str) -> bool:
    """Tell whether a full version is what `wanted` says: ``3.11``, ``3.11.7``, or a specifier such as ``>=3.11``."""
    if not wanted.strip():
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    text = wanted.strip()
    if re.fullmatch(r"\d+(\.\d+){0,2}", text):
        text = f"=={text}" if text.count(".") == 2 else f"=={text}.*"
    try:
        return SpecifierSet(text).contains(version, prereleases=True)
    except InvalidSpecifier:
        raise EnvironmentFailed(f"{wanted!r} is no version of Python: write 3.11, 3.11.7 or >=3.11") from None


def found(wanted: str) -> Interpreter:
    """Return the interpreter that satisfies `wanted`: the running one if it does, else the newest of those installed.

    Programs are asked once, and again when they have changed. Raises `EnvironmentFailed` with what there is.
    """
    here = running()
    if satisfies(here.version, wanted):
        return here
    others = _installed()
    if fit := [each for each in others if satisfies(each.version, wanted)]:
        return max(fit, key=lambda each: _order(each.version))
    there = ", ".join(sorted({each.version for each in (here, *others)}, key=_order))
    raise EnvironmentFailed(
        f"no Python {wanted} was found (there is {there}): install one, or let uv do it: --env uv with the variable "
        "UV_PYTHON_DOWNLOADS=automatic"
    )


def fetched(uv: Path, wanted: str) -> None:
    """Let uv fetch an interpreter, which the user allowed. Raises `EnvironmentFailed` with what it said."""
    done = subprocess.run(
        [uv, "python", "install", "--no-bin", "--", wanted], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise EnvironmentFailed(f"uv cannot fetch Python {wanted}: {reason(done.stderr)}")


def _order(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)]


def _installed() -> list[Interpreter]:
    notes = user_cache() / "environments" / "interpreters.json"
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = json.loads(notes.read_bytes())
    now: dict[str, Any] = {}
    for path in _candidates():
        with suppress(OSError):
            state = os.stat(path)
            stamp = [state.st_mtime_ns, state.st_size, state.st_ino]
            noted = known.get(str(path))
            now[str(path)] = noted if noted and noted["stamp"] == stamp else {"stamp": stamp, "told": _ask(path)}
    if now != known:
        with suppress(OSError):  # asked again next time
            notes.parent.mkdir(parents=True, exist_ok=True)
            fresh = notes.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(now), encoding="utf-8")
            fresh.replace(notes)
    unique = {
        (each["told"]["version"], each["told"]["platform"]): each["told"] for each in now.values() if each["told"]
    }
    return [_interpreter(each) for each in unique.values()]


def _candidates() -> Iterator[Path]:
    home = Path.home()
    folders = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for root in (pyenv, managed):
        with suppress(OSError):
            folders += [each / "bin" for each in sorted(root.iterdir())]
    folders += [Path("/usr/local/bin"), Path("/usr/bin"), Path("/opt/homebrew/bin")]
    seen = set()
    for folder in folders:
        if folder.name == "shims":  # they choose by settings, and may choose none
            continue
        with suppress(OSError):
            for name in sorted(each for each in os.listdir(folder) if re.fullmatch(r"python(3(\.\d+t?)?)?", each)):
                real = os.path.realpath(folder / name)
                if real not in seen and os.access(real, os.X_OK):
                    seen.add(real)
                    yield folder / name


def _ask(path: Path) -> dict[str, Any] | None:
    code = f"{_TOLD}\nimport json\nprint(json.dumps(told()))"
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        command = [str(path), "-I", "-c", code]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=True)
        told: dict[str, Any] = json.loads(done.stdout)
        return told
    return None

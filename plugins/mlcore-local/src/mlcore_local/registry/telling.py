"""Tell others what changed in the registry: a line of JSON in a file, and a command that is run.

Both are named by the user, in their own file of settings or the environment. A repository's file cannot: whoever clones
one runs nothing of it. Nor does the command come from, or look at, the folder that the process happens to be in.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import attrs

from mlcore.config import OFF, settings
from mlcore.errors import ConfigError
from mlcore.registry import Change
from mlcore.store import to_json

__all__ = ["SECONDS", "tell"]

SECONDS = 10  # that a command may take: who changes the registry waits for it
_LOCKED = 2  # that others may keep the file to themselves
_log = logging.getLogger("mlcore")


def tell(event: Change) -> None:
    """Tell of a change where the user's settings say so; what goes wrong is a warning, as the change is made."""
    line = json.dumps(json.loads(to_json(attrs.asdict(event))))  # strict, and ASCII: no reader sees two lines in it
    for key, told in (("registry_log", _write), ("registry_command", _run)):
        try:
            setting = next(settings(key), None)
            if setting is not None and setting.value != OFF:
                told(setting.value, line)
        except (ConfigError, OSError, ValueError) as error:
            _log.warning("%s was not told of a change of %s: %s", key, event.model, error)


def _write(path: str, line: str) -> None:
    """Append a line, whole whoever else appends; the file is opened each time, so that it may be rotated."""
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    # a pipe that nobody reads is an error, where it would be a wait for ever
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        _lock(handle)
        text = b"\n" * _torn(file, os.fstat(handle)) + f"{line}\n".encode()
        if (written := os.write(handle, text)) < len(text):
            raise OSError(f"{file} took {written} of {len(text)} bytes")
    finally:
        os.close(handle)


def _torn(file: Path, status: os.stat_result) -> bool:
    """Tell whether a line was left half written, as on a full disk: the next one is not to be lost with it."""
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    with suppress(PermissionError), open(file, "rb") as content:  # who may only write cannot tell
        content.seek(status.st_size - 1)
        return content.read(1) != b"\n"
    return False


def _lock(handle: int) -> None:
    """Be alone where the system has locks, but wait for nobody for long: one write appends whole almost anywhere."""
    with suppress(ImportError, OSError):
        import fcntl

        until = time.monotonic() + _LOCKED
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.005)


def _run(command: str, line: str) -> None:
    """Run a command with the line on its standard input. Raises `ConfigError` if it cannot be run, or fails."""
    words = shlex.split(command)
    program = _program(words)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:  # which, unlike pipes, block nobody
        given.write(f"{line}\n".encode())
        given.seek(0)
        process = subprocess.Popen(
            [program, *words[1:]],
            stdin=given,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=Path.home(),  # not in a repository: what it holds is not for the command to find
            env={**os.environ, "MLCORE_REGISTRY_COMMAND": OFF},  # what the command changes runs no command
            start_new_session=True,
        )
        try:
            code = process.wait(SECONDS)
        except BaseException as error:
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ConfigError(f"{program} took longer than {SECONDS} s, and was ended") from None
            raise
        if code:
            said.seek(max(0, said.seek(0, os.SEEK_END) - 500))
            text = " ".join(said.read().decode(errors="replace").split())
            raise ConfigError(f"{program} ended with {code}{': ' * bool(text)}{text}")


def _program(words: list[str]) -> str:
    """Return the file of a command: an absolute path, or one that is on the PATH, but for folders of the moment."""
    name = os.path.expanduser(words[0]) if words else ""
    if os.path.isabs(name):
        return name
    folders = [each for each in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(each)]
    found = shutil.which(name, path=os.pathsep.join(folders)) if name and not os.path.dirname(name) else None
    if found is None:
        raise ConfigError(f"{name!r} is neither an absolute path nor a program on the PATH")
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command, and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    process.wait()

"""Know which processes ship what they log themselves, and let one of them ship what others left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.journal import this_process

__all__ = ["Presence"]

_ELECTED = "elected"


class Presence:
    """Hold a locked file while this process ships, under a name that its journals tell.

    The kernel lets go of the lock when the process dies. On a file system without locks everybody ships what is left,
    which costs work and changes nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._own = folder, _name(this_process())
        self._held: dict[str, int] = {}
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            self._hold(self._own)

    def elsewhere(self, path: str) -> bool:
        """Tell whether another process ships what it writes to this journal."""
        from mlcore_local.shipping import writer_of

        name = _name(writer_of(path))
        return name != self._own and bool(name) and self._locked(name)

    def elected(self) -> bool:
        """Tell whether this process is the one that ships what others left."""
        return _ELECTED in self._held or self._hold(_ELECTED)

    def tidy(self) -> None:
        """Remove the files of processes that are gone."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name not in self._held and name != _ELECTED and not self._locked(name):
                    (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of all that is held."""
        for name in list(self._held):
            os.close(self._held.pop(name))

    def _hold(self, name: str) -> bool:
        try:
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:  # no locks here
            pass
        self._held[name] = fd
        return True

    def _locked(self, name: str) -> bool:
        try:
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
        return False


def _name(writer: Mapping[str, Any]) -> str:
    """Return the name for a process, empty if it is not known well enough."""
    if not writer.get("started"):
        return ""
    parts = (writer.get(key, "") for key in ("host", "boot", "pidns", "pid", "started"))
    return re.sub(r"[^A-Za-z0-9.-]", "_", "-".join(map(str, parts)))[:200]

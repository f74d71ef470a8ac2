"""The audit log: one line of JSON for every request that changes something, or was meant to.

::

    {"time": "2026-11-23T12:00:00.123Z", "actor": "alice", "how": "token", "address": "10.1.2.3", "request": "5f0c...",
     "method": "POST", "route": "/api/v1/batches", "path": "/api/v1/batches", "objects": ["run/6c1f..."], "status": 200}

It never has tokens, query strings or bodies. Non-ASCII characters and line ends are escaped, so no name can forge a
line. Every line is one write to a file opened for appending: processes may share the file, and it may be moved away or
cut at any time, since it is opened again when it is no longer the file of that name.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Audit", "Entry"]

_LONGEST = 400  # characters of a text; and how many objects are named, the rest is counted
_MOST = 50
_log = logging.getLogger("mlcore.server")


@attrs.frozen(kw_only=True)
class Entry:
    """Say who did what to which objects, from where, and what came of it."""

    actor: str
    how: str
    address: str
    request: str
    method: str
    route: str
    path: str
    status: int
    objects: Sequence[str] = ()

    def line(self, moment: datetime) -> bytes:
        """Return the line of the log."""
        named = {**attrs.asdict(self, recurse=False), "objects": [_short(each) for each in self.objects[:_MOST]]}
        if len(self.objects) > _MOST:
            named["more_objects"] = len(self.objects) - _MOST
        stamp = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said: dict[str, Any] = {"time": stamp, **{key: _short(value) for key, value in named.items()}}
        return json.dumps(said).encode() + b"\n"


def _short(value: Any) -> Any:
    return value[:_LONGEST] + "..." if isinstance(value, str) and len(value) > _LONGEST else value


class Audit:
    """Append to an audit log."""

    def __init__(self, file: Path) -> None:
        """Open the file, for this user only if it is new. Raises `OSError`."""
        self._file, self._looked, self._torn = file, 0.0, False
        self._descriptor = self._open()

    def write(self, entry: Entry) -> None:
        """Append one line. What cannot be written is told in the server's own log: the change itself is done."""
        line = entry.line(datetime.now(UTC))
        try:
            if (now := time.monotonic()) - self._looked > 1:
                self._looked = now
                self._reopen_if_moved()
            if os.write(self._descriptor, b"\n" + line if self._torn else line) < len(line):
                self._torn = True  # the disk is full: the next line begins on a line of its own
                raise OSError("the line was cut off")
            self._torn = False
        except OSError as error:
            _log.error("the audit log %s lacks a line: %s: %s", self._file, error, line.decode().strip())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _reopen_if_moved(self) -> None:
        try:
            same = os.path.samestat(os.stat(self._file), os.fstat(self._descriptor))
        except FileNotFoundError:
            same = False
        if not same:
            old, self._descriptor = self._descriptor, self._open()
            os.close(old)

"""Logs on stderr, as text or JSON: a line a request, and what mlcore and uvicorn have to say."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from functools import lru_cache

from mlcore.config import shown

__all__ = ["RequestLog", "set_up"]

_MOST = 50_000  # lines that wait for a slow reader of stderr; more are counted and dropped
_SECONDS = 0.1


def set_up(form: str, level: str) -> None:
    """Send what loggers say to stderr, in one format."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))  # its own start and stop are not news


class _Formatter(logging.Formatter):
    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        text = shown(record.getMessage())
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._json:
            about = {"time": _time(record.created), "level": record.levelname.lower(), "logger": record.name}
            return json.dumps({**about, "message": text})
        return f"{_time(record.created)} {record.levelname} {_plain(text)}"


class RequestLog:
    """Write a line a request, many at once, from a thread: whoever reads stderr slowly keeps no request waiting."""

    def __init__(self, form: str, level: str) -> None:
        self.wanted = level in ("debug", "info")
        self._json = form == "json"
        self._lines: list[str] = []
        self._dropped = 0
        self._ready: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, status: int, method: str, path: str, ms: float, actor: str, request_id: str) -> None:
        """Log one request."""
        if not self.wanted:
            return
        if len(self._lines) >= _MOST:
            self._dropped += 1
            return
        now = _time(time.time())
        if self._json:
            about = {"status": status, "method": method, "path": path, "ms": ms, "actor": actor}
            line = {"time": now, "level": "info", "logger": "mlcore.requests", **about, "request_id": request_id}
            self._lines.append(json.dumps(line))
        else:
            shown = f"status={status} method={method} path={path} ms={ms} actor={actor} request_id={request_id}"
            self._lines.append(f"{now} INFO {_plain(shown)}")
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="mlcore-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is left."""
        if self._thread is not None:
            self._ready.put(False)
            self._thread.join(5)

    def _write(self) -> None:
        going = True
        while going:
            with contextlib.suppress(queue.Empty):
                going = self._ready.get(timeout=_SECONDS)
            lines, self._lines = self._lines, []
            if self._dropped:
                lines.append(f"{_time(time.time())} WARNING {self._dropped} requests were not logged: too many at once")
                self._dropped = 0
            if lines:
                data = memoryview(("\n".join(lines) + "\n").encode(errors="backslashreplace"))
                while data:
                    try:
                        data = data[os.write(2, data) :]
                    except OSError:
                        break  # nobody reads it


def _plain(text: str) -> str:
    """Return text that cannot forge a line."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _time(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds * 1000) % 1000:03}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))

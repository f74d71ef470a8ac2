"""Servers that this user runs on this machine: the notes they leave of their address and token.

A server on loopback or on a Unix socket makes a token at every start. It writes it into a note that only its user can
read, where a client of the same user finds it, and removes the note when it stops::

    $XDG_RUNTIME_DIR/mlcore/servers/127.0.0.1-5151.json    (else below $XDG_STATE_HOME or ~/.local/state)
    {"format": 1, "url": "http://127.0.0.1:5151", "token": "mlc_...", "pid": 4711}

A note that others could have written or read is ignored.
"""

import hashlib
import json
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["FORMAT", "LOOPBACK", "note_of", "notes", "read_note", "token_of"]

FORMAT = 1
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PORTS = {"http": 80, "https": 443}


def notes() -> Path:
    """Return the folder of the notes, there or not."""
    state = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_STATE_HOME")
    return Path(state or Path.home() / ".local" / "state") / "mlcore" / "servers"


def note_of(host: str, port: int | None = None) -> Path:
    """Return the note of the server at a host and port, or without a port at the Unix socket of that path."""
    if port is None:
        return notes() / f"unix-{hashlib.sha256(os.path.realpath(host).encode()).hexdigest()[:16]}.json"
    return notes() / f"{host.replace(':', '_')}-{port}.json"


def read_note(file: Path) -> dict[str, object] | None:
    """Return what a note says; None if there is none, or if it is not this user's own and nobody else's."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if os.name == "posix" and (about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077):
            return None
        try:
            note = json.loads(stream.read(1 << 16))
        except (ValueError, RecursionError):
            return None
    return note if isinstance(note, dict) and note.get("format") == FORMAT else None


def token_of(uri: str) -> str | None:
    """Return the token of the server at a URI if this user runs it on this machine, else None.

    Only loopback addresses and Unix sockets have notes: a token never goes to another machine that way.
    """
    parts = urlsplit(uri)
    if parts.scheme.endswith("unix"):  # http+unix:///run/mlcore.sock or http+unix://%2Frun%2Fmlcore.sock
        files = [note_of(unquote(parts.netloc) + unquote(parts.path))]
    elif parts.hostname in LOOPBACK:
        port = parts.port or _PORTS.get(parts.scheme, 0)
        files = [note_of(host, port) for host in (str(parts.hostname), *LOOPBACK)]
    else:
        return None
    for file in files:
        if (note := read_note(file)) and isinstance(token := note.get("token"), str):
            return token
    return None

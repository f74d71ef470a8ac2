"""Tokens: what a client shows to be let in, and the token that a server on this machine makes at every start.

A token is known by its SHA-256 only. Tokens come from the environment or from a file, one a line::

    # name=token, and what it may: read; read and write (when nothing is said); or everything
    alice=mlc_5wXq...
    dashboard=mlc_9vRt...:read
    mlc_Ry3k...

The file is read again as soon as it changes, so a token that is taken out of it is refused at the next request, by
every process that reads that file.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from mlcore.errors import ConfigError
from mlcore_remote import running

__all__ = ["PERMISSIONS", "SHORTEST", "Start", "Token", "Tokens", "make_token", "parse_tokens", "started"]
__all__ += ["failures_of", "use_once"]

SHORTEST = 32  # characters; a made one has 47, of which 43 are random
PERMISSIONS = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset({"read", "write", "admin"}),
}
_LINE = re.compile(r"(?:(?P<name>[\w.@-]{1,64})=)?(?P<token>[\w.~+/-]+)(?::(?P<may>read|write|admin))?", re.ASCII)
_log = logging.getLogger("mlcore.server")


@attrs.frozen
class Token:
    """Hold what is known of a token: its `name`, what it may, and the `digest` it is recognized by."""

    name: str
    permissions: frozenset[str]
    digest: bytes = attrs.field(repr=False)

    def key(self, purpose: bytes) -> bytes:
        """Return a key for a purpose that every server which knows this token derives alike, and nobody else can."""
        return hmac.digest(self.digest, b"mlcore " + purpose, "sha256")


def make_token() -> str:
    """Return a new token: 256 random bits behind a prefix that scanners for leaked secrets can look for."""
    return f"mlc_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def parse_tokens(text: str, where: str) -> dict[bytes, Token]:
    """Return the tokens of a text by digest. Raises `ConfigError` that names the line and never shows the token."""
    found: dict[bytes, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (said := line.strip()) and not said.startswith("#"):
            token = _parsed(said, f"{where}, line {number}")
            if token.digest in found or any(token.name == other.name for other in found.values()):
                raise ConfigError(f"{where}, line {number}: the token or its name stands there twice")
            found[token.digest] = token
    return found


def _parsed(said: str, where: str) -> Token:
    match = _LINE.fullmatch(said)
    if match is None:
        raise ConfigError(
            f"{where} is no token: write token, name=token or name=token:read, in letters, digits, -_.~+/"
        )
    secret = match["token"]
    if len(secret) < SHORTEST or len(set(secret)) < 12:
        raise ConfigError(f"{where}: the token is too easy to guess; take {SHORTEST} random characters or more")
    digest = _digest(secret)
    name = match["name"] or f"token-{hashlib.sha256(digest).hexdigest()[:8]}"
    return Token(name, PERMISSIONS[match["may"] or "write"], digest)


class Tokens:
    """Know the tokens of a server: the `fixed` ones, and those of a file as it is now."""

    def __init__(self, fixed: Mapping[bytes, Token], file: Path | None = None) -> None:
        """Read the file. Raises `ConfigError` if it cannot be read, has what is no token, or others may write it."""
        self._fixed, self._file = dict(fixed), file
        self._known, self._seen, self._settled = dict(fixed), (0, 0, 0, 0), True
        if file is not None:
            _check_access(file)
            self._known |= _tokens_in(file)
            self._note_version(file.stat())

    def __bool__(self) -> bool:
        return bool(self.now())

    def find(self, secret: str) -> Token | None:
        """Return the token that somebody shows, None if it is none of ours."""
        digest = _digest(secret)
        token = self.now().get(digest)  # what the look-up's time tells is about a hash, which leads to no token
        return token if token is not None and hmac.compare_digest(token.digest, digest) else None

    def now(self) -> Mapping[bytes, Token]:
        """Return all tokens by digest, as the file has them now; without the file none of its tokens is left."""
        if self._file is not None:
            try:
                about = self._file.stat()
                if not self._settled or self._version(about) != self._seen:
                    self._note_version(about)
                    self._known = self._fixed | _tokens_in(self._file)
            except (OSError, ConfigError) as error:
                if self._known != self._fixed:
                    _log.error("no token of %s is accepted until this is mended: %s", self._file, error)
                self._known, self._seen = dict(self._fixed), (0, 0, 0, 0)
        return self._known

    def _note_version(self, about: os.stat_result) -> None:
        """Remember which version was read; one that is younger than clocks are fine is read again."""
        self._seen = self._version(about)
        self._settled = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > 10**9

    def _version(self, about: os.stat_result) -> tuple[int, int, int, int]:
        return about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_ino


def _check_access(file: Path) -> None:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"the token file {file} cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & 0o022:
        raise ConfigError(f"others than its owner may write the token file {file}: chmod 600 it")
    if os.name == "posix" and mode & 0o004:
        _log.warning("everybody on this machine may read the token file %s: chmod 600 it", file)


def _tokens_in(file: Path) -> dict[bytes, Token]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {file} cannot be read: {error}") from error
    if not text.startswith("{"):
        return parse_tokens(text, f"token file {file}")
    digest = _digest(str(json.loads(text)["token"]))  # the note of a start, which this server wrote itself
    return {digest: Token("owner", PERMISSIONS["admin"], digest)}


@attrs.frozen
class Start:
    """Hold what a start made: the `note` that clients and workers read, and the `link` that logs a browser in once."""

    note: Path
    link: str = attrs.field(repr=False)


@contextlib.contextmanager
def started(url: str, *, host: str, port: int | None) -> Iterator[Start]:
    """Make a token for a server at `url`, and a link that can be used once; take both back at the end.

    `port` is None for a Unix socket, whose path is `host` then.
    """
    token, once = make_token(), secrets.token_urlsafe(32)
    note = running.note_of(host, port)
    note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = {"format": running.FORMAT, "url": url, "token": token, "pid": os.getpid()}
    _write_private(note, json.dumps(content))
    _write_private(_once_file(note), _digest(once).hex())
    try:
        yield Start(note, f"{url}/login?token={once}")
    finally:
        for file in (note, _once_file(note), failures_of(note)):
            file.unlink(missing_ok=True)


def use_once(note: Path, secret: str) -> bool:
    """Return whether a secret is the one of the link, which nobody used before, in no process; it is used up now."""
    file = _once_file(note)
    try:
        if not hmac.compare_digest(file.read_text(encoding="ascii"), _digest(secret).hex()):
            return False
        file.unlink()  # of several who got as far as this, one succeeds
    except OSError:
        return False
    return True


def failures_of(note: Path) -> Path:
    """Return the file in which the processes of a server share who showed wrong tokens."""
    return note.with_suffix(".failures")


def _once_file(note: Path) -> Path:
    return note.with_suffix(".once")


def _write_private(file: Path, text: str) -> None:
    """Write a file that was never readable by others, not even for a moment, whole or not at all."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(part, file)

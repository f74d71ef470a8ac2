"""Tokens: where a client finds the one for a server, and the file in which `mlcore login` keeps them.

The file is ``credentials.json`` in the user's config folder, for nobody else to read::

    {"format": 1, "tokens": {"https://mlcore.example.org": {"token": "mlc_..."}}}

A token goes to the server it was kept for and to no other: scheme, host, port and path are its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlcore import config
from mlcore.errors import ConfigError
from mlcore_remote import running
from mlcore_remote.addresses import Address, address_of

__all__ = ["check_token", "credentials_file", "forget", "known", "remember", "token_of_environment", "tokens_for"]
__all__ += ["withheld"]

_FORMAT = 1
_LONGEST = 4_096


def tokens_for(address: Address) -> Iterator[str]:
    """Yield the tokens for a server, the one to be tried first first: environment, login, server of this machine.

    Raises `ConfigError` if there is one that cannot be read, or that others could.
    """
    given = token_of_environment(address)
    if given is not None:
        yield given
        return
    kept = known().get(address.base)
    if kept is not None:
        yield kept
    own = running.token_of(f"http+unix://{quote(address.socket, safe='')}" if address.socket else address.base)
    if own is not None and own != kept:
        yield own


def token_of_environment(address: Address) -> str | None:
    """Return the token in MLCORE_TOKEN or in the file that MLCORE_TOKEN_FILE names, if it is meant for this server.

    It is meant for the store that the user configured. One that only a project's file names, which others wrote, gets
    none: whoever reads a stranger's repository should not send a token with it.
    """
    value, file = os.environ.get("MLCORE_TOKEN"), os.environ.get("MLCORE_TOKEN_FILE")
    if not (value or file) or withheld(address):
        return None
    if value:
        return check_token(value.strip(), "MLCORE_TOKEN")
    assert file is not None
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"MLCORE_TOKEN_FILE names {file}, which cannot be read: {error}") from error
    return check_token(text.strip(), f"MLCORE_TOKEN_FILE, which names {file},")


def withheld(address: Address) -> str:
    """Return why a token of the environment is not for this server, nothing if it is, or if there is none."""
    if not (os.environ.get("MLCORE_TOKEN") or os.environ.get("MLCORE_TOKEN_FILE")):
        return ""
    project = config.project_file()
    said = [each for each in config.settings("store") if _base(each.value) is not None]
    own = next((each for each in said if each.reason != f"set in {project}"), None)
    if own is not None:
        same = _base(own.value) == address.base
        return "" if same else f"the token of the environment is for {_base(own.value)} ({own.reason})"
    if any(_base(each.value) == address.base for each in said):
        return f"only {project} names this server, which gets no token of the environment: set MLCORE_STORE yourself"
    return ""


def _base(uri: str) -> str | None:
    if not uri.startswith("http"):
        return None
    try:
        return address_of(uri).base
    except ConfigError:
        return None


def check_token(token: str, where: str) -> str:
    """Return a token that may stand in a header. Raises `ConfigError`, which does not show it."""
    if not token or len(token) > _LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{where} holds no token: a token is one line of letters, digits and signs")
    return token


def credentials_file() -> Path:
    """Return the file of tokens, there or not."""
    return config.user_config() / "credentials.json"


def known() -> dict[str, str]:
    """Return the tokens that were kept, by the URL of their server. Raises `ConfigError`."""
    file = credentials_file()
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if os.name == "posix" and (stat.S_IMODE(about.st_mode) & 0o077 or about.st_uid not in (0, os.geteuid())):
            raise ConfigError(f"{file} is not yours alone: `chmod 600` it, and have new tokens made if others read it")
        return _parsed(file, stream.read(1 << 20))


def _parsed(file: Path, content: bytes) -> dict[str, str]:
    try:
        found: Any = json.loads(content)
        if found["format"] != _FORMAT:
            raise ConfigError(f"{file} was written by a newer mlcore: upgrade mlcore-remote, or remove it and log in")
        return {str(base): check_token(each["token"], str(file)) for base, each in found["tokens"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} is broken: remove it, and log in again") from error


def remember(address: Address, token: str) -> None:
    """Keep a token for a server. Raises `ConfigError`."""
    with _changed() as tokens:
        tokens[address.base] = check_token(token, "what was given")


def forget(address: Address) -> bool:
    """Forget the token of a server, and tell whether there was one. Raises `ConfigError`."""
    with _changed() as tokens:
        return tokens.pop(address.base, None) is not None


@contextlib.contextmanager
def _changed() -> Iterator[dict[str, str]]:
    file = credentials_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = known()
            before = dict(tokens)
            yield tokens
            if tokens != before:
                _write(file, tokens)
        finally:
            os.close(lock)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error


def _write(file: Path, tokens: Mapping[str, str]) -> None:
    """Write the whole file under another name, which never was readable by others, and put it in its place."""
    content = {"format": _FORMAT, "tokens": {base: {"token": each} for base, each in sorted(tokens.items())}}
    part = file.with_name(f".{file.name}.{os.urandom(8).hex()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=1) + "\n")
            stream.flush()
            os.fsync(descriptor)
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

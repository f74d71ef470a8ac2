"""What a server can be told: one field an option, from the command line, the environment or a file.

Every field is an option of ``mlcore server``, a variable ``MLCORE_SERVER_<FIELD>``, and ``MLCORE_SERVER_<FIELD>_FILE``
names a file that holds the value; the first of them that is given counts. A field that is `secret` is no option, as
anybody on the machine can read what stands in a command line; what is read from its file is a field of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore import config
from mlcore.errors import ConfigError

__all__ = ["AUTO", "PORT", "PREFIX", "Settings", "option"]

PORT = 5151  # not 5000, where AirPlay of macOS, Flask and MLflow meet
AUTO = "auto"  # the port, or the next one that is free
PREFIX = "MLCORE_SERVER_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def option(default: Any, text: str, *, secret: bool = False, metavar: str = "", parse: Any = None) -> Any:
    """Make a field of `Settings`.

    `text` is one sentence for ``--help``. `parse` makes the value of what was written; by default the type of `default`
    decides: a bool is a flag, a tuple a list with commas, an int a number.
    """
    parse = parse or {bool: _flag, tuple: _list, int: _number}.get(type(default), _text)
    about = {"help": text, "secret": secret, "metavar": metavar, "parse": parse}
    return attrs.field(default=default, metadata=about, repr=not secret)


def _text(text: str) -> str:
    return text


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _some(text: str) -> int:
    if not (found := _number(text)):
        raise ValueError("it is at least 1")
    return found


def _flag(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(f"{text!r} is neither 1 nor 0")
    return text.lower() in _TRUE


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _port(text: str) -> int | str:
    if text != AUTO and not (text.isdecimal() and int(text) < 1 << 16):
        raise ValueError(f"{text!r} is neither a port, 0 for any free one, nor {AUTO}")
    return AUTO if text == AUTO else int(text)


def _among(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return parse


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (not path.startswith("/") or any(char in path for char in "?#%;\\ ")):
        raise ValueError(f"{text!r} is no path such as /mlcore")
    return path


def _url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^/?#@\s]+/?", text):
        raise ValueError(f"{config.shown(text)!r} is no URL such as https://s3.example.org")
    return text.rstrip("/")


def _public(text: str) -> str:
    if config.shown(text) != text:
        raise ValueError("it has a password")
    return text


@attrs.frozen(kw_only=True)
class Settings:
    """Hold what a server was told; see `read`."""

    store: str = option("", "The store to serve; by default the one that `mlcore where` tells.", metavar="URI")
    artifacts: str = option("", "Where files of runs are kept; by default in the store's folder.", metavar="URI")
    no_direct: bool = option(False, "Pass all files on, also if clients could be sent to the bucket.")
    direct_size: int = option(
        8 << 20, "Bytes from which on clients move a file straight from and to the bucket.", metavar="BYTES"
    )
    direct_seconds: int = option(300, "Seconds for which a link to a file is good.", metavar="SECONDS", parse=_some)
    direct_endpoint: str = option(
        "", "The URL by which clients reach the bucket, if it is another one than the server's.", metavar="URL",
        parse=_url,
    )  # fmt: skip
    host: str = option("127.0.0.1", "The address to listen on.", metavar="ADDRESS")
    port: int | str = option(
        PORT, f"The port; 0 is any free one, `{AUTO}` {PORT} or the next free one.", metavar="PORT", parse=_port
    )
    unix_socket: str = option("", "Listen on a socket in the file system instead, for this user only.", metavar="PATH")
    workers: int = option(1, "How many processes answer.", metavar="N", parse=_some)
    root_path: str = option("", "The path below which a proxy shows the server.", metavar="PATH", parse=_root_path)
    allowed_hosts: tuple[str, ...] = option(
        (), "Names of this server, with commas; by default those of the address.", metavar="NAMES"
    )
    trusted_proxies: tuple[str, ...] = option(
        (), "Addresses of proxies whose X-Forwarded-For and -Proto are believed, with commas.", metavar="ADDRESSES"
    )
    read_only: bool = option(False, "Answer questions only.")
    no_token: bool = option(False, "Let everybody in who can connect; on this machine only.")
    token: str = option("", "Tokens that let in, as a token file has them.", secret=True)
    token_file: str = option(
        "", "Tokens that let in, one a line: TOKEN, NAME=TOKEN or NAME=TOKEN:read; read again when it changes.",
        metavar="FILE",
    )  # fmt: skip
    session_hours: int = option(12, "Hours for which a browser stays logged in.", metavar="HOURS")
    login_window: int = option(
        300, "Seconds in which an address may show five wrong tokens, and no more.", metavar="SECONDS"
    )
    rate_limit: int = option(
        10_000, "Requests a second that one client may make to one process; 0 is any number.", metavar="N"
    )
    audit_log: str = option("", "Append a line of JSON to this file for every change.", metavar="FILE")
    durability: str = option(
        "", "What an answer promises: `process` or `power`; by default what the store does.", metavar="LEVEL",
        parse=_among("process", "power"),
    )  # fmt: skip
    readers: int = option(8, "How many questions of one process are answered at once.", metavar="N", parse=_some)
    queue: int = option(4_096, "How many batches may wait to be stored.", metavar="N", parse=_some)
    max_body: int = option(64 << 20, "Bytes of a request that is no file.", metavar="BYTES", parse=_some)
    drain: int = option(30, "Seconds that requests may take to end when the server stops.", metavar="SECONDS")
    log_format: str = option(
        "text", "How logs are written to stderr: `text` or `json`.", metavar="FORMAT", parse=_among("text", "json")
    )
    log_level: str = option(
        "info", "`debug`, `info` (a line a request), `warning` or `error`.", metavar="LEVEL",
        parse=_among("debug", "info", "warning", "error"),
    )  # fmt: skip

    @classmethod
    def read(cls, given: Mapping[str, str | bool | None], environ: Mapping[str, str] | None = None) -> Settings:
        """Return the settings that options and environment make. Raises `ConfigError`, which never shows a secret.

        `given` has the options by name, None where one was not given.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for field in attrs.fields(cls):
            found = _found(field, given, environ)
            if found is not None:
                values[field.name], where = found
                try:
                    if isinstance(values[field.name], str):
                        values[field.name] = field.metadata["parse"](values[field.name])
                except ValueError as error:
                    raise ConfigError(f"{where}: {error}") from None
        return cls(**values)


def _found(
    field: Any, given: Mapping[str, str | bool | None], environ: Mapping[str, str]
) -> tuple[str | bool, str] | None:
    """Return the value of a field and where it stands, None if nobody gave one."""
    name, flag = field.name, f"--{field.name.replace('_', '-')}"
    value = given.get(name)
    if value is not None and not field.metadata["secret"]:
        if isinstance(value, str) and config.shown(value) != value:
            instead = f"{PREFIX}{name.upper()} or {PREFIX}{name.upper()}_FILE"
            raise ConfigError(f"{flag} has a password, which all on this machine can read: give it as {instead}")
        return value, flag
    variable = PREFIX + name.upper()
    if variable in environ:
        return environ[variable], variable
    if not field.metadata["secret"] and (path := environ.get(f"{variable}_FILE")):
        return _content(path, f"{variable}_FILE"), f"{variable}_FILE"
    return None


def _content(path: str, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {path} cannot be read: {getattr(error, 'strerror', error)}") from None

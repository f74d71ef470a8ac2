"""The user's own list of what models may run: ``trust.json`` in the user's configuration, never a repository's file."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mlcore.config import user_config
from mlcore.errors import InvalidValue, ModelError, NotFound

__all__ = ["SAVED", "distrust", "remember", "trust", "trusted"]

DIGEST = re.compile(r"[0-9a-f]{64}")
SAVED = "saved here"  # how the note of a model begins that this user saved
_KEPT = 10_000  # digests of models saved here: the latest


def trusted() -> dict[str, str]:
    """Return what the user trusts, patterns of names and digests of models, each with a note.

    Raises `ModelError` if the list cannot be read, or somebody else could have written it.
    """
    path = _path()
    try:
        with open(path, "rb") as file:
            about, data = os.fstat(file.fileno()), file.read()
        found = json.loads(data)["trusted"] if data else {}
        if not isinstance(found, dict) or not all(isinstance(note, str) for note in found.values()):
            raise TypeError("'trusted' is no map of notes")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}, your list of trust, cannot be read ({error}): repair or remove it") from error
    if os.name == "posix" and (about.st_uid not in (os.geteuid(), 0) or about.st_mode & 0o022):
        raise ModelError(f"{path} says nothing of your trust, since others can write it: make it yours, and chmod 600")
    return found


def trust(*entries: str, note: str = "") -> None:
    """Trust patterns of names, such as ``mypkg.*``, or digests of models, from now on."""
    for entry in entries:
        if not DIGEST.fullmatch(entry) and not re.fullmatch(r"[\w.*?\[\]!-]+", entry):
            raise InvalidValue(f"{entry!r} is neither a dotted name, such as 'mypkg.*', nor the digest of a model")
    with _changing() as found:
        found.update(dict.fromkeys(entries, note))


def distrust(*entries: str) -> None:
    """Trust these no longer. Raises `NotFound` if one was not trusted."""
    with _changing() as found:
        for entry in entries:
            if found.pop(entry, None) is None:
                raise NotFound(f"{entry!r} is not on your list of trusted names and digests")


def remember(digest: str, what: str) -> None:
    """Note the digest of a model saved by this user, so that it loads here; a list that cannot be kept is logged."""
    try:
        with _changing() as found:
            found.setdefault(digest, f"{SAVED}: {what}")
            mine = [entry for entry, note in found.items() if note.startswith(SAVED)]
            for entry in mine[:-_KEPT]:
                del found[entry]
    except (OSError, ModelError) as error:
        logging.getLogger("mlcore").warning("saved models are not noted as yours, and load only with trust: %s", error)


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, str]]:
    """Hold the list against other processes, then put the changed one in its place at once."""
    path = _path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "ab", opener=_private) as lock:
        with contextlib.suppress(ImportError, OSError):  # where there are no locks the last of two writers wins
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        found = trusted()
        yield found
        fresh = path.with_suffix(f".{os.urandom(8).hex()}.tmp")
        with open(fresh, "x", encoding="utf-8", opener=_private) as file:
            file.write(json.dumps({"format": 1, "trusted": found}, indent=1))
        os.replace(fresh, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _path() -> Path:
    return user_config() / "trust.json"

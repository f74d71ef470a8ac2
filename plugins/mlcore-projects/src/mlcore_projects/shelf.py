"""The place where environments are kept: who builds one, who uses it, what can go.

::

    ~/.cache/mlcore/environments/
    ├── <key>/               one environment
    │   ├── env/             what its kind made
    │   ├── wheels/          local packages as they were built
    │   ├── lock.txt         what is in it, as a file of requirements
    │   └── ok.json          written last: without it the rest is what a build left that was killed
    ├── <key>.lock           locked alone by who builds or removes it, shared by who uses it
    ├── making-<random>/     what is needed while one is made
    ├── pip-<hash>/          the pip of an interpreter, which fills environments of the kind venv
    └── resolved/<hash>.json what was wanted, where, and the lock that came of it

An environment is built where it stays, since its scripts name its own interpreter by the whole path. The lock of a file
(``flock``) belongs to all processes that inherited it, so that it is held until the last of an installer's is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from mlcore.config import user_cache
from mlcore_projects.locks import Lock, parse_lock

__all__ = ["Kept", "clear", "held", "hold", "kept", "let_go", "locked", "mark", "note", "noted", "prune"]
__all__ += ["remove", "root", "scratch", "sweep", "told", "tools", "touch"]

_OK = "ok.json"
_FORMAT = 1
_BESIDE = ("making-", "pip-", "resolved")  # what is no environment
_held: dict[str, int] = {}  # what this process uses: key -> file descriptor


@attrs.frozen
class Kept:
    """Describe an environment that is kept; times are seconds since 1970, `size` is in bytes.

    `used` is when somebody last asked for it, `busy` whether somebody uses or builds it now. One that is not
    `complete` was left by a build that was killed.
    """

    key: str
    folder: Path
    kind: str
    lock: Lock | None
    size: int
    made: float
    used: float
    busy: bool
    complete: bool


def root() -> Path:
    """Return the folder of all environments of this user."""
    return user_cache() / "environments"


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(path: Path, how: int) -> int:
    """Return a descriptor that holds the lock of a file which is still there when it is taken."""
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, how)
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(handle).st_ino:
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it removed it


@contextmanager
def locked(path: Path, waiting: Any = None) -> Iterator[int]:
    """Hold the lock of a file alone; `waiting` is called if somebody has it. Who inherits the descriptor has it too."""
    try:
        handle = _take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            waiting()
        handle = _take(path, fcntl.LOCK_EX)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock_file(key: str) -> Path:
    return root() / f"{key}.lock"


def hold(key: str) -> None:
    """Keep an environment from being removed or built until this process ends, or `let_go`."""
    if key not in _held:
        _held[key] = _take(_lock_file(key), fcntl.LOCK_SH)


def held(key: str) -> int:
    """Return a descriptor of its own that keeps an environment while it, or a copy in a child, is open."""
    hold(key)
    return os.dup(_held[key])


def let_go(key: str) -> None:
    """Use an environment no longer."""
    with suppress(KeyError):
        os.close(_held.pop(key))


def told(key: str) -> dict[str, Any] | None:
    """Return what was told of an environment when it was complete, or None if it is not."""
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((root() / key / _OK).read_bytes())
        if found.get("format") == _FORMAT:
            return found
    return None


def mark(key: str, kind: str, lock: Lock) -> None:
    """Say that an environment is complete; what was done before it is on disk before that is."""
    folder = root() / key
    (folder / "lock.txt").write_text(lock.text, encoding="utf-8")
    about = {"format": _FORMAT, "kind": kind, "made": time.time(), "size": _size(folder), "lock": lock.as_dict()}
    _write(folder / _OK, about)


def _write(path: Path, content: Any) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def touch(key: str) -> None:
    """Remember that somebody asked for an environment now."""
    with suppress(OSError):
        os.utime(root() / key / _OK)


def noted(name: str) -> Lock | None:
    """Return the lock that came of something wanted before, if it is remembered."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return parse_lock(json.loads((root() / "resolved" / f"{name}.json").read_bytes())["lock"])
    return None


def note(name: str, key: str, lock: Lock) -> None:
    """Remember what came of something wanted."""
    path = root() / "resolved" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, {"key": key, "lock": lock.as_dict()})


def _forget(keys: set[str]) -> None:
    """Forget what was wanted when an environment came of it that is no more."""
    for path in (root() / "resolved").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(path.read_bytes())["key"] in keys:
                with _alone(path.with_suffix(".lock")):
                    path.unlink()
                    path.with_suffix(".lock").unlink()


@contextmanager
def scratch() -> Iterator[tuple[Path, int]]:
    """Yield a folder that is gone afterwards, and the descriptor that tells it from one that was left behind."""
    folder = root() / f"making-{os.urandom(6).hex()}"
    with locked(folder / "lock") as handle:
        try:
            yield folder, handle
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove what was left by those who were killed while they made something."""
    with suppress(OSError):
        for path in list(root().iterdir()):
            if path.name.startswith("making-"):
                with suppress(OSError), _alone(path / "lock"):
                    shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and not path.name.startswith(_BESIDE) and told(path.name) is None:
                with suppress(OSError), _alone(_lock_file(path.name)):
                    if told(path.name) is None:
                        clear(path.name)
                        _lock_file(path.name).unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    handle = _take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(handle)


def clear(key: str) -> None:
    """Remove an environment that the caller has locked: its mark first, so that half of one is never taken for all."""
    folder = root() / key
    (folder / _OK).unlink(missing_ok=True)
    remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there. Raises `OSError` if some of it stays."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)  # and now say why not


def tools(platform: str, python: str) -> Path:
    """Return the folder for an installer of this interpreter's; it can go at any time, but while its lock is held."""
    name = hashlib.sha256(f"{platform} {python}".encode()).hexdigest()[:16]
    return root() / f"pip-{name}"


def kept() -> list[Kept]:
    """Return every environment that is here, the last used first."""
    try:
        folders = [each for each in root().iterdir() if each.is_dir() and not each.name.startswith(_BESIDE)]
    except FileNotFoundError:
        return []
    found = list[Kept]()
    for each in folders:
        with suppress(FileNotFoundError):  # removed just now
            found.append(_described(each))
    return sorted(found, key=lambda each: (-each.used, each.key))


def _described(folder: Path) -> Kept:
    about, busy = told(folder.name), _busy(folder.name)
    if about is None:
        changed = folder.stat().st_mtime
        return Kept(folder.name, folder, "", None, _size(folder), changed, changed, busy, complete=False)
    used = (folder / _OK).stat().st_mtime
    lock = parse_lock(about["lock"])
    return Kept(folder.name, folder, about["kind"], lock, about["size"], about["made"], used, busy, complete=True)


def _busy(key: str) -> bool:
    try:
        handle = os.open(_lock_file(key), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _size(folder: Path) -> int:
    """Return the bytes that a folder takes on disk; what is linked from a cache counts as often as it is linked."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                state = os.lstat(os.path.join(place, name))
                total += getattr(state, "st_blocks", state.st_size // 512) * 512
    return total


def prune(keys: Iterable[str], *, tools: bool = False) -> tuple[list[Kept], list[Kept]]:
    """Remove environments, but none that somebody uses; return those that are gone, and those that stay.

    With `tools` what fills environments goes, too.
    """
    wanted, gone, stay = set(keys), list[Kept](), list[Kept]()
    for each in kept():
        if each.key not in wanted:
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_alone(_lock_file(each.key)))
            except BlockingIOError:
                stay.append(each)
                continue
            clear(each.key)
            _lock_file(each.key).unlink(missing_ok=True)
            gone.append(each)
    _forget({each.key for each in gone})
    for folder in root().glob("pip-*/") if tools else ():
        with suppress(BlockingIOError), _alone(folder.with_suffix(".lock")):
            remove(folder)
            folder.with_suffix(".lock").unlink()
    sweep()
    return gone, stay

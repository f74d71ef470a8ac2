"""Trust: the one place that imports and unpickles what a model asks for, and the user's own list of what it may.

Names cover what is installed here, never the files that come with a model: whoever made the model chose those. They
take ``trust=True`` or a trusted digest, which cover everything. The list is ``trust.json`` in the user's configuration,
never a repository's file.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import json
import logging
import lzma
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from importlib import machinery, util
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from mlcore.config import user_config
from mlcore.errors import InvalidValue, ModelError, NotFound, Untrusted

__all__ = ["SAVED", "Trust", "distrust", "pickled_names", "remember", "trust", "trusted"]

_log = logging.getLogger("mlcore")
# What a pickle may always name: types that hold data, run nothing, and cannot be changed by a pickle, since they are
# C's. No Python class is here (a pickle can set its attributes for the whole process), nor numpy's dtype (a forged one
# makes numpy follow pointers that the file holds).
_DATA = {"collections.OrderedDict", "collections.defaultdict", "collections.deque"}
_DATA |= {f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")}
_DATA |= {f"builtins.{name}" for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int")}
_DATA |= {f"builtins.{name}" for name in ("list", "object", "range", "set", "slice", "str", "tuple")}
_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_COMPRESSED |= {b"\xfd7zXZ": lzma.open, b"]\0\0": lzma.open}
Trusting = bool | str | Iterable[str] | None
_importing = threading.RLock()


@attrs.define
class Trust:
    """Hold what the reader of one model trusts, and import and unpickle within it.

    `what` names the model in errors; `everything` lets it run all it asks for, its own files too; `names` are patterns
    of what it may import otherwise, such as ``mypkg.*``.
    """

    what: str = "this model"
    everything: bool = False
    names: tuple[str, ...] = ()
    _note: str = ""  # told once, when something first needs that trust

    @classmethod
    def of(cls, trust: Trusting = None, *, digest: str | None = None, what: str = "this model") -> Trust:
        """Return what `trust` means for the model with that digest.

        None is the user's own list, False nothing but data, True everything, and names or digests come on top of the
        user's own. Raises `InvalidValue` for anything else, `ModelError` if the user's list cannot be read.
        """
        if isinstance(trust, bool):
            return cls(what, everything=trust)
        given: list[Any] = [trust] if isinstance(trust, str) else list(trust or ())
        if not all(isinstance(each, str) and each.strip() for each in given):
            raise InvalidValue(f"trust={trust!r}: give True, a name such as 'mypkg.*', or a list of names")
        own = trusted()
        note = f"running code of {what}, as you trust {digest}: {own[digest]}" if digest in own else ""
        names = tuple(name for name in (*given, *own) if not DIGEST.fullmatch(name))
        return cls(what, bool(note) or digest in given, names, note)

    def allows(self, name: str) -> bool:
        """Tell whether a dotted name (a module, or something in one) may be imported."""
        forms = (name, f"{name}.")  # of the module `mypkg`, so that ``mypkg.*`` covers it, too
        return self.everything or any(fnmatchcase(form, pattern) for pattern in self.names for form in forms)

    def demand(self, what: str, *names: str) -> None:
        """Raise `Untrusted` unless all `names` are trusted, or everything if none is given. `what` says why."""
        missing = [name for name in dict.fromkeys(names) if not self.allows(name)]
        if self.everything or (names and not missing):
            note, self._note = self._note, ""
            return _log.warning(note) if note else None
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        listed = f" {', '.join(map(repr, missing[:10]))}{more}" if missing else ""  # repr: a stranger chose them
        by_name = f"trust=[{', '.join(map(repr, missing))}] allows just these names, " if 0 < len(missing) <= 10 else ""
        raise Untrusted(
            f"{self.what} would run code: {what}{listed}. If you know who made it: {by_name}trust=True all it asks "
            "for, and `mlcore trust add` a name or this model for good"
        )

    def import_module(self, name: str, folder: Path | None = None) -> ModuleType:
        """Import a module that a model names, from `folder`, the model's ``code/``, if it is there.

        Raises `Untrusted`, `ModelError` for what is no name, and what importing raises.
        """
        if type(name) is not str or not all(part.isidentifier() for part in name.split(".")):
            raise ModelError(f"{self.what} names a module {name!r}, which is no name of a module")
        self.demand("it imports", name)
        with self.code(folder) if folder else contextlib.nullcontext():
            return importlib.import_module(name)

    @contextlib.contextmanager
    def code(self, folder: Path) -> Iterator[None]:
        """Find modules in `folder`, the model's ``code/``, as long as this lasts; without full trust, never.

        The model gets its own modules where others are installed or imported under their names, and everybody else
        keeps theirs: they are put aside and brought back; ``sys.path`` stays as it is. What nobody else has can be
        imported afterwards too, for imports within functions. The standard library's names are its own.
        """
        if not self.everything or not folder.is_dir():
            yield
            return
        files = {path.name.partition(".")[0] for path in folder.iterdir()} - sys.stdlib_module_names
        names = frozenset(name for name in files if name.isidentifier() and not name.startswith("__"))
        finder = _Finder(folder, names)
        with _importing:
            shared = {name for name in names if name in sys.modules or util.find_spec(name)}
            aside = _take_out(shared)
            sys.meta_path.insert(0, finder)
            try:
                yield
            finally:
                sys.meta_path.remove(finder)
                _take_out(shared)
                sys.modules.update(aside)
                if finder not in sys.meta_path:
                    sys.meta_path.append(finder)

    def run(self, path: Path) -> ModuleType:
        """Run a script that came with the model, as a module of a name of its own. Raises `Untrusted`."""
        self.demand(f"it runs {path.name}")
        module = ModuleType(f"{path.stem}_{os.urandom(8).hex()}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # dataclasses and pickles look there
        exec(compile(path.read_bytes(), path, "exec"), vars(module))  # noqa: S102
        return module

    def unpickle(self, path: Path) -> Any:
        """Load a pickle, also one of cloudpickle's, compressed or not. Raises `Untrusted` before anything runs.

        Within names it is refused what it names beyond them, and also what turns out to be something else than its
        name says, such as ``mypkg.tools.os``. A file that exhausts memory is not caught.
        """
        if self.everything:
            self.demand("it unpickles", path.name)
        with _opened(path) as file:
            return pickle.load(file) if self.everything else _Restricted(file, self, path).load()  # noqa: S301


class _Restricted(pickle.Unpickler):
    """Resolve trusted names only, and only to what is called so where it is defined."""

    def __init__(self, file: Any, trust: Trust, path: Path) -> None:
        super().__init__(file)
        self.trust, self.path = trust, path

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked in _DATA:
            return super().find_class(module, name)
        if not self.trust.allows(asked):
            self.trust.demand("its pickle names", asked, *pickled_names(self.path))
        found = super().find_class(module, name)
        kind = found if isinstance(getattr(found, "__qualname__", None), str) else type(found)
        own = f"{kind.__module__}.{kind.__qualname__}"
        self.trust.demand(f"what its pickle calls {asked} is", own)
        return found


def pickled_names(path: Path) -> list[str]:
    """Return the names that a pickle would import, but for those of plain data, without importing any."""
    names: dict[str, None] = {}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            names[f"{module}.{name}"] = None
            return type("Stub", (_Stub,), {})

        persistent_load = _Stub

    with _opened(path) as file, contextlib.suppress(Exception):  # what cannot be read further names nothing further
        Reader(file).load()
    return [name for name in names if name not in _DATA]


class _Stub:
    """Stand for any class or function, and for its results, and do nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls)

    def nothing(self, *_: Any, **__: Any) -> Any:
        return self

    __call__ = __setitem__ = __setstate__ = add = append = extend = nothing


def _opened(path: Path) -> Any:
    """Open a file, decompressed if it was compressed, whatever its name says."""
    with open(path, "rb") as file:
        start = file.read(5)
    return next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), open)(path, "rb")


class _Source(machinery.SourceFileLoader):
    """Load source only: bytecode beside it has no digest that says it is the source's, and would change the model."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(path)


@attrs.frozen
class _Finder:
    """Find a model's modules in its folder, and nobody else's."""

    folder: Path
    names: frozenset[str]

    def find_spec(self, name: str, path: Any = None, _: Any = None) -> Any:
        place = Path(next(iter(path))) if path else self.folder
        parts = name.split(".")
        if parts[0] not in self.names or "__pycache__" in parts or not place.is_relative_to(self.folder):
            return None
        extensions = (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES)
        sources = (_Source, machinery.SOURCE_SUFFIXES)
        return machinery.FileFinder(str(place), extensions, sources).find_spec(name)


def _take_out(names: set[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}


# The user's own list

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
        _log.warning("saved models are not noted as yours, and load only with trust: %s", error)


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

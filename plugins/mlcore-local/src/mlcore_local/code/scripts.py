"""What code ran where there is no git: the script, the modules beside it, and the small files of its project."""

from __future__ import annotations

import copy
import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlcore.artifacts import safe_path
from mlcore.errors import DigestMismatch, MlcoreError, UnsafePath
from mlcore_local.code.places import Signs, entry_file, is_home, read_small, settled, signs_of
from mlcore_local.code.secrets import looks_secret
from mlcore_local.code.worktree import Limits, masked_bytes

__all__ = ["restore_script", "script_files", "tree_of"]

_PROJECT = ("MLproject", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "environment.yml", "conda.yaml")
_MARKS = {*(each.casefold() for each in _PROJECT), "python_env.yaml", "pixi.toml"}
_BESIDE = {
    "uv.lock",
    "pylock.toml",
    ".python-version",
    "poetry.lock",
    "pdm.lock",
    "makefile",
    "dockerfile",
    ".gitignore",
}
_CODE = {
    *(".py", ".pyi", ".ipynb", ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini", ".txt", ".sh", ".r", ".jl", ".lock"),
    *(".c", ".h", ".cpp", ".cu", ".md", ".rst", ".sql", ".jinja", ".j2", ".pyx", ".rs", ".go", ".js", ".ts"),
}
_NOT = {"__pycache__", "venv", "env", "node_modules", "site-packages", "mlruns", "wandb", "build", "dist"}
_DEEP, _SEEN = 6, 20_000
_last: tuple[Path, Signs, tuple[dict[str, Any], dict[str, bytes]]] | None = None  # what was found, of which files


def script_files(folder: Path, limits: Limits | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what becomes ``script.KEY`` of a run's context, and the files that are kept, by names in `folder`."""
    global _last  # noqa: PLW0603 - a process runs one script
    entry, began = entry_file(), time.time_ns()
    paths = tuple(dict.fromkeys(_candidates(folder, entry)))
    signs = signs_of(map(str, paths))
    if limits is None and _last is not None and _last[:2] == (folder, signs):
        return copy.deepcopy(_last[2])
    found = _found(folder, paths, entry, limits or Limits())
    _last = (folder, signs, copy.deepcopy(found)) if limits is None and settled(signs, began) else None
    return found


def _found(
    folder: Path, paths: Iterable[Path], entry: Path | None, limits: Limits
) -> tuple[dict[str, Any], dict[str, bytes]]:
    facts = dict[str, Any]()
    kept, left, masked, total = dict[str, bytes](), list[str](), list[str](), 0
    modes = dict[str, str]()
    for path in paths:
        name, limit = path.relative_to(folder).as_posix(), limits.changed_file if path == entry else limits.file
        try:
            safe_path(f".mlcore/code/{name}")
            if looks_secret(name):
                raise MlcoreError("its name says that it may hold secrets")
            data = read_small(path)
            if len(data) > limit or total + len(data) > limits.total or len(kept) >= limits.files:
                raise MlcoreError(f"its {len(data):,} bytes have no room: {limit:,} a file, {limits.total:,} in all")
            found = masked_bytes(data, name)
            if found is None:
                raise MlcoreError("it is no text, and something in it looks like a secret")
        except (OSError, MlcoreError) as error:
            left.append(f"{name}: {error}")
            continue
        kept[name], total = found[0], total + len(data)
        modes[name] = "100755" if os.access(path, os.X_OK) else "100644"
        masked += [f"{name}:{line}" for line in found[1]]
    if not kept:
        return {}, {}
    if entry is not None and entry.is_relative_to(folder):
        facts["entry"] = entry.relative_to(folder).as_posix()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(kept.items())}
    facts |= {"files": dict(list(digests.items())[: limits.listed]), "tree": tree_of(kept, modes)}
    programs = sorted(name for name, mode in modes.items() if mode == "100755")[: limits.listed]
    facts |= {key: value for key, value in (("left_out", left), ("masked", masked), ("programs", programs)) if value}
    return facts, kept


def _candidates(folder: Path, entry: Path | None) -> Iterator[Path]:
    """Yield the files that may be kept, the most important first."""
    if entry is not None and entry.is_relative_to(folder):
        yield entry
    for module in [*sys.modules.values()]:
        name = getattr(module, "__file__", None)
        if isinstance(name, str) and name.endswith(".py"):
            with suppress(OSError, ValueError, RuntimeError):
                if not Path(_real(os.path.dirname(name))).is_relative_to(folder):
                    continue
                path = Path(name).resolve()
                if path.is_relative_to(folder) and not _NOT.intersection(path.relative_to(folder).parts):
                    yield path
    if is_home(folder):
        return
    with suppress(OSError):
        beside = [path for path in sorted(folder.iterdir()) if path.name.casefold() in _MARKS | _BESIDE]
        yield from (path for path in beside if path.is_file() and not path.is_symlink())
        if any(path.name.casefold() in _MARKS for path in beside):
            yield from _walked(folder)


@lru_cache(4_096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _walked(folder: Path) -> Iterator[Path]:
    seen, waiting = 0, [(str(folder), 0)]
    while waiting and seen < _SEEN:
        here, depth = waiting.pop(0)
        try:
            entries = sorted(os.scandir(here), key=lambda each: each.name)
        except OSError:
            continue
        for each in entries:
            seen += 1
            hidden = each.name.startswith(".") or each.name in _NOT or each.name.endswith(".egg-info")
            if each.is_dir(follow_symlinks=False) and not hidden and depth < _DEEP:
                waiting.append((each.path, depth + 1))
            elif each.is_file(follow_symlinks=False) and not hidden and Path(each.name).suffix.casefold() in _CODE:
                yield Path(each.path)


def tree_of(files: Mapping[str, bytes], modes: Mapping[str, str]) -> str:
    """Return the id that git gives a tree of these files, by names with slashes."""
    below, entries = dict[str, dict[str, bytes]](), list[tuple[bytes, bytes]]()
    for name, data in files.items():
        first, slash, rest = name.partition("/")
        if slash:
            below.setdefault(first, {})[rest] = data
        else:
            mode = modes.get(name, "100644").encode()
            entries.append((os.fsencode(first), mode + b" " + os.fsencode(first) + b"\0" + _object(b"blob", data)))
    for first, inside in below.items():
        inner = {name.partition("/")[2]: mode for name, mode in modes.items() if name.startswith(f"{first}/")}
        id = bytes.fromhex(tree_of(inside, inner))
        entries.append((os.fsencode(first) + b"/", b"40000 " + os.fsencode(first) + b"\0" + id))
    return _object(b"tree", b"".join(entry for _, entry in sorted(entries))).hex()


def _object(kind: bytes, data: bytes) -> bytes:
    return hashlib.sha1(kind + b" %d\0" % len(data) + data, usedforsecurity=False).digest()


def restore_script(
    facts: Mapping[str, Any], names: Iterable[str], read: Callable[[str], bytes], made: Path
) -> list[str]:
    """Write the files that were kept into a folder. Raises `DigestMismatch` if they are not what ran."""
    files, modes = dict[str, bytes](), dict.fromkeys(facts.get("programs", ()), "100755")
    for name in names:
        files[name] = read(name)
        path = made / safe_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if ".git" in Path(name).parts:
            raise UnsafePath(f"{name!r} would be a part of a repository")
        path.write_bytes(files[name])
        if modes.get(name) == "100755":
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    tree = tree_of(files, modes)
    if tree != facts["tree"]:
        raise DigestMismatch(f"the files are not what ran: their tree is {tree}, and was {facts['tree']}")
    notes = ["there was no git: only the script, modules that it had imported and small files of its project were kept"]
    for key, told in (("masked", "secrets are masked in"), ("left_out", "was not kept:")):
        notes += [f"{told} {', '.join(facts[key][:5])}"] if facts.get(key) else []
    return notes

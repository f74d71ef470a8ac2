"""Packages that lie on this machine: their digest, and the wheel they are built to, away from where they lie."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mlcore_projects.locks import EnvironmentFailed, Pinned, normalized
from mlcore_projects.requirement_lines import Local

__all__ = ["SOURCE_DATE", "build_wheel", "digest", "read_wheel"]

SOURCE_DATE = "315532800"  # 1980-01-01, the first day that a zip archive knows: two builds have the same bytes
_LEFT_OUT = {
    *(".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".pytest_cache"),
    *(".ruff_cache", ".tox", ".nox", ".mlcore", "mlruns", ".eggs", ".ipynb_checkpoints", ".idea", ".vscode"),
}
_MADE = {"build", "dist"}  # at the top only, beside what says how to build
_LARGE = 1 << 20
# These ask the repository for the version, so that a copy without one cannot be built.
_ASKS_GIT = re.compile(
    r"setuptools[-_]scm|setuptools[-_]git|hatch-vcs|versioningit|versioneer|dynamic-versioning|source\s*=\s*\"scm\""
)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that a build may read, by their name inside; what builds and tools leave is none of them."""
    for root, folders, names in os.walk(folder):
        made = _MADE if root == str(folder) else set()
        folders[:] = sorted(
            each for each in folders if each not in _LEFT_OUT | made and not each.endswith(".egg-info")
            and not os.path.islink(os.path.join(root, each))
        )  # fmt: skip
        for name in sorted(names):
            path = Path(root, name)
            if not name.endswith((".pyc", ".pyo")) and path.is_file():
                yield os.path.relpath(path, folder), path


def digest(path: Path) -> str:
    """Return a digest of all that a build of this package reads; of large files their size and time stand for them.

    Raises `EnvironmentFailed` if it is no package, however large a folder it is.
    """
    _check(path)
    total = hashlib.sha256()
    for name, file in [("", path)] if path.is_file() else _files(path):
        state = file.stat()
        total.update(f"{name}\0{state.st_size}\0{state.st_mode & 0o111}\0".encode(errors="surrogateescape"))
        total.update(file.read_bytes() if state.st_size <= _LARGE else str(state.st_mtime_ns).encode())
    return total.hexdigest()


def _check(path: Path) -> None:
    if path.is_dir() and not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise EnvironmentFailed(f"{path} has neither pyproject.toml nor setup.py, so it is no package")


def build_wheel(local: Local, wheels: Path, folder: Path, build: Callable[[Path, Path], object]) -> Pinned:
    """Build a package to a wheel in the folder `wheels` and return its pin; a wheel is taken as it is.

    `build` is called with what to build and an empty folder for the wheel. It is given a copy, since builds leave
    files behind, unless the version is asked of the repository around it. `folder` is the project's.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    if local.path.suffix == ".whl":
        made = wheels / local.path.name
        shutil.copyfile(local.path, made)
        return read_wheel(made, _seen(local.path, folder))
    _check(local.path)
    inside = wheels.with_name(f"building-{len(list(wheels.iterdir()))}")
    inside.mkdir()
    try:
        source = _copy(local.path, inside / "source" / local.path.name) if _copied(local.path) else local.path
        build(source, inside / "made")
        found = sorted((inside / "made").glob("*.whl"))
        if len(found) != 1:
            raise EnvironmentFailed(f"{len(found)} wheels were made instead of one")
        return read_wheel(found[0].rename(wheels / found[0].name), _seen(local.path, folder))
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def read_wheel(file: Path, source: str) -> Pinned:
    """Return the pin of a wheel: name and version by its file's name, and the sha256 of what is in it."""
    name, version = file.name.split("-")[:2]
    with file.open("rb") as content:
        told = hashlib.file_digest(content, "sha256").hexdigest()
    return Pinned(normalized(name), version, (f"sha256:{told}",), wheel=file.name, source=source)


def _seen(path: Path, folder: Path) -> str:
    with suppress(ValueError):
        return os.path.relpath(path, folder)
    return str(path)  # another drive


def _copied(path: Path) -> bool:
    if path.is_file():
        return False
    with suppress(OSError):
        text = "".join((path / name).read_text() for name in ("pyproject.toml", "setup.py") if (path / name).is_file())
        return _ASKS_GIT.search(text) is None
    return False


def _copy(path: Path, copy: Path) -> Path:
    for name, file in _files(path):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy / name)
    return copy

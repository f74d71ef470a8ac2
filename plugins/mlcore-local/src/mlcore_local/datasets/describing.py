"""Describe a table, an array, a file or a folder, as `Run.log_dataset` asks for it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from mlcore import Dataset, Run, artifacts
from mlcore.errors import ArtifactNotFound
from mlcore_local.datasets.places import name_of, without_credentials

__all__ = ["describe_path", "describe_table"]

_FILES = 1_000  # that a profile names


def describe_table(
    data: Any, source: str | os.PathLike[str] | None = None, *, text: bool = False, keep: bool = False
) -> Dataset:
    """Describe a table, an array, or what scikit-learn loads; with `text` the profile counts values of text, too.

    `keep` keeps the data themselves, as Parquet or arrays of numpy. Raises `InvalidValue` for what has no digest.
    """
    from mlcore_local.datasets.columns import columns_of
    from mlcore_local.datasets.digests import digested
    from mlcore_local.datasets.profiles import PROFILED, profile_of

    columns = columns_of(data)
    found = digested(columns, PROFILED)
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}".removeprefix("builtins.")
    about = {"kind": kind, "rows": found.rows, "columns": len(columns), "bytes": found.bytes}

    def kept(run: Run, name: str) -> None:
        from mlcore_local.datasets.keeping import keep_table

        keep_table(run, name, data)

    name = getattr(data, "name", None)
    title = name if isinstance(name, str) and name else "data"
    place, profile = without_credentials(source), profile_of(columns, found, text=text)
    return Dataset(found.digest, about, title, source=place, profile=profile, keep=kept if keep else None)


def describe_path(
    data: str | os.PathLike[str], source: str | os.PathLike[str] | None = None, *, keep: bool = False
) -> Dataset:
    """Describe a file by its sha256, or a folder by those of all files below it; `data` may be the URI of either.

    Raises `ArtifactNotFound` if there is nothing.
    """
    filesystem, path = artifacts.open_backend(data)
    listed = artifacts.list_files(filesystem, path)
    found = dict(artifacts.hash_files(listed)) if listed else {}
    if not found and not filesystem.isdir(path):
        raise ArtifactNotFound(f"there is no file or folder {without_credentials(data)} to log")
    here = bool(getattr(filesystem, "local_file", False))
    title = name_of(os.path.abspath(path) if here else data) or "data"
    alone = len(found) == 1 and next(iter(found.values())).path.rstrip("/") == path.rstrip("/")
    if alone:
        found = {title: found.popitem()[1]}  # the name that a backend has for it may hold a signature
    lines = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(found.items()))
    digest = found[title].sha256 if alone else hashlib.sha256(lines.encode()).hexdigest()
    about = {"kind": "file" if alone else "folder", "files": len(found), "bytes": sum(f.size for f in found.values())}
    profile = {name: {"size": file.size, "digest": file.sha256} for name, file in sorted(found.items())[:_FILES]}

    def kept(run: Run, name: str) -> None:
        if here:
            run.log_artifact(Path(path), f"{name}/{title}" if alone else name)
            return
        with tempfile.TemporaryDirectory(prefix="mlcore-") as folder:
            artifacts.get(found, Path(folder))
            run.log_artifacts(folder, name)

    place = without_credentials(data if source is None else source)
    return Dataset(digest, about, title, source=place, profile=profile, keep=kept if keep else None)

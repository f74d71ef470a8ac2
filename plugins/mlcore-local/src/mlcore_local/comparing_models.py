"""Compare the models of two runs by what they learned: not by ids, times and addresses, which no two have alike."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from mlcore import LoggedModel, Run
from mlcore.errors import ArtifactError
from mlcore_local.differences import Change, changes

__all__ = ["ModelFiles", "file_changes", "model_changes"]

# of these the packages and the code of the run tell
_AROUND = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta"}
_AROUND |= {"model.sig", "sbom.cdx.json"}  # what says the same of the requirements and the files, in other words
_SCHEMA_BYTES = 64 << 20
_DIGITS = 12
_ADDRESS = re.compile(r"\d{12,}")


def model_changes(first: Run, second: Run) -> Iterator[Change]:
    """Yield the models that two runs do not have alike, by name, with the files that differ."""
    old, new = ({each.name: each for each in run.models} for run in (first, second))
    for change in changes(old, new, lambda one, other: one == other):
        one, other = old.get(change.name), new.get(change.name)
        if one is None or other is None or one.flavor != other.flavor:
            yield Change(change.name, change.kind, _shown(one), _shown(other))
        elif lines := tuple(_files(first, second, one, other)):
            yield Change(change.name, "changed", _shown(one), _shown(other), lines)


def _shown(model: LoggedModel | None) -> str | None:
    return None if model is None else f"{model.flavor} {model.digest[:12]}"


def _files(first: Run, second: Run, one: LoggedModel, other: LoggedModel) -> Iterator[str]:
    """Yield what files differ, of those that hold what was learned."""
    if one.digest != other.digest:
        files = (ModelFiles.of_run(run, model.name) for run, model in ((first, one), (second, other)))
        for change in file_changes(*files):
            yield f"file {change.name}" if change.kind == "changed" else f"file {change.name} {change.kind}"


@attrs.frozen
class ModelFiles:
    """Tell what files a model has: the sha256 of each by its path in the model, and how to get one of them."""

    found: Mapping[str, str]
    get: Callable[[str], Path]

    @classmethod
    def of_run(cls, run: Run, name: str) -> ModelFiles:
        """Return those of a model that a run keeps; nothing is fetched."""
        found = {each.path.removeprefix(f"{name}/"): each.sha256 for each in run.artifacts.list(name)}
        return cls(found, lambda path: run.artifacts.get(f"{name}/{path}"))

    def content(self, path: str) -> str:
        """Return the digest of a file, of an archive of skops that of what is in it."""
        if path.endswith(".skops"):
            with suppress(ArtifactError, zipfile.BadZipFile, KeyError, UnicodeDecodeError, OSError):
                return _archive(self.get(path))
        return self.found[path]


def file_changes(before: ModelFiles, after: ModelFiles) -> Iterator[Change]:
    """Yield what files two models do not have alike, of those that hold what was learned, with the starts of digests.

    What is told apart elsewhere, such as requirements, and what no two have alike, is not looked at.
    """
    old, new = ({name: name for name in files.found if name not in _AROUND} for files in (before, after))

    def alike(name: str, _: str) -> bool:
        return before.found[name] == after.found[name] or before.content(name) == after.content(name)

    for change in changes(old, new, alike):
        one, other = (files.found.get(change.name, "")[:_DIGITS] or None for files in (before, after))
        yield Change(change.name, change.kind, one, other)


def _archive(path: Path) -> str:
    """Return the digest of an archive whose schema names objects by their addresses in memory, with these counted."""
    state, seen = hashlib.sha256(), dict[str, str]()
    with zipfile.ZipFile(path) as opened:
        if opened.getinfo("schema.json").file_size > _SCHEMA_BYTES:
            raise KeyError("schema.json")
        schema = opened.read("schema.json").decode()
        state.update(_ADDRESS.sub(lambda found: seen.setdefault(found[0], f"#{len(seen)}"), schema).encode())
        for name in sorted(set(opened.namelist()) - {"schema.json"}, key=lambda name: seen.get(Path(name).stem, name)):
            state.update(b"\0" + seen.get(Path(name).stem, name).encode() + b"\0")
            with opened.open(name) as member:
                while chunk := member.read(1 << 20):
                    state.update(chunk)
    return state.hexdigest()

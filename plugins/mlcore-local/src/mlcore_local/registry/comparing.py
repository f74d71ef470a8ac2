"""Compare two versions of registered models: what they take and give, what they need, their files, and their runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs

import mlcore
from mlcore import Client, Run
from mlcore.errors import DigestMismatch, MlcoreError, NotFound
from mlcore.models import SIGNATURE, ModelInfo, Signature, read_model
from mlcore.registry import ModelVersion
from mlcore_local import comparing
from mlcore_local.comparing_models import ModelFiles, file_changes
from mlcore_local.differences import Change, Differences, changes

__all__ = ["PARTS", "VersionDifferences", "compare_versions"]

_OF_RUNS = tuple(part for part in comparing.PARTS if part != "models")
PARTS = ("model", "signature", "requirements", "files", *_OF_RUNS)
_MLMODEL, _REQUIREMENTS = "MLmodel", "requirements.txt"
_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(.*)")


@attrs.frozen
class VersionDifferences(Differences):
    """Hold what differs between two versions, `first` and `second` by their URIs: of themselves, and of their runs.

    Beside the parts of `Differences` there are ``model`` (the flavor and what was said of it), ``signature``,
    ``requirements`` and ``files``; of `models`, which these tell of, there is nothing.
    """

    model: tuple[Change, ...] = ()
    signature: tuple[Change, ...] = ()
    requirements: tuple[Change, ...] = ()
    files: tuple[Change, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts, in the order in which they are told."""
        return PARTS


def compare_versions(
    client: Client,
    first: ModelVersion,
    second: ModelVersion,
    *,
    tolerance: float = 0.0,
    within: Mapping[str, float] | None = None,
    ignore: Iterable[str] = (),
) -> VersionDifferences:
    """Return what differs between two versions, of one model or of two.

    Metrics, parameters, code, packages and data are those of the runs that they came from; `tolerance`, `within` and
    `ignore` are as for `mlcore_local.comparing.compare`. Of the files those count that hold what was learned.
    """
    patterns, unknown = tuple(ignore), list[str]()
    found: dict[str, Iterable[Change]] = _models(client, first, second, unknown)
    if first.run_id != second.run_id or first.run_id is None:
        runs = [_run(client, version, unknown) for version in (first, second)]
        if runs[0] is not None and runs[1] is not None:
            told = comparing.compare(
                runs[0], runs[1], tolerance=tolerance, within=within, ignore=patterns, client=client
            )
            found |= {part: getattr(told, part) for part in _OF_RUNS}
            unknown += told.unknown
    kept = {
        part: tuple(each for each in of if not any(fnmatchcase(f"{part}.{each.name}", it) for it in patterns))
        for part, of in found.items()
    }
    return VersionDifferences(first.uri, second.uri, **kept, unknown=tuple(unknown))


def _run(client: Client, version: ModelVersion, unknown: list[str]) -> Run | None:
    if version.run_id is None:
        unknown.append(f"runs: {version.uri} came of no run that is known")
        return None
    try:
        return client.get_run(version.run_id)
    except NotFound as error:
        unknown.append(f"runs: {version.uri}: {error}")
        return None


def _models(
    client: Client, first: ModelVersion, second: ModelVersion, unknown: list[str]
) -> dict[str, Iterable[Change]]:
    """Return what differs of the models themselves, nothing where their digests say that all is alike."""
    if first.digest and first.digest == second.digest:
        return {}
    found = []
    for version in (first, second):
        try:
            found.append(_Model.of(_files(client, version)))
        except (MlcoreError, OSError) as error:
            unknown.append(f"model: {version.uri}: {error}")
    if len(found) < 2:
        return {"model": list(changes({"flavor": first.flavor}, {"flavor": second.flavor}))}
    old, new = found
    signature = [*changes(old.signature, new.signature)]
    if not signature and list(old.signature) != list(new.signature):
        signature = [Change("inputs", lines=("the columns are in another order",))]
    return {
        "model": list(changes(old.about, new.about)),
        "signature": signature,
        "requirements": list(changes(old.requirements, new.requirements)),
        "files": list(file_changes(old.files, new.files)),
    }


@attrs.frozen
class _Model:
    files: ModelFiles
    about: dict[str, Any]
    signature: dict[str, str]
    requirements: dict[str, str]

    @classmethod
    def of(cls, files: ModelFiles) -> _Model:
        """Read what a model says of itself, and nothing else of its files."""
        info = read_model(files.get(_MLMODEL).parent)
        about = {"flavor": info.flavor, "needs_trust": sorted(info.needs_trust)}
        about |= {f"metadata.{key}": value for key, value in info.metadata.items()}
        return cls(files, about, _signature(info), _requirements(files))


def _files(client: Client, version: ModelVersion) -> ModelFiles:
    """Return the files of a version, of which none is fetched yet if a run keeps them. Raises `DigestMismatch`."""
    run_id, _, name = version.source.removeprefix("runs:/").partition("/")
    if version.source.startswith("runs:/") and name:
        files = ModelFiles.of_run(client.get_run(run_id), name)
        if not files.found:
            raise NotFound(f"run {run_id} has no files {name!r}")
        if version.digest and _digest(files.found) != version.digest:
            raise DigestMismatch(f"what is at {version.source} now is not what was registered")
        return files
    info = client.get_model(version.uri)
    info.verify()
    found = mlcore.artifacts.files_in(info.folder)
    return ModelFiles({name: _hashed(Path(path)) for name, path in found.items()}, lambda name: info.folder / name)


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: Mapping[str, str]) -> str:
    """Return what `mlcore.models.digest_of` returns of a folder with these files."""
    files = {name: each for name, each in files.items() if name != SIGNATURE}
    return hashlib.sha256(json.dumps(files, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _signature(info: ModelInfo) -> dict[str, str]:
    """Return what a model takes and gives: by names, where there are any, a type each."""
    signature = info.signature or Signature()
    found = dict[str, str]()
    for title, fields in attrs.asdict(signature, recurse=False).items():
        for at, each in enumerate(fields or ()):
            about = {key: value for key, value in each.items() if key != "name"}
            found[f"{title}.{each.get('name', at)}"] = _type(about)
    return found


def _type(about: dict[str, Any]) -> str:
    """Return a type in a word, if that is all there is to say, else as it is written."""
    if about.keys() <= {"type", "required"} and isinstance(about.get("type"), str):
        return f"{about['type']}{'' if about.get('required', True) else ', optional'}"
    if about.keys() == {"type", "tensor-spec"}:
        return f"tensor of {about['tensor-spec']['dtype']}, {about['tensor-spec']['shape']}"
    return json.dumps(about, sort_keys=True)


def _requirements(files: ModelFiles) -> dict[str, str]:
    """Return what a model needs, by name: the version, or what else is said of it."""
    if _REQUIREMENTS not in files.found:
        return {}
    found = dict[str, str]()
    for line in files.get(_REQUIREMENTS).read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.partition(" #")[0].strip()
        if text and not text.startswith("#"):
            named = _REQUIREMENT.fullmatch(text)
            found[named[1] if named else text] = named[2] if named else ""
    return found

"""The MLmodel file: what a folder says about the model in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from mlcore.artifacts import hash_folder, safe_path
from mlcore.errors import DigestMismatch, NotAModel, NotFound, UnsafePath
from mlcore.models._signature import Signature, load_example

__all__ = ["SIGNATURE", "ModelInfo", "digest_of", "file_inside", "read_model"]

MLMODEL = "MLmodel"
FORMAT = 1
BYTECODE = "__pycache__"  # MLflow leaves it where it imports from a model; here it is never read, and has no digest
SIGNATURE = "model.sig"  # of the other files, which are what they were before it was made
_LARGEST = 4_000_000  # bytes of an MLmodel file; the largest seen, with 5,000 columns, has 400,000


@attrs.frozen
class ModelInfo:
    """Show what a model's MLmodel file says. `raw` is all of it, keys that mlcore does not know among them."""

    folder: Path
    raw: Mapping[str, Any] = attrs.field(repr=False)
    uri: str = ""  # where it was logged or loaded from
    pinned: str = ""  # the digest that it must have, as it was registered
    version: Any = attrs.field(default=None, repr=False)  # of the registry, if that was asked for
    signers: Mapping[str, Sequence[str]] = attrs.field(factory=dict, repr=False)  # keys that its store requires

    @property
    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """What each flavor's reader needs, by its name; ``python_function`` is MLflow's generic reader."""
        return self.raw["flavors"]  # type: ignore[no-any-return]

    @property
    def flavor(self) -> str:
        """The name of the flavor that wrote the model: the first that is not generic."""
        return next((name for name in self.flavors if name != "python_function"), "python_function")

    @property
    def signature(self) -> Signature | None:
        """What goes in and comes out, None if that was not told. Raises `NotAModel`."""
        try:
            return Signature.from_mlmodel(self.raw["signature"]) if self.raw.get("signature") else None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise NotAModel(f"the signature in {self.folder / MLMODEL} cannot be read: {error}") from error

    @property
    def files(self) -> Mapping[str, str]:
        """The sha256 of every file but MLmodel, by its path in the folder; empty if mlcore did not save it."""
        return self._ours.get("files") or {}

    @property
    def needs_trust(self) -> tuple[str, ...]:
        """The names that a reader must trust; none if mlcore did not save the model."""
        return tuple(self._ours.get("needs_trust") or ())

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the user said about the model."""
        return self.raw.get("metadata") or {}

    @property
    def _ours(self) -> Mapping[str, Any]:
        found = self.raw.get("mlcore")
        return found if isinstance(found, Mapping) else {}

    def example(self) -> tuple[Any, Mapping[str, Any] | None]:
        """Return data and parameters of the example that was saved. Raises `NotFound` if there is none."""
        about = self.raw.get("saved_input_example_info")
        if not about:
            raise NotFound(f"model {self.folder} has no example: save it with input_example=")
        return load_example(self.folder, about, self.signature)

    def verify(self, hashed: Mapping[str, str] | None = None) -> str:
        """Return the model's digest; see `digest_of`. Raises `DigestMismatch` if a file is not as it was saved.

        `hashed` is the sha256 of every file, if that was computed just now.
        """
        found = _hashed(self.folder) if hashed is None else _covered(hashed)
        now = {name: digest for name, digest in found.items() if name != MLMODEL}
        wrong = [name for name in sorted(now.keys() | self.files.keys()) if now.get(name) != self.files.get(name)]
        if wrong and self.files:
            what = {name: "is missing" if name not in now else "was changed" for name in self.files}
            told = ", ".join(f"{name} {what.get(name, 'was added')}" for name in wrong)
            raise DigestMismatch(f"model {self.folder} is not what was saved: {told}")
        digest = _digest(found)
        if self.pinned and digest != self.pinned:
            raise DigestMismatch(f"{self.uri} is not what was registered: the files in {self.folder} were changed")
        return digest


def digest_of(folder: Path) -> str:
    """Return the digest of a model: the sha256 of the sorted JSON object of every file's path and sha256."""
    return _digest(_hashed(folder))


def file_inside(folder: Path, name: object) -> Path:
    """Return the path of a file of the model in `folder`, by the name that its MLmodel file gives.

    Raises `UnsafePath` for what leads out of it or is not covered by its digest, `NotAModel` if there is none.
    """
    path = folder / safe_path(str(name))
    if not path.resolve().is_relative_to(folder.resolve()) or BYTECODE in path.parts:
        raise UnsafePath(f"{folder / MLMODEL} names {name!r}, which is no file of the model")
    if not path.exists():
        raise NotAModel(f"{folder / MLMODEL} names {name!r}, and there is no such file")
    return path


def _hashed(folder: Path) -> dict[str, str]:
    return _covered(hash_folder(folder))


def _covered(files: Mapping[str, str]) -> dict[str, str]:
    return {name: each for name, each in files.items() if BYTECODE not in name.split("/") and name != SIGNATURE}


def _digest(files: Mapping[str, str]) -> str:
    return sha256(json.dumps(dict(files), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_model(folder: Path) -> ModelInfo:
    """Read what a folder says about its model, and import nothing for it. Raises `NotAModel`."""
    import yaml

    path = folder / MLMODEL
    try:
        if path.stat().st_size > _LARGEST:
            raise NotAModel(f"{path} has {path.stat().st_size:,} bytes, which no MLmodel file needs")
        raw = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (FileNotFoundError, NotADirectoryError):
        raise NotAModel(f"{folder} holds no model: there is no {MLMODEL} file in it") from None
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise NotAModel(f"{path} cannot be read: {error}") from error
    flavors = raw.get("flavors") if isinstance(raw, dict) else None
    if not isinstance(flavors, dict) or not flavors or not all(isinstance(each, dict) for each in flavors.values()):
        raise NotAModel(f"{path} names no flavors, so nothing can read the model")
    return ModelInfo(folder, raw)

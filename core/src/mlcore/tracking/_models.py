"""The models of a run: logged as files of it, and found by their URI."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

import mlcore  # its artifacts are imported when one is first asked for
from mlcore.config import OFF
from mlcore.errors import InvalidValue, NotAModel
from mlcore.store import AttributesSet
from mlcore.tracking._artifacts import Keeping, cached
from mlcore.tracking._thing import Listing, Viewed

if TYPE_CHECKING:
    from mlcore.models import Model, ModelInfo, Signature
    from mlcore.tracking._run import Run


@attrs.frozen(repr=False)
class LoggedModel(Viewed):
    """Tell of a model of a run: its `name` there, which flavor took it, its digest, and when it was logged, in ms."""

    name: str
    run_id: str
    id: str
    flavor: str
    digest: str
    time: int

    @property
    def uri(self) -> str:
        """The URI to load it by."""
        return f"runs:/{self.run_id}/{self.name}"

    def _view(self) -> dict[str, Any]:
        return {"uri": self.uri, "flavor": self.flavor, "digest": self.digest, "time": self.time}


class Modelling(Keeping):
    """Log models to a run, and list them."""

    def log_model(
        self,
        /,
        model: Any,
        name: str,
        *,
        input_example: Any = None,
        signature: Signature | None = None,
        flavor: str | None = None,
        requirements: str | Path | Sequence[str] | None = None,
        code: Sequence[str | os.PathLike[str]] = (),
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LoggedModel:
        """Save a model and keep it with the run under `name`; everything else is as in `mlcore.save_model`."""
        import tempfile
        import uuid

        from mlcore.models import save_model

        options |= {"flavor": flavor, "requirements": requirements, "code": code, "metadata": metadata}
        options |= {"input_example": input_example, "signature": signature}
        id, now = f"m-{uuid.uuid4().hex}", int(time.time() * 1000)
        about = {"run_id": self.id, "artifact_path": mlcore.artifacts.safe_path(name), "model_id": id}
        if self._backend.uri == OFF:
            return LoggedModel(name, self.id, id, flavor or "", "", now)
        with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
            info = save_model(model, Path(place, "model"), about=about, **options)
            logged = LoggedModel(name, self.id, id, info.flavor, info.verify(), now)
            self.log_artifacts(info.folder, name)
        kept = attrs.asdict(logged, filter=attrs.filters.exclude("name", "run_id"))
        self._write(AttributesSet("run", self.id, "models", {name: kept}))
        return logged

    @property
    def models(self) -> Listing[LoggedModel]:
        """The models that were logged, the latest of each name."""
        kept = self._now().attributes.get("models", {})
        return Listing(LoggedModel(name, self.id, **about) for name, about in sorted(kept.items()))


class Loading:
    """Find models by their URI, for a client."""

    if TYPE_CHECKING:

        def get_run(self, id: str) -> Run: ...

    def get_model(self, uri: str | os.PathLike[str]) -> ModelInfo:
        """Return what a model says of itself, and import nothing for it; see `load_model`. Raises `NotAModel`."""
        from mlcore.models import read_model

        return attrs.evolve(read_model(self._folder(os.fspath(uri))), uri=os.fspath(uri))

    def load_model(
        self, uri: str | os.PathLike[str], *, trust: bool | str | Iterable[str] | None = None, flavor: str | None = None
    ) -> Model:
        """Load a model from a path, ``runs:/RUN/NAME``, or the URI of a folder that an artifact backend reads.

        What is only data is loaded always. Code is run if you saved the model yourself on this machine, or if `trust`
        is True, or names all that it needs, as ``["mypkg.*"]``. `flavor` reads it as another of the flavors it has.
        Raises `NotAModel`, `Untrusted`, `DigestMismatch` or `NotInstalled`.
        """
        from mlcore.models import load_folder

        return load_folder(self.get_model(uri), trust=trust, flavor=flavor)

    def _folder(self, uri: str) -> Path:
        """Return a folder on this machine with what a URI names."""
        if uri.startswith("runs:/"):
            id, _, name = uri.removeprefix("runs:/").strip("/").partition("/")
            if not name:
                raise InvalidValue(f"{uri!r} names no model: give runs:/RUN/NAME")
            return self.get_run(id).artifacts.get(name)
        filesystem, path = mlcore.artifacts.open_backend(uri)
        if getattr(filesystem, "local_file", False):
            return Path(path)
        found = mlcore.artifacts.hash_files(mlcore.artifacts.list_files(filesystem, path))
        if not found:
            raise NotAModel(f"there is nothing at {uri}")
        folder = cached(found)
        mlcore.artifacts.get(found, folder)
        return folder

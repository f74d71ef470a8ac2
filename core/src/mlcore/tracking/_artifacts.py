"""The files of a run, and the models among them: what is kept with it, and how it is got back."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

import mlcore  # its artifacts are imported when one is first asked for
from mlcore import _log, journal, plugins
from mlcore._value import Value
from mlcore.config import OFF, user_cache
from mlcore.errors import (
    ArtifactError,
    ArtifactNotFound,
    DigestMismatch,
    InvalidValue,
    MlcoreError,
    NotAModel,
    NotFound,
    StoreError,
)
from mlcore.store import AttributesSet, Created, Event, Updated
from mlcore.tracking._active import active_run
from mlcore.tracking._plain import as_json, portions
from mlcore.tracking._thing import Listing, Thing, Viewed

if TYPE_CHECKING:
    from mlcore.models import Model, ModelInfo, Signature
    from mlcore.tracking._backend import Backend
    from mlcore.tracking._registered import ModelVersion
    from mlcore.tracking._registry import Registry
    from mlcore.tracking._run import Run

__all__ = ["Artifact", "Artifacts", "Dataset", "LoggedModel"]  # for mlcore, which is an index

_Path = str | os.PathLike[str]
_ELSEWHERE = r"(?s)(https?|s3a?|gc?s|az|abfss?|adl|oci|oss|hf)://((?!::).)*"  # not on this machine


@attrs.frozen(eq=False, repr=False)
class Artifact(Viewed, Value):
    """Tell of one file of a run: its `path` among them, `size` in bytes and `sha256`.

    `uri` is where it lies if it was not copied, `problem` what `Artifacts.verify` found.
    """

    path: str
    size: int
    sha256: str
    uri: str | None = None
    problem: str | None = None

    def _view(self) -> dict[str, Any]:
        return {name: each for name, each in attrs.asdict(self).items() if each is not None}


@attrs.frozen(eq=False, repr=False)
class LoggedModel(Viewed, Value):
    """Tell of a model of a run: its `name` there, which flavor took it, its digest, and when it was logged, in ms."""

    name: str
    run_id: str
    id: str
    flavor: str
    digest: str
    time: int
    version: ModelVersion | None = None  # of the registry, where it was registered as it was logged

    @property
    def uri(self) -> str:
        """The URI to load it by."""
        return f"runs:/{self.run_id}/{self.name}"

    def _view(self) -> dict[str, Any]:
        return {"uri": self.uri, "flavor": self.flavor, "digest": self.digest, "time": self.time}


@attrs.frozen(eq=False, repr=False)
class Dataset(Viewed):
    """Tell of data by a `digest` that only the same data have, and in plain JSON: `about` all of them, and a `profile`.

    `name`, `source` and `context` say what they are called, where they are from, and what a run used them for. `keep`
    keeps them among the files of a run, below a name, if whoever logs them asks for that.
    """

    digest: str
    about: Mapping[str, Any]
    name: str = "data"
    context: str = ""
    source: str | None = None
    profile: Mapping[str, Any] = attrs.field(factory=dict)
    keep: Callable[[Any, str], object] | None = None

    def _view(self) -> dict[str, Any]:
        return {"name": self.name, "context": self.context, **self.about, "source": self.source, "digest": self.digest}


class Artifacts:
    """The files of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return repr(self.list())

    def list(self, prefix: str = "") -> Listing[Artifact]:
        """Return the file of that name, or those in that folder; by default all but mlcore's own, in ``.mlcore``."""
        kept, prefix = self._run._now().attributes.get("artifacts", {}), prefix.rstrip("/")
        own = prefix or ".mlcore"
        below = sorted(name for name in kept if name.startswith(f"{own}/") == bool(prefix))
        return Listing(_artifact(name, kept[name]) for name in ([prefix] if prefix in kept else below))

    def get(self, name: str = "", dst: _Path | None = None) -> Path:
        """Return the local path of a file, or of a folder with what the run has in it, checked by sha256.

        A file is copied to `dst`, or into it if that is a folder; of a folder the content. Without `dst` what lies on
        this machine is not copied, so do not change it; what does not is copied into the user's cache.
        Raises `ArtifactNotFound`, `DigestMismatch`, `UnsafePath` or another `ArtifactError`.
        """
        if self._run._backend.uri == OFF:
            return Path(name if dst is None else dst)
        name = name.rstrip("/")
        found = self._files(name)
        single = name in found
        start = name.rfind("/") + 1 if single else len(name) + bool(name)
        files = {path[start:]: file for path, file in found.items()}
        bases = {_base(*each) for each in files.items()}
        if dst is None and len(bases) == 1 and "" not in bases:
            if wrong := mlcore.artifacts.check(files):
                told = "; ".join(f"{path} {problem}" for path, problem in wrong.items())
                raise DigestMismatch(f"run {self._run.id}: {told}")
            return Path(bases.pop(), name[start:])
        if dst is None:
            folder = cached(files)
        else:
            folder = Path(dst)
            if single and not folder.is_dir():
                files, folder = {folder.name: found[name]}, folder.parent
            mlcore.artifacts.get(files, folder)
        return folder / next(iter(files)) if single else folder

    def open(self, name: str) -> BinaryIO:
        """Open a file where it is, to read its bytes, unchecked. Raises `ArtifactNotFound`."""
        if self._run._backend.uri == OFF:
            return BytesIO()
        found = self._files(name)
        if name not in found:
            raise ArtifactError(f"{name!r} of run {self._run.id} is a folder: open one of {', '.join(found)}")
        return mlcore.artifacts.open_file(found[name])

    def verify(self) -> Listing[Artifact]:
        """Read every file, and return those that are missing or not what was stored, each with its `problem`."""
        found = [*self.list(), *self.list(".mlcore")]
        wrong = mlcore.artifacts.check(self._opened(found))
        return Listing(attrs.evolve(each, problem=wrong[each.path]) for each in found if each.path in wrong)

    def _files(self, name: str) -> dict[str, mlcore.artifacts.File]:
        if name and not self.list(name):
            others = [each.path for each in self.list()]
            told = ", ".join([*others[:10], *["..."] * (len(others) > 10)]) or "none"
            raise ArtifactNotFound(f"run {self._run.id} has no file {name!r}; it has {told}")
        found = self._opened(self.list(name))
        for file in found.values():
            if isinstance(file.filesystem, _Refused):
                raise file.filesystem.error  # before anything of the others is read, or a place for them made
        return found

    def _opened(self, found: Iterable[Artifact]) -> dict[str, mlcore.artifacts.File]:
        files, opened = dict[str, mlcore.artifacts.File](), cache(mlcore.artifacts.open_backend)
        for each in found:
            try:
                filesystem, root = opened(self._run._allowed(each.uri) if each.uri else self._run._place)
            except mlcore.errors.UnsafePath as error:
                filesystem, root = _Refused(error), each.uri or ""  # which who opens it is told
            path = root if each.uri else mlcore.artifacts.path_in(filesystem, root, each.path)
            files[each.path] = mlcore.artifacts.File(filesystem, path, each.size, each.sha256)
        return files


class Keeping(Thing):
    """Keep files and models of a run: first the file, then the record of it, so that none is without its file."""

    folder: Any
    _sink: Any

    def log_artifact(self, path: _Path, name: str | None = None) -> None:
        """Keep a copy of a file, as `name` or under its own; of a folder, see `log_artifacts`, that is its prefix.

        What had the name before is replaced. Raises `UnsafePath`, `ArtifactNotFound` or another `ArtifactError`.
        """
        source = Path(path)
        name = source.name or source.resolve().name if name is None else name
        if source.is_dir():
            return self.log_artifacts(source, name)
        return self._keep({name: source})

    def log_artifacts(self, folder: _Path, prefix: str = "") -> None:
        """Keep a copy of every file in a folder, under `prefix`; links in it must not lead out of it."""
        root = self._backend.root
        if root is not None and root.resolve().is_relative_to(Path(folder).resolve()):
            raise ArtifactError(f"{folder} holds the store itself: log a folder inside it that does not")
        found = mlcore.artifacts.files_in(folder)
        self._keep({f"{prefix}/{name}" if prefix else name: path for name, path in found.items()})

    def log_bytes(self, data: Any, name: str) -> None:
        """Keep bytes, or what has a buffer of them, as a file."""
        self._keep({name: memoryview(data).tobytes()})

    def log_text(self, text: str, name: str) -> None:
        """Keep text as a file, in UTF-8."""
        if not isinstance(text, str):
            raise InvalidValue(f"{name!r:.80}: {type(text).__name__} {text!r:.80} is no text")
        self._keep({name: text.encode()})

    def log_dict(self, obj: Any, name: str) -> None:
        """Keep a dict, or another value, as JSON, or as YAML if the name ends in ``.yaml`` or ``.yml``."""
        if name.endswith((".yaml", ".yml")):
            import yaml

            return self.log_text(yaml.safe_dump(as_json(obj), sort_keys=False, allow_unicode=True), name)
        return self.log_text(json.dumps(as_json(obj), indent=2, ensure_ascii=False) + "\n", name)

    def log_figure(self, figure: Any, name: str) -> None:
        """Keep a figure of matplotlib, plotly or their like, in the format that the end of `name` says."""
        _, dot, ending = name.rpartition(".")
        if hasattr(figure, "write_html") and ending == "html":
            text = StringIO()
            figure.write_html(text)
            return self.log_text(text.getvalue(), name)
        draw = getattr(figure, "savefig", None) or getattr(figure, "write_image", None)
        if draw is None:
            raise InvalidValue(f"{type(figure).__name__} is no figure: it has neither savefig nor write_image")
        data = BytesIO()
        draw(data, format=ending if dot else None)
        return self.log_bytes(data.getvalue(), name)

    def log_reference(self, uri: _Path, name: str | None = None) -> None:
        """Record where a file, or every file of a folder, lies, with size and sha256, and copy nothing."""
        if self._backend.uri == OFF:
            return
        filesystem, path = mlcore.artifacts.open_backend(uri)
        text, path = os.fspath(uri).rstrip("/"), path.rstrip("/")
        head, *rest = (text if "://" in text else path).split("::")
        name = head.rpartition("/")[2] if name is None else name
        found, records = mlcore.artifacts.hash_files(mlcore.artifacts.list_files(filesystem, path)), {}
        for short, file in found.items():
            inner = "" if file.path.rstrip("/") == path else f"/{short}"
            whole = {**_record(file), "uri": "::".join([head + inner, *rest])}
            records[mlcore.artifacts.safe_path(name + inner)] = whole
        if not found:
            raise ArtifactNotFound(f"there is no file {uri}")
        self._note(records)

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
        code: Sequence[_Path] = (),
        metadata: Mapping[str, Any] | None = None,
        register: str | None = None,
        **options: Any,
    ) -> LoggedModel:
        """Save a model and keep it with the run under `name`; everything else is as in `mlcore.save_model`.

        With `register` it becomes a version of that model in the registry; where that cannot be reached, a warning says
        how to register it later.
        """
        import tempfile

        from mlcore.models import save_model

        if register is not None:
            from mlcore.tracking._model_uris import check_model_name

            check_model_name(register)  # before anything is kept
        options |= {"flavor": flavor, "requirements": requirements, "code": code, "metadata": metadata}
        options |= {"input_example": input_example, "signature": signature}
        id, now = f"m-{os.urandom(16).hex()}", int(time.time() * 1000)
        about = {"run_id": self.id, "artifact_path": mlcore.artifacts.safe_path(name), "model_id": id}
        if self._backend.uri == OFF:
            logged = LoggedModel(name, self.id, id, flavor or "", "", now)
            return logged if register is None else attrs.evolve(logged, version=self._registered(logged, register))
        with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
            info = save_model(model, Path(place, "model"), about=about, **options)
            logged = LoggedModel(name, self.id, id, info.flavor, info.verify(), now)
            found = mlcore.artifacts.files_in(info.folder)
            self._keep({f"{name}/{inner}": path for inner, path in found.items()}, passing=True)
        kept = attrs.asdict(logged, filter=attrs.filters.exclude("name", "run_id", "version"))
        self._write(AttributesSet("run", self.id, "models", {name: kept}))
        return logged if register is None else attrs.evolve(logged, version=self._registered(logged, register))

    def _registered(self, logged: LoggedModel, name: str) -> ModelVersion | None:
        from mlcore.tracking._registry import Registry

        try:
            return Registry(self._backend).add(name, described(logged))
        except MlcoreError as error:  # training goes on
            from shlex import quote

            told = f"`mlcore registry register {logged.uri} {quote(name)}` does it later"
            _log.warning("the model is logged, and not registered: %s; %s", error, told)
        return None

    def log_dataset(
        self, /, data: Any, name: str | None = None, *, source: Any = None, context: str = "", **options: Any
    ) -> Dataset:
        """Record which data the run used, by a digest and a profile; the data themselves only with `keep=True`.

        `data` are a table, an array, what scikit-learn loads, or the path of a file or folder. `context` says what they
        were used for, such as ``"train"``, `source` where they are from; what `options` there are depends on the data.
        Raises `InvalidValue`, or `NotInstalled` for data that nothing here describes.
        """
        if self._backend.uri == OFF:
            return Dataset("", {}, name or "data", context)
        found: Dataset = plugins.load("datasets", plugins.nearest("datasets", data))(data, source=source, **options)
        found = attrs.evolve(found, name=journal.check_key(name or found.name), context=context)
        if found.keep is not None:
            found.keep(self, f"datasets/{found.name}")
        parts = enumerate(portions(found.profile))  # a value each: in order, and little for an index to keep
        profile = (AttributesSet("dataset", found.digest, "profile", {str(at): part}) for at, part in parts)
        key = f"{found.name}/{context}/{found.digest[:16]}"  # other data that had the name before were used as well
        kept = attrs.asdict(found, filter=attrs.filters.exclude("profile", "keep"))
        uses = AttributesSet("run", self.id, "datasets", {key: kept})
        self._write(Created("dataset", found.digest, fields=found.about), *profile, uses)
        return found

    @property
    def datasets(self) -> Listing[Dataset]:
        """The data that were logged, by name, with their profiles."""
        kept = [each for _, each in sorted(self._now().attributes.get("datasets", {}).items())]
        known = (self._backend.get("dataset", each["digest"]) for each in kept)
        parts = (entity.attributes.get("profile", {}) if entity else {} for entity in known)
        profiles = ({key: each for at in sorted(of, key=int) for key, each in of[at].items()} for of in parts)
        return Listing(Dataset(**each, profile=profile) for each, profile in zip(kept, profiles, strict=True))

    @property
    def models(self) -> Listing[LoggedModel]:
        """The models that were logged, the latest of each name."""
        kept = self._now().attributes.get("models", {})
        return Listing(LoggedModel(name, self.id, **about) for name, about in sorted(kept.items()))

    def _keep(self, sources: Mapping[str, Any], passing: bool = False) -> None:
        """Keep files; of those that are `passing` nothing is left where they are."""
        if self._backend.uri == OFF:
            for name in sources:
                mlcore.artifacts.safe_path(name)
            return None
        if self._live and self._backend.spools_files():
            return self._note(self._backend.spool.keep(self.id, sources, passing))
        place = self._place
        stored = mlcore.artifacts.put(*mlcore.artifacts.open_backend(place), sources)
        return self._note({name: _record(file) for name, file in stored.items()}, place)

    def _told_place(self) -> str:
        """Return where the files go, after it was recorded, for what brings them there later."""
        place = self._place
        if place not in (self._own_place(), self._now().fields.get("artifacts")):
            self._backend.edit([Updated("run", self.id, {"artifacts": place})])
        return place

    def _note(self, records: Mapping[str, Any], place: str = "") -> None:
        events: list[Event] = [AttributesSet("run", self.id, "artifacts", part) for part in portions(records)]
        if place and place != self._own_place():  # what lies in the run's folder moves with it
            events.append(Updated("run", self.id, {"artifacts": place}))
        before = self._sink.dropped if self._live else 0
        self._write(*events)
        if self._live and self._sink.dropped > before and self._backend.spool is None:
            raise StoreError(f"run {self.id}: files were stored, and not recorded: {self._sink.reason}")

    @cached_property
    def _place(self) -> str:
        """Where the run's files are, or go."""
        entity, chosen, own = self._now(), self._backend.artifacts, self._own_place()
        # a store may make up ids
        inner = mlcore.artifacts.safe_path(f"{entity.parent or 0}/{self.id}/artifacts")
        place = entity.fields.get("artifacts") and self._allowed(str(entity.fields["artifacts"]))
        kept = entity.attributes.get("artifacts", {}).values()
        here = own and not all(
            isinstance(each, dict) and "uri" in each for each in kept
        )  # what is elsewhere is not here
        if place is None and chosen is not None and not here:
            place = f"{chosen.value.rstrip('/')}/{inner}"
        if not (place or own):
            remedy = "say where they go, as a path or URI, in MLCORE_ARTIFACTS or Client(uri, artifacts=...)"
            raise ArtifactError(f"store {self._backend.name} keeps no files: {remedy}")
        return str(place or own)

    def _own_place(self) -> str:
        if self.folder is not None:
            return str(self.folder / "artifacts")
        place = getattr(self._backend.store(), "place", None)  # of a server, which keeps files as well
        return str(place(self.id)) if place else ""

    def _allowed(self, uri: str) -> str:
        return allowed(self._backend, uri, f"run {self.id}")


def allowed(backend: Backend, uri: str, who: str) -> str:
    """Return where a store says that files are. Raises `UnsafePath` if others wrote it, and it may mean ours."""
    known = re.fullmatch(_ELSEWHERE, uri) or (
        backend.artifacts and f"{uri}/".startswith(f"{backend.artifacts.value.rstrip('/')}/")
    )
    if (not known or ".." in uri) and not getattr(backend.store(), "trusted_paths", True):
        told = f"{who}: the server says that files are at {uri!r:.200}, which may be on this machine"
        raise mlcore.errors.UnsafePath(f"{told}: if that is right, set MLCORE_ARTIFACTS to the folder above it")
    return uri


class Loading:
    """Find models by their URI, for a client."""

    if TYPE_CHECKING:

        @property
        def registry(self) -> Registry: ...

        def get_run(self, id: str) -> Run: ...

    def get_model(self, uri: str | os.PathLike[str]) -> ModelInfo:
        """Return what a model says of itself, and import nothing for it; see `load_model`. Raises `NotAModel`."""
        return self._checked(uri)[0]

    def _checked(self, uri: _Path) -> tuple[ModelInfo, Mapping[str, str] | None]:
        """Return what a model says of itself, and the sha256s of its files if its signature had to be checked."""
        from mlcore.models import check_signed, read_model

        keys = self._signers(uri)
        _, folder, version = self.find_model(uri)
        hashed = check_signed(folder, keys)
        info = attrs.evolve(read_model(folder), uri=os.fspath(uri), signers=keys)
        return (attrs.evolve(info, pinned=version.digest, version=version) if version else info), hashed

    def _signers(self, uri: _Path) -> dict[str, list[str]]:
        inside = os.fspath(uri).startswith(("models:/", "runs:/"))  # of the store, which has no say about other models
        keys = [str(each["key"]) for each in self.registry.signers.values()] if inside else []
        return {f"store {self.registry._backend.name}": keys} if keys else {}

    def signers_of(self, uri: _Path) -> dict[str, list[str]]:
        """Return the public keys of which a model must be signed by one, in PEM, by who requires that."""
        from mlcore.models import user_signers

        return {**self._signers(uri), **user_signers()}

    def find_model(self, uri: _Path) -> tuple[str, Path, ModelVersion | None]:
        """Return where a model lies, a folder on this machine with its files, and its version; nothing of it is read.

        A version's place is no ``models:/`` URI. Raises `NotFound`, `UnsafePath` or another `MlcoreError`.
        """
        text = os.fspath(uri)
        version = self.registry.version(text) if text.startswith("models:/") else None
        if version is not None and (version.deleted or version.model.deleted):
            what = version.uri if version.deleted else f"model {version.name!r}"
            raise NotFound(f"{text} is not loaded: {what} is deleted; restore it, or choose another")
        source = version.source if version else text
        if (
            version
            and not source.startswith("runs:/")
            and not (version.digest and source.startswith("/") and "::" not in source)
        ):
            allowed(self.registry._backend, source, version.uri)  # a path whose files have the digest is as good as any
        return source, self._folder(source), version

    def register_model(
        self,
        uri: str | os.PathLike[str],
        name: str,
        *,
        description: str = "",
        tags: Mapping[str, Any] | None = None,
        aliases: str | Iterable[str] = (),
    ) -> ModelVersion:
        """Make a version of the model `name` in the registry; see `Registry.register`."""
        return self.registry.register(os.fspath(uri), name, description=description, tags=tags, aliases=aliases)

    def load_model(
        self,
        /,
        uri: str | os.PathLike[str],
        *,
        trust: bool | str | Iterable[str] | None = None,
        flavor: str | None = None,
        **options: Any,
    ) -> Model:
        """Load a model from a path, ``runs:/RUN/NAME``, or the URI of a folder that an artifact backend reads.

        ``models:/NAME/3``, ``models:/NAME@alias``, ``models:/NAME/Production`` and ``models:/NAME/latest`` are versions
        of the registry; an active run remembers that it used one, or a model of another run.
        What is only data is loaded always. Code is run if you saved the model yourself on this machine, or if `trust`
        is True, or names all that it needs, as ``["mypkg.*"]``. `flavor` reads it as another of the flavors it has, and
        `options` are its own.
        Raises `NotAModel`, `Untrusted`, `DigestMismatch`, `NotInstalled`, or `BadSignature` if one is required.
        """
        from mlcore.models import load_folder

        info, hashed = self._checked(uri)
        model = load_folder(info, trust=trust, flavor=flavor, hashed=hashed, **options)
        if (run := active_run()) is not None and info.uri.startswith(("models:/", "runs:/")):
            if (version := info.version) is not None:
                key, used = version.id, {"uri": info.uri, "version": version.uri, "digest": version.digest}
            else:  # of what is no model of a run, nothing is hashed once more
                about = self._described(info.uri) if info.uri.startswith("runs:/") else {"source": info.uri, **info.raw}
                key, used = about.get("model_id"), {"uri": about["source"], "digest": about.get("digest", "")}
            run.log_events(AttributesSet("run", run.id, "used", {str(key or used["uri"]): used}))
        return model

    def _described(self, uri: str) -> dict[str, Any]:
        """Return what the registry keeps of a model: where it lies, its digest, and where it came from."""
        if uri.startswith("models:/"):
            found = self.registry.version(uri)
            names = ("source", "digest", "flavor", "run_id", "model_id")
            return {"parent_version": found.id, **{name: getattr(found, name) for name in names}}
        run_id, _, name = uri.removeprefix("runs:/").strip("/").partition("/")
        run = self.get_run(run_id) if uri.startswith("runs:/") and name else None
        if logged := [each for each in run.models if each.name == name] if run else []:
            return described(logged[0])
        if self.registry._backend.uri == OFF:
            return {"source": uri}
        info = self.get_model(uri)
        local = "://" not in uri and run is None
        source = f"runs:/{run.id}/{name}" if run else str(info.folder) if local else uri
        about = {"source": source, "digest": info.verify(), "flavor": info.flavor}
        return {**about, "run_id": run.id if run else info.raw.get("run_id"), "model_id": info.raw.get("model_id")}

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
        return cached(found)


@attrs.frozen(eq=False, repr=False)
class _Refused:
    error: Exception

    def open(self, *_: Any) -> BinaryIO:
        raise self.error


def described(logged: LoggedModel) -> dict[str, Any]:
    """Return what the registry keeps of a model that was logged."""
    about = {"digest": logged.digest, "flavor": logged.flavor, "run_id": logged.run_id, "model_id": logged.id}
    return {"source": logged.uri, **about}


def _record(file: mlcore.artifacts.File) -> dict[str, Any]:
    return {"sha256": file.sha256, "size": file.size}


def _artifact(path: str, value: Any) -> Artifact:
    """Read a record, which may be of any make: what it lacks fits no file."""
    known = value if isinstance(value, Mapping) else {}
    size = known["size"] if isinstance(known.get("size"), int) else 0
    return Artifact(path, size, str(known.get("sha256") or "unknown"), known.get("uri") and str(known["uri"]))


def _base(name: str, file: mlcore.artifacts.File) -> str:
    """Return the folder on this machine in which `file` has that name, empty if there is none."""
    here = getattr(file.filesystem, "local_file", False) and file.path.endswith(f"/{name}")
    return file.path.removesuffix(f"/{name}") if here else ""


def cached(files: Mapping[str, mlcore.artifacts.File]) -> Path:
    """Return a folder of the user's cache with these files; what is not there yet is got."""
    filesystem, folder = mlcore.artifacts.open_backend(user_cache() / "artifacts")
    return Path(filesystem.cached(folder, files))

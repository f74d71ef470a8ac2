"""Save, load and ask scikit-learn estimators: as skops archives where a reader can load them, else as cloudpickle."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore.errors import InvalidValue, ModelError
from mlcore.models import Flavor, Saved, Trust, file_inside, read_model
from mlcore_sklearn import archives, inputs, pickles

__all__ = ["Sklearn", "method_of"]

_log = logging.getLogger("mlcore")
# What a prediction may be, in the order in which a model is asked for it when nobody says.
_ASKED = ("predict", "transform")
_OFFERED = (
    *("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples"),
    *("predict_joint_log_proba", "inverse_transform", "kneighbors", "apply"),
)
# What MLflow's reader hands on; for the rest the model brings a loader of its own.
_MLFLOW = ("predict", "predict_log_proba", "predict_joint_log_proba", "predict_proba", "score")


class Sklearn(Flavor):
    """Save any estimator or pipeline of scikit-learn, and of libraries that keep to its conventions.

    Options of `save`: ``predict_fn`` names the method that predicts (default ``predict``, else ``transform``) and
    ``serialization`` is ``"skops"`` or ``"cloudpickle"`` (default skops, and cloudpickle with a warning where skops
    cannot hold the model or no reader could load it).
    """

    name = "sklearn"

    def __init__(self) -> None:
        self._generic: str | None = None  # what MLflow's generic reader asks, if this is told nothing

    def save(
        self,
        model: Any,
        folder: Path,
        *,
        example: Any = None,  # noqa: ARG002 - nothing here depends on the data
        predict_fn: str | None = None,
        serialization: str | None = None,
        **options: Any,
    ) -> Saved:
        """Write `model` as ``model.skops`` or ``model.pkl``.

        Raises `ModelError` if it has no such method, or if `serialization` asks for what cannot be done.
        """
        import sklearn

        if options:
            raise InvalidValue(f"flavor sklearn takes no {', '.join(options)}: it takes predict_fn and serialization")
        if serialization not in {None, "skops", "cloudpickle"}:
            raise InvalidValue(f"serialization is 'skops' or 'cloudpickle', not {serialization!r}")
        method = method_of(model, predict_fn)
        _warn_unless_fitted(model)
        code = folder / "code"
        kept = _as_archive(model, folder, code) if serialization == "skops" else None
        if serialization is None:
            try:
                kept = _as_archive(model, folder, code)
            except ModelError as error:
                _log.warning("saved with cloudpickle, which readers must trust: %s", error)
        kept = kept or _as_pickle(model, folder, code)
        loader = "mlflow.sklearn" if method in _MLFLOW else inputs.write_loader(code)
        frames = ("pandas",) if hasattr(model, "feature_names_in_") else ()
        return attrs.evolve(
            kept,
            requirements=(*kept.requirements, *frames),
            config={**kept.config, "sklearn_version": sklearn.__version__, "predict_fn": method},
            python_function={"loader_module": loader, "model_path": kept.config["pickled_model"], "predict_fn": method},
        )

    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        """Read the archive against the reader's trust, or the pickle through it."""
        if "predict_fn" not in config:
            self._generic = read_model(folder).flavors.get("python_function", {}).get("predict_fn")
        path = file_inside(folder, config.get("pickled_model", "model.pkl"))
        kind = config.get("serialization_format") or "pickle"  # what MLflow wrote before it wrote this
        if kind == "skops":
            return archives.read(path, trust, folder / "code")
        if kind in {"pickle", "cloudpickle"}:
            with trust.code(folder / "code"):
                return trust.unpickle(path)
        raise ModelError(f"{path}: serialization_format is {kind!r}; this reads skops, cloudpickle and pickle")

    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        """Return a function that asks the model's method, with columns by their names and params as its arguments."""
        name = method_of(model, config.get("predict_fn", self._generic))
        method = getattr(model, name)

        def predict(data: Any, params: Mapping[str, Any]) -> Any:
            if params:
                _need_parameters(f"{_kind(model)}.{name}", method, params)
            return method(inputs.as_fitted(model, data), **params)

        return predict


def method_of(model: Any, name: str | None = None) -> str:
    """Return the name of the method that predicts. Raises `ModelError` with those it has."""
    for each in _ASKED if name is None else (name,):
        if callable(getattr(model, each, None)) and not each.startswith("fit"):
            return each
    has = ", ".join(each for each in _OFFERED if callable(getattr(model, each, None)))
    asked = " or ".join(_ASKED) if name is None else name
    also = " only fits and predicts at once, so there is nothing to load" if not has else f" has {has}"
    raise ModelError(f"a {_kind(model)} has no {asked} for new data; it{also}; choose one with predict_fn=")


def _need_parameters(name: str, method: Callable[..., Any], params: Mapping[str, Any]) -> None:
    takes = inspect.signature(method).parameters
    for each in params:
        if each not in takes and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
            raise InvalidValue(f"{name} takes no parameter {each!r}; it takes {', '.join(takes)}")


def _as_archive(model: object, folder: Path, code: Path) -> Saved:
    try:
        written = archives.write(model, folder / "model.skops", code)
    except archives.Unreadable as error:
        raise ModelError(f"skops cannot hold this {_kind(model)}: {error}") from error
    config = {
        "pickled_model": "model.skops",
        "serialization_format": "skops",
        # MLflow trusts what the model says, and asks nobody; what its skops distrusts depends on the version.
        "skops_trusted_types": list(written.distrusted) or None,
    }
    return Saved(config, None, written.modules, ("scikit-learn", "skops"), written.needs_trust)


def _as_pickle(model: object, folder: Path, code: Path) -> Saved:
    modules, names = pickles.write(model, folder / "model.pkl", code)
    config = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    return Saved(config, None, modules, ("scikit-learn", "cloudpickle"), names)


def _kind(model: object) -> str:
    return type(model).__qualname__


def _warn_unless_fitted(model: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        _log.warning("this %s is not fitted: fit it before it is saved, or it will not predict", _kind(model))
    except TypeError:
        return  # what is no estimator to scikit-learn cannot be asked

"""The flavor of Python code: functions, `mlcore.PythonModel` and scripts."""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from mlcore import PythonModel
from mlcore.errors import InvalidValue, ModelError
from mlcore.models import Flavor, Saved, Trust, file_inside, pickled_names
from mlcore_python import loader, standin
from mlcore_python.hints import signature_of

__all__ = ["PythonFunction"]

LOADER = "mlcore_loader_"
PICKLE, SCRIPT, ARTIFACTS = "model.pkl", "model.py", "artifacts"


class PythonFunction(Flavor):
    """Save functions and instances of classes as cloudpickle's pickles, and scripts as their source."""

    name = "python_function"

    def __init__(self) -> None:
        self._written: tuple[Any, Path] | None = None

    def save(
        self,
        model: Any,
        folder: Path,
        *,
        example: Any = None,  # noqa: ARG002 - nothing here depends on the data
        artifacts: Mapping[str, str | Path] | None = None,
        **options: Any,
    ) -> Saved:
        """Write `model`, with the files and folders of `artifacts` as ``artifacts/NAME/``.

        What an importable module defines is saved as its name, everything else (``__main__``, lambdas, what is
        defined within functions) as its code.
        """
        if options:
            raise InvalidValue(f"the flavor {self.name} knows no option {', '.join(options)}; it knows artifacts")
        config: dict[str, Any] = {"loader_module": _write_loader(folder), "code": "code"}
        self._written, signature = (model, folder), None
        if isinstance(model, str | Path):
            config["model_code_path"] = SCRIPT
            modules, needs = _write_script(Path(model), folder / SCRIPT), [SCRIPT]
        else:
            config["python_model"] = PICKLE
            config["cloudpickle_version"] = cloudpickle.__version__
            modules = _write_pickle(model, folder / PICKLE)
            needs = pickled_names(folder / PICKLE)
            modules |= {name.partition(".")[0] for name in needs}
            signature = signature_of(getattr(model, "predict", model))
        if artifacts:
            config["artifacts"] = {
                name: {"path": _copy(name, Path(source), folder)} for name, source in artifacts.items()
            }
        modules -= {*sys.stdlib_module_names, "__main__"}
        return Saved(
            config,
            python_function=config,
            modules=tuple(sorted(modules)),
            needs_trust=tuple(needs),
            signature=signature,
        )

    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        """Load the model, and give it its artifacts; what others saved is left to the loader that they name."""
        name = str(config.get("loader_module") or "")
        if not name.startswith(LOADER):
            return _load_by(name, folder, config, trust)
        if "model_code_path" in config:
            module = trust.run(file_inside(folder, config["model_code_path"]))
            model = module.model if hasattr(module, "model") else module.predict
        else:
            model = trust.unpickle(file_inside(folder, config.get("python_model", PICKLE)))
        if hasattr(model, "load"):
            files = config.get("artifacts", {}).items()
            model.load({key: file_inside(folder, about["path"]) for key, about in files})
        return model

    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        """Return a function that passes parameters on as ``params``, or by their names to a model that takes those.

        Of the model just saved it is the copy on disk that is asked, so that what does not load is told when saving.
        """
        if self._written is not None and self._written[0] is model:
            _, folder = self._written
            trust = Trust.of(True, what="the model just saved")
            with trust.code(folder / "code"):
                model = self.load(folder, config, trust)
        predict = getattr(model, config.get("predict_fn", "predict"), model)
        whole = "params" in inspect.signature(predict).parameters

        def call(data: Any, params: Mapping[str, Any]) -> Any:
            return predict(data, params=dict(params)) if whole else predict(data, **params)

        return call


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Note the modules that pickled code uses, and make do without mlcore in the reader."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.modules = set[str]()

    def reducer_override(self, obj: Any) -> Any:
        if obj is PythonModel:
            return standin.python_model, ()
        if isinstance(obj, ModuleType):
            self.modules.add(obj.__name__.partition(".")[0])
        if isinstance(obj, FunctionType) and obj is not standin.python_model:
            self.modules.update(_imported(obj.__code__))
        return super().reducer_override(obj)


def _write_pickle(model: Any, path: Path) -> set[str]:
    cloudpickle.register_pickle_by_value(standin)
    try:
        with open(path, "wb") as file:
            pickler = _Pickler(file)
            pickler.dump(model)
    except OSError:
        raise  # a full disk is none of the model's doing
    except Exception as error:
        raise ModelError(
            f"{type(model).__qualname__} cannot be pickled ({type(error).__name__}: {error}): make what cannot be in "
            "PythonModel.load, or save a script that makes the model"
        ) from error
    return pickler.modules


def _write_script(script: Path, target: Path) -> set[str]:
    try:
        tree = ast.parse(script.read_bytes(), filename=str(script))
    except (OSError, SyntaxError, ValueError) as error:
        raise ModelError(f"{script} is no Python script that can be saved as a model: {error}") from error
    if not {"model", "predict"} & set(_defined(tree)):
        raise ModelError(f"{script} defines neither `model = ...` nor `def predict(data, params=None)`: add one")
    shutil.copyfile(script, target)
    nodes = list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in found}


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield what a script binds on its top level, within ``if`` and ``with`` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


def _write_loader(folder: Path) -> str:
    """Write the module by which MLflow loads the model, named for its content: one process may load many models."""
    source = inspect.getsource(loader)
    name = f"{LOADER}{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / f"{name}.py").write_text(source, encoding="utf-8")
    return name


def _copy(name: str, source: Path, folder: Path) -> str:
    if not name or name.strip(".") != name or set(name) & set("/\\:\0"):
        raise ModelError(f"the artifact {name!r} has no name that can be a folder's")
    target = folder / ARTIFACTS / name / source.resolve().name
    target.parent.mkdir(parents=True)
    try:
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    except OSError as error:
        raise ModelError(f"the artifact {name!r}, {source}, cannot be copied: {error}") from error
    return target.relative_to(folder).as_posix()


def _imported(code: CodeType) -> set[str]:
    """Return the top-level modules that code imports when it runs, in the functions within it too."""
    found = {
        str(each.argval).partition(".")[0]
        for each in dis.get_instructions(code)
        if each.opname == "IMPORT_NAME" and each.argval
    }
    return found.union(*(_imported(each) for each in code.co_consts if isinstance(each, CodeType)))


def _load_by(name: str, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
    """Load by the module that the model names, as MLflow does."""
    trust.demand("it is loaded by", f"{name}._load_pyfunc")
    load = getattr(trust.import_module(name), "_load_pyfunc", None)
    if load is None:
        raise ModelError(f"the model is to be loaded by {name}, which has no _load_pyfunc")
    path = str(file_inside(folder, config["data"]) if config.get("data") else folder)
    return load(path, config["config"]) if config.get("config") else load(path)

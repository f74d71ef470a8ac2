"""Saving a model: a flavor writes its files, and this all that stands around them, with the environment it needs.

What is needed is found in what is installed: no subprocess, no import.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata as installed
from pathlib import Path
from typing import Any

from mlcore import plugins
from mlcore.artifacts import hash_folder
from mlcore.errors import InvalidValue, MlcoreError, ModelError
from mlcore.models._flavor import PYTHON_FUNCTION, Flavor, Saved, flavor_for
from mlcore.models._mlmodel import FORMAT, MLMODEL, ModelInfo, digest_of, read_model
from mlcore.models._signature import Signature, infer_signature, save_example
from mlcore.models._trust import remember

__all__ = ["distribution_of", "save_model"]

_log = logging.getLogger("mlcore")

_PYTHON = ".".join(map(str, sys.version_info[:3]))  # of three parts: some readers insist
_FILES = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
_ENVIRONMENT = {"env": _FILES, "python_version": _PYTHON}  # for generic readers


def save_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    signature: Signature | None = None,
    flavor: str | None = None,
    requirements: str | Path | Sequence[str] | None = None,
    code: Sequence[str | os.PathLike[str]] = (),
    metadata: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    **options: Any,
) -> ModelInfo:
    """Save a model as the folder `path`, in MLflow's MLmodel format; the folder appears whole or not at all.

    `input_example` is kept with the model, and predicted: what goes in and comes out makes the `signature` if none is
    given. A tuple of data and a dict is an example with parameters. `requirements` is a list, or the path of a
    requirements.txt; by default what the model's modules come from is found. `code` are files and folders that the
    model imports. `metadata` is free. `options` are the flavor's; `about` adds top-level keys to the MLmodel file.
    Raises `ModelError`, `NotInstalled` if no flavor takes the model, or `InvalidValue`.
    """
    taker = flavor_for(model, flavor)
    given = None if requirements is None else _given_requirements(requirements)
    shown = input_example is not None
    pair = isinstance(input_example, tuple) and len(input_example) == 2 and isinstance(input_example[1], Mapping)
    data, params = input_example if pair else (input_example, None)
    with _made_whole(Path(path).absolute()) as folder:
        _copy_code(code, folder)
        taker.params = params
        try:
            saved = taker.save(model, folder, example=data, **options)
        except TypeError as error:
            if options and "unexpected keyword" in str(error):
                raise InvalidValue(f"flavor {taker.name} takes no such option: {error}") from error
            raise
        if signature is None and shown:
            signature = _predicted(taker, model, saved, data, params)
        signature = signature or saved.signature
        content = {
            **(about or {}),
            "flavors": _flavors(taker.name, saved, folder),
            "metadata": dict(metadata or {}),
            "signature": signature and signature.to_mlmodel(),
            "saved_input_example_info": save_example(folder, data, params) if shown else None,
        }
        if given is None:
            given = _infer_requirements(saved, folder / "code", data)
        _write_environment(folder, given)
        _write_others(folder, str((about or {}).get("artifact_path") or Path(path).name), given)
        _write_mlmodel(folder, content, taker.name, saved)
        logged = about and f"runs:/{about.get('run_id')}/{about.get('artifact_path')}"
        remember(digest_of(folder), logged or str(path))
    return read_model(Path(path).absolute())


def _predicted(taker: Flavor, model: Any, saved: Saved, data: Any, params: Any) -> Signature | None:
    """Return the signature that predicting the example shows, None if it fails."""
    try:
        return infer_signature(data, taker.predictor(model, saved.config)(data, params or {}), params)
    except Exception as error:  # noqa: BLE001 - a model trained for hours is saved all the same
        reason = str(error) if isinstance(error, MlcoreError) else f"{type(error).__name__}: {error}"
        _log.warning("the model is saved without a signature: it cannot predict its example: %s", reason)
        return None


def _flavors(name: str, saved: Saved, folder: Path) -> dict[str, Any]:
    """Return the flavors of the MLmodel file: the flavor's own, and what is for every generic reader."""
    generic = saved.config if name == PYTHON_FUNCTION else saved.python_function
    code = {"code": "code"} if (folder / "code").is_dir() else {}
    found = {} if name == PYTHON_FUNCTION else {name: {**saved.config, **code}}
    if generic is not None:
        found[PYTHON_FUNCTION] = {**generic, **code, **_ENVIRONMENT}
    return found


def _copy_code(code: Sequence[str | os.PathLike[str]], folder: Path) -> None:
    if isinstance(code, str | os.PathLike):
        raise InvalidValue(f"code is a list of files and folders, not {code!r}")
    for each in map(Path, code):
        target = folder / "code" / each.resolve().name
        target.parent.mkdir(exist_ok=True)
        if target.exists() or not each.exists():
            raise InvalidValue(f"code: {each} {'is given twice' if target.exists() else 'is not there'}")
        if each.is_dir():
            shutil.copytree(each, target, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        else:
            shutil.copyfile(each, target)


def _write_others(folder: Path, name: str, requirements: Sequence[str]) -> None:
    """Let plugins add files; a model is saved without those that fail."""
    for provider in sorted(plugins.provided("model_files")):
        try:
            plugins.load("model_files", provider)(folder, name, requirements)
        except Exception:  # noqa: BLE001 - a model trained for hours is saved all the same
            _log.warning("the model is saved without what %s adds", provider, exc_info=True)


def _write_mlmodel(folder: Path, content: dict[str, Any], name: str, saved: Saved) -> None:
    import yaml

    from mlcore import __version__

    ours = {"format": FORMAT, "version": __version__, "flavor": name, "needs_trust": list(saved.needs_trust)}
    content |= {
        "model_uuid": uuid.uuid4().hex,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "model_size_bytes": sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()),
        "mlcore": {**ours, "files": hash_folder(folder)},
    }
    kept = {key: value for key, value in content.items() if value not in (None, {})}
    try:
        text = yaml.dump(kept, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)
    except yaml.YAMLError as error:
        raise InvalidValue(f"metadata must be plain values, lists and dicts: {error}") from error
    (folder / MLMODEL).write_text(text, encoding="utf-8")


@contextmanager
def _made_whole(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to write in, which takes its place in the end; nothing is left of a failure."""
    folder = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ModelError(f"{path} is there already: choose another place, or remove it")
        folder.mkdir(parents=True)
        yield folder
        folder.rename(path)
    except OSError as error:
        raise ModelError(f"cannot save a model at {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# The environment


def _infer_requirements(saved: Saved, code: Path, example: Any) -> list[str]:
    """Return pinned requirements for what `saved` and the Python files in `code` name, and to read the example.

    ``mlflow`` is always among them, since whatever serves MLmodel folders runs it. A module of no distribution, and not
    in `code`, is logged.
    """
    own = {path.stem for path in code.glob("*")}
    modules = {type(example).__module__.partition(".")[0], *saved.modules, *(_imported(code) - own)}
    wanted = sorted(modules - sys.stdlib_module_names - {"__main__"})
    owners = {module: distribution_of(module) for module in wanted}
    if lost := [module for module, owner in owners.items() if not owner and module not in own]:
        _log.warning("the model needs %s, of no installed distribution: give code=", ", ".join(lost))
    names = {*filter(None, owners.values()), *saved.requirements, "mlflow"}
    return sorted(map(_pinned, names), key=str.lower)


@cache
def distribution_of(module: str) -> str | None:
    """Return the name of the installed distribution that a top-level module comes from, None if it is of none."""
    for each in installed.distributions():
        listed = "\n" + (each.read_text("RECORD") or each.read_text("installed-files.txt") or "")
        if f"\n{module}/" in listed or f"\n{module}." in listed:
            return str(each.metadata["Name"])
    try:
        return str(installed.distribution(module).metadata["Name"])  # installed editable, it lists no modules
    except installed.PackageNotFoundError:
        return None


def _pinned(name: str) -> str:
    """Return a requirement for the very version that is installed, less its local label, which no index knows."""
    try:
        return f"{name}=={installed.version(name).partition('+')[0]}"
    except installed.PackageNotFoundError:
        return name


def _imported(folder: Path) -> set[str]:
    """Return the top-level modules that the Python files under `folder` import."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name.partition(".")[0] for name in found}


def _given_requirements(given: str | Path | Sequence[str]) -> list[str]:
    """Return requirements that the user gave as a list, or as a file's path. Raises `InvalidValue`."""
    lines = list(given) if not isinstance(given, str | Path) else Path(given).read_text(encoding="utf-8").splitlines()
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for line in kept:
        if not re.match(r"[A-Za-z0-9][^\n]*$", line):
            raise InvalidValue(f"{line!r} is no requirement: give lines as in requirements.txt, without options")
    return kept


def _write_environment(folder: Path, requirements: Sequence[str]) -> None:
    """Write requirements.txt, conda.yaml and python_env.yaml as MLflow, Azure ML and others read them."""
    import yaml

    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    dependencies = [f"python={_PYTHON}", "pip", {"pip": list(requirements)}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": dependencies}
    build = [_pinned(name) for name in ("pip", "setuptools", "wheel")]
    python = {"python": _PYTHON, "build_dependencies": build, "dependencies": ["-r requirements.txt"]}
    for name, content in zip(_FILES.values(), (conda, python), strict=True):
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

"""The environment a model needs, found in what is installed: no subprocess, no import."""

from __future__ import annotations

import ast
import logging
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mlcore.errors import InvalidValue
from mlcore.models._flavor import Saved

__all__ = ["distribution_of"]

_log = logging.getLogger("mlcore")

_PYTHON = ".".join(map(str, sys.version_info[:3]))  # of three parts: some readers insist
_FILES = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
ENVIRONMENT = {"env": _FILES, "python_version": _PYTHON}  # for generic readers


def infer_requirements(saved: Saved, code: Path, example: Any) -> list[str]:
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
    for each in metadata.distributions():
        listed = "\n" + (each.read_text("RECORD") or each.read_text("installed-files.txt") or "")
        if f"\n{module}/" in listed or f"\n{module}." in listed:
            return str(each.metadata["Name"])
    try:
        return str(metadata.distribution(module).metadata["Name"])  # installed editable, it lists no modules
    except metadata.PackageNotFoundError:
        return None


def _pinned(name: str) -> str:
    """Return a requirement for the very version that is installed, less its local label, which no index knows."""
    try:
        return f"{name}=={metadata.version(name).partition('+')[0]}"
    except metadata.PackageNotFoundError:
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


def given_requirements(given: str | Path | Sequence[str]) -> list[str]:
    """Return requirements that the user gave as a list, or as a file's path. Raises `InvalidValue`."""
    lines = list(given) if not isinstance(given, str | Path) else Path(given).read_text(encoding="utf-8").splitlines()
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for line in kept:
        if not re.match(r"[A-Za-z0-9][^\n]*$", line):
            raise InvalidValue(f"{line!r} is no requirement: give lines as in requirements.txt, without options")
    return kept


def write_environment(folder: Path, requirements: Sequence[str]) -> None:
    """Write requirements.txt, conda.yaml and python_env.yaml as MLflow, Azure ML and others read them."""
    import yaml

    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    dependencies = [f"python={_PYTHON}", "pip", {"pip": list(requirements)}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": dependencies}
    build = [_pinned(name) for name in ("pip", "setuptools", "wheel")]
    python = {"python": _PYTHON, "build_dependencies": build, "dependencies": ["-r requirements.txt"]}
    for name, content in zip(_FILES.values(), (conda, python), strict=True):
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

"""The environment a model needs, found in what is installed: no subprocess, no import."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mlcore.errors import InvalidValue

__all__ = ["distribution_of"]

PYTHON_VERSION = ".".join(map(str, sys.version_info[:3]))  # of three parts: some readers insist
ENVIRONMENT = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}


def infer_requirements(modules: Collection[str], distributions: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return pinned requirements for top-level `modules` and named `distributions`, and the modules of no distribution.

    ``mlflow`` is always among them, since whatever serves MLmodel folders runs it.
    """
    wanted = sorted(each for each in modules if each not in sys.stdlib_module_names and each != "__main__")
    owners = {module: distribution_of(module) for module in wanted}
    names = {*(owner for owner in owners.values() if owner), *distributions, "mlflow"}
    return sorted(map(pinned, names), key=str.lower), [module for module, owner in owners.items() if not owner]


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


def pinned(name: str) -> str:
    """Return a requirement for the very version that is installed, less its local label, which no index knows."""
    try:
        return f"{name}=={metadata.version(name).partition('+')[0]}"
    except metadata.PackageNotFoundError:
        return name


def imported(folder: Path) -> set[str]:
    """Return the top-level modules that the Python files under `folder` import, their own left out."""
    found: set[str] = set()
    own = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found.update(name.partition(".")[0] for name in names)
    return found - own


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
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    pip = {"pip": list(requirements)}
    conda = {"name": "mlflow-env", "channels": ["conda-forge"]}
    _dump(folder / "conda.yaml", {**conda, "dependencies": [f"python={PYTHON_VERSION}", "pip", pip]})
    build = [pinned(name) for name in ("pip", "setuptools", "wheel")]
    about = {"python": PYTHON_VERSION, "build_dependencies": build, "dependencies": ["-r requirements.txt"]}
    _dump(folder / "python_env.yaml", about)


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

"""Say where things are in this tree, once for all tests of the house."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
HOUSE = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE = ROOT / "core"
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists())
# What takes long to import: nobody pays for it who does not use it.
HEAVY = HOUSE["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]


def import_name(folder: Path) -> str:
    """Return the import name of the distribution in `folder`: core is mlcore, mlcore-x is mlcore_x."""
    return "mlcore" if folder == CORE else folder.name.replace("-", "_")


def package(folder: Path) -> Path:
    """Return the folder of the import package that the distribution in `folder` holds."""
    return folder / "src" / import_name(folder)


def modules(folder: Path) -> list[ModuleType]:
    """Import every module of the distribution in `folder`, private ones too, and return them."""
    top = importlib.import_module(import_name(folder))
    walked = pkgutil.walk_packages(top.__path__, f"{top.__name__}.")
    names = [found.name for found in walked if not found.name.endswith("__main__")]
    return [top, *map(importlib.import_module, names)]


def run(*arguments: str | Path, cwd: Path = ROOT) -> str:
    """Run this Python with `arguments`; return what it prints, or fail with it.

    Elsewhere than in this tree, `cwd` is its home too, and no setting of whoever runs the tests reaches it.
    """
    environment = dict(os.environ)
    if cwd != ROOT:
        environment = {key: value for key, value in environment.items() if not key.startswith("MLCORE_")}
        environment |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(cwd))
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout

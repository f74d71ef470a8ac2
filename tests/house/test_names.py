"""Keep what is public on purpose, listed and findable."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

from house.tree import CORE, PLUGINS, modules

EVERY = [module for folder in (CORE, *PLUGINS) for module in modules(folder)]
# hooks.py holds hooks and nothing else: their names are the specification's.
PUBLIC = [each for each in EVERY if not re.search(r"\._|\.hooks$", each.__name__)]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_resolves(module: ModuleType) -> None:
    """Guards that `__all__` is there and honest; that it is sorted is ruff's RUF022."""
    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_is_complete(module: ModuleType) -> None:
    """Guards against a public class or function that the index forgot: list it, or give it a `_`."""
    own = re.compile(rf"{re.escape(module.__name__)}(\._|$)")
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
        if own.match(value.__module__)
    }
    assert public - set(module.__all__) == set()


def exceptions(module: ModuleType) -> list[type[BaseException]]:
    """Return the exceptions that a module defines, without warnings."""
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [
        each
        for each in classes
        if issubclass(each, BaseException) and not issubclass(each, Warning)
        if each.__module__ == module.__name__
    ]


def drawn(docstring: str) -> dict[str, str | None]:
    """Read the tree of a docstring: each name, alone in its line or before two spaces, and its parent."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for glyphs, name in re.findall(r"^([ │├└─]*)([A-Z]\w+)(?: {2,}\S.*)?$", docstring, re.MULTILINE):
        while path and path[-1][0] >= len(glyphs):
            path.pop()
        parents[name] = path[-1][1] if path else None
        path.append((len(glyphs), name))
    return parents


def test_the_error_tree_in_the_docstring_is_the_real_one() -> None:
    """Guards the one page where users look up what to catch."""
    errors = importlib.import_module("mlcore.errors")
    found = exceptions(errors)
    names = {each.__name__ for each in found}
    real = {
        each.__name__: next((base.__name__ for base in each.__bases__ if base.__name__ in names), None)
        for each in found
    }
    assert drawn(errors.__doc__ or "") == real
    assert list(real.values()).count(None) == 1


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_every_exception_hangs_from_one_root(folder: Path) -> None:
    """Guards that `except MlcoreError` catches what any of our packages raises on purpose."""
    root = importlib.import_module("mlcore.errors").MlcoreError
    found = [each for module in modules(folder) for each in exceptions(module)]
    ends = (SystemExit, click.ClickException)  # of a command: they say with which code
    assert [each for each in found if not issubclass(each, (root, *ends))] == []

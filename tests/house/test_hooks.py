"""Keep every hook documented, exemplified and used."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable

import pytest

from house.pages import blocks, headings
from house.tree import PLUGINS, ROOT, import_name

specs = importlib.import_module("mlcore.hookspecs")
HOOKS = [value for name, value in sorted(vars(specs).items()) if name.startswith("mlcore_")]
PAGE = ROOT / "docs" / "reference" / "hooks.md"


def call(hook: Callable[..., object]) -> str:
    """Return a hook as its heading shows it: name and arguments."""
    return f"{hook.__name__}({', '.join(inspect.signature(hook).parameters)})"


def test_the_page_has_a_heading_for_each_hook_and_no_other() -> None:
    """Guards that docs/reference/hooks.md keeps up, argument by argument, and forgets what is gone."""
    shown = [line.strip("`") for line in headings(PAGE.read_text())]
    assert sorted(line for line in shown if line.startswith("mlcore_")) == sorted(map(call, HOOKS))


@pytest.mark.parametrize("hook", HOOKS, ids=call)
def test_a_shipped_plugin_uses_the_hook(hook: Callable[..., object]) -> None:
    """Guards against hooks that nobody needs yet."""
    users = [importlib.import_module(f"{import_name(folder)}.hooks") for folder in PLUGINS]
    assert any(callable(getattr(module, hook.__name__, None)) for module in users)


@pytest.mark.parametrize("hook", HOOKS, ids=call)
def test_the_docstring_holds_a_whole_plugin(hook: Callable[..., object]) -> None:
    """Guards the example that plugin authors copy: it compiles and implements this very hook."""
    examples = [ast.parse(code) for _, code in blocks(inspect.getdoc(hook) or "", "python")]
    defined = [node.name for tree in examples for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert hook.__name__ in defined

"""Keep one place that imports and unpickles what a model names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from house.tree import CORE, PLUGINS, ROOT

# What runs code that a file holds or names, by the last parts of how it is called.
RUNS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "pickle._Unpickler", "_pickle.Unpickler", "Unpickler"),
    *("cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads", "joblib.load", "torch.load", "shelve.open"),
    *("torch.jit.load", "torch.export.load", "resolve_name"),
    *("marshal.load", "marshal.loads", "read_pickle", "skops.io.load", "skops.io.loads", "numpy.load", "np.load"),
    *("import_module", "__import__", "exec", "eval", "compile", "run_path", "run_module", "find_class"),
    *("spec_from_file_location", "module_from_spec", "exec_module", "load_module", "SourceFileLoader", "FileFinder"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader"),
}
THE_PLACE = "core/src/mlcore/models/_trust.py"
# Who may all the same, and why.
ALLOWED = {
    ("core/src/mlcore/__init__.py", "import_module"): "names of mlcore's own, listed beside it",
    ("core/src/mlcore/plugins.py", "import_module"): "plugins that are installed",
    ("core/src/mlcore/models/_mlmodel.py", "yaml.load"): "with the safe loader, in C where there is one",
    ("plugins/mlcore-local/src/mlcore_local/__init__.py", "import_module"): "names of its own",
    ("plugins/mlcore-local/src/mlcore_local/code/__init__.py", "import_module"): "the same",
    (
        "plugins/mlcore-projects/src/mlcore_projects/interpreters.py",
        "exec",
    ): "a text that stands there, run by others, too",
    ("plugins/mlcore-projects/src/mlcore_projects/testing/_environments.py", "exec"): "the same",
    ("plugins/mlcore-server/src/mlcore_server/__init__.py", "import_module"): "the same",
    ("plugins/mlcore-torch/src/mlcore_torch/__init__.py", "import_module"): "names of its own",
    (
        "plugins/mlcore-sklearn/src/mlcore_sklearn/archives.py",
        "resolve_name",
    ): "names that are trusted, to see what they are",
    ("plugins/mlcore-torch/src/mlcore_torch/loader.py", "import_module"): "copied into models for MLflow, not run here",
    ("plugins/mlcore-torch/src/mlcore_torch/loader.py", "torch.load"): "the same",
    ("plugins/mlcore-torch/src/mlcore_torch/loader.py", "torch.jit.load"): "the same",
    ("plugins/mlcore-torch/src/mlcore_torch/loader.py", "torch.export.load"): "the same",
    (
        "plugins/mlcore-torch/src/mlcore_torch/archives.py",
        "torch.load",
    ): "tensors only, to see that examples are no more",
    ("plugins/mlcore-torch/src/mlcore_torch/pickles.py", "torch.load"): "with full trust, or by trusted names only",
    ("plugins/mlcore-torch/src/mlcore_torch/pickles.py", "torch.jit.load"): "with full trust",
    ("plugins/mlcore-torch/src/mlcore_torch/pickles.py", "resolve_name"): "names that are trusted",
    ("plugins/mlcore-torch/src/mlcore_torch/programs.py", "torch.export.load"): "after the archive was looked into",
    ("plugins/mlcore-torch/src/mlcore_torch/states.py", "resolve_name"): "a module that trust imported, or torch's own",
    ("plugins/mlcore-signing/src/mlcore_signing/__init__.py", "import_module"): "names of its own",
    ("plugins/mlcore-python/src/mlcore_python/loader.py", "pickle.load"): "copied into models for MLflow, not run here",
    ("plugins/mlcore-python/src/mlcore_python/loader.py", "spec_from_file_location"): "the same",
    ("plugins/mlcore-python/src/mlcore_python/loader.py", "module_from_spec"): "the same",
    ("plugins/mlcore-python/src/mlcore_python/loader.py", "exec_module"): "the same",
    ("plugins/mlcore-sql/src/mlcore_sql/answering.py", "compile"): "a filter, to SQL",
    ("plugins/mlcore-sql/src/mlcore_sql/filters.py", "compile"): "the same",
    ("plugins/mlcore-sql/src/mlcore_sql/index.py", "compile"): "a table, to SQL",
    ("plugins/mlcore-sklearn/src/mlcore_sklearn/archives.py", "skops.io.load"): "by a list of types made from trust",
}
THROUGH_TRUST = ("trust", "allowed", "self.trust")  # `trust.import_module(name)` is the way


def running(source: str) -> Iterator[str]:
    """Yield the names of what runs code, called or handed on, in a module's source."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = ast.unparse(node)
            if name.rpartition(".")[0] in THROUGH_TRUST or name.startswith("re."):
                continue
            name = imported.get(name, name)
            yield from (each for each in sorted(RUNS) if name == each or name.endswith(f".{each}"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle\npickle.load(file)", ["pickle.load"]),
        ("from pickle import loads as f\nf(b'')", ["pickle.loads"]),
        ("from importlib import import_module\nimport_module(x)", ["import_module"]),
        ("import importlib\nload = importlib.import_module", ["import_module"]),
        ("class A(pickle.Unpickler): pass", ["Unpickler", "pickle.Unpickler"]),
        ("yaml.load(x, Loader=yaml.FullLoader)", ["yaml.FullLoader", "yaml.load"]),
        ("exec(code)", ["exec"]),
        ("trust.import_module(x)\nre.compile('x')\njson.load(file)\nyaml.safe_load(x)", []),
    ],
)
def test_the_search_finds_what_runs_code(source: str, found: list[str]) -> None:
    """Guards the search itself."""
    assert sorted(running(source)) == found


def test_nothing_else_imports_or_unpickles_what_a_model_names() -> None:
    """Guards D4: one switch, one place. A new line here needs a reason that has nothing to do with a model."""
    found = {
        (str(path.relative_to(ROOT)), name)
        for folder in (CORE, *PLUGINS)
        for path in sorted((folder / "src").rglob("*.py"))
        for name in running(path.read_text())
        if path != ROOT / THE_PLACE
    }
    assert found == ALLOWED.keys()
    assert set(running(Path(ROOT / THE_PLACE).read_text())) >= {"pickle.load", "import_module", "exec"}

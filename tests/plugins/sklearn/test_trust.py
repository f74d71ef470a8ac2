"""No archive or pickle runs what its reader does not trust, in whatever way it asks; trusted, it does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from mlcore.errors import ModelError, NotAModel, UnsafePath, Untrusted
from mlcore.models import Trust
from mlcore_sklearn.flavor import Sklearn
from mlcore_sklearn.trusted_types import HARMLESS

ARCHIVE = {"pickled_model": "model.skops", "serialization_format": "skops", "predict_fn": "transform"}
Node = dict[str, Any]


def node(loader: str, dotted: str, content: Any = None, **more: Any) -> Node:
    """Make one node of an archive's schema by hand, as no writer would."""
    module, _, name = dotted.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": name, "content": content, **more}


def text(value: Any) -> Node:
    """Make a node of plain JSON."""
    return node("JsonNode", "builtins.str", json.dumps(value), is_json=True)


def several(*nodes: Node) -> Node:
    """Make a node of several."""
    return node("TupleNode", "builtins.tuple", list(nodes))


def mapping(content: Mapping[str, Node]) -> Node:
    """Make a node of a dict, or of an object's attributes."""
    types_ = node("ListNode", "builtins.list", [node("TypeNode", "builtins.str") for _ in content])
    return node("DictNode", "builtins.dict", dict(content), key_types=types_)


def transformer(func: Node) -> Node:
    """Make a harmless estimator that holds what is not."""
    state = {"func": func, "inverse_func": text(None), "validate": text(False), "check_inverse": text(False)}
    state |= {"accept_sparse": text(False), "feature_names_out": text(None), "kw_args": text(None)}
    state |= {"inv_kw_args": text(None), "_sklearn_version": text(sklearn.__version__)}
    return node("ObjectNode", "sklearn.preprocessing._function_transformer.FunctionTransformer", mapping(state))


def archive(folder: Path, schema: Node, *, protocol: int = 2, files: Mapping[str, bytes] | None = None) -> Path:
    """Write an archive of a schema made by hand."""
    with zipfile.ZipFile(folder / "model.skops", "w") as whole:
        whole.writestr("schema.json", json.dumps({**schema, "protocol": protocol, "_skops_version": "0.16.0"}))
        for name, content in (files or {}).items():
            whole.writestr(name, content)
    return folder


def load(folder: Path, trust: Trust | None = None) -> Any:
    """Load the archive in `folder`."""
    return Sklearn().load(folder, ARCHIVE, trust or Trust())


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there once a payload ran."""
    return tmp_path / "marker"


Payload = Callable[[str], Node]

# What runs as it is loaded. `what` is the shell's command that touches the marker.
RUNS: dict[str, Payload] = {
    "a constructor that is a function": lambda what: node(
        "ConstructorFromReduceNode", "os.system", several(text(what))
    ),
    "an operator that calls": lambda what: node(
        "OperatorFuncNode", "operator.call", attrs=several(node("FunctionNode", "os.system"), text(what))
    ),
    "a loss whose class is a function": lambda what: node(
        "LossNode", "os.system", mapping({}), __reduce__={"args": several(text(what))}
    ),
}
# What waits to be called once the model is used, or comes to nothing.
WAITS: dict[str, Payload] = {
    "a function": lambda what: transformer(node("FunctionNode", "os.system")),
    "a builtin as a type": lambda what: transformer(node("TypeNode", "builtins.exec")),
    "a partial": lambda what: transformer(
        node(
            "PartialNode",
            "functools.partial",
            {
                "func": node("FunctionNode", "os.system"),
                "args": several(text(what)),
                "kwds": mapping({}),
                "namespace": text(None),
            },
        )
    ),
    "a method": lambda what: transformer(
        node(
            "MethodNode",
            "sklearn.linear_model._logistic.LogisticRegression",
            {
                "func": "__init_subclass__",
                "obj": node("ObjectNode", "sklearn.linear_model._logistic.LogisticRegression", mapping({})),
            },
        )
    ),
    "a method of another class than it says": lambda what: transformer(
        node(
            "MethodNode",
            "sklearn.linear_model._logistic.LogisticRegression",
            {"func": "system", "obj": node("TypeNode", "builtins.str")},
        )
    ),
    "a method caller": lambda what: transformer(
        node("OperatorFuncNode", "operator.methodcaller", attrs=several(text("system"), text(what)))
    ),
    "a list that is a function": lambda what: node("ListNode", "os.system", [text(what)]),
    "a dict that is a class": lambda what: node(
        "DictNode", "subprocess.Popen", {}, key_types=node("ListNode", "builtins.list", [])
    ),
    "keys that are made by a function": lambda what: node(
        "DictNode",
        "builtins.dict",
        {what: text(1)},
        key_types=node("ListNode", "builtins.list", [node("FunctionNode", "os.system")]),
    ),
    "a default that is a function": lambda what: node(
        "DefaultDictNode",
        "collections.defaultdict",
        {"main": mapping({}), "default_factory": node("FunctionNode", "os.system")},
    ),
    "a generator of bits that is a function": lambda what: node(
        "RandomGeneratorNode",
        "numpy.random._generator.Generator",
        {"bit_generator": mapping({"bit_generator": text("seed")}), "seed_seq": mapping({})},
    ),
    "an array of a class of its own": lambda what: node("NdArrayNode", "os.system", type="numpy", file="array.npy"),
    "numpy's dtype with a state": lambda what: node(
        "LossNode", "numpy.dtype", several(text(3)), __reduce__={"args": several(text("O"))}
    ),
    "a harmless function, called": lambda what: node("ListNode", "numpy.mean", [text(1)]),
    "a harmless class, made with arguments": lambda what: node(
        "ConstructorFromReduceNode", "sklearn.neighbors._kd_tree.KDTree", several(text([[1.0]]))
    ),
    "a module": lambda what: node("FunctionNode", "os.path"),
}


@pytest.mark.parametrize("name", [*RUNS, *WAITS])
def test_no_node_runs_what_nobody_trusts(name: str, tmp_path: Path, marker: Path) -> None:
    """Every kind of node that has once been a way round skops's own list, and some that could be."""
    payload = (RUNS | WAITS)[name](f"touch {marker}")
    array = io.BytesIO()
    np.save(array, np.ones(2))
    archive(tmp_path, payload, files={"array.npy": array.getvalue()})
    with pytest.raises(ModelError) as refused:
        load(tmp_path)
    assert not marker.exists()
    assert isinstance(refused.value, Untrusted) or "cannot be read" in str(refused.value)


@pytest.mark.parametrize("name", RUNS)
def test_the_same_node_runs_for_those_who_trust_it(name: str, tmp_path: Path, marker: Path) -> None:
    """The control: these payloads do work."""
    archive(tmp_path, RUNS[name](f"touch {marker}"))
    with contextlib.suppress(ModelError):  # what a command returns is no model, but by then it ran
        load(tmp_path, Trust.of(trust=True))
    assert marker.exists()


def test_the_first_protocol_hides_no_function(tmp_path: Path) -> None:
    """Its functions have their names in another place."""
    hidden = {"module_path": "os", "function": "system"}
    archive(tmp_path, transformer(node("FunctionNode", "numpy.mean", hidden)), protocol=0)
    with pytest.raises(Untrusted, match=r"os\.system"):
        load(tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_older_protocols_are_no_way_round(protocol: int, tmp_path: Path, marker: Path) -> None:
    """The file chooses by which protocol it is read."""
    archive(tmp_path, RUNS["a constructor that is a function"](f"touch {marker}"), protocol=protocol)
    with pytest.raises(Untrusted, match=r"os\.system"):
        load(tmp_path)
    assert not marker.exists()


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that somebody trusts, and that has imported what nobody does."""
    module = types.ModuleType("trusted_tools")
    module.system = os.system  # type: ignore[attr-defined]

    def halved(rows: Any) -> Any:
        return rows / 2

    halved.__module__, halved.__qualname__ = "trusted_tools", "halved"
    module.halved = halved  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trusted_tools", module)
    return module


def test_trust_in_a_module_is_none_in_what_it_imports(tools: types.ModuleType, tmp_path: Path, marker: Path) -> None:
    """``trusted_tools.system`` is ``os.system``."""
    archive(tmp_path, node("ConstructorFromReduceNode", "trusted_tools.system", several(text(f"touch {marker}"))))
    with pytest.raises(Untrusted, match=r"trusted_tools\.system is .*\.system"):
        load(tmp_path, Trust.of("trusted_tools.*"))
    assert not marker.exists()


def test_a_name_that_is_trusted_is_loaded(tools: types.ModuleType, tmp_path: Path) -> None:
    """Trust by name suffices where nothing else is named."""
    archive(tmp_path, transformer(node("FunctionNode", "trusted_tools.halved")))
    with pytest.raises(Untrusted, match=r"trust=\['trusted_tools\.halved'\]"):
        load(tmp_path)
    assert load(tmp_path, Trust.of("trusted_tools.*")).transform(np.array([4.0])) == [2.0]


def test_what_the_model_says_about_trust_is_not_asked(tmp_path: Path) -> None:
    """MLflow believes the list in the model; it is the writer's."""
    archive(tmp_path, transformer(node("FunctionNode", "os.system")))
    with pytest.raises(Untrusted):
        Sklearn().load(tmp_path, {**ARCHIVE, "skops_trusted_types": ["os.system"]}, Trust())


class Touch:
    """Run a command as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("format_", [None, "pickle", "cloudpickle"])
@pytest.mark.parametrize("tail", [b"", b"(((("])
def test_no_pickle_runs_untrusted(format_: str | None, tail: bytes, tmp_path: Path, marker: Path) -> None:
    """Also where the format is not told, which means pickle to MLflow, and where its end is broken."""
    content = pickle.dumps([Touch(marker), LogisticRegression()])
    (tmp_path / "model.pkl").write_bytes(content[: len(content) - len(tail)] + tail)
    config = {"pickled_model": "model.pkl", "serialization_format": format_, "predict_fn": "predict"}
    with pytest.raises(Untrusted, match="system"):
        Sklearn().load(tmp_path, config, Trust())
    assert not marker.exists()
    try:
        Sklearn().load(tmp_path, config, Trust.of(trust=True))
    except (EOFError, MemoryError, pickle.UnpicklingError):
        assert tail
    assert marker.exists()


def test_an_archive_that_is_a_pickle_is_no_archive(tmp_path: Path, marker: Path) -> None:
    """Nothing falls through to another format."""
    (tmp_path / "model.skops").write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(ModelError, match="cannot be read as a skops archive"):
        load(tmp_path, Trust.of(trust=True))
    assert not marker.exists()


def test_a_pickle_in_an_arrays_place_is_refused(tmp_path: Path, marker: Path) -> None:
    """Numpy's own files can hold pickles too."""
    array = io.BytesIO()
    np.save(array, np.array([Touch(marker)], dtype=object), allow_pickle=True)
    archive(
        tmp_path,
        node("NdArrayNode", "numpy.ndarray", type="numpy", file="array.npy"),
        files={"array.npy": array.getvalue()},
    )
    with pytest.raises(ModelError, match="allow_pickle"):
        load(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../model.pkl", "/etc/hostname", "a/../../model.pkl", "..", ""])
def test_a_model_names_no_file_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    """Neither by its path nor through a link."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    (tmp_path / "inside").mkdir()
    with pytest.raises((UnsafePath, NotAModel)):
        Sklearn().load(tmp_path / "inside", {"pickled_model": name, "predict_fn": "predict"}, Trust.of(trust=True))


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """The path looks right, and the file is somebody else's."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "model.pkl").symlink_to(tmp_path / "model.pkl")
    with pytest.raises(UnsafePath):
        Sklearn().load(tmp_path / "inside", {"pickled_model": "model.pkl", "predict_fn": "predict"}, Trust())


def test_an_unknown_format_is_not_guessed(tmp_path: Path) -> None:
    """A new format of MLflow's must not fall through to pickle."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(ModelError, match="serialization_format is 'joblib'"):
        Sklearn().load(tmp_path, {"serialization_format": "joblib", "predict_fn": "predict"}, Trust.of(trust=True))


@pytest.mark.parametrize("damage", ["cut", "empty", "no schema", "no json", "a list", "deep"])
def test_a_damaged_archive_is_named(damage: str, tmp_path: Path) -> None:
    """Whatever is wrong with it, the error says which file, and is the one for models."""
    skops.io.dump(FunctionTransformer().fit([[1.0]]), tmp_path / "model.skops")
    path = tmp_path / "model.skops"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        schema = {"no json": "{", "a list": "[]", "deep": "[" * 100_000}.get(damage)
        with zipfile.ZipFile(path, "w") as whole:
            if schema is not None:
                whole.writestr("schema.json", schema)
    with pytest.raises(ModelError, match=r"model\.skops cannot be read"):
        load(tmp_path)


def test_what_is_harmless_is_the_libraries_own() -> None:
    """Guards the list: nothing of anybody else's, nothing that reads, writes, imports or evaluates."""
    tops = {name.partition(".")[0] for name in HARMLESS}
    assert tops == {"functools", "numpy", "scipy", "sklearn"}
    words = ("load", "save", "open", "read", "write", "import", "eval", "exec", "memmap", "fetch", "joblib", "PyFunc")
    assert [name for name in HARMLESS if any(word in name.rpartition(".")[2] for word in words)] == []

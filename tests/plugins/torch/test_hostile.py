"""Forged networks are refused before anything in them runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mlcore.errors import MlcoreError, ModelError, Untrusted
from mlcore.models import Trust, save_model
from mlcore_torch.flavor import Torch

torch.set_num_threads(1)
Change = Callable[[dict[str, Any], str], None]


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as a program and as weights."""
    folder, network = tmp_path_factory.mktemp("honest"), nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    rows = np.ones((2, 4), np.float32)
    save_model(network, folder / "program", input_example=rows)
    save_model(network, folder / "state", input_example=rows, serialization="safetensors")
    return folder


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there once a payload ran."""
    return tmp_path / "marker"


def load(folder: Path, trust: Any = False) -> Any:
    """Load it as somebody who trusts nobody."""
    return Torch().load(folder, {"model_data": "data"}, Trust.of(trust))


def rewritten(honest: Path, target: Path, change: Callable[[dict[str, bytes]], None], **how: Any) -> Path:
    """Return a copy of the honest program with other records in its archive."""
    shutil.copytree(honest / "program", target)
    path = target / "data" / "model.pt2"
    with zipfile.ZipFile(path) as archive:
        records = {each.partition("/")[2]: archive.read(each) for each in archive.namelist()}
    change(records)
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, content in records.items():
            archive.writestr(f"model/{name}", content)
    return target


def program_with(change: Change, command: str) -> Callable[[dict[str, bytes]], None]:
    """Return what changes the description of a program."""

    def changed(records: dict[str, bytes]) -> None:
        program = json.loads(records["models/model.json"])
        change(program, command)
        records["models/model.json"] = json.dumps(program).encode()

    return changed


def _spec(context: object, kind: str = "builtins.dict") -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    args = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    names = {"type": kind, "context": json.dumps(context), "children_spec": []}
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [args, names]}])


def _graph(program: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["graph"]
    return found


def _shape(text: Callable[[str], str]) -> Change:
    def change(program: dict[str, Any], command: str) -> None:
        _graph(program)["tensor_values"]["linear"]["sizes"][0] = {"as_expr": {"expr_str": text(command), "hint": None}}

    return change


def _node(target: str, *arguments: Any) -> Change:
    def change(program: dict[str, Any], command: str) -> None:
        node = _graph(program)["nodes"][0]
        given = arguments or ({"as_string": command},)
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": each, "kind": 1} for each in given]

    return change


def _named(program: dict[str, Any], command: str) -> None:
    bad = f"linear\n    import os; os.system({command!r})\n    linear"
    text = json.dumps(_graph(program)).replace('"linear"', json.dumps(bad))
    program["graph_module"]["graph"] = json.loads(text)


def _keyword(program: dict[str, Any], command: str) -> None:
    _graph(program)["nodes"][0]["inputs"][1].update({"name": f"x=__import__('os').system({command!r}), y", "kind": 2})


def _parameter(program: dict[str, Any], command: str) -> None:
    spec = program["graph_module"]["signature"]["input_specs"][0]["parameter"]
    spec["parameter_name"] = f"a'); __import__('os').system({command!r}); ('"


def _guards(program: dict[str, Any], command: str) -> None:
    program["guards_code"] = [f"L['input'].size()[0] == 1 or __import__('os').system({command!r})"]


def _names_of_arguments(program: dict[str, Any], command: str) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x=__import__('os').system({command!r})"]


def _enumeration(program: dict[str, Any], command: str) -> None:
    context = {"__enum__": True, "fqn": "antigravity:x", "name": "x"}
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = _spec(context)


def _foreign_container(program: dict[str, Any], command: str) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = _spec(["os", "system"], "mypkg.Container")


def _symbols(program: dict[str, Any], command: str) -> None:
    program["range_constraints"]["u999999999"] = {"min_val": 0, "max_val": 1}


PROGRAMS: dict[str, Change] = {
    "a shape that is code": _shape(lambda command: f"__import__('os').system({command!r})"),
    "a shape that is code in a symbol": _shape(lambda command: f"Symbol('s0', x=__import__('os').system({command!r}))"),
    "a shape that walks to code": _shape(lambda command: "().__class__.__base__.__subclasses__()"),
    "a shape that never ends": _shape(lambda command: "s0**9**9**9"),
    "a shape with a lambda": _shape(lambda command: "(lambda: 1)()"),
    "a guard that is code": _guards,
    "an operator that is a command": _node("torch.os.system"),
    "an operator that unpickles": _node("torch.load"),
    "an operator that imports": _node("torch.ops.load_library"),
    "an operator of Python's": _node("_operator.attrgetter"),
    "an operator that writes a file": _node(
        "torch.ops.aten.from_file.default", {"as_string": "there"}, {"as_bool": True}, {"as_int": 4}
    ),
    "an operator on foreign memory": _node("torch.ops.aten.set_.source_Storage"),
    "an extension": _node("#aten:x"),
    "an argument that is an operator": _node("torch.ops.aten.relu.default", {"as_operator": "torch.os.system"}),
    "a name that is code": _named,
    "a keyword that is code": _keyword,
    "a parameter whose name is code": _parameter,
    "arguments whose names are code": _names_of_arguments,
    "an enumeration that is imported": _enumeration,
    "a container of nobody's": _foreign_container,
    "so many symbols that it never ends": _symbols,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_more_than_arithmetic_is_refused(
    name: str, honest: Path, tmp_path: Path, marker: Path
) -> None:
    """Guards what torch evaluates, compiles, imports or calls when it loads a program."""
    folder = rewritten(honest, tmp_path / "model", program_with(PROGRAMS[name], f"touch {marker}"))
    with pytest.raises(MlcoreError):
        load(folder)
    assert not marker.exists()


def _saved(thing: object) -> bytes:
    content = io.BytesIO()
    torch.save(thing, content)
    return content.getvalue()


def _pickled_weight(records: dict[str, bytes], bomb: Bomb) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    records["data/weights/weight_0"] = _saved(bomb)


def _constant(kind: str) -> Callable[[dict[str, bytes], Bomb], None]:
    def change(records: dict[str, bytes], bomb: Bomb) -> None:
        about = {"path_name": kind, "is_param": False, "use_pickle": True, "tensor_meta": None}
        records["data/constants/model_constants_config.json"] = json.dumps({"config": {"x": about}}).encode()
        records[f"data/constants/{kind}"] = pickle.dumps(bomb)

    return change


def _grown(records: dict[str, bytes], bomb: Bomb) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    about = next(iter(config["config"].values()))["tensor_meta"]
    about["sizes"], about["strides"] = [{"as_int": 2**40}], [{"as_int": 0}]
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def _beyond(records: dict[str, bytes], bomb: Bomb) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["tensor_meta"]["storage_offset"] = {"as_int": 2**20}
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()


RECORDS: dict[str, Callable[[dict[str, bytes], Bomb], None]] = {
    "a weight that is a pickle": _pickled_weight,
    "a constant that is a pickle": _constant("tensor_0"),
    "a constant that is an object": _constant("opaque_obj_0"),
    "a constant that is TorchScript's": _constant("custom_obj_0"),
    "examples that are a pickle": lambda records, bomb: records.update({"data/sample_inputs/model.pt": _saved(bomb)}),
    "examples that are a plain pickle": lambda records, bomb: records.update(
        {"data/sample_inputs/model.pt": pickle.dumps(bomb)}
    ),
    "weights of before torch 2.8": lambda records, bomb: records.update({"data/weights/model.pt": _saved(bomb)}),
    "a compiled library": lambda records, bomb: records.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
    "a second program": lambda records, bomb: records.update({"models/other.json": b"{}"}),
    "a way out of the folder": lambda records, bomb: records.update({"../../outside": b"x"}),
    "a weight larger than its file": _beyond,
    "a weight that would fill the memory": _grown,
    "no program": lambda records, bomb: [records.pop("models/model.json")],
    "a program that is no JSON": lambda records, bomb: records.update({"models/model.json": b"\xff"}),
    "a program nested without end": lambda records, bomb: records.update({"models/model.json": b"[" * 100_000}),
}


@pytest.mark.parametrize("name", RECORDS)
def test_an_archive_that_holds_more_than_data_is_refused(name: str, honest: Path, tmp_path: Path, marker: Path) -> None:
    """Guards what torch unpickles or loads as a library."""
    bomb = Bomb(f"touch {marker}")
    folder = rewritten(honest, tmp_path / "model", lambda records: RECORDS[name](records, bomb))
    with pytest.raises(MlcoreError):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["a shape that is code", "a weight that is a pickle", "a constant that is an object", "examples that are a pickle"],
)
def test_the_payloads_are_real(name: str, honest: Path, tmp_path: Path, marker: Path) -> None:
    """Guards the tests above: torch itself runs them, whatever error comes after."""
    command = f"touch {marker}"
    if name in PROGRAMS:
        folder = rewritten(honest, tmp_path / "model", program_with(PROGRAMS[name], command))
    else:
        folder = rewritten(honest, tmp_path / "model", lambda records: RECORDS[name](records, Bomb(command)))
    with contextlib.suppress(Exception):
        torch.export.load(folder / "data" / "model.pt2")
    assert marker.exists()


def test_who_trusts_a_program_gets_what_torch_reads(honest: Path, tmp_path: Path) -> None:
    """Guards the other side: operators by their names, the rest with full trust."""

    def change(program: dict[str, Any], command: str) -> None:
        program["graph_module"]["graph"]["nodes"][1]["target"] = "torch.ops.aten._conj_physical.default"

    folder = rewritten(honest, tmp_path / "model", program_with(change, ""))
    with pytest.raises(Untrusted, match=r"torch\.ops\.aten\._conj_physical\.default"):
        load(folder)
    for trust in (True, ["torch.ops.aten._conj_physical.default"]):
        assert load(folder, trust)(torch.ones(2, 4)).shape == (2, 3)


def test_an_archive_of_before_torch_2_8_needs_trust(tmp_path: Path, marker: Path) -> None:
    """Guards the other reader that torch has for what is not of its newer form."""
    (tmp_path / "model" / "data").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "model" / "data" / "model.pt2", "w") as archive:
        archive.writestr("version", "8.20")
        archive.writestr("serialized_state_dict.pt", _saved(Bomb(f"touch {marker}")))
    with pytest.raises(Untrusted):
        load(tmp_path / "model")
    assert not marker.exists()


def test_an_archive_that_is_compressed_or_cut_is_refused(honest: Path, tmp_path: Path) -> None:
    """Guards memory: what is packed small could be large."""
    folder = rewritten(honest, tmp_path / "packed", lambda records: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed"):
        load(folder)
    whole = (honest / "program" / "data" / "model.pt2").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (folder / "data" / "model.pt2").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            load(folder)


def pth(folder: Path, content: bytes) -> Path:
    """Return a model of MLflow's with a pickle in it."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "model.pth").write_bytes(content)
    (folder / "data" / "pickle_module_info.txt").write_text("os")
    return folder


def _zipped(data: bytes) -> bytes:
    """Return an archive as torch.save writes it, around a pickle made by hand."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")
    return content.getvalue()


def _script(bomb: Bomb) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(bomb, 2))
        archive.writestr("model/constants.pkl", pickle.dumps((), 2))
        archive.writestr("model/version", "3\n")
    return content.getvalue()


PICKLES: dict[str, Callable[[Bomb], bytes]] = {
    "saved by torch": _saved,
    "a plain pickle": pickle.dumps,
    "of protocol 0": lambda bomb: pickle.dumps(bomb, 0),
    "zipped by hand": lambda bomb: _zipped(pickle.dumps(bomb, 4)),
    "in the guise of TorchScript": _script,
    "reached through torch": lambda bomb: _zipped(
        b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93\x8c"
        + bytes([len(bomb.command)])
        + bomb.command.encode()
        + b"\x85R."
    ),
    "reached through a module of torch": lambda bomb: _zipped(
        b"\x80\x02ctorch.serialization\nos.system\nX"
        + struct.pack("<I", len(bomb.command))
        + bomb.command.encode()
        + b"\x85R."
    ),
    "loads another": lambda bomb: _zipped(b"\x80\x02ctorch\nload\nX\x04\x00\x00\x00here\x85R."),
    "through hub": lambda bomb: _zipped(b"\x80\x02ctorch.hub\nload\nX\x04\x00\x00\x00here\x85R."),
    "with a tail that is broken": lambda bomb: pickle.dumps(bomb)[:-1] + b"\xff",
}


@pytest.mark.parametrize("trust", [False, ["collections.*"]], ids=["nobody", "names"])
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_refused(name: str, trust: Any, tmp_path: Path) -> None:
    """Guards D1 and D2: nothing of a pickle runs without trust, whatever it looks like."""
    bomb = Bomb(f"touch {tmp_path}/m")
    folder = pth(tmp_path / "model", PICKLES[name](bomb))
    with pytest.raises(MlcoreError):
        load(folder, trust)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["reached through torch", "reached through a module of torch"])
def test_a_name_within_trust_is_not_what_it_leads_to(name: str, tmp_path: Path) -> None:
    """Guards trust in torch.*, which holds os among its names."""
    folder = pth(tmp_path / "model", PICKLES[name](Bomb(f"touch {tmp_path}/m")))
    with pytest.raises((MlcoreError, ImportError)):
        load(folder, ["torch.*"])
    assert not (tmp_path / "m").exists()


def described(honest: Path, target: Path, recipe: Mapping[str, Any], **more: Any) -> Path:
    """Return a copy of the honest weights with another description."""
    shutil.copytree(honest / "state", target)
    about = {"recipe": recipe, "shared": {}, "call": "one", "batch_size": None, **more}
    (target / "data" / "module.json").write_text(json.dumps(about))
    return target


LINEAR = "torch.nn.modules.linear:Linear"
RECIPES: dict[str, Mapping[str, Any]] = {
    "a function": {"class": "os:system", "positional": ["touch marker"]},
    "a function by way of torch": {"class": "torch.nn.modules.module:os.system", "positional": ["touch marker"]},
    "a class that is no network": {"class": "torch.nn.modules.module:Any"},
    "a module that nobody imported": {"class": "antigravity:x"},
    "another network": {"class": LINEAR, "arguments": {"in_features": 2, "out_features": 2}},
    "larger than the memory": {"class": LINEAR, "arguments": {"in_features": 10**7, "out_features": 10**8}},
    "no name": {"class": "os.system('touch marker')"},
    "no text": {"class": 5},
    "other arguments": {"class": LINEAR, "arguments": {"nothing": 2}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_for_something_else_is_refused(
    name: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the names by which a network is built."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlcoreError):
        load(described(honest, tmp_path / "model", RECIPES[name]))
    assert not (tmp_path / "marker").exists()


def _header(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    return changed


STATES: dict[str, Callable[[bytes], bytes]] = {
    "a header longer than the file": lambda content: struct.pack("<Q", 2**60) + content[8:],
    "a header of a hundred megabytes": lambda content: struct.pack("<Q", 100_000_001) + content[8:],
    "cut in its header": lambda content: content[:20],
    "cut in its tensors": lambda content: content[:-4],
    "more at its end": lambda content: content + b"more",
    "no file": lambda content: b"",
    "tensors that overlap": _header(
        lambda header: header["0.bias"].update(data_offsets=header["0.weight"]["data_offsets"])
    ),
    "offsets backwards": _header(lambda header: header["0.bias"].update(data_offsets=[12, 0])),
    "another shape": _header(lambda header: header["0.weight"].update(shape=[2, 6])),
    "another type": _header(lambda header: header["0.weight"].update(dtype="I32")),
    "a type that is none": _header(lambda header: header["0.weight"].update(dtype="PICKLE")),
    "another name": _header(lambda header: header.update({"0.more": header.pop("0.bias")})),
    "a pickle": lambda content: pickle.dumps(Bomb("touch marker")),
}


@pytest.mark.parametrize("name", STATES)
def test_forged_safetensors_are_refused(
    name: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the file of weights: headers that lie, tensors that do not fit the network."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(honest / "state", tmp_path / "model")
    path = tmp_path / "model" / "data" / "model.safetensors"
    path.write_bytes(STATES[name](path.read_bytes()))
    with pytest.raises(ModelError):
        load(tmp_path / "model")
    assert not (tmp_path / "marker").exists()


def test_the_honest_ones_load(honest: Path, tmp_path: Path) -> None:
    """Guards the tests above: what they change is refused for the change."""
    same = rewritten(honest, tmp_path / "same", lambda records: None)
    for folder in (honest / "program", honest / "state", same):
        assert load(folder)(torch.ones(2, 4)).shape == (2, 3)

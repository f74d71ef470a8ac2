"""Look into the archive of an exported program before torch does, which would unpickle and run what it holds.

`torch.export.load` unpickles weights and constants that say so, evaluates the expressions of shapes and the code of
guards, imports enumerations, writes Python out of the names in the graph, and calls whatever in torch a node names. So
an archive is read without trust only if there is none of that in it: tensors as bytes, names that are names,
expressions that are sums and products of symbols, and the operators of ATen, which only compute.
"""

from __future__ import annotations

import ast
import io
import json
import math
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import MlcoreError, ModelError
from mlcore.models import Trust

__all__ = ["examine"]

# The members of an archive of torch.export.save, after the folder they are all in.
_PLAIN = {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id", "version"}
_PLAIN |= {".format_version", ".storage_alignment"}
_MODEL, _EXAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,9}")
_RECORDS = {_WEIGHTS: "data/weights/", _CONSTANTS: "data/constants/"}

_TENSORS = re.compile(  # what the pickle of a tensor names
    r"collections OrderedDict|torch\._utils (_rebuild_tensor_v2|_rebuild_parameter)|torch \w+Storage"
)
_NAME = re.compile(r"[A-Za-z0-9_.]{0,500}")  # what becomes a name in Python that torch writes
_WORD = re.compile(r"[A-Za-z0-9_.,:;+<>=/ -]{0,500}")  # what becomes a text in it: no quotes, no line's end, no slash
# What torch only keeps, and hands to nobody but a debugger.
_TOLD = {"stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom"}
_SPECS = {"in_spec", "out_spec"}
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}

# Operators that do more than compute: files, other memory than a tensor's own, text on the screen.
_DENIED = {"from_file", "save", "set", "set_", "resize", "resize_", "resize_as", "resize_as_", "warn"}
_INNER = {
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_assert_async", "_assert_scalar", "_assert_tensor_metadata"),
    *("_cdist_forward", "_conj", "_log_softmax", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
    *("_scaled_dot_product_attention_math", "_shape_as_tensor", "_softmax", "_to_copy", "_unsafe_view"),
    *("_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_weight_norm", "__and__", "__or__", "__xor__"),
    *("__lshift__", "__rshift__"),
}
_SYMBOLIC = {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos")}
_SYMBOLIC |= {f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem")}
_SYMBOLIC |= {f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not", "sqrt", "sum")}
_SYMBOLIC |= {"math.trunc", "math.ceil", "math.floor"}
_HIGHER = {f"torch.ops.higher_order.{name}" for name in ("cond", "wrap_with_set_grad_enabled", "wrap_with_autocast")}

_FUNCTIONS = {
    *("Symbol", "Integer", "Float", "Max", "Min", "Mod", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not"),
    *("floor", "ceiling", "Abs", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt"),
    *("FloorToInt", "CeilDiv", "TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat", "IntTrueDiv", "FloatTrueDiv"),
    *("Identity", "Add", "Mul"),
}
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,6}")
_WORDS = {"positive", "integer", "real", "nonnegative", "nonzero", "negative", "zero"}  # what Symbol is told
_LONGEST = 2_000  # characters of an expression or guard


def examine(path: Path, trust: Trust) -> None:
    """Raise `ModelError` if `path` is damaged, `Untrusted` if it holds more than data and trust does not cover that."""
    if trust.everything:
        try:
            examine(path, Trust(trust.what, names=trust.names))
        except MlcoreError as error:
            trust.demand(f"{path.name} is more than data ({error})")
        return
    try:
        records = _records(path, trust)
        if records is None:  # trusted as it is
            return
        for name, folder in _RECORDS.items():
            _look_at_tensors(path, _parsed(records, name), records, folder, trust)
        if examples := bytes(records[_EXAMPLES]):
            _look_at_examples(path, examples, trust)
        _look_at_program(_parsed(records, _MODEL), trust)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ModelError(f"{path} cannot be read as an exported program: {error}") from error
    except RuntimeError as error:  # torch's word for an archive that is none
        raise ModelError(f"{path} cannot be read as an exported program: {str(error).splitlines()[0]}") from error


class _Records(Mapping[str, Any]):
    """The records of an archive as torch itself reads them, which need not be what another reader of archives sees."""

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
        import torch

        self.reader: Any = torch._C.PyTorchFileReader(str(path))
        self.sizes = sizes

    def __getitem__(self, name: str) -> bytes:
        return bytes(self.reader.get_record(name)) if name in self.sizes else b""

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


def _records(path: Path, trust: Trust) -> _Records | None:
    """Return the records, if all are of the kinds that hold data; None if there are others, and they are trusted."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    roots = {each.filename.partition("/")[0] for each in members}
    names = [each.filename.partition("/")[2] for each in members]
    if "version" in roots or "serialized_exported_program.json" in roots:
        trust.demand(f"{path.name} is an archive of before torch 2.8, which torch unpickles")
        return None
    if len(roots) != 1 or len(set(names)) != len(names) or any(".." in each.split("/") for each in names):
        raise ValueError("its files are not in one folder, or one is there twice")
    if any(each.compress_type or each.file_size != each.compress_size or each.flag_bits & 1 for each in members):
        raise ValueError("its files are compressed or encrypted, which torch's are not")
    if sum(each.file_size for each in members) > path.stat().st_size:
        raise ValueError("its files overlap")
    known = {*_PLAIN, _MODEL, _EXAMPLES, *_RECORDS}
    if others := sorted(name for name in names if name not in known and not _TENSOR.fullmatch(name)):
        trust.demand(f"{path.name} holds {', '.join(map(repr, others[:3]))}, which torch unpickles or runs")
        return None
    records = _Records(path, {name: each.file_size for name, each in zip(names, members, strict=True)})
    seen = sorted(records.reader.get_all_records())
    if seen != sorted(names) or any(records.reader.get_record_size(name) != records.sizes[name] for name in names):
        raise ValueError("torch would read other files in it than are listed")
    if records["archive_format"] != b"pt2":
        raise ValueError("it is no archive of torch.export.save")
    return records


def _parsed(records: Mapping[str, bytes], name: str) -> Any:
    if name not in records:
        raise ValueError(f"there is no {name} in it")
    return json.loads(records[name].decode())


def _look_at_tensors(path: Path, config: Any, records: _Records, folder: str, trust: Trust) -> None:
    """Check that tensors are bytes, as many as their shapes say."""
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE as DTYPES

    for name, about in config["config"].items():
        _need(_NAME, name)
        record, meta = folder + about["path_name"], about["tensor_meta"]
        if about["use_pickle"] is not False or not _TENSOR.fullmatch(record) or meta is None:
            trust.demand(f"{path.name} holds {name!r} as a pickle")
            continue
        if record not in records:
            raise ValueError(f"there is no {record} in it")
        dtype, sizes = DTYPES[meta["dtype"]], [_whole(each) for each in meta["sizes"]]
        strides, offset = [_whole(each) for each in meta["strides"]], _whole(meta["storage_offset"])
        width = dtype.itemsize
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        fits = (last + 1) * width <= records.sizes[record] and records.sizes[record] % width == 0
        if not fits and 0 not in sizes:
            raise ValueError(f"{name} is larger than its file")
        if math.prod(sizes) * width > 64 * records.sizes[record] + 1_000_000:  # one value, expanded
            raise ValueError(f"{name} would take {math.prod(sizes) * width:,} bytes out of {records.sizes[record]:,}")


def _whole(size: Any) -> int:
    number = size["as_int"]
    if type(number) is not int or not 0 <= number < 2**48:
        raise ValueError(f"{number!r} is no size")
    return number


def _look_at_examples(path: Path, content: bytes, trust: Trust) -> None:
    """Check that the examples are tensors: torch tries to read them as such, and unpickles whatever else they are."""
    import torch

    try:
        pickle = bytes(torch._C.PyTorchFileReader(io.BytesIO(content)).get_record("data.pkl"))
        for opcode, argument, _ in pickletools.genops(pickle):
            named = opcode.name == "GLOBAL" and bool(_TENSORS.fullmatch(str(argument)))
            if not named and opcode.name in {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}:
                raise ValueError(f"its pickle names {argument}")
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - what a forged pickle raises is its own choice
        trust.demand(f"{path.name} holds examples that are more than tensors ({type(error).__name__})")


def _look_at_program(program: Any, trust: Trust) -> None:
    """Check all that torch makes Python of, evaluates, or looks up by name."""
    unknown = set[str]()
    for where, key, value in _strings(program):
        if key in _TOLD and where == "metadata":
            continue
        if key == "expr_str":
            _look_at_expression(value, _FUNCTIONS)
        elif key in {"target", "as_operator"}:
            unknown.update([value] if not _computes(value) else [])
        elif key in _SPECS:
            _look_at_containers(json.loads(value))
        elif key == "guards_code":
            _look_at_guard(value)
        else:
            _need(_WORD if key in {"as_string", "as_strings", "torch_version", "type"} else _NAME, value)
    for key in program["range_constraints"]:
        _need(_SYMBOL, key)
    if unknown:
        trust.demand("its program calls", *sorted(unknown))


def _strings(value: Any, where: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every text in a nest of dicts and lists, with the keys it stands under, and check the keys."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            _need(_NAME, name)
            yield from _strings(each, key, name)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each, where, key)
    elif isinstance(value, str):
        yield where, key, value


def _need(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name that torch would write")


def _computes(target: str) -> bool:
    """Tell whether an operator only computes with what it is given."""
    if target in _SYMBOLIC or target in _HIGHER:
        return True
    found = re.fullmatch(r"torch\.ops\.(aten|prims)\.(\w+)\.(\w+)", target)
    if not found:
        return False
    name = found[2]
    return name not in _DENIED and (not name.startswith("_") or name in _INNER) and not name.endswith("_out")


def _look_at_expression(text: str, functions: Iterable[str]) -> None:
    """Check that what is evaluated is arithmetic: sympy's parser would call any function of Python's by its name."""
    if len(text) > _LONGEST or not re.fullmatch(r"[\w ()'=,.+*/%<>!&|~-]*", text, re.ASCII):
        raise ValueError("what should be the expression of a shape is none that torch writes")
    for node in ast.walk(ast.parse(text, mode="eval")):
        match node:
            case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]) if _SYMBOL.fullmatch(name):
                allowed = all(each.arg in _WORDS and isinstance(each.value, ast.Constant) for each in node.keywords)
            case ast.Call(func=ast.Name(id=name)):
                allowed = name in functions and not node.keywords and name != "Symbol"
            case ast.Name(id=name):
                allowed = name in functions or bool(_SYMBOL.fullmatch(name)) or name == "int_oo"
            case ast.Constant(value=value):
                allowed = isinstance(value, bool | int | float) and abs(value) < 2**63
                allowed = allowed or (isinstance(value, str) and bool(_SYMBOL.fullmatch(value)))
            case ast.BinOp(left=ast.Name(), op=ast.Pow(), right=ast.Constant(value=int(power))):
                allowed = 0 <= power <= 8
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod()):
                allowed = True
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()) | ast.Compare() | ast.BoolOp():
                allowed = True
            case ast.Expression() | ast.keyword() | ast.Load() | ast.operator() | ast.unaryop() | ast.cmpop():
                allowed = True
            case _:
                allowed = isinstance(node, ast.boolop)
        if not allowed:
            raise ValueError(f"{text[:80]!r} is no expression of a shape")


def _look_at_guard(text: str) -> None:
    """Check that a guard compares sizes of inputs: torch compiles and runs it."""
    plain = re.sub(r"L(\['\w{1,100}'\]|\[\d{1,4}\]){1,8}\.(size|stride)\(\)\[\d{1,3}\]", "s0", text)
    plain = re.sub(r"L(\['\w{1,100}'\]|\[\d{1,4}\]){1,8}\.storage_offset\(\)", "s0", plain)
    _look_at_expression(plain, ())


def _look_at_containers(spec: Any) -> None:
    """Check that arguments stand in plain containers: of others torch imports what they are."""
    _, tree = spec
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        waiting.extend(node["children_spec"])
        if node["type"] is None:
            if node["context"] is not None:
                raise ValueError("an argument that is no container says more of itself")
            continue
        keys = json.loads(node["context"])
        if node["type"] not in _CONTAINERS or not (keys is None or isinstance(keys, list)):
            raise ValueError(f"arguments in a {node['type']!r:.80}, which is no plain container")
        for key in keys or ():
            if type(key) is not int:
                _need(_NAME, key)

"""Input examples: files beside the model, in MLflow's forms, that show what the model takes."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import NotAModel, UnsafePath
from mlcore.models._enforce import needing
from mlcore.models._signature import Signature
from mlcore.models._types import form_of, is_missing

__all__ = ["load_example", "save_example"]

_log = logging.getLogger("mlcore")

ROWS = 5
LARGEST = 2_000_000  # characters: an example shows the form, and is read whenever somebody looks at the model
_CHAT = {"messages", "prompt", "input"}  # a dict with one of these is what MLflow's server takes as it is


def save_example(folder: Path, example: Any, params: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Write ``input_example.json`` and ``serving_input_example.json``; return what the MLmodel file says of them.

    Of frames and arrays the first five rows are kept. What JSON has no place for, or is larger than 2 MB, is left out
    with a warning, and nothing returned: a model is worth more than its example.
    """
    try:
        info, content, serving = _encoded(_first_rows(example))
        if params:
            given = {"params": _plain(params)}
            content, info["params"] = {"inputs": content, **given}, "true"
            serving = serving | (given["params"] if serving is content["inputs"] else given)
        texts = {"input_example.json": json.dumps(content), "serving_input_example.json": json.dumps(serving, indent=2)}
        if (size := max(map(len, texts.values()))) > LARGEST:
            raise ValueError(f"it has {size:,} characters as JSON; a few rows are enough")
    except ValueError as error:
        _log.warning("the model is saved without its input example: %s", error)
        return {}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json", **info}


def _first_rows(example: Any) -> Any:
    form = form_of(example)
    if form not in ("frame", "series", "polars", "array", "sparse") or example.shape[0] <= ROWS:
        return example
    _log.info("of the input example the first %d of %d rows are kept", ROWS, example.shape[0])
    return (example.tocsr() if form == "sparse" else example)[:ROWS]


def _encoded(example: Any) -> tuple[dict[str, str], Any, Any]:
    """Return what the MLmodel file says of an example, its content, and the body of a request that sends it."""
    form = form_of(example)
    if form in ("frame", "series", "polars"):
        frame = example.to_frame() if form == "series" else example
        rows = frame.rows() if form == "polars" else frame.itertuples(index=False, name=None)
        split = {"columns": list(frame.columns), "data": _plain([*rows])}
        if split["columns"] == [*range(len(split["columns"]))]:
            del split["columns"]
        orient = "split" if "columns" in split else "values"
        return {"type": "dataframe", "pandas_orient": orient}, split, {"dataframe_split": split}
    if form == "sparse":
        example = example if example.format in ("csc", "csr") else example.tocsr()
        content = {name: _plain(getattr(example, name)) for name in ("data", "indices", "indptr", "shape")}
        return {"type": f"sparse_matrix_{example.format}"}, content, {"inputs": _plain(example.toarray())}
    content = _plain(example)
    arrays = form == "array" or (
        form == "map" and example and all(form_of(each) == "array" for each in example.values())
    )
    if form == "map" and _CHAT & {*example}:
        return {"type": "json_object"}, content, content
    return {"type": "ndarray" if arrays else "json_object"}, content, {"inputs": content}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN and None as null, bytes as base64. Raises `ValueError` if it has no place."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        value = (value.astype("datetime64[us]") if value.dtype.kind == "M" else value).tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if is_missing(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, str | int | float):
        return value
    raise ValueError(f"JSON has no place for a {type(value).__qualname__}")


def load_example(
    folder: Path, info: Mapping[str, Any], signature: Signature | None = None
) -> tuple[Any, dict[str, Any] | None]:
    """Return the example that a model was saved with, and its parameters: None if there are none.

    JSON knows neither widths nor dates: with the model's signature they are what they were. Raises `NotAModel` if
    there is no such file, or it cannot be read, and `NotInstalled` without pandas, NumPy or SciPy where it was of them.
    """
    path = folder / str(info.get("artifact_path"))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafePath(f"the input example {info['artifact_path']!r} leads out of {folder}")
    try:
        content = json.loads(path.read_bytes())
        content, params = (content["inputs"], content["params"]) if info.get("params") else (content, None)
        data = _decoded(content, str(info.get("type")), info.get("format"))
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise NotAModel(f"the input example {path} cannot be read: {error}") from error
    return data if signature is None else signature.enforce(data, frame=info["type"] == "dataframe"), params


def _decoded(content: Any, kind: str, written: str | None) -> Any:
    if kind == "dataframe":
        with needing("pandas", "an input example that is a frame"):
            import pandas
        split = {"data": content} if isinstance(content, list) else content
        return pandas.DataFrame(split["data"], columns=split.get("columns"))
    if kind == "ndarray":
        with needing("numpy", "an input example that is an array"):
            import numpy
        content = content["inputs"] if written == "tf-serving" else content  # before MLflow 2
        arrays = {
            name: numpy.array(each) for name, each in (content if isinstance(content, dict) else {"": content}).items()
        }
        arrays = {name: each.astype(float) if each.dtype == object else each for name, each in arrays.items()}
        return arrays if isinstance(content, dict) else arrays[""]
    if kind.startswith("sparse_matrix_"):
        with needing("scipy", "an input example that is a sparse matrix"):
            import scipy.sparse
        matrix = scipy.sparse.csc_matrix if kind.endswith("csc") else scipy.sparse.csr_matrix
        return matrix((content["data"], content["indices"], content["indptr"]), shape=content["shape"])
    if kind != "json_object":
        raise ValueError(f"there is no form {kind!r}")
    return content

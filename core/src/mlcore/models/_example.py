"""Input examples: files beside the model, in MLflow's forms, that show what the model takes."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import NotAModel, NotInstalled, UnsafePath
from mlcore.models._schema import form_of, is_missing
from mlcore.models._signature import Signature

__all__ = ["load_example", "save_example"]

_log = logging.getLogger("mlcore")

_ROWS = 5
_LARGEST = 20_000_000  # characters: five colour images of 224 x 224 fit, a data set does not
_CHAT = {"messages", "prompt", "input"}  # a dict with one of these is what MLflow's server takes as it is


def save_example(folder: Path, example: Any, params: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Write ``input_example.json`` and ``serving_input_example.json``; return what the MLmodel file says of them.

    Of frames and arrays the first five rows are kept. What JSON has no place for, or is larger than 20 MB, is left out
    with a warning, and nothing returned: a model is worth more than its example.
    """
    if form_of(example) in ("frame", "series", "polars", "array", "sparse") and (*example.shape, 0)[0] > _ROWS:
        _log.info("of the input example the first %d of %d rows are kept", _ROWS, example.shape[0])
        example = (example.tocsr() if form_of(example) == "sparse" else example)[:_ROWS]
    try:
        info, content, request = _encoded(example)
        if params:
            given = {"params": _plain(params)}
            request = request | (given["params"] if request is content else given)
            content, info["params"] = {"inputs": content, **given}, "true"
        files = {"input_example.json": json.dumps(content), "serving_input_example.json": json.dumps(request)}
        if (size := max(map(len, files.values()))) > _LARGEST:
            raise ValueError(f"it has {size:,} characters as JSON, where a few rows would do")
    except ValueError as error:
        _log.warning("the model is saved without its input example: %s", error)
        return {}
    for name, written in files.items():
        (folder / name).write_text(written, encoding="utf-8")
    return {**dict(zip(("artifact_path", "serving_input_path"), files, strict=True)), **info}


def _encoded(example: Any) -> tuple[dict[str, str], Any, Any]:
    """Return what the MLmodel file says of an example, its content, and the body of a request that sends it."""
    form = form_of(example)
    if form in ("frame", "series", "polars"):
        frame = example.to_frame() if form == "series" else example
        rows = frame.rows() if form == "polars" else frame.itertuples(index=False, name=None)
        labels, split = list(frame.columns), {"data": _plain([*rows])}
        if labels == [*range(len(labels))]:  # pandas' own, which every reader makes anew
            return {"type": "dataframe", "pandas_orient": "values"}, split, {"dataframe_split": split}
        split = {"columns": labels, **split}
        return {"type": "dataframe", "pandas_orient": "split"}, split, {"dataframe_split": split}
    if form == "sparse":
        matrix = example if example.format == "csc" else example.tocsr()
        content = {name: _plain(getattr(matrix, name)) for name in ("data", "indices", "indptr", "shape")}
        return {"type": f"sparse_matrix_{matrix.format}"}, content, {"inputs": _plain(matrix.toarray())}
    content = _plain(example)
    if form == "map" and _CHAT & {*example}:
        return {"type": "json_object"}, content, content
    arrays = {form_of(each) for each in (example.values() if form == "map" else [example])} == {"array"}
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
    if is_missing(value) or isinstance(value, str | int | float):
        return None if is_missing(value) else value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise ValueError(f"JSON has no place for a {type(value).__qualname__}")


Example = tuple[Any, dict[str, Any] | None]


def load_example(folder: Path, info: Mapping[str, Any], signature: Signature | None = None) -> Example:
    """Return the example that a model was saved with, and its parameters: None if there are none.

    JSON knows neither widths nor dates: with the model's signature they are what they were. Raises `NotAModel` if
    there is no such file, or it cannot be read, and `NotInstalled` without the library it was of.
    """
    path = folder / str(info.get("artifact_path"))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafePath(f"the input example {info['artifact_path']!r} leads out of {folder}")
    try:
        content, params = json.loads(path.read_bytes()), None
        if info.get("params"):
            content, params = content["inputs"], content["params"]
        data = _decoded(content["inputs"] if info.get("format") == "tf-serving" else content, info["type"])
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotAModel(f"the input example {path} cannot be read: {error}") from error
    except ImportError as error:
        raise NotInstalled(f"the input example {path} needs {error.name}: pip install {error.name}") from error
    return data if signature is None else signature.enforce(data, frame=info["type"] == "dataframe"), params


def _decoded(content: Any, kind: str) -> Any:
    if kind == "dataframe":
        import pandas

        split = {"data": content} if isinstance(content, list) else content  # records, of old MLflow
        return pandas.DataFrame(split["data"], columns=split.get("columns"))
    if kind == "ndarray":
        import numpy

        if isinstance(content, dict):
            return {name: _decoded(each, kind) for name, each in content.items()}
        array = numpy.array(content)
        return array.astype(float) if array.dtype == object else array
    if kind != "json_object":
        import scipy.sparse

        made = {"sparse_matrix_csc": scipy.sparse.csc_matrix, "sparse_matrix_csr": scipy.sparse.csr_matrix}[kind]
        matrix = made((content["data"], content["indices"], content["indptr"]), shape=content["shape"])
        matrix.check_format()  # an index beyond the shape would have others read beyond the memory
        return matrix
    return content

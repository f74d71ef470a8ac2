"""Check signatures and input examples against MLflow itself: it reads ours, we read its, and both infer the same."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from mlcore.models import Signature, infer_signature, load_example, save_example

Run = Callable[..., str]
NAMES = {"np": np, "pd": pd, "sp": sp, "dt": dt}

HEAD = """
import json, logging, sys, warnings
import datetime as dt
import numpy as np, pandas as pd, scipy.sparse as sp
warnings.simplefilter("ignore")
import mlflow
from mlflow.models import Model, ModelSignature, infer_signature
logging.disable(logging.CRITICAL)
content = json.loads(open("content.json").read())
"""

# Expressions, since both sides make the data themselves. What MLflow cannot name, or only the whole of, is not here.
DATA = [
    "pd.DataFrame({'a': [1, 2], 'b': [1.5, None], 'c': ['x', 'y'], 'd': [True, False]})",
    "pd.DataFrame({'a': np.array([1], 'int8'), 'b': np.array([1], 'uint16'), 'c': np.array([1], 'uint32')})",
    "pd.DataFrame({'a': np.array([1], 'float16'), 'b': np.array([1], 'float32'), 'c': np.array([1], 'int32')})",
    "pd.DataFrame({'a': pd.to_datetime(['2024-01-01', None]), 'b': [b'x', b'y']})",
    "pd.DataFrame({'a': pd.array([1, None], 'Int64'), 'b': pd.array([True, None], 'boolean')})",
    "pd.DataFrame({'a': pd.Categorical(['x', 'y']), 'b': ['x', None], 'c': [None, None]})",
    "pd.DataFrame({'a': [[1, 2], [3]], 'b': [{'k': 1}, {'k': 2, 'l': 'x'}], 'c': [[['x']], [[]]]})",
    "pd.DataFrame({'a': [{'k': {'l': [1.5]}}, {'k': {'l': [2.5], 'm': None}}]})",
    "pd.DataFrame({'a': pd.Series([1, 2], dtype=object), 'b': pd.Series(['x', 'y'], dtype=object)})",
    "pd.DataFrame([[1, 2.5], [3, 4.5]])",
    "pd.Series([1, 2], name='a')",
    "pd.Series([1.5, 2.5])",
    "np.array([[1.5, 2.5]])",
    "np.array([1, 2], 'uint8')",
    "np.array(['x', 'yy'])",
    "np.array([b'x'])",
    "np.array([[['x', 1]]], dtype=object)",
    "np.array(['2024-01-01'], 'datetime64[D]')",
    "np.zeros((2, 3, 4), 'float32')",
    "{'a': np.zeros((2, 3)), 'b': np.array([1, 2], 'int32')}",
    "sp.csr_matrix(np.eye(3))",
    "sp.csc_matrix(np.eye(3, dtype='float32'))",
    "'text'",
    "5",
    "2.5",
    "True",
    "b'bytes'",
    "dt.datetime(2024, 1, 1)",
    "np.float32(1.5)",
    "['x', 'y']",
    "[1, 2]",
    "[[1, 2], [3]]",
    "{'a': 1, 'b': 'x', 'c': [1.5], 'd': {'k': [True]}}",
    "{'a': None, 'b': {'k': None, 'l': 1}}",
    "[{'a': 1, 'b': 'x'}, {'a': 2}, {'a': 3, 'b': None}]",
    "[{'messages': [{'role': 'user', 'content': 'hi'}, {'role': 'bot', 'content': 'hi', 'tools': ['a']}]}]",
]
PARAMS = [
    "{'a': 1, 'b': 0.5, 'c': 'x', 'd': True}",
    "{'a': [1, 2], 'b': [0.5], 'c': ['x'], 'd': np.array([1.5, 2.5])}",
    "{'a': {'k': 'v', 'l': [1, 2]}}",
    "{'a': np.float32(0.5), 'b': np.int32(3)}",
    "{'a': dt.datetime(2024, 1, 1, 12, 30), 'b': [dt.datetime(2024, 1, 1)]}",
]
WRITTEN = [
    {"inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "object", "shape": [-1]}}]', "outputs": None},
    {"inputs": '[{"type": "map", "values": {"type": "string"}, "name": "d", "required": false}]', "outputs": None},
    {"inputs": '[{"type": "map", "values": {"type": "array", "items": {"type": "any"}}, "required": true}]'},
    {
        "inputs": '[{"type": "sparkml_vector", "name": "v", "required": true}]',
        "outputs": '[{"type": "any", "required": true}]',
    },
    {"inputs": '[{"type": "long", "name": "a"}]', "outputs": '[{"type": "long"}]'},
    {"inputs": '[{"type": "long"}]', "params": '[{"name": "p", "dtype": "long", "default": 1, "shape": null}]'},
    {"inputs": '[{"type": "long"}]', "params": '[{"name": "p", "type": "string", "default": null, "shape": [-1]}]'},
][:-1]


def given(expression: str) -> Any:
    """Return the data that an expression makes on both sides."""
    return eval(expression, NAMES)


def parsed(signature: dict[str, str | None]) -> dict[str, Any]:
    """Return a signature as a file has it, with its JSON read."""
    return {key: json.loads(text) if text else None for key, text in signature.items()}


@pytest.fixture
def asked(mlflow_run: Run, tmp_path: Path) -> Callable[[str, Any], Any]:
    """Return a function that runs a script, with `content`, under MLflow, and returns the JSON it prints last."""

    def ask(script: str, content: Any) -> Any:
        (tmp_path / "content.json").write_text(json.dumps(content))
        return json.loads(mlflow_run(HEAD + script, cwd=tmp_path).splitlines()[-1])

    return ask


def test_mlflow_infers_the_same_signatures(asked: Callable[[str, Any], Any]) -> None:
    """Guards what every third party expects in the file: the very columns and tensors that MLflow would write."""
    script = "print(json.dumps([infer_signature(eval(each), [1]).to_dict()['inputs'] for each in content]))"
    theirs = asked(script, DATA)
    for expression, text in zip(DATA, theirs, strict=True):
        ours = infer_signature(given(expression), [1]).to_mlmodel()
        assert ours is not None
        assert json.loads(ours["inputs"] or "") == json.loads(text), expression


def test_mlflow_infers_the_same_parameters(asked: Callable[[str, Any], Any]) -> None:
    """Guards the types, shapes and defaults of parameters."""
    script = "print(json.dumps([infer_signature([1], [1], eval(each)).to_dict()['params'] for each in content]))"
    theirs = asked(script, PARAMS)
    for expression, text in zip(PARAMS, theirs, strict=True):
        ours = infer_signature([1], [1], given(expression)).to_mlmodel()
        assert ours is not None
        assert json.loads(ours["params"] or "") == json.loads(text), expression


def test_mlflow_reads_what_we_write_and_means_the_same(asked: Callable[[str, Any], Any]) -> None:
    """Guards the written form: MLflow reads it, and writes it again as it was; from there we read the same."""
    ours = [infer_signature(given(data), given(data), given(PARAMS[at % len(PARAMS)])) for at, data in enumerate(DATA)]
    theirs = asked(
        "print(json.dumps([ModelSignature.from_dict(each).to_dict() for each in content]))",
        [each.to_mlmodel() for each in ours],
    )
    for signature, back in zip(ours, theirs, strict=True):
        assert parsed(back) == parsed(signature.to_mlmodel() or {})
        assert Signature.from_mlmodel(back) == signature


def test_we_read_what_mlflow_writes_of_hand_made_signatures(asked: Callable[[str, Any], Any]) -> None:
    """Guards forms that no inference makes: maps, optional columns, keys that are left out, names of old versions."""
    theirs = asked("print(json.dumps([ModelSignature.from_dict(each).to_dict() for each in content]))", WRITTEN)
    for written, back in zip(WRITTEN, theirs, strict=True):
        assert Signature.from_mlmodel(written) == Signature.from_mlmodel(back)


EXAMPLES = [
    "pd.DataFrame({'a': [1, 2], 'b': [1.5, None], 'c': ['x', None], 'd': [True, False]})",
    "pd.DataFrame({'a': np.array([1, 2], 'int32'), 'b': np.array([0.1, 2], 'float32')})",
    "pd.DataFrame({'a': pd.to_datetime(['2024-01-01 12:30', '2024-01-02 00:00']), 'b': [b'x', b'yy']})",
    "pd.DataFrame({'a': [[1, 2], [3]], 'b': [{'k': 1}, {'k': 2}]})",
    "pd.DataFrame([[1, 2.5], [3, 4.5]])",
    "np.array([[1.5, np.nan], [2.5, 3]])",
    "np.array([[1, 2]], 'int8')",
    "np.array(['x', 'yy'])",
    "{'a': np.zeros((2, 3), 'float32'), 'b': np.array([1, 2])}",
    "sp.csr_matrix(np.eye(3))",
    "sp.csc_matrix(np.eye(3))",
    "['x', 'y']",
    "'text'",
    "{'a': 1, 'b': 'x', 'c': [1.5]}",
    "[{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]",
    "{'messages': [{'role': 'user', 'content': 'hi'}]}",
]


def same(one: Any, other: Any) -> None:
    """Assert that two examples are equal, dtypes included."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, strict=True)
    elif sp.issparse(one):
        assert (one.format, one.dtype) == (other.format, other.dtype)
        assert (one != other).nnz == 0
    else:
        assert one == other


@pytest.mark.parametrize("params", [None, {"top": 3}], ids=["alone", "with parameters"])
def test_mlflow_reads_the_examples_we_save_and_serves_them(
    asked: Callable[[str, Any], Any], tmp_path: Path, params: dict[str, Any] | None
) -> None:
    """Guards both files: the example is the data again, and the request is taken and fits the signature."""
    folders = []
    for at, expression in enumerate(EXAMPLES):
        folder = tmp_path / str(at)
        folder.mkdir()
        example = given(expression)
        signature = infer_signature(example, [1], params)
        info = save_example(folder, example, params)
        content = {"flavors": {}, "signature": signature.to_mlmodel(), "saved_input_example_info": info}
        (folder / "MLmodel").write_text(yaml.safe_dump(content))
        folders.append([str(folder), expression])
    script = """
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc.scoring_server import _parse_json_data
found = []
for folder, expression in content:
    model, expected = Model.load(folder), eval(expression)
    example = model.load_input_example(folder)
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(example, expected, check_dtype=False)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(example, expected)
    elif sp.issparse(expected):
        assert (example != expected).nnz == 0 and example.format == expected.format
    elif isinstance(expected, dict) and isinstance(next(iter(expected.values())), np.ndarray):
        assert all(np.array_equal(example[name], each) for name, each in expected.items())
    else:
        assert example == expected, example
    if not sp.issparse(expected):
        body = model.get_serving_input(folder)
        request = _parse_json_data(body, model, model.get_input_schema())
        if not request.is_unified_llm_input:
            _enforce_schema(request.data, model.get_input_schema())
        found.append(request.params)
    else:
        found.append(json.loads(model.get_serving_input(folder)).get("params"))
    found[-1] = [found[-1], model.load_input_example_params(folder)]
print(json.dumps(found))
"""
    for (_, expression), (sent, kept) in zip(folders, asked(script, folders), strict=True):
        assert kept == params, expression
        assert (sent or None) == params, expression


def test_we_read_the_examples_of_models_that_mlflow_saved(mlflow_run: Run, tmp_path: Path) -> None:
    """Guards models from elsewhere: with the signature beside it an example is what it was, dtypes included."""
    script = """
class Same(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1]
for at, expression in enumerate(content):
    example = eval(expression)
    signature = infer_signature(example, [1], {"top": 3})
    mlflow.pyfunc.save_model(f"model{at}", python_model=Same(), input_example=(example, {"top": 5}),
                             signature=signature, pip_requirements=[])
"""
    (tmp_path / "content.json").write_text(json.dumps(EXAMPLES))
    mlflow_run(HEAD + script, cwd=tmp_path)
    for at, expression in enumerate(EXAMPLES):
        folder = tmp_path / f"model{at}"
        content = yaml.safe_load((folder / "MLmodel").read_text())
        signature = Signature.from_mlmodel(content["signature"])
        data, params = load_example(folder, content["saved_input_example_info"], signature)
        same(given(expression), data)
        assert params == {"top": 5}

"""Check signatures: how they are written, printed, found from type hints, and what they make of parameters."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from mlcore.errors import InvalidValue, SchemaMismatch
from mlcore.models import Signature, infer_signature

LONG, TEXT = {"type": "long"}, {"type": "string"}


class TestWritten:
    def test_both_sides_are_written_or_nothing(self) -> None:
        """Guards MLServer, which fails at loading a model with inputs and no outputs."""
        assert Signature([LONG]).to_mlmodel() is None
        assert Signature(None, [LONG]).to_mlmodel() is None
        assert Signature([LONG], [LONG]).to_mlmodel() == {
            "inputs": '[{"type": "long", "required": true}]',
            "outputs": '[{"type": "long", "required": true}]',
            "params": None,
        }

    def test_keys_that_mlflow_would_fall_over_are_never_written(self) -> None:
        """Guards MLflow, which reads a column with an unknown key as an error."""
        noisy = {"type": "array", "items": {"type": "long", "note": 1}, "name": "a", "description": "of note"}
        assert Signature([noisy]).inputs == (
            {"type": "array", "items": {"type": "long"}, "name": "a", "required": True},
        )

    @pytest.mark.parametrize(
        "fields",
        [
            [],
            [{"type": "number"}],
            [{"type": "array"}],
            [{"type": "object", "properties": {}}],
            [{"type": "tensor", "tensor-spec": {"dtype": "int8"}}],
            [{"name": "a"}],
            [{"type": "long", "name": "a"}, {"type": "long", "name": "a"}],
            [{"type": "long", "name": "a"}, {"type": "long"}],
            [{"type": "long", "name": ("a", "b")}],
            [{"type": "long", "required": False}],
            [{"type": "long"}, {"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": []}}],
            [{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": []}}] * 2,
        ],
        ids=str,
    )
    def test_what_mlflow_would_not_read_is_refused(self, fields: list[dict[str, Any]]) -> None:
        """Guards the rules that MLflow's reader has."""
        with pytest.raises(InvalidValue):
            Signature(fields)
        with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
            Signature.from_mlmodel({"inputs": json.dumps(fields)})

    @pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "5", '["long"]', '[{"type": null}]'])
    def test_a_broken_file_is_one_of_five_errors(self, text: str) -> None:
        """Guards the caller, who turns these into what is wrong with which file."""
        with pytest.raises((ValueError, TypeError, AttributeError, LookupError)):
            Signature.from_mlmodel({"inputs": text})

    def test_a_file_that_is_nested_without_end_is_an_error_too(self) -> None:
        """Guards whoever only looks at somebody else's model."""
        for text in ("[" * 100_000, '[{"type": "map", "values": ' * 5_000):
            with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
                Signature.from_mlmodel({"inputs": text})

    def test_labels_that_are_no_names_are_told(self) -> None:
        """Guards frames with several levels of labels."""
        frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
        with pytest.raises(InvalidValue, match="a text or number of its own"):
            infer_signature(frame)

    def test_it_prints_as_a_table(self) -> None:
        """Guards what people look at."""
        user = {
            "type": "object",
            "properties": {"id": LONG, "tags": {"type": "array", "items": TEXT, "required": False}},
        }
        signature = Signature(
            [{"name": "age", **LONG}, {"name": "user", "required": False, **user}],
            [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": (-1, 3)}}],
            [{"name": "stop", "default": ["."], "shape": [-1], **TEXT}],
        )
        expected = """
            inputs
              age   long
              user  {id: long, tags?: array of string}  optional
            outputs
              -  float32 (-1, 3)
            params
              stop  array of string  default ['.']
        """
        assert str(signature) == textwrap.dedent(expected).strip()


SCALARS = st.sampled_from(["boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any"])
TYPES = st.recursive(
    SCALARS.map(lambda name: {"type": name}),
    lambda inner: (
        inner.map(lambda items: {"type": "array", "items": items})
        | inner.map(lambda values: {"type": "map", "values": values})
        | st.dictionaries(st.text(), st.tuples(inner, st.booleans()), min_size=1, max_size=3).map(
            lambda found: {
                "type": "object",
                "properties": {name: {**kind, "required": need} for name, (kind, need) in found.items()},
            }
        )
    ),
    max_leaves=5,
)
NAMED = st.dictionaries(st.text(), st.tuples(TYPES, st.booleans()), min_size=1, max_size=3).map(
    lambda found: [{"name": name, **kind, "required": need} for name, (kind, need) in found.items()]
)
TENSORS = st.dictionaries(st.text(), st.lists(st.integers(-1, 9)), min_size=1, max_size=3).map(
    lambda found: [
        {"name": name, "type": "tensor", "tensor-spec": {"dtype": "int8", "shape": shape}}
        for name, shape in found.items()
    ]
)
PARAMS = st.dictionaries(
    st.text(), st.integers(0, 2**62) | st.lists(st.text(), min_size=1) | st.booleans() | st.datetimes()
)


@given(NAMED | TENSORS | TYPES.map(lambda kind: [kind]), NAMED | TENSORS, PARAMS)
def test_what_is_written_reads_as_it_was(inputs: Any, outputs: Any, params: dict[str, Any]) -> None:
    """Guards the file, there and back."""
    known = infer_signature(
        1, 1, {name: each for name, each in params.items() if abs(hash(each) if isinstance(each, int) else 0) < 2**63}
    )
    signature = Signature(inputs, outputs, known.params)
    written = signature.to_mlmodel()
    assert written is not None
    assert Signature.from_mlmodel(written) == signature
    assert str(Signature.from_mlmodel(written)) == str(signature)


class TestParameters:
    SIGNATURE = infer_signature(
        1, 1, {"top": 5, "rate": 0.5, "stop": ["."], "since": datetime(2024, 1, 1, tzinfo=UTC), "more": {"k": 1}}
    )

    def test_what_is_not_given_has_its_default(self) -> None:
        """Guards defaults, of which every call gets its own."""
        found = self.SIGNATURE.enforce_params({"top": 3.0, "rate": 1})
        assert found == {
            "top": 3,
            "rate": 1.0,
            "stop": ["."],
            "more": {"k": 1},
            "since": datetime(2024, 1, 1, tzinfo=UTC),
        }
        assert (type(found["top"]), type(found["rate"])) == (int, float)
        found["stop"].append("!")
        assert self.SIGNATURE.enforce_params(None)["stop"] == ["."]

    def test_everything_wrong_is_said_at_once(self) -> None:
        """Guards against a parameter that is misspelt and silently does nothing, as in MLflow."""
        with pytest.raises(SchemaMismatch) as caught:
            self.SIGNATURE.enforce_params({"topp": 3, "rate": "high", "stop": "x", "more": {"k": "v"}, "since": "soon"})
        assert str(caught.value).splitlines() == [
            "the parameters do not fit the model's signature:",
            "  parameter 'topp' is unknown: there is top, rate, stop, since, more",
            "  parameter 'rate': expected double, was given string 'high'",
            "  parameter 'stop': expected array of string, was given string 'x'",
            "  parameter 'since': expected datetime, was given string 'soon'",
            "  parameter 'more': expected long, was given string 'v' in ['k']",
        ]
        with pytest.raises(SchemaMismatch, match="parameter 'a' is unknown: there is none"):
            Signature([LONG], [LONG]).enforce_params({"a": 1})

    def test_none_is_none(self) -> None:
        """Guards the way to say nothing."""
        assert self.SIGNATURE.enforce_params({"stop": None})["stop"] is None
        assert Signature([LONG]).enforce_params(None) == {}

    @pytest.mark.parametrize("value", [None, [], b"x", [[1]], [{"k": 1}, None], object(), {}, [b"x"]])
    def test_what_has_no_type_cannot_be_a_parameter(self, value: Any) -> None:
        """Guards the file from what MLflow could not read; the error says which parameter."""
        with pytest.raises(InvalidValue, match="parameter 'a'"):
            infer_signature(1, 1, {"a": value})

    def test_numbers_of_numpy_are_numbers(self) -> None:
        """Guards defaults that were computed."""
        found = infer_signature(1, 1, {"a": np.float32(0.5), "b": np.arange(2), "c": date(2024, 1, 2)})
        assert found.enforce_params(None) == {"a": 0.5, "b": [0, 1], "c": datetime.fromisoformat("2024-01-02")}


def test_plain_data_load_no_library() -> None:
    """Guards the start of a process that has nothing to do with arrays: neither NumPy nor pandas is imported."""
    script = """
    import sys
    from mlcore.models import infer_signature
    signature = infer_signature([{"a": 1, "b": ["x"]}], "yes", {"top": 3})
    assert signature.enforce([{"a": 1.0, "b": ["x"]}], frame=False) == [{"a": 1, "b": ["x"]}]
    assert signature.enforce_params({}) == {"top": 3}
    assert not {"numpy", "pandas", "scipy"} & set(sys.modules)
    sys.modules["pandas"] = None
    try:
        signature.enforce([{"a": 1, "b": ["x"]}])
    except Exception as error:
        print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", inspect.cleandoc(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "NotInstalled a signature with columns needs pandas: pip install pandas"

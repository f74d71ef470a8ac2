"""Check what data are called in a signature, and what fits it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings, strategies as st

from mlcore.errors import SchemaMismatch
from mlcore.models import Signature, infer_signature

SCALARS = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]


def column(kind: str, name: str | None = "a", **more: Any) -> dict[str, Any]:
    """Return the specification of a column."""
    return {"type": kind, **({} if name is None else {"name": name}), **more}


def tensor(dtype: str, *shape: int, **more: Any) -> dict[str, Any]:
    """Return the specification of a tensor."""
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **more}


def enforced(data: Any, *fields: Mapping[str, Any], frame: bool = True) -> Any:
    """Return data as a schema of these fields has them."""
    return Signature(fields).enforce(data, frame=frame)


def cell(value: Any, kind: str, **more: Any) -> Any:
    """Return what becomes of one value in a column of a frame."""
    return enforced(pd.DataFrame({"a": [value]}), column(kind, **more))["a"].iloc[0]


def kind_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a type as arguments of `cell`."""
    return {"kind": spec["type"], **{key: each for key, each in spec.items() if key in ("items", "properties")}}


def array(items: Any) -> dict[str, Any]:
    """Return the type of a list."""
    return {"type": "array", "items": items if isinstance(items, dict) else {"type": items}}


class TestCasts:
    @pytest.mark.parametrize(
        ("value", "kind", "dtype"),
        [
            (np.int8(5), "integer", "int32"),
            (np.int32(5), "long", "int64"),
            (np.int64(5), "integer", "int32"),
            (np.uint64(5), "long", "int64"),
            (np.int64(2**53), "double", "float64"),
            (np.int64(2**24), "float", "float32"),
            (np.float32(0.1), "double", "float64"),
            (np.float64(0.5), "float", "float32"),
            (np.float64(math.inf), "float", "float32"),
            (np.float64(5), "long", "int64"),
        ],
    )
    def test_a_number_becomes_another_one_of_the_same_value(self, value: Any, kind: str, dtype: str) -> None:
        """Guards data that come in the width of their file, not in that of the training."""
        found = enforced(pd.DataFrame({"a": [value]}), column(kind))["a"]
        assert (found.iloc[0], str(found.dtype)) == (value, dtype)

    @pytest.mark.parametrize(
        ("value", "kind", "said"),
        [
            (np.float64(2.5), "long", "expected long, was given float64, such as 2.5"),
            (np.int64(2**31), "integer", "expected integer, was given int64"),
            (np.uint64(2**64 - 1), "long", "expected long, was given uint64"),
            (np.int64(2**53 + 1), "double", "expected double, was given int64"),
            (np.float64(0.1), "float", "expected float, was given float64, such as 0.1"),
            (np.float64(1e39), "float", "expected float, was given float64"),
            (np.float64(2.0**63), "long", "expected long, was given float64"),
            (np.float64(math.inf), "long", "expected long, was given float64, such as inf"),
            (np.bool_(True), "long", "expected long, was given bool"),
            (np.int64(1), "boolean", "expected boolean, was given int64"),
            (np.int64(1), "string", "expected string, was given long 1 in row 0"),
            ("1", "long", "expected long, was given string '1' in row 0"),
            ("yes", "boolean", "expected boolean, was given string 'yes' in row 0"),
            ("soon", "datetime", "expected datetime, was given string 'soon' in row 0"),
            (np.int64(0), "datetime", "expected datetime, was given long 0 in row 0"),
            ("no base64!", "binary", "expected binary, was given string 'no base64!' in row 0"),
            (b"x", "string", "expected string, was given binary b'x' in row 0"),
            (None, "string", "expected string, was given nothing in row 0"),
            (math.nan, "long", "expected long, was given nothing in row 0"),
            (3 + 4j, "double", "expected double, was given (3+4j) in row 0"),
        ],
    )
    def test_what_would_change_is_refused_by_name(self, value: Any, kind: str, said: str) -> None:
        """Guards predictions from silently wrong data: the error names column, expected and given type."""
        with pytest.raises(SchemaMismatch) as caught:
            cell(value, kind)
        assert f"\n  column 'a': {said}" in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "kind", "expected"),
        [
            ("2024-01-02", "datetime", pd.Timestamp(2024, 1, 2)),
            ("2024-01-02T03:04:05", "datetime", pd.Timestamp(2024, 1, 2, 3, 4, 5)),
            (date(2024, 1, 2), "datetime", pd.Timestamp(2024, 1, 2)),
            (np.datetime64("2024-01-02"), "datetime", pd.Timestamp(2024, 1, 2)),
            ("eHk=", "binary", b"xy"),
            (np.str_("x"), "string", "x"),
            ({"k": 1}, "any", {"k": 1}),
        ],
    )
    def test_what_json_has_no_form_for_comes_as_text(self, value: Any, kind: str, expected: Any) -> None:
        """Guards dates and bytes in requests."""
        assert cell(value, kind) == expected

    def test_dates_with_and_without_a_time_zone_do_not_mix(self) -> None:
        """Guards against an hour that nobody meant."""
        frame = pd.DataFrame({"a": ["2024-01-01T00:00:00+01:00", "2024-01-01"]})
        with pytest.raises(SchemaMismatch, match="column 'a': expected datetime, was given"):
            enforced(frame, column("datetime"))
        assert enforced(frame[:1], column("datetime"))["a"].dt.tz is not None

    @pytest.mark.parametrize("kind", ["float", "double", "datetime"])
    def test_a_missing_number_or_date_is_a_value(self, kind: str) -> None:
        """Guards models that impute, and were shown an example without holes; MLflow lets these pass too."""
        assert pd.isna(cell(None, kind))
        assert pd.isna(enforced([{"a": None}], column(kind))["a"].iloc[0])

    @pytest.mark.parametrize(
        "values", [[1.0, math.nan], pd.array([1, None], "Int64"), pd.Series([1, None], dtype=object)]
    )
    def test_integers_with_holes_stay_as_they_came_where_they_are_optional(self, values: Any) -> None:
        """Guards integers that pandas makes floats of as soon as one is missing."""
        frame = pd.DataFrame({"a": values})
        pd.testing.assert_frame_equal(enforced(frame, column("long", required=False)), frame)
        with pytest.raises(SchemaMismatch, match="expected long, was given nothing in row 1"):
            enforced(frame, column("long"))

    def test_optional_texts_may_be_missing_one_by_one_or_altogether(self) -> None:
        """Guards `required`."""
        fields = column("long"), column("string", "b", required=False)
        assert enforced(pd.DataFrame({"a": [1, 2], "b": ["x", None]}), *fields)["b"].isna().tolist() == [False, True]
        assert list(enforced(pd.DataFrame({"a": [1]}), *fields)) == ["a"]

    def test_numbers_of_plain_python_have_no_width(self) -> None:
        """Guards requests: 0.1 in JSON is what a float of 32 bits is written as, but 2**24 + 1 is another number."""
        assert enforced([{"a": 0.1}], column("float"))["a"].dtype == "float32"
        with pytest.raises(SchemaMismatch, match=r"was given float64, such as 1e\+39"):
            enforced([{"a": 1e39}], column("float"))


class TestFrames:
    FIELDS = column("long"), column("string", "b")

    @pytest.mark.parametrize(
        "data",
        [
            {"a": [1, 2], "b": ["x", "y"]},
            {"a": np.array([1, 2]), "b": np.array(["x", "y"])},
            [{"a": 1, "b": "x"}, {"b": "y", "a": 2, "c": 3}],
            [[1, "x"], [2, "y"]],
            np.array([[1, "x"], [2, "y"]], dtype=object),
            {"columns": ["b", "a"], "data": [["x", 1], ["y", 2]]},
            {"data": [[1, "x"], [2, "y"]]},
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]], "index": [0, 1]}},
            {"dataframe_records": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
            {"instances": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
            {"inputs": {"a": [1, 2], "b": ["x", "y"]}},
            {"instances": [[1, "x"], [2, "y"]]},
        ],
        ids=lambda data: str(data)[:40],
    )
    def test_rows_and_columns_in_any_form_become_a_frame(self, data: Any) -> None:
        """Guards what people and requests send."""
        pd.testing.assert_frame_equal(enforced(data, *self.FIELDS), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))

    def test_one_row_is_a_frame_too(self) -> None:
        """Guards a dict of plain values; lists in it are values where the column is one of lists."""
        assert enforced({"a": 1, "b": "x"}, *self.FIELDS).to_dict("records") == [{"a": 1, "b": "x"}]
        listed = enforced({"a": [1, 2], "b": "x"}, column("long") | array("long"), column("string", "b"))
        assert listed.to_dict("records") == [{"a": [1, 2], "b": "x"}]

    def test_one_column_takes_what_has_no_columns(self) -> None:
        """Guards models of one column: a list, an array, a series of any name, one value."""
        for data in ([1, 2], np.array([1, 2]), np.array([[1], [2]]), pd.Series([1, 2], name="z")):
            assert enforced(data, column("long"))["a"].tolist() == [1, 2]
        assert enforced(5, column("long"))["a"].tolist() == [5]
        assert enforced([[1], [2, 3]], column("long") | array("long"))["a"].tolist() == [[1], [2, 3]]

    def test_columns_are_sorted_and_others_left_out(self) -> None:
        """Guards models that know columns by place; the index stays, and the caller's frame is not touched."""
        frame = pd.DataFrame({"z": [0], "b": ["x"], "a": np.array([1], "int8")}, index=[7])
        found = enforced(frame, *self.FIELDS)
        assert (list(found), list(found.index), found["a"].dtype) == (["a", "b"], [7], "int64")
        assert (list(frame), frame["a"].dtype) == (["z", "b", "a"], "int8")

    def test_everything_wrong_is_said_at_once(self) -> None:
        """Guards whoever corrects data from running ten times."""
        frame = pd.DataFrame([[1.5, 1, 2]], columns=["a", "c", "c"])
        with pytest.raises(SchemaMismatch) as caught:
            enforced(frame, *self.FIELDS, column("long", "c"))
        assert str(caught.value).splitlines() == [
            "the data do not fit the model's signature:",
            "  column 'a': expected long, was given float64, such as 1.5",
            "  column 'b': expected string, was given none of that name, among a, c, c",
            "  column 'c': expected long, was given 2 of that name, among a, c, c",
        ]

    @pytest.mark.parametrize("data", [[[1]], np.zeros((2, 3)), np.zeros((2, 2, 2)), 5, {"data": [[1, 2, 3]]}, "x"])
    def test_what_is_no_table_of_that_width_is_refused(self, data: Any) -> None:
        """Guards against values under the wrong name."""
        with pytest.raises(SchemaMismatch, match=r"the data: expected 2 columns \(a, b\), was given"):
            enforced(data, *self.FIELDS)

    def test_columns_of_different_lengths_are_no_table(self) -> None:
        """Guards against a dict that is neither columns nor a row."""
        with pytest.raises(SchemaMismatch, match=r"column 'a': expected long, was given array of long \[1\] in row 0"):
            enforced({"a": [1], "b": ["x", "y"]}, *self.FIELDS)

    def test_columns_without_names_go_by_place(self) -> None:
        """Guards signatures of old MLflow, whose columns had no names."""
        fields = column("long", None), column("double", None)
        assert enforced(pd.DataFrame({"x": [1], "y": [2], "z": [3]}), *fields).to_dict("list") == {"x": [1], "y": [2.0]}
        assert enforced([[1, 2]], *fields).to_dict("list") == {0: [1], 1: [2.0]}
        with pytest.raises(SchemaMismatch, match="column 1: expected double"):
            enforced(pd.DataFrame({"x": [1]}), *fields)

    def test_numbered_columns_are_known_by_number(self) -> None:
        """Guards frames that were made of arrays."""
        frame = pd.DataFrame([[1, 2.5]])
        pd.testing.assert_frame_equal(infer_signature(frame).enforce(frame[[1, 0]]), frame)

    def test_plain_records_stay_plain_where_no_frame_is_wanted(self) -> None:
        """Guards Python functions that were shown dicts, and want dicts."""
        assert enforced({"a": 1.0, "b": "x", "c": 2}, *self.FIELDS, frame=False) == {"a": 1, "b": "x"}
        assert enforced([{"a": 1, "b": "x"}], *self.FIELDS, frame=False) == [{"a": 1, "b": "x"}]
        with pytest.raises(SchemaMismatch, match=r"row 1: expected long as 'a', was given nothing"):
            enforced([{"a": 1, "b": "x"}, {"b": "y"}], *self.FIELDS, frame=False)
        split = {"dataframe_split": {"columns": ["b", "a"], "data": [["x", 1.0]]}}
        assert enforced(split, *self.FIELDS, frame=False) == [{"a": 1, "b": "x"}]
        assert enforced([[1, "x"]], *self.FIELDS, frame=False) == [{"a": 1, "b": "x"}]
        with pytest.raises(SchemaMismatch, match=r"the data: expected 2 columns \(a, b\), was given 1 values in row 0"):
            enforced([3], *self.FIELDS, frame=False)

    def test_a_frame_of_polars_stays_one(self) -> None:
        """Guards models that were trained on polars."""
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [[1], []], "d": [1.5, None]})
        signature = infer_signature(frame)
        assert signature == infer_signature(frame.rows(named=True))
        assert signature.enforce(frame.select("d", "c", "b", "a")).equals(frame)
        with pytest.raises(SchemaMismatch, match="column 'b'"):
            signature.enforce(frame.drop("b"))


class TestNested:
    SCHEMA = column("object", properties={"x": column("long"), "y": array("float") | {"required": False}})

    def test_values_are_cast_to_the_bottom(self) -> None:
        """Guards lists in dicts in columns."""
        assert cell({"x": 1.0, "y": [1, 2.5]}, **kind_of(self.SCHEMA)) == {"x": 1, "y": [1.0, 2.5]}
        assert cell({"x": 1}, **kind_of(self.SCHEMA)) == {"x": 1}
        assert cell({"x": 1, "y": None}, **kind_of(self.SCHEMA)) == {"x": 1, "y": None}
        assert cell({"k": [1]}, "map", values=array("double")) == {"k": [1.0]}
        assert cell([1, 2.5], "sparkml_vector") == [1.0, 2.5]
        assert cell([[1], None], **kind_of(array(array("long")))) == [[1], None]

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ({"y": []}, "expected long as 'x', was given nothing in row 0"),
            ({"x": None}, "expected long as 'x', was given nothing in row 0"),
            ({"x": 1, "z": 2}, "expected only x, y, was given z in row 0"),
            ({"x": "1"}, "expected long, was given string '1' in row 0['x']"),
            ({"x": 1, "y": [1, "2"]}, "expected float, was given string '2' in row 0['y'][1]"),
            ([1], "expected {x: long, y?: array of float}, was given array of long [1] in row 0"),
        ],
    )
    def test_errors_say_where(self, value: Any, said: str) -> None:
        """Guards the path to the value."""
        with pytest.raises(SchemaMismatch) as caught:
            enforced(pd.DataFrame({"a": [value]}), self.SCHEMA)
        assert f"  column 'a': {said}" in str(caught.value)

    def test_arrays_in_cells_are_cast_like_columns(self) -> None:
        """Guards embeddings, which are arrays in cells."""
        assert cell(np.array([1, 2], "int8"), **kind_of(array("long"))).dtype == "int64"
        with pytest.raises(SchemaMismatch, match=r"expected array of long, was given float64, such as 1\.5"):
            cell(np.array([1.5]), **kind_of(array("long")))


class TestWithoutNames:
    @pytest.mark.parametrize(
        ("data", "kind", "expected"),
        [
            (["x", None], "string", ["x", None]),
            ([1, 2.0], "long", [1, 2]),
            ("x", "string", "x"),
            (3, "double", 3.0),
            (["2024-01-01"], "datetime", [datetime.fromisoformat("2024-01-01")]),
        ],
    )
    def test_lists_and_values_stay_what_they_are(self, data: Any, kind: str, expected: Any) -> None:
        """Guards functions that take a list, or one value; nothing here needs pandas."""
        assert enforced(data, column(kind, None)) == expected

    def test_series_and_arrays_too(self) -> None:
        """Guards columns that come without a frame."""
        found = enforced(pd.Series([1, 2], dtype="int8"), column("long", None))
        assert (type(found), found.dtype) == (pd.Series, "int64")
        assert enforced(np.array([1, 2], "int8"), column("long", None)).dtype == "int64"

    def test_what_looks_like_an_array_is_one(self) -> None:
        """Guards arrays of other libraries, such as pandas' own or torch's."""
        index, longs = pd.Index([1, 2]), pd.array([1, 2], "Int64")
        assert infer_signature(index) == infer_signature(np.array([1, 2])) == infer_signature(longs)
        assert infer_signature(index).enforce(index) is index
        assert enforced(longs, column("double", None)).tolist() == [1.0, 2.0]
        assert enforced([{"a": index}], {"name": "a"} | array("long"), frame=False)[0]["a"] is index

    def test_errors_say_which_row(self) -> None:
        """Guards the row."""
        with pytest.raises(SchemaMismatch, match=r"the data: expected string, was given long 3 in \[1\]"):
            enforced(["x", 3], column("string", None))


class TestTensors:
    @pytest.mark.parametrize(
        ("data", "spec"),
        [
            (np.zeros((2, 3), "int8"), tensor("float32", -1, 3)),
            ([[1, 2, 3]], tensor("float64", -1, 3)),
            ([[0.1, None, 3]], tensor("float32", -1, 3)),
            (pd.DataFrame({"a": [1], "b": [2], "c": [3]}), tensor("float64", -1, 3)),
            (["x"], tensor("str", -1)),
            (np.array(["x"]), tensor("str", -1)),
            (["2024-01-01"], tensor("datetime64[ns]", -1)),
            (np.array([["x", 1]], dtype=object), tensor("object", -1, 2)),
            ({"instances": [[1, 2]]}, tensor("int64", 1, 2)),
            (2.5, tensor("float32")),
        ],
    )
    def test_arrays_fit_in_dtype_and_shape(self, data: Any, spec: dict[str, Any]) -> None:
        """Guards casts that lose nothing; -1 is any length."""
        assert enforced(data, spec).dtype.name.startswith(spec["tensor-spec"]["dtype"])

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (np.zeros((2, 4), "float32"), "expected float32 (-1, 3), was given shape (2, 4)"),
            (np.zeros(3, "float32"), "expected float32 (-1, 3), was given shape (3,)"),
            (np.full((1, 3), 0.1), "expected float32 (-1, 3), was given float64, such as 0.1"),
            (np.zeros((1, 3), bool), "expected float32 (-1, 3), was given bool"),
            ([["x", "y", "z"]], "expected float32 (-1, 3), was given <U1"),
            ([[1, 2], [3]], "expected float32 (-1, 3), was given what is no array"),
            ([[1, {}, 2]], "expected float32 (-1, 3), was given object"),
        ],
    )
    def test_others_are_refused(self, data: Any, said: str) -> None:
        """Guards shape and dtype, with what was expected and given."""
        with pytest.raises(SchemaMismatch) as caught:
            enforced(data, tensor("float32", -1, 3))
        assert f"  the data: {said}" in str(caught.value)

    def test_named_ones_come_in_a_dict(self) -> None:
        """Guards models of several inputs, all of whose problems are told."""
        fields = tensor("float32", -1, 2, name="x"), tensor("int64", -1, name="y")
        found = enforced({"y": [1], "x": [[1, 2]], "z": 0}, *fields)
        assert {name: str(each.dtype) for name, each in found.items()} == {"x": "float32", "y": "int64"}
        with pytest.raises(SchemaMismatch) as caught:
            enforced({"x": [[1]]}, *fields)
        assert str(caught.value).splitlines()[1:] == [
            "  tensor 'x': expected float32 (-1, 2), was given shape (1, 1)",
            "  tensor 'y': expected int64 (-1,), was given only x",
        ]
        assert list(enforced(np.zeros((1, 2), "float32"), fields[0])) == ["x"]

    @pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
    def test_sparse_ones_stay_sparse(self, form: str) -> None:
        """Guards text models: a matrix is checked by what is stored of it."""
        matrix = sp.random(4, 3, 0.5, form, dtype="float32")
        assert enforced(matrix, tensor("float32", -1, 3)) is matrix
        found = enforced(matrix, tensor("float64", -1, 3))
        assert (found.format, found.dtype) == (form, "float64")
        with pytest.raises(SchemaMismatch, match=r"expected int64 \(-1, 3\), was given float32"):
            enforced(matrix + matrix * 0.1, tensor("int64", -1, 3))


TEXTS = st.text(max_size=3)
SCALAR_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    TEXTS,
    st.binary(max_size=3),
    st.datetimes(),
    st.none(),
)
VALUES = st.recursive(
    SCALAR_VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def shown(value: Any) -> str:
    """Return a text that is the same for equal values: 1 is 1.0, but neither is True, and NaN is NaN."""
    if isinstance(value, dict):
        return str({key: shown(value[key]) for key in sorted(value)})
    if isinstance(value, list):
        return str([*map(shown, value)])
    value = value.item() if hasattr(value, "item") else value
    value = pd.Timestamp(value) if isinstance(value, datetime) else value  # which pandas makes of them
    return repr(float(value) if type(value) is int else value)


@given(VALUES)
@settings(max_examples=300)
def test_what_is_inferred_of_plain_data_lets_them_pass_unchanged(value: Any) -> None:
    """Guards that a model predicts its own example: no data are refused, or changed, by what was inferred of them."""
    signature = infer_signature(value)
    assert shown(signature.enforce(value, frame=False)) == shown(value)


def columns(rows: int) -> st.SearchStrategy[pd.Series]:
    """Return columns of every dtype, with holes where there is room for them."""
    lists = {
        **{dtype: st.booleans() for dtype in ("bool", "boolean")},
        **{dtype: st.integers(0, 127) for dtype in ("int8", "uint8", "int32", "uint32", "int64", "Int8", "Int64")},
        **{dtype: st.floats(width=16) for dtype in ("float16", "float32", "float64", "Float64")},
        **dict.fromkeys(("object", "str", "string", "category"), TEXTS),
        **{dtype: st.datetimes(pd.Timestamp(1900, 1, 1), pd.Timestamp(2100, 1, 1)) for dtype in ("M8[s]", "M8[ns]")},
    }
    holes = {"boolean", "Int8", "Int64", "Float64", "object", "str", "string", "category"}
    return st.one_of(
        st.lists(each | st.none() if dtype in holes else each, min_size=rows, max_size=rows).map(
            lambda values, dtype=dtype: pd.Series(values, dtype=dtype)
        )
        for dtype, each in lists.items()
    ) | st.lists(VALUES, min_size=rows, max_size=rows).map(lambda values: pd.Series(values, dtype=object))


FRAMES = st.integers(0, 3).flatmap(
    lambda rows: st.dictionaries(TEXTS | st.integers(0, 9), columns(rows), min_size=1, max_size=4).map(pd.DataFrame)
)


@given(FRAMES)
@settings(max_examples=200)
def test_what_is_inferred_of_a_frame_lets_it_pass_unchanged(frame: pd.DataFrame) -> None:
    """Guards the same for frames of every dtype; a narrow number may come back wider."""
    found = infer_signature(frame).enforce(frame)
    assert list(found) == list(frame)
    for name in frame:
        old, new = frame[name], found[name]
        assert [shown(each) for each, gone in zip(old, old.isna(), strict=True) if not gone] == [
            shown(each) for each, gone in zip(new, new.isna(), strict=True) if not gone
        ]


SHAPES = st.lists(st.integers(0, 3), min_size=1, max_size=3)
DTYPES = st.sampled_from(["bool", "int8", "uint64", "float16", "float32", "float64", "complex64", "U3", "S3", "M8[s]"])


@given(SHAPES, DTYPES, st.booleans())
def test_what_is_inferred_of_an_array_lets_it_pass_as_it_is(shape: list[int], dtype: str, named: bool) -> None:
    """Guards the same for arrays, which are not even copied."""
    array = np.zeros(shape, dtype)
    data = {"x": array} if named else array
    found = infer_signature(data).enforce(data)
    assert (found["x"] if named else found) is array

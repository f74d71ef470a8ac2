"""Check input examples: small files of JSON, whatever the data were, which nobody can lead out of the folder."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, strategies as st

from mlcore.errors import NotAModel, SchemaMismatch, UnsafePath
from mlcore.models import infer_signature, load_example, save_example

INFO = {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json"}


def there_and_back(folder: Path, example: Any) -> Any:
    """Return an example as it comes back, with its signature at hand."""
    return load_example(folder, save_example(folder, example), infer_signature(example))[0]


class TestForms:
    @pytest.mark.parametrize(
        ("example", "info", "content"),
        [
            (
                pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", None]}),
                {"type": "dataframe", "pandas_orient": "split"},
                {"columns": ["a", "b", "c"], "data": [[1, 0.5, "x"], [2, None, None]]},
            ),
            (pd.DataFrame([[1, 2]], index=[7]), {"type": "dataframe", "pandas_orient": "values"}, {"data": [[1, 2]]}),
            (
                pd.Series([1], name="a"),
                {"type": "dataframe", "pandas_orient": "split"},
                {"columns": ["a"], "data": [[1]]},
            ),
            (np.array([[1.5, np.nan]]), {"type": "ndarray"}, [[1.5, None]]),
            ({"a": np.array([1])}, {"type": "ndarray"}, {"a": [1]}),
            (np.array(5), {"type": "ndarray"}, 5),
            (
                sp.csr_matrix(np.eye(2)),
                {"type": "sparse_matrix_csr"},
                {"data": [1.0, 1.0], "indices": [0, 1], "indptr": [0, 1, 2], "shape": [2, 2]},
            ),
            ({"a": 1, "b": ["x"]}, {"type": "json_object"}, {"a": 1, "b": ["x"]}),
            ([b"xy", np.float32(0.5), date(2024, 1, 2)], {"type": "json_object"}, ["eHk=", 0.5, "2024-01-02"]),
            ("x", {"type": "json_object"}, "x"),
        ],
    )
    def test_every_form_has_its_file(self, tmp_path: Path, example: Any, info: dict[str, str], content: Any) -> None:
        """Guards what others read: MLflow's forms, in JSON that every reader takes, null where there is nothing."""
        assert save_example(tmp_path, example) == INFO | info
        text = (tmp_path / "input_example.json").read_text()
        assert json.loads(text, parse_constant=pytest.fail) == content

    def test_the_request_is_one_that_a_server_takes(self, tmp_path: Path) -> None:
        """Guards whoever sends the file to a server, parameters and all."""
        for example, body in [
            (pd.DataFrame({"a": [1]}), {"dataframe_split": {"columns": ["a"], "data": [[1]]}}),
            (sp.csc_matrix([[0, 1]]), {"inputs": [[0, 1]]}),
            (["x"], {"inputs": ["x"]}),
        ]:
            info = save_example(tmp_path, example, {"top": 3})
            assert json.loads((tmp_path / info["serving_input_path"]).read_text()) == body | {"params": {"top": 3}}
            assert load_example(tmp_path, info)[1] == {"top": 3}
        chat = {"messages": [{"role": "user", "content": "hi"}]}
        info = save_example(tmp_path, chat, {"top": 3})
        assert json.loads((tmp_path / info["serving_input_path"]).read_text()) == {**chat, "top": 3}
        assert load_example(tmp_path, info) == (chat, {"top": 3})

    def test_with_the_signature_an_example_is_what_it_was(self, tmp_path: Path) -> None:
        """Guards dtypes, dates and bytes, which JSON does not know."""
        frame = pd.DataFrame(
            {
                "int32": np.array([1, 2], "int32"),
                "float32": np.array([0.1, np.nan], "float32"),
                "date": pd.to_datetime(["2024-01-01 12:30", None]),
                "bytes": [b"x", b"yy"],
                "list": [[1], [2, 3]],
                "nothing": pd.Series([None, None], dtype="float32"),
            }
        )
        pd.testing.assert_frame_equal(there_and_back(tmp_path, frame), frame)
        for array in (np.array([[0.1, np.nan]], "float32"), np.array(["2024-01-01"], "M8[s]"), np.array(["x"])):
            np.testing.assert_array_equal(there_and_back(tmp_path, array), array, strict=True)
        assert there_and_back(tmp_path, [datetime(2024, 1, 1, tzinfo=UTC)]) == [datetime(2024, 1, 1, tzinfo=UTC)]

    def test_without_it_the_data_are_there(self, tmp_path: Path) -> None:
        """Guards models that have no signature."""
        for example in (pd.DataFrame({"a": [1, 2], "b": [0.5, None]}), pd.DataFrame([[1, 2]])):
            pd.testing.assert_frame_equal(load_example(tmp_path, save_example(tmp_path, example))[0], example)
        array = np.array([[0.5, np.nan]])
        np.testing.assert_array_equal(load_example(tmp_path, save_example(tmp_path, array))[0], array)
        assert load_example(tmp_path, save_example(tmp_path, {"a": [1]})) == ({"a": [1]}, None)

    def test_polars_frames_are_kept_as_frames(self, tmp_path: Path) -> None:
        """Guards users of polars."""
        polars = pytest.importorskip("polars")
        info = save_example(tmp_path, polars.DataFrame({"a": [1, None], "b": ["x", "y"]}))
        assert load_example(tmp_path, info)[0].to_dict("list")["b"] == ["x", "y"]


class TestSizes:
    @pytest.mark.parametrize(
        "example",
        [
            pd.DataFrame({"a": range(1000)}),
            pd.Series(range(1000), name="a"),
            np.zeros((1000, 2)),
            sp.eye(1000, format="csr"),
            sp.eye(1000, format="coo"),
        ],
        ids=lambda example: type(example).__name__,
    )
    def test_five_rows_are_enough(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, example: Any) -> None:
        """Guards against a model that carries its training data; a note says so."""
        with caplog.at_level(logging.INFO, "mlcore"):
            info = save_example(tmp_path, example)
        assert load_example(tmp_path, info)[0].shape[0] == 5
        assert caplog.messages == ["of the input example the first 5 of 1000 rows are kept"]

    def test_the_caller_keeps_all_rows(self, tmp_path: Path) -> None:
        """Guards the data themselves."""
        frame = pd.DataFrame({"a": range(10)})
        save_example(tmp_path, frame)
        assert len(frame) == 10

    @pytest.mark.parametrize(
        ("example", "said"),
        [
            (["x" * 1_000_000] * 20, "it has 20,000,092 characters as JSON, where a few rows would do"),
            ({"image": object()}, "JSON has no place for a object"),
            ([1, {2}], "JSON has no place for a set"),
            ([lambda: 1], "JSON has no place for a function"),
            (np.zeros(2, "complex64"), "JSON has no place for a complex"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_a_model_is_saved_without_an_example_that_cannot_be(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, example: Any, said: str
    ) -> None:
        """Guards a training of hours from failing in its last second."""
        assert save_example(tmp_path, example) == {}
        assert list(tmp_path.iterdir()) == []
        assert caplog.messages == [f"the model is saved without its input example: {said}"]


class TestReading:
    @pytest.mark.parametrize("path", ["../secret.json", "/etc/passwd", "link/secret.json"])
    def test_nothing_outside_the_folder_is_read(self, tmp_path: Path, path: str) -> None:
        """Guards the reader of somebody else's model."""
        (tmp_path / "secret.json").write_text('"secret"')
        model = tmp_path / "model"
        model.mkdir()
        (model / "link").symlink_to(tmp_path)
        with pytest.raises(UnsafePath, match="leads out of"):
            load_example(model, {"artifact_path": path, "type": "json_object"})

    @pytest.mark.parametrize(
        ("text", "info"),
        [
            (None, {"type": "json_object"}),
            ("{", {"type": "json_object"}),
            ("5", {"type": "json_object", "params": "true"}),
            ("5", {"type": "dataframe"}),
            ("{}", {"type": "dataframe"}),
            ("[[1], [2, 3]]", {"type": "ndarray"}),
            ("[]", {"type": "sparse_matrix_csr"}),
            ('{"data": [1], "indices": [5], "indptr": [0, 1], "shape": [1, 1]}', {"type": "sparse_matrix_csr"}),
            ("[]", {"type": "sparse_matrix_xyz"}),
            ("[]", {"type": "parquet"}),
            ("[]", {}),
        ],
    )
    def test_a_broken_one_is_named(self, tmp_path: Path, text: str | None, info: dict[str, str]) -> None:
        """Guards readers from errors that do not say which file is wrong."""
        if text is not None:
            (tmp_path / "input_example.json").write_text(text)
        with pytest.raises(NotAModel, match=r"input_example\.json cannot be read"):
            load_example(tmp_path, {"artifact_path": "input_example.json", **info})
        with pytest.raises((NotAModel, UnsafePath)):
            load_example(tmp_path, info)

    def test_old_forms_are_read(self, tmp_path: Path) -> None:
        """Guards models that were saved by MLflow 1 and early 2."""
        file = tmp_path / "input_example.json"
        file.write_text('{"inputs": [[1, 2]]}')
        info = {"artifact_path": file.name, "type": "ndarray", "format": "tf-serving"}
        assert load_example(tmp_path, info)[0].tolist() == [[1, 2]]
        file.write_text('[{"a": 1}]')
        info = {"artifact_path": file.name, "type": "dataframe", "pandas_orient": "records"}
        assert load_example(tmp_path, info)[0].to_dict("list") == {"a": [1]}

    def test_one_that_does_not_fit_its_signature_says_so(self, tmp_path: Path) -> None:
        """Guards against two files of one model that contradict each other."""
        info = save_example(tmp_path, pd.DataFrame({"a": ["x"]}))
        with pytest.raises(SchemaMismatch, match="column 'a'"):
            load_example(tmp_path, info, infer_signature(pd.DataFrame({"a": [1]})))

    def test_without_pandas_the_error_says_what_to_install(self, tmp_path: Path) -> None:
        """Guards readers who have nothing but mlcore."""
        info = save_example(tmp_path, pd.DataFrame({"a": [1]}))
        script = f"""
import sys; sys.modules["pandas"] = None
from pathlib import Path
from mlcore.models import load_example
try: load_example(Path({str(tmp_path)!r}), {info!r})
except Exception as error: print(type(error).__name__, error)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("NotInstalled the input example")
        assert done.stdout.endswith("needs pandas: pip install pandas\n")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_data_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, example: Any) -> None:
    """Guards any JSON at all."""
    folder = tmp_path_factory.mktemp("model")
    assert load_example(folder, save_example(folder, example)) == (example, None)

"""`log_dataset`: digests that are the same everywhere, profiles that tell nothing of anybody, and nothing else kept."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import math
import os
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from scipy import sparse
from sklearn import datasets

import mlcore
from mlcore import plugins
from mlcore.cli import program
from mlcore.errors import ArtifactNotFound, InvalidValue, NotInstalled, PluginError
from mlcore.hookspecs import FlavorProvider
from mlcore_local.datasets import describe_path, describe_table
from mlcore_local.datasets.digests import block_rows
from serving import serving_here

CANARY = "Erika Mustermann, Heidestrasse 17"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlcore.Client:
    """Return a client of an empty store, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLCORE_")]:
        monkeypatch.delenv(name)
    return mlcore.set_store(tmp_path / ".mlcore")


def columns(data: mlcore.Dataset) -> dict[str, str]:
    """Return the digests of columns by their names."""
    return {name: each["digest"] for name, each in data.profile.items() if name != "*"}


# The digest as docs/reference/data-digests.md defines it, written once more: with structs, for lists.
FORMATS = {"int64": "q", "float64": "d", "uint8": "B", "bool": "?"}


def marks(values: Sequence[Any]) -> bytes:
    """Return what stands before values that are not floats: a zero, or a one and a bit for each that is there."""
    if None not in values:
        return b"\0"
    bits = "".join("0" if each is None else "1" for each in values)
    eights = (bits[at : at + 8].ljust(8, "0") for at in range(0, len(bits), 8))
    return b"\1" + bytes(int(each[::-1], 2) for each in eights)


def block(kind: str, values: Sequence[Any]) -> bytes:
    """Return the bytes of some rows of a column."""
    if kind == "text":
        encoded = [(each or "").encode() for each in values]
        return marks(values) + struct.pack(f"<{len(values)}q", *map(len, encoded)) + b"".join(encoded)
    if kind == "float64":
        return struct.pack(f"<{len(values)}d", *(math.nan if each is None else each for each in values))
    return marks(values) + struct.pack(f"<{len(values)}{FORMATS[kind]}", *(each or 0 for each in values))


def digest(table: dict[str, tuple[str, Sequence[Any]]]) -> str:
    """Return the digest of a table of lists."""
    rows, size = len(next(iter(table.values()))[1]), 16
    while size * min(256, 65_536 // len(table)) < rows:
        size *= 2
    found = []
    for name, (kind, values) in table.items():
        state = hashlib.sha256(f"{kind}\0{rows}\0".encode())
        for start in range(0, rows, size):
            state.update(hashlib.sha256(block(kind, values[start : start + size])).digest())
        found.append([name, kind, state.hexdigest()])
    told = json.dumps(["mlcore table 1", rows, found], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()


@pytest.mark.parametrize("rows", [1, 7, 16, 17, 300, 5000])
def test_the_digest_is_what_the_page_says(rows: int) -> None:
    """Guards the definition: another implementation of it gives the same, for any number of rows."""
    table: dict[str, tuple[str, Sequence[Any]]] = {
        "whole": ("int64", [at * 7919 - 3 for at in range(rows)]),
        "real é": ("float64", [None if at % 5 == 2 else at / 3 for at in range(rows)]),
        "said": ("text", [None if at % 4 == 1 else "ü" * (at % 6) + str(at) for at in range(rows)]),
        "true": ("bool", [at % 3 == 0 for at in range(rows)]),
    }
    frame = pd.DataFrame({name: values for name, (_, values) in table.items()})
    assert describe_table(frame).digest == digest(table)
    holes = [None if at % 9 == 3 else at for at in range(rows)]
    assert describe_table({"holes": holes}).digest == digest({"holes": ("int64", holes)})


def test_the_digest_of_what_everybody_has_is_this_one() -> None:
    """Guards what is recorded for years: a number that changes here makes all data of before look different."""
    iris = describe_table(datasets.load_iris())
    assert iris.digest == "ba4cfa84f02c167707160f9aac3b736c2b4656b9ec870e415b949baec6db2483"
    assert iris.about == {"kind": "sklearn.Bunch", "rows": 150, "columns": 5, "bytes": 6010}


def mixed() -> pd.DataFrame:
    """Return a table with one column of each kind that the libraries share."""
    days = pd.to_datetime(["2026-01-01", None, "2026-03-01"])
    return pd.DataFrame(
        {
            "int": [1, 2, 3],
            "small": np.array([1, 2, 255], np.uint8),
            "float": [1.5, np.nan, -0.0],
            "half": np.array([1.5, np.inf, 2], np.float32),
            "bool": [True, False, True],
            "text": ["x", None, "zß"],
            "time": days,
            "zone": days.tz_localize("Europe/Berlin"),
            "span": pd.to_timedelta([1, 2, None], unit="s"),
            "day": [datetime.date(2026, 1, 1), None, datetime.date(1969, 12, 31)],
            "kind": pd.Categorical(["u", None, "v"]),
            "holes": pd.array([1, None, 3], dtype="Int64"),
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "list": [[1, 2], None, [3]],
            "none": [None, None, None],
        }
    )


def test_the_same_data_have_the_same_digest_in_every_library() -> None:
    """Guards that a table is known again when it was read by another library."""
    frame = mixed()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    expected = describe_table(frame)
    for other in (table, pa.table(table.to_batches()[0]), pa.concat_tables([table.slice(0, 1), table.slice(1)])):
        assert columns(describe_table(other)) == columns(expected)
        assert describe_table(other).digest == expected.digest
    strings = frame.drop(columns=["kind"])  # which polars has as text, unless it makes them
    same = pl.from_arrow(pa.Table.from_pandas(strings, preserve_index=False))
    assert columns(describe_table(same)) == columns(describe_table(strings))
    assert describe_table(same.with_columns(pl.Series("kind", ["u", None, "v"], pl.Categorical))["kind"]).profile[
        "kind"
    ]["digest"] == columns(expected)["kind"]  # fmt: skip
    assert expected.profile["zone"]["type"] == "timestamp[us, Europe/Berlin]"
    assert {each["missing"] for name, each in expected.profile.items() if name in ("text", "time", "holes")} == {1}


@pytest.mark.parametrize(
    "same",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.astype(">f8"),
        pd.DataFrame,
        lambda x: pl.DataFrame(x, schema=[str(at) for at in range(x.shape[1])]),
        lambda x: np.ma.masked_array(x, np.zeros(x.shape, bool)),
        lambda x: pd.DataFrame(x, index=np.arange(len(x))[::-1]),  # numbers of rows that are not in order
    ],
)
def test_how_an_array_lies_in_memory_does_not_matter(same: Callable[[Any], Any]) -> None:
    """Guards against digests of buffers as they happen to be."""
    x = np.random.default_rng(7).normal(size=(1000, 3))
    assert describe_table(same(x)).digest == describe_table(x).digest


@pytest.mark.parametrize("load", [datasets.load_iris, datasets.load_digits, datasets.load_linnerud, datasets.load_wine])
def test_what_scikit_learn_loads_is_the_same_as_a_frame(load: Callable[..., Any]) -> None:
    """Guards that ``as_frame=True`` is no other data set, and that columns have the names of the features."""
    arrays, frame = describe_table(load()), describe_table(load(as_frame=True))
    assert arrays.digest == frame.digest
    assert list(arrays.profile)[1:] == list(load(as_frame=True).frame.columns)


def test_whatever_differs_gives_another_digest_and_only_its_column_another() -> None:
    """Guards the promise of a digest: value, type, name, order of rows and columns, and what is missing, all count."""
    base = datasets.load_diabetes(as_frame=True).frame
    other = {
        "value": base.assign(bmi=base["bmi"].where(base.index != 17, base["bmi"] + 1e-12)),
        "missing": base.assign(bmi=base["bmi"].where(base.index != 17)),
        "type": base.assign(bmi=base["bmi"].astype("float32")),
        "sign": base.assign(zero=0.0),
        "minus": base.assign(zero=-0.0),
        "name": base.rename(columns={"bmi": "BMI"}),
        "row order": base.iloc[::-1],
        "column order": base[base.columns[::-1]],
        "one row less": base.iloc[:-1],
        "dates in front": base.set_index(pd.date_range("2026-01-01", periods=len(base))),
    }
    found = {name: describe_table(data) for name, data in other.items()} | {"": describe_table(base)}
    assert len({each.digest for each in found.values()}) == len(found)
    for name in ("value", "missing", "type"):
        told = columns(found[name])
        assert [key for key, each in columns(found[""]).items() if told[key] != each] == ["bmi"]
    assert columns(found["column order"]) == columns(found[""])


def test_nan_is_nan_whatever_bits_it_has() -> None:
    """Guards against a sign of NaN that one processor gives and another does not."""
    odd = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF800000000BEEF], np.uint64).view(np.float64)
    plain = np.full(3, np.nan)
    assert describe_table(odd).digest == describe_table(plain).digest
    assert describe_table(pa.array([None, None, None], pa.float64())).digest == describe_table(plain).digest


def test_text_and_lists_have_the_same_digest_without_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards machines that have no pyarrow: it makes digests faster, not others."""
    words = ["a", "ü€😀", None, "", "x" * 1000, "\udcff"]
    frames = [pl.DataFrame({"w": words[:-1], "n": range(5)}), {"w": words, "l": [[1], {"k": 2.5}, None, "s", b"y", 3]}]
    frames += [pd.DataFrame({"w": pd.Series(words[:-1], dtype=object)}), ["one", "two"]]
    before = [describe_table(each).digest for each in frames]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert [describe_table(each).digest for each in frames] == before


def test_sparse_arrays_count_by_what_is_in_them() -> None:
    """Guards text features, which scikit-learn loads so: explicit zeros and the order of entries are no data."""
    rows = sparse.random_array((200, 1000), density=0.01, rng=np.random.default_rng(0), format="csr")
    expected = describe_table(rows)
    assert expected.profile["0"]["type"] == "sparse float64[1000]"
    other = sparse.coo_array(rows)
    other = sparse.coo_array(
        (np.append(other.data[::-1], 0.0), tuple(np.append(each[::-1], 0) for each in other.coords)), rows.shape
    )
    for same in (rows.tocsc(), other, sparse.csr_matrix(rows)):
        assert describe_table(same).digest == expected.digest
    assert describe_table(rows * 2).digest != expected.digest


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        ([1, 2, None], {"0": "int64"}),
        ([0.5, math.nan], {"0": "float64"}),
        (["a", "b"], {"0": "text"}),
        ([{"a": 1}, [2]], {"0": "object"}),
        ([2**70, 1], {"0": "object"}),
        ({"X": np.eye(2), "y": [1, 0]}, {"X.0": "float64", "X.1": "float64", "y": "int64"}),
        (np.zeros((5, 28, 28), np.uint8), {"0": "uint8[28,28]"}),
        (np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]), {"a": "int32", "b": "float64"}),
        (pd.Series([1.5], name="q"), {"q": "float64"}),
        (pl.Series("s", [1]), {"s": "int64"}),
        (pa.chunked_array([["x"], ["y"]]), {"0": "text"}),
        (pd.DataFrame({"a": []}, dtype="int64"), {"a": "int64"}),
        (pd.DataFrame(np.eye(2), columns=["a", "a"]), {"a": "float64", "a#2": "float64"}),
        (pd.DataFrame({"*": [1]}), {"*#2": "int64"}),
        (pa.table({"d": [decimal.Decimal("1.50"), None]}), {"d": "object"}),
        (pd.DataFrame({"c": pd.Categorical([3, None, 1])}), {"c": "category of int64"}),
    ],
)
def test_columns_have_the_types_of_what_is_in_them(data: Any, kinds: dict[str, str]) -> None:
    """Guards the kinds of data that are not a frame, or a strange one."""
    found = describe_table(data).profile
    assert {name: each["type"] for name, each in found.items() if name != "*"} == kinds


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (pl.LazyFrame({"a": [1]}), "collect"),
        ([object()], "builtins.object has no digest"),
        (np.zeros(2, np.longdouble), "no digest that is the same everywhere"),
        ({"a": [1, 2], "b": [1]}, "different numbers of rows: a 2, b 1"),
        (datasets.load_sample_images.__globals__["Bunch"](images=[]), "neither a frame nor data"),
    ],
)
def test_data_without_a_digest_are_refused_with_what_to_do(
    data: Any, problem: str, client: mlcore.Client
) -> None:  # fmt: skip
    """Guards against a digest that is not worth its name."""
    with client.start_run() as run, pytest.raises(InvalidValue, match=problem):
        run.log_dataset(data)
    assert run.datasets == []


def test_a_profile_tells_numbers_and_nothing_of_text_unless_it_is_asked(client: mlcore.Client) -> None:
    """Guards people: what is in a text is found nowhere in the store, and rows are nowhere at all."""
    frame = pd.DataFrame({"who": [CANARY, "x", CANARY], "of": pd.Categorical([CANARY] * 3), "n": [1, 2, 4]})
    frame["list"] = [[CANARY], None, [CANARY]]
    with client.start_run() as run:
        found = run.log_dataset(frame, "people", context="train")
    assert found.profile["who"] == {
        "at": 0, "type": "text", "digest": found.profile["who"]["digest"], "missing": 0, "shortest": 1,
        "longest": len(CANARY),
    }  # fmt: skip
    numbers = {key: each for key, each in found.profile["n"].items() if key not in ("digest", "at")}
    assert numbers == {"type": "int64", "missing": 0, "min": 1, "max": 4, "mean": 2.33333333333, "std": 1.24721912892}
    for path in (path for path in Path(".mlcore").rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path
    asked = describe_table(frame, text=True).profile
    assert asked["who"]["values"] == {CANARY: 2, "x": 1}
    assert describe_table(pd.DataFrame({"t": [0, 1, 1]})).profile["t"].get("values") is None
    assert describe_table(pd.DataFrame({"t": [0, 1, 1] * 10})).profile["t"]["values"] == {"0": 10, "1": 20}


def test_a_profile_stays_small_and_is_made_of_a_sample_of_much(client: mlcore.Client) -> None:
    """Guards stores and patience: wide and long tables have profiles, and bounded ones."""
    wide = describe_table(np.zeros((20, 5000)))
    assert wide.profile["*"]["columns left out"] == 3000
    assert "mean" in wide.profile["499"]
    assert "mean" not in wide.profile["500"]
    with client.start_run() as run:
        run.log_dataset(np.zeros((20, 5000)), "wide")
    assert dict(run.datasets[0].profile) == dict(wide.profile)
    long = describe_table(np.arange(3_000_000, dtype=np.int64))
    assert 90_000 <= long.profile["*"]["sampled"] <= 100_000
    assert long.profile["0"]["mean"] == pytest.approx(1_500_000, rel=0.01)
    assert len(json.dumps(dict(long.profile))) < 4_000


def test_a_digest_takes_little_memory_and_not_much_longer_than_its_hash() -> None:
    """Guards training on data that fill the memory: blocks are hashed, not copies of it."""
    x = np.random.default_rng(0).random((1 << 17, 64))  # 64 MiB
    tracemalloc.start()
    describe_table(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 8

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    pairs = [(seconds(lambda: describe_table(x)), seconds(lambda: hashlib.sha256(x).digest())) for _ in range(4)]
    assert min(ours for ours, _ in pairs) < 6 * min(floor for _, floor in pairs) + 0.05


def test_many_threads_give_the_digest_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the order of blocks."""
    x = np.random.default_rng(0).random((60_000, 80)).astype(np.float32)
    frame = pd.DataFrame(x).assign(text=[str(at) for at in range(len(x))])
    monkeypatch.setattr("mlcore_local.datasets.digests._THREADS", 4)
    several = describe_table(x), describe_table(frame)
    monkeypatch.setattr("mlcore_local.datasets.digests._THREADS", 1)
    assert [each.digest for each in several] == [describe_table(x).digest, describe_table(frame).digest]


def test_blocks_stay_where_they_are_when_a_table_grows() -> None:
    """Guards what a comparison tells of rows: sizes of blocks are powers of two, and few."""
    assert [block_rows(rows, 4) for rows in (0, 16, 4096, 4097, 10**9)] == [16, 16, 16, 32, 1 << 22]
    assert block_rows(100_000, 65_536) == 131_072


# Files and folders


def test_a_file_is_known_by_its_sha256_and_a_folder_by_those_of_all_files(client: mlcore.Client) -> None:
    """Guards what others can check: the digests are those of sha256sum."""
    Path("data", "b").mkdir(parents=True)
    Path("data", "a.csv").write_text(CANARY)
    Path("data", "b", "c.csv").write_text("1,2\n")
    one, two = (hashlib.sha256(each).hexdigest() for each in (CANARY.encode(), b"1,2\n"))
    with client.start_run() as run:
        file = run.log_dataset("data/a.csv")
        folder = run.log_dataset(Path("data"), "all", context="train")
    assert (file.digest, file.name, file.source, file.about["kind"]) == (one, "a.csv", "data/a.csv", "file")
    lines = f"{one}  a.csv\n{two}  b/c.csv\n"
    assert folder.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert folder.about == {"kind": "folder", "files": 2, "bytes": len(CANARY) + 4}
    assert folder.profile["b/c.csv"] == {"size": 4, "digest": two}
    assert run.artifacts.list() == []
    Path("data", "a.csv").rename("data/z.csv")
    assert describe_path("data").digest != folder.digest
    Path("empty").mkdir()
    assert describe_path("empty").about == {"kind": "folder", "files": 0, "bytes": 0}
    assert describe_path(Path("data").resolve().as_uri()).digest == describe_path("data").digest
    with pytest.raises(ArtifactNotFound, match=r"no file or folder nowhere\.csv"):
        mlcore.log_dataset("nowhere.csv")
    mlcore.end_run("FAILED")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("s3://AKIA123:CANARY@bucket/key.csv", "s3://bucket/key.csv"),
        ("https://CANARY@host/x.csv?version=3", "https://host/x.csv?version=3"),
        ("https://h/x?X-Amz-Signature=CANARY&v=1", "https://h/x?X-Amz-Signature=***&v=1"),
        ("https://h/x?sv=2&sig=CANARY", "https://h/x?sv=2&sig=***"),
        ("postgresql://me:CANARY@db:5432/x?sslmode=require", "postgresql://db:5432/x?sslmode=require"),
        ("Server=h;Password=CANARY;Database=x", "Server=h;Password=***;Database=x"),
        ("simplecache::https://u:CANARY@h/x", "simplecache::https://h/x"),
        ("data/train.csv", "data/train.csv"),
        (Path("data", "train.csv"), "data/train.csv"),
        ("C:\\data\\x.csv", "C:\\data\\x.csv"),
        ("https://h/keys/x.csv#rows=5", "https://h/keys/x.csv#rows=5"),
    ],
)
def test_a_source_lets_nobody_in(source: Any, shown: str, client: mlcore.Client) -> None:
    """Guards passwords and signatures in the place where data are from."""
    with client.start_run(capture="off") as run:
        run.log_dataset([1, 2], source=source)
    assert run.datasets[0].source == shown
    for path in (path for path in Path(".mlcore").rglob("*") if path.is_file()):
        assert b"CANARY" not in path.read_bytes(), path


def test_the_uri_of_a_file_lets_nobody_in(client: mlcore.Client) -> None:
    """Guards names: what a backend calls a file may have its signature."""
    from fsspec.implementations.memory import MemoryFileSystem

    def opened(uri: str) -> tuple[Any, str]:
        return MemoryFileSystem(), "/" + uri.partition("://")[2]

    class Signed:
        @staticmethod
        def mlcore_artifact_backends() -> list[mlcore.Provider]:
            return [mlcore.Provider("signed", opened)]

    plugins.register(Signed, "signed")
    uri = "signed://bucket/train.csv?sig=CANARY"
    MemoryFileSystem().pipe_file("/bucket/train.csv?sig=CANARY", b"1,2\n")
    try:
        with client.start_run(capture="off") as run:
            found = run.log_dataset(uri, keep=True)
    finally:
        plugins.unregister("signed")
        MemoryFileSystem.store.clear()
    assert (found.name, found.source) == ("train.csv", "signed://bucket/train.csv?sig=***")
    assert (list(found.profile), found.digest) == (["train.csv"], hashlib.sha256(b"1,2\n").hexdigest())
    assert run.artifacts.get("datasets/train.csv/train.csv").read_text() == "1,2\n"
    for path in (path for path in Path(".mlcore").rglob("*") if path.is_file()):
        assert b"CANARY" not in path.read_bytes() and "CANARY" not in path.name, path


# What is kept, and read back


def parquet(folder: Path) -> Any:
    """Return what is in the one file of a folder."""
    return pd.read_parquet(folder / "data.parquet")


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (datasets.load_iris(as_frame=True).frame, parquet),
        (datasets.load_iris(as_frame=True), parquet),
        (pl.DataFrame({"a": [1, 2]}), parquet),
        (pa.table({"a": [1, 2]}), parquet),
        (pd.Series([1.5, 2], name="q"), lambda folder: parquet(folder)["q"]),
        (np.eye(3), lambda folder: np.load(folder / "data.npy")),
        ([1, 2], lambda folder: np.load(folder / "data.npy")),
        (sparse.eye_array(3).tocsr(), lambda folder: sparse.load_npz(folder / "data.npz")),
        ({"X": np.eye(3), "y": np.arange(3)}, lambda folder: {key: np.load(folder / f"{key}.npy") for key in "Xy"}),
    ],
)
def test_data_that_are_kept_come_back_with_the_same_digest(data: Any, read: Any, client: mlcore.Client) -> None:
    """Guards ``keep=True``; without it nothing is among the files."""
    with client.start_run() as run:
        logged = run.log_dataset(data, "d", keep=True)
        run.log_dataset(data, "d", context="again")
    assert describe_table(read(run.artifacts.get("datasets/d"))).digest == logged.digest
    assert {each.path.partition("/")[0] for each in run.artifacts.list() if not each.path.startswith(".")} == {
        "datasets"
    }
    assert len(run.datasets) == 2


def test_files_are_kept_as_they_are(client: mlcore.Client) -> None:
    """Guards ``keep=True`` for a file and for a folder."""
    Path("data").mkdir()
    Path("data", "a.csv").write_text("1\n")
    with client.start_run() as run:
        run.log_dataset("data", keep=True)
        run.log_dataset("data/a.csv", "one", keep=True)
    assert run.artifacts.get("datasets/data/a.csv").read_text() == "1\n"
    assert run.artifacts.get("datasets/one/a.csv").read_text() == "1\n"


def test_data_are_read_back_and_found_again(client: mlcore.Client) -> None:
    """Guards the way from a run to its data, and from data to the runs that used them."""
    iris, wine = datasets.load_iris(as_frame=True), datasets.load_wine()
    with client.start_run(name="both") as run:
        first = mlcore.log_dataset(iris, "iris", source="https://example.org/iris.csv", context="train")
        run.log_dataset(wine, "wine", context="test")
        run.log_dataset(iris, "iris", context="train")  # once more is no other
    with client.start_run(name="one"):
        mlcore.log_dataset(wine, "iris", context="train")
    for found in (run, mlcore.Client(".mlcore").get_run(run.id)):
        assert [(each.name, each.context, each.about["rows"]) for each in found.datasets] == [
            ("iris", "train", 150), ("wine", "test", 178)
        ]  # fmt: skip
        assert found.datasets[0].profile == first.profile
        assert found.datasets[0].source is None  # as it was logged last
    asked = {
        f"datasets.digest = '{first.digest}'": ["both"],
        "datasets.name = 'iris'": ["one", "both"],
        "dataset.context = 'test'": ["both"],
        "datasets.context in ('test', 'valid') or datasets.name = 'x'": ["both"],
        "datasets.name like 'w%'": ["both"],
        "datasets.digest = 'x'": [],
    }
    for query, names in asked.items():
        assert [each.name for each in client.search_runs(query, experiment="*")] == names, query
    assert "iris" in repr(run.datasets)
    entity = client.store.get("dataset", [first.digest])[0]
    assert entity is not None
    assert entity.fields["rows"] == 150
    assert list(run.datasets[0].profile) == list(first.profile) == ["*", *iris.frame.columns]


def test_the_page_of_a_run_shows_its_data(client: mlcore.Client) -> None:
    """Guards `mlcore runs show`, for people and for programs."""
    with client.start_run(name="shown") as run:
        logged = run.log_dataset(datasets.load_iris(), "iris", context="train", source="sklearn")
    page = CliRunner().invoke(program, ["runs", "show", "shown"]).output
    assert f"  iris  {logged.digest[:12]}  train  150 rows, 5 columns  sklearn" in page.splitlines()
    (told,) = json.loads(CliRunner().invoke(program, ["runs", "show", "shown", "--json"]).output)["datasets"]
    assert (told["name"], told["digest"], told["about"]) == ("iris", logged.digest, dict(logged.about))
    assert told["profile"] == json.loads(json.dumps(dict(logged.profile)))


def test_data_reach_a_server(tmp_path: Path, client: mlcore.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that data of runs that are shipped are found with their profiles."""
    with serving_here(tmp_path / "served") as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        afar = mlcore.Client(server.url)
        with afar.start_run(name="afar") as run:
            logged = run.log_dataset(datasets.load_iris(), "iris")
        (found,) = afar.search_runs(f"datasets.digest = '{logged.digest}'", experiment="*")
        assert found.datasets[0].profile == logged.profile
        afar.close()


def test_turned_off_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards code that logs, where nothing is to be logged: data are not even looked at."""
    monkeypatch.setenv("MLCORE_STORE", "off")
    run = mlcore.Client().start_run()
    found = run.log_dataset(object(), "x", context="train", keep=True)
    assert (found.name, found.context, found.digest, run.datasets) == ("x", "train", "", [])
    run.end()


# Plugins


class Recording:
    """Stand for the data of somebody else's library."""


class Louder(Recording):
    """Stand for a subclass that its plugin does not know."""


def plugin(**types: tuple[str, ...]) -> type:
    """Return a plugin that describes data of these types, by the names of its providers."""

    def describe(data: Any, source: Any = None, loud: bool = False) -> mlcore.Dataset:
        return mlcore.Dataset("0" * 64, {"kind": "recording", "loud": loud}, source=source)

    class Plugin:
        @staticmethod
        def mlcore_datasets() -> list[FlavorProvider]:
            return [FlavorProvider(name, describe, "sound", each) for name, each in types.items()]

    return Plugin


def test_a_plugin_brings_its_own_kind_of_data_and_two_are_told_apart(client: mlcore.Client) -> None:
    """Guards the hook: the nearest class counts, options arrive, a tie names both."""
    kind = f"{__name__}.Recording"
    plugins.register(plugin(sound=(kind,)), "sound")
    try:
        with client.start_run() as run:
            found = run.log_dataset(Louder(), "song", source="tape", loud=True)
            assert (found.name, found.source, found.about["loud"]) == ("song", "tape", True)
            plugins.register(plugin(noise=(kind,)), "noise")
            with pytest.raises(PluginError, match="noise and sound both take Recording"):
                run.log_dataset(Recording())
            plugins.unregister("noise")
    finally:
        plugins.unregister("sound")
    with client.start_run() as run, pytest.raises(NotInstalled, match=r"takes a .*Recording: .* files, tables"):
        run.log_dataset(Recording())

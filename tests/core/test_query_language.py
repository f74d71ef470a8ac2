"""The query language: what each query finds was worked out by hand, in tests/queries.py."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings, strategies as st

import mlcore
from faults.processes import run as run_process
from mlcore import Client, query
from mlcore.cli import program
from mlcore.errors import InvalidQuery, InvalidValue
from mlcore.store import AttributesSet, Entity, holds
from mlcore.testing import Writer, run_events
from queries import MLFLOW, ORDERS, OURS, RUNS, T


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client of a folder store with the runs of the table, in one experiment."""
    client = Client(tmp_path_factory.mktemp("store") / ".mlcore")
    home = client.create_experiment("digits").id
    for letter, about in RUNS.items():
        fields = {key: about[key] for key in ("name", "status", "start_time", "end_time", "user") if key in about}
        families = {key: about[key] for key in ("params", "metrics", "tags")}
        datasets = {
            str(number): {"name": name, "digest": digest, "context": context}
            for number, (name, digest, context) in enumerate(about.get("datasets", ()))
        }
        id = letter * 32
        events = run_events(id, parent=home, fields=fields, **families)
        extra = (AttributesSet("run", id, "datasets", datasets),) if datasets else ()
        client.store.append(Writer(id).batch(*events, *extra))
    yield client
    client.close()


def found(client: Client, *asked: Any, **options: Any) -> str:
    """Return the letters of the runs that a query finds."""
    return "".join(run.id[0] for run in client.search_runs(*asked, **{"experiment": "digits", **options}))


def filled(value: Any) -> Any:
    """Return a query, or its parameters, with ids where letters stand."""
    if isinstance(value, tuple):
        return tuple(map(filled, value))
    return re.sub(r"<(.)>", lambda match: match[1] * 32, value) if isinstance(value, str) else value


def test_the_table_is_as_long_as_promised() -> None:
    """Guards the number of queries that were worked out by hand."""
    assert len(MLFLOW) + len(OURS) >= 200


@pytest.mark.parametrize(("asked", "expected"), [*MLFLOW.items(), *OURS.items()])
def test_a_query_finds_what_was_worked_out(client: Client, asked: Any, expected: str) -> None:
    """Guards the meaning of the language, MLflow's part of it and ours."""
    asked = filled(asked)
    text, *values = asked if isinstance(asked, tuple) else (asked,)
    assert "".join(sorted(found(client, text, *values))) == expected


@pytest.mark.parametrize(
    ("asked", "expected"), [each for each in (*MLFLOW.items(), *OURS.items()) if isinstance(each[0], str)]
)
def test_the_command_finds_what_was_worked_out(client: Client, asked: str, expected: str) -> None:
    """Guards that a shell gets the same answers; parameters are for Python only."""
    options = ["--store", client.setting.value, "--experiment", "digits", "--json", "--filter", filled(asked)]
    done = CliRunner().invoke(program, ["runs", "list", *options])
    assert done.exit_code == 0, done.output
    assert "".join(sorted(run["id"][0] for run in json.loads(done.stdout))) == expected


@pytest.mark.parametrize(("by", "expected"), ORDERS.items())
def test_an_order_is_what_was_worked_out(client: Client, by: str, expected: tuple[str, bool]) -> None:
    """What is missing comes last, ties newest first, then by id."""
    assert found(client, order_by=by) == expected[0]
    assert found(client, order_by=[by]) == expected[0]


def test_orders_can_be_a_list(client: Client) -> None:
    """Guards MLflow's form, a list of clauses."""
    assert found(client, order_by=["params.depth DESC", "metrics.loss ASC"]) == "ebacd"
    assert found(client, order_by=[]) == found(client, order_by=None) == "edcba"


def test_limit_comes_after_filter_and_order(client: Client) -> None:
    """Guards the first N of what fits."""
    assert found(client, "metrics.acc > 0", order_by="metrics.acc, name", limit=2) == "db"
    assert found(client, limit=0) == ""
    for wrong in (-1, "3", 1.5):
        with pytest.raises(InvalidValue):
            client.search_runs(experiment="digits", limit=wrong)  # type: ignore[arg-type]


def test_parameters_may_be_of_numpy_and_datetime(client: Client) -> None:
    """What users have in their hands is taken as it is."""
    when = dt.datetime.fromtimestamp(T / 1000, dt.UTC)
    assert found(client, "metrics.loss = ?", np.float64(0.5)) == "a"
    assert found(client, "params.depth = ?", np.int64(10)) == "e"
    assert found(client, "start_time <= ?", when) == "a"
    assert found(client, "start_time <= ?", pd.Timestamp(when)) == "a"
    assert found(client, "duration > ?", dt.timedelta(seconds=90)) == "b"
    assert found(client, "start_time > ?", dt.timedelta(days=-1)) == ""
    assert sorted(found(client, "params.depth in ?", [3, 5])) == ["a", "b", "c"]
    assert sorted(found(client, "run_id in ?", {"a" * 32})) == ["a"]


WRONG = {
    "metrics.loss foo 3": (13, "expected =, !=, <, <=, >, >=, is null, like, ilike, in or between, found foo"),
    "metrics.loss": (12, "found nothing more"),
    "metrics.loss <": (14, "expected a number, found nothing more"),
    "metrics.loss < 'x'": (15, "expected a number, found 'x'"),
    "metrics.loss < true": (15, "expected a number"),
    "metrics.loss like 'x'": (18, "like is for text"),
    "metrics.loss = 1 metrics.acc = 2": (17, "expected 'and', 'or' or the end, found metrics.acc"),
    "metrics.loss == 1": (14, "expected a number, found ="),
    "metrics.loss = 1 and": (20, "expected a name"),
    "metrics.loss = 1;": (16, "found ;"),
    "(metrics.loss = 1": (17, "expected ')'"),
    "metrics.loss = 1)": (16, "found )"),
    "metrics.loss[step=1.x] = 1": (18, "expected a number"),
    "metrics.loss[2] = 1": (13, "expected 'step'"),
    "metrics.loss in ()": (17, "expected a number"),
    "metrics.loss in (1": (18, "expected ',' or ')'"),
    "metrics.loss between 1 or 2": (23, "expected 'and'"),
    "params.lr is 3": (13, "expected 'null'"),
    "params.lr not = 3": (14, "expected like, ilike, in or between"),
    "params.lr = cnn": (12, "expected text in quotes, a number, true or false, found cnn"),
    "params.lr = 'cnn": (12, "found ' that is not closed"),
    "params.lr = `cnn`": (12, "expected text in quotes"),
    "parms.lr = 1": (0, "did you mean params.lr?"),
    "stat = 'x'": (0, "did you mean status?"),
    "start_tme > 1": (0, "did you mean start_time?"),
    "zzz = 1": (0, "there are id, run_id"),
    "metrics = 1": (0, "unknown name metrics"),
    "status = 3": (9, "expected text in quotes, found 3"),
    "status = FINISHED": (9, "expected text in quotes"),
    "start_time > 7d": (13, "expected a time"),
    "start_time > '3 o clock'": (13, "expected a time"),
    "start_time > 2026-13-01": (13, "expected a time"),
    "start_time > now - 2x": (17, "found -"),
    "duration > 'x'": (11, "expected a duration"),
    "duration > now": (11, "expected a duration"),
    "'a' = 'a'": (0, "expected a name"),
    "metrics.loss < ?": (16, "there are 1 '?', and 0 values were given"),
    "metrics.loss < 1e999999x": (15, "expected a number"),
    "metrics.a = 1 and\n  foo = 2": (20, "unknown name foo"),
}


@pytest.mark.parametrize("text", WRONG)
def test_an_error_says_where_and_what_was_expected(client: Client, text: str) -> None:
    """Guards the message, its position and the caret below it."""
    with pytest.raises(InvalidQuery) as raised:
        found(client, text)
    position, problem = WRONG[text]
    assert problem in raised.value.problem
    assert raised.value.position == position
    *_, line, caret = str(raised.value).splitlines()
    assert caret.index("^") - 2 == position - (text.rfind("\n", 0, position) + 1)
    assert line.strip() == text.splitlines()[text.count("\n", 0, position)].strip()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (("metrics.loss < ?", "x"), "expected a number, found 'x'"),
        (("metrics.loss < ?", None), "expected a number, found None"),
        (("metrics.loss < ?", 1, 2), "there are 1 '?', and 2 values were given"),
        (("status = ?", 3), "expected text in quotes, found 3"),
        (("run_id in ?", "abc"), "expected a list"),
        (("run_id in ?", [1]), "expected a list, each text in quotes, found [1]"),
        (("params.a = ?", [1]), "expected text in quotes, a number, true or false, found [1]"),
        (("", 1), "there are 0 '?', and 1 values were given"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told_of(client: Client, asked: tuple[Any, ...], problem: str) -> None:
    """Guards the values that stand beside the text."""
    with pytest.raises(InvalidQuery) as raised:
        found(client, *asked)
    assert problem in str(raised.value)


def test_a_filter_is_text(client: Client) -> None:
    """Guards against a function, a list or a number in its place."""
    for wrong in (5, ["name = 'a'"], lambda run: run, b"name = 'a'"):
        with pytest.raises(InvalidQuery):
            client.search_runs(wrong)  # type: ignore[arg-type]


def test_a_wrong_order_is_an_error(client: Client) -> None:
    """Guards what has no one value to order by."""
    for wrong in ("metrics.loss down", "foo", "artifacts.name", "metrics.loss[step=1]", "metrics", ", name"):
        with pytest.raises(InvalidQuery):
            found(client, order_by=wrong)
    with pytest.raises(InvalidQuery):
        client.search_runs(experiment="digits", select="datasets.name")


def test_what_is_selected_is_what_is_shown(client: Client) -> None:
    """Columns are named as in queries, in the order they were asked for, and nothing else is read."""
    runs = client.search_runs(
        "metrics.acc > 0.8", experiment="digits", select="status, metrics.loss.min, run_name, params, metrics.`a b`"
    )
    assert runs.to_dicts() == [
        {
            "status": "KILLED",
            "metrics.loss.min": 0.5,
            "run_name": "gamma",
            "params.depth": 3,
            "params.lr": 0.1,
            "params.model": "resnet50",
            "metrics.a b": 1.0,
            "params.a b": None,
            "params.flag": None,
            "params.opt.name": None,
        },
        {
            "status": "FINISHED",
            "metrics.loss.min": 0.5,
            "run_name": "alpha",
            "params.depth": 3,
            "params.lr": 0.1,
            "params.model": "cnn",
            "metrics.a b": None,
            "params.a b": "x y",
            "params.flag": True,
            "params.opt.name": "adam",
        },
    ]
    assert [run.tags for run in runs] == [{}, {}]
    assert list(runs.to_pandas().columns) == list(runs.to_dicts()[0])
    assert client.search_runs(experiment="digits", select=["name"], limit=1).to_dicts() == [{"name": "Alpha"}]
    whole, parsed = (
        client.search_runs(experiment="digits", select=each) for each in (["params", "tags"], "params, tags")
    )
    assert whole.to_dicts() == parsed.to_dicts()
    assert [run.metrics for run in whole] == [{}] * len(whole)
    assert "metrics.loss.min" in repr(runs) or "loss.min" in repr(runs)


def test_a_listing_has_a_dict_a_run(client: Client) -> None:
    """All have the same keys, so that they make a table."""
    dicts = client.search_runs("status = 'FINISHED'", experiment="digits").to_dicts()
    assert [each["name"] for each in dicts] == ["Alpha", "alpha"]
    assert (
        dicts[0].keys() == dicts[1].keys() >= {"id", "status", "start_time", "metrics.loss", "params.lr", "tags.team"}
    )
    assert dicts[0]["metrics.acc"] is None
    assert client.search_runs("name = 'nobody'", experiment="digits").to_dicts() == []


class TestWhatDependsOnMore:
    """Terms that core decides before a store is asked."""

    def test_a_lost_run_is_found_as_lost(self, tmp_path: Path) -> None:
        """A run whose process died is LOST in queries, as everywhere, and not RUNNING."""
        run_process(tmp_path, "import os, mlcore; mlcore.start_run(name='gone'); os._exit(0)")
        client = Client(tmp_path / ".mlcore")
        with client.start_run(name="here"):
            for asked, names in {
                "status = 'LOST'": ["gone"],
                "status = 'RUNNING'": ["here"],
                "status != 'RUNNING'": ["gone"],
                "status in ('LOST', 'RUNNING')": ["here", "gone"],
                "not status = 'LOST'": ["here"],
                "status like 'L%'": ["gone"],
                "status is not null": ["here", "gone"],
            }.items():
                assert [run.name for run in client.search_runs(asked)] == names, asked
            assert {each["status"] for each in client.search_runs(select="status").to_dicts()} == {"LOST", "RUNNING"}

    def test_deleted_runs_come_only_when_asked_for(self, tmp_path: Path) -> None:
        """Neither a run nor an experiment that is deleted is searched, unless that is asked for."""
        client = Client(tmp_path / ".mlcore")
        for name in ("one", "two"):
            client.start_run(name=name, experiment=name).end()
        with client.start_run(name="three", experiment="one") as three:
            three.set_tag("x", 1)
        three.delete()
        client.get_experiment("two").delete()

        def names(asked: str | None = None, **options: Any) -> list[str]:
            return sorted(run.name for run in client.search_runs(asked, **options))

        assert names(experiment="*") == ["one"]
        assert names("name != ''", experiment="*", include_deleted=True) == ["one", "three", "two"]
        assert names("experiment = 'two'", experiment="*") == []
        assert names("experiment = 'two'", experiment="*", include_deleted=True) == ["two"]
        assert names("tags.x = 1 or tags.x is null", experiment="one") == ["one"]
        assert [each.name for each in client.search_experiments()] == ["one"]
        assert [each.name for each in client.search_experiments("name = 'two'", include_deleted=True)] == ["two"]

    def test_files_and_models_of_runs_are_found(self, tmp_path: Path) -> None:
        """One file or model that fits is enough."""
        client = Client(tmp_path / ".mlcore")
        with client.start_run(name="files") as run:
            run.log_text("12345", "notes/a.txt")
            run.log_text("1", "b.csv")
            run._write(AttributesSet("run", run.id, "models", {"net": {"id": "m-1", "flavor": "torch"}}))
        client.start_run(name="none").end()
        for asked in (
            "artifacts.name = 'b.csv'",
            "artifact.name like '%.txt'",
            "artifacts.size > 4",
            "artifact.size < 2",
            "models.name = 'net'",
            "model.flavor in ('torch', 'onnx')",
            "artifacts.name is not null",
            "model.id like 'm-%'",
        ):
            assert [run.name for run in client.search_runs(asked)] == ["files"], asked
        assert [run.name for run in client.search_runs("artifacts.size between 2 and 4")] == ["files"]

    def test_relative_times_are_of_now(self, tmp_path: Path) -> None:
        """A run of this minute started after an hour ago."""
        client = Client(tmp_path / ".mlcore")
        client.start_run(name="now").end()
        for asked in (
            "start_time > now - 1h",
            "start_time > -1h",
            "start_time <= now",
            "end_time > -1m",
            "created < now + 1s",
        ):
            assert len(client.search_runs(asked)) == 1, asked

    def test_experiments_are_searched_too(self, tmp_path: Path) -> None:
        """Guards the names that experiments have."""
        client = Client(tmp_path / ".mlcore")
        one, two = (client.create_experiment(name, tags={"team": name}) for name in ("one", "two"))
        two.set_note("better")

        def names(*asked: Any, **options: Any) -> list[str]:
            return [each.name for each in client.search_experiments(*asked, **options)]

        assert names() == names("") == ["two", "one"]
        assert names(order_by="name") == ["one", "two"]
        assert names(order_by="creation_time") == ["one", "two"]
        assert names(order_by=["last_update_time desc"], limit=1) == ["two"]
        assert names("name like 'o%'") == names("tags.team = 'one'") == names("id = ?", one.id) == ["one"]
        assert names("note = 'better'") == names("attribute.name ilike 'TWO'") == ["two"]
        assert names("experiment_id in (?, ?) and created > -1h", one.id, two.id) == ["two", "one"]
        assert client.search_experiments("name = 'one'").to_dicts() == [
            {"id": one.id, "name": "one", "tags.team": "one"}
        ]
        for wrong in ("metrics.x = 1", "status = 'x'"):
            with pytest.raises(InvalidQuery):
                names(wrong)

    def test_what_is_nested_is_found_by_its_parent(self, tmp_path: Path) -> None:
        """Guards MLflow's tag for it, which is no tag here, and one that somebody set nevertheless."""
        client = Client(tmp_path / ".mlcore")
        with client.start_run(name="outer") as outer, client.start_run(name="inner", nested=True):
            pass
        for asked in ("tags.mlflow.parentRunId = ?", "parent_run_id = ?", "tags.`mlflow.parentRunId` = ?"):
            assert [run.name for run in client.search_runs(asked, outer.id)] == ["inner"]
        outer.set_tag("mlflow.user", "somebody")
        assert [run.name for run in client.search_runs("tags.mlflow.user = 'somebody'")] == ["outer"]


def test_the_module_searches_with_the_default_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards `mlcore.search_runs` and `mlcore.search_experiments`, and that list_runs is a search for all."""
    monkeypatch.setattr("mlcore.tracking._module._default", Client(tmp_path / ".mlcore"))
    with mlcore.start_run(name="one"):
        mlcore.log_metric("loss", 0.5)
    assert [run.name for run in mlcore.search_runs("metrics.loss < ?", 1)] == ["one"]
    assert [run.name for run in mlcore.list_runs()] == ["one"]
    assert [each.name for each in mlcore.search_experiments("name = 'Default'")] == ["Default"]


def test_like_takes_no_longer_for_a_hostile_pattern() -> None:
    """Guards against patterns that make a backtracking matcher try forever."""
    run = Entity("run", "0" * 32, attributes={"tags": {"x": "a" * 5_000}})
    where = query.where(f"tags.x like '{'%a' * 40}b'", query.RUN)
    assert not holds(where, run)


WORDS = [
    "metrics.loss",
    "params.lr",
    "tags.x",
    "status",
    "start_time",
    "duration",
    "name",
    "experiment_id",
    "artifacts.size",
    "metrics.",
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "like",
    "ilike",
    "between",
    "now",
    "true",
    "(",
    ")",
    "[",
    "]",
    ",",
    "?",
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "'",
    '"',
    "`",
    "'x'",
    '"y"',
    "`z`",
    "1",
    "-2.5",
    "1e9",
    "2h",
    "-7d",
    "-",
    ".",
    "step",
    "2026-01-31",
    "2026-99-99",
    "desc",
    "asc",
    "\n",
    "\x00",
    "é",
    "\u017f",
    "\u0663",
    "1_0",
    "9999999d",
    ";",
]
texts = (
    st.text()
    | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
    | st.lists(st.sampled_from(WORDS)).map("".join)
)
ENTITY = Entity(
    "run", "0" * 32, fields={"name": "n", "start_time": 1, "status": "RUNNING"},
    attributes={"params": {"lr": 0.1}, "tags": {"x": "y"}, "artifacts": {"f": {"size": 3}, "broken": 1}},
)  # fmt: skip


def fuzzed(text: str) -> None:
    """Ask in every way; let nothing but the documented error be raised."""
    for ask in (
        lambda: holds(query.where(text, query.RUN), ENTITY),
        lambda: holds(query.where(text, query.RUN, [1] * text.count("?")), ENTITY),
        lambda: query.order(text, query.RUN),
        lambda: query.terms(text, query.RUN),
    ):
        try:
            ask()
        except InvalidQuery as error:
            assert 0 <= error.position <= len(text)
            assert "^" in str(error)


@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts)
def test_whatever_comes_in_is_answered_or_refused(text: str) -> None:
    """Guards against any other exception than the documented one."""
    fuzzed(text)


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts)
def test_a_hundred_thousand_inputs_are_answered_or_refused(text: str) -> None:
    """Guards the same with what only many tries find."""
    fuzzed(text)


@pytest.mark.parametrize(
    "text", ["(" * 10_000, "not " * 10_000, "9" * 10_000, "metrics.a = " + "9" * 5_000, "'" * 9_999]
)
def test_what_is_too_deep_or_too_long_is_refused(text: str) -> None:
    """Guards against the limits of Python itself."""
    with pytest.raises(InvalidQuery):
        query.where(text, query.RUN)


def test_a_long_chain_is_no_depth(client: Client) -> None:
    """Guards filters that programs write."""
    assert found(client, " or ".join(["name = 'alpha'"] * 5_000)) == "a"

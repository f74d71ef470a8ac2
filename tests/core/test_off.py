"""``MLCORE_STORE=off``: every call of the API does nothing, raises nothing, and returns what it is to return."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

import mlcore
from faults.processes import run
from mlcore.errors import InvalidValue


@pytest.fixture
def off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Switch tracking off; return an empty folder that must stay so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLCORE_STORE", "off")
    mlcore.set_store()
    yield tmp_path
    mlcore.set_store("off")
    assert list(tmp_path.iterdir()) == []


def test_a_training_runs_unchanged(off: Path) -> None:
    """Guards scripts: all that is logged and asked during a run works, with nothing written anywhere."""
    mlcore.set_experiment("x")
    with mlcore.start_run(name="n", tags={"a": 1}) as live:
        assert isinstance(live, mlcore.Run)
        assert mlcore.active_run() is mlcore.last_run() is live
        mlcore.log_metric("m", 1)
        mlcore.log_metrics({"m": 1, "n": 2}, step=3)
        mlcore.log_points("p", range(5000), range(5000))
        mlcore.log_param("a", 1)
        mlcore.log_params({"b": {"c": 2}})
        mlcore.set_tag("t", 1)
        mlcore.set_tags({"u": 2})
        mlcore.remove_tag("u")
        mlcore.set_note("note")
        with mlcore.start_run(nested=True) as inner:
            inner.log_metric("m", 1)
        assert isinstance(live.id, str)
        assert isinstance(live.name, str)
        assert isinstance(live.experiment_id, str)
        assert isinstance(live.status, str)
        assert isinstance(live.params, dict)
        assert isinstance(live.metrics, dict)
        assert isinstance(live.tags, dict)
        assert isinstance(live.note, str)
        assert isinstance(live.deleted, bool)
        assert isinstance(live.last_seen, int)
        assert isinstance(live.conflicts, tuple)
        assert live.folder is None
        series = live.series("m")
        assert isinstance(series, mlcore.Series)
        assert len(series) == len(series.steps) == len(series.times) == len(series.values)
        assert isinstance(series.to_pandas(), pandas.DataFrame)
        assert isinstance(live.to_pandas(), pandas.DataFrame)
        for each in (live, series):
            assert isinstance(repr(each), str)
            assert isinstance(each._repr_html_(), str)
    live.delete()
    live.restore()
    live.refresh()
    assert mlcore.active_run() is None


def test_what_was_started_can_be_asked_for(off: Path) -> None:
    """Guards what scripts do after the training: get, list, rename, delete and restore."""
    with mlcore.start_run(key="k", resume="never") as first:
        pass
    with mlcore.start_run(key="k", resume="must", rewind_to=3) as again:
        assert again.id == first.id
    assert isinstance(mlcore.get_run(first.id), mlcore.Run)
    assert isinstance(mlcore.list_runs(), mlcore.Listing)
    assert isinstance(mlcore.list_runs("*", include_deleted=True).to_pandas(), pandas.DataFrame)
    experiment = mlcore.create_experiment("x", tags={"a": 1})
    assert isinstance(experiment, mlcore.Experiment)
    experiment.set_tag("b", 2)
    experiment.rename("y")
    experiment.delete()
    experiment.restore()
    assert isinstance(experiment.name, str)
    assert isinstance(experiment.tags, dict)
    assert isinstance(mlcore.get_experiment(experiment.id), mlcore.Experiment)
    assert isinstance(mlcore.list_experiments(), mlcore.Listing)
    for each in (experiment, mlcore.list_runs(), mlcore.list_experiments()):
        assert isinstance(repr(each), str)
        assert isinstance(each._repr_html_(), str)
    mlcore.end_run()


@pytest.mark.parametrize("wrong", [("", 1), ("m", "x"), ("m", None)])
def test_a_mistake_is_still_told_of(wrong: tuple[Any, Any], off: Path) -> None:
    """Guards whoever tests with tracking off: what would fail with a store fails without."""
    with mlcore.start_run(), pytest.raises(InvalidValue):
        mlcore.log_metric(*wrong)


def test_nothing_is_written_or_printed(tmp_path: Path) -> None:
    """Guards CI jobs: a process with tracking off leaves its folder and its output as they were."""
    code = """
        import mlcore
        mlcore.log_metric("m", 1)
        mlcore.log_params({"a": 1})
        mlcore.end_run()
        mlcore.log_metric("m", 2)
    """
    assert run(tmp_path, code, MLCORE_STORE="off") == ("", "")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"]), "where plugins are remembered"

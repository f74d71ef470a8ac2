"""Entities that an index or a team store decodes for the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlcore import Client, store
from mlcore.store import Query, Term

FAMILIES = tuple(Term(each, "") for each in ("fields", "metrics", "params"))


@pytest.mark.parametrize("team", [False, True], ids=["folder", "sqlite"])
def test_metrics_come_in_the_order_of_their_names(tmp_path: Path, team: bool) -> None:
    """Guards the columns of tables, whatever order metrics were first logged in, and several runs with other ones."""
    client = Client(f"sqlite:///{tmp_path / 'team.db'}" if team else tmp_path / ".mlcore")
    for keys in ("b a c", "c a", "a b c", "d"):
        with client.start_run() as run:
            run.log_metrics(dict.fromkeys(keys.split(), 1.0))
    client.close()
    again = Client(client.setting.value)
    found = [list(run.metrics) for run in again.list_runs("*")]
    assert found == [["d"], ["a", "b", "c"], ["a", "c"], ["a", "b", "c"]]
    again.close()


@pytest.mark.parametrize("depth", [3, 900])  # more is no JSON that anybody can write
@pytest.mark.parametrize("length", [10, 3_000])
def test_large_families_are_left_out_however_deep_they_are(tmp_path: Path, depth: int, length: int) -> None:
    """Guards documents that SQLite cannot follow: short ones it always can."""
    deep: Any = "x" * length
    for _ in range(depth // 3):
        deep = [[[deep]]]
    client = Client(tmp_path / ".mlcore")
    with client.start_run() as run:
        run.log_events(store.AttributesSet("run", run.id, "context", {"deep": deep}))
        run.log_params({"lr": 0.1})
    (entity,) = client.store.find("run", Query(select=FAMILIES)).items
    assert entity.attributes == {"params": {"lr": 0.1}}
    (whole,) = client.store.find("run", Query()).items
    assert whole.attributes["context"]["deep"] == deep
    client.close()

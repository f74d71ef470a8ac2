"""``mlcore db rebuild``: what is projected can be made anew from the history, to the byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sqlalchemy import text

from faults.processes import answers, crowd, run
from histories import log_everything
from mlcore.store import Batch, Query
from mlcore_local.outgoing import outgoing
from mlcore_sql.contents import Projected, differing, projected_entities
from mlcore_sql.dialects import runner
from mlcore_sql.engine import Database
from mlcore_sql.rebuilding import rebuild
from mlcore_sql.store import open_store

TABLES = ("terms", "entities", "documents", "attributes", "members", "metrics")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    """Return something of everything, cut into batches of a record or a few."""
    store = tmp_path_factory.mktemp("full") / "store"
    log_everything(store)
    return [batch for each in outgoing(store, {}).values() for batch in each.batches()]


def fill(uri: str, history: list[Batch], seed: int) -> None:
    """Append the history in small batches, of the sources in any order."""
    draw = random.Random(seed)
    store = open_store(uri)
    waiting = {batch.source: [] for batch in history}
    for batch in history:
        waiting[batch.source].append(batch)
    while waiting:
        source = draw.choice(sorted(waiting))
        batch = waiting[source].pop(0)
        store.append(batch)
        if not waiting[source]:
            del waiting[source]
    store.close()


def projected(uri: str) -> list[Projected]:
    """Return all that is projected."""
    database = Database(uri)
    with database.reading() as connection:
        found = list(projected_entities(runner(connection)))
    database.close()
    return found


def test_what_is_rebuilt_is_what_was_there(history: list[Batch], database: str) -> None:
    """Guards the tables that were brought up to date batch by batch: in one go they come out the same, to the byte."""
    fill(database, history, seed=1)
    before, answered = projected(database), answers(database)
    opened = Database(database)
    done: list[tuple[int, int | None]] = []
    rebuild(opened, lambda *each: done.append(each))
    opened.close()
    assert done[-1][0] == done[-1][1]
    assert list(differing(iter(before), iter(projected(database)))) == []
    assert answers(database) == answered
    store = open_store(database)  # and it goes on from there
    assert len(store.find("run", Query()).items) == len([key for key in answered if key.startswith("run")]) - 1
    store.close()


def test_the_order_in_which_sources_arrive_leaves_no_trace(history: list[Batch], tmp_path: Path) -> None:
    """Guards the comparison itself, and two servers that were filled differently."""
    found = []
    for seed in range(4):
        uri = f"sqlite:///{tmp_path / f'{seed}.db'}"
        fill(uri, history, seed)
        found.append(projected(uri))
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("table", TABLES[1:])
def test_what_was_lost_or_changed_comes_back(history: list[Batch], tmp_path: Path, table: str) -> None:
    """Guards a table that somebody emptied, or changed by hand."""
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    fill(uri, history, seed=1)
    before = projected(uri)
    opened = Database(uri)
    with opened.writing() as connection:
        connection.execute(text(f"DELETE FROM {table}"))
    assert list(differing(iter(before), iter(projected(uri)))) != []
    rebuild(opened)
    opened.close()
    assert projected(uri) == before


def test_killed_it_has_changed_nothing(history: list[Batch], database: str, tmp_path: Path) -> None:
    """Guards a rebuild that loses its process in the middle of the transaction."""
    fill(database, history, seed=1)
    before = projected(database)
    code = """
    import os, signal, sys
    from mlcore_sql import rebuilding
    from mlcore_sql.engine import Database
    def die(done, total):
        os.kill(os.getpid(), signal.SIGKILL) if done == total else None
    rebuilding.rebuild(Database(sys.argv[1]), die)
    """
    run(tmp_path, code, database, status=-9)
    assert projected(database) == before
    opened = Database(database)
    rebuild(opened)
    opened.close()
    assert projected(database) == before


def test_nothing_that_arrives_meanwhile_is_lost(history: list[Batch], database: str, tmp_path: Path) -> None:
    """Guards a team that goes on logging: appends wait, and are in the tables afterwards."""
    fill(database, history, seed=1)
    code = """
    import random, time
    from mlcore.testing import run_batch
    from mlcore_sql.engine import Database
    from mlcore_sql.rebuilding import rebuild
    from mlcore_sql.store import open_store
    store = open_store(sys.argv[4])
    together()
    if rank:
        for _ in range(30):
            store.append(run_batch(params={"p": rank}, metrics={"x": [1.0]}))
    else:
        for _ in range(3):
            rebuild(Database(sys.argv[4]))
            time.sleep(0.1)
    """
    assert crowd(tmp_path, code, 4, database) == [""] * 4
    before = projected(database)
    assert sum(each.kind == b"run" for each in before) >= 90
    opened = Database(database)
    rebuild(opened)
    opened.close()
    assert list(differing(iter(before), iter(projected(database)))) == []

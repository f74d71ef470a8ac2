"""The team store behind PgBouncer, where every transaction may get the connection of another client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mlcore.store import Query
from mlcore.testing import Writer, new_id, points, run_events
from mlcore_sql.store import SqlStore, open_store
from poolers import CONNECTIONS


def test_clients_that_share_connections_lose_and_double_nothing(pgbouncer: str) -> None:
    """Guards against what a connection remembers, such as prepared statements, and its pooler's next client does not.

    The whole store contract passes through PgBouncer as well; this is the part of it that a pooler can break.
    """
    stores = [open_store(pgbouncer) for _ in range(2 * CONNECTIONS)]

    def fill(store: SqlStore) -> str:
        writer = Writer(new_id())
        store.append(writer.batch(*run_events(writer.home, params={"lr": 0.1})))
        for step in range(20):  # a driver prepares what was said five times
            store.append(writer.batch(points(writer.home, "loss", [1 / (step + 1)], steps=[step])))
            assert store.get("run", [writer.home])[0].metrics["loss", ""].count == step + 1
        return writer.home

    with ThreadPoolExecutor(len(stores)) as threads:
        runs = list(threads.map(fill, stores))
    for store in stores:
        assert {run.id for run in store.find("run", Query()).items} == set(runs)
        assert len(store.series("run", runs, ["loss"])) == len(runs)
        assert sum(len(stored.batch.records) for stored in store.events()) == 21 * len(runs)
        store.close()


def test_a_connection_of_ones_own_still_prepares_what_it_says_often(postgresql: str) -> None:
    """Guards speed without a pooler: PostgreSQL need not plan the same statement for every batch."""
    store = open_store(postgresql)
    writer = Writer(new_id())
    store.append(writer.batch(*run_events(writer.home)))
    with store._database.engine.connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold is not None
    store.close()

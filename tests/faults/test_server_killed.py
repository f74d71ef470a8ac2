"""A server that is killed again and again: clients go on, and what was acknowledged is there, once."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from faults.processes import finish, mlcore, start
from mlcore import Client
from mlcore.store import Store
from mlcore_local.store import FolderStore
from mlcore_sql.store import open_store
from serving import serving

TOKEN = "the-token-of-these-tests-0123456789"
CALL_MS, AWAY_MS = 50, 200

# Logs until a file appears, by mlcore's public API; says how long the slowest call took. Waiting for a turn of the
# processor, of which 16 clients and a server want two, is not what a call does; what the first imports was done before.
LOGGING = """
import json, os, pathlib, sys, time, mlcore
mark, stop = sys.argv[1], pathlib.Path(sys.argv[2])
slowest, count = (0.0, ""), 0
def waits():
    found = {}
    for each in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{each}/schedstat") as file:
                found[int(each)] = int(file.read().split()[1]) / 1e6
        except OSError:
            pass  # it has just ended
    return found
def timed(call, *args, **more):
    global slowest
    before, began = waits(), time.perf_counter()
    result = call(*args, **more)
    took = (time.perf_counter() - began) * 1000
    waited = {each: after - before.get(each, 0) for each, after in waits().items()}
    took -= waited.pop(os.getpid()) + max(waited.values(), default=0)  # for a thread that waits itself with the lock
    slowest = max(slowest, (took, call.__name__))
    return result
with mlcore.start_run(name="first") as first:
    first.log_metric("m", 1)
mlcore.Client().get_run(first.id)  # has arrived, so that all is imported, which in tests is compiled each time
print("ready", flush=True)
run = timed(mlcore.start_run, name=mark)
while not stop.exists():
    timed(run.log_metric, "m", count, step=count)
    if count % 5 == 0:
        timed(run.log_metrics, {"a": count, "b": -count}, step=count)
    if count % 20 == 0:
        timed(run.log_param, f"p{count}", f"{mark} {count}")
    if count % 50 == 0:
        timed(run.log_points, "c", range(count * 10, count * 10 + 10), [count] * 10)
    count += 1
    time.sleep(0.02)
timed(run.end)
print(json.dumps({"id": run.id, "count": count, "slowest": slowest}), flush=True)
"""

# Appends to the server itself, until a file appears, and tells of every record that was acknowledged.
APPENDING = """
import os, pathlib, sys, time
from mlcore.errors import StoreError
from mlcore.store import Batch, Created, Record, Updated, clock, digest
from mlcore_remote.store import RemoteStore
uri, stop = sys.argv[1], pathlib.Path(sys.argv[2])
store, source, home, number, previous = RemoteStore(uri), os.urandom(16).hex(), os.urandom(16).hex(), 0, ""
print(source, flush=True)
while not stop.exists():
    number += 1
    event = Created("run", home, "0", {"name": "x"}) if number == 1 else Updated("run", home, {"n": number})
    batch = Batch(source, home, (Record(number, clock.tick(), (event,)),), previous)
    while True:
        try:
            store.append(batch)
            break
        except StoreError:
            time.sleep(0.05)
    previous = digest(batch.records, previous)
    os.write(1, f"{number}\\n".encode())
"""


def opened(uri: str) -> Store:
    """Open the store that was served."""
    return open_store(uri) if uri.startswith("sqlite") else FolderStore(Path(uri))


def arrived(store: Store) -> Counter[tuple[str, int]]:
    """Count every record by source and number."""
    return Counter(
        (each.batch.source, record.number) for each in store.events(rows=False) for record in each.batch.records
    )


def check_run(client: Client, told: dict[str, Any], mark: str) -> None:
    """Compare a run with what its process logged."""
    back, count = client.get_run(told["id"]), told["count"]
    assert (back.name, back.status) == (mark, "FINISHED")
    series = {key: (list(back.series(key).steps), list(back.series(key).values)) for key in back.metrics}
    fives, fifties = range(0, count, 5), range(0, count, 50)
    assert series["m"] == (list(range(count)), list(range(count)))
    assert series["a"] == (list(fives), list(fives))
    assert series["b"] == (list(fives), [-each for each in fives])
    assert series["c"][1] == [each for each in fifties for _ in range(10)]
    assert dict(back.params) == {f"p{each}": f"{mark} {each}" for each in range(0, count, 20)}


@pytest.mark.parametrize(
    ("kind", "clients", "kills"), [pytest.param("folder", 16, 20, marks=pytest.mark.slow), ("sqlite", 2, 2)]
)
def test_clients_of_a_server_that_is_killed_lose_nothing(tmp_path: Path, kind: str, clients: int, kills: int) -> None:
    """Guards R2: acknowledged records are there once, no client raised, and no call of one waited for the server."""
    store = str(tmp_path / "store") if kind == "folder" else f"sqlite:///{tmp_path / 'store.db'}"
    stop, appenders = tmp_path / "stop", clients // 4 or 1
    with serving(store, token=TOKEN) as server:
        settings = {"MLCORE_STORE": server.url, "MLCORE_TOKEN": TOKEN}
        logging = {f"client {each}": start(tmp_path / f"home{each}", LOGGING, f"client {each}", stop, **settings)
                   for each in range(clients - appenders)}  # fmt: skip
        appending = [
            start(tmp_path / "home", APPENDING, server.url, stop, **settings) for _ in range(clients // 4 or 1)
        ]
        first = {each: each.stdout.readline().strip() for each in [*logging.values(), *appending] if each.stdout}
        for kill in range(kills):
            time.sleep(0.3 + kill % 4 * 0.2)
            server.kill()
            time.sleep(kill % 3 * 0.2)
            server.start()
        stop.touch()
        told = {mark: json.loads(finish(each)[0].splitlines()[-1]) for mark, each in logging.items()}
        acknowledged = {(first[each], int(number)) for each in appending for number in finish(each)[0].split()}
        for each in range(len(logging)):  # what did not arrive in time at exit is shipped by hand, as its line says
            done = mlcore(tmp_path / f"home{each}", "sync", **settings)
            assert done.returncode == 0, done.stdout + done.stderr
        assert server.stop() == 0
    slowest = sorted(each["slowest"] for each in told.values())
    assert slowest[len(slowest) // 2][0] < CALL_MS, slowest
    assert slowest[-1][0] < AWAY_MS, slowest  # one disk for all may make one wait; the server was away for longer
    found = opened(store)
    records = arrived(found)
    assert set(records.values()) == {1}
    assert acknowledged <= records.keys()
    assert len(acknowledged) > kills
    found.close()
    client = Client(store)
    for mark, each in told.items():
        check_run(client, each, mark)
    client.close()

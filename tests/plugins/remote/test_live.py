"""Following a server's store: everything comes, also across restarts of the server, and a lost position is told."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import pytest

from mlcore.errors import AccessDenied, PositionLost
from mlcore.store import Stored
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore_remote.live import follow
from mlcore_remote.store import RemoteStore
from serving import serving, serving_here

TOKEN = "the-token-of-these-tests-0123456789"


def test_a_follower_hears_everything_across_restarts(tmp_path: Path) -> None:
    """Guards following a database: a server that dies and comes back leaves no gap."""
    writer, heard = Writer(new_id()), SimpleQueue[Stored]()
    with serving(f"sqlite:///{tmp_path / 'store.db'}", token=TOKEN) as server:
        store = RemoteStore(server.url, token=TOKEN)
        store.append(writer.batch(*run_events(writer.home, fields={"name": "x"})))

        def listen() -> None:
            for stored in follow(RemoteStore(server.url, token=TOKEN)):
                heard.put(stored)
                if stored.batch.records[-1].number == 7:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        found = [heard.get(timeout=30)]
        for restart in range(3):
            if restart:
                server.kill()
                server.start()
            for _ in range(2):
                store.append(writer.batch(points(writer.home, "loss", [float("nan")])))
                found.append(heard.get(timeout=30))
        thread.join(30)
    assert not thread.is_alive()
    assert [record.number for each in found for record in each.batch.records] == [1, 2, 3, 4, 5, 6, 7]


def test_a_lost_position_and_a_wrong_token_are_raised(tmp_path: Path) -> None:
    """Guards followers of a folder store whose server was started anew, and those that may not listen."""
    with serving_here(tmp_path / "store", token=TOKEN) as server:
        store, writer = RemoteStore(server.url, token=TOKEN), Writer(new_id())
        store.append(writer.batch(*run_events(writer.home, fields={"name": "x"})))
        with pytest.raises(PositionLost):
            next(follow(store, "no such position"))
        with pytest.raises(AccessDenied):
            next(follow(RemoteStore(server.url, token="no")))
        timer = threading.Timer(0.3, lambda: store.append(writer.batch(points(writer.home, "loss", [1.0]))))
        timer.start()
        began = time.monotonic()
        (stored,) = islice(follow(store, None, of=writer.home), 1)
        assert stored.batch.records[0].number == 2
        assert time.monotonic() - began > 0.2
        timer.join()

"""``mlcore sync`` between folders and databases: whichever way it goes, all answers are the same."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import mlcore
from faults.processes import answers, crowd, mlcore as program, run as python
from histories import log_everything
from mlcore_local import FolderStore
from mlcore_local.sync import sync, verify
from mlcore_sql.store import open_store


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder store with something of everything."""
    store = tmp_path_factory.mktemp("full") / "store"
    log_everything(store)
    return store


def test_to_a_database_and_back_all_answers_are_the_same(full: Path, tmp_path: Path, database: str) -> None:
    """Guards the way into a team and out of it: nothing is translated, nothing is lost."""
    source, team, back = FolderStore(full), open_store(database), FolderStore(tmp_path / "back")
    assert sync(source, team).refused == []
    assert answers(database) == answers(full)
    assert verify(source, team) == verify(team, source) == []
    assert sync(team, back).refused == []
    assert answers(tmp_path / "back") == answers(full)
    for kind, id in (("model", "m"), ("model", "n"), ("prompt", "hello")):
        assert source.get(kind, [id]) == team.get(kind, [id]) == back.get(kind, [id])
    team.close()


def test_from_one_database_to_another(full: Path, tmp_path: Path, database: str) -> None:
    """Guards a team that moves: from SQLite to a server, and from a server to a file."""
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for source, target in ((str(full), other), (other, database), (database, f"sqlite:///{tmp_path / 'third.db'}")):
        done = program(tmp_path, "sync", source, target, "--verify")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "verified" in done.stdout
        assert "mlpw" not in done.stdout + done.stderr
    assert answers(f"sqlite:///{tmp_path / 'third.db'}") == answers(full)


def test_only_what_is_new_goes_both_ways(full: Path, tmp_path: Path, database: str) -> None:
    """Guards two people who log into stores of their own and sync now and then."""
    ours, memory = tmp_path / "ours", {"there": tmp_path / "there", "back": tmp_path / "back"}
    sync(FolderStore(full), FolderStore(ours))
    team = open_store(database)
    for number in range(3):
        with mlcore.Client(ours).start_run(name=f"mine {number}") as run:
            run.log_metric("x", 1)
        with closing(mlcore.Client(database)) as theirs, theirs.start_run(name=f"theirs {number}") as run:
            run.log_metric("x", 2)
        there = sync(FolderStore(ours), team, memory=memory["there"])
        back = sync(team, FolderStore(ours), memory=memory["back"])
        assert there.refused == back.refused == []
        if number:
            assert max(there.sources, back.sources) < 5
    assert answers(ours) == answers(database)
    assert verify(team, FolderStore(ours)) == []
    team.close()


KILLED = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from mlcore_local import FolderStore
from mlcore_local.sync import sync
from mlcore_sql.store import SqlStore, open_store
source, target, memory, left = *sys.argv[1:4], int(sys.argv[4])
append = SqlStore.append
def counted(self, batch):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    append(self, batch)
SqlStore.append = counted
sync(FolderStore(Path(source)), open_store(target), memory=Path(memory))
"""


def test_killed_and_started_again_it_ends_the_same(full: Path, tmp_path: Path, database: str) -> None:
    """Guards a laptop that is closed in the middle."""
    for left in (1, 4, 7):
        python(tmp_path, KILLED, full, database, tmp_path / "memory", left, status=-9)
    python(tmp_path, KILLED, full, database, tmp_path / "memory", 10_000)
    assert answers(database) == answers(full)


def test_several_at_once_end_the_same(full: Path, tmp_path: Path, database: str) -> None:
    """Guards syncs that overlap, into a database that is empty when they begin."""
    code = """
    from pathlib import Path
    from mlcore_local import FolderStore
    from mlcore_local.sync import sync
    from mlcore_sql.store import open_store
    together()
    print(sync(FolderStore(Path(sys.argv[4])), open_store(sys.argv[5])).refused)
    """
    assert crowd(tmp_path, code, 4, full, database) == ["[]\n"] * 4
    assert answers(database) == answers(full)


def test_a_database_that_was_put_back_to_an_older_state_gets_all_again(full: Path, tmp_path: Path) -> None:
    """Guards a backup that was restored: what is remembered of a sync is not believed."""
    place = tmp_path / "team.db"
    team = open_store(f"sqlite:///{place}")
    sync(FolderStore(full), team, memory=tmp_path / "memory")
    team.close()
    place.unlink()
    team = open_store(f"sqlite:///{place}")
    sync(FolderStore(full), team, memory=tmp_path / "memory")
    assert verify(FolderStore(full), team) == []
    team.close()

"""``mlcore db``: what looks after the database of a team, while the team uses it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from faults.processes import answers, mlcore as program, start
from histories import log_everything
from mlcore.errors import PositionLost, StoreError
from mlcore.testing import run_batch
from mlcore_local import FolderStore
from mlcore_local.sync import sync, verify
from mlcore_sql import migrations
from mlcore_sql.backup import backup
from mlcore_sql.checking import Report, check
from mlcore_sql.engine import Database
from mlcore_sql.store import open_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder store with something of everything."""
    store = tmp_path_factory.mktemp("full") / "store"
    log_everything(store)
    return store


@pytest.fixture
def full(folder: Path, database: str) -> str:
    """Return the URI of a team store with something of everything."""
    store = open_store(database)
    sync(FolderStore(folder), store)
    store.close()
    return database


@pytest.fixture
def small(tmp_path: Path, folder: Path) -> str:
    """Return the URI of a store on SQLite with something of everything."""
    uri = f"sqlite:///{tmp_path / 'team.db'}"
    store = open_store(uri)
    sync(FolderStore(folder), store)
    store.close()
    return uri


def checked(uri: str, sample: int | None = 100) -> Report:
    """Check a store."""
    database = Database(uri)
    report = check(database, sample=sample)
    database.close()
    return report


def change(uri: str, statement: str, **binds: Any) -> None:
    """Change a database by hand."""
    database = Database(uri)
    with database.writing() as connection:
        assert connection.execute(text(statement), binds).rowcount
    database.close()


class TestCheck:
    @pytest.mark.parametrize("sample", [100, None])
    def test_a_sound_store_is_sound(self, full: str, sample: int | None) -> None:
        """Guards against false alarms, on every engine."""
        report = checked(full, sample)
        assert report.findings == []
        assert report.version == migrations.HISTORY[-1]
        assert min(report.batches, report.records, report.rows, report.sources, report.entities) > 3
        assert report.rows > 20_000

    @pytest.mark.parametrize(
        ("statement", "of", "what"),
        [
            ("DELETE FROM batches WHERE position = 3", "source", "records"),
            ("UPDATE batches SET events = :junk WHERE position = 3", "batch 3", ""),
            ("UPDATE sources SET last = last + 1", "source", "which are not its history's"),
            ("DELETE FROM sources", "source", "does not know it"),
            ("UPDATE sources SET digest = :digest", "source", "which are not its history's"),
            ("DELETE FROM chunks WHERE size > 100", "batch", "missing"),
            ("UPDATE chunks SET size = size + 1 WHERE size > 100", "source", "rows were logged, and"),
            ("DELETE FROM claims", "claim", "in the history or the table"),
            ("UPDATE metrics SET count = count + 1", "run", "differ"),
            ("DELETE FROM attributes", "run", "differ"),
            ("DELETE FROM entities WHERE hidden = 0", "run", "differ"),
            ("UPDATE documents SET shown = CAST(replace(CAST(shown AS TEXT), 'sp', 'ps') AS BLOB)", "run", "differ"),
            ("DROP INDEX metrics_last", "tables", "metrics_last"),
            ("ALTER TABLE metrics ADD COLUMN more INTEGER", "tables", "more"),
        ],
    )
    def test_what_is_wrong_is_found(self, small: str, statement: str, of: str, what: str) -> None:
        """Guards every check, with a store that was broken on purpose."""
        opened = Database(small)
        with opened.writing() as connection:
            connection.execute(text(statement), {"junk": b"#1 1\n{", "digest": bytes(32)} if ":" in statement else {})
        opened.close()
        report = checked(small, None)
        assert [each for each in report.findings if each.of.startswith(of) and what in each.what], report.findings

    def test_a_sample_finds_what_core_would_show_otherwise(self, small: str) -> None:
        """Guards the quick look, whose judge is core's fold."""
        change(small, "UPDATE documents SET shown = CAST(replace(CAST(shown AS TEXT), 'run 1', 'run 7') AS BLOB)")
        assert any("differ" in each.what for each in checked(small).findings)
        assert checked(small, 0).findings == []

    def test_the_command_says_it_all(self, small: str, tmp_path: Path) -> None:
        """Guards the exit code, and what scripts read."""
        done = program(tmp_path, "db", "check", "--store", small)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "all is well" in done.stdout
        change(small, "DELETE FROM claims")
        done = program(tmp_path, "db", "check", "--json", MLCORE_STORE=small)
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert told["findings"][0]["of"].startswith("claim ")
        assert told["entities"] > 3


class TestBackup:
    def test_a_file_is_a_store_of_its_own(self, full: str, tmp_path: Path) -> None:
        """Guards a nightly backup: it answers the same, can be checked, and be written to."""
        done = program(tmp_path, "db", "backup", "copy.db", "--store", full, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["batches"] > 3
        assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy.db"]
        copy = f"sqlite:///{tmp_path / 'copy.db'}"
        assert answers(copy) == answers(full)
        assert checked(copy, None).findings == []
        store, original = open_store(copy), open_store(full)
        assert verify(original, store) == verify(store, original) == []
        before, after = list(original.events()), list(store.events())
        assert [(each.received_at, each.actor, each.batch.source, each.batch.claim) for each in before] == [
            (each.received_at, each.actor, each.batch.source, each.batch.claim) for each in after
        ]
        with pytest.raises(PositionLost):
            list(store.events(before[-1].position))
        store.append(run_batch(metrics={"x": [1.0]}))
        store.close()
        original.close()
        assert checked(copy).findings == []

    def test_back_into_an_empty_database(self, small: str, database: str) -> None:
        """Guards the day the backup is needed."""
        opened = Database(small)
        backup(opened, database.replace("store.db", "back.db"))
        with pytest.raises(StoreError, match="already"):
            backup(opened, database.replace("store.db", "back.db"))
        opened.close()
        back = database.replace("store.db", "back.db")
        assert answers(back) == answers(small)
        store = open_store(back)
        for _ in range(3):
            store.append(run_batch(params={"new": 1}, metrics={"new": [1.0]}))
        store.close()
        assert checked(back, None).findings == []

    def test_it_is_of_one_moment_while_others_write(self, full: str, tmp_path: Path) -> None:
        """Guards a copy of a store in use: nothing in it has lost what came before."""
        code = """
        import os, sys
        from mlcore.testing import Writer, points, run_events
        from mlcore_sql.store import open_store
        store = open_store(sys.argv[1])
        writer = Writer("a" * 32)
        store.append(writer.batch(*run_events(writer.home)))
        print("on", flush=True)
        tests = os.getppid()
        while not os.path.exists("stop") and os.getppid() == tests:
            store.append(writer.batch(points(writer.home, "x", [1.0, 2.0], steps=[2 * len(writer.records)] * 2)))
        """
        writer = start(tmp_path, code, full)
        assert writer.stdout is not None
        writer.stdout.readline()
        for number in range(4):
            opened = Database(full)
            backup(opened, str(tmp_path / f"{number}.db"))
            opened.close()
            assert checked(f"sqlite:///{tmp_path / f'{number}.db'}", None).findings == []
        assert checked(full).findings == []
        (tmp_path / "stop").touch()
        _, err = writer.communicate()
        assert writer.returncode == 0, err

    def test_killed_it_leaves_nothing_that_looks_like_a_backup(self, small: str, tmp_path: Path) -> None:
        """Guards a disk that fills up, or a job that is cancelled."""
        code = """
        import os, signal, sys
        from mlcore_sql.backup import backup
        from mlcore_sql.engine import Database
        backup(Database(sys.argv[1]), "copy.db", lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
        """
        assert start(tmp_path, code, small).communicate() == ("", "")
        assert not (tmp_path / "copy.db").exists()
        assert program(tmp_path, "db", "backup", "copy.db", "--store", small).returncode == 0

    def test_nothing_is_replaced(self, small: str, tmp_path: Path) -> None:
        """Guards the backup of yesterday."""
        (tmp_path / "copy.db").write_text("precious")
        done = program(tmp_path, "db", "backup", "copy.db", "--store", small)
        assert done.returncode == 1
        assert "is there already" in done.stderr
        assert (tmp_path / "copy.db").read_text() == "precious"


class TestUpgrade:
    def test_it_makes_the_tables_and_then_has_nothing_to_do(self, database: str, tmp_path: Path) -> None:
        """Guards who sets up the database of a team."""
        assert "was empty" in program(tmp_path, "db", "upgrade", "--store", database).stdout
        told = json.loads(program(tmp_path, "db", "upgrade", "--store", database, "--json").stdout)
        assert told["before"] == told["after"] == migrations.HISTORY[-1]
        assert ":mlpw@" not in json.dumps(told)

    def test_after_a_dump_was_put_back_readers_start_over(self, small: str, tmp_path: Path) -> None:
        """Guards whoever remembers a position that the store has given out again."""
        store = open_store(small)
        last = list(store.events())[-1].position
        assert list(store.events(last)) == []
        store.close()
        assert program(tmp_path, "db", "upgrade", "--restored", "--store", small).returncode == 0
        store = open_store(small)
        with pytest.raises(PositionLost):
            list(store.events(last))
        store.close()


class TestCommand:
    @pytest.mark.parametrize("words", [["check"], ["rebuild"], ["backup", "x.db"], ["upgrade"]])
    def test_a_folder_is_no_database(self, tmp_path: Path, words: list[str]) -> None:
        """Guards who forgot to say which store is meant."""
        done = program(tmp_path, "db", *words)
        assert done.returncode == 2
        assert "is no database" in done.stderr

    @pytest.mark.parametrize("words", [["check"], ["rebuild"], ["backup", "x.db"]])
    def test_what_is_not_there_is_told(self, tmp_path: Path, words: list[str]) -> None:
        """Guards a misspelt name: no empty database is made for it."""
        done = program(tmp_path, "db", *words, "--store", f"sqlite:///{tmp_path / 'no.db'}")
        assert done.returncode == 1
        assert "there is no store at" in done.stderr
        assert not (tmp_path / "no.db").exists()
        sqlite3.connect(tmp_path / "empty.db").executescript("VACUUM")
        done = program(tmp_path, "db", *words, "--store", f"sqlite:///{tmp_path / 'empty.db'}")
        assert done.returncode == 1
        assert "empty database" in done.stderr

    def test_rebuild_says_so(self, small: str, tmp_path: Path) -> None:
        """Guards the command that nobody should need."""
        change(small, "DELETE FROM attributes")
        assert program(tmp_path, "db", "rebuild", "--store", small).returncode == 0
        assert checked(small, None).findings == []
        assert json.loads(program(tmp_path, "db", "rebuild", "--store", small, "--json").stdout)["rebuilt"]

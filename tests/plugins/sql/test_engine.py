"""Databases are opened by their URI, with errors that say what is wrong and never the password."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlcore
from faults.processes import mlcore as command
from mlcore.errors import NotFound, NotInstalled, StoreError, StoreNotFound
from mlcore.store import Query
from mlcore.testing._builders import run_batch
from mlcore_sql.engine import shown
from mlcore_sql.store import open_store

SECRET = "gehe1m%3A"
BOTH = pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("postgresql://ml:secret@host:5432/ml", "postgresql://ml:***@host:5432/ml"),
        ("postgresql://ml:se:cr/et@host/ml?password=secret&x=1", "postgresql://ml:***@host/ml?password=***&x=1"),
        ("mysql://ml@host/ml", "mysql://ml@host/ml"),
        ("postgresql://host:5432/ml", "postgresql://host:5432/ml"),
        ("sqlite:////tmp/a@b:c.db", "sqlite:////tmp/a@b:c.db"),
    ],
)
def test_a_uri_is_shown_without_its_password(uri: str, told: str) -> None:
    """Guards logs, errors and `mlcore where` against telling everybody."""
    assert shown(uri) == told


@BOTH
def test_a_wrong_password_host_or_database_is_one_clear_error(scheme: str, request: pytest.FixtureRequest) -> None:
    """Guards that who mistypes a URI learns what is wrong, at once, and nobody the password."""
    right: str = request.getfixturevalue(scheme)
    at = right.index("@")
    wrong = {
        "password": f"{right[: right.rindex(':', 0, at)]}:{SECRET}{right[at:]}",
        "port": f"{right[:at].replace('mlpw', SECRET)}@127.0.0.1:9/ml",
        "host": f"{right[:at].replace('mlpw', SECRET)}@nowhere.invalid/ml",
        "database": f"{right[: right.rindex('/')]}/there_is_none",
        "name": right[: right.rindex("/")],
        "number": f"{right[:at]}@127.0.0.1:port/ml",
    }
    for what, uri in wrong.items():
        with pytest.raises(StoreError) as told:
            open_store(uri)
        text = "".join(map(str, [told.value, repr(told.value), told.value.__cause__, told.value.__context__]))
        assert "***@" in str(told.value), what
        for secret in (SECRET, "gehe1m", "mlpw"):
            assert secret not in text, what


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that who has no driver is told the one line that brings it."""
    kept = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in ("psycopg", "pymysql"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return kept(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for scheme, extra in (("postgresql", "postgresql"), ("mysql", "mysql"), ("mariadb", "mysql")):
        with pytest.raises(NotInstalled, match=rf"pip install 'mlcore-sql\[{extra}\]'") as told:
            open_store(f"{scheme}://ml:mlpw@127.0.0.1/ml")
        assert "mlpw" not in str(told.value)


def test_no_file_is_made_by_looking_for_one(tmp_path: Path) -> None:
    """Guards that a mistyped path is told of, not answered from a new empty store."""
    path = tmp_path / "store.db"
    store = open_store(f"sqlite:///{path}")
    for call in (lambda: store.get("run", ["x"]), lambda: store.find("run", Query()), lambda: list(store.events())):
        with pytest.raises(StoreNotFound, match=r"store\.db"):
            call()
    assert not list(tmp_path.iterdir())
    store.append(run_batch())
    assert len(store.find("run", Query()).items) == 1
    store.close()


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///x.db?durability=great"])
def test_a_uri_that_cannot_be_is_refused(uri: str) -> None:
    """Guards against a store in memory that every connection has one of."""
    with pytest.raises(StoreError):
        open_store(uri)


def test_a_file_in_no_folder_is_told_of(tmp_path: Path) -> None:
    """Guards that a path that cannot be written is an error of the store, with its name."""
    store = open_store(f"sqlite:///{tmp_path}/none/store.db")
    with pytest.raises(StoreError, match=r"none/store\.db"):
        store.append(run_batch())


def test_a_file_that_is_no_database_is_told_of(tmp_path: Path) -> None:
    """Guards that another file of that name is neither read nor written over."""
    (tmp_path / "store.db").write_text("this is no database, but it is long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'store.db'}")


def test_durability_is_declared_as_it_is(tmp_path: Path, postgresql: str, mariadb: str) -> None:
    """Guards that nobody is promised what a database is not set to keep: servers of tests do not wait for the disk."""
    for uri, durability in {
        f"sqlite:///{tmp_path / 'a.db'}": "process",
        f"sqlite:///{tmp_path / 'b.db'}?durability=power": "power",
        postgresql: "process",
        mariadb: "process",
    }.items():
        store = open_store(uri)
        store.append(run_batch())
        assert store.capabilities.durability == durability
        store.close()


def test_the_whole_stack_works_on_a_database(database: str, tmp_path: Path) -> None:
    """Guards that what a user does, from the first run to a search on the command line, needs but the URI."""
    client = mlcore.Client(database)
    for number in range(3):
        with client.start_run(name=f"run {number}", experiment="first") as run:
            run.log_param("lr", number / 10)
            for step in range(5):
                run.log_metric("loss", number + 1 / (step + 1))
            run.log_points("curve", range(5_000), [float(step) for step in range(5_000)])
    with client.start_run(name="stopped", experiment="second"):
        pass
    assert [each.name for each in client.search_runs("metrics.loss < 2 and params.lr > 0", experiment="first")] == [
        "run 1"
    ]
    assert [each.status for each in client.list_runs("*")] == ["FINISHED"] * 4
    found = client.search_runs("metrics.loss > 2", experiment="first")[0]
    assert found.metrics == {"loss": 2.2, "curve": 4999.0}
    assert len(found.series("curve")) == 5_000
    assert [each.name for each in client.list_experiments()] == ["second", "first"]
    with pytest.raises(NotFound) as told:
        client.get_run("nobody")
    assert "mlpw" not in str(told.value)
    client.close()
    listed = command(tmp_path, "runs", "list", "--filter", "metrics.loss < 3", "--json", MLCORE_STORE=database)
    assert listed.returncode == 0, listed.stderr
    assert [each["name"] for each in json.loads(listed.stdout)] == ["run 2", "run 1", "run 0"]
    for words in (["where"], ["where", "--json"], ["doctor"], ["runs", "show", "nobody"], ["fsck"]):
        done = command(tmp_path, *words, MLCORE_STORE=database)
        assert "mlpw" not in done.stdout + done.stderr, words
        assert database.partition(":")[0] in done.stdout + done.stderr


def test_opening_a_store_is_the_first_to_import_sqlalchemy() -> None:
    """Guards the start of every command: what a database needs is loaded by who uses one."""
    code = "import sys, mlcore, mlcore_sql, mlcore_sql.hooks; print([m for m in sys.modules if 'sqlalchemy' in m])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

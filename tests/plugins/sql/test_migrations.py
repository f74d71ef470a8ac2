"""The tables of a database come to be by migrations: as they are declared, whatever interrupts, once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text

from faults.processes import crowd, finish, start
from mlcore.errors import NewerFormat, StoreError
from mlcore.store import AttributesSet, Compare, Query, Term
from mlcore.testing import Writer, run_batch
from mlcore_sql import migrations
from mlcore_sql.engine import Database
from mlcore_sql.preparing import prepare
from mlcore_sql.schema import projected
from mlcore_sql.store import open_store
from mlcore_sql.tables import counter, metadata

NAMES = {*projected.tables, *metadata.tables}
Fresh = Callable[[], str]

_POSTGRESQL = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0
UNION ALL SELECT tablename, indexname, indexdef, true, null FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), true, null FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
"""


def described(connection: Connection) -> list[str]:
    """Return what a database says of our tables, in its own words."""
    dialect = connection.dialect.name
    if dialect == "sqlite":
        rows = connection.execute(text("SELECT tbl_name, name, sql FROM sqlite_master"))
    elif dialect == "postgresql":
        rows = connection.execute(text(_POSTGRESQL))
    else:
        shown = {name: connection.execute(text(f"SHOW CREATE TABLE {name}")).one()[1] for name in NAMES}
        rows = [(name, line.strip(" ,")) for name, table in shown.items() for line in table.split("\n")]
    found = sorted(str([" ".join(str(value).split()) for value in row]) for row in rows if row[0] in NAMES)
    return [re.sub(r" AUTO_INCREMENT=\d+", "", line) for line in found]  # how many rows there were


def tables(uri: str) -> list[str]:
    """Return what the database at a URI says of our tables."""
    database = Database(uri)
    with database.reading() as connection:
        found = described(connection)
    database.close()
    return found


@pytest.fixture
def fresh(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> Fresh:
    """Return what makes one more empty database."""
    names = iter(range(1_000))

    def made() -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path / f'{next(names)}.db'}"
        context = request.getfixturevalue(f"{engine}_server").database()
        request.addfinalizer(lambda: context.__exit__(None, None, None))
        return str(context.__enter__())

    return made


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of each engine."""
    return str(request.param)


def declared(uri: str) -> list[str]:
    """Make the tables as they are declared, without migrations; return what the database says of them."""
    database = Database(uri)
    with database.writing() as connection:
        projected.create_all(connection)
        metadata.create_all(connection)
    database.close()
    return tables(uri)


def test_migrated_tables_are_as_they_are_declared(fresh: Fresh) -> None:
    """Guards that migrations and schema say the same, in the words of each database."""
    uri = fresh()
    database = Database(uri)
    assert migrations.upgrade(database) == (None, migrations.HISTORY[-1])
    assert migrations.upgrade(database) == (migrations.HISTORY[-1],) * 2
    with database.reading() as connection:
        assert migrations.version_of(connection) == migrations.HISTORY[-1]
    database.close()
    assert tables(uri) == declared(fresh())


def test_the_history_is_that_of_the_files() -> None:
    """Guards a migration that was written and not listed, or the other way round."""
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [each.revision for each in script.walk_revisions()]
    assert tuple(reversed(found)) == migrations.HISTORY
    assert len(script.get_heads()) == 1


KILLED = """
import os, signal, sys
from sqlalchemy import event
from mlcore_sql import migrations
from mlcore_sql.engine import Database
import alembic.runtime.environment, alembic.script, alembic.op, alembic.config

for uri in sys.stdin.read().split():
    number, _, uri = uri.partition(",")
    child = os.fork()
    if not child:
        database, left = Database(uri), int(number)
        def count(*_):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        event.listen(database.engine, "%s_cursor_execute", count)
        migrations.upgrade(database)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code)
    if code == 0:
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_statement_it_goes_on(fresh: Fresh, engine: str, tmp_path: Path, when: str) -> None:
    """Guards a migration that loses its process, before or after any statement: the next one ends it.

    Where tables come with the transaction, one database does for all: it is as it was after each.
    """
    expected = declared(fresh())
    uris = [fresh() for _ in range(120)] if engine == "mariadb" else [fresh()] * 200
    work = "\n".join(f"{number},{uri}" for number, uri in enumerate(uris))
    out, _ = finish(start(tmp_path, KILLED % when), text=work)
    codes = [int(line) for line in out.split()]
    assert len(codes) > 30
    assert codes == [-9] * (len(codes) - 1) + [0]
    for uri in dict.fromkeys(uris[: len(codes)]):
        database = Database(uri)
        prepare(database)
        with database.reading() as connection:
            assert len(connection.execute(select(counter.c.epoch)).all()) == 1
        database.close()
        assert tables(uri) == expected
    store = open_store(uris[len(codes) - 2])
    store.append(run_batch())
    assert len(store.find("run", Query()).items) == 1
    store.close()


def test_of_several_processes_one_migrates(fresh: Fresh, tmp_path: Path) -> None:
    """Guards four ranks that all find an empty database at the same moment."""
    uri = fresh()
    code = """
    from mlcore_sql import migrations
    from mlcore_sql.engine import Database
    database = Database(sys.argv[4])
    together()
    print(migrations.upgrade(database)[0])
    """
    assert sorted(crowd(tmp_path, code, 4, uri)) == [f"{migrations.HISTORY[-1]}\n"] * 3 + ["None\n"]
    assert tables(uri) == declared(fresh())
    database = Database(uri)
    with database.reading() as connection:
        assert len(connection.execute(select(counter.c.epoch)).all()) == 1
    database.close()


def test_a_newer_or_older_version_is_left_alone(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a team whose members upgrade one by one: nobody changes the tables by just logging."""
    uri = fresh()
    store = open_store(uri)
    store.append(run_batch())
    store.close()
    database = Database(uri)
    with database.writing() as connection:
        connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))
    for use in (prepare, migrations.upgrade):
        with pytest.raises(NewerFormat, match="upgrade mlcore-sql"):
            use(database)
    monkeypatch.setattr(migrations, "HISTORY", ("9999", "99999"))
    with pytest.raises(StoreError, match="mlcore db upgrade"):
        prepare(database)
    database.close()


def test_tables_of_the_first_version_are_upgraded(fresh: Fresh) -> None:
    """Guards a store that was made before texts were in the index of attributes, and terms told which ones are cut."""
    uri = fresh()
    store = open_store(uri)
    store.append(Writer("a" * 32).batch(AttributesSet("run", "a" * 32, "params", {"layers": ["wide"] * 200})))
    store.close()
    database = Database(uri)
    with database.writing() as connection:
        (index,) = projected.tables["attributes"].indexes
        index.drop(connection)
        connection.execute(text("CREATE INDEX attributes_value ON attributes (term, value, entity, type)"))
        connection.execute(text("UPDATE terms SET cut = 0"))
        connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0001'"))
    with pytest.raises(StoreError, match="mlcore db upgrade"):
        prepare(database)
    assert migrations.upgrade(database) == ("0001", migrations.HISTORY[-1])
    database.close()
    assert tables(uri) == declared(fresh())
    store = open_store(uri)
    wide = Compare(Term("params", "layers", "text"), "like", "%'wide']")
    assert len(store.find("run", Query(wide)).items) == 1
    store.close()


def test_tables_of_another_program_are_not_touched(fresh: Fresh) -> None:
    """Guards somebody who names the database of MLflow, whose tables have some of our names."""
    database = Database(fresh())
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE metrics (value INTEGER)"))
    with pytest.raises(StoreError, match="tables of another program: metrics"):
        prepare(database)
    with database.reading() as connection:
        assert migrations.version_of(connection) is None
    database.close()

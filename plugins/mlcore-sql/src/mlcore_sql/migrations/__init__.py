"""Bring the tables of a database to what this version of mlcore-sql needs, step by step, by Alembic.

A step may be cut off anywhere: where a database undoes what was not committed, it does, and elsewhere every step looks
at what is there already. Only one process at a time migrates a database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcore.errors import NewerFormat, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mlcore_sql.engine import Database

__all__ = ["HISTORY", "VERSION_TABLE", "check", "new_epoch", "upgrade", "version_of"]

HISTORY = ("0001", "0002")  # the newest last; a test compares it with the files in versions/
VERSION_TABLE = "mlcore_version"  # Alembic's own name may be taken by another program's in the same database
_LOCK = 0x6D6C636F7265  # "mlcore"
_WAIT_SECONDS = 600


def version_of(connection: Connection) -> str | None:
    """Return the version of a database's tables, None where there are none yet."""
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def check(version: str | None, name: str) -> bool:
    """Tell whether a database, which has this version, can be used as it is; if not, it is empty.

    Raises `NewerFormat` if a newer mlcore-sql made its tables, and `StoreError` if they are to be upgraded first.
    """
    if version is None or version == HISTORY[-1]:
        return version is not None
    if version not in HISTORY:
        raise NewerFormat(f"store {name} has tables of version {version}: upgrade mlcore-sql to use it")
    raise StoreError(
        f"store {name} has tables of version {version}, and this mlcore-sql needs {HISTORY[-1]}: back it up, stop "
        "whatever writes to it, and run `mlcore db upgrade`"
    )


def upgrade(database: Database) -> tuple[str | None, str]:
    """Make or change the tables as this version needs them; return the versions before and after.

    Several processes may try at once. Raises `NewerFormat`, or `StoreError` if there are tables of something else.
    """
    from sqlalchemy import exc, text

    try:
        with _alone(database), database.writing() as connection:
            if database.dialect == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_SECONDS}s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            before = version_of(connection)
            if before is not None and before not in HISTORY:
                check(before, database.name)
            if before is None:
                _refuse_others(connection, database.name)
            if before != HISTORY[-1]:
                _run(connection)
            return before, HISTORY[-1]
    except exc.SQLAlchemyError as error:
        raise database.error("cannot be upgraded", error) from error


def _refuse_others(connection: Connection, name: str) -> None:
    """Refuse a database in which another program has tables of the same names, as MLflow's has `metrics`."""
    from sqlalchemy import inspect

    from mlcore_sql.schema import projected
    from mlcore_sql.tables import metadata

    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    if not inspector.has_table(VERSION_TABLE) and (taken := sorted(there & {*projected.tables, *metadata.tables})):
        raise StoreError(f"{name} has tables of another program: {', '.join(taken)}. Give mlcore a database of its own")


def _run(connection: Connection) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _: Any) -> Any:
        return script._upgrade_revs("head", revision)  # noqa: SLF001 - as Alembic's own command does

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE)
        environment.run_migrations()


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Let one process at a time migrate a database of MySQL, until it has committed; elsewhere its transaction does."""
    from sqlalchemy import text

    if database.dialect != "mysql":
        yield
        return
    name = "concat('mlcore ', left(sha2(database(), 256), 40))"  # of locks, all databases of a server have one list
    # no transaction: one that is idle for long would be ended, and the lock with it
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as guard:
        if not guard.execute(text(f"SELECT get_lock({name}, {_WAIT_SECONDS})")).scalar():
            raise StoreError("another process upgrades this store, and has not ended for ten minutes")
        try:
            yield
        finally:
            guard.execute(text(f"SELECT release_lock({name})"))


def new_epoch() -> bytes:
    """Return what tells the positions of one copy of a store from those of all others."""
    return os.urandom(8).hex().encode()

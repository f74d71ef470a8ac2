"""The team store keeps the store contract on every database, through several handles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlcore.store import Store
from mlcore.testing import StoreContract
from mlcore_sql.store import open_store


class TestSqlite(StoreContract):
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(f"sqlite:///{tmp_path / 'store.db'}")


class TestPostgresql(StoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, postgresql: str) -> None:
        self.uri = postgresql

    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(self.uri)


class TestMariadb(StoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, mariadb: str) -> None:
        self.uri = mariadb

    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: open_store(self.uri)

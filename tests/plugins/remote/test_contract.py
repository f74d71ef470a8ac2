"""The whole contract through a real server, for each kind of store behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcore.store import Capabilities
from mlcore.testing import StoreContract
from mlcore.testing._checking import Stores
from mlcore_remote.store import RemoteStore
from serving import serving_here


class Served(StoreContract):
    """Serve a store from a thread, and open a handle of the client for each that is asked for."""

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        """Return the store that is served."""
        return str(tmp_path / "store")

    @pytest.fixture
    def stores(self, uri: str) -> Iterator[Stores]:
        """Yield the function that opens handles."""
        opened: list[RemoteStore] = []
        with serving_here(uri) as server:

            def opener() -> RemoteStore:
                opened.append(RemoteStore(server.url, token=server.token, attempts=1))
                return opened[-1]

            yield opener
            for store in opened:
                store.close()


class TestFolder(Served):
    """A folder store behind a server."""

    capabilities = Capabilities(receipts=False)


class TestSqlite(Served):
    """A store in one file behind a server."""

    capabilities = Capabilities(shared_positions=True)

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'store.db'}"


class TestPostgresql(Served):
    """A database behind a server."""

    capabilities = Capabilities(shared_positions=True)

    @pytest.fixture
    def uri(self, postgresql: str) -> str:
        return postgresql

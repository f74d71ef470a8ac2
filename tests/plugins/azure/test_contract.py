"""Files in Azure keep the contract of artifact backends, on Microsoft's emulator and through mlcore's server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from azurite import KEY, Container
from mlcore.artifacts import open_backend
from mlcore.testing import ArtifactBackendContract
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem
from serving import serving_here


class TestAzure(ArtifactBackendContract):
    """Guards what ``az://`` promises; `test_failures` has more of what cannot work."""

    secrets = (KEY,)

    @pytest.fixture
    def backend(self, container: Container) -> Any:
        return open_backend(f"{container.uri}/some/where")

    @pytest.fixture(autouse=True)
    def _reachable(self, container: Container) -> None:
        pass

    def broken_places(self, tmp_path: Path) -> Mapping[str, Callable[[], Any]]:
        return {
            "no container 'there-is-none'": lambda: open_backend("az://there-is-none/some/where"),
            "az://there-is-none/some/where": lambda: open_backend("az://there-is-none/some/where"),
        }


class TestWithToken(ArtifactBackendContract):
    """Guards a SAS token for one container, which is all that some are given, and a container without a folder."""

    large, many = 12 << 20, 50

    @pytest.fixture
    def backend(self, container: Container, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.delenv("AZURE_STORAGE_KEY")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", container.token())
        return open_backend(container.uri)


class TestServed(ArtifactBackendContract):
    """Guards ``mlcore server --artifacts az://container/folder``, whose clients know nothing of Azure."""

    files_beside_folders = False  # a server has one rule, wherever its files are
    large, many = 20 << 20, 100

    @pytest.fixture
    def backend(self, container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        with serving_here(tmp_path / "store", artifacts=f"{container.uri}/served") as server:
            monkeypatch.setenv("MLCORE_TOKEN", server.token)
            connection = Connection(server.url)
            yield RemoteFileSystem(connection), os.urandom(16).hex()
            connection.close()

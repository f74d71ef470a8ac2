"""The files of a server keep the contract of artifact backends, through HTTP, wherever the server has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcore.testing import ArtifactBackendContract
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem
from serving import serving_here


class _Served(ArtifactBackendContract):
    files_beside_folders = False

    def settings(self, folder: Path) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def backend(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        with serving_here(tmp_path / "store", **self.settings(tmp_path / "artifacts")) as server:
            monkeypatch.setenv("MLCORE_TOKEN", server.token)
            connection = Connection(server.url)
            yield RemoteFileSystem(connection), os.urandom(16).hex()
            connection.close()


class TestFolderStore(_Served):
    """Guards the files in the folders of runs."""


class TestArtifactsFolder(_Served):
    """Guards ``--artifacts DIR``."""

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"artifacts": str(folder)}


class TestMemory(_Served):
    """Guards ``--artifacts`` with a filesystem of fsspec that shows what is not whole, and shares positions."""

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"artifacts": f"memory://{folder}"}

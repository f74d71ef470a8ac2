"""The files of a server keep the contract of artifact backends, through HTTP, wherever the server has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from mlcore.testing import ArtifactBackendContract
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem
from serving import Thread, serving_here


class _Served(ArtifactBackendContract):
    files_beside_folders = False
    many = 200  # a page of the protocol has 10,000: more would only cost time
    artifacts = ""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
        folder = tmp_path_factory.mktemp("served")
        with serving_here(folder / "store", artifacts=cls.artifacts.format(folder)) as found:
            yield found

    @pytest.fixture
    def backend(self, server: Thread, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        connection = Connection(server.url)
        yield RemoteFileSystem(connection), os.urandom(16).hex()
        connection.close()


class TestFolderStore(_Served):
    """Guards the files in the folders of runs."""


class TestArtifactsFolder(_Served):
    """Guards ``--artifacts DIR``."""

    artifacts = "{}/files"


class TestMemory(_Served):
    """Guards ``--artifacts`` with a filesystem of fsspec that shows what is not whole, and shares positions."""

    artifacts = "memory://{}"


class TestPlainFsspec(_Served):
    """Guards ``--artifacts`` with fsspec's own of local files, which says nothing of being atomic."""

    artifacts = "local://{}/files"

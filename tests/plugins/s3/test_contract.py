"""Files in S3 keep the contract that every artifact backend has, on a real server and through mlcore's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ceph import SECRET, Bucket
from mlcore.artifacts import open_backend
from mlcore.testing import ArtifactBackendContract
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem
from serving import serving_here


class TestS3(ArtifactBackendContract):
    """Guards what ``s3://`` promises, on Ceph's gateway; `test_failures` has more of what cannot work."""

    secrets = (SECRET,)

    @pytest.fixture
    def backend(self, bucket: Bucket) -> Any:
        return open_backend(f"{bucket.uri}/some/where")

    @pytest.fixture(autouse=True)
    def _reachable(self, bucket: Bucket) -> None:
        pass

    def broken_places(self, tmp_path: Path) -> Mapping[str, Callable[[], Any]]:
        return {
            "no bucket 'there-is-none'": lambda: open_backend("s3://there-is-none/some/where"),
            "s3://there-is-none/some/where": lambda: open_backend("s3://there-is-none/some/where"),
        }


class TestWholeBucket(ArtifactBackendContract):
    """Guards a bucket without a prefix."""

    large, many = 12 << 20, 50

    @pytest.fixture
    def backend(self, bucket: Bucket) -> Any:
        return open_backend(bucket.uri)


class TestServed(ArtifactBackendContract):
    """Guards ``mlcore server --artifacts s3://bucket/prefix``, whose clients know nothing of S3."""

    files_beside_folders = False  # a server has one rule, wherever its files are
    many = 200

    @pytest.fixture
    def backend(self, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        with serving_here(tmp_path / "store", artifacts=f"{bucket.uri}/served") as server:
            monkeypatch.setenv("MLCORE_TOKEN", server.token)
            connection = Connection(server.url)
            yield RemoteFileSystem(connection), os.urandom(16).hex()
            connection.close()

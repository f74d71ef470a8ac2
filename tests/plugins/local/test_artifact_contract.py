"""The files of this machine keep the contract that every artifact backend has."""

from __future__ import annotations

from pathlib import Path

from mlcore.artifacts import open_backend
from mlcore.testing import ArtifactBackendContract
from mlcore_local.artifacts import Files


class TestFiles(ArtifactBackendContract):
    """Guards what `file://` and plain paths promise."""

    files_beside_folders = False

    def open_backend(self, tmp_path: Path) -> tuple[Files, str]:
        filesystem, path = open_backend(tmp_path)
        assert isinstance(filesystem, Files)
        return filesystem, path

"""What fsspec brings keeps the contract of artifact backends by the way mlcore writes to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlcore.artifacts import open_backend
from mlcore.testing import ArtifactBackendContract


class TestMemory(ArtifactBackendContract):
    """Guards `memory://`, whose readers share a position."""

    files_beside_folders = False
    own_readers = False

    def open_backend(self, tmp_path: Path) -> tuple[Any, str]:
        return open_backend(f"memory://{tmp_path}")


class TestPlainFsspec(ArtifactBackendContract):
    """Guards filesystems that say nothing of being atomic: fsspec's own of local files is one."""

    files_beside_folders = False

    def open_backend(self, tmp_path: Path) -> tuple[Any, str]:
        return open_backend(f"local://{tmp_path}")

"""The folder store keeps the store contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlcore.testing import StoreContract
from mlcore_local import FolderStore


class TestFolderStore(StoreContract):
    def open_store(self, tmp_path: Path) -> Callable[[], FolderStore]:
        return lambda: FolderStore(tmp_path / "store")

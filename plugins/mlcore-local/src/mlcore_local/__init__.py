"""mlcore on one machine: the folder store, read and sealed, and artifacts as files."""

from __future__ import annotations

from mlcore_local.reader import Damage, Journal, read
from mlcore_local.seal import Sealed, seal
from mlcore_local.store import FolderStore

__all__ = ["Damage", "FolderStore", "Journal", "Sealed", "read", "seal"]

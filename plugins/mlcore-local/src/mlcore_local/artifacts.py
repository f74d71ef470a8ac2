"""Artifacts as files on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsspec.implementations.local import LocalFileSystem

__all__ = ["open_files"]


def open_files(uri: str) -> tuple[LocalFileSystem, str]:
    """Return the local filesystem and the absolute path of a path or ``file://`` URI."""
    from fsspec.implementations.local import LocalFileSystem

    path = uri.removeprefix("file://")
    return LocalFileSystem(), os.path.abspath(os.path.expanduser(path))

"""Places for files: the filesystem behind a URI, from a plugin or from fsspec itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlcore import plugins
from mlcore.errors import NotInstalled

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["filesystem"]


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem that a path or URI lies in, and its path there.

    A plugin's backend wins over fsspec's own for the same scheme. Raises `NotInstalled` for a scheme that
    neither knows, with what would bring it.
    """
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if scheme in plugins.provided("artifact_backends"):
        found: tuple[AbstractFileSystem, str] = plugins.load("artifact_backends", scheme)(uri)
        return found
    import fsspec

    try:
        return fsspec.url_to_fs(uri)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        try:
            plugins.load("artifact_backends", scheme)
        except NotInstalled as missing:
            raise NotInstalled(f"{missing}. fsspec says: {error}") from error
        raise

"""Find the filesystem that a URI means: a plugin's, else fsspec's own."""

from __future__ import annotations

import os
from typing import Any

from mlcore import plugins
from mlcore.errors import ArtifactError, NotInstalled

__all__ = ["open_backend"]


def open_backend(uri: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return an fsspec filesystem, and the path in it that `uri` means; a URI without scheme is a path.

    Plugins win, then whatever fsspec knows. Raises `NotInstalled` with what would bring it, and `ArtifactError`.
    """
    text = os.fspath(uri)
    scheme, separator, _ = text.partition("://")
    scheme = scheme.partition("::")[0] if separator else "file"
    if scheme in plugins.provided("artifact_backends") or scheme == "file" or not _fsspec_has(scheme):
        return plugins.load("artifact_backends", scheme)(text)  # type: ignore[no-any-return]
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(text)  # type: ignore[no-any-return]
    except ImportError as error:
        raise NotInstalled(f"{text} needs a package that is not installed: {error}") from error
    except Exception as error:  # its library may raise anything
        raise ArtifactError(f"cannot open {text}: {error}") from error


def _fsspec_has(scheme: str) -> bool:
    from fsspec.registry import known_implementations, registry

    return scheme in known_implementations or scheme in registry

"""Say where data are from, without what lets somebody in there."""

from __future__ import annotations

import os
import re

from mlcore_local.code.secrets import mask

__all__ = ["name_of", "without_credentials"]

_INSIDE = re.compile(r"(?<=://)[^/?#@\s]*@")
_VALUE = re.compile(
    r"(?i)((?:^|[?&;,\s#])[\w.-]*(?:pass|pwd|secret|token|sig|credential|key|auth|session)[\w.-]*\s*=\s*)[^&;,\s#]+"
)


def without_credentials(source: str | os.PathLike[str] | None) -> str | None:
    """Return a path or URI without user and password, and with stars for values such as a key or a signature."""
    if source is None:
        return None
    path, mark, rest = re.split(r"([?#]|$)", _INSIDE.sub("", os.fspath(source)), maxsplit=1)
    return mask(_VALUE.sub(r"\1***", path)) + _VALUE.sub(r"\1***", mark + rest)


def name_of(source: str | os.PathLike[str]) -> str:
    """Return the last part of a path or URI, without what follows the path."""
    text = os.fspath(source)
    path = re.split(r"[?#]", text)[0] if "://" in text else text.replace(os.sep, "/")
    return mask(path.rstrip("/").rpartition("/")[2])

"""Say where data are from, without what lets somebody in there."""

from __future__ import annotations

import os
import re

__all__ = ["without_credentials"]

_INSIDE = re.compile(r"(?<=://)[^/?#@\s]*@")
_VALUE = re.compile(
    r"(?i)((?:^|[?&;,\s#])[\w.-]*(?:pass|pwd|secret|token|sig|credential|key|auth|session)[\w.-]*\s*=\s*)[^&;,\s#]+"
)


def without_credentials(source: str | os.PathLike[str] | None) -> str | None:
    """Return a path or URI without user and password, and with stars for values such as a key or a signature."""
    if source is None:
        return None
    return _VALUE.sub(r"\1***", _INSIDE.sub("", os.fspath(source)))

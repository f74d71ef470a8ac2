"""Links by which clients move large files straight from and to a bucket, made by filesystems that can sign.

A link is good for one object, one method and some minutes. What is read is a file of a run; what is written is a part
of an upload, never a file that others see: the server looks at the parts and lets the bucket make the file of them.
"""

from __future__ import annotations

from typing import Any

import attrs

from mlcore_server.kept import Link
from mlcore_server.settings import Settings

__all__ = ["Signer", "signer_of"]

_PART = 16 << 20  # bytes of a part at least: what is sent again if it is cut off
_PARTS = 2_000  # at most, as they are listed when the file is made of them
_MEGABYTE = 1 << 20


@attrs.frozen
class Signer:
    """Make links to the objects of a filesystem, see `docs/how-to/write-an-artifact-backend.md`.

    `least` is the size in bytes from which on files have links, `seconds` how long they are good.
    """

    filesystem: Any
    least: int
    seconds: int
    endpoint: str = ""

    def part(self, size: int) -> int:
        """Return how long the parts of a file of that size are, 0 if it goes to the server."""
        if size < max(self.least, 1):
            return 0
        return max(_PART, -(-size // (_PARTS * _MEGABYTE)) * _MEGABYTE)

    def link(self, path: str, method: str) -> Link:
        """Return a link to one object, for one method."""
        url = self.filesystem.sign(path, self.seconds, method=method, endpoint=self.endpoint)
        headers = getattr(self.filesystem, "signed_headers", None)
        return Link(url, {} if headers is None else dict(headers(path, method)), self.seconds)


def signer_of(filesystem: Any, settings: Settings) -> Signer | None:
    """Return what makes links to the objects of a filesystem; None if it cannot sign, or nobody wants it to."""
    able = getattr(filesystem, "signs", False) and getattr(filesystem, "atomic_put", False)
    if settings.no_direct or not able:
        return None
    return Signer(filesystem, settings.direct_size, settings.direct_seconds, settings.direct_endpoint)

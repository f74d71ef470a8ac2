"""Upload in parts to S3, under an id that another process can go on with."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Mapping
from html import escape
from xml.etree import ElementTree

from mlcore_s3.failures import Answered
from mlcore_s3.signing import quoted_path
from mlcore_s3.speaking import Reply, Speaker

__all__ = ["S3Parts"]

_GONE = ("NoSuchUpload", "NoSuchKey")  # Ceph says the latter where there is no object either
_MD5 = re.compile("[0-9a-f]{32}")


class S3Parts:
    """See `mlcore_s3.engine.Parts`; `headers` go with every object, as encryption and storage class do."""

    smallest = 5 << 20
    most = 10_000

    def __init__(self, speaker: Speaker, headers: Mapping[str, str]) -> None:
        self._speaker, self._headers = speaker, dict(headers)

    def put(self, key: str, data: bytes | memoryview, *, create: bool = False) -> None:
        """Store a small object in one request; with `create` only if there is none of that name."""
        condition = {"if-none-match": "*"} if create else {}
        try:
            self._speaker.ask("PUT", key, data=data, headers={**self._headers, **condition})
        except Answered as error:
            if create and error.status == 412:
                raise FileExistsError(errno.EEXIST, "there is an object already", key) from None
            raise

    def copy(self, source: str, key: str) -> None:
        """Copy an object there, of which `source` is bucket and key."""
        named = {**self._headers, "x-amz-copy-source": quoted_path(f"/{source}")}
        _made(_tree(self._speaker.ask("PUT", key, headers=named)))

    def begin(self, key: str) -> str:
        """Begin an upload, and return its id."""
        reply = self._speaker.ask("POST", key, {"uploads": ""}, headers=self._headers)
        return _text(_tree(reply), "UploadId")

    def send(self, key: str, upload: str, number: int, data: bytes | memoryview, sha256: str) -> str:
        """Send a part, which the server checks against the sha256 that is signed; return its tag."""
        query = {"partNumber": str(number), "uploadId": upload}
        reply = self._speaker.ask("PUT", key, query, data, sha256=sha256)
        tag = (reply.headers.get("etag") or "").strip('"')
        if not tag:
            raise Answered(502, "InvalidAnswer", "it gave no tag for a part")
        return tag

    def add(self, key: str, upload: str, number: int, source: str) -> str:
        """Let the server take a part from an object of its own, of which `source` is bucket and key."""
        query = {"partNumber": str(number), "uploadId": upload}
        named = {"x-amz-copy-source": quoted_path(f"/{source}")}
        tree = _tree(self._speaker.ask("PUT", key, query, headers=named))
        _made(tree)
        return _text(tree, "ETag").strip('"')

    def received(self, key: str, upload: str) -> dict[int, tuple[str, int]] | None:
        """Return tag and size of each part that the server has; None if it knows of no such upload."""
        found, marker = dict[int, tuple[str, int]](), "0"
        while True:
            try:
                tree = _tree(self._speaker.ask("GET", key, {"uploadId": upload, "part-number-marker": marker}))
            except Answered as error:
                if error.code in _GONE:
                    return None
                raise
            for part in tree.iterfind("{*}Part"):
                found[int(_text(part, "PartNumber"))] = _text(part, "ETag").strip('"'), int(_text(part, "Size"))
            if tree.findtext("{*}IsTruncated") != "true":
                return found
            marker = _text(tree, "NextPartNumberMarker")

    def finish(self, key: str, upload: str, tags: Mapping[int, str]) -> None:
        """Make the object of its parts, which appears with this; also if the answer of an earlier try was lost."""
        lines = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(tags[number])}"</ETag></Part>'
            for number in sorted(tags)
        )
        body = f"<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>".encode()
        try:
            tree = _tree(self._speaker.ask("POST", key, {"uploadId": upload}, body))
        except Answered as error:
            if error.code not in _GONE or not self._is_made(key, tags):
                raise
            return
        _made(tree)

    def _is_made(self, key: str, tags: Mapping[int, str]) -> bool:
        """Tell whether the object is the one of these parts: its tag is that of their tags, where they are MD5s."""
        if not all(map(_MD5.fullmatch, tags.values())):
            return False
        whole = b"".join(bytes.fromhex(tags[number]) for number in sorted(tags))
        wanted = f"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}-{len(tags)}"
        try:
            return (self._speaker.ask("HEAD", key).headers.get("etag") or "").strip('"') == wanted
        except Answered:
            return False

    def abort(self, key: str, upload: str) -> None:
        """Let the server forget an upload and its parts."""
        try:
            self._speaker.ask("DELETE", key, {"uploadId": upload})
        except Answered as error:
            if error.status != 404:
                raise


def _made(tree: ElementTree.Element) -> None:
    if tree.tag.rpartition("}")[2] == "Error":  # with status 200, as it takes long
        raise Answered(500, tree.findtext("{*}Code") or "", tree.findtext("{*}Message") or "")


def _tree(reply: Reply) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(reply.data)  # noqa: S314 - of the server that is trusted with the files
    except ElementTree.ParseError:
        raise Answered(502, "InvalidAnswer", "what it answered is not XML, or was cut off") from None


def _text(tree: ElementTree.Element, name: str) -> str:
    found = tree.findtext(f"{{*}}{name}")
    if not found:
        raise Answered(502, "InvalidAnswer", f"its answer has no {name}")
    return found

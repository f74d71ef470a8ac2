"""Links to objects, and objects made of others: what a server of mlcore needs so that files need not pass through it.

See https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import attrs

from mlcore.errors import ArtifactError
from mlcore_s3.credentials import Credentials
from mlcore_s3.engine import Bucket, Links
from mlcore_s3.settings import Settings
from mlcore_s3.signing import ALGORITHM, quoted_path, quoted_query, signature

__all__ = ["S3Links", "join", "signed_url"]

_UNSIGNED = "UNSIGNED-PAYLOAD"  # whoever has the link says what it holds
_THREADS = 8


def signed_url(
    method: str,
    server: str,
    path: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    *,
    region: str,
    seconds: int,
    now: float | None = None,
) -> str:
    """Return a URL by which anybody may do one thing with one object, who sends these headers, for some seconds."""
    named = {"host": urlsplit(server).netloc, **headers}
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    names = ";".join(sorted(named))
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.token:
        query["X-Amz-Security-Token"] = credentials.token
    lines = "".join(f"{name}:{named[name]}\n" for name in sorted(named))
    target, asked = quoted_path(path), quoted_query(query)
    proof = signature(f"{method}\n{target}\n{asked}\n{lines}\n{names}\n{_UNSIGNED}", stamp, scope, credentials)
    return f"{server}{target}?{asked}&X-Amz-Signature={proof}"


class S3Links(Links):
    """See `mlcore_s3.engine.Links`; without keys a link has no signature, as everybody may do all."""

    def __init__(self, settings: Settings, bucket: str, keys: Callable[[], Credentials] | None) -> None:
        self._settings, self._bucket, self._keys = settings, bucket, keys

    def headers(self, method: str) -> dict[str, str]:
        """See `Links.headers`."""
        paid = {"x-amz-request-payer": "requester"} if self._settings.requester_pays else {}
        return {**paid, **(dict(self._settings.headers) if method == "PUT" else {})}

    def sign(self, method: str, key: str, seconds: int, endpoint: str = "") -> str:
        """See `Links.sign`."""
        settings = attrs.evolve(self._settings, endpoint=endpoint) if endpoint else self._settings
        server, base = settings.server(self._bucket)
        path = f"{base}/{key}"
        if self._keys is None:
            return f"{server}{quoted_path(path)}"
        headers = self.headers(method)
        return signed_url(method, server, path, headers, self._keys(), region=settings.region, seconds=seconds)


def join(bucket: Bucket, sources: Sequence[str], key: str) -> None:
    """Make one object of others of a bucket, whole or not at all; none but the last may be smaller than a part may be.

    Raises `FileNotFoundError` if one of them is not there.
    """
    parts = bucket.parts
    if parts is None:
        raise NotImplementedError(f"{bucket.uri} joins no objects")
    upload = bucket.ask(lambda: parts.begin(key), key)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:

            def add(number: int, source: str) -> str:
                whole = f"{bucket.name}/{source}"
                return bucket.ask(lambda: parts.add(key, upload, number, whole), source)

            tags = list(pool.map(add, range(1, len(sources) + 1), sources))
        bucket.ask(lambda: parts.finish(key, upload, dict(enumerate(tags, 1))), key)
    except BaseException:
        with suppress(ArtifactError):
            bucket.ask(lambda: parts.abort(key, upload), key)
        raise

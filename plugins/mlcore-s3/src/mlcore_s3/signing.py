"""Sign requests to S3 as AWS asks: Signature Version 4, with the headers that it covers.

See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote

from mlcore_s3.credentials import Credentials

__all__ = ["ALGORITHM", "quoted_path", "quoted_query", "signature", "signed_headers"]

ALGORITHM = "AWS4-HMAC-SHA256"


def quoted_path(path: str) -> str:
    """Return a path as it stands in the request and in what is signed: S3 quotes once."""
    return quote(path, safe="/-_.~")


def quoted_query(query: Mapping[str, str]) -> str:
    """Return a query in the order and quoting that is signed."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed_headers(
    method: str,
    target: str,
    headers: Mapping[str, str],
    sha256: str,
    credentials: Credentials | None,
    region: str,
    now: float | None = None,
) -> dict[str, str]:
    """Return the headers to send, ``host`` among those given, with date, digest of the body and signature.

    `target` is path and query as they are sent. Without credentials nothing is signed.
    """
    named = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    if credentials is None:
        return named
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    named |= {"x-amz-date": stamp, "x-amz-content-sha256": sha256}
    if credentials.token:
        named["x-amz-security-token"] = credentials.token
    path, _, query = target.partition("?")
    names = ";".join(sorted(named))
    lines = "".join(f"{name}:{named[name]}\n" for name in sorted(named))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    proof = signature(f"{method}\n{path}\n{query}\n{lines}\n{names}\n{sha256}", stamp, scope, credentials)
    given = f"Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={proof}"
    return {**named, "authorization": f"{ALGORITHM} {given}"}


def signature(request: str, stamp: str, scope: str, credentials: Credentials) -> str:
    """Return what proves that who has the keys made a request, which is given in the form that AWS calls canonical."""
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()

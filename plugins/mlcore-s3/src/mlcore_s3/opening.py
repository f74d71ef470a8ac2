"""Open places in S3 by their URIs: ``s3://bucket/folder``, or ``s3://profile@bucket/folder`` with a profile's keys."""

from __future__ import annotations

import datetime
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlcore.errors import ArtifactError
from mlcore_s3.credentials import Chain
from mlcore_s3.engine import Bucket
from mlcore_s3.explaining import Explaining
from mlcore_s3.filesystem import BucketFileSystem
from mlcore_s3.linking import S3Links
from mlcore_s3.parts import S3Parts
from mlcore_s3.profiles import Profile
from mlcore_s3.settings import Settings
from mlcore_s3.speaking import Speaker

if TYPE_CHECKING:
    from obstore.store import ClientConfig

__all__ = ["connect", "open_s3"]

_SCHEMES = ("s3", "s3a")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_SAYS = re.compile("AWS_|MLCORE_S3_|.*_proxy$", re.IGNORECASE)
_COPIED = 5 << 30  # bytes that S3 copies with one request
_CONNECT, _STALLED, _LONGEST = "2500ms", "20s", "10min"


def open_s3(uri: str) -> tuple[Any, str]:
    """Return the filesystem of a bucket, and the path in it, bucket first. Raises `ArtifactError`."""
    scheme, _, rest = uri.partition("://")
    place, _, key = rest.partition("/")
    who, at, bucket = place.rpartition("@")
    if ":" in place or (at and not who):  # a secret may have a slash, too
        raise ArtifactError(
            f"{scheme}://***: keys are no part of a URI, which is logged and kept: set AWS_ACCESS_KEY_ID and"
            f" AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws as in {scheme}://PROFILE@BUCKET"
        )
    if not _BUCKET.fullmatch(bucket):
        raise ArtifactError(f"{uri!r:.200} names no bucket: s3://BUCKET/FOLDER does")
    profile = who or None
    return BucketFileSystem(lambda name: connect(name, profile), _SCHEMES), f"{bucket}/{key}".rstrip("/")


def connect(bucket: str, profile_name: str | None = None) -> Bucket:
    """Return a bucket of S3 as the environment and a profile say; the same one, with its connections, while they do.

    Raises `ConfigError`.
    """
    profile = Profile.read(profile_name)
    said = tuple(sorted((name, value) for name, value in os.environ.items() if _SAYS.match(name)))
    return _connected(bucket, profile_name, repr(profile.values), said)


@lru_cache(32)
def _connected(bucket: str, profile_name: str | None, *_: object) -> Bucket:
    from obstore.store import S3Store

    profile = Profile.read(profile_name)
    settings = Settings.read(profile)
    chain = None if settings.anonymous else Chain(profile)
    uri = f"s3://{profile_name}@{bucket}" if profile_name else f"s3://{bucket}"
    server, base = settings.server(bucket)
    speaker = Speaker(settings, bucket, chain)
    options: ClientConfig = {"connect_timeout": _CONNECT, "read_timeout": _STALLED, "timeout": _LONGEST}
    options["allow_http"] = server.startswith("http://")
    if certificates := settings.authorities():
        options["root_certificate"] = certificates
    store = S3Store(
        bucket,
        config={
            "endpoint": server + ("" if settings.is_virtual(bucket) else base.removesuffix(f"/{bucket}")),
            "region": settings.region,
            "virtual_hosted_style_request": settings.is_virtual(bucket),
            "skip_signature": settings.anonymous,
            "request_payer": settings.requester_pays,
        },
        client_options=options,
        retry_config={"max_retries": 0, "retry_timeout": datetime.timedelta(0)},  # the engine asks again
        credential_provider=None if chain is None else lambda: _for_obstore(chain),
    )
    return Bucket(
        uri,
        store,
        Explaining(bucket, server, settings, chain, speaker),
        parts=S3Parts(speaker, dict(settings.headers)),
        patience=settings.patience,
        plain=not settings.headers,
        identity=f"{server}{base}",
        copied_at_once=_COPIED,
        links=S3Links(settings, bucket, chain),
    )


def _for_obstore(chain: Chain) -> Any:
    found = chain()
    expires = None if found.expires is None else datetime.datetime.fromtimestamp(found.expires, datetime.UTC)
    return {
        "access_key_id": found.access_key,
        "secret_access_key": found.secret_key,
        "token": found.token,
        "expires_at": expires,
    }

"""Read where S3 is and how it is spoken to: from the environment first, then from the profile of ``~/.aws``."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from mlcore.errors import ConfigError
from mlcore_s3.profiles import Profile

__all__ = ["Settings"]

_PATIENCE = 30.0
_TRUE = ("1", "true", "yes", "on")
_STYLES = ("auto", "path", "virtual")
_SSE = ("AES256", "aws:kms", "aws:kms:dsse")


@attrs.frozen
class Settings:
    """Hold what is no secret: `headers` go with every object that is written.

    `patience` is for how many seconds a server that fails is asked again.
    """

    region: str
    endpoint: str | None
    style: str
    anonymous: bool
    requester_pays: bool
    headers: tuple[tuple[str, str], ...]
    ca_bundle: str | None
    patience: float

    @classmethod
    def read(cls, profile: Profile) -> Settings:
        """Read the settings of this process. Raises `ConfigError` with the variable that says what cannot be."""
        ignored = _flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
        endpoint = None if ignored else _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        endpoint = endpoint or (None if ignored else profile.endpoint)
        if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or "@" in endpoint):
            raise ConfigError("the endpoint of S3 must be a URL such as https://minio.example.org:9000, without keys")
        region = _first("AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1"
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", region):
            raise ConfigError(f"{region!r:.80} is no region of S3: AWS_REGION is a name such as eu-central-1")
        chosen = _first("MLCORE_S3_ADDRESSING") or profile.of_s3("addressing_style") or "auto"
        return cls(
            region=region,
            endpoint=endpoint.rstrip("/") if endpoint else None,
            style=_one_of("MLCORE_S3_ADDRESSING", chosen, _STYLES),
            anonymous=_flag("MLCORE_S3_ANONYMOUS") or _flag("AWS_SKIP_SIGNATURE"),
            requester_pays=_flag("MLCORE_S3_REQUESTER_PAYS") or _flag("AWS_REQUESTER_PAYS"),
            headers=_headers(),
            ca_bundle=_first("AWS_CA_BUNDLE") or profile.get("ca_bundle"),
            patience=_patience(),
        )

    def server(self, bucket: str) -> tuple[str, str]:
        """Return the URL of the server for a bucket, and what stands before the key in a path there."""
        endpoint = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        if self.endpoint is None and self.region.startswith("cn-"):
            endpoint += ".cn"
        parts = urlsplit(endpoint)
        base = parts.path.rstrip("/")
        if self.is_virtual(bucket):
            return f"{parts.scheme}://{bucket}.{parts.netloc}", base
        return f"{parts.scheme}://{parts.netloc}", f"{base}/{bucket}"

    def is_virtual(self, bucket: str) -> bool:
        """Tell whether a bucket is a part of the server's name, as AWS wants it, or of the path, as others do."""
        if self.style == "auto":
            return self.endpoint is None and "." not in bucket  # for which AWS has no certificate
        return self.style == "virtual"

    def context(self) -> ssl.SSLContext:
        """Return whom to trust: the system's authorities, and those of AWS_CA_BUNDLE."""
        context = ssl.create_default_context()
        if self.ca_bundle:
            try:
                context.load_verify_locations(self.ca_bundle)
            except OSError as error:
                raise ConfigError(f"AWS_CA_BUNDLE {self.ca_bundle} cannot be read: {error.strerror}") from error
        return context

    def authorities(self) -> bytes | None:
        """Return what AWS_CA_BUNDLE holds."""
        return Path(self.ca_bundle).read_bytes() if self.ca_bundle else None


def _first(*names: str) -> str | None:
    return next(filter(None, map(os.environ.get, names)), None)


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in _TRUE


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(f"{name} is {value!r:.80}, and may be {', '.join(known)}")
    return value


def _headers() -> tuple[tuple[str, str], ...]:
    """Return the headers of objects that are written: how they are encrypted, and which storage they go to."""
    found = {}
    if sse := _first("MLCORE_S3_SSE"):
        found["x-amz-server-side-encryption"] = _one_of("MLCORE_S3_SSE", sse, _SSE)
    if key := _first("MLCORE_S3_SSE_KMS_KEY_ID"):
        if not (sse or "").startswith("aws:kms"):
            raise ConfigError("MLCORE_S3_SSE_KMS_KEY_ID is for MLCORE_S3_SSE=aws:kms, which is not set")
        found["x-amz-server-side-encryption-aws-kms-key-id"] = key
    if storage := _first("MLCORE_S3_STORAGE_CLASS"):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", storage):
            raise ConfigError(f"MLCORE_S3_STORAGE_CLASS is {storage!r:.80}, which is no name of one")
        found["x-amz-storage-class"] = storage
    return tuple(found.items())


def _patience() -> float:
    given = _first("MLCORE_S3_PATIENCE")
    try:
        seconds = float(given) if given else _PATIENCE
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3_600:
        raise ConfigError(f"MLCORE_S3_PATIENCE is {given!r:.80}, and must be a number of seconds, at most 3600")
    return seconds

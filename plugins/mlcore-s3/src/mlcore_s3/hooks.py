"""What mlcore-s3 brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_artifact_backends() -> Iterable[Provider]:
    """Provide files in S3."""
    return [Provider("s3", "mlcore_s3.opening:open_s3", "files in S3 and what speaks its protocol")]

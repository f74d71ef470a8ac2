"""Give tests a real S3 server."""

from __future__ import annotations

from ceph import bucket, ceph

__all__ = ["bucket", "ceph"]

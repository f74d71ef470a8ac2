"""Describe data: their digest, what columns or files they have, and a profile, never what is in them.

What is named here is called by `Run.log_dataset`, through the hook ``mlcore_datasets``; the digest is defined in
docs/reference/data-digests.md.
"""

from __future__ import annotations

from mlcore_local.datasets.describing import describe_path, describe_table

__all__ = ["describe_path", "describe_table"]

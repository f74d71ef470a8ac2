"""Artifacts: files under names that stay within their root, put and got whole, each with its sha256."""

from mlcore.artifacts import _backends, _names, _transfer
from mlcore.artifacts._backends import *
from mlcore.artifacts._names import *
from mlcore.artifacts._transfer import *

_PARTS = (_backends, _names, _transfer)
__all__ = sorted(set().union(*(part.__all__ for part in _PARTS)))  # noqa: PLE0605 - each part lists its own

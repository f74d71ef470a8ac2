"""The journal: the file to which a process appends what it logs, and from which everything is read back."""

from __future__ import annotations

from mlcore.journal._format import SUFFIX, WRITER, Header, pack_block, pack_frame, pack_header
from mlcore.journal._packer import Packer
from mlcore.journal._reader import Damage, Frame, Journal, read
from mlcore.journal._signs import alive, this_process, user
from mlcore.journal._values import check_key
from mlcore.journal._writer import Nowhere, Sink, Writer

__all__ = [
    "SUFFIX",
    "WRITER",
    "Damage",
    "Frame",
    "Header",
    "Journal",
    "Nowhere",
    "Packer",
    "Sink",
    "Writer",
    "alive",
    "check_key",
    "pack_block",
    "pack_frame",
    "pack_header",
    "read",
    "this_process",
    "user",
]

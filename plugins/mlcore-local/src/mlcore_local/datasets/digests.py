"""Hash the columns of a table block by block, so that digests alone tell what differs between two tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from mlcore_local.datasets.blocks import Block
from mlcore_local.datasets.columns import Column, rows_of

__all__ = ["Digested", "block_rows", "digested"]

_FORMAT = "mlcore table 1"
_BLOCKS, _LEAVES, _LEAST = 256, 65_536, 16  # of a table, of all its columns, and rows of a block
_ALONE = 1 << 22  # values that one thread hashes before others are started
_KEPT = 500_000  # values that are looked at for a profile, of all columns
_KEPT_ROWS = 100_000
_THREADS = min(4, os.cpu_count() or 1)


@attrs.frozen
class Digested:
    """Hold the digests of a table, of its columns and of its blocks of `block` rows, and a sample of each column.

    `columns` has 64 hex digits for each, `blocks` 8. `missing` counts values that are missing, by column; a sample is
    the values that are there among `sampled` rows.
    """

    digest: str
    rows: int
    block: int
    columns: tuple[str, ...]
    blocks: tuple[str, ...]
    missing: tuple[int, ...]
    samples: tuple[list[Any], ...]
    sampled: int
    bytes: int


def block_rows(rows: int, columns: int) -> int:
    """Return how many rows a block has: a power of two, so that a table that grew has the blocks that it had."""
    most = max(1, min(_BLOCKS, _LEAVES // max(columns, 1)))
    size = _LEAST
    while size * most < rows:
        size *= 2
    return size


def digested(columns: Sequence[Column], profiled: int = 0) -> Digested:
    """Hash columns, of which the first so many are sampled; memory is taken for a block at a time."""
    rows = rows_of(columns)
    size = block_rows(rows, len(columns))
    starts = range(0, rows, size)
    keep = min(_KEPT_ROWS, _KEPT // max(min(profiled, len(columns)), 1))
    each = size if rows <= keep else max(1, keep // len(starts))  # of every block, so that none is left out

    def work(start: int) -> list[tuple[bytes, int, Any, int]]:
        stop = min(start + size, rows)
        return [_leaf(column, start, stop, each if at < profiled else 0) for at, column in enumerate(columns)]

    state = [hashlib.sha256(f"{column.type}\0{rows}\0".encode()) for column in columns]
    missing, samples, blocks, weight = [0] * len(columns), [list[Any]() for _ in columns], list[str](), 0
    for leaves in _each(work, starts, len(columns) * rows):
        for at, (leaf, gone, sample, count) in enumerate(leaves):
            state[at].update(leaf)
            missing[at] += gone
            weight += count
            if sample is not None and at < profiled:
                samples[at].append(sample)
        blocks.append(hashlib.sha256(b"".join(leaf for leaf, *_ in leaves)).hexdigest()[:8])
    found = tuple(each.hexdigest() for each in state)
    told = [_FORMAT, rows, [[column.name, column.type, each] for column, each in zip(columns, found, strict=True)]]
    whole = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    sampled = sum(min(each, rows - start) for start in starts)
    of_columns = tuple(missing), tuple(samples), sampled, weight
    return Digested(hashlib.sha256(whole).hexdigest(), rows, size, found, tuple(blocks), *of_columns)


def _each(work: Any, starts: Sequence[int], values: int) -> Iterator[list[tuple[bytes, int, Any, int]]]:
    """Yield what each block gives, in order; of much data a few blocks at a time are hashed by several threads."""
    if values < _ALONE or _THREADS == 1:
        yield from map(work, starts)
        return
    with ThreadPoolExecutor(_THREADS, "mlcore-digest") as pool:
        for at in range(0, len(starts), 2 * _THREADS):
            yield from pool.map(work, starts[at : at + 2 * _THREADS])


def _leaf(column: Column, start: int, stop: int, keep: int) -> tuple[bytes, int, Any, int]:
    """Return the digest of some rows of a column, how many are missing, values to look at, and the number of bytes."""
    block: Block = column.block(start, stop)
    state, count = hashlib.sha256(), 0
    for each in block.buffers:
        state.update(each)
        count += memoryview(each).nbytes
    sample: Any = None if block.values is None or not keep else block.values[:keep]
    if hasattr(sample, "copy"):
        sample = sample.copy()  # so that the block itself can go
    return state.digest(), block.missing, sample, count

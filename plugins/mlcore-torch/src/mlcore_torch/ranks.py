"""Let the ranks of a distributed training log into one run."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import distributed

import mlcore
from mlcore.errors import InvalidValue, RunStateError

__all__ = ["rank", "start_run", "world_size"]


def rank() -> int:
    """Return the rank of this process: of its process group, else what the launcher says, else 0."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ.get("RANK") or 0)


def world_size() -> int:
    """Return how many processes train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE") or 1)


def start_run(**options: Any) -> mlcore.Run:
    """Start one run for all ranks, with the options of `mlcore.start_run`: rank 0 opens it, and the others join it.

    Call it in every rank, after `torch.distributed.init_process_group`. In a single process it is
    `mlcore.start_run`. Raises `RunStateError` in every rank if rank 0 cannot start the run.
    """
    if world_size() == 1:
        return mlcore.start_run(**options)
    if not (distributed.is_available() and distributed.is_initialized()):
        raise InvalidValue("the ranks do not know each other: call torch.distributed.init_process_group first")
    if rank() > 0:
        id = _told("")
        if not id:
            raise RunStateError("rank 0 could not start the run: it says why")
        return mlcore.start_run(run_id=id, experiment=options.get("experiment"), capture="off")
    run = None
    try:
        run = mlcore.start_run(**options)
    finally:  # nobody waits for what does not come
        _told(run.id if run is not None else "")
    return run


def _told(id: str) -> str:
    """Return the id of the run that rank 0 has, empty if it has none; numbers are sent, no pickle."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    sent = torch.tensor(list(bytes.fromhex(id) or bytes(16)), dtype=torch.uint8, device=device)
    distributed.broadcast(sent, src=0)
    told = bytes(sent.tolist())
    return told.hex() if any(told) else ""

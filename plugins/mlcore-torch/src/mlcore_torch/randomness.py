"""Take and give back the states of the random generators that a training draws from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import torch

__all__ = ["reseed", "restore", "states"]


def states() -> dict[str, Any]:
    """Return the states of Python's generator, of numpy's global one, of torch's, and of those of its GPUs."""
    found = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def restore(found: Mapping[str, Any]) -> None:
    """Go on from states; those of GPUs count where there are as many."""
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])
    torch.set_rng_state(found["torch"])
    if torch.cuda.is_available() and len(found.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(found["cuda"])


def reseed(found: Mapping[str, Any], rank: int) -> None:
    """Seed the generators of another rank from what those of rank 0 were: other numbers, and the same each time."""
    seed = int.from_bytes(sha256(found["torch"].numpy().tobytes() + bytes([rank % 256, rank // 256])).digest()[:4])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

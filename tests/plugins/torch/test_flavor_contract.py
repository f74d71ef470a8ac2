"""The kit for flavors, run on networks that are kept in each of the three ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from mlcore.testing import FlavorContract

torch.set_num_threads(1)
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def network() -> nn.Module:
    """Return a small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


class TestPrograms(FlavorContract):
    """What torch can export is data, and needs no class."""

    flavor = "pytorch"

    def model_and_data(self) -> tuple[Any, Any]:
        return network(), ROWS

    def test_unwrap_gives_a_model_of_the_same_type(self, tmp_path: Path) -> None:
        """Guards the one exception: of a program comes a module of torch, and not the class that it was made of."""
        self.save(tmp_path / "model")
        assert isinstance(self.load(tmp_path / "model").unwrap(), torch.fx.GraphModule)


class TestStates(FlavorContract):
    """Weights are data, and so is how torch's own modules are put together."""

    flavor = "pytorch"
    options: ClassVar = {"serialization": "safetensors"}

    def model_and_data(self) -> tuple[Any, Any]:
        return network(), ROWS


class TestPickles(FlavorContract):
    """Pickles are loaded by those who trust what they name."""

    flavor = "pytorch"
    trust = ("torch.*", "builtins.*", "collections.*")
    options: ClassVar = {"serialization": "pickle"}

    def model_and_data(self) -> tuple[Any, Any]:
        return network(), ROWS

"""Networks of a user's own package, for tests that save them and load them elsewhere."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Branching", "Gated", "Scaled"]


class Scaled(nn.Module):
    """Has custom arguments of its class and of `forward`, and keeps one of its class's under another name."""

    def __init__(self, width: int, *, hidden: int = 8, slope: float = 0.1) -> None:
        super().__init__()
        self.width, self.hidden, self.negative = width, hidden, slope
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, 2)

    def forward(self, rows: torch.Tensor, scale: float = 1.0, *, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Return two numbers a row."""
        found = self.last(nn.functional.leaky_relu(self.first(rows), self.negative)) * scale
        return found if shift is None else found + shift


class Branching(nn.Module):
    """Cannot be exported: what it does depends on the values that it sees."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.one, self.two = width, nn.Linear(width, 2), nn.Linear(width, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return two numbers a row."""
        return self.one(rows) if rows.sum() > 0 else self.two(rows)


class Gated(nn.Module):
    """Takes several inputs by their names, returns a dict, and ties two of its weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.encode, self.decode = width, nn.Linear(width, width), nn.Linear(width, width)
        self.decode.weight = self.encode.weight
        self.register_buffer("offset", torch.arange(width, dtype=torch.float32), persistent=False)

    def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the rows, encoded and decoded."""
        coded = self.encode(rows + self.offset) * mask
        return {"coded": coded, "rows": self.decode(coded)}

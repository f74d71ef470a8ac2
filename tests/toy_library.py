"""A library with one kind of model, for flavors to save."""

from __future__ import annotations


class Scale:
    """Multiply by a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict(self, data: list[float]) -> list[float]:
        """Return each number times the factor."""
        return [self.factor * each for each in data]

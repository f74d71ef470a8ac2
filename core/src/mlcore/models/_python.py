"""Models of the user's own: a class with `predict`, and files it loads once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["PythonModel"]


class PythonModel:
    """Derive from this to save anything that predicts.

    ::

    class Counter(mlcore.PythonModel):
        def load(self, artifacts):
            self.words = set(artifacts["vocabulary"].read_text().split())

        def predict(self, data, params=None):
            return [len(self.words & set(text.split())) for text in data]

    mlcore.save_model(Counter(), "counter", artifacts={"vocabulary": "words.txt"})
    """

    def load(self, artifacts: dict[str, Path]) -> None:
        """Load the files that were saved as `artifacts`, by their names; called once, after the model was loaded."""

    def predict(self, data: Any, params: Any = None) -> Any:
        """Predict from `data`; `params` are those of the model's signature."""
        raise NotImplementedError

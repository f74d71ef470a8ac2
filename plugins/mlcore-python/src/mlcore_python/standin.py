"""The base class of pickled models, also where there is no mlcore: this module is pickled by value."""

from __future__ import annotations

from typing import Any

__all__ = ["python_model"]


def python_model() -> Any:
    """Return `mlcore.PythonModel`, or a class like it."""
    try:
        from mlcore import PythonModel
    except ImportError:

        class PythonModel:  # type: ignore[no-redef]
            def load(self, artifacts: Any) -> None:
                pass

    return PythonModel

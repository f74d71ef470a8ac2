"""Tell which modules another process can import: what is installed, and what travels with the model."""

from __future__ import annotations

import sys
from pathlib import Path

from mlcore.models import distribution_of

__all__ = ["within_reach"]


def within_reach(module: str, code: Path) -> bool:
    """Tell whether a reader has a module: Python's own, an installed one, or one in the folder `code` of the model."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or (code / top).is_dir() or (code / f"{top}.py").is_file():
        return True
    return top != "__main__" and distribution_of(top) is not None

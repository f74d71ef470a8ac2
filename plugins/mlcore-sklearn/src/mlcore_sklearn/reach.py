"""Tell which modules another process can import: what is installed, and what travels with the model."""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["within_reach"]


def within_reach(module: str, code: Path) -> bool:
    """Tell whether a reader has a module: Python's own, an installed one, or one in the folder `code` of the model."""
    top = module.partition(".")[0]
    return top != "__main__" and (_is_installed(top) or (code / top).is_dir() or (code / f"{top}.py").is_file())


@cache
def _is_installed(top: str) -> bool:
    if top in sys.stdlib_module_names:
        return True
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    roots = [Path(folder).resolve() for folder in folders]
    if file and any(Path(file).resolve().is_relative_to(root) for root in (*roots, *_linked(roots))):
        return True
    return top in metadata.packages_distributions()


def _linked(roots: list[Path]) -> Iterator[Path]:
    """Tell the folders that are installed as links, as one does with what one works on."""
    for file in (each for root in roots for each in root.glob("*.pth")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if Path(line).is_absolute():
                yield Path(line).resolve()

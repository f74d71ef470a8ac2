"""Find the classes and functions of a model that another process could not import."""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FunctionType

from mlcore_sklearn.soundness import parts_of

__all__ = ["out_of_reach"]


def out_of_reach(model: object, code: Path) -> Iterator[tuple[str, str]]:
    """Tell of every class and function in `model` that no reader can import its top-level module, and why.

    A reader has what is installed, and what stands in the folder `code` of the model.
    """
    for part in parts_of(model):
        if isinstance(part, type | FunctionType):
            module, name = part.__module__, part.__qualname__
            top = module.partition(".")[0]
            if top == "__main__":
                yield top, f"{name} is defined in __main__, which is another module for every reader: move it to a file"
            elif getattr(sys.modules.get(module), part.__name__, None) is not part:
                yield top, f"{module}.{name} cannot be imported by that name: define it at the top of its module"
            elif not (_is_installed(top) or (code / top).is_dir() or (code / f"{top}.py").is_file()):
                yield top, f"{module}.{name} is in a module that is not installed: pass its file or folder as code="


@cache
def _is_installed(top: str) -> bool:
    """Tell whether a module comes with Python or a distribution: then a reader can have it too."""
    if top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or next(
        iter(getattr(sys.modules.get(top), "__path__", ())), ""
    )
    place = Path(file).resolve()
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    if any(place.is_relative_to(Path(folder).resolve()) for folder in folders):
        return True
    return top in metadata.packages_distributions() or any(place.is_relative_to(root) for root in _linked(folders))


def _linked(folders: set[str]) -> Iterator[Path]:
    """Tell the folders that were installed as links, for development."""
    for file in (each for folder in folders for each in Path(folder).glob("*.pth")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line and not line.startswith(("#", "import ", "import\t")) and Path(line).is_absolute():
                yield Path(line).resolve()

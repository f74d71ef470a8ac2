"""Build wheels and install them into environments of their own, as users get them, without a network."""

from __future__ import annotations

import shutil
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from house.tree import run


def build(folder: Path, into: Path) -> Path:
    """Build the wheel of the distribution in `folder`, into a folder that is made for it, and return it."""
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", into, folder)
    (wheel,) = into.glob("*.whl")
    return wheel


def needed(*requirements: str) -> dict[str, Distribution]:
    """Return by name all that installing these brings, themselves included, as it is installed here."""
    found: dict[str, Distribution] = {}
    seen, wanted = set(), [Requirement(each) for each in requirements]
    while wanted:
        one = wanted.pop()
        if (one.name, *one.extras) in seen:
            continue
        seen.add((one.name, *one.extras))
        name = canonicalize_name(one.name)
        found[name] = distribution(name)
        more = map(Requirement, found[name].requires or ())
        extras = [{"extra": extra} for extra in ("", *one.extras)]
        wanted += [each for each in more if each.marker is None or any(map(each.marker.evaluate, extras))]
    return found


def environment(folder: Path, *wheels: Path, beside: str) -> Path:
    """Make a virtual environment of these wheels, and of what else `beside` needs, copied from here.

    Returns its Python.
    """
    run("-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    ours = {wheel.name.partition("-")[0].replace("_", "-") for wheel in wheels}
    for each in (each for name, each in needed(beside).items() if name not in ours):
        for file in each.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    run("-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", *wheels)
    return python

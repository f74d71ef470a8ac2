"""Keep what people install as it is meant to be: complete, typed, licensed, without our tests, and small."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from house.tree import CORE, PLUGINS, import_name, package
from wheels import build, needed


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_a_wheel_holds_its_package_and_license_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    """Guards that every module and `py.typed` get to the user, with the terms, and no file of tests does."""
    names = set(zipfile.ZipFile(build(folder, tmp_path)).namelist())
    (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    inside = {name for name in names if not name.startswith(info)}
    files = (path for path in package(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert inside == {str(path.relative_to(folder / "src")) for path in files}
    assert f"{import_name(folder)}/py.typed" in inside
    assert f"{info}/licenses/LICENSE" in names
    assert [name for name in inside if Path(name).name.startswith(("test_", "conftest"))] == []


def test_core_brings_at_most_ten_distributions() -> None:
    """Guards small images and few conflicts: `pip install mlcore` is core and what it stands on."""
    assert {"mlcore", "attrs", "click", "pluggy"} <= needed("mlcore").keys()
    assert len(needed("mlcore")) <= 10


def test_the_kit_for_authors_of_stores_comes_with_an_extra() -> None:
    """Guards that the line in the docs is enough: `pip install "mlcore[testing]"`."""
    assert "pytest" in needed("mlcore[testing]")
    assert "pytest" not in needed("mlcore", "mlcore[all]")

"""Keep the tree as CONTRIBUTING.md describes it, every plugin of one shape."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from house.pages import blocks
from house.tree import CORE, HOUSE, PLUGINS, ROOT, import_name, package

AT_THE_TOP = {"pyproject.toml", "README.md", "core", "plugins", "tests", "docs", "cookiecutter"}
BESIDE_THEM = {
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "SECURITY.md"),
    *(".ci", ".git", ".gitignore"),
}
EVERY_PACKAGE = {import_name(folder) for folder in (CORE, *PLUGINS)}


def project(folder: Path) -> dict:
    """Return the [project] table of the distribution in `folder`."""
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def test_the_root_holds_seven_things_and_what_every_repository_has() -> None:
    """Guards the first impression; what .gitignore names does not count."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split("\n") if line.strip()]
    found = {path.name for path in ROOT.iterdir()}
    tracked = {name for name in found if not any(fnmatch(name, pattern) for pattern in ignored)}
    assert tracked - {".git"} == (AT_THE_TOP | BESIDE_THEM) - {".git"}


def test_the_tests_install_core_and_every_plugin_folder() -> None:
    """Guards against a plugin that no test ever installs."""
    lines = (ROOT / "tests" / "requirements.txt").read_text().splitlines()
    listed = [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]
    assert listed == ["./core", *(f"./plugins/{folder.name}" for folder in PLUGINS)]
    assert [path.name for path in (ROOT / "plugins").iterdir() if path not in PLUGINS] == []


def test_the_tools_know_every_package() -> None:
    """Guards against a plugin that mypy, coverage or import-linter never look at."""
    tool = HOUSE["tool"]
    assert set(tool["importlinter"]["root_packages"]) == EVERY_PACKAGE
    assert set(tool["coverage"]["run"]["source_pkgs"]) == EVERY_PACKAGE
    here = "$MYPY_CONFIG_FILE_DIR"
    assert set(tool["mypy"]["mypy_path"]) == {f"{here}/{folder.relative_to(ROOT)}/src" for folder in (CORE, *PLUGINS)}
    core_knows_no_plugin = tool["importlinter"]["contracts"][1]
    assert {"mlcore", *core_knows_no_plugin["forbidden_modules"]} == EVERY_PACKAGE


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_plugin_has_the_same_shape(folder: Path) -> None:
    """Guards that who knows one plugin finds the way in all of them."""
    built = {"build", "dist", "__pycache__"}
    assert {path.name for path in folder.iterdir()} - built == {"LICENSE", "README.md", "pyproject.toml", "src"}
    assert [path.name for path in (folder / "src").iterdir()] == [import_name(folder)]
    for name in ("__init__.py", "hooks.py", "py.typed"):
        assert (package(folder) / name).is_file(), name


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_plugin_declares_itself_the_same_way(folder: Path) -> None:
    """Guards names, and the one entry point by which core finds the plugin."""
    declared, name = project(folder), folder.name.removeprefix("mlcore-")
    assert declared["name"] == folder.name
    assert declared["entry-points"] == {"mlcore": {name: f"{import_name(folder)}.hooks"}}
    assert declared["requires-python"] == project(CORE)["requires-python"]
    assert declared["license"] == "Apache-2.0"


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_every_package_carries_the_licence(folder: Path) -> None:
    """Guards that a wheel alone says its terms; a copy, since a source archive would keep a link as a link."""
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert project(folder)["license-files"] == ["LICENSE"]


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_every_package_is_in_the_table_of_the_readme(folder: Path) -> None:
    """Guards the list of what there is to install."""
    assert f"| [`{project(folder)['name']}`]({folder.relative_to(ROOT)}/) |" in (ROOT / "README.md").read_text()


def test_the_readme_opens_with_its_two_commands() -> None:
    """Guards what a newcomer and CI paste: first a training, then the tests, one line each."""
    text = (ROOT / "README.md").read_text()
    (_, first), (_, second) = list(blocks(text, "sh"))[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert first.rstrip().endswith("docs/examples/digits/first_run.py")
    assert "-r tests/requirements.txt" in second
    assert "-m pytest" in second
    assert text.index(second) < text.index("```python")

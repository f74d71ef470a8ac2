"""`mlcore projects`: what a project is and what is wrong with it, without running it or leaving anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlcore.cli import program
from mlcore_projects.errors import ProjectError

pytestmark = pytest.mark.usefixtures("cache")
MLPROJECT = """
name: "de\\u2028mo"
python_env: env.yaml
entry_point: {}
entry_points:
  main:
    parameters: {alpha: {type: float, default: 0.5, help: how much}, model: {choices: [a, b]}, note: string}
    command: python train.py {alpha} {note}
    extra: 1
"""


def projects(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(program, ["projects", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a project in which something is wrong."""
    (tmp_path / "MLproject").write_text(MLPROJECT.replace("\\u2028", ""))
    (tmp_path / "env.yaml").write_text("python: '3.11'\ndependencies: [numpy, -r none.txt]")
    return tmp_path


def test_a_project_is_shown_as_a_page(folder: Path) -> None:
    """Guards what somebody sees who never saw the project."""
    assert (
        projects("show", folder).output
        == f"""\
project:      demo (MLproject)
source:       {folder}
python:       3.11
requirements: numpy, -r none.txt

main
  python train.py {{alpha}} {{note}}
  -P alpha=  float, by default 0.5  how much
  -P model=  one of a, b
  -P note=  string
  other parameters are appended as --name value
"""
    )


def test_a_project_is_shown_as_json(folder: Path) -> None:
    """Guards programs that read it."""
    told = json.loads(projects("show", folder, "--json").output)
    assert told["folder"] == str(folder)
    assert told["environment"]["requirements"] == ["numpy", "-r none.txt"]
    assert [each["name"] for each in told["entry_points"][0]["parameters"]] == ["alpha", "model", "note"]


def test_all_that_is_wrong_is_listed(folder: Path) -> None:
    """Guards what can be seen without running: files that are not there, defaults that do not fit, slips of keys."""
    text = (folder / "MLproject").read_text()
    other = "  other: {parameters: {n: {type: int, default: x}}, command: 'python -c \"{n}\"'}\n"
    other += "  piped: {command: 'python x.sh | tee y'}\n"
    (folder / "MLproject").write_text(text + other)
    (folder / "env.yaml").unlink()
    with pytest.raises(ProjectError, match="there is no such file"):
        raise projects("validate", folder).exception or AssertionError
    (folder / "env.yaml").write_text("dependencies: [-r none.txt]")
    done = projects("validate", folder)
    told = "the value of 'n' would be run as a part of a program: pass it as an argument after it"
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "remark: 'entry_point' means nothing in an MLproject; did you mean 'entry_points'?",
        "remark: entry point 'main': 'extra' means nothing; there are 'parameters', 'command'",
        f"error: entry point 'main': its command runs train.py, and there is no such file in {folder}",
        "error: entry point 'other': the default of n must be an int, and is 'x'",
        "error: entry point 'other': its command: " + told,
        "remark: entry point 'piped': it needs a shell, for '|', and so --trust",
        f"error: the environment names none.txt, and there is no such file in {folder}",
        "4 errors, 3 remarks",
    ]
    told = json.loads(projects("validate", folder, "--json").output)
    assert (told["valid"], len(told["remarks"])) == (False, 7)


def test_one_that_is_right_says_so(tmp_path: Path) -> None:
    """Guards the exit code that a CI job reads."""
    (tmp_path / "x.py").touch()
    assert (projects("validate", tmp_path).exit_code, projects("validate", tmp_path).output) == (
        0,
        "0 errors, 0 remarks\n",
    )
    (tmp_path / "x.py").unlink()
    assert "there is no entry point" in projects("validate", tmp_path).output
    told = json.loads(projects("validate", tmp_path / "none", "--json").output)
    assert told["valid"] is False


def test_a_repository_is_looked_at_and_no_tree_is_left(folder: Path, git: Callable[..., str], cache: Path) -> None:
    """Guards the disk of whoever looks at many."""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "v1")
    page = projects("show", f"{folder}@v1").output
    assert f"source:       {folder}\nrevision:     v1 {git(folder, 'rev-parse', 'HEAD')}\n" in page
    told = json.loads(projects("show", folder, "--version", "v1", "--json").output)
    assert (told["folder"], told["source"]["revision"]) == (None, "v1")
    assert "4 errors" not in projects("validate", f"{folder}@v1").output
    assert list(cache.glob("projects/trees/*")) == []


def test_no_name_breaks_a_line_or_the_terminal(tmp_path: Path) -> None:
    """Guards terminals against what a stranger's project says."""
    entry = {"command": "x \u001b[31m", "parameters": {"a": {"default": "\u001b]0;x\u0007\n"}}}
    (tmp_path / "MLproject").write_text(json.dumps({"name": "demo", "entry_points": {"main": entry}}))
    page = projects("show", tmp_path).output
    assert "\x1b" not in page
    assert "\\x1b[31m" in page

"""`mlcore config`: who says what, and files of settings that stay as they were but for the one line."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from faults.processes import mlcore as in_a_process
from mlcore.cli import program
from mlcore.config import experiment_setting, parse, store_setting, user_file
from mlcore.errors import ConfigError, InvalidValue

PYPROJECT = """\
# Ours.
[project]
name = "digits"   # spaced   on purpose

[tool.ruff]
line-length = 100

[tool.mlcore] # who reads this?
# The team's.
experiment = 'old'

[other]
x = [ 1,
      2 ]

[tool.mypy]
strict = true
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work deep inside a repository, as a user who has set nothing."""
    for name in ("MLCORE_STORE", "MLCORE_EXPERIMENT", "MLCORE_CAPTURE", "MLCORE_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/config"))
    (tmp_path / "project/.git").mkdir(parents=True)
    (tmp_path / "project/src").mkdir()
    monkeypatch.chdir(tmp_path / "project/src")
    return tmp_path / "project"


def call(*arguments: str, code: int = 0) -> Result:
    """Run `mlcore config` with these arguments, to this exit code."""
    done = CliRunner().invoke(program, ["config", *arguments])
    assert done.exit_code == code, done.output
    return done


def asked(*arguments: str) -> Any:
    """Return what `mlcore config ... --json` prints."""
    return json.loads(call(*arguments, "--json").stdout)


def test_the_round_of_a_setting(project: Path) -> None:
    """Guards set, get, list and unset together, for people."""
    file = user_file()
    assert call("set", "experiment", "digits").output == f"experiment = digits\n  set in {file}\n"
    assert call("get", "experiment").output == "digits\n"
    assert call("list").output == (
        f"store = {project}/.mlcore\n  because: {project} has .git\n"
        f"experiment = digits\n  because: set in {file}\n  rather than Default: the default\n"
        "capture = all\n  because: the default\n"
        "artifacts is not set: files lie with their run, in the store\n"
        "spool is not set: runs wait in your folder of state, if the store is no folder\n"
        "spool_keep = 7d\n  because: the default\n"
        "spool_limit = 20GB\n  because: the default\n"
        "spool_wait = 10s\n  because: the default\n"
        "cache_limit = 20GB\n  because: the default\n"
        "registry_log is not set: what changes in the registry is written to no file\n"
        "registry_command is not set: what changes in the registry runs no command\n"
        "require_signature is not set: models are loaded whether they are signed or not\n"
    )
    assert call("unset", "experiment").output == f"experiment is no longer set in {file}\n"
    assert call("get", "experiment").output == "Default\n"
    assert file.read_text() == ""


def test_json_is_the_same_for_good(project: Path) -> None:
    """Guards the schemas that scripts read."""
    file, shared = str(user_file()), str(project / "pyproject.toml")
    assert asked("set", "experiment", "mine") == {"name": "experiment", "value": "mine", "file": file}
    assert asked("set", "experiment", "ours", "--project") == {"name": "experiment", "value": "ours", "file": shared}
    experiment = {
        "name": "experiment", "value": "ours", "reason": f"set in {shared}",
        "overrides": [{"value": "mine", "reason": f"set in {file}"}, {"value": "Default", "reason": "the default"}],
    }  # fmt: skip
    assert asked("get", "experiment") == experiment
    store = {"name": "store", "value": f"{project}/.mlcore", "reason": f"{project} has .git", "overrides": []}
    unset = {"value": None, "reason": "not set: files lie with their run, in the store", "overrides": []}
    found = asked("list")
    capture = {"name": "capture", "value": "all", "reason": "the default", "overrides": []}
    assert found[:4] == [store, experiment, capture, {"name": "artifacts", **unset}]
    assert [(each["name"], each["value"]) for each in found[4:]] == [
        ("spool", None), ("spool_keep", "7d"), ("spool_limit", "20GB"), ("spool_wait", "10s"),
        ("cache_limit", "20GB"), ("registry_log", None), ("registry_command", None), ("require_signature", None),
    ]  # fmt: skip
    assert asked("get", "artifacts") == {"name": "artifacts", **unset}
    assert asked("unset", "experiment") == {"name": "experiment", "value": None, "file": file}
    assert asked("path") == {"file": file, "exists": True}
    assert asked("path", "--project") == {"file": shared, "exists": True}
    assert call("path", "--project").output == f"{shared}\n"


def test_all_else_in_a_project_s_file_stays_as_it_is(project: Path) -> None:
    """Guards comments, spaces and the tables of others, in their order, and the rights of the file."""
    file = project / "pyproject.toml"
    file.write_text(PYPROJECT)
    file.chmod(0o664)
    call("set", "experiment", "new", "--project")
    assert file.read_text() == PYPROJECT.replace("'old'", '"new"')
    call("set", "store", "off", "--project")
    expected = PYPROJECT.replace("'old'\n", '"new"\nstore = "off"\n')
    assert [line for line in file.read_text().split("\n") if line] == [line for line in expected.split("\n") if line]
    assert (experiment_setting().value, store_setting().value) == ("new", "off")
    call("unset", "store", "--project")
    call("set", "experiment", "old", "--project")
    assert file.read_text().replace('"old"', "'old'") == PYPROJECT
    assert stat.S_IMODE(file.stat().st_mode) == 0o664
    assert sorted(os.listdir(project)) == [".git", "pyproject.toml", "src"], "nothing is left over"


@pytest.mark.parametrize(
    "before", [None, "", "# nothing yet", "[tool.ruff]\nx = 1\n\n[other]\ny = 2\n\n[tool.mypy]\nz = 3"]
)
def test_a_project_gets_the_table_at_the_end_of_its_file(before: str | None, project: Path) -> None:
    """Guards projects that never said anything, and those without any file."""
    file = project / "pyproject.toml"
    if before is not None:
        file.write_text(before)
    call("set", "experiment", "digits", "--project")
    said = '[tool.mlcore]\nexperiment = "digits"\n'
    assert file.read_text() == (f"{before}\n\n".lstrip() if before else "") + said
    assert experiment_setting().value == "digits"


def test_the_line_ends_of_windows_stay(project: Path) -> None:
    """Guards files that git would show as changed in every line."""
    file = project / "pyproject.toml"
    file.write_bytes(b"[tool.ruff]\r\nx = 1\r\n")
    call("set", "experiment", "digits", "--project")
    assert file.read_bytes() == b'[tool.ruff]\r\nx = 1\r\n\r\n[tool.mlcore]\r\nexperiment = "digits"\r\n'


def test_the_user_s_file_is_the_user_s_alone() -> None:
    """Guards what may be secret one day: nobody else reads it, whatever the rights were before."""
    call("set", "experiment", "a")
    file = user_file()
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    file.chmod(0o644)
    call("set", "experiment", "b")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["config.toml"]


def test_a_link_to_a_file_elsewhere_stays_a_link(tmp_path: Path) -> None:
    """Guards whoever keeps settings in a repository of dotfiles."""
    real = tmp_path / "dotfiles/config.toml"
    real.parent.mkdir()
    real.write_text("# mine\n")
    user_file().parent.mkdir(parents=True)
    user_file().symlink_to(real)
    call("set", "experiment", "digits")
    assert user_file().is_symlink()
    assert real.read_text() == '# mine\nexperiment = "digits"\n'


@pytest.mark.parametrize(
    ("value", "mine", "ours"),
    [
        ("runs", "{project}/src/runs", "src/runs"),
        ("../runs", "{project}/runs", "runs"),
        ("/disk/runs", "/disk/runs", "/disk/runs"),
        ("http://server/x", "http://server/x", "http://server/x"),
        ("off", "off", "off"),
        ("../off", "{project}/off", "./off"),
    ],
)
def test_a_path_counts_from_where_it_was_said(value: str, mine: str, ours: str, project: Path) -> None:
    """Guards `mlcore config set store runs`: it is ./runs, as in any command, from whichever folder it is read."""
    call("set", "store", value)
    assert tomllib.loads(user_file().read_text()) == {"store": mine.format(project=project)}
    assert store_setting().value == mine.format(project=project)
    call("set", "store", value, "--project")
    said = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["mlcore"]
    assert said == {"store": ours}
    assert store_setting().value == mine.format(project=project)


def test_home_is_the_user_s_and_not_the_project_s(tmp_path: Path, project: Path) -> None:
    """Guards ~, which is another folder for everybody."""
    call("set", "artifacts", "~/big")
    assert call("get", "artifacts").output == f"{tmp_path}/home/big\n"
    assert isinstance(call("set", "store", "~/runs", "--project", code=1).exception, ConfigError)
    assert not (project / "pyproject.toml").exists()


def test_what_cannot_be_is_not_written(project: Path) -> None:
    """Guards both files: a refusal leaves them as they were."""
    for arguments in (["trust", "x"], ["stroe", "x"]):
        assert "is not one of 'store', 'experiment', 'capture', 'artifacts'" in call("set", *arguments, code=2).output
    assert "may set only store, experiment" in str(call("set", "artifacts", "x", "--project", code=1).exception)
    assert isinstance(call("set", "experiment", "a\nb", code=1).exception, InvalidValue)
    assert isinstance(call("set", "store", "", code=1).exception, ConfigError)
    assert "does not set 'store'" in str(call("unset", "store", code=1).exception)
    assert "artifacts is not set" in str(call("get", "artifacts", code=1).exception)
    assert not user_file().exists() and not (project / "pyproject.toml").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.mlcore", "is not TOML"),
        ("x = 1\nx = 2", "is not TOML"),
        ("tool = 1", "'tool' must be a table"),
        ("[[tool.mlcore]]", "'mlcore' must be a table"),
        ("[tool]\nmlcore = {}", "write the table with the line"),
        ("[tool.mlcore]\nplugins = 1", "sets 'plugins', and may set only store, experiment, capture"),
    ],
)
def test_a_file_that_is_wrong_is_not_made_worse(text: str, told: str, project: Path) -> None:
    """Guards what somebody has half written."""
    file = project / "pyproject.toml"
    file.write_text(text)
    assert told in str(call("set", "experiment", "x", "--project", code=1).exception)
    assert file.read_text() == text


def test_what_does_not_belong_there_can_be_taken_out(project: Path) -> None:
    """Guards the way out of a file that nothing reads any more, key by key, and the way out that doctor tells."""
    file = project / "pyproject.toml"
    file.write_text("[tool.mlcore]\ntrust = 1\nplugins = 1\nstore = 'x'\n")
    assert isinstance(call("list", code=1).exception, ConfigError)
    done = CliRunner().invoke(program, ["doctor", "--json"])
    (found,) = [each for each in json.loads(done.stdout)["findings"] if each["what"] == "settings"]
    assert (done.exit_code, found["problem"]) == (
        1,
        f"{file} sets 'trust', and may set only store, experiment, capture",
    )
    assert "mlcore config unset" in found["mend"]
    for key in ("trust", "plugins"):
        call("unset", key, "--project")
    assert call("get", "store").output == f"{project}/x\n"


def test_a_stronger_word_is_told_of(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards whoever sets something and wonders why nothing changes."""
    call("set", "experiment", "ours", "--project")
    done = call("set", "experiment", "mine")
    told = f"mlcore: but experiment is ours here, which is stronger: set in {project}/pyproject.toml\n"
    assert done.stderr == told
    monkeypatch.setenv("MLCORE_EXPERIMENT", "env")
    assert "environment variable MLCORE_EXPERIMENT" in call("set", "experiment", "x", "--project").stderr
    (project / "pyproject.toml").write_text("[tool.mlcore]\nstore = 3\n")
    assert "before this is mended: " in call("set", "store", "x").stderr, "it is written, and the other file told of"


def test_where_and_doctor_tell_which_file_said_it(project: Path) -> None:
    """Guards that the reason is shown where people look for it."""
    call("set", "store", "runs", "--project")
    call("set", "experiment", "digits")
    assert f"because: set in {project}/pyproject.toml" in CliRunner().invoke(program, ["where"]).output
    told = CliRunner().invoke(program, ["doctor"]).output
    assert f"digits, set in {user_file()}" in told
    assert f"{project}/src/runs, because: set in {project}/pyproject.toml" in told


def test_a_name_that_plays_with_the_terminal_is_shown_as_what_it_is(project: Path) -> None:
    """Guards whoever looks at the settings of a stranger's repository."""
    text = '[tool.mlcore]\nexperiment = "\\u001b[2Jgone\\u202e"\nstore = "a\\nb"\n'
    (project / "pyproject.toml").write_text(text)
    for arguments in (["list"], ["get", "experiment"], ["list", "--json"]):
        shown = call(*arguments).stdout
        assert "\x1b" not in shown and "\u202e" not in shown
    assert len(call("get", "store").output.splitlines()) == 1


def test_of_two_who_write_at_once_neither_is_lost() -> None:
    """Guards two terminals: each reads, changes and writes alone."""
    user_file().parent.mkdir(parents=True)
    threads = [
        threading.Thread(target=in_a_process, args=(Path.cwd(), "config", "set", key, "x"), kwargs=_as_here())
        for key in ("store", "experiment", "artifacts")
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert parse(user_file(), user_file().read_bytes()).keys() == {"store", "experiment", "artifacts"}


def _as_here() -> dict[str, str]:
    return {name: os.environ[name] for name in ("HOME", "XDG_CONFIG_HOME")}


def test_an_error_is_one_line_and_exit_code_1(project: Path, tmp_path: Path) -> None:
    """Guards the program as a shell sees it."""
    (project / "pyproject.toml").write_text("[tool.mlcore]\ntrust = '*'\n")
    for arguments in (["where"], ["config", "list"], ["runs", "list"], ["runs", "start"]):
        done = in_a_process(project, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            done.stderr
            == f"mlcore: {project}/pyproject.toml sets 'trust', and may set only store, experiment, capture\n"
        )
    assert in_a_process(project, "config", "unset", "trust", "--project").returncode == 0


def test_help_costs_no_parser(tmp_path: Path) -> None:
    """Guards the start-up of every command: tomlkit is for who writes."""
    code = "import sys, mlcore_local.config_commands; assert not {'tomlkit', 'tomllib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

"""Who is told of the registry's changes: a file that gets a line of each, a command that gets it on standard input."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mlcore
from faults.processes import finish, mlcore as in_a_process, run, start
from house.pages import blocks
from house.tree import ROOT
from mlcore.errors import ConfigError
from mlcore.registry import Change
from mlcore_local.registry import telling

KEEP = """\
import json, os, sys
from pathlib import Path
said = {"stdin": sys.stdin.read(), "arguments": sys.argv[1:], "folder": os.getcwd(),
        "command": os.environ.get("MLCORE_REGISTRY_COMMAND")}
with open(Path(__file__).parent / "heard.jsonl", "a") as file:
    file.write(json.dumps(said) + "\\n")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a repository, as a user who has set nothing; return their home."""
    for name in ("MLCORE_STORE", "MLCORE_REGISTRY_LOG", "MLCORE_REGISTRY_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/config"))
    (tmp_path / "home/config/mlcore").mkdir(parents=True)
    (tmp_path / "project/.git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "home"


@pytest.fixture
def log(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the environment names."""
    monkeypatch.setenv("MLCORE_REGISTRY_LOG", "~/logs/registry.jsonl")
    return home / "logs/registry.jsonl"


def script(home: Path, code: str = KEEP) -> str:
    """Return what runs a Python script in the home folder, as a command."""
    (home / "hear.py").write_text(code)
    return f"{sys.executable} {home}/hear.py"


def heard(home: Path) -> list[dict[str, Any]]:
    """Return what the script was called with, each time."""
    return [json.loads(line) for line in (home / "heard.jsonl").read_text().splitlines()]


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, each strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in file.read_text().split("\n")[:-1]]


def changed(**details: Any) -> Change:
    """Return a change, such as one of an alias."""
    return Change("set_alias", "digits", "1" * 32, "3", "2" * 32, details, by="ann", at=1_700_000_000_000)


def test_each_change_is_a_line(log: Path) -> None:
    """Guards the round: what is done to models and versions stands in the file, in order, with who did it and when."""
    client = mlcore.Client("store")
    model = client.registry.create("digits", tags={"team": "vision"})
    version = client.registry.add("digits", {"source": "s3://models/a", "digest": "d"})
    model.set_alias("champion", version)
    version.transition("Production")
    found = lines(log)
    assert [(each["action"], each["model"], each["version"]) for each in found] == [
        ("create", "digits", ""),
        ("register", "digits", "1"),
        ("set_alias", "digits", ""),
        ("transition", "digits", "1"),
    ]
    assert found[2]["details"] == {"alias": "champion", "before": None, "after": "1"}
    assert all(abs(each["at"] / 1000 - time.time()) < 60 and each["by"] for each in found)
    assert [each["previous"] for each in found[1:]] == [each["digest"] for each in found[:-1]], "the chain"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600, "it may hold what others must not know"


def test_whatever_is_in_it_stays_on_one_line(log: Path) -> None:
    """Guards readers of lines: line ends of any kind and what JSON has not are escaped."""
    telling.tell(changed(text="a\nb\r\u2028\x85\x0b", nan=math.nan, emoji="🎉"))
    (line,) = log.read_text().splitlines()
    assert line.isascii()
    assert json.loads(line)["details"] == {"text": "a\nb\r\u2028\x85\x0b", "nan": {"$float": "NaN"}, "emoji": "🎉"}


def test_many_processes_write_whole_lines(home: Path, log: Path) -> None:
    """Guards a file that a team's jobs share: no line is cut or mixed, none is lost."""
    code = """
        import sys
        from mlcore.registry import Change
        from mlcore_local.registry.telling import tell
        for number in range(60):
            tell(Change("comment", "digits", "1" * 32, details={"by": sys.argv[1], "text": sys.argv[1] * 9000}))
    """
    said = {"MLCORE_REGISTRY_LOG": str(log)}
    processes = [start(home, code, letter, **said) for letter in "abcd"]
    for each in processes:
        finish(each)
    assert sorted(each["details"]["text"] for each in lines(log)) == sorted(letter * 9000 for letter in "abcd" * 60)


def test_the_file_may_be_rotated(log: Path) -> None:
    """Guards logrotate, which takes the file away between two changes."""
    telling.tell(changed(alias="a"))
    log.rename(log.with_suffix(".1"))
    telling.tell(changed(alias="b"))
    assert [each["details"]["alias"] for file in (log.with_suffix(".1"), log) for each in lines(file)] == ["a", "b"]


def test_a_line_that_was_cut_costs_no_other(log: Path) -> None:
    """Guards what comes after a full disk: the next line begins on its own."""
    for torn in ('{"action": "cre', "{"):
        telling.tell(changed(alias="a"))
        with log.open("a") as file:
            file.write(torn)
        telling.tell(changed(alias="b"))
        assert [json.loads(line)["details"]["alias"] for line in log.read_text().split("\n")[:3:2]] == ["a", "b"]
        log.unlink()


@pytest.mark.parametrize("place", ["a pipe that nobody reads", "a folder", "below a file"])
def test_what_cannot_be_written_to_is_a_warning(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the change itself, which is made, and the process, which waits for nobody."""
    os.mkfifo(home / "a pipe that nobody reads")
    (home / "a folder").mkdir()
    (home / "file").touch()
    monkeypatch.setenv("MLCORE_REGISTRY_LOG", str(home / place.replace("below a file", "file/below")))
    client = mlcore.Client("store")
    client.registry.create("digits")
    assert [each.name for each in client.registry.list()] == ["digits"]
    assert "registry_log was not told of a change of digits: " in caplog.text


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the same where the file opens."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    monkeypatch.setenv("MLCORE_REGISTRY_LOG", "/dev/full")
    telling.tell(changed())
    assert "No space left" in caplog.text


def test_a_command_gets_the_change_on_its_standard_input(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what a command is given: the same line, no argument but its own, and a folder that is nobody's project."""
    monkeypatch.setenv("MLCORE_REGISTRY_COMMAND", script(home) + " --to 'the team' ';' 'touch x' $HOME")
    monkeypatch.setenv("MLCORE_REGISTRY_LOG", str(home / "log"))
    model = mlcore.Client("store").registry.create("digits; touch x")
    (said,) = heard(home)
    assert [json.loads(said["stdin"])] == lines(home / "log")
    assert json.loads(said["stdin"])["model"] == model.name
    assert said["arguments"] == ["--to", "the team", ";", "touch x", "$HOME"], "there is no shell"
    assert (said["folder"], said["command"]) == (str(home), "off")


def test_what_a_command_changes_runs_no_command(home: Path, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """Guards against commands that call themselves without end: the file is told, no command is."""
    code = KEEP + "import mlcore\nmlcore.Client(sys.argv[1]).registry.get('digits').set_tag('seen', 1)\n"
    monkeypatch.setenv("MLCORE_REGISTRY_COMMAND", f"{script(home, code)} {Path('store').absolute()}")
    mlcore.Client("store").registry.create("digits")
    assert len(heard(home)) == 1
    assert [each["action"] for each in lines(log)] == ["create", "set_tags"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("{python} {home}/hear.py", "ended with 3: it is broken"),
        ("./hear.py", "'./hear.py' is neither an absolute path nor a program on the PATH"),
        ("hear.py", "'hear.py' is neither"),
        ("{home}/nothing", "No such file"),
        ("{home}/hear.py", "Permission denied"),
        ("notify 'half", "No closing quotation"),
        ("''", "'' is neither"),
    ],
)
def test_a_command_that_fails_is_a_warning(
    command: str, told: str, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the change, which is made, and who looks for why nothing comes."""
    script(home, "print('it is\\nbroken'); raise SystemExit(3)")
    monkeypatch.setenv("MLCORE_REGISTRY_COMMAND", command.format(python=sys.executable, home=home))
    mlcore.Client("store").registry.create("digits")
    (record,) = [each for each in caplog.records if "registry_command" in each.message]
    assert told in record.message
    assert record.exc_info is None, "a line, not a traceback"


def test_the_script_of_the_page_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what readers copy: it restarts the service when that alias of that model moves, and only then."""
    page = (ROOT / "docs" / "how-to" / "react-to-registry-changes.md").read_text()
    (code,) = (block for _, block in blocks(page, "text") if block.startswith("#!"))
    for name, text in (("on-change", code), ("systemctl", f'#!/bin/sh\necho "$@" >> {home}/heard\n')):
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MLCORE_REGISTRY_COMMAND", "on-change --quiet")
    registry = mlcore.Client("store").registry
    registry.add("digits", {"source": "s3://models/a"}, aliases="champion")
    registry.get("digits").set_alias("old", 1)
    registry.add("iris", {"source": "s3://models/b"}, aliases="champion")
    assert (home / "heard").read_text() == "--user restart digits\n"


def test_a_command_is_not_waited_for_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards who changes the registry: the command is ended, and what it started, also while it holds its output."""
    code = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    code += "open(sys.argv[1], 'w').write(str(child.pid))\nchild.wait()\n"
    monkeypatch.setattr(telling, "SECONDS", 3)
    monkeypatch.setenv("MLCORE_REGISTRY_COMMAND", f"{script(home, code)} {home}/pid")
    began = time.monotonic()
    telling.tell(changed())
    assert time.monotonic() - began < 30
    assert "took longer than 3 s, and was ended" in caplog.text
    child = int((home / "pid").read_text())
    for _ in range(200):
        if not _runs(child):
            return
        time.sleep(0.05)
    raise AssertionError("what the command started still runs")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_user_s_file_says_it_too(home: Path) -> None:
    """Guards config.toml: a list or text, paths from home, and `off` in the environment for one process."""
    heard_at = home / "hear.py"
    script(home)
    (home / "config/mlcore/config.toml").write_text(
        f'registry_log = "log"\nregistry_command = ["{sys.executable}", "{heard_at}", "two words"]\n'
    )
    code = "import mlcore; mlcore.Client('store').registry.create(__import__('sys').argv[1])"
    run(home, code, "a")
    run(home, code, "b", MLCORE_REGISTRY_LOG="off", MLCORE_REGISTRY_COMMAND="off")
    assert [each["model"] for each in lines(home / "log")] == ["a"]
    (said,) = heard(home)
    assert (json.loads(said["stdin"])["model"], said["arguments"]) == ("a", ["two words"])


def test_the_command_config_shows_and_sets_them(home: Path) -> None:
    """Guards `mlcore config`: both are shown with who says so, and the command as it is written in a shell."""
    done = in_a_process(home, "config", "set", "registry_command", "notify --to 'the team'")
    assert done.returncode == 0, done.stderr
    assert in_a_process(home, "config", "get", "registry_command").stdout == "notify --to 'the team'\n"
    file = home / "config/mlcore/config.toml"
    file.write_text('registry_command = ["notify", "--to", "the team"]\nregistry_log = "~/log"\n')
    assert in_a_process(home, "config", "get", "registry_command").stdout == "notify --to 'the team'\n"
    assert in_a_process(home, "config", "get", "registry_log").stdout == f"{home}/log\n"
    assert f"registry_log = {home}/log\n  because: set in {file}" in in_a_process(home, "config", "list").stdout
    refused = in_a_process(home, "config", "set", "registry_command", "notify", "--project")
    assert refused.returncode == 1
    assert "may set only store, experiment, capture" in refused.stderr


@pytest.mark.parametrize("key", ["registry_command", "registry_log"])
def test_a_cloned_repository_runs_and_writes_nothing(
    key: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards whoever works in a stranger's repository: its file is refused, by name, before anything is done."""
    project = tmp_path / "project"
    (project / "pyproject.toml").write_text(f'[tool.mlcore]\n{key} = "{script(home)}"\n')
    with pytest.raises(ConfigError, match=f"sets '{key}', and may set only store, experiment, capture"):
        mlcore.Client().registry.create("digits")
    mlcore.Client("store").registry.create("digits")  # who names a store does not ask the file, and nothing is told
    assert not (home / "heard.jsonl").exists()


def test_a_repository_s_programs_are_not_found(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a PATH with the folder of the moment in it, and commands that look for their modules there."""
    project = tmp_path / "project"
    (project / "notify").write_text(f"#!/bin/sh\ntouch {project}/was-run\n")
    (project / "notify").chmod(0o755)
    (project / "hear.py").write_text(f"open('{project}/was-run', 'w')")
    monkeypatch.setenv("PATH", f".::{os.environ['PATH']}:{os.path.relpath(project)}")
    for command in ("notify", f"{sys.executable} -m hear"):
        monkeypatch.setenv("MLCORE_REGISTRY_COMMAND", command)
        telling.tell(changed())
    assert len(caplog.records) == 2
    assert not (project / "was-run").exists()


def test_nothing_is_told_of_what_is_not_stored(log: Path) -> None:
    """Guards `MLCORE_STORE=off`, and who is refused: only what was changed is told of."""
    mlcore.Client("off").registry.create("digits")
    client = mlcore.Client("store")
    client.registry.create("digits")
    with pytest.raises(mlcore.errors.AlreadyExists):
        client.registry.create("digits")
    assert [each["action"] for each in lines(log)] == ["create"]


def test_who_is_not_to_be_told_costs_nothing_heavy(home: Path) -> None:
    """Guards processes that register something: without a setting no file is parsed, and nothing is run."""
    code = "import sys, mlcore; mlcore.Client('store').registry.create('a'); assert 'tomllib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=home)

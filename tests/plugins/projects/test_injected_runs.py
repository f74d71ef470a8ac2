"""The payloads of test_injections.py again, through the whole of `mlcore run`: they arrive, and nothing runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from faults.processes import mlcore
from mlcore import Client
from mlcore.cli import program
from mlcore.errors import MlcoreError
from mlcore_projects.environments import ready
from mlcore_projects.reading import read_project
from payloads import PAYLOADS

Run = Callable[..., subprocess.CompletedProcess[str]]
ECHO = """
import json, os, sys
with open("told.json", "w") as file:
    json.dump([*sys.argv[1:], os.environ.get("A", "")], file)
"""


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Return the path of the marker, which must not be anywhere in the end."""
    yield tmp_path / "marker"
    assert list(tmp_path.rglob("marker")) == []


@pytest.fixture
def payloads(marker: Path) -> dict[str, str]:
    """Return all payloads as parameters."""
    return {f"v{number}": each.format(m=marker) for number, each in enumerate(PAYLOADS)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs `mlcore run` in a project's folder, in the environment that is there."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/echo.py").write_text(ECHO)

    def run(*arguments: object, folder: str = "project") -> subprocess.CompletedProcess[str]:
        return mlcore(tmp_path / folder, "run", *arguments, MLCORE_STORE=str(tmp_path / "store"))

    return run


def given(payloads: dict[str, str]) -> list[str]:
    """Return payloads as options."""
    return [text for name, value in payloads.items() for text in ("-P", f"{name}={value}")]


def told(tmp_path: Path) -> list[str]:
    """Return the arguments that the program was started with, and the variable A."""
    return [str(each) for each in json.loads((tmp_path / "project/told.json").read_text())]


def test_values_reach_the_program_and_the_run_as_they_are(payloads: dict[str, str], run: Run, tmp_path: Path) -> None:
    """Guards E1 for an MLproject, with names and tags that are payloads as well, and MLflow's quoted params."""
    slots = " ".join(f"{{{name}}} '{{{name}}}'" for name in payloads)
    parameters = dict.fromkeys(payloads, "string")
    entry = {"command": f"A={{v0}} python echo.py {slots}", "parameters": parameters}
    name = payloads["v2"]
    (tmp_path / "project/MLproject").write_text(json.dumps({"name": name, "entry_points": {name: entry}}))
    done = run(".", "-e", name, "--env", "system", "--name", name, "--tag", f"{name}={name}", *given(payloads))
    assert done.returncode == 0, done.stderr
    assert told(tmp_path) == [each for value in payloads.values() for each in (value, value)] + [payloads["v0"]]
    (kept,) = Client(tmp_path / "store").search_runs()
    assert dict(kept.params) == payloads
    assert kept.name == name


def test_a_trusted_shell_gets_them_quoted(payloads: dict[str, str], run: Run, tmp_path: Path) -> None:
    """Guards E2 for a whole run."""
    slots = " ".join(f"""{{{name}}} '{{{name}}}' "{{{name}}}" """ for name in payloads)
    entry = {"command": f"A=1; python echo.py {slots} && true", "parameters": dict.fromkeys(payloads, "string")}
    (tmp_path / "project/MLproject").write_text(json.dumps({"entry_points": {"main": entry}}))
    refused = run(".", "--env", "system", *given(payloads))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--trust" in refused.stderr
    done = run(".", "--env", "system", "--trust", *given(payloads))
    assert done.returncode == 0, done.stderr
    assert told(tmp_path)[:-1] == [value for value in payloads.values() for _ in range(3)]


def test_a_command_and_what_is_appended_to_it_are_literal(payloads: dict[str, str], run: Run, tmp_path: Path) -> None:
    """Guards E1 for a bare command."""
    extra = {"w": payloads["v2"]}
    done = run(*given(extra), "--", "python", "echo.py", *payloads.values())
    assert done.returncode == 0, done.stderr
    assert told(tmp_path)[:-1] == [*payloads.values(), "--w", payloads["v2"]]


def test_what_is_no_source_entry_point_or_name_is_one_line(
    payloads: dict[str, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards every other place of the command line: an error of one line, with nothing started."""
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    for payload in payloads.values():
        for arguments in ((f"./{payload}x",), (".", "-e", payload), (".", "-e", "echo.py", "-P", f"{payload}+=1")):
            done = CliRunner().invoke(program, ["run", *arguments, "--env", "system"])
            assert done.exit_code, arguments
            assert "\n" not in str(done.exception)
    for kind in ("--env", "--runner"):
        done = CliRunner().invoke(program, ["run", ".", "-e", "echo.py", kind, payloads["v2"]])
        assert isinstance(done.exception, MlcoreError)
    assert not (tmp_path / "project/told.json").exists()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["venv", "uv"])
def test_lines_of_requirements_are_no_commands(
    kind: str, payloads: dict[str, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards E1 for what is handed to an installer: each is refused, or asked of an index that is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = tmp_path / "project"
    (project / "MLproject").write_text("entry_points: {main: {command: python echo.py}}")
    lines = [each for each in payloads.values() if each.isprintable() and not each.startswith(("--index", "~root"))]
    lines += [
        "x @ git+https://127.0.0.1:1/x@--upload-pack=touch",
        "x @ git+ext::sh -c touch% marker",
        "-r $(touch marker)",
    ]
    for line in filter(None, lines):  # "~root" is a folder, and no payload here
        text = json.dumps({"dependencies": ["--index-url http://127.0.0.1:9/", line]})
        (project / "python_env.yaml").write_text(text)
        with pytest.raises(MlcoreError):
            ready(read_project(project).environment, kind)

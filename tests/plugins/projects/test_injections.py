"""Nothing that somebody writes into a project, a parameter or an address is run by a shell, or taken for an option.

Each payload would make a marker file if anything ran it; it is put into every place, and the marker never appears.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlcore.cli import program
from mlcore.errors import MlcoreError
from mlcore_projects.binding import bind, entry_point
from mlcore_projects.errors import ProjectError, SourceError
from mlcore_projects.reading import read_command, read_project
from mlcore_projects.sources import fetch
from mlcore_projects.specs import Bound, Project
from payloads import PAYLOADS

Git = Callable[..., str]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Return the path of the marker, which must not be there in the end."""
    file = tmp_path / "marker"
    yield file
    assert not file.exists()
    assert not Path("marker").exists()


@pytest.fixture(params=PAYLOADS)
def payload(request: pytest.FixtureRequest, marker: Path) -> str:
    """Return a payload that would make the marker."""
    return str(request.param).format(m=marker)


def told(bound: Bound) -> list[str]:
    """Run what was bound, a program that prints its arguments and A, and return them."""
    python = [sys.executable, "-I", "-S"] if bound.argv[0] == "python" else [bound.argv[0]]
    path = f"{bound.folder}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, **bound.variables}
    done = subprocess.run(
        [*python, *bound.argv[1:]], cwd=bound.folder, env=variables, capture_output=True, text=True, check=True
    )
    return [str(each) for each in json.loads(done.stdout)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a program that prints its arguments, as JSON, and as what a shell finds on its path."""
    (tmp_path / "project").mkdir()
    text = "import json, os, sys\nprint(json.dumps([*sys.argv[1:], os.environ.get('A', '')]))\n"
    (tmp_path / "project/echo.py").write_text(text)
    shown = tmp_path / "project/shown"
    shown.write_text(f"#!{sys.executable} -IS\n{text}")
    shown.chmod(0o755)
    return tmp_path / "project"


class TestValues:
    """A value reaches the program as it is, whatever the form of the project."""

    def test_in_a_template(self, payload: str, folder: Path) -> None:
        """Guards MLproject files: bare, in both kinds of quotes, within a word, in an assignment, and appended."""
        command = """A={v} python echo.py {v} '{v}' "{v}" --x={v} 'a "{v}"'"""
        (folder / "MLproject").write_text(json.dumps(entry(command)))
        bound = bind(read_project(folder), values={"v": payload, "w": payload})
        expected = [payload, payload, payload, f"--x={payload}", f'a "{payload}"', "--w", payload, payload]
        assert told(bound) == expected
        assert bound.parameters == {"v": payload, "w": payload}

    def test_in_a_trusted_shell(self, payload: str, folder: Path) -> None:
        """Guards E2: quoted even then, in every kind of quotes, and in a substitution within quotes."""
        command = """A=1; shown {v} '{v}' "{v}" a{v}"{v}" "$(printf %s_ "{v}")" 'a "{v}"' | cat - """
        (folder / "MLproject").write_text(json.dumps(entry(command)))
        bound = bind(read_project(folder), values={"v": payload}, trust=True)
        whole = f"{payload}_"
        assert told(bound)[:-1] == [payload, payload, payload, f"a{payload}{payload}", whole, f'a "{payload}"']
        appended = bind(read_project(folder), values={"v": "x", "w": payload}, trust=True)
        assert appended.argv[2].endswith(' --w "${MLCORE_VALUE_2}"')
        assert payload == appended.variables["MLCORE_VALUE_2"]

    def test_in_the_script_of_a_trusted_shell(self, payload: str, folder: Path) -> None:
        """Guards lists and templates that call a shell themselves."""
        text = "[tool.mlcore.entry_points.main]\nparameters = {v = 'str'}\n"
        text += """command = ["sh", "-c", "shown {v} '{v}' \\"$0\\"", "{v}"]"""
        (folder / "pyproject.toml").write_text(text)
        project = read_project(folder)
        with pytest.raises(ProjectError, match="needs a shell"):
            bind(project, values={"v": payload})
        assert told(bind(project, values={"v": payload}, trust=True))[:-1] == [payload] * 3

    def test_in_a_list_a_script_a_folder_and_a_command(self, payload: str, folder: Path) -> None:
        """Guards the other forms."""
        argv = ["python", "echo.py", "{v}", "--x={v}"]
        toml = f"[tool.mlcore.entry_points.main]\ncommand = {argv}\nparameters = {{v = 'str'}}"
        (folder / "pyproject.toml").write_text(toml)
        assert told(bind(read_project(folder), values={"v": payload}))[:-1] == [payload, f"--x={payload}"]
        (folder / "pyproject.toml").unlink()
        for project in (read_project(folder), read_project(folder / "echo.py")):
            assert told(bind(project, values={"v": payload}))[:-1] == ["--v", payload]
        command = read_command(["python", "echo.py", payload], folder)
        assert told(bind(command, values={"v": payload}))[:-1] == [payload, "--v", payload]

    def test_as_a_default_or_a_choice(self, payload: str, folder: Path) -> None:
        """Guards what the project itself says."""
        parameters = {"v": {"default": payload}, "c": {"choices": [payload, "x"], "default": payload}}
        (folder / "MLproject").write_text(json.dumps(entry("python echo.py {v} {c}", parameters)))
        assert told(bind(read_project(folder)))[:-1] == [payload, payload]

    def test_as_a_path_or_a_uri(self, payload: str, folder: Path, tmp_path: Path) -> None:
        """Guards files with such names, and such names of models and data that are not there."""
        parameters = {"p": "path"}
        (folder / "MLproject").write_text(json.dumps(entry("python echo.py {p}", parameters)))
        project = read_project(folder)
        name = payload.replace("/", "_")[:200] or "x"
        (folder / name).touch()
        assert told(bind(project, values={"p": name}, base=folder))[:-1] == [str(folder / name)]
        for uri in (
            f"runs:/{payload}/model",
            f"file://{payload}",
            f"http://127.0.0.1:1/{payload}",
            f"nope://{payload}",
        ):
            with pytest.raises(MlcoreError):
                bind(project, values={"p": uri}, storage=tmp_path / "storage")


def entry(command: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an MLproject, as JSON is YAML."""
    return {"entry_points": {"main": {"command": command, "parameters": parameters or {"v": "string"}}}}


class TestNames:
    """A name is a name, or an error."""

    def test_of_a_parameter(self, payload: str, folder: Path) -> None:
        """Guards `-P 'x;touch M=1'`, and such names in project files."""
        with pytest.raises(MlcoreError, match="cannot name a parameter"):
            bind(read_project(folder), "echo.py", {payload: "1"})
        (folder / "MLproject").write_text(json.dumps(entry("x", {payload: "string"})))
        with pytest.raises(ProjectError):
            read_project(folder)

    def test_of_an_entry_point(self, payload: str, folder: Path) -> None:
        """Guards `-e`, and that such a name in a file is only shown."""
        with pytest.raises(ProjectError, match="has no entry point"):
            entry_point(read_project(folder), payload)
        if payload and payload.isprintable() and not payload.startswith("-"):
            text = {"entry_points": {payload: {"command": "python echo.py"}}}
            (folder / "MLproject").write_text(json.dumps(text))
            assert told(bind(read_project(folder), payload)) == [""]

    def test_in_what_an_environment_wants(self, payload: str, folder: Path) -> None:
        """Guards lines of requirements, Pythons, images and variables: one line each as it is, or an error."""
        (folder / "MLproject").write_text("entry_points: {main: {command: x}}")
        for key, value in {"dependencies": [payload], "build_dependencies": [payload], "python": payload}.items():
            (folder / "python_env.yaml").write_text(json.dumps({key: value}))
            wanted = environment(folder)
            if wanted is not None:
                assert payload.isprintable()
                assert key != "python"
                assert not payload.startswith(("--upload-pack", "-oProxy"))
                assert wanted.environment.requirements + wanted.environment.build == (payload,)
        (folder / "python_env.yaml").unlink()
        (folder / "conda.yaml").write_text(json.dumps({"dependencies": [payload, {"pip": [payload]}]}))
        environment(folder)
        for image in (
            {"image": payload},
            {"image": "a", "volumes": [payload]},
            {"image": "a", "environment": [payload]},
        ):
            (folder / "MLproject").write_text(json.dumps({"docker_env": image}))
            if (found := environment(folder)) is not None:
                assert found.environment.container is not None
                assert payload.isprintable()
                assert not payload.startswith("-")

    def test_in_standard_requirements(self, payload: str, folder: Path) -> None:
        """Guards pyproject.toml and scripts, where a requirement is never an option or two lines."""
        for text in (
            f"[project]\nname = 'x'\ndependencies = [{json.dumps(payload)}]",
            f"[project]\nname = 'x'\nrequires-python = {json.dumps(payload)}",
        ):
            (folder / "pyproject.toml").write_text(f"{text}\n[tool.mlcore.entry_points.main]\ncommand = ['x']")
            with pytest.raises(ProjectError, match=r"is no requirement|must "):
                read_project(folder)


def environment(folder: Path) -> Project | None:
    """Return the project if its file is taken."""
    try:
        return read_project(folder)
    except ProjectError:
        return None


class TestSources:
    """An address reaches a repository, or is an error; a repository runs nothing."""

    def test_in_an_address(self, payload: str, git: Git, folder: Path) -> None:
        """Guards URLs, revisions and subfolders."""
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "first")
        sources = [payload, f"{folder}@{payload}x", f"{folder}@main#{payload}x", f"git@127.0.0.1:{payload}x"]
        sources += [f"http://127.0.0.1:1/{payload}", f"ssh://{payload}@127.0.0.1:1/{payload}"]
        for source in sources:
            with pytest.raises(SourceError):
                fetch(source)
        if payload:
            with pytest.raises(SourceError):
                fetch(str(folder), version=payload)

    def test_a_name_that_git_allows(self, git: Git, folder: Path, marker: Path) -> None:
        """Guards branches and folders whose names a shell would read."""
        name = "$(touch marker); `touch marker`"
        (folder / name).mkdir()
        (folder / name / "MLproject").write_text("entry_points: {main: {command: x}}")
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "first")
        git(folder, "branch", branch := "$(touch$IFS'marker');`touch$IFS'marker'`")
        found = fetch(f"{folder}@{branch}#{name}")
        assert (found.form, found.source.revision) == ("MLproject", branch)

    def test_hooks_filters_monitors_and_templates_do_not_run(
        self, git: Git, folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Guards against a repository on this machine that another user made, and against hooks of the user's own."""
        script = f"#!/bin/sh\ntouch {marker}\n"
        git(folder, "init", "-q")
        (folder / ".gitattributes").write_text("* filter=evil diff=evil\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "first")
        templates = tmp_path / "templates/hooks"
        templates.mkdir(parents=True)
        for hooks in (folder / ".git/hooks", templates):
            hooks.mkdir(exist_ok=True)
            for name in ("post-checkout", "reference-transaction", "post-merge", "pre-auto-gc", "post-index-change"):
                (hooks / name).write_text(script)
                (hooks / name).chmod(0o755)
        evil = {"core.fsmonitor": f"touch {marker}", "filter.evil.smudge": f"touch {marker}; cat"}
        evil |= {"core.sshCommand": f"touch {marker};", "uploadpack.packObjectsHook": f"touch {marker};"}
        evil |= {"core.pager": f"touch {marker}", "core.gitProxy": f"touch {marker}", "alias.fetch": f"!touch {marker}"}
        for key, value in evil.items():
            git(folder, "config", key, value)
        monkeypatch.setenv("GIT_TEMPLATE_DIR", str(templates.parent))
        assert fetch(f"{folder}@main").source.kind == "git"

    @pytest.mark.parametrize("url", ["ext::sh -c 'touch {m}'", "-oProxyCommand=touch {m}", "--upload-pack=touch {m}"])
    def test_submodules_reach_nothing_else(self, url: str, git: Git, folder: Path, marker: Path) -> None:
        """Guards .gitmodules, which the repository's author wrote."""
        git(folder, "init", "-q")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "first")
        commit = git(folder, "rev-parse", "HEAD")
        update = f"!touch {marker}"
        quoted = json.dumps(url.format(m=marker))
        modules = f'[submodule "x"]\n\tpath = x\n\turl = {quoted}\n\tupdate = {json.dumps(update)}\n'
        (folder / ".gitmodules").write_text(modules)
        git(folder, "update-index", "--add", "--cacheinfo", f"160000,{commit},x")
        git(folder, "add", ".gitmodules")
        git(folder, "commit", "-qm", "second")
        with pytest.raises(SourceError, match="cannot fetch"):
            fetch(f"{folder}@main")


def test_names_are_shown_as_they_are(payload: str, folder: Path) -> None:
    """Guards E3: whoever looks at a project sees what it says, and no terminal is told what to do."""
    parameters = {"v": {"default": payload, "help": "x"}}
    (folder / "MLproject").write_text(json.dumps({"name": "n" + payload, **entry("python echo.py {v}", parameters)}))
    shown = CliRunner().invoke(program, ["projects", "show", str(folder), "--json"])
    if not payload.isprintable():
        assert isinstance(shown.exception, ProjectError)
        return
    found = json.loads(shown.output)
    assert (found["name"], found["entry_points"][0]["parameters"][0]["default"]) == ("n" + payload, payload)
    page = CliRunner().invoke(program, ["projects", "show", str(folder)]).output
    assert f"n{payload} (MLproject)" in page
    assert repr(payload) in page

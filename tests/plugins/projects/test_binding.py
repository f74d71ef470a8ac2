"""Values are checked by their type, all at once, and reach the program as they are."""

from __future__ import annotations

import http.server
import math
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlcore
from mlcore_projects.binding import bind, entry_point
from mlcore_projects.errors import NeedsTrust, ParameterError, ProjectError
from mlcore_projects.reading import read_command, read_project
from mlcore_projects.specs import Bound, EntryPoint, Parameter, Project, Source, Wanted


def make(folder: Path, command: Any, *parameters: Parameter, open_: bool = False) -> Project:
    """Return a project with one entry point."""
    entry = EntryPoint("main", command, parameters, open=open_)
    return Project("demo", folder, "pyproject", {"main": entry}, Wanted(folder), Source(str(folder), "folder"))


def one(folder: Path, kind: str, value: object, **more: Any) -> tuple[str, Any]:
    """Return a value of a type as it is passed and as it is logged."""
    bound = bind(make(folder, ("x", "{v}"), Parameter("v", kind, **more)), values={"v": value}, base=folder)
    return bound.argv[1], bound.parameters["v"]


class TestTypes:
    @pytest.mark.parametrize(
        ("kind", "value", "text", "typed"),
        [
            ("float", "1e-3", "1e-3", 0.001),
            ("float", 0.1, "0.1", 0.1),
            ("float", 3, "3", 3.0),
            ("float", "-inf", "-inf", -math.inf),
            ("int", "-07", "-07", -7),
            ("int", 12, "12", 12),
            ("bool", "YES", "YES", True),
            ("bool", "0", "0", False),
            ("bool", True, "true", True),
            ("string", "", "", ""),
            ("string", "-x 'y'; $(z)\n", "-x 'y'; $(z)\n", "-x 'y'; $(z)\n"),
            ("string", 1.5, "1.5", "1.5"),
            ("uri", "s3://b/x y", "s3://b/x y", "s3://b/x y"),
            ("uri", "https://me:secret@h/x", "https://me:secret@h/x", "https://h/x"),
        ],
    )
    def test_a_value_is_passed_as_it_is_and_logged_by_its_type(
        self, kind: str, value: object, text: str, typed: object, tmp_path: Path
    ) -> None:
        """Guards texts that are numbers as well, and that no credentials are logged."""
        assert one(tmp_path, kind, value) == (text, typed)

    def test_nan_is_a_float(self, tmp_path: Path) -> None:
        """Guards the one that is not equal to itself."""
        assert math.isnan(one(tmp_path, "float", "nan")[1])

    @pytest.mark.parametrize(
        ("kind", "value", "told"),
        [
            ("float", "notanumber", "v must be a float, and is 'notanumber'"),
            ("float", "1_0", "must be a float"),
            ("float", " 1", "must be a float"),
            ("float", "", "must be a float"),
            ("int", "1.0", "v must be an int, and is '1.0'"),
            ("int", "٣", "must be an int"),
            ("int", "1" * 500, "must be an int"),
            ("bool", "maybe", "v must be true or false"),
            ("bool", "2", "v must be true or false"),
            ("uri", "no uri", "v must be a URI"),
            ("path", "none.csv", "there is no file or folder"),
            ("path", "", "must be a path, and is empty"),
            ("path", "file://elsewhere/x", "must be a path on this machine"),
            ("string", "a\0b", "holds a NUL"),
            ("string", "x" * 140_000, "is longer than an argument may be"),
            ("string", [1], "must be a text, a number, a truth or a path"),
            ("string", None, "must be a text, a number, a truth or a path"),
        ],
    )
    def test_what_is_of_another_type_is_refused(self, kind: str, value: object, told: str, tmp_path: Path) -> None:
        """Guards what MLflow lets through: `-P alpha=notanumber` runs there."""
        with pytest.raises(ParameterError) as raised:
            one(tmp_path, kind, value)
        assert told in str(raised.value)

    def test_a_choice_names_the_nearest(self, tmp_path: Path) -> None:
        """Guards choices of any type."""
        assert one(tmp_path, "choice", "svm", choices=("svm", "rf")) == ("svm", "svm")
        assert one(tmp_path, "int", 3, choices=("3", "5")) == ("3", 3)
        with pytest.raises(ParameterError, match=r"must be one of svm, rf, and is 'swm'; did you mean 'svm'\?"):
            one(tmp_path, "choice", "swm", choices=("svm", "rf"))

    def test_all_that_is_wrong_is_said_at_once(self, tmp_path: Path) -> None:
        """Guards whoever would start again for every slip."""
        declared = [Parameter("lr", "float"), Parameter("depth", "int", help="of the tree"), Parameter("name")]
        project = make(tmp_path, ("x",), *declared)
        with pytest.raises(ParameterError) as raised:
            bind(project, values={"lr": "x", "naem": "a", "zzz": 1})
        assert str(raised.value) == (
            "entry point 'main' of demo: no value for depth (int): of the tree, name (string); give each with"
            " -P NAME=VALUE; lr must be a float, and is 'x'; there is no parameter 'naem'; did you mean 'name'?;"
            " there is no parameter 'zzz'; there are 'lr', 'depth', 'name'"
        )


class TestPaths:
    def test_a_path_becomes_absolute_and_is_logged_as_it_lies_in_the_project(self, tmp_path: Path) -> None:
        """Guards runs that are made again in another folder."""
        (tmp_path / "data.csv").touch()
        (outside := tmp_path.parent / f"{tmp_path.name}-b").mkdir()
        (outside / "b.csv").touch()
        assert one(tmp_path, "path", "data.csv") == (str(tmp_path / "data.csv"), "data.csv")
        assert one(tmp_path, "path", (tmp_path / "data.csv").as_uri()) == (str(tmp_path / "data.csv"), "data.csv")
        assert one(tmp_path, "path", outside / "b.csv") == (str(outside / "b.csv"),) * 2

    def test_given_ones_begin_where_the_user_is_and_defaults_in_the_project(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards `mlcore run elsewhere -P data=mine.csv`."""
        (tmp_path / "project").mkdir()
        (tmp_path / "mine.csv").touch()
        (tmp_path / "project/own.csv").touch()
        monkeypatch.chdir(tmp_path)
        project = make(tmp_path / "project", ("x", "{d}"), Parameter("d", "path", "own.csv", required=False))
        assert bind(project).argv == ("x", str(tmp_path / "project/own.csv"))
        assert bind(project, values={"d": "mine.csv"}).argv == ("x", str(tmp_path / "mine.csv"))

    def test_what_is_remote_is_downloaded_where_a_path_is_wanted(self, tmp_path: Path, served: str) -> None:
        """Guards MLflow's rule, credentials that are used and not logged, and that a dry run downloads nothing."""
        project = make(tmp_path, ("x", "{d}"), Parameter("d", "path"))
        uri = f"http://me:secret@{served}/a/data.csv?token=t0p"
        bound = bind(project, values={"d": uri}, storage=tmp_path / "storage")
        assert bound.argv[1] == str(tmp_path / "storage/d/data.csv")
        assert Path(bound.argv[1]).read_text() == "Basic bWU6c2VjcmV0 /a/data.csv?token=t0p"
        assert bound.parameters == {"d": f"http://{served}/a/data.csv?token=***"}
        assert bind(project, values={"d": uri}).argv == ("x", uri)

    def test_any_filesystem_of_fsspec_will_do_folders_too(self, tmp_path: Path) -> None:
        """Guards what is in a bucket."""
        fsspec = pytest.importorskip("fsspec")
        memory = fsspec.filesystem("memory")
        memory.pipe({"/bucket/a/x.txt": b"x", "/bucket/a/b/y.txt": b"y"})
        project = make(tmp_path, ("x", "{d}"), Parameter("d", "path"))
        folder = Path(bind(project, values={"d": "memory://bucket/a"}, storage=tmp_path / "s").argv[1])
        assert {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*.txt")} == {
            "x.txt": "x",
            "b/y.txt": "y",
        }
        file = Path(bind(project, values={"d": "memory://bucket/a/x.txt"}, storage=tmp_path / "s").argv[1])
        assert file.read_text() == "x"

    def test_a_file_of_a_run_is_a_path_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards pipelines: what one run kept is what the next one reads."""
        monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
        with mlcore.start_run() as run:
            mlcore.log_text("1,2", "data/a.csv")
        project = make(tmp_path, ("x", "{d}"), Parameter("d", "path"))
        uri = f"runs:/{run.id}/data/a.csv"
        bound = bind(project, values={"d": uri}, storage=tmp_path / "storage")
        assert Path(bound.argv[1]).read_text() == "1,2"
        assert bound.parameters == {"d": uri}

    @pytest.mark.parametrize(
        "uri", ["http://{}/missing", "http://{}/short", "memory://none/x", "simplecache::http://{}/a", "nosuch://x/y"]
    )
    def test_what_cannot_be_had_leaves_nothing(self, uri: str, tmp_path: Path, served: str) -> None:
        """Guards one clear error, and a storage folder without halves."""
        project = make(tmp_path, ("x", "{d}"), Parameter("d", "path"))
        with pytest.raises(ProjectError, match="cannot download"):
            bind(project, values={"d": uri.format(served)}, storage=tmp_path / "storage")
        assert list((tmp_path / "storage").iterdir()) == []


@pytest.fixture
def served() -> Iterator[str]:
    """Serve what was asked for and by whom, over HTTP; ``/missing`` is not there, ``/short`` is cut off."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/missing":
                return self.send_error(404)
            body = f"{self.headers.get('Authorization')} {self.path}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + 100 * (self.path == "/short")))
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestCommands:
    def test_python_is_left_to_the_environment(self, tmp_path: Path) -> None:
        """Guards what a runner relies on."""
        assert bind(make(tmp_path, ("python3", "x.py"))).argv == ("python", "x.py")
        assert bind(make(tmp_path, "python3 x.py")).argv == ("python", "x.py")

    def test_what_is_not_declared_is_appended_where_that_is_meant(self, tmp_path: Path) -> None:
        """Guards MLflow's rule for MLproject files and bare scripts, with what looks like a slip refused."""
        project = make(tmp_path, "python x.py {lr}", Parameter("lr", "float", 0.1, required=False), open_=True)
        bound = bind(project, values={"epochs": 3, "a-b": " '"})
        assert bound.argv == ("python", "x.py", "0.1", "--epochs", "3", "--a-b", " '")
        assert bound.parameters == {"lr": 0.1, "epochs": "3", "a-b": " '"}
        with pytest.raises(ParameterError, match=r"there is no parameter 'lrr'; did you mean 'lr'\?"):
            bind(project, values={"lrr": 3})
        assert bind(project, values={"lr": 1, "lrr": 3}).argv[2:] == ("1", "--lrr", "3")
        command = read_command(["prog", "{lr}"], tmp_path)
        assert bind(command, values={"lr": 1}).argv == ("prog", "{lr}", "--lr", "1")

    def test_truths_are_written_as_whoever_reads_the_form_expects(self, tmp_path: Path) -> None:
        """Guards `default: true` in an MLproject, which MLflow passes as True."""
        flag = Parameter("flag", "bool", default=True, required=False)
        assert bind(make(tmp_path, "x {flag}", flag)).argv[1] == "True"
        assert bind(make(tmp_path, ("x", "{flag}"), flag)).argv[1] == "true"

    def test_a_template_is_split_as_a_shell_would_and_needs_none(self, tmp_path: Path) -> None:
        """Guards quotes, escapes, continued lines, empty arguments, assignments and braces."""
        template = (
            "A=1 B='{v}' python \"a b\" c\\ d '' \"x\\\"{v}\" \\\n  --k='{v}'e '{{7*7}}' '$HOME' \"\\$x\" $ a=b\n"
        )
        bound = bind(make(tmp_path, template, Parameter("v")), values={"v": "it's $(x)"})
        v = "it's $(x)"
        assert bound.variables == {"A": "1", "B": v}
        assert bound.argv[1:] == ("a b", "c d", "", f'x"{v}', f"--k={v}e", "{7*7}", "$HOME", "$x", "$", "a=b")

    @pytest.mark.parametrize(
        ("template", "what"),
        [
            ("x | y", "'|'"),
            ("x && y", "'&'"),
            ("x > y", "'>'"),
            ("x; y", "';'"),
            ("(x)", "'('"),
            ("x\ny", "several lines"),
            ("x $HOME", "'$'"),
            ("x ${{HOME}}", "'$'"),
            ('x "$(y)"', "'$'"),
            ("x `y`", "'`'"),
            ("x *.csv", "'*'"),
            ("x ~/y", "'~'"),
            ("A=~/y x", "'~'"),
            ("x a=~", "'~'"),
            ("x # y", "'#'"),
            ("x {{a,b}}", "'{,}'"),
            ("exec x", "'exec'"),
            ("bash -c 'x'", "'the script after -c'"),
            ("env A=1 /bin/sh -ec 'x'", "'the script after -c'"),
            ("bash -O extglob -c 'x'", "'the script after -c'"),
        ],
    )
    def test_what_needs_a_shell_needs_trust(self, template: str, what: str, tmp_path: Path) -> None:
        """Guards E2: no shell without an explicit step, which the error names."""
        with pytest.raises(NeedsTrust) as raised:
            bind(make(tmp_path, template))
        assert what in str(raised.value)
        assert "--trust" in str(raised.value)
        assert bind(make(tmp_path, template), trust=True).shell

    def test_a_trusted_shell_does_what_the_template_says(self, tmp_path: Path) -> None:
        """Guards that trust is of use: pipes, variables, and values in every kind of quotes."""
        template = """printf '%s,' {v} "{v}" '{v}' "$(printf %s {v})" a{v}"b" | cat; printf "<$X>" """
        bound = bind(make(tmp_path, template, Parameter("v"), open_=True), values={"v": "a  'b' \"$X\" *"}, trust=True)
        v = "a  'b' \"$X\" *"
        assert ran(bound, X="1") == f"{v},{v},{v},a,'b',\"$X\",*,a{v}b,<1>".replace("a,'b',\"$X\",*", v)

    @pytest.mark.parametrize(
        "command",
        [
            "python -c 'print({v})'",
            ("python3.11", "-W", "error", "-c", "{v}"),
            ("perl", "-e", "{v}"),
            "node --eval {v}",
            ("env", "python", "-Bc", "x={v}"),
        ],
    )
    def test_a_value_is_never_a_part_of_a_program(self, command: Any, tmp_path: Path) -> None:
        """Guards E1: what comes after -c is code, with trust as well."""
        for trust in (False, True):
            with pytest.raises(ProjectError, match="would be run as a part of a program"):
                bind(make(tmp_path, command, Parameter("v")), values={"v": "1"}, trust=trust)

    @pytest.mark.parametrize("command", ["ssh host {v}", ("sudo", "-n", "/bin/su", "-c", "{v}"), "env A=1 watch {v}"])
    def test_a_program_that_asks_a_shell_gets_no_values(self, command: Any, tmp_path: Path) -> None:
        """Guards E1: the other end of ssh reads what it is given with a shell."""
        with pytest.raises(ProjectError, match="hands its arguments to a shell"):
            bind(make(tmp_path, command, Parameter("v")), values={"v": "1"}, trust=True)
        assert bind(make(tmp_path, ("x", "ssh", "{v}"), Parameter("v")), values={"v": "1"}).argv == ("x", "ssh", "1")

    def test_a_pipe_into_a_program_may_have_values(self, tmp_path: Path) -> None:
        """Guards what trust is for."""
        template = "cat data.csv | python train.py {v} | bash report.sh {v}"
        assert bind(make(tmp_path, template, Parameter("v")), values={"v": "1"}, trust=True).shell

    @pytest.mark.parametrize(
        "template",
        [
            "x=$(({v}+1)); echo $x",
            "[[ {v} -eq 1 ]] && x",
            "eval {v}; x",
            "a | bash -c 'echo {v}'",
            "a | python3 -c '{v}'",
            "bash -c 'let x={v}'",
            "cat <<E; {v}\nE",
            "a && ssh host {v}",
            "echo {v} | bash",
            "echo {v} | python3 - ; b",
            "echo {v} |& sh -s",
            "a; su me -c {v}",
        ],
    )
    def test_what_is_read_twice_is_refused_with_trust_too(self, template: str, tmp_path: Path) -> None:
        """Guards values that quotes do not protect."""
        with pytest.raises(ProjectError, match="may read what it is given as code"):
            bind(make(tmp_path, template, Parameter("v")), values={"v": "a[$(touch M)]"}, trust=True)


def ran(bound: Bound, **variables: str) -> str:
    """Run what was bound, and return what it prints."""
    environment = {**os.environ, **bound.variables, **variables}
    return subprocess.run(
        bound.argv, cwd=bound.folder, env=environment, capture_output=True, text=True, check=True
    ).stdout


class TestEntryPoints:
    def test_one_is_found_by_name_by_default_and_as_a_script(self, tmp_path: Path) -> None:
        """Guards MLflow's rules, and a project with a single one."""
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub/x.py").touch()
        (tmp_path / "MLproject").write_text("entry_points: {train: {command: python t.py}}")
        project = read_project(tmp_path)
        assert entry_point(project).name == "train"
        assert entry_point(project, "sub/x.py").command == ("python", "sub/x.py")

    @pytest.mark.parametrize("name", ["trian", "x.py", "../x.py", "/etc/x.py", "a;touch M.py", "--help", ""])
    def test_an_unknown_one_names_the_nearest(self, name: str, tmp_path: Path) -> None:
        """Guards against slips, and against scripts that lie elsewhere."""
        (tmp_path / "project").mkdir()
        (tmp_path / "x.py").touch()
        (tmp_path / "project/MLproject").write_text("entry_points: {train: {command: x}, test: {command: x}}")
        with pytest.raises(ProjectError) as raised:
            entry_point(read_project(tmp_path / "project"), name)
        assert f"has no entry point {name!r}" in str(raised.value)
        assert ("did you mean 'train'?" in str(raised.value)) == (name == "trian")

    def test_without_a_name_and_a_main_the_names_are_said(self, tmp_path: Path) -> None:
        """Guards whoever is new to a project."""
        (tmp_path / "MLproject").write_text("entry_points: {a: {command: x}, b: {command: x}}")
        with pytest.raises(ProjectError, match="has no entry point main; there are 'a', 'b': name one"):
            entry_point(read_project(tmp_path))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ProjectError, match="there is nothing to run"):
            entry_point(read_project(tmp_path / "empty"))

    def test_a_job_for_databricks_is_refused(self, tmp_path: Path) -> None:
        """Guards against running what was meant for another machine."""
        (tmp_path / "MLproject").write_text("databricks_spark_job: {}\nentry_points: {main: {command: x}}")
        with pytest.raises(ProjectError, match="is a job for Databricks"):
            bind(read_project(tmp_path))

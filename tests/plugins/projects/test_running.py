"""Running projects: what is run, what its run records, and what is refused before anything was started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

import mlcore
from mlcore import Client, Provider, Run, plugins
from mlcore.cli import program
from mlcore.errors import MlcoreError, NotInstalled, RunStateError
from mlcore_projects import jobs, outputs
from mlcore_projects.errors import ParameterError, ProjectError
from mlcore_projects.local import LocalRunner
from mlcore_projects.outputs import Output
from mlcore_projects.reconciling import reconcile
from mlcore_projects.runners import Abilities, Handle, Job, Runner, RunnerError, Status
from mlcore_projects.running import Submitted, preview, run

SECONDS = 60


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLCORE_RUN_ID", "MLCORE_EXPERIMENT", "MLCORE_CAPTURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Open the store."""
    opened = Client(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with typed parameters."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        textwrap.dedent("""
        [project]
        name = "weather"
        version = "1"
        [tool.mlcore.environment]
        kind = "system"
        [tool.mlcore.entry_points.main]
        command = ["python", "train.py", "{lr}", "{note}", "{password}"]
        [tool.mlcore.entry_points.main.parameters]
        lr = {type = "float", default = 0.1}
        note = {type = "string", default = ""}
        password = {type = "string", default = ""}
        """)
    )
    (folder / "train.py").write_text("import json, sys, os\nprint(json.dumps([*sys.argv[1:], os.getcwd()]))\n")
    return folder


def printed(submitted: Submitted) -> Any:
    """Return what a job printed, as JSON."""
    return json.loads(b"".join(submitted.logs()))


def invoke(*arguments: str) -> Result:
    """Call the program in this process."""
    return CliRunner().invoke(program, [*arguments], prog_name="mlcore")


def mlcore_run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Call the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mlcore", "run", *map(str, arguments)], input=stdin, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip


def test_a_run_has_what_was_run(project: Path, client: Client) -> None:
    """Guards what makes a run findable and repeatable: typed parameters, project, entry point, command, environment."""
    submitted = run(project, parameters={"lr": "0.5", "note": "it's; $(here)"}, name="mine", tags={"for": "test"})
    assert submitted.status() == Status("finished", 0)
    assert printed(submitted) == ["0.5", "it's; $(here)", "", str(project)]
    found = submitted.run
    assert (found.status, found.name) == ("FINISHED", "mine")
    assert found.params == {"lr": 0.5, "note": "it's; $(here)", "password": ""}
    assert found.tags == {"for": "test", "source": str(project)}
    told = {name.removeprefix("project."): each for name, each in found.context.items() if name.startswith("project.")}
    assert told["command"] == ["python", "train.py", "0.5", "it's; $(here)", ""]
    assert (told["source"], told["entry_point"], told["environment"]) == (str(project), "main", "system")
    assert (told["runner"], told["exit_code"], told["ended"]) == ("local", 0, "finished")
    assert found.context["command.argv"] == told["command"]
    assert {"host.name", "python.version", "packages.digest"} <= found.context.keys()
    assert {".mlcore/output.log", ".mlcore/project/lock.txt"} <= {each.path for each in found.artifacts.list()}


def test_what_looks_secret_is_not_recorded(project: Path, client: Client, tmp_path: Path) -> None:
    """Guards parameters and commands: the job is given the word, and the store never sees it, joined or not."""
    canary = "hunter2-canary"
    train = project / "train.py"
    train.write_text(train.read_text() + "import mlcore\nmlcore.log_metric('loss', 1)\n")
    submitted = run(project, parameters={"password": canary})
    assert printed(submitted)[2] == canary
    assert submitted.run.params["password"] == "***"
    run([sys.executable, "-c", "pass", f"--password={canary}", "--token", canary])
    logged = submitted.run.artifacts.get(".mlcore/output.log")
    found = [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and canary.encode() in path.read_bytes()
    ]
    assert found == [logged]  # what the job printed itself
    with pytest.raises(ParameterError, match="password"):
        run(resume=submitted.run_id)
    assert printed(run(resume=submitted.run_id, parameters={"password": "new"}))[2] == "new"


def test_a_bare_command_needs_no_project(client: Client) -> None:
    """Guards `mlcore run -- CMD`, for programs that know nothing of mlcore."""
    done = mlcore_run("-q", "--", "sh", "-c", 'read line; echo "$line and $0"; exit 5', "it's", stdin="input\n")
    assert (done.returncode, done.stdout) == (5, "input and it's\n"), done.stderr
    (found,) = client.list_runs()
    assert (found.status, found.context["project.exit_code"]) == ("FAILED", 5)
    assert found.context["project.command"] == ["sh", "-c", 'read line; echo "$line and $0"; exit 5', "it's"]
    assert found.context["command.kind"] == "command"


def test_an_environment_without_mlcore_runs_jobs_as_well(client: Client) -> None:
    """Guards empty environments: what the job is, prints and ends like is recorded from outside."""
    code = "import sys\ntry:\n    import mlcore\nexcept ImportError: print(sys.prefix)"
    if shutil.which("uv") is None and not (Path(sys.executable).parent / "uv").exists():
        pytest.skip("uv is not installed: pip install uv")
    submitted = run(["python", "-c", code], environment="uv")
    found = submitted.run
    assert found.status == "FINISHED"
    assert "environments" in b"".join(submitted.logs()).decode()
    assert found.context["project.environment"] == "uv"
    assert "python" not in found.context.get("captured", ())


def test_output_streams_stay_apart(client: Client) -> None:
    """Guards `mlcore run ... 2>errors`: and what mlcore says of itself goes to stderr, or nowhere."""
    done = mlcore_run("-q", "--", "sh", "-c", "echo out; echo error >&2")
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("out\n", "error")
    done = mlcore_run("--json", "--", "sh", "-c", "echo out")
    told = json.loads(done.stdout)
    assert told == {"run": client.list_runs()[0].id, "state": "finished", "exit_code": 0}
    assert "out\n" in done.stderr


def test_a_dry_run_changes_nothing(project: Path, tmp_path: Path) -> None:
    """Guards --dry-run: it tells what would be run, and leaves every folder as it was."""
    before = sorted(tmp_path.rglob("*"))
    told = json.loads(invoke("run", str(project), "-P", "lr=0.5", "-P", "password=x", "--dry-run", "--json").output)
    assert told["command"] == ["python", "train.py", "0.5", "", "***"]
    assert told["parameters"] == {"lr": 0.5, "note": "", "password": "***"}
    assert (told["environment"], told["built"], told["runner"], told["entry_point"]) == (
        "system",
        True,
        "local",
        "main",
    )
    assert "command     python train.py 0.1 '' ''" in invoke("run", str(project), "--dry-run").output
    assert sorted(tmp_path.rglob("*")) == before
    assert preview(project).bound.parameters["lr"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["project", "-e", "trian"], "has no entry point 'trian'"),
        (["project", "-P", "lr=fast"], "must be a float"),
        (["nowhere"], "nowhere"),
        (["project", "--runner", "fridge"], "nothing installed provides 'fridge'"),
        (["project", "--runner", "docker"], "pip install mlcore-docker"),
        (["project", "--env", "nix"], "nothing installed provides 'nix'"),
        (["--resume", "12345678", "project"], "there is no store"),
        (["project", "-P", "lr"], "is not NAME=VALUE"),
        (["project", "-P", "lr=1", "-P", "lr=2"], "given twice"),
        (["project", "--", "ls"], "not both"),
        ([], "give a source"),
        (["--"], "there is no command"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    arguments: list[str], told: str, project: Path, tmp_path: Path, client: Client
) -> None:
    """Guards typing errors: one clear error, and no run, store or folder of a job."""
    found = invoke("run", *arguments)
    assert found.exit_code != 0
    assert told in found.output + str(found.exception)
    assert found.exit_code == 2 or isinstance(found.exception, MlcoreError)
    assert not (tmp_path / "store").exists()
    assert list(jobs.folders(mlcore.config.user_state() / "jobs")) == []


def test_a_run_inside_another_says_so(client: Client) -> None:
    """Guards pipelines: a step that a job runs by mlcore run is a part of the job's run."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'mlcore', 'run', '--', 'true'], check=True)"
    outer = run([sys.executable, "-c", code])
    assert outer.status().state == "finished", b"".join(outer.logs())
    (inner,) = [each for each in client.list_runs("*") if each.id != outer.run_id]
    assert inner.parent_run_id == outer.run_id


def test_a_detached_job_is_followed_and_cancelled_by_its_handle(client: Client) -> None:
    """Guards what other processes do with a handle, here by way of the run."""
    submitted = run(["sh", "-c", "echo begun; sleep 600"], detach=True, grace=0.5)
    assert next(submitted.logs(follow=True)) == b"begun\n"
    handle = submitted.run.context["project.handle"]
    assert handle == submitted.handle
    with pytest.raises(RunStateError, match="RUNNING"):
        run(resume=submitted.run_id)
    LocalRunner().cancel(handle)
    assert submitted.wait(SECONDS).state == "killed"
    assert submitted.run.status == "KILLED"


def test_nothing_is_recorded_where_mlcore_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards MLCORE_STORE=off: the job runs all the same."""
    monkeypatch.setenv("MLCORE_STORE", "off")
    submitted = run(["sh", "-c", "echo $MLCORE_STORE; exit 4"])
    assert (submitted.status().exit_code, b"".join(submitted.logs())) == (4, b"off\n")
    assert list(tmp_path.iterdir()) == []


class Far(Runner):
    """A runner of another machine, which is only asked what it can do."""

    name = "far"
    abilities = Abilities(detached=False)


@pytest.fixture
def _far() -> Iterator[None]:
    plugins.register(type("Plugin", (), {"mlcore_runners": staticmethod(lambda: [Provider("far", Far)])}), "far")
    yield
    plugins.unregister("far")


@pytest.mark.usefixtures("_far")
def test_what_a_runner_cannot_do_is_told_before_it_is_asked_to(project: Path) -> None:
    """Guards runners elsewhere from stores in a folder of this machine, and from jobs they could not go on with."""
    with pytest.raises(RunnerError, match="does not see the folder"):
        run(project, runner="far")
    with pytest.raises(RunnerError, match="without the process that submitted it"):
        run(project, runner="far", detach=True)


def ended(client: Client, code: str = "print('hello')") -> tuple[Run, dict[str, Any]]:
    """Run a job to its end, and have its run read as if nobody had told it."""
    found = run([sys.executable, "-c", code]).run
    return found, dict(found.context["project.handle"])


def test_an_end_that_the_run_was_not_told_is_found(client: Client) -> None:
    """Guards runs whose supervisor died between the end of the job and the end of the run: how it ended is on disk."""
    submitted = run(["sh", "-c", "echo hello; sleep 600"], detach=True)
    assert next(submitted.logs(follow=True)) == b"hello\n"
    folder = Path(submitted.handle["folder"])
    os.kill(int(submitted.handle["pid"]), 9)
    jobs.end(folder, {"state": "failed", "exit_code": 3, "reason": "exit code 3", "recorded": False})
    assert submitted.wait(SECONDS) == Status("failed", 3, "exit code 3")
    assert submitted.run.status == "LOST"
    (told,) = reconcile()
    assert (told.run.id, told.status, told.reason, told.changed) == (submitted.run_id, "FAILED", "exit code 3", True)
    found = client.get_run(submitted.run_id)
    assert found.context["project.exit_code"] == 3
    assert found.artifacts.get(".mlcore/output.log").read_text() == "hello\n"
    assert reconcile() == []


def test_what_a_handle_tells_is_not_taken_for_another_process(client: Client) -> None:
    """Guards against process ids that were given again, machines that were started anew, and those of others."""
    submitted = run(["sleep", "600"], detach=True, grace=0.5)
    runner, handle = submitted.runner, dict(submitted.handle)
    assert runner.wait(handle, 0).state in ("pending", "running")
    folder = Path(handle["folder"])

    def status(**changed: Any) -> Status:
        return runner.status({**handle, **changed})

    assert status(started="1") == Status("lost", reason="its supervisor was killed")
    assert status(boot="another") == Status("lost", reason="the machine was started anew")
    assert status(host="elsewhere").state == "running"
    assert "elsewhere" in status(host="elsewhere").reason
    assert status(pidns=1).state == "running"
    with pytest.raises(RunnerError, match="cancel it there"):
        runner.cancel({**handle, "host": "elsewhere"})
    with pytest.raises(RunnerError, match="is no handle"):
        runner.status({"runner": "other"})
    runner.cancel({**handle, "started": "1"})  # another process of that number, perhaps
    assert not runner.status(handle).ended
    runner.cancel(handle)
    assert runner.wait(handle, SECONDS).state == "killed"
    assert oct(folder.stat().st_mode & 0o777) == "0o700"


def test_jobs_are_forgotten_a_day_after_their_end(tmp_path: Path) -> None:
    """Guards the user's disk, and jobs that no run knows of yet."""
    for recorded in (True, False):
        folder = jobs.make(tmp_path / "jobs", "1" * 32, {})
        jobs.end(folder, {"state": "finished", "recorded": recorded})
        about = json.loads((folder / "end.json").read_text())
        (folder / "end.json").write_text(json.dumps({**about, "time": (time.time() - 90_000) * 1000}))
    young = jobs.make(tmp_path / "jobs", "2" * 32, {})
    jobs.forget_old(tmp_path / "jobs")
    left = list(jobs.folders(tmp_path / "jobs"))
    assert young in left
    assert [jobs.ended(each).get("recorded") for each in left if each != young] == [False]


def test_an_output_is_read_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the parts of an output: nothing twice, nothing out of order, and a line for what was left out."""
    monkeypatch.setattr(outputs, "HEAD", 100)
    monkeypatch.setattr(outputs, "PART", 50)
    output, seen, over = Output(tmp_path), b"", [False]
    following = outputs.follow(tmp_path, lambda: over[0])
    for number in range(10):
        output.write(f"{number:09}\n".encode())
        seen += next(following)
    assert seen == b"".join(f"{number:09}\n".encode() for number in range(10))
    output.write(b"x" * 200 + b"y" * 60 + b"the end\n")
    output.close()
    over[0] = True
    rest = b"".join(following)
    assert rest.endswith(b"yyythe end\n")
    assert b"bytes left out" in rest
    kept = b"".join(outputs.whole(tmp_path))
    assert kept.startswith(b"000000000\n")
    assert len(kept) < 300
    assert outputs.shortened(b"abcdef", 3) == b"abcdef"
    assert outputs.shortened(b"abcdefg", 3) == b"abc\n... 1 bytes left out ...\nefg"


def test_what_a_runner_is_asked_for_has_a_name() -> None:
    """Guards `--runner`: a name nobody provides says what would."""
    from mlcore_projects.runners import runner_named

    assert isinstance(runner_named("local"), LocalRunner)
    with pytest.raises(NotInstalled, match="mlcore-kubernetes"):
        runner_named("kubernetes")


def test_a_source_is_needed_to_resume_what_mlcore_run_did_not_start(client: Client) -> None:
    """Guards --resume of a run of a script: it says what is missing, and goes on with what is given."""
    with client.start_run() as before:
        pass
    with pytest.raises(ProjectError, match="was not started by mlcore run"):
        run(resume=before.id)
    after = run(["true"], resume=before.id)
    assert (after.run_id, after.run.status) == (before.id, "FINISHED")


def test_records_and_statuses_are_plain_data(tmp_path: Path) -> None:
    """Guards what passes between processes: a handle and a record are JSON."""
    handle: Handle = jobs.handle_of("1" * 32, tmp_path, os.getpid())
    assert json.loads(json.dumps(handle)) == handle
    assert [each.name for each in attrs.fields(Job)][:4] == ["run_id", "argv", "folder", "record"]

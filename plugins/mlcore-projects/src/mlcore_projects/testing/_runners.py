"""`RunnerContract`: every promise of `mlcore_projects.runners.Runner` as a test."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import attrs
import pytest

from mlcore import Client, Run
from mlcore.errors import MlcoreError, NotFound, StoreNotFound
from mlcore_projects.runners import ENDED, STATES, Abilities, Job, Record, Resources, Runner, Status

_T = TypeVar("_T")
# what a shell, a template or a line of text would take apart
_NASTY = (
    "",
    " ",
    "a b",
    "it's",
    '"',
    "$(echo no)",
    "`echo no`",
    ";",
    "&& false",
    "*",
    "{x}",
    "%s",
    "-x",
    "--",
    "\\",
    "ä€",
)
_LOOP = "import time\nprint('begun\\n', end='', flush=True)\nwhile True: time.sleep(0.05)"
_SAVES = """
import signal, sys, time
def save(number, _):
    print("saved by", signal.Signals(number).name, flush=True)
    sys.exit(0)
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, save)
print("begun\\n", end="", flush=True)
while True: time.sleep(0.05)
"""
_DEAF = "import signal\nfor each in (signal.SIGINT, signal.SIGTERM): signal.signal(each, signal.SIG_IGN)\n" + _LOOP
_BEATS = """
import subprocess, sys
beat = "import time, pathlib\\nfor n in range(10**6): pathlib.Path('beat').write_text(str(n)); time.sleep(0.02)"
subprocess.Popen([sys.executable, "-c", beat], start_new_session=True, stdout=subprocess.DEVNULL)
import pathlib, time
while not pathlib.Path('beat').exists(): time.sleep(0.02)
"""


class RunnerContract:
    """Subclass it in a test file and return your runner; the whole contract then runs on it, with real jobs.

    `python` is what starts Python where the jobs run; mlcore is installed there. `patience` is how many seconds a job
    may take to start and to end, `store` the URI of a store that jobs can reach, by default a folder.
    """

    python: ClassVar[str] = sys.executable
    patience: ClassVar[float] = 60.0
    store: ClassVar[str | None] = None

    def runner(self, tmp_path: Path) -> Runner:
        """Return a runner: at each call of one test another object, which knows the same jobs by their handles."""
        raise NotImplementedError(f"{type(self).__name__} must return its runner")

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Place]:
        """Yield where jobs are made and submitted, and end those that are left."""
        for name in ("MLCORE_RUN_ID", "MLCORE_EXPERIMENT", "MLCORE_STORE", "MLCORE_CAPTURE"):
            monkeypatch.delenv(name, raising=False)
        place = _Place(self, tmp_path)
        yield place
        place.close()

    def test_the_abilities_are_declared(self, tmp_path: Path) -> None:
        """A runner has a name, and says what it can do in words that mlcore knows."""
        runner = self.runner(tmp_path)
        assert runner.name == runner.name.strip() != ""
        assert isinstance(runner.abilities, Abilities)
        assert runner.abilities.resources <= {each.name for each in attrs.fields(Resources)}
        assert runner.abilities.environments <= {"ready", "wanted", "image"}

    def test_a_job_that_ends_well_finishes_its_run(self, place: _Place) -> None:
        """The run is there under the job's id, with all that the record says, and ends as the job does."""
        handle = place.submit("print('hello')")
        assert place.wait(handle) == Status("finished", 0)
        run = place.run()
        assert (run.status, run.name, run.params) == ("FINISHED", "a name", {"lr": 0.1, "note": "it's"})
        assert run.tags["source"] == "here"
        assert run.context["project.source"] == "here"
        assert run.context["project.exit_code"] == 0
        with run.artifacts.open(".mlcore/project/lock.txt") as file:
            assert file.read() == b"numpy==2.0\n"

    def test_a_job_that_fails_says_how(self, place: _Place) -> None:
        """The exit code is that of the job's process, and the run is FAILED."""
        status = place.wait(place.submit("raise SystemExit(7)"))
        assert (status.state, status.exit_code) == ("failed", 7)
        assert status.reason
        assert (place.run().status, place.run().context["project.exit_code"]) == ("FAILED", 7)

    def test_a_program_that_is_not_there_fails(self, place: _Place) -> None:
        """What cannot be started is a job that failed, with a reason, or refused when it is submitted."""
        try:
            handle = place.submit_argv(("no-such-program-anywhere",))
        except MlcoreError:
            return
        status = place.wait(handle)
        assert status.state == "failed"
        assert status.reason
        assert place.run().status == "FAILED"

    def test_arguments_arrive_as_they_are(self, place: _Place) -> None:
        """No shell comes between: quotes, spaces, semicolons and dollars are as they were."""
        handle = place.submit("import json, sys; print(json.dumps(sys.argv[1:]))", *_NASTY)
        place.wait(handle)
        assert json.loads(place.printed(handle)) == list(_NASTY)

    def test_variables_arrive_as_they_are(self, place: _Place) -> None:
        """What the job asks to be set is set, beside what leads it to its run."""
        code = "import json, os; print(json.dumps([os.environ['NOTE'], os.environ['MLCORE_RUN_ID']]))"
        handle = place.submit(code, variables={"NOTE": "it's $HOME;"})
        place.wait(handle)
        assert json.loads(place.printed(handle)) == ["it's $HOME;", place.run_id]

    def test_it_runs_in_the_folder_of_the_job(self, place: _Place) -> None:
        """Relative paths of a project are read where its files are."""
        (place.folder / "data.txt").write_text("12 rows")
        handle = place.submit("print(open('data.txt').read())")
        place.wait(handle)
        assert place.printed(handle) == "12 rows\n"

    def test_what_it_prints_is_kept(self, place: _Place) -> None:
        """Both streams are in the logs, and in a file of the run."""
        handle = place.submit("import sys; print('out', flush=True); print('error', file=sys.stderr)")
        place.wait(handle)
        assert sorted(place.printed(handle).split()) == ["error", "out"]
        assert sorted(place.kept().split()) == ["error", "out"]

    def test_logs_can_be_followed(self, place: _Place) -> None:
        """What a job prints can be read while it goes on, and following ends with it."""
        handle = place.submit(_SAVES)
        told = place.again().logs(handle, follow=True)
        assert place.within(lambda: next(told)).startswith(b"begun")
        assert not place.again().status(handle).ended
        place.again().cancel(handle)
        assert b"saved by SIGTERM" in place.within(lambda: b"".join(told))

    def test_submit_does_not_wait_for_the_end(self, place: _Place) -> None:
        """A job goes on while whoever submitted it does something else."""
        handle = place.within(lambda: place.submit(_LOOP))
        status = place.again().status(handle)
        assert status.state in STATES
        assert not status.ended
        assert place.opened().status == "RUNNING"

    def test_waiting_has_an_end(self, place: _Place) -> None:
        """With a timeout the status comes back in time, of a job that goes on as well."""
        handle = place.submit(_LOOP)
        assert not place.within(lambda: place.again().wait(handle, 0.2)).ended

    def test_a_handle_is_all_that_another_process_needs(self, place: _Place) -> None:
        """It is JSON; a runner that never saw the job knows by it what became of the job."""
        handle = json.loads(json.dumps(place.submit("print('hello')")))
        assert place.again().wait(handle, self.patience).state == "finished"
        assert place.again().status(handle) == Status("finished", 0)
        assert b"".join(place.again().logs(handle)) == b"hello\n"
        assert place.run().context["project.handle"] == handle

    def test_cancel_lets_a_job_save_what_it_has(self, place: _Place) -> None:
        """It is asked by SIGTERM; its run is KILLED whatever its exit code, and its output kept."""
        handle = place.begun(_SAVES)
        place.again().cancel(handle)
        status = place.wait(handle)
        assert (status.state, place.run().status) == ("killed", "KILLED")
        assert place.kept() == "begun\nsaved by SIGTERM\n"

    def test_an_interrupt_comes_as_one(self, place: _Place) -> None:
        """Ctrl-C is SIGINT for the job, which a Python program sees as KeyboardInterrupt."""
        handle = place.begun(_SAVES)
        place.again().cancel(handle, interrupt=True)
        assert place.wait(handle).state == "killed"
        assert place.kept() == "begun\nsaved by SIGINT\n"

    def test_one_that_does_not_listen_is_killed_after_its_grace(self, place: _Place) -> None:
        """No job outlives its grace."""
        handle = place.begun(_DEAF, grace=0.5)
        place.again().cancel(handle)
        assert place.wait(handle).state == "killed"
        assert place.run().status == "KILLED"

    def test_cancelling_what_has_ended_changes_nothing(self, place: _Place) -> None:
        """It is no error either: who cancels cannot know."""
        handle = place.submit("pass")
        place.wait(handle)
        place.again().cancel(handle)
        assert place.again().status(handle).state == "finished"
        assert place.run().status == "FINISHED"

    def test_what_a_job_starts_ends_with_it(self, place: _Place) -> None:
        """A process that it left behind, in a session of its own, is gone when the job has ended."""
        handle = place.submit(_BEATS, grace=0.5)
        assert place.wait(handle).state == "finished"
        beat = (place.folder / "beat").read_text()
        time.sleep(0.3)
        assert (place.folder / "beat").read_text() == beat

    def test_a_job_logs_into_its_run(self, place: _Place) -> None:
        """What the job's process logs is of the same run, which it joins and does not end."""
        code = "import mlcore\nwith mlcore.start_run() as run: run.log_metric('loss', 0.5)\nprint(run.id)\nexit(3)"
        handle = place.submit(code)
        assert place.wait(handle).exit_code == 3
        (run,) = place.client.list_runs("*")
        assert (run.id, run.metrics, run.status) == (place.run_id, {"loss": 0.5}, "FAILED")
        assert place.printed(handle) == f"{place.run_id}\n"

    def test_a_run_goes_on_with_another_job(self, place: _Place) -> None:
        """A job that was preempted is submitted once more as the same run, whose first output stays."""
        place.wait(place.submit("print('first'); exit(1)"))
        assert place.wait(place.submit("print('second')", resumed=True)).state == "finished"
        (run,) = place.client.list_runs("*")
        assert run.status == "FINISHED"
        files = [each.path for each in run.artifacts.list(".mlcore") if each.path.endswith(".log")]
        assert len(files) == 2
        texts = [run.artifacts.get(each).read_text() for each in files]
        assert sorted(texts) == ["first\n", "second\n"]

    def test_jobs_do_not_know_each_other(self, place: _Place) -> None:
        """Of two at once each has its own output, status and run."""
        first, id = place.submit("print('first')"), place.run_id
        second = place.submit("print('second'); exit(4)")
        assert (place.wait(first).state, place.wait(second).exit_code) == ("finished", 4)
        assert (place.printed(first), place.printed(second)) == ("first\n", "second\n")
        assert [place.client.get_run(each).status for each in (id, place.run_id)] == ["FINISHED", "FAILED"]


class _Place:
    """Make jobs, submit them, and look at what became of them."""

    def __init__(self, contract: RunnerContract, tmp_path: Path) -> None:
        self._contract, self._path = contract, tmp_path
        self.folder = tmp_path / "project"
        self.folder.mkdir()
        self.client = Client(contract.store or tmp_path / "store")
        self.run_id = ""
        self._runner = contract.runner(tmp_path)
        self._handles: list[dict[str, Any]] = []

    def again(self) -> Runner:
        """Return a runner that never saw the jobs."""
        return self._contract.runner(self._path)

    def submit(self, code: str, *arguments: str, **about: Any) -> dict[str, Any]:
        """Submit a job that runs Python code."""
        return self.submit_argv((self._contract.python, "-c", code, *arguments), **about)

    def submit_argv(
        self, argv: tuple[str, ...], *, variables: Any = None, grace: float = 20.0, resumed: bool = False
    ) -> dict[str, Any]:
        """Submit a job, of the same run as the last one if it is `resumed`."""
        self.run_id = self.run_id if resumed else self.client.new_run_id()
        store = self.client.setting.value
        record = Record(
            store, "kit", "a name", {"source": "here"}, {"lr": 0.1, "note": "it's"}, {"source": "here"},
            {".mlcore/project/lock.txt": "numpy==2.0\n"}, resumed=resumed,
        )  # fmt: skip
        told = {"MLCORE_STORE": store, "MLCORE_RUN_ID": self.run_id, "MLCORE_EXPERIMENT": "kit", **(variables or {})}
        handle = self._runner.submit(Job(self.run_id, argv, self.folder, record, told, grace=grace))
        self._handles.append(handle)
        return handle

    def begun(self, code: str, **about: Any) -> dict[str, Any]:
        """Submit a job, and return when it has printed that it has begun."""
        handle = self.submit(code, **about)
        deadline = time.monotonic() + self._contract.patience
        while "begun" not in self.printed(handle):
            assert time.monotonic() < deadline, "the job does not begin, or its logs are not there while it goes on"
            time.sleep(0.02)
        return handle

    def wait(self, handle: dict[str, Any]) -> Status:
        """Return how a job ended."""
        status = self.within(lambda: self._runner.wait(handle, self._contract.patience))
        assert status.state in ENDED, f"it has not ended after {self._contract.patience} s: {status}"
        return status

    def within(self, call: Callable[[], _T]) -> _T:
        """Return what a call does, which must not take longer than there is patience."""
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(_outcome(call)), daemon=True)
        thread.start()
        thread.join(self._contract.patience + 5)
        assert answers, f"it takes longer than {self._contract.patience} s"
        if isinstance(answers[0], BaseException):
            raise answers[0]
        found: _T = answers[0]
        return found

    def printed(self, handle: dict[str, Any]) -> str:
        """Return the logs of a job."""
        return b"".join(self.again().logs(handle)).decode()

    def run(self) -> Run:
        """Return the run of the last job."""
        return self.client.get_run(self.run_id)

    def opened(self) -> Run:
        """Return the run of the last job, once it is there."""
        deadline = time.monotonic() + self._contract.patience
        while time.monotonic() < deadline:
            with suppress(NotFound, StoreNotFound):
                return self.run()
            time.sleep(0.02)
        return self.run()

    def kept(self) -> str:
        """Return what the run keeps of the output."""
        return self.run().artifacts.get(".mlcore/output.log").read_text(encoding="utf-8")

    def close(self) -> None:
        """End what is left."""
        for handle in self._handles:
            for _ in range(3):  # each time it is killed sooner
                if not self._runner.status(handle).ended:
                    self._runner.cancel(handle)
            self.within(lambda each=handle: self._runner.wait(each, self._contract.patience))  # type: ignore[misc]
        self.client.close()


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - it is raised where it was called
        return error

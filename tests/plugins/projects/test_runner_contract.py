"""The kit for runners: the local one passes, and for each check one that is broken in one way fails it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from mlcore_projects.local import LocalRunner
from mlcore_projects.runners import Abilities, Handle, Job, Record, Runner, Status
from mlcore_projects.testing import RunnerContract

CHECKS = sorted(name for name in dir(RunnerContract) if name.startswith("test_"))


class TestLocal(RunnerContract):
    """The runner that mlcore ships."""

    def runner(self, tmp_path: Path) -> Runner:
        return LocalRunner(tmp_path / "jobs")


class Unnamed(LocalRunner):
    name = " "


class Bragging(LocalRunner):
    abilities: ClassVar[Abilities] = Abilities(resources=frozenset({"luck"}))


class Evolved(LocalRunner):
    """Submit another job than was asked for."""

    def evolved(self, job: Job) -> Job:
        return job

    def submit(self, job: Job, *, attached: bool = False) -> dict[str, Any]:
        return super().submit(self.evolved(job), attached=attached)


class Forgetful(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, record=Record(job.record.store, job.record.experiment))


class Shelled(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, argv=("sh", "-c", " ".join(f"'{each}'" for each in job.argv)))


class Bare(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, variables={name: job.variables[name] for name in ("MLCORE_STORE", "MLCORE_RUN_ID")})


class Elsewhere(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, folder=Path("/"))


class Solitary(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, variables={})


class Merciless(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, grace=0.0)


class Deaf(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, argv=("sh", "-c", '"$0" "$@" 2>/dev/null', *job.argv))


class Anew(Evolved):
    def evolved(self, job: Job) -> Job:
        return attrs.evolve(job, run_id=os.urandom(16).hex(), record=attrs.evolve(job.record, resumed=False))


class Optimist(LocalRunner):
    """Take every end for a good one."""

    def status(self, handle: Handle) -> Status:
        found = super().status(handle)
        return Status("finished", 0) if found.ended else found


class Taciturn(LocalRunner):
    """Know nothing of exit codes."""

    def status(self, handle: Handle) -> Status:
        return attrs.evolve(super().status(handle), exit_code=None)


class Late(LocalRunner):
    """Tell what was printed when it is over."""

    def logs(self, handle: Handle, *, follow: bool = False) -> Iterator[bytes]:
        if follow:
            self.wait(handle)
        yield b"".join(super().logs(handle))


class Blocking(LocalRunner):
    """Come back when all is over."""

    def submit(self, job: Job, *, attached: bool = False) -> dict[str, Any]:
        handle = super().submit(job, attached=attached)
        self.cancel(handle)
        self.wait(handle)
        return handle


class Patient(LocalRunner):
    """Wait longer than was asked for."""

    def wait(self, handle: Handle, timeout: float | None = None) -> Status:
        return super().wait(handle, 60)


class Remembering(LocalRunner):
    """Know jobs by what this object remembers of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._known: dict[str, Any] = {}

    def submit(self, job: Job, *, attached: bool = False) -> dict[str, Any]:
        self._known[job.run_id] = super().submit(job, attached=attached)
        return {"run": job.run_id}

    def status(self, handle: Handle) -> Status:
        return super().status(self._known[handle["run"]]) if handle["run"] in self._known else Status("lost")

    def wait(self, handle: Handle, timeout: float | None = None) -> Status:
        return super().wait(self._known.get(handle["run"], handle), timeout)


class Silent(LocalRunner):
    """Kill without a word."""

    def cancel(self, handle: Handle, *, interrupt: bool = False) -> None:
        noted = json.loads((Path(handle["folder"]) / "supervisor.json").read_text())
        os.kill(noted["job"]["pid"], signal.SIGKILL)


class Deafening(LocalRunner):
    """Know one signal only."""

    def cancel(self, handle: Handle, *, interrupt: bool = False) -> None:
        super().cancel(handle)


class Careless(LocalRunner):
    """Ask a job to end, and leave it at that."""

    def cancel(self, handle: Handle, *, interrupt: bool = False) -> None:
        noted = json.loads((Path(handle["folder"]) / "supervisor.json").read_text())
        os.kill(noted["job"]["pid"], signal.SIGTERM)


class Strict(LocalRunner):
    """Take it ill that a job is over."""

    def cancel(self, handle: Handle, *, interrupt: bool = False) -> None:
        if self.status(handle).ended:
            raise ProcessLookupError(handle["pid"])
        super().cancel(handle)


STRAYS: list[subprocess.Popen[bytes]] = []


class Leaky(Evolved):
    """Leave alone what a job leaves behind, as who knows only its group."""

    def evolved(self, job: Job) -> Job:
        stray = "import time, pathlib\nfor n in range(6000): pathlib.Path('beat').write_text(str(n)); time.sleep(0.01)"
        STRAYS.append(subprocess.Popen([sys.executable, "-c", stray], cwd=job.folder))
        return job


class Mixed(LocalRunner):
    """Show the logs of whatever came last."""

    def logs(self, handle: Handle, *, follow: bool = False) -> Iterator[bytes]:
        newest = max((self._root).iterdir(), key=lambda path: path.stat().st_ctime)
        return super().logs({**handle, "folder": str(newest)}, follow=follow)


class Tailed(LocalRunner):
    """Keep only the last words."""

    def logs(self, handle: Handle, *, follow: bool = False) -> Iterator[bytes]:
        yield b"".join(super().logs(handle, follow=follow))[-3:]


MUTANTS: list[tuple[str, type[LocalRunner]]] = [
    ("test_the_abilities_are_declared", Unnamed),
    ("test_the_abilities_are_declared", Bragging),
    ("test_a_job_that_ends_well_finishes_its_run", Forgetful),
    ("test_a_job_that_fails_says_how", Taciturn),
    ("test_a_program_that_is_not_there_fails", Optimist),
    ("test_arguments_arrive_as_they_are", Shelled),
    ("test_variables_arrive_as_they_are", Bare),
    ("test_it_runs_in_the_folder_of_the_job", Elsewhere),
    ("test_what_it_prints_is_kept", Deaf),
    ("test_logs_can_be_followed", Late),
    ("test_submit_does_not_wait_for_the_end", Blocking),
    ("test_waiting_has_an_end", Patient),
    ("test_a_handle_is_all_that_another_process_needs", Remembering),
    ("test_cancel_lets_a_job_save_what_it_has", Silent),
    ("test_an_interrupt_comes_as_one", Deafening),
    ("test_one_that_does_not_listen_is_killed_after_its_grace", Careless),
    ("test_cancelling_what_has_ended_changes_nothing", Strict),
    ("test_what_a_job_starts_ends_with_it", Leaky),
    ("test_a_job_logs_into_its_run", Solitary),
    ("test_a_run_goes_on_with_another_job", Anew),
    ("test_jobs_do_not_know_each_other", Mixed),
]


class Broken(RunnerContract):
    __test__ = False
    patience = 4.0
    made: ClassVar[type[LocalRunner]]

    def runner(self, tmp_path: Path) -> Runner:
        return self.made(tmp_path / "jobs")


@pytest.mark.parametrize(("check", "mutant"), MUTANTS)
def test_a_broken_runner_is_found_out(
    check: str, mutant: type[LocalRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that every check of the kit can fail."""
    monkeypatch.setattr(Broken, "made", mutant, raising=False)
    contract = Broken()
    if check == "test_the_abilities_are_declared":
        with pytest.raises(AssertionError):
            contract.test_the_abilities_are_declared(tmp_path)
        return
    made = contract.place.__wrapped__(contract, tmp_path, monkeypatch)  # type: ignore[attr-defined]
    place = next(made)
    try:
        with pytest.raises((Exception, pytest.fail.Exception)) as found:
            getattr(contract, check)(place)
        assert not isinstance(found.value, AttributeError | TypeError), found.value
    finally:
        for stray in STRAYS:
            stray.kill()
            stray.wait()
        place._runner = LocalRunner(tmp_path / "jobs")
        place._handles = [each for each in place._handles if "pid" in each]
        for folder in (tmp_path / "jobs").glob("*/supervisor.json"):
            about = json.loads(folder.read_text())
            for way in (signal.SIGTERM, signal.SIGTERM):
                try:
                    os.kill(about["pid"], way)
                except ProcessLookupError:
                    break
                time.sleep(0.05)
        next(made, None)


def test_every_check_bites() -> None:
    """Guards that a check that is added comes with a runner that it finds out."""
    assert {check for check, _ in MUTANTS} == set(CHECKS)

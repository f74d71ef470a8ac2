"""Environments are made once, whole or not at all, and only for what is wanted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from mlcore.cli import program
from mlcore.errors import NotInstalled
from mlcore_projects import shelf
from mlcore_projects.environments import Ready, kind_of, lock_of, ready
from mlcore_projects.locks import EnvironmentFailed, Lock, Pinned, lock_of_packages, read_lock
from mlcore_projects.specs import Wanted
from mlcore_projects.testing._environments import _project, _source

# Makes an environment of its arguments and prints what became of it; at a step that begins with a word it may die.
MAKE = """
import json, os, signal, sys
from pathlib import Path
from mlcore_projects.environments import ready
from mlcore_projects.specs import Wanted
folder, die, *lines = sys.argv[1:]
steps = []
def step(text):
    steps.append(text)
    if die and text.startswith(die):
        os.kill(os.getpid(), signal.SIGKILL)
try:
    made = ready(Wanted(Path(folder), requirements=tuple(lines)), "uv", progress=step)
    print(json.dumps({"key": made.key, "reused": made.reused, "steps": steps}))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with wheels and a local package."""
    return _project(tmp_path_factory.mktemp("project"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a cache of its own, in which nobody holds anything afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "mlcore" / "environments"
    for key in list(shelf._held):
        shelf.let_go(key)


def lines(project: Path, *more: str) -> tuple[str, ...]:
    """Return lines that ask no index."""
    return ("--no-index", f"--find-links={project / 'wheels'}", *more)


def wanted(project: Path, *more: str, **fields: object) -> Wanted:
    """Return what wants such lines."""
    return attrs.evolve(Wanted(project, requirements=lines(project, *more)), **fields)


def make(project: Path, *more: str, die: str = "") -> subprocess.Popen[str]:
    """Start a process that makes an environment of such lines."""
    command = [sys.executable, "-c", MAKE, str(project), die, *lines(project, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def entries(cache: Path) -> list[str]:
    """Return what is kept or left: environments, and folders in which something is made."""
    return sorted(path.name for path in cache.iterdir() if path.is_dir() and path.name != "resolved")


class TestBuildingOnce:
    def test_two_processes_at_once_build_one(self, project: Path, cache: Path) -> None:
        """Guards the lock: the second waits for the first, and takes what that made."""
        both = [make(project, "second") for _ in range(2)]
        told = [json.loads(each.communicate(timeout=120)[0]) for each in both]
        assert sorted(each["reused"] for each in told) == [False, True]
        assert sum(any("installing" in step for step in each["steps"]) for each in told) == 1
        assert entries(cache) == [told[0]["key"]] == [told[1]["key"]]

    @pytest.mark.parametrize("step", ["building", "resolving", "installing"])
    def test_one_that_was_killed_is_made_again(self, step: str, project: Path, cache: Path) -> None:
        """Guards the mark that is written last, and that leftovers go."""
        killed = make(project, "first", "./local", die=step)
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
        assert len(entries(cache)) == 1 + (step == "installing")
        made = ready(wanted(project, "first", "./local"), "uv")
        assert not made.reused
        assert entries(cache) == [made.key]
        assert subprocess.run([made.python, "-c", "import first, third"], check=False).returncode == 0

    def test_what_a_build_left_goes_with_the_next_of_another(self, project: Path, cache: Path) -> None:
        """Guards against folders that nobody ever asks for again."""
        make(project, "first", die="installing").communicate(timeout=120)
        made = ready(wanted(project, "second"), "uv")
        assert entries(cache) == [made.key]

    def test_one_whose_interpreter_is_gone_is_made_again(self, project: Path) -> None:
        """Guards against an environment whose Python was removed or moved."""
        made = ready(wanted(project, "first"), "uv")
        made.python.unlink()
        again = ready(wanted(project, "first"), "uv")
        assert (again.key, again.reused) == (made.key, False)

    def test_the_second_time_costs_next_to_nothing(self, project: Path) -> None:
        """Guards the way to a job's start: at most 50 ms for an environment that is there."""
        ready(wanted(project, "second", "./local"), "uv")
        costs = []
        for _ in range(5):
            before = time.process_time()
            assert ready(wanted(project, "second", "./local"), "uv").reused
            costs.append(time.process_time() - before)
        assert min(costs) < 0.05

    def test_a_new_release_comes_only_when_asked_for(self, project: Path, tmp_path: Path) -> None:
        """Guards that what was resolved stays, and that `refresh` resolves anew."""
        folder = _project(tmp_path / "copy")
        newest = folder / "wheels" / "first-2.0-py3-none-any.whl"
        newest.rename(tmp_path / newest.name)
        before = ready(wanted(folder, "first"), "uv")
        assert before.lock.packages == {"first": "1.0"}
        (tmp_path / newest.name).rename(newest)
        assert ready(wanted(folder, "first"), "uv").key == before.key
        after = ready(wanted(folder, "first"), "uv", refresh=True)
        assert after.lock.packages == {"first": "2.0"}
        assert ready(wanted(folder, "first"), "uv").key == after.key

    def test_a_full_disk_is_one_clear_error(
        self, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards that nothing half-made is left where there is no room."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            assert os.environ.get("MLCORE_TEST_ALL") != "1", "CI runs as root, and must be able to mount"
            pytest.skip("mounting a small tmpfs needs root")
        try:
            monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
            monkeypatch.setenv("UV_LINK_MODE", "copy")
            with pytest.raises(EnvironmentFailed, match=r"[Nn]o space left on device.*mlcore envs prune"):
                ready(wanted(project, "second", "./local"), "uv")
            assert entries(disk / "mlcore" / "environments") == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)


class TestKeeping:
    def test_one_in_use_is_not_pruned(self, project: Path, cache: Path) -> None:
        """Guards a job that runs: first by its own process, then by a child that was given the descriptor."""
        made = ready(wanted(project, "first"), "uv")
        assert self.prune() == ([], [made.key])
        held = made.hold()
        assert held is not None
        with subprocess.Popen(["sleep", "60"], pass_fds=[held]) as child:
            os.close(held)
            shelf.let_go(made.key)
            assert self.prune() == ([], [made.key])
            child.kill()
        assert self.prune() == ([made.key], [])
        assert entries(cache) == []

    def test_the_lock_that_was_resolved_outlives_nothing(self, project: Path, cache: Path) -> None:
        """Guards that what is remembered of an environment goes with it."""
        made = ready(wanted(project, "first"), "uv")
        assert len(list((cache / "resolved").iterdir())) == 2
        shelf.let_go(made.key)
        self.prune()
        assert list((cache / "resolved").iterdir()) == []

    def test_only_what_was_not_used_lately_goes(self, project: Path) -> None:
        """Guards the default of a month, and that asking for one counts as use."""
        old, new = ready(wanted(project, "first<2"), "uv"), ready(wanted(project, "first>=2"), "uv")
        for each in (old, new):
            shelf.let_go(each.key)
            os.utime(shelf.root() / each.key / "ok.json", (0, 0))
        shelf.touch(new.key)
        assert self.prune("--unused", "1h") == ([old.key], [])

    def test_commands_list_and_show(self, project: Path) -> None:
        """Guards what `mlcore envs` tells, in text and as JSON."""
        made = ready(wanted(project, "first<2"), "uv")
        (told,) = json.loads(self.call("list", "--json"))
        assert (told["key"], told["kind"], told["packages"], told["in_use"]) == (made.key, "uv", {"first": "1.0"}, True)
        assert told["size"] > 1000
        assert "in use" in self.call("list")
        assert "first==1.0" in self.call("show", made.key[:6])
        assert json.loads(self.call("show", made.key[:6], "--json"))["lock"]["requirements"][0]["name"] == "first"
        assert CliRunner().invoke(program, ["envs", "show", "nothing"]).exit_code == 1

    @staticmethod
    def call(*words: str) -> str:
        done = CliRunner().invoke(program, ["envs", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    def prune(self, *words: str) -> tuple[list[str], list[str]]:
        told = json.loads(self.call("prune", *(words or ("--all",)), "--json"))
        return [each["key"] for each in told["removed"]], [each["key"] for each in told["in_use"]]


class TestKinds:
    def test_the_kind_follows_from_what_is_wanted(self, project: Path) -> None:
        """Guards the order: an argument, the project, nothing wanted at all, and what is here."""
        assert kind_of(wanted(project), "venv") == "venv"
        assert kind_of(wanted(project, kind="system")) == "system"
        assert kind_of(Wanted(project)) == "system"
        assert kind_of(wanted(project, "first")) == "uv"

    def test_a_kind_of_nobody_is_told_of(self, project: Path) -> None:
        """Guards the line that says how to get it."""
        with pytest.raises(NotInstalled, match="pip install mlcore-conda"):
            ready(wanted(project, "first"), "conda")

    def test_system_takes_what_is_there_and_says_what_is_not(self, project: Path, cache: Path) -> None:
        """Guards that nothing is made, that the lock is what is installed, and that a difference is told."""
        made = ready(wanted(project, "pytest<1", "no-such-thing", python="<3"), "system")
        assert (made.python, made.folder, made.hold()) == (Path(sys.executable), None, None)
        assert made.lock.packages["pytest"] == pytest.__version__
        assert len(made.notes) == 3
        assert not cache.exists()

    def test_what_only_conda_has_is_named(self, project: Path) -> None:
        """Guards the warning of a conda environment of which only a part is installed."""
        made = ready(wanted(project, "first", left_out=("cudatoolkit=11.8",)), "uv")
        assert made.notes == ("not installed: cudatoolkit=11.8",)

    def test_build_dependencies_come_first_and_give_way(self, project: Path) -> None:
        """Guards python_env.yaml's build_dependencies."""
        made = ready(wanted(project, "first>=2", build=(*lines(project), "first<2", "second")), "uv")
        assert made.lock.packages == {"first": "2.0", "second": "1.0"}
        assert [each.name for each in made.lock.build] == ["second"]

    def test_an_interpreter_that_is_not_there_is_named_with_those_that_are(self, project: Path) -> None:
        """Guards what a person reads who has another Python."""
        with pytest.raises(EnvironmentFailed, match=rf"no Python 3\.99 was found.*{sys.version_info[0]}\.\d+\.\d+"):
            ready(wanted(project, "first", python="3.99"), "uv")


class TestProjectLocks:
    def test_a_lock_of_uv_is_what_is_installed(self, tmp_path: Path, cache: Path) -> None:
        """Guards uv.lock: versions of the lock, local packages built, and the project itself left out."""
        folder = _project(tmp_path / "locked")
        (folder / "json.py").unlink()
        self.write(folder, "first<2", "third")
        made = ready(wanted(folder, "first", lock=folder / "uv.lock"), "uv")
        assert made.lock.packages == {"first": "1.0", "third": "1.0"}
        (folder / "local" / "third.py").write_text(_source("1.0") + "changed = True\n")
        again = ready(wanted(folder, "first", lock=folder / "uv.lock"), "uv")
        assert (again.reused, again.key == made.key) == (False, False)
        assert subprocess.run([again.python, "-c", "import third; third.changed"], check=False).returncode == 0
        more = lock_of(wanted(folder, "second", lock=folder / "uv.lock"), "uv")
        assert more.packages == {"first": "1.0", "second": "1.0", "third": "1.0"}

    def test_a_lock_of_uv_that_is_old_is_refused(self, tmp_path: Path) -> None:
        """Guards against a dependency that was added and not locked."""
        folder = _project(tmp_path / "locked")
        self.write(folder, "first")
        text = (folder / "pyproject.toml").read_text()
        (folder / "pyproject.toml").write_text(text.replace('"first"', '"first", "second"'))
        with pytest.raises(EnvironmentFailed, match="uv lock"):
            ready(wanted(folder, lock=folder / "uv.lock"), "uv")

    @staticmethod
    def write(folder: Path, *names: str) -> None:
        listed = ", ".join(f'"{each}"' for each in names)
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "whole"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = [{listed}]\n'
            f'[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n[tool.uv.sources]\nthird = {{ path = "local" }}\n'
        )
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "lock", "-q", "--python", sys.executable], cwd=folder, check=True)

    def test_a_standard_lock_is_read_for_this_interpreter(self, project: Path, tmp_path: Path) -> None:
        """Guards pylock.toml (PEP 751): hashes, markers, and a package in a folder beside it."""
        made = lock_of(wanted(project, "first<2"), "uv")
        text = f"""
            lock-version = "1.0"
            created-by = "hand"
            [[packages]]
            name = "First"
            version = "1.0"
            wheels = [{{name = "x", url = "http://x", hashes = {{sha256 = "{made.requirements[0].hashes[0][7:]}"}}}}]
            [[packages]]
            name = "absent"
            version = "1"
            marker = "sys_platform == 'nowhere'"
            [[packages]]
            name = "third"
            directory = {{path = "{project / "local"}"}}
        """
        (tmp_path / "pylock.toml").write_text("\n".join(line.strip() for line in text.splitlines()))
        for kind in ("uv", "venv"):
            lock = lock_of(wanted(project, lock=tmp_path / "pylock.toml"), kind)
            assert lock.packages == {"first": "1.0", "third": "1.0"}
            assert lock.requirements[0] == made.requirements[0]

    def test_requirements_with_hashes_are_a_lock(self, project: Path, tmp_path: Path) -> None:
        """Guards what pip-compile and uv write, and that a line without one version is no lock."""
        pin = lock_of(wanted(project, "first<2"), "uv").requirements[0]
        file = tmp_path / "requirements.lock"
        file.write_text(f"# made by hand\n{pin.text()}\nabsent==1 ; python_version < '3'\n")
        assert lock_of(wanted(project, lock=file), "uv").requirements == (pin,)
        file.write_text("first>=1\n")
        with pytest.raises(EnvironmentFailed, match="names no single version"):
            lock_of(wanted(project, lock=file), "uv")


class TestLocksAgain:
    def test_a_lock_can_be_written_and_read(self, project: Path) -> None:
        """Guards the file that a run keeps: what was read is the same environment."""
        made = ready(wanted(project, "second", "./local", build=(*lines(project), "first")), "uv")
        again = read_lock(made.lock.text)
        assert again.key("uv") == made.lock.key("uv")
        git = Pinned("far", "", url="git+https://example.com/far.git@0123abc#subdirectory=x")
        lock = Lock("3.11.7", "linux", [git], ("https://example.com/simple",), [Pinned("a", "1")])
        assert read_lock(lock.text) == lock
        with pytest.raises(EnvironmentFailed, match="no lock"):
            read_lock("numpy==1\n")

    def test_what_a_run_had_is_built_in_another_place(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards reproduction: versions without hashes, and a package from the folder where the run's code is."""
        monkeypatch.setenv("UV_FIND_LINKS", str(project / "wheels"))
        monkeypatch.setenv("UV_NO_INDEX", "1")
        version = ".".join(map(str, sys.version_info[:3]))
        recorded = {"first": {"version": "1.0"}, "second": "1.0", "third": {"version": "1.0", "path": "local"}}
        lock = lock_of_packages(recorded, project, python=version)
        made = ready(lock, "uv")
        assert made.lock.packages == {"first": "1.0", "second": "1.0", "third": "1.0"}
        assert subprocess.run([made.python, "-c", "import second, third"], check=False).returncode == 0
        assert ready(lock, "uv").reused

    def test_what_lies_nowhere_any_more_is_named_at_once(self, tmp_path: Path) -> None:
        """Guards the error of a reproduction: all that is missing, not the first of it."""
        recorded = {
            "gone": {"version": "1", "path": "gone", "editable": True},
            "elsewhere": {"version": "2", "editable": True},
            "wheel": {"version": "3", "hash": "sha256:00"},
            "far": {"version": "4", "url": "https://example.com/far.git", "commit": "abc"},
            "near": {"version": "5"},
        }
        with pytest.raises(EnvironmentFailed, match=r"elsewhere 2, gone 1 .*, wheel 3$"):
            lock_of_packages(recorded, tmp_path, python="3.11.7")
        places = dict.fromkeys(("gone", "elsewhere", "wheel"), tmp_path)
        lock = lock_of_packages(recorded, tmp_path, python="3.11.7", local=places)
        assert lock.requirements[1].url == "git+https://example.com/far.git@abc"


def test_nothing_is_kept_of_who_was_let_in(project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the user's own settings for pip and uv: used, and kept nowhere."""
    monkeypatch.setenv("UV_INDEX", "private=https://user:canary-password@example.com/simple?token=canary-token")
    made: Ready = ready(wanted(project, "first"), "uv")
    assert "https://example.com/simple" in made.lock.indexes
    found = [each for each in cache.rglob("*") if each.is_file() and not each.is_symlink()]
    assert [each for each in found if b"canary" in each.read_bytes()] == []

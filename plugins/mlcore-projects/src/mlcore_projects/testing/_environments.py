"""`EnvironmentContract`: every promise of `mlcore_projects.environments.Environments` as a test.

No index is asked: all packages are wheels that are written here, and one that is built by a backend of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import attrs
import pytest

from mlcore import plugins
from mlcore_projects import shelf
from mlcore_projects.environments import Environments, Making, Ready, lock_of, ready
from mlcore_projects.locks import EnvironmentFailed, Lock
from mlcore_projects.specs import Wanted

# Also what builds the local package: it needs nothing that would have to be fetched.
_WHEELS = """
import os, zipfile

def write(folder, name, version, files, requires=()):
    info = f"{name}-{version}.dist-info"
    about = [f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}", *map("Requires-Dist: {}".format, requires)]
    files = {
        **files,
        f"{info}/METADATA": "\\n".join(about) + "\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: kit\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": f"[console_scripts]\\n{name}-says = {name}:say\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\\n" for each in [*files, f"{info}/RECORD"])
    file = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, file), "w") as archive:
        for each, text in files.items():
            archive.writestr(zipfile.ZipInfo(each, (1980, 1, 1, 0, 0, 0)), text)
    return file

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open("third.py") as source:
        return write(folder, "third", "1.0", {"third.py": source.read()})
"""
_BUILD = '[build-system]\nrequires = []\nbuild-backend = "making"\nbackend-path = ["."]\n'
_CANARY = "canary-in-an-address"
_NOBODY = f"http://somebody:{_CANARY}@localhost:9/simple"
# What a user may have set for another environment, and what must not reach this one.
_MISLEADING = {"PIP_TARGET": "/nowhere", "PYTHONHOME": "/nowhere", "VIRTUAL_ENV": "/nowhere", "UV_SYSTEM_PYTHON": "1"}
_MADE: dict[type, tuple[Path, Path, Ready]] = {}


def _source(version: str) -> str:
    return f"version = {version!r}\n\ndef say():\n    print('says', version)\n"


def _project(folder: Path) -> Path:
    """Write a project: wheels as an index has them, a local package, and a module of a common name."""
    scope: dict[str, Any] = {}
    exec(_WHEELS, scope)  # noqa: S102 - the text above
    (folder / "wheels").mkdir(parents=True)
    for name, version, requires in [("first", "1.0", ()), ("first", "2.0", ()), ("second", "1.0", ("first",))]:
        scope["write"](folder / "wheels", name, version, {f"{name}.py": _source(version)}, requires)
    (folder / "local").mkdir()
    (folder / "local" / "pyproject.toml").write_text(_BUILD)
    (folder / "local" / "making.py").write_text(_WHEELS)
    (folder / "local" / "third.py").write_text(_source("1.0"))
    (folder / "json.py").write_text("raise SystemExit('a module of the project was taken for that of Python')\n")
    return folder


class EnvironmentContract:
    """Subclass it in a test file and name the kind; the whole contract then runs on it.

    A plugin that is not installed is given as `plugin`, the module of its hooks. `python` is what environments are
    asked for, by default any.
    """

    kind: ClassVar[str]
    plugin: ClassVar[ModuleType | Any | None] = None
    python: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _alone(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Keep the user's own environments out, and register a plugin that is not installed."""
        if self.plugin is not None:
            plugins.register(self.plugin, f"the {self.kind} of a kit")
        try:
            if type(self) not in _MADE:
                place = tmp_path_factory.mktemp("environments")
                project = _project(place / "project with a space")
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
                    for name, value in _MISLEADING.items():
                        patch.setenv(name, value)
                    _MADE[type(self)] = (place / "cache", project, ready(self.wanted(project), self.kind))
            monkeypatch.setenv("XDG_CACHE_HOME", str(_MADE[type(self)][0]))
            yield
        finally:
            if self.plugin is not None:
                plugins.unregister(f"the {self.kind} of a kit")

    def wanted(self, folder: Path, *more: str) -> Wanted:
        """Return what the environment is made of that all checks share."""
        lines = ("--no-index", f"--find-links={folder / 'wheels'}".replace(" ", "\\ "), f"--extra-index-url={_NOBODY}")
        named = more or ("second", "first<2", "absent; python_version < '3'", "./local")
        return Wanted(folder, python=self.python, requirements=(*lines, *named))

    @property
    def _ready(self) -> Ready:
        return _MADE[type(self)][2]

    @property
    def _folder(self) -> Path:
        return _MADE[type(self)][1]

    def run(self, *command: str | Path) -> str:
        """Run a program in the environment as a job is run, and return what it prints."""
        done = subprocess.run(
            [str(each) for each in command], env={**os.environ, **self._ready.variables}, cwd=self._folder.parent,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def test_what_is_wanted_can_be_imported(self) -> None:
        """What was asked for is there in the versions of the lock, and so is what that needs, and a local package."""
        code = "import first, second, third; print(first.version, second.version, third.version)"
        assert self.run(self._ready.python, "-c", code) == "1.0 1.0 1.0"

    def test_the_lock_says_what_is_installed(self) -> None:
        """The lock has exact versions of all that can be imported, and of nothing that a marker leaves out."""
        assert {name: self._ready.lock.packages.get(name) for name in ("first", "second", "third", "absent")} == {
            "first": "1.0",
            "second": "1.0",
            "third": "1.0",
            "absent": None,
        }

    def test_the_lock_has_hashes(self) -> None:
        """What comes as a file is pinned by what is in it."""
        pins = [each for each in self._ready.lock.requirements if each.name in ("first", "second", "third")]
        assert [each.name for each in pins if not any(re.match(r"sha\d+:\w{64}", one) for one in each.hashes)] == []

    def test_the_interpreter_is_the_one_of_the_lock(self) -> None:
        """The lock names the full version of the Python that runs, and it runs in the environment's own folder."""
        code = "import platform, sys; print(platform.python_version(), sys.prefix, sep='\\n')"
        version, prefix = self.run(self._ready.python, "-c", code).split("\n")
        assert version == self._ready.lock.python
        assert self._ready.folder in Path(prefix).parents

    def test_nothing_of_this_process_is_in_it(self) -> None:
        """What is installed beside mlcore is not there."""
        code = "import importlib.util; print(importlib.util.find_spec('mlcore'), importlib.util.find_spec('pytest'))"
        assert self.run(self._ready.python, "-c", code) == "None None"

    def test_its_programs_are_found_first(self) -> None:
        """The variables lead to programs that packages bring, and to its own interpreter."""
        assert self.run("/bin/sh", "-c", "first-says") == "says 1.0"
        found = self.run("/bin/sh", "-c", "command -v python")
        assert Path(found).parent == self._ready.python.parent

    def test_it_is_found_again_without_a_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same is wanted again: nothing is started, so nothing is resolved and no network asked."""

        def refuse(*_: object, **__: object) -> str:
            raise AssertionError("a program was started for an environment that is there")

        monkeypatch.setattr(Making, "run", refuse)
        monkeypatch.setattr(subprocess, "Popen", refuse)
        again = ready(self.wanted(self._folder), self.kind)
        assert (again.reused, again.key, again.lock) == (True, self._ready.key, self._ready.lock)

    def test_a_lock_is_resolved_the_same_twice(self) -> None:
        """What decides a lock is in it: resolved anew it has the same key."""
        assert lock_of(self.wanted(self._folder), self.kind).key(self.kind) == self._ready.key
        turned = self.wanted(self._folder, "./local", "first <2", "second")
        assert lock_of(turned, self.kind).key(self.kind) == self._ready.key

    def test_another_version_is_another_environment(self) -> None:
        """A lock with another version has another key."""
        other = lock_of(self.wanted(self._folder, "second", "first>=2", "./local"), self.kind)
        assert other.packages["first"] == "2.0"
        assert other.key(self.kind) != self._ready.key

    def test_a_changed_local_package_is_another_environment(self, tmp_path: Path) -> None:
        """The version is the same and the code is not: the key tells, by what is in the wheel."""
        folder = _project(tmp_path / "copy")
        same = lock_of(self.wanted(folder, "./local"), self.kind)
        (folder / "local" / "third.py").write_text(_source("1.0") + "changed = True\n")
        assert lock_of(self.wanted(folder, "./local"), self.kind).key(self.kind) != same.key(self.kind)

    def test_building_leaves_the_local_package_as_it_was(self) -> None:
        """A build writes nothing beside the source, where it would be taken for a change."""
        there = sorted(path.name for path in (self._folder / "local").iterdir() if path.name != "__pycache__")
        assert there == ["making.py", "pyproject.toml", "third.py"]

    def test_what_cannot_be_resolved_says_why(self) -> None:
        """A conflict is told in a few lines that name the requirement, and leaves nothing."""
        before = sorted(path.name for path in shelf.root().iterdir() if path.is_dir())
        with pytest.raises(EnvironmentFailed) as raised:
            ready(self.wanted(self._folder, "first==3.0"), self.kind)
        assert "first" in str(raised.value)
        assert len(str(raised.value).splitlines()) <= 10
        assert sorted(path.name for path in shelf.root().iterdir() if path.is_dir()) == before

    def test_a_file_that_is_not_the_locked_one_is_refused(self) -> None:
        """The hash of the lock is compared with what is installed, and half of an environment does not stay."""
        wrong = [attrs.evolve(each, hashes=(f"sha256:{'0' * 64}",)) for each in self._ready.lock.requirements]
        wrong = [each for each in wrong if each.name == "first"]
        lock = attrs.evolve(self._ready.lock, requirements=wrong, build=(), indexes=())
        with pytest.raises(EnvironmentFailed):
            self._install(lock)
        assert not (shelf.root() / lock.key(self.kind)).exists()

    def _install(self, lock: Lock) -> Ready:
        """Install a lock from the folder of wheels, where every kind that asks an index would find them."""
        with pytest.MonkeyPatch.context() as patch:
            for tool in ("PIP", "UV"):
                patch.setenv(f"{tool}_FIND_LINKS", (self._folder / "wheels").as_uri())
                patch.setenv(f"{tool}_NO_INDEX", "1")
            return ready(lock, self.kind)

    def test_credentials_are_kept_nowhere(self) -> None:
        """An address with a password was asked for: nothing that stays has it, the lock neither."""
        assert _CANARY not in repr(self._ready)
        assert _CANARY not in self._ready.lock.text
        places = [shelf.root() / "resolved", self._ready.folder or Path()]
        found = [file for place in places for file in place.rglob("*") if file.is_file() and not file.is_symlink()]
        assert [str(file) for file in found if _CANARY.encode() in file.read_bytes()] == []

    def test_asking_what_it_depends_on_is_quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is asked before every run: no program is started for it a second time."""
        maker: Environments = plugins.load("environments", self.kind)()
        first = maker.origin(self.wanted(self._folder))

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a program was started only to tell what a lock depends on")

        monkeypatch.setattr(subprocess, "Popen", refuse)
        assert maker.origin(self.wanted(self._folder)) == first
        assert first.platform

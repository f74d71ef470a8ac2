"""Every check of the contract for environments bites: for each there is a kind broken in one way, which fails it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from mlcore.hookspecs import Provider
from mlcore_projects.environments import EnvironmentFailed, Making, Origin
from mlcore_projects.locks import Lock
from mlcore_projects.specs import Wanted
from mlcore_projects.testing import EnvironmentContract
from mlcore_projects.uv import UvEnvironments

CHECKS = {name for name in dir(EnvironmentContract) if name.startswith("test_")}
MUTANTS: list[tuple[str, type[UvEnvironments]]] = []
Mutant = type[UvEnvironments]


def breaks(check: str) -> Callable[[Mutant], Mutant]:
    """Say by which check a broken kind must be found out."""

    def note(mutant: Mutant) -> Mutant:
        mutant.name = f"broken-{len(MUTANTS)}"
        MUTANTS.append((f"test_{check}", mutant))
        return mutant

    return note


def without(lock: Lock, *names: str) -> Lock:
    """Return a lock that lacks some packages."""
    return attrs.evolve(lock, requirements=[each for each in lock.requirements if each.name not in names])


@breaks("what_is_wanted_can_be_imported")
class InstallsNotAll(UvEnvironments):
    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        super().build(without(lock, "second"), folder, making)


@breaks("the_lock_says_what_is_installed")
class TellsNotAll(UvEnvironments):
    def resolve(self, making: Making) -> Lock:
        return without(super().resolve(making), "first")


@breaks("the_lock_has_hashes")
class HasNoHashes(UvEnvironments):
    def resolve(self, making: Making) -> Lock:
        lock = super().resolve(making)
        return attrs.evolve(lock, requirements=[attrs.evolve(each, hashes=()) for each in lock.requirements])


@breaks("the_interpreter_is_the_one_of_the_lock")
class RunsAnother(UvEnvironments):
    def python(self, folder: Path) -> Path:
        return Path(sys.executable)

    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        folder.mkdir()


@breaks("nothing_of_this_process_is_in_it")
class LetsOthersIn(UvEnvironments):
    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        super().build(lock, folder, making)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "more.pth").write_text(sysconfig.get_path("purelib"))


@breaks("its_programs_are_found_first")
class HidesPrograms(UvEnvironments):
    def variables(self, folder: Path) -> Mapping[str, str]:
        return {"VIRTUAL_ENV": str(folder)}


@breaks("it_is_found_again_without_a_program")
class ForgetsWhereFrom(UvEnvironments):
    def origin(self, wanted: Wanted) -> Origin:
        return attrs.evolve(super().origin(wanted), indexes=(os.urandom(4).hex(),))


@breaks("a_lock_is_resolved_the_same_twice")
class PutsTheTimeIntoLocks(UvEnvironments):
    def resolve(self, making: Making) -> Lock:
        return attrs.evolve(super().resolve(making), indexes=(os.urandom(4).hex(),))


@breaks("another_version_is_another_environment")
class TakesAnyVersion(UvEnvironments):
    def resolve(self, making: Making) -> Lock:
        return super().resolve(attrs.evolve(making, asked=attrs.evolve(making.asked, lines=("first<2", "second"))))


@breaks("a_changed_local_package_is_another_environment")
class BuildsWhatWas(UvEnvironments):
    def wheel(self, source: Path, folder: Path, making: Making) -> None:
        (source / "third.py").write_text("version = '1.0'\n")
        super().wheel(source, folder, making)


@breaks("building_leaves_the_local_package_as_it_was")
class WritesBesideTheSource(UvEnvironments):
    def wheel(self, source: Path, folder: Path, making: Making) -> None:
        super().wheel(source, folder, making)
        (making.wanted.folder / "local" / "third.egg-info").mkdir(exist_ok=True)


@breaks("what_cannot_be_resolved_says_why")
class SaysNothing(UvEnvironments):
    def resolve(self, making: Making) -> Lock:
        try:
            return super().resolve(making)
        except EnvironmentFailed:
            raise EnvironmentFailed("uv failed") from None


@breaks("a_file_that_is_not_the_locked_one_is_refused")
class ComparesNothing(UvEnvironments):
    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        pins = [attrs.evolve(each, hashes=()) for each in lock.requirements]
        super().build(attrs.evolve(lock, requirements=pins), folder, making)


@breaks("credentials_are_kept_nowhere")
class KeepsAddresses(UvEnvironments):
    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        super().build(lock, folder, making)
        (folder / "indexes.txt").write_text("\n".join(making.asked.options))


@breaks("asking_what_it_depends_on_is_quick")
class AsksEachTime(UvEnvironments):
    def origin(self, wanted: Wanted) -> Origin:
        subprocess.run(["true"], check=True)
        return super().origin(wanted)


@pytest.mark.parametrize(("check", "mutant"), MUTANTS, ids=lambda each: getattr(each, "__name__", None))
def test_a_broken_kind_is_found_out(
    check: str, mutant: Mutant, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that every check of the kit can fail."""
    hooks = SimpleNamespace(mlcore_environments=lambda: [Provider(mutant.name, mutant)])

    class Broken(EnvironmentContract):
        kind = mutant.name
        plugin = hooks

    contract = Broken()
    alone = contract._alone.__wrapped__(contract, tmp_path_factory, monkeypatch)  # type: ignore[attr-defined]
    next(alone)
    try:
        method = getattr(contract, check)
        known = {"tmp_path": tmp_path_factory.mktemp("more"), "monkeypatch": monkeypatch}
        arguments = [known[name] for name in inspect.signature(method).parameters]
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            method(*arguments)
    finally:
        monkeypatch.undo()
        next(alone, None)


def test_every_check_bites() -> None:
    """Guards that a check that is added comes with a kind that it finds out."""
    assert {check for check, _ in MUTANTS} == CHECKS

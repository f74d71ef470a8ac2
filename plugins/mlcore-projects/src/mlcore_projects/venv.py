"""Virtual environments of the standard library, filled by pip: what every machine with Python has."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from mlcore_projects import interpreters, lock_files, shelf
from mlcore_projects.environments import EnvironmentFailed, Environments, Making, Origin
from mlcore_projects.indexes import pip_indexes
from mlcore_projects.local_packages import read_wheel
from mlcore_projects.locks import Lock, Pinned, normalized
from mlcore_projects.requirement_lines import without_credentials
from mlcore_projects.specs import Wanted

__all__ = ["VenvEnvironments", "programs", "virtual_variables"]

_BUNDLED = """
import ensurepip, glob, os
places = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), getattr(ensurepip, "_WHEEL_PKG_DIR", None) or ""
print(*[wheel for place in places for wheel in glob.glob(os.path.join(place, "pip-*.whl"))], sep="\\n")
"""
_APART = ("-I", "-u", "-m")  # where this runs is the project's folder, which may have a json.py of its own


def programs(folder: Path) -> Path:
    """Return the folder of a virtual environment's programs."""
    return folder / ("Scripts" if os.name == "nt" else "bin")


def virtual_variables(folder: Path) -> Mapping[str, str]:
    """Return the variables that activating a virtual environment would set."""
    return {"VIRTUAL_ENV": str(folder), "PATH": str(programs(folder))}


class VenvEnvironments(Environments):
    """Make environments by the ``venv`` of the interpreter that is wanted, and by the pip that comes with it."""

    name = "venv"

    def origin(self, wanted: Wanted) -> Origin:
        """Return the interpreter that satisfies what is wanted, and where pip would look."""
        found, options = interpreters.found(wanted.python), lock_files.indexes_of(wanted)
        indexes = tuple(dict.fromkeys((*options, *pip_indexes())))
        return Origin(found.platform, found.version, indexes, found.path, found.markers)

    def resolve(self, making: Making) -> Lock:
        """Ask pip what it would install into an environment that has nothing."""
        return lock_files.resolved(making, partial(_report, making))

    def wheel(self, source: Path, folder: Path, making: Making) -> None:
        """Build a wheel as pip does, apart from everything that is installed."""
        options = making.write("indexes.txt", making.asked.options)
        making.run([*_pip(making), "wheel", "--no-deps", "-r", options, "--wheel-dir", folder, source])

    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        """Install the lock's distributions and nothing else, each checked by its hash where one is known."""
        making.progress(f"making an environment of Python {lock.python}")
        pip, own = _pip(making), _own_pip(making, lock)
        making.run([_interpreter(making), *_APART, "venv", *(["--without-pip"] if own else []), folder])
        making.progress(f"installing {len(lock.packages)} packages with pip")
        for pins in (lock.build, lock.requirements):
            known, unknown = making.pinned(pins)
            known += own if pins is lock.requirements else []
            for lines, how in ((known, ["--require-hashes"]), (unknown, [])):
                if lines:
                    file = making.write("pinned.txt", [*lock_files.options(making, lock), *lines])
                    target: list[str | Path] = ["--python", self.python(folder)]
                    making.run([*pip, *target, "install", "--no-deps", *how, "-r", file])

    def python(self, folder: Path) -> Path:
        """Return the environment's own interpreter."""
        return programs(folder) / ("python.exe" if os.name == "nt" else "python")

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Return what activating it would set."""
        return virtual_variables(folder)


def _interpreter(making: Making) -> Path:
    assert making.origin.interpreter is not None
    return making.origin.interpreter


def _pip(making: Making) -> list[str | Path]:
    """Return the pip that comes with the interpreter, in an environment of its own that is made once."""
    folder = shelf.tools(making.origin.platform, making.origin.python)
    python = programs(folder) / "python"
    with shelf.locked(folder.with_suffix(".lock")) as handle:
        if not (folder / "ok").exists() or not python.exists():
            making.progress(f"making an environment for pip of Python {making.origin.python}")
            shelf.remove(folder)
            alone = attrs.evolve(making, locks=(*making.locks, handle))
            try:
                alone.run([_interpreter(making), *_APART, "venv", folder])
                for wheel in alone.run([python, "-I", "-c", _BUNDLED]).splitlines():
                    if wheel:  # of a system that keeps none, pip is installed by ensurepip each time
                        shutil.copy(wheel, folder)
                (folder / "ok").touch()
            except BaseException:
                shelf.remove(folder)
                raise
    return [python, *_APART, "pip"]


def _own_pip(making: Making, lock: Lock) -> list[str]:
    """Return the line that installs the interpreter's own pip together with the rest, in half the time it takes alone.

    It is empty if the lock has a pip, or if the interpreter keeps its own where only itself finds it.
    """
    wheels = sorted(shelf.tools(making.origin.platform, making.origin.python).glob("pip-*.whl"))
    if "pip" in lock.packages or not wheels:
        return []
    return [f"pip @ {wheels[-1].as_uri()} --hash={read_wheel(wheels[-1], '').hashes[0]}"]


def _report(making: Making, name: str, lines: list[str], limits: list[str]) -> list[Pinned]:
    """Return what pip would install, as it reports (PEP 610 for where from)."""
    report = making.scratch / f"{name}.json"
    asked: list[str | Path] = ["-r", making.write(f"{name}.txt", lines)]
    asked += ["-c", making.write("limits.txt", limits)] if limits else []
    try:
        making.run([*_pip(making), "install", "--dry-run", "--ignore-installed", "--report", report, *asked])
        found = json.loads(report.read_bytes())["install"]
    except (OSError, ValueError, KeyError) as error:
        raise EnvironmentFailed(f"pip told nothing of what it would install: {error}") from error
    return [_pinned(each) for each in found]


def _pinned(told: Mapping[str, Any]) -> Pinned:
    about, source = told["metadata"], told["download_info"]
    archive = source.get("archive_info", {})
    told_hash = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix(
        "sha256="
    )  # before 23.1
    hashes = (f"sha256:{told_hash}",) if told_hash else ()
    name, version = normalized(about["name"]), about["version"]
    if not told.get("is_direct"):
        return Pinned(name, version, hashes)
    url, inner = without_credentials(source["url"]), source.get("subdirectory")
    if vcs := source.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return Pinned(name, version, hashes, url + (f"#subdirectory={inner}" if inner else ""))

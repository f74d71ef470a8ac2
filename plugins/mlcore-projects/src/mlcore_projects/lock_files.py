"""Locks that a project brings: ``uv.lock``, ``pylock.toml`` (PEP 751), a script's lock, requirements with hashes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlcore_projects.environments import EnvironmentFailed, Making
from mlcore_projects.locks import Lock, Pinned, normalized
from mlcore_projects.requirement_lines import read_lines, without_credentials
from mlcore_projects.specs import Wanted

__all__ = ["indexes_of", "options", "read", "read_pylock", "resolved"]


def indexes_of(wanted: Wanted) -> tuple[str, ...]:
    """Return where packages come from by what a project says."""
    return read_lines((*wanted.build, *wanted.requirements), wanted.folder).indexes


def options(making: Making, lock: Lock) -> list[str]:
    """Return lines that say where packages of a lock come from, beside what the user's own settings say."""
    told = {without_credentials(each.partition("=")[2]) for each in making.asked.options}
    lines = [*making.asked.options, *making.build.options]
    more = [each for each in lock.indexes if "://" in each and each not in (*making.origin.indexes, *told)]
    return list(dict.fromkeys(lines)) + [f"--extra-index-url={each}" for each in more]


def resolved(making: Making, resolve: Callable[[str, list[str], list[str]], list[Pinned]]) -> Lock:
    """Return the lock of what is wanted: what the project's own lock says, and what `resolve` finds for the rest.

    `resolve` is called with a name for files, lines of requirements, and lines that constrain what is chosen.
    """
    origin, pins = making.origin, read(making)
    names = {each.name for each in pins}
    lines = [line for line in making.lines() if line.startswith("-") or _name(line) not in names]
    limits = [*making.asked.constraints, *(f"{each.name}=={each.version}" for each in pins if each.version)]
    if number := sum(not line.startswith("-") for line in lines):
        making.progress(f"resolving {number} requirement{'s' * (number > 1)}")
        pins += [each for each in resolve("requirements", lines, limits) if each.name not in names]
    names = {each.name for each in pins}
    first = making.build
    build = resolve("build", [*first.options, *first.lines], [*first.constraints]) if first.lines else []
    return Lock(
        origin.python, origin.platform, pins, origin.indexes, [each for each in build if each.name not in names]
    )


def _name(line: str) -> str:
    match = re.match(r"[\w.-]+", line)
    return normalized(match[0]) if match else ""


def read(making: Making) -> list[Pinned]:
    """Return what a project's own lock says, for this interpreter; nothing if it brings none."""
    file = making.wanted.lock
    if file is None:
        return []
    if not file.is_file():
        raise EnvironmentFailed(f"there is no lock {file}")
    making.progress(f"reading {file.name}")
    if re.fullmatch(r"pylock(\.[^.]+)?\.toml", file.name):
        return read_pylock(file, making)
    if file.suffix == ".lock" and b"[[package]]" in file.read_bytes():
        return _exported(file, making)
    return _hashed(file, making)


def _exported(file: Path, making: Making) -> list[Pinned]:
    """Let uv say what of its lock is for here; the project itself is what runs, and is not installed."""
    from mlcore_projects.uv import program

    uv = program()
    if uv is None:
        raise EnvironmentFailed(
            f"only uv reads {file.name}: pip install uv, or keep the lock for all by `uv export --format pylock.toml`"
        )
    script = file.with_suffix("") if file.name.endswith(".py.lock") else None
    of: list[str | Path] = ["--script", script] if script else ["--project", file.parent, "--no-emit-project"]
    found = making.scratch / "pylock.toml"
    python: list[str | Path] = ["--python", making.origin.interpreter] if making.origin.interpreter else []
    making.run([uv, "export", "--locked", "--format", "pylock.toml", "--no-header", *python, "-o", found, *of])
    return read_pylock(found, making)


def read_pylock(file: Path, making: Making) -> list[Pinned]:
    """Return what a ``pylock.toml`` names for this interpreter; its paths begin in its own folder."""
    import tomllib

    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
        if not str(told.get("lock-version", "")).startswith("1."):
            raise EnvironmentFailed(f"{file} is no lock of version 1 (PEP 751)")
        listed = [each for each in told.get("packages", ()) if _applies(each.get("marker", ""), making)]
        return [_pin(each, file.parent, making) for each in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentFailed(f"{file} cannot be read: {error}") from error


def _applies(marker: str, making: Making) -> bool:
    if not marker:
        return True
    from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName

    try:
        return Marker(marker).evaluate({"extra": "", **making.origin.markers})
    except (InvalidMarker, UndefinedEnvironmentName) as error:
        raise EnvironmentFailed(f"the marker {marker!r} of a lock cannot be told: {error}") from error


def _pin(told: Mapping[str, Any], folder: Path, making: Making) -> Pinned:
    name, version = normalized(told["name"]), str(told.get("version", ""))
    if place := told.get("directory"):
        path = os.path.normpath(folder / place["path"] / place.get("subdirectory", ""))
        return Pinned(name, version, source=os.path.relpath(path, making.wanted.folder))
    if vcs := told.get("vcs"):
        where = vcs.get("url") or (folder / vcs["path"]).as_uri()
        inner = f"#subdirectory={vcs['subdirectory']}" if vcs.get("subdirectory") else ""
        return Pinned(name, version, url=f"{vcs['type']}+{without_credentials(where)}@{vcs['commit-id']}{inner}")
    if archive := told.get("archive"):
        where = archive.get("url") or (folder / archive["path"]).as_uri()
        return Pinned(name, version, tuple(_hashes([archive])), without_credentials(where))
    files = [*told.get("wheels", ()), *([told["sdist"]] if "sdist" in told else [])]
    return Pinned(name, version, tuple(sorted(set(_hashes(files)))))


def _hashes(files: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for each in files:
        for algorithm, digest in each.get("hashes", {}).items():
            if algorithm in ("sha256", "sha384", "sha512"):
                yield f"{algorithm}:{digest}"


def _hashed(file: Path, making: Making) -> list[Pinned]:
    """Return the pins of a file of requirements in which every line names one version and its hashes."""
    asked, pins = read_lines([f"-r {file}"], making.wanted.folder), list[Pinned]()
    for line in asked.lines:
        text, *hashes = re.split(r"\s--hash[= ]", line)
        text, _, marker = (part.strip() for part in re.split(r"(\s;|;\s)", f"{text} ; ", maxsplit=1))
        if not _applies(marker.rstrip("; "), making):
            continue
        exact = re.fullmatch(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*==\s*([^\s*,;]+)", text)
        direct = re.fullmatch(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*@\s*(\S+)", text)
        if exact:
            pins.append(Pinned(normalized(exact[1]), exact[2], tuple(sorted(each.strip() for each in hashes))))
        elif direct:
            pins.append(Pinned(normalized(direct[1]), "", tuple(hashes), without_credentials(direct[2])))
        else:
            raise EnvironmentFailed(f"{file} is no lock: {without_credentials(line)!r} names no single version")
    local = [
        Pinned(each.path.name, "", source=os.path.relpath(each.path, making.wanted.folder)) for each in asked.local
    ]
    return pins + local

"""Read what environment a project wants: python_env.yaml, conda.yaml, pyproject.toml, requirements.txt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore_projects.documents import line, lines, only, read_toml, read_yaml, table
from mlcore_projects.errors import ProjectError
from mlcore_projects.specs import Wanted

__all__ = [
    "beside",
    "conda_environment",
    "container",
    "from_tables",
    "inside",
    "python_environment",
    "script_environment",
]

_PYTHON = re.compile(r"\d+(\.\d+){0,2}")
_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_CONDA = re.compile(r"(?:[\w.-]+::)?([\w.-]+)\s*(.*)")
_BUILD = ("pip", "setuptools", "wheel")
_TABLE = ("kind", "python", "requirements", "extras", "lock")
_OPTIONS = re.compile(  # those that pip reads in a file of requirements
    r"(-[rceif]|--(requirement|constraint|editable|index-url|extra-index-url|find-links|no-index|pre|prefer-binary|no-binary"
    r"|only-binary|require-hashes|trusted-host|use-feature))(?=[\s=.\w/]|$)"
)


def beside(folder: Path) -> Wanted:
    """Return what the files of a folder say: the first of the four that is there. Raises `ProjectError`."""
    if (file := folder / "python_env.yaml").is_file():
        return python_environment(file, folder)
    if (file := folder / "conda.yaml").is_file():
        return conda_environment(file, folder)
    if (file := folder / "pyproject.toml").is_file():
        told = read_toml(file)
        tool = table(table(told.get("tool"), f"{file}: tool").get("mlcore"), f"{file}: tool.mlcore")
        if "project" in told or "environment" in tool:
            return from_tables(told.get("project"), tool.get("environment"), file)
    if (folder / "requirements.txt").is_file():
        return Wanted(folder, requirements=("-r requirements.txt",), lock=_lock(folder))
    return Wanted(folder)


def python_environment(file: Path, folder: Path) -> Wanted:
    """Return what a python_env.yaml says, whose paths begin in the project's folder. Raises `ProjectError`."""
    said = table(read_yaml(file), str(file))
    only(said, ("python", "build_dependencies", "dependencies"), str(file))
    return Wanted(
        folder,
        python=_python(said.get("python"), f"{file}: python"),
        requirements=_requirements(said.get("dependencies"), f"{file}: dependencies"),
        build=_requirements(said.get("build_dependencies"), f"{file}: build_dependencies"),
    )


def conda_environment(file: Path, folder: Path) -> Wanted:
    """Return what a conda.yaml says, as far as pip can install it. Raises `ProjectError`."""
    said = table(read_yaml(file), str(file))
    where = f"{file}: dependencies"
    wanted = Wanted(folder, conda=file)
    raw = said.get("dependencies") or []
    if not isinstance(raw, list):
        raise ProjectError(f"{where} must be a list, and is {raw!r:.80}")
    for each in raw:
        if isinstance(each, Mapping):
            only(table(each, where), ("pip",), where)
            more = _requirements(each["pip"], f"{where}: pip") if each else ()
            wanted = attrs.evolve(wanted, requirements=(*wanted.requirements, *more))
            continue
        found = _CONDA.fullmatch(line(each, f"{where}: {each!r:.80}"))
        name, version = (found[1], found[2].partition(" ")[0]) if found else ("", "")
        if name == "python":
            pinned = re.sub(r"^={1,2}([^=]*).*", r"\1", version)  # without the build after it
            wanted = attrs.evolve(wanted, python=_python(pinned or None, f"{where}: {each}"))
        elif name in _BUILD:
            pinned = re.sub(r"^=(?!=)", "==", version)
            wanted = attrs.evolve(wanted, build=(*wanted.build, name + pinned))
        else:
            wanted = attrs.evolve(wanted, left_out=(*wanted.left_out, each))
    return wanted


def from_tables(project: Any, environment: Any, file: Path) -> Wanted:
    """Return what ``[project]`` and ``[tool.mlcore.environment]`` of a pyproject.toml say. Raises `ProjectError`."""
    about, folder = table(project, f"{file}: project"), file.parent
    wanted = Wanted(
        folder,
        python=_python(about.get("requires-python"), f"{file}: requires-python"),
        requirements=_standard(about.get("dependencies"), f"{file}: dependencies"),
        lock=_lock(folder),
        left_out=("the dependencies of pyproject.toml, which are dynamic",)
        if "dependencies" in (about.get("dynamic") or ())
        else (),
    )
    return _evolved(wanted, environment, about, f"{file}: environment")


def _evolved(wanted: Wanted, raw: Any, about: Mapping[str, Any], where: str) -> Wanted:
    said, folder = table(raw, where), wanted.folder
    only(said, _TABLE, where)
    optional = table(about.get("optional-dependencies"), f"{where}: optional-dependencies")
    more: tuple[str, ...] = ()
    for extra in lines(said.get("extras"), f"{where}: extras"):
        if extra not in optional:
            raise ProjectError(f"{where}: extras names {extra!r}, which [project.optional-dependencies] does not have")
        more += _standard(optional[extra], f"{where}: {extra}")
    named = said.get("requirements")
    if isinstance(named, str):
        more += (f"-r {inside(folder, named, f'{where}: requirements').relative_to(folder).as_posix()}",)
    else:
        more += _requirements(named, f"{where}: requirements")
    kind = said.get("kind", wanted.kind)
    if "kind" in said and not _KIND.fullmatch(line(kind, f"{where}: kind")):
        raise ProjectError(f"{where}: kind must be a name such as venv, uv or system, and is {kind!r:.40}")
    return attrs.evolve(
        wanted,
        kind=kind,
        python=_python(said["python"], f"{where}: python") if "python" in said else wanted.python,
        requirements=(*wanted.requirements, *more),
        lock=inside(folder, said["lock"], f"{where}: lock") if "lock" in said else wanted.lock,
    )


def script_environment(said: Mapping[str, Any], environment: Any, file: Path) -> Wanted:
    """Return what the metadata of a script say (PEP 723). Raises `ProjectError`."""
    lock = file.with_name(f"{file.name}.lock")
    wanted = Wanted(
        file.parent,
        python=_python(said.get("requires-python"), f"{file}: requires-python"),
        requirements=_standard(said.get("dependencies"), f"{file}: dependencies"),
        lock=lock if lock.is_file() else None,
    )
    return _evolved(wanted, environment, {}, f"{file}: environment")


def container(raw: Any, where: str) -> dict[str, Any]:
    """Return a ``docker_env`` that names an image, volumes and variables. Raises `ProjectError`."""
    said = table(raw, where)
    image = line(said.get("image"), f"{where}: image")
    if re.search(r"\s", image):
        raise ProjectError(f"{where}: image must be a name, and is {image!r:.80}")
    variables = said.get("environment") or []
    if not isinstance(variables, list) or not all(_variable(each) for each in variables):
        raise ProjectError(
            f'{where}: environment must be a list of names to copy and pairs to set, as in ["USER", ["MODE", "fast"]]'
        )
    for each in (volumes := lines(said.get("volumes"), f"{where}: volumes")):
        line(each, f"{where}: volumes")
    return {**said, "image": image, "volumes": list(volumes), "environment": variables}


def _variable(raw: Any) -> bool:
    name, *value = raw if isinstance(raw, list) and len(raw) == 2 else [raw]
    return (
        isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z_]\w*", name)) and all(isinstance(v, str) for v in value)
    )


def inside(folder: Path, name: Any, where: str) -> Path:
    """Return a file that a project names, below or beside its folder. Raises `ProjectError` if it is not there."""
    file = folder / line(name, where)
    if Path(name).is_absolute():
        raise ProjectError(f"{where} must be relative to the project's folder, and is {name!r:.80}")
    if not file.is_file():
        raise ProjectError(f"{where} names {name!r:.80}, and there is no such file in {folder}")
    return file


def _lock(folder: Path) -> Path | None:
    return next((file for name in ("uv.lock", "pylock.toml") if (file := folder / name).is_file()), None)


def _python(raw: Any, where: str) -> str:
    if raw is None:
        return ""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    text = line(raw, where).strip()
    if not _PYTHON.fullmatch(text):
        try:
            SpecifierSet(text)
        except InvalidSpecifier:
            raise ProjectError(f"{where} must be a version such as 3.11, or >=3.11, and is {text!r:.40}") from None
    return text


def _requirements(raw: Any, where: str) -> tuple[str, ...]:
    """Return lines as pip reads them, in which options are those of a file of requirements."""
    for each in lines(raw, where):
        text = each.strip()
        if text.startswith("-") and not _OPTIONS.match(text):
            raise ProjectError(f"{where}: {each!r:.80} is no option of a file of requirements")
    return lines(raw, where)


def _standard(raw: Any, where: str) -> tuple[str, ...]:
    """Return requirements as the standard has them (PEP 508), which are never options."""
    from packaging.requirements import InvalidRequirement, Requirement

    for each in (found := lines(raw, where)):
        try:
            Requirement(each)
        except InvalidRequirement as error:
            raise ProjectError(f"{where}: {each!r:.80} is no requirement: {str(error).splitlines()[0]}") from None
    return found

"""Read MLproject files, by MLflow 3's schema: https://mlflow.org/docs/latest/ml/projects/.

What MLflow runs is run: the name of the file in any case, parameters by their type alone, unknown types as texts,
unknown keys as nothing, and undeclared parameters appended to the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlcore_projects.declaring import check_slots, command_words, parameters
from mlcore_projects.documents import line, lines, nearest, read_yaml, table
from mlcore_projects.errors import ProjectError
from mlcore_projects.specs import EntryPoint, Project, Source, Wanted
from mlcore_projects.wanting import beside, conda_environment, container, inside, python_environment

__all__ = ["find_mlproject", "read_mlproject", "unknown"]

_KINDS = ("python_env", "conda_env", "docker_env")
_KNOWN = ("name", "entry_points", "databricks_spark_job", *_KINDS)


def find_mlproject(folder: Path) -> Path | None:
    """Return the file called MLproject, in any case; of several the one that comes first by code points."""
    return next(
        (each for each in sorted(folder.iterdir()) if each.name.lower() == "mlproject" and each.is_file()), None
    )


def read_mlproject(file: Path, source: Source) -> Project:
    """Return what an MLproject file says. Raises `ProjectError`."""
    said, folder = table(read_yaml(file), str(file)), file.parent
    declared = table(said.get("entry_points"), f"{file}: entry_points")
    entries = {name: _entry(name, each, f"{file}: entry point {name!r}") for name, each in declared.items()}
    name = said.get("name")
    if name is None or name == "":
        name = folder.resolve().name
    return Project(
        line(str(name) if isinstance(name, int | float) else name, f"{file}: name"),
        folder,
        "MLproject",
        entries,
        _environment(said, entries, file),
        source,
    )


def unknown(file: Path) -> Iterator[str]:
    """Yield a remark for every key that neither MLflow nor mlcore reads."""
    said = table(read_yaml(file), str(file))
    yield from (f"{key!r} means nothing in an MLproject{nearest(key, _KNOWN)}" for key in said if key not in _KNOWN)
    for name, each in table(said.get("entry_points"), "entry_points").items():
        known = ("parameters", "command")
        yield from (
            f"entry point {name!r}: {key!r} means nothing{nearest(key, known)}" for key in each if key not in known
        )


def _entry(name: str, raw: Any, where: str) -> EntryPoint:
    said = table(raw, where)
    command = said.get("command")
    if not isinstance(command, str) or not command.strip() or "\0" in command:
        raise ProjectError(f"{where} must have a command, a text such as 'python train.py --alpha {{alpha}}'")
    declared = parameters(said.get("parameters"), where, strict=False)
    entry = EntryPoint(name, command, declared)
    check_slots(command_words(entry, where), declared, where)
    return entry


def _environment(said: dict[str, Any], entries: dict[str, EntryPoint], file: Path) -> Wanted:
    folder = file.parent
    kinds = [kind for kind in _KINDS if kind in said]
    if len(kinds) > 1:
        raise ProjectError(f"{file} must name one environment, and has {' and '.join(kinds)}")
    if said.get("databricks_spark_job") is not None:
        return Wanted(folder, kind="databricks", container=_spark(said, entries, file))
    if said.get("docker_env"):
        return Wanted(folder, kind="docker", container=container(said["docker_env"], f"{file}: docker_env"))
    if name := said.get("python_env"):
        return python_environment(inside(folder, name, f"{file}: python_env"), folder)
    if name := said.get("conda_env"):
        return conda_environment(inside(folder, name, f"{file}: conda_env"), folder)
    return beside(folder)


def _spark(said: dict[str, Any], entries: dict[str, EntryPoint], file: Path) -> dict[str, Any]:
    """Return a job for Databricks, as MLflow checks it."""
    where = f"{file}: databricks_spark_job"
    job = table(said["databricks_spark_job"], where)
    program = job.get("python_file")
    if (program is None) is (not entries):
        raise ProjectError(f"{where} must have a python_file, or the project entry points, and not both")
    if any(each.type == "path" for entry in entries.values() for each in entry.parameters):
        raise ProjectError(f"{where}: a job for Databricks has no parameters of type path")
    if wrong := [kind for kind in ("docker_env", "python_env", "conda_env") if kind in said]:
        raise ProjectError(f"{where}: a job for Databricks has no {wrong[0]}")
    return {
        "python_file": None if program is None else line(program, f"{where}: python_file"),
        "parameters": [str(each) for each in job.get("parameters") or []],
        "python_libraries": list(lines(job.get("python_libraries"), f"{where}: python_libraries")),
    }

"""Compare the code of two runs: line by line where both can be made again, else by what they recorded of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlcore import Run
from mlcore.errors import MlcoreError
from mlcore_local.comparing_trees import tree_changes
from mlcore_local.differences import Change, changes

__all__ = ["code_changes"]

_PATCH = ".mlcore/code/changes.patch"
_HEAD = re.compile(r"^diff --git (?:\"?a/.*?\"? )?\"?b/(.*?)\"?$", re.MULTILINE)


def code_changes(first: Run, second: Run, unknown: list[str]) -> list[Change]:
    """Return the files of code that two runs do not have alike, with the lines; `unknown` is told what is not known."""
    known = [_identity(run) for run in (first, second)]
    for run, identity in zip((first, second), known, strict=True):
        if not identity:
            unknown.append(f"code: run {run.id} did not record it")
    if not all(known) or known[0] == known[1]:
        return []
    with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
        folders = [_restored(run, Path(place, str(at)), unknown) for at, run in enumerate((first, second))]
        if folders[0] is not None and folders[1] is not None:
            return list(tree_changes(folders[0], folders[1]))
    return list(_recorded(first, second))


def _identity(run: Run) -> Any:
    """Return what tells the code of a run from other code, nothing if nothing was recorded."""
    modules = {each["path"]: each.get("tree") for each in run.context.get("git.submodules") or ()}
    scripts = {key: value for key, value in run.context.items() if key.startswith("script.")}
    return [run.context["git.tree"], modules] if run.context.get("git.tree") else scripts


def _restored(run: Run, folder: Path, unknown: list[str]) -> Path | None:
    from mlcore_local.code import restore

    try:
        found = restore(run, folder)
    except MlcoreError as error:
        unknown.append(f"lines of code: run {run.id}: {error}")
        return None
    unknown += [f"code: run {run.id}: {each}" for each in found.notes]
    return found.folder


def _recorded(first: Run, second: Run) -> Iterator[Change]:
    """Yield what is known to differ without the files: the commit, else those files whose changes are not alike."""
    commits = [run.context.get("git.commit") for run in (first, second)]
    if commits[0] != commits[1]:
        yield Change("commit", "changed", commits[0], commits[1])
        return
    scripts = [
        {key: value for key, value in run.context.items() if key.startswith("script.")} for run in (first, second)
    ]
    found = [_patched(run) | {each["path"]: each.get("size") for each in _untracked(run)} for run in (first, second)]
    for each in changes(scripts[0] or found[0], scripts[1] or found[1]):
        yield Change(each.name.removeprefix("script."), "changed", lines=("its lines cannot be shown",))


def _untracked(run: Run) -> list[Mapping[str, Any]]:
    return run.context.get("git.untracked") or []


def _patched(run: Run) -> dict[str, Any]:
    """Return the parts of a run's patch, by the path they change."""
    if not run.artifacts.list(_PATCH):
        return {}
    try:
        text = run.artifacts.get(_PATCH).read_text(encoding="utf-8", errors="replace")
    except MlcoreError:
        return {}
    _, *parts = _HEAD.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))

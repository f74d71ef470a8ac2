"""Compare the code of two runs: line by line where both can be made again, else by what they recorded of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
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
        if folders[0] is None or folders[1] is None:
            return list(_recorded(first, second))
        found = list(tree_changes(folders[0], folders[1]))
    whole = ["git.tree" in run.context for run in (first, second)]
    gone = {(True, False): "removed", (False, True): "added"}.get((whole[0], whole[1]))
    return [each for each in found if each.kind != gone]  # without git not all files were kept


def _identity(run: Run) -> Any:
    """Return what tells the code of a run from other code, nothing if nothing was recorded."""
    modules = {each["path"]: each.get("tree") for each in run.context.get("git.submodules") or ()}
    return [run.context["git.tree"], modules] if run.context.get("git.tree") else run.context.get("script.tree")


def _restored(run: Run, folder: Path, unknown: list[str]) -> Path | None:
    from mlcore_local.code import restore

    root = run.context.get("git.root")
    near = root if root and Path(root, ".git").exists() else None  # which spares a fetch
    try:
        found = restore(run, folder, repository=near)
    except MlcoreError as error:
        unknown.append(f"lines of code: {error}")
        return None
    unknown += [f"code: run {run.id}: {each}" for each in found.notes]
    return found.folder


def _recorded(first: Run, second: Run) -> Iterator[Change]:
    """Yield what is known to differ without the files: the commit, else those files whose changes are not alike."""
    commits = [run.context.get("git.commit") for run in (first, second)]
    if commits[0] != commits[1]:
        yield Change("commit", "changed", commits[0], commits[1])
        return
    found = [run.context.get("script.files") or _patched(run) | _untracked(run) for run in (first, second)]
    for each in changes(found[0], found[1]):
        yield Change(each.name, "changed", lines=("its lines cannot be shown",))


def _untracked(run: Run) -> dict[str, Any]:
    return {each["path"]: each.get("size") for each in run.context.get("git.untracked") or ()}


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

"""Record with a run what code it ran: the providers `git` and `script` of the hook `mlcore_context`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlcore.artifacts import safe_path
from mlcore.config import user_cache
from mlcore.errors import MlcoreError, UnsafePath
from mlcore_local.code.places import code_folder, find

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["FOLDER", "git", "remember", "remembered", "script"]

FOLDER = ".mlcore/code"
_PLACES = 500


def git(run: Run) -> dict[str, Any]:
    """Tell the commit, branch, remote and changes of the repository that the code is in, and keep what changed."""
    folder = code_folder()
    if find(folder) is None:
        return {}
    from mlcore_local.code.unchanged import current_state  # only now: who has no repository does not pay for it

    state = current_state(folder)
    if state is None:
        return {}
    root = state.facts.pop("root")  # where somebody's folders lie stays on this machine
    if "commit" in state.facts:
        remember(state.facts["commit"], root)
    _keep(run, state.facts, state.files)
    return state.facts


def script(run: Run) -> dict[str, Any]:
    """Keep the script or notebook, what it imported from beside itself and the project's small files, if git cannot."""
    folder = code_folder()
    if find(folder) is not None:
        from mlcore_local.code.git import installed

        if installed() is not None:
            return {}
    from mlcore_local.code.scripts import script_files

    facts, files = script_files(folder)
    _keep(run, facts, files)
    return facts


def remember(commit: str, root: str) -> None:
    """Note in the user's cache where on this machine a commit was, for `restore`."""
    with suppress(OSError):
        folder = user_cache() / "places"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / commit).write_bytes(os.fsencode(root))
        kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[:-_PLACES]:
            path.unlink(missing_ok=True)


def remembered(commit: str) -> str:
    """Return where on this machine a commit was, empty if nothing is known of that."""
    with suppress(OSError):
        return os.fsdecode((user_cache() / "places" / commit).read_bytes())
    return ""


def _keep(run: Run, facts: dict[str, Any], files: dict[str, bytes]) -> None:
    for name, data in files.items():
        try:
            run.log_bytes(data, safe_path(f"{FOLDER}/{name}"))
        except (UnsafePath, MlcoreError) as error:  # what is known of the code is worth something without the files
            facts.setdefault("left_out", []).append(f"file {name}: {error}")
            with suppress(KeyError):
                facts["files"].pop(name, None)

"""Tell whether code is as it was when this process looked last: a sweep of a thousand runs asks git once."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import attrs

from mlcore_local.code.places import Checkout, Signs, find, settled, signs_of
from mlcore_local.code.state import State, state_of

__all__ = ["current_state"]

_MOST = 20_000  # files, to look at which takes longer than to ask git
_OWN = ("HEAD", "index", "config", "packed-refs", "shallow", "info/exclude")
_lock = threading.Lock()


@attrs.frozen
class _Seen:
    """Hold a state, and by what signs it is known to be the same still."""

    root: Path
    state: State
    signs: Signs


_seen: _Seen | None = None


def current_state(folder: Path) -> State | None:
    """Return the state of the repository that a folder is in: as `state_of` does, or that of before if nothing changed.

    Nothing changed if all files that git keeps or would keep, their folders with the folders in these, and git's own
    files have the size, the times and the inode that they had.
    """
    global _seen  # noqa: PLW0603 - there is one working folder in a process
    checkout = find(folder)
    if checkout is None:
        return None
    with _lock:
        if _seen is not None and _seen.root == checkout.root and signs_of(_seen.signs) == _seen.signs:
            return copy.deepcopy(_seen.state)
        began = time.time_ns()
        state = state_of(folder)
        _seen = None
        if state is not None and state.paths and len(state.paths) < _MOST and _whole(state):
            signs = signs_of(_watched(checkout, state.paths))
            if settled(signs, began):
                _seen = _Seen(checkout.root, copy.deepcopy(state), signs)
        return state


def _whole(state: State) -> bool:
    return not any(each.startswith("what changed:") for each in state.facts.get("left_out", ()))


def _watched(checkout: Checkout, paths: Iterable[str]) -> list[str]:
    """Return what would have another time if anything were changed, added or committed."""
    root, found = str(checkout.root), dict[str, None]()
    folders = dict.fromkeys([root])
    for path in paths:
        name = os.path.join(root, path)
        found[name] = None
        while (name := os.path.dirname(name)) not in folders:
            folders[name] = None
    for folder in folders:
        try:
            inside = [each for each in os.scandir(folder) if each.name != "__pycache__"]
            found |= {each.path: None for each in inside if each.is_dir(follow_symlinks=False)}
        except OSError:
            continue
    found.pop(os.path.join(root, ".git"), None)  # in which locks come and go
    own = {checkout.git, checkout.common}
    names = [
        each / name for each in own for name in ("HEAD", "index", "config", "packed-refs", "shallow", "info/exclude")
    ]
    refs = [inner for each in own for inner, _, _ in os.walk(each / "refs")]
    home = Path(os.path.expanduser("~"))
    names += [home / ".gitconfig", home / ".config" / "git" / "config", home / ".config" / "git" / "ignore"]
    return [*found, *folders, *map(str, names), *refs]

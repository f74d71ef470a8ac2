"""What a repository was like when a run started: its commit, and every change since, as far as they may be kept."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from mlcore_local.code.git import Git, GitFailed, installed, view
from mlcore_local.code.packing import Packed, at_remote, keep
from mlcore_local.code.places import Checkout, find, head, read_config
from mlcore_local.code.secrets import mask, mask_url
from mlcore_local.code.worktree import SUBMODULE, Budget, Entry, Left, Limits, WorkTree

__all__ = ["Limits", "State", "state_of"]

_DEPTH = 8  # of submodules in submodules
_LISTED = 12_000  # characters that a list may have: what is recorded at once has 64 kB


@attrs.define
class State:
    """Hold what becomes ``git.KEY`` of a run's context, and the `files` that are kept, by names in ``.mlcore/code``.

    `paths` are all files that were looked at; none are told of a repository with submodules.
    """

    facts: dict[str, Any]
    files: dict[str, bytes] = attrs.field(factory=dict)
    paths: tuple[str, ...] = ()


def state_of(folder: str | os.PathLike[str], limits: Limits | None = None) -> State | None:
    """Return the state of the repository that a folder is in, None if it is in none. Nothing is written there.

    What takes too long, or what git cannot read, is told in ``left_out``.
    """
    checkout, limits = find(Path(folder)), limits or Limits()
    if checkout is None:
        return None
    with tempfile.TemporaryDirectory(prefix="mlcore-", ignore_cleanup_errors=True) as temporary:
        look = _Look(limits, Path(temporary), time.monotonic() + limits.seconds)
        return look.state(checkout)


@attrs.define
class _Look:
    limits: Limits
    temporary: Path
    until: float
    budget: Budget = attrs.field(factory=Budget)

    def state(self, checkout: Checkout, prefix: str = "", depth: int = 0) -> State:
        """Return the state of a repository, with its submodules; `prefix` is where it is in the first one."""
        commit, branch = head(checkout)
        facts: dict[str, Any] = {"commit": commit, "branch": branch, "root": str(checkout.root)}
        state, program = State({key: value for key, value in facts.items() if value is not None}), installed()
        if program is None:
            _name_remote(state, checkout, read_config(checkout.common / "config"), branch)
            state.facts["left_out"] = ["what changed: git is not installed"]
            return state
        try:
            git, settings = view(checkout, program, self.temporary, self.until)
            name = _name_remote(state, checkout, settings, branch)
            self._fill(state, git, name, prefix, depth)
        except (GitFailed, OSError, ValueError) as error:
            state.files.clear()
            for key in state.facts.keys() - {"commit", "branch", "root", "remote"}:
                del state.facts[key]
            state.facts["left_out"] = [f"what changed: {mask(str(error))}"]
        return state

    def _fill(self, state: State, git: Git, remote: str, prefix: str, depth: int) -> None:
        commit = git.text("rev-parse", "--quiet", "--verify", "HEAD^{commit}", allowed=(0, 1))
        start = commit or git.text("hash-object", "-t", "tree", os.devnull)
        work = WorkTree(git, self.limits, self.budget)
        work.look()
        submodules = self._submodules(state, work, prefix, depth)
        state.paths = () if submodules else (*work.tracked, *work.untracked)
        differing = [change for change in work.differing(start) if change.path not in work.untracked]
        changes = {change.path: f"{change.status} {change.path}" for change in differing}
        changes |= {
            path: f"M {path}" for path in work.skipped - work.untracked.keys() - changes.keys() if path[-1] != "/"
        }
        packed = Packed(start)
        if commit and not (remote and at_remote(git, commit, remote)):
            packed = keep(git, commit, remote, self.limits, self.budget)
        untold = work.settle(packed.base)
        tree = work.write()
        patch = _patch(git, packed.base, tree, untold)
        places = {"changes.patch": patch, "objects.pack": packed.pack}
        if untold:
            places["replaced.json"] = json.dumps([os.fsencode(path).hex() for path in untold]).encode()
        state.files |= {f"{prefix}{name}": data for name, data in places.items() if data}
        untracked = [
            {"path": _shown(path), "size": size, "kept": path not in work.skipped}
            for path, size in sorted(work.untracked.items())
        ]
        left = {each.path: f"{each.path}: {each.why}" for each in (*packed.left, *work.left)}
        listed = _some(untracked, self.limits.listed)
        if len(untracked) > len(listed):
            left[""] = f"of {len(untracked):,} untracked files the first {len(listed):,} are listed"
        found = {
            "dirty": bool(changes or untracked or any(each["dirty"] for each in submodules)),
            "tree": tree,
            "base": packed.base if commit and packed.base != commit else None,
            "onto": packed.onto or None,
            "changes": _listed((changes[path] for path in sorted(changes)), self.limits.listed),
            "untracked": listed,
            "submodules": submodules,
            "left_out": _listed(left.values(), self.limits.listed),
            "masked": _listed(dict.fromkeys((*packed.masked, *work.masked)), self.limits.listed),
        }
        state.facts |= {key: value for key, value in found.items() if value is not None and value != []}

    def _submodules(self, state: State, work: WorkTree, prefix: str, depth: int) -> list[dict[str, Any]]:
        """Look at each submodule, and note the commit that it is at in the index."""
        found, entries = list[dict[str, Any]](), list[Entry]()
        for path, recorded in sorted(work.submodules.items()):
            root = work.git.folder / path
            if not os.path.lexists(root):
                entries.append(Entry("0", "0" * len(recorded), path))
                continue
            inner = find(root) if (root / ".git").exists() and depth < _DEPTH else None
            if inner is None or inner.root != root.resolve():
                found.append({"path": _shown(path), "commit": recorded, "dirty": False})
                continue
            below = self.state(inner, f"{prefix}{path}/", depth + 1)
            state.files |= below.files
            commit = below.facts.get("commit", recorded)
            entries.append(Entry(SUBMODULE, commit, path))
            about = {"path": _shown(path), "url": below.facts.get("remote"), "commit": commit}
            about |= {key: below.facts.get(key) for key in ("tree", "base", "onto")}
            found.append(
                {key: value for key, value in about.items() if value} | {"dirty": below.facts.get("dirty", False)}
            )
            for each in below.facts.get("submodules", ()):
                found.append({**each, "path": f"{_shown(path)}/{each['path']}"})
            for each in below.facts.get("left_out", ()):
                name, _, why = each.partition(": ")
                work.left.append(Left(f"{path}/{name}", why))
            work.masked += [f"{_shown(path)}/{each}" for each in below.facts.get("masked", ())]
        work.set(entries)
        return found


def _patch(git: Git, base: str, tree: str, untold: list[str]) -> bytes:
    """Return what makes `tree` of `base`, after the paths are taken away whose old content must not be told."""
    start = base
    if untold:
        index = {"GIT_INDEX_FILE": f"{git.environment['GIT_INDEX_FILE']}.start"}
        git("read-tree", base, also=index)
        gone = b"".join(os.fsencode(path) + b"\0" for path in untold)
        git("update-index", "-z", "--force-remove", "--stdin", given=gone, also=index)
        start = git("write-tree", "--missing-ok", also=index).decode().strip()
    options = ("--patch", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")
    prefixes = (
        "--src-prefix=a/",
        "--dst-prefix=b/",
        "--ignore-submodules=all",
        "--unified=3",
        "--diff-algorithm=myers",
    )
    return git("diff-tree", "-r", *options, *prefixes, start, tree)


def _name_remote(state: State, checkout: Checkout, settings: dict[str, str], branch: str | None) -> str:
    """Note the URL of the remote that the branch follows, else of `origin`, else of the only one; return its name."""
    names = [key[7:-4] for key in settings if key.startswith("remote.") and key.endswith(".url")]
    followed = settings.get(f"branch.{branch}.remote", "")
    name = followed if followed in names else "origin" if "origin" in names else names[0] if len(names) == 1 else ""
    if not name:
        return ""
    url = settings[f"remote.{name}.url"]
    if "://" not in url and (":" not in url.partition("/")[0]):  # a path
        url = os.path.normpath(checkout.root / os.path.expanduser(url))
    state.facts["remote"] = _shown(mask_url(url))
    return name if not set(name) & set("*?[\\") else ""


def _shown(path: str) -> str:
    """Return a path as text: what is no UTF-8 in it is shown as a number."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _some(entries: list[Any], limit: int) -> list[Any]:
    """Return as many entries, from the first, as can be recorded."""
    kept, length = list[Any](), 0
    for each in entries[:limit]:
        length += len(json.dumps(each))
        if length > _LISTED:
            break
        kept.append(each)
    return kept


def _listed(texts: Iterable[str], limit: int) -> list[str]:
    shown = [_shown(each) for each in texts]
    kept = _some(shown, limit)
    return kept if len(kept) == len(shown) else [*kept, f"and {len(shown) - len(kept):,} more"]

"""Make again the code that a run had: from the repository's URL, from a local repository, or from what was kept."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore import Run
from mlcore.artifacts import safe_path
from mlcore.errors import MlcoreError
from mlcore_local.code.capturing import FOLDER, remembered
from mlcore_local.code.git import Git, GitFailed, installed, safe_environment, view
from mlcore_local.code.packing import listing, pack
from mlcore_local.code.places import find
from mlcore_local.code.scripts import restore_script
from mlcore_local.code.worktree import SUBMODULE, Entry, index_lines

__all__ = ["NotRestored", "Restored", "restore"]

_TRANSPORTS = "http:https:ssh:git:file"
_SECONDS = 1800.0
_SHOWN = 5


class NotRestored(MlcoreError):
    """Say why the code of a run cannot be made again."""


@attrs.frozen
class Restored:
    """Tell of a folder with the code of a run: its `tree`, checked, and in `notes` what is not as it was."""

    tree: str
    folder: Path
    notes: tuple[str, ...] = ()


def restore(run: Run, folder: str | os.PathLike[str], *, repository: str | None = None) -> Restored:
    """Make the code of a run in a new or empty folder, and check that it is what ran.

    The commit comes from `repository`, a path or URL, if that is given, else from the remote that was recorded, from
    the repository on this machine, or from what the run kept. Raises `NotRestored`, and leaves nothing.
    """
    target = Path(folder).absolute()
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise NotRestored(f"{target} is there already: code is restored into a new or an empty folder")
    context = run.context
    facts = {key.removeprefix("git."): value for key, value in context.items() if key.startswith("git.")}
    script = {key.removeprefix("script."): value for key, value in context.items() if key.startswith("script.")}
    if not (facts.get("tree") or script.get("tree")):
        why = "; ".join([*facts.get("left_out", ()), *script.get("left_out", ())])
        raise NotRestored(f"run {run.id} did not record its code{f': {why}' if why else ''}")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".mlcore-restore-", dir=target.parent))
    try:
        made = temporary / "code"
        made.mkdir()
        files = _Files(run)
        try:
            if facts.get("tree"):
                notes = _with_git(facts, files, made, temporary, repository)
            else:
                notes = restore_script(script, files.names(), files.read, made)
        except (MlcoreError, OSError, ValueError, KeyError, TypeError) as error:
            raise NotRestored(f"the code of run {run.id} cannot be restored: {_told(error)}") from error
        if target.is_dir():
            target.rmdir()
        made.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Restored(facts.get("tree") or script["tree"], target, tuple(notes))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, MlcoreError) else f"{type(error).__name__}: {error}"


@attrs.frozen
class _Files:
    """Read what the run kept, each checked by its sha256."""

    run: Run

    def names(self) -> set[str]:
        return {each.path.removeprefix(f"{FOLDER}/") for each in self.run.artifacts.list(FOLDER)}

    def read(self, name: str) -> bytes:
        return self.run.artifacts.get(f"{FOLDER}/{name}").read_bytes()


def _with_git(
    facts: Mapping[str, Any], files: _Files, made: Path, temporary: Path, repository: str | None
) -> Iterable[str]:
    program = installed()
    if program is None:
        raise NotRestored("that takes git, which is not installed")
    making = _Making(files, files.names(), program, temporary, time.monotonic() + _SECONDS)
    modules = {each["path"]: each for each in facts.get("submodules", ())}
    commit = str(facts.get("commit", ""))
    root = remembered(commit) if _is_id(commit) else ""
    making.make({**facts, "root": root}, made, "", repository, modules)
    return [*making.notes, *_notes(facts, made)]


def _notes(facts: Mapping[str, Any], made: Path) -> Iterable[str]:
    if masked := facts.get("masked"):
        yield f"secrets are masked in {_first(masked)}"
    if left := facts.get("left_out"):
        yield f"was not kept, and is as committed or not there: {_first(left)}"
    attributes = made / ".gitattributes"
    if attributes.is_file() and "filter=lfs" in attributes.read_text(errors="replace"):
        yield "files of Git LFS are pointers to their content: run git lfs pull there"


def _first(texts: list[str]) -> str:
    more = f", and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


@attrs.define
class _Making:
    """Make a repository and its submodules in folders that are empty."""

    files: _Files
    names: set[str]
    program: str
    temporary: Path
    until: float
    notes: list[str] = attrs.field(factory=list)

    def make(
        self, facts: Mapping[str, Any], folder: Path, prefix: str, repository: str | None, modules: Mapping[str, Any]
    ) -> None:
        """Make one repository: its commit, then what was changed, and look whether that is the tree that ran."""
        tree, commit = str(facts["tree"]), facts.get("commit")
        base, onto = facts.get("base") or commit, facts.get("onto")
        kind = "sha256" if len(tree) == 64 else "sha1"
        own = safe_environment(self.temporary, GIT_DIR=str(folder / ".git"), GIT_WORK_TREE=str(folder))
        git = Git(self.program, folder, own, self.temporary, self.until)
        git("init", "-q", "--template=", f"--object-format={kind}", "--initial-branch=restored")
        packed = f"{prefix}objects.pack" in self.names
        wanted = onto if packed else base
        if commit is None or not _is_id(base or ""):
            base = wanted = ""
        if wanted:
            self._get(git, str(wanted), repository or "", facts, prefix)
        if packed:
            git("index-pack", "--stdin", given=self.files.read(f"{prefix}objects.pack"))
        if base:
            _shallow(folder, [base, *([wanted] if wanted else [])])
            git("read-tree", base)
        self._change(git, prefix)
        below = {path: each for path, each in modules.items() if not any(path.startswith(f"{up}/") for up in modules)}
        self._submodules(git, below)
        made = git.text("write-tree")
        if made != tree:
            where = f"submodule {prefix.rstrip('/')}" if prefix else "the code"
            raise NotRestored(f"{where} is not what ran: its tree is {made}, and was {tree}")
        git("checkout-index", "--all", "--force", "--quiet")
        for path, each in below.items():
            if each.get("tree"):
                inner = {
                    name.removeprefix(f"{path}/"): it for name, it in modules.items() if name.startswith(f"{path}/")
                }
                source = _inner(repository, path) if repository else None
                if (folder / path).resolve() != folder.resolve() / path:
                    raise NotRestored(f"submodule {path} is not where it should be")
                about = {**each, "root": _inner(facts.get("root"), path)}
                self.make(about, folder / path, f"{prefix}{path}/", source, inner)
        if base:
            git("update-ref", "--no-deref", "HEAD", base)
            git("read-tree", base)
            if base != commit:
                self.notes.append(f"{prefix}HEAD stands in for commit {commit}, of which secrets were not kept")
        git("update-index", "-q", "--refresh", allowed=(0, 1))

    def _change(self, git: Git, prefix: str) -> None:
        """Bring the index from the commit to what ran."""
        if f"{prefix}replaced.json" in self.names:
            gone = [bytes.fromhex(each) for each in json.loads(self.files.read(f"{prefix}replaced.json"))]
            git("update-index", "-z", "--force-remove", "--stdin", given=b"".join(each + b"\0" for each in gone))
        if f"{prefix}changes.patch" in self.names:
            patch = self.files.read(f"{prefix}changes.patch")
            git("apply", "--cached", "--whitespace=nowarn", "-", given=patch)

    def _submodules(self, git: Git, modules: Mapping[str, Any]) -> None:
        """Set the commits of submodules, and of no others."""
        entries = list[Entry]()
        for line in filter(None, git("ls-files", "-z", "--stage").split(b"\0")):
            about, _, name = line.partition(b"\t")
            if about.startswith(SUBMODULE.encode()) and os.fsdecode(name) not in modules:
                entries.append(Entry("0", "0" * len(about.split()[1]), os.fsdecode(name)))
        for path, each in modules.items():
            if safe_path(path) != path or ".git" in path.casefold().split("/") or not _is_id(str(each["commit"])):
                raise NotRestored(f"{path!r} at {each['commit']!r} is no submodule")
            entries.append(Entry(SUBMODULE, str(each["commit"]), path))
        git("update-index", "-z", "--index-info", given=index_lines(entries))
        there = git("ls-files", "-z", "--stage").decode(errors="surrogateescape").split("\0")
        listed = {line.partition("\t")[2] for line in there if line.startswith(SUBMODULE)}
        if listed != set(modules):
            raise NotRestored(f"submodules cannot be at {', '.join(sorted(set(modules) - listed))}")

    def _get(self, git: Git, commit: str, repository: str, facts: Mapping[str, Any], prefix: str) -> None:
        """Get a commit from the first place that has it."""
        url, root = str(facts.get("remote") or facts.get("url") or ""), facts.get("root")
        asked = list(dict.fromkeys(filter(None, [repository, url, "" if repository else str(root or "")])))
        said = list[str]()
        for place in asked:
            try:
                if os.path.isabs(place) and (Path(place) / ".git").exists():
                    self._borrow(git, place, commit)
                else:
                    self._fetch(git, place, commit)
            except (GitFailed, NotRestored, OSError) as error:
                said.append(f"{place}: {error}")
                continue
            if place == url:  # for who goes on from there
                git("update-ref", "refs/remotes/origin/restored", commit)
                git("config", "remote.origin.url", url)
                git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
            return
        what = f"commit {commit} of submodule {prefix.rstrip('/')}" if prefix else f"commit {commit}"
        raise NotRestored(f"nobody has {what}: {'; '.join(said) or 'no remote was recorded'}")

    def _fetch(self, git: Git, url: str, commit: str) -> None:
        """Fetch one commit, or where a server does not give that, everything."""
        if url.startswith("-") or "::" in url.partition("/")[0]:
            raise NotRestored("that is no URL of a repository")
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _USERS}
        own |= {"GIT_DIR": git.environment["GIT_DIR"], "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": _TRANSPORTS}
        own |= {"GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
        asking = Git(self.program, git.folder, own, self.temporary, self.until)
        fetch = ("fetch", "--quiet", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance")
        try:
            asking(*fetch, "--no-tags", "--depth=1", "--", url, commit)
        except GitFailed:
            asking(*fetch, "--", url, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        if git("cat-file", "-t", commit, allowed=(0, 128)) != b"commit\n":
            raise NotRestored("it does not have that commit")

    def _borrow(self, git: Git, place: str, commit: str) -> None:
        """Copy the files of a commit from a repository on this machine, which runs nothing and may be anybody's."""
        checkout = find(Path(place))
        if checkout is None or checkout.root != Path(place).resolve():
            raise NotRestored("there is no repository")
        theirs, _ = view(checkout, self.program, self.temporary, self.until)
        if theirs("cat-file", "-t", commit, allowed=(0, 128)) != b"commit\n":
            raise NotRestored("it does not have that commit")
        ids = dict.fromkeys([commit, theirs.text("rev-parse", f"{commit}^{{tree}}")])
        ids |= dict.fromkeys(each.id for each in listing(theirs, commit))
        git("index-pack", "--stdin", given=pack(theirs, ids))


_USERS = {
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    *("GIT_PROXY_SSL_CAINFO", "GIT_HTTP_PROXY_AUTHMETHOD"),
}


def _is_id(text: str) -> bool:
    return len(text) in (40, 64) and set(text) <= set("0123456789abcdef")


def _inner(root: Any, path: str) -> str:
    return os.path.join(str(root), path) if root else ""


def _shallow(folder: Path, commits: Iterable[str]) -> None:
    """Let git not look for what came before: the parents of a commit are not kept."""
    place = folder / ".git" / "shallow"
    known = place.read_text().split() if place.exists() else []
    place.write_text("".join(f"{id}\n" for id in dict.fromkeys([*known, *commits])))

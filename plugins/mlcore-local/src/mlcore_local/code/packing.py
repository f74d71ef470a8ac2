"""Keep the files of a commit that is at no remote, as a pack of git, without what must not be kept."""

from __future__ import annotations

import os
from collections.abc import Iterator

import attrs

from mlcore_local.code.git import Git
from mlcore_local.code.secrets import looks_secret, mask
from mlcore_local.code.worktree import LINK, SUBMODULE, Budget, Entry, Left, Limits, blobs, index_lines, masked_bytes

__all__ = ["Packed", "at_remote", "keep", "pack"]


@attrs.frozen
class _Object:
    mode: str
    kind: str
    id: str
    size: int
    path: str


@attrs.define
class Packed:
    """Tell what was kept of a commit: `base` is it or what stands in for it, `onto` a commit at a remote that is needed."""

    base: str
    onto: str = ""
    pack: bytes = b""
    masked: list[str] = attrs.field(factory=list)
    left: list[Left] = attrs.field(factory=list)


def at_remote(git: Git, commit: str, name: str) -> bool:
    """Tell whether a branch of a remote has a commit, as far as was fetched or pushed from here."""
    return not git("rev-list", "--max-count=1", commit, "--not", f"--remotes={name}")


def keep(git: Git, commit: str, name: str, limits: Limits, budget: Budget) -> Packed:
    """Pack the files of a commit: those that the nearest commit at the remote lacks, or all if there is no such commit.

    If one of them has the name of a secret, or one in it, another commit stands in: it has no such files, and masked ones.
    """
    onto = _nearest(git, commit, name) if name else ""
    there = {each.id for each in listing(git, onto)} if onto else set[str]()
    new = [each for each in listing(git, commit) if each.id not in there]
    size = sum(each.size for each in {each.id: each for each in new}.values())
    if budget.packed + size > limits.pack:
        why = f"it is at no remote, and its files have more than {limits.pack:,} bytes: push it, or keep the repository"
        return Packed(commit, left=[Left(f"commit {commit}", why)])
    budget.packed += size
    packed = Packed(commit, onto)
    changed = _changed(git, new, packed)
    text = git("cat-file", "commit", commit).decode("utf-8", "surrogateescape")
    if changed or mask(text) != text:
        packed.base = _stand_in(git, commit, text, changed)
        new = [each for each in listing(git, packed.base) if each.id not in there]
    ids = dict.fromkeys([packed.base, git.text("rev-parse", f"{packed.base}^{{tree}}"), *(each.id for each in new)])
    packed.pack = pack(git, ids)
    return packed


def pack(git: Git, ids: dict[str, None]) -> bytes:
    """Return a pack of just these objects."""
    given = "".join(f"{id}\n" for id in ids).encode()
    return git("pack-objects", "-q", "--stdout", "--delta-base-offset", "--threads=1", given=given)


def listing(git: Git, commit: str) -> list[_Object]:
    """Return the folders and files of a commit."""
    return list(_listed(git("ls-tree", "-r", "-t", "-z", "--long", commit)))


def _listed(output: bytes) -> Iterator[_Object]:
    for line in filter(None, output.split(b"\0")):
        about, _, name = line.partition(b"\t")
        mode, kind, id, size = about.decode().split()
        if mode != SUBMODULE:
            yield _Object(mode, kind, id, int(size) if size.isdigit() else 0, os.fsdecode(name))


def _nearest(git: Git, commit: str, name: str) -> str:
    if not git("for-each-ref", "--count=1", f"refs/remotes/{name}/"):
        return ""
    lines = git("rev-list", "--boundary", commit, "--not", f"--remotes={name}").decode().splitlines()
    return next((line[1:] for line in lines if line.startswith("-")), "")


def _changed(git: Git, new: list[_Object], packed: Packed) -> list[Entry]:
    """Return what the index must have instead of some files; nothing for those that are not kept at all."""
    changed, files = list[Entry](), [each for each in new if each.kind == "blob" and each.mode != LINK]
    content = blobs(git, {each.id for each in files})
    for each in files:
        if looks_secret(each.path, committed=True):
            why = "its name says that it may hold secrets"
        elif (found := masked_bytes(content.get(each.id, b""), each.path)) is None:
            why = "it is no text, and something in it looks like a secret"
        else:
            if found[1]:
                packed.masked += [f"{each.path}:{line}" for line in found[1]]
                id = git("hash-object", "-w", "--stdin", given=found[0]).decode().strip()
                changed.append(Entry(each.mode, id, each.path))
            continue
        packed.left.append(Left(each.path, why))
        changed.append(Entry("0", "0" * len(each.id), each.path))
    return changed


def _stand_in(git: Git, commit: str, text: str, changed: list[Entry]) -> str:
    """Make a commit without parents whose tree has no secrets; the same of the same, whenever it is made."""
    index = {"GIT_INDEX_FILE": f"{git.environment['GIT_INDEX_FILE']}.standin"}
    git("read-tree", commit, also=index)
    git("update-index", "-z", "--index-info", given=index_lines(changed), also=index)
    tree = git("write-tree", "--missing-ok", also=index).decode().strip()
    head, _, message = text.partition("\n\n")
    who = [line for line in head.split("\n") if line.startswith(("author ", "committer ", "encoding "))]
    made = "\n".join([f"tree {tree}", *who, "", mask(message)])
    return (
        git("hash-object", "-t", "commit", "-w", "--stdin", given=made.encode("utf-8", "surrogateescape"))
        .decode()
        .strip()
    )

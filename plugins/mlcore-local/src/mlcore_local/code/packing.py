"""Keep the files of a commit that is at no remote, as a pack of git, without what must not be kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import attrs

from mlcore.config import user_cache
from mlcore_local.code.git import Git
from mlcore_local.code.secrets import RULES, looks_secret, mask
from mlcore_local.code.worktree import LINK, SUBMODULE, Budget, Entry, Left, Limits, blobs, index_lines, masked_bytes

__all__ = ["Packed", "at_remote", "keep", "listing", "pack"]

_REMEMBERED = 50


@attrs.frozen
class _Object:
    mode: str
    kind: str
    id: str
    size: int
    path: str


@attrs.define
class Packed:
    """Tell what was kept of a commit: `base` is it, or stands in for it, `onto` a commit at a remote that it needs."""

    base: str
    onto: str = ""
    pack: bytes = b""
    masked: list[str] = attrs.field(factory=list)
    left: list[Left] = attrs.field(factory=list)
    size: int = 0


def at_remote(git: Git, commit: str, name: str) -> bool:
    """Tell whether a branch of a remote has a commit, as far as was fetched or pushed from here."""
    return not git("rev-list", "--max-count=1", commit, "--not", f"--remotes={name}")


def keep(git: Git, commit: str, name: str, limits: Limits, budget: Budget) -> Packed:
    """Pack the files of a commit: those that the nearest commit at the remote lacks, or all if there is none.

    If one of them has the name of a secret, or one in it, another commit stands in: without such files, and masked.
    """
    onto = _nearest(git, commit, name) if name else ""
    place = user_cache() / "code" / f"{commit}-{onto or 'whole'}-{RULES}.pack"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _known(git, place, limits, budget)
    packed = _made(git, commit, onto, limits, budget)
    if packed.pack:
        with suppress(OSError):
            _remember(place, packed)
    return packed


def _known(git: Git, place: Path, limits: Limits, budget: Budget) -> Packed:
    """Read what was packed before: of a hundred runs at one commit one looks through its files."""
    about, _, data = place.read_bytes().partition(b"\n")
    found = json.loads(about)
    if sha256(data).hexdigest() != found["sha256"] or budget.packed + found["size"] > limits.pack:
        raise ValueError
    left = [Left(path, why) for path, why in found["left"]]
    packed = Packed(found["base"], found["onto"], data, found["masked"], left, found["size"])
    git("index-pack", "--stdin", given=data)
    os.utime(place)
    budget.packed += packed.size
    return packed


def _remember(place: Path, packed: Packed) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = {"base": packed.base, "onto": packed.onto, "masked": packed.masked, "size": packed.size}
    about |= {"left": [(each.path, each.why) for each in packed.left], "sha256": sha256(packed.pack).hexdigest()}
    temporary = place.with_name(f".{os.urandom(8).hex()}.tmp")
    temporary.write_bytes(json.dumps(about).encode() + b"\n" + packed.pack)
    temporary.replace(place)
    kept = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in kept[:-_REMEMBERED]:
        path.unlink(missing_ok=True)


def _made(git: Git, commit: str, onto: str, limits: Limits, budget: Budget) -> Packed:
    there = {each.id for each in listing(git, onto)} if onto else set[str]()
    new = [each for each in listing(git, commit) if each.id not in there]
    size = sum(each.size for each in {each.id: each for each in new}.values())
    if budget.packed + size > limits.pack:
        why = f"it is at no remote, and its files have more than {limits.pack:,} bytes: push it, or keep the repository"
        return Packed(commit, left=[Left(f"commit {commit}", why)])
    budget.packed += size
    packed = Packed(commit, onto, size=size)
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
    nearest = next((line[1:] for line in lines if line.startswith("-")), "")
    newest = ("for-each-ref", "--count=1", "--sort=-committerdate", "--format=%(objectname)", f"refs/remotes/{name}/")
    return nearest or git.text(*newest)  # of a shallow clone: what it shares counts, not who came of whom


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

"""Put a working tree as it is into an index of our own, without what must not be kept, and with secrets masked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence

import attrs

from mlcore_local.code.git import Git
from mlcore_local.code.places import is_home
from mlcore_local.code.secrets import looks_secret, mask, mask_lines

__all__ = [
    "Budget",
    "Change",
    "Entry",
    "Left",
    "Limits",
    "WorkTree",
    "blobs",
    "changes",
    "holds_secret",
    "index_lines",
    "masked_bytes",
    "sizes",
]

LINK, SUBMODULE, NOTHING = "120000", "160000", "000000"
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.+\n)*?oid sha256:([0-9a-f]{64})\n")


@attrs.frozen
class Limits:
    """Bound what is looked at and kept: `seconds` in all, sizes in bytes, and how many entries a list may have.

    `file`, `total` and `files` are for untracked files, `changed_file` and `changed_total` for changed ones, `pack` is
    for the files of a commit that is at no remote.
    """

    seconds: float = 30.0
    file: int = 1 << 20
    total: int = 10 << 20
    files: int = 2_000
    changed_file: int = 10 << 20
    changed_total: int = 50 << 20
    pack: int = 20 << 20
    listed: int = 200


@attrs.define
class Budget:
    """Count what was kept already, of a repository and its submodules."""

    untracked: int = 0
    files: int = 0
    changed: int = 0
    packed: int = 0


@attrs.frozen
class Left:
    """Tell of a file that is not kept, and why."""

    path: str
    why: str


@attrs.frozen
class Entry:
    """Hold one entry of an index or a tree."""

    mode: str
    id: str
    path: str


@attrs.frozen
class Change:
    """Tell how one path differs between a tree and the index: `status` is A, D, M or T."""

    status: str
    old: Entry
    new: Entry

    @property
    def path(self) -> str:
        """The path that changed."""
        return self.new.path


@attrs.define
class WorkTree:
    """Look at a working tree through an index of our own, which `git` writes to."""

    git: Git
    limits: Limits
    budget: Budget
    left: list[Left] = attrs.field(factory=list)
    masked: list[str] = attrs.field(factory=list)
    untracked: dict[str, int] = attrs.field(factory=dict)  # the size of each
    skipped: set[str] = attrs.field(factory=set)  # those of them, and of the changed, that are not kept
    submodules: dict[str, str] = attrs.field(factory=dict)  # their commits in the index
    tracked: list[str] = attrs.field(factory=list)

    def look(self) -> None:
        """Bring the index up to date with the files, as ``git add --all`` does."""
        self.git("update-index", "-q", "--refresh", allowed=(0, 1))
        hidden = self._listed()
        for flag in ("--no-assume-unchanged", "--no-skip-worktree"):
            if hidden:
                self.git("update-index", "-z", flag, "--stdin", given=_joined(hidden))
        gone, changed = list[str](), list[str]()
        for change in changes(self.git("diff-files", "-z", "--raw", "--no-renames", "--ignore-submodules=all")):
            (gone if change.status == "D" else changed).append(change.path)
        others = _split(self.git("ls-files", "-z", "--others", "--exclude-standard"))
        gone += [path for path in changed if self._status(path) is None]  # it became a device, or is gone since
        self.git("update-index", "-z", "--force-remove", "--stdin", given=_joined(gone))
        kept = [path for path in dict.fromkeys(changed) if self._keeps(path)]
        kept += self._untracked(others)
        self.git("update-index", "-z", "--add", "--remove", "--replace", "--stdin", given=_joined(kept))

    def _listed(self) -> list[str]:
        """Note the submodules, and return the files that git was told not to look at, and that are there."""
        hidden = list[str]()
        for line in self.git("ls-files", "-z", "-v", "--stage").split(b"\0"):
            if not line:
                continue
            about, _, name = line.partition(b"\t")
            path = os.fsdecode(name)
            self.tracked.append(path)
            if about.startswith((b"H 100644", b"H 100755")):
                continue
            tag, mode, id, _ = about.decode().split(" ")
            if mode == SUBMODULE:
                self.submodules[path] = id
            elif (tag == "S" or tag.islower()) and os.path.lexists(self.git.folder / path):
                hidden.append(path)
        return hidden

    def _status(self, path: str) -> os.stat_result | None:
        """Return what a file is, None if it is nothing that git keeps."""
        try:
            found = os.lstat(self.git.folder / path)
        except (OSError, ValueError):
            return None
        return found if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) else None

    def _keeps(self, path: str) -> bool:
        """Tell whether the content of a tracked file that changed is kept."""
        status = self._status(path)
        if status is None:
            return False
        why = self._refused(path, status, self.limits.changed_file, committed=True)
        if not why and self.budget.changed + status.st_size > self.limits.changed_total:
            why = f"the changed files have more than {self.limits.changed_total:,} bytes"
        if why:
            self.leave(path, why)
        self.budget.changed += 0 if why else status.st_size
        return not why

    def _untracked(self, paths: Sequence[str]) -> Iterator[str]:
        """Yield the untracked files that are kept, the small ones first: code is smaller than data."""
        home, found = is_home(self.git.folder), list[tuple[int, str]]()
        for path in paths:
            if path.endswith("/"):
                self.leave(path, "a repository of its own")
            elif not path.endswith((".pyc", ".pyo")) and (status := self._status(path)):  # made of code, and not code
                self.untracked[path] = status.st_size
                if why := self._refused(path, status, self.limits.file):
                    self.leave(path, why)
                else:
                    found.append((status.st_size, path))
        for size, path in sorted(found):
            if home:
                self.leave(path, "untracked, in a home")
            elif self.budget.files >= self.limits.files:
                self.leave(path, f"there are more than {self.limits.files:,} untracked files")
            elif self.budget.untracked + size > self.limits.total:
                self.leave(path, f"the untracked files have more than {self.limits.total:,} bytes")
            else:
                self.budget.files, self.budget.untracked = self.budget.files + 1, self.budget.untracked + size
                yield path

    def _refused(self, path: str, status: os.stat_result, size: int, *, committed: bool = False) -> str:
        if looks_secret(path, committed=committed):
            return "its name says that it may hold secrets"
        if status.st_size > size:
            return f"{status.st_size:,} bytes are more than {size:,}"
        if stat.S_ISREG(status.st_mode) and not os.access(self.git.folder / path, os.R_OK):
            return "it cannot be read"
        return ""

    def leave(self, path: str, why: str) -> None:
        """Note that a path is not kept."""
        self.left.append(Left(path, why))
        self.skipped.add(path)

    def set(self, entries: Iterable[Entry]) -> None:
        """Set entries of the index; one with the mode of nothing goes."""
        self.git("update-index", "-z", "--index-info", given=index_lines(entries))

    def settle(self, base: str) -> list[str]:
        """Take out of the index what must not be kept of what differs from the tree `base`, and mask what is secret.

        Return the paths of `base` whose content there may not be told: a patch must not show what it was.
        """
        found = self.differing(base)
        found = [change for change in found if SUBMODULE not in (change.old.mode, change.new.mode)]
        size = sizes(self.git, {each.id for change in found for each in (change.old, change.new) if _is_file(each)})
        back, untold, read = list[Entry](), list[str](), list[Change]()
        for change in found:
            if change.status != "D" and (why := self._unkept(change, size.get(change.new.id, 0))):
                if change.path not in self.skipped:
                    self.leave(change.path, why)
                back.append(change.old)
            elif looks_secret(change.path, committed=True) or size.get(change.old.id, 0) > self.limits.changed_file:
                untold.append(change.path)
                read += [change] if change.status != "D" else []
            else:
                read.append(change)
        content = blobs(self.git, {each.id for change in read for each in (change.old, change.new) if _is_file(each)})
        for change in read:
            entry = self._masked(change, content)
            back += [entry] if entry is not None else []
            old = content.get(change.old.id, b"") if _is_file(change.old) else b""
            if (
                old
                and change.path not in untold
                and (entry is None or entry != change.old)
                and holds_secret(old, change.path)
            ):
                untold.append(change.path)
        self.set(back)
        return untold

    def _unkept(self, change: Change, size: int) -> str:
        if change.path in self.skipped:
            return "left out before"
        if change.status == "U":
            return "there is a conflict in it"
        if looks_secret(change.path, committed=change.status != "A"):
            return "its name says that it may hold secrets"
        limit = self.limits.changed_file
        return f"{size:,} bytes are more than {limit:,}" if size > limit and _is_file(change.new) else ""

    def _masked(self, change: Change, content: dict[str, bytes]) -> Entry | None:
        """Return the entry that is kept instead of a change, None if it is kept as it is."""
        if not _is_file(change.new) or change.new.id not in content:
            return None
        data = content[change.new.id]
        pointer = _POINTER.match(content.get(change.old.id, b"")[:1024]) if change.old.mode != NOTHING else None
        if pointer is not None and _sha256(data) == pointer[1].decode():
            return change.old  # Git LFS keeps the content elsewhere, and a pointer to it in the repository
        found = masked_bytes(data, change.path)
        if found is None:
            self.leave(change.path, "it is no text, and something in it looks like a secret")
            return change.old
        text, lines = found
        if not lines:
            return None
        self.masked += [f"{change.path}:{line}" for line in lines]
        id = self.git("hash-object", "-w", "--stdin", given=text).decode().strip()
        return Entry(change.new.mode, id, change.path)

    def differing(self, base: str) -> list[Change]:
        """Return what differs between a tree and the index."""
        return list(changes(self.git("diff-index", "-z", "--cached", "--raw", "--no-abbrev", "--no-renames", base)))

    def write(self) -> str:
        """Return the tree of the index."""
        return self.git.text("write-tree", "--missing-ok")


def changes(output: bytes) -> Iterator[Change]:
    """Read what the diff commands print with ``--raw -z``."""
    fields = iter(output.split(b"\0"))
    for about in fields:
        if about:
            old_mode, mode, old_id, id, status = about.decode().removeprefix(":").split(" ")
            path = os.fsdecode(next(fields))
            yield Change(status[0], Entry(old_mode, old_id, path), Entry(mode, id, path))


def index_lines(entries: Iterable[Entry]) -> bytes:
    """Return entries as ``git update-index -z --index-info`` reads them."""
    return b"".join(os.fsencode(f"{each.mode} {each.id}\t{each.path}\0") for each in entries)


def sizes(git: Git, ids: Iterable[str]) -> dict[str, int]:
    """Return the size of each object that is there."""
    given = "".join(f"{id}\n" for id in ids).encode()
    lines = git("cat-file", "--batch-check", given=given).decode().splitlines() if given else []
    found = (line.split(" ") for line in lines)
    return {each[0]: int(each[2]) for each in found if len(each) == 3 and each[2].isdigit()}


def blobs(git: Git, ids: Iterable[str]) -> dict[str, bytes]:
    """Return the content of each object that is there."""
    given = "".join(f"{id}\n" for id in ids).encode()
    output, at, found = git("cat-file", "--batch", given=given) if given else b"", 0, dict[str, bytes]()
    while at < len(output):
        end = output.index(b"\n", at)
        words, at = output[at:end].decode().split(" "), end + 1
        if len(words) == 3:
            found[words[0]] = output[at : at + int(words[2])]
            at += int(words[2]) + 1
    return found


def masked_bytes(data: bytes, name: str) -> tuple[bytes, tuple[int, ...]] | None:
    """Return a file without its secrets and the lines in which they stood; None if it is no text, and holds some."""
    if b"\0" in data[:8000] or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        plain = data.replace(b"\0", b"").decode("latin-1")  # so that UTF-16 can be read
        return None if mask(plain, "binary.py") != plain else (data, ())
    text = data.decode("utf-8", "surrogateescape")
    found = mask_lines(text, name)
    return found.text.encode("utf-8", "surrogateescape"), found.lines


def holds_secret(data: bytes, name: str) -> bool:
    """Tell whether a file holds what looks like a secret."""
    found = masked_bytes(data, name)
    return found is None or bool(found[1])


def _is_file(entry: Entry) -> bool:
    return entry.mode not in (LINK, SUBMODULE, NOTHING)


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _split(output: bytes) -> list[str]:
    return [os.fsdecode(each) for each in output.split(b"\0") if each]


def _joined(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)

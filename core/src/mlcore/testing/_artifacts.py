"""`ArtifactBackendContract`: what mlcore asks of a filesystem that keeps files, as tests."""

from __future__ import annotations

import functools
import gc
import hashlib
import io
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mlcore import artifacts
from mlcore.errors import ArtifactError
from mlcore.testing._checking import at_once, raised

Backend = tuple[Any, str]
Check = TypeVar("Check", bound=Callable[..., None])
BYTES = bytes(range(256)) * 40
NAMES = (
    "plain.txt",
    "a name with spaces.txt",
    "größe/模型/é.bin",
    "brackets[1]/star*/what?.txt",
    "50%25 #1 & a+b=c;d,e@f~.txt",
    "2026-01-01T10:00.log",
    "-dash",
    ".hidden/file",
    "deep/" * 20 + "file",
    "x" * 200,
    "模" * 80,
    "'ticks' and \"quotes\" <&> {}|^`$!",
    "%41 is no A/%zz%",
    "robots \U0001f916/e\u0301 beside \u00e9",
)


def only_if(**capabilities: bool) -> Callable[[Check], Check]:
    """Say what a backend must be able to for this check to be its."""

    def note(check: Check) -> Check:
        check.only_if = capabilities  # type: ignore[attr-defined]
        return check

    return note


class ArtifactBackendContract:
    """Subclass it in a test file and say how to open your filesystem; the whole contract then runs on it.

    `files_beside_folders` states that there can be a file ``a`` beside a file ``a/b``; `own_readers` that two who
    read a file at once do not share a position. A filesystem with ``atomic_put = True`` promises that what
    ``put_file``, ``pipe_file`` and ``open(path, "wb")`` write appears whole or not at all; for any other mlcore
    writes under a hidden name, and moves.

    `large` is how many bytes the largest file has, sent by its path and as a stream: give 5 GB once to a backend that
    sends files in parts. `many` is how many files are in one folder: more than a page of a listing holds. What cannot
    work is told within `patience` seconds, without a word of `secrets`; see `broken_places`.
    """

    files_beside_folders = True
    own_readers = True
    large = 40 << 20
    many = 1_001
    patience = 10.0
    secrets: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name, check in _CHECKS.items():
            wanted = getattr(check, "only_if", {})
            if any(getattr(cls, each) != value for each, value in wanted.items()):
                setattr(cls, name, None)  # which pytest does not collect
            elif getattr(cls, name) is None:
                setattr(cls, name, check)

    def open_backend(self, tmp_path: Path) -> Backend:
        """Return a filesystem and a path in it that is empty, or not there, in this test."""
        raise NotImplementedError(f"{type(self).__name__} must say how to open its backend")

    def broken_places(self, tmp_path: Path) -> Mapping[str, Callable[[], Backend]]:  # noqa: ARG002 - for subclasses
        """Return how places are opened that cannot work, by a text that their errors must have.

        Such as a bucket that is not there, a server that does not answer, a key that is refused.
        """
        return {}

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        """Return the filesystem and the path."""
        return self.open_backend(tmp_path / "backend")

    # What is put comes back

    @pytest.mark.parametrize("size", [0, 1, 65_537, 6_000_001])
    def test_a_file_comes_back_byte_for_byte(self, backend: Backend, tmp_path: Path, size: int) -> None:
        """What was put is got again, of any size, and its sha256 and size are those of what was put."""
        filesystem, root = backend
        data = (BYTES * (size // len(BYTES) + 1))[:size]
        source = tmp_path / "source"
        source.write_bytes(data)
        stored = artifacts.put(filesystem, root, {"from/disk": source, "from/memory": data})
        for file in stored.values():
            assert (file.sha256, file.size) == (hashlib.sha256(data).hexdigest(), size)
        artifacts.get(stored, tmp_path / "got")
        assert {name: (tmp_path / "got" / name).read_bytes() == data for name in stored} == dict.fromkeys(stored, True)

    def test_a_large_file_comes_back_whole(self, backend: Backend, tmp_path: Path) -> None:
        """A file of many parts is kept whole, by its path or as a stream, and read from any byte of it."""
        filesystem, root = backend
        source = tmp_path / "source"
        with source.open("wb") as file:
            for number in range(0, self.large, 1 << 20):
                file.write(hashlib.sha256(b"%d" % number).digest() * (min(1 << 20, self.large - number) // 32))
        with source.open("rb") as file:
            stored = artifacts.put(filesystem, root, {"by/path": source, "by/stream": file})
        digest, size = artifacts.hash_file(source), source.stat().st_size
        assert {(each.sha256, each.size) for each in stored.values()} == {(digest, size)}
        assert artifacts.check(stored) == {}
        artifacts.get({"got": stored["by/path"]}, tmp_path)
        assert artifacts.hash_file(tmp_path / "got") == digest
        with source.open("rb") as file, artifacts.open_file(stored["by/stream"]) as read:
            for start in (*range((5 << 20) - 3, size, 5 << 20)[:20], size - 7, 0):
                file.seek(start)
                read.seek(start)
                assert read.read(11) == file.read(11)

    def test_every_name_can_be_used(self, backend: Backend, tmp_path: Path) -> None:
        """Spaces, letters of any script, brackets and stars are parts of names, and nothing else."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {name: name.encode() for name in NAMES})
        found = artifacts.list_files(filesystem, root)
        assert sorted(found) == sorted(NAMES)
        artifacts.get(found, tmp_path / "got")
        assert {name: (tmp_path / "got" / name).read_bytes() for name in NAMES} == {n: n.encode() for n in NAMES}

    @only_if(files_beside_folders=True)
    def test_a_file_may_have_the_name_of_a_folder(self, backend: Backend) -> None:
        """`a` and `a/b` are two files."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"a": b"file", "a/b": b"below"})
        assert filesystem.cat_file(f"{root}/a") == b"file"
        assert filesystem.cat_file(f"{root}/a/b") == b"below"

    @only_if(files_beside_folders=False)
    def test_a_file_never_takes_the_place_of_a_folder(self, backend: Backend) -> None:
        """Where `a` and `a/b` cannot both be there, the second is refused and the first stays."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"a": b"file", "b/c": b"below"})
        for name in ("a/b", "b"):
            with pytest.raises(ArtifactError):
                artifacts.put(filesystem, root, {name: b"second"})
        assert filesystem.cat_file(f"{root}/a") == b"file"
        assert filesystem.cat_file(f"{root}/b/c") == b"below"

    def test_a_new_file_replaces_the_old(self, backend: Backend) -> None:
        """What is put under a name that is taken is there instead, all of it and nothing else."""
        filesystem, root = backend
        for data in (b"a long beginning", b"short", b""):
            artifacts.put(filesystem, root, {"name": data})
            assert filesystem.cat_file(f"{root}/name") == data
            assert filesystem.info(f"{root}/name")["size"] == len(data)
        assert sorted(artifacts.list_files(filesystem, root)) == ["name"]

    def test_what_was_just_done_is_seen_at_once(self, backend: Backend) -> None:
        """What is put, replaced or removed is so in the next answer, whatever was asked before."""
        filesystem, root = backend
        for step, contents in enumerate(({"a/1": b"1"}, {"a/2": b"22"}, {"a/1": b"replaced"})):
            artifacts.put(filesystem, root, contents)
            for name, data in contents.items():
                assert filesystem.exists(f"{root}/{name}")
                assert filesystem.info(f"{root}/{name}")["size"] == len(data)
            assert len(filesystem.ls(f"{root}/a", detail=False)) == min(step, 1) + 1
        filesystem.rm_file(f"{root}/a/2")
        assert not filesystem.exists(f"{root}/a/2")
        assert len(filesystem.ls(f"{root}/a", detail=False)) == len(filesystem.find(f"{root}/a")) == 1

    def test_a_reader_of_what_is_replaced_reads_no_mix(self, backend: Backend) -> None:
        """Who has begun to read a file when another replaces it reads the old one, or is told; never a bit of both."""
        filesystem, root = backend
        old, new = b"old." * 3_000_000, b"new!" * 3_000_001
        stored = artifacts.put(filesystem, root, {"name": old})
        with artifacts.open_file(stored["name"]) as file:
            read = file.read(10)
            artifacts.put(filesystem, root, {"name": new})
            try:
                read += file.read()
            except (ArtifactError, OSError):
                read = old
        # digests: what compares megabytes of bytes takes minutes to tell how they differ
        assert _digest(read) == _digest(old)
        assert _digest(filesystem.cat_file(f"{root}/name")) == _digest(new)

    def test_folders_may_be_made_again(self, backend: Backend) -> None:
        """Making folders that are there is no error, and hurts nothing in them."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"deep/er/file": b"x"})
        for _ in range(2):
            filesystem.makedirs(f"{root}/deep/er", exist_ok=True)
        assert filesystem.cat_file(f"{root}/deep/er/file") == b"x"

    # Whole or not at all

    def test_a_file_is_not_there_before_it_is_whole(self, backend: Backend) -> None:
        """While a file is written its name shows nothing, or the file that it will replace."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"old": b"old"})
        for name, before in (("new", None), ("old", b"old")):
            seen: list[bytes | None] = []
            look = functools.partial(_look, seen, filesystem, f"{root}/{name}")
            artifacts.put(filesystem, root, {name: _Slow(look)})
            assert set(seen) == {before}
            assert _content(filesystem, f"{root}/{name}") == _Slow.content

    def test_a_write_that_fails_shows_nothing(self, backend: Backend) -> None:
        """A file whose writing was broken off is not there, under no name, and what it was to replace still is."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"old": b"old"})
        for name in ("new", "old"):
            with pytest.raises(ArtifactError):
                artifacts.put(filesystem, root, {name: _Slow(_fail)})
        gc.collect()
        assert {name: filesystem.cat_file(each.path) for name, each in _listed(filesystem, root)} == {"old": b"old"}

    def test_a_writer_that_goes_away_leaves_nothing(self, backend: Backend) -> None:
        """What was never closed never appears: its writer was killed, or forgot it."""
        filesystem, root = backend
        if getattr(filesystem, "atomic_put", False):
            filesystem.makedirs(root, exist_ok=True)
            file = filesystem.open(f"{root}/name", "wb")
            file.write(BYTES * 700)
            assert not filesystem.exists(f"{root}/name")
            del file
            gc.collect()
        else:
            with pytest.raises(ArtifactError):
                artifacts.put(filesystem, root, {"name": _Slow(_fail)})
        assert not filesystem.exists(f"{root}/name")
        assert artifacts.list_files(filesystem, root) == {}

    def test_of_writers_of_one_name_one_wins_whole(self, backend: Backend) -> None:
        """Eight that put a name at once all succeed, no reader ever sees a mix, and one of them stays."""
        filesystem, root = backend
        contents = [bytes([65 + number]) * (100_000 + number) for number in range(8)]
        artifacts.put(filesystem, root, {"name": contents[0]})
        done, seen = threading.Event(), set[bytes]()

        def read() -> None:
            while not done.is_set():
                seen.add(filesystem.cat_file(f"{root}/name"))

        reader = threading.Thread(target=read)
        reader.start()
        calls = [functools.partial(artifacts.put, filesystem, root, {"name": each}) for each in contents]
        failed = raised(at_once(calls))
        done.set()
        reader.join()
        assert failed == []
        assert seen <= set(contents)
        assert filesystem.cat_file(f"{root}/name") in contents
        assert sorted(artifacts.list_files(filesystem, root)) == ["name"]

    def test_many_files_are_put_and_got_at_once(self, backend: Backend, tmp_path: Path) -> None:
        """A filesystem may be used by several threads: of three hundred files none is lost or mixed up."""
        filesystem, root = backend
        contents = {f"{number % 7}/{number}": str(number).encode() * 50 for number in range(300)}
        stored = artifacts.put(filesystem, root, contents)
        artifacts.get(stored, tmp_path / "got")
        assert {name: (tmp_path / "got" / name).read_bytes() for name in contents} == contents

    # What is there

    def test_a_listing_has_every_file_below_and_no_other(self, backend: Backend) -> None:
        """Files at any depth are found with their sizes, and none of a folder whose name only begins alike."""
        filesystem, root = backend
        contents = {"a/1": b"1", "a/b/c/22": b"22", "ab/3": b"333", "a.txt": b"", "z": b"4444"}
        artifacts.put(filesystem, root, contents)
        sizes = {name: len(data) for name, data in contents.items()}
        assert {name: file.size for name, file in _listed(filesystem, root)} == sizes
        assert {name: file.size for name, file in _listed(filesystem, f"{root}/a")} == {"1": 1, "b/c/22": 2}
        assert {name: file.size for name, file in _listed(filesystem, f"{root}/z")} == {"z": 4}

    def test_a_listing_does_not_end_with_a_page(self, backend: Backend) -> None:
        """All of more files than a page holds are listed, and removed with their folder; no others are."""
        filesystem, root = backend
        names = [f"many/{number:05}" for number in range(self.many)]
        artifacts.put(filesystem, root, {"many.txt": b"", **dict.fromkeys(names, b"x")})
        assert [name for name, _ in _listed(filesystem, root)] == ["many.txt", *names]
        assert len(filesystem.ls(f"{root}/many", detail=False)) == self.many
        filesystem.rm(f"{root}/many", recursive=True)
        assert [name for name, _ in _listed(filesystem, root)] == ["many.txt"]

    def test_a_folder_shows_what_is_directly_in_it(self, backend: Backend) -> None:
        """`ls` shows files with their sizes, and folders once each, and nothing of what is deeper."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"file": b"12345", "folder/1": b"", "folder/deeper/2": b"", "folder.txt": b""})
        found = {each["name"].rpartition("/")[2]: each for each in filesystem.ls(root, detail=True)}
        assert {name: each["type"] for name, each in found.items()} == {
            "file": "file",
            "folder": "directory",
            "folder.txt": "file",
        }
        assert found["file"]["size"] == 5

    def test_an_empty_folder_has_no_files(self, backend: Backend) -> None:
        """A folder that was made, or from which the last file went, is no file and has none."""
        filesystem, root = backend
        filesystem.makedirs(f"{root}/empty/er", exist_ok=True)
        assert artifacts.list_files(filesystem, root) == {}
        artifacts.put(filesystem, root, {"empty/er/file": b""})
        assert list(artifacts.list_files(filesystem, root)) == ["empty/er/file"]
        filesystem.rm_file(f"{root}/empty/er/file")
        assert artifacts.list_files(filesystem, root) == {}

    def test_a_listing_of_what_is_not_there_is_empty(self, backend: Backend) -> None:
        """A folder that nobody put anything into has no files."""
        filesystem, root = backend
        assert artifacts.list_files(filesystem, root) == {}
        artifacts.put(filesystem, root, {"a/b": b""})
        assert artifacts.list_files(filesystem, f"{root}/other") == {}

    def test_a_file_and_a_folder_are_told_apart(self, backend: Backend) -> None:
        """`info`, `isfile`, `isdir` and `exists` say what there is."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"folder/file": b"12345"})
        assert filesystem.info(f"{root}/folder/file")["type"] == "file"
        assert filesystem.info(f"{root}/folder/file")["size"] == 5
        assert filesystem.isfile(f"{root}/folder/file")
        assert not filesystem.isdir(f"{root}/folder/file")
        assert filesystem.isdir(f"{root}/folder")
        assert not filesystem.isfile(f"{root}/folder")
        found = {name: filesystem.exists(f"{root}/{name}") for name in ("folder/file", "folder/fil", "file")}
        assert found == {"folder/file": True, "folder/fil": False, "file": False}

    def test_a_missing_file_is_told_of(self, backend: Backend, tmp_path: Path) -> None:
        """Whatever is done with a file that is not there raises FileNotFoundError, and makes nothing."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"there": b"x"})
        missing, target = f"{root}/missing", tmp_path / "target"
        calls: list[Callable[[], object]] = [
            lambda: filesystem.info(missing),
            lambda: filesystem.cat_file(missing),
            lambda: filesystem.open(missing, "rb").read(),
            lambda: filesystem.get_file(missing, str(target)),
        ]
        for call in calls:
            with pytest.raises(FileNotFoundError):
                call()
        assert not filesystem.exists(missing)
        assert not target.is_file() or target.stat().st_size == 0

    # Reading a part

    def test_a_range_of_a_file_can_be_read(self, backend: Backend) -> None:
        """`cat_file(path, start, end)` is what slicing the content is."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"name": BYTES})
        for start, end in ((0, 10), (5, 6), (100, None), (None, 7), (-5, None), (3, -3), (0, 0), (10_000, 99_999)):
            assert filesystem.cat_file(f"{root}/name", start, end) == BYTES[start:end]

    def test_an_open_file_can_be_searched(self, backend: Backend) -> None:
        """A file that is read can be moved about in, as zip files and columns of tables are read."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"name": BYTES})
        with filesystem.open(f"{root}/name", "rb") as file:
            assert file.read(10) == BYTES[:10]
            assert file.seek(5_000) == file.tell() == 5_000
            assert file.read(10) == BYTES[5_000:5_010]
            file.seek(-3, io.SEEK_END)
            assert file.read() == BYTES[-3:]
            file.seek(0)
            file.seek(4, io.SEEK_CUR)
            assert file.read(1) == BYTES[4:5]
            assert file.read() == BYTES[5:]
            assert file.read() == b""

    @only_if(own_readers=True)
    def test_readers_do_not_share_a_position(self, backend: Backend) -> None:
        """Two who read a file at once each read all of it."""
        filesystem, root = backend
        artifacts.put(filesystem, root, {"name": BYTES})
        with filesystem.open(f"{root}/name", "rb") as one, filesystem.open(f"{root}/name", "rb") as other:
            assert one.read(100) == other.read(100) == BYTES[:100]
            assert one.read() == other.read() == BYTES[100:]

    # Taking away

    def test_removing_a_file_removes_nothing_else(self, backend: Backend) -> None:
        """`rm_file` takes away one file, and `rm` of a folder what is in it: no neighbour whose name begins alike."""
        filesystem, root = backend
        names = ["a/1", "a/b/2", "ab/3", "a.txt", "star*", "starry"]
        artifacts.put(filesystem, root, dict.fromkeys(names, b"x"))
        filesystem.rm_file(f"{root}/a.txt")
        filesystem.rm_file(f"{root}/star*")
        assert [name for name, _ in _listed(filesystem, root)] == ["a/1", "a/b/2", "ab/3", "starry"]
        filesystem.rm(f"{root}/a", recursive=True)
        assert [name for name, _ in _listed(filesystem, root)] == ["ab/3", "starry"]

    # What cannot work

    def test_a_place_that_cannot_work_is_told_of(self, tmp_path: Path) -> None:
        """Of each of `broken_places` comes soon an `ArtifactError` that says what is wrong, and no secret."""
        for text, place in self.broken_places(tmp_path).items():
            for use in (artifacts.list_files, _put_into, _read_from):
                started = time.monotonic()
                with pytest.raises(ArtifactError) as caught:
                    use(*place())
                assert text in str(caught.value)
                told = "".join(traceback.format_exception(caught.value))
                assert [secret for secret in self.secrets if secret in told] == []
                assert time.monotonic() - started < self.patience


_CHECKS = {
    name: getattr(ArtifactBackendContract, name) for name in dir(ArtifactBackendContract) if name.startswith("test_")
}


class _Slow(io.BytesIO):
    """A source of three chunks that does something before each but the first is read."""

    content = BYTES * 300

    def __init__(self, between: Callable[[], object]) -> None:
        super().__init__(self.content)
        self._between = between

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            self._between()
        return super().read(size)


def _fail() -> None:
    raise OSError("the source went away")


def _put_into(filesystem: Any, root: str) -> None:
    artifacts.put(filesystem, root, {"name": BYTES})


def _read_from(filesystem: Any, root: str) -> None:
    with artifacts.open_file(artifacts.File(filesystem, f"{root}/name", len(BYTES))) as file:
        file.read()


def _look(seen: list[bytes | None], filesystem: Any, path: str) -> None:
    seen.append(_content(filesystem, path))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _content(filesystem: Any, path: str) -> bytes | None:
    try:
        return bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        return None


def _listed(filesystem: Any, root: str) -> Iterator[tuple[str, Any]]:
    return iter(artifacts.list_files(filesystem, root).items())

"""Files in a bucket, on a real S3 server: whole or not at all, a part sent once, in bounded memory."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ceph import Bucket
from house.tree import run
from mlcore import artifacts
from mlcore.config import user_state
from mlcore.errors import ArtifactError, ArtifactNotFound
from mlcore.testing._checking import at_once
from mlcore_s3 import engine, workers, writing
from mlcore_s3.filesystem import BucketFileSystem
from mlcore_s3.parts import S3Parts
from wheels import needed

PART = 8 << 20
DATA = os.urandom(1 << 20) * 41 + b"end"  # six parts
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def filesystem(bucket: Bucket) -> BucketFileSystem:
    """Return the filesystem of a bucket that is empty."""
    found, path = artifacts.open_backend(f"{bucket.uri}/")
    assert path == bucket.name
    return found  # type: ignore[no-any-return]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a file of several parts."""
    path = tmp_path / "large.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the parts that are sent, as they are."""
    found, send = list[int](), S3Parts.send

    def noted(self: S3Parts, key: str, upload: str, number: int, data: memoryview, sha256: str) -> str:
        found.append(number)
        return send(self, key, upload, number, data, sha256)

    monkeypatch.setattr(S3Parts, "send", noted)
    return found


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    """Guards the memory of those who come later: what a test took of the common budget it gave back."""
    yield
    deadline = time.monotonic() + 5
    while (
        workers.READ._held + workers.WRITTEN._held and time.monotonic() < deadline
    ):  # what was asked ahead comes, and is let go
        time.sleep(0.01)
    assert (workers.READ._held, workers.WRITTEN._held) == (0, 0)


def notes() -> list[Path]:
    """Return the notes of uploads that are to be gone on with."""
    return sorted((user_state() / "uploads").glob("*"))


def settled(look: Callable[[], list[int]]) -> list[int]:
    """Return what is there when no more comes: what was on its way arrives."""
    seen, since = look(), time.monotonic()
    while time.monotonic() < since + 0.7:
        time.sleep(0.05)
        if (now := look()) != seen:
            seen, since = now, time.monotonic()
    return seen


class Stop(Exception):
    """Be what a user's Ctrl-C is."""


def stop_after(count: int) -> Any:
    """Return a tick that stops after so many bytes."""
    seen = [0]

    def tick(more: int) -> None:
        seen[0] += more
        if seen[0] >= count:
            raise Stop

    return tick


# Large files


def test_a_large_file_goes_in_parts_and_comes_in_ranges(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path, tmp_path: Path, sent: list[int]
) -> None:
    """Guards the way of models and checkpoints: sizes, digests and bytes are right, and nothing is left over."""
    stored = artifacts.put(filesystem, bucket.name, {"a/large": large})
    assert (stored["a/large"].size, stored["a/large"].sha256) == (len(DATA), SHA256)
    assert sorted(sent) == [1, 2, 3, 4, 5, 6]
    artifacts.get(stored, tmp_path / "got")
    assert (tmp_path / "got/a/large").read_bytes() == DATA
    assert bucket.uploads() == []
    assert notes() == []


def test_an_upload_that_was_stopped_goes_on(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path, sent: list[int]
) -> None:
    """Guards Ctrl-C: nothing shows, and of what had arrived nothing is sent again."""
    path = f"{bucket.name}/large"
    with pytest.raises(Stop):
        filesystem.put_hashed(str(large), path, stop_after(3 * PART))
    assert not filesystem.exists(path)
    ((name, upload),) = bucket.uploads()
    assert len(settled(lambda: bucket.parts(name, upload))) >= 3
    ticks = list[int]()
    assert filesystem.put_hashed(str(large), path, ticks.append) == (len(DATA), SHA256)
    assert sorted(sent) == [1, 2, 3, 4, 5, 6]
    assert sum(ticks) == len(DATA)
    assert filesystem.cat_file(path) == DATA
    assert (bucket.uploads(), notes()) == ([], [])


def test_an_upload_whose_process_was_killed_goes_on(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path, sent: list[int]
) -> None:
    """Guards the machine that went away: its note says what was sent, or else the server's tags do."""
    path, script = f"{bucket.name}/large", "from mlcore import artifacts; import sys\n"
    script += "fs, _ = artifacts.open_backend(sys.argv[1])\n"
    script += "fs.put_hashed(sys.argv[2], sys.argv[3], lambda n: print(n, flush=True) or sys.stdin.readline())"
    command = [sys.executable, "-c", script, f"s3://{bucket.name}/x", str(large), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{PART}\n".encode()
        ((name, upload),) = bucket.uploads()
        arrived = settled(lambda: bucket.parts(name, upload))
        process.kill()
    assert bucket.names() == []
    (note,) = notes()
    note.write_bytes(note.read_bytes().split(b"\n", 2)[0] + b'\n[2, "')  # as if it had been killed in mid-line
    assert filesystem.put_hashed(str(large), path, abs) == (len(DATA), SHA256)
    assert len(arrived) >= 1
    assert sorted([*sent, *arrived]) == [1, 2, 3, 4, 5, 6]
    assert filesystem.cat_file(path) == DATA


def test_a_file_that_changed_is_not_mixed_with_what_it_was(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path, sent: list[int]
) -> None:
    """Guards resuming: a part counts as sent only if it still has the same bytes."""
    path = f"{bucket.name}/large"
    with pytest.raises(Stop):
        filesystem.put_hashed(str(large), path, stop_after(5 * PART))
    changed = bytearray(DATA)
    changed[PART + 5] ^= 1
    large.write_bytes(changed)
    sent.clear()
    assert filesystem.put_hashed(str(large), path, abs)[1] == hashlib.sha256(changed).hexdigest()
    assert 2 in sent
    assert 1 not in sent
    assert filesystem.cat_file(path) == changed


def test_an_upload_that_the_server_forgot_begins_anew(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path
) -> None:
    """Guards buckets whose rules remove uploads that were given up."""
    path = f"{bucket.name}/large"
    with pytest.raises(Stop):
        filesystem.put_hashed(str(large), path, stop_after(PART))
    time.sleep(0.2)
    for name, upload in bucket.uploads():
        bucket.call("DELETE", name, uploadId=upload)
    assert filesystem.put_hashed(str(large), path, abs) == (len(DATA), SHA256)
    assert filesystem.cat_file(path) == DATA


def test_two_who_upload_one_file_do_not_share_an_upload(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path
) -> None:
    """Guards ranks that log the same file: the second does not go on with what the first is doing."""
    path = f"{bucket.name}/large"
    put = functools.partial(filesystem.put_hashed, str(large), path, abs)
    assert at_once([put] * 3) == [(len(DATA), SHA256)] * 3
    assert (bucket.uploads(), notes()) == ([], [])


def test_an_upload_for_which_nobody_came_back_is_given_up(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the bill: parts that nobody will ever use do not stay in the bucket for ever."""
    with pytest.raises(Stop):
        filesystem.put_hashed(str(large), f"{bucket.name}/old", stop_after(PART))
    (note,) = notes()
    os.utime(note, (1, 1))
    monkeypatch.setattr(writing, "_swept", set())
    filesystem.put_hashed(str(large), f"{bucket.name}/new", abs)
    assert (bucket.uploads(), notes(), bucket.names()) == ([], [], ["new"])


def test_without_a_home_folder_large_files_go_as_well(
    filesystem: BucketFileSystem, bucket: Bucket, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards containers: where nothing can be noted, what is broken off is given up at once."""
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    with pytest.raises(Stop):
        filesystem.put_hashed(str(large), f"{bucket.name}/large", stop_after(PART))
    assert bucket.uploads() == []
    assert filesystem.put_hashed(str(large), f"{bucket.name}/large", abs) == (len(DATA), SHA256)


def test_memory_is_bounded(bucket: Bucket, tmp_path: Path) -> None:
    """Guards small machines: 200 MB up and down, and as a stream, take far less than 300 MB."""
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(200 << 20)
    script = """
        import re, sys
        from pathlib import Path
        from mlcore import artifacts
        fs, root = artifacts.open_backend(sys.argv[1])
        folder = Path(sys.argv[2])
        stored = artifacts.put(fs, root, {"huge": folder / "huge"})
        artifacts.get(stored, folder / "got")
        with fs.open(root + "/stream", "wb") as file:
            for _ in range(100):
                file.write(bytes(1 << 20))
        print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
    """
    told = run("-c", textwrap.dedent(script), f"{bucket.uri}/x", tmp_path)
    assert int(told) < 250
    assert bucket.sizes() == {"x/huge": 200 << 20, "x/stream": 100 << 20}


# Streams


def test_a_stream_that_breaks_off_leaves_nothing(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards what comes from elsewhere: no object, and no parts that cost money."""

    def write() -> None:
        with filesystem.open(f"{bucket.name}/stream", "wb") as file:
            for _ in range(3):
                file.write(DATA[: PART + 1])
            raise Stop

    with pytest.raises(Stop):
        write()
    assert (bucket.names(), bucket.uploads()) == ([], [])


def test_text_can_be_written_and_read(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards those who open files as they do at home."""
    with filesystem.open(f"{bucket.name}/notes.txt", "w", encoding="utf-8") as file:
        file.write("größe\n" * 3)
    with filesystem.open(f"s3://{bucket.name}/notes.txt", "r", encoding="utf-8") as file:
        assert list(file) == ["größe\n"] * 3
    with pytest.raises(ValueError, match="not in mode 'ab'"):
        filesystem.open(f"{bucket.name}/notes.txt", "ab")


def test_of_those_who_create_an_object_one_does(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards conditional creation, which the server decides."""

    def create(number: int) -> bool:
        try:
            filesystem.pipe_file(f"{bucket.name}/one", bytes([number]) * 2_000_000, mode="create")
        except FileExistsError:
            return False
        return True

    assert sum(at_once([functools.partial(create, number) for number in range(8)])) == 1
    with pytest.raises(FileExistsError), filesystem.open(f"{bucket.name}/one", "xb") as file:
        file.write(DATA)
    assert len(set(filesystem.cat_file(f"{bucket.name}/one"))) == 1
    assert bucket.uploads() == []


# Reading


def test_a_reader_may_go_where_it_likes(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards zip files and tables: whatever is asked for, in any order, ahead or not, is what is there."""
    filesystem.pipe_file(f"{bucket.name}/large", DATA)
    with filesystem.open(f"{bucket.name}/large", "rb") as file:
        assert file.seek(-3, os.SEEK_END) == len(DATA) - 3
        assert file.read() == b"end"
        for start, count in (
            (0, 3 * PART),
            (PART, 100),
            (3 * PART + 7, 2 * PART),
            (5, 0),
            (PART - 1, 2),
            (2, 4 * PART),
        ):
            file.seek(start)
            assert file.read(count) == DATA[start : start + count]
        file.seek(len(DATA) + 10)
        assert file.read() == b""
        with pytest.raises(OSError, match="before the beginning"):
            file.raw.seek(-1)


def test_what_is_replaced_while_it_is_read_is_no_mix(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards readers of a checkpoint that is just written anew."""
    path = f"{bucket.name}/large"
    filesystem.pipe_file(path, DATA)
    with filesystem.open(path, "rb") as file:
        file.read(10)
        filesystem.pipe_file(path, DATA[::-1])
        with pytest.raises(ArtifactError, match="was replaced while it was read: open it again"):
            file.read()


# Folders


def test_listings_go_page_by_page(
    filesystem: BucketFileSystem, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards folders of thousands of files: none is lost or doubled where one page ends."""
    names = [f"many/{number:02}/ü {number}" for number in range(25)]
    artifacts.put(filesystem, bucket.name, {**dict.fromkeys(names, b"x"), "many.txt": b"", "other": b""})
    for size in (1, 5, 7, 25, 1000):
        monkeypatch.setattr(engine, "_PAGE", size)
        assert filesystem.find(f"{bucket.name}/many") == [f"{bucket.name}/{name}" for name in names]
    assert len(filesystem.ls(bucket.name)) == 3
    assert len(filesystem.ls(f"s3://{bucket.name}/many", detail=False)) == 25
    filesystem.rm(f"{bucket.name}/many", recursive=True)
    assert bucket.names() == ["many.txt", "other"]


def test_folders_are_copied_and_moved_by_the_server(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards recursive copies: stars are letters, and neighbours stay where they are."""
    contents = {"a/1": b"1", "a/b/2*": b"22", "ab": b"333"}
    artifacts.put(filesystem, bucket.name, contents)
    filesystem.cp(f"{bucket.name}/a", f"{bucket.name}/copy", recursive=True)
    assert bucket.sizes() == {"a/1": 1, "a/b/2*": 2, "ab": 3, "copy/1": 1, "copy/b/2*": 2}
    filesystem.mv(f"{bucket.name}/copy", f"{bucket.name}/moved", recursive=True)
    filesystem.mv(f"{bucket.name}/ab", f"{bucket.name}/cd")
    assert bucket.sizes() == {"a/1": 1, "a/b/2*": 2, "cd": 3, "moved/1": 1, "moved/b/2*": 2}
    with pytest.raises(ValueError, match="whole bucket, which is not emptied"):
        filesystem.rm(bucket.name, recursive=True)


def test_what_a_server_does_not_say_is_no_no(
    filesystem: BucketFileSystem, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards those who ask whether a file is there: that the server refuses to tell is an error, and not "no"."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger, _ = artifacts.open_backend(bucket.uri)
    for ask in (stranger.exists, stranger.isfile, stranger.isdir, stranger.info, stranger.find, stranger.ls):
        with pytest.raises(ArtifactError, match="secret key is not that of the access key"):
            ask(f"{bucket.name}/x")


def test_names_that_an_object_cannot_have_are_told(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards paths that were put together wrongly."""
    with pytest.raises(ArtifactError, match="cannot name an object"):
        filesystem.pipe_file(f"{bucket.name}/a//b", b"")
    with pytest.raises(ArtifactNotFound, match="there is no file s3://"):
        artifacts.open_file(artifacts.File(filesystem, f"{bucket.name}/none", 0))


# Processes


def test_a_forked_process_is_told_what_does_not_work(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards multiprocessing by fork: an error that says what to do, where there would be a wait without end."""
    script = """
        import os, sys
        from mlcore import artifacts, errors
        fs, root = artifacts.open_backend(sys.argv[1])
        fs.exists(root)
        if os.fork() == 0:
            try:
                fs.exists(root)
            except errors.ArtifactError as error:
                print("spawn" in str(error), flush=True)
            os._exit(0)
        os.wait()
    """
    assert run("-c", textwrap.dedent(script), f"{bucket.uri}/x").split() == ["True"]


def test_what_is_logged_as_the_interpreter_ends_arrives(bucket: Bucket, large: Path) -> None:
    """Guards what is stored by functions that run at exit, when there are no more threads to be had."""
    script = """
        import atexit, sys
        from mlcore import artifacts
        fs, root = artifacts.open_backend(sys.argv[1])
        atexit.register(lambda: fs.put_hashed(sys.argv[2], root, abs))
    """
    run("-c", textwrap.dedent(script), f"{bucket.uri}/late", large)
    assert bucket.sizes() == {"late": len(DATA)}


def test_installing_it_brings_three_distributions() -> None:
    """Guards small images: S3's own library and its kin are thirty MB."""
    assert needed("mlcore[s3]").keys() - needed("mlcore").keys() <= {"mlcore-s3", "obstore", "typing-extensions"}


def test_its_hooks_load_no_library_of_a_cloud() -> None:
    """Guards the start of every process that has it installed, and uses no bucket."""
    code = "import sys, mlcore_s3.hooks; print({'obstore', 'fsspec', 'http.client', 'ssl'} & set(sys.modules))"
    assert run("-c", code).strip() == "set()"


def test_an_errno_is_the_systems(filesystem: BucketFileSystem, bucket: Bucket) -> None:
    """Guards callers who look at the number of an OSError."""
    with pytest.raises(FileNotFoundError) as caught:
        filesystem.cat_file(f"{bucket.name}/none")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, f"{bucket.uri}/none")

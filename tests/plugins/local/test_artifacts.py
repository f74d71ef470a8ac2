"""Files on this machine: how they are written, and what they mean to the rest of a folder store."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import io
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlcore
import mlcore_local.artifacts
from mlcore import artifacts
from mlcore.errors import ArtifactError
from mlcore.folder import Folder
from mlcore_local.artifacts import Files, open_files
from mlcore_local.check import check

LEFTOVER = ".mlcore-0123456789abcdef.tmp"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[mlcore.Run]:
    """Start a run."""
    with mlcore.Client(tmp_path / "store").start_run() as run:
        yield run


@pytest.fixture
def umask() -> Iterator[None]:
    """Let files be what the test asks for."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("/a//b/../c/", "/a/c"),
        ("a", "{cwd}/a"),
        ("~/a", "{home}/a"),
        ("localhost/a", "{cwd}/localhost/a"),
    ],
)
def test_a_path_or_uri_means_one_absolute_path(uri: str, path: str) -> None:
    """Guards what is recorded of a place: the same file, whatever folder the reader is in."""
    assert open_files(uri)[1] == path.format(cwd=Path.cwd(), home=Path.home())


def test_a_file_gets_the_modes_of_any_other(umask: None, tmp_path: Path) -> None:
    """Guards teams: who may read is what the umask says, not what a temporary file would get."""
    (tmp_path / "source").write_text("x")
    (tmp_path / "source").chmod(0o600)
    stored = artifacts.put(Files(), str(tmp_path), {"a": b"x", "b": tmp_path / "source"})
    artifacts.get(stored, tmp_path / "got")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "got/a", "got/b")}
    assert modes == {0o640}


def test_a_copy_is_never_a_link(run: mlcore.Run, tmp_path: Path) -> None:
    """Guards what is kept from what its source becomes, and the source from what is kept."""
    source = tmp_path / "source"
    source.write_text("before")
    run.log_artifact(source)
    kept = run.artifacts.get("source")
    copy = run.artifacts.get("source", tmp_path / "copy")
    assert len({path.stat().st_ino for path in (source, kept, copy)}) == 3
    with open(source, "r+") as file:
        file.write("after!")
    copy.write_text("else")
    assert kept.read_text() == "before"
    assert list(run.artifacts.verify()) == []


def test_a_disk_that_can_clone_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards reflinks, which cost nothing: the digest is that of the clone, whatever the source is by then."""
    asked = []

    def clone(target: int, request: int, source: int) -> None:
        asked.append(request)
        os.pwrite(target, os.pread(source, 1 << 20, 0).upper(), 0)  # as if the source changed before it was cloned

    monkeypatch.setattr(mlcore_local.artifacts.fcntl, "ioctl", clone)
    (tmp_path / "source").write_text("small")
    stored = artifacts.put(Files(), str(tmp_path), {"a": tmp_path / "source"})
    assert (tmp_path / "a").read_text() == "SMALL"
    assert (stored["a"].sha256, stored["a"].size) == (hashlib.sha256(b"SMALL").hexdigest(), 5)
    assert asked == [0x40049409]
    assert fcntl.ioctl is clone


def test_a_file_is_synced_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a loss of power: a name never stands for blocks that were not written."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    (tmp_path / "source").write_text("x")
    artifacts.put(Files(), str(tmp_path), {"a": b"x"})
    artifacts.put(Files(), str(tmp_path), {"b": tmp_path / "source"})
    assert calls == ["fsync", "replace"] * 2


class TestFiles:
    """Guards what others use an fsspec filesystem for, beside what mlcore needs."""

    def test_a_file_appears_when_it_is_closed(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with Files().open(str(path), "wb") as file:
            file.write(b"x")
            file.flush()
            assert not path.exists()
        assert path.read_bytes() == b"x"
        assert [each.name for each in tmp_path.iterdir()] == ["file"]

    def test_an_error_or_a_forgotten_file_leaves_nothing(self, tmp_path: Path) -> None:
        file = Files().open(str(tmp_path / "a"), "wb")
        file.write(b"x" * 1_000_000)
        with pytest.raises(KeyError), file:
            raise KeyError
        forgotten = Files().open(str(tmp_path / "b"), "wb")
        forgotten.write(b"x" * 1_000_000)
        del file, forgotten
        gc.collect()
        assert list(tmp_path.iterdir()) == []

    def test_text_can_be_written(self, tmp_path: Path) -> None:
        with Files().open(str(tmp_path / "a"), "w", encoding="utf-8") as file:
            file.write("größe")
        assert (tmp_path / "a").read_text(encoding="utf-8") == "größe"

    def test_a_new_file_may_be_asked_for(self, tmp_path: Path) -> None:
        with Files().open(str(tmp_path / "a"), "xb") as file:
            file.write(b"first")
        with pytest.raises(FileExistsError), Files().open(str(tmp_path / "a"), "xb") as file:
            file.write(b"second")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"first"}
        assert (tmp_path / "a").stat().st_nlink == 1

    def test_a_transaction_holds_files_back(self, tmp_path: Path) -> None:
        files = Files()
        with files.transaction:
            with files.open(str(tmp_path / "a"), "wb") as file:
                file.write(b"x")
            assert not (tmp_path / "a").exists()
        assert (tmp_path / "a").read_bytes() == b"x"
        with contextlib.suppress(KeyError), files.transaction:
            with files.open(str(tmp_path / "b"), "wb") as file:
                file.write(b"x")
            raise KeyError
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_folders_are_put_got_and_copied(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "c").write_text("x")
        files = Files()
        files.put(f"{tmp_path}/a/", f"{tmp_path}/put/", recursive=True)
        files.get(f"{tmp_path}/put/", f"{tmp_path}/got/", recursive=True)
        files.copy(f"{tmp_path}/got/", f"{tmp_path}/copied/", recursive=True)
        assert [(tmp_path / name / "b" / "c").read_text() for name in ("put", "got", "copied")] == ["x"] * 3
        buffer = io.BytesIO()
        files.get_file(f"{tmp_path}/a/b/c", buffer)
        assert buffer.getvalue() == b"x"

    @pytest.mark.parametrize("path", ["", ".", "/", "//", "/./", "{cwd}", "{cwd}/x/.."])
    def test_the_root_is_never_removed(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "x").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(shutil, "rmtree", lambda path: pytest.fail(f"{path} would be gone"))
        with pytest.raises(ValueError, match="is not removed"):
            Files().rm(path.format(cwd=tmp_path), recursive=True)


class TestFolderStores:
    def test_a_run_without_files_is_three_inodes(self, run: mlcore.Run) -> None:
        """Guards stores of 100,000 runs: who keeps no files pays nothing for them, whoever asks."""
        run.log_metric("m", 1)
        assert list(run.artifacts.list()) == []
        run.artifacts.get()
        run.end()
        assert run.folder is not None
        assert len([run.folder, *run.folder.iterdir()]) == 3

    def test_a_run_with_files_is_sealed_like_any_other(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards fast reading: records of files stand in the seal, and later ones beside it."""
        run.log_text("x", "a.txt")
        run.log_metric("m", 1)
        run.end()
        assert run.folder is not None
        assert (run.folder / "sealed").exists()
        run.log_text("y", "b.txt")
        back = mlcore.Client(tmp_path / "store").get_run(run.id)
        assert [each.path for each in back.artifacts.list()] == ["a.txt", "b.txt"]
        assert back.metrics == {"m": 1}

    @pytest.mark.parametrize("name", ["x.journal", "sealed", "old.tmp", "d/sealed", "d/x.journal", "store.json"])
    def test_a_file_may_have_a_name_that_means_something_to_a_store(
        self, name: str, run: mlcore.Run, tmp_path: Path
    ) -> None:
        """Guards the files of users from fsck, which would take them for damaged ones of its own."""
        run.log_text("no journal", name)
        run.log_metric("m", 1)
        run.end()
        path = run.artifacts.get(name)
        os.utime(path, (1, 1))
        for repair in (False, True):
            report = check(Folder.open(tmp_path / "store"), repair=repair)
            assert (report.findings, report.journals) == ([], 1)
        assert path.read_text() == "no journal"
        back = mlcore.Client(tmp_path / "store").get_run(run.id)
        assert back.metrics == {"m": 1}
        assert list(back.artifacts.verify()) == []

    def test_what_a_killed_process_left_is_removed_after_an_hour(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards disks: a half written file is no file, is told of once it is old, and goes with --repair."""
        run.log_text("x", "d/a.txt")
        assert run.folder is not None
        half = run.folder / "artifacts" / "d" / LEFTOVER
        half.write_bytes(b"half")
        folder = Folder.open(tmp_path / "store")
        assert check(folder).findings == [], "it may be written right now"
        os.utime(half, (time.time() - 3700,) * 2)
        assert [(each.path, each.severity) for each in check(folder).findings] == [(half, "leftover")]
        assert artifacts.hash_folder(run.artifacts.get("d")).keys() == {"a.txt"}
        check(folder, repair=True)
        assert not half.exists()
        assert list(run.artifacts.verify()) == []

    def test_a_copied_or_merged_store_has_the_files(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards `cp -r`: nothing in a store says where it was, so the files are where the run is."""
        run.log_text("x", "d/a.txt")
        run.end()
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
        with mlcore.Client(tmp_path / "other").start_run() as there:
            there.log_text("y", "d/a.txt")
        shutil.copytree(tmp_path / "other" / "runs", tmp_path / "copy" / "runs", dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "store")
        shutil.rmtree(tmp_path / "other")
        client = mlcore.Client(tmp_path / "copy")
        for id, text in ((run.id, "x"), (there.id, "y")):
            assert client.get_run(id).artifacts.get("d/a.txt").read_text() == text
            assert list(client.get_run(id).artifacts.verify()) == []

    def test_without_mlcore_local_the_error_says_what_to_install(self, run: mlcore.Run, monkeypatch: Any) -> None:
        """Guards whoever installed core alone: files ask for the same package as reading does."""
        monkeypatch.setattr("mlcore.plugins.provided", lambda kind: {})
        with pytest.raises(mlcore.errors.NotInstalled, match="pip install mlcore-local"):
            artifacts.open_backend("/x")

    def test_a_file_that_cannot_be_read_is_told_of(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards permissions, on either side."""
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(ArtifactError, match="Too many levels of symbolic links"):
            run.log_artifact(tmp_path / "loop")
        with pytest.raises(ArtifactError, match="File name too long"):
            run.log_text("x", "é" * 250)
        assert list(run.artifacts.list()) == []

"""The cache of downloads: got once, whole whatever dies, no more than its limit, and never taken from who uses it."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from faults.processes import finish, mlcore as program, run, start
from mlcore.artifacts import hash_file, is_temporary

MB = 1 << 20

FAR = """
    import hashlib, os, sys, time, mlcore
    from pathlib import Path
    from fsspec.implementations.local import LocalFileSystem
    from mlcore import plugins

    class Far(LocalFileSystem):
        local_file = False

        def _open(self, path, mode="rb", **options):
            if mode == "rb":
                with open(os.environ["READS"], "a") as log:
                    log.write(path.rpartition("/")[2] + "\\n")
                time.sleep(float(os.environ.get("SLOW", "0")))
            return super()._open(path, mode, **options)

    class Backends:
        @staticmethod
        def mlcore_artifact_backends():
            return [mlcore.Provider("far", lambda uri: (Far(), uri.removeprefix("far://")), "files that are far away")]

    plugins.register(Backends)
    root = Path(os.environ["XDG_CACHE_HOME"], "mlcore", "artifacts")

    def got(name):
        return mlcore.get_run(os.environ["RUN"]).artifacts.get(name)
"""
MAKE = """
    with mlcore.start_run() as active:
        active.log_artifacts("source")
    print(active.id)
"""
GET = """
    for name in sys.argv[1:]:
        print(got(name), flush=True)
"""
HOLD = "    sys.stdin.read()\n"


class Place:
    """A run whose files are far away, and processes that get them into one cache."""

    def __init__(self, home: Path, cache: Path, **settings: str) -> None:
        self.home, self.cache, self.source = home, cache / "mlcore" / "artifacts", home / "source"
        self.settings = {"MLCORE_STORE": str(home / "store"), "MLCORE_ARTIFACTS": f"far://{home}/far"}
        self.settings |= {"MLCORE_CAPTURE": "off", "READS": str(home / "reads"), "XDG_CACHE_HOME": str(cache)}
        self.settings |= settings
        self.settings["RUN"] = self.run(MAKE).strip()

    def run(self, code: str, *arguments: object, status: int = 0, **settings: str) -> str:
        out, err = run(self.home, dedent(FAR) + dedent(code), *arguments, status=status, **self.settings | settings)
        return out + err if status else out

    def start(self, code: str, *arguments: object, **settings: str) -> subprocess.Popen[str]:
        return start(self.home, dedent(FAR) + dedent(code), *arguments, **self.settings | settings)

    def get(self, *names: str, **settings: str) -> list[Path]:
        """Return where a process of its own found something; nobody uses it any more."""
        return [Path(line) for line in self.run(GET, *names, **settings).splitlines()]

    @contextmanager
    def using(self, *names: str, **settings: str) -> Iterator[Path]:
        """Have a process use something meanwhile."""
        process = self.start(GET + HOLD, *names, **settings)
        assert process.stdout is not None
        try:
            yield Path(process.stdout.readline().strip())
        finally:
            finish(process)

    def reads(self) -> list[str]:
        """Return what was read from far away since this was asked last."""
        path = self.home / "reads"
        found = sorted(path.read_text().split()) if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def same(self, folder: Path, name: str) -> bool:
        """Tell whether a folder has what was kept under a name, and nothing else."""
        there = {path.relative_to(folder): hash_file(path) for path in folder.rglob("*") if path.is_file()}
        base = self.source / name
        return there == {path.relative_to(base): hash_file(path) for path in base.rglob("*") if path.is_file()}

    def blobs(self) -> dict[str, int]:
        """Return what is kept, each of which must be what its name says, by its size."""
        found = list((self.cache / "blobs").iterdir())
        assert [path.name for path in found] == [hash_file(path) for path in found]
        return {path.name: path.stat().st_size for path in found}

    def command(self, *arguments: str) -> dict[str, object]:
        """Return what a command says."""
        done = program(self.home, "artifacts", "cache", *arguments, "--json", **self.settings)
        assert done.returncode == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout)
        return told


def fill(path: Path, size: int, seed: int) -> None:
    """Write a file of what another seed would not give."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(size))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a run with models that share a large file."""
    for number, name in enumerate(("a", "b", "c")):
        fill(tmp_path / "source" / name / "weights" / "own.bin", MB, number)
        fill(tmp_path / "source" / name / "shared.bin", 2 * MB, 100)
    return Place(tmp_path, tmp_path / "cache")


def test_a_content_is_got_and_kept_once_whatever_it_is_part_of(place: Place) -> None:
    """Guards the disk and the network: models that share their tokenizer, and one model asked for in two ways."""
    a, b, own, again = place.get("a", "b", "a/weights", "a")
    assert place.reads() == ["own.bin", "own.bin", "shared.bin"]
    assert place.same(a, "a") and place.same(b, "b") and place.same(own, "a/weights") and again == a
    assert os.path.samefile(a / "shared.bin", b / "shared.bin")
    assert os.path.samefile(a / "weights" / "own.bin", own / "own.bin")
    assert sorted(place.blobs().values()) == [MB, MB, 2 * MB]
    assert stat.S_IMODE(place.cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in a.rglob("*.bin")} == {0o444}
    found = place.command("list")
    assert (found["size"], found["limit"]) == (4 * MB, 20 * 10**9)


def test_sixteen_processes_get_a_model_at_once_and_it_comes_once(place: Place) -> None:
    """Guards the workers of a server that start together: one gets the model, the others wait for it."""
    processes = [place.start(GET, "a", SLOW="0.5") for _ in range(16)]
    folders = {finish(process)[0].strip() for process in processes}
    assert place.reads() == ["own.bin", "shared.bin"]
    assert len(folders) == 1
    assert place.same(Path(folders.pop()), "a")


def test_whoever_is_killed_leaves_nothing_wrong(place: Place) -> None:
    """Guards SIGKILL at any moment of getting and of removing: what has a name is whole, and what is left over goes."""
    code = """
        import itertools
        from mlcore_local.cache import prune
        for each in itertools.cycle(sys.argv[1:]):
            if each == "prune":
                prune(root, -1)
            else:
                folder = got(each)
                assert len([*folder.rglob("*.bin")]) == 2, folder
    """
    chance = random.Random(0)
    for _ in range(6):
        processes = [place.start(code, *names) for names in ("abc", "ca", ["prune"])]
        time.sleep(0.5)
        for process in processes:
            time.sleep(chance.random() * 0.2)
            process.kill()
        for process in processes:
            assert "Error" not in finish(process, None)[1]
        if place.cache.exists():
            place.blobs()
            for path in (place.cache / "sets").rglob("*.bin"):
                assert hash_file(path) in {hash_file(each) for each in place.source.rglob("*.bin")}
    for name, folder in zip("abc", place.get("a", "b", "c"), strict=True):
        assert place.same(folder, name)
    place.command("prune")
    assert len(place.blobs()) == 4
    assert [path for path in place.cache.rglob("*") if is_temporary(path.name)] == []
    assert list((place.cache / "parts").iterdir()) == list((place.cache / "using").iterdir()) == []
    assert place.command("clear")["size"] == 0
    assert place.blobs() == {}


@pytest.mark.parametrize("how", ["written", "replaced", "truncated", "removed", "linked", "added", "touched"])
def test_what_somebody_changed_in_the_cache_is_noticed(how: str, place: Place) -> None:
    """Guards against an edit that would change a model for everybody: it is got again, and other sets are mended."""
    a, b = place.get("a", "b")
    place.reads()
    shared, outside = a / "shared.bin", place.home / "outside"
    if how == "written":
        shared.chmod(0o644)
        with shared.open("r+b") as file:
            file.write(b"edited")
    elif how == "replaced":
        outside.write_bytes(bytes(2 * MB))
        outside.replace(shared)
    elif how == "truncated":
        os.truncate(shared, MB)
    elif how == "removed":
        shared.unlink()
    elif how == "linked":
        shared.replace(outside)
        shared.symlink_to(outside)
    elif how == "added":
        (a / "more.py").write_text("print('boo')")
    else:
        os.utime(shared)
    assert place.get("a", "b") == [a, b]
    assert place.same(a, "a") and place.same(b, "b")
    assert not shared.is_symlink()
    assert place.reads() == (["shared.bin"] if how in ("written", "truncated") else [])
    assert len(place.blobs()) == 3


def test_what_was_used_longest_ago_goes_and_nothing_that_is_in_use(place: Place) -> None:
    """Guards the limit, and whoever has a model loaded lazily from files that others would remove."""
    settings = {"MLCORE_CACHE_LIMIT": str(4 * MB)}
    with place.using("a", **settings) as a:
        b, c = place.get("b")[0], place.get("c", **settings)[0]
        assert a.exists() and c.exists() and not b.exists()
        told = place.command("clear")
        assert [len(told[key]) for key in ("removed", "in_use")] == [1, 1]  # type: ignore[arg-type]
        assert place.same(a, "a") and not c.exists()
    place.get("b", **settings)  # a is no longer used, and both have room
    assert a.exists()
    place.get("a")
    c = place.get("c", **settings)[0]
    assert place.same(a, "a") and place.same(c, "c") and not b.exists()
    assert len(place.command("prune", "--size", "3MB")["removed"]) == 2  # type: ignore[arg-type]
    assert place.blobs() == {}


def test_a_child_that_was_forked_keeps_what_it_uses(place: Place) -> None:
    """Guards pools: the parent loads, forks and ends, and the child reads on."""
    code = """
        folder = got("a")
        if os.fork() == 0:
            print(folder, flush=True)
            sys.stdin.read()
    """
    process = place.start(code)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    process.wait(60)
    assert place.command("clear")["removed"] == []
    assert place.same(folder, "a")
    finish(process)
    assert len(place.command("clear")["removed"]) == 1  # type: ignore[arg-type]


def test_without_links_there_are_copies(place: Place) -> None:
    """Guards disks that have no hard links, of which there is none here: so the call is refused as they would."""
    code = """
        def refuse(*_, **__):
            raise PermissionError(1, "Operation not permitted")
        os.link = refuse
    """
    folder = Path(place.run(dedent(code) + dedent(GET), "a").strip())
    assert place.same(folder, "a")
    assert {path.stat().st_nlink for path in folder.rglob("*.bin")} == {1}
    assert place.get("a") == [folder]
    assert place.command("clear") | {"removed": []} == {"removed": [], "in_use": [], "freed": 6 * MB, "size": 0}


def test_a_record_without_a_digest_names_no_file_of_the_cache(place: Place) -> None:
    """Guards against a server that says that a file's sha256 is a path of ours."""
    code = """
        active = mlcore.get_run(os.environ["RUN"])
        active._note({"a/x": {"sha256": "../../../source/a/shared.bin", "size": 1}})
        got("a")
    """
    assert "DigestMismatch" in place.run(code, status=1)


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert os.environ.get("MLCORE_TEST_ALL") != "1", "CI runs as root, and must be able to mount"
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_makes_room_first_and_is_told_of_then(place: Place) -> None:
    """Guards ENOSPC: what nobody uses goes; what is in use stays whole, and the error says what can be done."""
    with disk(place.home / "disk", "5m") as folder:
        place.settings["XDG_CACHE_HOME"] = str(folder)
        place.cache = folder / "mlcore" / "artifacts"
        (first,) = place.get("a")
        fill(folder / "other", MB, 7)  # what is left is no room for b
        with place.using("b") as second:
            assert place.same(second, "b") and not first.exists()
            fill(folder / "more", 800_000, 8)
            told = place.run(GET, "c", status=1).splitlines()[-1]
            assert "ArtifactError: the disk of the cache is full, and it keeps only what is in use" in told
            assert "No space left on device" in told and "XDG_CACHE_HOME" in told
            assert place.same(second, "b")
            assert list((place.cache / "parts").iterdir()) == []
        (folder / "more").unlink()
        assert place.same(place.get("c")[0], "c")


def test_a_cache_that_cannot_be_written_is_done_without(place: Place) -> None:
    """Guards images and clusters: what a read-only cache has is used, what it has not is gone with the process."""
    with disk(place.home / "disk", "10m") as folder:
        place.settings["XDG_CACHE_HOME"] = str(folder)
        (kept,) = place.get("a")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        place.reads()
        scratch = place.home / "tmp"
        scratch.mkdir()
        with place.using("b", TMPDIR=str(scratch)) as got:
            assert got.is_relative_to(scratch)
            assert place.same(got, "b")
        assert list(scratch.iterdir()) == []
        place.reads()
        assert place.get("a") == [kept]
        assert place.reads() == []
        assert place.command("list")["size"] == 3 * MB


def test_a_cache_that_is_taken_away_meanwhile_is_made_anew(place: Place) -> None:
    """Guards whoever empties ~/.cache under a running process: it gets what it asks for next, and keeps that."""
    with place.using("a"):
        shutil.rmtree(place.cache)
    code = """
        import shutil
        first = got("a")
        shutil.rmtree(root)
        assert got("a") == first
        print(first, flush=True)
        sys.stdin.read()
    """
    process = place.start(code)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert place.command("clear")["removed"] == []
    assert place.same(folder, "a")
    finish(process)

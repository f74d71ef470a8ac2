"""Files of runs when processes die, disks are full or read-only, and when there is much: whole, or not there."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.processes import crowd, finish, fsck, reading, run, start
from mlcore.artifacts import is_temporary

MB = 1 << 20
BLOCK = random.Random(0).randbytes(MB)


def filled(path: Path, size: int) -> Path:
    """Write a file of `size` bytes that is not sparse."""
    with open(path, "wb") as file:
        file.writelines(BLOCK for _ in range(size // MB))
        file.write(BLOCK[: size % MB])
    return path


def digest(path: Path) -> str:
    """Return a file's sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shown(folder: Path) -> list[Path]:
    """Return the files in a folder that are under their final names."""
    return [path for path in folder.rglob("*") if path.is_file() and not is_temporary(path.name)]


KEEPER = """
    import os, sys, mlcore
    store, source = sys.argv[1:]
    with mlcore.Client(store).start_run() as active:
        os.write(1, (active.id + "\\n").encode())
        for number in range(1_000_000):
            active.log_artifact(source, f"d/{number}")
            active.log_artifacts(os.path.dirname(source) + "/many", f"m{number}")
            os.write(1, b".")
"""


def test_a_process_killed_while_it_keeps_files_leaves_no_half_file_and_no_false_record(tmp_path: Path) -> None:
    """Guards the promise, twenty times: what has its name is whole, what is recorded is there, and a retry works."""
    source = filled(tmp_path / "source", 24 * MB + 5)
    (tmp_path / "many").mkdir()
    for number in range(40):
        (tmp_path / "many" / str(number)).write_bytes(BLOCK[number : number + 1000])
    whole, store, chance, halves = digest(source), tmp_path / "store", random.Random(), 0
    for _ in range(20):
        process = start(tmp_path, KEEPER, store, source)
        assert process.stdout is not None
        id = process.stdout.readline().strip()
        time.sleep(chance.random() * 0.3)
        process.kill()
        finish(process, -signal.SIGKILL)
        with reading(store) as client:
            back = client.get_run(id)
            assert back.folder is not None
            kept = back.folder / "artifacts"
            for path in shown(kept):
                expected = whole if path.parent.name == "d" else digest(tmp_path / "many" / path.name)
                assert digest(path) == expected
            halves += sum(is_temporary(path.name) for path in kept.rglob("*"))
            assert list(back.artifacts.verify()) == []
            back.log_artifact(source, "d/0")
            back.log_artifacts(tmp_path / "many", "m0")
            assert digest(back.artifacts.get("d/0")) == whole
            assert list(back.artifacts.verify()) == []
    assert halves, "not one of them was killed in the middle of a file"
    for path in store.rglob("*.tmp"):
        os.utime(path, (1, 1))
    assert {each["severity"] for each in fsck(tmp_path, store, "--repair")["findings"]} <= {"repaired", "torn"}
    assert not [path for path in store.rglob("*") if is_temporary(path.name)]


def test_a_process_killed_while_it_replaces_a_file_leaves_one_of_the_two(tmp_path: Path) -> None:
    """Guards the last checkpoint: the old or the new is there whole, and logging it again makes the record right."""
    code = """
        import os, sys, mlcore
        with mlcore.Client(sys.argv[1]).start_run() as active:
            active.log_artifact("0", "last")
            os.write(1, (active.id + "\\n").encode())
            while True:
                for name in "10":
                    active.log_artifact(name, "last")
    """
    for number in range(2):
        filled(tmp_path / str(number), (8 + number) * MB)
    contents = {digest(tmp_path / str(number)) for number in range(2)}
    for _ in range(5):
        process = start(tmp_path, code, tmp_path / "store")
        assert process.stdout is not None
        id = process.stdout.readline().strip()
        time.sleep(random.random() * 0.2)
        process.kill()
        finish(process, -signal.SIGKILL)
        with reading(tmp_path / "store") as client:
            back = client.get_run(id)
            assert back.folder is not None
            assert digest(back.folder / "artifacts" / "last") in contents
            back.log_artifact(tmp_path / "0", "last")
            assert list(back.artifacts.verify()) == []


def test_a_process_killed_while_it_gets_files_leaves_no_half_file(tmp_path: Path) -> None:
    """Guards downloads: what has its name is whole, and getting again brings the rest."""
    code = "import sys, mlcore; mlcore.Client('store').get_run(sys.argv[1]).artifacts.get('', 'got')"
    source = filled(tmp_path / "source", 30 * MB)
    with reading(tmp_path / "store") as client:
        with client.start_run() as active:
            for number in range(6):
                active.log_artifact(source, f"{number}")
        for _ in range(5):
            process = start(tmp_path, code, active.id)
            time.sleep(0.15 + random.random() * 0.3)
            process.kill()
            finish(process, None)
            assert {digest(path) for path in shown(tmp_path / "got")} <= {digest(source)}
        active.artifacts.get("", tmp_path / "got")
    assert len(shown(tmp_path / "got")) == 6


def test_an_interrupt_ends_a_long_copy_at_once(tmp_path: Path) -> None:
    """Guards Ctrl-C: copies in other threads stop as well, and what was half written is removed."""
    code = """
        import os, sys, mlcore
        with mlcore.Client("store").start_run() as active:
            os.write(1, (active.id + "\\n").encode())
            while True:
                active.log_artifacts("sources")
    """
    (tmp_path / "sources").mkdir()
    for number in range(4):
        filled(tmp_path / "sources" / str(number), 100 * MB)
    process = start(tmp_path, code)
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = finish(process, None)
    assert time.monotonic() - began < 10
    assert "KeyboardInterrupt" in err
    with reading(tmp_path / "store") as client:
        back = client.get_run(id)
        assert back.status == "KILLED"
        assert back.folder is not None
        assert [path.name for path in back.folder.rglob("*") if is_temporary(path.name)] == []
        assert {digest(path) for path in shown(back.folder / "artifacts")} <= {digest(tmp_path / "sources" / "0")}


MEASURED = """
    import os, re, sys, time, mlcore
    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
    with mlcore.Client("store").start_run() as active:
        active.log_text("x", "warm up"); active.artifacts.get("warm up", "warm up")
        before, times = peak(), []
        for call in (
            lambda: active.log_artifacts("small", "small"),
            lambda: active.log_artifact("large"),
            lambda: active.artifacts.get("small", "got-small"),
            lambda: active.artifacts.get("large", "got-large"),
            lambda: active.artifacts.verify() and sys.exit("wrong"),
        ):
            began = time.perf_counter()
            call()
            times.append(round(time.perf_counter() - began, 3))
    print(active.id, peak() - before, *times)
"""


@pytest.mark.parametrize("size", [200 * MB, pytest.param(2048 * MB, marks=pytest.mark.slow)], ids=["200MB", "2GB"])
def test_many_small_files_and_a_large_one_take_little_memory(size: int, tmp_path: Path) -> None:
    """Guards memory and time: 1,000 small files and one of `size` go in and out with a bounded buffer each thread."""
    (tmp_path / "small").mkdir()
    for number in range(1000):
        (tmp_path / "small" / f"{number}.txt").write_bytes(BLOCK[number : number * 3 + 1])
    source = filled(tmp_path / "large", size)
    assert source.stat().st_blocks * 512 >= size
    out, _ = run(tmp_path, MEASURED)
    id, memory, *times = out.split()
    assert float(memory) < 50, "MB beyond what the process had before"
    assert sum(map(float, times)) < 120, "seconds"
    with reading(tmp_path / "store") as client:
        kept = {each.path: (each.size, each.sha256) for each in client.get_run(id).artifacts.list()}
    assert kept["large"] == (size, digest(source))
    assert digest(tmp_path / "got-large") == kept["large"][1]
    for number in range(1000):
        name = f"{number}.txt"
        assert (tmp_path / "got-small" / name).read_bytes() == (tmp_path / "small" / name).read_bytes()
        assert kept[f"small/{name}"][0] == number * 2 + 1
    for path in (source, tmp_path / "got-large", *(tmp_path / "store").rglob("large")):
        path.unlink()  # pytest keeps the folder for days


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert os.environ.get("MLCORE_TEST_ALL") != "1", "CI runs as root, and must be able to mount"
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


FULL = """
    import sys, mlcore
    from mlcore.errors import ArtifactError
    with mlcore.start_run() as active:
        active.log_text("before", "d/before.txt")
        for call in (
            lambda: active.log_artifact("large", "d/large"),
            lambda: active.log_artifacts("larges", "d"),
            lambda: active.log_bytes(bytes(5_000_000), "d/before.txt"),
        ):
            try:
                call()
            except ArtifactError as error:
                print("told:", error)
        active.log_metric("m", 1)
        active.log_text("after", "d/after.txt")
    print(active.id)
"""


@pytest.mark.parametrize("which", ["store", "artifacts"])
def test_a_full_disk_is_told_of_and_leaves_nothing_half(which: str, disk: Path, tmp_path: Path) -> None:
    """Guards ENOSPC: the call raises, the disk has its space back, the old file stays, and the run goes on."""
    filled(tmp_path / "large", 3 * MB)
    (tmp_path / "larges").mkdir()
    for number in range(5):
        filled(tmp_path / "larges" / str(number), 3 * MB)
    settings = {"MLCORE_STORE": str(tmp_path / "store"), "MLCORE_ARTIFACTS": str(disk / "files")}
    if which == "store":
        settings = {"MLCORE_STORE": str(disk / "store")}
    out, err = run(tmp_path, FULL, **settings)
    assert len(re.findall(r"told: cannot store .*/d/(?:large|\d|before\.txt): No space left on device", out)) == 3
    assert "could not be written" not in err
    with reading(Path(settings["MLCORE_STORE"])) as client:
        back = client.get_run(out.split()[-1])
        assert back.metrics == {"m": 1.0}
        assert [each.path for each in back.artifacts.list()] == ["d/after.txt", "d/before.txt"]
        assert list(back.artifacts.verify()) == []
        assert sorted(path.name for path in back.artifacts.get("d").iterdir()) == ["after.txt", "before.txt"]
    assert fsck(tmp_path, Path(settings["MLCORE_STORE"]))["findings"] == []


def test_a_limit_on_a_file_is_told_of_and_leaves_nothing_half(tmp_path: Path) -> None:
    """Guards EFBIG, on the file, and on the journal that is to record one: nobody is told that it was kept."""
    code = """
        import os, resource, mlcore
        from mlcore.errors import ArtifactError, StoreError
        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        with mlcore.start_run() as active:
            limit(100_000)
            try:
                active.log_artifact("large")
            except ArtifactError as error:
                print("told:", error)
            (journal,) = active.folder.glob("*.journal")
            limit(journal.stat().st_size)
            try:
                active.log_bytes(b"", "empty")
            except StoreError as error:
                print("told:", error)
            limit(resource.RLIM_INFINITY)
            print([each.path for each in active.artifacts.list()])
            active.log_bytes(b"", "empty")
        print(active.id)
    """
    filled(tmp_path / "large", 200_000)
    out, _ = run(tmp_path, code, MLCORE_STORE=str(tmp_path / "store"))
    first, second, between, id = out.splitlines()
    assert re.fullmatch(r"told: cannot store .*/large: File too large", first)
    assert re.fullmatch(r"told: run \w+: files were stored, and not recorded: .*File too large.*", second)
    assert between == "[]"
    with reading(tmp_path / "store") as client:
        back = client.get_run(id)
        assert [each.path for each in back.artifacts.list()] == ["empty"]
        assert [path.name for path in (back.folder / "artifacts").iterdir()] == ["empty"]  # type: ignore[operator]


def test_a_read_only_store_can_be_read_and_says_that_it_keeps_nothing(disk: Path, tmp_path: Path) -> None:
    """Guards archives: files are got from them, and logging one is a clear error that changes nothing."""
    code = "import mlcore\nwith mlcore.start_run() as r: r.log_text('x', 'd/a')\nprint(r.id)"
    id = run(tmp_path, code, MLCORE_STORE=str(disk / "store"))[0].strip()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = sorted(disk.rglob("*"))
    for name in ("d/a", "d/b", "e/c"):
        code = f"import mlcore; mlcore.get_run({id!r}).log_text('y', {name!r})"
        _, err = run(tmp_path, code, MLCORE_STORE=str(disk / "store"), status=1)
        assert re.search(r"ArtifactError: cannot (store|make folder) .*: Read-only file system", err)
    with reading(disk / "store") as client:
        back = client.get_run(id)
        assert back.artifacts.get("d/a").read_text() == "x"
        assert back.artifacts.get("d", tmp_path / "copy") == tmp_path / "copy"
        assert list(back.artifacts.verify()) == []
    assert sorted(disk.rglob("*")) == before


def test_processes_keep_files_with_one_run_at_once(tmp_path: Path) -> None:
    """Guards distributed training: eight ranks that keep their shards, and all the same file, lose none."""
    with reading(tmp_path / "store") as client:
        with client.start_run() as active:
            code = """
                together()
                with mlcore.Client("store").start_run(run_id=sys.argv[4]) as joined:
                    for number in range(20):
                        joined.log_text(f"{rank} {number}", f"shards/{rank}-{number}.txt")
                        joined.log_text("the same", "shared.txt")
            """
            crowd(tmp_path, code, 8, active.id)
        back = client.get_run(active.id)
        assert len(back.artifacts.list("shards")) == 160
        assert list(back.artifacts.verify()) == []
        assert back.artifacts.get("shards/7-19.txt").read_text() == "7 19"

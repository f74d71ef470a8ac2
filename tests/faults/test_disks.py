"""Disks that are full, read-only or gone: training goes on, what was dropped is told of, and reading works."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from faults.processes import answers, fsck, mlcore, reading, run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert os.environ.get("MLCORE_TEST_ALL") != "1", "CI runs as root, and must be able to mount"
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


LIMITED = """
    import resource, sys, mlcore
    with mlcore.start_run() as active:
        active.log_metric("m", -1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
        for step in range(1000):
            active.log_metric("m", step)
            active.log_metrics({"a": step, "b": step}, step)
            active.log_points("c", [step], [step])
            active.log_param(f"p{step}", step)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        active.log_metric("last", 1)
    print(active.id)
"""


@pytest.mark.parametrize("limit", [20_000, 20_001, 20_017, 20_044, 20_099])
def test_a_limit_on_a_file_drops_what_is_beyond_and_counts_it(limit: int, tmp_path: Path) -> None:
    """Guards short writes: at any offset the record that did not fit goes whole, and later ones can be read."""
    store = tmp_path / "store"
    out, err = run(tmp_path, LIMITED, limit, MLCORE_STORE=str(store), MLCORE_CAPTURE="off")
    (dropped,) = re.findall(rf"run {out.strip()}: (\d+) calls could not be written: .*File too large", err)
    assert err.count("training goes on") == 1
    assert fsck(tmp_path, store)["findings"] == []
    with reading(store) as client:
        back = client.get_run(out.strip())
        assert back.status == "FINISHED"
        assert back.metrics["last"] == 1
        kept = sum(len(back.series(key)) for key in ("m", "a", "c")) + len(back.params)
        assert kept + int(dropped) == 4_001
        assert kept > 150
        for key in ("m", "a", "b", "c"):
            values = list(back.series(key).values)
            assert values == sorted(values)


FULL = """
    import os, sys, mlcore
    disk = sys.argv[1]
    def fill():
        with open(f"{disk}/filler", "ab", buffering=0) as file:
            while True:
                try:
                    file.write(b"x" * 512)
                except OSError:
                    return
    if len(sys.argv) > 2:
        mlcore.Client(f"{disk}/store").create_experiment("there")
        fill()
    with mlcore.start_run() as active:
        active.log_metric("m", 0)
        fill()
        for step in range(1, 3000):
            active.log_metric("m", step, step)
            active.log_metrics({"a": step, "b": step}, step)
            active.log_points("c", [step] * 50, [step] * 50)
        os.unlink(f"{disk}/filler")
        active.log_metric("after", 1)
        active.log_params({"p": 1})
    print(active.id)
"""


def test_a_full_disk_does_not_end_the_training(disk: Path, tmp_path: Path) -> None:
    """Guards ENOSPC: what does not fit is dropped, counted and told of; with space again logging goes on."""
    store = disk / "store"
    out, err = run(tmp_path, FULL, disk, MLCORE_STORE=str(store))
    id = out.strip()
    assert err.count("training goes on") == 1
    assert re.search(rf"run {id}: \d+ calls could not be written: .*No space left on device", err)
    with reading(store) as client:
        back = client.get_run(id)
        assert back.status == "FINISHED"
        assert back.metrics["after"] == 1
        assert back.params == {"p": 1}
        assert list(back.series("m").values) == list(range(len(back.series("m"))))
    assert fsck(tmp_path, store)["findings"] == []


def test_a_disk_that_is_full_at_the_start_does_not_keep_a_training_from_starting(disk: Path, tmp_path: Path) -> None:
    """Guards queued jobs: the run begins with nothing to write to, and logs as soon as there is space."""
    store = disk / "store"
    out, err = run(tmp_path, FULL, disk, "full", MLCORE_STORE=str(store))
    assert re.search(rf"run {out.strip()}: \d+ calls could not be written", err)
    with reading(store) as client:
        back = client.get_run(out.strip())
        assert back.metrics == {"after": 1.0}
        assert back.params == {"p": 1}
        assert back.status == "FINISHED"
        assert [each.id for each in client.list_runs()] == [back.id], "it is found in its experiment"
    assert fsck(tmp_path, store)["findings"] == []


def test_a_command_on_a_full_disk_fails_in_one_line(disk: Path, tmp_path: Path) -> None:
    """Guards shell scripts: what a command could not write is an error, not a warning that a training gets."""
    store = disk / "store"
    run(tmp_path, "import mlcore\nmlcore.create_experiment('there')", MLCORE_STORE=str(store))

    def call(*arguments: str) -> str:
        done = mlcore(tmp_path, *arguments, MLCORE_STORE=str(store))
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert re.fullmatch(r"mlcore: .*No space left on device\n", done.stderr), (arguments, done.stderr)
        return done.stderr

    id = mlcore(tmp_path, "runs", "start", "--process", "1", MLCORE_STORE=str(store)).stdout.strip()
    before = answers(store)
    with open(disk / "filler", "wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass
    assert f"run {id}: 1 calls could not be written" in call("runs", "log", id, "loss=1")
    call("runs", "log", id, "loss=1", "--param", "lr=0.1")
    call("runs", "log", id, "loss=1", "--json")
    call("runs", "tag", id, "a=b")
    call("runs", "tag", id, "--remove", "a")
    call("runs", "note", id, "text")
    call("runs", "delete", id)
    call("runs", "end", id)
    call("runs", "start")
    call("experiments", "create", "other")
    call("experiments", "delete", "there")
    assert answers(store) == before
    (disk / "filler").unlink()
    assert mlcore(tmp_path, "runs", "log", id, "loss=1", MLCORE_STORE=str(store)).returncode == 0
    assert mlcore(tmp_path, "runs", "end", id, MLCORE_STORE=str(store)).returncode == 0
    with reading(store) as client:
        assert (client.get_run(id).metrics, client.get_run(id).status) == ({"loss": 1.0}, "FINISHED")
    assert fsck(tmp_path, store)["findings"] == []


@pytest.fixture
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Return a folder, and what makes it read-only: for root, who may write anywhere, the disk that it is on."""
    if os.geteuid() == 0:
        folder = request.getfixturevalue("disk")
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True) and None
    else:
        folder = tmp_path / "archive"
        folder.mkdir()
        yield folder, lambda: modes(folder, 0o500)
        modes(folder, 0o700)


def modes(folder: Path, mode: int) -> None:
    """Set the permissions of a folder and all in it."""
    for each in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        each.chmod(mode)


def test_a_read_only_store_is_one_clear_error_and_can_be_read(
    archive: tuple[Path, Callable[[], None]], tmp_path: Path
) -> None:
    """Guards archives: starting says that the store cannot be written to, and reading needs to write nothing."""
    folder, lock = archive
    store, why = folder / "store", "(Read-only file system|Permission denied)"
    run(tmp_path, "import mlcore\nwith mlcore.start_run(): mlcore.log_metric('m', 1)", MLCORE_STORE=str(store))
    expected = answers(store)
    lock()
    for call in ("start_run()", "log_metric('m', 1)", "start_run(key='k')", "create_experiment('x')"):
        _, err = run(tmp_path, f"import mlcore\nmlcore.{call}", MLCORE_STORE=str(store), status=1)
        assert re.search(rf"mlcore.errors.StoreError: cannot write to store .*: {why}", err), err
    assert answers(store) == expected
    assert fsck(tmp_path, store)["findings"] == []
    done = mlcore(tmp_path, "init", folder / "new")
    assert done.returncode == 1
    assert re.fullmatch(rf"mlcore: cannot make a store at .*: {why}\n", done.stderr)
    _, err = run(tmp_path, "import mlcore\nmlcore.start_run()", MLCORE_STORE=str(folder / "new"), status=1)
    assert re.search(rf"StoreError: cannot make a store at .*: {why}", err)


def test_a_store_that_goes_away_does_not_end_the_training(tmp_path: Path) -> None:
    """Guards against `rm -rf` of a store that is written to: logging goes on, and ends without an error."""
    code = """
        import shutil, mlcore
        with mlcore.start_run() as active:
            active.log_metric("m", 1)
            shutil.rmtree("store")
            active.log_metric("m", 2)
            active.log_param("p", 1)
    """
    run(tmp_path, code, MLCORE_STORE=str(tmp_path / "store"))

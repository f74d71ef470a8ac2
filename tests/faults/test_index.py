"""An index that is damaged, copied, locked, full or nowhere: the answers stay, and only the log tells of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mlcore
from faults.processes import finish, mlcore as command, run, start
from mlcore.errors import NotInstalled
from mlcore.folder import Folder
from mlcore.journal import Writer
from mlcore.store import Created, Entity, Query, Updated
from mlcore_local import FolderStore, index as places, marks, reader
from mlcore_local.store import open_store

FILE = "index/sqlite-2.db"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MLCORE_INDEX", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a store with ended runs, one that goes on elsewhere, and an index."""
    store = tmp_path / "store"
    client = mlcore.Client(store)
    for number in range(40):
        with client.start_run(name=f"run {number}") as ended:
            ended.log_params({f"param {number}": "x" * 200, "number": number})
            ended.log_metrics({f"metric {key}": key for key in range(20)})
    handle = open_store(str(store))
    handle.find("run", Query())
    handle.close()
    assert (store / FILE).exists()
    return store


def plain(root: Path) -> list[Entity]:
    """Return the runs of a store as they are without an index."""
    return list(FolderStore(root).find("run", Query()).items)


def same(root: Path) -> bool:
    """Tell whether a new handle with an index answers as one without."""
    return list(open_store(str(root)).find("run", Query()).items) == plain(root)


def executed(path: Path, statement: str) -> None:
    """Run a statement in an index's file."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def overwritten(path: Path, start: int, stop: int) -> None:
    """Write what means nothing over bytes of a file."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(os.urandom(stop - start))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(os.urandom(8192)),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
    "empty": lambda path: os.truncate(path, 0),
    "all pages but the first": lambda path: overwritten(path, 4096, path.stat().st_size),
    "the first page": lambda path: overwritten(path, 100, 4096),
    "another version": lambda path: executed(path, "PRAGMA user_version = 77"),
    "a table that is gone": lambda path: executed(path, "DROP TABLE documents"),
    "notes that are no JSON": lambda path: executed(path, "UPDATE notes SET value = '{' WHERE name LIKE '~quick/%'"),
}


@pytest.mark.parametrize("open_already", [False, True])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_is_made_anew(
    damage: Callable[[Path], object], open_already: bool, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a file that anybody may write to: whatever it holds, answers are right, and it is used again."""
    handle = open_store(str(root))
    if open_already:
        handle.find("run", Query(limit=1))
        handle.get("run", ["none"])
    else:
        handle.close()
    damage(root / FILE)
    with mlcore.Client(root).start_run(name="later"):
        pass
    for _ in range(2):
        assert list(handle.find("run", Query()).items) == plain(root)
        assert same(root)
    assert not [each for each in caplog.records if "cannot be used" in each.getMessage()]
    connection = sqlite3.connect(root / FILE)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM documents").fetchone()[0] >= 41
    connection.close()


@pytest.mark.parametrize("what", ["folder", "file", "dropped"])
def test_an_index_can_be_deleted_under_whoever_reads(what: str, root: Path) -> None:
    """Guards a person who makes room: open handles go on, and use the new index."""
    handle = open_store(str(root))
    assert len(handle.find("run", Query()).items) == 40
    if what == "folder":
        shutil.rmtree(root / "index")
    elif what == "file":
        for path in (root / "index").iterdir():
            path.unlink()
    else:
        open_store(str(root)).reindex()
    assert list(handle.find("run", Query()).items) == plain(root)
    assert (root / FILE).exists() and same(root)


@pytest.mark.parametrize("program", [["cp", "-a"], ["cp", "-r"], ["rsync", "-a"]])
def test_an_index_that_was_copied_with_its_store_is_made_anew(program: list[str], root: Path, tmp_path: Path) -> None:
    """Guards copies: what an index knows of one folder says nothing of another."""
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not here")
    target = tmp_path / "copy"
    subprocess.run([*program, f"{root}/" if program[0] == "rsync" else str(root), str(target)], check=True)
    victim = plain(target)[5].id
    shutil.rmtree(Folder.open(target).run_folder(victim))
    assert victim not in [each.id for each in open_store(str(target)).find("run", Query()).items]
    assert same(target) and same(root)


@pytest.mark.parametrize("program", ["cp -a", "rsync -a", "unzip", "mv"])
def test_a_run_that_arrives_is_there_at_once(program: str, root: Path, tmp_path: Path) -> None:
    """Guards a laptop that fetches runs from a cluster: with old times, as whole folders."""
    other = mlcore.Client(tmp_path / "other")
    handle = open_store(str(root))
    for number in range(3):
        assert len(handle.find("run", Query()).items) == 40 + number
        with other.start_run(name=f"from afar {number}") as far:
            far.log_metric("loss", number)
        source, target = (Folder.open(each).run_folder(far.id) for each in (tmp_path / "other", root))
        for path in source.rglob("*"):
            os.utime(path, (1_000_000_000, 1_000_000_000))
        target.parent.mkdir(exist_ok=True)
        if program == "unzip":
            archive = shutil.make_archive(str(tmp_path / "runs"), "zip", source.parent, source.name)
            shutil.unpack_archive(archive, target.parent)
        elif program == "mv":
            source.rename(target)
        else:
            if shutil.which(program.split(maxsplit=1)[0]) is None:
                pytest.skip(f"{program} is not here")
            subprocess.run([*program.split(), str(source), str(target.parent)], check=True)
        found = handle.get("run", [far.id])[0]
        assert found is not None and found.metrics["loss", ""].value == number
        assert list(handle.find("run", Query()).items) == plain(root)


def test_a_run_that_is_gone_is_gone(root: Path) -> None:
    """Guards a person who deletes a run's folder: it is not shown any more, and what it said is forgotten."""
    handle = open_store(str(root))
    victim = handle.find("run", Query()).items[3].id
    shutil.rmtree(Folder.open(root).run_folder(victim))
    assert handle.get("run", [victim]) == [None]
    assert list(handle.find("run", Query()).items) == plain(root)


def test_only_new_bytes_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the cost of a new point beside many runs: nothing is read but what was written since, by any process."""
    folder, id = Folder.open(root), "a" * 32
    folder.note(id)
    live = Writer(folder.run_folder(id), id)
    live.events([Created("experiment", "0"), Created("run", id, "0", {"status": "RUNNING", "name": "live"})])
    for step in range(1000):
        live.point("loss", step / 1000)
    open_store(str(root)).find("run", Query())
    read = list[tuple[str, int]]()
    genuine = reader.Journal.feed

    def feed(self: reader.Journal, data: bytes, **options: object) -> object:
        read.append((self.source, len(data)))
        return genuine(self, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reader.Journal, "feed", feed)
    for handle in (open_store(str(root)), open_store(str(root))):
        for _ in range(3):
            live.point("loss", 2.0)
            entity = next(each for each in handle.find("run", Query()).items if each.id == id)
            assert entity.metrics["loss", ""].max == 2.0
            assert read == [(live.source, 44)]
            read.clear()
            handle.find("run", Query())
            assert read == []
    live.events([Updated("run", id, {"status": "FINISHED"})])
    assert same(root)
    live.close()


def looked_at(root: Path) -> set[str]:
    """Return the homes that a store's index still looks at with every question, but for the store's own."""
    connection = sqlite3.connect(root / FILE)
    names = {
        name.partition(":")[2] for (name,) in connection.execute("SELECT name FROM notes WHERE name LIKE '%home:%'")
    }
    connection.close()
    return names - {""}


def test_a_run_that_its_only_writer_ended_is_soon_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the cost of a question after a sweep: of thousands of runs that ended just now, none is looked at."""
    monkeypatch.setattr(marks, "_SEALED_SECONDS", -1)  # as if these passed
    client, handle = mlcore.Client(root), open_store(str(root))
    with client.start_run() as seen_running:
        seen_running.log_metric("loss", 1.0)
        assert same(root)
        assert seen_running.id in looked_at(root)
    with client.start_run() as seen_ended:
        pass
    handle.find("run", Query())
    assert looked_at(root).isdisjoint({seen_running.id, seen_ended.id})
    with client.start_run(run_id=seen_ended.id) as again:  # whoever opens it says so
        again.log_metric("loss", 2.0)
        assert same(root)
        assert again.id in looked_at(root)
    assert same(root)


def test_a_run_is_watched_while_another_writer_may_go_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards ranks that joined a run, one that is only about to, and one whose run was ended from elsewhere."""
    monkeypatch.setattr(marks, "_SEALED_SECONDS", -1)
    client, folder = mlcore.Client(root), Folder.open(root)
    with client.start_run() as joined:
        rank = Writer(folder.run_folder(joined.id), joined.id)
        rank.point("loss", 1.0)
    with client.start_run() as expected:
        pass
    folder.note(expected.id)
    assert same(root)
    assert {joined.id, expected.id} <= looked_at(root)
    rank.point("loss", 2.0)
    late = Writer(folder.run_folder(expected.id), expected.id)  # which had noted it
    late.point("loss", 3.0)
    assert same(root)
    going = client.start_run()
    mlcore.Client(root).get_run(going.id).end()
    assert same(root)
    assert going.id in looked_at(root)
    going.log_metric("loss", 4.0)
    assert same(root)
    going.end()
    for each in (rank, late):
        each.close()


# Places


def test_a_store_elsewhere_is_indexed_in_the_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards network file systems, on which a database is not safe: nothing is written there."""
    shutil.rmtree(root / "index")
    monkeypatch.setattr(places, "_remote", lambda _: True)
    assert same(root)
    assert not (root / "index").exists()
    assert len(list((tmp_path / "cache/mlcore/index").glob("*/sqlite-2.db"))) == 1


def test_a_store_that_cannot_be_written_is_indexed_in_the_cache(tmp_path: Path, root: Path) -> None:
    """Guards the runs of a colleague: they are read, by an index of one's own."""
    shutil.rmtree(root / "index")
    code = f"import mlcore\nprint(len(mlcore.Client({str(root)!r}).list_runs('*')))"
    mounted = (
        subprocess.run(["mount", "--bind", str(root), str(root)], capture_output=True, check=False).returncode == 0
    )
    if not mounted:
        assert os.environ.get("MLCORE_TEST_ALL") != "1", "CI runs as root, and must be able to mount"
        pytest.skip("a read-only mount needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(root)], check=True)
        out, err = run(tmp_path, code)
        assert (out, err) == ("40\n", "")
        assert list((tmp_path / "cache/mlcore/index").glob("*/sqlite-2.db"))
        nowhere = {"XDG_CACHE_HOME": str(root / "store.json")}
        out, err = run(tmp_path, code, **nowhere)
        assert out == "40\n"
        assert err.count("\n") == 1 and "there is nowhere to keep an index" in err
    finally:
        subprocess.run(["umount", str(root)], check=True)


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:50 / /mnt rw - nfs4 server:/mnt rw
31 30 8:1 / /mnt/local\\040disk rw shared:3 - xfs /dev/sdb rw
32 27 0:51 / /home/me/cloud rw - fuse.sshfs me@server: rw
33 27 0:52 / /ntfs rw - fuseblk /dev/sdc rw
34 27 0:53 / /win rw - 9p drvfs rw
35 27 0:54 / /over rw - nfs server:/over rw
36 35 8:2 / /over rw - ext4 /dev/sdd rw
"""


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("/tmp/x", False),
        ("/mnt/runs", True),
        ("/mnt/local disk/runs", False),
        ("/mntx", False),
        ("/home/me/cloud", True),
        ("/ntfs/a", False),
        ("/win/c", True),
        ("/over/runs", False),
    ],
)
def test_network_file_systems_are_known(path: str, remote: bool, tmp_path: Path) -> None:
    """Guards the choice of the place: by the mount that is nearest, and of two at one place the later."""
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert places._remote(Path(path), str(tmp_path / "mountinfo")) is remote
    assert places._remote(Path(path), str(tmp_path / "none")) is False


def test_an_index_can_be_switched_off(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards MLCORE_INDEX: off is without, a name that nobody provides is an error."""
    shutil.rmtree(root / "index")
    monkeypatch.setenv("MLCORE_INDEX", "off")
    assert len(mlcore.Client(root).list_runs("*")) == 40
    assert not (root / "index").exists() and not (tmp_path / "cache").exists()
    monkeypatch.setenv("MLCORE_INDEX", "nope")
    with pytest.raises(NotInstalled, match="nothing installed provides 'nope' under indexes"):
        mlcore.Client(root).list_runs("*")


@pytest.mark.parametrize("size", [20_000, 150_000])
def test_a_full_disk_is_no_error(size: int, root: Path, tmp_path: Path) -> None:
    """Guards an index that cannot grow: the answer is right, and one line of the log tells."""
    shutil.rmtree(root / "index")
    code = f"""
    import resource, mlcore
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
    client = mlcore.Client({str(root)!r})
    for _ in range(3):
        print(len(client.list_runs("*")), client.list_runs("*")[0].metrics["metric 3"])
    """
    out, err = run(tmp_path, code)
    assert out == "40 3.0\n" * 3
    assert err.count("\n") == 1 and "reading goes on without" in err
    assert same(root)


# Several at once


def test_a_reader_need_not_wait_for_who_fills(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a reader beside one that takes long: after some time it answers without."""
    monkeypatch.setattr("mlcore_sql.index._WAIT_SECONDS", 0.3)
    handle = open_store(str(root))
    blocker = sqlite3.connect(root / FILE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert len(handle.find("run", Query()).items) == 40
    with mlcore.Client(root).start_run():
        pass
    began = time.monotonic()
    assert len(handle.find("run", Query()).items) == 41
    assert time.monotonic() - began < 20
    blocker.execute("ROLLBACK")
    blocker.close()
    assert list(handle.find("run", Query()).items) == plain(root)


def test_readers_and_a_writer_share_an_index(root: Path, tmp_path: Path) -> None:
    """Guards many processes that begin on one store while it is written: they all see all, and no error."""
    shutil.rmtree(root / "index")
    code = f"""
    import sys, time, mlcore
    client, seen = mlcore.Client({str(root)!r}), 0
    while seen < 50:
        runs = client.list_runs("*")
        assert len(runs) >= seen, (len(runs), seen)
        seen = len(runs)
        for run in runs[:3]:
            steps = list(run.series("loss").steps) if "loss" in run.metrics else []
            assert steps == list(range(len(steps))) and len(steps) >= run.metrics.get("loss", -1) + 1
    print(seen)
    """
    readers = [start(tmp_path / str(number), code) for number in range(4)]
    client = mlcore.Client(root)
    for number in range(10):
        with client.start_run(name=f"beside {number}") as live:
            for step in range(30):
                live.log_metric("loss", step, step=step)
                time.sleep(0.002)
    for reader_process in readers:
        out, err = finish(reader_process)
        assert (out, err) == ("50\n", "")
    assert same(root)


def test_threads_and_forks_share_a_handle(root: Path) -> None:
    """Guards a server's threads, and the workers that a program forks after it has asked."""
    handle, failed = open_store(str(root)), list[BaseException]()

    def ask() -> None:
        try:
            for _ in range(5):
                assert len(handle.find("run", Query()).items) >= 40
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    with mlcore.Client(root).start_run():
        pass
    for thread in threads:
        thread.join()
    assert failed == []
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with mlcore.Client(root).start_run():
                pass
            code = 0 if len(handle.find("run", Query()).items) == 42 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(handle.find("run", Query()).items) == plain(root)


KILLED = """
import os, sys, threading, time, mlcore
threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), 9)).start()
client = mlcore.Client(sys.argv[1])
while True:
    client.store.reindex()
    client.list_runs("*")
"""


def test_processes_that_are_killed_while_they_fill_it_leave_it_whole(root: Path, tmp_path: Path) -> None:
    """Guards transactions: what a dead process began is not there, and who comes next finishes it."""
    for number in range(8):
        run(tmp_path, KILLED, root, 0.4 + number / 10, status=-9)
        assert same(root)


# The commands


def test_a_second_command_does_not_load_sqlalchemy(root: Path, tmp_path: Path) -> None:
    """Guards the time that listing takes: what is asked of an index that is up to date needs no more than sqlite3."""
    code = """
    import sys
    sys.argv = ["mlcore", "runs", "list", "--store", sys.argv[1]]
    from mlcore.cli import main
    try:
        main()
    except SystemExit:
        pass
    slow = {"sqlalchemy", "numpy", "pandas", "mlcore_local.reader", "mlcore_sql.projection", "mlcore_sql.schema"}
    print("loaded", sorted(slow & set(sys.modules)))
    """
    first, _ = run(tmp_path, code, root)
    second, _ = run(tmp_path, code, root)
    assert second == first
    assert second.endswith("loaded []\n") and second.count("run 1") == 11


def test_commands_tell_where_the_index_is(root: Path, tmp_path: Path) -> None:
    """Guards `mlcore where` and `mlcore doctor`: which index is used, or why there is none."""
    told = command(tmp_path, "where", "--store", root).stdout
    assert told.endswith(f"  index: {root / 'index'}, in the store\n")
    assert f'"index": "{root / "index"}"' in command(tmp_path, "where", "--store", root, "--json").stdout
    assert f"{root / 'index'}, in the store" in command(tmp_path, "doctor", "--store", root).stdout
    off = command(tmp_path, "where", "--store", root, MLCORE_INDEX="off").stdout
    assert off.endswith("  index: MLCORE_INDEX is off\n")
    none = command(tmp_path, "where", "--store", root, MLCORE_DISABLE_PLUGINS="sql").stdout
    assert none.endswith("  index: none is installed: pip install mlcore-sql makes reading fast\n")


def test_reindex_drops_the_index(root: Path, tmp_path: Path) -> None:
    """Guards `mlcore reindex`: an index that is wrong in a way nobody sees is made anew, too."""
    connection = sqlite3.connect(root / FILE)
    connection.execute("UPDATE metrics SET count = 7")
    connection.commit()
    connection.close()
    assert not same(root)
    assert command(tmp_path, "reindex", "--store", root).stdout == "sealed 40 of 40 runs\n"
    assert same(root)

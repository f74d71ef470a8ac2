"""The folder store as its users see it: handles, processes, and the commands that look after it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

import mlcore
from faults.processes import answers, fsck, mlcore as command, reading, run
from mlcore.errors import MlcoreError, NewerFormat, NotInstalled, StoreError, StoreNotFound
from mlcore.folder import Folder
from mlcore.journal import Writer
from mlcore.journal.format import EVENTS, FRAME, MARK, SUFFIX
from mlcore.store import Created, Query, Updated
from mlcore_local import FolderStore
from mlcore_local.seal import NAME

TORN = FRAME.pack(MARK, EVENTS, 0, 100, 25, 1) + b"half a record"
TRAINING = """
import mlcore
with mlcore.start_run(name="first", tags={"a": 1}) as run:
    run.log_params({"lr": 0.1})
    for step in range(20):
        run.log_metric("loss", 1 / (step + 1))
print(run.id)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store with one ended run."""
    run(tmp_path, TRAINING, MLCORE_STORE=str(tmp_path / "store"), MLCORE_CAPTURE="off")
    return tmp_path / "store"


def journals(store: Path) -> list[Path]:
    """Return the journals of all runs."""
    return sorted(store.glob(f"runs/*/*/*{SUFFIX}"))


def test_handles_and_processes_see_each_other_s_writes_at_once(tmp_path: Path) -> None:
    """Guards a UI beside a training: what returned in one is there for the next question in another."""
    store = tmp_path / "store"
    one, two = mlcore.Client(store), mlcore.Client(store)
    with one.start_run() as live:
        for step in range(30):
            live.log_metric("m", step)
            assert two.get_run(live.id).metrics == {"m": step}
            live.set_tag("step", step)
            assert [each.tags for each in two.list_runs()] == [{"step": step}]
        live.log_params({"a": 1})
        out, _ = run(tmp_path, f"import mlcore\nprint(mlcore.Client('store').get_run('{live.id}').params)")
        assert out == "{'a': 1}\n"
    assert two.get_run(live.id).status == "FINISHED"
    for number in range(5):
        code = f"import mlcore\nmlcore.Client('store').get_run('{live.id}').set_tag('other', {number})"
        run(tmp_path, code)
        assert two.get_run(live.id).tags["other"] == number
        assert two.list_runs()[0].tags["other"] == number
        run(tmp_path, f"import mlcore\nmlcore.Client('store').create_experiment('e{number}')")
        assert two.get_experiment(f"e{number}").name == f"e{number}"
    for client in (one, two):
        client.close()


def test_threads_share_a_client(tmp_path: Path) -> None:
    """Guards edits and readings of several threads through one client: all are there."""
    client, failed = mlcore.Client(tmp_path / "store"), list[BaseException]()
    experiment = client.create_experiment("x")

    def work(number: int) -> None:
        try:
            for step in range(20):
                experiment.set_tag(f"{number}-{step}", step)
                client.list_experiments()
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(mlcore.Client(tmp_path / "store").get_experiment("x").tags) == 160


def test_a_handle_that_read_as_it_was_written_says_what_a_new_one_says(tmp_path: Path) -> None:
    """Guards reading piece by piece: after each write at random both handles answer alike, bit by bit."""
    root, chance = tmp_path / "store", random.Random(8)
    folder, _ = Folder.create(root)
    live = FolderStore(root)
    writers: dict[str, Writer] = {}
    for number in range(150):
        id = f"{chance.randrange(6):032x}"
        if id not in writers or chance.random() < 0.1:
            folder.note(id)
            writers[id] = Writer(folder.run_folder(id), id)
            writers[id].events([Created("run", id, "0", {"name": id})])
        log = writers[id]
        log.point(chance.choice("ab"), chance.random(), chance.choice([None, chance.randrange(50)]))
        if chance.random() < 0.2:
            log.block("c", range(3), [chance.random()] * 3)
        if chance.random() < 0.2:
            log.events([Updated("run", id, {"status": chance.choice(["RUNNING", "FINISHED"])})])
        if number % 5 == 0:
            fresh = FolderStore(root)
            assert repr(live.find("run", Query())) == repr(fresh.find("run", Query()))
            for each in writers:
                one, two = live.series("run", [each]), fresh.series("run", [each])
                assert {key: bytes(memoryview(columns["value"])) for key, columns in one.items()} == {  # type: ignore[arg-type]
                    key: bytes(memoryview(columns["value"]))  # type: ignore[arg-type]
                    for key, columns in two.items()
                }
    for log in writers.values():
        log.close()


# Stores that cannot be


def test_there_is_no_reading_without_a_store(tmp_path: Path) -> None:
    """Guards a wrong path: reading says that there is no store, and makes none."""
    client = mlcore.Client(tmp_path / "none")
    for ask in (
        client.list_runs,
        client.list_experiments,
        lambda: client.get_run("0" * 32),
        lambda: client.get_run("a"),
    ):
        with pytest.raises(StoreNotFound, match=re.escape(f"there is no store at {tmp_path / 'none'}: log a run, or")):
            ask()
    assert not (tmp_path / "none").exists()
    done = command(tmp_path, "fsck", "--store", tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"mlcore: there is no store at {tmp_path / 'none'}: log a run, or make one with `mlcore init`\n"
    )


def test_a_store_of_a_newer_format_is_left_alone(store: Path) -> None:
    """Guards the future: neither read nor written, and one clear error."""
    about = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps({**about, "format": 2}))
    before = sorted(store.rglob("*"))
    client = mlcore.Client(store)
    for call in (client.list_runs, client.start_run, lambda: client.create_experiment("x")):
        with pytest.raises(NewerFormat, match="has format 2, newer than 1: upgrade mlcore to use it"):
            call()
    assert sorted(store.rglob("*")) == before
    assert mlcore.active_run() is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": "x", "id": "x"}', '{"format": [], "id": 1}', "\ud800"]
)
def test_a_store_that_says_nonsense_about_itself_is_one_clear_error(content: str, store: Path) -> None:
    """Guards a damaged store.json: it is named."""
    (store / "store.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(StoreError, match=r"store\.json cannot be read"):
        mlcore.Client(store).list_runs()


def test_a_folder_with_other_things_becomes_no_store(tmp_path: Path) -> None:
    """Guards home folders and data folders: nothing is made among other files, or at a file."""
    (tmp_path / "data.csv").touch()
    with pytest.raises(StoreError, match="is no mlcore store and not empty: choose another folder"):
        mlcore.Client(tmp_path).start_run()
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]
    with pytest.raises(StoreError, match=r"data\.csv"):
        mlcore.Client(tmp_path / "data.csv").start_run()
    with pytest.raises(StoreError):
        mlcore.Client(tmp_path / "data.csv").list_runs()


@pytest.mark.parametrize(("uri", "error"), [("nope://x", "nope"), ("mlflow://x", "pip install mlcore-mlflow")])
def test_an_unknown_scheme_names_what_would_bring_it(uri: str, error: str) -> None:
    """Guards URIs: told at once, with the line that installs what is missing."""
    with pytest.raises(NotInstalled, match=error):
        mlcore.Client(uri)


# The commands


def test_init_makes_a_store_once(tmp_path: Path) -> None:
    """Guards `mlcore init`: a second one changes nothing, a folder of other things is refused."""
    done = command(tmp_path, "init", "--json")
    made = json.loads(done.stdout)
    assert made == {"store": str(tmp_path / ".mlcore"), "id": made["id"], "made": True}
    assert (tmp_path / ".mlcore/.gitignore").read_text() == "*\n"
    assert json.loads(command(tmp_path, "init", "--json").stdout) == {**made, "made": False}
    assert command(tmp_path, "init").stdout == f"there is already a store at {tmp_path / '.mlcore'}\n"
    assert command(tmp_path, "init", "new/deep").stdout == f"made a store at {tmp_path / 'new/deep'}\n"
    done = command(tmp_path, "init", ".")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mlcore: ")
    assert done.stderr.count("\n") == 1


def test_where_says_which_store_and_why(tmp_path: Path, store: Path) -> None:
    """Guards `mlcore where`: argument over environment over discovery, and whether it is there."""
    found = json.loads(command(tmp_path, "where", "--json").stdout)
    none = {"index": None, "spool": None}
    assert found == {"store": str(tmp_path / ".mlcore"), "reason": found["reason"], "exists": False, **none}
    found = json.loads(command(tmp_path, "where", "--json", MLCORE_STORE=str(store)).stdout)
    told = {"store": str(store), "reason": "environment variable MLCORE_STORE", "exists": True}
    assert found == {**told, "index": str(store / "index"), "spool": None}
    found = json.loads(command(tmp_path, "where", "--json", "--store", "off", MLCORE_STORE=str(store)).stdout)
    assert found == {"store": "off", "reason": "given as an argument", "exists": None, **none}
    assert "not there yet" in command(tmp_path, "where").stdout


def test_fsck_finds_what_is_wrong_and_repairs_what_can_be(tmp_path: Path, store: Path) -> None:
    """Guards `mlcore fsck`: torn ends, leftovers, bad seals and damage, and what --repair does about each."""
    expected = answers(store)
    (path,) = journals(store)
    seal = path.parent / NAME
    assert fsck(tmp_path, store) == {"journals": 1, "records": 24, "findings": []}
    with path.open("ab") as file:
        file.write(TORN)
    whole = seal.read_bytes()
    seal.write_bytes(whole[:-1])
    leftover = path.parent / f"{NAME}.1.tmp"
    leftover.touch()
    os.utime(leftover, (1, 1))
    (path.parent / "fresh.tmp").touch()
    os.utime(path, (time.time() - 600,) * 2)
    found = fsck(tmp_path, store)["findings"]
    assert {each["severity"] for each in found} <= {"torn", "leftover", "damaged"}
    assert {Path(each["path"]).name for each in found} == {path.name, NAME, leftover.name}
    fsck(tmp_path, store, "--repair")
    assert fsck(tmp_path, store)["findings"] == []
    assert not seal.exists()
    assert not leftover.exists()
    assert answers(store) == expected
    damaged = bytearray(path.read_bytes())
    damaged[700] ^= 1
    path.write_bytes(damaged)
    done = command(tmp_path, "fsck", "--store", store)
    assert done.returncode == 1
    assert re.search(rf"damaged: {path}: offset \d+: damaged \(\d+ bytes\)\n", done.stdout)
    before = path.read_bytes()
    assert command(tmp_path, "fsck", "--repair", "--store", store).returncode == 1
    assert path.read_bytes() == before, "what is damaged stays, as somebody may know better"


def test_fsck_leaves_a_journal_alone_that_somebody_may_be_writing(tmp_path: Path, store: Path) -> None:
    """Guards --repair on a network disk: a torn end that another host wrote just now is not cut off."""
    folder = Folder.open(store)
    log = Writer(folder.run_folder("a" * 32), "a" * 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlcore.journal._writer.this_process", lambda: {"host": "elsewhere", "pid": 1})
        log.point("m", 1)
    log.close()  # or its keeper may touch the file
    (path,) = folder.run_folder("a" * 32).glob("*" + SUFFIX)
    with path.open("ab") as file:
        file.write(TORN)
    size = path.stat().st_size
    assert [each["severity"] for each in fsck(tmp_path, store, "--repair")["findings"]] == ["torn"]
    assert path.stat().st_size == size
    os.utime(path, (time.time() - 600,) * 2)
    assert [each["severity"] for each in fsck(tmp_path, store, "--repair")["findings"]] == ["repaired"]
    assert path.stat().st_size == size - len(TORN)


def test_reindex_makes_all_seals_anew(tmp_path: Path, store: Path) -> None:
    """Guards `mlcore reindex`: wrong and missing seals are replaced, RUNNING runs are left, answers stay."""
    run(tmp_path, TRAINING, MLCORE_STORE=str(store), MLCORE_CAPTURE="off")
    run(tmp_path, "import os, mlcore\nmlcore.start_run()\nos._exit(0)", MLCORE_STORE=str(store))
    expected = answers(store)
    one, two = (path for path in store.glob(f"runs/*/*/{NAME}"))
    one.unlink()
    two.write_bytes(b"nonsense")
    done = command(tmp_path, "reindex", "--store", store)
    assert (done.returncode, done.stdout) == (0, "sealed 2 of 3 runs\n")
    assert one.exists()
    assert answers(store) == expected
    assert fsck(tmp_path, store)["findings"] == []


def test_journal_cat_prints_json_lines(tmp_path: Path, store: Path) -> None:
    """Guards `mlcore journal cat`: a record a line, damage on stderr with exit code 1, other files still printed."""
    (path,) = journals(store)
    done = command(tmp_path, "journal", "cat", path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["number"] for line in lines] == list(range(1, 25))
    assert [event["type"] for event in lines[0]["events"]] == ["Created", "Created"]
    damaged, other = bytearray(path.read_bytes()), tmp_path / "other.journal"
    damaged[800] ^= 1
    other.write_bytes(damaged[:-10])
    (tmp_path / "no.journal").write_text("x" * 1000)
    done = command(tmp_path, "journal", "cat", other, tmp_path / "no.journal", path)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 22 + 24
    assert len(done.stderr.splitlines()) == 3
    assert re.search(rf"{other}: offset \d+: damaged", done.stderr)
    assert "Traceback" not in done.stderr
    assert command(tmp_path, "journal", "cat", tmp_path / "missing").returncode == 2
    assert command(tmp_path, "journal", "cat").returncode == 2


@pytest.mark.parametrize("name", ["fsck", "reindex"])
@pytest.mark.parametrize("uri", ["off", "nope://x", "missing"])
def test_commands_on_no_folder_store_say_so_in_a_line(name: str, uri: str, tmp_path: Path) -> None:
    """Guards wrong places: exit code 1 and one line, never a traceback."""
    done = command(tmp_path, name, "--store", uri)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"mlcore: .*\n", done.stderr)


def test_a_run_whose_folder_was_removed_is_gone(tmp_path: Path, store: Path) -> None:
    """Guards `rm -r` of a run's folder: others are read as before."""
    out, _ = run(tmp_path, TRAINING, MLCORE_STORE=str(store), MLCORE_CAPTURE="off")
    shutil.rmtree(Folder.open(store).run_folder(out.strip()))
    with reading(store) as client:
        assert [each.id for each in client.list_runs()] != [out.strip()]
        with pytest.raises(MlcoreError):
            client.get_run(out.strip())
        assert len(client.list_runs()) == 1
        assert list(client.store.events())
    assert fsck(tmp_path, store)["findings"] == []

"""Whoever alters what was changed in a registry is noticed, however well the files are mended; who merges is not."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

import mlcore
from faults.processes import crowd, mlcore as program
from mlcore.folder import Folder
from mlcore.journal import format as f
from mlcore.registry import Change, digest_of
from mlcore.store import AttributesSet, Batch, Event, Record, Updated, digest, to_json
from mlcore.testing import Writer
from mlcore_local import FolderStore, Journal, read
from mlcore_local.check import check
from mlcore_local.packer import Packer
from mlcore_local.registry.checking import verify
from mlcore_local.sync import sync

Alter = Callable[[Record, Change], Record | None]


def log(client: mlcore.Client) -> None:
    """Change a registry in every way."""
    registry = client.registry
    for number in range(1, 4):
        registry.add("digits", {"source": f"/models/{number}", "digest": f"{number}" * 64}, tags={"n": number})
    model = registry.get("digits")
    for number in (1, 2, 3, 1):
        model.set_alias("champion", number)
    model.describe("the digits")
    first = model.version(1)
    first.set_tag("checked", True)
    first.transition("Production")
    first.comment("good")
    registry.create("other").describe("nothing yet")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder store with a registry whose chain is whole."""
    store = tmp_path_factory.mktemp("history") / "store"
    client = mlcore.Client(store)
    log(client)
    client.close()
    assert check(Folder.open(store)).findings == verify(FolderStore(store)) == []
    return store


@pytest.fixture
def store(history: Path, tmp_path: Path) -> Path:
    """Return a copy of the store to be altered."""
    return shutil.copytree(history, tmp_path / "store")


def change_of(record: Record) -> Change:
    """Return what a record tells."""
    last = record.events[-1]
    assert isinstance(last, Updated)
    return Change(**last.fields["change"])


def telling(record: Record, change: Change, *events: Event) -> Record:
    """Return the record as if it told another change, of these events or its own; checksums are of what it is now."""
    last = attrs.evolve(record.events[-1], fields={"change": attrs.asdict(change)}, raw=None)
    return attrs.evolve(record, events=(*(events or record.events[:-1]), last))


def alter(store: Path, altered: Alter, folders: str = "*") -> None:
    """Write all journals and claims anew as somebody does who knows the format: numbers and checksums fit."""
    for path in [*store.glob(f"{folders}/*.journal"), *store.glob(f"{folders}/*/*.journal")]:
        journal, made = Journal(), list[Record]()
        records = list(read(path, journal))
        for record in records:
            if (changed := altered(record, change_of(record))) is not None:
                made.append(attrs.evolve(changed, number=len(made) + 1))
        assert journal.header is not None
        packer, seed = Packer(journal.header), journal.header.seed
        data = f.pack_header(journal.header) + f.pack_frame(seed, f.WRITER, 0, 0, 0, to_json(journal.writer))
        path.write_bytes(data + b"".join(map(packer.pack, made)))
        if not made:
            path.unlink()


def only(records: Iterable[Record], action: str, what: Alter, at: int = 1) -> Alter:
    """Return what alters of all changes that did something the first, or a later one."""
    changes = {change.digest: record.stamp for record in records if (change := change_of(record)).action == action}
    chosen = sorted(changes, key=lambda each: changes[each])[at - 1]
    return lambda record, change: what(record, change) if change.digest == chosen else record


def records_of(store: Path) -> list[Record]:
    """Return all records of a store with nothing but a registry."""
    return [record for each in FolderStore(store).events() for record in each.batch.records]


def other_source(record: Record, change: Change) -> Record:
    """Let a version lie elsewhere."""
    first = attrs.evolve(record.events[0], fields={**record.events[0].fields, "source": "/evil"}, raw=None)  # type: ignore[attr-defined,call-arg]
    return telling(record, change, first, *record.events[1:-1])


def forged(record: Record, change: Change) -> Record:
    """Do the same, and make the digest fit."""
    made = other_source(record, change)
    return telling(made, attrs.evolve(change, digest=digest_of(made.events[:-1], change)))


def with_more(record: Record, change: Change) -> Record:
    """Add to what the digest does not cover."""
    last = attrs.evolve(record.events[-1], fields={"change": attrs.asdict(change), "name": "evil"}, raw=None)  # type: ignore[call-arg]
    return attrs.evolve(record, events=(*record.events[:-1], last))


# which change, what is done to it, and what is said
ALTERED: dict[str, tuple[str, int, Alter, str]] = {
    "what it did": ("register", 2, other_source, r"register of version 2 of digits by .+: it was altered"),
    "who": ("set_alias", 1, lambda r, c: telling(r, attrs.evolve(c, by="eve")), "set_alias of .* by eve .*altered"),
    "when": ("describe", 1, lambda r, c: telling(r, attrs.evolve(c, at=c.at - 9)), "describe of digits .*altered"),
    "forged": ("register", 2, forged, "change that it followed is missing, or was altered"),
    "removed": ("set_alias", 2, lambda *_: None, "set_alias of .*: the change that it followed is missing"),
    "more": ("set_tags", 1, with_more, "changed, and no change tells of it: it has other fields"),
    "earlier": (
        "set_alias", 4, lambda r, _: attrs.evolve(r, stamp=1 << 60),
        "set_alias of digits .*its stamp is not after that of the change that it followed, set_alias of",
    ),
    "backdated": (
        "create", 2, lambda r, _: attrs.evolve(r, stamp=r.stamp - 90_000_000_000_000),
        "create of other .*: its stamp is 2[45] hours before its time",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ALTERED)
def test_what_was_altered_is_named(store: Path, how: str) -> None:
    """Guards the history: which change it was, of what, by whom and when, in `mlcore fsck` and for any store."""
    action, at, what, said = ALTERED[how]
    alter(store, only(records_of(store), action, what, at))
    found = [each for each in check(Folder.open(store)).findings if each.severity == "damaged"]
    assert any(re.search(said, each.what) for each in found), found
    assert all(each.path.is_file() for each in found)
    other = [each for each in verify(FolderStore(store)) if each.severity == "damaged"]
    assert [each.what for each in other] == [each.what for each in found]


def test_a_change_that_is_put_in_is_named(store: Path) -> None:
    """Guards against whoever appends: a change without a history, and an old one that is played again."""
    records = records_of(store)
    model = mlcore.Client(store).registry.get("digits")
    target, writer = FolderStore(store), Writer("")
    target.append(writer.batch(AttributesSet("registered_model", model.id, "aliases", {"champion": "x" * 32})))
    (found,) = verify(FolderStore(store))
    assert f"registered_model {model.id} was changed, and no change tells of it" in found.what
    played = next(each for each in records if change_of(each).action == "set_alias")
    again = Record(1, time.time_ns(), played.events)
    target.append(Batch("a" * 32, "", (again,)))
    assert any(re.search("set_alias of digits .*: it is there twice", each.what) for each in verify(target))
    last = Record(1, time.time_ns(), telling(played, attrs.evolve(change_of(played), model_id="m" * 32)).events)
    target.append(Batch("b" * 32, "", (last,)))
    assert any("is of another model" in each.what for each in verify(target))


def test_a_claim_and_its_journal_must_be_the_same(store: Path) -> None:
    """Guards the copy that is there for those who copy folders: nobody alters one of them in silence."""
    alter(store, only(records_of(store), "register", other_source, 2), "store")
    (found,) = check(Folder.open(store)).findings
    assert (found.severity, "is not the same in its other file" in found.what) == ("damaged", True)


def test_what_is_gone_from_the_end_is_noticed_where_it_was_told_elsewhere(store: Path, tmp_path: Path) -> None:
    """Guards the one thing that a chain cannot know by itself; see --told."""
    told = [*map(change_of, records_of(store))]
    lines = "".join(json.dumps(attrs.asdict(each)) + "\n" for each in told)
    (tmp_path / "log.jsonl").write_text(lines)
    asked = ("registry", "check", "--store", store, "--told", tmp_path / "log.jsonl")
    assert program(tmp_path, *asked).stdout == f"{len(told)} changes, 0 findings\n"
    alter(store, only(records_of(store), "comment", lambda *_: None))
    assert verify(FolderStore(store)) == []
    (found,) = verify(FolderStore(store), map(attrs.asdict, told))
    assert (found.action, found.version, found.severity) == ("comment", "1", "damaged")
    done = program(tmp_path, *asked, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["what"].endswith("it was told when it was made, and is not there")
    (tmp_path / "log.jsonl").write_text("{}\n")
    done = program(tmp_path, *asked)
    assert (done.returncode, "line 1 of" in done.stderr) == (1, True)


def test_clocks_that_are_wrong_are_odd_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards laptops: a clock that is ahead is told of, and what others change after it keeps its order."""
    client = mlcore.Client(f"sqlite:///{tmp_path / 'team.db'}")
    model = client.registry.create("digits")
    now, now_ns = time.time, time.time_ns
    with monkeypatch.context() as ahead:
        ahead.setattr("mlcore.tracking._changes.time.time", lambda: now() + 7200)
        ahead.setattr("mlcore.store._clock.time_ns", lambda: now_ns() + 7_200_000_000_000)
        model.describe("from the future")
    model.describe("from now")
    found = verify(client.store)
    assert {each.severity for each in found} == {"odd"}
    assert any(re.search("its time is .* after the store received it", each.what) for each in found)
    assert any(re.search("its stamp is .* after its time", each.what) for each in found)
    client.close()


def altered_rows(place: Path, what: Alter) -> None:
    """Alter a database as somebody does who knows it: the digests of the source fit, and what is shown, too."""
    from mlcore_sql.checking import check as check_database
    from mlcore_sql.engine import Database
    from mlcore_sql.rebuilding import rebuild, silent
    from mlcore_sql.records import decoded, split
    from mlcore_sql.tables import batches, sources

    database = Database(f"sqlite:///{place}")
    with database.writing() as connection:
        states = dict[bytes, str]()
        for row in connection.execute(batches.select().order_by(batches.c.position)).all():
            records = [what(record, change_of(record)) or record for record in decoded(row.events, lambda *_: {})]
            (part,) = split(records)
            previous = states.get(row.source, "")
            values = {"events": part.events, "previous": bytes.fromhex(previous)}
            connection.execute(batches.update().where(batches.c.position == row.position).values(values))
            states[row.source] = digest(records, previous)
            state = {"digest": bytes.fromhex(states[row.source])}
            connection.execute(sources.update().where(sources.c.source == row.source).values(state))
    rebuild(database, silent)
    assert check_database(database, sample=None).findings == []
    database.close()


@pytest.mark.parametrize("how", ["what it did", "who", "forged", "earlier", "more"])
def test_rows_of_a_database_that_were_altered_are_named(history: Path, tmp_path: Path, how: str) -> None:
    """Guards the team store against its administrator: the digests of its sources fit, those of the chain do not."""
    place = tmp_path / "team.db"
    with closing(mlcore.Client(f"sqlite:///{place}")) as client:
        sync(FolderStore(history), client.store)
        assert verify(client.store) == []
    action, at, what, said = ALTERED[how]
    altered_rows(place, only(records_of(history), action, what, at))
    with closing(mlcore.Client(f"sqlite:///{place}")) as client:
        found = [each.what for each in verify(client.store) if each.severity == "damaged"]
    assert any(re.search(said, each) for each in found), found


def test_writers_that_fork_the_chain_are_no_error(tmp_path: Path) -> None:
    """Guards processes that change one model at once, each after the same change."""
    code = """
    from mlcore import Client
    client = Client(sys.argv[4])
    together()
    for number in range(5):
        client.registry.add("digits", {"source": f"/{rank}/{number}"})
        client.registry.get("digits").describe(f"{rank} {number}")
    client.close()
    """
    crowd(tmp_path, code, 4, tmp_path / "store")
    found = FolderStore(tmp_path / "store")
    changes = [*map(change_of, records_of(tmp_path / "store"))]
    assert len(changes) == 41
    assert len({each.previous for each in changes}) < len(changes), "they never met: let them do more"
    assert verify(found) == check(Folder.open(tmp_path / "store")).findings == []


def test_a_store_without_a_registry_has_nothing_to_check(tmp_path: Path) -> None:
    """Guards the empty case, and a store that is not there."""
    assert verify(FolderStore(tmp_path / "none")) == []
    with mlcore.Client(tmp_path / "store").start_run() as run:
        run.log_metric("x", 1)
    assert verify(FolderStore(tmp_path / "store")) == []

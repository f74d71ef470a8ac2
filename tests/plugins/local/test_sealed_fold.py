"""Sealed runs that others write of, too: what is shown is what their journals make of it, in whatever order it came."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import mlcore
from mlcore.folder import STORE_HOME, Folder
from mlcore.journal import Writer
from mlcore.store import (
    AttributesRemoved,
    AttributesSet,
    Batch,
    Compare,
    Created,
    Entity,
    Erased,
    Event,
    Not,
    Or,
    Page,
    Query,
    Record,
    RowsLogged,
    Sort,
    Term,
    Unknown,
    Updated,
    Where,
    clock,
    find,
)
from mlcore_local import FolderStore
from mlcore_local.seal import NAME, open_sealed, seal

LOSS, LR, STATUS = Term("metrics", "loss"), Term("params", "lr"), Term("fields", "status")
ROWS = {"step": [0, 1], "time": [5, 6], "value": [0.5, 0.25]}


def made(root: Path, runs: int = 4) -> list[str]:
    """Make ended runs in two experiments, sealed, and return their ids."""
    client = mlcore.Client(root)
    ids = []
    for number in range(runs):
        with client.start_run(name=f"run {number}", experiment=f"e{number % 2}") as run:
            run.log_params({"lr": number / 10, "model": {"name": "cnn", "$odd": [1]}, "nan": float("nan")})
            run.log_metrics({"loss": 1 / (1 + number), f"own{number}": number}, step=3)
            run.set_tags({"zeta": number, "alpha": "ü\u2028"})
            run.remove_tag("zeta")
        ids.append(run.id)
    client.close()
    assert len(list(root.glob(f"runs/*/*/{NAME}"))) == runs
    return ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the place of a store."""
    return tmp_path / "store"


def unsealed(root: Path) -> FolderStore:
    """Open a copy of a store that has no seals."""
    target = root.with_name(f"{root.name}-{os.urandom(4).hex()}")
    shutil.copytree(root, target)
    for path in target.glob(f"runs/*/*/{NAME}"):
        path.unlink()
    return FolderStore(target)


def exact(entity: Entity | None) -> dict[str, Any] | None:
    """Return an entity so that NaN equals itself and the order of names counts."""
    left = attrs.asdict(entity, recurse=False) if entity else None
    return left and {name: repr(value) for name, value in left.items() if name not in ("seen", "alive")}


def pages(store: FolderStore, *queries: Query) -> list[list[dict[str, Any] | None]]:
    """Return what a store finds."""
    found: list[Page] = [store.find(kind, query) for query in (Query(), *queries) for kind in ("run", "experiment")]
    return [[exact(each) for each in page.items] for page in found]


def written(store: FolderStore, home: str, *events: Event) -> None:
    """Append events from elsewhere."""
    store.append(Batch(os.urandom(16).hex(), home, (Record(1, clock.tick(), events),)))


ELSEWHERE: dict[str, Callable[[str], Event]] = {
    "a field": lambda id: Updated("run", id, {"name": "later", "deleted": None}),
    "a first value": lambda id: Created("run", id, "elsewhere", {"name": "never"}),
    "a conflict": lambda id: AttributesSet("run", id, "params", {"lr": 7}, once=True),
    "a correction": lambda id: AttributesSet("run", id, "params", {"lr": 7}),
    "a removal": lambda id: AttributesRemoved("run", id, "tags", ["alpha"]),
    "rows": lambda id: RowsLogged("run", id, "loss", ROWS),
    "rows of another key": lambda id: RowsLogged("run", id, "more", ROWS),
    "the end": lambda id: Erased("run", id),
    "its experiment's name": lambda _: Updated("experiment", mlcore_experiment("e0"), {"name": "renamed"}),
    "what nobody knows": lambda id: Unknown("run", id, type="Later", raw=b'{"type":"Later","kind":"run","id":"x"}'),
}


def mlcore_experiment(name: str) -> str:
    """Return the id that an experiment gets of its name."""
    from mlcore.tracking._ids import experiment_id

    return experiment_id(name)


@pytest.mark.parametrize("home", ["the store", "another run"])
@pytest.mark.parametrize("what", ELSEWHERE)
def test_what_others_write_of_a_sealed_run_counts(what: str, home: str, root: Path) -> None:
    """Guards runs left unfolded: handles that read the run before it, after it, and first of all for that run alone."""
    ids = made(root)
    early, asked = FolderStore(root), FolderStore(root)
    before = pages(early)
    assert before == pages(unsealed(root))
    asked.get("run", ids[:1])
    written(FolderStore(root), STORE_HOME if home == "the store" else ids[3], ELSEWHERE[what](ids[0]))
    Folder.open(root).note(ids[3])
    plain = unsealed(root)
    expected, series = pages(plain), plain.series("run", ids)
    for store in (early, asked, FolderStore(root)):
        assert pages(store) == expected
        assert [exact(each) for each in store.get("run", ids)] == [exact(each) for each in plain.get("run", ids)]
        found = store.series("run", ids)
        assert {key: list(each["value"]) for key, each in found.items()} == {
            key: list(each["value"]) for key, each in series.items()
        }


def test_a_run_that_began_with_rows_began_then_after_it_was_folded_too(tmp_path: Path) -> None:
    """Guards when a run was made and changed: its rows count, which are no part of the records that are folded."""
    root, id = tmp_path / "store", "0" * 24 + "5ea1ed00"
    folder, _ = Folder.create(root)
    log = Writer(folder.run_folder(id), id)
    log.point("loss", 1)
    log.events([Created("run", id, "0", {"name": "x", "status": "FINISHED"})])
    log.close()
    before = pages(FolderStore(root))
    assert seal(folder.run_folder(id), id)
    early = FolderStore(root)
    assert pages(early) == before
    written(FolderStore(root), STORE_HOME, Updated("run", id, {"note": "later"}))
    assert pages(early) == pages(FolderStore(root)) == pages(unsealed(root))


QUERIES: list[tuple[Where | None, tuple[Sort, ...]]] = [
    (None, (Sort(LOSS),)),
    (None, (Sort(LOSS, descending=True), Sort(LR))),
    (None, (Sort(LR, descending=True),)),
    (Compare(LOSS, "<", 0.6), ()),
    (Not(Compare(Term("metrics", "own1"), "is null")), (Sort(LR),)),
    (Or((Compare(LR, "=", 0.0), Compare(LOSS, "=", 1 / 3))), ()),
    (Compare(STATUS, "=", "FINISHED"), (Sort(Term("fields", "name"), descending=True),)),
]


@pytest.mark.parametrize("select", [None, (LOSS,), (LR,), (Term("metrics", ""),), (), (STATUS, LR)])
@pytest.mark.parametrize(("where", "order"), QUERIES)
def test_queries_find_the_same_in_sealed_runs(
    where: Where | None, order: tuple[Sort, ...], select: tuple[Term, ...] | None, tmp_path: Path
) -> None:
    """Guards metrics that are summed up late, or not at all: where they are asked for, they are there."""
    made(tmp_path / "store")
    query = Query(where, select, order, limit=3, count=True)
    every = unsealed(tmp_path / "store").find("run", Query()).items
    page, expected = FolderStore(tmp_path / "store").find("run", query), find(every, query)
    assert [exact(each) for each in page.items] == [exact(each) for each in expected.items]
    assert (page.count, page.token) == (expected.count, expected.token)
    assert len(page.items) > 0


def test_listing_folds_no_sealed_run_and_decodes_no_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the speed of a list: the records of a run are read when somebody else wrote of it, and then only its."""
    ids = made(root)
    written(FolderStore(root), STORE_HOME, Updated("run", ids[1], {"note": "read again"}))
    woken = list[str]()
    from mlcore_local import seal as module

    records = module.Sealed.records.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(module.Sealed, "records", property(lambda it: woken.append(it.path) or records(it)))
    page = FolderStore(root).find("run", Query())
    assert len(page.items) == 4
    assert [Path(each).parent.name for each in woken] == [ids[1]]


@pytest.mark.parametrize("event", ["Unknown", "Erased"])
def test_a_seal_shows_nothing_where_a_reader_may_know_better(event: str, root: Path) -> None:
    """Guards runs with events of a later version, which may know what they mean when it reads the seal."""
    ids = made(root, 2)
    later = Unknown("run", ids[0], type="Later", raw=f'{{"type":"Later","kind":"run","id":"{ids[0]}"}}'.encode())
    home = Folder.open(root).run_folder(ids[0])
    written(FolderStore(root), ids[0], later if event == "Unknown" else Erased("run", ids[0]))
    assert seal(home, ids[0])
    sealed = open_sealed(home)
    assert sealed is not None
    assert not sealed.shows
    assert pages(FolderStore(root)) == pages(unsealed(root))


def test_a_seal_of_an_earlier_version_is_left_aside(root: Path) -> None:
    """Guards an upgrade: the run is read from its journals, and `mlcore reindex` seals it anew."""
    (id,) = made(root, 1)
    home = Folder.open(root).run_folder(id)
    path, expected = home / NAME, pages(unsealed(root))
    text = path.read_bytes()
    import struct
    import zlib

    length, _, magic = struct.unpack("<QI8s", text[-20:])
    about = text[-20 - length : -20].replace(b'"version":2', b'"version":1')
    assert about.count(b'"version":1') == 1
    for changed in (about, about.partition(b"\n")[0]):
        path.write_bytes(
            text[: -20 - length] + changed + struct.pack("<QI8s", len(changed), zlib.crc32(changed), magic)
        )
        assert open_sealed(home) is None
        assert pages(FolderStore(root)) == expected


def test_a_seal_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    """Guards runs with thousands of parameters, whose seal is not read in one go."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run() as run:
        run.log_params({f"p{number}": "x" * 50 for number in range(2_000)})
        run.log_points("loss", list(range(3_000)), [0.5] * 3_000)
    assert run.folder is not None
    sealed = open_sealed(run.folder)
    assert sealed is not None
    assert sealed.intact()
    assert len(sealed.entity(run.id).attributes["params"]) == 2_000
    assert pages(FolderStore(tmp_path / "store")) == pages(unsealed(tmp_path / "store"))

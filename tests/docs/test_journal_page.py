"""Keep docs/reference/journal.md true: its reader reads what mlcore writes, damaged or not."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mlcore
from house.pages import blocks, headings
from house.tree import ROOT
from mlcore.errors import JournalError
from mlcore.journal import format as f
from mlcore.store import Record, RowsLogged, encode_event
from mlcore_local import Journal, read

PAGE = (ROOT / "docs" / "reference" / "journal.md").read_text()
READER = next(code for _, code in blocks(PAGE, "python"))


@pytest.fixture
def reader() -> Callable[[bytes], Iterator[tuple[int, int, list[Any]]]]:
    """Return the function that the page shows."""
    names: dict[str, Any] = {}
    exec(READER, names)
    return names["read"]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Write every kind of frame, records of one and of several frames."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run(name="every kind", tags={"text": 'é "quoted"\n', "nan": float("nan")}) as run:
        run.log_params({"depth": 3, "nested": {"rate": 0.5, "list": [1, None, True]}})
        for step in range(20):
            run.log_metric("loss", 1 / (1 + step))
        run.log_metric("loss", float("-inf"), step=-5, time=1)
        run.log_metrics({"precision": 0.25, "recall": float("nan")}, step=7)
        run.log_points("curve", range(100), [step**0.5 for step in range(100)])
        run.log_points("curve", [100, 101], [0.0, 1.0], times=[5, 6])
        run.remove_tag("text")
    assert run.folder is not None
    return next(run.folder.glob("*.journal"))


def expected(record: Record) -> tuple[int, int, str]:
    """Return a record of `mlcore_local.read` as the page's reader shows it."""
    events: list[Any] = []
    for event in record.events:
        if isinstance(event, RowsLogged):
            columns = {name: list(event.columns[name]) for name in ("step", "time", "value")}
            events.append([event.kind, event.id, event.key, columns])
        else:
            events.append(json.loads(encode_event(event)))
    return record.number, record.stamp, repr(events)


def shown(number: int, stamp: int, events: list[Any]) -> tuple[int, int, str]:
    """Return a record of the page's reader in the same form."""
    rows = [
        [event["kind"], event["id"], event["key"], {name: list(values) for name, values in event["columns"].items()}]
        if "columns" in event
        else event
        for event in events
    ]
    return number, stamp, repr(rows)


def test_the_reader_has_thirty_lines_and_needs_nothing() -> None:
    """Guards the promise that a journal outlives mlcore: whoever has Python reads it."""
    lines = [line for line in READER.splitlines() if line]
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
    imported = [
        name.name for node in ast.walk(ast.parse(READER)) if isinstance(node, ast.Import) for name in node.names
    ]
    assert imported == ["json", "struct", "zlib"]


def test_the_reader_reads_what_mlcore_writes(reader: Callable[..., Any], journal: Path) -> None:
    """Guards the page against a change of the format, frame by frame."""
    records = [expected(record) for record in read(journal)]
    assert len(records) == 29
    assert [shown(*record) for record in reader(journal.read_bytes())] == records


@pytest.mark.parametrize("seed", range(40))
def test_the_reader_finds_its_way_after_damage(
    reader: Callable[..., Any], journal: Path, tmp_path: Path, seed: int
) -> None:
    """Guards the rules for damage: flipped, lost and repeated bytes cost both readers the same records."""
    chance, data = random.Random(seed), bytearray(journal.read_bytes())
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data))
        stop = start + chance.choice([1, 1, 2, 8, 60])
        data[start:stop] = chance.choice(
            [b"", bytes(data[start:stop]) * 2, bytes(each ^ 1 for each in data[start:stop])]
        )
    damaged = tmp_path / "damaged.journal"
    damaged.write_bytes(data)
    try:
        records = [expected(record) for record in read(damaged, Journal())]
    except JournalError:
        with pytest.raises(IndexError):
            list(reader(damaged.read_bytes()))
    else:
        assert [shown(*record) for record in reader(damaged.read_bytes())] == records


def test_the_page_gives_the_sizes_and_numbers_of_the_code() -> None:
    """Guards the numbers in the text against the module that the writer uses."""
    assert f.HEADER_SIZE == 128
    assert bytes.fromhex("6d6c636f72656a6c") == f.MAGIC
    assert f.MARK.to_bytes(2, "little") == b"\x4c\xa7"
    assert f.pack_frame(0, f.EVENTS, 0, 1, 1, b"")[:2] == b"\x4c\xa7"
    assert (f.FRAME.size, f.POINT_FRAME.size + 4, f.POINT_AT_FRAME.size + 4) == (24, 44, 52)
    assert (f.WRITER, f.KEY, f.EVENTS, f.POINT, f.POINT_AT, f.BLOCK) == (1, 2, 3, 4, 5, 6)
    assert (f.CONTINUES, f.STAMPED, f.CONTINUED) == (1, 2, 4)
    assert (f.FRAME_LIMIT, f.BLOCK_ROWS) == (64 << 20, 2_048)
    names = ("writer", "key", "events", "point", "point with a time", "block")
    shown = [f"Kind {number}: {name}" for number, name in enumerate(names, 1)]
    assert [line for line in headings(PAGE) if line.startswith("Kind")] == shown

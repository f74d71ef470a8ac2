"""Make a journal with every type of record, and say which bytes of it are what, without the reader's help."""

from __future__ import annotations

import json
import math
import struct
from array import array
from pathlib import Path
from typing import Any

import attrs

from mlcore.journal import Writer, format as f
from mlcore.store import AttributesRemoved, AttributesSet, Created, Record, Rewound, RowsLogged, Updated, digest
from mlcore_local import Journal, read
from mlcore_local.packer import Packer

RUN = "0" * 24 + "deadbeef"
NAN = struct.unpack("<d", bytes.fromhex("efbeadde0000f87f"))[0]  # a NaN with a payload


@attrs.frozen
class Span:
    """Say what the bytes from `start` to `end` are: a frame of record `number`, or of none."""

    start: int
    end: int
    kind: int
    number: int
    defines: int  # the number of the key that the frame defines, else 0
    needs: int  # the number of the key that it cannot be read without, else 0


def sample(folder: Path) -> bytes:
    """Return a journal of about 6 kB with every type of record."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(folder, RUN)
    writer.events(
        [Created("experiment", "0", fields={"name": "Default"}), Created("run", RUN, "0", {"name": "Zoë 🦦"})]
    )
    for value in (1.5, NAN, math.inf, -0.0, 5e-324):
        writer.point("loss", value)
    writer.events([AttributesSet("run", RUN, "params", {"größe": "\u2028ß", "x": math.nan}, once=True)])
    writer.point("训练/损失", 0.25, step=7)
    writer.point("loss", -math.inf, step=-3, time=1_700_000_000_000)
    writer.points({"loss": 1.0, "acc": 0.5, "f1 ✓": NAN}, step=12)
    writer.block("acc", range(40), [each / 7 for each in range(40)])
    writer.block("acc", range(40, 60), [0.1] * 20, [1_700_000_000_000 + each for each in range(20)])
    writer.events([AttributesRemoved("run", RUN, "tags", ["a"]), Rewound("run", RUN, 5), Updated("run", RUN, {"n": 1})])
    for step in range(20):
        writer.point("acc", step / 3)
    writer.close()
    path = folder / f"{writer.source}{f.SUFFIX}"
    found = Journal()
    last = list(read(path, found))[-1]
    assert found.header is not None
    packer = Packer(found.header, found.keys)
    # what only a store writes: rows of another entity, in a context, several blocks as one record, odd columns
    columns = {"step": array("q", [1, 2]), "time": array("q", [3, 4]), "value": array("d", [NAN, 0.5])}
    more = [
        (RowsLogged("run", RUN, "loss", columns, "eval"), RowsLogged("model", "m", "größe", columns)),
        (Updated("run", RUN, {"status": "FINISHED"}), RowsLogged("run", RUN, "words", {"word": ["a", None, "ß"]})),
        (RowsLogged("run", RUN, "loss", columns, "eval"),),
    ]
    with path.open("ab") as file:
        for index, events in enumerate(more, 1):
            file.write(packer.pack(Record(last.number + index, last.stamp + index, events)))
    return path.read_bytes()


def spans(data: bytes) -> list[Span]:
    """Cut an undamaged journal into its frames: what the page about the format says, once more."""
    found, position = list[Span](), 256
    while position < len(data):
        mark, kind, _, word, number, _ = struct.unpack_from("<HBBIQQ", data, position)
        assert mark == 0xA74C
        size = {4: 44, 5: 52}.get(kind, 24 + word + 4)
        payload = data[position + 24 : position + size - 4]
        defines = json.loads(payload)["number"] if kind == 2 else 0
        needs = word if kind in (4, 5) else int.from_bytes(payload[:4], "little") if kind == 6 else 0
        found.append(Span(position, position + size, kind, number, defines, needs))
        position += size
    assert position == len(data)
    return found


def survivors(frames: list[Span], hit: list[tuple[int, int]]) -> set[int]:
    """Return the numbers of the records that must be read though the bytes in `hit` (start, end) are not as written."""
    kept, lost, defined = set[int](), {0}, {0}
    for span in frames:
        if any(start < span.end and end > span.start for start, end in hit) or span.needs not in defined:
            lost.add(span.number)
        else:
            defined.add(span.defines)
            kept.add(span.number)
    return kept - lost


def content(records: list[Record]) -> dict[int, str]:
    """Return what each record holds, bit by bit, by its number."""
    found = {record.number: _bits(record) for record in records}
    assert len(found) == len(records), "a record was read twice"
    return found


def _bits(record: Record) -> str:
    if len(record.events) == 1 and isinstance(record.events[0], RowsLogged) and len(record.events[0]) == 1:
        event = record.events[0]  # a shorter way for the many single points, as the tests look at millions
        columns = [values.tobytes() if isinstance(values, array) else values for values in event.columns.values()]
        return f"{record.number} {record.stamp} {event.kind} {event.id} {event.key} {event.context} {columns}"
    return digest([record])


def parse(data: bytes, **options: Any) -> tuple[list[Record], Journal]:
    """Read a journal's bytes at once."""
    journal = Journal()
    return list(journal.feed(data, **options)), journal


def told(journal: Journal) -> list[tuple[int, int]]:
    """Return the ranges that the reader says it could not read."""
    damage = [*journal.damage, *([journal.tail] if journal.tail else [])]
    return [(each.offset, each.offset + each.length) for each in damage]

"""What goes over the wire comes back as it was, and whatever else comes is refused in time and by name."""

from __future__ import annotations

import math
import random
import struct
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from mlcore import errors
from mlcore.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidQuery,
    InvalidValue,
    Malformed,
    MlcoreError,
    NotSupported,
    OutOfOrder,
    PositionLost,
    Refused,
    StoreError,
)
from mlcore.query import RUN, where
from mlcore.store import (
    AttributesRemoved,
    AttributesSet,
    Batch,
    Capabilities,
    Columns,
    Compare,
    Conflict,
    Created,
    Entity,
    Erased,
    Event,
    Not,
    Or,
    Page,
    Query,
    Record,
    Rewound,
    RowsLogged,
    Sort,
    Stored,
    Summary,
    Term,
    Updated,
    check,
    decode_event,
    digest,
    to_json,
)
from mlcore.testing import Writer, new_id, points, run_batch
from mlcore_remote import protocol

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**80), 2**80) | st.floats() | st.booleans() | st.none()
values = st.recursive(
    numbers | text, lambda each: st.lists(each, max_size=3) | st.dictionaries(text, each, max_size=3), max_leaves=8
)
int64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def rows(draw: st.DrawFn) -> RowsLogged:
    """Return rows: a metric, or anything else that has columns."""
    size = draw(st.integers(0, 5))
    columns: dict[str, Any] = {}
    if draw(st.booleans()):
        columns = {name: draw(st.lists(int64, min_size=size, max_size=size)) for name in ("step", "time")}
        columns["value"] = draw(st.lists(st.floats(), min_size=size, max_size=size))
    for name in draw(st.sets(text, max_size=2)) - columns.keys():
        kind = draw(st.sampled_from([int64, st.floats(), values]))
        columns[name] = draw(st.lists(kind, min_size=size, max_size=size))
    return RowsLogged("run", draw(text), draw(text), columns, draw(text))


LATER = [
    decode_event(b'{"type":"Later","kind":"run","id":"x","new":[1,  2]}'),
    decode_event(b'{"type": "Updated","kind":"run","id":"x","fields":{},"later":1e400}'.replace(b"1e400", b"1E3")),
    decode_event(b'{"type":"RowsLogged","kind":"run","id":"x","key":"k","columns":{"value":[1.0]},"later":1}'),
    decode_event(b'{"type":"Erased","id":"\\u00e4","kind":"run"}'),
]
fields = st.dictionaries(text, values, max_size=3)
events = st.one_of(
    rows(),
    st.builds(Created, text, text, text, fields),
    st.builds(Updated, text, text, fields),
    st.builds(AttributesSet, text, text, text, fields, st.booleans()),
    st.builds(AttributesRemoved, text, text, text, st.lists(text, max_size=3)),
    st.builds(Rewound, text, text, st.integers(0, 2**70)),
    st.builds(Erased, text, text),
    st.sampled_from(LATER),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Return a batch as a journal makes it."""
    writer = Writer(draw(st.sampled_from(["", "0" * 32, "a-b_c"])))
    for made in draw(st.lists(st.lists(events, min_size=1, max_size=3), max_size=3)):
        writer.batch(*made)
    first = draw(st.integers(1, len(writer.records) + 1))
    if first > len(writer.records):
        return writer.life_sign()
    return writer.cut(first, claim=draw(st.sampled_from([None, "name/ä"])))


def same_batch(one: Batch, other: Batch) -> None:
    """Say that two batches are the same, to the last byte of every event that a digest looks at, and of every line."""
    assert repr(bare(one)) == repr(bare(other))
    assert digest(one.records, one.previous) == digest(other.records, other.previous)
    for mine, theirs in zip(every(one), every(other), strict=True):
        assert type(mine) is type(theirs)
        if mine.raw is not None and not isinstance(mine, RowsLogged):
            assert theirs.raw == mine.raw
        if isinstance(mine, RowsLogged) and isinstance(theirs, RowsLogged):
            assert [type(each) for each in mine.columns.values()] == [type(each) for each in theirs.columns.values()]


def bare(batch: Batch) -> Batch:
    """Return a batch without the lines that its events were read from."""
    records = [attrs.evolve(r, events=tuple(attrs.evolve(e, raw=None) for e in r.events)) for r in batch.records]
    return attrs.evolve(batch, records=tuple(records))


def every(batch: Batch) -> list[Event]:
    """Return all events of a batch."""
    return [event for record in batch.records for event in record.events]


class TestBatches:
    @given(st.lists(batches(), max_size=3))
    def test_they_come_back_as_they_were(self, given: list[Batch]) -> None:
        """Guards that nothing is lost, changed or put in another order."""
        found = protocol.unpack_batches(protocol.pack_batches(given))
        for one, other in zip(given, found, strict=True):
            same_batch(one, other)

    @given(st.lists(batches(), max_size=3))
    def test_they_come_back_from_json(self, given: list[Batch]) -> None:
        """Guards the form for those who write JSON; of columns without a row it does not know the type."""
        given = [each for each in given if not any(isinstance(e, RowsLogged) and not len(e) for e in every(each))]
        body = to_json(protocol.batches_to_json(given))
        for one, other in zip(given, protocol.batches_from_json(protocol.document(body)), strict=True):
            same_batch(one, other)

    @given(batches(), st.integers(0, 2**60), text, text)
    def test_what_is_stored_comes_back_from_a_stream_cut_anywhere(
        self, batch: Batch, at: int, position: str, actor: str
    ) -> None:
        """Guards the stream: how it arrives in pieces changes nothing."""
        stored = [Stored(position, at, actor, batch), Stored("2", at, "", run_batch(params={"a": 1}))]
        data = b"".join(protocol.pack_stored(stored))
        for size in (1, 7, len(data)):
            found = list(protocol.unpack_stored(data[i : i + size] for i in range(0, len(data), size)))
            assert [(each.position, each.received_at, each.actor) for each in found] == [
                (each.position, each.received_at, each.actor) for each in stored
            ]
            for one, other in zip(stored, found, strict=True):
                same_batch(one.batch, other.batch)

    def test_a_stream_that_is_cut_off_says_so(self) -> None:
        """Guards a reader from taking half of the history for all of it."""
        data = b"".join(protocol.pack_stored([Stored("1", 1, "", run_batch())]))
        for size in range(len(data)):
            with pytest.raises(StoreError, match="cut off"):
                list(protocol.unpack_stored([data[:size]]))

    def test_a_stream_ends_with_what_the_store_raised(self) -> None:
        """Guards errors that come after the first bytes were sent, when a status can no longer be."""

        def broken() -> Any:
            yield Stored("1", 1, "", run_batch())
            raise PositionLost("the database was restored")

        found = protocol.unpack_stored(protocol.pack_stored(broken()))
        assert next(found).position == "1"
        with pytest.raises(PositionLost, match="was restored"):
            next(found)
        assert list(protocol.stored_lines(broken()))[1].startswith(b'{"error":{"type":"PositionLost"')

    def test_what_is_stored_comes_back_from_lines(self) -> None:
        """Guards the form that shells read."""
        stored = Stored("1", 1, "me", run_batch(params={"a": math.inf}, metrics={"x": [math.nan]}))
        line, end = protocol.stored_lines([stored])
        found = protocol.stored_from_json(protocol.document(line))
        same_batch(stored.batch, found.batch)
        assert (found.position, found.received_at, found.actor) == ("1", 1, "me")
        assert end == b'{"end":true}\n'

    def test_numbers_keep_every_bit(self) -> None:
        """Guards NaN with a payload, the sign of zero, denormals, and integers at the ends of their range."""
        odd = array("d", [math.inf, -0.0, 5e-324, 1e308])
        odd.frombytes(bytes.fromhex("010000000000f87f"))
        event = RowsLogged("run", "r", "k", {"step": array("q", [-(2**63), 2**63 - 1, 0, 1, 2]), "value": odd})
        (found,) = protocol.unpack_batches(protocol.pack_batches([Writer("r").batch(event)]))
        (rows,) = every(found)
        assert isinstance(rows, RowsLogged)
        assert [array("d", rows.columns["value"]).tobytes(), rows.columns["step"]] == [
            odd.tobytes(),
            event.columns["step"],
        ]

    def test_what_breaks_the_format_is_malformed_on_either_side(self) -> None:
        """Guards that a batch which no server would take is refused by name: by the writer, or by `check`."""
        from mlcore.testing._appending import malformed

        for what, batch in malformed().items():
            for pack in (
                lambda it: protocol.unpack_batches(protocol.pack_batches([it]))[0],
                lambda it: protocol.batches_from_json(protocol.document(to_json(protocol.batches_to_json([it]))))[0],
            ):
                try:
                    check(pack(batch))
                except (Malformed, InvalidValue):
                    continue
                pytest.fail(what)

    def test_one_point_is_read_in_some_tens_of_microseconds(self) -> None:
        """Guards the server's work for the smallest message there is; measured 11, the rest is a slow machine."""
        data = protocol.pack_batches([Writer(new_id()).batch(points("r", "loss", [0.5]))])
        begin = time.process_time()
        for _ in range(1_000):
            protocol.unpack_batches(data)
        assert (time.process_time() - begin) / 1_000 < 150e-6


MESSAGE = protocol.pack_batches([
    run_batch(claim="a/b", params={"a": [1, {"b": None}]}, metrics={"x": [1.0, 2.0], "y": [3.0]}),
    Writer("r").batch(RowsLogged("run", "r", "k", {"text": ["a", None], "n": [1, 2]}), *LATER),
])  # fmt: skip
SERIES = protocol.pack_series({
    ("r", "x", ""): Columns({"step": array("q", [1, 2]), "value": array("d", [1, 2]), "note": ["a", None]}),
    ("r", "y", "c"): Columns({}),
})  # fmt: skip
STREAM = b"".join(protocol.pack_stored([Stored("1", 1, "me", run_batch(metrics={"x": [1.0, 2.0]}))]))
READERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "batches": (MESSAGE, protocol.unpack_batches),
    "series": (SERIES, protocol.unpack_series),
    "stream": (STREAM, lambda data: list(protocol.unpack_stored([data]))),
}


@pytest.mark.parametrize("form", READERS)
class TestWhateverElseComes:
    @settings(max_examples=200)
    @given(st.binary(max_size=200))
    def test_noise_is_malformed(self, form: str, noise: bytes) -> None:
        """Guards the reader from anything that raises something else."""
        message, read = READERS[form]
        for data in (noise, message[:8] + noise):
            with suppress(Malformed, StoreError):
                read(data)

    def test_a_changed_message_is_read_or_malformed(self, form: str) -> None:
        """Guards against every single byte changed, cut or put in, ten thousand times."""
        message, read = READERS[form]
        dice = random.Random(6)
        begin = time.process_time()
        for _ in range(5_000):
            data = bytearray(message)
            for _ in range(dice.choice([1, 1, 2, 5])):
                at = dice.randrange(len(data))
                match dice.randrange(4):
                    case 0:
                        data[at] = dice.randrange(256)
                    case 1:
                        data[at] ^= 1 << dice.randrange(8)
                    case 2:
                        del data[at : at + dice.randrange(1, 9)]
                    case _:
                        data[at:at] = dice.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b'"', b"{", b"]", b"\x80"])
                if len(data) < 9:
                    break
            with suppress(Malformed, StoreError):
                read(bytes(data))
        assert time.process_time() - begin < 20  # 4 ms each, where 0.1 is usual

    def test_a_message_cut_anywhere_is_refused(self, form: str) -> None:
        """Guards against taking a part for the whole; between two batches there is nothing to see."""
        message, read = READERS[form]
        for size in range(len(message)):
            try:
                found = read(message[:size])
            except (Malformed, StoreError):
                continue
            assert form == "batches" and len(found) < 2

    def test_sizes_that_lie_take_no_memory(self, form: str) -> None:
        """Guards against a few bytes that say they are four gigabytes."""
        import tracemalloc

        message, read = READERS[form]
        tracemalloc.start()
        try:
            for at in range(8, len(message) - 4):
                data = message[:at] + b"\xfe\xff\xff\x7f" + message[at + 4 :]
                with suppress(Malformed, StoreError):
                    read(data)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


class TestBounds:
    def test_a_message_that_is_too_long(self) -> None:
        with pytest.raises(Malformed, match="over the limit of 100: send it in parts"):
            protocol.unpack_batches(MESSAGE, limit=100)

    def test_more_events_than_memory_is_there_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards against sixteen bytes on the wire that become half a kilobyte each."""
        assert protocol.MESSAGE_EVENTS == 100_000
        for module in ("framing", "shapes"):
            monkeypatch.setattr(f"mlcore_remote.{module}.MESSAGE_EVENTS", 1_000)
        writer = Writer("r")
        batch = writer.batch(*[RowsLogged("run", "r", "k", {"n": [1]})] * 1_001)
        with pytest.raises(Malformed, match="1,000 events"):
            protocol.unpack_batches(protocol.pack_batches([batch]))
        with pytest.raises(Malformed, match="1,000 events"):
            protocol.batches_from_json(protocol.batches_to_json([batch]))
        with pytest.raises(Malformed, match="1,000 events and batches"):
            protocol.unpack_batches(protocol.pack_batches([writer.life_sign()] * 1_001))

    def test_json_that_is_nested_too_deeply(self) -> None:
        """Guards every recursion behind it, here and in the stores."""
        deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        begin = time.process_time()
        for wrong in (deep, b"[" * 201 + b"]" * 201, b'["[[[",' * 201 + b"1" + b"]" * 201):
            with pytest.raises(Malformed, match="more than 200 levels"):
                protocol.document(wrong)
        assert time.process_time() - begin < 2
        assert protocol.document(b"[" * 200 + b"]" * 200) is not None
        assert protocol.document(to_json(["[" * 300, '\\"{' * 300])) == ["[" * 300, '\\"{' * 300]
        line = b'{"type":"Updated","kind":"run","id":"r","fields":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"
        with pytest.raises(Malformed, match="more than 200 levels"):
            protocol.unpack_batches(protocol.pack_batches([Writer("r").batch(attrs.evolve(LATER[0], raw=line))]))

    def test_what_is_no_json(self) -> None:
        for wrong in (b"", b"{", b"NaN", b"\xff", b'{"a":1,}', b'"\\ud800"', b'{"$float":"x"}', b"1" * 10_000):
            with pytest.raises(Malformed):
                protocol.document(wrong)

    def test_a_query_of_too_many_clauses(self) -> None:
        one = Compare(Term("fields", "name"), "=", "x")
        with pytest.raises(Malformed, match="more than 1,000 clauses"):
            protocol.query_from_json(protocol.query_to_json(Query(Or((one,) * 1_001))))
        deep: Any = one
        for _ in range(protocol.QUERY_DEPTH):
            deep = Not(deep)
        with pytest.raises(Malformed, match="levels deep"):
            protocol.query_from_json(protocol.query_to_json(Query(deep)))


FILTERS = [
    "name = 'a' and (params.lr in (0.1, 'x') or not metrics.loss.min < 0.5)",
    "tags.x is null or tags.`mlflow.runName` like 'a%' and artifacts.name not ilike '%.pt'",
    "start_time > -7d and deleted = true and duration >= 2h",
    "(" * 49 + "status = 'FINISHED' or name != 'x'" + ")" * 49,
]
QUERIES = [
    *(Query(where(each, RUN)) for each in FILTERS),
    Query(),
    Query(None, (), (Sort(Term("metrics", "x", "max", "valid"), True), Sort(Term("", "id"))), 0, "t", True),
    Query(Compare(Term("params", "a"), "in", (1, None, 2**70, math.nan, "x")), (Term("tags", ""),), limit=7),
    Query(Compare(Term("params", "a"), "=", [1, {"$x": -math.inf}])),
]


def same(one: Any, other: Any) -> None:
    """Say that two values are the same, NaN and types included."""
    assert repr(one) == repr(other)


class TestQuestions:
    @pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
    def test_a_query_comes_back(self, query: Query) -> None:
        same(protocol.query_from_json(protocol.document(to_json(protocol.query_to_json(query)))), query)

    @pytest.mark.parametrize(
        "wrong",
        [
            None, [], 1, {"where": 1}, {"where": {}}, {"where": {"and": 1}}, {"where": {"xor": []}}, {"limit": -1},
            {"limit": True}, {"limit": "1"}, {"limit": 1.5}, {"token": 1}, {"count": 1}, {"select": "x"}, {"other": 1},
            {"select": [{"family": "tags"}]}, {"order": [{"term": {"family": 1, "name": ""}}]}, {"order": {}},
            {"order": [{"term": {"family": "", "name": "__class__"}}]}, {"order": [{"term": None}]},
            {"where": {"term": {"family": "metrics", "name": "x", "function": "system"}, "op": "=", "value": 1}},
            {"where": {"term": {"family": "tags", "name": "x", "function": "min"}, "op": "=", "value": 1}},
            {"where": {"term": {"family": "tags", "name": "x"}, "op": "=="}},
            {"where": {"term": {"family": "tags", "name": "x"}, "op": "like", "value": 1}},
            {"where": {"term": {"family": "tags", "name": "x"}, "op": "in", "value": "abc"}},
            {"where": {"term": {"family": "tags", "name": "x"}, "op": "<", "value": None}},
            {"where": {"term": {"family": "tags", "name": "x"}, "op": "<", "value": [1]}},
            {"where": {"term": {"family": "tags", "name": "x"}, "op": []}},
            {"where": {"not": [1], "and": []}}, {"where": {"and": [None]}}, {"select": [1] * 1_001},
        ],
    )  # fmt: skip
    def test_what_is_no_query_is_malformed(self, wrong: Any) -> None:
        """Guards stores from questions that they would stumble over."""
        with pytest.raises(Malformed):
            protocol.query_from_json(wrong)

    def test_questions_come_back(self) -> None:
        assert protocol.get_from_json({"kind": "run", "ids": ["a"]}) == ("run", ["a"])
        assert protocol.find_from_json({"kind": "run"}) == ("run", Query())
        assert protocol.find_from_json({"kind": "run", "query": {"limit": 3}}) == ("run", Query(limit=3))
        assert protocol.series_asked({"kind": "run", "ids": ["a"], "max_points": 5, "keys": ["x"]}) == {
            "kind": "run", "ids": ["a"], "keys": ["x"], "columns": None, "context": None, "max_points": 5,
        }  # fmt: skip

    @pytest.mark.parametrize(
        "wrong", [None, [], {}, {"kind": 1}, {"kind": "run", "ids": "abc"}, {"kind": "run", "ids": [1]}]
    )
    def test_what_is_no_question_is_malformed(self, wrong: Any) -> None:
        for read in (protocol.get_from_json, protocol.series_asked, protocol.keys_asked, protocol.keys_from_json):
            with pytest.raises(Malformed):
                read(wrong)
        with pytest.raises(Malformed):
            protocol.find_from_json({"kind": "run", "query": wrong} if wrong else wrong)

    @pytest.mark.parametrize("wrong", [{"max_points": 0}, {"max_points": "1"}, {"keys": "x"}, {"context": 1}])
    def test_what_asks_for_no_series_is_malformed(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(Malformed):
            protocol.series_asked({"kind": "run", "ids": [], **wrong})


ENTITY = Entity(
    "run", "r", "0", {"name": "ä", "n": 2**70, "f": math.nan, "$x": [1]},
    {"params": {"a": 1.0, "b": None}, "artifacts": {"m.pt": {"size": 1}}},
    {("loss", ""): Summary(3, math.nan, math.inf, 7, 8, -0.0), ("loss", "valid"): Summary(1, 1, 2**70, 0, 0, 1)},
    (Conflict("params", "a", [1], "s"),), 2**62, 2**62 + 1, 123, False,
)  # fmt: skip


class TestAnswers:
    def test_a_page_comes_back(self) -> None:
        page = Page((ENTITY, Entity("run", "x")), "token", 2)
        same(protocol.page_from_json(protocol.document(to_json(protocol.page_to_json(page)))), page)

    @pytest.mark.parametrize("name", [each.name for each in attrs.fields(Entity)])
    @pytest.mark.parametrize("wrong", [True, 1.5, "x", [1], {"a": 1}, {"a": {"b": [1]}}, [{"family": 1}]])
    def test_what_is_no_entity_is_malformed(self, name: str, wrong: Any) -> None:
        """Guards a client from servers that answer with something else."""
        given = protocol.entity_to_json(ENTITY)
        if type(given[name]) is type(wrong) or (name == "alive" and wrong is True):
            wrong = {"metrics": {"a": [1]}, "attributes": {"a": 1}, "conflicts": [1]}.get(name, object())
        if name != "fields" or not isinstance(wrong, dict):
            with pytest.raises(Malformed):
                protocol.page_from_json({"items": [given | {name: wrong}], "token": None, "count": None})

    def test_series_come_back(self) -> None:
        series = {
            ("r", "x", ""): Columns({"step": array("q", [1, 2]), "value": array("d", [1, math.nan]), "n": ["a", {}]}),
            ("r", "x", "c"): Columns({"n": [None]}),
            ("r", "y", ""): Columns({"step": array("q"), "value": array("d")}),
        }
        found = protocol.unpack_series(protocol.pack_series(series))
        assert found.keys() == series.keys()
        json = protocol.series_from_json(protocol.document(to_json(protocol.series_to_json(series))))
        for key, columns in series.items():
            wanted = {name: repr(list(values)) for name, values in columns.columns.items()}
            for each in (found, json, protocol.unpack_series(protocol.pack_series(found))):
                assert {name: repr(listed(values)) for name, values in each[key].columns.items()} == wanted
            assert [str(getattr(v, "dtype", "")) for v in found[key].columns.values()] == [
                {"q": "int64", "d": "float64"}.get(getattr(v, "typecode", ""), "") for v in columns.columns.values()
            ]

    def test_what_a_server_says_of_itself_comes_back(self) -> None:
        capabilities = Capabilities(claims=False, durability="power")
        body = protocol.about_to_json("1.2.3", capabilities, more=1)
        body["capabilities"]["later"] = True
        assert protocol.about_from_json(protocol.document(to_json(body))) == ("1.2.3", (1, 1), capabilities)
        for wrong in (None, [], {"mlcore": 1}, body | {"api": "1"}, body | {"capabilities": {"history": 1}}):
            with pytest.raises(Malformed, match="which mlcore it is"):
                protocol.about_from_json(wrong)


def listed(values: Any) -> list[Any]:
    """Return a column as a list of plain values."""
    return list(values.tolist() if hasattr(values, "tolist") else values)


EACH_ERROR = [
    *(
        getattr(errors, name)("what happened")
        for name in errors.__all__
        if name not in ("AccessDenied", "AlreadyExists", "InvalidQuery", "NotSupported", "OutOfOrder")
    ),
    AccessDenied("no token", 403),
    AlreadyExists("model/m", "a" * 32),
    InvalidQuery("a = ", 4, "expected a value"),
    NotSupported("s", "claims", "use another"),
    OutOfOrder("a" * 32, 3, 5),
]


class TestErrors:
    @pytest.mark.parametrize("error", EACH_ERROR, ids=lambda error: type(error).__name__)
    def test_every_error_comes_back(self, error: MlcoreError) -> None:
        """Guards that a client can tell apart over the wire what it can tell apart here."""
        status, body = protocol.error_to_json(error)
        assert 400 <= status < 600
        found = protocol.error_from_json(status, protocol.document(to_json(body)))
        assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
        (again, nothing) = protocol.results_from_json(protocol.results_to_json([error, None]), 2)
        assert (type(again), nothing) == (type(error), None)

    def test_an_error_of_a_plugin_is_its_nearest_known(self) -> None:
        class Own(PositionLost):
            pass

        status, body = protocol.error_to_json(Own("gone"))
        assert (status, body["error"]["type"]) == (410, "PositionLost")

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (409, {"error": {"type": "Quota", "message": "m"}}, Refused),
            (503, {"error": {"type": "Quota", "message": "m"}}, StoreError),
            (500, None, StoreError), (500, [], StoreError), (200, {"error": 1}, StoreError),
            (409, {"error": {"type": "OutOfOrder", "message": "m", "details": {"expected": "x"}}}, Refused),
            (409, {"error": {"type": "OutOfOrder", "message": "m", "details": 1}}, Refused),
            (400, {"error": {"type": "InvalidQuery", "message": 1}}, InvalidValue),
            (400, {"error": {"type": "BaseException", "message": "m"}}, Refused),
            (400, {"error": {"type": [], "message": "m"}}, Refused),
        ],
    )  # fmt: skip
    def test_an_error_that_is_not_known_is_its_nearest_kind(
        self, status: int, body: Any, kind: type[MlcoreError]
    ) -> None:
        """Guards a client from a newer server, and from one that lies."""
        assert type(protocol.error_from_json(status, body)) is kind

    def test_an_error_cannot_move_the_cursor(self) -> None:
        found = protocol.error_from_json(503, {"error": {"type": "StoreError", "message": "a\x1b[2Jb\n" + "x" * 10**6}})
        assert str(found).startswith("a\ufffd[2Jb\n") and len(str(found)) == 10_000

    @pytest.mark.parametrize("wrong", [None, [], {}, {"results": [None]}, {"results": {}}])
    def test_results_of_another_append_are_malformed(self, wrong: Any) -> None:
        with pytest.raises(Malformed):
            protocol.results_from_json(wrong, 2)


def test_records_are_not_looked_at_twice() -> None:
    """Guards that a record the reader does not like still reaches `check`, which says why."""
    (found,) = protocol.unpack_batches(protocol.pack_batches([Batch(new_id(), "r", (Record(2, 1, ()),))]))
    with pytest.raises(Malformed, match="no events"):
        check(found)


@pytest.mark.parametrize(
    ("head", "previous", "home"),
    [
        ('{"source":"%s","home":"h","previous":"%s"}', "a", "h"),
        ('{"source":"%s","home":"h","previous":"%s","rows":[]}', "a", "h"),
        ('{"source":"%s","home":"h","previous":"%s","previous":"b","home":"i"}', "b", "i"),
        ('{"source":"%s","home":"h","previous":"%s","later":{"previous":"b","home":"i"}}', "a", "h"),
        ('{"source":"%s","home":"h\\u002c\\u0022previous","previous":"%s"}', "a", 'h,"previous'),
        ('{ "source":"%s", "home":"h", "previous":"%s" }', "a", "h"),
    ],
)
def test_a_head_that_was_seen_before_is_read_as_one_that_was_not(head: str, previous: str, home: str) -> None:
    """Guards what is remembered of heads: however they are written, they mean what JSON says."""
    for digit, source in [("a", "0" * 32), ("a", "0" * 32), ("c", "0" * 32), ("a", "1" * 32)]:
        text = (head % (source, digit * 64)).encode()
        (batch,) = protocol.unpack_batches(b"mlcb\x01\0\0\0" + struct.pack("<II", len(text), 0) + text)
        wanted = digit * 64 if previous == "a" else previous
        assert (batch.source, batch.previous, batch.home) == (source, wanted, home)


def test_a_head_with_wrong_rows_is_refused_each_time() -> None:
    """Guards the same for what is wrong."""
    for rows in ('[["run","a","k","",{"v":"x"}]]', '[["run"]]', "{}", "7", "[", '[["run","a","k","",{}]]'):
        head = {"source": "0" * 32, "home": "h", "previous": "a" * 64}
        text = to_json(head)[:-1] + f',"rows":{rows}}}'.encode()
        for _ in range(2):
            data = b"mlcb\x01\0\0\0" + struct.pack("<II", len(text), 4) + text + b"abcd"
            with pytest.raises(Malformed):
                protocol.unpack_batches(data)

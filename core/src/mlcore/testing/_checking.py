"""What the checks share: exact comparison, waiting for the second that a handle may lag, threads."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import attrs

from mlcore.store import Batch, Capabilities, Columns, Entity, Event, Fold, Store, Stored, Unknown, decode_event

T = TypeVar("T")
Check = TypeVar("Check", bound=Callable[..., None])
Stores = Callable[[], Store]
PATIENCE = 1.0  # seconds after which every handle must have seen a write


def soon(read: Callable[[], T], wanted: T) -> T:
    """Return what `read` returns once it is `wanted`, or what it still returns after a second."""
    deadline = time.monotonic() + PATIENCE
    while (found := read()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def only_if(**capabilities: bool) -> Callable[[Check], Check]:
    """Say what a store must declare for this check to be its; of a check that does not say, ``client_ids=True``."""

    def note(check: Check) -> Check:
        check.only_if = capabilities  # type: ignore[attr-defined]
        return check

    return note


def concerns(check: object, declared: Capabilities) -> bool:
    """Tell whether a check is about a store that declares these capabilities."""
    wanted = getattr(check, "only_if", {"client_ids": True})
    return all(getattr(declared, name) == value for name, value in wanted.items())


def filled(stores: Stores, *batches: Batch) -> Store:
    """Return a handle through which `batches` were appended, in this order."""
    store = stores()
    for batch in batches:
        store.append(batch)
    return store


def at_once(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Make all calls at the same moment, one a thread, and return what each returned or raised."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], T]) -> T | Exception:
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - it is the answer
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def raised(results: Iterable[object]) -> list[Exception]:
    """Return the exceptions among results."""
    return [each for each in results if isinstance(each, Exception)]


def exact(value: Any) -> Any:
    """Return a value such that equal means the same: NaN is NaN, -0.0 is not 0.0, 1 is neither 1.0 nor True."""
    if isinstance(value, bool):
        return f"bool {value}"
    if isinstance(value, float):
        return f"float {value!r}"
    if isinstance(value, Mapping):
        return {name: exact(each) for name, each in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [exact(each) for each in value] if isinstance(value, list | tuple) else value


def exact_event(event: Event) -> Any:
    """Return an event to compare: by its bytes if this version does not know all of it, else by its content."""
    content = {field.name: exact(getattr(event, field.name)) for field in attrs.fields(type(event))}
    raw = content.pop("raw")
    content["type"] = event.type if isinstance(event, Unknown) else type(event).__name__
    return (content, raw) if raw is not None and _has_more(event) else content


def _has_more(event: Event) -> bool:
    return isinstance(event, Unknown) or b'"later' in (event.raw or b"")


def later(line: bytes) -> Event:
    """Return the event in a line that a later version wrote; fields named ``later...`` are unknown today."""
    return decode_event(line)


def exact_records(batches: Iterable[Batch]) -> list[Any]:
    """Return all records of batches to compare, in order of source and number."""
    found = [
        (batch.source, record.number, batch.home, record.stamp, [exact_event(event) for event in record.events])
        for batch in batches
        for record in batch.records
    ]
    return sorted(found, key=lambda each: (each[0], each[1]))


def stored_records(stored: Iterable[Stored]) -> list[Any]:
    """Return all records of what a store yielded, to compare."""
    return exact_records(each.batch for each in stored)


def exact_entity(entity: Entity | None) -> Any:
    """Return all of an entity that the fold decides, to compare."""
    if entity is None:
        return None
    content = attrs.asdict(entity, recurse=False)
    del content["seen"], content["alive"]
    # of zeros, which are equal, either may be the least
    sums = {key: attrs.evolve(each, min=each.min + 0, max=each.max + 0) for key, each in entity.metrics.items()}
    content["metrics"] = {key: exact(attrs.astuple(each)) for key, each in sums.items()}
    content["conflicts"] = [exact(attrs.astuple(each)) for each in entity.conflicts]
    return {name: each if name == "metrics" else exact(each) for name, each in content.items()}


def exact_columns(columns: Columns | None) -> Any:
    """Return columns to compare."""
    return None if columns is None else {name: exact(values) for name, values in columns.columns.items()}


def metric(columns: Columns | None, name: str = "value") -> list[Any]:
    """Return one column as a list, empty if there is no such series."""
    if columns is None or name not in columns.columns:
        return []
    values: Any = columns[name]
    return list(values.tolist() if hasattr(values, "tolist") else values)


def is_array(values: Any, code: str) -> bool:
    """Tell whether a column is an array of int64 (``"q"``) or float64 (``"d"``), of numpy or the standard library."""
    if isinstance(values, array):
        return values.typecode == code
    return str(getattr(values, "dtype", "")) == {"q": "int64", "d": "float64"}[code]


def folded(batches: Iterable[Batch]) -> Fold:
    """Return the state that core's own fold makes of batches."""
    fold = Fold()
    for batch in batches:
        fold.add(batch)
    return fold


def one(store: Store, id: str, kind: str = "run") -> Entity:
    """Return an entity that must be there."""
    (entity,) = store.get(kind, [id])
    assert entity is not None, f"{kind} {id} was stored and is not found"
    return entity

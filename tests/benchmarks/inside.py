"""Benchmarks of what a running process does: log, read back, list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

from tests.benchmarks.results import NONE, Limit, Number, Ratios, ratios
from tests.benchmarks.tools import PEERS, Bench, Tool, Worker

Rows = Iterator[Ratios | Number]


def _compared(
    what: str,
    found: dict[Tool, list[float]],
    floor: str,
    limit: Limit = NONE,
    unit: str = "us a call",
    peers: Mapping[str, Limit] | None = None,
) -> Rows:
    """Yield the ratio to the floor, judged by `limit`, then those of the peers, some judged by their names."""
    times = {tool.name: values for tool, values in found.items()}
    if "mlcore" not in times:
        return
    own = times.pop("mlcore")
    label = f"{median(own) * 1e6:.3g} {unit}"
    if "floor" in times:
        yield Ratios(what, floor, ratios(own, times.pop("floor")), limit, label)
    for tool, values in found.items():
        if tool.name in times:
            yield Ratios(what, tool.adapter.TITLE, ratios(values, own), (peers or {}).get(tool.name, NONE), label)


def _timed(bench: Bench, name: str, count: int, per: int = 1, **arguments: object) -> dict[Tool, list[float]]:
    """Return seconds a unit: tools that are slow do less of it."""

    def once(worker: Worker, share: int) -> Callable[[], float]:
        counted = {"calls" if name == "log_points" else "count": share}
        return lambda: worker.ask(name, **counted, **arguments) / (share * per)

    with bench.workers() as workers:
        able = {tool: worker for tool, worker in workers.items() if worker.can(name)}
        return bench.paired({tool: once(each, _share(tool, count)) for tool, each in able.items()})


def log_metric(bench: Bench, calls: int) -> Rows:
    """Log one point a call."""
    floor = "os.write of 32 bytes"
    yield from _compared("log_metric, step given", _timed(bench, "log_metric", calls), floor, Limit(most=4))
    yield from _compared("log_metric, next step", _timed(bench, "log_metric_next", calls), floor, Limit(most=4))
    team = _timed(bench, "log_metric_team", max(2, calls // 10))
    yield from _compared("log_metric, team store on SQLite", team, floor)


def log_points(bench: Bench, calls: int, rows: int) -> Rows:
    """Log columns of points a call."""
    for numpy in (True, False):
        found = _timed(bench, "log_points", calls, rows, rows=rows, numpy=numpy)
        what = f"log_points, {rows:,} points a call, {'numpy' if numpy else 'lists'}"
        yield from _compared(what, found, "pack, checksum, write", unit="us a point")


def one_run(bench: Bench, count: int) -> Rows:
    """Start, fill and end a run."""
    yield from _compared("a run made, filled, ended", _timed(bench, "one_run", count), "a folder and a file", unit="us")


SERIES = {
    "blocks": ("sealed", 5),
    "blocks open": ("not sealed, blocks", 25),
    "single open": ("not sealed, points", 25),
    "team": ("team store on SQLite", 25),
}


def series(bench: Bench, points: int) -> Rows:
    """Read one long series back: through the call of `series`, and with opening the store and finding the run."""
    for how, (title, limit) in SERIES.items():
        with bench.workers() as workers:
            # a peer has one way to log and one way to read
            able = {tool: one for tool, one in workers.items() if how == "blocks" or tool not in bench.peers}
            sizes = bench.once({tool: _history(tool, one, "make", points, how) for tool, one in able.items()})
            able = {tool: able[tool] for tool in sizes if able[tool].can("read_history")}
            reads = {tool: _history(tool, one, "read", points, how) for tool, one in able.items()}
            found = bench.paired(reads, max(2, bench.rounds // 2))
        yield from _sizes(sizes, title)
        for part, words in (("series", "series()"), ("open", "open, find run, series()")):
            taken = {tool: [each[part] / _share(tool, points) for each in values] for tool, values in found.items()}
            judged = Limit(most=limit) if part == "series" or "open" in how else NONE
            what = f"{points:,} points, {title}: {words}"
            yield from _compared(what, taken, "numpy.fromfile", judged, "us a point")


def _history(tool: Tool, worker: Worker, verb: str, points: int, how: str) -> Callable[[], dict[str, float]]:
    return lambda: worker.ask(f"{verb}_history", points=_share(tool, points), how=how)


def _share(tool: Tool, count: int) -> int:
    """Return how much a tool does: slow ones less, so that nobody waits for hours."""
    return max(1, count // tool.adapter.SLOWER)


def _sizes(found: dict[Tool, dict[str, float]], title: str) -> Rows:
    for tool, sizes in found.items():
        for name, value in (sizes or {}).items():
            if name != "inodes" and value:
                yield Number(f"bytes a point, {title}: {name}", tool.adapter.TITLE, value)
            elif name == "inodes" and title == "sealed":
                yield Number("inodes of an ended run", tool.adapter.TITLE, value, Limit(most=3))


def list_runs(bench: Bench, runs: int) -> Rows:
    """List many runs through a fresh client, and again through the same one."""
    with bench.workers() as workers:
        able = {tool: worker for tool, worker in workers.items() if worker.can("list_runs")}
        made = bench.once({tool: _asking(one, "make_runs", runs=_share(tool, runs)) for tool, one in able.items()})
        found = bench.paired({tool: _asking(able[tool], "list_runs") for tool in made}, max(2, bench.rounds // 2))
    for part, words in (("open", "fresh client"), ("again", "same client again")):
        taken = {
            tool: [each.get(part, each["open"]) / _share(tool, runs) for each in values]
            for tool, values in found.items()
        }
        yield from _compared(f"list_runs, {runs:,} runs, {words}", taken, "a JSON file a run", unit="us a run")


STORES = {"folder": "folder with index", "team": "team store on SQLite"}


def find(bench: Bench, runs: int) -> Rows:
    """Filter and order many runs and read the first 1,000 with all they have; all tools have as many runs."""
    with bench.workers() as workers:
        able = {tool: worker for tool, worker in workers.items() if worker.can("find")}
        made = bench.once({tool: _asking(one, "make_varied", runs=runs) for tool, one in able.items()})
        for tool, sizes in made.items():
            for name in sizes.keys() - {"log", "sync"}:
                where = "" if tool.name in PEERS else f", {STORES[name]}"
                yield Number(f"bytes a run, {runs:,} runs{where}", tool.adapter.TITLE, sizes[name])
            if "sync" in sizes:
                yield Number(f"us a run to sync {runs:,} runs to SQLite", tool.adapter.TITLE, sizes["sync"] * 1e6)
        for where, title in STORES.items():
            asked = {tool: _asking(able[tool], "find", where=where) for tool in made}
            found = bench.paired(asked, max(2, bench.rounds // 2))
            for part, words in (("open", "fresh client"), ("again", "same client again")):
                taken = {tool: [each[part] for each in values] for tool, values in found.items()}
                what = f"filter, order, first 1,000 of {runs:,} runs, {title}, {words}"
                peers = {"mlflow": Limit(least=30 if part == "again" else 5)}
                yield from _compared(what, taken, "a JSON file a run", unit="us", peers=peers)


def models(bench: Bench, count: int) -> Rows:
    """Log a small model with what its environment is, and load it back."""
    for name, what, least in (
        ("log_models", "log_model, small, environment captured", 20),
        ("load_models", "load_model, small", 1),
    ):
        with bench.workers() as workers:
            able = {tool: worker for tool, worker in workers.items() if worker.can(name)}
            if name == "load_models":
                made = bench.once({tool: _asking(one, "log_models", count=1) for tool, one in able.items()})
                able = {tool: able[tool] for tool in made}
            asked = {tool: _asking(one, name, count=_share(tool, count)) for tool, one in able.items()}
            found = bench.paired(asked, max(2, bench.rounds // 2))
        taken = {tool: [each / _share(tool, count) for each in values] for tool, values in found.items()}
        yield from _compared(what, taken, "joblib", unit="us", peers={"mlflow": Limit(least=least)})


def signed(bench: Bench, size: int) -> Rows:
    """Verify signed models of so many bytes, in one file and in many; who verifies may use all cores."""
    for files in (1, 1_000):
        with bench.workers() as workers:
            able = {tool: worker for tool, worker in workers.items() if worker.can("verify_model")}
            bench.once(
                {tool: _asking(one, "make_signed", files=files, size=size // files) for tool, one in able.items()}
            )
            found = bench.paired({tool: _asking(one, "verify_model") for tool, one in able.items()})
        taken = {tool: [each / (size / 1e6) for each in values] for tool, values in found.items()}
        what = f"a signed model verified, {size // 1_000_000:,} MB in {files:,} file{'s' * (files > 1)}"
        yield from _compared(what, taken, "hashlib, file by file", Limit(most=1.5), "us a MB")


def training(bench: Bench, intervals: int) -> Rows:
    """Train in steps of a millisecond, with a Monitor and without, by turns in one process."""
    with bench.workers() as workers:
        able = {tool: worker for tool, worker in workers.items() if worker.can("train")}
        found = bench.paired({tool: _asking(worker, "train", intervals=intervals) for tool, worker in able.items()})
    for values in found.values():
        bare, monitored = ([each[how] for each in values] for how in ("bare", "monitored"))
        own = f"{(median(monitored) - median(bare)) * 1e6:.2g} us of {median(bare) * 1e3:.3g} ms a step"
        what = "a step of training with a Monitor, every=50"
        yield Ratios(what, "the same without", ratios(monitored, bare), Limit(most=1.02), own)


def _asking(worker: Worker, name: str, **arguments: object) -> Callable[[], Any]:
    return lambda: worker.ask(name, **arguments)

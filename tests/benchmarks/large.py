"""Benchmarks of very many runs, without peers, of whom nobody makes so many in a day."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from tests.benchmarks.inside import STORES
from tests.benchmarks.outside import listed
from tests.benchmarks.results import NONE, Limit, Number, Ratios
from tests.benchmarks.tools import Bench, Tool, Worker

Rows = Iterator[Ratios | Number]

HALF = "metrics.metric0 < 0.52"
FILTERS = {
    "5 % by a metric": "metrics.metric0 < 0.05",
    "20 % by a metric": "metrics.metric0 < 0.2",
    "half by a metric": HALF,
    "20 % by a param": "params.param3 = 1",
    "half by a tag": "tags.team = 'a'",
    "10 % by the end of a name": "name like '%7'",
    "12 % by two parts of a name": "name like '%1%3%'",
    "10 % by a name in any case": "name ilike 'RUN%7'",
    "10 % by status, metric and tag": "status = 'FINISHED' and metrics.metric0 < 0.2 and tags.team = 'a'",
    "24 % by a metric or a param": "metrics.metric0 < 0.05 or params.param3 = 1",
}
ORDERS = ("metrics.metric1", "metrics.metric1 desc", "params.param4", "start_time desc")
_MOST = 8  # processes that make runs


def pages(bench: Bench, runs: int, few: int) -> Rows:
    """Read pages of very many runs, each in turn with the page of 1,000 of few runs that is in the same order."""
    own = next(tool for tool in bench.tools if tool.name == "mlcore")
    makers = min(_MOST, max(2, os.cpu_count() or 2))
    with bench.team(own, makers) as workers, bench.team(own, 1) as (other,):
        yield from _made(workers, runs)
        other.ask("make_varied", runs=few)
        for where, title in STORES.items():
            for part, words in (("open", "fresh client"), ("again", "same client again")):
                found = _paired(bench, own, workers[0], other, lambda one, where=where: one.ask("find", where=where))
                what = f"filter, order, first 1,000 of {runs:,} runs, {title}, {words}"
                yield from _ratio(what, [(many[part], one[part]) for many, one in found], few, NONE, "ms")
            yield from _pages(bench, own, (workers[0], other), where, (runs, few))
        yield from listed(bench, {own: workers[0].folder}, runs, store="varied")


def _made(workers: Sequence[Worker], runs: int) -> Rows:
    """Fill the runs in several processes; make the index, and bring them to a team store, both at once."""
    step, first = len(workers), workers[0]
    with ThreadPoolExecutor(step) as threads:
        asked = [
            threads.submit(one.ask, "log_varied", runs=runs, first=place, step=step)
            for place, one in enumerate(workers)
        ]
        logged = max(each.result() for each in asked)
        first.ask("settle_varied")
        brought = threads.submit(first.ask, "bring_varied", runs=runs)
        index, sizes = workers[1].ask("index_varied"), brought.result()
    yield Number(f"us a run to fill {runs:,} runs, {step} processes", "mlcore", logged / runs * 1e6)
    yield Number(f"us a run to index {runs:,} runs", "mlcore", index["seconds"] / runs * 1e6)
    yield Number(f"us a run to sync {runs:,} runs to SQLite", "mlcore", sizes["sync"] * 1e6)
    yield Number(f"bytes a run, {runs:,} runs, folder", "mlcore", sizes["folder"])
    yield Number(f"bytes a run, {runs:,} runs, its index", "mlcore", index["bytes"] / runs)
    yield Number(f"bytes a run, {runs:,} runs, {STORES['team']}", "mlcore", sizes["team"])


def _pages(bench: Bench, own: Tool, workers: tuple[Worker, Worker], where: str, sizes: tuple[int, int]) -> Rows:
    """Read pages in several orders; of each filter the slowest is told."""
    runs, few = sizes
    for words, text in FILTERS.items():
        taken = {order: _page(bench, own, workers, where, text, order) for order in ORDERS}
        order = max(taken, key=lambda each: median(many / one for many, one in taken[each]) if taken[each] else 0)
        what = f"1,000 of {runs:,} runs, {words}, slowest of {len(ORDERS)} orders, {order}, {STORES[where]}, CPU"
        yield from _ratio(what, taken[order], few, Limit(most=6), "ms CPU")
    rare = {"where": where, "filter": "metrics.metric0 < 0.001", "order": "metrics.metric1"}
    (seconds,) = bench.paired({own: lambda: workers[0].ask("page", **rare)}, 2).values()
    what = f"the 0.1 % of {runs:,} runs that fit, {STORES[where]}, CPU"
    yield Ratios(what, "a second", seconds, Limit(most=1), f"{median(seconds) * 1e3:.3g} ms CPU")


def _page(
    bench: Bench, own: Tool, workers: tuple[Worker, Worker], where: str, text: str, order: str
) -> list[tuple[float, float]]:
    def page(one: Worker) -> Any:
        return one.ask("page", where=where, filter=text if one is workers[0] else HALF, order=order)

    return _paired(bench, own, *workers, page)


def _paired(bench: Bench, own: Tool, many: Worker, few: Worker, asks: Callable[[Worker], Any]) -> list[tuple[Any, Any]]:
    """Ask both in turn, round by round."""
    found = bench.paired({own: lambda: (asks(many), asks(few))}, max(2, bench.rounds // 2))
    return found.get(own, [])


def _ratio(what: str, found: Sequence[tuple[float, float]], few: int, limit: Limit, unit: str) -> Rows:
    if found:
        label = f"{median(many for many, _ in found) * 1e3:.3g} {unit}"
        yield Ratios(what, f"1,000 of {few:,} runs", [many / one for many, one in found], limit, label)

"""Measure mlcore against what the machine can do and against its peers: ``python -m tests.benchmarks --help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks import inside, large, outside, serving
from tests.benchmarks.environments import cache
from tests.benchmarks.results import Number, Ratios, table
from tests.benchmarks.tools import PEERS, Bench, bench

Benchmark = Callable[[Bench], Iterator[Ratios | Number]]


def benchmarks(tiny: bool) -> dict[str, Benchmark]:
    """Return the benchmarks by name; tiny ones only show that they work."""
    points, runs = (3_000, 20) if tiny else (1_000_000, 2_000)
    return {
        "start-up": outside.start_up,
        "help": lambda each: outside.help_page(each, 3 if tiny else 50),
        "installed": outside.installed,
        "log_metric": lambda each: inside.log_metric(each, 20 if tiny else 2_000),
        "log_points": lambda each: inside.log_points(each, 2 if tiny else 100, 1_000),
        "series": lambda each: inside.series(each, points),
        "one_run": lambda each: inside.one_run(each, 2 if tiny else 40),
        "models": lambda each: inside.models(each, 2 if tiny else 20),
        "signed": lambda each: inside.signed(each, 1_000_000 if tiny else 1_000_000_000),
        "training": lambda each: inside.training(each, 1 if tiny else 20),
        "list_runs": lambda each: inside.list_runs(each, runs),
        "list_command": lambda each: outside.list_command(each, runs),
        "find": lambda each: inside.find(each, runs),
        "serving": lambda each: serving.serving(each, 0.1 if tiny else 2, 80 if tiny else 12_000),
    }


LARGE = 100_000


def large_benchmarks(tiny: bool) -> dict[str, Benchmark]:
    """Return those of very many runs."""
    runs, few = (60, 40) if tiny else (LARGE, 2_000)
    return {"pages": lambda each: large.pages(each, runs, few)}


def main() -> int:
    """Run what was asked for and print the tables; exit code 1 if a budget is missed."""
    names = list(benchmarks(tiny=False))
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--peers", default="", help=f"compare with these, or all: {','.join(PEERS)}")
    parser.add_argument("--only", default=",".join(names), help=f"run only these of {','.join(names)}")
    parser.add_argument("--rounds", type=int, default=15, help="how often everything is repeated (15)")
    parser.add_argument("--large", action="store_true", help=f"find and list {LARGE:,} runs, and nothing else")
    parser.add_argument("--tiny", action="store_true", help="measure next to nothing, to see that it works")
    parser.add_argument("--folder", type=Path, default=cache() / "work", help="where to write: the disk to measure")
    options = parser.parse_args()
    peers = PEERS if options.peers == "all" else [name for name in options.peers.split(",") if name]
    chosen = [name for name in options.only.split(",") if name]
    for name in [*set(peers) - set(PEERS), *set(chosen) - set(names)]:
        parser.error(f"there is no {name}")
    found: list[Ratios | Number] = []
    tools = bench(peers, options.folder, options.rounds)
    measured = large_benchmarks(options.tiny) if options.large else benchmarks(options.tiny)
    for name in measured if options.large else chosen:
        start = time.monotonic()
        found += measured[name](tools)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    print("Ratio: mlcore to a floor (less is better), a peer to mlcore (more is better); median of the rounds.\n")
    print(table(found))
    for problem in tools.problems:
        print(f"\nNot measured: {problem}")
    return int(any(row.missed for row in found))


if __name__ == "__main__":
    sys.exit(main())

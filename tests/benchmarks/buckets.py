"""Measure files in a bucket against obstore alone and s3fs: ``python -m tests.benchmarks.buckets --bucket NAME``.

The environment says how to reach the bucket (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY). Each tool
stores and gets 1,000 files of 4 kB and a large one, in a process of its own, in turn, round by round. s3fs runs in an
environment that is made for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.environments import ROOT, python_of

PARTS = ("1,000 files up", "1,000 files down", "large file up", "large file down")
LEAST = {("obstore", part): 0.8 for part in PARTS} | {("s3fs", part): 3.0 for part in PARTS[:2]}
MEMORY = 300  # MB


def main() -> int:
    """Print a table of ratios, the peer's time over mlcore's; exit code 1 if a budget is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.buckets", description=__doc__)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=500, help="MB of the large file (500)")
    parser.add_argument("--s3fs", action="store_true", help="compare with s3fs as well, on the small files")
    options = parser.parse_args()
    pythons = {"mlcore": Path(sys.executable), "obstore": Path(sys.executable)}
    if options.s3fs:
        pythons["s3fs"] = python_of(["s3fs"])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        _fill(Path(folder), options.size)
        for turn in range(options.rounds):
            names = list(pythons)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found[name].append(_measure(pythons[name], name, options.bucket, folder))
    return _told(found)


def _fill(folder: Path, size: int) -> None:
    (folder / "small").mkdir()
    for number in range(1_000):
        (folder / "small" / f"{number:04}").write_bytes(os.urandom(4_096))
    with open(folder / "large", "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(size))


def _measure(python: Path, tool: str, bucket: str, folder: str) -> dict[str, float]:
    command = [python, "-P", ROOT / "tests/benchmarks/bucket_tools.py", tool, bucket, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def _told(found: dict[str, list[dict[str, float]]]) -> int:
    missed = False
    for peer in [name for name in found if name != "mlcore"]:
        for part in PARTS:
            both = zip(found[peer], found["mlcore"], strict=True)
            ratios = [theirs[part] / ours[part] for theirs, ours in both if part in theirs]
            if ratios:
                least = LEAST.get((peer, part), 0)
                missed |= median(ratios) < least
                print(f"{part:18} {peer:8} {_range(ratios)}  at least {least}")
    memory = max(each["MB"] for each in found["mlcore"])
    print(f"memory of mlcore: {memory:.0f} MB, at most {MEMORY}")
    for name, rounds in found.items():
        cpu = median(each["CPU"] for each in rounds)
        print(f"{name}: CPU {cpu:.2f} s; " + ", ".join(f"{part} {_seconds(rounds, part)}" for part in PARTS))
    return int(missed or memory > MEMORY)


def _range(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _seconds(rounds: list[dict[str, float]], part: str) -> str:
    return f"{median(each[part] for each in rounds):.2f} s" if part in rounds[0] else "-"


if __name__ == "__main__":
    sys.exit(main())

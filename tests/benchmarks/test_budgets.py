"""Keep the budgets that every run finds alike, and the benchmarks working; these alone tell times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from house.tree import ROOT, run
from wheels import needed

HEAVY = {"click", "yaml", "cattrs", "fsspec", "numpy"}
PROBE = "import sys; bare = set(sys.modules); {code}; print(*sorted(set(sys.modules) - bare))"
FIRST_RUN = "import mlcore; mlcore.start_run(); mlcore.log_metric('loss', 0.3); mlcore.end_run()"


@pytest.mark.parametrize(("code", "limit"), [("import mlcore", 60), (FIRST_RUN, 200)], ids=["import", "first run"])
def test_start_up_loads_few_modules(code: str, limit: int, tmp_path: Path) -> None:
    """Guards the start of every training, the first one in a store as well."""
    loaded = set(run("-c", PROBE.format(code=code), cwd=tmp_path).splitlines()[-1].split())
    assert HEAVY.intersection(name.partition(".")[0] for name in loaded) == set()
    assert len(loaded) <= limit, sorted(loaded)


def test_an_ended_run_takes_three_inodes(tmp_path: Path) -> None:
    """Guards stores of 100,000 runs: a folder, a journal and a seal."""
    filled = FIRST_RUN.replace(
        "mlcore.end_run()", "mlcore.log_params({'a': 1}); mlcore.set_tag('b', 2); mlcore.end_run()"
    )
    run("-c", filled, cwd=tmp_path)
    (folder,) = (tmp_path / ".mlcore" / "runs").glob("*/*")
    assert 1 + len(list(folder.rglob("*"))) <= 3


def test_core_with_local_and_sql_brings_at_most_fifteen_distributions() -> None:
    """Guards what logging and reading on one machine needs; tests/house/test_wheels.py guards core alone."""
    assert len(needed("mlcore[local]")) <= 15
    assert needed("mlcore[local]").keys() == needed("mlcore", "mlcore-local", "mlcore-sql").keys()


def test_core_with_remote_brings_at_most_twelve_distributions() -> None:
    """Guards small images of jobs that log to a server."""
    brought = needed("mlcore", "mlcore-remote").keys()
    assert len(brought) <= 12
    assert {"mlcore-local", "urllib3"} <= brought
    assert brought.isdisjoint({"mlcore-server", "mlcore-sql", "starlette", "uvicorn", "sqlalchemy"})


def measured(*options: str) -> str:
    """Return what the command prints."""
    command = [sys.executable, "-m", "tests.benchmarks", "--tiny", "--rounds=2", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a budget missed, which says nothing in such sizes
    assert "Not measured" not in done.stdout
    return done.stdout


def test_every_benchmark_works(tmp_path: Path) -> None:
    """Guards the command itself: all but the installing, in sizes that measure nothing."""
    names = "start-up,help,log_metric,log_points,series,one_run,models,signed,training,list_runs,"
    names += "list_command,find,serving"
    told = measured(f"--only={names}", f"--folder={tmp_path}/work")
    for row in (
        "CPU of import",
        "--help with 3",
        "log_metric",
        "log_points",
        "series()",
        "a run made",
        "log_model",
        "load_model",
        "a signed model verified",
        "a step of training with a Monitor",
        "list_runs",
        "mlcore runs list",
        "first 1,000 of 20 runs, team store",
        "team store on SQLite: series()",
        "server: log one point a request, survives a crash of the machine",
        "server: search, 100 results",
        "server: s to the first answer",
    ):
        assert row in told, row


def test_every_large_benchmark_works(tmp_path: Path) -> None:
    """Guards those that run once in a while."""
    told = measured("--large", f"--folder={tmp_path}/work")
    for row in ("1,000 of 60 runs, half by a tag, slowest of", "team store", "the 0.1 % of", "mlcore runs list"):
        assert row in told, row

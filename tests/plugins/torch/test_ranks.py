"""The ranks of torchrun log into one run, rank 0 keeps checkpoints, and a rank that dies holds up nobody."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import mlcore
from faults.processes import environment
from mlcore.errors import InvalidValue
from mlcore_torch import list_checkpoints, load_checkpoint, start_run

SECONDS = 180
TRAIN = """
    import os, signal, sys
    import torch
    from torch import distributed, nn
    import mlcore, mlcore_torch
    from mlcore.errors import MlcoreError

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, attempt = distributed.get_rank(), int(os.environ["ATTEMPT"])

    def say(line):
        os.write(1, f"{line}\\n".encode())  # at once: the ranks share what they print to

    def train(key, dies):
        with mlcore_torch.start_run(experiment="ranks", key=key):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
            ddp = nn.parallel.DistributedDataParallel(net)
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
            rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(rank))
            classes = (rows.sum(1) > 0).long()
            monitor = mlcore_torch.Monitor(ddp, optimizer, every=5)
            kept = {"model": ddp, "optimizer": optimizer, "monitor": monitor}
            with monitor, mlcore_torch.Checkpoints(every=10, **kept) as checkpoints:
                found = checkpoints.restore()
                say(f"{key} rank {rank} from {found and found.step}")
                while monitor.steps < 30:
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(ddp(rows), classes)
                    loss.backward()
                    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                    optimizer.step()
                    monitor.step(loss, len(rows))
                    checkpoints.step()
                    if dies and monitor.steps == 25:
                        os.kill(os.getpid(), signal.SIGKILL)

    if attempt == 0:
        try:
            mlcore_torch.start_run(experiment="ranks", key="of nobody", resume="must")
        except MlcoreError as error:
            say(f"rank {rank} {type(error).__name__}")
    elif rank == 0:
        say(f"status {sorted({each.status for each in mlcore.list_runs('ranks')})}")
    train("broken", dies=attempt == 0 and rank == 1)
    train("whole", dies=False)
    distributed.destroy_process_group()
"""


def torchrun(home: Path, code: str, attempt: int) -> str:
    """Run code in two ranks, of which one dies in the first attempt; return what they print."""
    (home / "train.py").write_text(textwrap.dedent(code))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = {"OMP_NUM_THREADS": "1", "MLCORE_CAPTURE": "off", "ATTEMPT": str(attempt)}
    process = subprocess.Popen(
        [*launcher, "train.py"], cwd=home, env=environment(home, **settings), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        told, _ = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()  # it ends the ranks
            process.communicate()
    assert (process.returncode == 0) == (attempt > 0), told
    return told


def test_a_rank_that_dies_holds_up_nobody_and_both_are_in_one_run(tmp_path: Path) -> None:
    """Guards DDP: one run, a series a rank, one writer of checkpoints, and the weights of one never broken."""
    # not by --max-restarts: gloo may then look for the ranks of before
    told = torchrun(tmp_path, TRAIN, 0) + torchrun(tmp_path, TRAIN, 1)
    assert "rank 0 NotFound" in told
    assert "rank 1 RunStateError" in told
    assert "status [" in told
    assert "RUNNING" not in told.partition("status [")[2].partition("]")[0]
    assert sum(f"broken rank {rank} from 20" in told for rank in (0, 1)) == 2, told
    whole, broken = sorted(mlcore.Client(tmp_path / ".mlcore").list_runs("ranks"), key=lambda run: run.start_time)[::-1]
    assert (whole.status, broken.status) == ("FINISHED", "FINISHED")
    steps = [1, 5, 10, 15, 20, 25, 30]
    for name in ("loss", "gradient_norm"):
        for key in (f"train.{name}", f"train.{name}.rank1"):
            assert list(broken.series(key).steps) == steps, key
            assert list(broken.series(key).values) == list(whole.series(key).values)
    norms, others = (whole.series(f"train.gradient_norm{rank}").values for rank in ("", ".rank1"))
    assert list(norms) == list(others), "the norm of what all ranks gave"
    assert whole.metrics["train.loss"] != whole.metrics["train.loss.rank1"]
    assert [each.number for each in list_checkpoints(whole)] == [2, 3], "one a step, not one a rank"
    one, other = load_checkpoint(whole), load_checkpoint(broken)
    assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
    assert "0.weight" in one["model"], "not module.0.weight"


def test_a_single_process_starts_a_run_as_ever(tmp_path: Path) -> None:
    """Guards scripts that are run with and without torchrun."""
    before = mlcore.client()
    mlcore.set_store(tmp_path / "store")
    with start_run(name="alone") as run:
        assert mlcore.active_run() is run
    assert mlcore.get_run(run.id).name == "alone"
    mlcore.set_store(before.setting.value)


def test_ranks_that_do_not_know_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a run for each rank."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidValue, match="init_process_group"):
        start_run()

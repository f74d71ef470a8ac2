"""What a monitor records of a training loop, and when."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import mlcore
import mlcore_torch
from house.pages import headings
from house.tree import ROOT
from mlcore.errors import InvalidValue
from mlcore_torch import Monitor

torch.set_num_threads(1)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[mlcore.Run]:
    """Give a run in a store of its own."""
    with mlcore.Client(tmp_path / "store").start_run() as run:
        yield run


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the same small network each time, and its optimizer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """Do one step."""
    optimizer.zero_grad()
    loss: torch.Tensor = model(torch.randn(16, 4)).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def norm(model: nn.Module) -> float:
    """Return the norm of all gradients, the plain way."""
    return float(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]).norm())


def test_a_monitor_logs_the_first_step_and_each_at_its_interval(run: mlcore.Run) -> None:
    """Guards what is logged, and that steps between are not."""
    model, optimizer = network()
    with Monitor(model, optimizer, every=10) as monitor:
        losses = []
        for _ in range(25):
            loss = train(model, optimizer)
            losses.append(loss.item())
            monitor.step(loss, samples=16)
    assert list(run.series("train.loss").steps) == [1, 10, 20]
    assert list(run.series("train.loss").values) == [losses[0], losses[9], losses[19]]
    assert list(run.series("train.learning_rate").values) == [0.1] * 3
    assert list(run.series("train.gradient_norm").steps) == [1, 10, 20]
    assert list(run.series("train.step_seconds").steps) == [10, 20]
    rate, seconds = run.series("train.samples_per_second").values, run.series("train.step_seconds").values
    assert [16 / each for each in seconds] == pytest.approx(list(rate))
    assert 50 < run.metrics["train.memory_mb"] < 50_000
    assert monitor.steps == 25


def test_the_norm_is_that_of_before_clipping_whatever_becomes_of_the_gradients(run: mlcore.Run) -> None:
    """Guards against norms that are all the same, and against a call that comes after `zero_grad`."""
    model, optimizer = network()
    expected = []
    with Monitor(model, optimizer, every=2) as monitor:
        for step in range(1, 7):
            loss = model(torch.randn(16, 4)).square().mean()
            loss.backward()
            if step == 1 or step % 2 == 0:
                expected.append(norm(model))
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            optimizer.zero_grad()
            monitor.step(loss)
    assert list(run.series("train.gradient_norm").values) == pytest.approx(expected, rel=1e-5)


def test_gradients_that_are_accumulated_and_scaled_are_told_as_they_are_used(run: mlcore.Run) -> None:
    """Guards accumulation over several passes, and the scale of mixed precision."""
    model, optimizer = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Monitor(model, optimizer, every=1, scaler=scaler) as monitor:
        for _ in range(3):
            loss = model(torch.randn(16, 4)).square().mean()
            scaler.scale(loss).backward()
        told = norm(model) / 1024
        scaler.step(optimizer)
        scaler.update()
        monitor.step(loss)
    assert run.metrics["train.gradient_norm"] == pytest.approx(told, rel=1e-5)


def test_a_part_that_has_no_gradient_at_times_is_no_problem(run: mlcore.Run) -> None:
    """Guards networks of which some steps use a part: it is looked for again, and nothing old is told."""
    first, second = nn.Linear(4, 2), nn.Linear(4, 2)
    model = nn.ModuleList([first, second])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        for part in (first, second, second, first):
            optimizer.zero_grad()
            part(torch.randn(3, 4)).sum().backward()
            monitor.step()
    assert list(run.series("train.gradient_norm").steps) == [1, 3]
    second.weight.requires_grad_(False)
    with Monitor(second, every=1) as monitor:
        second(torch.randn(3, 4)).sum().backward()
        monitor.step()
    assert len(run.series("train.gradient_norm")) == 3


@pytest.mark.parametrize("reentrant", [True, False])
def test_activations_that_are_computed_again_change_no_norm(reentrant: bool, run: mlcore.Run) -> None:
    """Guards passes within passes, of which each ends by itself."""
    parts = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])
    expected = []
    with Monitor(parts, every=1) as monitor:
        for _ in range(3):
            parts.zero_grad()
            found = torch.randn(3, 4, requires_grad=True)
            for part in parts:
                found = torch.utils.checkpoint.checkpoint(part, found, use_reentrant=reentrant)
            found.sum().backward()
            expected.append(norm(parts))
            monitor.step()
    assert list(run.series("train.gradient_norm").values) == pytest.approx(expected, rel=1e-5)


def test_sparse_and_mixed_gradients_have_a_norm(run: mlcore.Run) -> None:
    """Guards embeddings, and networks of several dtypes."""
    table, layer = nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2).double()
    with Monitor(nn.ModuleList([table, layer]), every=1) as monitor:
        layer(table(torch.tensor([1, 1, 3])).double()).sum().backward()
        monitor.step()
    assert table.weight.grad is not None
    whole = torch.cat(
        [table.weight.grad.to_dense().flatten().double(), *(p.grad.flatten() for p in layer.parameters())]
    )
    assert run.metrics["train.gradient_norm"] == pytest.approx(float(whole.norm()), rel=1e-5)


def test_each_group_has_its_learning_rate(run: mlcore.Run) -> None:
    """Guards optimizers with several groups, named or not, and rates that are tensors."""
    model, _ = network()
    groups = [
        {"params": model[0].parameters(), "lr": torch.tensor(0.5), "name": "body"},
        {"params": model[2].parameters()},
    ]
    Monitor(None, torch.optim.AdamW(groups, lr=0.25), every=1, memory=False).step()
    assert run.metrics == {"train.learning_rate.body": 0.5, "train.learning_rate.1": 0.25}


def test_a_phase_logs_means_and_its_time_is_not_the_training_s(run: mlcore.Run) -> None:
    """Guards validation: weighted by the size of the batches, at the step that was reached."""
    monitor = Monitor(every=2, memory=False)
    for _ in range(4):
        monitor.step(1.0)
        if monitor.steps == 3:
            with monitor.phase("valid") as valid:
                time.sleep(0.3)
                valid.add(3, loss=torch.tensor(2.0), accuracy=0.5)
                valid.add(1, loss=torch.tensor(6.0), accuracy=1.0)
            assert monitor.logged == {"valid.loss": 3.0, "valid.accuracy": 0.625}
    assert list(run.series("valid.loss").steps) == [3]
    assert max(run.series("train.step_seconds").values) < 0.15
    assert "valid.loss" not in monitor.logged, "a step later it is that of other weights"


def test_a_monitor_leaves_the_module_as_it_was(run: mlcore.Run) -> None:
    """Guards `with`: no hook stays, also when the loop breaks off."""
    model, optimizer = network()
    with pytest.raises(ZeroDivisionError), Monitor(model, optimizer, every=1) as monitor:
        monitor.step(train(model, optimizer), samples=1 // 0)
    assert not any(each._post_accumulate_grad_hooks for each in model.parameters())


def test_what_is_recorded_changes_nothing_of_the_training(run: mlcore.Run) -> None:
    """Guards the weights and the random numbers."""
    ended = []
    for watched in (True, False):
        model, optimizer = network()
        monitor = Monitor(model, optimizer, every=3) if watched else None
        for _ in range(10):
            loss = train(model, optimizer)
            if monitor is not None:
                monitor.step(loss)
        ended.append([each.detach().clone() for each in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))


def test_a_named_run_and_a_prefix_count(tmp_path: Path) -> None:
    """Guards several models in one process, as in a search."""
    client = mlcore.Client(tmp_path / "store")
    first = client.start_run()
    with client.start_run(nested=True) as second:
        Monitor(every=1, run=first, prefix="critic", memory=False).step(2)
        Monitor(every=1, memory=False).step(3)
    first.end()
    assert (first.metrics, second.metrics) == ({"critic.loss": 2.0}, {"train.loss": 3.0})


def test_an_interval_of_nothing_is_refused() -> None:
    """Guards the message."""
    with pytest.raises(InvalidValue, match="every is a number of steps"):
        Monitor(every=0)


def test_a_training_that_ended_may_go_on_for_more_epochs() -> None:
    """Guards a checkpoint of after the loop, and one of before it."""
    monitor, other = Monitor(memory=False), Monitor(memory=False)
    other.load_state_dict(monitor.state_dict())
    assert list(other.epochs(2)) == [0, 1]
    monitor.load_state_dict(other.state_dict())
    assert list(monitor.epochs(4)) == [2, 3]
    assert list(monitor.epochs(4)) == []


def test_the_reference_has_every_name() -> None:
    """Guards docs/reference/training.md: public names, with their arguments, methods and properties."""
    page = (ROOT / "docs" / "reference" / "training.md").read_text()
    found = set(headings(page))
    for name in mlcore_torch.__all__:
        value = getattr(mlcore_torch, name)
        assert name in found or call(name, value) in found, name
        if inspect.isclass(value):
            own = [each for each in vars(value) if not each.startswith("_")]
            assert [each for each in own if f"`{each}" not in page] == [], name


def call(name: str, function: Callable[..., object]) -> str:
    """Return a function as its heading shows it."""
    signature = inspect.signature(function)
    shown = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=shown, return_annotation=signature.empty)}"

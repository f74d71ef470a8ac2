"""Lightning's Trainer logs to a run, keeps its checkpoints there, and goes on from them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlcore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Lightning's own imports
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed: pip install lightning")

from mlcore_torch import list_checkpoints
from mlcore_torch.lightning import MlcoreCheckpoint, MlcoreLogger

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::Warning:lightning", "ignore::Warning:torch.utils.data")


class Network(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, width: int = 8, rate: float = 0.01, act: Any = nn.ReLU) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["act"])
        self.layers = nn.Sequential(nn.Linear(4, width), act(), nn.Linear(width, 2))

    def training_step(self, batch: Any, _: int) -> Any:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["rate"])
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Broken(Exception):
    pass


class Breaking(lightning.Callback):  # type: ignore[misc, name-defined]
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise Broken


@pytest.fixture(autouse=True)
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlcore.Client]:
    """Give a store that module-level functions use."""
    monkeypatch.chdir(tmp_path)
    before = mlcore.client()
    yield mlcore.set_store(tmp_path / "store")
    mlcore.set_store(before.setting.value)


def fit(epochs: int, *callbacks: Any, logger: Any = True, ckpt_path: str | None = None) -> Any:
    """Train a small network, always from the same weights and data."""
    torch.manual_seed(0)
    rows = torch.randn(48, 4)
    data = TensorDataset(rows, (rows.sum(1) > 0).long())
    model = Network()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=logger, callbacks=list(callbacks), log_every_n_steps=2,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(each, MlcoreCheckpoint) for each in callbacks),
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, 8), DataLoader(data, 16), ckpt_path=ckpt_path)
    return model


def test_a_trainer_logs_metrics_hyperparameters_and_checkpoints(client: mlcore.Client) -> None:
    """Guards the logger and the checkpoints, with the active run."""
    with mlcore.start_run() as run:
        logger = MlcoreLogger()
        fit(4, MlcoreCheckpoint("val_loss", save_top_k=2), logger=logger)
        assert (logger.experiment.id, logger.version) == (run.id, run.id)
    back = client.get_run(run.id)
    assert back.status == "FINISHED"
    assert back.params == {"width": 8, "rate": 0.01}
    assert len(back.series("train_loss")) == 12
    assert len(back.series("val_loss")) == 4
    found = list_checkpoints(back)
    assert [each.step for each in found][-1] == 24
    assert found[-1].metrics["val_loss"] == pytest.approx(back.metrics["val_loss"])
    assert len(back.artifacts.list("checkpoints")) <= 2 * 4


def test_a_training_that_broke_off_goes_on_as_the_same_run(client: mlcore.Client) -> None:
    """Guards resuming: the same weights and series as of one that was never broken off."""
    with mlcore.start_run(key="whole"):
        whole = fit(5, MlcoreCheckpoint(), logger=MlcoreLogger())
    with pytest.raises(Broken), mlcore.start_run(key="broken"):
        fit(5, MlcoreCheckpoint(), Breaking(3), logger=MlcoreLogger())
    with mlcore.start_run(key="broken", resume="must") as run:
        run.log_metric("train_loss", 99, step=100)  # of after the checkpoint: forgotten
        checkpoint = MlcoreCheckpoint()
        again = fit(5, checkpoint, logger=MlcoreLogger(), ckpt_path=checkpoint.path())
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    broken, alone = client.list_runs()
    for key in ("train_loss", "val_loss"):
        one, other = broken.series(key), alone.series(key)
        assert list(zip(one.steps, one.values, strict=True)) == list(zip(other.steps, other.values, strict=True))


def test_steps_are_saved_as_well_and_any_can_be_asked_for(client: mlcore.Client) -> None:
    """Guards `every_n_train_steps`, and `path`."""
    with mlcore.start_run():
        checkpoint = MlcoreCheckpoint("train_loss", save_top_k=50, every_n_train_steps=4)
        assert checkpoint.path() is None
        fit(2, checkpoint, logger=False)
        assert {each.step for each in list_checkpoints()} == {4, 6, 8, 12}
        path = checkpoint.path(4)
        assert path is not None
        assert torch.load(path, weights_only=True)["global_step"] == 4


def test_a_logger_without_a_run_starts_one(client: mlcore.Client) -> None:
    """Guards the shortest use, and that a failure is told."""
    with pytest.raises(Broken):
        fit(2, Breaking(1), logger=MlcoreLogger(prefix="net", name="by itself"))
    (run,) = client.list_runs()
    assert (run.name, run.status) == ("by itself", "FAILED")
    assert "net.train_loss" in run.metrics
    logger = MlcoreLogger(run=None, name="another")
    fit(1, logger=logger)
    assert client.list_runs()[0].status == "RUNNING", "a test may follow"
    logger.experiment.end()


def test_hyperparameters_that_are_no_values_are_told_by_what_they_show(client: mlcore.Client) -> None:
    """Guards modules and functions among hyperparameters."""
    with mlcore.start_run() as run:
        MlcoreLogger().log_hyperparams({"act": nn.ReLU(), "sizes": [1, 2], "inner": {"path": Path("x")}})
    assert client.get_run(run.id).params == {"act": "ReLU()", "sizes": [1, 2], "inner.path": "PosixPath('x')"}


class Marker:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("marker").touch, ()


def test_a_hostile_checkpoint_is_refused_by_lightning_and_leaves_no_marker(client: mlcore.Client) -> None:
    """Guards resuming from what somebody else wrote."""
    with mlcore.start_run() as run:
        fit(1, MlcoreCheckpoint(), logger=False)
        (known,) = list_checkpoints()
        torch.save({**torch.load(run.artifacts.get(known.file), weights_only=True), "more": Marker()}, "hostile")
        run.log_artifact("hostile", known.file)
        (about,) = run.artifacts.list(known.file)
        note = run.artifacts.get("checkpoints/slot-0.json").read_text()
        run.log_text(note.replace(known.sha256, about.sha256), "checkpoints/slot-0.json")
        checkpoint = MlcoreCheckpoint()
        with pytest.raises(Exception, match=r"(?i)weights.only"):
            fit(2, checkpoint, logger=False, ckpt_path=checkpoint.path())
    assert not Path("marker").exists()

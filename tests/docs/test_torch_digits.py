"""The example of a network: killed in the middle, gone on with, registered, loaded, and exported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy
import onnxruntime
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mlcore
from faults.processes import environment
from house.tree import ROOT
from mlcore_torch import list_checkpoints

EXAMPLE = ROOT / "docs" / "examples" / "torch_digits" / "train.py"
EPOCHS = 12


def started(folder: Path) -> subprocess.Popen[str]:
    """Start the example in a folder."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(EXAMPLE), "--epochs", str(EPOCHS)]
    return subprocess.Popen(
        command, cwd=folder, env=environment(folder, OMP_NUM_THREADS="1"), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def killed(folder: Path, epoch: int) -> None:
    """Start the example, and kill it as soon as it told of an epoch."""
    process = started(folder)
    assert process.stdout is not None
    try:
        assert any(line.startswith(f"epoch {epoch}:") for line in process.stdout), (
            process.stderr and process.stderr.read()
        )
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the example, and return what it prints."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return where a training was killed and gone on with, and what it said in the end."""
    folder = tmp_path_factory.mktemp("killed")
    killed(folder, 3)
    return folder, ended(started(folder))


def test_it_goes_on_as_the_same_run(trained: tuple[Path, str]) -> None:
    """Guards that there is one run, with every epoch once, and that it went on from what was kept."""
    folder, said = trained
    (run,) = mlcore.Client(folder / ".mlcore").list_runs("torch digits")
    assert run.status == "FINISHED"
    resumed = re.search(r"goes on after epoch (\d+)", said)
    assert resumed is not None
    assert int(resumed[1]) >= 2
    assert f"epoch {EPOCHS - 1}:" in said
    assert "epoch 0:" not in said
    steps = list(run.series("valid.loss").steps)
    assert len(steps) == len(set(steps)) == EPOCHS
    assert steps == sorted(steps)
    assert [each.epoch for each in list_checkpoints(run)][-1] == EPOCHS - 1
    assert len(list_checkpoints(run)) <= 3
    assert {"train.loss", "train.learning_rate", "train.gradient_norm", "train.step_seconds"} <= set(run.metrics)


def test_what_was_registered_predicts_as_it_did(trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way from a training to who uses it: the model, and the same in ONNX."""
    folder, said = trained
    assert "its scores differ by 0" in said
    monkeypatch.setenv("MLCORE_STORE", str(folder / ".mlcore"))
    images, digits = load_digits(return_X_y=True)
    _, images, _, digits = train_test_split(images.astype("float32") / 16, digits, test_size=0.3, random_state=0)
    client = mlcore.Client(folder / ".mlcore")
    model = client.load_model("models:/torch-digits/1")
    scores = model.predict(images)
    assert numpy.mean(scores.argmax(axis=1) == digits) > 0.95
    (run,) = client.list_runs("torch digits")
    session = onnxruntime.InferenceSession(run.artifacts.get("digits.onnx").read_bytes())
    (exported,) = session.run(None, {session.get_inputs()[0].name: images})
    numpy.testing.assert_allclose(exported, scores, atol=1e-4)
    assert [each.version for each in client.registry.get("torch-digits").versions] == ["1"]

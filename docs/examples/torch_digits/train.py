"""Train a small network on scikit-learn's digits as a run that may be killed at any moment.

Started again, it finds its run, goes on from the last checkpoint, and ends as if nothing had happened. Then the best
network is registered, loaded as anybody would load it, and asked.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import mlcore
from mlcore_torch import Checkpoints, Monitor, load_checkpoint

BATCH = 64


class Network(nn.Module):
    """Tell digits apart: two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.decide = nn.Sequential(nn.Dropout(0.2), nn.Linear(32 * 4 * 4, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return how much each image, of 64 numbers from 0 to 1, looks like each digit."""
        return self.decide(self.look(images.reshape(-1, 1, 8, 8)).flatten(1))


def train(epochs: int, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> Network:
    """Train one network, or go on with it, and return it as it was at its best."""
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    monitor = Monitor(network, optimizer, every=10)
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler, "monitor": monitor}
    with monitor, Checkpoints(best="valid.loss", keep_best=2, **parts) as checkpoints:
        if last := checkpoints.restore():
            print(f"goes on after epoch {last.epoch}, step {last.step}", flush=True)
        for epoch in range(last.epoch + 1 if last else 0, epochs):
            monitor.epoch = epoch
            network.train()
            for rows in torch.randperm(len(train[0])).split(BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(train[0][rows]), train[1][rows])
                loss.backward()
                optimizer.step()
                monitor.step(loss, samples=len(rows))
            scheduler.step()
            with monitor.phase("valid") as means:
                scores = chances(network, valid[0])
                right = (scores.argmax(dim=1) == valid[1]).float().mean()
                means.add(loss=nn.functional.cross_entropy(scores, valid[1]), accuracy=right)
            print(f"epoch {epoch}: {right:.1%} of the digits that it had not seen are right", flush=True)
            checkpoints.save()
    network.load_state_dict(load_checkpoint(which="best")["network"])
    return network


def chances(network: Network, images: Tensor) -> Tensor:
    """Ask a network, which then does not learn."""
    network.eval()
    with torch.inference_mode():
        return network(images)


def keep(network: Network, images: Tensor) -> None:
    """Keep the network with the run as a model of the registry, and for other runtimes in ONNX."""
    mlcore.log_model(network, "model", input_example=images[:2].numpy(), register="torch-digits")
    if not find_spec("onnx") or not find_spec("onnxscript"):
        print("it is not exported to ONNX: that takes pip install onnx onnxscript")
        return
    with TemporaryDirectory() as folder:
        file = Path(folder, "digits.onnx")
        shapes = {"images": {0: torch.export.Dim("batch")}}
        torch.onnx.export(
            network, (images[:2],), file, input_names=["images"], output_names=["scores"], dynamic_shapes=shapes,
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
        mlcore.log_artifact(file)


def compare(scores: Tensor, images: Tensor, labels: Tensor) -> None:
    """Load the model as anybody would, and tell whether it says the same as before it was saved."""
    model = mlcore.load_model("models:/torch-digits/latest")
    loaded = model.predict(images.numpy())
    right = np.mean(loaded.argmax(axis=1) == labels.numpy())
    print(f"{model}\ngets {right:.1%} right; its scores differ by {np.abs(loaded - scores.numpy()).max():.1g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="how often every image is shown")
    parser.add_argument("--seed", type=int, default=0, help="what chance begins with")
    asked = parser.parse_args()

    torch.manual_seed(asked.seed)
    images, digits = load_digits(return_X_y=True)
    parts = train_test_split(images.astype("float32") / 16, digits, test_size=0.3, random_state=0)
    x_train, x_valid, y_train, y_valid = map(torch.as_tensor, parts)
    mlcore.set_experiment("torch digits")
    with mlcore.start_run(key=f"{asked.epochs} epochs, seed {asked.seed}", name="network"):
        mlcore.log_params({"epochs": asked.epochs, "seed": asked.seed, "batch": BATCH})
        mlcore.log_dataset(x_train.numpy(), name="digits", context="train")
        network = train(asked.epochs, (x_train, y_train), (x_valid, y_valid))
        keep(network, x_valid)
        compare(chances(network, x_valid), x_valid, y_valid)

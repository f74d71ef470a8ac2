# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-learn>=1.5"]
#
# [tool.mlcore.environment]
# requirements = ["../../../core", "../../../plugins/mlcore-local", "../../../plugins/mlcore-sklearn"]
#
# [tool.mlcore.parameters]
# epochs = { type = "int", default = 8, help = "how often every image is shown" }
# lr = { type = "float", default = 0.003, help = "the learning rate" }
# hidden = { type = "int", default = 32, help = "how many units the hidden layer has" }
# seed = { type = "int", default = 0, help = "what chance begins with" }
# ///
"""Train a small neural net on scikit-learn's digits, as one run.

The same file is run in four ways: as the entry point of MLproject or of pyproject.toml, as a script with the metadata
above, or as a command. What it learns is the same in all of them.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import mlcore

BATCH = 64


def options() -> argparse.Namespace:
    """Read what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8, help="how often every image is shown")
    parser.add_argument("--lr", type=float, default=0.003, help="the learning rate")
    parser.add_argument("--hidden", type=int, default=32, help="how many units the hidden layer has")
    parser.add_argument("--seed", type=int, default=0, help="what chance begins with")
    return parser.parse_args()


def train(asked: argparse.Namespace) -> None:
    """Train one network: log what it was given, how it learns, and the model itself."""
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(images / 16, digits, test_size=0.3, random_state=asked.seed)
    mlcore.log_params(vars(asked))
    mlcore.log_dataset(x_train, name="digits", context="train")
    mlcore.log_dataset(x_valid, name="digits", context="valid")

    model = MLPClassifier((asked.hidden,), learning_rate_init=asked.lr, random_state=asked.seed)
    shuffle = np.random.default_rng(asked.seed)
    for epoch in range(asked.epochs):
        for rows in np.array_split(shuffle.permutation(len(y_train)), len(y_train) // BATCH):
            model.partial_fit(x_train[rows], y_train[rows], classes=range(10))
        chances = model.predict_proba(x_valid)
        accuracy, loss = accuracy_score(y_valid, chances.argmax(axis=1)), log_loss(y_valid, chances)
        mlcore.log_metrics({"accuracy": accuracy, "loss": loss}, step=epoch)
    print(f"{accuracy:.1%} of the digits it had not seen are right")
    mlcore.log_model(model, "model", input_example=x_valid[:5])


if __name__ == "__main__":
    mlcore.set_experiment("digits")
    with mlcore.start_run():
        train(options())

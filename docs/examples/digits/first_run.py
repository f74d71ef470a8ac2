"""Train five classifiers on scikit-learn's digits, read back how they learned, register the best, load it and predict.

Run it as it is: the runs go into the folder .mlcore of your project, and `mlcore where` says which one that is.
"""

import os
from importlib.resources import files

import numpy as np
from matplotlib.figure import Figure
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neural_network import MLPClassifier

import mlcore

EPOCHS, BATCH = 15, 64
CLASSIFIERS = {
    "logistic": SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.03, random_state=0),
    "huber": SGDClassifier(loss="modified_huber", learning_rate="constant", eta0=0.01, random_state=0),
    "neural net": MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=0.003, random_state=0),
    "gaussian": GaussianNB(var_smoothing=0.01),
    "bernoulli": BernoulliNB(binarize=0.4),
}
Split = tuple[np.ndarray, np.ndarray]


def train(name: str, model: ClassifierMixin, splits: dict[str, Split]) -> None:
    """Train one classifier as one run: log how it learns, what it confuses, and the model itself."""
    images, digits = splits["train"]
    shuffle, batch_losses = np.random.default_rng(seed=0), []
    with mlcore.start_run(name=name, tags={"dataset": "digits", "class": type(model).__name__}):
        mlcore.log_params({"epochs": EPOCHS, "batch": BATCH, "model": model.get_params()})
        mlcore.log_reference(files("sklearn.datasets.data") / "digits.csv.gz", "data/digits.csv.gz")
        for epoch in range(EPOCHS):
            for rows in np.array_split(shuffle.permutation(len(digits)), len(digits) // BATCH):
                model.partial_fit(images[rows], digits[rows], classes=range(10))
                chances = model.predict_proba(images[rows])
                batch_losses.append(log_loss(digits[rows], chances, labels=range(10)))
            for split, (inputs, labels) in splits.items():
                chances = model.predict_proba(inputs)
                accuracy, loss = accuracy_score(labels, chances.argmax(axis=1)), log_loss(labels, chances)
                mlcore.log_metrics({f"accuracy.{split}": accuracy, f"loss.{split}": loss}, step=epoch)
        mlcore.log_points("loss.batch", range(len(batch_losses)), batch_losses)
        mlcore.log_figure(confusion(model, *splits["valid"]), "confusion.png")
        mlcore.log_model(model, "model", input_example=images[:5])


def confusion(model: ClassifierMixin, images: np.ndarray, digits: np.ndarray) -> Figure:
    """Plot which digits the model takes for which."""
    figure = Figure(figsize=(6, 6), layout="tight")
    ConfusionMatrixDisplay.from_estimator(model, images, digits, ax=figure.subplots(), colorbar=False)
    return figure


def show() -> mlcore.Run:
    """Print what the store holds, all runs and how the best one learned, and return that one."""
    runs = mlcore.list_runs()
    print(runs)

    best = max(runs, key=lambda run: run.metrics.get("accuracy.valid", 0))
    print(f"\nBest: {best.name} ({best.id[-8:]}), {best.tags['class']}, batches of {best.params['batch']}\n")
    print("epoch  loss.train  loss.valid")
    train, valid = best.series("loss.train"), best.series("loss.valid")
    for epoch, seen, unseen in zip(valid.steps, train.values, valid.values, strict=True):
        print(f"{epoch:5}  {seen:10.4f}  {unseen:10.4f}  {'#' * round(60 * unseen / max(valid.values))}")
    return best


def register(run: mlcore.Run) -> None:
    """Make the model of a run a version of the model "digits", and let @champion stand for it from now on."""
    told = f"{run.metrics['accuracy.valid']:.1%} of the digits that it had not seen are right"
    version = mlcore.register_model(f"runs:/{run.id}/model", "digits", description=told, tags={"run": run.name})
    model = mlcore.registry.get("digits")
    before = model.aliases.get("champion")
    model.set_alias("champion", version)
    print(f"\n@champion is version {version.version} of digits, and was {before.version if before else 'none'}")


def predict(images: np.ndarray, digits: np.ndarray) -> None:
    """Load the champion, whichever version that is, and ask it."""
    model = mlcore.load_model("models:/digits@champion")
    right = (model.predict(images) == digits).sum()
    print(f"\n{model}\ngets {right} of {len(digits)} digits right;")
    print(f"it takes the first ten for {model.predict(images[:10])}, and they are {digits[:10]}")


if __name__ == "__main__":
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(images / 16, digits, test_size=0.3, random_state=0)
    mlcore.set_experiment("digits")
    for name, model in CLASSIFIERS.items():
        train(name, model, {"train": (x_train, y_train), "valid": (x_valid, y_valid)})
    best = show()
    print(f"What it confuses: {os.path.relpath(best.artifacts.get('confusion.png'))}")
    register(best)
    predict(x_valid, y_valid)

"""The kit for flavors, run on estimators of every kind that is kept in its own way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import Birch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlcore.testing import FlavorContract

ROWS = np.random.default_rng(0).normal(size=(60, 3))
CLASSES = (ROWS.sum(axis=1) > 0).astype(int)


class TestArchives(FlavorContract):
    """What skops holds needs no trust."""

    flavor = "sklearn"

    def model_and_data(self) -> tuple[Any, Any]:
        return RandomForestClassifier(5, random_state=0).fit(ROWS, CLASSES), ROWS[:4]


class TestPipelinesOfFrames(FlavorContract):
    """Columns of strings and numbers, by name."""

    flavor = "sklearn"

    def model_and_data(self) -> tuple[Any, Any]:
        frame = pd.DataFrame({"size": ROWS[:, 0], "town": np.where(ROWS[:, 1] > 0, "Ulm", "Jena")})
        columns = make_column_transformer((OneHotEncoder(), ["town"]), (StandardScaler(), ["size"]))
        return make_pipeline(columns, LogisticRegression()).fit(frame, CLASSES), frame[:4]


class TestPickles(FlavorContract):
    """What skops cannot hold is loaded by those who trust what it names."""

    flavor = "sklearn"
    trust = ("sklearn.*", "numpy.*", "scipy.*")

    def model_and_data(self) -> tuple[Any, Any]:
        return Birch(n_clusters=2).fit(ROWS), ROWS[:4]


class TestTransformers(FlavorContract):
    """What transforms is asked to, by MLflow's generic reader too."""

    flavor = "sklearn"

    def model_and_data(self) -> tuple[Any, Any]:
        return StandardScaler().fit(ROWS), ROWS[:4]

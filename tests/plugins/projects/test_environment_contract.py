"""The kinds of environments that come with mlcore-projects keep the contract that every kind has."""

from __future__ import annotations

from mlcore_projects.testing import EnvironmentContract


class TestUv(EnvironmentContract):
    kind = "uv"


class TestVenv(EnvironmentContract):
    kind = "venv"

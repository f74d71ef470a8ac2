"""Hand MLflow's environment to every test in this folder."""

from __future__ import annotations

from interop.environments import mlflow_python, mlflow_run

__all__ = ["mlflow_python", "mlflow_run"]

"""The Python flavor keeps every promise of a flavor."""

from __future__ import annotations

import textwrap
from typing import Any

import mlcore
from mlcore.testing import FlavorContract


class TestClass(FlavorContract):
    """Guards an instance of a class, whose code is pickled."""

    flavor = "python_function"
    trust = ("cloudpickle.cloudpickle.*", "types.*", "builtins.type")  # which is all code: it is in the pickle

    def model_and_data(self) -> tuple[Any, Any]:
        class Double(mlcore.PythonModel):
            def predict(self, data: Any, params: Any = None) -> Any:
                return [2 * x for x in data]

        return Double(), [1, 2, 3]


class TestNamed(FlavorContract):
    """Guards a function that is imported by its name."""

    flavor = "python_function"
    trust = ("textwrap.dedent",)

    def model_and_data(self) -> tuple[Any, Any]:
        return textwrap.dedent, "  a"

"""What mlcore-python brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import FlavorProvider


def mlcore_flavors() -> Iterable[FlavorProvider]:
    """Provide models that are Python functions, classes or scripts."""
    types = ("mlcore.PythonModel", "builtins.function", "builtins.str", "pathlib.PurePath")
    return [FlavorProvider("python_function", "mlcore_python.flavor:PythonFunction", "Python code", types=types)]

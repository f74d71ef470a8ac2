"""What mlcore-projects brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_environments() -> Iterable[Provider]:
    """Provide what makes environments on this machine."""
    return [
        Provider("system", "mlcore_projects.system:SystemEnvironments", "the Python that runs mlcore, as it is"),
        Provider("uv", "mlcore_projects.uv:UvEnvironments", "virtual environments made by uv"),
        Provider(
            "venv", "mlcore_projects.venv:VenvEnvironments", "virtual environments of the standard library, and pip"
        ),
    ]


def mlcore_runners() -> Iterable[Provider]:
    """Provide the runner of this machine."""
    return [Provider("local", "mlcore_projects.local:LocalRunner", "processes on this machine")]

"""What mlcore-projects brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_runners() -> Iterable[Provider]:
    """Provide the runner of this machine."""
    return [Provider("local", "mlcore_projects.local:LocalRunner", "processes on this machine")]

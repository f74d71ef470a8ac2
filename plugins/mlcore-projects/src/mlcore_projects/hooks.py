"""What mlcore-projects brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from mlcore.hookspecs import Provider


def mlcore_commands() -> list[Provider]:
    """Provide the commands around projects."""
    return [Provider("projects", "mlcore_projects.project_commands:projects", "Look at projects, and check them.")]

"""What mlcore-projects brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_commands() -> Iterable[Provider]:
    """Provide the commands around projects."""
    return [
        Provider("envs", "mlcore_projects.environment_commands:envs", "List, show and remove environments."),
        Provider("projects", "mlcore_projects.project_commands:projects", "Look at projects, and check them."),
        Provider("reproduce", "mlcore_projects.reproduce_commands:command", "Make a run again, and compare the two."),
        Provider("run", "mlcore_projects.run_commands:command", "Run a project, or any command, as a run."),
        Provider("runs reconcile", "mlcore_projects.run_commands:reconcile_command", "Ask how jobs ended meanwhile."),
    ]


def mlcore_environments() -> Iterable[Provider]:
    """Provide what makes environments on this machine."""
    return [
        Provider("system", "mlcore_projects.system:SystemEnvironments", "the Python that runs mlcore, as it is"),
        Provider("uv", "mlcore_projects.uv:UvEnvironments", "virtual environments made by uv"),
        Provider("venv", "mlcore_projects.venv:VenvEnvironments", "virtual environments made by venv and pip"),
    ]


def mlcore_runners() -> Iterable[Provider]:
    """Provide the runner of this machine."""
    return [Provider("local", "mlcore_projects.local:LocalRunner", "processes on this machine")]

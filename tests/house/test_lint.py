"""Run the linters as tests, so that one command says all."""

from __future__ import annotations

import pytest

from house.tree import run


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_the_linter_has_nothing_to_say(command: list[str]) -> None:
    """Guards the rules in pyproject.toml."""
    run("-m", *command)

"""Leave slow tests for CI, unless they are asked for."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked slow, unless MLCORE_TEST_ALL=1."""
    if os.environ.get("MLCORE_TEST_ALL") == "1":
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: set MLCORE_TEST_ALL=1"))

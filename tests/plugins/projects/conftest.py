"""Give tests a cache of their own, and git repositories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repositories import git_in


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep what is fetched and built out of the user's cache, and the user's git settings out of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(folder / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return folder / "mlcore"


@pytest.fixture
def git() -> Callable[..., str]:
    """Return a function that runs git in a folder, as somebody."""
    return git_in

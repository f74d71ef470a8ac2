"""The kit for flavors: a sound flavor passes, and for each check one that is broken in one way fails it."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytest

import toy_flavor
from house.tree import ROOT
from mlcore.testing import FlavorContract
from toy_library import Scale

CHECKS = sorted(name for name in dir(FlavorContract) if name.startswith("test_"))
DATA = [1.5, -2.0, 1e-3]


class TestToy(FlavorContract):
    """The sound flavor, of a plugin that is not installed."""

    flavor = "toy"
    plugin = toy_flavor

    @pytest.fixture(autouse=True)
    def _importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT / "tests"), found])))
        for place in ("mlcore.models", "mlcore.models._save"):  # no distribution brings the toy
            monkeypatch.setattr(
                f"{place}.distribution_of", lambda module: "PyYAML" if module == "toy_library" else None
            )

    def model_and_data(self) -> tuple[Any, Any]:
        return Scale(1 / 3), DATA


class _Broken(TestToy):
    __test__ = False


@pytest.mark.parametrize(("check", "mutant"), toy_flavor.MUTANTS)
def test_a_broken_flavor_is_found_out(check: str, mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that every check of the kit can fail."""
    monkeypatch.setenv("MLCORE_TOY", mutant)
    contract = _Broken()
    contract._importable.__wrapped__(contract, monkeypatch)  # type: ignore[attr-defined]
    alone = contract._alone.__wrapped__(contract, tmp_path, monkeypatch)  # type: ignore[attr-defined]
    next(alone)
    try:
        method = getattr(contract, check)
        arguments = [tmp_path] if "tmp_path" in inspect.signature(method).parameters else []
        with pytest.raises((Exception, pytest.fail.Exception)) as found:
            method(*arguments)
        assert not isinstance(found.value, AttributeError | TypeError), found.value
    finally:
        next(alone, None)


def test_every_check_bites() -> None:
    """Guards that a check that is added comes with a flavor that it finds out."""
    assert {check for check, _ in toy_flavor.MUTANTS} == set(CHECKS)

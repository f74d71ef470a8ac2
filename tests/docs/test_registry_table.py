"""Keep the table true that says where the methods of MLflow's registry went: what it shows runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlcore
from house.tree import ROOT
from mlcore import registry

_ROW = re.compile(r"^\| `([\w.]+)` \| (.+) \|$", re.MULTILINE)
TABLE = dict(_ROW.findall((ROOT / "docs" / "reference" / "registry.md").read_text().partition("## Where MLflow's")[2]))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Yield what the table's code may name, for a store with one model of two versions."""
    monkeypatch.chdir(tmp_path)
    mlcore.set_store(tmp_path / "store")
    mlcore.save_model(lambda data: data, "model")
    model = mlcore.register_model("model", "digits", tags={"team": "a"}, aliases="best").model
    model.set_tag("team", "a")
    registry.register("model", "digits").transition("Production")
    yield {"mlcore": mlcore, "registry": registry, "model": model, "version": model.version(1)}
    mlcore.set_store("off")


@pytest.mark.parametrize("method", TABLE)
def test_each_counterpart_runs(method: str, names: dict[str, Any]) -> None:
    """Guards the right side of the table: each piece of code that it shows does what it says, on a small registry."""
    codes = re.findall(r"`(.+?)`", TABLE[method])
    assert codes
    for code in codes:
        eval(code, names)

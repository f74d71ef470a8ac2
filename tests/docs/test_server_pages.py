"""Keep the pages on the server true: every route and option is told of, and the examples are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

from house.pages import blocks, headings
from house.tree import ROOT
from mlcore_server.settings import Settings
from serving import serving

REFERENCE = ROOT / "docs" / "reference"
TOKEN = "mlc_0123456789abcdefghijklmnopqrstuvwxyz"


def test_the_examples_of_the_api_run_and_no_route_is_missing(tmp_path: Path) -> None:
    """Guards what readers paste: all sh blocks of the page, in order, as one script, against a real server."""
    if shutil.which("curl") is None:
        pytest.skip("no curl: apt-get install --no-install-recommends curl (or what your system calls it)")
    page = (REFERENCE / "http-api.md").read_text()
    script = "set -eu\n" + "\n".join(block for _, block in blocks(page, "sh"))
    with serving(tmp_path / "store", token=TOKEN) as server:
        environment = {**os.environ, "URL": server.url, "TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        paths = server.get("/openapi.json").json["paths"]
    routes = {f"`{method.upper()} {path}`" for path, methods in paths.items() for method in methods}
    assert {each for each in headings(page) if each.startswith("`")} == routes


def test_the_page_of_the_server_tells_of_every_option() -> None:
    """Guards docs/reference/server.md against options that came or went, and against other defaults."""
    page = (REFERENCE / "server.md").read_text().partition("\n## Options\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(?:--)?([a-z-]+)`[^|]*\| ([^|]*) \|", page, re.MULTILINE))
    expected = {field.name.replace("_", "-"): field.default for field in attrs.fields(Settings)}
    assert sorted(rows) == sorted(expected)
    for name, default in expected.items():
        shown = rows[name].strip().replace(",", "")
        if isinstance(default, bool) or default in ("", ()):
            assert not shown.startswith("`"), name
        else:
            assert shown == f"`{default}`", name

"""A clean environment for a model: made of its requirements alone, to see whether they are enough."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from mlcore import plugins
from mlcore.config import OFF
from mlcore.errors import ModelError
from mlcore.models import Trust, check_signed, read_model

__all__ = ["Checked", "check_model"]


@attrs.frozen
class Checked:
    """Say what a model predicted for its example in a clean environment, and how long it took in s."""

    predictions: Any
    requirements: tuple[str, ...]
    seconds: float


def check_model(
    folder: Path, *, trust: Sequence[str] = (), everything: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Checked:
    """Load a model in a virtual environment made of its requirements.txt, and predict its example.

    The environment also gets the very mlcore and flavor that are installed here, and leaves out ``mlflow``, which only
    serves. Uses ``uv`` where there is one. Installing runs code as loading does, so what is not installed here already
    needs trust, as ``trust=["lightgbm==4.6.0"]``. Raises `Untrusted`, or `ModelError` with what pip or the model said.
    """
    started, hashed = time.monotonic(), check_signed(folder, {})
    info = read_model(folder)
    if "saved_input_example_info" not in info.raw:
        raise ModelError(f"model {folder} has no example to predict: save it with input_example=")
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").split("\n")
    needed = [line for line in lines if line and not line.startswith(("#", "mlflow"))]
    allowed = Trust.of(everything or trust or None, digest=info.verify(hashed), what=f"model {folder}")
    if strange := [line for line in needed if not _is_here(line)]:
        allowed.demand("its requirements install", *strange)
    provider = plugins.provided("flavors").get(info.flavor, [])
    own = ["mlcore", "mlcore-local", *(plugin.distribution for plugin, _ in provider if plugin.distribution)]
    with tempfile.TemporaryDirectory(prefix="mlcore-check-") as place:
        python = str(Path(place) / "bin" / "python")
        tell(f"making an environment of {', '.join(needed) or 'no requirements'}")
        if uv := shutil.which("uv"):
            _run([uv, "venv", "-q", "--python", sys.executable, place])
            _run([uv, "pip", "install", "-q", "--python", python, *needed, *map(_source, own)])
        else:
            _run([sys.executable, "-m", "venv", "--without-pip", place])
            _run([sys.executable, "-m", "pip", "--python", python, "install", "-q", *needed, *map(_source, own)])
        tell("loading the model and predicting its example")
        trusted = ["--trust-all"] if everything else [part for name in trust for part in ("--trust", name)]
        said = _run([python, "-I", "-m", "mlcore", "models", "predict", str(folder), "--example", *trusted], cwd=place)
    return Checked(json.loads(said)["predictions"], tuple(needed), time.monotonic() - started)


def _is_here(requirement: str) -> bool:
    """Tell whether a line of requirements is no option, path or URL, but a distribution that is installed here."""
    plain = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(\[[\w,. -]*\])?(\s*[=<>!~]=?=?\s*[\w.*+]+,?)*(\s*;[^@]*)?", requirement)
    try:
        return bool(plain and metadata.version(plain[1]))
    except metadata.PackageNotFoundError:
        return False


def _source(distribution: str) -> str:
    """Return what installs the very distribution that runs here: its folder if it came from one, else its version."""
    found = metadata.distribution(distribution)
    url = urlsplit(json.loads(found.read_text("direct_url.json") or "{}").get("url", ""))
    local = unquote(url.path) if url.scheme == "file" else ""
    return local if os.path.exists(local) else f"{distribution}=={found.version}"


def _run(command: Sequence[str], cwd: str | None = None) -> str:
    env = os.environ | {"MLCORE_REQUIRE_SIGNATURE": OFF}  # it was checked here, and what checks it is not there
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise ModelError(f"{Path(command[0]).name} {command[1]} failed in the clean environment:\n" + "\n".join(said))
    return done.stdout

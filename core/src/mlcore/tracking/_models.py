"""Models of runs: logged as artifacts, and found by URI."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcore.errors import InvalidValue
from mlcore.store import AttributesSet

if TYPE_CHECKING:
    from mlcore.models import Model, ModelInfo
    from mlcore.tracking._client import Client
    from mlcore.tracking._run import Run


def log_model(run: Run, model: Any, name: str, options: Mapping[str, Any]) -> ModelInfo:
    """Save a model, and keep it with a run under `name`."""
    from mlcore.artifacts import safe_path
    from mlcore.models import read_model, save_model

    about = {"run_id": run.id, "artifact_path": safe_path(name), "model_id": f"m-{uuid.uuid4().hex}"}
    with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
        info = save_model(model, Path(place) / "model", about=about, **options)
        run.log_artifacts(info.folder, name)
        digest = info.verify()
    about = {"id": about["model_id"], "flavor": info.flavor, "digest": digest, "time": int(time.time() * 1000)}
    run._write(AttributesSet("run", run.id, "models", {name: about}))
    return info

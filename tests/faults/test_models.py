"""Models when the disk is full or the process dies: whole, or not there, and the reason told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.processes import run

SAVE = """
    import json, os, resource, signal, sys
    import mlcore
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(20, random_state=0).fit(*load_digits(return_X_y=True))
    saved = {"sklearn": model, "python": lambda data: model.predict(data)}[sys.argv[1]]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        mlcore.save_model(saved, "model")
    except mlcore.errors.ModelError as error:
        print(json.dumps([str(error), os.listdir()]))
"""


@pytest.mark.parametrize("kind", ["sklearn", "python"])
def test_a_disk_that_is_full_is_told_of_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """Guards that a full disk is not taken for a model that cannot be saved, and tried again another way."""
    said, warned = run(tmp_path, SAVE, kind)
    told, left = json.loads(said)
    assert "cannot save a model at" in told
    assert "File too large" in told
    assert left == []
    assert "cloudpickle" not in warned

"""Do what another process asks for, a line of JSON each way, with one adapter loaded.

Every tool runs in a process of its own and one at a time, each under the Python of its own environment:
``python -P worker.py ADAPTER FOLDER``. What the tool prints goes to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType


def load(path: Path) -> ModuleType:
    """Import an adapter by its file, under a name that hides no library."""
    spec = importlib.util.spec_from_file_location(f"adapter_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serve(adapter: Path, folder: Path) -> None:
    """Answer until the other side closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tool = load(adapter).Adapter(folder)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"result": getattr(tool, name)(**arguments)}
        except Exception as error:  # noqa: BLE001 - told to whoever asked, who goes on without this number
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))

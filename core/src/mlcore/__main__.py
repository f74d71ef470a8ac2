"""Run the ``mlcore`` program as ``python -m mlcore``."""

from __future__ import annotations

from mlcore.cli import main

main()

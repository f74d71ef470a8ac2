"""Run the ``mlcore`` program as ``python -m mlcore``."""

from mlcore.cli import main

main()

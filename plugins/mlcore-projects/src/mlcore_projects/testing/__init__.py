"""The kits for those who write a plugin for projects: subclass a contract, name what you wrote, and run pytest.

::

    from mlcore_projects.testing import EnvironmentContract

    class TestMyEnvironments(EnvironmentContract):
        kind = "guix"

`RunnerContract` does the same for what runs jobs.

Needs pytest, which comes with ``pip install "mlcore[testing]"``.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mlcore_projects.testing._environments", "mlcore_projects.testing._runners")

from mlcore_projects.testing._environments import EnvironmentContract  # noqa: E402 - rewritten first
from mlcore_projects.testing._runners import RunnerContract  # noqa: E402 - the same

__all__ = ["EnvironmentContract", "RunnerContract"]

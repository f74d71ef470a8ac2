"""The kit for those who write a plugin: subclass a contract, say how to open what you wrote, and run pytest.

::

    from mlcore.testing import StoreContract

    class TestMyStore(StoreContract):
        def open_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "store")

Every call of what `open_store` returns must open one more handle on the same store, which is new for every
test. What the store can do decides which checks there are: state its ``capabilities`` in the class where they are
not the usual ones. `ArtifactBackendContract` does the same for filesystems that keep files. Comes with
``pip install "mlcore[testing]"``.
"""

from __future__ import annotations

import pytest

_CHECKS = (
    "appending",
    "artifacts",
    "checking",
    "claiming",
    "finding",
    "flavors",
    "folding",
    "listing",
    "reading",
    "series",
    "sharing",
)
pytest.register_assert_rewrite(*(f"mlcore.testing._{name}" for name in _CHECKS))

from mlcore.testing._artifacts import ArtifactBackendContract  # noqa: E402 - rewritten first
from mlcore.testing._builders import Writer, new_id, points, run_batch, run_events  # noqa: E402 - the same
from mlcore.testing._contract import StoreContract  # noqa: E402 - the same
from mlcore.testing._flavors import FlavorContract, plain  # noqa: E402 - the same

__all__ = [
    "ArtifactBackendContract",
    "FlavorContract",
    "StoreContract",
    "Writer",
    "new_id",
    "plain",
    "points",
    "run_batch",
    "run_events",
]

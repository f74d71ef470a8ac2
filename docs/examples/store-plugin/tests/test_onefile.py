"""The whole contract of stores, run on this one."""

import mlcore
from mlcore.testing import StoreContract
from mlcore_onefile.store import OneFileStore


class TestOneFileStore(StoreContract):
    def open_store(self, tmp_path):
        return lambda: OneFileStore(tmp_path / "runs.db")


def test_the_uri_finds_the_store(tmp_path):
    assert isinstance(mlcore.Client(f"onefile://{tmp_path}/runs.db").store, OneFileStore)

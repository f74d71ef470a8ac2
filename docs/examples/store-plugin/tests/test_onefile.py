from contextlib import closing

import mlcore
from mlcore.testing import StoreContract
from mlcore_onefile.store import OneFileStore


class TestOneFileStore(StoreContract):
    def open_store(self, tmp_path):
        return lambda: OneFileStore(tmp_path / "runs.db")


def test_the_uri_finds_the_store(tmp_path):
    with closing(mlcore.Client(f"onefile://{tmp_path}/runs.db")) as client:
        assert isinstance(client.store, OneFileStore)

"""`StoreContract`: every promise of `mlcore.store.Store` as a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcore.store import Capabilities, Store
from mlcore.testing._appending import Appending
from mlcore.testing._checking import Stores, concerns, only_if
from mlcore.testing._claiming import Claiming
from mlcore.testing._finding import Finding
from mlcore.testing._folding import Folding
from mlcore.testing._listing import Listing
from mlcore.testing._reading import Reading
from mlcore.testing._series import Series
from mlcore.testing._sharing import Sharing


class StoreContract(Appending, Claiming, Listing, Reading, Finding, Series, Folding, Sharing):
    """Subclass it in a test file and say how to open a handle; the whole contract then runs on your store.

    `capabilities` states what the store is to declare, and so which checks there are. A store that keeps the history,
    takes claims and the ids of clients, and leaves what was erased where it was, need not state them.
    """

    capabilities: Capabilities | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name, check in _CHECKS.items():
            if not concerns(check, cls.capabilities or Capabilities()):
                setattr(cls, name, None)  # which pytest does not collect
            elif getattr(cls, name) is None:
                setattr(cls, name, check)

    def open_store(self, tmp_path: Path) -> Stores:
        """Return a function that opens one more handle on a store that is new in this test."""
        raise NotImplementedError(f"{type(self).__name__} must say how to open its store")

    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[Stores]:
        """Yield the function that opens handles, and close them in the end."""
        opened: list[Store] = []
        open_one = self.open_store(tmp_path)

        def opener() -> Store:
            opened.append(open_one())
            return opened[-1]

        yield opener
        for store in opened:
            store.close()

    @only_if()
    def test_the_capabilities_are_declared(self, stores: Stores) -> None:
        """A store says what it can do in words that core knows, and says what its author meant."""
        declared = stores().capabilities
        assert isinstance(declared, Capabilities)
        assert declared.durability in ("process", "power")
        assert self.capabilities in (None, declared)
        wrong = [name for name, check in _CHECKS.items() if concerns(check, declared) is (getattr(self, name) is None)]
        assert not wrong, f"state capabilities = {declared} in the test class, for: {', '.join(wrong)}"


_CHECKS = {name: getattr(StoreContract, name) for name in dir(StoreContract) if name.startswith("test_")}

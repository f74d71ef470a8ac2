"""What a target said last of experiments: names stand for ids, and a start cannot wait to ask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

import attrs

from mlcore.errors import StoreError, StoreNotFound
from mlcore.store import Compare, Entity, Not, Or, Page, Query, SimpleStore, Store, Term, find
from mlcore_local.spools import Spool, write_json

__all__ = ["Names", "refresh"]

_FILE = "experiments.json"
_HERE = Compare(Term("fields", "deleted"), "is null")
_PAGE = 2_000


def refresh(spool: Spool, store: Store) -> None:
    """Ask the target for its experiments, and write them down. Raises what the target does."""
    where, token, found = Or((_HERE, Not(_HERE))), None, []
    terms = (Term("fields", "name"), Term("fields", "deleted"))
    with suppress(StoreNotFound):
        while True:
            page = store.find("experiment", Query(where, terms, limit=_PAGE, token=token))
            found += [[each.id, each.fields.get("name"), bool(each.fields.get("deleted"))] for each in page.items]
            token = page.token
            if token is None:
                break
    with suppress(OSError, StoreError):
        spool.make()
        write_json(spool.root / _FILE, found)


class Names(SimpleStore):
    """Answer about experiments from what was written down.

    Unless it is `fresh`, none is shown as deleted: it may have been restored, and a start must not fail of that.
    """

    def __init__(self, spool: Spool, *, fresh: bool) -> None:
        super().__init__()
        self._entities: list[Entity] = []
        with suppress(OSError, ValueError, TypeError):
            for id, name, deleted in json.loads((spool.root / _FILE).read_bytes()):
                fields = {"name": name} | ({"deleted": True} if deleted and fresh else {})
                self._entities.append(Entity("experiment", id, fields=fields))

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        known = {each.id: each for each in self._entities if each.kind == kind}
        return [known.get(id) for id in ids]

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        return find([each for each in self._entities if each.kind == kind], attrs.evolve(query, select=None))

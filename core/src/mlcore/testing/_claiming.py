"""Checks of claims, the only conditional write."""

from __future__ import annotations

import functools

import pytest

from mlcore.errors import AlreadyExists, NotSupported, Refused
from mlcore.store import Batch, Created, Store
from mlcore.testing._builders import Writer, run_batch
from mlcore.testing._checking import Stores, at_once, exact_records, filled, one, only_if, raised, soon, stored_records

# each pair is one name to some file system or collation, and two to us
ALIKE = ("model/A", "model/a", "model/a ", "model/a/", "model/é", "model/e\u0301", "model/e", "model/%61", "..", "CON")


def claiming(claim: str) -> Batch:
    """Return a batch by a new source that claims a name."""
    return Writer().batch(Created("model", claim, fields={"name": claim}), claim=claim)


class Claiming:
    """Check claims."""

    @only_if(claims=True, history=True)
    def test_a_claim_has_one_owner(self, stores: Stores) -> None:
        """Of sixteen that claim a name at once one gets it, the others are told who and store nothing."""
        handles = [filled(stores) for _ in range(4)]
        for name in ("experiment-name/first", "experiment-name/second", "experiment-name/third"):
            batches = [claiming(name) for _ in range(16)]
            appends = [functools.partial(handles[i % 4].append, batch) for i, batch in enumerate(batches)]
            results = at_once(appends)
            winners = [batch for batch, result in zip(batches, results, strict=True) if result is None]
            assert len(winners) == 1, f"{len(winners)} sources own {name}"
            for refusal in raised(results):
                assert isinstance(refusal, AlreadyExists), repr(refusal)
                assert (refusal.claim, refusal.holder) == (name, winners[0].source)
            mine = {batch.source for batch in batches}
            wanted = exact_records(winners)

            def kept(store: Store = handles[0], mine: set[str] = mine) -> list[object]:
                return [record for record in stored_records(store.events()) if record[0] in mine]

            assert soon(kept, wanted) == wanted

    @only_if(claims=True, history=True)
    def test_a_refused_claim_leaves_the_source_as_it_was(self, stores: Stores) -> None:
        """Who lost a name may take another one with the record of the same number."""
        winner, loser = claiming("model/x"), Writer()
        store = filled(stores, winner)
        with pytest.raises(AlreadyExists):
            store.append(loser.batch(Created("model", "x"), claim="model/x"))
        loser.records.clear()
        store.append(loser.batch(Created("model", "y"), claim="model/y"))
        assert stored_records(store.events()) == exact_records([winner, loser.cut(1)])

    @only_if(claims=True, history=True)
    def test_a_claim_sent_again_by_its_owner_is_no_conflict(self, stores: Stores) -> None:
        """The owner whose answer got lost retries and learns that it is the owner."""
        batch = claiming("model/x")
        store = filled(stores, batch)
        store.append(batch)
        assert stored_records(store.events()) == exact_records([batch])

    @only_if(claims=True, history=True)
    def test_claims_are_told_apart_by_code_point(self, stores: Stores) -> None:
        """Names differ that a file system or a collation would fold into one; long ones are whole names too."""
        long = "model/" + "漢" * 990
        names = [*ALIKE, long + "a", long + "b"]
        store = filled(stores, *map(claiming, names))
        for name in names:
            with pytest.raises(AlreadyExists) as refusal:
                store.append(claiming(name))
            assert refusal.value.claim == name

    @only_if(claims=True, history=True)
    def test_claims_outlive_handles(self, stores: Stores) -> None:
        """A name stays taken when the handle that took it is closed, with the same holder."""
        batch = claiming("model/x")
        filled(stores, batch).close()
        with pytest.raises(AlreadyExists) as refusal:
            stores().append(claiming("model/x"))
        assert refusal.value.holder == batch.source

    @only_if(claims=False, client_ids=True)
    def test_a_store_without_claims_refuses_them(self, stores: Stores) -> None:
        """A claim that cannot be kept must not look as if it were; what claims nothing is still taken."""
        store = stores()
        with pytest.raises((NotSupported, Refused)):
            store.append(claiming("model/x"))
        batch = run_batch(fields={"name": "x"})
        store.append(batch)
        assert one(store, batch.home).fields == {"name": "x"}
        assert not store.capabilities.history or stored_records(store.events()) == exact_records([batch])

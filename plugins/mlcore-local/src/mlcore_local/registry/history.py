"""Tell how a registered model came to be what it is: each change, who made it and when, and what was before.

See docs/explanation/registry-history.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from mlcore import Client
from mlcore_local.registry.facts import Clock

__all__ = ["Edit", "Entry", "history"]


@attrs.frozen
class Edit:
    """Say that one value was another before: None is none.

    `version` is the number of the version that has it, as text, and empty where the model has it. `name` is as in
    queries, ``stage`` or ``tags.team`` or ``aliases.champion``; the values of aliases are numbers as text.
    """

    version: str
    name: str
    before: Any
    after: Any


@attrs.frozen
class Entry:
    """Tell of one change: `time` (ms since 1970) and `actor` are the store's word, `by`, `at` and `stamp` the writer's.

    `version` is the number of the version as it was called then, `version_now` as it is called now. `unseen` has the
    digests of changes of the same that came before this one, and that its writer had not seen. `late` tells that
    something newer was there already when the store received it, so that it changed nothing.
    """

    time: int
    received_at: int
    actor: str
    by: str
    at: int
    stamp: int
    action: str
    model: str
    version: str = ""
    version_now: str = ""
    details: Mapping[str, Any] = attrs.field(factory=dict)
    edits: tuple[Edit, ...] = ()
    unseen: tuple[str, ...] = ()
    digest: str = ""


def history(
    client: Client, name: str, *, since: int | None = None, until: int | None = None, clock: Clock = "store"
) -> list[Entry]:
    """Return the changes of a model, of which `name` is the name, a former one or the id, the newest first.

    `since` and `until` are in ms since 1970, by the `clock` that `mlcore_local.registry.facts.facts` explains. Raises
    `NotFound` and what the store does.
    """
    raise NotImplementedError(client, name, since, until, clock)

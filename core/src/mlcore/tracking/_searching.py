"""Search models and versions of the registry, also by what they have from each other and from runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from mlcore import query, store
from mlcore.store import Compare, Entity, Not, Query, Term, Where
from mlcore.tracking._changes import MODEL, VERSION
from mlcore.tracking._registered import in_order
from mlcore.tracking._thing import Listing, Thing, checked, everything

if TYPE_CHECKING:
    from mlcore.tracking._backend import Backend

_T = TypeVar("_T", bound=Thing)
_ID, _PARENT, _NUMBER, _RUN = Term("", "id"), Term("", "parent"), Term("fields", "number"), Term("fields", "run_id")
_NAME, _GONE = Term("fields", "name"), Term("fields", "deleted")
_ALL = everything()


def search(
    thing: type[_T], backend: Backend, filter: str | None, params: Sequence[Any], *,
    order_by: str | Iterable[str] | None, limit: int | None, include_deleted: bool,
) -> Listing[_T]:  # fmt: skip
    """Return the models or versions that fit a filter. Raises `InvalidQuery`."""
    known, within = query.MODEL if thing.kind == MODEL else query.VERSION, partial(_within, backend, thing.kind)
    others = {name: {name[:-1], *(term.family for term in each.terms)} & _FROM.keys() for name, each in known.items()}
    names = {name: attrs.evolve(each, joined=within) if others[name] else each for name, each in known.items()}
    if thing.kind == VERSION:
        names["name"] = attrs.evolve(names["name"], rule=partial(_of_models, backend))
    asked = query.where("" if filter is None else filter, names, params)
    order, where = query.order(order_by or (), names), [] if asked is None else [asked]
    if thing.kind == VERSION and not include_deleted:
        hidden = tuple(each.id for each in _among(backend, MODEL, Compare(_GONE, "=", True)))
        where += [Not(Compare(_PARENT, "in", hidden))] if hidden else []
    find = partial(thing._find, backend, *where, deleted=include_deleted)
    if not (terms := [each.term for each in order if each.term.family in _FROM]):
        return find(limit=limit, order=order)
    found = {each.id: each._now() for each in find()}
    page = store.find(_joined(backend, [*found.values()], terms), Query(_ALL, order=order, limit=checked(limit)))
    return Listing(thing._of(backend, [found[each.id] for each in page.items]))


def _among(backend: Backend, kind: str, where: Where = _ALL, *select: Term) -> Sequence[Entity]:
    return backend.store().find(kind, Query(store.And((where, _ALL)), select=(_NUMBER, *select))).items


def _of_models(backend: Backend, op: str, value: Any = None) -> Where:
    return Compare(_PARENT, "in", tuple(each.id for each in _among(backend, MODEL, Compare(_NAME, op, value))))


def _within(backend: Backend, kind: str, terms: Sequence[Term], where: Where) -> Where:
    """Return a tree that stores can answer for one that asks what they do not keep with the entity."""
    found = _among(backend, kind, _ALL, _RUN, Term("aliases", ""))
    fit = (each.id for each in _joined(backend, found, terms) if store.holds(where, each))
    return Compare(_ID, "in", tuple(fit))


def _joined(backend: Backend, found: Sequence[Entity], terms: Sequence[Term]) -> Sequence[Entity]:
    """Return entities with what the terms name of others."""
    for join in {_FROM[term.family] for term in terms}:
        more = join(backend, found, terms)
        found = [
            attrs.evolve(each, attributes={**each.attributes, **of.attributes}, metrics={**each.metrics, **of.metrics})
            for each in found
            for of in [more.get(each.id, each)]
        ]
    return found


def _with(**families: Mapping[str, Any]) -> Entity:
    return Entity("", "", attributes=families)


def _latest(backend: Backend, found: Sequence[Entity], _: Any) -> dict[str, Entity]:
    live = sorted(_among(backend, VERSION, query.VERSION["deleted"].compare("=", False)), key=in_order, reverse=True)
    last = {each.parent: (each.id, each.fields.get("number")) for each in live}
    ids, numbers = {id for id, _ in last.values()}, {model: number for model, (_, number) in last.items()}
    return {each.id: _with(latest={"is": each.id in ids, "number": numbers.get(each.id)}) for each in found}


def _names(backend: Backend, found: Sequence[Entity], _: Any) -> dict[str, Entity]:
    names = {each.id: each.fields.get("name") for each in _among(backend, MODEL, _ALL, _NAME)}
    return {each.id: _with(model={"name": names.get(each.parent)}) for each in found}


def _alias(backend: Backend, *_: Any) -> dict[str, Entity]:
    aliases = defaultdict[str, dict[str, Any]](dict)
    for each in _among(backend, MODEL, _ALL, Term("aliases", "")):
        for alias, version in each.attributes.get("aliases", {}).items():
            aliases[version][alias] = {}
    return {version: _with(alias=each) for version, each in aliases.items()}


def _aliases(backend: Backend, found: Sequence[Entity], _: Any) -> dict[str, Entity]:
    numbers = {each.id: each.fields.get("number") for each in _among(backend, VERSION)}
    aliases = ((each.id, each.attributes.get("aliases", {})) for each in found)
    return {id: _with(aliases={alias: numbers.get(of) for alias, of in each.items()}) for id, each in aliases}


def _runs(backend: Backend, found: Sequence[Entity], terms: Sequence[Term]) -> dict[str, Entity]:
    ids = {each.id: str(id) for each in found if (id := each.fields.get("run_id"))}
    runs = {each.id: each for each in _among(backend, "run", Compare(_ID, "in", tuple({*ids.values()})), *terms)}
    return {id: runs[run] for id, run in ids.items() if run in runs}


# of which families there is nothing in the entity itself, or other than what is asked for, and what brings them
_FROM: Mapping[str, Callable[..., dict[str, Entity]]] = {
    "latest": _latest, "model": _names, "alias": _alias, "aliases": _aliases, "metrics": _runs, "params": _runs
}  # fmt: skip

"""Search models and versions of the registry, also by what they have from each other and from runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from mlcore import query, store
from mlcore.store import Compare, Entity, Not, Query, Term, Where
from mlcore.tracking._changes import MODEL, VERSION
from mlcore.tracking._registered import in_order
from mlcore.tracking._thing import ALL, Listing, Thing, checked

if TYPE_CHECKING:
    from mlcore.tracking._backend import Backend

_T = TypeVar("_T", bound=Thing)
_ID, _PARENT, _NUMBER, _RUN = Term("", "id"), Term("", "parent"), Term("fields", "number"), Term("fields", "run_id")
_GONE = Term("fields", "deleted")


def search(
    thing: type[_T], backend: Backend, filter: str | None, params: Sequence[Any], *,
    order_by: str | Iterable[str] | None, limit: int | None, include_deleted: bool,
) -> Listing[_T]:  # fmt: skip
    """Return the models or versions that fit a filter. Raises `InvalidQuery`."""
    names = {
        name: attrs.evolve(each, joined=partial(_within, backend, thing.kind, family)) if family in _FROM else each
        for name, each in (query.MODEL if thing.kind == MODEL else query.VERSION).items()
        for family in [each.terms[0].family if each.terms else name[:-1]]
    }
    if thing.kind == VERSION:
        names["name"] = attrs.evolve(names["name"], rule=partial(_of_models, backend))
    asked = query.where("" if filter is None else filter, names, params)
    order, where = query.order(order_by or (), names), [] if asked is None else [asked]
    if thing.kind == VERSION and not include_deleted:
        hidden = tuple(each.id for each in _among(backend, MODEL, Compare(_GONE, "=", True)))
        where += [Not(Compare(_PARENT, "in", hidden))] if hidden else []
    find = partial(thing._find, backend, *where, deleted=include_deleted)
    if not (families := {each.term.family for each in order} & _FROM.keys()):
        return find(limit=limit, order=order)
    found = {each.id: each._now() for each in find()}
    joined = _joined(backend, thing.kind, list(found.values()), families)
    page = store.find(joined, Query(ALL, order=order, limit=checked(limit)))
    return Listing(thing._of(backend, [found[each.id] for each in page.items]))


def _among(backend: Backend, kind: str, where: Where = ALL, *select: Term) -> Sequence[Entity]:
    return backend.store().find(kind, Query(store.And((where, ALL)), select=(_NUMBER, *select))).items


def _of_models(backend: Backend, op: str, value: Any = None) -> Where:
    found = _among(backend, MODEL, Compare(Term("fields", "name"), op, value))
    return Compare(_PARENT, "in", tuple(each.id for each in found))


def _within(backend: Backend, kind: str, family: str, where: Where) -> Where:
    """Return a tree that stores can answer for one that asks what they do not keep with the entity."""
    found = _among(backend, kind, ALL, _RUN, _GONE, Term("aliases", ""))
    fit = (each.id for each in _joined(backend, kind, found, [family]) if store.holds(where, each))
    return Compare(_ID, "in", tuple(fit))


def _joined(backend: Backend, kind: str, found: Sequence[Entity], families: Iterable[str]) -> list[Entity]:
    """Return entities with what they have from others."""
    for family in families:
        values = _FROM[family](backend, kind, found)
        found = [_with(each, family, values.get(each.id, {})) for each in found]
    return list(found)


def _with(entity: Entity, family: str, values: Mapping[Any, Any]) -> Entity:
    if family == "metrics":
        return attrs.evolve(entity, metrics=values)
    return attrs.evolve(entity, attributes={**entity.attributes, family: values})


def _latest(backend: Backend, kind: str, found: Sequence[Entity]) -> dict[str, Any]:
    live = _among(backend, VERSION, query.VERSION["deleted"].compare("=", False))
    last = {each.parent: each for each in sorted(live, key=in_order, reverse=True)}
    if kind == MODEL:
        return {id: {"number": each.fields.get("number")} for id, each in last.items()}
    return {each.id: {"is": each.parent in last and last[each.parent].id == each.id} for each in found}


def _names(backend: Backend, _: str, found: Sequence[Entity]) -> dict[str, Any]:
    names = {each.id: each.fields.get("name") for each in _among(backend, MODEL, ALL, Term("fields", "name"))}
    return {each.id: {"name": names.get(each.parent)} for each in found}


def _alias(backend: Backend, *_: Any) -> dict[str, Any]:
    aliases = dict[str, dict[str, Any]]()
    for each in _among(backend, MODEL, ALL, Term("aliases", "")):
        for alias, version in each.attributes.get("aliases", {}).items():
            aliases.setdefault(version, {})[alias] = {}
    return aliases


def _aliases(backend: Backend, _: str, found: Sequence[Entity]) -> dict[str, Any]:
    numbers = {each.id: each.fields.get("number") for each in _among(backend, VERSION)}
    aliased = ((each.id, each.attributes.get("aliases", {})) for each in found)
    return {id: {alias: numbers.get(version) for alias, version in known.items()} for id, known in aliased}


def _runs(family: str, backend: Backend, _: str, found: Sequence[Entity]) -> dict[str, Any]:
    ids = {str(each.fields["run_id"]) for each in found if each.fields.get("run_id")}
    runs = {each.id: each for each in _among(backend, "run", Compare(_ID, "in", tuple(ids)), Term(family, ""))}
    values = {id: each.metrics if family == "metrics" else each.attributes.get(family, {}) for id, each in runs.items()}
    return {each.id: values.get(str(each.fields.get("run_id")), {}) for each in found}


_FROM: Mapping[str, Callable[..., dict[str, Any]]] = {  # what they have by id, in families of which none is their own
    "latest": _latest, "model": _names, "alias": _alias, "aliases": _aliases,
    **{family: partial(_runs, family) for family in ("metrics", "params")},
}  # fmt: skip

"""Every store finds the same models and versions: those that were worked out by hand, in tests/registries.py."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from memory_store import MemoryStore, Shelf
from mlcore import Client, Provider, plugins
from mlcore.errors import InvalidQuery, InvalidValue
from registries import MLFLOW, MLFLOW_MODELS, MODEL_ORDERS, MODELS, ORDERS, OUR_MODELS, OURS, VERSIONS, fill

Shown = tuple[Client, dict[str, str]]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[MemoryStore, dict[str, str]]]:
    """Yield a store in memory with the models of the table, and the letters of its versions."""
    shelf = Shelf()
    stores = SimpleNamespace(mlcore_stores=lambda: [Provider("shelf", lambda _: MemoryStore(shelf))])
    plugins.register(stores, "shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCORE_SPOOL", "off")
        yield MemoryStore(shelf), fill(Client("shelf://"))
    plugins.unregister("shelf")


@pytest.fixture(scope="module", params=["memory", "folder", "indexed", "sqlite", "postgresql", "mariadb"])
def shown(
    request: pytest.FixtureRequest, made: tuple[MemoryStore, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """Yield a client of a store with the same."""
    folder = tmp_path_factory.mktemp("stores")
    uris = {"memory": "shelf://", "sqlite": f"sqlite:///{folder}/x.db"}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("MLCORE_SPOOL", "off")
        if request.param == "folder":
            patch.setenv("MLCORE_INDEX", "off")
        if request.param in ("postgresql", "mariadb"):
            server = request.getfixturevalue(f"{request.param}_server")
            uris[request.param] = stack.enter_context(server.database())
        client = Client(uris.get(request.param, str(folder / ".mlcore")))
        if request.param != "memory":
            for stored in made[0].events():
                client.store.append(stored.batch)
        yield client, made[1]
        client.close()


def found(shown: Shown, text: str | None, *params: Any, **options: Any) -> str:
    """Return the letters of the versions that a query finds."""
    client, letters = shown
    text = text and re.sub("<(.)>", lambda match: match[1] * 32, text)
    return "".join(letters[each.id] for each in client.registry.search_versions(text, *params, **options))


def models(shown: Shown, text: str | None, *params: Any, **options: Any) -> list[str]:
    """Return the names of the models that a query finds."""
    return [each.name for each in shown[0].registry.search(text, *params, **options)]


def combined(chance: random.Random, known: dict[str, frozenset[str]], whole: frozenset[str], depth: int = 3) -> Any:
    """Return a filter that is made of those known by chance, and what it finds, by the algebra of sets."""
    word = chance.choice(["and", "or", "not", ""]) if depth else ""
    if not word:
        return chance.choice([*known.items()])
    text, fit = combined(chance, known, whole, depth - 1)
    if word == "not":
        return f"not ({text})", whole - fit
    other, more = combined(chance, known, whole, depth - 1)
    return f"({text}) {word} ({other})", fit & more if word == "and" else fit | more


def test_versions_are_found(shown: Shown) -> None:
    """Guards the meaning of every name on every store, those of models and runs included."""
    known = {**MLFLOW, **OURS}
    assert {text: "".join(sorted(found(shown, text))) for text in known} == known


def test_models_are_found(shown: Shown) -> None:
    """Guards the same for models."""
    known = {**MLFLOW_MODELS, **OUR_MODELS}
    names = list(MODELS)
    assert {text: sorted(models(shown, text), key=names.index) for text in known} == known


@pytest.mark.parametrize("seed", range(3))
def test_what_is_combined_finds_what_sets_do(shown: Shown, seed: int) -> None:
    """Guards rules within rules: `and`, `or` and `not` of any of them are those of the sets that they find."""
    chance = random.Random(seed)
    asked = {text: frozenset(fit) for text, fit in {**MLFLOW, **OURS}.items() if text and "deleted" not in text}
    for _ in range(12):
        text, fit = combined(chance, asked, frozenset(VERSIONS))
        assert frozenset(found(shown, text)) == fit, text
    asked = {text: frozenset(fit) for text, fit in {**MLFLOW_MODELS, **OUR_MODELS}.items() if "deleted" not in text}
    asked.pop("")
    for _ in range(6):
        text, fit = combined(chance, asked, frozenset(MODELS))
        assert frozenset(models(shown, text)) == fit, text


def test_orders(shown: Shown) -> None:
    """Guards orders by what versions have from models and runs, and their limits."""
    for by, (expected, _) in ORDERS.items():
        assert found(shown, None, order_by=by) == expected, by
        assert found(shown, "", order_by=", ".join(by), limit=2) == expected[:2], by
    for by, (names, _) in MODEL_ORDERS.items():
        assert models(shown, None, order_by=by) == names, by
        assert models(shown, None, order_by=by, limit=1) == names[:1], by
    assert found(shown, "name = 'digits' and metrics.acc > 0", order_by="metrics.acc") == "ba"


def test_values_are_given_beside_the_filter(shown: Shown) -> None:
    """Guards question marks in what is joined."""
    assert found(shown, "metrics.acc > ? and name = ?", 0.85, "digits") == "a"
    assert sorted(found(shown, "alias in ?", ["old", "champion"])) == ["a", "b", "d"]
    assert models(shown, "aliases.champion = ?", 2) == ["digits"]


def test_what_is_wrong_is_told(shown: Shown) -> None:
    """Guards the errors: of names, with those that are near, of types, of what has no order, and of limits."""
    registry = shown[0].registry
    for text, told in {
        "nam = 'x'": "did you mean name",
        "metrics.acc > 'a'": "expected a number",
        "latest = 3": "expected true or false",
        "metrics.acc[step=1] > 1": "expected",
        "stage > ": "expected text in quotes",
    }.items():
        with pytest.raises(InvalidQuery, match=told):
            registry.search_versions(text)
    with pytest.raises(InvalidQuery, match="alias has no single value"):
        registry.search_versions(order_by="alias")
    with pytest.raises(InvalidQuery, match="unknown name stage"):
        registry.search("stage = 'None'")
    for order in ("name", "created"):
        with pytest.raises(InvalidValue, match="limit is a number of things"):
            registry.search_versions(order_by=order, limit=-1)


def test_versions_of_deleted_models_are_hidden(shown: Shown) -> None:
    """Guards what is shown while a model or a version is deleted: latest is then another."""
    client, letters = shown
    registry = client.registry
    by_letter = {letter: registry.version_by_id(id) for id, letter in letters.items()}
    registry.get("iris").delete()
    by_letter["c"].delete()
    try:
        assert "".join(sorted(found(shown, ""))) == "abe"
        assert "".join(sorted(found(shown, "", include_deleted=True))) == "abcde"
        assert found(shown, "name = 'iris'") == ""
        assert found(shown, "name = 'iris'", include_deleted=True) == "d"
        assert found(shown, "deleted = true") == "c"
        assert found(shown, "latest = true", order_by="name") == "eb"
        assert models(shown, "latest = 2") == ["digits"]
        assert models(shown, "deleted = true") == ["iris"]
    finally:
        registry.get("iris").restore()
        by_letter["c"].restore()
    assert "".join(sorted(found(shown, "latest = true"))) == "cde"

"""Every store finds the same models and versions: those that were worked out by hand, in tests/registries.py."""

from __future__ import annotations

import operator
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memory_store import MemoryStore, Shelf
from mlcore import Client, Provider, plugins
from mlcore.errors import InvalidQuery, InvalidValue
from mlcore.store import Created
from mlcore.testing import Writer, run_events
from mlcore_local.registry.past import at
from registries import MLFLOW, MLFLOW_MODELS, MODEL_ORDERS, MODELS, ORDERS, OUR_MODELS, OURS, VERSIONS, fill

Shown = tuple[Client, dict[str, str]]


@contextmanager
def shelved(scheme: str) -> Iterator[Shelf]:
    """Provide a store in memory under a scheme, and spool nothing; yield what its handles share."""
    shelf = Shelf()
    plugins.register(SimpleNamespace(mlcore_stores=lambda: [Provider(scheme, lambda _: MemoryStore(shelf))]), scheme)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCORE_SPOOL", "off")
        yield shelf
    plugins.unregister(scheme)


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[MemoryStore, dict[str, str]]]:
    """Yield a store in memory with the models of the table, and the letters of its versions."""
    with shelved("shelf") as shelf:
        yield MemoryStore(shelf), fill(Client("shelf://"))


@pytest.fixture(scope="module", params=["memory", "folder", "indexed", "sqlite", "postgresql", "mariadb"])
def shown(
    request: pytest.FixtureRequest, made: tuple[MemoryStore, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """Yield a client of a store with the same."""
    folder = tmp_path_factory.mktemp("stores")
    uris = {"memory": "shelf://", "sqlite": f"sqlite:///{folder}/x.db"}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
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


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
KINDS = {"name": "text", "stage": "text", "alias": "text", "number": "number", "metrics.acc": "number"}
KINDS |= {"params.lr": "number", "latest": "flag"}
TEXTS, NUMBERS = ["a", "B", "Production", "None", "x"], [0, 1, 2, 0.5, -1]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("seed", range(4))
def test_random_registries_are_searched_as_lists_of_rows(seed: int, store: str, tmp_path: Path) -> None:
    """Guards the meaning without a table: rows of plain Python, compared by its own operators, in its own order."""
    chance = random.Random(seed)
    with shelved("other"):
        client = Client("other://" if store == "memory" else f"sqlite:///{tmp_path}/x.db")
        rows = _scattered(client, chance)
        for _ in range(25):
            name, op = chance.choice([*KINDS]), chance.choice([*OPERATORS])
            value = chance.choice({"text": TEXTS, "number": NUMBERS, "flag": [True, False]}[KINDS[name]])
            if KINDS[name] == "flag":
                op = chance.choice(["=", "!="])
            fit = {id for id, row in rows.items() if any(OPERATORS[op](each, value) for each in row[name])}
            found = {each.id for each in client.registry.search_versions(f"{name} {op} ?", value)}
            assert found == fit, (name, op, value)
            there = {each.id for each in client.registry.search_versions(f"{name} is not null")}
            assert there == {id for id, row in rows.items() if row[name]}, name
        for name in ("name", "metrics.acc", "params.lr", "latest"):
            for word, sign in (("asc", 1), ("desc", -1)):
                ids = [each.id for each in client.registry.search_versions(order_by=f"{name} {word}")]
                values = [rows[id][name][0] for id in ids if rows[id][name]]
                assert values == sorted(values, reverse=sign < 0), name
                assert all(rows[id][name] for id in ids[: len(values)]), "what is missing comes last"
                assert len(ids) == len(rows)
        client.close()


def _scattered(client: Client, chance: random.Random) -> dict[str, dict[str, list[Any]]]:
    """Make models, versions and runs by chance; return the values of each version by its id."""
    home, rows = client.create_experiment("sources").id, dict[str, dict[str, list[Any]]]()
    for name in TEXTS[:2]:
        model, made = client.registry.create(name), []
        for number in range(1, chance.randint(1, 4) + 1):
            run, logged = None, {}
            if chance.random() < 0.7:
                run = f"{chance.getrandbits(128):032x}"
                logged = {key: chance.choice(NUMBERS) for key in ("acc", "lr") if chance.random() < 0.7}
                metrics = {"acc": [logged["acc"]]} if "acc" in logged else {}
                params = {"lr": logged["lr"]} if "lr" in logged else {}
                events = run_events(run, parent=home, metrics=metrics, params=params)
                client.store.append(Writer(run).batch(*events))
            version = client.registry.add(name, {"source": "s3://x", "run_id": run})
            stage = chance.choice(["None", "Production", ""])
            if stage:
                version.transition(stage)
            made.append(version.id)
            rows[version.id] = {
                "name": [name], "number": [number], "stage": [stage or "None"], "alias": [], "latest": [False],
                "metrics.acc": [logged[key] for key in ("acc",) if key in logged],
                "params.lr": [logged[key] for key in ("lr",) if key in logged],
            }  # fmt: skip
        rows[made[-1]]["latest"] = [True]
        for alias in ("a", "x"):
            if chance.random() < 0.7:
                id = chance.choice(made)
                model.set_alias(alias, client.registry.version_by_id(id))
                rows[id]["alias"].append(alias)
    return rows


def test_of_two_that_met_with_one_number_the_first_is_the_latest(tmp_path: Path) -> None:
    """Guards that `latest` means in a search what it means in a URI, after two stores were merged."""
    client = Client(tmp_path / ".mlcore")
    first = client.registry.add("digits", {"source": "s3://first"})
    second = Created("model_version", "f" * 32, first.model.id, {"number": 1, "source": "s3://second"})
    client.store.append(Writer().batch(second))
    assert client.registry.version("models:/digits/latest").id == first.id
    assert [each.id for each in client.registry.search_versions("latest = true")] == [first.id]
    assert [each.version for each in client.registry.search_versions("latest = false")] == ["1~ffff"]
    assert [each.name for each in client.registry.search("latest = 1")] == ["digits"]


def test_the_past_is_searched_by_the_same_names(shown: Shown) -> None:
    """Guards searches as of another time: aliases and models as they were, runs as they are."""
    client, letters = shown
    registry = at(client, time.time_ns() // 1_000_000 + 1000)
    for text in ("alias = 'champion'", "metrics.acc > 0.85", "params.lr != '1'", "latest = true"):
        assert "".join(sorted(letters[each.id] for each in registry.search_versions(text))) == OURS[text]
    assert [each.name for each in registry.search("latest = 3 and aliases.champion = 2")] == ["digits"]

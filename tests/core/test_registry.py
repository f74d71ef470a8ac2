"""The registry of models from Python: versions, aliases, stages, what is loaded, and what each step asks of a store."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

import mlcore
import toy_flavor
from memory_store import MemoryStore, Shelf
from mlcore import Client, Provider, plugins
from mlcore.errors import AliasMoved, AlreadyExists, DigestMismatch, InvalidValue, NotAModel, NotFound, UnsafePath
from mlcore.registry import Change, ModelUri, RegisteredModel, Registry, digest_of, parse
from mlcore.store import Updated
from toy_library import Scale


@pytest.fixture
def changes() -> Iterator[list[Change]]:
    """Provide the toy flavor and a store ``other`` in memory; yield what plugins are told of."""
    told: list[Change] = []
    shelf = Shelf()
    plugins.register(toy_flavor, "toy")
    own = SimpleNamespace(
        mlcore_stores=lambda: [Provider("other", lambda uri: MemoryStore(shelf))],
        mlcore_registry_changed=lambda event: told.append(event),  # noqa: PLW0108 - a hook has named arguments
    )
    plugins.register(own, "own")
    yield told
    plugins.unregister("own")
    plugins.unregister("toy")


@pytest.fixture(params=["memory", "folder", "sqlite"])
def client(request: pytest.FixtureRequest, changes: list[Change], tmp_path: Path) -> Iterator[Client]:
    """Yield a client of an empty store of each kind."""
    uris = {"memory": "other://", "folder": str(tmp_path / "store"), "sqlite": f"sqlite:///{tmp_path / 'db'}"}
    client = Client(uris[request.param], artifacts=tmp_path / "files")
    yield client
    client.close()


@pytest.fixture
def registry(client: Client) -> Registry:
    """Return the registry of the client, with one model of three versions."""
    for number in range(1, 4):
        client.registry.add("digits", {"source": f"/models/{number}", "run_id": "f" * 32})
    return client.registry


def test_a_model_is_registered_and_loaded_by_every_uri(client: Client) -> None:
    """Guards the way from a run to a prediction: number, alias, stage and latest; the run that loads remembers."""
    with client.start_run() as run:
        first = run.log_model(Scale(2), "model", register="scale").version
        logged = run.log_model(Scale(3), "other")
    second = client.register_model(logged.uri, "scale", description="*two*", tags={"a": 1}, aliases=["champion"])
    assert first is not None
    assert (first.version, second.version) == ("1", "2")
    assert (second.source, second.run_id, second.model_id) == (logged.uri, run.id, logged.id)
    assert (second.digest, second.flavor, second.description) == (logged.digest, "toy", "*two*")
    assert (second.tags, second.aliases, second.uri) == ({"a": 1}, ["champion"], "models:/scale/2")
    first.transition("production")
    for which, factor in {"1": 2, "2": 3, "latest": 3, "Production": 2, "None": 3}.items():
        assert client.load_model(f"models:/scale/{which}").predict([1]) == [factor]
    with client.start_run() as other:
        assert client.load_model("models:/scale@champion").predict([1]) == [3]
        assert client.load_model(f"runs:/{run.id}/model").predict([1]) == [2]
    used = client.get_run(other.id)._now().attributes["used"]
    assert used[second.id] == {"uri": "models:/scale@champion", "version": second.uri, "digest": second.digest}
    assert used[first.model_id] == {"uri": f"runs:/{run.id}/model", "digest": first.digest}
    copy = client.register_model("models:/scale@champion", "copies")
    assert (copy.digest, copy.source, copy.parent_version) == (second.digest, second.source, second.id)


def test_numbers_go_on_after_what_was_deleted(registry: Registry) -> None:
    """Guards numbers: that of a deleted version is not given again, and it comes back by `restore`."""
    last = registry.version("models:/digits/3")
    last.delete()
    model = registry.get("digits")
    assert [each.version for each in model.versions] == ["2", "1"]
    assert model.version().version == "2"
    assert registry.add("digits", {"source": "x"}).version == "4"
    assert model.version(3).deleted
    last.restore()
    assert [each.version for each in model.versions] == ["4", "3", "2", "1"]


def test_what_is_deleted_is_not_loaded(registry: Registry, client: Client) -> None:
    """Guards services from what was withdrawn: a deleted version or model is named, and not loaded."""
    model = registry.get("digits")
    model.version(1).delete()
    with pytest.raises(NotFound, match="models:/digits/1 is deleted; restore it"):
        client.load_model("models:/digits/1")
    model.delete()
    assert registry.list() == []
    assert [each.name for each in registry.list(include_deleted=True)] == ["digits"]
    with pytest.raises(NotFound, match="model 'digits' is deleted; restore it"):
        client.load_model("models:/digits/2")
    with pytest.raises(InvalidValue, match="model 'digits' is deleted: restore it"):
        registry.add("digits", {"source": "x"})
    with pytest.raises(AlreadyExists, match="and is deleted: restore it"):
        registry.create("digits")
    model.restore()
    assert registry.version("digits/2").number == 2


def test_aliases_move_by_who_knows_what_they_stand_for(registry: Registry) -> None:
    """Guards against a move by mistake: who saw another version is told where it went, and nothing is changed."""
    here, there = registry.get("digits"), registry.get("digits")
    assert here.aliases == there.aliases == {}
    here.set_alias("champion", 1)
    with pytest.raises(AliasMoved, match="digits@champion was moved to version 1 by"):
        there.set_alias("champion", 2)
    there.set_alias("champion", 2)  # it was read anew
    here.refresh()
    assert here.aliases["champion"].version == "2"
    there.set_alias("champion", "2")
    there.remove_alias("champion")
    with pytest.raises(AliasMoved, match="was moved to no version by"):
        here.set_alias("champion", 3)
    with pytest.raises(NotFound, match="digits has no alias 'champion'"):
        here.remove_alias("champion")
    other = registry.add("other", {"source": "x"})
    with pytest.raises(InvalidValue, match="version 1 of other is no version of digits"):
        here.set_alias("champion", other)
    registry.version("digits/3").delete()
    with pytest.raises(InvalidValue, match="version 3 of digits is deleted: restore it"):
        here.set_alias("champion", 3)
    here.set_alias("champion", 1)
    with pytest.raises(InvalidValue, match="version 1 of digits is @champion: move or remove that first"):
        registry.version("digits/1").delete()


def test_threads_move_an_alias_once(registry: Registry) -> None:
    """Guards `set_alias` among threads that saw the same: one moves it, the others are told."""
    models = [registry.get("digits") for _ in range(8)]
    versions = [registry.add("digits", {"source": f"{at}"}) for at in range(8)]
    together = threading.Barrier(8)

    def move(at: int) -> bool:
        assert models[at].deleted is False
        together.wait()
        try:
            models[at].set_alias("champion", versions[at])
        except AliasMoved:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(move, range(8)))
    assert won.count(True) == 1
    assert registry.version("digits@champion").id == versions[won.index(True)].id


def test_an_alias_may_be_called_like_a_stage(registry: Registry) -> None:
    """Guards both: `@` is the alias and `/` the stage, and a model asked for the bare word knows its aliases first."""
    model = registry.get("digits")
    model.version(1).transition("Production")
    assert model.version("production").number == 1
    model.set_alias("production", 2)
    assert registry.version("models:/digits@production").number == 2
    assert registry.version("models:/digits/production").number == 1
    assert model.version("production").number == 2
    assert model.version("Production").number == 1
    for wrong in ("latest", "v3", "12", "a b", "a/b", "", "@", "ä" * 300):
        with pytest.raises(InvalidValue, match="alias"):
            model.set_alias(wrong, 1)


def test_stages_are_those_of_mlflow(registry: Registry) -> None:
    """Guards who comes from MLflow: stages in any case, the latest of each, and the rest archived if that is wanted."""
    model = registry.get("digits")
    model.version(1).transition("STAGING")
    model.version(2).transition("staging")
    assert {stage: each.number for stage, each in model.latest_versions.items()} == {"None": 3, "Staging": 2}
    model.version(3).transition("Staging", archive_existing=True)
    assert [(each.number, each.stage) for each in model.versions] == [(3, "Staging"), (2, "Archived"), (1, "Archived")]
    with pytest.raises(NotFound, match="there is no models:/digits/Production: digits has version 3"):
        model.version("Production")
    with pytest.raises(InvalidValue, match="'Prod' is no stage: there are None, Staging, Production, Archived"):
        model.version(1).transition("Prod")


@pytest.mark.parametrize(
    "name", ["my model", "modèle 数字", 'it\'s "so"', "100%25", "a.b-c?d#e", "latest", "Production", "7"]
)
def test_names_are_what_they_are(name: str, client: Client) -> None:
    """Guards names with spaces, quotes, percent signs and any letters: in URIs nothing of them is decoded."""
    made = client.registry.add(name, {"source": "x"}, aliases="best")
    assert made.uri == f"models:/{name}/1"
    for uri in (made.uri, f"models:/{name}@best", f"models:/{name}/latest", f"{name}/1", f"models:/{name}"):
        assert client.registry.version(uri).id == made.id
    assert client.registry.get(name).name == name


@pytest.mark.parametrize("name", ["", " ", " a", "a/b", "a:b", "a@b", "..", "a\nb", "x" * 251, None, 3])
def test_names_that_no_uri_could_hold_are_refused(name: Any, client: Client) -> None:
    """Guards URIs, and that nothing is made before the name is looked at."""
    with pytest.raises(InvalidValue):
        client.registry.add(name, {"source": "x"})
    with pytest.raises(InvalidValue):
        client.registry.create(name)


def test_uris_are_read_and_written_alike() -> None:
    """Guards `parse`: what it reads is what it shows, and what names no version is told."""
    for uri in ("models:/a/3", "models:/a@b", "models:/a/Production", "models:/a/latest", "models:/a/3~ab12"):
        assert str(parse(uri)) == uri
    assert parse("models:/a/PRODUCTION") == ModelUri("a", stage="Production")
    assert parse("models:/a/Latest") == parse("a") == ModelUri("a")
    for wrong in (
        "models:/a/b",
        "models:/a/0",
        "models:/a/3/b",
        "models:/a@b/c",
        "models:/",
        "runs:/a/b",
        "models:/a@",
    ):
        with pytest.raises(InvalidValue):
            parse(wrong)


def test_a_name_that_was_given_up_is_free(registry: Registry) -> None:
    """Guards `rename`: versions go along, the old name can be used anew, and one that is taken is not."""
    model = registry.get("digits")
    version = model.version(2)
    model.rename("numbers")
    version.refresh()
    assert (model.name, version.uri) == ("numbers", "models:/numbers/2")
    with pytest.raises(NotFound, match="there is no model 'digits'"):
        registry.get("digits")
    fresh = registry.add("digits", {"source": "x"})
    assert (fresh.version, fresh.model.id == model.id) == ("1", False)
    for taken in (lambda: model.rename("digits"), lambda: registry.create("numbers")):
        with pytest.raises(AlreadyExists):
            taken()
    fresh.model.rename("third")
    model.rename("digits")
    assert registry.version("digits/2").id == version.id
    fresh.model.rename("numbers")
    assert registry.version("numbers/1").id == fresh.id


def test_what_is_told_of_models_and_versions(registry: Registry) -> None:
    """Guards tags, descriptions, comments and status, of models as of versions."""
    model = registry.create("described", description="a", tags={"a": 1, "b": [2]})
    for each in (model, registry.version("digits/1")):
        each.describe("# Title")
        each.set_tags({"a": 1, "b": None})
        each.set_tag("c", 2.5)
        each.remove_tag("b")
        first = each.comment("one")
        each.comment("two")
        each.remove_comment(first)
        assert (each.description, each.note, each.tags) == ("# Title", "# Title", {"a": 1, "c": 2.5})
        assert [comment["text"] for comment in each.comments] == ["two"]
        with pytest.raises(NotFound):
            each.remove_comment(first)
        with pytest.raises(InvalidValue):
            each.comment(" ")
    version = registry.version("digits/1")
    assert version.status == "READY"
    version.set_status("FAILED", "no disk")
    assert (version.status, version.status_message) == ("FAILED", "no disk")
    with pytest.raises(InvalidValue, match="a version is PENDING, READY, FAILED, not 'ready'"):
        version.set_status("ready")


def test_every_change_is_told_of_and_chained(registry: Registry, client: Client, changes: list[Change]) -> None:
    """Guards the hook and the chain: each change is one record with its digest, after the one that was seen last."""
    model = registry.get("digits")
    model.set_alias("champion", 1)
    model.describe("x" * 10_000)
    model.version(1).transition("Production")
    assert [each.action for each in changes] == ["create", *["register"] * 3, "set_alias", "describe", "transition"]
    assert [each.previous for each in changes] == ["", *(each.digest for each in changes[:-1])]
    assert changes[4].details == {"alias": "champion", "before": None, "after": "1"}
    assert len(changes[5].details["description"]) < 600
    told = {each.digest: each for each in changes}
    for stored in client.store.events(kinds=["registered_model", "model_version"]):
        for record in stored.batch.records:
            if isinstance(event := record.events[-1], Updated):
                change = Change(**event.fields["change"])
                assert told.pop(change.digest) == change
                assert digest_of(record.events[:-1], change) == change.digest
    assert told == {}


def test_listings_ask_a_store_a_few_times(registry: Registry, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards large registries: a listing of models or versions asks no more for thirty than for one."""
    for at in range(30):
        registry.add("digits", {"source": "x"})
        registry.add(f"model {at}", {"source": "x"}, aliases="champion")
    asked: list[str] = []
    store = client.store
    for name in ("get", "find"):
        real: Callable[..., Any] = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda *all, real=real, **more: asked.append(real.__name__) or real(*all, **more)
        )
    for listing in (registry.list, registry.search_versions, registry.get("digits").versions.__iter__):
        asked.clear()
        assert len(mlcore.Listing(listing()).to_dicts()) > 30
        assert len(asked) <= 4, asked


def saved(place: Path, factor: float = 2) -> Path:
    """Save a model in a folder."""
    mlcore.save_model(Scale(factor), place)
    return place


DAMAGE: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "changed": (lambda it: (it / "scale.json").write_text('{"factor": 9}'), DigestMismatch),
    "missing": (lambda it: (it / "scale.json").unlink(), DigestMismatch),
    "added": (lambda it: (it / "more").touch(), DigestMismatch),
    "replaced": (lambda it: (shutil.rmtree(it), saved(it, 9)), DigestMismatch),
    "another MLmodel": (lambda it: (it / "MLmodel").write_text((it / "MLmodel").read_text() + "\n"), DigestMismatch),
    "gone": (shutil.rmtree, NotAModel),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_are_not_those_that_were_registered_are_not_loaded(
    damage: str, changes: list[Change], tmp_path: Path
) -> None:
    """Guards the pin, for a plain folder: whatever was done to it, loading the version is refused."""
    client, place = Client(tmp_path / "store"), saved(tmp_path / "model")
    version = client.register_model(place, "scale")
    assert (version.source, version.run_id) == (str(place), None)
    assert client.load_model("models:/scale/1").predict([1]) == [2]
    spoil, error = DAMAGE[damage]
    spoil(place)
    with pytest.raises(error):
        client.load_model("models:/scale/1")


def test_a_model_that_was_logged_again_is_another(client: Client) -> None:
    """Guards versions of a run that goes on: what replaced their files is refused, and said to be not what it was."""
    with client.start_run() as run:
        run.log_model(Scale(2), "model", register="scale")
        run.log_model(Scale(3), "model")
    with pytest.raises(DigestMismatch, match="models:/scale/1 is not what was registered"):
        client.load_model("models:/scale/1")
    client.register_model(f"runs:/{run.id}/model", "scale")
    assert client.load_model("models:/scale/2").predict([1]) == [3]


def test_a_model_elsewhere_is_pinned_too(changes: list[Change], tmp_path: Path) -> None:
    """Guards versions of what lies on another file system: loaded through the cache, and refused once it changed."""
    place, memory = saved(tmp_path / "model"), fsspec.filesystem("memory")
    memory.put(str(place), "/registry-test/scale", recursive=True)
    client = Client(tmp_path / "store")
    try:
        version = client.register_model("memory://registry-test/scale", "scale")
        assert version.source == "memory://registry-test/scale"
        assert client.load_model("models:/scale/1").predict([1]) == [2]
        memory.pipe("/registry-test/scale/scale.json", json.dumps({"factor": 9}).encode())
        with pytest.raises(DigestMismatch):
            client.load_model("models:/scale/1")
    finally:
        memory.rm("/registry-test", recursive=True)


@pytest.mark.parametrize("source", ["ssh://host/models", "simplecache::https://host/x", "file:///etc", "../etc", "etc"])
def test_a_server_does_not_choose_what_is_opened(
    source: str, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Guards whoever loads by way of a server: what it says of a version's files opens only what a digest pins."""
    made = client.register_model(saved(tmp_path / "model"), "pinned")
    client.registry.add("away", {"source": source, "digest": "0" * 64})
    client.registry.add("unpinned", {"source": made.source})
    monkeypatch.setattr(type(client.store), "trusted_paths", False, raising=False)
    for uri in ("models:/away/1", "models:/unpinned/1"):
        with pytest.raises(UnsafePath, match="the server says that files are at"):
            client.load_model(uri)
    assert client.load_model("models:/pinned/1").predict([1]) == [2]


def test_the_functions_are_those_of_the_default_client(changes: list[Change], tmp_path: Path) -> None:
    """Guards `mlcore.registry`: its functions change and find what `set_store` says."""
    mlcore.set_store(tmp_path / "store")
    try:
        mlcore.registry.create("a", tags={"x": 1})
        made = mlcore.register_model(saved(tmp_path / "model"), "a", aliases="best")
        assert mlcore.registry.version("a@best").id == made.id
        assert isinstance(mlcore.registry.get("a"), RegisteredModel)
        assert [each.name for each in mlcore.registry.list()] == ["a"]
        assert [each.name for each in mlcore.registry.search("tags.x = 1")] == ["a"]
        assert [each.version for each in mlcore.registry.search_versions("name = 'a'")] == ["1"]
        assert mlcore.load_model("models:/a@best").predict([1]) == [2]
        for wrong, near in (("models:/b/1", "no model 'b'"), ("models:/a/2", "a has version 1, @best")):
            with pytest.raises(NotFound, match=near):
                mlcore.load_model(wrong)
    finally:
        mlcore.set_store("off")


def test_nothing_is_registered_where_tracking_is_off(changes: list[Change]) -> None:
    """Guards ``MLCORE_STORE=off``: what registers goes on, and nobody is told of what is kept nowhere."""
    client = Client("off")
    with ExitStack() as stack:
        run = stack.enter_context(client.start_run())
        version = run.log_model(Scale(2), "model", register="scale").version
        assert version is not None
        assert (version.uri, version.source) == ("models:/scale/1", f"runs:/{run.id}/model")
        made = client.register_model("anything", "scale", aliases="best")
        assert made.aliases == ["best"]
    assert changes == []

"""`mlcore lineage`: what things came of and what came of them, whatever they are called and however many there are."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn.dummy import DummyClassifier

import mlcore
from mlcore.cli import program
from mlcore.errors import Ambiguous, NotFound
from mlcore.registry import ModelVersion
from mlcore.store import AttributesSet, Erased
from mlcore_local.registry.drawing import mermaid
from mlcore_local.registry.lineage import Graph, lineage
from serving import serving_here

TREE, COMMIT = "a1" * 20, "c0ffee" + "0" * 34


def recorded(client: mlcore.Client, name: str, **families: Mapping[str, Any]) -> mlcore.Run:
    """Make a run that says of itself what others record: no files are needed to tell what came of what."""
    with client.start_run(name=name, capture="off") as run:
        run.log_events(*(AttributesSet("run", run.id, family, values) for family, values in families.items()))
    return run


def data(digest: str, name: str = "iris", context: str = "train") -> dict[str, Any]:
    """Return what a run says of data that it used."""
    about = {"name": name, "digest": digest, "about": {"rows": 1500}, "context": context, "source": None}
    return {f"{name}/{context}/{digest[:16]}": about}


def model(id: str, name: str = "model") -> dict[str, Any]:
    """Return what a run says of a model that it logged."""
    return {name: {"id": id, "flavor": "sklearn", "digest": f"d-{id}", "time": 1}}


def version_of(client: mlcore.Client, run: mlcore.Run, name: str) -> ModelVersion:
    """Register the model of a run."""
    (logged,) = run.models
    about = {"source": logged.uri, "digest": logged.digest, "flavor": logged.flavor, "run_id": run.id}
    return client.registry.add(name, about | {"model_id": logged.id})


def using(*versions: ModelVersion) -> dict[str, Any]:
    """Return what a run says of versions that it loaded."""
    return {each.id: {"uri": each.uri, "version": each.uri, "digest": each.digest} for each in versions}


def names(graph: Graph, *, up: bool) -> list[str]:
    """Return what is found in one direction, each with how far it is and how it came about."""
    return [f"{'.' * depth}{edge.kind} {graph.nodes[id].name}" for depth, edge, id, _ in graph.walk(up=up)]


def found(graph: Graph, *, up: bool) -> set[str]:
    """Return the ids of what is found in one direction."""
    return {id for _, _, id, _ in graph.walk(up=up)}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[mlcore.Client, dict[str, Any]]]:
    """Yield a store in which a model is tuned from another one, registered, copied and used."""
    client = mlcore.Client(tmp_path_factory.mktemp("lineage") / "store")
    context = {"git.tree": TREE, "git.commit": COMMIT, "git.dirty": True, "git.branch": "main"}
    context |= {"command.entry": "train.py", "packages.digest": "e" * 32, "packages.count": 42}
    context |= {"python.version": "3.12.4"}
    first = recorded(client, "pretrain", context=context, datasets=data("5" * 64), models=model("m-base"))
    base = version_of(client, first, "base")
    with client.start_run(name="search", capture="off") as search:
        parts = []
        for at in range(3):
            with client.start_run(name=f"part-{at}", capture="off", nested=True) as part:
                part.log_events(
                    AttributesSet("run", part.id, "used", using(base)) if at == 0
                    else AttributesSet("run", part.id, "datasets", data(f"{at}" * 64, f"fold-{at}"))
                )  # fmt: skip
            parts.append(part)
        search.log_events(
            AttributesSet("run", search.id, "datasets", data("7" * 64, "tune")),
            AttributesSet("run", search.id, "models", model("m-tuned")),
        )
    tuned = version_of(client, search, "digits")
    tuned.model.set_alias("champion", tuned)
    copy = client.register_model(tuned.uri, "copy")
    user = recorded(client, "nightly", used=using(tuned), models=model("m-late"))
    told = {"first": first, "base": base, "search": search, "parts": parts, "tuned": tuned, "copy": copy, "user": user}
    yield client, told
    client.close()


def test_a_version_is_traced_to_code_data_environment_and_other_models(story: tuple[mlcore.Client, Any]) -> None:
    """Guards the whole way up: through the run, those nested in it, and the model that one of them loaded."""
    client, made = story
    graph = lineage(client, "models:/digits@champion", down=False)
    assert (graph.complete, names(graph, up=False)) == (True, [])
    told = names(graph, up=True)
    at = told.index("...nested part-0")
    assert told[:3] == [f".registered {made['tuned'].source}", "..logged search", "...data tune"]
    assert told[at : at + 7] == [
        "...nested part-0", "....used models:/base/1", f".....registered {made['base'].source}",
        "......logged pretrain", f".......code {COMMIT}", ".......data iris", f".......environment {'e' * 32}",
    ]  # fmt: skip
    folds = {"...nested part-1", "....data fold-1", "...nested part-2", "....data fold-2"}
    assert {*told[3:at], *told[at + 7 :]} == folds
    nodes = {each.name: each.about for each in graph.nodes.values()}
    assert (nodes["models:/digits/1"]["aliases"], nodes["models:/digits/1"]["stage"]) == (["champion"], "None")
    assert nodes[COMMIT] == {"tree": TREE, "commit": COMMIT, "dirty": True, "branch": "main"}
    assert nodes["iris"]["rows"] == 1500


def test_who_used_a_version_is_found_through_what_was_made_with_it(story: tuple[mlcore.Client, Any]) -> None:
    """Guards the way down, which goes from a nested run to the one that it is part of, and not to its neighbours."""
    client, made = story
    graph = lineage(client, "base/1", up=False)
    assert names(graph, up=False) == [
        ".used part-0", "..nested search", f"...logged {made['tuned'].source}", "....registered models:/copy/1",
        "....registered models:/digits/1", ".....copied models:/copy/1", ".....used nightly",
        f"......logged runs:/{made['user'].id}/model",
    ]  # fmt: skip


def test_a_nested_run_is_not_mixed_up_with_those_beside_it(story: tuple[mlcore.Client, Any]) -> None:
    """Guards searches of thousands of runs: what one of them saw is no business of the others."""
    client, made = story
    graph = lineage(client, made["parts"][1].id)
    assert names(graph, up=True) == [".data fold-1", ".nested search", "..data tune"]
    assert f"run:{made['parts'][2].id}" not in graph.nodes


@pytest.mark.parametrize(
    ("uri", "start"),
    [
        ("models:/digits/latest", "version:{tuned}"), ("digits@champion", "version:{tuned}"),
        ("copy", "version:{copy}"),
        ("nightly", "run:{user}"), ("@last", "run:{user}"), ("runs:/nightly", "run:{user}"),
        ("runs:/nightly/model", "model:m-late"), ("m-late", "model:m-late"), ("model:m-late", "model:m-late"),
        ("5555555555", f"dataset:{'5' * 64}"), (f"dataset:{'5' * 64}", f"dataset:{'5' * 64}"),
        ("c0ffee0", f"code:{TREE}"), ("commit:C0FFEE", f"code:{TREE}"), (f"code:{TREE}", f"code:{TREE}"),
        ("e" * 32, f"environment:{'e' * 32}"), ("environment:eeeeee", f"environment:{'e' * 32}"),
        ("version:{tuned}", "version:{tuned}"), ("run:{user}", "run:{user}"), ("{user}", "run:{user}"),
    ],
)  # fmt: skip
def test_it_starts_from_whatever_names_something(uri: str, start: str, story: tuple[mlcore.Client, Any]) -> None:
    """Guards every form of URI, among them the ids of nodes that --json prints."""
    client, made = story
    ids = {name: made[name].id for name in ("tuned", "copy", "user")}
    graph = lineage(client, uri.format(**ids), depth=0)
    assert (graph.start, set(graph.nodes), graph.edges) == ((start.format(**ids),), {start.format(**ids)}, ())


def test_what_nothing_is_called_or_several_things_is_an_error(story: tuple[mlcore.Client, Any], tmp_path: Path) -> None:
    """Guards the messages."""
    client, made = story
    for uri in ("nobody", "models:/nobody/1", "runs:/nightly/other", "abcdef", "dataset:abcdef", "models:/digits/9"):
        with pytest.raises(NotFound):
            lineage(client, uri)
    with pytest.raises(NotFound, match=r"logged no model 'other'; it has model"):
        lineage(client, f"runs:/{made['user'].id}/other")
    other = mlcore.Client(tmp_path / "store")
    recorded(other, "one", datasets=data("777777" + "1" * 58) | data("777777" + "2" * 58, "more"))
    with pytest.raises(Ambiguous, match="'777777' fits several"):
        lineage(other, "dataset:777777")


def test_depth_and_limit_bound_what_is_shown(story: tuple[mlcore.Client, Any]) -> None:
    """Guards that the nearest things come first, and of both directions."""
    client, made = story
    versions, user = {f"version:{made[name].id}" for name in ("tuned", "copy")}, f"run:{made['user'].id}"
    assert set(lineage(client, "digits/1", depth=1).nodes) == {"model:m-tuned", user, *versions}
    few = lineage(client, "digits/1", limit=5)
    assert (len(few.nodes), few.complete) == (5, False)
    assert {user, f"run:{made['search'].id}", *versions} <= set(few.nodes)
    assert all({edge.source, edge.target} <= set(few.nodes) for edge in few.edges)


# Loading, which is what records that a model was used


def test_loading_a_model_is_seen_from_both_sides(tmp_path: Path) -> None:
    """Guards real models, loaded as a version, by an alias, and from the run that logged them."""
    client = mlcore.Client(tmp_path / "store")
    fitted = DummyClassifier().fit([[0], [1]], [0, 1])
    with client.start_run(name="maker", capture="off") as maker:
        logged = maker.log_model(fitted, "my model", register="dummy")
        client.load_model(logged.uri)  # to see whether it works
    with client.start_run(name="by number", capture="off"):
        client.load_model("models:/dummy/1")
    client.registry.get("dummy").set_alias("best", 1)
    with client.start_run(name="by alias", capture="off"):
        client.load_model("models:/dummy@best")
    with client.start_run(name="by run", capture="off") as run:
        client.load_model(f"runs:/{maker.id[-8:]}/my model")
    assert names(lineage(client, "dummy/1"), up=False) == [".used by alias", ".used by number"]
    down = names(lineage(client, "runs:/maker/my model"), up=False)
    assert down == [".registered models:/dummy/1", "..used by alias", "..used by number", ".used by run"]
    assert names(lineage(client, run.id), up=True) == [f".used {logged.uri}", "..logged maker"]
    assert names(lineage(client, maker.id), up=True) == []
    (edge,) = (each for each in lineage(client, "by alias").edges if each.kind == "used")
    assert edge.about == {"uri": "models:/dummy@best"}


def test_a_version_of_plain_files_has_its_files_and_no_run(tmp_path: Path) -> None:
    """Guards models that no run logged."""
    client, place = mlcore.Client(tmp_path / "store"), str(tmp_path / "plain")
    mlcore.save_model(DummyClassifier().fit([[0], [1]], [0, 1]), place)
    graph = lineage(client, client.register_model(place, "plain").uri)
    assert names(graph, up=True) == [f".registered {place}"]
    assert lineage(client, place, depth=0).start == (f"model:{place}",)
    assert lineage(client, f"model:{place}").nodes.keys() == graph.nodes.keys()


# Odd stores


def test_circles_end(tmp_path: Path) -> None:
    """Guards two runs that each used what the other made, as it comes of resuming them."""
    client = mlcore.Client(tmp_path / "store")
    one, other = (recorded(client, name, models=model(f"m-{name}")) for name in ("one", "other"))
    versions = [version_of(client, run, run.name) for run in (one, other)]
    for run, used in ((one, versions[1]), (other, versions[0])):
        run.log_events(AttributesSet("run", run.id, "used", using(used)))
    graph = lineage(client, "one/1")
    assert len(graph.nodes) == len(graph.edges) == 6
    for up in (True, False):
        assert found(graph, up=up) == graph.nodes.keys()


def test_what_is_gone_is_named_and_what_is_deleted_is_marked(tmp_path: Path) -> None:
    """Guards runs that were erased, versions of other stores, and records of any make."""
    client = mlcore.Client(tmp_path / "store")
    far = {"uri": "models:/far/7", "version": "models:/far/7", "digest": "d"}
    made, gone = (recorded(client, name, models=model(f"m-{name}")) for name in ("made", "gone"))
    versions = [version_of(client, run, "model") for run in (made, gone)]
    user = recorded(client, "user", used={"far": far, "odd": None} | using(*versions), datasets={"odd": 3})
    made.delete()
    versions[0].delete()
    gone.log_events(Erased("run", gone.id))
    graph = lineage(client, user.id)
    assert graph.nodes["version:far"].about == {"missing": True}
    assert graph.nodes[f"run:{gone.id}"].about == {"missing": True}
    assert graph.nodes[f"run:{made.id}"].about["deleted"]
    assert graph.nodes[f"version:{versions[0].id}"].about["deleted"]
    assert names(graph, up=True) == [
        ".used models:/model/1", f"..registered {versions[0].source}", "...logged made",
        ".used models:/model/2", f"..registered {versions[1].source}", f"...logged {gone.id}",
        ".used far",
    ]  # fmt: skip


@pytest.fixture(params=["folder", "sqlite", "server"])
def woven(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[mlcore.Client, list[str]]]:
    """Yield a store in which 20 runs use, log and register models at random, and the ids of all of that."""
    place = f"sqlite:///{tmp_path}/store.db" if request.param == "sqlite" else str(tmp_path / "store")
    chance, client = random.Random(8), mlcore.Client(place)
    versions, runs = list[ModelVersion](), list[mlcore.Run]()
    for at in range(20):
        used = using(*chance.sample(versions, min(len(versions), chance.randrange(3))))
        parent = chance.choice(runs) if runs and chance.random() < 0.4 else None
        with client.start_run(name=f"run-{at}", capture="off", parent=parent) as run:
            families = {"used": used, "models": model(f"m-{at}"), "datasets": data(f"{chance.randrange(9)}" * 64)}
            run.log_events(*(AttributesSet("run", run.id, family, values) for family, values in families.items()))
        runs.append(run)
        if chance.random() < 0.6:
            versions.append(version_of(client, run, f"name-{at % 4}"))
            if chance.random() < 0.3:
                versions.append(client.register_model(versions[-1].uri, "copies"))
    client.close()
    with serving_here(place) if request.param == "server" else nullcontext() as server:
        if server is not None:
            monkeypatch.setenv("MLCORE_TOKEN", server.token)
        client = mlcore.Client(place if server is None else server.url)
        yield client, [*(f"run:{run.id}" for run in runs), *(f"version:{each.id}" for each in versions)]
        client.close()


def test_up_and_down_are_two_sides_of_the_same(woven: tuple[mlcore.Client, list[str]]) -> None:
    """Guards the one rule that all else follows from: what came of a thing is that which it is an origin of."""
    client, ids = woven
    up = {id: found(lineage(client, id, down=False), up=True) for id in ids}
    down = {id: found(lineage(client, id, up=False), up=False) for id in ids}
    assert sum(map(len, up.values())) > 100
    for one in ids:
        assert down[one] & {*ids} - {one} == {other for other in ids if one in up[other]} - {one}, one


def test_thousands_of_runs_cost_few_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a popular model: a store is asked once a level and kind, not once a run."""
    client = mlcore.Client(f"sqlite:///{tmp_path}/store.db")
    version = version_of(client, recorded(client, "made", models=model("m-made")), "popular")
    for at in range(450):
        recorded(client, f"user-{at}", used=using(version), models=model(f"m-{at}"))
    asked = list[str]()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **named: Any) -> Any:
            asked.append(arguments[0])
            return function(*arguments, **named)

        return count

    for name in ("get", "find"):
        monkeypatch.setattr(client.store, name, counting(getattr(client.store, name)))
    graph = lineage(client, "popular/1")
    assert (len(graph.nodes), graph.complete) == (903, True)
    assert len(asked) < 30
    few = lineage(client, "popular/1", limit=100)
    assert (len(few.nodes), few.complete) == (100, False)
    assert "user-449" in {each.name for each in few.nodes.values()}


# The command


def invoke(*arguments: str) -> Any:
    """Run ``mlcore lineage``."""
    return CliRunner().invoke(program, ["lineage", *arguments])


@pytest.fixture
def _here(story: tuple[mlcore.Client, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the store."""
    monkeypatch.setenv("MLCORE_STORE", story[0].setting.value)


@pytest.mark.usefixtures("_here")
def test_the_command_prints_a_tree(story: tuple[mlcore.Client, Any]) -> None:
    """Guards the text: what each line says, and that nothing is printed twice."""
    made = story[1]
    done = invoke("base/1", "--up")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("models:/base/1  sklearn  20")
    assert [lines[1], *lines[4:]] == [
        "came of", f"      code  commit {COMMIT[:12]}  and changes  main  (train.py)",
        "      data  iris  555555555555  1,500 rows  (train)",
        "      with  Python 3.12.4  42 packages  eeeeeeeeeeee",
    ]  # fmt: skip
    assert lines[2] == f"  from  {made['base'].source}  sklearn  d-m-base"
    assert lines[3].startswith(f"    logged by  pretrain  {made['first'].id[-8:]}  FINISHED  20")
    down = invoke("base/1", "--down").stdout
    assert "\nled to\n  used by  part-0  " in down
    assert "            copied to  models:/copy/1  see above\n" not in invoke("base/1", "--down", "--depth", "3").stdout
    assert "copied to  models:/copy/1  see above\n" in down
    assert "came of" not in down
    assert "  nothing yet\n" in invoke("nightly", "--depth", "0").stdout
    assert invoke("nobody").exit_code != 0


@pytest.mark.usefixtures("_here")
def test_the_command_prints_json_and_tells_of_the_limit(story: tuple[mlcore.Client, Any]) -> None:
    """Guards what programs read, and that a graph that was cut is never taken for a whole one."""
    whole = json.loads(invoke("digits@champion", "--json").stdout)
    assert (whole["start"], whole["complete"]) == ([f"version:{story[1]['tuned'].id}"], True)
    assert {each["id"] for each in whole["nodes"]} >= {each["source"] for each in whole["edges"]}
    assert {"source": "model:m-tuned", "target": whole["start"][0], "kind": "registered", "about": {}} in whole["edges"]
    done = invoke("digits@champion", "--limit", "3", "--json")
    assert (json.loads(done.stdout)["complete"], done.stderr.count("more than 3 things")) == (False, 1)
    assert invoke("digits@champion", "--json", "--mermaid").exit_code == 2


@pytest.mark.usefixtures("_here")
def test_a_flowchart_has_every_thing_and_way() -> None:
    """Guards the chart of a real model."""
    lines = invoke("base/1", "--up", "--mermaid").stdout.splitlines()
    assert lines[0] == "flowchart LR"
    assert lines[1].startswith('    n0(["models:/base/1<br/>sklearn 20')
    assert '    n3[/"commit c0ffee000000<br/>and changes main"/]' in lines
    assert lines[-6:] == [
        "    n1 -->|registered| n0", "    n2 -->|logged| n1", "    n3 -->|code| n2", "    n4 -->|data| n2",
        "    n5 -->|environment| n2", "    style n0 stroke-width:4px",
    ]  # fmt: skip


def test_no_name_can_break_a_flowchart(tmp_path: Path) -> None:
    """Guards pages: what somebody named is text in them, never a part of the chart, HTML or a directive.

    The chart that this makes was drawn by Mermaid 11 in a browser once, and showed every name as it is.
    """
    client = mlcore.Client(tmp_path / "store")
    awkward = ('a"]; click n0 "javascript:alert(1)"', "<img src=x onerror=alert(1)>", "%%{init: {}}%% fa:fa-car")
    for name in awkward:
        recorded(client, name, datasets=data("9" * 64, "`x` #quot; $$y$$ \\n\nend"))
    lines = list(mermaid(lineage(client, "999999")))
    assert len(lines) == 2 + 2 * len(awkward) + 1
    text = "\n".join(lines)
    assert text.count('"') == 2 * (len(awkward) + 1)
    assert [each for each in ("%", "$", "`", "\\", "<img", "#quot;") if each in text] == []
    assert [each for each in ("#36;#36;", "#92;n", ":fa-") if each in text] == []
    assert "a#34;#93;#59; click n0 #34;javascript:alert(1)#34;" in text

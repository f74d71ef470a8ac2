"""`compare` and `mlcore runs diff`: what two runs do not have alike, exactly that, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

import mlcore
from faults.processes import environment
from mlcore.cli import program
from mlcore.store import AttributesRemoved
from mlcore_local.comparing import PARTS, Change, Differences, compare
from mlcore_local.comparing_trees import tree_changes
from repositories import Repository

TRAIN = """\
import os
import sys

import mlcore
import numpy as np
from lib.model import fit

alpha, row = float(sys.argv[1]), float(sys.argv[2])
iris = np.genfromtxt("iris.csv", delimiter=",", names=True)
iris["petal_width"][77] += row
with mlcore.start_run(name=os.environ["NAME"]) as run:
    run.log_dataset(iris, "iris", context="train")
    run.log_param("alpha", alpha)
    run.log_metric("score", fit(iris["petal_length"]))
"""
MODEL = """\
def fit(data):
    scale = 1.0
    return scale * data.mean()
"""


def start(folder: Path, store: Path, name: str, *, alpha: str = "0.5", row: str = "0", tiny: str = "1.0") -> Any:
    """Start a training in a repository, with a package of some version among those it can import."""
    site = folder.parent / f"site-{tiny}"
    (site / f"tiny-{tiny}.dist-info").mkdir(parents=True, exist_ok=True)
    (site / f"tiny-{tiny}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny\nVersion: {tiny}\n")
    variables = environment(folder.parent / "home", MLCORE_STORE=str(store), PYTHONPATH=str(site), NAME=name)
    command = [sys.executable, "train.py", alpha, row]
    return subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], mlcore.Run]:
    """Return what finds runs by their names: each a real training, in a working tree that has something of its own."""
    place = tmp_path_factory.mktemp("diff")
    store, base = place / "store", Repository(place / "base")
    base.write(train_py=TRAIN, lib__model_py=MODEL)
    header = "sepal_length,sepal_width,petal_length,petal_width"  # without scikit-learn a training starts sooner
    np.savetxt(base.folder / "iris.csv", datasets.load_iris().data, "%.1f", ",", header=header, comments="")
    base.put("tool.bin", bytes(range(256)))
    base.commit()
    trees = {"base": base.folder}
    for name in ("again", "line", "files"):
        trees[name] = Path(shutil.copytree(base.folder, place / name, symlinks=True))
    (trees["line"] / "lib" / "model.py").write_text(MODEL.replace("1.0", "2.0"))
    (trees["files"] / "tool.bin").write_bytes(b"\0other")
    (trees["files"] / "new.py").write_text("made = True\n")
    changed: dict[str, dict[str, str]] = {"param": {"alpha": "0.6"}, "row": {"row": "0.5"}, "package": {"tiny": "2.0"}}
    names = [*trees, *changed]
    going = [start(trees.get(name, base.folder), store, name, **changed.get(name, {})) for name in names]
    for process in going:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    client = mlcore.set_store(store)

    def find(name: str) -> mlcore.Run:
        (run,) = client.search_runs("name = ?", name, experiment="*")
        return run

    return find


@pytest.fixture(autouse=True)
def _store(runs: Callable[[str], mlcore.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the store that the runs are in."""
    monkeypatch.setenv("MLCORE_STORE", mlcore.client().setting.value)


def differing(found: Differences) -> dict[str, list[str]]:
    """Return the names of what differs, by part."""
    return {part: [each.name for each in getattr(found, part)] for part in PARTS if getattr(found, part)}


def test_runs_of_the_same_are_the_same_wherever_they_ran(runs: Callable[[str], mlcore.Run]) -> None:
    """Guards what a reproduction hopes for: another folder and time, and nothing to tell."""
    found = compare(runs("base"), runs("again"))
    assert differing(found) == {}
    assert found == Differences(runs("base").id, runs("again").id)
    assert not found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("line", {"code": ["lib/model.py"], "metrics": ["score"]}),
        ("files", {"code": ["new.py", "tool.bin"]}),
        ("param", {"params": ["alpha"]}),
        ("row", {"data": ["iris (train)"], "command": ["command.arguments"]}),
        ("package", {"packages": ["tiny"]}),
    ],
)
def test_one_change_is_told_and_no_other(
    name: str, expected: dict[str, list[str]], runs: Callable[[str], mlcore.Run]
) -> None:
    """Guards the promise of the command: exactly what was changed, and what followed from it."""
    found = compare(runs("base"), runs(name))
    assert (differing(found), found.unknown) == (expected, ())
    assert found


def test_lines_versions_values_and_rows_are_told(runs: Callable[[str], mlcore.Run]) -> None:
    """Guards what is told of each."""
    (line,) = compare(runs("base"), runs("line")).code
    assert line == Change(
        "lib/model.py", lines=("@@ -2 +2 @@", "-    scale = 1.0", "+    scale = 2.0")
    )  # fmt: skip
    new, tool = compare(runs("base"), runs("files")).code
    assert new == Change("new.py", "added", None, "file", ("@@ -0,0 +1 @@", "+made = True"))
    assert tool.lines == ("the content differs, which is no text or too long to show",)
    assert compare(runs("base"), runs("package")).packages == (Change("tiny", "changed", "1.0", "2.0"),)
    assert compare(runs("base"), runs("param")).params == (Change("alpha", "changed", 0.5, 0.6),)
    (data,) = compare(runs("base"), runs("row")).data
    assert data.lines == (
        "column petal_width: mean 1.19933 -> 1.20267, std 0.759693 -> 0.762972",
        "rows 64 to 79: some or all of them differ",
    )


def invoke(*arguments: str) -> Any:
    """Run ``mlcore runs diff``."""
    return CliRunner().invoke(program, ["runs", "diff", *arguments])


def test_the_command_prints_that_and_nothing_else(runs: Callable[[str], mlcore.Run]) -> None:
    """Guards the text, the JSON and the exit code."""
    assert (invoke("base", "again").output, invoke("base", "again", "--exit-code").exit_code) == ("", 0)
    done = invoke("base", "line")
    assert (done.exit_code, done.stderr) == (0, "")
    score = runs("base").metrics["score"]
    assert done.stdout.splitlines() == [
        "code",
        "  lib/model.py",
        "    @@ -2 +2 @@",
        "    -    scale = 1.0",
        "    +    scale = 2.0",
        "metrics",
        f"  score  {score!r} -> {2 * score!r}",
    ]
    assert invoke("base", "line", "--exit-code").exit_code == 1
    assert invoke("package", "base").stdout == "packages\n  tiny  2.0 -> 1.0\n"
    found = json.loads(invoke("base", "param", "--json").stdout)
    assert found["runs"] == [runs("base").id, runs("param").id]
    assert (found["same"], found["unknown"]) == (False, [])
    assert found["params"] == [{"name": "alpha", "kind": "changed", "before": 0.5, "after": 0.6, "lines": []}]
    assert [part for part in PARTS if found[part]] == ["params"]
    assert invoke("base", "nobody").exit_code != 0


def test_what_is_to_differ_is_left_out(runs: Callable[[str], mlcore.Run]) -> None:
    """Guards --ignore, --within and --tolerance."""
    assert invoke("base", "line", "--ignore", "code.lib/*", "--ignore", "metrics.*", "--exit-code").output == ""
    assert "metrics" not in invoke("base", "line", "--within", "score=4").output
    assert "metrics" in invoke("base", "line", "--within", "score=3.7").output
    assert "metrics" not in invoke("base", "line", "--tolerance", "0.5").output
    assert "no number" in str(invoke("base", "line", "--within", "score=x").exception)


def test_what_was_not_recorded_is_told_and_no_difference(runs: Callable[[str], mlcore.Run], tmp_path: Path) -> None:
    """Guards against silence: a run without its code and packages is not said to be the same."""
    client = mlcore.client()
    with client.start_run(name="bare", capture="off") as bare:
        bare.log_param("alpha", 0.5)
        bare.log_metric("score", runs("base").metrics["score"])
        names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
        iris = pd.DataFrame(datasets.load_iris().data, columns=names)
        assert bare.log_dataset(iris, "iris", context="train").digest == runs("base").datasets[0].digest
    found = compare(runs("base"), bare)
    assert differing(found) == {}
    assert found.unknown == (f"code: run {bare.id} did not record it", f"packages: run {bare.id} did not record them")
    done = invoke("base", bare.id)
    assert (done.stdout, done.stderr.count("mlcore: not compared: ")) == ("", 2)
    bare.delete()


def test_code_that_cannot_be_made_again_is_compared_by_what_is_known(
    runs: Callable[[str], mlcore.Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Guards runs whose repository is gone, and machines without git: the files are named, their lines are not."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = compare(runs("base"), runs("line"))
    assert found.code == (Change("lib/model.py", lines=("its lines cannot be shown",)),)
    assert {each.partition(":")[0] for each in found.unknown} == {"lines of code"}
    assert all("git" in each for each in found.unknown)


# Data, models and trees, one by one


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[mlcore.Run, mlcore.Run]]:
    """Yield two open runs that record nothing of themselves."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run(capture="off") as one, client.start_run(capture="off", nested=True) as other:
        yield one, other


IRIS = datasets.load_iris(as_frame=True).frame


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (IRIS.iloc[:-10], ("rows: 150 -> 140", *[f"column {name}" for name in []])),
        (IRIS.drop(columns="target"), ("column target removed",)),
        (IRIS.assign(more=1), ("column more added",)),
        (IRIS.assign(target=IRIS["target"].astype("int32")), ("column target: type int64 -> int32",)),
        (IRIS[IRIS.columns[::-1]], ("the columns are in another order",)),
    ],
)
def test_tables_that_differ_are_told_by_columns(
    other: pd.DataFrame, lines: tuple[str, ...], pair: tuple[mlcore.Run, mlcore.Run]
) -> None:
    """Guards what is said of rows, columns, types and order."""
    pair[0].log_dataset(IRIS, "iris")
    pair[1].log_dataset(other, "iris")
    (change,) = compare(*pair).data
    assert change.kind == "changed"
    assert change.lines[: len(lines)] == lines
    if len(lines) == 1 and "rows" not in lines[0]:
        assert change.lines == lines


def test_rows_that_differ_are_told_by_blocks_also_in_a_table_that_grew(pair: tuple[mlcore.Run, mlcore.Run]) -> None:
    """Guards that rows are found in tables of any size, as far as blocks of them are known."""
    x = np.arange(4096.0)
    y = np.append(x, [1.0, 2.0])[:4096].copy()
    y[[5, 17, 4095]] = -1
    pair[0].log_dataset({"x": x}, "x")
    pair[1].log_dataset({"x": y}, "x")
    (change,) = compare(*pair).data
    assert change.lines[1:] == (
        "rows 0 to 31: some or all of them differ",
        "rows 4,080 to 4,095: some or all of them differ",
    )


def test_data_are_matched_by_name_and_context(pair: tuple[mlcore.Run, mlcore.Run], tmp_path: Path) -> None:
    """Guards several data sets of one run, and files."""
    one, other = pair
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("1\n")
    (folder / "b.csv").write_text("2\n")
    for run in pair:
        run.log_dataset([1, 2], "x", context="train")
        run.log_dataset(folder, "files")
        (folder / "b.csv").write_text("33\n")
        (folder / "c.csv").write_text("4\n")
    one.log_dataset([3], "x", context="test")
    other.log_dataset([3], "x", context="valid")
    found = {each.name: each for each in compare(one, other).data}
    assert {name: each.kind for name, each in found.items()} == {
        "files": "changed", "x (test)": "removed", "x (valid)": "added"
    }  # fmt: skip
    assert found["files"].lines == ("file b.csv: size 2 -> 3", "file c.csv added")


def test_models_differ_by_what_they_learned_and_not_by_ids_and_times(pair: tuple[mlcore.Run, mlcore.Run]) -> None:
    """Guards against naming a model each time: its files have ids, times and addresses that no two have alike."""
    x, y = IRIS.iloc[:, :4], IRIS["target"]
    for run, row in zip(pair, (0, 10), strict=True):
        run.log_model(LogisticRegression(max_iter=300).fit(x, y), "same")
        run.log_model(LogisticRegression(max_iter=300).fit(x.iloc[row:], y.iloc[row:]), "other")
    assert [each.digest for each in pair[0].models] != [each.digest for each in pair[1].models]
    (change,) = compare(*pair).models
    assert (change.name, change.kind, change.lines) == ("other", "changed", ("file model.skops",))


def test_metrics_and_params_are_compared_by_value_and_type(pair: tuple[mlcore.Run, mlcore.Run]) -> None:
    """Guards NaN, which is the same as NaN, and 1, which is not 1.0; only latest values of metrics count."""
    one, other = pair
    for run, first in zip(pair, (5.0, 6.0), strict=True):
        run.log_metric("late", first, step=0)
        run.log_metric("late", 1.0, step=1)
        run.log_metric("nan", float("nan"))
    one.log_params({"a": 1, "b": [1, 2], "gone": None})
    other.log_params({"a": 1.0, "b": [1, 2]})
    found = compare(one, other)
    assert found.params == (Change("a", "changed", 1, 1.0), Change("gone", "removed"))
    assert found.metrics == ()


def test_packages_without_their_entity_are_not_compared(tmp_path: Path) -> None:
    """Guards stores that lost what a run refers to: that is told, too."""
    client = mlcore.Client(tmp_path / "store")
    made = []
    for site in ("1", "2"):
        with client.start_run(capture="packages") as run:
            pass
        run.log_events(AttributesRemoved("run", run.id, "context", ["packages.digest"]))
        made.append(client.get_run(run.id))
        assert site
    assert any(each.startswith("packages: ") for each in compare(*made, client=client).unknown)


def test_trees_are_compared_without_git_and_without_following_links(tmp_path: Path) -> None:
    """Guards modes, links, line ends, and files that are no text."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / ".git").mkdir(parents=True)
        (folder / ".git" / "x").write_text(str(folder))
        (folder / "same").write_text("same\n")
        (folder / "sub").mkdir()
    (one / "end.py").write_text("a\nb\n")
    (other / "end.py").write_text("a\nb")
    (one / "dos.txt").write_bytes(b"a\r\nb\r\n")
    (other / "dos.txt").write_bytes(b"a\nb\n")
    (one / "run.sh").write_text("x\n")
    (other / "run.sh").write_text("x\n")
    os.chmod(other / "run.sh", 0o755)
    (one / "link").symlink_to("same")
    (other / "link").symlink_to("/etc/passwd")
    (one / "sub" / "away").symlink_to("/etc")
    (one / "latin").write_bytes(b"\xe4\n")
    (other / "latin").write_bytes(b"\xf6\n")
    found = {each.name: each for each in tree_changes(one, other)}
    assert sorted(found) == ["dos.txt", "end.py", "latin", "link", "run.sh", "sub/away"]
    assert found["end.py"].lines == ("@@ -2 +2 @@", "-b", "+b", "\\ without a line end")
    assert found["dos.txt"].lines[:1] == ("@@ -1,2 +1,2 @@",)
    assert (found["link"].before, found["link"].after) == ("link to same", "link to /etc/passwd")
    assert (found["run.sh"].before, found["run.sh"].after) == ("file", "executable file")
    assert (found["sub/away"].kind, found["sub/away"].before) == ("removed", "link to /etc")
    assert "root:" not in repr(found)

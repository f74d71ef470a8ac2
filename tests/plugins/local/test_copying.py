"""``mlcore artifacts sync`` and ``verify``: what one place has comes to another, once, whole, and is found to be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlcore
from faults.processes import environment
from mlcore import artifacts
from mlcore.cli import program
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, InvalidValue, UnsafePath

FILES = {"a.txt": b"one", "deep/er/b c.bin": b"two" * 1000, "deep/empty": b"", "ü.txt": b"three"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with files, beside a new store that is found from here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLCORE_STORE", raising=False)
    for name, data in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "source"


def call(*arguments: object) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, ["artifacts", *map(str, arguments)], prog_name="mlcore")


def sync(*arguments: object) -> dict[str, object]:
    """Run ``sync``, which must succeed, and return what it tells."""
    done = call("sync", *arguments, "--json")
    assert done.exit_code == 0, done.output
    told: dict[str, object] = json.loads(done.output)
    return told


def content(uri: object) -> dict[str, bytes]:
    """Return the files of a place."""
    filesystem, root = artifacts.open_backend(str(uri))
    return {name: artifacts.open_file(file).read() for name, file in artifacts.list_files(filesystem, root).items()}


@pytest.mark.parametrize("target", ["folder", "memory://copying/folder"])
def test_only_what_is_missing_or_another_is_copied(source: Path, target: str) -> None:
    """Guards that it can be run again: nothing is sent twice, a change of the same size is seen, nothing is removed."""
    size = sum(map(len, FILES.values()))
    assert sync(source, target, "--dry-run")["copied"] == sorted(FILES)
    assert not Path("folder").exists()
    assert sync(source, target) == {"copied": sorted(FILES), "bytes": size, "same": 0, "removed": []}
    assert content(target) == FILES
    assert sync(source, target)["copied"] == []
    (source / "a.txt").write_bytes(b"ONE")
    (source / "deep/empty").unlink()
    assert sync(source, target, "--size-only")["copied"] == []
    assert sync(source, target)["copied"] == ["a.txt"]
    assert content(target) == {**FILES, "a.txt": b"ONE"}
    assert sync(source, target, "--delete", "--dry-run")["removed"] == ["deep/empty"]
    assert content(target).keys() == FILES.keys()
    assert sync(source, target, "--delete") == {"copied": [], "bytes": 0, "same": 3, "removed": ["deep/empty"]}
    assert content(target).keys() == FILES.keys() - {"deep/empty"}
    back = sync(target, "back")
    assert back["copied"] == sorted(FILES.keys() - {"deep/empty"})
    artifacts.open_backend("memory://")[0].store.clear()


def test_files_go_into_a_run_and_out_of_it(source: Path) -> None:
    """Guards runs as a place: by id, @last, a folder of it or one file, and what was recorded is what is copied."""
    with mlcore.Client().start_run() as run:
        run.log_text("before", "model/a.txt")
    assert sync(source, "runs:/@last/model")["copied"] == sorted(FILES)
    assert {each.path for each in run.artifacts.list()} == {f"model/{name}" for name in FILES}
    assert run.artifacts.verify() == []
    assert sync(source, f"runs:/{run.id}/model")["same"] == len(FILES)
    assert sync(f"runs:/{run.id[-8:]}/model/deep", "out")["copied"] == ["empty", "er/b c.bin"]
    assert sync(f"runs:/{run.id}/model/a.txt", "single")["copied"] == ["a.txt"]
    assert content("single") == {"a.txt": b"one"}
    with mlcore.Client().start_run() as other:
        pass
    assert sync(f"runs:/{run.id}", f"runs:/{other.id}")["copied"] == [f"model/{name}" for name in sorted(FILES)]
    kept = next(Path.cwd().glob(f".mlcore/runs/*/{run.id}/artifacts/model/a.txt"))
    kept.chmod(0o644)
    kept.write_bytes(b"0ne")
    wrong = call("sync", f"runs:/{run.id}/model", "elsewhere")
    assert isinstance(wrong.exception, DigestMismatch)
    assert "a.txt" not in content("elsewhere")
    assert isinstance(call("sync", source / "deep", f"runs:/{other.id}", "--delete").exception, ArtifactError)


def test_what_cannot_be_is_told_and_nothing_is_lost(source: Path) -> None:
    """Guards slips: a source that is not there, or a folder in the other, must not empty the target."""
    with mlcore.Client().start_run():
        pass
    assert sync(source, "folder")["same"] == 0
    for arguments, kind, told in (
        (("nowhere", "folder", "--delete"), ArtifactNotFound, "there are no files at nowhere"),
        ((source / "deep", source, "--delete"), InvalidValue, "lie in one another"),
        (("nosuch://a/b", "folder"), mlcore.errors.NotInstalled, "nosuch"),
        (("runs:/", "folder"), InvalidValue, "names no run"),
        (("runs:/1234/../x", "folder"), mlcore.errors.MlcoreError, ""),
        ((source, "runs:/nobody"), mlcore.errors.NotFound, "nobody"),
        ((source, "models:/digits/1"), SystemExit, ""),
    ):
        done = call("sync", *arguments)
        assert done.exit_code, arguments
        assert isinstance(done.exception, kind), (arguments, done.exception)
        assert told in str(done.exception), arguments
    (source / "C:x").write_bytes(b"x")
    assert isinstance(call("sync", source, "folder").exception, UnsafePath)
    assert content("folder") == FILES


def test_a_copy_that_is_killed_goes_on(tmp_path: Path, source: Path) -> None:
    """Guards R1: nothing by halves at any moment, and what was there is not sent again."""
    for number in range(400):
        (source / f"{number:03}.bin").write_bytes(os.urandom(1 << 18))
    command = [sys.executable, "-m", "mlcore", "artifacts", "sync", str(source), "target", "--json"]
    process = subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not [*tmp_path.glob("target/0*.bin")] and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = content("target")
    wanted = content(source)
    assert 0 < len(there) < len(wanted)
    assert all(wanted[name] == data for name, data in there.items())
    done = sync(source, "target")
    assert done["same"] == len(there)
    assert content("target").keys() == wanted.keys()


def test_many_runs_and_models_are_verified(source: Path) -> None:
    """Guards a look over all: which run, which file, and the exit code."""
    client, runs = mlcore.Client(), []
    for number in range(3):
        with client.start_run(experiment="e" if number else "other") as run:
            run.log_metric("m", number)
            run.log_artifacts(source, "data")
        runs.append(run)
    assert call("verify", "--all").output == "3 verified: 12 files, 0 problems\n"
    (kept,) = Path.cwd().glob(f".mlcore/runs/*/{runs[2].id}/artifacts/data/a.txt")
    kept.unlink()
    for arguments in (["--all"], ["--filter", "metrics.m > 0"], ["--experiment", "e"], [runs[0].id, runs[2].id]):
        done = call("verify", *arguments)
        assert done.exit_code == 1
        assert done.output.splitlines()[0] == f"{runs[2].id}: data/a.txt: is missing"
    assert call("verify", "--filter", "metrics.m < 2").exit_code == 0
    (told,) = json.loads(call("verify", "--all", "--json").output)
    assert (told["of"], told["path"], told["problem"]) == (runs[2].id, "data/a.txt", "is missing")
    assert call("verify").exit_code == 2


def test_a_version_is_verified_and_copied(source: Path) -> None:
    """Guards models by their URI."""
    from sklearn.linear_model import LinearRegression

    with mlcore.Client().start_run() as run:
        run.log_model(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]), "model", register="line")
    assert call("verify", "models:/line/1").output.endswith("0 problems\n")
    assert "MLmodel" in sync("models:/line/1", "copied")["copied"]  # type: ignore[operator]
    assert mlcore.load_model("copied").predict([[2.0]]).tolist() == pytest.approx([5.0])
    (kept,) = Path.cwd().glob(f".mlcore/runs/*/{run.id}/artifacts/model/requirements.txt")
    kept.chmod(0o644)
    kept.write_text("evil")
    done = call("verify", "models:/line/latest")
    assert (done.exit_code, "models:/line/latest: " in done.output) == (1, True)

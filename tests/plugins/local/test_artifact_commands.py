"""``mlcore artifacts``: what can be done with the files of runs from the shell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlcore
from faults.processes import mlcore as program_process
from mlcore.cli import program
from mlcore.errors import ArtifactNotFound, DigestMismatch, NotFound, UnsafePath


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlcore.Run:
    """Return an ended run with files, in the store that is found from here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLCORE_STORE", raising=False)
    with mlcore.Client().start_run() as run:
        run.log_text("flavors: {}", "model/MLmodel")
        run.log_bytes(b"0123456789", "model/weights.bin")
        run.log_text("a note", "notes/a.txt")
        run.log_reference(run.artifacts.get("notes/a.txt"), "elsewhere.txt")
    return run


def said(*arguments: object) -> str:
    """Run a command that must succeed; return what it prints."""
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def call(*arguments: object) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, ["artifacts", *map(str, arguments)], prog_name="mlcore")


def test_list_shows_size_digest_and_name(run: mlcore.Run, tmp_path: Path) -> None:
    """Guards what is found by eye and by program, from a run's id or the end of it."""
    head, *lines = said("list", run.id[-8:]).splitlines()
    assert head.split() == ["size", "sha256", "path", "kept", "at"]
    assert [line.split()[2] for line in lines] == ["elsewhere.txt", "model/MLmodel", "model/weights.bin", "notes/a.txt"]
    assert lines[2].split() == ["10", hashlib.sha256(b"0123456789").hexdigest()[:12], "model/weights.bin"]
    assert lines[0].endswith(f"  {tmp_path}/.mlcore/runs/{run.id[-2:]}/{run.id}/artifacts/notes/a.txt")
    assert [line.split()[2] for line in said("list", "@last", "model").splitlines()[1:]] == [
        "model/MLmodel",
        "model/weights.bin",
    ]
    found = json.loads(said("list", run.id, "notes", "--json", "--store", tmp_path / ".mlcore"))
    assert [(each["path"], each["size"]) for each in found] == [("notes/a.txt", 6)]
    assert json.loads(said("list", run.id, "nothing", "--json")) == []
    assert said("list", run.id, "nothing") == "there are no files\n"


def test_get_copies_files_and_folders(run: mlcore.Run, tmp_path: Path) -> None:
    """Guards the usual way to a model of somebody else's run."""
    assert said("get", run.id, "model").strip() == "model"
    assert (tmp_path / "model" / "weights.bin").read_bytes() == b"0123456789"
    assert said("get", run.id, "notes/a.txt", "b.txt").strip() == "b.txt"
    assert (tmp_path / "b.txt").read_text() == "a note"
    assert json.loads(said("get", run.id, "notes/a.txt", tmp_path / "model", "--json")) == {
        "path": f"{tmp_path}/model/a.txt"
    }


def test_put_keeps_files_and_folders(run: mlcore.Run, tmp_path: Path) -> None:
    """Guards what is added by hand, under its own name or another."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.txt").write_text("x")
    assert said("put", run.id, "d").split()[-1] == "d/x.txt"
    assert said("put", "@last", "d/x.txt", "y.txt").split()[-1] == "y.txt"
    assert json.loads(said("put", run.id, "d", "e", "--json"))[0]["path"] == "e/x.txt"
    back = mlcore.Client().get_run(run.id).artifacts
    assert [back.get(name).read_text() for name in ("d/x.txt", "y.txt", "e/x.txt")] == ["x"] * 3


def test_verify_finds_what_is_wrong(run: mlcore.Run) -> None:
    """Guards scripts by the exit code, and people by the names."""
    assert said("verify", run.id) == "4 files, 0 problems\n"
    assert json.loads(said("verify", run.id, "--json")) == []
    run.artifacts.get("model/weights.bin").write_bytes(b"012345678X")
    run.artifacts.get("model/MLmodel").unlink()
    done = call("verify", run.id)
    assert done.exit_code == 1
    assert done.output == "model/MLmodel: is missing\nmodel/weights.bin: is not what was stored\n4 files, 2 problems\n"
    assert [each["problem"] for each in json.loads(call("verify", run.id, "--json").output)] == [
        "is missing",
        "is not what was stored",
    ]


def written(folder: Path) -> list[Path]:
    """Return all files and folders but those of an index, which whoever looks for a run may make."""
    return sorted(path for path in folder.rglob("*") if "index" not in path.parts)


def test_a_mistake_is_one_line(run: mlcore.Run, tmp_path: Path) -> None:
    """Guards whoever types a wrong name: no traceback, an exit code, and nothing written."""
    (tmp_path / "file").write_text("x")
    before = written(tmp_path)
    for arguments, error in (
        (("get", run.id, "nix"), ArtifactNotFound),
        (("get", "ffffffff", "x"), NotFound),
        (("put", run.id, "file", "../x"), UnsafePath),
        (("put", run.id, "file", "/x"), UnsafePath),
    ):
        assert isinstance(call(*arguments).exception, error), arguments
    assert call("put", run.id, "missing").exit_code == 2
    assert written(tmp_path) == before
    done = program_process(tmp_path, "artifacts", "get", run.id, "nix")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"mlcore: run {run.id} has no file 'nix'; it has elsewhere.txt, model/MLmodel")


def test_a_changed_file_is_not_got(run: mlcore.Run, tmp_path: Path) -> None:
    """Guards the copy: it is checked on its way."""
    run.artifacts.get("notes/a.txt").write_text("b note")
    assert isinstance(call("get", run.id, "notes", "n").exception, DigestMismatch)
    assert not (tmp_path / "n" / "a.txt").exists()


def test_a_name_cannot_write_on_the_terminal(run: mlcore.Run) -> None:
    """Guards terminals from names that a store made up: escapes are shown, not sent."""
    run._note({"\x1b[2Jboo": {"sha256": "0" * 64, "size": 1, "uri": "memory://\x07"}})
    shown = said("list", run.id)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert r"  \x1b[2Jboo" in shown

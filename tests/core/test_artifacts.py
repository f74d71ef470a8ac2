"""Files of runs: what is kept comes back checked, under names that stay where they belong."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import yaml

import mlcore
from bucket import Bucket
from memory_store import MemoryStore, Shelf
from mlcore import Provider, artifacts, plugins
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, InvalidValue, NotInstalled, UnsafePath
from mlcore.store import AttributesSet, Batch, Created, Record, clock

UNSAFE = [
    *("", ".", "..", "/", "//", "/etc/passwd", "//etc/passwd", "../x", "a/../x", "a/../../x", "a/..", "./a", "a/./b"),
    *("a//b", "a/", "..\\x", "a\\b", "a\\..\\b", "C:\\x", "C:/x", "c:x", "a\0b", "a\nb", "a\x7f", "\u2028", "\ud800"),
    *("a.", "a ", "a./b", "a /b", "...", ". ", ".. /x", "x" * 251, ".mlcore-0123456789abcdef.tmp", "\x1b[2J", "file:///x"),
]  # fmt: skip
SAFE = [
    "a",
    "a/b",
    ".hidden",
    "..a",
    "a..b",
    " a",
    "a b/c d",
    "größe.txt",
    "模型",
    "x" * 250,
    "%2e%2e/x",
    "at 10:00",
    "~",
    "*[?",
]


def sha256(data: bytes) -> str:
    """Return a digest to compare."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[mlcore.Run]:
    """Start a run in a folder store."""
    with mlcore.Client(tmp_path / "store").start_run() as run:
        yield run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Make a folder of files."""
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    (folder / "weights" / "1.bin").write_bytes(bytes(range(256)))
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """Provide a filesystem under the scheme ``bucket``."""
    made = Bucket()
    opened = lambda uri: (made, uri.removeprefix("bucket://"))  # noqa: E731 - as short as a plugin's may be
    plugins.register(SimpleNamespace(mlcore_artifact_backends=lambda: [Provider("bucket", opened)]), "bucket")
    yield made
    plugins.unregister("bucket")


@pytest.fixture
def other() -> Iterator[Shelf]:
    """Provide a store that is no folder under the scheme ``other``."""
    shelf = Shelf()
    plugins.register(
        SimpleNamespace(mlcore_stores=lambda: [Provider("other", lambda uri: MemoryStore(shelf))]), "other"
    )
    yield shelf
    plugins.unregister("other")


class TestNames:
    @pytest.mark.parametrize("name", UNSAFE, ids=ascii)
    def test_a_name_that_may_lead_out_is_refused(self, name: str) -> None:
        """Guards every route at once: no name with another meaning on some system is ever used."""
        with pytest.raises(UnsafePath):
            artifacts.safe_path(name)

    @pytest.mark.parametrize("name", SAFE, ids=ascii)
    def test_any_other_name_is_taken(self, name: str) -> None:
        """Guards against refusing what people call their files."""
        assert artifacts.safe_path(name) == name

    @pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["a"]], ids=repr)
    def test_what_is_no_text_is_no_name(self, wrong: Any) -> None:
        """Guards callers that pass something else: the same error as for a bad name."""
        with pytest.raises(UnsafePath, match="cannot name a file"):
            artifacts.safe_path(wrong)

    @pytest.mark.parametrize("name", UNSAFE, ids=ascii)
    def test_no_call_stores_under_such_a_name(self, name: str, run: mlcore.Run, model: Path, tmp_path: Path) -> None:
        """Guards each way in: nothing is written anywhere, and nothing is recorded."""
        before = sorted(tmp_path.rglob("*"))
        for call in (
            lambda: run.log_artifact(model / "MLmodel", name),
            lambda: run.log_artifact(model, name or "/"),
            lambda: run.log_artifacts(model, name or "/"),
            lambda: run.log_bytes(b"x", name),
            lambda: run.log_text("x", name),
            lambda: run.log_dict({}, name),
            lambda: run.log_reference(model / "MLmodel", name),
            lambda: run.log_reference(model, name),
        ):
            with pytest.raises(UnsafePath):
                call()
        assert list(run.artifacts.list()) == []
        assert sorted(tmp_path.rglob("*")) == before


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"x")
    return tmp_path / "inner"


class TestFolders:
    def test_a_folder_is_the_digests_of_its_files(self, model: Path) -> None:
        """Guards what a model's digest is made of: relative names in order, each with its sha256."""
        assert artifacts.hash_folder(model) == {
            "MLmodel": sha256(b"flavors: {}"),
            "empty": sha256(b""),
            "weights/1.bin": sha256(bytes(range(256))),
        }
        assert list(artifacts.files_in(model)) == ["MLmodel", "empty", "weights/1.bin"]

    def test_a_link_that_stays_inside_counts_as_what_it_leads_to(self, model: Path, run: mlcore.Run) -> None:
        """Guards checkpoints: `latest` is kept as the files that it was."""
        (model / "latest").symlink_to("weights")
        (model / "weights" / "same.bin").symlink_to("1.bin")
        run.log_artifacts(model)
        data = bytes(range(256))
        found = {each.path: each.sha256 for each in run.artifacts.list() if each.path.endswith(".bin")}
        names = ("latest/1.bin", "latest/same.bin", "weights/1.bin", "weights/same.bin")
        assert found == dict.fromkeys(names, sha256(data))
        assert run.folder is not None
        assert not any(path.is_symlink() for path in run.folder.rglob("*"))

    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../outside", "..", "nowhere", ".", "weights/../../outside", "/etc"]
    )
    def test_a_link_that_leads_elsewhere_is_refused(self, target: str, model: Path, run: mlcore.Run) -> None:
        """Guards what a folder from elsewhere may carry off: neither a file of this machine nor a circle."""
        (model.parent / "outside").write_text("secret")
        (model / "weights" / "link").symlink_to(target)
        for call in (artifacts.hash_folder, run.log_artifacts, run.log_artifact, run.log_reference):
            with pytest.raises(UnsafePath, match="link"):
                call(model)
        assert list(run.artifacts.list()) == []

    def test_pipes_sockets_and_devices_are_refused(self, tmp_path: Path, run: mlcore.Run) -> None:
        """Guards against waiting for ever on a pipe, and against reading a disk."""
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / "pipe")
        (tmp_path / "socket").mkdir()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(tmp_path / "socket" / "s"))
            for call in (run.log_artifacts, artifacts.hash_folder):
                for name in ("pipe", "socket"):
                    with pytest.raises(UnsafePath, match="no regular file"):
                        call(tmp_path / name)
            for path in (tmp_path / "pipe" / "pipe", tmp_path / "socket" / "s", Path("/dev/zero")):
                with pytest.raises(UnsafePath, match="no regular file"):
                    run.log_artifact(path)

    def test_a_name_that_cannot_be_kept_stops_the_folder_before_anything_is_stored(
        self, model: Path, run: mlcore.Run
    ) -> None:
        """Guards against a folder half kept because of one odd name in it."""
        (model / "weights" / "back\\slash").write_text("x")
        with pytest.raises(UnsafePath):
            run.log_artifacts(model)
        assert run.folder is not None
        assert not (run.folder / "artifacts").exists()

    def test_what_a_killed_process_left_is_not_taken_for_a_file(self, model: Path, run: mlcore.Run) -> None:
        """Guards folders that were got while a process died: half a file is no file."""
        (model / ".mlcore-0123456789abcdef.tmp").write_text("half")
        run.log_artifacts(model)
        assert [each.path for each in run.artifacts.list()] == ["MLmodel", "empty", "weights/1.bin"]
        memory, path = artifacts.open_backend("memory://leftovers")
        memory.pipe_file(f"{path}/.mlcore-0123456789abcdef.tmp", b"half")
        assert artifacts.list_files(memory, path) == {}


class TestKeeping:
    def test_what_is_kept_is_listed_with_size_and_digest(self, run: mlcore.Run, model: Path) -> None:
        """Guards the record: a file, a folder, a file in a folder, each under its name."""
        run.log_artifact(model / "MLmodel")
        run.log_artifact(str(model / "MLmodel"), "renamed/it")
        run.log_artifact(model)
        run.log_artifact(model, "again")
        run.log_artifacts(model, "a/b")
        found = {each.path: (each.size, each.sha256) for each in run.artifacts.list()}
        inside = {"MLmodel": b"flavors: {}", "empty": b"", "weights/1.bin": bytes(range(256))}
        expected = {f"{prefix}/{name}": data for prefix in ("model", "again", "a/b") for name, data in inside.items()}
        expected |= {"MLmodel": b"flavors: {}", "renamed/it": b"flavors: {}"}
        assert found == {name: (len(data), sha256(data)) for name, data in expected.items()}
        assert [each.path for each in run.artifacts.list("a")] == ["a/b/MLmodel", "a/b/empty", "a/b/weights/1.bin"]
        assert [each.path for each in run.artifacts.list("a/b/weights/")] == ["a/b/weights/1.bin"]
        assert [each.path for each in run.artifacts.list("renamed/it")] == ["renamed/it"]
        assert run.artifacts.list("MLmod") == []

    def test_the_functions_of_the_module_keep_files_with_the_active_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards the short way: no run at hand, and one is started."""
        monkeypatch.setattr("mlcore.tracking._module._default", None)  # and as it was in the end
        client = mlcore.set_store(tmp_path / "store")
        (tmp_path / "file").write_text("x")
        mlcore.log_artifact(tmp_path / "file")
        mlcore.log_artifacts(_folder(tmp_path), "folder")
        mlcore.log_bytes(bytearray(b"x"), "bytes")
        mlcore.log_text("é", "text")
        mlcore.log_dict({"a": 1}, "dict.json")
        mlcore.log_reference(tmp_path / "file", "reference")
        mlcore.end_run()
        names = [each.path for each in client.list_runs()[0].artifacts.list()]
        assert names == ["bytes", "dict.json", "file", "folder/file", "reference", "text"]

    def test_text_and_values_are_kept_as_files(self, run: mlcore.Run) -> None:
        """Guards the formats: UTF-8, JSON that people can read, YAML by the name's end."""
        value = {"é": [1, 2.5, None], "nested": {"t": (1, 2)}, "array": memoryview(b"ab").tolist(), 3: "three"}
        run.log_text("größe\n", "a.txt")
        run.log_dict(value, "a.json")
        run.log_dict(value, "a.yaml")
        run.log_dict([1, "x"], "b.yml")
        expected = json.loads(json.dumps(value))
        assert run.artifacts.open("a.txt").read() == "größe\n".encode()
        text = run.artifacts.get("a.json").read_text(encoding="utf-8")
        assert json.loads(text) == expected
        assert text.startswith('{\n  "é": [')
        assert yaml.safe_load(run.artifacts.open("a.yaml")) == expected
        assert yaml.safe_load(run.artifacts.open("b.yml")) == [1, "x"]

    def test_a_value_of_numpy_is_kept_as_numbers(self, run: mlcore.Run) -> None:
        """Guards reports and confusion matrices, which are made of numpy's numbers."""
        numpy = pytest.importorskip("numpy")
        run.log_dict({"matrix": numpy.eye(2, dtype=int), "score": numpy.float32(0.5)}, "report.json")
        assert json.loads(run.artifacts.open("report.json").read()) == {"matrix": [[1, 0], [0, 1]], "score": 0.5}

    @pytest.mark.parametrize("wrong", [3, None, b"bytes"], ids=repr)
    def test_what_is_no_text_is_refused(self, wrong: Any, run: mlcore.Run) -> None:
        """Guards against a traceback from the depths where a value was mixed up."""
        with pytest.raises(InvalidValue, match="no text"):
            run.log_text(wrong, "name")

    @pytest.mark.parametrize("wrong", ["text", 3, None], ids=repr)
    def test_what_has_no_bytes_is_refused(self, wrong: Any, run: mlcore.Run) -> None:
        """Guards the same for bytes."""
        with pytest.raises(TypeError, match="a bytes-like object is required"):
            run.log_bytes(wrong, "name")

    def test_figures_are_kept_in_the_format_of_their_name(self, run: mlcore.Run) -> None:
        """Guards both families of figures, by what they can do: none of their libraries is imported."""
        matplotlib = SimpleNamespace(savefig=lambda file, **kwargs: file.write(f"mpl {kwargs['format']}".encode()))
        plotly = SimpleNamespace(
            write_image=lambda file, **kwargs: file.write(f"plotly {kwargs['format']}".encode()),
            write_html=lambda file: file.write("<html>"),
        )
        run.log_figure(matplotlib, "plots/a.png")
        run.log_figure(matplotlib, "plots/b.svg")
        run.log_figure(matplotlib, "plots/c")
        run.log_figure(plotly, "plots/d.html")
        run.log_figure(plotly, "plots/e.pdf")
        found = {each.path[6:]: run.artifacts.open(each.path).read() for each in run.artifacts.list("plots")}
        expected = {"a.png": "mpl png", "b.svg": "mpl svg", "c": "mpl None", "d.html": "<html>", "e.pdf": "plotly pdf"}
        assert found == {name: text.encode() for name, text in expected.items()}
        with pytest.raises(InvalidValue, match="int is no figure"):
            run.log_figure(3, "f.png")

    def test_a_file_that_is_logged_again_is_replaced(self, run: mlcore.Run) -> None:
        """Guards the last checkpoint: file and record are of the same one."""
        for text in ("one", "two and longer", ""):
            run.log_text(text, "name")
            assert run.artifacts.get("name").read_text() == text
            assert [each.size for each in run.artifacts.list()] == [len(text)]
        assert list(run.artifacts.verify()) == []

    def test_a_run_that_is_over_keeps_more(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards reports written days later: by the ended run, and by one read back."""
        run.log_text("live", "live")
        run.end()
        run.log_text("ended", "ended")
        back = mlcore.Client(tmp_path / "store").get_run(run.id)
        back.log_text("back", "back")
        assert [each.path for each in back.artifacts.list()] == ["back", "ended", "live"]
        assert back.status == "FINISHED"
        assert [back.artifacts.get(name).read_text() for name in ("back", "ended", "live")] == ["back", "ended", "live"]

    def test_a_source_that_changes_meanwhile_gives_the_digest_of_what_was_stored(self, tmp_path: Path) -> None:
        """Guards log files that are still written: the record is always of the bytes that were kept."""
        source = tmp_path / "growing.log"
        source.write_bytes(b"0" * 3_000_000)
        done = threading.Event()

        def change() -> None:
            with open(source, "r+b", buffering=0) as file:
                number = 0
                while not done.is_set():
                    number += 1
                    os.pwrite(file.fileno(), bytes([number % 256]) * 3_000_000, 0)

        writer = threading.Thread(target=change)
        writer.start()
        for uri in (tmp_path / "local", f"memory://{tmp_path}"):
            filesystem, root = artifacts.open_backend(uri)
            for number in range(10):
                stored = artifacts.put(filesystem, root, {str(number): source})[str(number)]
                kept = filesystem.cat_file(stored.path)
                assert (stored.sha256, stored.size) == (sha256(kept), len(kept))
        done.set()
        writer.join()

    def test_records_of_many_files_fit_into_events(self, run: mlcore.Run) -> None:
        """Guards the limit of 64 kB an event: a thousand files are recorded in portions."""
        names = [f"{'long' * 40}/{number}" for number in range(1000)]
        run._note({name: {"sha256": "0" * 64, "size": 1} for name in names})
        assert [each.path for each in run.artifacts.list()] == sorted(names)

    def test_a_file_and_a_folder_of_one_name_are_told_of(self, run: mlcore.Run) -> None:
        """Guards against losing one of them: the second is refused, and the first stays."""
        run.log_text("file", "a")
        run.log_text("below", "b/c")
        with pytest.raises(ArtifactError, match=r"cannot make folder .*/artifacts/a: File exists"):
            run.log_text("x", "a/b")
        with pytest.raises(ArtifactError, match=r"cannot store .*/artifacts/b: Is a directory"):
            run.log_text("x", "b")
        assert [(each.path, each.size) for each in run.artifacts.list()] == [("a", 4), ("b/c", 5)]
        assert list(run.artifacts.verify()) == []

    def test_a_missing_file_is_told_of(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards typing errors: the path is named, and nothing is recorded."""
        for call in (run.log_artifact, run.log_artifacts, run.log_reference):
            with pytest.raises(ArtifactNotFound, match=r"there is no file .*no/such$"):
                call(tmp_path / "no" / "such")
        (tmp_path / "file").write_text("x")
        with pytest.raises(ArtifactError, match=r"cannot read folder .*/file: Not a directory"):
            run.log_artifacts(tmp_path / "file")
        assert list(run.artifacts.list()) == []

    def test_a_folder_that_holds_the_store_is_not_kept_in_it(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards `log_artifacts(".")`, which would keep the store in itself, and more each time."""
        for folder in (tmp_path, tmp_path / "store"):
            with pytest.raises(ArtifactError, match="holds the store itself"):
                run.log_artifacts(folder)

    def test_a_link_planted_in_the_store_leads_no_write_out(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards whoever logs into a store that others write to."""
        assert run.folder is not None
        (tmp_path / "outside").mkdir()
        (run.folder / "artifacts").mkdir()
        (run.folder / "artifacts" / "plots").symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePath, match="leads out"):
            run.log_text("x", "plots/a")
        assert list((tmp_path / "outside").iterdir()) == []


class TestReading:
    def test_a_file_on_this_machine_is_got_where_it_is(self, run: mlcore.Run, model: Path) -> None:
        """Guards the speed of loading: nothing is copied, and all of it is checked."""
        run.log_artifacts(model, "m")
        assert run.folder is not None
        assert run.artifacts.get("m") == run.folder / "artifacts" / "m"
        assert run.artifacts.get("m/weights") == run.artifacts.get("m/weights/") == run.folder / "artifacts/m/weights"
        assert run.artifacts.get("m/weights/1.bin") == run.folder / "artifacts/m/weights/1.bin"
        assert run.artifacts.get() == run.folder / "artifacts"

    def test_a_copy_goes_where_it_is_wanted(self, run: mlcore.Run, model: Path, tmp_path: Path) -> None:
        """Guards the rule of `cp`: a file to a name or into a folder, of a folder the content."""
        run.log_artifacts(model, "m")
        (tmp_path / "there").mkdir()
        for name, dst, expected in (
            ("m/MLmodel", tmp_path / "there", tmp_path / "there" / "MLmodel"),
            ("m/MLmodel", tmp_path / "new" / "name", tmp_path / "new" / "name"),
            ("m/weights/1.bin", tmp_path / "there" / "other.bin", tmp_path / "there" / "other.bin"),
        ):
            assert run.artifacts.get(name, dst) == expected
            assert expected.is_file()
        assert run.artifacts.get("m", tmp_path / "copy") == tmp_path / "copy"
        assert artifacts.hash_folder(tmp_path / "copy") == artifacts.hash_folder(model)
        assert run.artifacts.get("m", str(tmp_path / "there")) == tmp_path / "there"
        assert (tmp_path / "there" / "weights" / "1.bin").exists()
        assert artifacts.hash_folder(run.artifacts.get("", tmp_path / "all") / "m") == artifacts.hash_folder(model)

    def test_what_is_there_already_is_not_copied_again(self, run: mlcore.Run, model: Path, tmp_path: Path) -> None:
        """Guards repeated downloads, and that a copy that was changed is made good."""
        run.log_artifacts(model, "m")
        run.artifacts.get("m", tmp_path / "copy")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*") if path.is_file()}
        (tmp_path / "copy" / "MLmodel").write_text("changed")
        run.artifacts.get("m", tmp_path / "copy")
        after = {path: path.stat().st_mtime_ns for path in before}
        assert [path.name for path in before if before[path] != after[path]] == ["MLmodel"]
        assert artifacts.hash_folder(tmp_path / "copy") == artifacts.hash_folder(model)

    def test_a_changed_file_is_told_of(self, run: mlcore.Run, model: Path, tmp_path: Path) -> None:
        """Guards against a model that is not the one that was logged: each way to get it says so."""
        run.log_artifacts(model, "m")
        assert run.folder is not None
        kept = run.folder / "artifacts" / "m"
        (kept / "weights" / "1.bin").write_bytes(bytes(255) + b"\1")
        (kept / "empty").unlink()
        with pytest.raises(DigestMismatch, match=r"weights/1\.bin is not what was stored"):
            run.artifacts.get("m")
        with pytest.raises(DigestMismatch, match="sha256 differs"):
            run.artifacts.get("m/weights", tmp_path / "copy")
        assert [path for path in (tmp_path / "copy").rglob("*") if path.is_file()] == [], "not even a part of it"
        with pytest.raises(ArtifactNotFound):
            run.artifacts.get("m/empty", tmp_path / "copy")
        wrong = {each.path: each.problem for each in run.artifacts.verify()}
        assert wrong == {"m/empty": "is missing", "m/weights/1.bin": "is not what was stored"}
        assert run.artifacts.get("m/MLmodel").read_text() == "flavors: {}"

    def test_a_file_that_is_not_there_is_told_of_with_those_that_are(self, run: mlcore.Run) -> None:
        """Guards against guessing at names."""
        with pytest.raises(ArtifactNotFound, match="it has none"):
            run.artifacts.get("x")
        for number in range(12):
            run.log_text("", f"f{number:02}")
        for call in (run.artifacts.get, run.artifacts.open):
            with pytest.raises(ArtifactNotFound, match=r"has no file 'nix'; it has f00, f01, .*f09, \.\.\.$"):
                call("nix")
        assert isinstance(ArtifactNotFound(), LookupError)

    def test_a_file_is_opened_to_be_read_in_parts(self, run: mlcore.Run) -> None:
        """Guards large files: a part is read without the rest."""
        run.log_bytes(bytes(range(256)), "d/bytes")
        with run.artifacts.open("d/bytes") as file:
            file.seek(100)
            assert file.read(2) == b"de"
        with pytest.raises(ArtifactError, match="is a folder: open one of d/bytes"):
            run.artifacts.open("d")

    def test_all_of_a_run_without_files_is_an_empty_folder(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards loops over runs, of which some kept nothing."""
        assert run.artifacts.get("", tmp_path / "nothing") == tmp_path / "nothing"
        assert list((tmp_path / "nothing").iterdir()) == []
        assert list(run.artifacts.verify()) == []
        assert repr(run.artifacts) == "nothing"

    def test_a_listing_shows_itself(self, run: mlcore.Run) -> None:
        """Guards notebooks: a table of names and sizes."""
        run.log_text("x", "a/b.txt")
        assert "a/b.txt  1" in repr(run.artifacts)
        assert run.artifacts.list().to_pandas()["path"].tolist() == ["a/b.txt"]
        assert "<td>a/b.txt</td>" in run.artifacts.list()._repr_html_()


class TestOtherPlaces:
    def test_files_of_a_folder_store_can_go_elsewhere(
        self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards large files on another disk: the environment says where, and readers find them without it."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        client = mlcore.Client(tmp_path / "store", artifacts="memory://elsewhere")
        with client.start_run(experiment="x") as run:
            run.log_artifacts(model, "m")
        back = mlcore.Client(tmp_path / "store").get_run(run.id)
        assert back.folder is not None
        assert not (back.folder / "artifacts").exists()
        filesystem, path = artifacts.open_backend(f"memory://elsewhere/{back.experiment_id}/{run.id}/artifacts")
        assert sorted(artifacts.list_files(filesystem, path)) == ["m/MLmodel", "m/empty", "m/weights/1.bin"]
        got = back.artifacts.get("m")
        assert artifacts.hash_folder(got) == artifacts.hash_folder(model)
        assert got.is_relative_to(tmp_path / "cache")
        assert got.stat().st_mode & 0o077 == 0, "what is cached is nobody else's"
        assert back.artifacts.get("m") == got
        assert back.artifacts.get("m/MLmodel").read_text() == "flavors: {}"
        back.log_text("later", "later.txt")
        assert back.artifacts.open("later.txt").read() == b"later"
        assert not (back.folder / "artifacts").exists()

    def test_the_environment_says_where(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards jobs: a path counts from where the process is, and is kept whole."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLCORE_ARTIFACTS", "files")
        with mlcore.Client(tmp_path / "store").start_run() as run:
            run.log_text("x", "a")
        monkeypatch.delenv("MLCORE_ARTIFACTS")
        monkeypatch.chdir("/")
        back = mlcore.Client(tmp_path / "store").get_run(run.id)
        assert back.artifacts.get("a") == tmp_path / "files" / "0" / run.id / "artifacts" / "a"

    def test_a_run_keeps_its_files_in_one_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards runs that go on where the setting is another: what they had is found, and the new lies beside it."""
        store = tmp_path / "store"
        with mlcore.Client(store).start_run(key="own") as own:
            own.log_text("1", "first")
        with mlcore.Client(store, artifacts=tmp_path / "one").start_run(key="one") as one:
            one.log_text("1", "first")
        monkeypatch.setenv("MLCORE_ARTIFACTS", str(tmp_path / "other"))
        for key in ("own", "one"):
            with mlcore.Client(store).start_run(key=key) as again:
                again.log_text("2", "second")
            back = mlcore.Client(store).get_run(again.id)
            assert list(back.artifacts.verify()) == []
            assert len(back.artifacts.list()) == 2
        assert not (tmp_path / "other").exists()

    def test_a_store_that_is_no_folder_asks_where_files_go(self, other: Shelf, tmp_path: Path) -> None:
        """Guards the first call: what to set is in the error, and what was logged otherwise is there."""
        with mlcore.Client("other://").start_run() as run:
            with pytest.raises(ArtifactError, match=r"store other:// keeps no files: .* MLCORE_ARTIFACTS or Client"):
                run.log_text("x", "a")
            run.log_metric("m", 1)
            assert list(run.artifacts.list()) == []
            assert list(run.artifacts.verify()) == []
        with mlcore.Client("other://", artifacts=tmp_path / "files").start_run() as run:
            run.log_text("x", "a")
        back = mlcore.Client("other://").get_run(run.id)
        assert back.artifacts.get("a") == tmp_path / "files" / "0" / run.id / "artifacts" / "a"

    def test_a_plugin_keeps_files(self, bucket: Bucket, tmp_path: Path, model: Path) -> None:
        """Guards the hook: its filesystem is used as it is, by what it says of itself."""
        with mlcore.Client(tmp_path / "store", artifacts="bucket://b/c/").start_run() as run:
            run.log_artifacts(model, "m")
            assert {name.removeprefix(f"b/c/0/{run.id}/artifacts/") for name in bucket.files} == {
                *("m/MLmodel", "m/empty", "m/weights/1.bin")
            }
            run.artifacts.get("m", tmp_path / "copy")
        assert artifacts.hash_folder(tmp_path / "copy") == artifacts.hash_folder(model)
        bucket.files = dict.fromkeys(bucket.files, b"other")
        with pytest.raises(DigestMismatch):
            run.artifacts.get("m", tmp_path / "again")

    def test_a_scheme_that_nothing_provides_says_what_would(self) -> None:
        """Guards the way to the missing package: each scheme names its own."""
        with pytest.raises(NotInstalled, match="ocifs"):
            artifacts.open_backend("oci://bucket/x")
        with pytest.raises(NotInstalled, match="gcsfs"):
            artifacts.open_backend("gs://bucket/x")
        with pytest.raises(NotInstalled, match="nothing installed provides 'nosuch' under artifact_backends"):
            artifacts.open_backend("nosuch://x")

    def test_a_plugin_wins_over_fsspec(self) -> None:
        """Guards the choice of whoever installs one for a scheme that fsspec knows as well."""
        own = SimpleNamespace(mlcore_artifact_backends=lambda: [Provider("memory", lambda uri: ("own", uri))])
        plugins.register(own, "own-memory")
        try:
            assert artifacts.open_backend("memory://x") == ("own", "memory://x")
        finally:
            plugins.unregister("own-memory")
        assert isinstance(artifacts.open_backend("memory://x")[0], fsspec.get_filesystem_class("memory"))

    def test_fsspec_chains_are_opened(self, tmp_path: Path) -> None:
        """Guards what fsspec can do beyond schemes: a file in a zip is a reference like any other."""
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("inner/x.txt", "zipped")
        filesystem, path = artifacts.open_backend(f"zip://inner/x.txt::file://{tmp_path}/a.zip")
        assert filesystem.cat_file(path) == b"zipped"

    def test_names_in_an_archive_lead_nowhere(self, tmp_path: Path) -> None:
        """Guards B3: whatever an archive calls its members, none is got."""
        import tarfile
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("inner/../../../evil", "x")
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name in ("../evil", "/evil"):
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        for kind in ("zip", "tar"):
            filesystem, path = artifacts.open_backend(f"{kind}://::file://{tmp_path}/a.{kind}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(ArtifactError):
                    artifacts.get(artifacts.list_files(filesystem, path), tmp_path / "got" / kind)
        assert not list(tmp_path.rglob("evil"))
        assert not Path("/evil").exists()


class TestReferences:
    def test_a_reference_is_recorded_and_not_copied(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards data sets of many gigabytes: place, size and digest are kept, and nothing else."""
        data = tmp_path / "data.csv"
        data.write_text("a,b\n1,2\n")
        run.log_reference(data)
        run.log_reference(f"file://{data}", "train/data.csv")
        (first, second) = run.artifacts.list()
        assert (first.path, first.size, first.sha256, first.uri) == ("data.csv", 8, sha256(b"a,b\n1,2\n"), str(data))
        assert (second.path, second.uri) == ("train/data.csv", f"file://{data}")
        assert run.folder is not None
        assert not (run.folder / "artifacts").exists()
        assert run.artifacts.get("data.csv") == data
        assert run.artifacts.get("train/data.csv", tmp_path / "copy.csv").read_text() == "a,b\n1,2\n"
        assert run.artifacts.open("train/data.csv").read() == b"a,b\n1,2\n"
        data.write_text("changed")
        assert [each.problem for each in run.artifacts.verify()] == ["is not what was stored"] * 2
        with pytest.raises(DigestMismatch):
            run.artifacts.get("data.csv")

    def test_a_folder_is_recorded_file_by_file(self, run: mlcore.Run, model: Path, tmp_path: Path) -> None:
        """Guards the same for folders, on this machine and elsewhere."""
        memory, path = artifacts.open_backend("memory://references/d")
        artifacts.put(memory, path, artifacts.files_in(model))
        run.log_reference(f"{model}/")
        run.log_reference("memory://references/d", "far")
        uris = {each.path: each.uri for each in run.artifacts.list()}
        assert uris["model/weights/1.bin"] == f"{model}/weights/1.bin"
        assert uris["far/weights/1.bin"] == "memory://references/d/weights/1.bin"
        for name in ("model", "far"):
            got = run.artifacts.get(name, tmp_path / "copies" / name)
            assert artifacts.hash_folder(got) == artifacts.hash_folder(model)
        assert list(run.artifacts.verify()) == []

    def test_a_file_in_an_archive_is_a_reference_too(self, run: mlcore.Run, tmp_path: Path) -> None:
        """Guards fsspec's chains: what is recorded of each member opens that member."""
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("d/x.txt", "one")
            archive.writestr("d/y.txt", "two")
        run.log_reference(f"zip://d::file://{tmp_path}/a.zip")
        run.log_reference(f"zip://d/x.txt::file://{tmp_path}/a.zip")
        assert [each.path for each in run.artifacts.list()] == ["d/x.txt", "d/y.txt", "x.txt"]
        got = run.artifacts.get("", tmp_path / "got")
        assert [(got / name).read_text() for name in ("d/x.txt", "d/y.txt", "x.txt")] == ["one", "two", "one"]

    def test_references_from_two_places_are_one_folder(
        self, run: mlcore.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards a data set made of shards: its files are brought together, and not taken for those of one place."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name in "ab":
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.csv").write_text(name)
            run.log_reference(tmp_path / name / f"{name}.csv", f"data/{name}.csv")
        assert artifacts.hash_folder(run.artifacts.get("data")).keys() == {"a.csv", "b.csv"}
        assert run.artifacts.get("data/a.csv") == tmp_path / "a" / "a.csv"

    def test_the_secret_in_a_uri_is_not_asked_for(self, run: mlcore.Run) -> None:
        """Guards what is told of a place that cannot be opened: it is named."""
        with pytest.raises(ArtifactError, match="cannot open zip://"):
            run.log_reference("zip://x::file:///nosuch.zip")


class TestHostileStores:
    """What a store or a server says of a run's files is not to be believed."""

    def planted(self, tmp_path: Path, records: dict[str, Any]) -> mlcore.Run:
        client = mlcore.Client(tmp_path / "store")
        with client.start_run() as run:
            run.log_text("good", "good")
        if records:
            event = AttributesSet("run", run.id, "artifacts", records)
            client.store.append(Batch(os.urandom(16).hex(), run.id, (Record(1, clock.tick(), (event,)),)))
        return mlcore.Client(tmp_path / "store").get_run(run.id)

    @pytest.mark.parametrize(
        "name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\b", "..", "a//b", "C:\\x", "\0"], ids=ascii
    )
    def test_a_name_from_the_store_writes_nothing_outside(self, name: str, tmp_path: Path) -> None:
        """Guards downloads: one bad name stops them before the first byte."""
        run = self.planted(tmp_path, {name: {"sha256": sha256(b""), "size": 0}})
        before = sorted(tmp_path.rglob("*"))
        for call in (
            lambda: run.artifacts.get("", tmp_path / "dst" / "inner"),
            lambda: run.artifacts.get(name, tmp_path / "dst" / "inner"),
            lambda: run.artifacts.get(name),
            run.artifacts.get,
            lambda: run.artifacts.open(name),
            run.artifacts.verify,
        ):
            with pytest.raises((UnsafePath, ArtifactNotFound)):
                call()
        assert sorted(tmp_path.rglob("*")) == before
        assert isinstance(repr(run.artifacts), str)

    @pytest.mark.parametrize(
        "record", [None, 3, "x", [], {}, {"sha256": None}, {"sha256": "", "size": "x"}, {"size": -1}], ids=repr
    )
    def test_a_record_of_another_make_fits_no_file(self, record: Any, tmp_path: Path) -> None:
        """Guards the check: a record without a digest is not one that any file passes."""
        run = self.planted(tmp_path, {"good": record})
        assert [each.path for each in run.artifacts.list()] == ["good"]
        with pytest.raises(DigestMismatch):
            run.artifacts.get("good")
        with pytest.raises(DigestMismatch):
            run.artifacts.get("good", tmp_path / "dst")
        assert [each.problem for each in run.artifacts.verify()] == ["is not what was stored"]

    @pytest.mark.parametrize(
        ("id", "parent"), [("../../../x", "0"), ("/x", "0"), ("x", "../../.."), ("x", "/x"), ("..", "0")]
    )
    def test_an_id_from_the_store_is_no_path(self, id: str, parent: str, other: Shelf, tmp_path: Path) -> None:
        """Guards B2: what a store calls a run or an experiment leads out neither of the store nor of the root."""
        (tmp_path / "x" / "artifacts").mkdir(parents=True)
        (tmp_path / "x" / "artifacts" / "file").write_text("secret")
        mlcore.Client(tmp_path / "a" / "store").create_experiment("there")
        event = Created("run", id, parent)
        files = AttributesSet("run", id, "artifacts", {"file": {"sha256": sha256(b"secret"), "size": 6}})
        for client in (
            mlcore.Client(tmp_path / "a" / "store"),
            mlcore.Client("other://", artifacts=tmp_path / "a" / "files"),
        ):
            batch = Batch(os.urandom(16).hex(), "", (Record(1, clock.tick(), (event, files)),))
            client.store.append(batch)
            (run,) = client.list_runs("*")
            for call in (functools.partial(run.log_text, "x"), run.artifacts.get, run.artifacts.open):
                with pytest.raises(UnsafePath):
                    call("file")
        assert (tmp_path / "x" / "artifacts" / "file").read_text() == "secret"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "x"]

    def test_a_link_in_the_store_is_not_followed_out(self, tmp_path: Path) -> None:
        """Guards readers: a file of this machine is not served as one of the run, even where its digest is known."""
        secret = tmp_path / "secret"
        secret.write_text("good")
        run = self.planted(tmp_path, {})
        assert run.folder is not None
        (run.folder / "artifacts" / "good").unlink()
        (run.folder / "artifacts" / "good").symlink_to(secret)
        for call in (run.artifacts.get, run.artifacts.open, lambda name: run.artifacts.get(name, tmp_path / "dst")):
            with pytest.raises(UnsafePath, match="leads out"):
                call("good")

    def test_a_link_in_the_destination_is_not_followed(self, tmp_path: Path) -> None:
        """Guards a folder that is got into twice, from two stores."""
        run = self.planted(tmp_path, {})
        run.log_text("x", "d/file")
        (tmp_path / "outside").mkdir()
        (tmp_path / "dst").mkdir()
        (tmp_path / "dst" / "d").symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePath, match="leads out"):
            run.artifacts.get("", tmp_path / "dst")
        assert list((tmp_path / "outside").iterdir()) == []
        (tmp_path / "dst" / "d").unlink()
        (tmp_path / "dst" / "good").unlink(missing_ok=True)
        (tmp_path / "dst" / "good").symlink_to(tmp_path / "outside" / "new")
        run.artifacts.get("", tmp_path / "dst")
        assert list((tmp_path / "outside").iterdir()) == [], "a link that stands for a file is replaced"


class TestOff:
    def test_every_call_does_nothing(self, tmp_path: Path, model: Path) -> None:
        """Guards scripts run with tracking off: the same types come back, and nothing is written or hashed."""
        before = sorted(tmp_path.rglob("*"))
        with mlcore.Client("off").start_run() as run:
            assert run.log_artifact(model / "MLmodel") is None
            assert run.log_artifacts(model, "m") is None
            assert run.log_text("x", "a") is None
            assert run.log_bytes(b"x", "b") is None
            assert run.log_dict({}, "c.json") is None
            assert run.log_figure(SimpleNamespace(savefig=lambda file, **_: None), "d.png") is None
            assert run.log_reference("s3://nowhere/x") is None
            assert isinstance(run.artifacts.list(), mlcore.Listing)
            assert isinstance(run.artifacts.verify(), mlcore.Listing)
            assert run.artifacts.get("m", tmp_path / "x") == tmp_path / "x"
            assert isinstance(run.artifacts.get("m"), Path)
            assert run.artifacts.open("a").read() == b""
            with pytest.raises(UnsafePath):
                run.log_text("x", "../a")
        assert sorted(tmp_path.rglob("*")) == before


class TestMany:
    def test_a_failure_stops_the_others_and_leaves_no_parts(self, bucket: Bucket, tmp_path: Path) -> None:
        """Guards the disk of whoever's hundredth file cannot be read: the rest is not copied for nothing."""

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                time.sleep(0.01)
                return super().read(size)

        files = {str(number): Slow(b"x" * 10) for number in range(1000)}
        files["5"].close()
        with pytest.raises(ArtifactError, match=r"cannot store root/5: .*closed file"):
            artifacts.put(bucket, "root", files)
        assert len(bucket.files) < 100

    def test_a_long_copy_shows_how_far_it_is_on_a_terminal(
        self, run: mlcore.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Guards patience: on a terminal a bar, anywhere else and for little nothing."""
        (tmp_path / "file").write_bytes(b"x" * 5000)
        run.log_artifact(tmp_path / "file", "quiet")
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        run.log_artifact(tmp_path / "file", "short")
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(artifacts, "_LONG", (5000, 200))
        run.log_artifact(tmp_path / "file", "long")
        assert "storing" in capsys.readouterr().err
        run.artifacts.get("", tmp_path / "copy")
        err = capsys.readouterr().err
        assert "getting" in err
        assert "100%" in err
        run.artifacts.verify()
        assert "checking" in capsys.readouterr().err

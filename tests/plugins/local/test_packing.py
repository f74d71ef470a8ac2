"""`mlcore models pack` and `unpack`: the same bytes each time, and nothing out of a hostile file."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LinearRegression

import mlcore
from mlcore.cli import program
from mlcore.errors import (
    ArtifactError,
    ArtifactNotFound,
    DigestMismatch,
    InvalidValue,
    MlcoreError,
    NotAModel,
    UnsafePath,
)
from mlcore.models import digest_of
from mlcore_local import pack, unpack

LINE = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with files in folders, one of them with a long name that is not ASCII."""
    place = tmp_path_factory.mktemp("saved")
    extra = place / "extra"
    extra.mkdir()
    (extra / f"größe-{'x' * 120}.txt").write_text("long")
    (extra / "empty.txt").write_bytes(b"")
    (extra / "block.bin").write_bytes(bytes(range(256)) * 4)  # whole blocks, so without padding
    mlcore.save_model(LINE, place / "model", input_example=[[0.5]], code=[extra])
    return place / "model"


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of that model."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def hostile(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that packs the model and adds members to it."""
    pack(model, tmp_path / "good.tar")

    def make(*members: tarfile.TarInfo | tuple[str, bytes], kind: str = "w") -> Path:
        path = tmp_path / "hostile.tar"
        with tarfile.open(tmp_path / "good.tar") as good, tarfile.open(path, kind) as bad:  # type: ignore[call-overload]
            for each in good:
                bad.addfile(each, good.extractfile(each))
            for each in members:
                if isinstance(each, tarfile.TarInfo):
                    bad.addfile(each, io.BytesIO(bytes(each.size)))
                else:
                    entry = tarfile.TarInfo(each[0])
                    entry.size = len(each[1])
                    bad.addfile(entry, io.BytesIO(each[1]))
        return path

    return make


def member(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """Return a member of an archive that is no plain file."""
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[Path]:
    """Return where to unpack; there is nothing in the end, and nothing beside it."""
    (tmp_path / "place").mkdir()
    (tmp_path / "canary").write_text("alive")
    before = (tmp_path / "canary").stat().st_mtime_ns
    yield tmp_path / "place" / "model"
    assert list((tmp_path / "place").iterdir()) == []
    assert (tmp_path / "canary").read_text() == "alive"
    assert (tmp_path / "canary").stat().st_mtime_ns == before


def files(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize("name", ["model.tar", "model.tar.gz", "model.tgz"])
def test_what_was_packed_is_unpacked(name: str, model: Path, tmp_path: Path) -> None:
    """Guards the way there and back, and that the model predicts."""
    pack(model, tmp_path / name)
    info = unpack(tmp_path / name, tmp_path / "new" / "back")
    assert files(info.folder) == files(model)
    assert digest_of(info.folder) == digest_of(model)
    assert mlcore.load_model(info.folder).predict([[2.0]]).tolist() == pytest.approx([5.0])


@pytest.mark.parametrize("name", ["model.tar", "model.tar.gz"])
def test_the_same_model_is_packed_to_the_same_bytes(name: str, model: Path, tmp_path: Path) -> None:
    """Guards that place, time, owner, modes, order of files and umask leave no trace."""
    said = pack(model, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    other = tmp_path / "else" / "where"
    other.mkdir(parents=True)
    for path, data in reversed(files(model).items()):
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        (other / path).write_bytes(data)
        (other / path).chmod(0o700)
        os.utime(other / path, (1, 1))
    (other / "code" / "__pycache__").mkdir()
    (other / "code" / "__pycache__" / "x.pyc").write_bytes(b"left by MLflow")
    assert pack(other, tmp_path / "else" / name) == said
    assert (tmp_path / "else" / name).read_bytes() == first


def test_other_tools_read_it(model: Path, tmp_path: Path) -> None:
    """Guards that a pack is a plain tar archive, with its files on top, as SageMaker and others want it."""
    pack(model, tmp_path / "model.tar.gz")
    (tmp_path / "back").mkdir()
    done = subprocess.run(
        ["tar", "xzvf", tmp_path / "model.tar.gz", "-C", tmp_path / "back"], capture_output=True, check=True
    )
    assert done.stderr == b""
    assert files(tmp_path / "back") == files(model)


@pytest.mark.parametrize("form", ["--format=gnu", "--format=pax", "--format=ustar"])
def test_what_tar_made_is_unpacked(form: str, model: Path, tmp_path: Path) -> None:
    """Guards archives that people make by hand, with folders and names that begin with a dot."""
    if form == "--format=ustar":
        for each in (model / "code" / "extra").glob("gr*"):
            each.rename(each.with_name("a.txt"))
        (model / "MLmodel").write_text((model / "MLmodel").read_text().partition("mlcore:")[0])
    subprocess.run(["tar", "cf", tmp_path / "model.tar", form, "-C", model, "."], check=True)
    assert files(unpack(tmp_path / "model.tar", tmp_path / "back").folder) == files(model)


def test_the_signature_of_a_model_travels_along(model: Path, tmp_path: Path) -> None:
    """Guards that what is signed can be packed, and is still signed."""
    (model / "model.sig").write_text("{}")
    pack(model, tmp_path / "model.tar")
    assert (unpack(tmp_path / "model.tar", tmp_path / "back").folder / "model.sig").read_text() == "{}"


def test_a_model_that_was_changed_is_not_packed(model: Path, tmp_path: Path) -> None:
    """Guards against handing on what is broken; what was there before stays."""
    (tmp_path / "model.tar").write_text("before")
    (model / "requirements.txt").write_text("evil")
    with pytest.raises(DigestMismatch):
        pack(model, tmp_path / "model.tar")
    assert (tmp_path / "model.tar").read_text() == "before"
    assert list(tmp_path.glob(".mlcore*")) == []


@pytest.mark.parametrize(("target", "what"), [("model.zip", "no kind"), (".tar", "no kind"), ("model/a.tar", "in the")])
def test_a_target_that_cannot_be_is_refused(target: str, what: str, model: Path, tmp_path: Path) -> None:
    """Guards that nobody gets a tar archive called .zip, or one that is part of what it holds."""
    with pytest.raises(InvalidValue, match=what):
        pack(model, tmp_path / target)


def test_a_full_folder_is_not_touched(model: Path, tmp_path: Path) -> None:
    """Guards what is there already; an empty folder is taken."""
    pack(model, tmp_path / "model.tar")
    with pytest.raises(ArtifactError, match="there already"):
        unpack(tmp_path / "model.tar", model)
    (tmp_path / "empty").mkdir()
    assert files(unpack(tmp_path / "model.tar", tmp_path / "empty").folder) == files(model)
    with pytest.raises(ArtifactNotFound, match=r"nowhere\.tar"):
        unpack(tmp_path / "nowhere.tar", tmp_path / "other")


@pytest.mark.parametrize(
    "name",
    [
        "../canary",
        "/canary", "//canary", "a/../../canary", "..", ".", "a/./b", "..\\canary", "C:\\canary", "C:canary",
        "\\\\host\\share", "a\x00b", "a\nb", "a//b", "dot.", "space ", "x" * 300, "%2e%2e/../canary",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("nothing_left")
def test_a_name_that_leads_out_is_refused(name: str, hostile: Callable[..., Path], nothing_left: Path) -> None:
    """Guards B3: traversal, absolute names, those of other systems, and what no system shows as it is."""
    with pytest.raises((UnsafePath, ArtifactError)):
        unpack(hostile((name, b"dead")), nothing_left)


@pytest.mark.parametrize(
    "added",
    [
        member("link", tarfile.SYMTYPE, "../../canary"), member("link", tarfile.LNKTYPE, "MLmodel"),
        member("link", tarfile.SYMTYPE, "MLmodel"), member("pipe", tarfile.FIFOTYPE), member("null", tarfile.CHRTYPE),
        member("disk", tarfile.BLKTYPE), member("sparse", tarfile.GNUTYPE_SPARSE, size=512),
        member("odd", b"Z", size=512), member("folder", tarfile.DIRTYPE, size=512),
    ],
    ids=lambda each: f"{each.name}-{each.type!r}",
)  # fmt: skip
def test_what_is_no_plain_file_is_refused(
    added: tarfile.TarInfo, hostile: Callable[..., Path], nothing_left: Path
) -> None:
    """Guards B3: links of both kinds, pipes, devices, sparse files and what nobody knows."""
    with pytest.raises((UnsafePath, ArtifactError)):
        unpack(hostile(added), nothing_left)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a"], ["a", "A"], ["MLMODEL"], ["MLmodel"], ["./MLmodel"], ["a", "a/b"], ["a/b", "a"], ["A/b", "a/c"],
        ["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"], ["stra\xdfe", "STRASSE"],
        ["Code/x.py"],
    ],
)  # fmt: skip
def test_a_file_never_takes_the_place_of_another(
    names: list[str], hostile: Callable[..., Path], nothing_left: Path
) -> None:
    """Guards B3: the same name twice, for this system or for one that does not tell case or accents apart."""
    with pytest.raises(UnsafePath, match="place of"):
        unpack(hostile(*((name, b"x") for name in names)), nothing_left)


@pytest.mark.parametrize(
    "name", ["more.txt", "code/extra/__pycache__/x.cpython-311.pyc", ".mlcore-0123456789abcdef.tmp"]
)
def test_what_was_added_is_refused(name: str, hostile: Callable[..., Path], nothing_left: Path) -> None:
    """Guards that a file which the manifest does not name is no part of a model, bytecode the least."""
    with pytest.raises((DigestMismatch, UnsafePath)):
        unpack(hostile((name, b"x")), nothing_left)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(model: Path, tmp_path: Path) -> None:
    """Guards that what is unpacked is what was packed, bit by bit, whatever happened to the file."""
    pack(model, tmp_path / "model.tar")
    data, expected = (tmp_path / "model.tar").read_bytes(), digest_of(model)
    place = tmp_path / "place"
    place.mkdir()

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(data) * 8 - 1))
    def check(bit: int) -> None:
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "broken.tar").write_bytes(broken)
        try:
            folder = unpack(tmp_path / "broken.tar", place / str(bit)).folder
        except MlcoreError:
            assert not (place / str(bit)).exists()
        else:  # in MLmodel, which has no digest there, in owners or in padding
            found, known = files(folder), files(model)
            assert {n: d for n, d in found.items() if n != "MLmodel"} == {
                n: d for n, d in known.items() if n != "MLmodel"
            }
            if found["MLmodel"] == known["MLmodel"]:
                assert digest_of(folder) == expected

    check()
    assert list(place.glob(".mlcore*")) == []


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=3_000), squeezed=st.booleans())
def test_any_bytes_are_refused(data: bytes, squeezed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Guards that rubbish is an error of mlcore's, and leaves nothing."""
    place = tmp_path_factory.mktemp("rubbish")
    (place / "file").write_bytes(gzip.compress(data) if squeezed else data)
    with pytest.raises(MlcoreError):
        unpack(place / "file", place / "model")
    assert [each.name for each in place.iterdir()] == ["file"]


@pytest.mark.parametrize("cut", [1, 512, 600, 1_024, -1, -600, -1_024, -2_000])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_file_that_was_cut_is_refused(cut: int, suffix: str, model: Path, tmp_path: Path, nothing_left: Path) -> None:
    """Guards downloads that ended too early."""
    path = tmp_path / f"model.{suffix}"
    pack(model, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises((ArtifactError, NotAModel)):
        unpack(path, nothing_left)


def test_what_follows_the_end_is_refused(model: Path, tmp_path: Path, nothing_left: Path) -> None:
    """Guards against a second archive that other tools would read."""
    path = tmp_path / "model.tar"
    pack(model, path)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ArtifactError, match="follows the end"):
        unpack(path, nothing_left)


def bomb(path: Path, size: int, *, kind: bytes = tarfile.REGTYPE, tail: bool = True) -> None:
    """Write a gzip file of a member with so many zeros, which is about a thousandth of that."""
    with gzip.open(path, "wb", 9) as out:
        out.write(member("zeros", kind, size=size).tobuf(tarfile.GNU_FORMAT))
        for _ in range(size >> 20 if tail else 0):
            out.write(bytes(1 << 20))


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, nothing_left: Path) -> None:
    """Guards the disk: what says that it is too large is not begun."""
    bomb(tmp_path / "bomb.tar.gz", 10 << 40, tail=False)
    with pytest.raises(ArtifactError, match="limit"):
        unpack(tmp_path / "bomb.tar.gz", nothing_left)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE])
def test_a_bomb_in_a_header_is_refused(kind: bytes, tmp_path: Path, nothing_left: Path) -> None:
    """Guards the memory: the headers of a member are small."""
    bomb(tmp_path / "bomb.tar.gz", 50 << 20, kind=kind)
    with pytest.raises((ArtifactError, UnsafePath)):
        unpack(tmp_path / "bomb.tar.gz", nothing_left)


def test_a_bomb_of_many_files_or_of_zeros_at_the_end_is_refused(tmp_path: Path, nothing_left: Path) -> None:
    """Guards the disk's inodes and the clock: the sum counts, and how many there are."""
    with gzip.open(tmp_path / "many.tar.gz", "wb", 1) as out:
        for number in range(100_001):
            out.write(member(f"{number}/", tarfile.DIRTYPE).tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(ArtifactError, match="members"):
        unpack(tmp_path / "many.tar.gz", nothing_left)
    packed = zlib.compressobj(9, wbits=31)
    (tmp_path / "zeros.tar.gz").write_bytes(
        b"".join(packed.compress(bytes(1 << 20)) for _ in range(150)) + packed.flush()
    )
    with pytest.raises(ArtifactError, match="limit"):
        unpack(tmp_path / "zeros.tar.gz", nothing_left)


def test_the_limit_can_be_given(model: Path, tmp_path: Path) -> None:
    """Guards both ways: a lower one stops, a higher one lets through what was refused."""
    pack(model, tmp_path / "model.tar")
    with pytest.raises(ArtifactError, match="higher limit"):
        unpack(tmp_path / "model.tar", tmp_path / "low", limit=1_000)
    assert unpack(tmp_path / "model.tar", tmp_path / "high", limit=1_000_000).folder.is_dir()


def test_what_is_no_model_is_refused(tmp_path: Path, nothing_left: Path) -> None:
    """Guards that unpack makes models, and nothing else."""
    with tarfile.open(tmp_path / "other.tar", "w") as out:
        out.addfile(member("a.txt", tarfile.REGTYPE))
    with pytest.raises(NotAModel):
        unpack(tmp_path / "other.tar", nothing_left)


def test_nobody_else_looks_into_it_while_it_is_written(model: Path, tmp_path: Path) -> None:
    """Guards B6: with an umask of 0 what is half there is hidden, and what is there is as the umask says."""
    pack(model, tmp_path / "model.tar")
    (tmp_path / "place").mkdir()
    code = f"""
import os, sys
os.umask(0)
from mlcore_local import packing
modes = set()
def look(*_):
    modes.update(oct(each.stat().st_mode & 0o777) for each in packing.Path({str(tmp_path / "place")!r}).iterdir())
extract = packing._extract
packing._extract = lambda *given: (look(), extract(*given), look())
packing.unpack({str(tmp_path / "model.tar")!r}, {str(tmp_path / "place" / "model")!r})
print(sorted(modes))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['0o700']"


def test_the_commands_pack_a_model_of_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way a model goes by file: from one store to a folder that another registers."""
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    client = mlcore.set_store(tmp_path / "store")
    with client.start_run() as run:
        digest = run.log_model(LINE, "line", register="lines").digest
    packed, folder = tmp_path / "line.tar", tmp_path / "line"
    run_it = CliRunner().invoke
    done = run_it(program, ["models", "pack", "models:/lines/1", "-o", str(packed), "--json"])
    assert done.exit_code == 0, done.output
    said = subprocess.run(["sha256sum", packed], capture_output=True, text=True, check=True).stdout.split()[0]
    assert json.loads(done.output) == {"file": str(packed), "sha256": said}
    assert run_it(program, ["models", "pack", "models:/lines/1", "-o", str(packed)]).output == f"{said}  {packed}\n"
    done = run_it(program, ["models", "unpack", str(packed), str(folder), "--limit", "10MB", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {"folder": str(folder), "digest": digest}
    assert run_it(program, ["models", "unpack", str(packed), str(folder), "--limit", "lots"]).exit_code == 2
    done = run_it(program, ["models", "unpack", str(packed), str(tmp_path / "two")])
    assert "flavor sklearn" in done.output.replace("\n", " ")

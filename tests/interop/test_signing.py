"""What mlcore signs, OpenSSF's model-signing verifies, and the other way round; both refuse what was changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import mlcore
from interop.environments import clean_environment, environment
from mlcore.errors import BadSignature
from mlcore.models import SIGNATURE
from mlcore_signing import KeyPair, sign, verify
from signatures import pair, saved

# it fails to import without pyOpenSSL, which it does not ask for
OPENSSF = ("model-signing==1.1.1", "pyOpenSSL==26.3.0")


@pytest.fixture(scope="session")
def openssf() -> Path:
    """Return the command of OpenSSF, in an environment of its own."""
    return environment(*OPENSSF).with_name("model_signing")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of a model."""
    return saved(tmp_path / "model")


def ask(command: Path, what: str, folder: Path, keys: KeyPair, *options: str) -> int:
    """Sign or verify with OpenSSF's command; return its exit code."""
    key = ["--private_key", keys.private] if what == "sign" else ["--public_key", keys.public]
    done = subprocess.run(
        [command, what, "key", folder, "--signature", folder / SIGNATURE, *key, *options],
        env=clean_environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
def test_each_verifies_what_the_other_signed(curve: str, model: Path, openssf: Path, tmp_path: Path) -> None:
    """Guards the format: payload, lengths, digests, names of keys."""
    keys, other = pair(tmp_path, curve=curve), pair(tmp_path, "other", curve=curve)
    sign(model, keys.private)
    assert ask(openssf, "verify", model, keys) == 0
    assert ask(openssf, "verify", model, other) == 1
    (model / SIGNATURE).unlink()
    assert ask(openssf, "sign", model, keys) == 0
    assert verify(model, keys.public).signer == keys.fingerprint
    assert mlcore.get_model(model).verify() == verify(model, keys.public).digest
    with pytest.raises(BadSignature):
        verify(model, other.public)
    (model / "more").write_text("")
    assert ask(openssf, "verify", model, keys) == 1
    with pytest.raises(BadSignature, match="'more' was added"):
        verify(model, keys.public)


def test_what_openssf_leaves_out_is_refused_by_mlcore(model: Path, openssf: Path, tmp_path: Path) -> None:
    """Guards files of git and lists of what to ignore: OpenSSF's default covers neither, mlcore covers all."""
    keys = pair(tmp_path)
    assert ask(openssf, "sign", model, keys) == 0
    (model / ".gitattributes").write_text("* filter=evil\n")
    assert ask(openssf, "verify", model, keys) == 0
    with pytest.raises(BadSignature, match=r"'\.gitattributes' was added"):
        verify(model, keys.public)
    (model / ".gitattributes").unlink()
    (model / "evil.py").write_text("")
    assert ask(openssf, "sign", model, keys, "--ignore-paths", str(model / "evil.py")) == 0
    assert ask(openssf, "verify", model, keys) == 0
    with pytest.raises(BadSignature, match=r"'evil\.py' was added"):
        verify(model, keys.public)


def test_pieces_and_other_digests_are_refused_in_words(model: Path, openssf: Path, tmp_path: Path) -> None:
    """Guards the message about what OpenSSF's library can write, and mlcore has no use for."""
    keys = pair(tmp_path)
    code = f"""
import pathlib, model_signing
from model_signing import hashing, signing
config = signing.Config().use_elliptic_key_signer(private_key=pathlib.Path({str(keys.private)!r}))
how = hashing.Config().use_file_serialization(hashing_algorithm="blake2", ignore_paths=[{str(model / SIGNATURE)!r}])
config.set_hashing_config(how).sign({str(model)!r}, {str(model / SIGNATURE)!r})
"""
    subprocess.run([openssf.with_name("python"), "-c", code], env=clean_environment(), check=True, timeout=120)
    with pytest.raises(BadSignature, match="must hold one sha256 a file"):
        verify(model, keys.public)

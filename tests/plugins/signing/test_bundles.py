"""Nothing stands that is not exactly what a key signed: of the files, of the bundle, of the key."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from mlcore.errors import BadSignature, ConfigError
from mlcore.models import SIGNATURE
from mlcore_signing import KeyPair, make_key, sign
from mlcore_signing.bundles import LARGEST
from mlcore_signing.verifying import check_files, hash_model, verify_folder
from signatures import bundle, pair, saved, sign_edited, sign_payload, statement

Edit = Callable[[Any], object]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """Return a pair of keys."""
    return pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def model(tmp_path: Path, keys: KeyPair) -> Path:
    """Return the folder of a signed model."""
    folder = saved(tmp_path / "model")
    sign(folder, keys.private)
    return folder


def check(folder: Path, keys: KeyPair) -> Any:
    """Verify a model with a key."""
    return verify_folder(folder, {"these tests": [str(keys.public)]})


def refused(folder: Path, keys: KeyPair, match: str) -> None:
    """Check that a model is refused, and that the message says why and of which model."""
    with pytest.raises(BadSignature, match=match) as told:
        check(folder, keys)
    assert str(folder) in str(told.value)


def test_what_was_signed_is_verified_and_every_digest_is_told(model: Path, keys: KeyPair) -> None:
    """Guards that what a verifier returns is what hashing the files once more would give."""
    files = {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.rglob("*")
        if path.is_file() and path.name != SIGNATURE
    }
    signed = check(model, keys)
    assert dict(signed.files) == files == hash_model(model)
    assert signed.signer == keys.fingerprint
    assert dict(check_files(model, {"a": [str(keys.public)], "b": [keys.public.read_text()]})) == files


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
def test_each_curve_signs(curve: str, tmp_path: Path) -> None:
    """Guards both curves, and keys that are encrypted."""
    made = make_key(tmp_path / "key", curve=curve, password="dear")
    folder = saved(tmp_path / "model")
    sign(folder, made.private, password="dear")
    assert check(folder, made).signer == made.fingerprint


def _flip(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)


@settings(max_examples=150)
@given(data=st.data())
def test_a_flipped_bit_of_any_file_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Guards every file of a model and its signature: of the bundle, too, no bit is free."""
    model, keys = _kept(tmp_path_factory)
    name = data.draw(st.sampled_from([*sorted(hash_model(model)), *[SIGNATURE] * 8]))
    path, before = model / name, (model / name).read_bytes()
    if not before:
        return
    _flip(path, data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7)))
    try:
        with pytest.raises(BadSignature):
            check(model, keys)
    finally:
        path.write_bytes(before)
    check(model, keys)


_made: list[tuple[Path, KeyPair]] = []


def _kept(factory: pytest.TempPathFactory) -> tuple[Path, KeyPair]:
    """Return one signed model for all examples."""
    if not _made:
        place = factory.mktemp("flips")
        made = pair(place)
        sign(saved(place / "model"), made.private)
        _made.append((place / "model", made))
    return _made[0]


@settings(max_examples=60)
@given(data=st.data())
def test_a_shortened_bundle_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Guards signatures that were cut off, or have something behind them."""
    model, keys = _kept(tmp_path_factory)
    path = model / SIGNATURE
    before = path.read_bytes()
    cut = before[: data.draw(st.integers(0, len(before) - 1))]
    try:
        path.write_bytes(cut if data.draw(st.booleans()) else before + data.draw(st.sampled_from([b"}", b"x", before])))
        with pytest.raises(BadSignature):
            check(model, keys)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    "name", ["extra.bin", ".hidden", ".gitignore", ".git/config", "code/extra.py", "code/__pycache__/a.pyc"]
)
def test_a_file_more_is_refused(name: str, model: Path, keys: KeyPair) -> None:
    """Guards hidden files and those of git as well, which OpenSSF's own tools leave out by default."""
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"")
    refused(model, keys, f"'{name}' was added")


def test_folders_may_be_deeper_than_a_stack(model: Path, keys: KeyPair) -> None:
    """Guards that what somebody made to break a verifier is refused as all else is."""
    deep = model
    try:
        for _ in range(1_200):
            deep = deep / "d"
            deep.mkdir()
        check(model, keys)  # folders without files are no files
        (deep / "more").write_bytes(b"")
        refused(model, keys, "d/d/d/more' was added")
    finally:
        (deep / "more").unlink(missing_ok=True)
        while deep != model:  # which `shutil.rmtree`, and pytest with it, is not able to
            deep.rmdir()
            deep = deep.parent


def test_a_file_less_is_refused(model: Path, keys: KeyPair) -> None:
    """Guards that missing and changed files are named, and the missing ones before any is read."""
    (model / "requirements.txt").unlink()
    (model / "MLmodel").write_text("changed")
    refused(model, keys, "'requirements.txt' is missing")


def test_a_changed_file_is_named(model: Path, keys: KeyPair) -> None:
    """Guards the message that says what to look at."""
    (model / "MLmodel").write_text("changed")
    refused(model, keys, "'MLmodel' was changed")


def test_files_that_swapped_their_content_are_refused(model: Path, keys: KeyPair) -> None:
    """Guards that a digest counts under its name, not only as one of many."""
    one, two = model / "conda.yaml", model / "python_env.yaml"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    refused(model, keys, "'conda.yaml' was changed, 'python_env.yaml' was changed")


def test_what_is_being_written_is_no_file(model: Path, keys: KeyPair) -> None:
    """Guards two processes that fetch one model: what one still writes, which nobody reads, disturbs no other."""
    (model / f".mlcore-{'0' * 16}.tmp").write_bytes(b"half")
    check(model, keys)


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links and pipes: run it on Linux or macOS")
class TestWhatIsNoFile:
    def test_a_link_is_refused_wherever_it_leads(self, model: Path, keys: KeyPair, tmp_path: Path) -> None:
        """Guards against content that can change after it was compared, or lies elsewhere."""
        copy = tmp_path / "elsewhere"
        (model / "MLmodel").rename(copy)
        (model / "MLmodel").symlink_to(copy)
        refused(model, keys, "'MLmodel' is a link or a device")

    def test_a_linked_folder_is_refused(self, model: Path, keys: KeyPair, tmp_path: Path) -> None:
        """Guards folders as files."""
        (model / "more").symlink_to(tmp_path, target_is_directory=True)
        refused(model, keys, "'more' is a link or a device")

    def test_a_signature_that_is_a_link_is_refused(self, model: Path, keys: KeyPair, tmp_path: Path) -> None:
        """Guards the signature itself."""
        (model / SIGNATURE).rename(tmp_path / "moved")
        (model / SIGNATURE).symlink_to(tmp_path / "moved")
        refused(model, keys, "cannot be read")

    def test_a_link_that_takes_a_files_place_meanwhile_is_not_followed(
        self, model: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards the moment between looking at names and reading the files."""
        from mlcore_signing import verifying

        names = verifying._names

        def then_swapped(folder: Path) -> set[str]:
            found = names(folder)
            (folder / "MLmodel").rename(tmp_path / "moved")
            (folder / "MLmodel").symlink_to(tmp_path / "moved")
            return found

        monkeypatch.setattr(verifying, "_names", then_swapped)
        refused(model, keys, "'MLmodel' cannot be read")

    def test_a_pipe_is_refused_at_once(self, model: Path, keys: KeyPair) -> None:
        """Guards against a verifier that waits forever."""
        (model / SIGNATURE).unlink()
        os.mkfifo(model / SIGNATURE)
        refused(model, keys, "no regular file")


def test_a_model_without_a_signature_is_refused(model: Path, keys: KeyPair) -> None:
    """Guards what is most likely, and that the message says who can help."""
    (model / SIGNATURE).unlink()
    refused(model, keys, "it is not signed.*mlcore models sign")


def test_the_signature_of_another_key_is_refused(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    """Guards that both keys are named, and that naming the right one does not help."""
    other = pair(tmp_path, "other")
    refused(model, other, f"by the key '{keys.fingerprint[:16]}', which is none of the keys of these tests")
    found = bundle(model)
    found["verificationMaterial"]["publicKey"]["hint"] = other.fingerprint
    (model / SIGNATURE).write_text(json.dumps(found))
    refused(model, other, "which it did not")


def test_the_signature_of_another_model_is_refused(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    """Guards against a good signature beside the wrong files."""
    other = saved(tmp_path / "other")
    (other / "more").write_bytes(b"")
    (other / SIGNATURE).write_bytes((model / SIGNATURE).read_bytes())
    refused(other, keys, "'more' was added")


def test_no_key_is_not_any_key(model: Path) -> None:
    """Guards empty lists, which must not let everything in."""
    for none in ({}, {"nobody": []}, {"these tests": [], "others": []}):
        with pytest.raises(BadSignature):
            verify_folder(model, none)


def test_of_several_keys_one_must_have_signed_for_each_who_asks(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    """Guards that two who require different keys are both heard."""
    mine, other = str(keys.public), str(pair(tmp_path, "other").public)
    verify_folder(model, {"a": [other, mine], "b": [mine]})
    with pytest.raises(BadSignature, match="none of the keys of b"):
        verify_folder(model, {"a": [mine], "b": [other]})


BUNDLES: dict[str, tuple[Edit, str]] = {
    "another kind of bundle": (lambda it: it.update(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"), "kind"),
    "another payload": (lambda it: it["dsseEnvelope"].update(payloadType="text/plain"), "must sign"),
    "no signature": (lambda it: it["dsseEnvelope"].update(signatures=[]), "exactly one"),
    "two signatures": (
        lambda it: it["dsseEnvelope"].update(signatures=it["dsseEnvelope"]["signatures"] * 2), "exactly one",
    ),
    "no envelope": (lambda it: it.pop("dsseEnvelope"), "lacks dsseEnvelope"),
    "a message instead": (lambda it: it.update(messageSignature={"signature": "AA=="}), "messageSignature"),
    "a certificate": (
        lambda it: it.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}}), "a key must sign",
    ),
    "a certificate as well": (lambda it: it["verificationMaterial"].update(certificate={}), "certificate"),
    "a key of its own": (
        lambda it: it["verificationMaterial"]["publicKey"].update(rawBytes="AA=="), "rawBytes",
    ),
    "no hint": (lambda it: it["verificationMaterial"]["publicKey"].pop("hint"), "lacks hint"),
    "a hint of another type": (lambda it: it["verificationMaterial"]["publicKey"].update(hint=[1]), "lacks hint"),
    "a key id": (lambda it: it["dsseEnvelope"]["signatures"][0].update(keyid="mine"), "keyid"),
    "no base64": (lambda it: it["dsseEnvelope"].update(payload="%%"), "cannot be read"),
    "base64 of a line": (
        lambda it: it["dsseEnvelope"].update(payload=it["dsseEnvelope"]["payload"] + "\n"), "cannot be read",
    ),
    "an empty signature": (lambda it: it["dsseEnvelope"]["signatures"][0].update(sig=""), "which it did not"),
    "a list": (lambda it: it["dsseEnvelope"].update(signatures=[[]]), "lacks signatures"),
}  # fmt: skip


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_of_another_shape_is_refused(name: str, model: Path, keys: KeyPair) -> None:
    """Guards all of the bundle, of which only the payload is signed."""
    edit, match = BUNDLES[name]
    found = bundle(model)
    edit(found)
    (model / SIGNATURE).write_text(json.dumps(found))
    refused(model, keys, match)


STATEMENTS: dict[str, tuple[Edit, str]] = {
    "no statement": (lambda it: it.update(_type="https://in-toto.io/Statement/v0.1"), "no signature of a model"),
    "of something else": (lambda it: it.update(predicateType="https://slsa.dev/provenance/v1"), "no signature of a mo"),
    "of the format before": (
        lambda it: it.update(predicateType="https://model_signing/Digests/v0.1"), "no signature of a model",
    ),
    "without a predicate": (lambda it: it.pop("predicate"), "lacks predicate"),
    "pieces of files": (lambda it: it["predicate"]["serialization"].update(method="shards"), "one sha256 a file"),
    "another digest": (lambda it: it["predicate"]["serialization"].update(hash_type="blake2b"), "one sha256 a file"),
    "another digest of one": (lambda it: it["predicate"]["resources"][0].update(algorithm="md5"), "no sha256 of"),
    "a short digest": (lambda it: it["predicate"]["resources"][0].update(digest="ab"), "no sha256 of"),
    "no files": (lambda it: it["predicate"].update(resources=None), "lists no files"),
    "a file that leads out": (lambda it: it["predicate"]["resources"][0].update(name="../a"), "cannot be"),
    "an absolute file": (lambda it: it["predicate"]["resources"][0].update(name="/etc/passwd"), "cannot be"),
    "a file twice": (
        lambda it: it["predicate"]["resources"].append({**it["predicate"]["resources"][0], "digest": "0" * 64}),
        "twice",
    ),
    "two models": (lambda it: it.update(subject=it["subject"] * 2), "lacks subject"),
    "the digest of another whole": (lambda it: it["subject"][0]["digest"].update(sha256="0" * 64), "contradicts"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_of_another_shape_is_refused_though_the_right_key_signed_it(
    name: str, model: Path, keys: KeyPair
) -> None:
    """Guards against what a signer of another format, or of ill will, might have meant."""
    edit, match = STATEMENTS[name]
    sign_edited(model, keys, edit)
    refused(model, keys, match)


def test_what_a_signature_says_is_to_be_ignored_counts_all_the_same(model: Path, keys: KeyPair) -> None:
    """Guards against lists of files to ignore, which OpenSSF's own tool believes."""
    (model / "evil.py").write_text("")
    sign_edited(model, keys, lambda it: it["predicate"]["serialization"].update(ignore_paths=["evil.py", "."]))
    refused(model, keys, r"'evil.py' was added")


def test_json_with_a_key_twice_is_refused(model: Path, keys: KeyPair) -> None:
    """Guards against bundles and statements that two readers read differently."""
    text = (model / SIGNATURE).read_text()
    (model / SIGNATURE).write_text('{"mediaType":"x",' + text[1:])
    refused(model, keys, "a key is there twice")
    (model / SIGNATURE).write_text(text)
    payload = json.dumps(statement(model))
    sign_payload(model, ('{"_type":"x",' + payload[1:]).encode(), keys)
    refused(model, keys, "a key is there twice")


def test_the_signature_of_another_kind_of_payload_is_refused(model: Path, keys: KeyPair) -> None:
    """Guards against a signature that the key made for another purpose."""
    sign_payload(model, json.dumps(statement(model)).encode(), keys, kind="text/plain")
    found = bundle(model)
    found["dsseEnvelope"]["payloadType"] = "application/vnd.in-toto+json"
    (model / SIGNATURE).write_text(json.dumps(found))
    refused(model, keys, "which it did not")


def test_left_over_bits_of_base64_are_refused(model: Path, keys: KeyPair) -> None:
    """Guards against two texts for one signature."""
    payload = json.dumps(statement(model)).encode()
    payload += b" " * (-(len(payload) + 1) % 3)  # two bytes are left over, and so are four bits
    sign_payload(model, payload, keys)
    check(model, keys)
    found = bundle(model)
    text = found["dsseEnvelope"]["payload"]
    other = text[:-2] + chr(ord(text[-2]) + 1) + "="
    assert text.endswith("=")
    assert base64.b64decode(other) == payload
    found["dsseEnvelope"]["payload"] = other
    (model / SIGNATURE).write_text(json.dumps(found))
    refused(model, keys, "left over")


def test_a_huge_bundle_is_not_read(model: Path, keys: KeyPair) -> None:
    """Guards the memory of who verifies."""
    with (model / SIGNATURE).open("r+b") as file:
        file.truncate(LARGEST + 1)
    refused(model, keys, "has more than")


def test_deep_json_is_refused(model: Path, keys: KeyPair) -> None:
    """Guards against what makes a parser fail in another way."""
    for content in (b"[" * 100_000, b"\xff\xfe", b"", b"null", b"[]", b'"a"', b"NaN"):
        (model / SIGNATURE).write_bytes(content)
        refused(model, keys, "cannot be read|lacks")


class TestKeys:
    def test_a_pair_is_for_its_owner_and_replaces_none(self, tmp_path: Path) -> None:
        """Guards private keys from others, and from `keygen` itself."""
        from mlcore.errors import InvalidValue, ModelError

        made = pair(tmp_path)
        if os.name == "posix":
            assert made.private.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ModelError, match="is there already"):
            pair(tmp_path)
        with pytest.raises(InvalidValue, match="no curve"):
            pair(tmp_path, "other", curve="P-1")
        with pytest.raises(InvalidValue, match="empty password"):
            pair(tmp_path, "other", password="")
        with pytest.raises(ModelError, match="cannot write"):
            pair(tmp_path / "nowhere")

    @pytest.mark.parametrize("kind", ["ed25519", "rsa", "secp256k1"])
    def test_a_key_of_another_kind_is_an_error_that_says_so(self, kind: str, model: Path, tmp_path: Path) -> None:
        """Guards against keys that OpenSSF's format has no place for, to sign with and to verify."""
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        key: Any = {
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
            "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        }[kind]()
        private, public = tmp_path / "key.pem", tmp_path / "key.pub"
        private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(ConfigError, match=r"cannot sign models.*mlcore models keygen"):
            sign(model, private)
        with pytest.raises(ConfigError, match="cannot sign models"):
            verify_folder(model, {"these tests": [str(public)]})

    def test_what_is_no_key_is_an_error_that_names_it(self, model: Path, tmp_path: Path, keys: KeyPair) -> None:
        """Guards every mistake with files and passwords, and that a private key is not taken for a public one."""
        hidden = pair(tmp_path, "hidden", password="dear")
        junk = tmp_path / "junk"
        junk.write_bytes(b"x" * 200_000)
        (tmp_path / "text").write_text("hello")
        for path, password, match in [
            (hidden.private, None, "is encrypted: give its password"),
            (hidden.private, "wrong", "the password is wrong"),
            (keys.private, "dear", "not encrypted, so it takes no password"),
            (keys.public, None, "is no private key"),
            (tmp_path / "none", None, "cannot read the key .*none"),
            (tmp_path, None, "cannot read the key"),
            (junk, None, "has more than"),
            (tmp_path / "text", None, "is no private key"),
        ]:
            with pytest.raises(ConfigError, match=match):
                sign(model, path, password=password)
        for public, match in [
            (keys.private, "is a private key, which only signs"),
            (hidden.private, "is a private key, which only signs"),
            (tmp_path / "text", "is no public key"),
            (tmp_path / "none", "cannot read the key"),
            ("-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----", "a key of these tests is no public key"),
        ]:
            with pytest.raises(ConfigError, match=match) as told:
                verify_folder(model, {"these tests": [str(public)]})
            assert "dear" not in str(told.value)

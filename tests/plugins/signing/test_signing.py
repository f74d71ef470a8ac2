"""A model is signed wherever it lies, and stays the model that it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mlcore
from mlcore import artifacts
from mlcore.errors import BadSignature, ConfigError, DigestMismatch, NotAModel, NotFound, UnsafePath
from mlcore.models import SIGNATURE, digest_of
from mlcore_signing import KeyPair, release, require, sign, verify
from signatures import Lengths, pair, saved


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """Return a pair of keys."""
    return pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def client(tmp_path: Path) -> mlcore.Client:
    """Return a client of a store of its own."""
    return mlcore.Client(tmp_path / "store")


def log(client: mlcore.Client, **options: str) -> mlcore.LoggedModel:
    """Log a model to a run, which ends."""
    with client.start_run() as run:
        return run.log_model(Lengths(), "lengths", input_example=["ab"], **options)


def test_a_folder_is_signed_and_stays_the_model_it_was(tmp_path: Path, keys: KeyPair) -> None:
    """Guards that the digest of a model, and what is trusted by it, do not change with a signature."""
    folder = saved(tmp_path / "model")
    before = digest_of(folder)
    made = sign(folder, keys.private)
    assert made == verify(folder, keys.public) == verify(str(folder), [keys.public.read_text()])
    assert made.digest == digest_of(folder) == before
    assert SIGNATURE not in made.files
    assert mlcore.load_model(folder).predict(["abc"]) == [3]
    assert mlcore.get_model(folder).verify() == before


def test_a_signature_is_replaced(tmp_path: Path, keys: KeyPair) -> None:
    """Guards a second signer, who signs the same files and not the signature of the first."""
    folder, other = saved(tmp_path / "model"), pair(tmp_path, "other", curve="P-384")
    first = sign(folder, keys.private)
    assert sign(folder, other.private).files == first.files
    assert verify(folder, [keys.public, other.public]).signer == other.fingerprint
    with pytest.raises(BadSignature):
        verify(folder, keys.public)


def test_a_model_of_an_ended_run_is_signed(client: mlcore.Client, keys: KeyPair) -> None:
    """Guards that the signature is one of the run's files, recorded as they are."""
    logged = log(client)
    made = sign(logged.uri, keys.private, client=client)
    assert (made.uri, made.digest) == (logged.uri, logged.digest)
    run = client.get_run(logged.run_id)
    assert [each.path for each in run.artifacts.list("lengths") if each.path.endswith(SIGNATURE)]
    assert run.artifacts.verify() == []
    assert run.models[0].digest == logged.digest
    assert verify(logged.uri, keys.public, client=client).files == made.files
    assert client.load_model(logged.uri).predict(["abc"]) == [3]


def test_a_version_is_signed_where_it_lies(client: mlcore.Client, keys: KeyPair) -> None:
    """Guards signing after registering: the digest that was pinned stays good."""
    logged = log(client, register="lengths")
    made = sign("models:/lengths/1", keys.private, client=client)
    assert made.uri == logged.uri
    assert verify("models:/lengths/1", keys.public, client=client).digest == logged.digest
    assert client.load_model("models:/lengths/1").predict(["abc"]) == [3]
    assert client.registry.version("models:/lengths/1").digest == logged.digest


def test_a_version_of_a_deleted_model_is_not_signed(client: mlcore.Client, keys: KeyPair) -> None:
    """Guards that signing finds what loading finds, and no more."""
    log(client, register="lengths")
    client.registry.get("lengths").delete()
    with pytest.raises(NotFound, match="deleted"):
        sign("models:/lengths/1", keys.private, client=client)


def test_a_model_in_a_bucket_is_signed(tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards places that are no folder: the model is fetched, and its signature put beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"memory://{tmp_path}/model"
    artifacts.put(*artifacts.open_backend(place), dict(artifacts.files_in(saved(tmp_path / "model"))))
    sign(place, keys.private)
    signed = verify(place, keys.public)
    assert signed.signer == keys.fingerprint
    filesystem, path = artifacts.open_backend(place)
    filesystem.pipe_file(f"{path}/more", b"")
    with pytest.raises(BadSignature, match="'more' was added"):
        verify(place, keys.public)


def test_files_of_a_run_in_a_bucket_are_signed(tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards runs whose files lie elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    client = mlcore.Client(tmp_path / "store", artifacts=f"memory://{tmp_path}/files")
    logged = log(client, register="lengths")
    sign("models:/lengths/1", keys.private, client=client)
    require(keys.public, client=client)
    assert client.load_model(logged.uri, trust=True).predict(["abc"]) == [3]
    assert verify(logged.uri, client=client).signer == keys.fingerprint


def test_what_is_not_what_was_saved_is_not_signed(tmp_path: Path, keys: KeyPair) -> None:
    """Guards signers: they sign what mlcore saved, not what somebody made of it since."""
    folder = saved(tmp_path / "model")
    (folder / "more").write_text("")
    with pytest.raises(DigestMismatch, match="more was added"):
        sign(folder, keys.private)
    assert not (folder / SIGNATURE).exists()


def test_what_is_not_what_was_registered_is_not_signed_and_not_verified(
    tmp_path: Path, client: mlcore.Client, keys: KeyPair
) -> None:
    """Guards versions: a good signature of another model does not make it the one that was registered."""
    folder = saved(tmp_path / "model")
    client.register_model(folder, "lengths")
    (folder / "MLmodel").write_text((folder / "MLmodel").read_text() + "# changed\n")
    with pytest.raises(DigestMismatch, match="not what was registered"):
        sign("models:/lengths/1", keys.private, client=client)
    sign(folder, keys.private)
    verify(folder, keys.public)
    with pytest.raises(DigestMismatch, match="not what was registered"):
        verify("models:/lengths/1", keys.public, client=client)


def test_a_model_that_mlcore_did_not_save_is_signed(tmp_path: Path, keys: KeyPair) -> None:
    """Guards models of MLflow, which list no digests of their own."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: a}}\n")
    sign(folder, keys.private)
    verify(folder, keys.public)


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "a file"])
def test_what_is_no_model_is_not_signed(what: str, tmp_path: Path, keys: KeyPair) -> None:
    """Guards against signatures of folders that somebody named by mistake."""
    folder = tmp_path / "folder"
    if what == "an empty folder":
        folder.mkdir()
    elif what == "a file":
        folder.write_text("")
    with pytest.raises((NotAModel, BadSignature)) as told:
        sign(folder, keys.private)
    assert str(folder) in str(told.value)


def test_a_link_is_not_signed(tmp_path: Path, keys: KeyPair) -> None:
    """Guards signers as verifiers: a link says nothing of what it will lead to."""
    folder = saved(tmp_path / "model")
    (folder / "link").symlink_to(folder / "MLmodel")
    with pytest.raises((BadSignature, UnsafePath), match="link"):
        sign(folder, keys.private)


def test_to_verify_takes_a_key(tmp_path: Path, client: mlcore.Client) -> None:
    """Guards against a verification that compares with nothing."""
    folder = saved(tmp_path / "model")
    for none in (None, []):
        with pytest.raises(ConfigError, match="no key is required or given"):
            verify(folder, none, client=client)


def test_a_store_requires_keys_and_forgets_them(client: mlcore.Client, keys: KeyPair, tmp_path: Path) -> None:
    """Guards the list of a store, with who required what and when; taken out, a key stays in the history."""
    assert client.registry.signers == {}
    with pytest.raises(NotFound, match="requires none"):
        release(keys.public, client=client)
    other = pair(tmp_path, "other")
    assert require(keys.public, client=client) == keys.fingerprint
    require(other.public, client=client)
    require(other.public, client=client)
    found = mlcore.Client(tmp_path / "store").registry.signers
    assert found.keys() == {keys.fingerprint, other.fingerprint}
    assert found[keys.fingerprint]["key"] == keys.public.read_text()
    assert found[keys.fingerprint]["user"]
    assert found[keys.fingerprint]["time"] > 0
    with pytest.raises(NotFound):
        release(keys.fingerprint[:7], client=client)
    assert release(keys.fingerprint[:8], client=client) == keys.fingerprint
    assert release(other.public, client=client) == other.fingerprint
    assert client.registry.signers == {}
    assert _told(client) == [
        keys.fingerprint,
        other.fingerprint,
        other.fingerprint,
        keys.fingerprint,
        other.fingerprint,
    ]


def _told(client: mlcore.Client) -> list[str]:
    """Return which keys the store's events are about, in order."""
    return list(_keys(client))


def _keys(client: mlcore.Client) -> Iterator[str]:
    for stored in client.store.events(kinds=["policy"]):
        for record in stored.batch.records:
            for event in record.events:
                yield from getattr(event, "values", {})

"""Where a signature is required, nothing of a model is read before it was checked; and nothing passes instead."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn.linear_model import LogisticRegression

import mlcore
from mlcore import config, models
from mlcore.errors import BadSignature, ConfigError
from mlcore.models import SIGNATURE, load_folder
from mlcore.store import AttributesSet
from mlcore_signing import KeyPair, release, require, sign
from serving import serving_here
from signatures import Lengths, pair, saved

Damage = Callable[[Path], object]


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    """Return a pair of keys."""
    return pair(tmp_path)


@pytest.fixture
def required(keys: KeyPair, monkeypatch: pytest.MonkeyPatch) -> KeyPair:
    """Return a pair of keys, of which the user requires a signature."""
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", str(keys.public))
    return keys


class Marks:
    """Write a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


DAMAGE: dict[str, Damage] = {
    "a flipped byte": lambda folder: _flip(folder / "model.pkl"),
    "a flipped byte of MLmodel": lambda folder: _flip(folder / "MLmodel"),
    "an MLmodel that is no YAML": lambda folder: (folder / "MLmodel").write_text("{["),
    "no MLmodel": lambda folder: (folder / "MLmodel").unlink(),
    "a missing file": lambda folder: (folder / "requirements.txt").unlink(),
    "an extra file": lambda folder: (folder / ".extra").write_text(""),
    "no signature": lambda folder: (folder / SIGNATURE).unlink(),
    "a flipped bit of the signature": lambda folder: _flip(folder / SIGNATURE),
    "a pickle that marks": lambda folder: (folder / "model.pkl").write_bytes(
        pickle.dumps(Marks(folder.parent / "marker"))
    ),
    "code that marks": lambda folder: (folder / "code" / "evil.py").write_text("open('marker', 'w')"),
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", DAMAGE)
def test_what_was_changed_is_refused_before_anything_of_it_is_read(
    name: str, tmp_path: Path, required: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards each way to a model, with all that code could ask for granted: neither YAML nor pickles are looked at."""
    folder = saved(tmp_path / "model")
    sign(folder, required.private)
    assert mlcore.load_model(folder, trust=True).predict(["abc"]) == [3]
    DAMAGE[name](folder)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was read before it was verified")

    import yaml

    monkeypatch.setattr(yaml, "load", never)
    monkeypatch.setattr(models.Trust, "of", never)
    for way in (mlcore.load_model, mlcore.get_model, load_folder):
        with pytest.raises(BadSignature):
            way(folder, **({} if way is mlcore.get_model else {"trust": True}))
    assert not (tmp_path / "marker").exists()


def test_a_description_that_was_read_long_ago_is_verified_again(tmp_path: Path, required: KeyPair) -> None:
    """Guards `load_folder(info)`: files may have changed since `get_model` verified them."""
    folder = saved(tmp_path / "model")
    sign(folder, required.private)
    info = mlcore.get_model(folder)
    assert load_folder(info, trust=True).predict(["a"]) == [1]
    _flip(folder / "model.pkl")
    with pytest.raises(BadSignature, match=r"'model.pkl' was changed"):
        load_folder(info, trust=True)


def test_the_same_of_a_store_that_requires_it(tmp_path: Path, keys: KeyPair) -> None:
    """Guards that a description remembers what its store requires."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run() as run:
        uri = run.log_model(Lengths(), "lengths").uri
    sign(uri, keys.private, client=client)
    require(keys.public, client=client)
    info = client.get_model(uri)
    (info.folder / SIGNATURE).unlink()
    with pytest.raises(BadSignature, match="not signed"):
        load_folder(info, trust=True)


def test_files_are_hashed_once_for_signature_and_digest(
    tmp_path: Path, required: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the time that large models take to load."""
    folder = saved(tmp_path / "model")
    sign(folder, required.private)
    monkeypatch.setattr("mlcore.models._mlmodel.hash_folder", None)
    assert mlcore.load_model(folder, trust=True).predict(["abc"]) == [3]


def test_a_wrong_key_is_refused_and_one_of_several_is_enough(
    tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards lists of keys in the variable, which are separated as paths are."""
    folder, other = saved(tmp_path / "model"), pair(tmp_path, "other")
    sign(folder, keys.private)
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", str(other.public))
    with pytest.raises(BadSignature, match=r"none of the keys of require_signature.*MLCORE_REQUIRE_SIGNATURE"):
        mlcore.load_model(folder)
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", f"{other.public}{os.pathsep}{keys.public}")
    mlcore.load_model(folder)
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", "off")
    (folder / SIGNATURE).unlink()
    mlcore.load_model(folder)


def test_the_users_file_may_require_keys_and_a_repository_may_not(
    tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards where a policy comes from: others wrote the repository, and would name their own key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config.user_file().parent.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = saved(tmp_path / "model")
    for text in (
        f'require_signature = ["{keys.public}"]', f'require_signature = "{keys.public}"',
        'require_signature = ["release.pub"]', 'require_signature = ["~/none.pub", "~/release.pub"]',
    ):  # fmt: skip
        config.user_file().write_text(text)
        with pytest.raises((BadSignature, ConfigError), match=r"not signed|none\.pub"):
            mlcore.load_model(folder)
    for text in ("require_signature = []", "require_signature = 3", 'require_signature = ""'):
        config.user_file().write_text(text)
        with pytest.raises(ConfigError):
            mlcore.load_model(folder)
    config.user_file().unlink()
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(f'[tool.mlcore]\nrequire_signature = ["{keys.public}"]\n')
    monkeypatch.chdir(project)
    with pytest.raises(ConfigError, match="may set only"):
        config.store_setting()


@pytest.mark.parametrize("what", ["missing", "a folder", "text", "bytes", "private"])
def test_a_key_that_cannot_be_read_lets_nothing_in(
    what: str, tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that a mistake in the settings is an error, and no open door."""
    folder, key = saved(tmp_path / "model"), tmp_path / "key.pub"
    sign(folder, keys.private)
    if what == "a folder":
        key.mkdir()
    elif what != "missing":
        key.write_bytes({"text": b"hello", "bytes": b"\xff", "private": keys.private.read_bytes()}[what])
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", f"{keys.public}{os.pathsep}{key}")
    with pytest.raises(ConfigError, match="key"):
        mlcore.load_model(folder)


def test_a_store_requires_signatures_of_its_models_and_of_no_others(tmp_path: Path, keys: KeyPair) -> None:
    """Guards `runs:/` and `models:/`, whoever loads, and that a folder is the user's affair."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run() as run:
        logged = run.log_model(Lengths(), "lengths", register="lengths")
    require(keys.public, client=client)
    for uri in (logged.uri, "models:/lengths/1", "models:/lengths/latest"):
        for way in (client.load_model, client.get_model, mlcore.Client(tmp_path / "store").load_model):
            with pytest.raises(BadSignature, match="not signed"):
                way(uri)
    client.load_model(saved(tmp_path / "model"))
    sign("models:/lengths/1", keys.private, client=client)
    for uri in (logged.uri, "models:/lengths/1"):
        assert client.load_model(uri).predict(["abc"]) == [3]
    release(keys.public, client=client)
    with client.start_run() as run:
        client.load_model(run.log_model(Lengths(), "lengths").uri)


def test_a_store_and_a_user_are_both_heard(tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that neither can lower what the other requires."""
    client, other = mlcore.Client(tmp_path / "store"), pair(tmp_path, "other")
    with client.start_run() as run:
        uri = run.log_model(Lengths(), "lengths").uri
    sign(uri, keys.private, client=client)
    require(keys.public, client=client)
    client.load_model(uri)
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", str(other.public))
    with pytest.raises(BadSignature, match="none of the keys of require_signature"):
        client.load_model(uri)
    sign(uri, other.private, client=client)
    with pytest.raises(BadSignature, match="none of the keys of store"):
        client.load_model(uri)
    require(other.public, client=client)
    client.load_model(uri)


@pytest.mark.parametrize("value", ["no key", 3, {"key": 3}, {"key": "no key"}, {"key": ["a"]}, {}, {"key": None}, None])
def test_a_policy_that_makes_no_sense_lets_nothing_in_unless_it_is_taken_back(
    value: Any, tmp_path: Path, keys: KeyPair
) -> None:
    """Guards stores that something else wrote to."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run() as run:
        uri = run.log_model(Lengths(), "lengths").uri
    client.registry._backend.edit([AttributesSet("policy", "models", "signers", {"strange": value})])
    sign(uri, keys.private, client=client)
    if value in ({}, {"key": None}, None):
        client.load_model(uri)
    else:
        with pytest.raises((ConfigError, BadSignature), match=r"store|key"):
            client.load_model(uri)


def test_a_server_passes_on_what_its_store_requires(
    tmp_path: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards clients of a server, and runs that are spooled on the way to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving_here(tmp_path / "store") as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        client = mlcore.Client(server.url)
        with client.start_run() as run:
            logged = run.log_model(Lengths(), "lengths", register="lengths")
        require(keys.public, client=client)
        with pytest.raises(BadSignature, match="not signed"):
            client.load_model(logged.uri)
        sign("models:/lengths/1", keys.private, client=client)
        assert client.load_model("models:/lengths/1", trust=True).predict(["abc"]) == [3]
        release(keys.public, client=client)
        client.close()


def test_models_of_each_kind_load_where_a_signature_is_required(
    tmp_path: Path, required: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that loading leaves nothing in the folder that would be a file more: they load twice, code and all."""
    (tmp_path / "mine.py").write_text("def double(data):\n    return [2 * each for each in data]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine  # type: ignore[import-not-found]

    rows = numpy.arange(8.0).reshape(4, 2)
    some = {"sklearn": LogisticRegression().fit(rows, [0, 0, 1, 1]), "class": Lengths(), "function": mine.double}
    for name, model in some.items():
        folder = tmp_path / name
        mlcore.save_model(model, folder, code=[tmp_path / "mine.py"] if name == "function" else [])
        with pytest.raises(BadSignature, match="not signed"):
            mlcore.load_model(folder)
        sign(folder, required.private)
        data = rows if name == "sklearn" else ["a"]
        for _ in range(2):
            assert len(mlcore.load_model(folder, trust=True).predict(data)) == len(data)
    code = (
        f"import mlcore; assert mlcore.load_model({str(tmp_path / 'function')!r}, trust=True).predict(['a']) == ['aa']"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path.parent, check=True)


def test_without_what_verifies_it_nothing_is_loaded(tmp_path: Path, required: KeyPair) -> None:
    """Guards against a policy that is silently off where mlcore-signing is not installed."""
    folder = saved(tmp_path / "model")
    sign(folder, required.private)
    code = f"""
import mlcore
from mlcore.errors import NotInstalled
for way in (mlcore.load_model, mlcore.get_model, mlcore.models.load_folder):
    try:
        way({str(folder)!r})
    except NotInstalled as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", "import mlcore.models" + code], env=os.environ | {"MLCORE_DISABLE_PLUGINS": "signing"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("pip install mlcore-signing") == 3, done.stdout + done.stderr

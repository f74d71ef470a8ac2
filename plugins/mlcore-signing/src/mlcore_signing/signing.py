"""Sign a model wherever it lies, and verify one: what users call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import mlcore
from mlcore import artifacts
from mlcore.errors import ConfigError, NotFound
from mlcore.models import SIGNATURE, ModelInfo, read_model
from mlcore_signing.bundles import write_bundle
from mlcore_signing.keys import fingerprint, private_key, public_key, public_pem
from mlcore_signing.verifying import hash_model, verify_folder

if TYPE_CHECKING:
    from mlcore import Client
    from mlcore.registry import ModelVersion

__all__ = ["Signature", "release", "require", "sign", "verify"]


@attrs.frozen
class Signature:
    """Say what is signed: where the model lies, the fingerprint of the key, and the sha256 of every file by name.

    `digest` is the one that mlcore knows the model by.
    """

    uri: str
    signer: str
    digest: str
    files: Mapping[str, str] = attrs.field(repr=False)


def sign(
    uri: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    password: str | None = None,
    client: Client | None = None,
) -> Signature:
    """Sign a model with a private key of yours: write the file ``model.sig`` beside its others, which stay as they are.

    `uri` is what `mlcore.load_model` takes, `key` the path of an elliptic curve's key in PEM, with its `password` if it
    is encrypted. A signature that is there is replaced. Raises `DigestMismatch` for a model that is not what was saved
    or registered, `ConfigError` for what is no key, or another `MlcoreError`.
    """
    secret = private_key(key, password)
    client = client or mlcore.client()
    source, folder, version = client.find_model(uri)
    files = hash_model(folder)
    digest = _info(folder, uri, version).verify(files)
    name = source.rstrip("/").rpartition("/")[2] or "model"
    _write(client, source, write_bundle(name, files, secret))
    return Signature(source, fingerprint(secret.public_key()), digest, files)


def verify(
    uri: str | os.PathLike[str],
    keys: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    client: Client | None = None,
) -> Signature:
    """Return whose signature a model has and of what, after every file was compared, and no other found.

    One of `keys`, as paths or as PEM, must have signed it; without any, one that each of the user's settings and the
    store requires. Raises `BadSignature`, `DigestMismatch` if a version is not what was registered, `ConfigError` for
    what is no key or where none is required, or another `MlcoreError`.
    """
    client, given = client or mlcore.client(), [keys] if isinstance(keys, str | os.PathLike) else keys
    wanted = client.signers_of(uri) if given is None else {"this call": [os.fspath(each) for each in given]}
    if not any(wanted.values()):
        raise ConfigError("no key is required or given to verify with: name the public key of who must have signed it")
    source, folder, version = client.find_model(uri)
    signed = verify_folder(folder, wanted)
    digest = _info(folder, uri, version).verify(signed.files)
    return Signature(source, signed.signer, digest, signed.files)


def require(key: str | os.PathLike[str], *, client: Client | None = None) -> str:
    """Require that this public key, or another that is required, signed what is loaded from a store; return its name.

    It is kept in the store and counts for all who load from it: ``models:/`` and ``runs:/``. Who can write there can
    change it.
    """
    found = public_key(key)
    name = fingerprint(found)
    (client or mlcore.client()).registry.set_signer(name, public_pem(found).decode())
    return name


def release(key: str | os.PathLike[str], *, client: Client | None = None) -> str:
    """Require a public key no longer, by its file or the beginning of its fingerprint; return its name.

    Raises `NotFound` if it is not required.
    """
    registry, text = (client or mlcore.client()).registry, os.fspath(key)
    name = fingerprint(public_key(text)) if Path(text).exists() or "-----BEGIN" in text else text
    known = [each for each in registry.signers if len(name) >= 8 and each.startswith(name)]
    if len(known) != 1:
        raise NotFound(f"the store requires no key {name[:64]!r}; it requires {', '.join(registry.signers) or 'none'}")
    registry.set_signer(known[0], None)
    return known[0]


def _info(folder: Path, uri: str | os.PathLike[str], version: ModelVersion | None) -> ModelInfo:
    info = attrs.evolve(read_model(folder), uri=os.fspath(uri))
    return attrs.evolve(info, pinned=version.digest) if version else info


def _write(client: Client, source: str, content: bytes) -> None:
    if source.startswith("runs:/"):
        run_id, _, name = source.removeprefix("runs:/").strip("/").partition("/")
        client.get_run(run_id).log_bytes(content, f"{name}/{SIGNATURE}")
    else:
        artifacts.put(*artifacts.open_backend(source), {SIGNATURE: content})

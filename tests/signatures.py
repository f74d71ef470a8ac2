"""A small model and keys to sign it with, and bundles that no signer of ours would write."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlcore
from mlcore.models import SIGNATURE
from mlcore_signing import KeyPair, make_key
from mlcore_signing.keys import private_key, signing_of

PAYLOAD = "application/vnd.in-toto+json"


class Lengths(mlcore.PythonModel):
    """Tell how long texts are."""

    def predict(self, data: Any, params: Any = None) -> Any:
        """Return a number a text."""
        return [len(each) for each in data]


def pair(folder: Path, name: str = "release", **options: Any) -> KeyPair:
    """Make a pair of keys in a folder."""
    return make_key(folder / name, **options)


def saved(folder: Path) -> Path:
    """Save a model, with a hidden file and one in a folder as well."""
    mlcore.save_model(Lengths(), folder, input_example=["ab"], requirements=["numpy"])
    return folder


def bundle(folder: Path) -> dict[str, Any]:
    """Return the signature of a model."""
    return json.loads((folder / SIGNATURE).read_bytes())  # type: ignore[no-any-return]


def statement(folder: Path) -> dict[str, Any]:
    """Return what the signature of a model states."""
    return json.loads(base64.b64decode(bundle(folder)["dsseEnvelope"]["payload"]))  # type: ignore[no-any-return]


def sign_payload(folder: Path, payload: bytes, keys: KeyPair, kind: str = PAYLOAD) -> None:
    """Sign whatever bytes with a key, as a signer of ill will would, and put that beside the model."""
    found, key = bundle(folder), private_key(keys.private)
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": kind}
    envelope["signatures"] = [  # type: ignore[assignment]
        {"sig": base64.b64encode(key.sign(signed, signing_of(key.public_key()))).decode(), "keyid": ""}
    ]
    found["verificationMaterial"]["publicKey"]["hint"] = keys.fingerprint
    (folder / SIGNATURE).write_text(json.dumps({**found, "dsseEnvelope": envelope}))


def sign_edited(folder: Path, keys: KeyPair, edit: Callable[[dict[str, Any]], object]) -> None:
    """Sign a statement that was edited."""
    content = statement(folder)
    edit(content)
    sign_payload(folder, json.dumps(content).encode(), keys)

"""The file ``model.sig``: OpenSSF's model signature, one sha256 a file, in a Sigstore bundle.

The bundle (v0.3) holds a DSSE envelope, that one an in-toto statement v1 with the predicate
``https://model_signing/signature/v1.0``. What is not exactly that is refused: a reader that guesses can be led.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from mlcore.artifacts import safe_path
from mlcore.errors import BadSignature, UnsafePath
from mlcore.models import SIGNATURE
from mlcore_signing.keys import fingerprint, signing_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

__all__ = ["LARGEST", "Signed", "open_bundle", "write_bundle"]

LARGEST = 64 << 20  # bytes; a model of 10,000 files needs 3 MB
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


@attrs.frozen
class Signed:
    """Say what a key signed: the sha256 of every file of a model, by name, and which key it was."""

    files: Mapping[str, str]
    signer: str


def write_bundle(name: str, files: Mapping[str, str], key: EllipticCurvePrivateKey) -> bytes:
    """Return the content of ``model.sig`` for a model of these sha256s; its `name` says nothing."""
    resources = [{"name": each, "algorithm": "sha256", "digest": files[each]} for each in sorted(files)]
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(files[each] for each in sorted(files))}}],
        "predicateType": _PREDICATE,
        "predicate": {"serialization": serialization, "resources": resources},
    }
    payload = _compact(statement)
    signature = key.sign(_envelope(payload), signing_of(key.public_key()))
    signed = {"payload": _base64(payload), "payloadType": _PAYLOAD}
    material = {"publicKey": {"hint": fingerprint(key.public_key())}, "tlogEntries": list[Any]()}
    return _compact(
        {
            "mediaType": _BUNDLE,
            "verificationMaterial": material,
            "dsseEnvelope": {**signed, "signatures": [{"sig": _base64(signature), "keyid": ""}]},
        }
    )


def open_bundle(content: bytes, keys: Sequence[EllipticCurvePublicKey], who: str) -> Signed:
    """Return what one of `keys` signed. Raises `BadSignature` before anything is believed that was not signed."""
    from cryptography.exceptions import InvalidSignature

    hint, payload, signature = _opened(content)
    known = {fingerprint(key): key for key in keys}
    key = known.get(hint)
    if key is None:
        told = " or ".join(each[:16] for each in known) or "no key at all"
        unknown = f"it was signed by the key {hint[:16]!r}, which is none of the keys of {who}: {told}"
        raise BadSignature(f"{unknown}; if you trust who has that key, add its public half there")
    try:
        key.verify(signature, _envelope(payload), signing_of(key))
    except InvalidSignature:
        raise BadSignature(f"{SIGNATURE} says that the key {hint[:16]} signed it, which it did not") from None
    return Signed(_files(_strict(payload)), hint)


def _opened(content: bytes) -> tuple[str, bytes, bytes]:
    bundle = _strict(content)
    about, envelope = _Fields(bundle, "bundle"), _Fields(bundle.get("dsseEnvelope"), "dsseEnvelope")
    material = _Fields(bundle.get("verificationMaterial"), "verificationMaterial")
    about.only("mediaType", "verificationMaterial", "dsseEnvelope")
    if about.text("mediaType") != _BUNDLE:
        raise BadSignature(f"{SIGNATURE} is of the kind {about.text('mediaType')!r:.100}, and must be {_BUNDLE}")
    if "publicKey" not in material.given:
        raise BadSignature(f"{SIGNATURE} was made with a certificate, or by Sigstore's service: a key must sign it")
    material.only("publicKey", "tlogEntries", "timestampVerificationData")
    envelope.only("payload", "payloadType", "signatures")
    if envelope.text("payloadType") != _PAYLOAD:
        raise BadSignature(f"{SIGNATURE} signs {envelope.text('payloadType')!r:.100}, and must sign {_PAYLOAD}")
    found = envelope.given.get("signatures")
    if not isinstance(found, list) or len(found) != 1:
        raise BadSignature(f"{SIGNATURE} must hold exactly one signature")
    signature, key = _Fields(found[0], "signatures"), _Fields(material.given["publicKey"], "publicKey")
    signature.only("sig", "keyid")
    key.only("hint")
    if signature.given.get("keyid", "") != "":
        raise BadSignature(f"{SIGNATURE} names a key in keyid, and must in publicKey")
    return key.text("hint"), _decoded(envelope.text("payload")), _decoded(signature.text("sig"))


def _files(statement: Any) -> dict[str, str]:
    about = _Fields(statement, "statement")
    if (about.text("_type"), about.text("predicateType")) != (_STATEMENT, _PREDICATE):
        kinds = f"{about.text('_type')!r:.80} and {about.text('predicateType')!r:.80}"
        raise BadSignature(f"{SIGNATURE} is no signature of a model: it states {kinds}")
    predicate = _Fields(about.given.get("predicate"), "predicate")
    how = _Fields(predicate.given.get("serialization"), "serialization")
    if (how.text("method"), how.text("hash_type")) != ("files", "sha256"):
        used = f"{how.text('hash_type')!r:.40} of {how.text('method')!r:.40}"
        raise BadSignature(f"{SIGNATURE} holds {used}, and must hold one sha256 a file: sign it anew")
    files, resources = dict[str, str](), predicate.given.get("resources")
    if not isinstance(resources, list):
        raise BadSignature(f"{SIGNATURE} lists no files")
    for each in resources:
        resource = _Fields(each, "resources")
        name, digest = resource.text("name"), resource.text("digest")
        if resource.text("algorithm") != "sha256" or len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise BadSignature(f"{SIGNATURE} has no sha256 of {name!r:.80}")
        try:
            safe_path(name)
        except UnsafePath as error:
            raise BadSignature(f"{SIGNATURE} lists a file that cannot be: {error}") from error
        if name in files:
            raise BadSignature(f"{SIGNATURE} lists {name!r} twice")
        files[name] = digest
    subjects = about.given.get("subject")
    subject = _Fields(subjects[0] if isinstance(subjects, list) and len(subjects) == 1 else None, "subject")
    if _Fields(subject.given.get("digest"), "digest").text("sha256") != _root(files.values()):
        raise BadSignature(f"{SIGNATURE} contradicts itself: the digest of the whole is not that of its files")
    return files


class _Fields:
    """Take fields of a JSON object, which must be one, and have them."""

    def __init__(self, given: Any, what: str) -> None:
        if not isinstance(given, dict):
            raise BadSignature(f"{SIGNATURE} is not of the format of OpenSSF: it lacks {what}")
        self.given: dict[str, Any] = given
        self.what = what

    def text(self, name: str) -> str:
        found = self.given.get(name)
        if not isinstance(found, str):
            raise BadSignature(f"{SIGNATURE} is not of the format of OpenSSF: {self.what} lacks {name}")
        return found

    def only(self, *names: str) -> None:
        if more := sorted(self.given.keys() - set(names)):
            raise BadSignature(f"{SIGNATURE} has what none may have: {more[0]!r:.80} in {self.what}")


def _strict(content: bytes) -> dict[str, Any]:
    """Read JSON that says one thing only. Raises `BadSignature` for a key that is there twice."""

    def alone(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is there twice")
        return found

    try:
        found = json.loads(content.decode(), object_pairs_hook=alone)
    except (ValueError, RecursionError) as error:
        raise BadSignature(f"{SIGNATURE} cannot be read: {error}") from error
    return _Fields(found, "an object").given


def _decoded(text: str) -> bytes:
    try:
        found = base64.b64decode(text.encode(), validate=True)
    except ValueError as error:
        raise BadSignature(f"{SIGNATURE} cannot be read: {error}") from error
    if _base64(found) != text:
        raise BadSignature(f"{SIGNATURE} cannot be read: bits are left over in its base64")
    return found


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _envelope(payload: bytes) -> bytes:
    """Return what DSSE signs: the payload with its type and the lengths of both."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()

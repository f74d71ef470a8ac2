"""Keys of elliptic curves: made, read, and named by their fingerprints."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore.errors import ConfigError, InvalidValue, ModelError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey

__all__ = [
    "KeyPair",
    "fingerprint",
    "is_encrypted",
    "make_key",
    "private_key",
    "public_key",
    "public_pem",
    "signing_of",
]

_LARGEST = 100_000  # bytes of a key's file; those there are have 300
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # by curve, as Sigstore has it
_CURVES = {"P-256": "SECP256R1", "P-384": "SECP384R1"}


@attrs.frozen
class KeyPair:
    """Say where a new pair of keys lies, and the fingerprint by which a signature names it."""

    private: Path
    public: Path
    fingerprint: str


def make_key(name: str | os.PathLike[str], *, password: str | None = None, curve: str = "P-256") -> KeyPair:
    """Make a pair of keys: ``NAME.pem``, which only you may read, and ``NAME.pub``, for those who verify.

    With a `password` the private one is encrypted. `curve` is ``"P-256"`` or ``"P-384"``. Raises `InvalidValue`, or
    `ModelError` if a file of that name is there.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if curve not in _CURVES:
        raise InvalidValue(f"{curve!r} is no curve for a key: choose {' or '.join(_CURVES)}")
    if password == "":
        raise InvalidValue("an empty password protects no key: give one, or none at all")
    made = ec.generate_private_key(getattr(ec, _CURVES[curve])())
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    private, public = (Path(f"{os.fspath(name)}{ending}") for ending in (".pem", ".pub"))
    if taken := [str(path) for path in (private, public) if path.exists()]:
        raise ModelError(f"{' and '.join(taken)} is there already: choose another name for the new key")
    for path, content, mode in ((private, pem, 0o600), (public, public_pem(made.public_key()), 0o644)):
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        except OSError as error:
            raise ModelError(f"cannot write the key {path}: {error.strerror or error}") from error
    return KeyPair(private, public, fingerprint(made.public_key()))


def private_key(path: str | os.PathLike[str], password: str | None = None) -> EllipticCurvePrivateKey:
    """Read a private key in PEM. Raises `ConfigError` for what is none, or for a wrong or missing password."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(Path(path))
    try:
        found: Any = load_pem_private_key(content, password.encode() if password else None)
    except TypeError as error:  # cryptography's word for a password too many or too few
        wrong = "is not encrypted, so it takes no password" if password else "is encrypted: give its password"
        raise ConfigError(f"the private key {path} {wrong}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        wrong = "cannot be decrypted: the password is wrong" if password else "is no private key in PEM"
        raise ConfigError(f"{path} {wrong}") from error
    _check(found, f"the key {path}")
    return found  # type: ignore[no-any-return]


def is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Tell whether a private key is encrypted."""
    return b"ENCRYPTED" in _content(Path(path))


def public_key(given: str | os.PathLike[str], who: str = "") -> EllipticCurvePublicKey:
    """Read a public key, from its file or from its PEM. Raises `ConfigError`, which names `who` gave it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = os.fspath(given)
    pem = "-----BEGIN" in text
    what = f"a key of {who or 'these'}" if pem else f"the key {text}"
    content = text.encode(errors="replace") if pem else _content(Path(text))
    if b"PRIVATE" in content:
        raise ConfigError(f"{what} is a private key, which only signs: give the public one, and keep this one to you")
    try:
        found: Any = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{what} is no public key in PEM") from error
    _check(found, what)
    return found  # type: ignore[no-any-return]


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the key {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > _LARGEST:
        raise ConfigError(f"{path} is no key: it has more than {_LARGEST:,} bytes")
    return content


def _check(key: Any, what: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in _HASHES:
        kind = f"is of the curve {curve}" if curve else f"is a {type(key).__name__.lstrip('_')}"
        raise ConfigError(f"{what} {kind}, which cannot sign models: make one with `mlcore models keygen`")


def signing_of(key: EllipticCurvePublicKey) -> ECDSA:
    """Return how a key of this curve signs."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    return ECDSA(getattr(hashes, _HASHES[key.curve.name])())


def public_pem(key: EllipticCurvePublicKey) -> bytes:
    """Return a public key as PEM, of which there is one for each key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """Return the sha256 of a public key's PEM, in hexadecimal digits, by which OpenSSF's signatures name it."""
    return hashlib.sha256(public_pem(key)).hexdigest()

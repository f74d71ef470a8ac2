"""What an answer says that is not the one to come, in words: who sent it from which URL, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from mlcore.errors import AccessDenied, Malformed, MlcoreError, StoreError
from mlcore_remote.addresses import Address
from mlcore_remote.protocol import VERSION_HEADER, document, error_from_json

__all__ = ["explain_answer", "who_answers"]

_TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,200}?)\s*</title", re.IGNORECASE)
_KNOWN = {b"MLflow": "an MLflow server", b"Jupyter": "a Jupyter server", b"TensorBoard": "TensorBoard"}
_KNOWN |= {b"Aim": "an Aim server", b"FastTrackML": "a FastTrackML server", b"Grafana": "Grafana"}


def explain_answer(address: Address, status: int, headers: Mapping[str, str], data: bytes) -> MlcoreError:
    """Return the error in an answer: what mlcore says itself, or who else it is that answers."""
    base = address.base
    if (error := _own_error(status, data)) is not None:
        if isinstance(error, AccessDenied):
            remedy = f"`mlcore login {base}` keeps a token, MLCORE_TOKEN_FILE names one"
            return AccessDenied(f"{base}: {error}; {remedy}", error.status)
        return type(error)(f"{base}: {error}") if type(error) is StoreError else error
    who = who_answers(headers, data)
    if 300 <= status < 400:
        target = headers.get("Location", "")
        return StoreError(f"{base} sends us on to {target!r:.200}: if that is right, make it the URI of the store")
    if status in (401, 403, 407):
        return AccessDenied(f"{base}, {who}, lets nobody in without its own login ({_named(status)})", status)
    if status == 413:
        return StoreError(
            f"{base}, {who}, takes no request of that size: raise its limit (nginx: client_max_body_size)"
        )
    if status >= 500 or status == 429:
        return StoreError(f"{base} answers {_named(status)}, from {who}")
    return StoreError(f"{base} is no mlcore server: {who}, answers {_named(status)}; is the path right?")


def _own_error(status: int, data: bytes) -> MlcoreError | None:
    try:
        body = document(data)
    except Malformed:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return None
    return error_from_json(status, body)


def who_answers(headers: Mapping[str, str], data: bytes) -> str:
    """Return a guess at what it is that answers in the place of an mlcore server, from what it shows of itself."""
    if VERSION_HEADER in headers:
        return f"mlcore {_plain(headers[VERSION_HEADER])}"
    title = _TITLE.search(data[:65_536])
    for word, name in _KNOWN.items():
        if word in (title[1] if title else data[:200]):
            return name
    if re.fullmatch(rb"\s*\d+\.\d+\.\d+\S{0,20}\s*", data[:100]):
        return "an MLflow server"  # whose /version is nothing but that
    shown = [f"a page titled {_plain(title[1].decode(errors='replace'))!r}"] if title else []
    if server := headers.get("Server"):
        shown.append(f"the server {_plain(server)!r}")
    return " of ".join(shown) or f"something that sends {_plain(headers.get('Content-Type', 'nothing'))}"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:100])


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)

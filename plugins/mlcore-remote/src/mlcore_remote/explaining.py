"""What went wrong between a client and a server, in words: what happened, at which URL, and what to do."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus

import urllib3.exceptions as faults

from mlcore.errors import AccessDenied, Malformed, MlcoreError, StoreError
from mlcore_remote.addresses import Address
from mlcore_remote.protocol import VERSION_HEADER, document, error_from_json

__all__ = ["explain_answer", "explain_failure", "who_answers"]

_TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,200}?)\s*</title", re.IGNORECASE)
_KNOWN = {b"MLflow": "an MLflow server", b"Jupyter": "a Jupyter server", b"TensorBoard": "TensorBoard"}
_KNOWN |= {b"Aim": "an Aim server", b"FastTrackML": "a FastTrackML server", b"Grafana": "Grafana"}


def explain_failure(address: Address, error: Exception) -> tuple[StoreError, bool]:
    """Return what kept a request from being answered, and whether it may help to try again."""
    base = address.base
    if isinstance(error, faults.ProxyError):
        cause, again = _reason(error.original_error)
        return StoreError(f"the proxy on the way to {base} does not let through: {cause}; see HTTPS_PROXY, NO_PROXY"), again
    if isinstance(error, faults.SSLError | ssl.SSLError):
        return StoreError(_explain_tls(base, str(error))), False
    if isinstance(error, faults.NameResolutionError):
        return StoreError(f"the name {address.host} of the server at {base} is not known: is it spelt right?"), True
    if isinstance(error, faults.ConnectTimeoutError):
        return StoreError(f"{base} does not answer: no connection within the time; is it up, is a firewall between?"), True
    if isinstance(error, faults.NewConnectionError):
        cause = _reason(error.__cause__ or error)[0]
        return StoreError(f"no server answers at {base}: {cause}; is it running? `mlcore server` starts one"), True
    if isinstance(error, faults.ReadTimeoutError | TimeoutError):
        return StoreError(f"{base} has not answered within the time, after it took the question"), True
    if _not_http(error):
        other = "http" if address.scheme == "https" else "https"
        hint = f"; if it speaks {other}, begin its URI with {other}://"
        return StoreError(f"what answers at {base} does not speak HTTP{'' if address.socket else hint}"), False
    if isinstance(error, faults.DecodeError):
        return StoreError(f"{base} sent an answer whose compression is broken, or something on the way broke it"), True
    if isinstance(error, faults.ProtocolError | OSError):
        return StoreError(f"the connection to {base} was cut off: {_reason(error)[0]}"), True
    return StoreError(f"{base} cannot be asked: {error}"), False


def _reason(error: BaseException) -> tuple[str, bool]:
    """Return the last cause of a fault as text, and whether it may pass."""
    while (inner := _cause(error)) is not None:
        error = inner
    if isinstance(error, ssl.SSLError):
        return str(error), False
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text), "407" not in str(text)


def _cause(error: BaseException) -> BaseException | None:
    inner = [each for each in error.args if isinstance(each, BaseException)]
    return inner[0] if inner else error.__cause__


def _not_http(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
            return True
        error = _cause(error)
    return False


def _explain_tls(base: str, said: str) -> str:
    if "WRONG_VERSION_NUMBER" in said or "UNKNOWN_PROTOCOL" in said or "record layer failure" in said:
        return f"what answers at {base} does not speak TLS: if it is plain HTTP, begin its URI with http://"
    if "Hostname mismatch" in said or "IP address mismatch" in said:
        return f"the certificate of {base} is for another name: use the name that it is for"
    if "expired" in said or "not yet valid" in said:
        return f"the certificate of {base} has expired or is not valid yet: renew it there, or look at the clock here"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            f"the certificate of {base} is signed by nobody this machine trusts: set MLCORE_CA to a file with the "
            "certificate of your own authority"
        )
    return f"no encrypted connection to {base}: {said}"


def explain_answer(address: Address, status: int, headers: Mapping[str, str], data: bytes) -> MlcoreError:
    """Return the error in an answer: what mlcore says itself, or who else it is that answers."""
    base = address.base
    if (error := _own_error(status, headers, data)) is not None:
        if isinstance(error, AccessDenied):
            remedy = f"`mlcore login {base}` keeps a token, MLCORE_TOKEN_FILE names one"
            return AccessDenied(f"{base}: {error}; {remedy}", error.status)
        return type(error)(f"{base}: {error}") if type(error) is StoreError else error
    who = who_answers(headers, data)
    if 300 <= status < 400:
        target = headers.get("Location", "")
        return StoreError(f"{base} sends us on to {target!r:.200}: if that is right, make it the URI of the store")
    if status in (401, 403, 407):
        return AccessDenied(f"{base}: {who}, lets nobody in without its own login ({_named(status)})", status)
    if status == 413:
        return StoreError(f"{base}: {who}, takes no request of that size: raise its limit (nginx: client_max_body_size)")
    if status >= 500 or status == 429:
        return StoreError(f"{base} answers {_named(status)}, from {who}")
    return StoreError(f"{base} is no mlcore server: {who}, answers {_named(status)}; is the path right?")


def _own_error(status: int, headers: Mapping[str, str], data: bytes) -> MlcoreError | None:
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

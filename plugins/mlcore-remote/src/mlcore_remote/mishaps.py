"""What kept a question from being answered, in words: what happened on the way to which URL, and what to do."""

from __future__ import annotations

import http.client
import ssl

import urllib3.exceptions as faults

from mlcore.errors import StoreError
from mlcore_remote.addresses import Address

__all__ = ["explain_failure"]


def explain_failure(address: Address, error: Exception) -> tuple[StoreError, bool]:
    """Return what kept a request from being answered, and whether it may help to try again."""
    base = address.base
    if isinstance(error, faults.ProxyError):
        cause, again = _reason(error.original_error)
        return StoreError(
            f"the proxy on the way to {base} does not let through: {cause}; see HTTPS_PROXY, NO_PROXY"
        ), again
    if isinstance(error, faults.SSLError | ssl.SSLError):
        return StoreError(_explain_tls(base, str(error))), False
    if isinstance(error, faults.NameResolutionError):
        return StoreError(f"the name {address.host} of the server at {base} is not known: is it spelt right?"), True
    if isinstance(error, faults.NewConnectionError):
        cause = _reason(error.__cause__ or error)[0]
        return StoreError(f"no server answers at {base}: {cause}; is it running? `mlcore server` starts one"), True
    if isinstance(error, faults.ConnectTimeoutError):
        return StoreError(f"{base} does not answer, no connection in time: is it up, is a firewall between?"), True
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

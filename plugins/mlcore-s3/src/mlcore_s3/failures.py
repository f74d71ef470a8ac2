"""Say what went wrong with a bucket: where, why and what to do, and never a key."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from html import unescape

import attrs

from mlcore.errors import AccessDenied, ArtifactError, MlcoreError

__all__ = ["Answered", "Denied", "Unreachable", "answer_in", "is_passing", "never_connected", "reason_in"]


class Denied(ArtifactError, AccessDenied):
    """Say that a bucket's server does not know who asks (`status` 401) or does not let them (403), and what to do."""


class Unreachable(ArtifactError):
    """Say that a bucket's server is not there, or fails, and for how long that was tried."""


_FINAL = ("AlreadyExistsError", "NotSupportedError", "UnauthenticatedError", "UnknownConfigurationKeyError")


@attrs.frozen
class Answered(MlcoreError):
    """Hold what a server answered that is no success: its `status`, and of the body what says why."""

    status: int
    code: str = ""
    message: str = ""
    region: str = ""

    @classmethod
    def of(cls, status: int, body: str, region: str = "") -> Answered:
        """Read an error in XML; what is no such thing says nothing."""

        def found(name: str) -> str:
            fit = re.search(rf"<{name}>([^<]{{0,300}})</{name}>", body)
            return "".join(char for char in unescape(fit[1]) if char.isprintable()) if fit else ""

        return cls(status, found("Code"), found("Message"), region or found("Region"))


def answer_in(error: BaseException) -> Answered | None:
    """Return the answer of a server that one of obstore's errors tells of, None if there was none."""
    if isinstance(error, Answered):
        return error
    text = str(error).partition("\nDebug source:")[0]
    if fit := re.search(r"status code: (\d{3})|status: (\d{3})", text):
        return Answered.of(int(fit[1] or fit[2]), text)
    if "redirect without LOCATION" in text:
        return Answered(301)
    if "<Code>" in text:  # an error that came with status 200
        return Answered.of(200, text)
    return None


def is_passing(error: BaseException) -> bool:
    """Tell whether to ask again may help: a server that fails or is busy, a connection that was cut."""
    answer = answer_in(error)
    if answer is None:
        final = (FileNotFoundError, FileExistsError, ValueError, ArtifactError)
        told = "command failed" in str(error)  # of a program that is asked for a token
        return not isinstance(error, final) and type(error).__name__ not in _FINAL and not told
    busy = ("SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "OperationAborted", "BadDigest")
    return answer.status >= 500 or answer.status in (408, 425, 429) or answer.code in busy


def never_connected(error: BaseException) -> bool:
    """Tell whether there was no connection at all: no network, no such name, nobody who listens, no trust."""
    if isinstance(error, (socket.gaierror, ConnectionRefusedError, ssl.SSLError)):
        return True
    if re.search(r"kind: Connect\b|legacy::Error\(\s*Connect,", str(error)):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def reason_in(error: BaseException, bundle: str = "AWS_CA_BUNDLE") -> str:
    """Return a few words on why nothing came, of those that are known to hold no secret; `bundle` is what to set."""
    text = str(error)
    known = {
        "dns error": "its name is not known",
        "certificate": f"its certificate is not trusted: {bundle} names a file of others that are",
        "InvalidCertificate": f"its certificate is not trusted: {bundle} names a file of others that are",
        "Connection refused": "nobody listens there",
        "ConnectionRefused": "nobody listens there",
        "unreachable": "there is no way to it",
        "TimedOut": "it does not answer",
        "timed out": "it does not answer",
        "Timeout": "it does not answer",
        "reset": "it closed the connection",
        "IncompleteMessage": "it closed the connection",
        "InvalidContentType": "it does not speak TLS",
        "WRONG_VERSION_NUMBER": "it does not speak TLS",
    }
    if isinstance(error, socket.gaierror):
        return known["dns error"]
    return next((words for part, words in known.items() if part in text), type(error).__name__)

"""What becomes of an error: the status and the JSON of its answer, never a traceback."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mlcore.errors import MlcoreError, StoreError, StoreNotFound
from mlcore_server.routing import Declined

__all__ = ["passing", "told"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("disk is full", "No space left", "disk full")
_SAID = {
    503: "the store of this server cannot be reached now: try again later",
    507: "the disk of this server is full: what was sent is not stored, and reading goes on",
}
_AGAIN = {"retry-after": "5"}
_log = logging.getLogger("mlcore")


def told(error: Exception, request_id: str) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Return status, content and headers of the answer to a request that failed."""
    from mlcore_remote.protocol import error_to_json

    headers: Mapping[str, str] = {}
    if isinstance(error, Declined):
        status, headers = error.status, error.headers
        content = {"error": {"type": "StoreError", "message": str(error), "details": {}}}
    elif (found := passing(error)) is not None:
        status, headers = found, _AGAIN
        content = error_to_json(StoreError(_SAID[found]))[1]
        _log.error("%s: %s", request_id, error)  # which may name folders and hosts, that are nobody's business
    elif isinstance(error, StoreNotFound):
        status, content = error_to_json(StoreNotFound("there is nothing in this store yet: the first run makes it"))
    elif isinstance(error, MlcoreError):
        status, content = error_to_json(error)
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    else:
        status, said = 500, f"the server failed; its log tells more about request {request_id}"
        content = {"error": {"type": "MlcoreError", "message": said, "details": {}}}
        _log.error("%s: request failed", request_id, exc_info=error)
    return status, {**content, "request_id": request_id}, headers


def passing(error: BaseException) -> int | None:
    """Return 507 if a disk is full, 503 if the store cannot be reached now, None if the error is of another kind."""
    if type(error) is not StoreError:
        return None
    for each in (error, *_causes(error)):
        if isinstance(each, OSError) and each.errno in _FULL:
            return 507
        if any(word in str(each) for word in _FULL_WORDS):
            return 507
    return 503


def _causes(error: BaseException) -> Iterator[BaseException]:
    for _ in range(10):
        cause = error.__cause__ or getattr(error, "orig", None)
        if cause is None:
            return
        yield cause
        error = cause

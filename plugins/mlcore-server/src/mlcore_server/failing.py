"""What becomes of an error: the status and the JSON of its answer, never a traceback."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mlcore.errors import MlcoreError, Refused, StoreError
from mlcore_server.routing import Declined

__all__ = ["passing", "told"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("disk is full", "No space left", "disk full")
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
        content = error_to_json(StoreError(str(error)))[1]
        _log.error("%s: %s", request_id, error)
    elif isinstance(error, MlcoreError):
        status, content = error_to_json(error)
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    else:
        status, said = 500, f"the server failed; its log tells more about request {request_id}"
        content = {"error": {"type": "MlcoreError", "message": said, "details": {}}}
        _log.error("%s: request failed", request_id, exc_info=error)
    return status, {**content, "request_id": request_id}, headers


def passing(error: BaseException | None) -> int | None:
    """Return 507 if a disk is full, 503 if the store cannot be reached now, None if the error is of another kind."""
    if not isinstance(error, StoreError) or isinstance(error, Declined | Refused):
        return None
    causes = [error, *_causes(error)]
    if any(isinstance(each, OSError) and each.errno in _FULL for each in causes):
        return 507
    if any(word in str(each) for each in causes for word in _FULL_WORDS):
        return 507
    outside = any(isinstance(each, OSError) or type(each).__module__.startswith("sqlalchemy") for each in causes)
    return 503 if outside else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    for _ in range(10):
        cause = error.__cause__ or getattr(error, "orig", None)
        if cause is None:
            return
        yield cause
        error = cause

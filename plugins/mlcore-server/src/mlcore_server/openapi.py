"""The OpenAPI 3.1 document, made of the routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import mlcore
from mlcore_server.routing import Route

__all__ = ["document"]


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document that describes `routes`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = {
            "summary": route.summary,
            "responses": {"200": {"description": "the answer"}},
        }
    return {"openapi": "3.1.0", "info": {"title": "mlcore", "version": mlcore.__version__}, "paths": paths}

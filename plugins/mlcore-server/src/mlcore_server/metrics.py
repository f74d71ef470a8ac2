"""What a server counts, as Prometheus reads it; of several processes together where there are several."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["CONTENT_TYPE", "FOLDER", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Count requests, commits and what waits."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Histogram(
            "mlcore_request_seconds", "How long answers took, by route and status.", ("method", "route", "status"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._appends = Counter(
            "mlcore_batches", "Batches that were stored or refused.", ("result",), registry=registry
        )
        self._stored, self._refused = self._appends.labels("stored"), self._appends.labels("refused")
        self._sizes = Histogram(
            "mlcore_commit_batches", "Batches that were written together.", buckets=_SIZES, registry=registry
        )
        self._seconds = Histogram(
            "mlcore_commit_seconds", "How long they took to be durable.", buckets=_SECONDS, registry=registry
        )
        self._waiting = Gauge(
            "mlcore_waiting_batches", "Batches that wait to be stored, or are being written.", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self._children: dict[tuple[str, str, int], Any] = {}
        self._queue: Callable[[], int] = int

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Let `waiting` tell how many batches wait."""
        self._queue = waiting

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; `route` is the path as it was declared, as the number of paths has no end."""
        child = self._children.get((method, route, status))
        if child is None:
            child = self._children[method, route, status] = self._requests.labels(method, route, str(status))
        child.observe(seconds)

    def committed(self, count: int, seconds: float) -> None:
        """Count one group of batches."""
        self._sizes.observe(count)
        self._seconds.observe(seconds)
        if FOLDER in os.environ:
            self._waiting.set(self._queue())

    def appended(self, stored: int, refused: int) -> None:
        """Count what became of the batches of one request."""
        if stored:
            self._stored.inc(stored)
        if refused:
            self._refused.inc(refused)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        registry = self._registry
        self._waiting.set(self._queue())
        if FOLDER in os.environ:  # each process has its own part in a file there
            registry = CollectorRegistry()
            _Collector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class _Collector(MultiProcessCollector):
    """Leave out what a process that is starting has not begun to fill: an empty file cannot be read."""

    def collect(self) -> Any:
        files = [each.path for each in os.scandir(self._path) if each.name.endswith(".db") and each.stat().st_size]
        return self.merge(files)  # type: ignore[no-untyped-call]

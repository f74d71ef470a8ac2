"""The app: what every request passes, and what becomes of errors."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from serving import serving, serving_here


def batch(home: str, number: int = 1) -> dict[str, object]:
    """Return a batch that makes a run, as JSON."""
    created = {"type": "Created", "kind": "run", "id": home, "fields": {"name": "x"}}
    return {"source": uuid4().hex, "home": home, "records": [{"number": number, "stamp": 1, "events": [created]}]}


def test_a_server_as_a_user_starts_it_takes_batches_and_ends_in_order(tmp_path: Path) -> None:
    """Guards the command: it prints where it is, answers, and its exit code is 0."""
    with serving(tmp_path / "store") as server:
        home = uuid4().hex
        assert server.post("/api/v1/batches", {"batches": [batch(home)]}).json == {"results": [None]}
        assert server.post("/api/v1/get", {"kind": "run", "ids": [home]}).status == 200
        assert server.stop() == 0


def test_the_app_in_a_thread_answers_the_same(tmp_path: Path) -> None:
    """Guards the cheap server of tests."""
    with serving_here(tmp_path / "store") as server:
        home = uuid4().hex
        assert server.post("/api/v1/batches", {"batches": [batch(home, 2)]}).status == 200
        assert server.get("/version").json["store"] == "file"

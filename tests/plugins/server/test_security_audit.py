"""Who changed what is written down, once and unforgeably; and a server that may not change anything does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlcore.store import Batch, Created, Record
from mlcore_remote.protocol import pack_batches
from serving import Serving, serving, serving_here

HERS, HIS = "her-token-0123456789-abcdefghijklmnop", "his-token-0123456789-abcdefghijklmnop"
EVIL = 'x"}\n{"actor": "root", "status": 200}\r\n\u2028\x1b[2K'


def created(home: str, name: str) -> dict[str, Any]:
    """Return a batch that makes a run of some name."""
    event = {"type": "Created", "kind": "run", "id": home, "fields": {"name": name}}
    return {"source": uuid4().hex, "home": home, "records": [{"number": 1, "stamp": 1, "events": [event]}]}


def writes(server: Serving, run: str) -> list[int]:
    """Ask for everything that changes something; return the statuses."""
    packed = pack_batches([Batch(uuid4().hex, run, (Record(1, 1, (Created(kind="run", id=run, fields={}),)),))])
    binary = {"Content-Type": "application/vnd.mlcore.batches"}
    return [
        server.ask("POST", "/api/v1/batches", {"batches": [created(run, EVIL), created(uuid4().hex, "y")]}).status,
        server.ask("POST", "/api/v1/batches", packed, binary).status,
        server.ask("POST", "/api/v1/batches", {"batches": []}).status,
        server.ask("POST", "/api/v1/batches", b"no json", {"Content-Type": "application/json"}).status,
        server.ask("POST", "/api/v1/batches", b"text", {"Content-Type": "text/plain"}).status,
    ]


def test_every_write_is_one_line_that_names_who_what_where_and_how_it_went(tmp_path: Path) -> None:
    """S10, C7: refused ones too; reading and strangers write none; no secret, no query, no body is in it."""
    log, run = tmp_path / "audit", uuid4().hex
    tokens = f"she={HERS}\nhe={HIS}:read"
    with serving_here(tmp_path / "store", token=tokens, audit_log=str(log)) as server:
        server.token = HERS
        statuses = writes(server, run)
        assert statuses == [200, 200, 200, 400, 415]
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["status"] for line in lines] == statuses
        assert lines[0]["objects"] == [f"run/{run}", lines[0]["objects"][1]] and lines[1]["objects"] == [f"run/{run}"]
        for line in lines:
            assert (line["actor"], line["how"], line["address"], line["method"]) == (
                "she",
                "token",
                "127.0.0.1",
                "POST",
            )
            assert line["route"] == line["path"] == "/api/v1/batches" and line["request"] and line["time"].endswith("Z")

        server.token = HIS
        assert set(writes(server, run)) == {403}
        assert [json.loads(line)["actor"] for line in log.read_text().splitlines()[5:]] == ["he"] * 5
        for path in ("/metrics", f"/api/v1/entities/run/{run}", "/api/v1/events", "/version", "/nothing"):
            server.get(path)
        server.post("/api/v1/find", {"kind": "run"})
        server.token = ""
        assert set(writes(server, run)) == {401}
        assert len(log.read_text().splitlines()) == 10, "who is not let in fills no disk"

        cookie = server.ask("POST", "/login", {"token": HERS}).headers["set-cookie"].partition(";")[0]
        ours = {"Cookie": cookie, "Origin": server.url}
        assert server.ask("POST", "/api/v1/batches", {"batches": [created(run, "z")]}, ours).status == 200
        server.ask("POST", "/logout", b"", ours)
        last = [json.loads(line) for line in log.read_text().splitlines()[10:]]
        assert [(line["actor"], line["how"], line["route"]) for line in last] == [
            ("she", "login", "/login"), ("she", "session", "/api/v1/batches"), ("she", "session", "/logout"),
        ]  # fmt: skip
        text = log.read_text()
    assert HERS not in text and HIS not in text and EVIL[:5] not in text and cookie.partition("=")[2] not in text


def test_the_processes_of_a_server_write_whole_lines_into_one_file(tmp_path: Path) -> None:
    """S10: a real server; every request that was answered has its line when the answer is there."""
    log = tmp_path / "audit"
    with serving(tmp_path / "store", "--audit-log", str(log), workers="2") as server:
        for number in range(1, 21):
            assert server.ask("POST", "/api/v1/batches", {"batches": [created(uuid4().hex, EVIL)]}).status == 200
            assert len(log.read_text().splitlines()) == number
    assert {json.loads(line)["actor"] for line in log.read_text().splitlines()} == {"owner"}
    assert log.stat().st_mode & 0o777 == 0o600


def content(folder: Path) -> dict[str, str]:
    """Return every file of a store with its digest, but for the index, which whoever reads may make anew."""
    files = (
        each for each in sorted(folder.rglob("*")) if each.is_file() and "index" not in each.relative_to(folder).parts
    )
    return {str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def test_a_read_only_server_leaves_every_byte_as_it_was(tmp_path: Path) -> None:
    """S9: after every write that there is, and every question, the store's files are the same."""
    store, run = tmp_path / "store", uuid4().hex
    with serving_here(store, no_token=True) as server:
        assert writes(server, run)[0] == 200
        assert server.post("/api/v1/find", {"kind": "run"}).status == 200
    before = content(store)
    with serving(store, "--read-only", "--no-token") as other:
        assert set(writes(other, run)) == {403}
        for route in json.loads(other.get("/openapi.json").body)["paths"]:
            path = route.replace("{kind}", "run").replace("{id}", run).replace("{run}", run).replace("{path}", "x")
            for method in ("PUT", "PATCH", "DELETE"):
                assert other.ask(method, path, b"x").status in (401, 403, 404, 405)
        found = other.post("/api/v1/find", {"kind": "run"})
        assert found.status == 200 and run in {each["id"] for each in found.json["items"]}
        assert other.get(f"/api/v1/entities/run/{run}").json["fields"]["name"] == EVIL
        assert other.get("/api/v1/events", Accept="application/x-ndjson").body.count(b"\n") > 1
        assert other.get("/version").json["read_only"] is True
    assert content(store) == before

"""Names, ids and links that would lead the server out of a run's files: none does, however it is written."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlcore
from mlcore.store import Batch, Record, Updated
from serving import Thread, serving_here

CANARY = b"what nobody may read"
RUN = "c" * 32
# as they stand in the request, after /files/: check B1 of what was broken in other servers
LEADING_OUT = [
    "../canary", "..%2fcanary", "%2e%2e/canary", "%2e%2e%2fcanary", "%252e%252e%252fcanary", "..%5ccanary",
    "..\\canary", "%2fetc%2fpasswd", "/etc/passwd", "//etc/passwd", "%2F%2Fetc/passwd", "file:%2f%2f/etc/passwd",
    "file:///etc/passwd", "C:%5cx", "C:/x", "a/../../canary", "a/b/../../../canary", "%23/../../canary",
    "%3f/../../canary", ";/../canary", "a;/../../canary", "a%00", "%00", "..%00/canary", "%c0%ae%c0%ae/canary",
    "%c0%ae%c0%ae%c0%afcanary", "%ff", ".", "..", "./", "../", "%2e", "%2e%2e", "a/.", "a/..", "a/./b", "a//b", "a/",
    "a.", "a%20", "a./b", "a%20/b", "x" * 251, "x/" * 2_500, "%0a", "a%0d%0aSet-Cookie:x", "%1b[2J", "~/.ssh%2f..%2f..",
    ".mlcore-0123456789abcdef.tmp", "a/.mlcore-0123456789abcdef.tmp/b", "..%ef%bc%8fcanary/..",
]  # fmt: skip
# the same as ids, check B2
BAD_IDS = [
    "..", ".", "%2e%2e", "..%2fx", "..%2f..%2fx", "%252e%252e%252fx", "a%2fb", "a%5cb", "a%00", "x" * 65, "%20", "a.b",
    "a:b", "%2e%2e%2f" + RUN, "~", "*", "a%0ab", "%e2%80%ae",
]  # fmt: skip
METHODS = ["GET", "HEAD", "PUT", "DELETE"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve a store beside a canary."""
    folder = tmp_path_factory.mktemp("served")
    with serving_here(folder / "store") as found:
        assert found.ask("PUT", f"/api/v1/runs/{RUN}/files/a/b", b"of the run").status == 201
        (folder / "canary").write_bytes(CANARY)
        for place in (
            folder / "store",
            folder / "store" / "runs",
            home(found),
            home(found) / "artifacts" / "..outside",
        ):
            (place if place.is_dir() else place.parent).joinpath("canary").write_bytes(CANARY)
        (home(found) / "artifacts" / "canary").unlink()
        yield found


def root_of(server: Thread) -> Path:
    """Return the folder of the store."""
    return Path(server.app.service.store.root)


def home(server: Thread) -> Path:
    """Return the folder of the run."""
    return root_of(server) / "runs" / RUN[-2:] / RUN


def seen(server: Thread) -> dict[str, tuple[bytes, int]]:
    """Return content and time of everything in the store and beside it."""
    top = root_of(server).parent
    return {
        str(path.relative_to(top)): (path.read_bytes() if path.is_file() else b"", path.lstat().st_mtime_ns)
        for path in sorted(top.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def raw(server: Thread, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request whose path no client has looked at; return the status and all that comes."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Length: {len(body)}\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(head.encode("latin-1") + body)
        parts = []
        while data := connection.recv(1 << 16):
            parts.append(data)
    answer = b"".join(parts)
    return int(answer.split(b" ", 2)[1]), answer


class Watching:
    """Note which files this process, and so the server in it, opens, makes, moves, lists or removes."""

    def __init__(self) -> None:
        self.on, self.paths = False, list[str]()
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            self.paths += [os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | bytes)]

    def outside(self, root: Path) -> list[str]:
        """Return the absolute paths that are no files of the store; others are relative to an open folder of it."""
        ours = (str(root), sys.prefix, sys.base_prefix, str(Path(mlcore.__file__).parents[3]))
        found = [path for path in self.paths if path.startswith("/") and not path.startswith(ours)]
        return [path for path in found if not re.match(r"/(proc|sys)/", path)] + [p for p in self.paths if ".." in p]


WATCHING = Watching()


@pytest.mark.parametrize("method", METHODS)
def test_no_name_leads_out(server: Thread, method: str) -> None:
    """Guards all that is beside a run's files: nothing is read, written, made or removed, in any spelling."""
    before = seen(server)
    WATCHING.paths.clear()
    WATCHING.on = True
    answers = {name: raw(server, method, f"/api/v1/runs/{RUN}/files/{name}", b"evil") for name in LEADING_OUT}
    WATCHING.on = False
    assert {name: status for name, (status, _) in answers.items() if status not in (400, 404, 405, 431)} == {}
    assert not any(CANARY in answer or b"root:" in answer for _, answer in answers.values())
    assert seen(server) == before
    assert WATCHING.outside(root_of(server)) == []


def test_no_list_leads_out(server: Thread) -> None:
    """Guards names beside a run's files, too."""
    before = seen(server)
    for name in LEADING_OUT:
        for path in (f"/api/v1/runs/{RUN}/files?prefix={name}", f"/api/v1/runs/{RUN}/files/?prefix={name}"):
            status, answer = raw(server, "GET", path)
            assert status in (200, 400, 404, 431), name
            assert b"canary" not in answer.partition(b"\r\n\r\n")[2].replace(name.encode(), b"") or status != 200
    assert seen(server) == before


def test_no_announcement_leads_out(server: Thread) -> None:
    """Guards the files of uploads in parts: their name and run come as JSON, and are looked at as well."""
    before = seen(server)
    about = {"run": RUN, "path": "x", "size": 0, "sha256": "0" * 64}
    names = [
        "../canary",
        "/etc/passwd",
        "a/../../x",
        "a\\..\\b",
        "",
        ".",
        "..",
        "a/",
        "C:x",
        "x\0",
        "\ud800",
        "a//b",
        None,
        3,
    ]
    for wrong in (
        *({"path": name} for name in (*names, "%2e%2e%2fcanary", None, 3)),
        *({"run": run} for run in ("../x", "..", "", "a/b", "x" * 65, "a.b", None, [RUN])),
        *({"size": size} for size in (-1, 1.5, "1", None, True, 1 << 70)),
        *({"sha256": digest} for digest in ("../x", "0" * 63, "G" * 64, None)),
    ):
        assert server.post("/api/v1/uploads", {**about, **wrong}).status == 400, wrong
    for id in [*BAD_IDS, f"{RUN}.{'0' * 31}", f"{RUN}.{'0' * 31}/", f"..%2f{RUN}.{'0' * 32}", f"{RUN}.{'0' * 32}%2f.."]:
        for method, end in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("PUT", "/parts/1"), ("POST", "/complete")):
            assert raw(server, method, f"/api/v1/uploads/{id}{end}", b"x")[0] in (400, 404, 405), (method, id)
    for number in ("0", "-1", "x", "1e9", "9999999999", "..%2f1", "%00"):
        path = f"/api/v1/uploads/{RUN}.{'0' * 32}/parts/{number}"
        assert raw(server, "PUT", path, b"x")[0] in (400, 404), number
    assert seen(server) == before
    assert not (root_of(server) / "uploads").is_dir() or list((root_of(server) / "uploads").iterdir()) == []


@pytest.mark.parametrize("method", [*METHODS, "LIST"])
def test_no_id_is_a_path(server: Thread, method: str) -> None:
    """Guards everything from ids that are names of folders: no file is made for them."""
    before = seen(server)
    for id in BAD_IDS:
        path = f"/api/v1/runs/{id}/files" if method == "LIST" else f"/api/v1/runs/{id}/files/x"
        status, answer = raw(server, "GET" if method == "LIST" else method, path, b"evil")
        assert status in (400, 404, 405), id
        assert CANARY not in answer
    assert seen(server) == before


def test_no_root_is_removed(server: Thread) -> None:
    """Guards the folder of files itself, check B7."""
    before = seen(server)
    for name in ("", "/", "//", ".", "./", "..", "%2f", "%2e", "a", "a/", "?x", "%20"):
        assert raw(server, "DELETE", f"/api/v1/runs/{RUN}/files{'' if name.startswith('/') else '/'}{name}")[0] in (
            400, 404, 405,
        )  # fmt: skip
    assert raw(server, "DELETE", f"/api/v1/runs/{RUN}/files")[0] == 405
    assert seen(server) == before


@pytest.fixture
def linked(server: Thread) -> Iterator[Path]:
    """Return the folder of the run's files, with links that lead out, and others."""
    files, outside = home(server) / "artifacts", root_of(server).parent
    links = {
        "to-file": outside / "canary", "to-folder": outside, "a/to-parent": Path("../.."),
        "to-nowhere": outside / "new", "to-itself": Path("to-itself"), "to-root": Path("/"),
        "inside": Path("a/b"), "a/inside": Path("b"),
    }  # fmt: skip
    for name, target in links.items():
        (files / name).symlink_to(target)
    os.mkfifo(files / "pipe")
    yield files
    for name in (*links, "pipe"):
        (files / name).unlink(missing_ok=True)


def test_no_link_leads_out(server: Thread, linked: Path) -> None:
    """Guards against others in a run's folder: a link that leads out is no file, to read, write or remove."""
    before = seen(server)
    out = ["to-file", "to-folder/canary", "to-folder/new", "a/to-parent/canary", "a/to-parent/a/b", "to-nowhere"]
    out += ["to-itself", "to-root/etc/passwd", "pipe", "to-folder", "a/to-parent"]
    for name in out:
        for method in METHODS:
            if name not in ("pipe", "to-itself") or method in ("GET", "HEAD"):  # what is inside may be replaced
                status, answer = raw(server, method, f"/api/v1/runs/{RUN}/files/{name}", b"evil")
                assert status in (400, 404, 409), (method, name)
                assert CANARY not in answer
    assert seen(server) == before
    listed = [each["path"] for each in server.get(f"/api/v1/runs/{RUN}/files").json["files"]]
    assert listed == ["a/b", "a/inside", "inside"]
    assert server.get(f"/api/v1/runs/{RUN}/files/inside").body == b"of the run"


def test_a_folder_of_files_that_is_a_link_itself_is_not_followed(server: Thread) -> None:
    """Guards the run's folder, and that of its files: a link in their place leads nowhere."""
    outside = root_of(server).parent
    (outside / "elsewhere").mkdir(exist_ok=True)
    (outside / "elsewhere" / "x").write_bytes(CANARY)
    (outside / "elsewhere" / "artifacts").mkdir(exist_ok=True)
    (outside / "elsewhere" / "artifacts" / "x").write_bytes(CANARY)
    first, second = "d" * 31 + "1", "d" * 31 + "2"
    for run in (first, second):
        (root_of(server) / "runs" / run[-2:]).mkdir(parents=True, exist_ok=True)
    (root_of(server) / "runs" / first[-2:] / first).symlink_to(outside / "elsewhere")
    (root_of(server) / "runs" / second[-2:] / second).mkdir()
    (root_of(server) / "runs" / second[-2:] / second / "artifacts").symlink_to(outside / "elsewhere")
    before = seen(server)
    for run in (first, second):
        for method in METHODS:
            status, answer = raw(server, method, f"/api/v1/runs/{run}/files/x", b"evil")
            assert (status, CANARY in answer) in ((400, False), (404, False), (409, False)), (run, method)
        assert server.get(f"/api/v1/runs/{run}/files").json["files"] == []
    assert seen(server) == before


def test_what_a_run_says_of_its_files_is_not_followed(server: Thread) -> None:
    """Guards the server from records, checks A1 to A5: wherever they say that files are, it has its own place."""
    client = mlcore.Client(root_of(server))
    outside = root_of(server).parent
    with client.start_run() as run:
        run.log_text("own", "own.txt")
    for place in (str(outside), f"file://{outside}", "/etc", "http://169.254.169.254/latest", f"local://{outside}"):
        event = Updated("run", run.id, {"artifacts": place})
        server.app.service.store.append(Batch(os.urandom(16).hex(), run.id, (Record(1, 1 << 62, (event,)),)))
        assert client.get_run(run.id).id == run.id
        assert server.get(f"/api/v1/runs/{run.id}/files/canary").status == 404
        assert server.get(f"/api/v1/runs/{run.id}/files/passwd").status == 404
        assert server.get(f"/api/v1/runs/{run.id}/files/own.txt").body == b"own"
        assert server.ask("PUT", f"/api/v1/runs/{run.id}/files/new.txt", b"new").status == 201
        assert not (outside / "new.txt").exists()


def test_what_is_not_whole_is_for_nobody_else(tmp_path: Path) -> None:
    """Guards half files from others on the machine, whatever the umask is, check B6."""
    before = os.umask(0)
    try:
        with serving_here(tmp_path / "store") as server:
            about = {"run": RUN, "path": "x", "size": 10, "sha256": "0" * 64}
            id = server.post("/api/v1/uploads", about).json["id"]
            server.ask("PATCH", f"/api/v1/uploads/{id}", b"01234", {"Upload-Offset": "0"})
    finally:
        os.umask(before)
    for folder in (tmp_path / "store" / "uploads", tmp_path / "store" / "uploads" / id):
        assert folder.stat().st_mode & 0o777 == 0o700

"""A project is fetched from where its source says, at exactly the revision, and nothing half-made is left."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlcore_projects.downloading import without_credentials
from mlcore_projects.errors import ProjectError, SourceError
from mlcore_projects.git import credentials
from mlcore_projects.sources import fetch
from repositories import git_in

Git = Callable[..., str]
pytestmark = pytest.mark.usefixtures("cache")
MLPROJECT = "name: demo\nentry_points: {main: {command: python train.py}}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with two commits, a tag, a branch, a project in a subfolder, and a submodule."""
    top = tmp_path_factory.mktemp("made")
    library, folder = top / "library", top / "repository"
    git_in(library, "init", "-q")
    (library / "lib.py").write_text("x = 1")
    git_in(library, "add", ".")
    git_in(library, "commit", "-qm", "library")
    git_in(folder, "init", "-q")
    git_in(folder, "submodule", "--quiet", "add", str(library), "lib")
    (folder / "train").mkdir()
    (folder / "train/MLproject").write_text(MLPROJECT)
    git_in(folder, "add", ".")
    git_in(folder, "commit", "-qm", "first")
    git_in(folder, "tag", "-a", "v1", "-m", "one")
    git_in(folder, "branch", "feature/x")
    (folder / "later.txt").touch()
    git_in(folder, "add", ".")
    git_in(folder, "commit", "-qm", "second")
    return folder


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it, which a test may change."""
    return Path(shutil.copytree(made, tmp_path / "repository", symlinks=True))


def test_a_path_is_taken_as_it_is(repository: Path) -> None:
    """Guards a working tree with changes: nothing is fetched without a revision."""
    (repository / "train/new.py").touch()
    for source in (f"{repository}/train", f"{repository}#train", f"{repository}/train/MLproject"):
        found = fetch(source)
        assert (found.folder, found.source.kind, found.source.commit) == (repository / "train", "folder", "")
    (repository / "odd#na@me").mkdir()
    assert fetch(f"{repository}/odd#na@me").folder == repository / "odd#na@me"


def test_every_way_to_name_a_revision_leads_to_its_commit(repository: Path, git: Git) -> None:
    """Guards `#subfolder@rev` and its relatives, for branches, tags, commits and beginnings of commits."""
    first, second = git(repository, "rev-parse", "v1^{}"), git(repository, "rev-parse", "main")
    uri = repository.as_uri()
    expected = {
        f"{uri}#train@v1": first,
        f"{uri}@v1#train": first,
        f"git+{uri}@feature/x#subdirectory=train": first,
        f"{uri}#train": second,
        f"{repository}/train@main": second,
        f"{repository}@refs/tags/v1#train": first,
        f"{repository}@{first}#train": first,
        f"{repository}@{first[:7]}#train": first,
    }
    for source, commit in expected.items():
        found = fetch(source)
        tree = found.folder.parent
        assert (found.name, found.source.kind, found.source.commit) == ("demo", "git", commit), source
        assert (found.source.uri, found.source.subfolder) == (str(repository), "train")
        assert git(tree, "rev-parse", "HEAD") == commit
        assert (tree / "lib/lib.py").read_text() == "x = 1"
        assert (tree / "later.txt").exists() is (commit == second)
        assert git(tree, "status", "--porcelain", "--ignored") == ""
        assert git(tree, "rev-list", "--all", "--count") == "1"
    assert fetch(f"{repository}#train", version="v1").source.commit == first


def test_a_commit_is_fetched_once_and_each_call_gets_a_tree_of_its_own(
    repository: Path, git: Git, cache: Path, tmp_path: Path
) -> None:
    """Guards the cache: what one run writes is not seen by the next, and a known commit needs no repository."""
    commit = git(repository, "rev-parse", "main")
    source = f"{repository.as_uri()}#train@{commit}"
    one = fetch(source)
    (one.folder / "output.txt").write_text("of a run")
    repository.joinpath(".git").rename(repository / ".moved")
    (repository / ".git").mkdir()
    two = fetch(source, folder=tmp_path / "own/tree")
    assert two.folder == tmp_path / "own/tree/train"
    assert sorted(each.name for each in two.folder.iterdir()) == ["MLproject"]
    assert [each.name for each in cache.glob("projects/*/*") if each.parent.name != "trees"] == [commit]


def test_several_may_fetch_at_once(repository: Path, cache: Path) -> None:
    """Guards jobs that start together: one commit is kept, and each has a tree."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fetch, [f"{repository}@main#train"] * 4))
    assert len({each.folder for each in found}) == 4
    assert len(list(cache.glob("projects/*/*/train"))) == 4 + 1
    assert list(cache.glob("projects/*/.part-*")) == []


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        ("@featur/x#train", "it has no revision 'featur/x'; did you mean 'feature/x'?"),
        ("@" + "0" * 40, "it has no commit '0000"),
        ("@abcdef12", "it has no commit 'abcdef12'"),
        ("@v1#nowhere", "there is no folder 'nowhere' in it"),
        ("#train@HEAD~1", "'HEAD~1' names no revision"),
        ("@v1#train@main", "names several revisions, 'main' and 'v1'"),
        ("@v1#../library", "'../library' is no folder within a repository"),
        ("@v1#.git", "'.git' is no folder within a repository"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_left(tail: str, told: str, repository: Path, cache: Path) -> None:
    """Guards one clear error, and a cache without halves."""
    with pytest.raises(ProjectError) as raised:
        fetch(f"{repository.as_uri()}{tail}")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(cache.glob("projects/trees/*")) == []
    assert list(cache.glob("projects/**/.part-*")) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/no/such/folder", "there is no folder, script or repository"),
        ("no-such-folder@v1", "there is no folder, script or repository"),
        ("file:///no/such#x@v1", "there is no folder, script or repository"),
        (
            "https://localhost:1/a/@b/c",
            "cannot fetch https://localhost:1/a/@b/c: unable to access 'https://localhost:1/a/@b/c/",
        ),
        ("file://elsewhere/x", "is on another machine: use ssh or https"),
        ("project.zip", "is a zip: unpack it"),
        ("https://example.com/project.zip", "is a zip: unpack it"),
        ("ftp://example.com/x.git", "a way to a repository that is not used: https, http, ssh, git, file are"),
        ("ext::sh -c touch% M", "a way to a repository that is not used"),
        ("git+ext::sh://x", "a way to a repository that is not used"),
        ("fd::17/x", "a way to a repository that is not used"),
        ("--upload-pack=x", "is no source of a project"),
        ("ssh://-oProxyCommand=x/y", "looks like an option"),
        ("-oProxyCommand=x:y", "is no source of a project"),
        ("git@-oProxyCommand:y", "looks like an option"),
        ("", "is no source of a project"),
        ("a\nb", "is no source of a project"),
        ("ssh://me:secret@localhost:1/x.git", "a password does not belong into an SSH address"),
        ("https://localhost:1/x.git?private_token=secret", "has a secret in its query"),
        ("https://me:secret@localhost:1/x.git#y@v1", "cannot fetch https://localhost:1/x.git#y@v1: unable to access"),
        ("https://secret@nowhere.invalid/x.git", "Could not resolve host: nowhere.invalid. Is there a network?"),
        ("git@localhost:1/x.git", "cannot fetch git@localhost:1/x.git"),
    ],
)
def test_what_is_no_source_is_said_without_its_secrets(source: str, told: str, git: Git, cache: Path) -> None:
    """Guards addresses that reach nobody, transports that run programs, and credentials in errors."""
    with pytest.raises(SourceError) as raised:
        fetch(source)
    assert told in str(raised.value)
    assert "secret" not in str(raised.value).replace("has a secret", "")
    assert [each for each in cache.rglob("*") if each.name not in ("projects", "mlcore")] == []


def test_a_folder_in_no_repository_has_no_revisions(tmp_path: Path) -> None:
    """Guards `--version` on a plain folder."""
    with pytest.raises(SourceError, match="has no revisions, as it is in no git repository"):
        fetch(str(tmp_path), version="v1")


def test_without_git_the_error_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a machine that has none."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="there is no program git on this machine"):
        fetch(f"{repository}@v1")
    assert fetch(f"{repository}/train").name == "demo"


def test_a_fetch_killed_half_way_is_done_again(repository: Path, cache: Path, git: Git) -> None:
    """Guards that only what is whole has its name, and that leftovers go when they are old."""
    commit = git(repository, "rev-parse", "main")
    kept = next(iter(_kept(repository, cache)))
    for each in kept.iterdir():
        each.rename(kept / ".part-old")
    os.utime(kept / ".part-old", (0, 0))
    (kept / ".part-new").mkdir()
    assert fetch(f"{repository}@main#train").source.commit == commit
    assert sorted(each.name for each in kept.iterdir()) == [".part-new", commit]


def _kept(repository: Path, cache: Path) -> Iterator[Path]:
    fetch(f"{repository}@main#train")
    yield from (each for each in (cache / "projects").iterdir() if each.name != "trees")


@pytest.fixture
def served(tmp_path: Path, git: Git) -> Iterator[tuple[str, Path]]:
    """Serve the repositories of a folder over git's own HTTP, to who knows the password."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Backend(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != "Basic bWU6czNjcmV0IQ==":  # me:s3cret!
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.send_header("Content-Length", "0")
                return self.end_headers()
            path, _, query = self.path.partition("?")
            variables = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command}
            variables |= {"GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1"}
            variables |= {"CONTENT_TYPE": self.headers.get("Content-Type", "")}
            variables |= {"GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            encoding = {"HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", "")}
            done = subprocess.run(
                ["git", "http-backend"], input=body, env={**os.environ, **variables, **encoding},
                capture_output=True, check=True,
            )  # fmt: skip
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + done.stdout)
            return None

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_credentials_in_a_url_are_used_and_nowhere_kept(served: tuple[str, Path], cache: Path, git: Git) -> None:
    """Guards the canary: not in the source, the trees, the cache, or git's own files."""
    address, folder = served
    git(folder / "plain", "init", "-q")
    (folder / "plain/train.py").touch()
    git(folder / "plain", "add", ".")
    git(folder / "plain", "commit", "-qm", "first")
    commit = git(folder / "plain", "rev-parse", "HEAD")
    for revision in ("", f"@{commit}", f"@{commit[:8]}"):
        found = fetch(f"http://me:s3cret%21@{address}/plain{revision}")
        assert (found.source.uri, found.source.commit) == (f"http://{address}/plain", commit)
        assert sorted(found.entry_points) == ["train.py"]
        assert git(found.folder, "remote", "get-url", "origin") == f"http://{address}/plain"
    canaries = (b"s3cret", b"bWU6czNjcmV0IQ==")
    assert [each for each in cache.rglob("*") if each.is_file() and any(c in each.read_bytes() for c in canaries)] == []
    with pytest.raises(SourceError, match="It may be private: let git know you"):
        fetch(f"http://{address}/plain")
    with pytest.raises(SourceError, match="It may be private") as raised:
        fetch(f"http://me:wr0ng@{address}/plain")
    assert "wr0ng" not in str(raised.value)


def test_a_repository_of_the_network_may_not_lead_to_this_machine(
    served: tuple[str, Path], repository: Path, cache: Path, git: Git
) -> None:
    """Guards files of the user's: a submodule at a path is fetched only for a repository that is on this machine."""
    address, folder = served
    git(folder, "clone", "-q", "--bare", str(repository), str(folder / "x.git"))
    with pytest.raises(SourceError, match="transport 'file' not allowed"):
        fetch(f"http://me:s3cret%21@{address}/x.git#train@v1")
    assert list(cache.glob("projects/*")) == []


def test_a_server_of_plain_files_will_do(tmp_path: Path, git: Git) -> None:
    """Guards the simplest server, which knows nothing of single commits."""
    plain, bare = tmp_path / "plain", tmp_path / "served/plain.git"
    git(plain, "init", "-q")
    (plain / "train.py").touch()
    git(plain, "add", ".")
    git(plain, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", "--bare", str(plain), str(bare))
    git(bare, "update-server-info")

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(bare.parent))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = fetch(f"http://127.0.0.1:{server.server_port}/plain.git@main")
        finally:
            server.shutdown()
            thread.join()
    assert sorted(found.entry_points) == ["train.py"]


def test_the_user_of_an_ssh_address_is_no_secret() -> None:
    """Guards what is shown of addresses."""
    assert credentials("ssh://git@h/x") == ("ssh://git@h/x", {})
    assert without_credentials("ssh://git@h/x") == "ssh://git@h/x"
    assert without_credentials("https://t0ken@h/x?design=1&sig=2#f") == "https://h/x?design=1&sig=***#f"
    assert without_credentials("s3://b/x?X-Amz-Signature=2&a=3") == "s3://b/x?X-Amz-Signature=***&a=3"
    assert without_credentials("ssh://me:pw@h/x") == "ssh://h/x"


def test_ctrl_c_ends_git_and_leaves_nothing(tmp_path: Path, cache: Path, git: Git) -> None:
    """Guards a server that never answers: the process ends at once, and git with it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        program = f"from mlcore_projects.sources import fetch; fetch({address!r})"
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
        try:
            server.settimeout(60)
            connection, _ = server.accept()  # git is there
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert time.monotonic() - began < 10
            connection.settimeout(10)
            while connection.recv(65_536):  # its end says that git is gone
                pass
            connection.close()
        finally:
            process.kill()
            process.communicate()
    assert list(cache.glob("projects/*")) == []

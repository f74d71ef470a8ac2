"""What a user does, with files in a bucket: the first example, models, the spool, and no key left anywhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import mlcore
from ceph import SECRET, Bucket
from docs.test_digits import ended, plain, started, stored
from faults import processes
from mlcore import artifacts
from mlcore.errors import AccessDenied, MlcoreError
from plugins.local.test_code_canary import contents
from serving import serving

TOKEN = "aSessionToken/of+tests=="

REGISTER = """
    import mlcore
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    with mlcore.start_run() as run:
        mlcore.log_param("lr", 0.1)
        mlcore.log_text("hello", "notes/greeting.txt")
        mlcore.log_model(model, "model", register="line")
    print(mlcore.load_model("models:/line/1").predict([[2.0]]))
    print(run.id)
"""


def test_the_digits_are_the_same_in_a_bucket_as_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    """Guards that one setting brings the files of the first example to S3, and changes nothing else."""
    settings = bucket.settings(MLCORE_ARTIFACTS=f"{bucket.uri}/files")
    locally, there = started(tmp_path / "locally"), started(tmp_path / "remotely", **settings)
    assert plain(ended(there)) == plain(ended(locally))
    here, found = stored(str(tmp_path / "locally" / ".mlcore")), stored(str(tmp_path / "remotely" / ".mlcore"))
    assert found["experiments"] == here["experiments"]
    assert found["registry"] == here["registry"]
    for run in found["runs"].values():
        assert run["fields"].pop("artifacts").startswith(f"{bucket.uri}/files/")
    for name, run in here["runs"].items():
        for part, expected in run.items():
            assert found["runs"][name][part] == expected, (name, part)
    kept = bucket.names()
    assert sum(name.endswith("/model/MLmodel") for name in kept) == 5
    assert all(name.startswith("files/") for name in kept)
    assert bucket.uploads() == []


def test_files_go_to_the_bucket_while_a_run_is_spooled(bucket: Bucket, tmp_path: Path) -> None:
    """Guards a job whose server is away: what it spooled is shipped later, its files to the bucket."""
    home = tmp_path / "home"
    settings = bucket.settings(MLCORE_ARTIFACTS=f"{bucket.uri}/files")
    code = """
        import mlcore
        with mlcore.start_run() as run:
            mlcore.log_metric("loss", 0.5)
            mlcore.log_text("hello", "greeting.txt")
        print(run.id)
    """
    with serving(tmp_path / "served") as server:
        url, token = server.url, server.token
        server.stop()
        out, _ = processes.run(home, code, MLCORE_STORE=url, MLCORE_TOKEN=token, **settings)
        assert bucket.names() == []
        server.start()
        token = server.token
        done = processes.mlcore(home, "sync", MLCORE_STORE=url, MLCORE_TOKEN=token, **settings)
        assert done.returncode == 0, done.stderr
        assert [name.rpartition("/")[2] for name in bucket.names()] == ["greeting.txt"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLCORE_TOKEN", token)
            client = mlcore.Client(url)
            run = client.get_run(out.split()[-1])
            assert run.metrics == {"loss": 0.5}
            assert run.artifacts.open("greeting.txt").read() == b"hello"
            assert run.artifacts.verify() == []
            client.close()


def test_no_key_is_left_anywhere(bucket: Bucket, tmp_path: Path) -> None:
    """Guards the store, journals, the spool, logs, what commands print, and all that a run says of its machine."""
    home = tmp_path / "home"
    settings = bucket.settings(MLCORE_ARTIFACTS=f"{bucket.uri}/files", MLCORE_CAPTURE="all", AWS_EXTRA_TOKEN=TOKEN)
    printed = [*processes.run(home, REGISTER, **settings)]
    assert "[5.]" in printed[0]
    commands = (
        "config list", "where", "plugins list", "runs list --json", "runs show @last --json",
        "artifacts list @last --json", "artifacts verify @last", "models inspect models:/line/1 --json",
        "registry show line --json", "fsck --json",
    )  # fmt: skip
    for command in commands:
        done = processes.mlcore(home, *command.split(), **settings)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed += [done.stdout, done.stderr]
    broken = settings | {"AWS_ACCESS_KEY_ID": "NOBODY"}
    printed += processes.run(home, REGISTER, status=None, **broken)
    assert "does not know the access key" in printed[-1]
    for data in printed:
        assert [each for each in (SECRET, TOKEN) if each in data] == []
    canaries = [each.encode() for each in (SECRET, TOKEN, json.dumps(SECRET)[1:-1])]
    for name, data in contents(tmp_path):
        assert [each for each in canaries if each in data] == [], name
    assert any(name.endswith("/model/MLmodel") for name in bucket.names())
    for name in bucket.names():
        body = bucket.call("GET", name)
        assert [each for each in canaries if each in body] == [], name


def test_the_server_tells_no_key_of_the_bucket_that_it_keeps_files_in(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards its log, its answers and its errors: clients have no keys of the bucket, and get none."""
    with serving(tmp_path / "served", "--artifacts", f"{bucket.uri}/files") as server:
        client = {"MLCORE_STORE": server.url, "MLCORE_TOKEN": server.token}
        printed = [*processes.run(tmp_path / "home", REGISTER, **client)]
        assert "[5.]" in printed[0]
        assert any(name.endswith("model/MLmodel") for name in bucket.names())
        printed.append(server.errors.read_text())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with serving(tmp_path / "again", "--artifacts", f"{bucket.uri}/files") as server:
        client = {"MLCORE_STORE": server.url, "MLCORE_TOKEN": server.token}
        code = "import mlcore\nwith mlcore.start_run(): mlcore.log_text('hello', 'greeting.txt')"
        printed += processes.run(tmp_path / "home", code, status=None, **client)
        assert "the place where the server keeps files: s3://" in printed[-1]  # not that the client's token is wrong
        assert "does not know the access key (AWS_ACCESS_KEY_ID of the environment): correct it" in printed[-1]
        printed.append(server.errors.read_text())
        assert "does not know the access key" in printed[-1]
    assert [data for data in printed if SECRET in data] == []
    for name, data in contents(tmp_path):
        assert SECRET.encode() not in data, name


@pytest.mark.parametrize(
    ("named", "value", "expected"),
    [
        ("AWS_SECRET_ACCESS_KEY", "notTheSecret", "the secret key is not that of the access key"),
        ("AWS_ACCESS_KEY_ID", "", "there are no keys for S3"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "cannot be reached"),
        ("bucket", "s3://is-not-there", "there is no bucket 'is-not-there'"),
    ],
)
def test_who_asks_a_server_is_told_what_its_bucket_says(
    named: str, value: str, expected: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards clients from looking for the fault at home: which it is, of which URI, within ten seconds."""
    monkeypatch.setenv(named, value)
    monkeypatch.setenv("MLCORE_S3_PATIENCE", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    uri = value if named == "bucket" else bucket.uri
    with serving(tmp_path / "served", "--artifacts", f"{uri}/files") as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        files, root = artifacts.open_backend(f"mlcore+{server.url}/runs/{'0190' * 8}/files")
        for use in (lambda: artifacts.put(files, root, {"a.txt": b"hello"}), lambda: files.cat_file(f"{root}/a.txt")):
            began = time.monotonic()
            with pytest.raises(MlcoreError, match=expected) as told:
                use()
            assert time.monotonic() - began < 10
            assert f"the place where the server keeps files: {uri}/files/" in str(told.value)
            assert not isinstance(told.value, AccessDenied)

"""What cannot work is told within ten seconds: which it is and what to do, with the URI and without a secret."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from ceph import OTHER_KEY, OTHER_SECRET, SECRET, Bucket
from failing import Failing, failing
from faults import processes
from mlcore import artifacts
from mlcore.errors import AccessDenied, ArtifactError, MlcoreError

WRONG = "notTheSecret/of+tests0123"
TOKEN = "aTokenThatHasExpired/of+tests"
SECRETS = (SECRET, OTHER_SECRET, WRONG, TOKEN)


def put(filesystem: Any, root: str) -> None:
    """Store a file."""
    artifacts.put(filesystem, root, {"name": b"x" * 1_000})


def put_large(filesystem: Any, root: str) -> None:
    """Store a file in parts."""
    with filesystem.open(f"{root}/name", "wb") as file:
        for _ in range(20):
            file.write(b"x" * (1 << 20))


def read(filesystem: Any, root: str) -> None:
    """Read a file."""
    with artifacts.open_file(artifacts.File(filesystem, f"{root}/name", 1_000)) as file:
        file.read()


def remove(filesystem: Any, root: str) -> None:
    """Remove a file."""
    with artifacts._saying("cannot remove", root):
        filesystem.rm(f"{root}/name")


USES: tuple[Callable[..., object], ...] = (artifacts.list_files, put, put_large, read)


def told(uri: str, use: Callable[..., object], kind: type[MlcoreError] = ArtifactError) -> str:
    """Return what is said of a use that cannot be, and check how it is said."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        use(*artifacts.open_backend(f"{uri}/root"))
    assert time.monotonic() - started < 10
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert [secret for secret in SECRETS if secret in everything] == []
    assert uri in str(caught.value)
    return str(caught.value)


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    """Yield what stands before the server from now on, and breaks everything."""
    with failing(bucket.port) as found:
        found.most = 10**6
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


@pytest.mark.parametrize("use", USES)
def test_a_wrong_secret_is_told_of(use: Callable[..., object], bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that the error says that it is the secret, and where to correct it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    assert re.search("secret key is not .*AWS_SECRET_ACCESS_KEY", told(bucket.uri, use, AccessDenied))


@pytest.mark.parametrize("use", USES)
def test_an_unknown_key_is_told_of(use: Callable[..., object], bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that it is not taken for a wrong secret."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    assert re.search("does not know the access key .*AWS_ACCESS_KEY_ID", told(bucket.uri, use, AccessDenied))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("400 ExpiredToken", "the keys have expired .* get new ones"),
        ("403 RequestTimeTooSkewed", "clocks .* differ: set this machine's clock"),
        ("400 AuthorizationHeaderMalformed", "is in eu-north-1, not in us-east-1: set AWS_REGION=eu-north-1"),
        ("301 PermanentRedirect", "is in eu-north-1, not in us-east-1: set AWS_REGION=eu-north-1"),
        ("403 AccountProblem", "does not allow it"),
    ],
)
def test_what_a_server_says_is_told_in_words(
    use: Callable[..., object], answer: str, words: str, bucket: Bucket, proxy: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An expired token, a wrong clock, another region: as AWS answers, since no server here can be made to."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    proxy.fault = answer
    assert re.search(words, told(bucket.uri, use))


@pytest.mark.parametrize("use", USES)
def test_a_missing_bucket_is_told_of(use: Callable[..., object], bucket: Bucket) -> None:
    """Guards that it is not taken for a missing file, nor for a place without files."""
    assert re.search("no bucket 'there-is-none' .*make it, or correct its name", told("s3://there-is-none", use))


@pytest.mark.parametrize("use", USES)
def test_a_stranger_is_told_whom_to_ask(
    use: Callable[..., object], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is good, for a bucket that is another's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OTHER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OTHER_SECRET)
    assert re.search("does not allow it .*ask the bucket's owner", told(bucket.uri, use, AccessDenied))


def test_who_may_only_read_reads_and_is_told_of_the_rest(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a bucket policy, as teams have them: no more is asked for than the work needs."""
    put(*artifacts.open_backend(f"{bucket.uri}/root"))
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["arn:aws:iam:::user/other"]},
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket.name}", f"arn:aws:s3:::{bucket.name}/*"],
            }
        ],
    }
    bucket.call("PUT", body=json.dumps(policy).encode(), policy="")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OTHER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OTHER_SECRET)
    read(*artifacts.open_backend(f"{bucket.uri}/root"))
    assert list(artifacts.list_files(*artifacts.open_backend(f"{bucket.uri}/root"))) == ["name"]
    for use in (put, put_large, remove):
        assert "s3:PutObject, s3:DeleteObject" in told(bucket.uri, use, AccessDenied)
    assert bucket.sizes() == {"root/name": 1_000}


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield a port that takes no connection and refuses none, as behind a firewall that drops what comes."""
    waiting = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        for _ in range(4):  # so many more than it lets wait
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(server.getsockname())
            waiting.append(one)
        yield server.getsockname()[1]
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("endpoint", "use"),
    [("http://127.0.0.1:1", put), ("http://no-such-host.invalid:80", read), *(("silent", use) for use in USES[::2])],
)
def test_a_server_that_is_not_there_is_told_of(
    endpoint: str, use: Callable[..., object], bucket: Bucket, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, the name is not known, a firewall swallows everything: the error comes within ten seconds."""
    url = f"http://127.0.0.1:{silent}" if endpoint == "silent" else endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    said = told(bucket.uri, use)
    assert re.search("cannot be reached .*check the network, its name and AWS_ENDPOINT_URL", said)
    assert url in said


@pytest.mark.parametrize("use", USES[1:3])
def test_a_server_without_tls_is_told_of(
    use: Callable[..., object], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards an endpoint with one letter too many."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url.replace("http:", "https:"))
    assert "does not speak TLS" in told(bucket.uri, use)


@pytest.mark.parametrize("use", USES[1:3])
def test_a_certificate_that_nobody_trusts_is_told_of_and_one_that_is_named_is_trusted(
    use: Callable[..., object], bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a company's own authority, which AWS_CA_BUNDLE names."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with failing(bucket.port, tls=context) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        assert re.search("certificate is not trusted: AWS_CA_BUNDLE", told(bucket.uri, use))
        bundle = tmp_path / "authorities.pem"
        authority.cert_pem.write_to_path(str(bundle))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        filesystem, root = artifacts.open_backend(f"{bucket.uri}/root")
        put(filesystem, root)
        use(filesystem, root)


def test_keys_in_a_uri_are_refused_and_not_repeated(bucket: Bucket) -> None:
    """Guards that what would be logged and kept with the run is refused first."""
    with pytest.raises(ArtifactError, match="keys are no part of a URI") as caught:
        artifacts.open_backend(f"s3://{OTHER_KEY}:{SECRET}@{bucket.name}/root")
    assert SECRET not in str(caught.value)


def test_a_command_says_it_in_one_line(bucket: Bucket, tmp_path: Path) -> None:
    """Guards what a user reads: no traceback, no secret, and what to do."""
    home, settings = tmp_path / "home", bucket.settings(MLCORE_ARTIFACTS=f"{bucket.uri}/files")
    processes.run(home, "import mlcore\nwith mlcore.start_run(): mlcore.log_text('hello', 'greeting.txt')", **settings)
    settings["AWS_SECRET_ACCESS_KEY"] = WRONG
    done = processes.mlcore(home, "artifacts", "get", "@last", "greeting.txt", **settings)
    assert done.returncode == 1
    assert "secret key is not that of the access key" in done.stderr
    assert "Traceback" not in done.stderr
    assert [secret for secret in SECRETS if secret in done.stdout + done.stderr] == []

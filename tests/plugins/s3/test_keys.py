"""Where keys and settings of S3 are found, and that nobody is shown a secret."""

from __future__ import annotations

import datetime
import json
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlcore import artifacts
from mlcore.errors import AccessDenied, ArtifactError, ConfigError
from mlcore_s3.credentials import Chain, Credentials
from mlcore_s3.failures import Answered, Denied
from mlcore_s3.profiles import Profile
from mlcore_s3.settings import Settings
from mlcore_s3.signing import signed_headers

SECRET = "the/secret+canary"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home folder without keys, and an environment that says nothing of AWS."""
    import os

    for name in [name for name in os.environ if name.startswith(("AWS_", "MLCORE_S3_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path


def write(home: Path, name: str, text: str) -> None:
    """Write a file of ``~/.aws``."""
    (home / ".aws" / name).write_text(textwrap.dedent(text))


class Service:
    """Answer like the services that give keys; note what was asked."""

    def __init__(self, answer: Callable[[str, str, dict[str, str], str], str | None]) -> None:
        self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body, sent = self.rfile.read(length).decode(), {k.lower(): v for k, v in self.headers.items()}
                told = answer(self.command, self.path, sent, body)
                service.asked.append(f"{self.command} {self.path}")
                data = (told or "no").encode()
                self.send_response(403 if told is None else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = answer  # noqa: N815 - as http.server calls them

            def log_message(self, *_: object) -> None:
                pass

        service = self
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Return what starts a service."""
    started = list[Service]()

    def start(answer: Callable[[str, str, dict[str, str], str], str | None]) -> Service:
        started.append(Service(answer))
        return started[-1]

    yield start
    for each in started:
        each.close()


def keys(profile: str | None = None) -> Credentials:
    """Return the keys that are found."""
    return Chain(Profile.read(profile))()


def test_the_environment_comes_before_the_profile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the order that AWS's programs have; a profile in a URI is meant, whatever the environment says."""
    write(home, "credentials", f"[default]\naws_access_key_id = filed\naws_secret_access_key = {SECRET}\n")
    assert keys().access_key == "filed"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "told")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert (keys().access_key, keys().token) == ("told", None)
    assert keys("default").access_key == "filed"
    monkeypatch.setenv("AWS_SESSION_TOKEN", "passing")
    assert keys().token == "passing"
    assert SECRET not in repr(keys())
    assert "passing" not in repr(keys())


def test_a_profile_is_read_from_both_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards ~/.aws as people have it: keys in one file, region, endpoint and style in the other."""
    write(home, "credentials", f"[team]\naws_access_key_id=K\naws_secret_access_key={SECRET}\naws_session_token=T%1\n")
    write(
        home,
        "config",
        """
        [profile team]
        region = eu-central-1
        services = own
        s3 =
            addressing_style = path
        [services own]
        s3 =
            endpoint_url = https://s3.example.org/
        """,
    )
    monkeypatch.setenv("AWS_PROFILE", "team")
    profile = Profile.read()
    settings = Settings.read(profile)
    assert (settings.region, settings.endpoint, settings.style) == ("eu-central-1", "https://s3.example.org", "path")
    found = keys()
    assert (found.access_key, found.secret_key, found.token) == ("K", SECRET, "T%1")
    assert SECRET not in repr(profile)
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(ConfigError, match="AWS_PROFILE asks for the profile 'other'"):
        Profile.read()
    with pytest.raises(ConfigError, match="s3://nobody@ asks for the profile 'nobody'"):
        artifacts.put(*artifacts.open_backend("s3://nobody@bucket/x"), {"a": b""})


def test_a_command_may_give_the_keys(home: Path) -> None:
    """Guards credential_process, by which everything else comes in; what it prints is never shown."""
    script = home / "keys.py"
    script.write_text(
        f'print(\'{{"Version": 1, "AccessKeyId": "K", "SecretAccessKey": "{SECRET}", "SessionToken": "T"}}\')'
    )
    write(home, "config", f"[default]\ncredential_process = {sys.executable} {script}\n")
    assert (keys().access_key, keys().secret_key, keys().token) == ("K", SECRET, "T")
    script.write_text(f"print('{SECRET}'); raise SystemExit(3)")
    with pytest.raises(
        Denied, match=r"credential_process of the profile 'default' of .* gave no keys: status 3"
    ) as told:
        keys()
    assert SECRET not in str(told.value)


def test_single_sign_on_is_left_to_aws(home: Path) -> None:
    """Guards those whose profile takes its keys by ways that need AWS's library: the error has the line to write."""
    write(home, "config", "[profile sso]\nsso_session = x\n[profile role]\nrole_arn = arn:x\nsource_profile = sso\n")
    for name in ("sso", "role"):
        with pytest.raises(Denied, match=f"aws configure export-credentials --profile {name}"):
            keys(name)


def test_a_web_identity_is_exchanged(
    home: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Service]
) -> None:
    """Guards pods of Kubernetes and jobs of CI, which have a token in a file and a role."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)

    def answer(method: str, path: str, headers: dict[str, str], body: str) -> str | None:
        if "WebIdentityToken=proof&" not in f"{body}&" or "RoleArn=arn%3Aaws%3Arole" not in body:
            return None
        told = f"<AccessKeyId>K</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>T</SessionToken>"
        told += f"<Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
        return f'<R xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><C><Credentials>{told}</Credentials></C></R>'

    service = serve(answer)
    (home / "token").write_text("proof\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:role")
    found = keys()
    assert (found.access_key, found.secret_key, found.token) == ("K", SECRET, "T")
    assert found.expires == pytest.approx(end.timestamp(), abs=1)
    (home / "token").write_text("forged-proof")
    with pytest.raises(Denied, match="the role arn:aws:role gave no keys for S3: status 403") as told:
        keys()
    assert "forged-proof" not in str(told.value)


def given(seconds: float) -> str:
    """Return keys as services give them, which end so many seconds from now."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    told = {"AccessKeyId": "K", "SecretAccessKey": SECRET, "Token": "T"}
    return json.dumps({**told, "Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}"})


def test_an_instance_gives_keys(monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Service]) -> None:
    """Guards virtual machines: the second version of the service, whose token comes first."""

    def answer(method: str, path: str, headers: dict[str, str], body: str) -> str | None:
        if path == "/latest/api/token":
            return "session" if method == "PUT" else None
        if headers.get("x-aws-ec2-metadata-token") != "session":
            return None
        return given(3_600) if path.endswith("/worker") else "worker"

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", serve(answer).url)
    assert (keys().access_key, keys().source) == ("K", "the instance's role worker")


def test_a_container_gives_keys_and_new_ones_before_they_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Service]
) -> None:
    """Guards trainings of days: keys are asked for again before they end, and not with every request."""
    lasting = [3_600.0]

    def answer(method: str, path: str, headers: dict[str, str], body: str) -> str | None:
        return given(lasting[0]) if headers.get("authorization") == "pod" else None

    service = serve(answer)
    (home / "token").write_text("pod\n")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.url}/keys")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(home / "token"))
    chain = Chain(Profile.read())
    assert [chain().access_key for _ in range(3)] == ["K"] * 3
    assert len(service.asked) == 1
    lasting[0] = 100
    chain = Chain(Profile.read())
    assert [chain().access_key for _ in range(3)] == ["K"] * 3
    assert len(service.asked) == 4


def test_who_has_no_keys_is_told_at_once(home: Path) -> None:
    """Guards the first attempt: no wait, and the ways to give keys."""
    start = time.monotonic()
    with pytest.raises(Denied, match=r"there are no keys for S3 .*set AWS_ACCESS_KEY_ID"):
        artifacts.put(*artifacts.open_backend("s3://bucket/x"), {"a": b""})
    with pytest.raises(AccessDenied):
        artifacts.list_files(*artifacts.open_backend("s3://bucket/x"))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("uri", [f"s3://KEY:{SECRET.replace('/', '')}@bucket/x", "s3://:x@bucket", "s3://@bucket/x"])
def test_keys_in_a_uri_are_refused(uri: str) -> None:
    """Guards logs and stores, which keep URIs."""
    with pytest.raises(ArtifactError, match="keys are no part of a URI") as told:
        artifacts.open_backend(uri)
    assert "canary" not in str(told.value)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://a b/x", "s3://x/y"])
def test_what_names_no_bucket_is_told(uri: str) -> None:
    """Guards slips of the pen."""
    with pytest.raises(ArtifactError, match="names no bucket"):
        artifacts.open_backend(uri)


def settings() -> Settings:
    """Return what is set."""
    return Settings.read(Profile.read())


@pytest.mark.parametrize(
    ("said", "bucket", "server"),
    [
        ({}, "b", ("https://b.s3.us-east-1.amazonaws.com", "")),
        ({"AWS_REGION": "cn-north-1"}, "b", ("https://b.s3.cn-north-1.amazonaws.com.cn", "")),
        ({}, "dotted.name", ("https://s3.us-east-1.amazonaws.com", "/dotted.name")),
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "b", ("http://minio:9000", "/b")),
        ({"AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "https://y/base/"}, "b", ("https://y", "/base/b")),
        ({"AWS_ENDPOINT_URL": "https://r2.test", "MLCORE_S3_ADDRESSING": "virtual"}, "b", ("https://b.r2.test", "")),
    ],
)
def test_where_a_bucket_is(
    said: dict[str, str], bucket: str, server: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards other vendors, whose servers have their buckets in paths, and AWS, which has them in names."""
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert settings().server(bucket) == server


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLCORE_S3_ADDRESSING", "sideways"),
        ("MLCORE_S3_SSE", "rot13"),
        ("MLCORE_S3_SSE_KMS_KEY_ID", "key"),
        ("MLCORE_S3_STORAGE_CLASS", "a\nb"),
        ("MLCORE_S3_PATIENCE", "forever"),
        ("AWS_REGION", "a/b"),
        ("AWS_ENDPOINT_URL", f"http://key:{SECRET}@host"),
    ],
)
def test_settings_that_cannot_be_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a setting that is believed to work."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as told:
        settings()
    assert SECRET not in str(told.value)


def test_what_is_written_says_how_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards encryption and storage classes: the headers that AWS asks for."""
    monkeypatch.setenv("MLCORE_S3_SSE", "aws:kms")
    monkeypatch.setenv("MLCORE_S3_SSE_KMS_KEY_ID", "arn:key")
    monkeypatch.setenv("MLCORE_S3_STORAGE_CLASS", "STANDARD_IA")
    assert dict(settings().headers) == {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "arn:key",
        "x-amz-storage-class": "STANDARD_IA",
    }


def test_signatures_are_those_of_the_standard() -> None:
    """Guards against servers that are stricter than the one of these tests: AWS's own example of a GET."""
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    headers = {"host": "examplebucket.s3.amazonaws.com", "Range": "bytes=0-9"}
    moment = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()
    signed = signed_headers("GET", "/test.txt", headers, empty, keys, "us-east-1", moment)
    assert signed["authorization"].endswith("=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_of_an_answer_only_what_says_why_is_kept() -> None:
    """Guards logs: servers send back what was signed, with the key that signed it."""
    body = f"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{SECRET}</StringToSign></Error>"
    assert SECRET not in repr(Answered.of(403, body))

"""What cannot work is told within ten seconds: which it is and what to do, with the URI and without a secret."""

from __future__ import annotations

import re
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from azurite import KEY, OTHER_KEY, Container
from failing import Failing, failing
from mlcore import artifacts
from mlcore.errors import AccessDenied, ArtifactError, ConfigError, MlcoreError


def put(filesystem: Any, root: str) -> None:
    """Store a file."""
    artifacts.put(filesystem, root, {"name": b"x" * 1_000})


def put_large(filesystem: Any, root: str) -> None:
    """Store a file in blocks."""
    with filesystem.open(f"{root}/name", "wb") as file:
        for _ in range(20):
            file.write(b"x" * (1 << 20))


def read(filesystem: Any, root: str) -> None:
    """Read a file."""
    with artifacts.open_file(artifacts.File(filesystem, f"{root}/name", 1_000)) as file:
        file.read()


USES: tuple[Callable[..., object], ...] = (artifacts.list_files, put, put_large, read)


def told(uri: str, use: Callable[..., object], kind: type[MlcoreError] = ArtifactError, secret: str = KEY) -> str:
    """Return what is said of a use that cannot be, and check how it is said."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        use(*artifacts.open_backend(f"{uri}/root"))
    assert time.monotonic() - started < 10
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for each in (KEY, OTHER_KEY, secret, urllib.parse.quote(secret, safe="")):
        assert each not in everything
    assert uri in str(caught.value)
    return str(caught.value)


def token(container: Container, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """Come with a SAS token instead of a key; return its signature."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", found := container.token(**options))
    return urllib.parse.parse_qs(found)["sig"][0]


@pytest.mark.parametrize("use", USES)
def test_a_wrong_key_is_told_of(use: Callable[..., object], container: Container, monkeypatch: Any) -> None:
    """Guards that the error says that it is the key, and where to correct it."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", OTHER_KEY)
    said = told(container.uri, use, AccessDenied)
    assert "the key is not one of the account mltests (AZURE_STORAGE_KEY): correct it" in said


def test_what_is_no_key_is_told_of(container: Container, monkeypatch: Any) -> None:
    """Guards a key that was cut off when it was copied: it is not repeated."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", cut := KEY[:-5])
    assert re.search("AZURE_STORAGE_KEY", told(container.uri, put, secret=cut))


@pytest.mark.parametrize("use", USES)
def test_an_expired_token_is_told_of(use: Callable[..., object], container: Container, monkeypatch: Any) -> None:
    """Guards that it is not taken for a wrong one."""
    signature = token(container, monkeypatch, hours=-1)
    said = told(container.uri, use, AccessDenied, signature)
    assert "the SAS token has expired (AZURE_STORAGE_SAS_TOKEN): get a new one" in said


def test_who_may_only_read_reads_and_is_told_of_the_rest(container: Container, monkeypatch: Any) -> None:
    """Guards a token that allows little: no more is asked for than the work needs."""
    put(*artifacts.open_backend(f"{container.uri}/root"))
    signature = token(container, monkeypatch, permissions="rl")
    read(*artifacts.open_backend(f"{container.uri}/root"))
    assert list(artifacts.list_files(*artifacts.open_backend(f"{container.uri}/root"))) == ["name"]
    for use in (put, put_large):
        assert "ask its owner for the role" in told(container.uri, use, AccessDenied, signature)
    assert container.sizes() == {"root/name": 1_000}


@pytest.mark.parametrize("use", USES)
def test_a_missing_container_is_told_of(use: Callable[..., object], container: Container) -> None:
    """Guards that it is not taken for a missing file, nor for a place without files."""
    assert re.search("no container 'there-is-none' .*make it, or correct its name", told("az://there-is-none", use))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1/mltests", "http://no-such-host.invalid:80/mltests"])
@pytest.mark.parametrize("use", USES[:2])
def test_a_server_that_is_not_there_is_told_of(
    endpoint: str, use: Callable[..., object], container: Container, monkeypatch: Any
) -> None:
    """Nobody listens, or the name is not known."""
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", endpoint)
    assert re.search("cannot be reached .*check the network, and AZURE_STORAGE_ACCOUNT", told(container.uri, use))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "there is nothing that says who you are"),
        (
            {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "aSecretOfTests", "host": "1"},
            "the service principal of AZURE_CLIENT_ID gave no token",
        ),
        ({"AZURE_USE_AZURE_CLI": "1"}, "the program az, as AZURE_USE_AZURE_CLI says gave no token"),
    ],
    ids=["nothing", "a principal", "az"],
)
def test_who_gets_no_token_is_told_how_to_say_who_they_are(
    settings: dict[str, str], words: str, container: Container, monkeypatch: Any
) -> None:
    """Guards a machine without an identity, a service for tokens that is away, and az where it is not installed."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    if settings.pop("host", ""):
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    said = told(container.uri, put, AccessDenied, "aSecretOfTests")
    assert words in said and "set AZURE_STORAGE_KEY" in said


def test_nobody_is_told_that_it_is_not_for_everybody(container: Container, monkeypatch: Any) -> None:
    """Guards MLCORE_AZURE_ANONYMOUS where a container is not public."""
    monkeypatch.setenv("MLCORE_AZURE_ANONYMOUS", "1")
    assert "unset MLCORE_AZURE_ANONYMOUS" in told(container.uri, read, AccessDenied)


@pytest.fixture
def proxy(container: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    """Yield what stands before the server from now on, and breaks what it is told to."""
    with failing(container.port) as found:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{found.url}/mltests")
        yield found


@pytest.mark.parametrize(
    "fault", ["503 ServerBusy", "500 InternalError", "reset request", "reset answer", "cut answer"]
)
def test_failures_cost_retries_and_never_a_byte(
    fault: str, container: Container, proxy: Failing, tmp_path: Any
) -> None:
    """Guards that each request may fail twice, in any way: what was stored and what is got is whole."""
    data = bytes(range(256)) * 80_000
    (tmp_path / "large").write_bytes(data)
    proxy.fault = fault
    filesystem, root = artifacts.open_backend(f"{container.uri}/root")
    stored = artifacts.put(filesystem, root, {"small": b"x" * 1_000, "large": tmp_path / "large"})
    artifacts.get(stored, tmp_path / "got")
    assert sum(proxy.broken.values()) > 2
    assert (tmp_path / "got" / "large").read_bytes() == data
    assert container.sizes() == {"root/small": 1_000, "root/large": len(data)}


def test_a_server_that_goes_on_failing_is_told_of(container: Container, proxy: Failing, monkeypatch: Any) -> None:
    """Guards that there is an end to asking again, and that it can be set."""
    monkeypatch.setenv("MLCORE_AZURE_PATIENCE", "1.5")
    proxy.fault, proxy.most = "503 ServerBusy", 10**6
    assert re.search("fails with 503 ServerBusy for 1.5 s.*MLCORE_AZURE_PATIENCE", told(container.uri, put))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MLCORE_AZURE_PATIENCE", "long", "must be a number of seconds"),
        ("AZURE_STORAGE_ACCOUNT", "", "which storage account"),
        ("AZURE_STORAGE_ACCOUNT", "No_Account", "is no storage account"),
        ("AZURE_STORAGE_ENDPOINT", "127.0.0.1:10000", "must be a URL"),
        ("AZURE_STORAGE_CONNECTION_STRING", "nothing", "names neither"),
        ("MLCORE_AZURE_CA_BUNDLE", "/no/such.pem", "cannot be read"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    name: str, value: str, words: str, container: Container, monkeypatch: Any
) -> None:
    """Guards that it is told before anything is sent."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as caught:
        put(*artifacts.open_backend(f"{container.uri}/root"))
    assert KEY not in str(caught.value)

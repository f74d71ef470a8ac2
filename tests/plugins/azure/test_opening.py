"""URIs of Azure, as mlcore and other programs write them, and how accounts are found."""

from __future__ import annotations

import subprocess
import sys

import pytest

from azurite import ACCOUNT, KEY, OTHER, OTHER_KEY, Container
from mlcore import artifacts
from mlcore.errors import ArtifactError
from mlcore_azure.settings import Settings


@pytest.mark.parametrize("scheme", ["az", "abfs", "abfss", "wasb", "wasbs"])
@pytest.mark.parametrize("host", ["", f"@{ACCOUNT}", f"@{ACCOUNT}.dfs.core.windows.net"])
def test_each_form_of_a_uri_names_the_same_place(scheme: str, host: str, container: Container) -> None:
    """Guards that what Spark, adlfs and MLflow call a place is that place here, and that names lead back to it."""
    filesystem, root = artifacts.open_backend(f"{scheme}://{container.name}{host}/a/b")
    artifacts.put(filesystem, root, {"c": b"hello"})
    assert container.sizes() == {"a/b/c": 5}
    assert filesystem.cat_file(f"{scheme}://{container.name}{host}/a/b/c") == b"hello"
    assert filesystem.unstrip_protocol(f"{root}/c") == f"{scheme}://{container.name}{host}/a/b/c"


@pytest.mark.parametrize(
    "uri", ["az://c:key@x/y", f"az://{ACCOUNT}:{KEY}@abc/d", "az://abc/d?sv=1&sig=secret", "az://abc@k@acc/d"]
)
def test_secrets_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    """Guards that what would be logged and kept with the run is refused first."""
    with pytest.raises(ArtifactError, match="no part of a URI") as caught:
        artifacts.open_backend(uri)
    assert uri.partition("://")[2] not in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "az://",
        "az:///x",
        "az://Upper/x",
        "az://ab/x",
        "az://a--b/x",
        "az://abc@A.B/x",
        "abfss://abc@acc.dfs.example.org/x",
    ],
)
def test_what_names_no_container_is_refused(uri: str) -> None:
    """Guards a slip of the hand."""
    with pytest.raises(ArtifactError, match="names no container"):
        artifacts.open_backend(uri)


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Say nothing of any account."""
    import os

    for name in [name for name in os.environ if name.startswith(("AZURE_", "MLCORE_AZURE_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_connection_string_says_all(container: Container, nothing: pytest.MonkeyPatch) -> None:
    """Guards what Azure's portal shows to be copied, with a key and with a token."""
    whole = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={container.url};"
    nothing.setenv("AZURE_STORAGE_CONNECTION_STRING", whole)
    artifacts.put(*artifacts.open_backend(f"{container.uri}/x"), {"name": b"1"})
    token = f"AccountName={ACCOUNT};BlobEndpoint={container.url}/;SharedAccessSignature=?{container.token()}"
    nothing.setenv("AZURE_STORAGE_CONNECTION_STRING", token)
    assert list(artifacts.list_files(*artifacts.open_backend(f"{container.uri}/x"))) == ["name"]


@pytest.mark.parametrize(
    ("host", "said", "endpoint"),
    [
        ("", {"AZURE_STORAGE_ACCOUNT": "one"}, "https://one.blob.core.windows.net"),
        ("", {"AZURE_STORAGE_ACCOUNT_NAME": "one"}, "https://one.blob.core.windows.net"),
        ("two", {"AZURE_STORAGE_ACCOUNT": "one", "AZURE_STORAGE_ENDPOINT": "https://x"}, "https://two.blob.core.windows.net"),
        ("one", {"AZURE_STORAGE_ACCOUNT": "one", "AZURE_STORAGE_ENDPOINT": "https://x/"}, "https://x"),
        ("two.dfs.core.chinacloudapi.cn", {}, "https://two.blob.core.chinacloudapi.cn"),
        ("", {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=one;EndpointSuffix=core.usgovcloudapi.net"},
         "https://one.blob.core.usgovcloudapi.net"),
        ("", {"AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://one.blob.core.windows.net;SharedAccessSignature=a=b"},
         "https://one.blob.core.windows.net"),
    ],
)  # fmt: skip
def test_an_account_has_its_endpoint(
    host: str, said: dict[str, str], endpoint: str, nothing: pytest.MonkeyPatch
) -> None:
    """Guards clouds of countries, and that what is set of one account is not taken for another's."""
    for name, value in said.items():
        nothing.setenv(name, value)
    assert Settings.read(host).endpoint == endpoint


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ({}, "managed_identity"),
        ({"AZURE_STORAGE_KEY": "k", "AZURE_STORAGE_SAS_TOKEN": "t"}, "access_key"),
        ({"AZURE_STORAGE_SAS_TOKEN": "?t", "AZURE_CLIENT_ID": "c"}, "sas_token"),
        ({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}, "client_secret"),
        ({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "f"}, "workload_identity"),
        ({"AZURE_USE_AZURE_CLI": "true"}, "azure_cli"),
        ({"MLCORE_AZURE_ANONYMOUS": "1", "AZURE_STORAGE_KEY": "k"}, ""),
    ],
)
def test_who_asks_is_found_in_this_order(said: dict[str, str], how: str, nothing: pytest.MonkeyPatch) -> None:
    """Guards the order that the page on Azure tells."""
    nothing.setenv("AZURE_STORAGE_ACCOUNT", "one")
    for name, value in said.items():
        nothing.setenv(name, value)
    settings = Settings.read()
    assert settings.how == how
    assert "secrets" not in repr(settings)


def test_keys_of_one_account_are_not_used_for_another(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards two accounts in one process: that of the URI is asked, at its own address."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", OTHER)
    monkeypatch.setenv("AZURE_STORAGE_KEY", OTHER_KEY)
    assert Settings.read(ACCOUNT).endpoint == f"https://{ACCOUNT}.blob.core.windows.net"
    assert Settings.read(ACCOUNT).how == "managed_identity"
    assert Settings.read(OTHER).secrets == {"account_key": OTHER_KEY}
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName={OTHER};SharedAccessSignature=sv=1")
    assert Settings.read(ACCOUNT).secrets == {}
    assert Settings.read(OTHER).secrets == {"sas_key": "sv=1"}


def test_the_hooks_import_no_cloud_library() -> None:
    """Guards `mlcore --help`, which asks every plugin for its hooks."""
    code = "import sys, mlcore_azure.hooks; print(*({'obstore', 'fsspec'} & {each[:7] for each in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

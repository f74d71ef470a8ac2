"""Read from the environment which account of Azure is meant, where it is, and who asks."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from mlcore.errors import ConfigError

__all__ = ["IDENTITIES", "Settings"]

_PATIENCE = 30.0
_TRUE = ("1", "true", "yes", "on")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_KEYS = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")
_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_WORKLOAD = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")
# The ways that ask a service for a token first, in words.
IDENTITIES = {
    "client_secret": "the service principal of AZURE_CLIENT_ID",
    "workload_identity": "the workload identity of AZURE_FEDERATED_TOKEN_FILE",
    "azure_cli": "the program az, as AZURE_USE_AZURE_CLI says",
    "managed_identity": "the managed identity of this machine",
}


@attrs.frozen
class Settings:
    """Hold an account, the URL of its blobs, and `how` who asks is shown; `secrets` are for obstore alone.

    `how` is one of obstore's kinds of credentials, empty for nobody; `source` says in words where they are from.
    `patience` is for how many seconds a server that fails is asked again.
    """

    account: str
    endpoint: str
    how: str
    source: str
    secrets: dict[str, Any] = attrs.field(repr=False)
    ca_bundle: str | None
    patience: float

    @classmethod
    def read(cls, host: str = "") -> Settings:
        """Read the settings of this process for an account or its host, or else for the one that is set.

        Raises `ConfigError` with the variable that says what cannot be.
        """
        said = _connection()
        set_ = said.get("AccountName") or _first("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME") or ""
        account = host.partition(".")[0] or set_
        if not account:
            raise ConfigError(
                "which storage account? Set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING, or name it as in"
                " az://CONTAINER@ACCOUNT/FOLDER"
            )
        if not _ACCOUNT.fullmatch(account):
            raise ConfigError(f"{account!r:.80} is no storage account of Azure: those are small letters and digits")
        here = account == (set_ or account)
        how, source, secrets = _who(said, here=here)
        return cls(
            account=account,
            endpoint=(_endpoint(said, account) if here else "") or f"https://{_blobs(host, account)}",
            how=how,
            source=source,
            secrets=secrets,
            ca_bundle=_first("MLCORE_AZURE_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
            patience=_patience(),
        )

    def config(self) -> dict[str, Any]:
        """Return what obstore has to know."""
        found = {"account_name": self.account, "endpoint": self.endpoint, **self.secrets}
        return found | ({"credential_type": self.how} if self.how else {"skip_signature": True})

    def has_ended(self) -> bool:
        """Tell whether the end that a SAS token states has passed."""
        for text in parse_qs(self.secrets.get("sas_key", "")).get("se", []):
            try:
                end = datetime.datetime.fromisoformat(text)
            except ValueError:
                continue
            return end.replace(tzinfo=end.tzinfo or datetime.UTC) < datetime.datetime.now(datetime.UTC)
        return False

    def authorities(self) -> bytes | None:
        """Return the certificates to trust as well. Raises `ConfigError` if they cannot be read."""
        if not self.ca_bundle:
            return None
        try:
            return Path(self.ca_bundle).read_bytes()
        except OSError as error:
            raise ConfigError(f"MLCORE_AZURE_CA_BUNDLE {self.ca_bundle} cannot be read: {error.strerror}") from error


def _connection() -> dict[str, str]:
    """Return the parts of a connection string."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    parts = dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    if text and not {"AccountName", "BlobEndpoint"} & set(parts):
        raise ConfigError("AZURE_STORAGE_CONNECTION_STRING names neither AccountName nor BlobEndpoint")
    if "AccountName" not in parts and "BlobEndpoint" in parts:  # as of a string with a SAS token
        parts["AccountName"] = (urlsplit(parts["BlobEndpoint"]).hostname or "").partition(".")[0]
    return parts


def _endpoint(said: dict[str, str], account: str) -> str:
    given = said.get("BlobEndpoint") or _first("AZURE_STORAGE_ENDPOINT") or ""
    if not given and said.get("EndpointSuffix"):
        given = f"{said.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{said['EndpointSuffix']}"
    parts = urlsplit(given)
    if given and (parts.scheme not in ("http", "https") or parts.query or "@" in given):
        raise ConfigError(
            "the endpoint of Azure must be a URL such as https://ACCOUNT.blob.core.windows.net, without a key or token"
        )
    return given.rstrip("/")


def _blobs(host: str, account: str) -> str:
    """Return where an account's blobs are; the host of a URI may be that of its other side, and of another cloud."""
    _, dot, rest = host.partition(".")
    return f"{account}.{re.sub('^dfs', 'blob', rest)}" if dot else f"{account}.blob.core.windows.net"


def _who(said: dict[str, str], *, here: bool) -> tuple[str, str, dict[str, Any]]:
    """Return how who asks is shown, where that is from in words, and what is secret of it.

    Keys and SAS tokens are of one account: those of the one that is set are not shown to another.
    """
    if _flag("MLCORE_AZURE_ANONYMOUS") or _flag("AZURE_SKIP_SIGNATURE"):
        return "", "nobody", {}
    if here and (found := _of_account(said)):
        return found
    how, names = "managed_identity", tuple[str, ...]()
    if all(map(os.environ.get, _PRINCIPAL)):
        how, names = "client_secret", _PRINCIPAL
    elif all(map(os.environ.get, _WORKLOAD)):
        how, names = "workload_identity", _WORKLOAD
    elif _flag("AZURE_USE_AZURE_CLI"):
        return "azure_cli", IDENTITIES["azure_cli"], {"use_azure_cli": True}
    elif os.environ.get("AZURE_CLIENT_ID"):
        names = ("AZURE_CLIENT_ID",)  # of several that a machine may have
    return how, IDENTITIES[how], {name.removeprefix("AZURE_").lower(): os.environ[name] for name in names}


def _of_account(said: dict[str, str]) -> tuple[str, str, dict[str, Any]] | None:
    for part, how, name in (
        ("AccountKey", "access_key", "account_key"),
        ("SharedAccessSignature", "sas_token", "sas_key"),
    ):
        if said.get(part):
            return how, f"{part} of AZURE_STORAGE_CONNECTION_STRING", {name: said[part].lstrip("?")}
    for variable in _KEYS:
        if key := os.environ.get(variable):
            return "access_key", variable, {"account_key": key}
    for variable in ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"):
        if token := os.environ.get(variable):
            return "sas_token", variable, {"sas_key": token.lstrip("?")}
    return None


def _first(*names: str) -> str | None:
    return next(filter(None, map(os.environ.get, names)), None)


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in _TRUE


def _patience() -> float:
    given = _first("MLCORE_AZURE_PATIENCE")
    try:
        seconds = float(given) if given else _PATIENCE
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3_600:
        raise ConfigError(f"MLCORE_AZURE_PATIENCE is {given!r:.80}, and must be a number of seconds, at most 3600")
    return seconds

"""Open places in Azure by their URIs: ``az://container/folder``, or with an account as in ``az://container@account``.

``abfss://container@account.dfs.core.windows.net/folder`` and ``wasbs://container@account.blob.core.windows.net/folder``,
which other programs use, name the same.
"""

from __future__ import annotations

import datetime
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlcore.errors import ArtifactError
from mlcore_azure.explaining import Explaining
from mlcore_azure.settings import Settings
from mlcore_s3.engine import Bucket
from mlcore_s3.filesystem import BucketFileSystem

if TYPE_CHECKING:
    from obstore.store import ClientConfig

__all__ = ["connect", "open_azure"]

_SCHEMES = ("az", "abfs", "abfss", "wasb", "wasbs")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}|\$(?:root|web)")
_CLOUDS = r"windows\.net|chinacloudapi\.cn|usgovcloudapi\.net|cloudapi\.de"  # others would be sent our tokens
_HOST = re.compile(rf"[a-z0-9]{{3,24}}(\.(dfs|blob)\.core\.({_CLOUDS}))?")
_SAYS = re.compile("AZURE_|MLCORE_AZURE_|REQUESTS_CA_BUNDLE|.*_proxy$", re.IGNORECASE)
_COPIED = 256 << 20  # bytes up to which a copy is surely there when the server answers
_RETRIES = 2  # of each block of a large object
_CONNECT, _STALLED, _LONGEST = "2500ms", "20s", "10min"


def open_azure(uri: str) -> tuple[Any, str]:
    """Return the filesystem of a container, and the path in it, container first. Raises `ArtifactError`."""
    scheme, _, rest = uri.partition("://")
    place, _, key = rest.partition("/")
    container, at, host = place.partition("@")
    if ":" in place or "@" in host or re.search("[?&]sig=", rest):
        raise ArtifactError(
            f"{scheme}://***: keys and tokens are no part of a URI, which is logged and kept: set AZURE_STORAGE_KEY or"
            " AZURE_STORAGE_SAS_TOKEN"
        )
    if not _CONTAINER.fullmatch(container) or (at and not _HOST.fullmatch(host)):
        raise ArtifactError(f"{uri!r:.200} names no container: az://CONTAINER/FOLDER does, and az://CONTAINER@ACCOUNT")
    root = f"{scheme}://{place}"
    filesystem = BucketFileSystem(lambda name: connect(name.partition("@")[0], host, root), _SCHEMES, signs=False)
    return filesystem, f"{container}/{key}".rstrip("/")


def connect(container: str, host: str = "", root: str = "") -> Bucket:
    """Return a container as the environment says, and `host`, an account or its address, where it is given.

    It is the same one, with its connections, while that says the same. Raises `ConfigError`.
    """
    said = tuple(sorted((name, value) for name, value in os.environ.items() if _SAYS.match(name)))
    return _connected(container, host, root or f"az://{container}", said)


@lru_cache(32)
def _connected(container: str, host: str, root: str, _: object) -> Bucket:
    from obstore.store import AzureStore

    settings = Settings.read(host)
    options: ClientConfig = {"connect_timeout": _CONNECT, "read_timeout": _STALLED, "timeout": _LONGEST}
    options["allow_http"] = settings.endpoint.startswith("http://")
    if certificates := settings.authorities():
        options["root_certificate"] = certificates
    try:
        store, streams = (
            AzureStore(
                container,
                config=settings.config(),  # type: ignore[arg-type] # of the kind that it says
                client_options=options,
                retry_config={"max_retries": retries, "retry_timeout": datetime.timedelta(seconds=settings.patience)},
            )
            for retries in (0, _RETRIES)  # what is short is asked for again by the engine
        )
    except Exception:  # noqa: BLE001 - its text may hold what is wrong with a key, and the key
        raise ArtifactError(f"{root}: the key or token of {settings.source} has not the form of one") from None
    return Bucket(
        root,
        store,
        Explaining(container, settings, store),
        patience=settings.patience,
        identity=f"{settings.endpoint}/{container}",
        copied_at_once=_COPIED,
        streams=streams,
    )

"""What mlcore-remote brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider

_OPEN = "mlcore_remote.store:open_store"


def mlcore_stores() -> Iterable[Provider]:
    """Provide the store of a server, by the scheme of its URL."""
    return [
        Provider("http", _OPEN, "runs on a server of mlcore"),
        Provider("http+unix", _OPEN, "runs on a server of mlcore that listens on a Unix socket"),
        Provider("https", _OPEN, "runs on a server of mlcore, encrypted"),
    ]


def mlcore_artifact_backends() -> Iterable[Provider]:
    """Provide the files that a server keeps for runs; plain ``http`` is fsspec's."""
    schemes = ("mlcore+http", "mlcore+http+unix", "mlcore+https")
    return [Provider(each, "mlcore_remote.files:open_files", "files of runs on a server of mlcore") for each in schemes]


def mlcore_commands() -> Iterable[Provider]:
    """Provide the commands that keep tokens."""
    return [
        Provider("login", "mlcore_remote.login_commands:login", "Keep the token of a server."),
        Provider("logout", "mlcore_remote.login_commands:logout", "Forget the token of a server."),
    ]

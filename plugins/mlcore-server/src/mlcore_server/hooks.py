"""What mlcore-server brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_commands() -> Iterable[Provider]:
    """Provide the command that serves a store."""
    return [Provider("server", "mlcore_server.commands:server", "Serve a store over HTTP.")]


def mlcore_routes() -> Iterable[Provider]:
    """Provide the routes of the store, and of the server itself."""
    return [
        Provider("api", "mlcore_server.api:routes", "the store: append, get, find, series, events"),
        Provider("files", "mlcore_server.file_routes:routes", "the files of runs"),
        Provider("health", "mlcore_server.health:routes", "the server: health, version, metrics, OpenAPI"),
        Provider("live", "mlcore_server.live:routes", "what is stored, as it comes"),
        Provider("login", "mlcore_server.logins:routes", "browsers: log in by a link or a token, log out"),
    ]

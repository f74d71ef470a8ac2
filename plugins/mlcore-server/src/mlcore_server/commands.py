"""The command that serves a store."""

from __future__ import annotations

import json
from typing import Any

import attrs
import click

from mlcore_server import running
from mlcore_server.settings import Settings
from mlcore_server.tokens import with_token

__all__ = ["server"]


def _options(command: Any) -> Any:
    for field in reversed(attrs.fields(Settings)):
        about = field.metadata
        flag, name = f"--{field.name.replace('_', '-')}", field.name
        if about["secret"]:
            flag, name, metavar, text = f"{flag}-file", f"{name}_file", "FILE", f"A file with it: {about['help']}"
        else:
            metavar, text = about["metavar"], about["help"]
        kind = {"is_flag": True, "default": None} if isinstance(field.default, bool) else {"metavar": metavar}
        command = click.option(flag, name, help=text, **kind)(command)
    return command


@click.command(
    epilog="Every option can be given as MLCORE_SERVER_X, or as MLCORE_SERVER_X_FILE, which names a file with the "
    "value. Example: mlcore server --store runs/.mlcore --port auto"
)
@_options
def server(**given: Any) -> None:
    """Serve a store to other machines and processes; by default the local one, to this machine only."""
    settings = Settings.read(given)
    listening = running.listen(settings)
    url = running.url_of(settings, listening)
    settings, token_file = with_token(settings, 0 if settings.unix_socket else listening.getsockname()[1])

    def ready() -> None:
        told = {"url": url, "token_file": None if token_file is None else str(token_file)}
        if settings.log_format == "json":
            click.echo(json.dumps(told))
        else:
            click.echo(f"mlcore serves at {url}")
            if token_file is not None:
                click.echo(f"  token: in {token_file}")

    running.run(settings, listening, ready)

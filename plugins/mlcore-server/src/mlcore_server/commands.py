"""The command that serves a store."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import attrs
import click

from mlcore_server import running
from mlcore_server.guard import check
from mlcore_server.headers import is_loopback
from mlcore_server.settings import Settings
from mlcore_server.tokens import Start, started

__all__ = ["server"]


_EXAMPLES = """Each option X can be given as MLCORE_SERVER_X as well, or as MLCORE_SERVER_X_FILE, the name of a
file with the value: so no password has to stand in a command line.

\b
Examples:
  mlcore server
  mlcore server --store runs/.mlcore --port auto
  MLCORE_SERVER_STORE_FILE=/run/secrets/store \\
    mlcore server --host 0.0.0.0 --token-file tokens --workers 4
"""


def _options(command: Any) -> Any:
    for field in reversed(attrs.fields(Settings)):
        about = field.metadata
        if about["secret"]:
            continue
        kind = {"is_flag": True, "default": None} if isinstance(field.default, bool) else {"metavar": about["metavar"]}
        told = about["help"] if field.default in (False, "", ()) else f"{about['help']}  [default: {field.default}]"
        command = click.option(f"--{field.name.replace('_', '-')}", field.name, help=told, **kind)(command)
    return command


@click.command(epilog=_EXAMPLES)
@_options
def server(**given: Any) -> None:
    """Serve a store to other machines and processes; by default the local one, to this machine only."""
    settings = Settings.read(given)
    listening = running.listen(settings)
    url = running.url_of(settings, listening)
    host, port = (settings.unix_socket, None) if settings.unix_socket else listening.getsockname()[:2]
    check(settings, local=port is None or is_loopback(host))

    def ready() -> None:
        link = start and port and start.link  # to a Unix socket no browser goes
        told = {"url": url, "token_file": start and str(start.note), "link": link or None}
        if settings.log_format == "json":
            click.echo(json.dumps(told))
        else:
            click.echo(f"mlcore serves at {url}")
            if link:
                click.echo(f"  to log in with a browser, once: {link}")
            if start is not None:
                click.echo(f"  token: in {start.note}")

    with ExitStack() as stack:
        start: Start | None = None
        if not (settings.no_token or settings.token or settings.token_file):
            start = stack.enter_context(started(url, host=host, port=port))
            settings = attrs.evolve(settings, token_file=str(start.note))
        running.run(settings, listening, ready)

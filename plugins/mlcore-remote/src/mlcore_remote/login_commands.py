"""``mlcore login`` and ``mlcore logout``: keep the tokens of servers, each for its own server only."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TextIO

import click

from mlcore import config
from mlcore.errors import ConfigError, StoreNotFound
from mlcore.store import Query
from mlcore_remote.addresses import Address, address_of
from mlcore_remote.credentials import check_token, credentials_file, forget, known, remember, token_of_environment
from mlcore_remote.store import RemoteStore

__all__ = ["login", "logout"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(epilog="Example: mlcore login https://mlcore.example.org --token-file token.txt")
@click.argument("url", required=False)
@click.option("--token-file", type=click.File(), metavar="FILE", help="Where the token stands; - is standard input.")
@click.option("--list", "listed", is_flag=True, help="List the servers whose tokens are kept, and no token.")
@_as_json
def login(url: str | None, token_file: TextIO | None, listed: bool, as_json: bool) -> None:
    """Keep the token of a server, after asking the server whether it is good.

    URL is that of the store, by default the one that `mlcore where` tells. The token is asked for, or read from
    standard input or a file; it is never an argument, which others on this machine could read. It is kept in
    credentials.json in your config folder, which only you can read, and is sent to this server alone. MLCORE_TOKEN and
    MLCORE_TOKEN_FILE are stronger.
    """
    if listed:
        if url is not None or token_file is not None:
            raise click.UsageError("--list takes no URL and no token")
        _list(as_json)
        return
    address = _address(url)
    if address.scheme == "http" and not address.local:
        click.echo(f"{address.base} is not encrypted: who sees the network sees the token", err=True)
    token = check_token(_token(address, token_file), "what was given")
    _check(address, token)
    remember(address, token)
    if as_json:
        click.echo(json.dumps({"url": address.base, "file": str(credentials_file())}))
    else:
        click.echo(f"logged in to {address.base}; the token is kept in {credentials_file()}")
    with suppress(ConfigError):
        if token_of_environment(address) not in (None, token):
            click.echo("MLCORE_TOKEN or MLCORE_TOKEN_FILE names another token, which is stronger", err=True)


@click.command(epilog="Example: mlcore logout https://mlcore.example.org")
@click.argument("url", required=False)
@_as_json
def logout(url: str | None, as_json: bool) -> None:
    """Forget the token of a server, by default the one of the store that `mlcore where` tells.

    The server goes on accepting it: take it out of the server's file of tokens if others may have it.
    """
    address = _address(url)
    found = forget(address)
    if as_json:
        click.echo(json.dumps({"url": address.base, "forgotten": found}))
    else:
        click.echo(f"logged out of {address.base}" if found else f"there was no token for {address.base}")


def _list(as_json: bool) -> None:
    found = sorted(known())
    if as_json:
        click.echo(json.dumps([{"url": base} for base in found]))
    for base in () if as_json else found:
        click.echo(base)


def _address(url: str | None) -> Address:
    if url is not None:
        return address_of(url)
    setting = config.store_setting()
    if not setting.value.startswith("http"):
        shown = config.shown(setting.value)
        raise ConfigError(f"{shown} is no server ({setting.reason}): say which, as in mlcore login https://example.org")
    return address_of(setting.value)


def _token(address: Address, file: TextIO | None) -> str:
    """Return the token that a file, standard input or whoever sits before the terminal tells."""
    try:
        if file is not None:
            return str(file.read(1 << 16)).strip()
        if not sys.stdin.isatty():
            return sys.stdin.read(1 << 16).strip()
    except ValueError as error:  # bytes that are no text
        raise ConfigError("what was given holds no token: it is no text") from error
    return str(click.prompt(f"Token for {address.base}", hide_input=True)).strip()


def _check(address: Address, token: str) -> None:
    """Ask the server, which must be one of mlcore, whether it knows the token. Raises `StoreError`."""
    unknown = RemoteStore(address.base, token="", attempts=2)  # the token is for no shop with a mistyped name
    store = RemoteStore(address.base, token=token, attempts=2)
    try:
        unknown.capabilities  # noqa: B018 - raises if no server of mlcore is there
        with suppress(StoreNotFound):  # of which the first run makes one
            store.find("run", Query(limit=0))
    finally:
        unknown.close()
        store.close()

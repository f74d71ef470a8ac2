"""The commands about signatures: `mlcore models keygen`, `sign`, `verify` and `require`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import attrs
import click

import mlcore
from mlcore.errors import ConfigError
from mlcore_local import completing, terminal
from mlcore_local.arguments import JSON
from mlcore_local.columns import moment, whole_uri
from mlcore_signing import keys, signing

__all__ = ["keygen", "require", "sign", "verify"]

PASSWORD = "MLCORE_SIGNING_PASSWORD"  # noqa: S105 - the name of the variable, not what it holds
_URI = click.argument("uri", shell_complete=completing.model_uri)
_STORE = click.option("--store", "of_store", help="A store other than the one `mlcore where` tells.")


@click.command(epilog="Example: mlcore models keygen release --password")
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--password", is_flag=True, help=f"Ask for a password; without this, {PASSWORD} counts if it is set.")
@click.option("--curve", type=click.Choice(["P-256", "P-384"]), default="P-256", help="By default P-256.")
@JSON
def keygen(name: Path, curve: str, *, password: bool, as_json: bool) -> None:
    """Make a pair of keys: NAME.pem, with which you sign, and NAME.pub, for those who verify.

    NAME.pem is for your eyes alone: nobody else may read it, and whoever has it signs as you.
    """
    secret = os.environ.get(PASSWORD) or None
    if password:
        secret = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    made = keys.make_key(name, password=secret, curve=curve)
    if as_json:
        terminal.show(terminal.as_json({name: str(each) for name, each in attrs.asdict(made).items()}))
        return
    how = "encrypted" if secret else "not encrypted"
    terminal.show(
        [
            f"{terminal.printable(made.private)}  signs; {how}, keep it to yourself",
            f"{terminal.printable(made.public)}  verifies; hand it to those who load your models",
            f"fingerprint {made.fingerprint}",
        ]
    )


@click.command(epilog="Example: mlcore models sign models:/digits@champion --key release.pem")
@_URI
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Your private key, as PEM.")
@_STORE
@JSON
def sign(uri: str, key: Path, of_store: str | None, *, as_json: bool) -> None:
    """Sign a model with a key of yours.

    The signature is a file of the model, model.sig, in the format of OpenSSF. The other files stay as they are, and so
    do the model's digest and its versions. The password of a key that is encrypted is asked for, or taken from
    MLCORE_SIGNING_PASSWORD.
    """
    secret = (os.environ.get(PASSWORD) or None) if keys.is_encrypted(key) else None
    if secret is None and keys.is_encrypted(key):
        if not sys.stdin.isatty():
            raise ConfigError(f"the key {key} is encrypted: set {PASSWORD}, or sign at a terminal, which asks for it")
        secret = click.prompt("Password", hide_input=True, err=True)
    client = _client(of_store)
    _tell("signed", signing.sign(whole_uri(client, uri), key, password=secret, client=client), as_json=as_json)


@click.command(epilog="Example: mlcore models verify models:/digits@champion --key release.pub")
@_URI
@click.option("--key", "given", multiple=True, metavar="FILE", help="A public key that may have signed it; repeatable.")
@_STORE
@JSON
def verify(uri: str, given: tuple[str, ...], of_store: str | None, *, as_json: bool) -> None:
    """Check who signed a model, and that it is whole.

    Every file of the model must be what was signed, and no other may be there. Without --key the keys count that your
    settings and the store require. Exit code 1 if it is not so.
    """
    client = _client(of_store)
    _tell("verified", signing.verify(whole_uri(client, uri), given or None, client=client), as_json=as_json)


@click.command(epilog="Example: mlcore models require release.pub")
@click.argument("key", required=False)
@click.option("--remove", is_flag=True, help="Require this key no longer; KEY may be the start of its fingerprint.")
@_STORE
@JSON
def require(key: str | None, of_store: str | None, *, remove: bool, as_json: bool) -> None:
    """Let a store load only models that are signed by this public key, or by another that it requires.

    Without KEY the keys are listed that are required. It counts for all who load from the store, by models:/ and
    runs:/; who can write there can change it. What you require for yourself is a setting: require_signature.
    """
    client = _client(of_store)
    if key is None and remove:
        raise click.UsageError("say which key is no longer required")
    if key is not None:
        name = (signing.release if remove else signing.require)(key, client=client)
        click.echo(f"{'no longer requires' if remove else 'requires'} {name}", err=True)
    found = client.registry.signers
    if as_json:
        terminal.show(terminal.as_json([{"fingerprint": name, **each} for name, each in sorted(found.items())]))
    elif key is None and found:
        rows = [[name, each.get("user"), moment(each.get("time"))] for name, each in sorted(found.items())]
        terminal.show_table(["fingerprint", "required by", "since"], rows, most=[64, 24, 19])
    elif key is None:
        click.echo("this store requires no signatures", err=True)


def _client(uri: str | None) -> mlcore.Client:
    return mlcore.Client(uri) if uri is not None else mlcore.client()


def _tell(what: str, found: signing.Signature, *, as_json: bool) -> None:
    about: dict[str, Any] = {"uri": found.uri, "signer": found.signer, "digest": found.digest}
    if as_json:
        terminal.show(terminal.as_json({**about, "files": dict(found.files)}))
        return
    count = f"{len(found.files)} file{'s' * (len(found.files) != 1)}"
    terminal.show([f"{what} {terminal.printable(found.uri)}: {count}, by the key {found.signer[:16]}"])

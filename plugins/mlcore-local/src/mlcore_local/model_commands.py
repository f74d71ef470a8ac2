"""The commands about models: `mlcore models`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import mlcore
from mlcore.cli import Group
from mlcore.errors import DigestMismatch, InvalidValue
from mlcore.models import SIGNATURE, ModelInfo, user_signers
from mlcore_local import completing, terminal
from mlcore_local.clean import check_model
from mlcore_local.columns import whole_uri
from mlcore_local.payloads import dumps, read_data

__all__ = ["check", "inspect", "models", "predict"]

_LONGEST = 64 << 20  # bytes of a signature
_URI = click.argument("uri", shell_complete=completing.model_uri)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_store = click.option(
    "--store", "uri_of_store", help="The store of models:/ and runs:/ URIs; by default the one of `mlcore where`."
)
_trust = click.option("--trust", multiple=True, metavar="NAME", help="Trust a name, such as mypkg.*; can be repeated.")
_trust_all = click.option("--trust-all", is_flag=True, help="Run whatever code the model brings.")


@click.group(cls=Group, no_args_is_help=True)
def models() -> None:
    """Look at models, predict with them, and check that they load elsewhere.

    URI is models:/NAME/3 or models:/NAME@champion, a version of the registry, runs:/RUN/NAME with any RUN that
    `mlcore runs` takes, a folder, or any URI of a folder that an artifact backend reads.
    """


@models.command(epilog="Example: mlcore models inspect runs:/@last/model")
@_URI
@_store
@_as_json
def inspect(uri: str, uri_of_store: str | None, as_json: bool) -> None:
    """Tell what a model is and needs, without loading it."""
    client = _client(uri_of_store)
    info = client.get_model(whole_uri(client, uri))
    if as_json:
        click.echo(json.dumps(_described(info), indent=2, default=str))
        return
    terminal.show(_page(_described(info)))


@models.command(epilog="Example: mlcore models predict models:/digits@champion --input rows.csv --output labels.json")
@_URI
@click.option("--input", "-i", "source", help="A .json, .csv or .parquet file, - for standard input.")
@click.option("--format", "kind", type=click.Choice(["json", "csv", "parquet"]), help="What the input is.")
@click.option("--example", is_flag=True, help="Predict the example that was saved with the model.")
@click.option("--param", "-P", "params", multiple=True, metavar="NAME=VALUE", help="A parameter, its value as JSON.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A file for the predictions.")
@_trust
@_trust_all
@_store
def predict(
    *, uri: str, source: str | None, kind: str | None, example: bool, params: tuple[str, ...], output: Path | None,
    trust: tuple[str, ...], trust_all: bool, uri_of_store: str | None,
) -> None:  # fmt: skip
    """Load a model and predict the rows of a file; prints JSON."""
    if example is (source is not None):
        raise click.UsageError("give --input with a file, or --example")
    given = dict(map(_param, params))
    read = None if source is None else read_data(source, kind)  # before the model, which may take long
    client = _client(uri_of_store)
    model = client.load_model(whole_uri(client, uri), trust=trust_all or trust or None)
    rows, beside = read or model.info.example()
    text = dumps(model.predict(rows, {**(beside or {}), **given} or None))
    if output is None:
        click.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


@models.command(epilog="Example: mlcore models check runs:/96ddd40c/model")
@_URI
@_trust
@_trust_all
@_store
@_as_json
def check(uri: str, trust: tuple[str, ...], trust_all: bool, uri_of_store: str | None, as_json: bool) -> None:
    """Load a model in a clean environment made of its requirements, and predict its example."""
    client = _client(uri_of_store)
    info = client.get_model(whole_uri(client, uri))
    info.verify()
    checked = check_model(
        info.folder, trust=trust, everything=trust_all, tell=lambda text: click.echo(f"{text} ...", err=True)
    )
    if as_json:
        content = {"predictions": checked.predictions, "requirements": checked.requirements, "seconds": checked.seconds}
        click.echo(json.dumps(content))
    else:
        click.echo(f"loads and predicts in an environment of its own ({checked.seconds:.0f} s)")
        click.echo(f"predictions: {json.dumps(checked.predictions):.200}")


def _client(uri: str | None) -> mlcore.Client:
    return mlcore.Client(uri) if uri is not None else mlcore.client()


def _param(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InvalidValue(f"{text!r} is no parameter: give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _described(info: ModelInfo) -> dict[str, Any]:
    try:
        digest, state = info.verify(), "as saved" if info.files else "unknown: mlcore did not save it"
    except DigestMismatch as error:
        digest, state = None, str(error)
    required = info.folder / "requirements.txt"
    lines = required.read_text(encoding="utf-8", errors="replace").split() if required.is_file() else []
    raw = info.raw
    return {
        "model": info.uri or str(info.folder),
        "version": info.version and info.version.uri,
        "flavors": {name: dict(config) for name, config in info.flavors.items()},
        "created": raw.get("utc_time_created"),
        "run_id": raw.get("run_id"),
        "size": raw.get("model_size_bytes"),
        "signature": raw.get("signature"),
        "needs_trust": list(info.needs_trust),
        "requirements": lines,
        "metadata": dict(info.metadata),
        "files": list(info.files),
        "signed": _signed(info),
        "digest": digest,
        "state": state,
    }


def _signed(info: ModelInfo) -> str | None:
    """Return whose signature a model has, which was verified only where one is required."""
    try:
        with (info.folder / SIGNATURE).open("rb") as file:
            bundle = json.loads(file.read(_LONGEST))
        key = f"by the key {bundle['verificationMaterial']['publicKey']['hint']!s:.16}"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        key = "by a key that it does not tell"
    required = bool(info.signers) or bool(user_signers())
    return f"{key}, {'verified, as is required' if required else 'not verified: see `mlcore models verify`'}"


def _page(about: dict[str, Any]) -> Iterator[str]:
    about = {**about, "size": None if about["size"] is None else f"{about['size']:,} bytes"}
    for key, value in about.items():
        if value in (None, {}, [], ""):
            continue
        title = key.replace("_", " ")
        if isinstance(value, dict):
            yield title
            for name, each in value.items():
                yield from _entry(f"  {name}", each)
        else:
            yield from _entry(title, value)


def _entry(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        said = {
            key: " ".join(map(str, each.values())) if isinstance(each, dict) else each for key, each in value.items()
        }
        value = ", ".join(f"{key}={each}" for key, each in said.items() if each is not None)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [] if value is None else terminal.wrapped(terminal.printable(f"{name:<18} {text}"), 19)

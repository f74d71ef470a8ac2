"""The commands that make one file of a model, and a model of such a file."""

from __future__ import annotations

from pathlib import Path

import click

import mlcore
from mlcore_local import completing, packing, terminal
from mlcore_local.arguments import JSON, STORE
from mlcore_local.columns import whole_uri

__all__ = ["pack", "unpack"]

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _bytes(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Return how many bytes a text such as 20GB means."""
    if text is None:
        return None
    digits = text.rstrip("kMGTBb ")
    unit = text[len(digits) :].strip().rstrip("Bb")
    if not digits.isdecimal() or unit not in _UNITS:
        raise click.BadParameter(f"{text!r} is no number of bytes: give it as 500MB or 20GB", ctx, param)
    return int(digits) * _UNITS[unit]


@click.command(epilog="Example: mlcore models pack models:/digits@champion -o digits.tar")
@click.argument("source", metavar="URI", shell_complete=completing.model_uri)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write: a .tar, or squeezed a .tar.gz.",
)  # fmt: skip
@STORE
@JSON
def pack(source: str, output: Path, uri: str | None, as_json: bool) -> None:
    """Write a model into one file, to the same bytes each time.

    The bytes depend on nothing but the model: not on when, where or by whom it is packed. What `sha256sum` says of the
    file is printed.
    """
    client = mlcore.Client(uri) if uri is not None else mlcore.client()
    digest = packing.pack(client.get_model(whole_uri(client, source)), output)
    if as_json:
        return terminal.show(terminal.as_json({"file": str(output), "sha256": digest}))
    return terminal.show([terminal.printable(f"{digest}  {output}")])


@click.command(epilog="Example: mlcore models unpack digits.tar digits")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--limit", metavar="SIZE", callback=_bytes,
    help="How much it may hold, as 20GB; by default 64 times the size of the file and 100 MB.",
)  # fmt: skip
@JSON
def unpack(file: Path, folder: Path, limit: int | None, as_json: bool) -> None:
    """Unpack a model into a new folder, from a file that anybody may have made.

    The folder appears whole or not at all. Nothing of the model is run; what leads out of the folder, and what is not
    as it was saved, is refused.
    """
    info = packing.unpack(file, folder, limit=limit)
    digest = info.verify()
    if as_json:
        return terminal.show(terminal.as_json({"folder": str(info.folder), "digest": digest}))
    return terminal.show([terminal.printable(f"{info.folder} is a model of flavor {info.flavor}, digest {digest}")])

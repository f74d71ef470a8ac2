"""Keep the reference true: what it lists is what there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import CliRunner

import mlcore
from house.pages import blocks, headings
from house.tree import ROOT
from mlcore import errors, store
from mlcore.cli import program

REFERENCE = ROOT / "docs" / "reference"


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, groups included."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, *path, name)


COMMANDS = list(commands(program))


def test_the_page_has_every_command_and_no_other() -> None:
    """Guards docs/reference/cli.md against commands that came or went."""
    shown = [line for line in headings((REFERENCE / "cli.md").read_text()) if line.startswith("mlcore")]
    assert shown == [" ".join(["mlcore", *path]) for path in COMMANDS]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_page_shows_what_a_command_says_of_itself(path: tuple[str, ...]) -> None:
    """Guards the help texts, to the letter."""
    page = (REFERENCE / "cli.md").read_text()
    _, section = page.split(f"\n## {' '.join(['mlcore', *path])}\n", 1)
    _, shown = next(blocks(section, "text"))
    said = CliRunner().invoke(program, [*path, "--help"], prog_name="mlcore", terminal_width=80).output
    assert shown == said


def call(name: str, function: Callable[..., object]) -> str:
    """Return a function as its heading shows it: name, arguments and defaults."""
    shown: list[str] = []
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not any(one.startswith("*") for one in shown):
            shown.append("*")
        if each.name != "self":
            stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
            shown.append(stars + (each.name if each.default is each.empty else f"{each.name}={each.default!r}"))
    return f"{name}({', '.join(shown)})"


def test_the_page_has_a_heading_for_each_name_of_mlcore() -> None:
    """Guards docs/reference/tracking-api.md: every public name, functions with their arguments."""
    values = {name: getattr(mlcore, name) for name in mlcore.__all__}
    plain = {name for name, value in values.items() if inspect.isclass(value) or name == "hookimpl"}
    expected = {name if name in plain else call(name, value) for name, value in values.items()}
    assert expected <= set(headings((REFERENCE / "tracking-api.md").read_text()))


@pytest.mark.parametrize("name", ["Run", "Artifacts", "Artifact", "Series", "Experiment", "Listing", "Client"])
def test_the_page_names_what_a_class_offers(name: str) -> None:
    """Guards the attributes and methods beside those that are functions of mlcore as well."""
    page = (REFERENCE / "tracking-api.md").read_text()
    kind = getattr(mlcore, name)
    own = {each for each in dir(kind) if not each.startswith("_")} - set(dir(list)) - set(mlcore.__all__)
    assert sorted(each for each in own if f"`{each}`" not in page and f"`{each}(" not in page) == []


def test_the_tree_of_errors_is_the_one_in_the_module() -> None:
    """Guards docs/reference/errors.md; that the module's own drawing is right is tested with the names."""
    drawn = inspect.cleandoc(errors.__doc__ or "").partition("::\n\n")[2]
    assert inspect.cleandoc(drawn) in (REFERENCE / "errors.md").read_text()


def test_the_page_has_every_type_of_event() -> None:
    """Guards docs/reference/events.md against an event that nobody described."""
    types = [value for value in vars(store).values() if inspect.isclass(value) and issubclass(value, store.Event)]
    table = (REFERENCE / "events.md").read_text()
    assert [each.__name__ for each in types if f"| `{each.__name__}` |" not in table] == ["Event", "Unknown"]

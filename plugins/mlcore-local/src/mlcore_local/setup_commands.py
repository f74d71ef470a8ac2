"""``mlcore doctor`` and ``mlcore completion``: what is set up here, and what is wrong with it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import attrs
import click

from mlcore import Client, __version__, config, plugins
from mlcore.errors import ConfigError, MlcoreError, StoreNotFound
from mlcore.folder import Folder
from mlcore_local import terminal
from mlcore_local.index import described
from mlcore_local.spools import spools
from mlcore_local.waiting import described as spool_described, waiting

__all__ = ["completion", "doctor"]

_SETTINGS: tuple[str, ...] = ("STORE", "EXPERIMENT", "RUN_ID", "PROCESS", "ARTIFACTS", "INDEX", "DISABLE_PLUGINS")
_SETTINGS += ("SPOOL", "SPOOL_KEEP", "SPOOL_LIMIT", "SPOOL_WAIT", "TOKEN", "TOKEN_FILE", "CA")
_SERVER = "MLCORE_SERVER_"  # every option of `mlcore server`
_SPACE = 1 << 30
_MENDED = {  # in the scripts that click writes: no error is printed amid what somebody types, and words stay whole
    " $1)": " $1 2>/dev/null)",
    " mlcore)": " mlcore 2>/dev/null)",
    "read type value": "read -r type value",
    'string split ","': 'string split -m 1 ","',
}


@attrs.frozen
class _Finding:
    """Tell one thing about the set-up; `mend` says what to do if it is wrong."""

    what: str
    value: str
    problem: str = ""
    mend: str = ""


@click.command(epilog="Example: mlcore doctor --json")
@click.option("--store", "uri", help="A store other than the one `mlcore where` tells.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(uri: str | None, as_json: bool) -> None:
    """Tell what is installed, which store is used and why, what is wrong and how to mend it.

    Exit code 1 if something is wrong. It changes nothing; that every record is whole is what `mlcore fsck` checks.
    """
    found = [*_program(), *_plugins(), *_environment(), *_settings(), *_store(uri), *_spools()]
    wrong = [each for each in found if each.problem]
    if as_json:
        content = {"healthy": not wrong, "findings": [attrs.asdict(each) for each in found]}
        terminal.show(terminal.as_json(content))
    else:
        terminal.show(line for each in found for line in _lines(each))
    sys.exit(1 if wrong else 0)


def _lines(finding: _Finding) -> Iterator[str]:
    text = terminal.printable
    mark = terminal.styled("wrong", fg="red", bold=True) if finding.problem else terminal.styled("ok   ", fg="green")
    first, *more = terminal.wrapped(f"{' ' * 7}{text(finding.what):<12}  {text(finding.value)}", 21)
    yield f"{mark}  {first[7:]}"
    yield from more
    if finding.problem:
        yield from terminal.wrapped(f"       {text(finding.problem)}", 7)
        yield from terminal.wrapped(f"       -> {text(finding.mend)}", 10)


def _program() -> Iterator[_Finding]:
    yield _Finding("mlcore", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    here, program = Path(sys.executable).parent, shutil.which("mlcore")
    other = program is not None and Path(program).parent.resolve() != here.resolve()
    yield _Finding(
        "program", f"{sys.executable}",
        f"the `mlcore` on PATH is another one: {program}" if other else "",
        f"activate the environment of {here}, or run `python -m mlcore`" if other else "",
    )  # fmt: skip


def _plugins() -> Iterator[_Finding]:
    for each in plugins.installed():
        kinds = {kind.replace("_", " "): [record.name for record in found] for kind, found in each.provides.items()}
        brings = "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)
        mend = f"reinstall {each.distribution or each.name}, uninstall it, or set MLCORE_DISABLE_PLUGINS={each.name}"
        yield _Finding("plugin", f"{each.name}, {each}: {brings or 'nothing'}", each.error, mend if each.error else "")
    for conflict in plugins.conflicts():
        yield _Finding("plugin", "conflict", conflict, "uninstall one of them, or name it in MLCORE_DISABLE_PLUGINS")


def _environment() -> Iterator[_Finding]:
    known = [f"MLCORE_{name}" for name in _SETTINGS]
    for name, value in sorted(os.environ.items()):
        if name.startswith("MLCORE_"):
            near = get_close_matches(name, known, 1)
            hint = f"rename it to {near[0]}" if near else f"unset it; there are {', '.join(known)}"
            strange = name not in known and not name.startswith(_SERVER)
            problem, mend = ("mlcore knows no such variable", hint) if strange else ("", "")
            told = "***" if name.endswith("_TOKEN") else config.shown(value)
            yield _Finding("environment", f"{name}={told}", problem, mend)


def _settings() -> Iterator[_Finding]:
    try:
        said = {key: list(config.settings(key)) for key in config.KEYS}  # to the end, so that every file is read
    except ConfigError as error:
        mend = "correct the file, or take the key out with `mlcore config unset`, for a project's with --project"
        yield _Finding("settings", "cannot be read", str(error), mend)
        return
    for key in ("experiment", "artifacts"):
        for setting in said[key][:1]:
            yield _Finding(key, f"{setting.value}, {setting.reason}")


def _spools() -> Iterator[_Finding]:
    for each in spools():
        found = waiting(each)
        mend = f"run MLCORE_STORE={each.target} mlcore sync, and look into {each.root}"
        aside = f"refused: {found.set_aside[0]}" if found.set_aside else ""
        yield _Finding("spool", f"for {each.target}: {spool_described(found)}", aside, mend if aside else "")


def _store(uri: str | None) -> Iterator[_Finding]:
    try:
        setting = config.store_setting(uri)
    except ConfigError:  # told already
        return
    told = f"{config.shown(setting.value)}, because: {setting.reason}"
    if setting.value == config.OFF:
        yield _Finding("store", f"{told}; nothing is stored")
        return
    try:
        client = Client(uri)
        runs = client.list_runs("*", include_deleted=True)
    except StoreNotFound:
        yield _Finding("store", f"{told}; not there yet: the first run makes it")
        yield from _place(Path(setting.value))
        return
    except (MlcoreError, OSError) as error:
        yield _Finding("store", told, str(error), "name another store, install what it needs, or run `mlcore fsck`")
        return
    count = terminal.counted(len(client.list_experiments()), "experiment")
    yield _Finding("store", f"{told}; {terminal.counted(len(runs), 'run')} in {count}")
    if "://" not in setting.value:
        yield from _place(Path(setting.value))
        index, why = described(Folder.open(Path(setting.value)))
        yield _Finding("index", why if index is None else f"{index}, {why}")
    for run in runs:
        if run.status == "LOST" and not run.deleted:
            yield _Finding(
                "run", f"{run.id[-8:]} {run.name}", "it is lost: its process is gone, or was silent for five minutes",
                f"resume it, or end it: mlcore runs end {run.id[-8:]} --status KILLED",
            )  # fmt: skip


def _place(path: Path) -> Iterator[_Finding]:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield _Finding(
            "folder", str(there), "you may not write here", "change its owner, or choose a store with MLCORE_STORE"
        )
    free = shutil.disk_usage(there).free
    low = free < _SPACE
    yield _Finding(
        "disk", f"{free / _SPACE:.1f} GiB free at {there}",
        "little is left, and what cannot be written is dropped" if low else "",
        "make room, or choose a store on another disk with MLCORE_STORE" if low else "",
    )  # fmt: skip


@click.command(epilog="Example: mlcore completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete the commands and options of mlcore.

    For zsh append it to ~/.zshrc, after compinit; for fish write it to ~/.config/fish/completions/mlcore.fish.
    """
    from click.shell_completion import get_completion_class

    from mlcore.cli import program

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(program, {}, "mlcore", "_MLCORE_COMPLETE").source()
    for theirs, ours in _MENDED.items():
        script = script.replace(theirs, ours)
    if shell == "bash":
        script += "\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//@/}  # so that @last is one word\n"
    click.echo(script)

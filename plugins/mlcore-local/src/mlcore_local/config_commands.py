"""``mlcore config``: show what is set and by whom, and write it into the user's file or the project's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import click

from mlcore import config as core
from mlcore.errors import ConfigError
from mlcore.journal import check_key
from mlcore_local import terminal

__all__ = ["config"]

_NOT_SET = {  # these alone have no default
    "artifacts": "not set: files lie with their run, in the store",
    "spool": "not set: runs wait in your folder of state, if the store is no folder",
    "registry_log": "not set: what changes in the registry is written to no file",
    "registry_command": "not set: what changes in the registry runs no command",
    "require_signature": "not set: models are loaded whether they are signed or not",
}
_key = click.argument("key", type=click.Choice(core.KEYS))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(no_args_is_help=True, epilog="Example: mlcore config list")
def config() -> None:
    """Show and change settings: store, experiment, where files go, the spool, who is told of the registry.

    The strongest counts: what a script or command says itself, then the environment (MLCORE_STORE and so on), the
    project's pyproject.toml, your own file, and last what is found where you are.
    """


def _place(function: Callable[..., Any]) -> Callable[..., Any]:
    project = click.option("--project", "shared", flag_value=True, type=bool, help="The project's pyproject.toml.")
    user = click.option("--user", "shared", flag_value=False, type=bool, default=False, help="Your file (the default).")
    return project(user(function))


@config.command("list", epilog="Example: mlcore config list --json")
@_as_json
def list_settings(as_json: bool) -> None:
    """List the settings, and who says what.

    Each with its value, why it is that, and what was said in weaker places.
    """
    found = [_described(key) for key in core.KEYS]
    terminal.show(terminal.as_json(found) if as_json else (line for each in found for line in _lines(each)))


@config.command(epilog="Example: mlcore config get experiment")
@_key
@_as_json
def get(key: str, as_json: bool) -> None:
    """Print one setting; exit code 1 if it is not set."""
    found = _described(key)
    if found["value"] is None and not as_json:
        raise ConfigError(f"{key} is {_NOT_SET[key]}")
    terminal.show(terminal.as_json(found) if as_json else [terminal.printable(found["value"])])


@config.command("set", epilog="Example: mlcore config set experiment digits --project")
@_key
@click.argument("value")
@_place
@_as_json
def set_setting(key: str, value: str, shared: bool, as_json: bool) -> None:
    """Write a setting into your file or the project's.

    What else is there stays as it is, comments too. A path counts from the folder you are in. A project sets store
    and experiment, for all who work with it, and nothing else.
    """
    if key == "experiment":
        check_key(value)
    file = _file(shared)

    def change(table: MutableMapping[str, Any]) -> None:
        table[key] = _written(key, value, file.parent if shared else None)

    said = core.parse(file, _change(file, shared, change, check=True))[key]
    if as_json:
        terminal.show(terminal.as_json({"name": key, "value": said, "file": str(file)}))
    else:
        terminal.show([f"{key} = {terminal.printable(said)}", f"  set in {terminal.printable(file)}"])
    if told := _stronger(key, file):
        click.echo(f"mlcore: {terminal.printable(told)}", err=True)


@config.command(epilog="Example: mlcore config unset experiment --project")
@click.argument("key")
@_place
@_as_json
def unset(key: str, shared: bool, as_json: bool) -> None:
    """Take a setting out of your file or the project's.

    KEY may be one that does not belong there.
    """
    file = _file(shared)

    def change(table: MutableMapping[str, Any]) -> None:
        if key not in table:
            raise ConfigError(f"{file} does not set {key!r}; `mlcore config list` tells who sets what")
        del table[key]

    _change(file, shared, change)
    if as_json:
        terminal.show(terminal.as_json({"name": key, "value": None, "file": str(file)}))
    else:
        terminal.show([f"{terminal.printable(key)} is no longer set in {terminal.printable(file)}"])


@config.command(epilog='Example: $EDITOR "$(mlcore config path)"')
@_place
@_as_json
def path(shared: bool, as_json: bool) -> None:
    """Print where your file is, or the project's, be it there or not."""
    file = _file(shared)
    content = {"file": str(file), "exists": file.is_file()}
    terminal.show(terminal.as_json(content) if as_json else [terminal.printable(file)])


def _described(key: str) -> dict[str, Any]:
    said = [{"value": each.value, "reason": each.reason} for each in core.settings(key)]
    return {"name": key, **(said[0] if said else {"value": None, "reason": _NOT_SET[key]}), "overrides": said[1:]}


def _stronger(key: str, file: Path) -> str:
    """Return why what a file says of a setting does not count here; nothing if it does."""
    try:
        found = next(core.settings(key))
    except ConfigError as error:  # another file, which is stronger
        return f"but nothing counts here before this is mended: {error}"
    same = found.reason == f"set in {file}"
    return "" if same else f"but {key} is {found.value} here, which is stronger: {found.reason}"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    text = terminal.printable
    if found["value"] is None:
        yield f"{found['name']} is {_NOT_SET[found['name']]}"
        return
    yield f"{found['name']} = {text(found['value'])}"
    yield f"  because: {text(found['reason'])}"
    for each in found["overrides"]:
        yield f"  rather than {text(each['value'])}: {text(each['reason'])}"


def _file(shared: bool) -> Path:
    if not shared:
        return core.user_file()
    return core.project_file() or core.project_root()[0] / "pyproject.toml"


def _written(key: str, value: str, folder: Path | None) -> str:
    """Return a value as a file shall have it: the project's paths relative to its folder, the user's absolute."""
    plain = key in ("experiment", "registry_command") or key.startswith("spool_")
    plain = plain or (value == core.OFF and key != "artifacts")
    if not value or plain or "://" in value:
        return value
    if folder is None:
        paths = value.split(os.pathsep) if key == "require_signature" else [value]
        return os.pathsep.join(os.path.abspath(os.path.expanduser(each)) for each in paths)
    if os.path.isabs(value) or value.startswith("~"):
        return value
    path = os.path.relpath(value, folder)
    return f"./{path}" if path == core.OFF else path


def _change(
    file: Path, shared: bool, change: Callable[[MutableMapping[str, Any]], None], *, check: bool = False
) -> bytes:
    """Change the settings in a file, and nothing else of it; return its content. Raises `ConfigError`."""
    target = file.resolve()  # who keeps the file elsewhere and a link here keeps both
    if check and not shared:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(target.parent):
        before = target.read_bytes() if target.exists() else b""
        if before and os.name == "posix" and os.geteuid() not in (0, target.stat().st_uid):
            raise ConfigError(f"{file} belongs to another user: ask them to change it")
        after = _edited(file, before, shared, change)
        if check:
            core.parse(file, after)
            if shared and b"tool.mlcore" not in after:
                raise ConfigError(f"{file}: write the table with the line [tool.mlcore], so that it is found")
        _replace(target, after, None if shared else 0o600)
    return after


def _edited(file: Path, before: bytes, shared: bool, change: Callable[[MutableMapping[str, Any]], None]) -> bytes:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        text = before.decode()
        document = tomlkit.parse(text)
        if shared and "mlcore" not in document.unwrap().get("tool", {}):
            separator = "\n\n" if text.strip() else ""
            document = tomlkit.parse(f"{text.rstrip()}{separator}[tool.mlcore]\n")
        table: Any = document["tool"]["mlcore"] if shared else document
    except (ValueError, RecursionError, TOMLKitError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{file}: 'tool' must be a table") from error
    if not isinstance(table, MutableMapping):
        raise ConfigError(f"{file}: 'mlcore' must be a table, as in [tool.mlcore]")
    change(table)
    after = tomlkit.dumps(document)
    if 0 < text.count("\n") == text.count("\r\n"):  # the line ends of Windows, as all that was there
        after = after.replace("\r\n", "\n").replace("\n", "\r\n")
    return after.encode()


def _replace(target: Path, content: bytes, mode: int | None) -> None:
    """Put a file in the place of another at once; `mode` None keeps that one's."""
    fresh = target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode or 0o666), "wb") as file:
            if mode is None and target.exists():
                fresh.chmod(target.stat().st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change files of a folder, where the system has locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""Settings: options, variables, files; secrets stay out of the list of processes."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from mlcore.cli import program
from mlcore.errors import ConfigError
from mlcore_server.settings import PORT, PREFIX, Settings


def test_an_option_wins_over_a_variable_and_that_over_a_file(tmp_path: Path) -> None:
    """Guards the order, which is that of all of mlcore."""
    file = tmp_path / "workers"
    file.write_text("4\n")
    environment = {"MLCORE_SERVER_WORKERS": "3", "MLCORE_SERVER_WORKERS_FILE": str(file)}
    assert Settings.read({"workers": "2"}, environment).workers == 2
    assert Settings.read({}, environment).workers == 3
    assert Settings.read({"workers": None}, {"MLCORE_SERVER_WORKERS_FILE": str(file)}).workers == 4
    assert Settings.read({}, {}).workers == 1


@pytest.mark.parametrize("field", attrs.fields(Settings), ids=lambda field: field.name)
def test_every_setting_has_a_variable_and_a_file(field: attrs.Attribute[object], tmp_path: Path) -> None:
    """Guards that nothing can be said only on a command line."""
    values = {bool: "1", int: "7", tuple: "a, b"}
    told = {"durability": "power", "log_format": "json", "log_level": "debug", "root_path": "/x"}
    text = {**told, "direct_endpoint": "https://s3.example.org"}.get(field.name, values.get(type(field.default), "7"))
    file = tmp_path / "value"
    file.write_text(text + "\n")
    variable = PREFIX + field.name.upper()
    read = Settings.read({}, {variable: text})
    assert getattr(read, field.name) != field.default
    if not field.metadata["secret"]:  # whose file is read again when it changes: that is another setting
        assert Settings.read({}, {f"{variable}_FILE": str(file)}) == read


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"port": "70000"}, "--port"),
        ({"port": "http"}, "neither a port"),
        ({"workers": "many"}, "no number"),
        ({"workers": "0"}, "at least 1"),
        ({"durability": "none"}, "process, power"),
        ({"root_path": "mlcore"}, "no path"),
        ({"log_format": "xml"}, "text, json"),
        ({"store": "postgresql://ml:secret@db/ml"}, "MLCORE_SERVER_STORE_FILE"),
        ({"artifacts": "s3://key:secret@bucket"}, "MLCORE_SERVER_ARTIFACTS"),
    ],
)
def test_what_cannot_be_is_told_with_its_option(given: dict[str, str], told: str) -> None:
    """Guards against servers that run otherwise than they were told."""
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        Settings.read(given, {})
    assert "secret" not in str(error.value)


def test_a_file_that_is_not_there_is_told_with_its_variable() -> None:
    """Guards a mounted secret that is missing."""
    with pytest.raises(ConfigError, match="MLCORE_SERVER_STORE_FILE: /nowhere cannot be read"):
        Settings.read({}, {"MLCORE_SERVER_STORE_FILE": "/nowhere"})


def test_secrets_are_shown_nowhere() -> None:
    """Guards the list of processes and whatever prints settings."""
    secret = [field for field in attrs.fields(Settings) if field.metadata["secret"]]
    assert [field.name for field in secret] == ["token"]
    help_ = CliRunner().invoke(program, ["server", "--help"], prog_name="mlcore").output
    assert not re.search(r"--token\s", help_)
    assert "s3cret" not in repr(Settings(token="s3cret"))


def test_the_default_port_is_none_that_others_are_known_for() -> None:
    """Guards against the port of MLflow, Flask and AirPlay."""
    assert PORT == 5151 == Settings().port

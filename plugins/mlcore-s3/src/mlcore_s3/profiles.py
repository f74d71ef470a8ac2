"""Read a profile of ``~/.aws/config`` and ``~/.aws/credentials``, as AWS's own programs do."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from mlcore.errors import ConfigError

__all__ = ["Profile"]


@attrs.frozen
class Profile:
    """Hold what a profile says; `named` if it was asked for by its name in a URI."""

    name: str
    values: Mapping[str, str] = attrs.field(repr=False)
    nested: Mapping[str, Mapping[str, str]] = attrs.field(repr=False)
    where: str
    named: bool = False

    @classmethod
    def read(cls, name: str | None = None) -> Profile:
        """Read a profile, by default that of AWS_PROFILE. Raises `ConfigError` if it is asked for and not there."""
        chosen = name or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
        config = _file("AWS_CONFIG_FILE", "config")
        keys = _file("AWS_SHARED_CREDENTIALS_FILE", "credentials")
        files, sections = (_parsed(config), _parsed(keys)), list[Mapping[str, str]]()
        for file, title in zip(files, (f"profile {chosen}", chosen), strict=True):
            for each in (title, chosen) if chosen == "default" else (title,):
                sections += [file[each]] if each in file else []
        if not sections and chosen != "default":
            asked = f"s3://{chosen}@" if name else "AWS_PROFILE"
            raise ConfigError(f"{asked} asks for the profile {chosen!r}, and neither {config} nor {keys} has it")
        values = {key: value for section in sections for key, value in section.items()}
        nested = {key: _nested(value) for key, value in values.items() if value.startswith("\n")}
        if services := files[0].get(f"services {values.get('services', '')}"):
            nested["services"] = _nested(services.get("s3", ""))
        return cls(chosen, values, nested, str(config.parent), bool(name))

    def get(self, key: str) -> str | None:
        """Return what it says, None for nothing."""
        return self.values.get(key) or None

    def of_s3(self, key: str) -> str | None:
        """Return what the lines below ``s3 =`` say."""
        return self.nested.get("s3", {}).get(key) or None

    @property
    def endpoint(self) -> str | None:
        """The server that it says S3 is at."""
        return self.nested.get("services", {}).get("endpoint_url") or self.get("endpoint_url")


def _file(variable: str, name: str) -> Path:
    given = os.environ.get(variable)
    try:
        return Path(given).expanduser() if given else Path.home() / ".aws" / name
    except RuntimeError:  # no home
        return Path(os.devnull)


def _parsed(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, configparser.Error) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}") from None  # whose text may quote a key
    return {name: dict(parser[name]) for name in parser.sections()}


def _nested(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}

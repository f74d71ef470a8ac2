"""What is installed in an environment, to the last digit: a lock, as data and as a text that pip reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore.errors import MlcoreError

__all__ = ["EnvironmentFailed", "Lock", "Pinned", "normalized", "parse_lock"]


class EnvironmentFailed(MlcoreError):
    """Say why an environment cannot be made, in the words of the program that could not."""


def normalized(name: str) -> str:
    """Return the name of a distribution as all its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@attrs.frozen
class Pinned:
    """Pin one distribution: `hashes` are ``sha256:...`` of the files that may be installed, one of them.

    `url` is where it comes from if not from an index, without credentials: an archive, or a repository at a commit.
    `wheel` is the file that a local package was built to, and `source` where that lies, seen from the project.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    url: str = ""
    wheel: str = ""
    source: str = ""

    @property
    def line(self) -> str:
        """This as a line of requirements, its hashes left out."""
        if self.wheel:
            return f"./wheels/{self.wheel}"
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"

    def text(self) -> str:
        """Return the line with its hashes, and where it was built from."""
        hashes = "".join(f" \\\n    --hash={each}" for each in self.hashes)
        return f"{self.line}{hashes}" + (f"\n    # {self.name} {self.version} from {self.source}" if self.wheel else "")


def _sorted(pins: Iterable[Pinned]) -> tuple[Pinned, ...]:
    return tuple(sorted(pins, key=lambda each: (normalized(each.name), each.line)))


@attrs.frozen
class Lock:
    """Hold all that an environment is made of; `python` is a full version, `platform` a tag such as ``linux_x86_64``.

    `build` is installed before the rest; what one of `requirements` names again is left to those. `indexes` are the
    addresses that were asked, without credentials.
    """

    python: str
    platform: str
    requirements: tuple[Pinned, ...] = attrs.field(default=(), converter=_sorted)
    indexes: tuple[str, ...] = ()
    build: tuple[Pinned, ...] = attrs.field(default=(), converter=_sorted)

    def key(self, kind: str) -> str:
        """Return the name under which an environment of this kind is kept: the same for all that are the same."""
        told = json.dumps([kind, *attrs.astuple(attrs.evolve(self, requirements=_bare(self.requirements)))])
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    @property
    def packages(self) -> dict[str, str]:
        """What is in it: name -> version."""
        return {normalized(each.name): each.version for each in (*self.build, *self.requirements)}

    @property
    def text(self) -> str:
        """The lock as a file of requirements with hashes, told before them for which Python and platform."""
        head = [f"# python {self.python}", f"# platform {self.platform}", *(f"# index {each}" for each in self.indexes)]
        build = ["# build:", *(each.text() for each in self.build), "# requirements:"] if self.build else []
        return "\n".join([*head, *build, *(each.text() for each in self.requirements)]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON of it, which `parse_lock` reads."""
        return attrs.asdict(self)


def _bare(pins: tuple[Pinned, ...]) -> tuple[Pinned, ...]:
    """Leave out where a local package lies: it is its wheel that counts."""
    return tuple(attrs.evolve(each, source="") for each in pins)


def parse_lock(told: Mapping[str, Any]) -> Lock:
    """Return the lock of which `Lock.as_dict` told. Raises `KeyError` or `TypeError` if it is none."""

    def pins(key: str) -> tuple[Pinned, ...]:
        return tuple(Pinned(**{**each, "hashes": tuple(each["hashes"])}) for each in told[key])

    return Lock(told["python"], told["platform"], pins("requirements"), tuple(told["indexes"]), pins("build"))

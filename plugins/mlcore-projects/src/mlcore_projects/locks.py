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

__all__ = ["EnvironmentFailed", "Lock", "Pinned", "lock_of_packages", "normalized", "parse_lock", "read_lock"]


class EnvironmentFailed(MlcoreError):
    """Say why an environment cannot be made, in the words of the program that could not."""


def normalized(name: str) -> str:
    """Return the name of a distribution as all its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@attrs.frozen
class Pinned:
    """Pin one distribution: `hashes` are ``sha256:...`` of the files that may be installed, one of them.

    `url` is where it comes from if not from an index, without credentials: an archive, or a repository at a commit.
    `wheel` is the file that a local package was built to, `source` where that lies, seen from the project, and `digest`
    what it was then, if it is to be looked at again.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    url: str = ""
    wheel: str = ""
    source: str = ""
    digest: str = ""

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
    return tuple(attrs.evolve(each, source="", digest="") for each in pins)


def parse_lock(told: Mapping[str, Any]) -> Lock:
    """Return the lock of which `Lock.as_dict` told. Raises `KeyError` or `TypeError` if it is none."""

    def pins(key: str) -> tuple[Pinned, ...]:
        return tuple(Pinned(**{**each, "hashes": tuple(each["hashes"])}) for each in told[key])

    return Lock(told["python"], told["platform"], pins("requirements"), tuple(told["indexes"]), pins("build"))


def read_lock(text: str) -> Lock:
    """Return the lock whose `Lock.text` this is. Raises `EnvironmentFailed` if it is none."""
    head = dict[str, list[str]]()
    for name, value in re.findall(r"(?m)^# (python|platform|index) (.+)$", text):
        head.setdefault(name, []).append(value)
    if not {"python", "platform"} <= head.keys():
        raise EnvironmentFailed("this is no lock: it does not say for which Python and platform it is")
    parts = {"build": list[Pinned](), "requirements": list[Pinned]()}
    part = "requirements"
    for entry in re.findall(r"(?m)^[^\s#].*(?:\n[ \t]+.*)*|^# (?:build|requirements):$", text):
        if entry.startswith("#"):
            part = entry.strip("# :")
            continue
        parts[part].append(_read_pin(entry))
    return Lock(
        head["python"][0], head["platform"][0], parts["requirements"], tuple(head.get("index", ())), parts["build"]
    )


def _read_pin(entry: str) -> Pinned:
    hashes = tuple(re.findall(r"--hash=(\S+)", entry))
    line = entry.partition(" \\\n")[0].partition("\n")[0].strip()
    if built := re.search(r"\n\s+# (\S+) (\S+) from (.+)$", entry):
        return Pinned(built[1], built[2], hashes, wheel=line.removeprefix("./wheels/"), source=built[3])
    if direct := re.fullmatch(r"(\S+)(?: (\S+))? @ (\S+)", line):
        return Pinned(direct[1], "", hashes, direct[3])
    if exact := re.fullmatch(r"(\S+)==(\S+)", line):
        return Pinned(exact[1], exact[2], hashes)
    raise EnvironmentFailed(f"{line!r} in a lock names no single version")


def lock_of_packages(
    packages: Mapping[str, Mapping[str, Any] | str], folder: Path, *, python: str, platform: str = "",
    local: Mapping[str, Path] | None = None,
) -> Lock:  # fmt: skip
    """Return a lock of the packages that a run recorded, to be built in another place.

    A package that was installed from a folder is built from there, by its ``path`` from `folder`, where the run's code
    is; `local` says where others are, by name. Raises `EnvironmentFailed` naming all that lie nowhere.
    """
    pins, lost = list[Pinned](), list[str]()
    places = {normalized(name): path for name, path in (local or {}).items()}
    for name, told in packages.items():
        about = {"version": told} if isinstance(told, str) else told
        version, url, commit = (str(about.get(key) or "") for key in ("version", "url", "commit"))
        hashes = (str(about["hash"]),) if about.get("hash") and not commit else ()
        place = places.get(normalized(name)) or (folder / str(about["path"]) if about.get("path") else None)
        if place is not None and place.exists():
            pins.append(Pinned(normalized(name), version, source=str(place.resolve())))
        elif place is not None or (not url and (about.get("editable") or hashes)):
            lost.append(f"{name} {version}" + (f" (at {place})" if place else ""))
        else:
            pins.append(Pinned(normalized(name), version, hashes, f"git+{url}@{commit}" if commit else url))
    if lost:
        raise EnvironmentFailed(f"installed from folders or files that are not here: {', '.join(sorted(lost))}")
    return Lock(python, platform, pins)

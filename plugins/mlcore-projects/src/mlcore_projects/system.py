"""The environment that is there: the interpreter that runs, with what is installed for it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mlcore_projects import interpreters
from mlcore_projects.environments import Environments, Making, Origin
from mlcore_projects.locks import Lock, Pinned, normalized
from mlcore_projects.requirement_lines import without_credentials
from mlcore_projects.specs import Wanted

__all__ = ["SystemEnvironments"]


class SystemEnvironments(Environments):
    """Take the running interpreter as it is: nothing is installed, and nothing is asked of anybody."""

    name = "system"
    kept = False

    def origin(self, wanted: Wanted) -> Origin:
        """Return what runs."""
        here = interpreters.running()
        return Origin(here.platform, here.version, (), Path(sys.executable), here.markers)

    def resolve(self, making: Making) -> Lock:
        """Return what is installed; of a distribution that is there twice the first, which is the one imported."""
        found: dict[str, Pinned] = {}
        for place in sys.path:
            with suppress(OSError):
                for name in sorted(os.listdir(place or ".")):
                    if match := re.fullmatch(r"([^-]+)-([^-]+?)\.(?:dist-info|egg-info)", name):
                        found.setdefault(normalized(match[1]), _pinned(Path(place or ".", name), match[1], match[2]))
        return Lock(making.origin.python, making.origin.platform, found.values())

    def python(self, folder: Path) -> Path:
        """Return the interpreter that runs."""
        return Path(sys.executable)

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Return the folder of its programs."""
        return {"PATH": str(Path(sys.executable).parent)}

    def notes(self, wanted: Wanted, lock: Lock) -> tuple[str, ...]:
        """Name what is wanted and is another, or is not there."""
        from packaging.requirements import InvalidRequirement, Requirement

        told = list[str]()
        if not interpreters.satisfies(lock.python, wanted.python):
            told.append(f"Python {wanted.python} is wanted, and {lock.python} runs")
        for line in wanted.requirements:
            with suppress(InvalidRequirement):
                one = Requirement(line)
                if one.marker is None or one.marker.evaluate():
                    version = lock.packages.get(normalized(one.name))
                    if version is None:
                        told.append(f"{one.name} is wanted, and is not installed")
                    elif not one.specifier.contains(version, prereleases=True):
                        told.append(f"{one.name}{one.specifier} is wanted, and {version} is installed")
        return tuple(told)


def _pinned(folder: Path, name: str, version: str) -> Pinned:
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((folder / "direct_url.json").read_bytes())
        url, subfolder = without_credentials(told["url"]), told.get("subdirectory")
        if vcs := told.get("vcs_info"):
            url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        return Pinned(normalized(name), version, url=url + (f"#subdirectory={subfolder}" if subfolder else ""))
    return Pinned(normalized(name), version)

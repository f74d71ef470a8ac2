"""What a reader of a folder store remembers of it: in memory, or in an index for the next process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

__all__ = ["Notes"]


class Notes:
    """Hold JSON values by group and name; `ask` tells by prefix of ``group/name`` what is not known here yet.

    Values must not be changed in place. `changed` is what has to be kept.
    """

    def __init__(self, ask: Callable[[str], dict[str, Any]] = lambda _: {}) -> None:
        self.ask = ask
        self._whole: set[str] = set()
        self._known: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self.changed: dict[str, Any] = {}

    def under(self, group: str) -> dict[str, Any]:
        """Return all of a group by name."""
        known = self._known[group]
        if group not in self._whole:
            asked = {name[len(group) + 1 :]: value for name, value in self.ask(f"{group}/").items()}
            known = self._known[group] = {**asked, **known}
            self._whole.add(group)
        return {name: value for name, value in known.items() if value is not None}

    def get(self, group: str, name: str) -> Any:
        """Return one, None if there is none."""
        known = self._known[group]
        if name not in known and group not in self._whole:
            known[name] = self.ask(f"{group}/{name}").get(f"{group}/{name}")
        return known.get(name)

    def set(self, group: str, name: str, value: Any) -> None:
        """Keep one; None removes it."""
        if self.get(group, name) != value:
            self._known[group][name] = self.changed[f"{group}/{name}"] = value

"""What takes long, told on standard error while it lasts."""

from __future__ import annotations

import shutil
import sys

__all__ = ["Steps"]

_LINE_START = "\r\x1b[2K"


class Steps:
    """Print what is being done, a line for each step; on a terminal also what the step itself says, one over another.

    It is what `mlcore_projects.environments.ready` takes as its `progress`: a text that begins with a space is of the
    step, and an empty one says that nothing goes on any more.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Tell of a step."""
        shown = "".join(char if char.isprintable() else "?" for char in text)
        if not self._live:
            if text and not text.startswith(" "):
                print(f"mlcore: {shown}", file=sys.stderr, flush=True)  # noqa: T201 - it is what this is for
            return
        if text.startswith(" "):
            room = shutil.get_terminal_size().columns - 1
            print(f"{_LINE_START}\x1b[2m{shown[:room]}\x1b[0m", end="", file=sys.stderr, flush=True)  # noqa: T201 - the same
        else:
            end = "\n" if text else ""
            said = f"mlcore: {shown}" if text else ""
            print(f"{_LINE_START}{said}", end=end, file=sys.stderr, flush=True)  # noqa: T201 - the same

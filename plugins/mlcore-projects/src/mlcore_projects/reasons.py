"""What an installer said when it failed, short: the last lines that tell why, without credentials."""

from __future__ import annotations

import re

from mlcore_projects.requirement_lines import without_credentials

__all__ = ["reason"]

_LINES = 8
_FULL = re.compile(r"No space left on device|Errno 28|os error 28|Disk quota exceeded", re.IGNORECASE)
_NOISE = re.compile(
    r"^(WARNING|DEPRECATION|\[notice\]|Looking in|Processing|Collecting|ERROR: ResolutionImpossible|Defaulting"
    r"|To fix this you could|[12]\. (?:loosen|remove) )"
)
_FAULT = re.compile(r"^\s*(ERROR:|error:|\u00d7 |The conflict is caused by|\S*(Error|Exception): )")


def reason(output: str) -> str:
    """Return why a program failed, as it said it, in at most eight lines."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output).replace("\r", "\n")
    if full := _FULL.search(text):
        return f"{full[0]}: make room, for instance by `mlcore envs prune`"
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    faults = [at for at, line in enumerate(lines) if _FAULT.match(line)]
    chosen = lines[faults[0] :] if faults else lines[-3:]
    if len(chosen) > _LINES:
        last = [lines[at] for at in faults][-_LINES:]
        chosen = last if len(last) > 1 else [*chosen[:2], "...", *chosen[-(_LINES - 3) :]]
    words = [re.sub(r"^\s*(ERROR|error): ", "", line) for line in dict.fromkeys(chosen)]
    return without_credentials("\n".join(words)) or "it said nothing"

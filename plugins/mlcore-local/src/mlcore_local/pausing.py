"""Wait longer from attempt to attempt, and never just as long as others do, who would all come back at once."""

from __future__ import annotations

__all__ = ["pause"]

_MOST = 30  # that it doubles: what follows is no longer in any case


def pause(failures: int, first: float, longest: float) -> float:
    """Return how many seconds to wait after so many failures in a row, at least one.

    It is half of `first` seconds or more, up to all of them; twice as long each time, but at most `longest`.
    """
    import random  # loads a library for hashes, of which who never fails has no need

    return min(longest, first * 2.0 ** min(failures - 1, _MOST)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

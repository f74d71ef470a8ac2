"""What is seen of a store's folder without looking at every run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mlcore_local.notes import Notes
from mlcore_local.watch import Watch


def noted(root: Path, notes: Notes) -> dict[str, int]:
    """Return what a look finds in the change log."""
    return dict(Watch(str(root), notes).noted())


def written(root: Path, name: str, *lines: str, ago: float = 0.0) -> None:
    """Add lines to a change log, or parts of one."""
    (root / "changes").mkdir(exist_ok=True)
    path = root / "changes" / name
    with path.open("a") as file:
        file.write("".join(lines))
    os.utime(path, (time.time() - ago,) * 2)


def test_the_first_look_takes_no_part_of_a_line_for_a_run(tmp_path: Path) -> None:
    """Guards a run that never was, whose folder everybody looked for."""
    ids = [f"{number:032x}" for number in range(1_000)]
    written(tmp_path, "202611-a", *(f"{id}\n" for id in ids))
    found = noted(tmp_path, Notes())
    assert 100 < len(found) < 200
    assert found == dict.fromkeys(ids[-len(found) :], 1)


def test_the_first_look_counts_how_often_a_run_was_opened_in_all_logs(tmp_path: Path) -> None:
    """Guards a journal that is not there yet: a run must have as many as it was opened."""
    written(tmp_path, "202610-a", "often\n", "long-ago\n", ago=1_000)
    written(tmp_path, "202611-a", "often\n" * 2, *(f"other{number}\n" for number in range(500)), "often\n")
    found = noted(tmp_path, Notes())
    assert found["often"] == 4
    assert "long-ago" not in found


def test_a_first_look_at_what_is_silent_reads_no_log(tmp_path: Path) -> None:
    """All folders are looked at, and no journal is still to come."""
    written(tmp_path, "202611-a", "one\n", ago=1_000)
    assert noted(tmp_path, notes := Notes()) == {}
    written(tmp_path, "202611-a", "two\n", "thr")
    assert noted(tmp_path, notes) == {"two": 1}
    written(tmp_path, "202611-a", "ee\n", "two\n", "two\n")
    assert noted(tmp_path, notes) == {"three": 1, "two": 2}

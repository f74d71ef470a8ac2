"""Keep checkpoints in the few files of a run that they need, so that there is a whole one at every moment.

A run's files are replaced, never removed. So checkpoints take turns in slots, a file and a note about it each. A slot
is written anew only once its checkpoint is not wanted any more, and a note counts only if it names the sha256 that the
run has recorded for the file. A process that is killed in between leaves a slot that counts for nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import attrs

import mlcore
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, InvalidValue

__all__ = ["Checkpoint", "Slots", "list_checkpoints", "the_run", "whole"]

_log = logging.getLogger("mlcore")
_NOTE, _LONGEST = ".json", 1 << 20  # bytes of a note, which anybody may have written


@attrs.frozen
class Checkpoint:
    """Tell of a checkpoint of a run: the `step` and `epoch` it was made at, `metrics` of then, and the file it is in.

    The best is the one with the least or most of `metric`, as `mode` says. `number` counts the checkpoints of the run,
    `time` is in ms since 1970.
    """

    step: int
    epoch: int | None
    metrics: dict[str, float]
    metric: str | None
    mode: str
    number: int
    time: int
    file: str
    sha256: str

    @property
    def order(self) -> tuple[float, int]:
        """What is least for the best; of equals for the earlier one."""
        value = self.metrics.get(self.metric or "", float("nan"))
        lost = float("inf") if value != value else value if self.mode == "min" else -value  # noqa: PLR0124 - NaN
        return lost, self.number


def list_checkpoints(run: mlcore.Run | str | None = None, *, name: str = "checkpoints") -> list[Checkpoint]:
    """Return the checkpoints that a run has, the latest one last; by default those of the active run."""
    run = the_run(run)
    files = {each.path: each for each in run.artifacts.list(name)}
    found = list[Checkpoint]()
    for path in files:
        about = _note(run, path) if path.endswith(_NOTE) else {}
        kept = files.get(str(about.get("file")))
        if kept is not None and kept.sha256 == about.get("sha256"):
            try:
                found.append(_checkpoint(about))
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
                continue  # whoever wrote that, it is no note of ours
    return sorted(found, key=lambda each: each.number)


def _note(run: mlcore.Run, path: str) -> dict[str, Any]:
    try:
        with run.artifacts.open(path) as file:  # not compared: what was recorded of it may be a moment older
            found = json.loads(file.read(_LONGEST))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _checkpoint(about: Mapping[str, Any]) -> Checkpoint:
    epoch = None if about["epoch"] is None else int(about["epoch"])
    metrics = {str(key): float(value) for key, value in about["metrics"].items()}
    metric = None if about["metric"] is None else str(about["metric"])
    numbers = (int(about["number"]), int(about["time"]))
    return Checkpoint(
        int(about["step"]), epoch, metrics, metric, str(about["mode"]), *numbers, about["file"], about["sha256"]
    )


def the_run(run: mlcore.Run | str | None) -> mlcore.Run:
    """Return the run that is meant: by default the active one. Raises `InvalidValue` if there is none."""
    found = mlcore.active_run() if run is None else mlcore.get_run(run) if isinstance(run, str) else run
    if found is None:
        raise InvalidValue("no run is active: start one, or say which run= is meant")
    return found


def whole(run: mlcore.Run, found: list[Checkpoint], which: str | int, place: Path) -> tuple[Checkpoint, Path]:
    """Return the first of the checkpoints that are meant, and whole, with a copy of its file in `place`.

    Raises `ArtifactNotFound` if none is meant, `ArtifactError` if none is whole.
    """
    wanted = _meant(found, which)
    if not wanted:
        steps = ", ".join(str(each.step) for each in found) or "none"
        raise ArtifactNotFound(f"run {run.id} has no checkpoint {which!r}; it has those of the steps {steps}")
    problem: ArtifactError | None = None
    for each in wanted:
        try:
            return each, run.artifacts.get(each.file, place / each.file.rpartition("/")[2])
        except (ArtifactNotFound, DigestMismatch) as error:
            _log.warning("the checkpoint of step %d is left out: %s", each.step, error)
            problem = error
    raise ArtifactError(f"run {run.id}: no checkpoint {which!r} can be read: {problem}") from problem


def _meant(found: list[Checkpoint], which: str | int) -> list[Checkpoint]:
    if which == "last":
        return found[::-1]
    if which == "best":
        return sorted((each for each in found if each.metric in each.metrics), key=lambda each: each.order)
    return [each for each in found[::-1] if each.step == which]


class Slots:
    """Choose where the next checkpoint of a run goes, and which ones are wanted: the last, and the best `keep_best`."""

    def __init__(self, name: str, ending: str, keep_best: int, metric: str | None, mode: str) -> None:
        if mode not in ("min", "max"):
            raise InvalidValue(f"mode is 'min' or 'max', not {mode!r}")
        self.name, self.metric, self.mode = name, metric, mode
        self._ending, self._most = ending, keep_best if metric else 0
        self._known: list[Checkpoint] = []
        self._number = 0

    def know(self, found: Sequence[Checkpoint], upto: float = inf) -> None:
        """Take in what the run has already, in the order of their numbers; those beyond `upto` are not wanted."""
        self._known = [each for each in found if each.number <= upto]
        self._number = max((each.number for each in found), default=0)

    def wanted(self) -> list[Checkpoint]:
        """Return the best ones and the last, in the order of their numbers."""
        having = [each for each in self._known if self.metric in each.metrics]
        best = sorted(having, key=lambda each: each.order)[: self._most]
        return [each for each in self._known if each in best or each is self._known[-1]]

    def keep(
        self, run: mlcore.Run, data: bytes | bytearray, step: int, epoch: int | None, metrics: Mapping[str, float]
    ) -> None:
        """Keep a checkpoint: first its file, then the note that makes it count. Raises `ArtifactError`."""
        wanted, number = self.wanted(), self._number + 1
        slots = (f"{self.name}/slot-{slot}" for slot in range(self._most + 2))
        slot = next(each for each in slots if each + self._ending not in {other.file for other in wanted})
        file = slot + self._ending
        about = {"step": step, "epoch": epoch, "metrics": dict(metrics), "metric": self.metric, "mode": self.mode}
        about |= {"number": number, "time": int(time.time() * 1000), "file": file, "sha256": sha256(data).hexdigest()}
        run.log_bytes(data, file)
        run.log_text(json.dumps(about, indent=2) + "\n", slot + _NOTE)
        self._known, self._number = [*wanted, _checkpoint(about)], number

"""Keep the state of a training with its run as it goes, and go on from it."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn

import mlcore
from mlcore.errors import ArtifactError, InvalidValue, MlcoreError
from mlcore.store import Rewound
from mlcore_torch import randomness, ranks
from mlcore_torch.slots import Checkpoint, Slots, list_checkpoints, the_run, whole
from mlcore_torch.snapshots import pack, unpack
from mlcore_torch.training import Monitor

__all__ = ["Checkpoints", "load_checkpoint"]

_ENDING = ".safetensors"
_log = logging.getLogger("mlcore")


class Checkpoints:
    """Keep checkpoints of a training as files of its run: the last one, and the `keep_best` best ones by a metric.

    `objects` are what the training consists of, by names of your choice: whatever has `state_dict` and
    `load_state_dict`, such as ``model=``, ``optimizer=``, ``scheduler=``, ``scaler=`` and ``monitor=``, a `Monitor`.
    The states of the random generators are kept with them. A checkpoint is there whole or not at all, and there is
    always one once the first was made. Only rank 0 writes; `run` is by default the active one.

    A state is copied when `save` is called, and written in the background; `wait` waits for that, as the end of a
    ``with`` block does.
    """

    def __init__(
        self,
        *,
        best: str | None = None,
        mode: str = "min",
        keep_best: int = 1,
        every: int | None = None,
        run: mlcore.Run | None = None,
        name: str = "checkpoints",
        background: bool = True,
        **objects: Any,
    ) -> None:
        wrong = [key for key, each in objects.items() if not hasattr(each, "load_state_dict") and each is not None]
        if wrong:
            raise InvalidValue(f"{', '.join(wrong)}: a checkpoint keeps what has state_dict() and load_state_dict()")
        self._objects = {key: _inner(each) for key, each in objects.items() if each is not None}
        self._monitor = next((each for each in objects.values() if isinstance(each, Monitor)), None)
        self._run, self._every, self._background = run, every, background
        self._slots = Slots(name, _ENDING, keep_best, best, mode)
        self._known_of = ""
        self._writing: threading.Thread | None = None
        self.extra: dict[str, Any] = {}

    def step(self) -> None:
        """Save if the step that the monitor counted is one of `every` that are to be saved."""
        if self._every and self._monitor is not None and self._monitor.steps % self._every == 0:
            self.save()

    def save(
        self,
        step: int | None = None,
        *,
        epoch: int | None = None,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a checkpoint; step, epoch and metrics are by default what the monitor knows. `extra` is plain data.

        One that cannot be written is told as a warning, and training goes on. Raises `InvalidValue` for a state that
        is no data.
        """
        if ranks.rank():
            return
        monitor = self._monitor
        step = monitor.steps if step is None and monitor else step
        if step is None:
            raise InvalidValue("which step is it? say save(step), or give the checkpoints a monitor")
        epoch = monitor.epoch if epoch is None and monitor else epoch
        metrics = dict(monitor.logged if metrics is None and monitor else metrics or {})
        states = {key: each.state_dict() for key, each in self._objects.items()}
        data = pack({"objects": states, "randomness": randomness.states(), "extra": dict(extra or {})})
        self.wait()
        arguments = (the_run(self._run), data, step, epoch, {key: float(value) for key, value in metrics.items()})
        self._writing = threading.Thread(target=self._write, args=arguments, name="mlcore-checkpoint")
        self._writing.start()
        if not self._background:
            self.wait()

    def _write(self, run: mlcore.Run, data: bytearray, step: int, epoch: int | None, metrics: dict[str, float]) -> None:
        try:
            if self._known_of != run.id:
                self._slots.know(list_checkpoints(run, name=self._slots.name))
                self._known_of = run.id
            self._slots.keep(run, data, step, epoch, metrics)
        except MlcoreError as error:
            _log.warning("the checkpoint of step %d is not kept: %s; training goes on", step, error)

    def wait(self) -> None:
        """Wait until what was saved is written."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def restore(self, which: str | int = "last") -> Checkpoint | None:
        """Bring all objects to the state of the last, the best, or the checkpoint of a step; None if there is none.

        What the run logged after that step is forgotten. Call it in every rank, before anything is logged.
        Raises `ArtifactError` if there are checkpoints and none can be read, `InvalidValue` if it fits not.
        """
        self.wait()
        run = the_run(self._run)
        found = list_checkpoints(run, name=self._slots.name)
        if not found:
            return None
        chosen, states = _read(run, found, which)
        if missing := self._objects.keys() - states["objects"].keys():
            raise InvalidValue(f"the checkpoint of step {chosen.step} has no {', '.join(sorted(missing))}")
        for key, each in self._objects.items():
            each.load_state_dict(states["objects"][key])
        if (rank := ranks.rank()) > 0:
            randomness.reseed(states["randomness"], rank)
        else:
            randomness.restore(states["randomness"])
            run.log_events(Rewound("run", run.id, chosen.step))
        self._known_of = run.id
        self._slots.know(found, chosen.number)
        self.extra = states["extra"]
        return chosen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


def load_checkpoint(
    run: mlcore.Run | str | None = None, which: str | int = "last", *, name: str = "checkpoints"
) -> dict[str, Any]:
    """Return the states that a checkpoint of a run holds, by the names of their objects; tensors are on the CPU.

    `which` is ``"last"``, ``"best"`` or a step. Nothing that the file says is run. Raises `ArtifactNotFound` if there
    is none, or another `ArtifactError`.
    """
    run = the_run(run)
    found = list_checkpoints(run, name=name)
    states: dict[str, Any] = _read(run, found, which)[1]["objects"]
    return states


def _read(run: mlcore.Run, found: list[Checkpoint], which: str | int) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the first of the checkpoints that are meant, and whole, with what it holds."""
    with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
        chosen, path = whole(run, found, which, Path(place))
        return chosen, _checked(unpack(path), chosen)


def _checked(states: dict[str, Any], of: Checkpoint) -> dict[str, Any]:
    for key in ("objects", "randomness", "extra"):
        if not isinstance(states.get(key), dict):
            raise ArtifactError(f"the checkpoint of step {of.step} is none of mlcore's: it holds no {key}")
    return states


def _inner(thing: Any) -> Any:
    """Return the module that others wrap, so that its state has the same names with and without them."""
    while True:
        if isinstance(thing, nn.parallel.DistributedDataParallel | nn.DataParallel):
            thing = thing.module
        elif isinstance(thing, nn.Module) and "_orig_mod" in dict(thing.named_children()):  # of torch.compile
            thing = thing.get_submodule("_orig_mod")
        else:
            return thing

"""Record what happens in a training loop, at a chosen interval, for next to nothing in between."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import inf
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.variable import Variable

import mlcore
from mlcore.errors import InvalidValue
from mlcore_torch import randomness, ranks

__all__ = ["Means", "Monitor"]

_T = TypeVar("_T")


class Means:
    """Add up what the batches of a phase give, and tell the means."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Any, float]] = {}

    def add(self, weight: float = 1, **values: Any) -> None:
        """Add values of one batch, which counts as often as `weight` says: as many samples as it has."""
        for key, value in values.items():
            total, weights = self._sums.get(key, (0.0, 0.0))
            # a tensor stays where it is: to wait for each would hold up the device
            each = value.detach() if isinstance(value, Tensor) else float(value)
            self._sums[key] = total + each * weight, weights + weight

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        return {key: float(total) / weight for key, (total, weight) in self._sums.items() if weight}


class Monitor:
    """Log loss, learning rate, gradient norm, time and memory of a training loop, every `every` steps.

    Call `step` once for each step of the optimizer, wherever in the loop. Between two that are logged a step is a
    counter, and nothing waits for a GPU. `model` gives the norm of all gradients, as backward leaves them: before they
    are clipped, summed up over what is accumulated, and without the scale of `scaler`. `run` is by default the active
    one. In rank 1 of several, names end in ``.rank1``. As a context manager it leaves no hook in the model behind.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        every: int = 50,
        gradients: bool = True,
        memory: bool = True,
        scaler: Any = None,
        run: mlcore.Run | None = None,
        prefix: str = "train",
    ) -> None:
        if every < 1:
            raise InvalidValue(f"every is a number of steps, not {every}")
        self.steps = 0
        self.epoch: int | None = None
        self._logged, self._logged_at = dict[str, float](), 0
        self._model, self._optimizer, self._scaler, self._run = model, optimizer, scaler, run
        self._every, self._memory, self._prefix = every, memory, prefix
        self._ending = f".rank{ranks.rank()}" if ranks.rank() else ""
        self._parameters = list(model.parameters()) if model is not None and gradients else []
        self._ends: list[Tensor] = []  # those whose gradients come first and last in a backward pass, once known
        self._watching: list[Any] = []
        self._seen: list[Tensor] = []
        self._norm: Tensor | None = None
        self._coming = False
        self._samples, self._next, self._look, self._from = 0.0, 1, 1, 0
        self._weighed, self._since = -inf, None  # type: tuple[float, float | None]
        self._from_epoch, self._batch, self._skip = 0, 0, 0
        self._begin: Any = None
        self._now: Any = None
        self._restart()

    # What is logged

    def step(self, loss: Any = None, samples: float = 0) -> None:
        """Count a step of the optimizer, with its loss, a number or a tensor, and how many samples it was made of."""
        self.steps = done = self.steps + 1
        self._samples += samples
        if done >= self._look:
            self._due(done, loss)

    def _due(self, done: int, loss: Any) -> None:
        if done >= self._next:
            self._measure(loss)
            self._next = done - done % self._every + self._every
        elif self._since is None:
            self._since, self._from, self._samples = time.perf_counter(), done, 0.0
        self._look = max(self._next - 1, done + 1)
        if done + 1 == self._next:
            self._watch()

    def _restart(self) -> None:
        """Begin an interval; the first step of all is logged as well, for a sign of life."""
        self._next = self.steps - self.steps % self._every + self._every if self.steps else 1
        self._look, self._since, self._from, self._samples = self.steps + 1, None, self.steps, 0.0
        if self._look == self._next:
            self._watch()

    def _measure(self, loss: Any) -> None:
        now, found = time.perf_counter(), dict[str, Any]()
        if loss is not None:
            found["loss"] = loss.detach() if isinstance(loss, Tensor) else loss
        found |= self._rates()
        if self._norm is None:
            self._ends = []  # they had no part in this step
        else:
            self._ends = self._ends or self._seen  # the last one, too: reentrant checkpointing nests passes
            scale = self._scaler.get_scale() if self._scaler is not None else 1.0
            found["gradient_norm"] = float(self._norm) / scale
        if self._since is not None and self.steps > self._from:
            taken = now - self._since
            found["step_seconds"] = taken / (self.steps - self._from)
            if self._samples:
                found["samples_per_second"] = self._samples / taken
        if self._memory and now - self._weighed >= 1:
            self._weighed = now
            found |= _memory()
        if self.epoch is not None:
            found["epoch"] = self.epoch
        self._since, self._from, self._samples = now, self.steps, 0.0
        self._unwatch()
        self.log({f"{self._prefix}.{key}": value for key, value in found.items()})

    def _rates(self) -> dict[str, Any]:
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        if len(groups) == 1:
            return {"learning_rate": groups[0]["lr"]}
        return {f"learning_rate.{group.get('name', at)}": group["lr"] for at, group in enumerate(groups)}

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Log metrics at the present step."""
        values = {key: float(value) for key, value in metrics.items()}
        self._logged = {**self.logged, **values}
        self._logged_at = self.steps
        named = {f"{key}{self._ending}": value for key, value in values.items()}
        if self._run is None:
            mlcore.log_metrics(named, step=self.steps)
        else:
            self._run.log_metrics(named, step=self.steps)

    @property
    def logged(self) -> dict[str, float]:
        """The metrics that were logged at the present step, which a checkpoint of it keeps."""
        return self._logged if self._logged_at == self.steps else {}

    @contextmanager
    def phase(self, name: str = "valid") -> Iterator[Means]:
        """Log the means of what is added within, as ``valid.loss``; its time is none of the training's."""
        start, means = time.perf_counter(), Means()
        yield means
        self.log({f"{name}.{key}": value for key, value in means.means().items()})
        if self._since is not None:
            self._since += time.perf_counter() - start

    # The gradients

    def _watch(self) -> None:
        """Let the next backward passes tell the norm of the gradients."""
        self._norm = None
        self._seen = []
        for each in self._ends or self._parameters:
            if each.requires_grad:
                self._watching.append(each.register_post_accumulate_grad_hook(self._came))  # type: ignore[no-untyped-call]

    def _unwatch(self) -> None:
        for each in self._watching:
            each.remove()
        self._watching, self._coming = [], False

    def _came(self, parameter: Tensor) -> None:
        """Wait for the end of the pass, and for what others do there: DistributedDataParallel brings gradients then."""
        self._seen = [*self._seen[:1], parameter]
        if not self._coming:
            self._coming = True
            queue = Variable._execution_engine.queue_callback
            queue(lambda: queue(self._passed))

    def _passed(self) -> None:
        self._coming = False
        self._norm = _norm([each.grad for each in self._parameters if each.grad is not None])

    # Epochs and batches, to go on with where a checkpoint was made

    def epochs(self, number: int) -> Iterator[int]:
        """Yield the epochs from 0, or from where a checkpoint was made, up to `number`."""
        for epoch in range(self._from_epoch, number):
            self.epoch, self._from_epoch = epoch, epoch + 1
            yield epoch
            self._batch = self._skip = 0

    def batches(self, loader: Iterable[_T]) -> Iterator[_T]:
        """Yield the batches of an epoch; after a checkpoint in the midst of it those that are left.

        Those before are drawn once more and dropped, with the random numbers that the epoch began with: what comes
        then is what would have come.
        """
        skip, self._skip = self._skip, 0
        if skip:
            after = randomness.states() if ranks.rank() else self._now
            randomness.restore(self._begin)
        else:
            self._begin = randomness.states()
        found = iter(loader)
        if skip:
            deque(islice(found, skip), 0)
            randomness.restore(after)
        self._batch = skip
        for batch in found:
            self._batch += 1
            yield batch
        self._batch = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the step, and the epoch and batch that come next."""
        if self._batch == 0:
            return {"steps": self.steps, "epoch": self._from_epoch, "batch": 0}
        place = {"steps": self.steps, "epoch": self.epoch or 0, "batch": self._batch}
        return {**place, "begin": self._begin, "now": randomness.states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.steps, self._from_epoch, self._skip = int(state["steps"]), int(state["epoch"]), int(state["batch"])
        self._begin, self._now = state.get("begin"), state.get("now")
        self.epoch, self._batch = None, 0
        self._unwatch()
        self._restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unwatch()


@torch.no_grad()
def _norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of all gradients as of one vector, without waiting for a GPU."""
    dense = [each.coalesce().values() if each.is_sparse else each for each in gradients]
    if len({(each.device, each.dtype) for each in dense}) > 1:
        return nn.utils.get_total_norm(dense)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(dense)))
    return norm


def _memory() -> dict[str, float]:
    """Return the memory of this process, and of its GPU if it uses one, in MB."""
    found = {"memory_mb": _resident() / 1e6}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["gpu_memory_mb"] = torch.cuda.memory_allocated() / 1e6
        found["gpu_memory_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def _resident() -> float:
    """Return the bytes that are in memory now; where the system tells only the most there were, those."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Log what Lightning's Trainer does to a run, and keep its checkpoints there; `pytorch_lightning` will do as well."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import weakref
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlcore
from mlcore.errors import MlcoreError, NotInstalled
from mlcore.store import Rewound
from mlcore_torch import ranks
from mlcore_torch.slots import Slots, list_checkpoints, the_run, whole

if TYPE_CHECKING:
    from lightning import pytorch
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.pytorch.callbacks import Checkpoint as Callback
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.utilities import rank_zero_only
else:
    try:
        if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
            raise ImportError  # its classes are others, of which its Trainer asks for
        from lightning.pytorch.callbacks import Checkpoint as Callback
        from lightning.pytorch.loggers import Logger
        from lightning.pytorch.loggers.logger import rank_zero_experiment
        from lightning.pytorch.utilities import rank_zero_only
    except ImportError:
        try:
            from pytorch_lightning.callbacks import Checkpoint as Callback
            from pytorch_lightning.loggers import Logger
            from pytorch_lightning.loggers.logger import rank_zero_experiment
            from pytorch_lightning.utilities import rank_zero_only
        except ImportError:
            raise NotInstalled("Lightning is not installed: pip install 'mlcore-torch[lightning]'") from None

__all__ = ["MlcoreCheckpoint", "MlcoreLogger"]

_log = logging.getLogger("mlcore")
_ENDS = {"success": "FINISHED", "failed": "FAILED"}


class MlcoreLogger(Logger):
    """Log metrics and hyperparameters of a Trainer to a run: the active one, `run`, or one started with `options`.

    A run that the logger started is ended as the process ends, or when training fails. Rank 0 alone logs.
    """

    def __init__(self, run: mlcore.Run | None = None, *, prefix: str = "", **options: Any) -> None:
        super().__init__()
        self._run, self._options, self._started = run, options, False
        self._start = f"{prefix}." if prefix else ""

    @property
    @rank_zero_experiment
    def experiment(self) -> mlcore.Run:
        """The run."""
        if self._run is None:
            self._run = mlcore.active_run()
        if self._run is None:
            self._run, self._started = mlcore.start_run(**self._options), True
        return self._run

    @property
    def name(self) -> str:
        """What Lightning calls folders after."""
        return "mlcore"

    @property
    def version(self) -> str:
        """The id of the run."""
        return str(getattr(self.experiment, "id", ""))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at a step."""
        self.experiment.log_metrics({f"{self._start}{key}": value for key, value in metrics.items()}, step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Log hyperparameters; of what is no plain value, such as a module, what it shows of itself."""
        self.experiment.log_params(_plain(vars(params) if isinstance(params, Namespace) else params))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run if training failed and the logger had started it; a test may still follow what succeeded."""
        if self._started and self._run is not None and status != "success":
            self._run.end(_ENDS.get(status, "KILLED"))
            self._run, self._started = None, False


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"{value!r:.250}"


class MlcoreCheckpoint(Callback):
    """Keep checkpoints of a Trainer as files of the run: the last one, and the `save_top_k` best ones by `monitor`.

    One is made at the end of each epoch, and after every `every_n_train_steps`. It is there whole or not at all, there
    is always one once the first was made, and they take the room of `save_top_k` + 2. `run` is by default the active
    one.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: str = "min",
        save_top_k: int = 1,
        *,
        every_n_train_steps: int | None = None,
        run: mlcore.Run | None = None,
        name: str = "checkpoints",
    ) -> None:
        self._slots = Slots(name, ".ckpt", save_top_k, monitor, mode)
        self._every, self._run, self._known_of, self._saved = every_n_train_steps, run, "", -1

    def path(self, which: str | int = "last") -> str | None:
        """Return the file of the last, the best, or the checkpoint of a step, for ``fit(ckpt_path=)``; None if none is.

        What the run logged after that step is forgotten: ask in rank 0, before training goes on. Lightning reads it by
        `torch.load`, which by default runs nothing that a file says.
        """
        run = the_run(self._run)
        found = list_checkpoints(run, name=self._slots.name)
        if not found:
            return None
        place = tempfile.mkdtemp(prefix="mlcore-")
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        chosen, path = whole(run, found, which, Path(place))
        if not ranks.rank():
            run.log_events(Rewound("run", run.id, chosen.step))
        self._known_of = run.id
        self._slots.know(found, chosen.number)
        return str(path)

    def on_train_batch_end(self, trainer: pytorch.Trainer, *_: Any) -> None:
        """Save after so many steps."""
        step = trainer.global_step
        if self._every and step % self._every == 0 and step != self._saved:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pytorch.Trainer, *_: Any) -> None:
        """Save what the epoch made, with the metrics of its validation."""
        self._save(trainer)

    def _save(self, trainer: pytorch.Trainer) -> None:
        self._saved = step = trainer.global_step
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
            path = Path(place, "checkpoint.ckpt")
            trainer.save_checkpoint(path)  # all ranks take part, and rank 0 writes
            if trainer.is_global_zero:
                try:
                    run = the_run(self._run)
                    if self._known_of != run.id:
                        self._slots.know(list_checkpoints(run, name=self._slots.name))
                        self._known_of = run.id
                    self._slots.keep(run, path.read_bytes(), step, trainer.current_epoch, metrics)
                except MlcoreError as error:
                    _log.warning("the checkpoint of step %d is not kept: %s; training goes on", step, error)

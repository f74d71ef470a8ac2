"""The journal: the file to which a process appends what it logs. `mlcore.journal.format` has its bytes."""

from mlcore.journal._values import as_int, check_key, metric_columns
from mlcore.journal._writer import Sink, Writer, started, this_process, user

__all__ = ["Sink", "Writer", "as_int", "check_key", "metric_columns", "started", "this_process", "user"]

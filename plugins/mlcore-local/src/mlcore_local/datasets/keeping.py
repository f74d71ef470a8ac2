"""Keep data with a run, in files that other programs read as well."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore import Run

__all__ = ["keep_table"]


def keep_table(run: Run, name: str, data: Any) -> None:
    """Keep tables as Parquet, where a library for it is installed, else as CSV, and arrays as numpy's ``.npy``."""
    with tempfile.TemporaryDirectory(prefix="mlcore-") as place:
        _write(data, Path(place), "data")
        run.log_artifacts(place, name)


def _write(data: Any, folder: Path, stem: str) -> None:
    if isinstance(data, Mapping):
        frame = data.get("frame")
        parts = {"data": frame} if frame is not None else {key: data[key] for key in ("data", "target") if key in data}
        for key, part in (parts or {str(key): each for key, each in data.items()}).items():
            _write(part, folder, key.replace("/", "_"))
        return
    if hasattr(data, "write_parquet"):
        data.write_parquet(folder / f"{stem}.parquet")
    elif hasattr(data, "to_frame") and not hasattr(data, "columns"):
        _write(data.to_frame(), folder, stem)
    elif hasattr(data, "to_csv"):
        try:
            data.to_parquet(folder / f"{stem}.parquet")
        except (ImportError, ValueError, TypeError):  # no library for it, or names or values that it has not
            data.to_csv(folder / f"{stem}.csv")
    elif hasattr(data, "tocsr"):
        from scipy.sparse import save_npz

        save_npz(folder / f"{stem}.npz", data.tocsr())
    elif type(data).__module__.startswith("pyarrow"):
        import pyarrow as pa
        from pyarrow import parquet

        plain = data if hasattr(data, "column_names") else pa.table({stem: data})
        table = pa.Table.from_batches([plain]) if isinstance(plain, pa.RecordBatch) else plain
        parquet.write_table(table, folder / f"{stem}.parquet")
    else:
        import numpy as np

        np.save(folder / f"{stem}.npy", np.asarray(data), allow_pickle=False)

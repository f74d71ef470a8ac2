"""The folder store's writing side: where things lie, and how to make and open them.

::

    .mlcore/
    ├── store.json                        format and id
    ├── .gitignore                        *
    ├── runs/<last two>/<run id>/         *.journal, later sealed
    ├── store/*.journal                   what belongs to no run
    ├── claims/<kind>-<first two>/*.journal   one batch each, linked when whole
    └── changes/<month>-<host>            the ids of runs that were opened, a line each
"""

import contextlib
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Self

import attrs

from mlcore._value import Value
from mlcore.errors import NewerFormat, StoreError, StoreNotFound
from mlcore.store import to_json

__all__ = ["FORMAT", "STORE_HOME", "Folder", "publish"]

FORMAT = 1
STORE_HOME = ""
_ABOUT = "store.json"
_FOLDERS = ("runs", "store", "claims", "changes")


@attrs.frozen(eq=False, repr=False)
class Folder(Value):
    """Know where things lie in a folder store, and write them."""

    root: Path
    id: str

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open a store that is there. Raises `StoreNotFound`, `NewerFormat` or `StoreError`."""
        try:
            about = json.loads((root / _ABOUT).read_bytes())
            version, id = int(about["format"]), str(about["id"])
        except FileNotFoundError:
            raise StoreNotFound(f"there is no store at {root}: log a run, or make one with `mlcore init`") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{root / _ABOUT} cannot be read: {error}") from error
        if version > FORMAT:
            raise NewerFormat(f"store {root} has format {version}, newer than {FORMAT}: upgrade mlcore to use it")
        return cls(root, id)

    @classmethod
    def create(cls, root: Path) -> tuple[Self, bool]:
        """Open a store, made if it is not there, and tell whether it was made.

        Raises `StoreError` if `root` holds something else or cannot be written.
        """
        with contextlib.suppress(StoreNotFound):
            return cls.open(root), False
        try:
            root.mkdir(parents=True, exist_ok=True)
            others = {each.name for each in root.iterdir()} - {".gitignore", "lock", *_FOLDERS}
            if _ABOUT not in others and any(not name.startswith(_ABOUT) for name in others):  # it may be made just now
                raise StoreError(f"{root} is no mlcore store and not empty: choose another folder")
            (root / ".gitignore").write_text("*\n", encoding="utf-8")
            for name in _FOLDERS:
                (root / name).mkdir(exist_ok=True)
            made = publish(root / _ABOUT, to_json({"format": FORMAT, "id": os.urandom(16).hex()}))
        except OSError as error:
            raise StoreError(f"cannot make a store at {root}: {error.strerror or error}") from error
        return cls.open(root), made

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.root / "runs" / run_id[-2:] / run_id

    def note(self, home: str) -> None:
        """Note that a run's folder changes, so that readers need not look at every run.

        One file a host and month: appends of one host do not mix, on a network file system either.
        """
        host = re.sub(r"[^A-Za-z0-9_.-]", "_", platform.node()) or "host"
        path = self.root / "changes" / f"{time.strftime('%Y%m', time.gmtime())}-{host}"
        path.parent.mkdir(exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            file.write(f"{home}\n".encode())


def publish(path: Path, data: bytes) -> bool:
    """Write a whole file under a name that is not taken; False if it is. A link cannot be half there."""
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True

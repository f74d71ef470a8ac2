"""Where the files of runs are: in a run's own folder, or below the place that the server was started with.

No run, record or request can name another place: what a run says of its files (the field ``artifacts``, the ``uri`` of
a reference) is for whoever reads it, and never followed here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlcore.artifacts import open_backend
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, MlcoreError, NotSupported, UnsafePath
from mlcore.folder import Folder
from mlcore_server.kept import FULL, IN_THE_WAY, RUN, STALE_SECONDS, Place, Unkept
from mlcore_server.routing import Declined
from mlcore_server.signing import Signer, signer_of

if TYPE_CHECKING:
    from mlcore.store import Store
    from mlcore_server.settings import Settings

__all__ = ["Places", "saying"]

_THREADS = 8
_CLEANED_SECONDS = 3600
_TOLD = (ArtifactNotFound, DigestMismatch, Unkept, UnsafePath)  # which concern who asks
_log = logging.getLogger("mlcore")
_T = TypeVar("_T")


class Places:
    """Find the place of a run's files, and do what blocks with them in threads of their own.

    A run that has files in its own folder keeps them there; any other's are below `uri`, if there is one.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        root = getattr(store, "root", None)  # of a folder store
        self._store, self._settings, self._home = store, settings, root if isinstance(root, Path) else None
        self._uri = settings.artifacts
        self._threads = ThreadPoolExecutor(_THREADS, "mlcore-files")
        self._due, self._lock = 0.0, threading.Lock()

    async def run(self, call: Callable[[], _T]) -> _T:
        """Return what `call` returns, in a thread. Raises `MlcoreError` for whatever a disk or bucket raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, saying, call)

    def of(self, run: str, *, writing: bool = False) -> Place:
        """Return the place of a run's files. Raises `UnsafePath` for what is no id, `NotSupported` if there is none."""
        if not RUN.fullmatch(run):
            raise UnsafePath(f"{run!r:.80} is no id of a run")
        from mlcore_server.local_place import LocalPlace

        if self._home is not None:
            inner = Folder(self._home, "").run_folder(run).relative_to(self._home) / "artifacts"
            if not self._uri or (self._home / inner).is_dir():
                if writing:
                    Folder.create(self._home)
                return self._clean(LocalPlace(self._home, str(inner), self._home / "uploads"), writing=writing)
        filesystem, root = self._below
        if getattr(filesystem, "local_file", False):
            if writing:
                filesystem.makedirs(root, exist_ok=True)
            place: Place = LocalPlace(Path(root), f"{run}/artifacts", Path(root, ".uploads"))
        else:
            from mlcore_server.far_place import FarPlace

            place = FarPlace(filesystem, f"{root}/{run}/artifacts", f"{root}/.uploads", self._signer)
        return self._clean(place, writing=writing)

    @cached_property
    def _below(self) -> tuple[Any, str]:
        if not self._uri:
            remedy = "start the server with --artifacts and a folder or URI, or log with MLCORE_ARTIFACTS set to one"
            raise NotSupported("of this server", "files", remedy)
        filesystem, root = open_backend(self._uri)
        return filesystem, root.rstrip("/")

    @cached_property
    def _signer(self) -> Signer | None:
        return signer_of(self._below[0], self._settings)

    def _clean(self, place: Place, *, writing: bool) -> Place:
        """Remove what nobody went on with, now and then, when somebody writes."""
        with self._lock:
            due = writing and time.monotonic() >= self._due
            if due:
                self._due = time.monotonic() + _CLEANED_SECONDS
        if due:
            self._threads.submit(place.staging().clean, time.time() - STALE_SECONDS)
        return place


def saying(call: Callable[[], _T]) -> _T:
    """Return what `call` returns, and turn what a filesystem raises, which may be anything, into an answer."""
    try:
        return call()
    except _TOLD:
        raise
    except ArtifactError as error:  # of what keeps the files: a bucket that does not know the server's keys, say
        _log.error("the place where files are kept: %s", error)
        raise Declined(424, f"the place where the server keeps files: {error}") from error
    except (MlcoreError, BlockingIOError):
        raise
    except FileNotFoundError as error:
        raise ArtifactNotFound("there is no such file") from error
    except OSError as error:
        if error.errno in FULL:
            raise Unkept(507, f"there is no room for the file: {error.strerror}") from error
        if error.errno in IN_THE_WAY:
            raise Unkept(409, "a file cannot be where a folder is, nor in a file") from error
        if error.errno == errno.ENAMETOOLONG:
            raise UnsafePath("a part of the name is too long for the server's disk") from error
        raise ArtifactError(
            f"the server cannot do that with the file: {error.strerror or type(error).__name__}"
        ) from error
    except Exception as error:
        raise ArtifactError(f"the server cannot do that with the file: {type(error).__name__}") from error

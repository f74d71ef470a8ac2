"""Bring what a URI stands for to this machine, where a project wants a path."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from mlcore.errors import ArtifactError, MlcoreError, UnsafePath
from mlcore_projects.errors import ProjectError

__all__ = ["download", "is_remote", "local_path", "without_credentials"]

_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|runs:/|[\w.+-]+::.*://")
_USER = re.compile(r"(?<=://)[^/@?#\s]*@")
_SECRET = re.compile(
    r"([?&](?:[^=&#]*(?:token|secret|passw|credential|signature|auth|api-?key|access-?key)[^=&#]*|sig|key)=)[^&#]+",
    re.IGNORECASE,
)
_SAFE = "%/:=&?~#+!$,;'@()*[]"  # what a URL may hold; spaces and the like are quoted
_CHUNK = 1 << 20


def is_remote(text: str) -> bool:
    """Tell whether a text is a URI of what does not lie on this machine."""
    found = _REMOTE.match(text)
    return found is not None and (found[1] or "").lower() != "file"


def local_path(text: str) -> str:
    """Return the path that a text means, which may be a ``file://`` URI."""
    if not text.lower().startswith("file://"):
        return text
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"must be a path on this machine, and is {text!r:.80}")
    return unquote(parts.path)


def without_credentials(uri: str) -> str:
    """Return a URI without the user and password before its host, and without values in its query that look secret.

    The user of an SSH address is none.
    """
    bare = uri if "ssh://" in uri.lower()[:10] and not re.match(r"[^/]*//[^/@]*:[^/@]*@", uri) else _USER.sub("", uri)
    return _SECRET.sub(r"\1***", bare)


def download(uri: str, folder: Path) -> Path:
    """Return the file or folder that a URI stands for, brought into a new folder, whole or not at all.

    ``http`` and ``https`` are read plainly, ``runs:/ID/NAME`` through the store, everything else by its artifact
    backend or fsspec. Raises `ProjectError`, and what the backend raises.
    """
    shown = without_credentials(uri)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    part = Path(tempfile.mkdtemp(prefix=".downloading-", dir=folder.parent))
    try:
        target = part / _name(uri)
        if uri.lower().startswith(("http://", "https://")):
            _plainly(uri, target)
        elif uri.startswith("runs:/"):
            _of_run(uri, target)
        else:
            _by_backend(uri, target)
        part.rename(folder)
    except MlcoreError as error:
        raise ProjectError(f"cannot download {shown}: {str(error).replace(uri, shown)}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ProjectError(f"cannot download {shown}: {str(reason).replace(uri, shown)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder / target.name


def _name(uri: str) -> str:
    from mlcore.artifacts import safe_path

    try:
        return safe_path(PurePosixPath(unquote(urlsplit(uri).path)).name)
    except UnsafePath:
        return "data"


def _plainly(uri: str, target: Path) -> None:
    """Read over HTTP with nothing but the standard library, which knows proxies and follows no way to ``file:``."""
    from base64 import b64encode
    from urllib.request import Request, urlopen

    parts = urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    request = Request(quote(bare, safe=_SAFE))  # noqa: S310 - http and https are what leads here
    if "@" in parts.netloc:
        user = unquote(parts.netloc.rpartition("@")[0])
        request.add_unredirected_header("Authorization", "Basic " + b64encode(user.encode()).decode())
    with urlopen(request, timeout=60) as answer, target.open("wb") as file:  # noqa: S310 - the same
        shutil.copyfileobj(answer, file, _CHUNK)
        length = answer.headers.get("Content-Length")
        if length is not None and file.tell() != int(length):
            raise ArtifactError(f"the answer was cut off: {file.tell():,} of {int(length):,} bytes came")


def _of_run(uri: str, target: Path) -> None:
    import mlcore

    run, _, name = uri.removeprefix("runs:/").partition("/")
    mlcore.get_run(run).artifacts.get(name, target)


def _by_backend(uri: str, target: Path) -> None:
    from mlcore.artifacts import open_backend, safe_path

    if "::" in uri:
        raise ArtifactError("a chain of filesystems (::) is not opened: name what it leads to")
    filesystem, path = open_backend(uri)
    try:
        if not filesystem.isdir(path):
            filesystem.get_file(path, str(target))
            return
        root = filesystem._strip_protocol(path).rstrip("/")  # noqa: SLF001 - how every filesystem of fsspec is asked
        for each in filesystem.find(path):
            name = safe_path(os.path.relpath(each, root))
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(each, str(target / name))
    except MlcoreError:
        raise
    except Exception as error:
        raise ArtifactError(getattr(error, "strerror", None) or repr(error)) from error

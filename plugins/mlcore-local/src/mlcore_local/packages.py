"""Which distributions are installed, as runs record them: read from folder names, and remembered while those stay.

The list is an entity of the kind ``environment``, whose id is its digest, in the journal of each run that had it: a
run that is copied alone brings it along.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcore import config
from mlcore.store import AttributesSet, Created, Event, to_json
from mlcore_local.context import code_root

if TYPE_CHECKING:
    from mlcore import Client, Run

__all__ = ["ENVIRONMENT", "digest_of", "installed", "packages", "packages_of"]

ENVIRONMENT = "environment"
_PART_BYTES = 48_000
_RACY_NS = 2_000_000_000  # what changed so lately may change again without another time to show
_FORMAT = 1  # of what is remembered
Packages = dict[str, dict[str, Any]]


def packages(run: Run) -> dict[str, Any]:
    """Tell which distributions are installed: their list's digest, which is an entity's id, and how many there are."""
    found, system = installed(), platform.uname()
    about = {"python": platform.python_version(), "platform": f"{system.system}-{system.machine}".lower()}
    digest = digest_of(found, **about)
    run.log_events(Created(ENVIRONMENT, digest, fields=about), *_events(digest, found))
    return {"digest": digest, "count": len(found)}


def packages_of(client: Client, run: Run) -> Packages:
    """Return what was installed when a run was made: name -> version, and url, commit, hash, path where it has those.

    Empty if the run did not record it.
    """
    digest = run.context.get("packages.digest")
    entity = client.store.get(ENVIRONMENT, [digest])[0] if digest else None
    parts = entity.attributes.get("packages", {}) if entity else {}
    return {name: about for part in sorted(parts, key=int) for name, about in parts[part].items()}


def digest_of(found: Packages, *, python: str, platform: str) -> str:
    """Return the digest of an environment: 32 hex digits."""
    return sha256(to_json([python, platform, found])).hexdigest()[:32]


def _events(digest: str, found: Packages) -> Iterator[Event]:
    """Yield the list in parts, each of which is one value, so that an index has few of them to keep."""
    part, size, number = Packages(), 0, 0
    for name, about in found.items():
        cost = len(to_json({name: about}))
        if part and size + cost > _PART_BYTES:
            yield AttributesSet(ENVIRONMENT, digest, "packages", {str(number): part})
            part, size, number = {}, 0, number + 1
        part[name] = about
        size += cost
    yield AttributesSet(ENVIRONMENT, digest, "packages", {str(number): part})


def installed() -> Packages:
    """Return the distributions that can be imported, sorted, by their normalized names; the first on `sys.path` counts.

    What was installed from a folder, as projects are that one works on, has the ``path`` by which it counts from the
    code's, and none if it lies elsewhere.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sys.path:
        for name, about in _in(path or os.getcwd()).items():
            found.setdefault(name, about)
    root = None
    for name, about in found.items():
        if folder := about.get("folder"):
            root = root or str(code_root())
            inside = os.path.relpath(folder, root) if f"{folder}/".startswith(f"{root}/") else None
            rest = {key: value for key, value in about.items() if key != "folder"}
            found[name] = rest | ({} if inside is None else {"path": inside})
    return dict(sorted(found.items()))


def _in(path: str) -> Packages:
    """Return the distributions of one folder of `sys.path`."""
    try:
        changed = os.stat(path).st_mtime_ns
        names = os.listdir(path)
    except OSError:  # not there, or an archive
        return {}
    folders = sorted(name for name in names if name.endswith((".dist-info", ".egg-info", ".egg-link")))
    if not folders:
        return {}
    kept = config.user_cache() / "installed" / f"{sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_bytes())
        if known["for"] == [_FORMAT, path, changed]:
            remembered: Packages = known["found"]
            return remembered
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        name, about = _distribution(path, folder)
        if name:
            found.setdefault(name, about)
    if time.time_ns() - changed > _RACY_NS:
        _keep(kept, {"for": [_FORMAT, path, changed], "found": found})
    return found


def _keep(file: Path, content: Mapping[str, Any]) -> None:
    with suppress(OSError):  # it is read anew next time
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = file.with_suffix(f".{os.getpid()}")
        new.write_bytes(json.dumps(content).encode())
        new.replace(file)


def _distribution(path: str, folder: str) -> tuple[str, dict[str, Any]]:
    """Return a distribution's normalized name and what is known of it, no name if it cannot be told."""
    stem, kind = os.path.splitext(folder)
    name, _, version = stem.partition("-")
    version = re.sub(r"-py\d.*", "", version)
    if not version:  # as in development mode of old
        about = _text(os.path.join(path, folder, "PKG-INFO")) or _text(os.path.join(path, folder))
        told = dict(re.findall(r"^(Name|Version): *(.*?) *$", about.partition("\n\n")[0], re.MULTILINE))
        name, version = told.get("Name", ""), told.get("Version", "")
    found: dict[str, Any] = {"version": version}
    if kind == ".dist-info" and (direct := _text(os.path.join(path, folder, "direct_url.json"))):
        with suppress(ValueError, AttributeError, TypeError):
            found |= _origin(json.loads(direct))
    return re.sub(r"[-_.]+", "-", name).lower(), found


def _origin(direct: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a direct_url.json tells (PEP 610), without what may let somebody in."""
    from urllib.parse import unquote, urlsplit, urlunsplit

    url = urlsplit(str(direct["url"]))
    archive, source = direct.get("archive_info") or {}, direct.get("vcs_info") or {}
    hashes = [f"{kind}:{value}" for kind, value in (archive.get("hashes") or {}).items()]
    found: dict[str, Any] = {"hash": hashes[0] if hashes else str(archive.get("hash", "")).replace("=", ":", 1)}
    found |= {"commit": source.get("commit_id"), "editable": (direct.get("dir_info") or {}).get("editable")}
    if url.scheme == "file":
        found["folder" if "dir_info" in direct else "file"] = unquote(url.path) if "dir_info" in direct else ""
    else:
        found["url"] = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
    return {key: value for key, value in found.items() if value}


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

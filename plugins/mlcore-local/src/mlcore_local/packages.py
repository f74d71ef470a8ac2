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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from mlcore import config
from mlcore.store import AttributesSet, Created, to_json
from mlcore_local.context import code_root

if TYPE_CHECKING:
    from mlcore import Client, Run

__all__ = ["ENVIRONMENT", "installed", "packages", "packages_of"]

ENVIRONMENT = "environment"
_PART_BYTES = 48_000
_RACY_NS = 2_000_000_000  # what changed so lately may change again without another time to show
_INFO = (".dist-info", ".egg-info", ".egg-link")
Package = dict[str, Any]


def packages(run: Run) -> dict[str, Any]:
    """Tell which distributions are installed: their list's digest, which is an entity's id, and how many there are."""
    known = _remembered()
    id, parts = known["digest"], known["parts"]
    about = {"python": known["python"], "platform": known["platform"]}
    listed = (AttributesSet(ENVIRONMENT, id, "packages", {str(number): part}) for number, part in enumerate(parts))
    run.log_events(Created(ENVIRONMENT, id, fields=about), *listed)
    return {"digest": id, "count": sum(map(len, parts))}


def installed() -> dict[str, Package]:
    """Return the distributions that can be imported; the first of a name on `sys.path` counts.

    Each has its ``version`` and maybe ``url``, ``commit``, ``hash`` or ``editable``. One that was installed from a
    folder has the ``path`` by which that counts from the code's root, and none if it lies elsewhere.
    """
    return _joined(_remembered()["parts"])


def packages_of(client: Client, run: Run) -> dict[str, Package]:
    """Return what was installed when a run was made, as `installed` tells it; empty if it is not recorded."""
    digest = run.context.get("packages.digest")
    entity = client.store.get(ENVIRONMENT, [digest])[0] if digest else None
    parts = entity.attributes.get("packages", {}) if entity else {}
    return _joined([parts[number] for number in sorted(parts, key=int)])


def _joined(parts: Iterable[Mapping[str, Any]]) -> dict[str, Package]:
    every = ((name, about) for part in parts for name, about in part.items())
    return {name: {"version": about} if isinstance(about, str) else dict(about) for name, about in every}


def _remembered() -> dict[str, Any]:
    """Return the environment as it is written: from the user's cache, if no folder of packages changed since."""
    about = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}".lower()}
    about, root = about | {"format": "2"}, code_root()
    kept = config.user_cache() / "installed" / f"{crc32(os.fsencode(sys.prefix)):08x}-{about['python']}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known: dict[str, Any] = json.loads(kept.read_bytes())
        same = all(known[key] == value for key, value in about.items()) and known["root"] in ("", root)
        if same and _unchanged(known["folders"]):
            return known
    folders, found = dict[str, int](), dict[str, Any]()
    for path in dict.fromkeys(map(os.path.abspath, sys.path)):
        if names := _infos(path):
            folders[path] = os.stat(path).st_mtime_ns
            for name, told in (_distribution(path, each) for each in names):
                found.setdefault(name, told)
    about["root"] = root if any("folder" in told for told in found.values()) else ""  # which paths count from
    found = {name: _placed(found[name], root) for name in sorted(found) if name}
    content = to_json([about["python"], about["platform"], found])
    known = {**about, "digest": _digest(content), "folders": folders, "parts": list(_parts(found))}
    if time.time_ns() - max(folders.values(), default=0) > _RACY_NS:
        _keep(kept, known)
    return known


def _unchanged(folders: Mapping[str, int]) -> bool:
    """Tell whether the folders of `sys.path` that have packages are those of before, at the same times."""
    there = dict.fromkeys(map(os.path.abspath, sys.path))
    with_some = [path for path in there if path in folders or _infos(path)]
    return with_some == list(folders) and all(os.stat(path).st_mtime_ns == time for path, time in folders.items())


def _infos(path: str) -> list[str]:
    with suppress(OSError):  # not there, or an archive
        return sorted(name for name in os.listdir(path) if name.endswith(_INFO))
    return []


def _keep(file: Path, content: Mapping[str, Any]) -> None:
    with suppress(OSError):  # it is found anew next time
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = file.with_suffix(f".{os.getpid()}")
        new.write_bytes(to_json(content))
        new.replace(file)


def _digest(content: bytes) -> str:
    """Return the first 32 hex digits of a digest."""
    from hashlib import sha256  # loads OpenSSL: only when something changed

    return sha256(content).hexdigest()[:32]


def _parts(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the list in parts, each of which is one value that fits into an event, so that an index has few to keep."""
    part, size = dict[str, Any](), 0
    for name, about in found.items():
        cost = len(to_json({name: about}))
        if part and size + cost > _PART_BYTES:
            yield part
            part, size = {}, 0
        part[name] = about
        size += cost
    if part:
        yield part


def _placed(about: Package, root: str) -> Any:
    """Return what is written of a package: only its version where there is no more, and no folder of this machine's."""
    folder = about.pop("folder", None)
    if folder and f"{folder}/".startswith(f"{root}/"):
        about["path"] = os.path.relpath(folder, root)
    return about if len(about) > 1 else about["version"]


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

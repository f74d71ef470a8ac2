"""The bill of materials of a model: what it needs, as it is installed here, in CycloneDX 1.6.

It says what the metadata of installed distributions say: nothing is imported, run or asked over the network for it.
Below the model stand its requirements, and what those require in turn on this machine. There is no time in it and the
serial number is made of the content, so two of the same model and environment are the same. See
https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata as installed
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import attrs

__all__ = ["SBOM", "make_sbom", "write_sbom"]

SBOM = "sbom.cdx.json"
_MODEL = "model"
_NAMESPACE = uuid.UUID("0f8b5c1e-5a2c-4d6e-9c57-6d1f5b1f8a57")  # of these serial numbers
_LONGEST = 100  # characters of a licence's name: some put the whole text there
_HASHES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_FIELD = re.compile(
    r"^(Name|Version|Summary|License|License-Expression|Classifier|Requires-Dist): *(.*?) *$", re.MULTILINE
)


def write_sbom(folder: Path, name: str, requirements: Sequence[str]) -> None:
    """Write the bill of materials of a model into its folder; see `make_sbom`."""
    text = json.dumps(make_sbom(name, requirements), indent=1, ensure_ascii=False)
    (folder / SBOM).write_text(text + "\n", encoding="utf-8")


def make_sbom(name: str, requirements: Iterable[str]) -> dict[str, Any]:
    """Return the bill of materials of a model with these lines of a requirements.txt, as CycloneDX 1.6.

    What is not installed here, or in another version than is required, stands there without what it requires itself,
    and as not completely known.
    """
    found = _Closure()
    python = _python()
    top = [found.add(line) for line in requirements]
    made = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "mlcore-signing", "version": _own_version()}]},
            "component": {"type": "machine-learning-model", "bom-ref": _MODEL, "name": name},
        },
        "components": [python, *(found.components[ref] for ref in sorted(found.components))],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": sorted({python["bom-ref"], *filter(None, top)})},
            {"ref": python["bom-ref"]},
            *({"ref": ref, "dependsOn": sorted(each)} for ref, each in sorted(found.requires.items())),
        ],
        **({"compositions": [{"aggregate": "unknown", "dependencies": sorted(found.open)}]} if found.open else {}),
    }
    return {**made, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps(made, sort_keys=True))}"}


@cache
def _own_version() -> str:
    return installed.version("mlcore-signing")


@cache
def _python() -> dict[str, Any]:
    version = platform.python_version()
    purl = f"pkg:generic/{platform.python_implementation().lower()}@{version}"
    about = {"type": "platform", "bom-ref": purl, "name": platform.python_implementation(), "version": version}
    system = {"name": "mlcore:platform", "value": f"{platform.system()} {platform.machine()}"}
    return {**about, "purl": purl, "properties": [system]}


@attrs.frozen
class _Distribution:
    """Hold what is known of an installed distribution."""

    component: Mapping[str, Any]
    requires: tuple[str, ...]  # as requirements are written

    @property
    def ref(self) -> str:
        return str(self.component["bom-ref"])


@attrs.define
class _Closure:
    """Collect what requirements lead to: components by their reference, what each requires, and what is `open`."""

    components: dict[str, Mapping[str, Any]] = attrs.field(factory=dict)
    requires: dict[str, set[str]] = attrs.field(factory=dict)
    open: set[str] = attrs.field(factory=set)
    seen: dict[tuple[str, frozenset[str]], str] = attrs.field(factory=dict)

    def add(self, line: str) -> str:
        """Add a line of a requirements.txt, and all below it; return its reference, empty if it means nothing here."""
        wanted = _parsed(line.partition(" #")[0].partition(" --hash")[0])
        if wanted is None:
            self.open.add(_MODEL)
            return ""
        if wanted.marker is not None and not wanted.marker.evaluate():
            return ""
        return self._follow(wanted)

    def _follow(self, wanted: Any) -> str:
        """Add what a requirement leads to. What was met before is not met again, so circles end."""
        from packaging.utils import canonicalize_name

        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        known = _distribution(name)
        fits = known is not None and wanted.specifier.contains(str(known.component["version"]), prereleases=True)
        if known is None or not fits:
            return self._missing(name, wanted)
        if (name, extras) in self.seen:
            return known.ref
        self.seen[name, extras] = known.ref
        self.components[known.ref] = known.component
        below = self.requires.setdefault(known.ref, set())
        for each in filter(None, map(_parsed, known.requires if extras else filter(_plain, known.requires))):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                below.add(self._follow(each))
        return known.ref

    def _missing(self, name: str, wanted: Any) -> str:
        pinned = [
            each.version for each in wanted.specifier if each.operator in ("==", "===") and "*" not in each.version
        ]
        about = {"name": wanted.name, **({"version": pinned[0]} if pinned else {})}
        purl = f"pkg:pypi/{name}" + (f"@{quote(pinned[0], safe='')}" if pinned else "")
        said = {"name": "mlcore:installed", "value": "false"}
        self.components.setdefault(
            purl, {"type": "library", "bom-ref": purl, **about, "purl": purl, "properties": [said]}
        )
        self.requires.setdefault(purl, set())
        self.open.add(purl)
        return purl


# One distribution


@cache
def _distribution(name: str) -> _Distribution | None:
    """Return what the metadata of a distribution say, None if it is not installed; read once in a process."""
    try:
        found = installed.distribution(name)
    except installed.PackageNotFoundError:
        return None
    text = (found.read_text("METADATA") or found.read_text("PKG-INFO") or "").partition("\n\n")[0]
    told = dict[str, list[str]]()
    for key, value in _FIELD.findall(text):
        told.setdefault(key, []).append(value)
    return _Distribution(_component(name, told, found), tuple(told.get("Requires-Dist", ())))


def _plain(line: str) -> bool:
    """Tell whether a requirement is none of an extra: of those there are most, and to parse them takes longest."""
    return "extra" not in line.partition(";")[2]


@cache
def _parsed(line: str) -> Any:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def _component(name: str, told: Mapping[str, Sequence[str]], found: installed.Distribution) -> dict[str, Any]:
    version = told.get("Version", [""])[0]
    origin = _origin(found)
    place = "generic" if origin.pop("local", False) else "pypi"  # a package of that name may be another's there
    purl = f"pkg:{place}/{name}@{quote(version, safe='')}"
    about = {"type": "library", "bom-ref": purl, "name": told.get("Name", [name])[0], "version": version}
    summary, licenses = told.get("Summary", [""])[0], _licenses(told)
    record = found.read_text("RECORD")
    digest = record and hashlib.sha256(record.encode()).hexdigest()
    return {
        **about,
        **({"description": summary} if summary else {}),
        **({"licenses": licenses} if licenses else {}),
        "purl": purl,
        **origin,
        **({"properties": [{"name": "mlcore:record-sha256", "value": digest}]} if digest else {}),
    }


def _licenses(told: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the licences of a distribution: an SPDX expression, or else the names it gives."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    given = [each for key in ("License-Expression", "License") for each in told.get(key, ()) if each != "UNKNOWN"]
    for text in given[:1]:
        with suppress(InvalidLicenseExpression):
            return [{"expression": str(canonicalize_license_expression(text))}]
    classified = [each.split(" :: ") for each in told.get("Classifier", []) if each.startswith("License :: ")]
    names = [each[-1] for each in classified if each[-1] != "OSI Approved"] or given
    return [{"license": {"name": each}} for each in dict.fromkeys(names) if 0 < len(each) <= _LONGEST]


def _origin(found: installed.Distribution) -> dict[str, Any]:
    """Return where a distribution came from, if not from an index: no path of this machine, and nothing secret."""
    try:
        about = json.loads(found.read_text("direct_url.json") or "{}")
        url = urlsplit(str(about.get("url", "")))
        archive, repository = about.get("archive_info"), about.get("vcs_info")
        hashes = dict((archive or {}).get("hashes") or {})
    except (ValueError, TypeError, AttributeError):
        return {}
    if not url.scheme:
        return {}
    kept = [{"alg": _HASHES[kind], "content": each} for kind, each in sorted(hashes.items()) if kind in _HASHES]
    origin: dict[str, Any] = {"hashes": kept} if kept else {}
    if url.scheme == "file":
        return {**origin, "local": True}
    plain = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], quote(url.path, safe="/%@+"), "", ""))
    reference = {"type": "vcs" if repository else "distribution", "url": plain}
    if repository:
        reference["comment"] = f"commit {repository.get('commit_id', 'unknown')}"
    return {**origin, "externalReferences": [reference]}

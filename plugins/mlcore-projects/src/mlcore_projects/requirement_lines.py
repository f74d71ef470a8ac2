"""Lines of requirements, as pip reads them: which are for an index, which are local packages, and which are refused.

A line is data. It is never put into a shell, options come from a short list, and what looks like neither a requirement,
an address nor a path is an error before any program sees it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs

from mlcore_projects.locks import EnvironmentFailed

__all__ = ["Asked", "Local", "check", "read_lines", "without_credentials"]

_FLAGS = ("--no-index", "--pre", "--prefer-binary", "--require-hashes")
_VALUES = {
    "-i": "--index-url", "--extra-index-url": "", "--find-links": "", "--index-url": "", "--no-binary": "",
    "--only-binary": "", "--trusted-host": "", "-f": "--find-links",
}  # fmt: skip
_FILES = {"-c": "-c", "--constraint": "-c", "-r": "-r", "--requirement": "-r"}
_EDITABLE = ("-e", "--editable")
_SCHEMES = ("http", "https", "git+http", "git+https", "git+ssh", "git+file", "hg+http", "hg+https", "svn+https")
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz")
_HASH = r"--hash[= ]sha(?:256|384|512):[0-9a-f]+"
_NAMED = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*@\s*(.*)$")
_DEPTH = 20


@attrs.frozen
class Local:
    """Name a package that lies on this machine, a folder or an archive; `said` is how it was asked for."""

    path: Path
    said: str
    extras: str = ""
    marker: str = ""


@attrs.frozen
class Asked:
    """Hold lines of requirements with all files read that they name.

    `options` are lines, too: where packages come from. Both may hold credentials, so they are shown to nobody.
    """

    lines: tuple[str, ...] = attrs.field(default=(), repr=False)
    constraints: tuple[str, ...] = attrs.field(default=(), repr=False)
    options: tuple[str, ...] = attrs.field(default=(), repr=False)
    local: tuple[Local, ...] = ()

    @property
    def indexes(self) -> tuple[str, ...]:
        """Where packages come from by these lines, without credentials."""
        return tuple(without_credentials(each.partition("=")[2]) for each in self.options if "://" in each)

    def with_credentials(self, url: str) -> str:
        """Return an address of a lock as these lines have it: with what is needed to be let in."""
        for match in re.finditer(r"[\w+.-]+://\S+", " ".join(self.lines)):
            if without_credentials(match[0]) == url:
                return match[0]  # the query, too
        host = _host(url)
        for each in re.findall(r"://([^/@\s?#]+)@([^/\s?#]+)", " ".join((*self.lines, *self.options))):
            if each[1] == host:
                return url.replace(f"://{host}", f"://{each[0]}@{host}", 1)
        return url


def _host(url: str) -> str:
    return urlsplit(url).netloc


def without_credentials(text: str) -> str:
    """Return text with every address in it free of who asks: no user but one of ssh, no password, no query."""
    text = re.sub(r"(ssh://[^/@:\s?#]*):[^/@\s?#]*@", r"\1@", text)
    text = re.sub(r"((?<!ssh)://)[^/@\s?#]*@", r"\1", text)
    return re.sub(r"(://[^\s?#]*)\?[^\s#]*", r"\1", text)


def read_lines(lines: Iterable[str], folder: Path) -> Asked:
    """Read lines and the files they name; paths begin in `folder`. Raises `EnvironmentFailed` at the first bad one."""
    found: dict[str, list[str]] = {"lines": [], "constraints": [], "options": []}
    local: list[Local] = []
    for kind, line, where in _flat(lines, folder, folder):
        if kind == "options":
            found["options"].append(line)
        elif kind == "lines" and (one := _local(line, folder, where)):
            local.append(one)
        else:
            found[kind].append(line)
    return Asked(tuple(found["lines"]), tuple(found["constraints"]), tuple(found["options"]), tuple(local))


def _flat(
    lines: Iterable[str], folder: Path, where: Path, kind: str = "lines", depth: int = 0
) -> Iterator[tuple[str, str, Path]]:
    if depth > _DEPTH:
        raise EnvironmentFailed(f"files of requirements in {where} name each other without end")
    for raw in lines:
        line = _one_line(raw)
        if not line:
            continue
        if not line.startswith("-"):
            yield kind, _plain(line), where
            continue
        for option, value in _options(line):
            if option in _FILES:
                file = _file(value, where, folder)
                inner = "constraints" if _FILES[option] == "-c" else kind
                yield from _flat(_lines_of(file), folder, file.parent, inner, depth + 1)
            elif option in _EDITABLE:
                yield kind, _plain(_one_line(value)), where
            else:
                yield "options", _option(option, value, where), where


def _one_line(raw: str) -> str:
    text = re.sub(r"(^|\s+)#.*$", "", raw).strip() if "\n" not in raw.strip() else raw
    if strange := re.search(r"[^\S \t]|[\x00-\x08\x0e-\x1f\x7f]", text):
        raise EnvironmentFailed(f"a line of requirements holds {strange[0]!r}: {_shown(text)}")
    return text


def _options(line: str) -> Iterator[tuple[str, str]]:
    if match := re.match(r"^(?:-e|--editable)(?:\s+|=)(.*)$", line):
        yield "-e", match[1].strip()
        return
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise EnvironmentFailed(f"{_shown(line)} cannot be read: {error}") from None
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        if name in _FLAGS and not equals:
            yield name, ""
            continue
        if name not in _VALUES and name not in _FILES:
            raise EnvironmentFailed(f"{_shown(line)}: the option {_shown(name)} has no place among requirements")
        if not equals:
            value = words.pop(0) if words else ""
        if not value or value.startswith("-"):
            raise EnvironmentFailed(f"{_shown(line)}: {name} needs a value")
        yield name, value


def _option(name: str, value: str, where: Path) -> str:
    name = _VALUES.get(name) or name
    addressed = "://" in value or name in ("--index-url", "--extra-index-url")
    if name != "--trusted-host" and addressed and not re.match(r"(https?|file)://\S+$", value):
        raise EnvironmentFailed(f"{name} {_shown(value)} is no address of an index")
    if name == "--find-links" and "://" not in value:
        value = (where / value).resolve().as_uri()
    return f"{name}={value}" if value else name


def _file(value: str, where: Path, folder: Path) -> Path:
    file = next((each / value for each in (where, folder) if (each / value).is_file()), None)
    if file is None:
        raise EnvironmentFailed(f"there is no file of requirements {value!r} in {where}")
    return file


def _lines_of(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFailed(f"requirements cannot be read: {error}") from error
    return re.sub(r"(?m)(?:^|(?<=\s))#.*$", "", text).replace("\\\r\n", " ").replace("\\\n", " ").splitlines()


def _plain(line: str) -> str:
    """Return a line that names no option but hashes, and an address only of a kind that is known."""
    without = re.sub(rf"\s{_HASH}", "", line)
    if match := re.search(r"(?:^|\s)(-\S+)", without):
        raise EnvironmentFailed(f"{_shown(line)}: the option {_shown(match[1])} has no place among requirements")
    if "://" in without or "::" in without:
        named = _NAMED.match(without)
        url = (named[3] if named else without).strip()
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in (*_SCHEMES, "file") or "@-" in rest or "::" in rest:
            raise EnvironmentFailed(f"{_shown(line)} is no address that packages may come from")
    return line


def _local(line: str, folder: Path, where: Path) -> Local | None:
    text = re.sub(rf"\s{_HASH}", "", line)
    text, _, marker = (part.strip() for part in re.split(r"(\s;|;\s)", f"{text} ; ", maxsplit=1))
    marker = marker.rstrip("; ")
    named = _NAMED.match(text)
    extras, address = ((named[2] or "")[1:-1], named[3]) if named else ("", text)
    if not named and (match := re.match(r"^(.*[^\s])\s*\[([^\]]*)\]$", address)) and _is_path(match[1]):
        address, extras = match[1], match[2]
    if not _is_path(address):
        return None
    path = Path(_from_uri(address)) if address.startswith("file:") else Path(address).expanduser()
    places = (folder / path, where / path)
    found = next((each.resolve() for each in places if each.exists()), None)
    if found is None:
        raise EnvironmentFailed(f"there is no package at {path} (for the requirement {_shown(line)})")
    return Local(found, without_credentials(address), extras, marker)


def _is_path(text: str) -> bool:
    if text.startswith("file:"):
        return True
    if "://" in text:
        return False
    return text.startswith((".", "/", "~")) or ("@" not in text and ("/" in text or text.endswith(_ARCHIVES)))


def _from_uri(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise EnvironmentFailed(f"{_shown(uri)} is on another machine")
    inner = re.search(r"subdirectory=([^&]+)", parts.fragment)
    return unquote(parts.path) + (f"/{inner[1]}" if inner else "")


def check(asked: Asked) -> None:
    """Raise `EnvironmentFailed` for the first line that is no requirement (PEP 508); done before a program sees it."""
    from packaging.markers import InvalidMarker, Marker
    from packaging.requirements import InvalidRequirement, Requirement

    for line in (*asked.lines, *asked.constraints):
        text = re.sub(rf"\s{_HASH}", "", line)
        if "://" not in text:
            try:
                Requirement(text)
            except InvalidRequirement as error:
                reason = str(error).splitlines()[0]
                raise EnvironmentFailed(f"{_shown(line)} is no requirement: {reason}") from None
    for each in asked.local:
        try:
            Marker(each.marker) if each.marker else None
        except InvalidMarker as error:
            raise EnvironmentFailed(f"{each.said}: {str(error).splitlines()[0]}") from None


def _shown(text: str) -> str:
    short = without_credentials(text)
    return repr(short if len(short) < 200 else f"{short[:200]}...")

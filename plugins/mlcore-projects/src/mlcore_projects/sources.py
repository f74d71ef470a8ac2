"""Fetch a project: a folder, a script, or exactly one revision of a git repository.

A commit is fetched once and kept in the user's cache, where nothing runs; each call makes a new tree of it, since what
runs in a tree may change it. Nothing appears at its place before it is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import attrs

from mlcore.config import user_cache
from mlcore_projects.documents import nearest
from mlcore_projects.downloading import without_credentials
from mlcore_projects.errors import ProjectError, SourceError
from mlcore_projects.git import GitError, credentials, git, refs
from mlcore_projects.reading import read_project
from mlcore_projects.specs import Project, Source

__all__ = ["fetch"]

_SCHEMES = ("https", "http", "ssh", "git", "file")
_SCP = re.compile(r"([\w.-]+@)?([\w.-]+|\[[0-9A-Fa-f:.]+\]):(?!//)[^:\s]+")  # git@host:owner/name.git
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{4,63}")
_NOT_OFFERED = ("not our ref", "unadvertised object", "couldn't find remote ref", "no such remote ref", "dumb http")
_PART, _DAY = ".part-", 86_400
# What git itself refuses in names (git-check-ref-format), and what would be read as an option or an expression.
_NO_NAME = re.compile(r"^[-/.]|[\s~^:?*\[\\\x00-\x1f\x7f]|\.\.|@\{|//|\.lock(/|$)|/\.|[/.]$|^@$")


@attrs.frozen
class _Address:
    """Say which revision of which repository is meant; `settings` are git's for it, credentials among them."""

    url: str
    subfolder: str
    revision: str
    settings: dict[str, str]

    @property
    def local(self) -> bool:
        return self.url.startswith("file:")

    def git(self, *arguments: str, folder: Path) -> str:
        return git(arguments, folder, secrets=self.settings, local=self.local)


def fetch(source: str, *, version: str | None = None, folder: Path | None = None) -> Project:
    """Return the project that a source names, fetched if it is not on this machine.

    A path is a folder, its project file or a script, as it is; with ``@rev`` or `version`, a branch, a tag or a commit,
    it is a repository. A URL of a repository (https, http, ssh, git, file, ``git@host:path``) may end in ``#subfolder``
    and ``@rev``. What is fetched becomes `folder`, a new one, by default one in the user's cache. Raises `SourceError`,
    which names no credentials, and `ProjectError`.
    """
    if not source.strip() or not source.isprintable() or source.startswith("-"):
        raise SourceError(f"{source!r:.80} is no source of a project: give a folder, a script or a repository's URL")
    shown = without_credentials(source)
    body, fragment = _cut(source)
    body, inner = _revised(body)
    subfolder, _, other = fragment.partition("@")
    said = {each for each in (inner, other, version or "") if each}
    if len(said) > 1:
        raise SourceError(f"{shown} names several revisions, {' and '.join(sorted(map(repr, said)))}: give one")
    address = _address(body, _subfolder(subfolder), _revision("".join(said)), shown)
    if isinstance(address, Path):
        return read_project(address)
    try:
        commit, tree = _tree(address, folder)
    except GitError as error:
        raise SourceError(f"cannot fetch {shown}: {error}{_hint(str(error))}") from None
    except OSError as error:
        raise SourceError(f"cannot fetch {shown}: {error.strerror or error}") from error
    uri = _path_of(address.url) if address.local else address.url
    found = Source(uri, "git", address.subfolder, address.revision, commit)
    try:
        return read_project(_below(tree, address.subfolder, shown), found)
    except ProjectError:
        shutil.rmtree(tree, ignore_errors=True)
        raise


def _cut(source: str) -> tuple[str, str]:
    """Return what stands before and after the ``#``, unless it is part of the name of what is here."""
    if "://" not in source and Path(source).exists():
        return source, ""
    body, _, fragment = source.partition("#")
    return body, fragment.removeprefix("subdirectory=")


def _revised(body: str) -> tuple[str, str]:
    """Return an address or a path, and the revision behind an ``@`` in its path."""
    if "://" in body:
        scheme, _, rest = body.partition("://")
        host, slash, path = rest.partition("/")
        start = f"{scheme}://{host}{slash}"
        if scheme.lower() == "file" and Path(_path_of(body)).exists():
            return body, ""
    elif Path(body).exists():
        return body, ""
    elif _SCP.fullmatch(body):
        host, colon, path = body.partition(":")
        start = host + colon
    else:
        start, path = "", body
    before, at, revision = path.rpartition("@")
    return (start + before, revision) if at and before and not before.endswith("/") else (body, "")


def _address(body: str, subfolder: str, revision: str, shown: str) -> _Address | Path:
    """Return the repository that is meant, or the path that is to be read as it is."""
    scheme, separator, _ = body.partition("://")
    scheme = scheme.lower() if separator else ""
    if (
        "::" in scheme
        or ("::" in body and not separator)
        or (separator and scheme.removeprefix("git+") not in _SCHEMES)
    ):
        raise SourceError(f"{shown} names a way to a repository that is not used: {', '.join(_SCHEMES)} are")
    if body.lower().endswith(".zip"):
        raise SourceError(f"{shown} is a zip: unpack it, and name the folder")
    path = Path(_path_of(body))
    if scheme in ("", "file", "git+file") and (scheme or path.exists() or not _SCP.fullmatch(body)):
        if scheme and urlsplit(body).netloc not in ("", "localhost"):
            raise SourceError(f"{shown} is on another machine: use ssh or https")
        if not path.exists():
            raise SourceError(f"there is no folder, script or repository {shown}")
        if revision or scheme == "git+file" or (scheme and _repository(path)):
            return _local(path.resolve(), subfolder, revision, shown)
        return _below(path, subfolder, shown) if subfolder else path
    url = body[len("git+") :] if scheme.startswith("git+") else body
    host = urlsplit(url).netloc if separator else url.partition(":")[0]
    if host.rpartition("@")[2].startswith("-") or host.startswith("-") or not host:
        raise SourceError(f"{shown} looks like an option, and is no address")
    url, settings = credentials(url)
    if without_credentials(url) != url:
        raise SourceError(f"{shown} has a secret in its query: give it before the host, or by a credential helper")
    return _Address(url, subfolder, revision, settings)


def _local(path: Path, subfolder: str, revision: str, shown: str) -> _Address:
    """Return the repository on this machine that a path lies in, and the path's place in it."""
    repository = _repository(path)
    if repository is None:
        raise SourceError(f"{shown} has no revisions, as it is in no git repository")
    below = [part for part in (path.relative_to(repository).as_posix(), subfolder) if part not in ("", ".")]
    return _Address(repository.as_uri(), "/".join(below), revision, {})


def _repository(path: Path) -> Path | None:
    bare = [path] if (path / "HEAD").is_file() and (path / "objects").is_dir() else []
    return next((each for each in (*bare, path, *path.parents) if each in bare or (each / ".git").exists()), None)


def _path_of(uri: str) -> str:
    return unquote(urlsplit(uri).path) if "://" in uri else uri


def _subfolder(text: str) -> str:
    parts = PurePosixPath(text.strip("/")).parts
    if ".." in parts or text.startswith(("-", "~")) or "\\" in text or ".git" in parts:
        raise SourceError(f"{text!r:.80} is no folder within a repository")
    return "/".join(parts)


def _revision(text: str) -> str:
    if text and _NO_NAME.search(text):
        raise SourceError(f"{text!r:.80} names no revision: give a branch, a tag or a commit")
    return text


def _below(folder: Path, subfolder: str, shown: str) -> Path:
    path = folder / subfolder
    if not path.exists() or not path.resolve().is_relative_to(folder.resolve()):
        raise SourceError(f"{shown}: there is no folder {subfolder!r} in it")
    return path


def _hint(reason: str) -> str:
    if (
        "could not read Username" in reason
        or "Authentication failed" in reason
        or "terminal prompts disabled" in reason
    ):
        return ". It may be private: let git know you (a credential helper, an SSH key), or check the address"
    if "Could not resolve host" in reason or "Network is unreachable" in reason:
        return ". Is there a network?"
    return ""


def _tree(address: _Address, folder: Path | None) -> tuple[str, Path]:
    """Return the commit that is meant, and a new tree of it."""
    cache = user_cache() / "projects"
    kept = cache / hashlib.sha256(address.url.encode()).hexdigest()[:20]
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    _tidy(kept)
    commit = address.revision if _COMMIT.fullmatch(address.revision) else ""
    if not commit or not (kept / commit).is_dir():
        try:
            with _new(kept) as part:
                commit = _cloned(address, part)
                with suppress(OSError):  # somebody else was as quick
                    part.rename(kept / commit)
        finally:
            with suppress(OSError):  # it holds other commits
                kept.rmdir()
    if folder is None:
        trees = cache / "trees"
        name = re.sub(r"[^\w.-]", "", PurePosixPath(address.url).name.removesuffix(".git")) or "project"
        folder = trees / f"{name}-{commit[:12]}-{os.urandom(4).hex()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _new(folder.parent) as part:
        shutil.copytree(kept / commit, part, symlinks=True, dirs_exist_ok=True)
        part.rename(folder)
    return commit, folder


@contextmanager
def _new(beside: Path) -> Iterator[Path]:
    """Give a new folder, and remove it unless it was moved to where it belongs."""
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=beside))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _tidy(folder: Path) -> None:
    """Remove what processes left that were killed while they fetched."""
    for part in folder.glob(f"{_PART}*"):
        with suppress(OSError):
            if part.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(part, ignore_errors=True)


def _cloned(address: _Address, part: Path) -> str:
    """Fetch one commit, and no history, into an empty folder; return it."""
    address.git("init", "--quiet", folder=part)
    address.git("remote", "add", "--", "origin", address.url, folder=part)
    commit, name = _resolved(address, part)
    try:
        address.git("fetch", "--quiet", "--depth=1", "--no-tags", "origin", commit or "HEAD", folder=part)
    except GitError as error:
        if commit and not any(each in str(error) for each in _NOT_OFFERED):
            raise
        commit = _all(address, commit or address.revision, part)
    address.git("update-ref", f"refs/remotes/origin/{name or 'fetched'}", commit, folder=part)
    address.git("checkout", "--quiet", "--detach", commit, "--", folder=part)
    if (part / ".gitmodules").is_file():
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--checkout")
        try:
            address.git(*update, "--depth=1", folder=part)
        except GitError:  # a server that offers no single commits
            address.git(*update, folder=part)
    return commit


def _resolved(address: _Address, part: Path) -> tuple[str, str]:
    """Return the commit of a revision, and the branch if it is one. Raises `SourceError` with the nearest name."""
    revision = address.revision
    if _COMMIT.fullmatch(revision):
        return revision, ""
    found = refs(address.git("ls-remote", "--quiet", "origin", folder=part))
    if not revision:
        if "HEAD" not in found:
            raise GitError("the repository is empty")
        return found["HEAD"], ""
    kinds = [kind for kind in ("", "refs/heads/", "refs/tags/") if f"{kind}{revision}" in found]
    commits = {found[f"{kind}{revision}"] for kind in kinds}
    if len(commits) > 1:
        raise GitError(f"{revision!r} is a branch and a tag: write refs/heads/{revision} or refs/tags/{revision}")
    if commits:
        return commits.pop(), revision if "refs/heads/" in kinds else ""
    if _SHORT.fullmatch(revision):
        starting = {commit for commit in found.values() if commit.startswith(revision)}
        return (starting.pop() if len(starting) == 1 else _all(address, revision, part)), ""
    names = [name.removeprefix("refs/heads/").removeprefix("refs/tags/") for name in found if name.startswith("refs/")]
    raise GitError(f"it has no revision {revision!r}{nearest(revision, names)}")


def _all(address: _Address, revision: str, part: Path) -> str:
    """Fetch everything, since a commit cannot be asked for alone, and return the commit that is meant."""
    every = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    address.git("fetch", "--quiet", "--no-tags", "origin", *every, folder=part)
    try:
        found = address.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", folder=part
        )
    except GitError:
        raise GitError(f"it has no commit {revision!r}") from None
    return found.strip()

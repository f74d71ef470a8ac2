"""Run git so that a repository can run nothing, ask nothing and reach nothing that was not meant.

No shell and no prompt; no hooks, templates or file-system monitors; no transports but those of a list; credentials
travel in the environment, where other users of the machine cannot read them, and are in no argument, file or error.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlcore_projects.errors import SourceError

__all__ = ["GitError", "credentials", "git", "refs"]

_TRANSPORTS = "https:http:ssh:git"
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.longpaths=true",
    "init.templateDir=",
    "init.defaultBranch=main",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "http.lowSpeedLimit=100",  # a line that is dead is not waited for
    "http.lowSpeedTime=60",
)
_NOISE = re.compile(r"^(fatal|error|remote|warning|hint): ?", re.IGNORECASE)


class GitError(SourceError):
    """Say what git said, in a line."""


def git(
    arguments: Sequence[str], folder: Path, *, secrets: Mapping[str, str] | None = None, local: bool = False
) -> str:
    """Run git in a folder and return what it prints; `local` lets it read repositories of this machine.

    Raises `GitError` with the reason that git gave, `SourceError` if there is no git.
    """
    program = shutil.which("git")
    if program is None:
        raise SourceError("there is no program git on this machine: install it, or name a folder")
    settings = [part for each in _SETTINGS for part in ("-c", each)]
    process = subprocess.Popen(
        [program, "--no-pager", *settings, *arguments],
        cwd=folder,
        env=_environment(secrets or {}, local=local),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # without a terminal of its own nothing can ask for a password
    )
    try:
        said, wrong = process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode:
        raise GitError(_reason(wrong.decode(errors="replace")))
    return said.decode(errors="surrogateescape")


def _environment(secrets: Mapping[str, str], *, local: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _KEPT}
    kept |= {
        "GIT_ALLOW_PROTOCOL": f"{_TRANSPORTS}:file" if local else _TRANSPORTS,
        "GIT_ASKPASS": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_CONFIG_COUNT": str(len(secrets)),
        "LC_ALL": "C",
        "SSH_ASKPASS": "",
        "SSH_ASKPASS_REQUIRE": "never",
    }
    for number, (key, value) in enumerate(secrets.items()):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return kept


# What says how the user reaches servers; the rest of GIT_* would point git at another repository.
_KEPT = {
    *(
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSL_CERT",
        "GIT_SSL_KEY",
    ),
    *("GIT_SSL_NO_VERIFY", "GIT_PROXY_COMMAND", "GIT_HTTP_PROXY_AUTHMETHOD", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"),
    *("GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"),
}


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("hint:")]
    told = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    if told and "Could not read from remote repository" in told[0] and lines[0] != told[0]:
        told = lines  # what ssh said
    text = _NOISE.sub("", told[0]) if told else "git failed"
    return "".join(char if char.isprintable() else " " for char in text)[:300].rstrip(". ")


def credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without its user and password, and the settings of git that stand for them.

    The user of an SSH address stays, which is no secret.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at or parts.scheme not in ("http", "https"):
        if parts.scheme == "ssh" and ":" in user:
            raise SourceError(f"a password does not belong into an SSH address: {parts.scheme}://{host}{parts.path}")
        return url, {}
    bare = parts._replace(netloc=host).geturl()
    name, _, password = user.partition(":")
    encoded = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return bare, {f"http.{parts.scheme}://{host}/.extraHeader": f"Authorization: Basic {encoded}"}


def refs(said: str) -> dict[str, str]:
    """Return the commit of every name that ``git ls-remote`` printed; a tag's is the one that it stands for."""
    found = dict(line.split("\t", 1)[::-1] for line in said.splitlines() if "\t" in line)
    return {name: found.get(f"{name}^{{}}", commit) for name, commit in found.items() if not name.endswith("^{}")}

"""A template that needs no shell is split exactly as bash would split it."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess

import pytest

from mlcore_projects.errors import ProjectError
from mlcore_projects.templates import fill, shelled, split, words

PIECES = [
    "a",
    "b c",
    " ",
    "  ",
    "\t",
    "'",
    '"',
    "\\",
    "\\\n",
    "$",
    "$x",
    "`",
    "{v}",
    "{{",
    "}}",
    "=",
    "-x",
    "~",
    "#",
    "*",
    "?",
]
PIECES += [
    "[",
    "]",
    "|",
    "&",
    ";",
    "<",
    "(",
    ")",
    "\n",
    "!",
    "é",
    "\u3000",
    "\x0b",
    ",",
    "..",
    "%",
    "^",
    "'{v}'",
    '"{v}"',
    "''",
]
VALUE = 'it\'s "$(touch M)" `x` \\ \n ;* {v}'


@pytest.fixture(scope="module")
def templates() -> list[tuple[str, list[str]]]:
    """Return many random templates that need no shell, each with what we make of it."""
    found, generator = [], random.Random(20_261_123)
    while len(found) < 1500:
        text = "p " + "".join(generator.choices(PIECES, k=generator.randint(1, 9)))
        try:
            template = split(text, "x")
            shelled(*words([text], "x"), {"v": "VALUE"}, "x")
        except ProjectError:
            continue
        if not template.needs and not template.variables:
            found.append((text, [fill(word, {"v": VALUE}) for word in template.words[1:]]))
    return found


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed: it is what templates are written for")
def test_what_bash_makes_of_it_is_what_we_make_of_it(templates: list[tuple[str, list[str]]]) -> None:
    """Guards the rules of quoting, against the shell that MLflow hands templates to; values are in as MLflow has them.

    A quote around a slot is left out for bash, as MLflow's own quotes would close it.
    """
    lines = []
    for text, _ in templates:
        (word,) = words([text], "x")
        lines.append(f"{shelled(word, {'v': 'VALUE'}, 'x')}\nprintf '\\1\\0'\n")
    script = f'p() {{ printf \'%s\\0\' "$#" "$@"; }}\nVALUE={shlex.quote(VALUE)}\n' + "".join(lines)
    done = subprocess.run(["bash"], input=script.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    told = [each.split("\0")[:-1] for each in done.stdout.decode().split("\1\0")[:-1]]
    for (text, ours), theirs in zip(templates, told, strict=True):
        assert [str(len(ours)), *ours] == theirs, text

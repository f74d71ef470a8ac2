"""Make an argument list of an entry point's command and the values of its parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from mlcore_projects.errors import ProjectError
from mlcore_projects.specs import EntryPoint
from mlcore_projects.templates import Word, coded, fill, names, reread, scripted, shelled, split, words

__all__ = ["Command", "compose"]

_PYTHON = ("python", "python3")


@attrs.frozen
class Command:
    """Hold a command in parts: assignments and words, or `whole` if a shell must have it all; see `needs`."""

    words: tuple[Word, ...]
    variables: Mapping[str, Word]
    whole: Word | None = None
    script: int | None = None
    needs: tuple[str, ...] = ()

    def filled(
        self, texts: Mapping[str, str], declared: Collection[str], where: str
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return arguments and variables, with what is not declared appended. Raises `ProjectError`."""
        extra = [name for name in texts if name not in declared]
        if self.whole is not None:
            called = _called(texts)
            more = "".join(f' --{name} "${{{called[name]}}}"' for name in extra)
            script = shelled(self.whole, called, where) + more
            used = {*names((self.whole,)), *extra}
            return ("bash", "-c", script), {called[name]: texts[name] for name in texts if name in used}
        variables = {name: fill(word, texts) for name, word in self.variables.items()}
        argv = tuple(fill(word, texts) for word in self.words)
        if self.script is not None:
            called, word = _called(texts), self.words[self.script]
            argv = (*argv[: self.script], shelled(word, called, where), *argv[self.script + 1 :])
            variables |= {called[name]: texts[name] for name in names((word,))}
        if argv[0] in _PYTHON:
            argv = ("python", *argv[1:])
        return (*argv, *(text for name in extra for text in (f"--{name}", texts[name]))), variables


def _called(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that holds each value: numbered, since names of parameters need not be those of variables."""
    return {name: f"MLCORE_VALUE_{number}" for number, name in enumerate(texts, 1)}


def compose(entry: EntryPoint, where: str) -> Command:
    """Return the parts of an entry point's command. Raises `ProjectError` for what no value may be put into."""
    if isinstance(entry.command, str):
        template = split(entry.command, f"{where}: command")
        if template.needs:
            (whole,) = words([entry.command.strip(" \t\n")], where)
            return Command((), {}, whole, needs=template.needs)
        found, variables = template.words, template.variables
    else:
        found, variables = words(entry.command, where), {}
    code = coded(found)
    if code is not None and (inside := list(names((found[code],)))):
        raise ProjectError(
            f"{where}: the value of {inside[0]!r} would be run as a part of a program: pass it as an argument after it"
        )
    if program := reread(found):
        raise ProjectError(
            f"{where}: {program} hands its arguments to a shell, so no value is put among them: call it from a script"
            " of the project"
        )
    script = scripted(found)
    return Command(found, variables, script=script, needs=() if script is None else ("the script after -c",))

"""Split the command of an entry point into arguments, and find what only a shell could do with it.

A value never meets a shell: the template is split first, as a POSIX shell would, and what stands for a parameter is
replaced in the argument that it is in. Where the user lets a shell have the template, because it needs one, values are
passed as environment variables and named in quotes, so that what they hold is never read as code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from mlcore_projects.errors import ProjectError

__all__ = [
    "PARAMETER",
    "Slot",
    "Template",
    "Word",
    "coded",
    "fill",
    "names",
    "reread",
    "scripted",
    "shelled",
    "split",
    "words",
]

PARAMETER = re.compile(r"\w[\w.-]*")
_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh")
_CODE = re.compile(r"(python|pypy|perl|ruby|node|nodejs|Rscript|R|julia|lua|php|ipython)[\d.]*")
_BUILTINS = {
    *(".", "!", "{", "[[", "((", "alias", "case", "cd", "command", "declare", "eval", "exec", "exit", "export", "for"),
    *("function", "if", "let", "local", "read", "return", "select", "set", "shopt", "source", "trap", "typeset"),
    *("ulimit", "umask", "unalias", "unset", "until", "wait", "while"),
}
_BEFORE = ("env", "exec", "nice", "nohup", "sudo", "time")  # what runs the program that it is given
_REREAD = ("ssh", "su", "runuser", "watch", "parallel")
_LONG = ("--command", "--eval", "--print", "--execute")
_WITH_VALUE = ("o", "O", "W", "X", "I", "--rcfile", "--init-file")  # options that take the next word
_ASSIGNED = re.compile(r"[A-Za-z_]\w*=")
_TILDE = re.compile(r"([A-Za-z_]\w*=(.*:)?)?~", re.DOTALL)  # bash expands it in what looks like an assignment, too
_BRACES = re.compile(r"\{[^{}]*(,|\.\.)[^{}]*\}")
_EVALUATED = re.compile(  # what a shell, or a program that it starts, reads a second time, as code
    r"\(\(|\[\[|\$\[|<<|(?<![\w-])(let|eval|declare|typeset|local|export|readonly|source|trap|awk|ssh|xargs)(?![\w-])"
    r"|(?<![\w-])(su|runuser|watch|parallel)(?![\w-])|\|&?\s*(\w*sh|python[\d.]*|perl|ruby|node)\s*(-s?(\s|$)|$|[;|&)\n<>])"
    r"|(?<![\w-])printf\s+-v|(?<![\w.-])(\w*sh|busybox|(python|pypy|perl|ruby|node|Rscript|R|julia|php)[\d.]*)\s+-\S*[ceE]"
)
_QUOTED = "\0"  # stands for a character that was quoted, where only the others mean something


@attrs.frozen
class Slot:
    """Stand for the value of a parameter."""

    name: str


Word = tuple[str | Slot, ...]


@attrs.frozen
class Template:
    """Hold a template as it was split: assignments before it, its words, and in `needs` what only a shell can do."""

    words: tuple[Word, ...]
    variables: dict[str, Word]
    needs: tuple[str, ...]


def words(command: Sequence[str], where: str) -> tuple[Word, ...]:
    """Return the words of an argument list, each with its slots. Raises `ProjectError`."""
    found = []
    for argument in command:
        pieces: list[str | Slot] = []
        at = 0
        while at < len(argument):
            piece, at = _piece(argument, at, where)
            pieces.append(piece)
        found.append(_joined(pieces))
    return tuple(found)


def _piece(text: str, at: int, where: str) -> tuple[str | Slot, int]:
    """Return what stands at a place, as `str.format` reads it, and where the next begins."""
    char = text[at]
    if char not in "{}":
        return char, at + 1
    if text[at : at + 2] == char * 2:
        return char, at + 2
    end = text.find("}", at)
    name = text[at + 1 : end]
    if char == "}" or end < 0 or not PARAMETER.fullmatch(name):
        raise ProjectError(
            f"{where}: {text[at : at + 40]!r} names no parameter; write {char * 2!r} for {char!r} itself"
        )
    return Slot(name), end + 1


def _joined(pieces: Sequence[str | Slot]) -> Word:
    joined: list[str | Slot] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined) or ("",)


def split(text: str, where: str) -> Template:
    """Split a template as a POSIX shell would. Raises `ProjectError` for quotes that do not end."""
    scan = _Scan(text.strip(" \t\n"), where)
    scan.run()
    found, plains = scan.words, scan.plains
    scan.needs += ["~"] * any(map(_TILDE.match, plains))
    variables: dict[str, Word] = {}
    while found and _ASSIGNED.match(plains[0]):
        first = found[0][0]
        assert isinstance(first, str)
        name, _, rest = first.partition("=")
        variables[name] = _joined([rest, *found[0][1:]])
        found, plains = found[1:], plains[1:]
    for plain in plains:
        scan.needs += [char for char in "*?[" if char in plain]
        scan.needs += ["#"] * plain.startswith("#") + ["{,}"] * bool(_BRACES.search(plain))
    if plains and plains[0] in _BUILTINS:
        scan.needs.append(plains[0])
    if not found and not scan.needs:
        raise ProjectError(f"{where} is empty: it must name a program")
    return Template(tuple(found), variables, tuple(dict.fromkeys(scan.needs)))


class _Scan:
    """Walk through a template by the rules of quoting (POSIX 2.2)."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.at = text, where, 0
        self.words: list[Word] = []
        self.plains: list[str] = []  # the words again, quoted characters and slots as `_QUOTED`
        self.needs: list[str] = []
        self._pieces: list[str | Slot] | None = None
        self._plain = ""

    def run(self) -> None:
        quote = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if quote != "'" and (char == "`" or (char == "$" and self._expands(quote))):
                self.needs.append(char)
            if char == "\\" and quote != "'":
                self._escape(quote)
            elif char == quote or (char in "'\"" and not quote):
                quote = "" if quote else char
                self._pieces = self._pieces or []
                self.at += 1
            elif not quote and char in " \t\n|&;<>()":
                self._end(char)
            else:
                self._take(quoted=bool(quote))
        if quote:
            raise ProjectError(f"{self.where}: a {quote} is not closed in {self.text!r:.80}")
        self._end("")

    def _expands(self, quote: str) -> bool:
        at = self.at + 1
        while self.text.startswith("\\\n", at):  # a line that goes on
            at += 2
        after = self.text[at : at + 1]
        return bool(after) and (after.isalnum() or after in "_{(@*#?$!-" or (not quote and after in "'\""))

    def _escape(self, quote: str) -> None:
        after = self.text[self.at + 1 : self.at + 2]
        if not after:
            raise ProjectError(f"{self.where} ends with a backslash: {self.text!r:.80}")
        if after == "\n":
            self.at += 2
        elif quote and after not in '$`"\\':
            self._take(quoted=True)
        else:
            self.at += 1
            self._take(quoted=True, raw=after not in "{}")

    def _take(self, *, quoted: bool, raw: bool = False) -> None:
        if raw:
            piece: str | Slot = self.text[self.at]
            self.at += 1
        else:
            piece, self.at = _piece(self.text, self.at, self.where)
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(piece)
        self._plain += piece if isinstance(piece, str) and not quoted else _QUOTED

    def _end(self, char: str) -> None:
        if char == "\n":
            self.needs.append("several lines")
        elif char not in " \t":
            self.needs.append(char)
        if self._pieces is not None:
            self.words.append(_joined(self._pieces))
            self.plains.append(self._plain)
        self._pieces, self._plain = None, ""
        self.at += 1


def names(found: Iterable[Word]) -> Iterator[str]:
    """Yield the names of all slots."""
    yield from (piece.name for word in found for piece in word if isinstance(piece, Slot))


def fill(word: Word, values: Mapping[str, str]) -> str:
    """Return a word with the values in its slots, as they are."""
    return "".join(values[piece.name] if isinstance(piece, Slot) else piece for piece in word)


def scripted(found: Sequence[Word]) -> int | None:
    """Return the number of the word that is the script of a shell, as in ``bash -c "..."``; None if there is none."""
    return _code(found, lambda name: name in _SHELLS, "c")


def coded(found: Sequence[Word]) -> int | None:
    """Return the number of the word that is a program in itself, as in ``python -c "..."``; None if there is none."""
    return _code(found, lambda name: _CODE.fullmatch(name) is not None, "ceE")


def _code(found: Sequence[Word], runs: Callable[[str], bool], letters: str) -> int | None:
    for at, word in enumerate(found):
        if not runs(_literal(word).rpartition("/")[2]):
            continue
        number = at + 1
        while number < len(found) and (text := _literal(found[number])).startswith(("-", "+")) and text != "--":
            if text.startswith(_LONG):
                return number + ("=" not in text) if number + ("=" not in text) < len(found) else None
            if not text.startswith("--") and set(letters) & set(text):
                return number + 1 if number + 1 < len(found) else None
            number += 2 if text.endswith(_WITH_VALUE) else 1
    return None


def reread(found: Sequence[Word]) -> str:
    """Return the program that hands its arguments to a shell, such as ssh, where values are among them; or nothing."""
    for at, word in enumerate(found):
        program = _literal(word).rpartition("/")[2]
        if program in _REREAD and any(names(found[at + 1 :])):
            return program
        if program not in _BEFORE and not program.startswith("-") and "=" not in program:
            return ""
    return ""


def _literal(word: Word) -> str:
    return "".join(piece if isinstance(piece, str) else _QUOTED for piece in word)


def shelled(script: Word, variables: Mapping[str, str], where: str) -> str:
    """Return a script for a shell, in which each slot is the variable that holds its value, in quotes.

    Raises `ProjectError` if a value would be read as code all the same: in arithmetic, or by a second shell.
    """
    if any(isinstance(piece, Slot) for piece in script) and (found := _EVALUATED.search(_literal(script))):
        raise ProjectError(
            f"{where}: {found[0].strip()!r} may read what it is given as code, so no value is put into a command with"
            " it: pass the value to a script of the project instead"
        )
    told, open_, escaping = "", [""], False
    for piece in script:
        if isinstance(piece, str):
            told, escaping = told + piece, _follow(piece, open_)
            continue
        if escaping:  # a backslash before the value must not make our quote or dollar a character
            told = told + "\\" if open_[-1] else told[:-1]
        if open_[-1] != "'" and re.search(r"(?<!\\)(\\\\)*\$\Z", told):  # which would begin another kind of quote
            told = told[:-1] + "\\$"
        name, escaping = f"${{{variables[piece.name]}}}", False
        told += {"": f'"{name}"', '"': name, "'": f"'\"{name}\"'"}[open_[-1]]
    return told


def _follow(text: str, open_: list[str]) -> bool:
    """Keep track of which quotes are open, the innermost last, within ``$(...)``, too; tell if it ends in an escape."""
    at = 0
    while at < len(text):
        char, quote = text[at], open_[-1]
        if char == "\\" and quote != "'":
            at += 1
        elif char == quote != "" or (char == ")" and not quote and len(open_) > 1):
            open_.pop()
        elif char in "'\"" and not quote:
            open_.append(char)
        elif quote != "'" and text[at : at + 2] == "$(":
            open_.append("")
            at += 1
        at += 1
    return at > len(text)

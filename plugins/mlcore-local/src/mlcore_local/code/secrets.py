"""Know what looks like a secret: names of files that are never kept, and values that are masked, line by line.

What looks like a secret is a guess. Well-known shapes are found wherever they stand; a value without a shape is
found by the name it is given. `docs/explanation/what-is-masked.md` says what follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import PurePosixPath

import attrs

__all__ = ["MASK", "RULES", "Masked", "looks_secret", "mask", "mask_arguments", "mask_lines", "mask_url"]

MASK = "***"

_NAMES = (
    *(".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.p8"),
    *("*.gpg", "*.asc", "*.ovpn", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "credential*", "*credentials"),
    *("*credentials.*", ".netrc", "_netrc", ".pypirc", ".npmrc", ".yarnrc*", ".pgpass", ".my.cnf", ".htpasswd"),
    *(".git-credentials", ".dockercfg", ".dockerconfigjson", ".s3cfg", ".boto", "kubeconfig*", "*.kubeconfig"),
    *("secret", "secrets", "secret.*", "secrets.*", "*[-_.]secret", "*[-_.]secrets", "*[-_.]secret.*"),
    *("*[-_.]secrets.*", "client_secret*", "secret[-_]key*", "secret[-_]token*", "service[-_]account*.json"),
    *("password*", "passwd*", "*[-_.]password", "*[-_.]password.*", "*[-_.]passwords", "*[-_.]passwords.*"),
    *("token", "token.txt", "token.json", ".token", "*[-_]token", "*[-_]token.txt", "*[-_]token.json"),
    *("*api[-_]key*", "*apikey*", "*private[-_]key*", "*access[-_]key*", "*[-_]key", "*[-_]key.txt", "*[-_]key.json"),
    *("kaggle.json", "wandb.key", "*.tfvars", "terraform.tfstate*", "vault.y*ml", "*.jwt", "*.token"),
)
_FOLDERS = {".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".secrets", "secrets", ".password-store"}

# names that a value is given, in any notation
_WORD = (
    r"(?:pass(?:word|wd|phrase|code)s?|pwd|passw|secrets?|credentials?|api[-_ ]?keys?|access[-_]?keys?(?:[-_]?id)?"
    r"|private[-_]?keys?|secret[-_]?keys?|auth[-_]?keys?|account[-_]?keys?|signing[-_]?keys?|encryption[-_]?keys?"
    r"|shared[-_]?keys?|ssh[-_]?keys?|bearer|authorization|x-api-key|connection[-_]?string|conn[-_]?str|token)"
)
_NAME = rf"[\w.\-]{{0,60}}?{_WORD}(?:[-_.](?:value|text|string|prod|production|dev|staging|test|live|base64|b64|\d+))?"
_QUOTED = r"(?P<prefix>[rRbBuUfF]{0,2})(?P<quote>\\{0,4}(?:\"\"\"|'''|\"|'|`))(?P<value>.{0,8000}?)(?P=quote)"
_GAP = r"[ \t]{0,20}"
_ANNOTATION = r"(?::\s{0,60}[\w.\[\], |]{1,60}?\s{0,60})?"
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9])(?P<name>{_NAME})\\{{0,4}}[\"'`]?\]?{_GAP}(?:{_ANNOTATION}(?:=>|:=|={{1,3}}|!=)|:)"
    rf"{_GAP}(?:[(\[]{_GAP})?(?:\\?[ \t\r]{{0,20}}\n{_GAP})?{_QUOTED}",
    re.IGNORECASE,
)
_ASKED = re.compile(  # os.environ.setdefault("API_KEY", "..."), "--password", "..."
    r"(?:(?:get|getenv|setdefault|setenv|putenv|set|pop)\(\s{0,60}"
    rf"\\{{0,4}}[\"'](?P<name>{_NAME})\\{{0,4}}[\"']|\\{{0,4}}[\"']--?(?P<flag>{_NAME})\\{{0,4}}[\"'])"
    rf"\s{{0,60}},\s{{0,60}}{_QUOTED}",
    re.IGNORECASE,
)
_BARE = re.compile(  # password: hunter2, export API_KEY=..., --token ...
    rf"(?:(?<![A-Za-z0-9])(?P<name>{_NAME})[\"'`]?{_GAP}(?:=|:){_GAP}|(?<!\S)--?(?P<flag>{_NAME})[ \t]{{1,20}})"
    r"(?P<value>[^\s\"'`&;,)\]}][^\s&;\"'`]*)",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"""
    \b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bglpat-[\w\-]{16,} | \bgl(?:ptt|dt|rt|cbt|soat)-[\w\-]{16,}
    | \bsk-(?:[A-Za-z]{2,12}-)*[A-Za-z0-9_\-]{16,} | \b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}
    | \bxox[abeoprs]-[A-Za-z0-9\-]{10,} | \bxapp-\d-[A-Za-z0-9\-]{10,} | hooks\.slack\.com/services/[A-Za-z0-9/+]{20,}
    | \bhf_[A-Za-z0-9]{20,} | \bAIza[0-9A-Za-z_\-]{35} | \bya29\.[0-9A-Za-z_\-]{20,} | \bGOCSPX-[\w\-]{20,}
    | \bnpm_[A-Za-z0-9]{30,} | \bpypi-[A-Za-z0-9_\-]{40,} | \bdckr_pat_[\w\-]{20,} | \bdo[opr]_v1_[0-9a-f]{40,}
    | \bSG\.[\w\-]{16,}\.[\w\-]{16,} | \bmlc_[0-9a-f]{40,} | \bshpat_[0-9a-fA-F]{32} | \bdapi[0-9a-f]{32}
    | \br8_[A-Za-z0-9]{30,} | \bnvapi-[\w\-]{40,} | \bhvs\.[\w\-]{24,} | \bAGE-SECRET-KEY-1[0-9A-Z]{50,}
    | \bATATT3[\w\-=]{50,}
    | \beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*
    | (?<=[?&;])(?:sig|X-Amz-Signature|X-Goog-Signature)=[^\s&"'`]+
    | (?i:(?<=\bbearer\s)|(?<=\bbasic\s))(?=[A-Za-z0-9._~+/\-]*[0-9])[A-Za-z0-9._~+/\-]{16,}=*
    """,
    re.VERBOSE,
)
# a pattern looks only where one of these stands
_WORDS = ("pass", "pwd", "secret", "credential", "key", "bearer", "authorization", "conn", "token")
_BEGINNINGS = (
    *(
        "akia",
        "asia",
        "abia",
        "acca",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "glptt-",
        "gldt-",
    ),
    *("glrt-", "glcbt-", "glsoat-", "sk-", "sk_live", "sk_test", "rk_live", "rk_test", "xox", "xapp-", "hooks.slack"),
    *("hf_", "aiza", "ya29.", "gocspx-", "npm_", "pypi-", "dckr_pat_", "_v1_", "sg.", "mlc_", "shpat_", "dapi", "r8_"),
    *("nvapi-", "hvs.", "age-secret", "atatt3", "eyj", "sig=", "signature=", "bearer", "basic"),
)
_URL = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]{1,20}://)(?P<who>[^\s/?#@\"'`<>]+)@")
_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_LINE = re.compile(
    r"^[\s\"'`+\-#>|]*(?:[A-Za-z0-9+/=]*|(?:Proc-Type|DEK-Info|Version|Comment): .*)[\s\"'`,\\n+]*$"
)

# tokens of language models, and counts, are none
_TOKENS_OF_TEXT = re.compile(
    r"(?:^|[-_.])(?:pad|eos|bos|unk|sep|cls|mask|special|additional|added|image|audio|video|start|end|stop|decoder|prefix"
    r"|first|last|next|prev|previous|num|max|min|n|new|blank|sos|eot|eod|oov|sub|word|text|input|output|class|boi|eoi"
    r"|space|line|newline|delimiter|per|vocab|any|empty|null|extra|target|source|src|tgt|lang|lower|upper|target)"
    r"[-_.]?token$",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"""\s* | <.*> | \[.*\] | \{.*\} | \(.*\) | %.*% | [*xX.\-_]+ | (?-i:\$\{?[A-Z_][A-Z0-9_]*\}?)
    | (?:none|null|nil|true|false|undefined|required|optional|str|string|int|bytes|bool|any|text)\W*
    | (?:passwords?|tokens?|secrets?|credentials?)\W*""",
    re.IGNORECASE | re.VERBOSE,
)
_TEMPLATE = re.compile(r"\{[\w.\[\]()!:]*\}|\$\{[^}]*\}|\$\([^)]*\)|%\(\w+\)s")
_EXPRESSION = re.compile(
    r"(?:os|self|args|cfg|config|env|settings|process\.env)\.|getpass|[\w.]+\(|\$|%s", re.IGNORECASE
)
_CODE = {
    *(".py", ".pyi", ".pyx", ".ipynb", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h"),
    *(".cc", ".cpp", ".cxx", ".hpp", ".cu", ".cuh", ".go", ".rs", ".rb", ".jl", ".r", ".m", ".swift", ".cs", ".php"),
    *(
        ".lua",
        ".pl",
        ".hs",
        ".ml",
        ".md",
        ".rst",
        ".tex",
        ".html",
        ".css",
        ".sql",
        ".svelte",
        ".vue",
        ".patch",
        ".diff",
    ),
}
_SHELL = {".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat"}
_OPTION = re.compile(rf"^--?(?P<name>{_NAME})(?P<rest>=.*)?$", re.IGNORECASE | re.DOTALL)
_PATTERNS = (_ASSIGNED, _ASKED, _BARE, _SHAPES, _URL, _BEGIN, _END, _TOKENS_OF_TEXT, _PLACEHOLDER)
_ALL = repr((_NAMES, sorted(_FOLDERS), sorted(_CODE), [each.pattern for each in _PATTERNS]))
RULES = sha256(_ALL.encode()).hexdigest()[:8]  # of what was masked by other rules nothing is remembered
_OVERRIDE = re.compile(rf"^(?P<name>[+~]*{_NAME})(?P<rest>[=:].*)$", re.IGNORECASE | re.DOTALL)


@attrs.frozen
class Masked:
    """Hold a text without its secrets, and the numbers of the lines, from 1, in which some stood."""

    text: str
    lines: tuple[int, ...]


def looks_secret(name: str, *, committed: bool = False) -> bool:
    """Tell whether the path of a file, with slashes, says that it holds secrets: ``.env``, ``id_rsa``, ``*.pem``, ...

    Source code that is `committed`, such as ``secrets.py``, is no secret by its name: it is a part of the program.
    """
    path = PurePosixPath(name.casefold())
    if committed and path.suffix in _CODE | _SHELL and not path.name.startswith(".env"):
        return False
    return any(fnmatchcase(path.name, each) for each in _NAMES) or bool(_FOLDERS.intersection(path.parts[:-1]))


def mask(text: str, name: str = "") -> str:
    """Return a text with `MASK` for everything in it that looks like a secret; see `mask_lines`."""
    return mask_lines(text, name).text


def mask_lines(text: str, name: str = "") -> Masked:
    """Mask values with a well-known shape, values of names like ``password``, private keys, credentials in URLs.

    `name` is the path of the file that it stands in: of source code only values in quotes are masked by their names, as
    what stands there without quotes is code. Lines stay lines, and quotes stay closed.
    """
    found = _without_keys(text)
    for pattern in (_ASSIGNED, _ASKED):
        found = _replaced(pattern, _quoted, found, _WORDS)
    if PurePosixPath(name.casefold()).suffix not in _CODE:
        found = _replaced(_BARE, _bare, found, _WORDS)
    found = _replaced(_SHAPES, lambda _: MASK, found, _BEGINNINGS)
    found = _URL.sub(_credentials, found)
    if found == text:
        return Masked(text, ())
    old, new = text.split("\n"), found.split("\n")
    return Masked(found, tuple(n for n, (one, other) in enumerate(zip(old, new, strict=True), 1) if one != other))


def mask_arguments(argv: Sequence[str]) -> list[str]:
    """Mask an argument list: ``--password=...``, ``api_key=...``, what follows ``--token``, and what `mask` finds."""
    masked, after = list[str](), False
    for each in argv:
        option = _OPTION.match(each) or _OVERRIDE.match(each)
        if after and not each.startswith("-"):
            masked.append(MASK)
        elif option and not _TOKENS_OF_TEXT.search(option["name"]):
            masked.append(each[: option.end("name") + 1] + MASK if option["rest"] else each)
        else:
            masked.append(mask(each))
        after = bool(
            option and each.startswith("-") and not option["rest"] and not _TOKENS_OF_TEXT.search(option["name"])
        )
    return masked


def mask_url(url: str) -> str:
    """Return a URL without who and password; the user of ssh stays, as it is the same for everybody."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return mask(url)
    place, slash, path = rest.partition("/")
    who, at, host = place.rpartition("@")
    keep = f"{who.partition(':')[0]}@" if at and scheme.casefold().endswith("ssh") else ""
    return mask(f"{scheme}://{keep}{host}{slash}{path}")


def _replaced(pattern: re.Pattern[str], how: Callable[[re.Match[str]], str], text: str, hints: Iterable[str]) -> str:
    """Substitute in lines with a hint, and the line after each: to look for hints is much faster than patterns."""
    lower, marks = text.lower(), set[int]()
    if len(lower) != len(text):  # letters that become two
        return pattern.sub(how, text)
    for hint in hints:
        at = lower.find(hint)
        while at >= 0:
            marks.add(lower.rfind("\n", 0, at) + 1)
            end = lower.find("\n", at)
            at = lower.find(hint, end) if end >= 0 else -1
    parts, done = list[str](), 0
    for start in sorted(marks):
        if start >= done:
            end = start  # the lines that follow one another, and one more
            while end in marks or end == start:
                end = (text.find("\n", end) + 1) or len(text) + 1
            end = min((text.find("\n", end) + 1) or len(text), len(text))
            parts += [text[done:start], pattern.sub(how, text[start:end])]
            done = end
    return "".join([*parts, text[done:]]) if parts else text


def _is_secret(name: str, value: str) -> bool:
    if value == MASK or _PLACEHOLDER.fullmatch(value) or _is_template(value):
        return False
    if name.casefold().endswith("token"):
        return not _TOKENS_OF_TEXT.search(name) and len(value) >= 8 and not re.search(r"\s", value)
    return True


def _is_template(value: str) -> bool:
    rest, places = _TEMPLATE.subn(" ", value)
    return places > 0 and max(map(len, re.split(r"\W+", rest))) <= len("Bearer")


def _quoted(found: re.Match[str]) -> str:
    groups = found.groupdict()
    name, value = groups["name"] or groups["flag"], groups["value"]
    if not _is_secret(name, value) or _a_sentence(value) or (groups.get("flag") and value.startswith("-")):
        return found[0]
    start, end = found.start("value") - found.start(), found.end("value") - found.start()
    return found[0][:start] + MASK + found[0][end:]


def _a_sentence(value: str) -> bool:
    """Tell text for people, such as a help text or a label, from a passphrase."""
    words = value.split()
    return len(words) > 6 or (len(words) >= 4 and value.endswith((".", ":", "?")))


def _bare(found: re.Match[str]) -> str:
    name, value = found["name"] or found["flag"], found["value"]
    if not _is_secret(name, value) or _EXPRESSION.match(value) or (found["flag"] and value.startswith("-")):
        return found[0]
    return found[0][: found.start("value") - found.start()] + MASK


def _credentials(found: re.Match[str]) -> str:
    who, scheme = found["who"], found["scheme"].casefold()
    if (
        who == MASK
        or _PLACEHOLDER.fullmatch(who)
        or _is_template(who)
        or (":" not in who and not scheme.startswith("http"))
    ):
        return found[0]
    return f"{found['scheme']}{MASK}@"


def _without_keys(text: str) -> str:
    """Mask private keys, each line of them: a key that does not end goes on as long as lines look like one."""
    if "PRIVATE KEY" not in text:
        return text
    lines, inside = text.split("\n"), False
    for number, line in enumerate(lines):
        begin = None if inside else _BEGIN.search(line)
        start = begin.end() if begin else 0
        if not begin and not inside:
            continue
        end = _END.search(line, start)
        if inside and not end and not _BLOCK_LINE.match(line):
            inside = False
            continue
        stop = end.start() if end else len(line)
        if line[start:stop].strip("\"'`,+\\n \r\t"):
            lines[number] = line[:start] + MASK + line[stop:]
        inside = not end
    return "\n".join(lines)

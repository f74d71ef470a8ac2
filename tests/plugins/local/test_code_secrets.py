"""Know what looks like a secret, and leave alone what does not."""

from __future__ import annotations

import time

import pytest

from mlcore_local.code.secrets import looks_secret, mask, mask_arguments, mask_lines, mask_url

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow/canary+\nabc=\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        'password = "canary-1"',
        "PASSWORD: str = 'canary-1'",
        'db = connect(user="me", password="canary-1", port=3)',
        '{"api_key": "canary-1", "n": 1}',
        'if password == "canary-1":',
        'os.environ["API_KEY"] = "canary-1"',
        'os.environ.get("API_KEY", "canary-1")',
        '["--password", "canary-1"]',
        'hf_token = "canary-123"',
        'secret = (\n    "canary-1"\n)',
        'client_secret = b"""canary-1"""',
        '"   \\"password\\": \\"canary-1\\"\\n",',
        'password = "pa$$w0rd(canary"',
        'url = "postgresql://me:canary@host/db"',
        'url = "https://canary@host/x.git"',
        'header = "Bearer canary0123456789abcdef"',
        'AWS = "AKIACANARYCANARYCANA"',
        'x = "ghp_canarycanarycanarycanarycanarycanary"',
        'x = "github_pat_canarycanarycanary0123"',
        'x = "sk-proj-canarycanarycanary0123"',
        'x = "eyJcanarycanary.eyJcanarycanary.canary"',
        'x = "xoxb-canary-0123456789"',
        'x = "https://h/x?a=1&sig=canary%2F"',
        KEY,
        KEY.replace("\n", "\\n"),
        KEY.rpartition("\n")[0],
    ],
)
def test_a_secret_is_masked_in_code_and_elsewhere(text: str) -> None:
    """Guards the store from what people write into their code."""
    for name in ("train.py", "notes.txt"):
        found = mask_lines(f"first\n{text}\nlast = 1", name)
        assert "canary" not in found.text.casefold()
        assert found.text.splitlines()[0] == "first"
        assert found.text.splitlines()[-1] == "last = 1"
        assert found.text.count("\n") == text.count("\n") + 2
        assert found.lines
        assert mask(found.text, name) == found.text  # so that a tree that was masked has one hash, however often


@pytest.mark.parametrize(
    "text",
    [
        "password: canary",
        "export API_KEY=canary",
        "mysql --password canary -u me",
        "token: canary-canary",
        "secret=canary",
    ],
)
def test_a_value_without_quotes_is_masked_where_it_is_no_code(text: str) -> None:
    """Guards files of settings; in code what has no quotes is a name."""
    assert "canary" not in mask(text, "settings.yaml")
    assert mask(text, "train.py") == text


@pytest.mark.parametrize(
    "text",
    [
        'token = tokenizer("the quick brown fox")',
        'pad_token = "[PAD]"; eos_token = "</s>"; unk_token = "a-long-unknown"',
        "def f(token: str, password: str | None = None) -> None: ...",
        'columns = df[["password", "username"]]',
        'api_key = os.environ["API_KEY"]',
        'password = ""',
        'password = f"{user}"',
        'headers = {"Authorization": f"Bearer {token}"}',
        'parser.add_argument("--password", help="what the database wants to hear")',
        'parser.add_argument("--token", "-t")',
        "max_tokens = 128",
        'ssh = "ssh://git@host/x"',
        'decorated = "@pytest://x"',
        'monkey = "see"; keys = ["a"]',
        'token = "the"',
        "password = getpass()",
        'password = "<your password>"',
        'password = "${DB_PASSWORD}"',
        "flag = ['--no-token', '--durability']",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Guards reproducing: a program whose text was masked for nothing does something else."""
    assert mask(text, "train.py") == text


def test_the_lines_are_told() -> None:
    """Guards what `restore` tells."""
    assert mask_lines('a = 1\npassword = "x-y-z"\nb = 2\ntoken = "abcdefgh"\n', "a.py").lines == (2, 4)
    assert mask_lines("a = 1\n").lines == ()


def test_arguments_and_urls() -> None:
    """Guards the command line and the remote that a run records."""
    assert mask_arguments([
        "train.py", "--password=canary", "--token", "canary", "--lr", "0.1", "db.password=canary", "--pad-token", "x",
        "--api-key", "canary", "https://u:canary@h/x", "-p", "--verbose", "--secret", "--next", "name=password",
    ]) == [
        "train.py", "--password=***", "--token", "***", "--lr", "0.1", "db.password=***", "--pad-token", "x",
        "--api-key", "***", "https://***@h/x", "-p", "--verbose", "--secret", "--next", "name=password",
    ]  # fmt: skip
    assert mask_url("https://u:p@h/x.git") == mask_url("https://u@h/x.git") == "https://h/x.git"
    assert mask_url("ssh://git:pw@h:22/x") == "ssh://git@h:22/x"
    assert mask_url("git@github.com:a/b.git") == "git@github.com:a/b.git"


def test_names_of_files() -> None:
    """Guards the files that are never kept, and those whose names only sound like it."""
    secret = [
        ".env", ".env.local", "prod.env", "a/id_rsa", "id_ed25519.pub", "x.key", "server.pem", "credentials.json",
        ".netrc", ".pypirc", "secrets.yaml", "secrets.py", "api_key.txt", "my-openai-key", "hf_token", "password.txt",
        ".aws/config", ".SSH/known_hosts", "kaggle.json", "ID_RSA", "service-account-1.json",
    ]  # fmt: skip
    other = [
        "tokenizer.json", "tokens.txt", "special_tokens_map.json", "monkey", "keys.py", "mask.py", "primary_keys.sql",
        "environment.yml", "train.py", "README.md",
    ]  # fmt: skip
    assert [name for name in secret if not looks_secret(name)] == []
    assert [name for name in other if looks_secret(name)] == []
    assert looks_secret("src/secrets.py")
    assert not looks_secret("src/secrets.py", committed=True)
    assert looks_secret(".env.py", committed=True)
    assert looks_secret("secrets.yaml", committed=True)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 80_000, "password" * 8_000, "-_." * 20_000, '"' * 40_000, "password = " * 4_000, "eyJ" * 20_000,
        "sk-ab-" * 10_000, "password:" + " " * 40_000, 'password="' * 8_000, "eyJ" + "a." * 40_000,
        "password:" + "x|" * 40_000, "\\" * 40_000 + "password", "password" + "\\" * 40_000,
        "-----BEGIN PRIVATE KEY-----\n" * 4_000, "a://" + "b:" * 40_000,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_no_file_takes_long(text: str) -> None:
    """Guards against text on which a pattern goes back and forth for ever."""
    began = time.process_time()
    mask(text, "a.yaml")
    assert time.process_time() - began < 2

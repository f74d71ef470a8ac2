"""Put a canary in every place where secrets lie, and find it nowhere in the store."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import mlcore
from mlcore_local.code import restore
from repositories import Repository

CANARY = "c4n4ryS3cr3tV4lu3"
TOKEN = f"ghp_{CANARY * 3}"
LINE = f'password = "{CANARY}"\n'
TRAIN = "import mlcore\nwith mlcore.start_run() as run:\n    mlcore.log_metric('loss', 1)\nprint(run.id)\n"


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of every file and name in a folder, and of all in them that is compressed or of git."""
    for path in sorted(folder.rglob("*")):
        yield str(path), os.fsencode(path.name)
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            yield str(path), data
            at = data.find(b"\x78")
            while at >= 0:
                inflated = zlib.decompressobj()
                with contextlib.suppress(zlib.error):
                    yield f"{path} at {at}", inflated.decompress(data[at:])
                at = data.find(b"\x78", at + 1)
            at = data.find(b"\x1f\x8b")
            while at >= 0:
                with contextlib.suppress(zlib.error):
                    yield f"{path} at {at}", zlib.decompressobj(31).decompress(data[at:])
                at = data.find(b"\x1f\x8b", at + 1)


def canaries(folder: Path) -> list[str]:
    """Return where the canary sings: as it is, in UTF-16, in hexadecimal."""
    forms = [CANARY.encode(), CANARY.encode("utf-16-le"), CANARY.encode("utf-16-be"), CANARY.encode().hex().encode()]
    return [name for name, data in contents(folder) if any(form in data for form in forms)]


def hide(repository: Repository) -> None:
    """Put canaries into what is committed, and into the repository's settings."""
    repository.write(train_py=TRAIN, settings_py=f"a = 1\n{LINE}b = 2\n", old_py=LINE, gone_py=f"a\n{LINE}")
    repository.put("context.py", f"a = 1\nb = 2\n{LINE}c = 3\nd = 4\n")
    repository.put("id_rsa", f"{CANARY}\n")
    repository.put(".env.committed", f"X={CANARY}\n")
    repository.put("data.bin", b"\0\1" + TOKEN.encode() + bytes(range(256)))
    repository.put("wide.txt", LINE.encode("utf-16"))
    repository.commit(f'with password = "{CANARY}" in the message')
    repository.git("remote", "add", "origin", f"https://me:{CANARY}@example.org/x.git?token={CANARY}")
    repository.git("config", "credential.helper", f"!echo password={CANARY}")
    repository.git("config", "http.extraHeader", f"Authorization: Basic {CANARY}")


def change(repository: Repository) -> None:
    """Put more canaries into what was changed since: added, removed, beside a change, untracked, binary."""
    repository.write(settings_py=f"a = 1\n{LINE}b = 3\n", old_py="x = 1\n", new_py=f"n = 1\n{LINE}")
    repository.put("context.py", f"a = 1\nb = 3\n{LINE}c = 3\nd = 4\n")
    (repository.folder / "gone.py").unlink()
    repository.put("data.bin", b"\0\2" + TOKEN.encode() + bytes(range(256)))
    repository.put("new.bin", b"\0\3" + LINE.encode())
    repository.put("wide.txt", f"more {LINE}".encode("utf-16"))
    repository.put("notes.md", f"see https://me:{CANARY}@example.org and Bearer {CANARY}\n")
    repository.put("note.ipynb", f'{{"cells": [{{"source": ["api_key = \\"{CANARY}\\"\\n"]}}]}}\n')
    repository.put("key.txt", f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n")
    for name in (".env", ".env.local", "server.pem", "my_api_key.txt", "credentials.json", ".netrc", "id_rsa"):
        repository.put(name, f"{CANARY}\n{name}\n")
    repository.put("staged.py", LINE)
    repository.git("add", "--force", "staged.py", ".env.local")
    repository.put("ignored.py", LINE)
    repository.put(".gitignore", "ignored.py\n")


def test_a_canary_is_found_nowhere_in_the_store(tmp_path: Path) -> None:
    """Guards who shares a store: names, diffs, packs, binaries, arguments, variables, submodules, messages."""
    inner, repository = Repository(tmp_path / "inner"), Repository(tmp_path / "work")
    hide(inner)
    hide(repository)
    repository.git("submodule", "add", "-q", f"file://{inner.folder}", "sub")
    repository.commit()
    change(repository)
    sub = Repository.__new__(Repository)
    sub.folder = repository.folder / "sub"
    change(sub)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLCORE_")}
    environment |= {"MLCORE_STORE": str(tmp_path / "store"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"API_KEY": CANARY, "DATABASE_URL": f"postgresql://me:{CANARY}@h/db", "HARMLESS": CANARY}
    arguments = [f"--password={CANARY}", "--token", CANARY, f"db.secret={CANARY}", f"https://me:{CANARY}@h/x", TOKEN]
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=repository.folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert CANARY not in done.stderr
    run = mlcore.Client(tmp_path / "store").get_run(done.stdout.strip())
    assert run.context["git.tree"]
    assert {each.path for each in run.artifacts.list()} >= {
        ".mlcore/code/changes.patch", ".mlcore/code/objects.pack", ".mlcore/code/sub/changes.patch",
    }  # fmt: skip
    assert canaries(tmp_path / "store") == []
    assert canaries(tmp_path / "cache") == []
    assert canaries(repository.folder)  # it can be found, by this very search
    repository.folder.rename(tmp_path / "moved")
    inner.folder.rename(tmp_path / "moved inner")
    made = restore(run, tmp_path / "again", repository=str(tmp_path / "moved"))
    assert made.tree == run.context["git.tree"]
    top = {path.name for path in made.folder.iterdir()}
    assert top >= {"train.py", "settings.py", "new.py", "notes.md", "note.ipynb", "staged.py"}
    assert top.isdisjoint({".env", "id_rsa", "gone.py", "data.bin", "server.pem", ".env.local", ".env.committed"})
    assert (made.folder / "settings.py").read_text() == 'a = 1\npassword = "***"\nb = 3\n'
    assert (made.folder / "old.py").read_text() == "x = 1\n"
    told = "\n".join(made.notes)
    assert "secrets are masked in " in told
    assert "settings.py:2" in str(run.context["git.masked"])

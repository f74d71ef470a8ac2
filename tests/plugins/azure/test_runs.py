"""What a user does, with files in Azure: runs and models, large files, and no key left anywhere."""

from __future__ import annotations

import os
import signal
import time
import urllib.parse
from pathlib import Path

from azurite import KEY, Container
from docs.test_digits import ended, plain, started, stored
from faults import processes
from mlcore import artifacts
from plugins.local.test_code_canary import contents
from plugins.s3.test_runs import REGISTER


def test_the_digits_are_the_same_in_azure_as_in_a_folder(container: Container, tmp_path: Path) -> None:
    """Guards that one setting brings the files of the first example to Azure, and changes nothing else."""
    settings = container.settings(MLCORE_ARTIFACTS=f"{container.uri}/files")
    locally, there = started(tmp_path / "locally"), started(tmp_path / "remotely", **settings)
    assert plain(ended(there)) == plain(ended(locally))
    here, found = stored(str(tmp_path / "locally" / ".mlcore")), stored(str(tmp_path / "remotely" / ".mlcore"))
    assert found["registry"] == here["registry"]
    for run in found["runs"].values():
        assert run["fields"].pop("artifacts").startswith(f"{container.uri}/files/")
    for name, run in here["runs"].items():
        for part, expected in run.items():
            assert found["runs"][name][part] == expected, (name, part)
    assert sum(name.endswith("/model/MLmodel") for name in container.names()) == 5


def test_no_key_is_left_anywhere(container: Container, tmp_path: Path) -> None:
    """Guards the store, journals, logs, what commands print, and all that a run says of its machine."""
    home, token = tmp_path / "home", container.token()
    signature = urllib.parse.parse_qs(token)["sig"][0]
    settings = container.settings(
        MLCORE_ARTIFACTS=f"{container.uri}/files", MLCORE_CAPTURE="all", AZURE_STORAGE_SAS_TOKEN=token
    )
    printed = [*processes.run(home, REGISTER, **settings)]
    assert "[5.]" in printed[0]
    for command in ("config list", "where", "runs show @last --json", "artifacts verify @last", "artifacts list @last"):
        done = processes.mlcore(home, *command.split(), **settings)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed += [done.stdout, done.stderr]
    expired = settings | {"AZURE_STORAGE_KEY": "", "AZURE_STORAGE_SAS_TOKEN": container.token(hours=-1)}
    printed += processes.run(home, REGISTER, status=None, **expired)
    assert "the SAS token has expired" in printed[-1]
    ends = urllib.parse.parse_qs(expired["AZURE_STORAGE_SAS_TOKEN"])["sig"][0]
    canaries = [KEY, *(each for one in (signature, ends) for each in (one, urllib.parse.quote(one, safe="")))]
    for text in printed:
        assert [each for each in canaries if each in text] == []
    for name, data in contents(tmp_path):
        assert [each for each in canaries if each.encode() in data] == [], name


def test_one_that_is_killed_while_it_sends_shows_nothing(container: Container, tmp_path: Path) -> None:
    """Guards a large file: it appears with its last byte, and what was there before stays until then."""
    filesystem, root = artifacts.open_backend(f"{container.uri}/root")
    artifacts.put(filesystem, root, {"large": b"before"})
    code = """
        import sys
        from pathlib import Path
        from mlcore import artifacts
        with open("large", "wb") as file:
            file.truncate(400 << 20)
        print("begins", flush=True)
        artifacts.put(*artifacts.open_backend(sys.argv[1]), {"large": Path("large")})
    """
    process = processes.start(tmp_path / "home", code, f"{container.uri}/root", **container.settings())
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    processes.finish(process, code=-signal.SIGKILL)
    assert filesystem.cat_file(f"{root}/large") == b"before"
    assert container.sizes() == {"root/large": 6}

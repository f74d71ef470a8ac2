"""What a run records about itself while processes die, fork, and the server is away; and that no secret is among it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mlcore
from faults.processes import environment, finish, fsck, reading, run as run_process, start

SECRET = "c4n4ry-7d3f0a91b2e8"


def test_a_killed_process_leaves_what_was_found_until_then(tmp_path: Path) -> None:
    """Guards out-of-memory kills: what one provider told is there though another one was still at work."""
    code = """
    import os, threading, mlcore
    from mlcore import Provider
    told = threading.Event()
    def slow(run):
        told.set()
        threading.Event().wait()
    class Plugin:
        @staticmethod
        def mlcore_context():
            return [Provider("slow", slow)]
    mlcore.plugins.register(Plugin, "zoo")
    run = mlcore.Client("store").start_run(capture="python,packages,slow")
    told.wait()
    print(run.id, flush=True)
    threading.Event().wait()
    """
    process = start(tmp_path, code)
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    process.kill()
    finish(process, -signal.SIGKILL)
    assert fsck(tmp_path, tmp_path / "store")["findings"] == []
    with reading(tmp_path / "store") as client:
        back = client.get_run(id)
        assert back.status == "LOST"
        assert back.context["captured"] == ["python", "packages", "slow"]
        assert back.context["packages.count"] > 1
        assert not any(key.startswith("slow") for key in back.context)


def test_children_of_a_fork_record_nothing_and_all_of_them_end(tmp_path: Path) -> None:
    """Guards data loaders that are forked at once after the start, with everything that is recorded by default."""
    code = """
    import os, signal, warnings, mlcore
    warnings.simplefilter("ignore")
    run = mlcore.Client("store").start_run()
    children = []
    for rank in range(8):
        child = os.fork()
        if not child:
            signal.alarm(60)
            import mlcore_local.context, mlcore_local.packages, hashlib, subprocess
            run.log_metric(f"rank {rank}", os.getpid())
            run.end()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    run.end()
    assert len(run.metrics) == 8
    print(run.id)
    """
    out, _ = run_process(tmp_path, code)
    with reading(tmp_path / "store") as client:
        back = client.get_run(out.strip())
        assert back.status == "FINISHED"
        assert back.context["captured"].count("packages") == 1
        assert back.context["python.version"]


def test_what_was_recorded_while_the_server_was_away_is_sent_later(tmp_path: Path) -> None:
    """Guards machines without a network: the list of packages waits with the run, and arrives with it."""
    code = """
    import mlcore
    with mlcore.Client("http://127.0.0.1:9").start_run(capture="python,packages") as run:
        run.log_metric("loss", 1)
    print(run.id)
    """
    out, _ = run_process(tmp_path, code, MLCORE_SPOOL_WAIT="0s")
    (spool,) = (tmp_path / "state" / "mlcore" / "spool").iterdir()
    with reading(tmp_path / "store") as client, reading(spool) as waiting:
        from mlcore_local.packages import packages_of

        run = waiting.get_run(out.strip())
        assert run.context["packages.count"] == len(packages_of(waiting, run)) > 1
        with client.start_run(capture="off"):
            pass
        done = subprocess.run(
            [sys.executable, "-m", "mlcore", "sync", str(spool), str(tmp_path / "store")],
            env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        run = client.get_run(out.strip())
        assert run.context["packages.count"] == len(packages_of(client, run))


TRAIN = """
import os, sys, mlcore
print("epoch 1")
with mlcore.Client(os.environ["STORE"]).start_run() as run:
    run.log_metric("loss", 1)
print(run.id)
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git: install it with your system's packages")
def test_no_secret_is_found_anywhere_in_the_store(tmp_path: Path) -> None:
    """Guards all that is recorded at once: a canary in each place where secrets lie is in no file of the store."""
    code, store = tmp_path / "code", tmp_path / "store"
    code.mkdir()

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=code, check=True,
                       env=environment(tmp_path, GIT_CONFIG_NOSYSTEM="1"), capture_output=True)  # fmt: skip

    git("init", "-q")
    (code / "train.py").write_text(TRAIN)
    (code / "settings.py").write_text("rate = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    git("remote", "add", "origin", f"https://ann:{SECRET}@git.example.org/team/repo.git?token={SECRET}")
    (code / "settings.py").write_text(f'rate = 2\nAPI_KEY = "{SECRET}"\npassword = "{SECRET}"\n')
    (code / ".env").write_text(f"TOKEN={SECRET}\n")
    for name in ("id_rsa", "server.pem", "credentials.json", ".netrc"):
        (code / name).write_text(f"{SECRET}\n")
    (code / "notes.txt").write_text("untracked, and no secret\n")
    site = tmp_path / "site" / "private-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "direct_url.json").write_text(json.dumps({"url": f"https://ann:{SECRET}@x/a.git", "vcs_info": {}}))
    done = subprocess.run(
        [sys.executable, "train.py", f"--password={SECRET}", "--api-key", SECRET, f"db://a:{SECRET}@h/x", "--lr", "1"],
        cwd=code, text=True, capture_output=True, check=True, env=environment(
            tmp_path, STORE=str(store), PYTHONPATH=str(site.parent), AWS_SECRET_ACCESS_KEY=SECRET, SLURM_JOB_ID="7",
            MY_SETTING=SECRET,
        ),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    with reading(store) as client:
        run = client.get_run(done.stdout.split()[-1])
        context = run.context
        kept = {each.path: run.artifacts.open(each.path).read() for each in run.artifacts.list(".mlcore")}
    assert context["scheduler.slurm_job_id"] == "7"
    assert context["command.arguments"][-2:] == ["--lr", "1"]
    assert context["git.dirty"] is True
    assert "example.org/team/repo.git" in context["git.remote"]
    assert any(b"rate = 2" in content for content in kept.values())
    everything = [path for path in store.rglob("*") if path.is_file()]
    found = [str(path) for path in everything if SECRET.encode() in path.read_bytes()]
    assert found == []
    assert not [name for name, content in kept.items() if SECRET.encode() in content]
    assert not [name for name in map(str, everything) if os.path.basename(name) in ("id_rsa", ".env", "server.pem")]
    assert mlcore.Client(store).get_run(run.id).context == context

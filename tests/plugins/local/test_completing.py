"""What shells complete: runs, experiments, columns and keys, in bash, zsh and fish themselves."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import mlcore
from faults.processes import environment, mlcore as program

SPACED = "spaced out: it's 50% $HOME"
HOSTILE = ["\x1b[31mred", "two\nlines", "--help", "x" * 300, "\u202eabc"]
SECONDS = 120


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder whose store has runs with names that a shell must quote, and names that it must not get."""
    client = mlcore.Client(tmp_path / ".mlcore")
    for name in (SPACED, "rate 0.1", "rate 0.3", "plain", *HOSTILE):
        with client.start_run(name=name, experiment="digits and more") as run:
            run.log_metrics({"loss": 0.5, "val loss": 1.0})
            run.log_params({"lr": 0.1})
    with client.start_run(name="gone", experiment="old") as run:
        run.log_text("x", "plots/a.txt")
    run.delete()
    client.get_experiment("old").delete()
    client.close()
    return tmp_path


def asked(home: Path, line: str, shell: str = "bash", **settings: str) -> list[str]:
    """Return what the program offers for the last word of a line, which may be empty; it must not print an error."""
    words = line.split(" ")
    done = program(
        home, _MLCORE_COMPLETE=f"{shell}_complete", COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1),
        **settings,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [each.removeprefix("plain,") for each in done.stdout.split("\n") if each]


class TestOffered:
    def test_a_run_is_last_or_digits_or_a_name(self, home: Path) -> None:
        """Guards what is offered: nothing that would break the line, or be taken for an option."""
        runs = mlcore.Client(home / ".mlcore").list_runs("*")
        found = asked(home, "mlcore runs show ")
        assert found[0] == "@last"
        assert {run.id[-8:] for run in runs} <= set(found)
        assert {"plain", r"rate\ 0.1", r"spaced\ out:\ it\'s\ 50%\ \$HOME"} <= set(found)
        assert len(found) == 1 + len(runs) + len(runs) - len(HOSTILE)
        assert asked(home, "mlcore runs show @") == ["@last"]
        assert asked(home, f"mlcore runs show {runs[0].id[-8:-1]}") == [runs[0].id[-8:]]
        assert asked(home, f"mlcore runs show {runs[0].id[:30]}") == [runs[0].id]
        assert asked(home, "mlcore artifacts list pl") == ["plain"]
        assert asked(home, "mlcore runs compare plain ra") == [r"rate\ 0.3", r"rate\ 0.1"]

    def test_what_was_deleted_is_offered_to_be_restored_only(self, home: Path) -> None:
        """Guards against a list in which nothing fits."""
        assert asked(home, "mlcore runs show go") == []
        assert asked(home, "mlcore runs restore go") == ["gone"]
        assert asked(home, "mlcore runs restore pl") == []
        assert asked(home, "mlcore experiments restore ") == ["old"]
        assert asked(home, "mlcore experiments delete ") == [r"digits\ and\ more"]
        assert asked(home, "mlcore runs end pl") == []

    def test_columns_and_keys(self, home: Path) -> None:
        """Guards --columns, one after the other, --sort in the words of queries, --metric, and files."""
        assert asked(home, "mlcore runs list --columns name,st") == ["name,status", "name,start_time"]
        assert asked(home, "mlcore runs list -c metrics.") == ["metrics.loss", r"metrics.val\ loss"]
        assert asked(home, "mlcore runs list -c id,lo") == ["id,loss"]
        assert asked(home, "mlcore runs list --sort metrics.") == ["metrics.loss", r"metrics.\`val\ loss\`"]
        assert asked(home, "mlcore runs list --sort dur") == ["duration"]
        assert asked(home, "mlcore history --metric l") == ["loss"]
        assert asked(home, "mlcore runs list -e dig") == [r"digits\ and\ more"]
        gone = mlcore.Client(home / ".mlcore").search_runs("deleted = true", experiment="old")[0].id
        assert asked(home, f"mlcore artifacts get {gone} ") == ["plots", "plots/a.txt"]

    def test_a_model_its_versions_and_what_stands_for_them(self, home: Path) -> None:
        """Guards the words that name a version, with and without models:/, and what there is to restore."""
        registry = mlcore.Client(home / ".mlcore").registry
        for name in ("digits", "digits", "it's mine"):
            registry.add(name, {"flavor": "toy"})
        digits, mine = registry.get("digits"), registry.get("it's mine")
        digits.set_alias("champion", 2)
        digits.version(1).delete()
        mine.delete()
        assert asked(home, "mlcore registry show ") == ["digits"]
        assert asked(home, "mlcore registry show digits") == ["digits", "digits@champion", "digits/2"]
        assert asked(home, "mlcore registry alias digits@") == ["digits@champion"]
        assert asked(home, "mlcore registry alias digits --remove ") == ["champion"]
        assert asked(home, "mlcore registry restore ") == [r"it\'s\ mine"]
        assert asked(home, "mlcore registry restore digits/") == ["digits/1"]
        assert asked(home, "mlcore models inspect ") == ["models:/digits/latest", "models:/digits@champion"]
        assert asked(home, "mlcore registry register runs:/x/model d") == ["digits"]

    def test_the_store_is_the_one_that_was_named(self, home: Path) -> None:
        """Guards --store before the word that is completed."""
        assert asked(home, f"mlcore runs show --store {home}/other ") == []
        assert "plain" in asked(home, f"mlcore runs show --store {home}/.mlcore pl", MLCORE_STORE="/nowhere")

    @pytest.mark.parametrize("store", ["none", "file", "postgres://host/runs", "off"])
    def test_whatever_is_wrong_nothing_is_said(self, home: Path, store: str) -> None:
        """Guards the line that somebody types from our errors, and the folder from a store that is made."""
        (home / "file").write_text("no store")
        before = sorted(home.iterdir())
        for line in (
            "registry show d",
            "registry alias digits ",
            "models inspect models:/d",
            "runs show p",
            "runs list -e d",
            "runs list -c metrics.",
            "artifacts get plain p",
        ):
            assert asked(home, f"mlcore {line}", MLCORE_STORE=store) == []
        assert sorted(home.iterdir()) == before

    def test_of_a_big_store_only_the_newest_runs_are_read(self, tmp_path: Path) -> None:
        """Guards whoever waits for Tab, and sees a page of words at most."""
        client = mlcore.Client(tmp_path / ".mlcore")
        for number in range(300):
            with client.start_run(name=f"run-{number:03}"):
                pass
        assert len(asked(tmp_path, "mlcore runs show run-")) == 60
        assert asked(tmp_path, "mlcore runs show run-299") == ["run-299"]
        assert asked(tmp_path, "mlcore runs show run-000") == []


def installed(shell: str) -> str:
    """Return where a shell is, or leave the test out and tell how to get it."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"needs {shell}: apt-get install {shell}, or brew install {shell}")
    return found


class Session:
    """Type into a shell in a terminal of its own."""

    def __init__(self, home: Path, *command: str) -> None:
        self.master, slave = pty.openpty()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings = environment(home, PATH=path, TERM="xterm", PS1="> ", COLUMNS="150", LINES="40")
        self.process = subprocess.Popen(
            command, cwd=home, env=settings, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str, until: str) -> str:
        """Type, and wait until this appears after what was there before; return what the shell wrote meanwhile."""
        start, end = len(self.seen), time.monotonic() + SECONDS
        os.write(self.master, text.encode())
        while until not in self.seen[start:]:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.5)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        return self.seen[start:]

    def close(self) -> None:
        """End the shell."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_what_is_typed(home: Path, shell: str) -> None:
    """Guards Tab itself: words come whole and quoted, and run as they stand; when all is broken, nothing is printed."""
    options, before = (["--norc"], "true") if shell == "bash" else (["-f"], "autoload -Uz compinit && compinit -u")
    (home / "script").write_text(program(home, "completion", shell).stdout)
    session = Session(home, installed(shell), *options, "-i")
    try:
        session.type(f"{before}; source ./script; echo REA''DY\n", "READY\r\n")
        session.type("mlcore runs show sp\t", "HOME")
        session.type(" --json > spaced.json; echo DO''NE\n", "DONE\r\n")
        assert json.loads((home / "spaced.json").read_text())["name"] == SPACED
        session.type("mlcore runs show @l\t", "ast")
        session.type("--json > last.json; echo DO''NE\n", "DONE\r\n")
        assert len(json.loads((home / "last.json").read_text())["id"]) == 32
        session.type("mlcore runs list -e di\t", "more")
        session.type("--json > list.json; echo DO''NE\n", "DONE\r\n")
        assert len(json.loads((home / "list.json").read_text())) == 4 + len(HOSTILE)
        session.type("mlcore runs list --columns name,param\t", "lr")
        session.type("--csv > list.csv; echo DO''NE\n", "DONE\r\n")
        assert (home / "list.csv").read_text().startswith("name,params.lr\n")
        shutil.move(home / ".mlcore" / "store.json", home / "away")
        said = session.type("mlcore runs show sp\t", "show sp")
        assert "Error" not in said + session.type("\x15echo DO''NE\n", "DONE\r\n")
    finally:
        session.close()


def test_fish_completes_what_is_typed(home: Path) -> None:
    """Guards fish, whose own command tells what Tab would offer: words, commas in them, and what they mean."""
    fish = installed("fish")
    (home / "script").write_text(program(home, "completion", "fish").stdout)

    def offered(line: str) -> list[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [fish, "--no-config", "-c", f"source script; complete -C '{line}'"],
            cwd=home, env=environment(home, PATH=path), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.splitlines()

    (spaced,) = offered("mlcore runs show sp")
    word, about = spaced.split("\t")
    assert word == SPACED
    assert "FINISHED" in about
    assert offered("mlcore runs show @l") == ["@last\tthe run that started last"]
    assert offered("mlcore runs list -c name,param") == ["name,params.lr"]
    assert offered("mlcore experiments delete di") == ["digits and more"]
    shutil.move(home / ".mlcore" / "store.json", home / "away")
    assert offered("mlcore runs show sp") == []

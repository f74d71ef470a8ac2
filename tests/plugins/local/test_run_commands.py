"""``mlcore runs``: what can be found out about runs, changed and logged from the shell."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mlcore
from faults.processes import environment, mlcore as program_process, run as run_code
from mlcore.cli import program
from mlcore.errors import Ambiguous, InvalidQuery, InvalidValue, NotFound, RunStateError

FIELDS = [
    "id", "name", "status", "experiment", "start_time", "end_time", "duration", "last_seen", "note", "user", "deleted",
    "experiment_id", "parent_run_id", "metrics", "params", "tags",
]  # fmt: skip
HOSTILE = "\x1b[31mred\x1b[0m\x07\nline \u202eabc <b>& 深層学習 \x9b2J " + "x" * 200
HOSTILE_KEY = "\u202eabc <script>alert(1)</script> 深層 `'\"" + "k" * 150


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlcore.Client:
    """Return a client of a store with three runs of one experiment and one of another, found from here."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLCORE_")]:
        monkeypatch.delenv(name)
    client = mlcore.Client()
    for rate, loss in ((0.1, 0.5), (0.3, 0.25), (0.03, 1.0)):
        with client.start_run(name=f"rate {rate}", experiment="lines", tags={"author": "me"}) as run:
            run.log_params({"rate": rate, "epochs": 3})
            for step in range(3):
                run.log_metrics({"loss": loss / (step + 1), "best, so far": loss}, step=step)
    with client.start_run(name="alone", experiment="other") as run:
        run.log_text("hello", "notes/hello.txt")
    return client


def said(*arguments: object) -> str:
    """Run a command that must succeed; return what it prints on standard output."""
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def call(*arguments: object, text: str | None = None) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, ["runs", *map(str, arguments)], prog_name="mlcore", input=text)


def in_terminal(home: Path, columns: int, *arguments: object, rows: int = 50, **settings: str) -> str:
    """Run the program in a terminal of so many columns; return all that it wrote there."""
    import fcntl
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **settings}
    with subprocess.Popen(
        [sys.executable, "-m", "mlcore", *map(str, arguments)],
        cwd=home, env=environment(home, **settings), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        found = b""
        try:
            while data := os.read(master, 65536):
                found += data
        except OSError:  # the terminal is closed
            pass
        assert process.wait(60) == 0, found
    os.close(master)
    return found.decode()


class TestList:
    def test_the_newest_come_first_with_what_tells_them_apart(self, client: mlcore.Client) -> None:
        """Guards the table that is looked at most: no column that is alike everywhere, whole ids in a pipe."""
        head, *rows = said("list", "-e", "lines").splitlines()
        assert re.split(r"  +", head) == [
            "id", "name", "status", "started", "best, so far", "loss", "duration", "params.rate",
        ]  # fmt: skip
        assert [re.split(r"  +", row)[1] for row in rows] == ["rate 0.03", "rate 0.3", "rate 0.1"]
        assert [row.split()[0] for row in rows] == [run.id for run in client.list_runs("lines")]

    def test_all_experiments_are_listed_unless_one_is_asked_for(
        self, client: mlcore.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards whoever does not remember the experiment, and scripts that set it."""
        assert len(json.loads(said("list", "--json"))) == 4
        assert "experiment" in said("list").splitlines()[0]
        assert [each["name"] for each in json.loads(said("list", "-e", "other", "--json"))] == ["alone"]
        monkeypatch.setenv("MLCORE_EXPERIMENT", "other")
        assert [each["name"] for each in json.loads(said("list", "--json"))] == ["alone"]
        assert len(json.loads(said("list", "-e", "*", "--json"))) == 4
        with pytest.raises(NotFound, match="no experiment 'nothing'"):
            raise call("list", "-e", "nothing").exception or AssertionError

    def test_the_json_of_a_run_has_these_keys_and_types(self, client: mlcore.Client) -> None:
        """Guards scripts: the schema is a promise."""
        found = json.loads(said("list", "--json", "-n", 2))[1]
        run = client.list_runs("lines")[0]
        assert list(found) == FIELDS
        assert found["metrics"] == {"loss": 1 / 3, "best, so far": 1.0}
        assert found["params"] == {"rate": 0.03, "epochs": 3}
        assert found["tags"] == {"author": "me"}
        assert (found["id"], found["experiment"], found["status"]) == (run.id, "lines", "FINISHED")
        assert found["duration"] == found["end_time"] - found["start_time"]
        assert (found["deleted"], found["note"], found["parent_run_id"]) == (False, "", None)

    def test_queries_choose_and_order(self, client: mlcore.Client) -> None:
        """Guards --filter and --sort: the answers are those of search_runs."""
        query, order = "metrics.loss < 0.3 and params.epochs = 3", "metrics.loss desc"
        found = json.loads(said("list", "--json", "--filter", query, "--sort", order))
        assert [each["id"] for each in found] == [
            run.id for run in client.search_runs(query, experiment="*", order_by=order)
        ]
        assert [each["name"] for each in found] == ["rate 0.1", "rate 0.3"]
        two = said("list", "--sort", "params.epochs", "--sort", "params.rate", "-n", 2, "--columns", "name")
        assert two.splitlines()[1:] == ["rate 0.03", "rate 0.1"]
        assert isinstance(call("list", "--filter", "metric").exception, InvalidQuery)
        assert call("list", "--filter", "name = 'x'").stderr == "there are no runs that fit\n"

    def test_columns_are_names_patterns_or_keys_without_their_family(self, client: mlcore.Client) -> None:
        """Guards what is typed: short names, quotes around commas, and a hint when a name is wrong."""
        lines = said("list", "-c", 'name, rate, "best, so far"', "-c", "tags.*", "-e", "lines").splitlines()
        assert re.split(r"  +", lines[0]) == ["name", "params.rate", "best, so far", "tags.author"]
        assert re.split(r"  +", lines[1]) == ["rate 0.03", "0.03", "1", "me"]
        wrong = call("list", "-c", "los")
        assert isinstance(wrong.exception, InvalidValue)
        assert "did you mean 'loss'?" in str(wrong.exception)

    def test_csv_has_all_of_it(self, client: mlcore.Client) -> None:
        """Guards spreadsheets: every column, floats to the last digit, times as numbers."""
        names, *rows = csv.reader(said("list", "--csv", "-e", "lines").splitlines())
        assert names[:2] == ["id", "name"]
        assert names[-5:] == ["metrics.best, so far", "metrics.loss", "params.epochs", "params.rate", "tags.author"]
        assert [float(row[names.index("metrics.loss")]) for row in rows] == [1 / 3, 0.25 / 3, 0.5 / 3]
        assert int(rows[0][names.index("start_time")]) == client.list_runs("lines")[0].start_time

    def test_a_store_without_runs_prints_nothing(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards scripts, which see an empty answer and exit code 0; a person is told on stderr."""
        said("start", "--store", tmp_path / "new", "--name", "gone")
        said("delete", "gone", "--store", tmp_path / "new")
        done = call("list", "--store", tmp_path / "new")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "there are no runs\n")
        assert said("list", "--store", tmp_path / "new", "--json") == "[]\n"
        assert "True" in said("list", "--store", tmp_path / "new", "--deleted", "-c", "name,deleted")

    def test_the_beginning_of_a_long_list_can_be_taken(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards `mlcore runs list | head -1` from a traceback."""
        command = f"{sys.executable} -m mlcore runs list | head -1"
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.stdout.startswith("id ")
        assert done.stderr == ""


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_tables_fit_the_terminal(client: mlcore.Client, tmp_path: Path, columns: int) -> None:
    """Guards what is looked at: colours, short ids, no line that wraps, and what has no room is named."""
    for command in (["list"], ["compare", "rate 0.1", "rate 0.3", "rate 0.03"], ["show", "rate 0.1"]):
        shown = in_terminal(tmp_path, columns, "runs", *command)
        lines = re.sub(r"\x1b\[[\d;]+m", "", shown).splitlines()
        assert "\x1b[" in shown or columns < 80
        assert [line for line in lines if len(line) > columns and not line.startswith(("id  ", "folder  "))] == []
    shown = in_terminal(tmp_path, 40, "runs", "list")
    assert client.list_runs("*")[0].id not in shown
    assert client.list_runs("*")[0].id[-8:] in shown
    assert "more for --columns" in shown
    assert "\x1b" not in in_terminal(tmp_path, 80, "runs", "list", NO_COLOR="1")


def test_a_long_table_goes_through_the_pager(client: mlcore.Client, tmp_path: Path) -> None:
    """Guards the terminal's history from a long list."""
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho PAGED; cat\n")
    pager.chmod(0o755)
    assert "PAGED" in in_terminal(tmp_path, 80, "runs", "list", rows=4, PAGER=str(pager))
    assert "PAGED" not in in_terminal(tmp_path, 80, "runs", "list", rows=40, PAGER=str(pager))


def test_no_limit_is_one_too_and_all_is_streamed(client: mlcore.Client) -> None:
    """Guards --limit: 0 and all are none, and a limit is a number."""
    assert [len(json.loads(said("list", "--json", "-n", limit))) for limit in (1, 3, 0, "all")] == [1, 3, 4, 4]
    for wrong in ("-1", "some", "1.5"):
        done = call("list", "--limit", wrong)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"'{wrong}' is neither a number of things nor 'all'" in done.stderr


def test_rich_is_not_imported_where_a_pipe_reads(client: mlcore.Client, tmp_path: Path) -> None:
    """Guards the start of the program: only who looks at a table waits for rich."""
    code = """
        import sys
        from mlcore.cli import main
        sys.argv[1:] = ["runs", "list"]
        try:
            main()
        except SystemExit:
            print("rich" in sys.modules)
    """
    out, _ = run_code(tmp_path, code)
    assert out.splitlines()[-1] == "False"
    assert "─" in in_terminal(tmp_path, 80, "runs", "list")
    assert "─" not in in_terminal(tmp_path, 80, "runs", "list", TERM="dumb")
    assert "─" not in in_terminal(tmp_path, 80, "runs", "list", PYTHONIOENCODING="ascii")


class TestNaming:
    def test_a_run_goes_by_id_a_piece_of_it_its_name_or_last(self, client: mlcore.Client) -> None:
        """Guards every way in which RUN can be given."""
        run = client.search_runs("name = 'rate 0.3'", experiment="*")[0]
        for text in (run.id, run.id[-8:], run.id[:16], "rate 0.3"):
            if text != run.id[:16]:  # which others may share: ids begin with the time
                assert json.loads(said("show", text, "--json"))["id"] == run.id
        assert json.loads(said("show", "@last", "--json"))["name"] == "alone"

    def test_a_name_of_several_runs_is_told_with_their_ids(self, client: mlcore.Client) -> None:
        """Guards against changing the wrong run."""
        with client.start_run(name="alone"):
            pass
        error = call("show", "alone").exception
        assert isinstance(error, Ambiguous)
        assert all(run.id[-8:] in str(error) for run in client.search_runs("name = 'alone'", experiment="*"))

    def test_a_deleted_run_gives_its_name_away(self, client: mlcore.Client) -> None:
        """Guards the name of a run that was started anew after a mistake."""
        said("delete", "alone")
        assert json.loads(said("show", "alone", "--json"))["deleted"] is True
        with client.start_run(name="alone"):
            pass
        assert json.loads(said("show", "alone", "--json"))["deleted"] is False

    def test_what_is_not_there_is_one_line_and_exit_code_1(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards the exit codes: 1 failed, 2 wrong usage."""
        done = program_process(tmp_path, "runs", "show", "nothing")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
        assert program_process(tmp_path, "runs", "show").returncode == 2
        assert program_process(tmp_path, "runs", "show", "@last", "--store", tmp_path / "none").returncode == 1


class TestShow:
    def test_the_page_tells_all_of_a_run(self, client: mlcore.Client) -> None:
        """Guards the page: who, when, metrics with their extremes, parameters, tags, note, files."""
        said("note", "rate 0.1", "first line\nsecond line")
        page = said("show", "rate 0.1")
        assert page.startswith("rate 0.1  FINISHED\n")
        assert re.search(r"^loss +0\.166667 +0\.166667 +0\.5 +3 +2$", page, re.MULTILINE)
        assert re.search(r"^  rate +0\.1$", page, re.MULTILINE)
        assert re.search(r"^  author +me$", page, re.MULTILINE)
        assert "\n  first line\n  second line\n" in page
        assert "5  notes/hello.txt" in said("show", "alone")

    def test_its_json_adds_summaries_models_and_files(self, client: mlcore.Client) -> None:
        """Guards the schema."""
        found = json.loads(said("show", "rate 0.1", "--json"))
        assert list(found) == [*FIELDS, "context", "summaries", "models", "datasets", "files"]
        summary = found["summaries"]["loss"]
        assert (summary["last"], summary["min"], summary["max"], summary["count"], summary["step"]) == (
            0.5 / 3, 0.5 / 3, 0.5, 3, 2,
        )  # fmt: skip
        (file,) = json.loads(said("show", "alone", "--json"))["files"]
        assert (file["path"], file["size"], len(file["sha256"])) == ("notes/hello.txt", 5, 64)


def test_compare_shows_what_differs(client: mlcore.Client) -> None:
    """Guards the comparison: a column a run, in the order given; what is alike only with --all."""
    rows = {line.split()[0]: line.split()[1:] for line in said("compare", "rate 0.1", "rate 0.3").splitlines()[1:]}
    assert rows["params.rate"] == ["0.1", "0.3"]
    assert rows["metrics.loss"] == ["0.166667", "0.0833333"]
    assert "params.epochs" not in rows
    assert "params.epochs" in said("compare", "rate 0.1", "rate 0.3", "--all")
    found = json.loads(said("compare", "rate 0.1", "alone", "--json"))
    assert found["runs"] == [
        client.search_runs(f"name = '{name}'", experiment="*")[0].id for name in ("rate 0.1", "alone")
    ]
    assert found["values"]["params.rate"] == [0.1, None]
    names, *lines = csv.reader(said("compare", "rate 0.1", "alone", "--csv").splitlines())
    assert names == ["", *found["runs"]]
    assert ["params.rate", "0.1", ""] in lines
    assert call("compare", "alone").exit_code == 2


class TestChanging:
    def test_tags_are_set_removed_and_shown(self, client: mlcore.Client) -> None:
        """Guards tags: values are text, with any = in them."""
        assert said("tag", "alone", "verdict=good", "url=a=b").splitlines() == ["url      a=b", "verdict  good"]
        assert json.loads(said("tag", "alone", "--remove", "url", "--json"))["tags"] == {"verdict": "good"}
        assert said("tag", "alone") == "verdict  good\n"
        assert client.get_run(client.list_runs("other")[0].id).tags == {"verdict": "good"}
        assert isinstance(call("tag", "alone", "verdict").exception, InvalidValue)

    def test_a_note_comes_from_the_line_from_stdin_or_an_editor(
        self, client: mlcore.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Guards notes."""
        assert said("note", "alone", "still falling") == "still falling\n"
        assert call("note", "alone", "-", text="one\ntwo\n").stdout == "one\ntwo\n"
        editor = tmp_path / "editor"
        editor.write_text('#!/bin/sh\necho three >> "$1"\n')
        editor.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(editor))
        monkeypatch.delenv("VISUAL", raising=False)
        said("note", "alone", "--edit")
        assert said("note", "alone").splitlines()[:2] == ["one", "twothree"] or "three" in said("note", "alone")
        assert json.loads(said("note", "alone", "", "--json"))["note"] == ""

    def test_runs_are_hidden_and_shown_again_all_or_none(self, client: mlcore.Client) -> None:
        """Guards deletion: nothing is lost, and a wrong name among several changes nothing."""
        assert call("delete", "alone", "nothing").exit_code == 1
        assert len(client.list_runs("*")) == 4
        assert [line.split()[0] for line in said("delete", "alone", "rate 0.1").splitlines()] == ["deleted", "deleted"]
        assert [run.name for run in client.list_runs("*")] == ["rate 0.03", "rate 0.3"]
        assert [each["deleted"] for each in json.loads(said("restore", "alone", "rate 0.1", "--json"))] == [
            False,
            False,
        ]
        assert len(client.list_runs("*")) == 4


SCRIPT = """
set -e
run=$({python} -m mlcore runs start --experiment shell --name script --param lr=0.1 --param model=cnn --tag who=me)
for loss in 0.5 0.25 nan; do
    {python} -m mlcore runs log "$run" loss=$loss acc=0.9
done
{python} -m mlcore runs log "$run" loss=0.125 --step 10
{python} -m mlcore runs show "$run" --json
{then}
"""


class TestShell:
    def script(self, home: Path, then: str) -> tuple[dict[str, Any], mlcore.Run]:
        """Run a shell script that logs a run; return what it saw of it, and the run after its end."""
        text = SCRIPT.format(python=sys.executable, then=then)
        done = subprocess.run(
            ["sh", "-c", text], cwd=home, env=environment(home), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
        return found, mlcore.Client(home / ".mlcore").get_run(found["id"])

    def test_a_script_logs_a_run_from_start_to_end(self, tmp_path: Path) -> None:
        """Guards shell scripts: the run goes on between commands, steps are counted on, and the script ends it."""
        seen, run = self.script(tmp_path, f'{sys.executable} -m mlcore runs end "$run" --status failed')
        assert (seen["status"], seen["params"], seen["tags"]) == ("RUNNING", {"lr": 0.1, "model": "cnn"}, {"who": "me"})
        assert (run.status, run.name, run.params) == ("FAILED", "script", {"lr": 0.1, "model": "cnn"})
        assert list(run.series("loss").steps) == [0, 1, 2, 10]
        assert list(run.series("acc").steps) == [0, 1, 2]
        assert run.end_time is not None

    def test_a_script_that_dies_leaves_its_run_lost(self, tmp_path: Path) -> None:
        """Guards against runs that are shown as running for ever: a run belongs to the script's process."""
        seen, run = self.script(tmp_path, "exit 0")
        assert seen["status"] == "RUNNING"
        assert run.status == "LOST"
        done = program_process(tmp_path, "runs", "end", run.id, "--status", "KILLED")
        assert (done.returncode, done.stdout) == (0, f"KILLED {run.id} script\n")

    def test_a_process_of_the_script_joins_its_run(self, tmp_path: Path) -> None:
        """Guards a training that a script starts with MLCORE_RUN_ID: it logs into the run and does not end it."""
        train = "import mlcore\nwith mlcore.start_run() as run: run.log_metric('train', 1)"
        then = (
            f'export MLCORE_RUN_ID=$run\n{sys.executable} -c "{train}"\n{sys.executable} -m mlcore runs show $run >&2'
        )
        _, run = self.script(tmp_path, f"{then}\n{sys.executable} -m mlcore runs log $run after=1")
        assert run.metrics["train"] == run.metrics["after"] == 1

    def test_start_prints_the_id_and_nothing_else(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards RUN=$(mlcore runs start)."""
        run = said("start", "--inside", "alone", "--process", 1).removesuffix("\n")
        assert re.fullmatch(r"[0-9a-f]{32}", run)
        assert client.get_run(run).parent_run_id == client.search_runs("name = 'alone'", experiment="*")[0].id
        assert client.get_run(run).status == "RUNNING"
        assert mlcore.active_run() is None
        assert "MLCORE_PROCESS" not in os.environ
        assert said("end", run) == f"FINISHED {run} {client.get_run(run).name}\n"
        key = said("start", "--key", "job")
        assert said("start", "--key", "job") == key

    def test_what_has_ended_takes_no_more(self, client: mlcore.Client) -> None:
        """Guards finished runs: they are not logged to, nor ended twice."""
        assert isinstance(call("log", "alone", "loss=1").exception, RunStateError)
        assert isinstance(call("end", "alone").exception, RunStateError)
        run = said("start", "--process", 1).strip()
        assert isinstance(call("log", run, "loss=high").exception, InvalidValue)
        assert call("log", run).exit_code == 2
        assert call("end", run, "--status", "DONE").exit_code == 2
        assert said("log", run, "loss=1") == ""
        assert json.loads(said("log", run, "loss=inf", "--json"))["metrics"] == {"loss": "Infinity"}
        said("end", run)


class TestWatch:
    def start(self, home: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start to watch."""
        return subprocess.Popen(
            [sys.executable, "-m", "mlcore", "runs", "watch", *arguments, "--interval", "0.1"],
            cwd=home, env=environment(home), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def test_points_are_printed_as_they_come_until_the_run_ends(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards watching: every point once, the last ones too, and then it ends by itself."""
        with client.start_run(name="live") as run:
            run.log_metrics({"loss": 1.0, "acc": 0.5}, step=0)
            process = self.start(tmp_path, "live", "--json")
            assert process.stdout is not None
            first = [json.loads(process.stdout.readline()) for _ in range(2)]
            for step in range(1, 20):
                run.log_metric("loss", 1 / step, step=step)
                time.sleep(0.02)
        out, err = process.communicate(timeout=60)
        points = [*first, *map(json.loads, out.splitlines())]
        assert {frozenset(each) for each in points} == {frozenset(["key", "step", "time", "value"])}
        assert [each["step"] for each in points if each["key"] == "loss"] == list(range(20))
        assert "live" in err
        assert "is FINISHED" in err

    def test_ctrl_c_ends_it_cleanly(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards the usual end of watching: no traceback, exit code 0, and the run goes on."""
        with client.start_run(name="live") as run:
            run.log_metrics({"loss": 1.0, "acc": 0.5}, step=3)
            process = self.start(tmp_path, "live")
            assert process.stdout is not None
            assert process.stdout.readline().endswith("  step 3  acc=0.5  loss=1\n")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out, "Traceback" in err) == (0, "", False)
            assert run.status == "RUNNING"

    def test_of_an_ended_run_the_last_steps_are_shown(self, client: mlcore.Client) -> None:
        """Guards watching what is over."""
        lines = said("watch", "rate 0.1", "--metric", "loss", "--tail", 2).splitlines()
        assert [line.split("  ", 1)[1] for line in lines] == ["step 1  loss=0.25", "step 2  loss=0.166667"]
        assert said("watch", "rate 0.1", "--tail", 0) == ""
        assert len(said("watch", "rate 0.1", "--json").splitlines()) == 6


def test_hostile_names_break_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the terminal, tables and JSON lines from whatever stands in names, values, tags, notes and experiments."""
    monkeypatch.chdir(tmp_path)
    client = mlcore.Client()
    for name in (HOSTILE, "\u2067" + HOSTILE[::-1]):
        with client.start_run(name=name, experiment=HOSTILE_KEY, tags={HOSTILE_KEY: HOSTILE}) as run:
            run.log_params({HOSTILE_KEY: HOSTILE + name})
            run.log_metrics({HOSTILE_KEY: float("nan")})
            run.set_note(HOSTILE)
    commands: list[list[str]] = [
        ["runs", "list"], ["runs", "list", "--json"], ["runs", "list", "--csv"], ["runs", "list", "-c", "*"],
        ["runs", "show", run.id], ["runs", "show", run.id, "--json"], ["runs", "compare", run.id, HOSTILE, "--all"],
        ["runs", "compare", run.id, HOSTILE, "--csv"], ["runs", "tag", run.id], ["runs", "note", run.id],
        ["runs", "watch", run.id], ["runs", "watch", run.id, "--json"], ["experiments", "list"],
        ["experiments", "list", "--csv"], ["experiments", "delete", HOSTILE_KEY],
        ["experiments", "restore", HOSTILE_KEY],
        ["runs", "delete", run.id], ["runs", "restore", run.id],
    ]  # fmt: skip
    for command in commands:
        done = CliRunner().invoke(program, command, prog_name="mlcore")
        assert done.exit_code == 0, (command, done.exception)
        for line in (done.stdout + done.stderr).splitlines():
            assert line.isprintable(), (command, line)
    assert len(said("list").splitlines()) == 3
    assert len(said("list", "--csv").splitlines()) == 3
    assert [each["name"] for each in json.loads(said("list", "--json"))] == [name, HOSTILE]
    for columns, term, rule in (
        (80, "dumb", 0),
        (200, "dumb", 0),
        (80, "xterm", 1),
        (200, "xterm", 1),
    ):  # rich draws a rule
        shown = re.sub(r"\x1b\[[\d;]+m|\u200e", "", in_terminal(tmp_path, columns, "runs", "list", TERM=term))
        assert len(shown.splitlines()) == 4 + rule
        assert all(line.isprintable() for line in shown.splitlines())
    done = program_process(tmp_path, "runs", "log", run.id, "x=1")  # an error that names the run
    assert all(line.isprintable() for line in done.stderr.splitlines())

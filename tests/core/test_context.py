"""What a run records about itself: who is asked, when, by which process, and what holds whatever a plugin does."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mlcore
from faults.processes import run as run_process
from mlcore import Provider, Run, plugins
from mlcore.config import user_file
from mlcore.errors import ConfigError
from mlcore.store import Created

Tellers = dict[str, Callable[[Run], Any]]


def _provide(tellers: Tellers) -> None:
    def mlcore_context() -> list[Provider]:
        return [Provider(name, tell) for name, tell in tellers.items()]

    plugins.register(SimpleNamespace(mlcore_context=mlcore_context), "tellers")


@pytest.fixture
def provide() -> Iterator[Callable[..., None]]:
    """Return what registers providers by name, with what each of them does."""
    yield lambda **tellers: _provide(tellers)
    plugins.unregister("tellers")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[mlcore.Client]:
    """Provide a client for a store of its own."""
    found = mlcore.Client(tmp_path / "store")
    yield found
    found.close()


Provide = Callable[..., None]


def test_a_start_waits_for_nobody_and_the_end_for_all(client: mlcore.Client, provide: Provide) -> None:
    """Guards the start of a training: what takes long is found beside it, and is there when the run has ended."""
    go = threading.Event()
    provide(quick=lambda run: {"b": {"c": [1, None]}}, slow=lambda run: {"a": go.wait(30)})
    run = client.start_run(capture=["quick", "slow"])
    run.log_metric("loss", 1)
    assert "slow.a" not in client.get_run(run.id).context
    go.set()
    run.end()
    assert run.context == {"captured": ["quick", "slow"], "quick.b": {"c": [1, None]}, "slow.a": True}


def test_what_one_of_them_raises_is_one_line_and_the_others_are_asked(
    client: mlcore.Client, provide: Provide, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards training from plugins: an error, an answer that is none, and one that is too large."""
    provide(
        bad=lambda run: {}["x"],
        none=lambda run: None,
        large=lambda run: {"a": "x" * 100_000},
        many=lambda run: {f"key {n}": "x" * 1_000 for n in range(100)},
    )
    with client.start_run(capture="bad, none,large,many") as run:
        pass
    assert run.status == "FINISHED"
    assert len(run.context) == 101
    told = [text for each in caplog.records if "does not record" in (text := each.getMessage())]
    assert [text.split("its ")[1].split(":")[0] for text in told] == ["bad", "none", "large"]


def test_what_is_asked_once_more_at_the_end_may_say_something_else(client: mlcore.Client, provide: Provide) -> None:
    """Guards seeds, which are often set after the run was started."""

    def tell(run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": run.metrics.get("loss"), "first": True}
        yield {"loss": run.metrics["loss"]}

    provide(late=tell)
    with client.start_run(capture=["late"]) as run:
        run.log_metric("loss", 3)
    assert run.context == {"captured": ["late"], "late.loss": 3, "late.first": True}


def test_a_provider_may_write_more_about_the_run(client: mlcore.Client, provide: Provide) -> None:
    """Guards entities of a plugin's own kind, and files, which are written from the thread."""

    def tell(run: Run) -> dict[str, Any]:
        run.log_events(Created("recipe", "soup", fields={"salt": 2}))
        run.log_text("take water", ".mlcore/recipe.txt")
        return {}

    provide(recipe=tell)
    with client.start_run(capture=["recipe"]) as run:
        pass
    (entity,) = client.store.get("recipe", ["soup"])
    assert entity is not None
    assert entity.fields == {"salt": 2}
    assert run.artifacts.get(".mlcore/recipe.txt").read_text() == "take water"


def test_what_mlcore_keeps_is_listed_when_it_is_asked_for(client: mlcore.Client, tmp_path: Path) -> None:
    """Guards the list of files, and a copy of all of them, from what one did not put there."""
    with client.start_run() as run:
        run.log_text("mine", "notes.txt")
        run.log_text("its own", ".mlcore/code/train.py")
    assert [each.path for each in run.artifacts.list()] == ["notes.txt"]
    assert [each.path for each in run.artifacts.list(".mlcore")] == [".mlcore/code/train.py"]
    assert run.artifacts.get(".mlcore/code/train.py").read_text() == "its own"
    assert sorted(os.listdir(run.artifacts.get(dst=tmp_path / "copy"))) == ["notes.txt"]
    run.artifacts.get(".mlcore/code/train.py").write_text("changed")
    assert [each.path for each in run.artifacts.verify()] == [".mlcore/code/train.py"]


class TestSettings:
    """What is captured is said by an argument, the environment, the project's file or the user's."""

    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provide: Provide) -> None:
        provide(a=lambda run: {"x": 1}, b=lambda run: {"x": 1})
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.delenv("MLCORE_CAPTURE", raising=False)
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / ".git").mkdir()
        monkeypatch.chdir(tmp_path / "project")

    def captured(self, client: mlcore.Client, chosen: Any = None) -> list[str] | None:
        """Return the names of what a run says that it captured, those of this test."""
        with client.start_run(capture=chosen) as run:
            pass
        found = run.context.get("captured")
        assert {key.partition(".")[0] for key in run.context} - {"captured"} <= set(found or ())
        return None if found is None else [name for name in found if name in "ab"]

    def test_by_default_it_is_everything(self, client: mlcore.Client) -> None:
        assert self.captured(client) == ["a", "b"]

    def test_the_strongest_counts(self, client: mlcore.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        user_file().parent.mkdir(parents=True)
        user_file().write_text('capture = "off"')
        assert self.captured(client) is None
        Path("pyproject.toml").write_text('[tool.mlcore]\ncapture = ["b", "python"]')
        assert self.captured(client) == ["b"]
        monkeypatch.setenv("MLCORE_CAPTURE", "all")
        assert self.captured(client) == ["a", "b"]
        assert self.captured(client, "a") == ["a"]
        assert self.captured(client, []) is None
        assert self.captured(client, "off") is None

    def test_an_empty_list_is_nothing(self, client: mlcore.Client) -> None:
        Path("pyproject.toml").write_text("[tool.mlcore]\ncapture = []")
        assert self.captured(client) is None

    def test_a_name_that_nothing_provides_is_told_of(
        self, client: mlcore.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert self.captured(client, "a,gti") == ["a"]
        assert "nothing installed captures 'gti'" in caplog.text

    def test_what_is_no_text_is_an_error_that_names_the_file(self, client: mlcore.Client) -> None:
        Path("pyproject.toml").write_text("[tool.mlcore]\ncapture = 3")
        with pytest.raises(ConfigError, match=r"pyproject\.toml: capture must be"):
            client.start_run()


class TestSeveralProcesses:
    """Who opens a run captures; who joins it, only what nobody has taken on; who resumes it, anew."""

    JOIN = """
    import os, sys, mlcore
    from mlcore import Provider
    class Plugin:
        @staticmethod
        def mlcore_context():
            return [Provider(name, lambda run: {"pid": os.getpid()}) for name in ("a", "b")]
    mlcore.plugins.register(Plugin)
    run = mlcore.Client(sys.argv[1]).start_run(run_id=sys.argv[2], capture="a,b")
    run.end()
    print(os.getpid(), *run.context.get("captured", ()))
    """

    def test_who_joins_captures_what_is_left(self, client: mlcore.Client, provide: Provide, tmp_path: Path) -> None:
        """Guards `mlcore run`, whose supervisor opens the run and records the code, and the child what it imports."""
        provide(a=lambda run: {"pid": "opener"}, b=lambda run: {"pid": "opener"})
        opened = client.start_run(capture=["a"])
        out, _ = run_process(tmp_path, self.JOIN, tmp_path / "store", opened.id)
        pid, *captured = out.split()
        assert captured == ["a", "b"]
        out, _ = run_process(tmp_path, self.JOIN, tmp_path / "store", opened.id)  # a second worker finds nothing left
        opened.end()
        assert opened.context == {"captured": ["a", "b"], "a.pid": "opener", "b.pid": int(pid)}

    def test_who_resumes_a_run_captures_anew(self, client: mlcore.Client, provide: Provide) -> None:
        """Guards a requeued job, which may run other code: what is not true any more is gone, the rest is as it was."""
        told: dict[str, Any] = {"x": 1, "y": 1}
        provide(a=lambda run: told, b=lambda run: {"x": 1})
        with client.start_run(key="job", capture="a,b"):
            pass
        told = {"x": 2}
        with client.start_run(key="job", capture="a") as run:
            pass
        assert run.context == {"captured": ["a"], "a.x": 2, "b.x": 1}

    def test_a_nested_run_is_a_run_like_others(self, client: mlcore.Client, provide: Provide) -> None:
        """Guards sweeps: each run can be found by what it ran."""
        provide(a=lambda run: {"id": run.id})
        with client.start_run(capture="a") as outer, client.start_run(nested=True, capture="a") as inner:
            pass
        assert [each.context["a.id"] for each in (outer, inner)] == [outer.id, inner.id]


def test_nothing_is_asked_where_tracking_is_off(provide: Provide) -> None:
    """Guards MLCORE_STORE=off: no thread, no work."""
    provide(a=lambda run: pytest.fail("asked"))
    with mlcore.Client("off").start_run(capture="a") as run:
        assert "mlcore-capture" not in [each.name for each in threading.enumerate()]
    assert run.context == {}


def test_an_end_does_not_wait_forever(
    client: mlcore.Client, provide: Provide, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a run whose repository is on a dead disk: it ends, tells so, and what comes too late is left out."""
    monkeypatch.setattr("mlcore.tracking._context.WAIT_SECONDS", 0.1)
    go = threading.Event()
    provide(dead=lambda run: {"a": go.wait(30)})
    with client.start_run(capture="dead") as run:
        capture = run._capture
        assert capture is not None
    assert "ends before all that it records" in caplog.text
    assert client.get_run(run.id).status == "FINISHED"
    go.set()
    capture.join(30)
    assert client.get_run(run.id).context == {"captured": ["dead"]}


def test_an_interrupted_wait_ends_the_run_all_the_same(client: mlcore.Client, provide: Provide) -> None:
    """Guards a second Ctrl-C: the first one broke off the training, and this one the wait at its end."""
    go = threading.Event()
    provide(slow=lambda run: {"a": go.wait(30)})
    run = client.start_run(capture="slow")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run.end("KILLED")
    go.set()
    assert client.get_run(run.id).status == "KILLED"


def test_a_run_of_the_last_moment_is_captured_as_well(tmp_path: Path) -> None:
    """Guards runs that are started as the process ends, when there can be no more threads."""
    code = """
    import atexit, mlcore
    def last():
        with mlcore.start_run() as run:
            pass
        print(run.context["python.version"])
    atexit.register(last)
    """
    out, _ = run_process(tmp_path, code)
    assert out.strip()


def test_a_fork_amid_the_capture_leaves_the_child_whole(tmp_path: Path) -> None:
    """Guards data loaders: a module that a thread was importing at the fork could never be imported in the child."""
    (tmp_path / "lazy.py").write_text("import time\ntime.sleep(0.2)\nhere = True\n")
    code = """
    import os, signal, sys, threading, warnings, mlcore
    from mlcore import Provider
    sys.path.insert(0, os.getcwd())
    warnings.simplefilter("ignore")
    importing = threading.Event()
    def tell(run):
        importing.set()
        import lazy
        return {"here": lazy.here, "pid": os.getpid()}
    class Plugin:
        @staticmethod
        def mlcore_context():
            return [Provider("lazy", tell)]
    mlcore.plugins.register(Plugin)
    run = mlcore.start_run(capture="lazy")
    importing.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        import lazy
        mlcore.log_metric("child", 1)
        mlcore.end_run()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.end()
    assert run.context == {"captured": ["lazy"], "lazy.here": True, "lazy.pid": os.getpid()}, run.context
    assert run.metrics == {"child": 1}
    """
    run_process(tmp_path, code)


def test_a_fork_waits_a_moment_only(client: mlcore.Client, provide: Provide) -> None:
    """Guards the same loaders from a capture that takes long."""
    go = threading.Event()
    provide(slow=lambda run: {"a": go.wait(30)})
    run = client.start_run(capture="slow")
    began = time.monotonic()
    for _ in range(3):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    assert time.monotonic() - began < 10
    go.set()
    run.end()
    assert run.context["slow.a"] is True


def test_what_runs_recorded_can_be_asked_for(client: mlcore.Client, provide: Provide) -> None:
    """Guards "which runs used this commit": filters, order and columns take what a run recorded."""
    provide(
        vcs=lambda run: {"commit": run.name, "dirty": run.name == "b"}, machine=lambda run: {"cores": len(run.name)}
    )
    for name in ("a", "b", "ccc"):
        with client.start_run(name=name, capture="vcs,machine"):
            pass
    assert [run.name for run in client.search_runs("context.vcs.commit = 'a'")] == ["a"]
    assert [run.name for run in client.search_runs("context.vcs.dirty = true")] == ["b"]
    assert [run.name for run in client.search_runs("context.machine.cores > 2 or context.vcs.commit like 'a%'")] == [
        "ccc",
        "a",
    ]
    assert [run.name for run in client.search_runs(order_by="context.machine.cores desc", limit=1)] == ["ccc"]
    (row,) = client.search_runs("name = 'b'", select="context.vcs.commit,context").to_dicts()
    assert (row["context.vcs.commit"], row["context.machine.cores"]) == ("b", 1)


def test_the_thread_is_told_by_its_name(
    client: mlcore.Client, provide: Provide, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards whoever looks at a stuck process: the thread says what it is, and none is left behind."""
    caplog.set_level(logging.DEBUG)
    names: list[str] = []
    provide(a=lambda run: {"x": names.append(threading.current_thread().name)})
    with client.start_run(capture="a"):
        pass
    assert names == ["mlcore-capture"]
    assert "mlcore-capture" not in [each.name for each in threading.enumerate()]

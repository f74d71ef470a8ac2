"""Run the tools that are compared: workers that stay, and processes that are timed from start to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

from tests.benchmarks.environments import python_of
from tests.benchmarks.worker import load

HERE = Path(__file__).resolve().parent
PEERS = sorted({path.stem for path in (HERE / "adapters").glob("*.py")} - {"floor", "mlcore"})


@dataclass(frozen=True)
class Tool:
    """Name an adapter and the Python that has what it adapts."""

    name: str
    python: Path
    adapter: ModuleType

    def program(self, *arguments: str) -> list[str]:
        """Return the tool's own command."""
        return [str(self.python.parent / self.adapter.HELP), *arguments]


@dataclass
class Bench:
    """Hold the tools, the folder they work in, how often to repeat, and what went wrong."""

    tools: list[Tool]
    folder: Path
    rounds: int
    problems: list[str] = field(default_factory=list)

    @property
    def peers(self) -> list[Tool]:
        """The tools that are neither the floor nor mlcore."""
        return [tool for tool in self.tools if tool.name in PEERS]

    def report(self, tool: Tool, error: object) -> None:
        """Note that a tool did not take part in something."""
        line = f"{tool.adapter.TITLE}: {error}"
        if line not in self.problems:
            self.problems.append(line)

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Give a folder that is empty and goes away afterwards."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.folder, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    @contextmanager
    def workers(self) -> Iterator[dict[Tool, Worker]]:
        """Start a worker a tool, each in an empty folder."""
        with self.place("workers") as folder:
            able = [tool for tool in self.tools if hasattr(tool.adapter, "Adapter")]
            started = {tool: Worker(tool, folder / tool.name) for tool in able}
            try:
                yield started
            finally:
                for worker in started.values():
                    worker.close()

    @contextmanager
    def team(self, tool: Tool, count: int) -> Iterator[list[Worker]]:
        """Start so many workers of one tool, all in one folder that was empty."""
        with self.place("team") as folder:
            started = [Worker(tool, folder / tool.name, f"output-{number}") for number in range(count)]
            try:
                yield started
            finally:
                for worker in started:
                    worker.close()

    def once(self, does: Mapping[Tool, Callable[[], Any]]) -> dict[Tool, Any]:
        """Let every tool do its part; who fails is reported and left out."""
        found = {}
        for tool, part in does.items():
            try:
                found[tool] = part()
            except ToolError as error:
                self.report(tool, error)
        return found

    def paired(self, does: Mapping[Tool, Callable[[], Any]], rounds: int | None = None) -> dict[Tool, list[Any]]:
        """Let every tool do its part in turn, round by round, each round in another order.

        The first round warms up and is left out; who fails is reported and left out altogether.
        """
        found: dict[Tool, list[Any]] = {tool: [] for tool in self.once(does)}
        position = {tool.name: index for index, tool in enumerate(found)}
        for turn in range(rounds or self.rounds):
            order = sorted(found, key=lambda tool: (position[tool.name] + turn) % len(position))
            results = self.once({tool: does[tool] for tool in order})
            found = {tool: [*values, results[tool]] for tool, values in found.items() if tool in results}
        return found


class ToolError(Exception):
    """Say that a tool could not do what a benchmark asks for."""


class Worker:
    """Talk to one process of a tool."""

    def __init__(self, tool: Tool, folder: Path, output: str = "worker-output") -> None:
        folder.mkdir(exist_ok=True)
        command = [tool.python, "-P", HERE / "worker.py", HERE / "adapters" / f"{tool.name}.py", folder]
        self.folder, self._tool, self._output = folder, tool, folder / output
        with self._output.open("wb") as opened:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=opened, text=True,
            )  # fmt: skip

    def can(self, name: str) -> bool:
        """Tell whether the tool has an operation."""
        return hasattr(self._tool.adapter.Adapter, name)

    def ask(self, name: str, **arguments: Any) -> Any:
        """Let the tool do something, and return what it answers. Raises `ToolError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps([name, arguments]), file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline() or "{}")
        except OSError as error:
            answer = {"error": str(error)}
        if "result" not in answer:
            last = self._output.read_text(errors="replace").strip().splitlines()[-1:]
            raise ToolError(f"{name} failed: {answer.get('error') or last}")
        return answer["result"]

    def close(self) -> None:
        """End the process, by force if it does not."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(60)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which nobody's settings, caches or keys count."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **more}


def cpu_seconds(command: list[str], cwd: Path, env: Mapping[str, str]) -> float:
    """Run a command to its end and return the CPU time it took, which busy neighbours change least.

    Raises `ToolError`.
    """
    return seconds(command, cwd, env)["CPU"]


def seconds(command: list[str], cwd: Path, env: Mapping[str, str]) -> dict[str, float]:
    """Run a command to its end and return how long it took, and its CPU time. Raises `ToolError`."""
    with (cwd / "output").open("w+b") as output:
        start = perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-1:]
            raise ToolError(f"{' '.join(command)[:80]} failed: {last}")
    return {"wall": wall, "CPU": usage.ru_utime + usage.ru_stime}


def bench(peers: list[str], folder: Path, rounds: int) -> Bench:
    """Gather the tools; a peer that cannot be installed is reported and left out."""
    own = [Tool(name, Path(sys.executable), _adapter(name)) for name in ("floor", "mlcore")]
    found = Bench(own, folder, rounds)
    for name in peers:
        adapter = _adapter(name)
        try:
            found.tools.append(Tool(name, python_of(adapter.REQUIREMENTS), adapter))
        except (OSError, subprocess.CalledProcessError) as error:
            found.problems.append(f"{adapter.TITLE}: cannot be installed: {error}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return found


def _adapter(name: str) -> ModuleType:
    return load(HERE / "adapters" / f"{name}.py")

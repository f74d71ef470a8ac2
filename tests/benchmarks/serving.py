"""Benchmarks of servers: what each of them does with the same load, and what it takes while it does nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from tests.benchmarks import protocols
from tests.benchmarks.load import Connection, Load, LoadError, load, queues, request
from tests.benchmarks.results import NONE, Limit, Number, Ratios, ratios
from tests.benchmarks.tools import Bench, Tool, ToolError, environment

Rows = Iterator[Ratios | Number]

CONNECTIONS = 8
LEVELS = {"process": "survives a crash of the server", "power": "survives a crash of the machine"}
# of servers with one worker, as mlcore has one
LEAST = {("fasttrackml", ""): Limit(least=2), ("mlflow", "1 worker, no jobs"): Limit(least=40)}
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """Run one server on a free port of this machine, in an empty folder."""

    def __init__(self, tool: Tool, variant: str, folder: Path, level: str) -> None:
        folder.mkdir()
        self.tool, self.variant, self.folder = tool, variant, folder
        self.port = _free_port()
        arguments, more = tool.adapter.server(self.port, level)[variant]
        program = str(tool.python.parent / tool.adapter.SERVER)
        self._output = folder / "output"
        path = f"{tool.python.parent}{os.pathsep}{os.environ['PATH']}"
        start = perf_counter()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [program, *arguments], cwd=folder, env=environment(folder, **{"PATH": path, **more}),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            self._wait(start + 120)
        except ToolError:
            self.close()
            raise
        self.started = perf_counter() - start

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f"{self.tool.adapter.TITLE}{self.variant and f', {self.variant}'}"

    def _wait(self, until: float) -> None:
        while True:
            with contextlib.suppress(OSError, LoadError):
                connection = Connection(self.port)
                connection.ask(request("GET", "/health"))
                connection.close()
                return
            if self.process.poll() is not None or perf_counter() > until:
                last = self._output.read_text(errors="replace").strip().splitlines()[-1:]
                raise ToolError(f"the server does not start: {last}")
            time.sleep(0.005)

    def processes(self) -> list[int]:
        """Return the ids of its processes."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        found = [self.process.pid]
        for each in found:
            found += [child for child, parent in parents.items() if parent == each]
        return found

    def memory(self) -> tuple[float, int]:
        """Return the MB that its processes have in memory, and how many there are."""
        pages, count = 0, 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
                count += 1
        return pages * os.sysconf("SC_PAGESIZE") / 1e6, count

    def cpu(self) -> float:
        """Return the seconds of CPU that its processes took so far."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                total += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[11:13]))
        return total / TICK

    def pause(self) -> None:
        """Stop its processes, which also work while nobody asks them."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def close(self) -> None:
        """End it, and what it has started."""
        processes = self.processes()
        self.go_on()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


class Client:
    """Ask one server, in its own protocol."""

    def __init__(self, server: Server) -> None:
        self.server = server
        first = Connection(server.port)
        self.speaks = getattr(protocols, server.tool.adapter.SPEAKS)(first.ask)
        first.close()
        self.queues: dict[str, list[deque[bytes]]] = {}

    def run(self, what: str, seconds: float, at_most: int) -> dict[str, Any]:
        """Put the server under the load of one kind of request. Raises `ToolError`."""
        kept = self.queues.setdefault(what, [deque() for _ in range(CONNECTIONS)])
        missing = at_most // CONNECTIONS - min(map(len, kept))
        for queue, more in zip(kept, self._made(what, missing), strict=True):
            queue.extend(more)
        self.server.go_on()
        connections = [Connection(self.server.port) for _ in range(CONNECTIONS)]  # old ones were closed meanwhile
        before = self.server.cpu()
        try:
            done: Load = load(connections, kept, seconds)
        except (LoadError, OSError) as error:
            raise ToolError(f"{what}: {error}") from error
        finally:
            for each in connections:
                each.close()
            taken = self.server.cpu() - before
            self.server.pause()
        return {"each": done.each, "late": done.late, "CPU": taken / len(done.latencies)}

    def _made(self, what: str, count: int) -> list[deque[bytes]]:
        if what == "log":
            return [deque(self.speaks.log(index, count)) for index in range(CONNECTIONS)]
        return queues(getattr(self.speaks, what)(count * CONNECTIONS), CONNECTIONS)


# in this order, so that all search the same runs: how many are created depends on how fast a server is
WORDS = {
    "log": "log one point a request",
    "get": "get one run",
    "search": "search, 100 results",
    "create": "create a run",
}


def serving(bench: Bench, seconds: float, at_most: int) -> Rows:
    """Ask servers over 8 connections; all of them keep what they were told equally well."""
    tools = [tool for tool in bench.tools if hasattr(tool.adapter, "server")]
    for level, words in LEVELS.items():
        with bench.place("serving") as place, contextlib.ExitStack() as stack:
            clients = {client: client.server.tool for client in _clients(bench, tools, place, level, stack)}
            own = next((client for client, tool in clients.items() if tool.name == "mlcore"), None)
            if own is None:
                return
            if level == "process":
                yield from _idle(bench, place, list(clients))
            for what in WORDS if level == "process" else ["log"]:
                parts = {
                    client: lambda client=client, what=what: client.run(what, seconds, at_most) for client in clients
                }
                found = _paired(bench, parts)
                if own in found:
                    yield from _compared(f"server: {WORDS[what]}, {words}", own, found, judged=what == "log")


def _clients(bench: Bench, tools: list[Tool], place: Path, level: str, stack: contextlib.ExitStack) -> Iterator[Client]:
    for tool in tools:
        for number, variant in enumerate(tool.adapter.server(0, level)):
            try:
                server = Server(tool, variant, place / f"{tool.name}-{number}", level)
                stack.callback(server.close)
                client = Client(server)
            except (ToolError, LoadError, OSError) as error:
                bench.report(tool, error)
                continue
            server.idle = server.memory()
            server.pause()
            yield client


def _idle(bench: Bench, place: Path, clients: list[Client]) -> Rows:
    """Tell how soon each server answered, and its memory before the first load."""
    for client in clients:
        server, ours = client.server, client.server.tool.name == "mlcore"
        memory, processes = server.idle
        limit = Limit(most=100) if ours else NONE
        yield Number(
            f"server: MB of memory when idle, {processes} process{'es'[: 2 * (processes > 1)]}",
            server.title,
            memory,
            limit,
        )
        times = [server.started]
        for turn in range(2 if ours else 0):
            again = Server(server.tool, server.variant, place / f"{server.folder.name}-again-{turn}", "process")
            again.close()
            times.append(again.started)
        yield Number("server: s to the first answer", server.title, median(times), Limit(most=1) if ours else NONE)


def _paired(bench: Bench, parts: dict[Client, Callable[[], Any]]) -> dict[Client, list[dict[str, float]]]:
    """Let all servers do their part in turn; the same as `Bench.paired`, where a tool has several servers."""
    found: dict[Client, list[Any]] = {}
    for turn in range(-1, max(2, bench.rounds // 2)):  # the first one warms up
        order = list(parts)
        for client in order[turn % len(order) :] + order[: turn % len(order)]:
            try:
                found.setdefault(client, []).append(parts[client]())
            except ToolError as error:
                bench.report(client.server.tool, error)
                parts = {each: part for each, part in parts.items() if each != client}
                found.pop(client, None)
    return {client: values[1:] for client, values in found.items()}


def _compared(what: str, own: Client, found: dict[Client, list[dict[str, float]]], judged: bool) -> Rows:
    times = {client: [each["each"] for each in values] for client, values in found.items()}
    cpu = {client: [each["CPU"] for each in values] for client, values in found.items()}
    label = f"{1 / median(times[own]):,.0f} requests/s"
    for client, values in found.items():
        server, late = client.server, median(each["late"] for each in values) * 1e3
        if client is not own:
            limit = LEAST.get((server.tool.name, server.variant), NONE) if judged else NONE
            yield Ratios(what, server.title, ratios(times[client], times[own]), limit, label)
            used = f"{median(cpu[own]) * 1e6:.0f} us CPU"
            yield Ratios(f"{what}: CPU", server.title, ratios(cpu[client], cpu[own]), NONE, used)
        yield Number(f"{what}: requests/s", server.title, 1 / median(times[client]))
        yield Number(f"{what}: ms, 99th percentile", server.title, late)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]

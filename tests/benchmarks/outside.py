"""Benchmarks of whole processes: what an import, a first run, a command and an installation cost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.environments import distributions, make
from tests.benchmarks.results import NONE, Limit, Number, Ratios, ratios
from tests.benchmarks.tools import Bench, Tool, ToolError, cpu_seconds, environment, seconds

Rows = Iterator[Ratios | Number]

PROBE = "import sys; bare = set(sys.modules)\n{code}\nprint('\\nMODULES', *sorted(set(sys.modules) - bare))"
FORBIDDEN = {"click", "yaml", "cattrs", "fsspec", "numpy"}
LEAST = Limit(least=30)


def modules(python: Path, code: str, cwd: Path, env: dict[str, str]) -> set[str]:
    """Return the modules that `code` loads beyond those of a bare Python. Raises `ToolError`."""
    done = subprocess.run(
        [python, "-c", PROBE.format(code=code)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    last = done.stdout.rpartition("\nMODULES ")
    if done.returncode or not last[1]:
        raise ToolError(f"{code[:40]!r} failed: {done.stderr.strip().splitlines()[-1:]}")
    return set(last[2].split())


def start_up(bench: Bench) -> Rows:
    """Import, and start, log into and end a first run: modules, and CPU time beyond that of a bare Python."""
    tools = [tool for tool in bench.tools if hasattr(tool.adapter, "IMPORT")]
    with bench.place("start-up") as place:
        homes = {tool: place / tool.name for tool in tools}
        for home in homes.values():
            home.mkdir()
        env = {tool: environment(homes[tool], WANDB_MODE="offline", WANDB_SILENT="true", TRACKIO_DIR=str(homes[tool]))
               for tool in tools}  # fmt: skip
        for what, name, limit in (("import", "IMPORT", 60), ("first run", "FIRST_RUN", 200)):
            for tool in tools:
                code, ours = getattr(tool.adapter, name), tool.name == "mlcore"
                try:
                    found = modules(tool.python, code, homes[tool], env[tool])
                except ToolError as error:
                    bench.report(tool, error)
                    continue
                yield Number(
                    f"new modules, {what}", tool.adapter.TITLE, len(found), Limit(most=limit) if ours else NONE
                )
                if ours:
                    heavy = FORBIDDEN & {each.partition(".")[0] for each in found}
                    yield Number(f"forbidden modules, {what}", "mlcore", len(heavy), Limit(most=0))
            yield from _cpu(bench, what, name, homes, env)


def _cpu(bench: Bench, what: str, name: str, homes: dict[Tool, Path], env: dict[Tool, dict[str, str]]) -> Rows:
    def once(tool: Tool) -> Callable[[], float]:
        def run() -> float:
            bare = cpu_seconds([str(tool.python), "-c", "pass"], homes[tool], env[tool])
            code = getattr(tool.adapter, name)
            return cpu_seconds([str(tool.python), "-c", code], homes[tool], env[tool]) - bare

        return run

    own = next(tool for tool in homes if tool.name == "mlcore")
    found = bench.paired({tool: once(tool) for tool in homes}, max(2, bench.rounds // 3))
    bare = bench.paired({own: lambda: cpu_seconds([str(own.python), "-c", "pass"], homes[own], env[own])}, 5)
    if own not in found:
        return
    label, words = f"{median(found[own]) * 1e3:.3g} ms CPU", f"CPU of {what}"
    yield Ratios(words, "a bare Python", [each / median(bare[own]) for each in found[own]], NONE, label)
    for tool, values in found.items():
        if tool != own:
            limit = LEAST if tool.name == "mlflow" else NONE
            yield Ratios(words, tool.adapter.TITLE, ratios(values, found[own]), limit, label)


def help_page(bench: Bench, plugins: int) -> Rows:
    """Print the help of the command, alone and with many plugins installed."""
    tools = [tool for tool in bench.tools if getattr(tool.adapter, "HELP", None)]
    with bench.place("help") as place:
        many = _dummies(place / "many", plugins)
        own = next(tool for tool in tools if tool.name == "mlcore")
        env = environment(place)
        with_many = {**env, "PYTHONPATH": str(many)}
        own_help = own.program("--help")
        subprocess.run(own_help, env=with_many, capture_output=True, check=False)

        def added() -> tuple[float, float, float]:
            return (
                cpu_seconds([str(own.python), "-c", "pass"], place, env),
                cpu_seconds(own_help, place, env),
                cpu_seconds(own_help, place, with_many),
            )

        parts = {tool: lambda tool=tool: cpu_seconds(tool.program("--help"), place, env) for tool in tools}
        found = bench.paired(parts, max(2, bench.rounds // 3))
        label = f"{median(found[own]) * 1e3:.3g} ms CPU"
        for tool, values in found.items():
            if tool != own:
                limit = LEAST if tool.name == "mlflow" else NONE
                yield Ratios("mlcore --help", tool.adapter.TITLE, ratios(values, found[own]), limit, label)
        times = bench.paired({own: added})[own]
        yield Ratios("mlcore --help", "a bare Python", [alone / bare for bare, alone, _ in times], NONE, label)
        extra = median([more - alone for _, alone, more in times]) * 1e3
        yield Ratios(
            f"mlcore --help with {plugins} more plugins", "without them", [more / alone for _, alone, more in times],
            NONE, f"{extra:.3g} ms CPU more (design: 20)",
        )  # fmt: skip


def list_command(bench: Bench, runs: int) -> Rows:
    """List the newest half of many runs, 1,000 at most, by the tool's command: the whole process, from start to end."""
    with bench.workers() as workers:
        able = {tool: worker for tool, worker in workers.items() if hasattr(tool.adapter, "list_command")}
        made = bench.once({tool: lambda one=one: one.ask("make_runs", runs=runs) for tool, one in able.items()})
        yield from listed(bench, {tool: able[tool].folder for tool in made}, runs)


def listed(bench: Bench, homes: Mapping[Tool, Path], runs: int, **more: str) -> Rows:
    """List the newest half of the runs that are there in the tools' folders."""
    commands = {tool: _command(tool, home, min(runs // 2, 1_000), more) for tool, home in homes.items()}
    found = bench.paired(commands, max(2, bench.rounds // 2))
    own = next((tool for tool in found if tool.name == "mlcore"), None)
    for part in ("wall", "CPU") if own else ():
        times = {tool: [each[part] for each in values] for tool, values in found.items()}
        what, label = f"mlcore runs list, {runs:,} runs, {part}", f"{median(times[own]) * 1e3:.3g} ms {part}"
        bare = [each["bare"][part] for each in found[own]]
        yield Ratios(what, "a bare Python", ratios(times.pop(own), bare), NONE, label)
        for tool, values in times.items():
            limit = Limit(least=20) if tool.name == "mlflow" else NONE
            yield Ratios(what, tool.adapter.TITLE, ratios(values, [each[part] for each in found[own]]), limit, label)


def _command(tool: Tool, home: Path, runs: int, more: Mapping[str, str]) -> Callable[[], dict[str, Any]]:
    """Return what runs the command in turn with a bare Python, and fails if fewer runs are shown."""
    arguments, variables = tool.adapter.list_command(home, runs, **more)
    env = environment(home, **variables)

    def run() -> dict[str, Any]:
        bare = seconds([str(tool.python), "-c", "pass"], home, env)
        taken = seconds(tool.program(*arguments), home, env)
        shown = len((home / "output").read_bytes().splitlines())
        if shown < runs:
            raise ToolError(f"{' '.join(arguments)} shows {shown} lines for {runs} runs")
        return {**taken, "bare": bare}

    return run


def _dummies(folder: Path, count: int) -> Path:
    """Make what looks like so many installed plugins, each with a command."""
    for index in range(count):
        name = f"mlcore_dummy{index}"
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mlcore-dummy{index}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[mlcore]\ndummy{index} = {name}.hooks\n")
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "hooks.py").write_text(
            "from mlcore.hookspecs import Provider\n\n\ndef mlcore_commands():\n"
            f"    return [Provider('dummy{index}', '{name}.cli:command', 'Do nothing.')]\n"
        )
    # the cache of entry points trusts only folders that have settled
    import os
    import time

    os.utime(folder, (time.time() - 60,) * 2)
    for each in folder.iterdir():
        os.utime(each, (time.time() - 60,) * 2)
    return folder


def installed(bench: Bench) -> Rows:
    """Install mlcore alone, with its plugins for one machine, and with its client, into fresh environments."""
    local = ["./core", "./plugins/mlcore-local"]
    wanted = {
        "mlcore": (local[:1], 10),
        "mlcore with local and sql": ([*local, "./plugins/mlcore-sql"], 15),
        "mlcore with remote": ([*local, "./plugins/mlcore-remote"], 12),
    }
    own = next(tool for tool in bench.tools if tool.name == "mlcore")
    for title, (packages, limit) in wanted.items():
        with bench.place("installed") as place:
            try:
                make(place / "env", packages)
            except (OSError, subprocess.CalledProcessError) as error:
                bench.report(own, f"cannot be installed afresh: {error}")
                continue
            found = distributions(place / "env" / "bin" / "python")
            yield Number("distributions", title, len(found), Limit(most=limit))
    for tool in bench.peers:
        yield Number("distributions", tool.adapter.TITLE, len(distributions(tool.python)))

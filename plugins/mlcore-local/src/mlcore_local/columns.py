"""What commands tell of runs: named values, in tables by default those in which runs differ."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

from mlcore import Client, Experiment, Run, config
from mlcore.errors import Ambiguous, InvalidValue, NotFound

__all__ = [
    "FAMILIES",
    "FIELDS",
    "ago",
    "chosen",
    "clock",
    "described",
    "experiments_by_id",
    "find_run",
    "lasted",
    "moment",
    "one_look",
]
__all__ += ["TOLD", "duration", "keys", "pair", "values_of", "whole_uri", "worth"]

_TIMES = ("start_time", "end_time", "duration", "last_seen")
FIELDS = ("id", "name", "status", "experiment", *_TIMES, "note", "user", "deleted", "experiment_id", "parent_run_id")
FAMILIES = ("metrics", "params", "tags")
LAST = "@last"


def find_run(client: Client, text: str) -> Run:
    """Return the run that `text` means: an id, the beginning or end of one, a name, or ``@last``.

    Raises `NotFound` or `Ambiguous`, which names those that fit.
    """
    if text == LAST:
        runs = client.search_runs(experiment="*", limit=1)
        if not runs:
            raise NotFound(f"there is no run yet in {config.shown(client.setting.value)}")
        return runs[0]
    try:
        return client.get_run(text)
    except Ambiguous:
        raise
    except NotFound:
        named = client.search_runs("name = ?", text, experiment="*", include_deleted=True)
        fit = [run for run in named if not run.deleted] or named
        if not fit:
            where = f"in {config.shown(client.setting.value)} has this id, beginning or end of an id, or name"
            raise NotFound(f"no run {where}: {text!r}; `mlcore runs list` shows them") from None
        if len(fit) > 1:
            raise Ambiguous(
                f"{len(fit)} runs are named {text!r}: take an id, such as {', '.join(run.id[-8:] for run in fit[:5])}"
            ) from None
        return fit[0]


def whole_uri(client: Client, uri: str) -> str:
    """Return the URI of a model with the whole id of its run, which may be named as in all commands."""
    scheme, run, name = [*uri.split("/", 2), "", ""][:3]
    return f"runs:/{find_run(client, run).id}/{name}" if scheme == "runs:" and run and name else uri


def one_look(client: Client) -> AbstractContextManager[None]:
    """Let what is asked of a folder store meanwhile be answered of one look at it."""
    from mlcore_local.store import FolderStore

    return client.store.one_look() if isinstance(client.store, FolderStore) else nullcontext()


def experiments_by_id(client: Client) -> dict[str, Experiment]:
    """Return all experiments, deleted ones included."""
    return {each.id: each for each in client.list_experiments(include_deleted=True)}


def values_of(
    run: Run, experiments: Mapping[str, Experiment], names: Iterable[str] = FIELDS, families: Iterable[str] = FAMILIES
) -> dict[str, Any]:
    """Return what a column can show of a run, by its name: of its fields those in `names`, and whole `families`."""
    home = experiments.get(run.experiment_id)
    found = {"id": run.id, "experiment": home.name if home else run.experiment_id, "duration": lasted(run)}
    for name in names:
        if name not in found:
            found[name] = getattr(run, name)
    for family in families:
        for key, value in getattr(run, family).items():
            found[f"{family}.{key}"] = value
    return found


def described(run: Run, experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """Return a run as ``--json`` prints it."""
    values = values_of(run, experiments)
    return {name: values[name] for name in FIELDS} | {family: getattr(run, family) for family in FAMILIES}


def lasted(run: Run) -> int | None:
    """Return how many ms a run took: until now while it runs, until its last sign of life if it is lost."""
    end = run.end_time
    if end is None:
        end = run.last_seen if run.status == "LOST" else int(time.time() * 1000)
    return None if run.start_time is None else max(0, end - run.start_time)


def moment(stamp: int | None, seconds: bool = False) -> str | None:
    """Return a time in ms since 1970 as the clock on the wall shows it."""
    if stamp is None:
        return None
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M", time.localtime(stamp / 1000))
    except (ValueError, OverflowError, OSError):  # no year that a calendar has
        return str(stamp)


def clock(stamp: int) -> str:
    """Return the time of the day of a time in ms since 1970."""
    return (moment(stamp, seconds=True) or "").rpartition(" ")[2]


def duration(ms: float | None) -> str | None:
    """Return a time span in two units at most, such as ``2h 5m``."""
    if ms is None:
        return None
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    whole = int(seconds)
    for name, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // part}{small}"
    return None


def ago(stamp: int) -> str:
    """Return how long ago a time in ms since 1970 is, in one unit."""
    return f"{(duration(max(0, time.time() * 1000 - stamp) // 1000 * 1000) or '').split()[0].replace('.0', '')} ago"


def chosen(rows: Sequence[Mapping[str, Any]], asked: Iterable[str]) -> list[str]:
    """Return the names of the columns that were asked for: whole, as a pattern, or without their family.

    Raises `InvalidValue` with the nearest name there is.
    """
    known = dict.fromkeys([*FIELDS, *(name for row in rows for name in row)])
    found = dict[str, None]()
    for each in asked:
        fit = [each] if each in known else [name for family in FAMILIES if (name := f"{family}.{each}") in known][:1]
        fit = fit or [name for name in known if fnmatchcase(name, each)]
        fit = fit or [name for name in known if fnmatchcase(name.partition(".")[2], each)]
        if not fit and rows:
            from difflib import get_close_matches

            near = get_close_matches(each, [*known, *(name.partition(".")[2] for name in known)], 1, 0.5)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FIELDS)}, metrics.*, params.*, tags.*"
            )
            raise InvalidValue(f"no run has a column {each!r}; {hint}")
        found |= dict.fromkeys(fit or [each])
    return list(found)


TOLD = (
    "id",
    "name",
    "status",
    "experiment",
    "start_time",
    "deleted",
    "duration",
)  # of the fields, what `worth` asks for


def worth(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the columns that tell most of these runs, and the rest: what is alike, or what few of them have."""
    several = len({row["experiment"] for row in rows}) > 1
    told = ["id", "name", "status", *(["experiment"] if several else []), "start_time"]
    told += ["deleted"] if any(row["deleted"] for row in rows) else []
    rest = list[str]()
    known_names = keys(rows)
    names = {family: [name for name in known_names if name.startswith(f"{family}.")] for family in FAMILIES}
    for name in [*names["metrics"], "duration", *names["tags"], *names["params"]]:
        known = [row[name] for row in rows if name in row]
        differ = name in names["metrics"] or not 1 < len(known) == len(rows) or len(set(map(repr, known))) > 1
        (told if differ and 2 * len(known) > len(rows) else rest).append(name)
    return told, rest


def keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all metrics, params and tags, in this order, each family in the order of its first use."""
    names = dict.fromkeys(chain.from_iterable(rows))
    return [name for family in FAMILIES for name in names if name.startswith(f"{family}.")]


def pair(text: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``. Raises `InvalidValue`."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidValue(f"{text!r} is not KEY=VALUE")
    return key, value

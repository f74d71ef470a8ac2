"""Send what waits in a spool, once or for as long as it is watched."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from mlcore import Client
from mlcore.errors import ConfigError, StoreError
from mlcore_local import terminal
from mlcore_local.pausing import pause
from mlcore_local.shipping import SetAside, Shipper
from mlcore_local.spools import Spool, spools
from mlcore_local.sync import Progress
from mlcore_local.waiting import Waiting, waiting

if TYPE_CHECKING:
    from mlcore_local.uploading import Uploader

__all__ = ["others", "run"]

_WATCH_SECONDS = 5.0
_LONGEST_SECONDS = 60.0
Bar = Callable[[str], AbstractContextManager[Progress]]


@attrs.define
class _Sent:
    """Tell what was sent."""

    runs: int = 0
    records: int = 0
    elsewhere: int = 0
    set_aside: list[SetAside] = attrs.field(factory=list)


def run(*, watch: bool, as_json: bool, bar: Bar) -> int | None:
    """Send what waits for the configured store; return the exit code, None if nothing is spooled for it."""
    with suppress(ConfigError), closing(Client()) as client:
        uploader: Uploader | None = client.spool
        if uploader is None or not (watch or uploader.spool.homes()):
            return None
        if watch:
            return _watch(uploader)
        with bar("sending") as progress:
            sent = _send(uploader, progress)
        _tell(uploader, sent, as_json=as_json)
        return 1 if sent.set_aside else 0
    return None


def _send(uploader: Uploader, progress: Progress, shipper: Shipper | None = None) -> _Sent:
    sent, own = _Sent(), shipper is None
    shipper = shipper or Shipper(uploader.spool, uploader.opened, uploader.place, sent.set_aside.append, again=True)
    before = shipper.records
    try:
        homes = uploader.spool.homes()
        for done, home in enumerate(homes):
            progress(done, len(homes))
            count = shipper.records
            sent.elsewhere += shipper.ship(home)
            shipper.bring(home)
            sent.runs += shipper.records > count
        progress(len(homes), len(homes))
        sent.records = shipper.records - before
        shipper.tidy()
    finally:
        if own:
            shipper.close()
    return sent


def _watch(uploader: Uploader) -> int:
    """Send what comes, until Ctrl-C or SIGTERM; a store that cannot be reached is asked again later."""
    failures = 0
    shipper = Shipper(uploader.spool, uploader.opened, uploader.place, _report, again=True)
    click.echo(f"sending from {uploader.spool.root} to {uploader.spool.target}; Ctrl-C ends", err=True)
    with closing(shipper), _interrupted():
        while True:
            try:
                sent = _send(uploader, lambda *_: None, shipper)
                if sent.records:
                    click.echo(_line(uploader, sent))
                failures = 0
            except StoreError as error:
                if not failures:
                    click.echo(f"{uploader.spool.target} cannot be reached, trying again: {error}", err=True)
                failures += 1
            time.sleep(pause(failures + 1, _WATCH_SECONDS, _LONGEST_SECONDS))
    return 0


@contextmanager
def _interrupted() -> Iterator[None]:
    """End at Ctrl-C and SIGTERM alike: what was being sent is sent again the next time, and kept once."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(aside: SetAside) -> None:
    click.echo(_aside(aside), err=True)


def _aside(aside: SetAside) -> str:
    what = f"record {aside.number}" if aside.number else "all that follows"
    return terminal.printable(f"set aside: {what} of run {aside.home}, journal {aside.source}: {aside.reason}")


def _line(uploader: Uploader, sent: _Sent) -> str:
    what = (
        f"{sent.records:,} records of {terminal.counted(sent.runs, 'run')}"
        if sent.records
        else "nothing waits: 0 records"
    )
    return terminal.printable(f"{what} sent from {uploader.spool.root} to {uploader.spool.target}")


def _tell(uploader: Uploader, sent: _Sent, *, as_json: bool) -> None:
    elsewhere = _others(uploader.spool.root)
    left = waiting(uploader.spool)
    if as_json:
        content: dict[str, Any] = {"from": str(uploader.spool.root), "to": uploader.spool.target}
        content |= {"runs": sent.runs, "records": sent.records, "waiting": attrs.asdict(left)}
        content["set_aside"] = [attrs.asdict(each) for each in sent.set_aside]
        content["others"] = [{"to": spool.target, "runs": found.runs} for spool, found in elsewhere]
        terminal.show(terminal.as_json(content))
        return
    lines = [_line(uploader, sent), *map(_aside, sent.set_aside)]
    if sent.elsewhere:
        lines.append(f"{terminal.counted(sent.elsewhere, 'run')} here are sent by the processes that log them")
    terminal.show([*lines, *others(uploader.spool.root)])


def _others(but: Path | None) -> list[tuple[Spool, Waiting]]:
    found = [(each, waiting(each)) for each in spools() if each.root != but]
    return [each for each in found if each[1].runs]


def others(but: Path | None = None) -> list[str]:
    """Return a line about each store for which something waits, but for one spool."""
    return [
        terminal.printable(
            f"{terminal.counted(found.runs, 'run')} for {spool.target} here: MLCORE_STORE={spool.target} mlcore sync"
        )
        for spool, found in _others(but)
    ]

"""What runs and listings look like in a notebook and a terminal, whatever somebody named."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import mlcore
from mlcore.errors import InvalidValue, StoreError
from mlcore.store import Page, Query
from mlcore.tracking import _thing
from mlcore_local.terminal import width

HOSTILE = [
    "<script>alert(1)</script>", "&lt;b&gt;",
    '"><img src=x onerror=alert(1)>', "\x1b[31mred", "a\nb", "\u202eabc", "\x9b2J",
    "x" * 250, "深層学習" * 10, "\u2028", "javascript:alert(1)",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))


class Shown(HTMLParser):
    """Note the tags of a page and what is written in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert attrs == []

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@settings(max_examples=60, deadline=None)
@given(name=TEXTS, key=TEXTS, value=TEXTS)
def test_no_name_gets_out_of_its_cell(tmp_path_factory: object, name: str, key: str, value: str) -> None:
    """Guards notebooks that are opened by others, and terminals: only a table, only what is printable."""
    client = mlcore.Client(Path(tmp_path_factory.mktemp("store")) / "store")  # type: ignore[attr-defined]
    with client.start_run(name=name) as run:
        run.set_note(value)
        try:
            run.set_tags({key: value})
            run.log_params({key: value})
            run.log_metrics({key: 1.0})
        except InvalidValue:  # control characters in a key
            pass
    experiment = client.create_experiment(key) if key.isprintable() else client.list_experiments()[0]
    listing = client.list_runs("*")
    for each in (listing, listing[0], client.list_experiments(), experiment, listing[0].artifacts.list()):
        shown = Shown(each._repr_html_())
        assert shown.tags <= {"table", "tr", "td", "th"}
        assert all(text.isprintable() for text in shown.text)
        assert all(line.isprintable() for line in repr(each).split("\n"))
    client.close()


def test_a_run_that_was_read_back_can_be_ended_and_one_that_was_left_goes_on(tmp_path: Path) -> None:
    """Guards runs that outlive the process that started them."""
    client = mlcore.Client(tmp_path / "store")
    run = client.start_run()
    run.log_metric("loss", 1)
    run.leave()
    assert mlcore.active_run() is None
    assert client.get_run(run.id).status == "RUNNING"
    run.leave()  # is no end
    again = mlcore.Client(tmp_path / "store").get_run(run.id)
    again.end("FAILED")
    assert (again.status, client.get_run(run.id).status) == ("FAILED", "FAILED")
    assert (again.folder / "sealed").exists()  # type: ignore[operator]
    assert client.get_run(run.id).metrics == {"loss": 1.0}


def test_a_search_without_a_limit_reads_what_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards stores of many runs: pages come as somebody goes through them, in order, none twice, none missing."""
    monkeypatch.setattr(_thing, "_FIRST", 2)
    monkeypatch.setattr(_thing, "_GROWTH", 2)
    client = mlcore.Client(tmp_path / "store")
    ids = []
    for number in range(9):
        with client.start_run(name=f"run {number}") as run:
            ids.insert(0, run.id)
    asked: list[int] = []
    find = type(client.store).find

    def counted(self: object, kind: str, query: Query) -> Page:
        asked.extend([query.limit or 0] if kind == "run" else [])
        return find(self, kind, query)  # type: ignore[arg-type]

    monkeypatch.setattr(type(client.store), "find", counted)
    found = client.search_runs()
    assert asked == [2]
    assert (found[1].id, asked) == (ids[1], [2])
    assert (found[2].id, asked) == (ids[2], [2, 4])
    assert next(iter(found)).id == ids[0]
    assert asked == [2, 4]
    assert [run.id for run in found] == ids
    assert asked == [2, 4, 8]
    assert (len(found), found[-1].id, [run.id for run in found[2:4]]) == (9, ids[-1], ids[2:4])
    assert asked == [2, 4, 8]
    for whole in (len, repr, mlcore.Listing.to_dicts, mlcore.Listing.to_pandas, mlcore.Listing._repr_html_):
        assert len(str(whole(client.search_runs(order_by="name")))) > 0
    assert len(client.search_runs().to_dicts()) == len(client.search_runs().to_pandas()) == 9
    assert [run.name for run in client.search_runs(order_by="name")] == [f"run {number}" for number in range(9)]
    asked.clear()
    assert (len(client.search_runs(limit=5)), asked) == (5, [5])
    with pytest.raises(IndexError):
        client.search_runs()[9]


def test_wide_letters_line_up(tmp_path: Path) -> None:
    """Guards listings of whoever does not write in ASCII: wide characters take two cells, combining ones none."""
    client = mlcore.Client(tmp_path / "store")
    for name in ("深層学習", "e\u0301te\u0301", "plain"):
        with client.start_run(name=name):
            pass
    head, *lines = repr(client.list_runs()).splitlines()
    assert {width(line[: line.index("FINISHED")]) for line in lines} == {head.index("status")}


def test_leaving_a_run_tells_what_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards scripts that log to a run of another process: what the disk refused is an error when they leave it."""
    client = mlcore.Client(tmp_path / "store")
    run = client.start_run()
    run.leave()
    again = client.get_run(run.id)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        again.log_metric("loss", 1)
        with pytest.raises(StoreError, match=f"run {run.id}: 1 calls could not be written: .*No space left"):
            again.leave()
        with pytest.raises(StoreError, match="No space left"):
            client.get_run(run.id).end()
    again.leave()  # there is nothing left to tell
    assert client.get_run(run.id).status == "RUNNING"


def refuse(*_: object) -> int:
    """Open nothing, as a full disk would not."""
    raise OSError(28, "No space left on device")


def test_a_process_is_named_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards MLCORE_PROCESS: what is no number is told of, and leaves nothing half made."""
    monkeypatch.setenv("MLCORE_PROCESS", "abc")
    with pytest.raises(InvalidValue, match="MLCORE_PROCESS is the number of a process, not 'abc'"):
        mlcore.Client(tmp_path / "store").start_run()
    assert [*tmp_path.rglob("*.journal")] == []

"""What runs and listings look like in a notebook and a terminal, whatever somebody named."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings, strategies as st

import mlcore
from mlcore.errors import InvalidValue

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

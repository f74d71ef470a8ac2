"""A store with something of everything that can be logged, for tests that bring it elsewhere."""

from __future__ import annotations

import math
import os
from pathlib import Path

from mlcore import Client
from mlcore.store import AttributesRemoved, AttributesSet, Created, Erased, Rewound, Unknown, Updated
from mlcore.testing import Writer, points, run_batch


def log_everything(place: Path | str, runs: int = 4) -> None:
    """Log runs of all fates, experiments that were renamed, tagged and deleted, and what only other writers write."""
    client = Client(place)
    for number in range(runs):
        with client.start_run(name=f"run {number}", experiment=f"trial {number % 2}", key=f"key {number}") as run:
            run.log_params({"lr": 10.0**-number, "layers": [number, None, {"a": math.inf}], "text": "späßchen\0"})
            run.log_metric("loss", math.nan)
            run.log_metrics({"loss": 1 / (number + 1), "huge": 1e308}, step=5)
            run.log_points("accuracy", range(5_000), [number + step / 5_000 for step in range(5_000)])
            run.set_tags({"owner": "me", "gone": 1})
            run.remove_tag("gone")
            run.set_note("a **note**")
    with client.start_run(experiment="trial 0", key="key 0", rewind_to=1_000) as run:  # once more
        run.log_metric("accuracy", 0.25, step=1_001)
        run.log_text("kept here", "notes/a.txt")
    child = client.start_run(name="fails", parent=run)
    child.log_param("seed", 1)
    child.end("FAILED")
    child.delete()
    client.create_experiment("empty").set_tag("team", "süß")
    client.create_experiment("old").rename("new")
    client.create_experiment("gone").delete()
    _log_the_rest(client)
    client.close()


def _log_the_rest(client: Client) -> None:
    """Append what a client of today does not write itself."""
    store, run = client.store, os.urandom(16).hex()
    writer = Writer(run)
    store.append(writer.batch(Created("run", run, "0", {"name": "by hand", "status": "FINISHED"})))
    later = b'{"type":"Later","kind":"run","id":"%s","new":[1, 2]}' % run.encode()
    store.append(writer.batch(Unknown("run", run, raw=later, type="Later"), Updated("run", run, {"n": 2**70})))
    store.append(
        writer.batch(AttributesSet("run", run, "params", {"p": 1}, once=True), points(run, "x", [1.0, math.inf]))
    )
    store.append(writer.batch(AttributesSet("run", run, "params", {"p": 2}, once=True), Rewound("run", run, 0)))
    store.append(
        writer.batch(points(run, "x", [5.0], steps=[3], context="valid"), AttributesRemoved("run", run, "tags", ["no"]))
    )
    store.append(writer.life_sign())
    erased = run_batch(params={"p": 1}, metrics={"x": [1.0]})
    store.append(erased)
    store.append(Writer().batch(Erased("run", erased.home), Created("prompt", "hello", fields={"text": "Hi"})))
    owner = Writer()
    store.append(owner.batch(Created("model", "m"), claim="model/m"))
    store.append(owner.batch(Updated("model", "m", {"stage": "live"})))
    store.append(owner.batch(Created("model", "n"), claim="model/n"))

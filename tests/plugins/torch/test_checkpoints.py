"""Checkpoints are whole, few, and go on exactly where the training was."""

from __future__ import annotations

import json
import logging
import pickle
import random
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, strategies as st
from torch import nn

import mlcore
from faults import processes
from mlcore.errors import ArtifactError, ArtifactNotFound, InvalidValue
from mlcore_torch import Checkpoints, list_checkpoints, load_checkpoint
from mlcore_torch.snapshots import pack, unpack
from serving import serving_here

torch.set_num_threads(1)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[mlcore.Run]:
    """Give a run in a store of its own, which is the active one."""
    before = mlcore.client()
    with mlcore.set_store(tmp_path / "store").start_run() as run:
        yield run
    mlcore.set_store(before.setting.value)


def through(states: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write states to a file, and read them back."""
    path = folder / "states.safetensors"
    path.write_bytes(pack(states))
    return unpack(path)


# The form


def test_whatever_is_data_comes_back_as_it_was(tmp_path: Path) -> None:
    """Guards types that JSON has no form for, and dtypes that numpy has none for."""
    states = {
        "plain": [
            None,
            True,
            1,
            -(2**70),
            0.1,
            "ä\u2028$",
            float("inf"),
            (1, (2.5,)),
            {1: "a", "$b": 2},
            {3, 4},
            b"\x00\xff",
        ],
        "counter": Counter({10: 1, 20: 2}),
        "array": np.arange(6, dtype=np.uint32).reshape(2, 3),
        "scalar": [np.float32(0.5), np.int64(3), np.bool_(True)],
        "empty": [torch.empty(0, 3), {}, [], ()],
        "complex": torch.tensor([1 + 2j]),
        "strided": torch.arange(12.0).reshape(3, 4).t()[1:],
        "number": torch.tensor(7),
    }
    back = through(states, tmp_path)
    assert back["plain"] == states["plain"]
    assert (back["counter"], type(back["counter"])) == (states["counter"], Counter)
    assert np.array_equal(back["array"], states["array"])
    assert back["array"].dtype == np.uint32
    assert back["scalar"] == [0.5, 3, True]
    assert back["empty"][0].shape == (0, 3)
    assert back["empty"][1:] == [{}, [], ()]
    for key in ("complex", "strided", "number"):
        assert torch.equal(back[key], states[key])  # type: ignore[arg-type]
    assert np.isnan(through({"nan": float("nan")}, tmp_path)["nan"])


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.uint8, torch.int16, torch.bool],
    ids=str,
)
def test_every_dtype_keeps_its_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    """Guards the layout: each tensor begins where its elements are aligned."""
    states = {"odd": torch.ones(3, dtype=torch.uint8), "x": torch.randn(5).to(dtype), "y": torch.randn(2, 2)}
    back = through(states, tmp_path)
    for key, each in states.items():
        assert back[key].dtype == each.dtype
        assert torch.equal(back[key].view(torch.uint8), each.view(torch.uint8))


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
    ),
    max_leaves=15,
)


@given(tree=trees)
def test_any_nesting_comes_back(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Guards keys and texts of any kind, `$tensor` among them."""
    states = {"it": tree, "$tensor": {"$tuple": tree}}
    assert through(states, tmp_path_factory.getbasetemp()) == states


def test_a_tensor_that_is_there_twice_is_stored_once(tmp_path: Path) -> None:
    """Guards the size of checkpoints with tied weights."""
    layer = nn.Linear(100, 100)
    once, twice = pack({"a": layer.state_dict()}), pack({"a": layer.state_dict(), "b": layer.state_dict()})
    assert len(twice) < len(once) + 1_000
    assert torch.equal(
        through({"a": layer.state_dict(), "b": layer.state_dict()}, tmp_path)["b"]["weight"], layer.weight
    )


def test_the_file_is_one_of_safetensors(tmp_path: Path) -> None:
    """Guards reading without mlcore."""
    (tmp_path / "file").write_bytes(pack({"model": nn.Linear(2, 3).state_dict()}))
    assert safetensors.torch.load_file(tmp_path / "file")["model.weight"].shape == (3, 2)


def test_older_forms_of_modules_are_known_by_their_versions(tmp_path: Path) -> None:
    """Guards `_metadata`, by which load_state_dict knows what was saved."""
    state = nn.BatchNorm1d(2).state_dict()
    back = through({"model": state}, tmp_path)["model"]
    assert isinstance(back, OrderedDict)
    assert back._metadata == dict(state._metadata)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), r"states.a.0 is a builtins.object, which is no data"),
        (print, "which is no data"),
        (
            torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (2,), check_invariants=True),
            "have no form",
        ),
        (torch.empty(2, device="meta"), "without data"),
        (np.array(["a", None], dtype=object), "have no form"),
    ],
    ids=["object", "function", "sparse", "meta", "objects"],
)
def test_what_is_no_data_is_refused_as_it_is_saved(value: Any, told: str) -> None:
    """Guards against a checkpoint that could not be read, found out days later."""
    with pytest.raises(InvalidValue, match=told):
        pack({"states": {"a": [value]}})


class Marker:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path(self.path).touch, ()


def hostile(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield files that are no checkpoints, by names."""
    whole = bytes(pack({"objects": {"model": {"w": torch.ones(4)}}, "randomness": {}, "extra": {}}))
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])

    def remade(change: Any) -> bytes:
        other = json.loads(json.dumps(header))
        change(other)
        text = json.dumps(other).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + size :]

    def tree(text: str) -> bytes:
        return remade(lambda other: other["__metadata__"].update({"mlcore.states": text}))

    name = next(key for key in header if key != "__metadata__")
    torch.save(Marker(str(folder / "marker")), folder / "pickled.pt")
    yield "a pickle", pickle.dumps(Marker(str(folder / "marker")))
    yield "torch.save", (folder / "pickled.pt").read_bytes()
    yield "nothing", b""
    yield "a short one", whole[:-3]
    yield "a long one", whole + b"x" * 8
    yield "a huge header", (1 << 62).to_bytes(8, "little") + whole[8:]
    yield "a header of 200 MB", (200 << 20).to_bytes(8, "little") + b" " * 64
    yield "offsets beyond the end", remade(lambda other: other[name].update(data_offsets=[0, 1 << 40]))
    yield "offsets backwards", remade(lambda other: other[name].update(data_offsets=[16, 0]))
    yield "a huge shape", remade(lambda other: other[name].update(shape=[1 << 62, 1 << 62]))
    yield "an unknown dtype", remade(lambda other: other[name].update(dtype="PICKLE"))
    yield "another dtype", remade(lambda other: other[name].update(dtype="F64"))
    yield "no tree", remade(lambda other: other.pop("__metadata__"))
    yield "deep", tree("[" * 100_000)
    yield "deep objects", tree('{"$tuple":[' * 5_000)
    yield "unknown", tree('{"$reduce": ["os.system", "true"]}')
    yield "a tensor that is not there", tree('{"objects": {"$tensor": "x"}}')
    yield "of the wrong type", tree('{"objects": {"$bytes": 3}}')
    yield "unhashable keys", tree('{"$dict": [[[1], 2]]}')
    yield "a list", tree("[1]")
    yield "no JSON", tree("{")


def test_hostile_files_are_refused_and_leave_no_marker(tmp_path: Path, run: mlcore.Run) -> None:
    """Guards restoring from runs of others: nothing is run, and nothing else than `ArtifactError` is raised."""
    model = nn.Linear(2, 2)
    for what, data in hostile(tmp_path):
        name = what.replace(" ", "-")
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArtifactError):
            unpack(tmp_path / name)
        with Checkpoints(model=model, name=name) as checkpoints:
            checkpoints.save(1)
        run.log_bytes(data, f"{name}/slot-0.safetensors")
        (about,) = [each for each in run.artifacts.list(name) if each.path.endswith(".safetensors")]
        note = json.loads(run.artifacts.get(f"{name}/slot-0.json").read_text())
        run.log_dict({**note, "sha256": about.sha256}, f"{name}/slot-0.json")
        with pytest.raises(ArtifactError):
            Checkpoints(model=model, name=name).restore()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("note", ["{", "[]", "[" * 10_000, "{}", '{"file": 3}', '{"step": "x"}', '{"number": 1e999}'])
def test_notes_that_are_none_count_for_nothing(note: str, run: mlcore.Run) -> None:
    """Guards reading the notes of others."""
    with Checkpoints(model=nn.Linear(2, 2)) as checkpoints:
        checkpoints.save(1)
    (real,) = list_checkpoints(run)
    try:
        changed = json.dumps(
            {**json.loads(run.artifacts.get("checkpoints/slot-0.json").read_text()), **json.loads(note)}
        )
    except (ValueError, TypeError, RecursionError):
        changed = note
    run.log_text(note, "checkpoints/slot-1.json")
    run.log_text(changed if note != "{}" else note, "checkpoints/slot-0.json")
    assert list_checkpoints(run) == []
    assert real.step == 1


# Which are kept


def saved(run: mlcore.Run, losses: list[float | None], **options: Any) -> Checkpoints:
    """Save a checkpoint for each loss."""
    model = nn.Linear(2, 2)
    checkpoints = Checkpoints(model=model, best="loss", run=run, **options)
    for step, loss in enumerate(losses, 1):
        with torch.no_grad():
            model.weight.fill_(step)
        checkpoints.save(step, metrics={} if loss is None else {"loss": loss})
    checkpoints.wait()
    return checkpoints


def step_of(run: mlcore.Run, which: str | int) -> int:
    """Return the step that a checkpoint was made at, by what is in it."""
    return int(load_checkpoint(run, which)["model"]["weight"][0, 0])


def test_the_last_and_the_best_are_kept_and_the_room_is_bounded(run: mlcore.Run) -> None:
    """Guards `keep_best`: NaN is never the best, one without the metric neither; of equals it is the earlier one."""
    saved(run, [5.0, 3.0, float("nan"), 4.0, None, 3.0, 9.0, 8.0, None], keep_best=2)
    kept = {each.step for each in list_checkpoints(run)}
    assert {2, 6, 9} <= kept
    assert (step_of(run, "best"), step_of(run, "last"), step_of(run, 6)) == (2, 9, 6)
    assert len(run.artifacts.list("checkpoints")) <= 2 * 4
    with pytest.raises(ArtifactNotFound, match=r"no checkpoint 1; it has those of the steps"):
        load_checkpoint(run, 1)


def test_most_may_be_best(run: mlcore.Run) -> None:
    """Guards `mode`, with which no metric but an accuracy makes sense."""
    saved(run, [0.1, 0.9, 0.5], mode="max")
    assert step_of(run, "best") == 2
    with pytest.raises(InvalidValue, match="'min' or 'max'"):
        Checkpoints(mode="least")


def test_who_goes_on_from_an_earlier_one_goes_on_with_that(run: mlcore.Run) -> None:
    """Guards the order: what was saved last is the last, even at a lower step."""
    checkpoints = saved(run, [1.0, 5.0, 6.0], keep_best=1)
    found = checkpoints.restore("best")
    assert found is not None
    assert found.step == 1
    checkpoints.save(2, metrics={"loss": 0.5})
    checkpoints.wait()
    last = list_checkpoints(run)[-1]
    assert (last.step, last.metrics) == (2, {"loss": 0.5})


def test_a_file_that_was_damaged_is_left_out_for_the_one_before(
    run: mlcore.Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a disk that lies: what is restored has the sha256 that it was saved with."""
    checkpoints = saved(run, [1.0, 2.0])
    last = list_checkpoints(run)[-1]
    path = run.artifacts.get(last.file)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with caplog.at_level(logging.WARNING, "mlcore"):
        found = checkpoints.restore()
    assert found is not None
    assert found.step == 1
    assert "the checkpoint of step 2 is left out" in caplog.text
    for each in list_checkpoints(run):
        run.artifacts.get(each.file).unlink() if each.step == 1 else None
    with pytest.raises(ArtifactError, match="no checkpoint 'last' can be read"):
        checkpoints.restore()


def test_what_cannot_be_written_is_told_and_training_goes_on(run: mlcore.Run, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a full disk; a name that no file can have stands for it."""
    with caplog.at_level(logging.WARNING, "mlcore"), Checkpoints(model=nn.Linear(2, 2), name="../x") as checkpoints:
        checkpoints.save(1)
    assert "the checkpoint of step 1 is not kept" in caplog.text


def test_nothing_is_restored_where_there_is_nothing(run: mlcore.Run) -> None:
    """Guards the first start of a job."""
    assert Checkpoints(model=nn.Linear(2, 2)).restore() is None
    assert list_checkpoints() == []
    with pytest.raises(ArtifactNotFound, match="it has those of the steps none"):
        load_checkpoint(run)


def test_a_store_that_is_off_takes_everything(tmp_path: Path) -> None:
    """Guards MLCORE_STORE=off."""
    with mlcore.Client("off").start_run(), Checkpoints(model=nn.Linear(2, 2)) as checkpoints:
        assert checkpoints.restore() is None
        checkpoints.save(1)
        checkpoints.save(2)


def test_a_server_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards runs that are spooled: another process, without the spool, goes on from what the server has."""
    with serving_here(tmp_path / "store") as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        model, client = nn.Linear(2, 2), mlcore.Client(server.url)
        with client.start_run(key="far") as run, Checkpoints(model=model, best="loss", run=run) as checkpoints:
            for step in range(1, 6):
                checkpoints.save(step, metrics={"loss": abs(step - 2)})
            checkpoints.wait()
            run.log_metric("loss", 1, step=9)
        client.close()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
        other = mlcore.Client(server.url)
        with other.start_run(key="far", resume="must") as run:
            again = nn.Linear(2, 2)
            found = Checkpoints(model=again, run=run).restore()
            assert found is not None
            assert (found.step, run.metrics) == (5, {})
            assert torch.equal(again.weight, model.weight)
            assert load_checkpoint(run, "best")["model"].keys() == {"weight", "bias"}
        other.close()
    local = mlcore.Client(tmp_path / "store").list_runs()[0]
    assert len(local.artifacts.list("checkpoints")) <= 6
    assert local.artifacts.verify() == []


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda module: torch.compile(module, backend="eager")])
def test_what_wraps_a_module_leaves_no_trace(wrap: Any, run: mlcore.Run) -> None:
    """Guards going on with another number of processes, or without the compiler."""
    inner = nn.Linear(2, 2)
    with Checkpoints(model=wrap(inner)) as checkpoints:
        checkpoints.save(1)
    other = nn.Linear(2, 2)
    assert Checkpoints(model=other).restore() is not None
    assert torch.equal(other.weight, inner.weight)


def test_what_is_asked_for_and_not_there_is_named(run: mlcore.Run) -> None:
    """Guards the messages."""
    with Checkpoints(model=nn.Linear(2, 2)) as checkpoints:
        with pytest.raises(InvalidValue, match="which step"):
            checkpoints.save()
        checkpoints.save(3, extra={"note": "ä"})
    with pytest.raises(InvalidValue, match="of step 3 has no ema"):
        Checkpoints(ema=nn.Linear(2, 2)).restore()
    with pytest.raises(InvalidValue, match="loader: a checkpoint keeps"):
        Checkpoints(loader=[1])
    restored = Checkpoints()
    restored.restore()
    assert restored.extra == {"note": "ä"}


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4]),
        torch.optim.lr_scheduler.ReduceLROnPlateau,
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=50, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
        ),
    ],
    ids=["steps", "plateau", "one cycle", "cyclic", "lambda", "cosine", "sequence"],
)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_schedulers_and_optimizers_go_on_as_if_nothing_was(kind: Any, make: Any, run: mlcore.Run) -> None:
    """Guards the forms of their states, and that bits are kept."""
    ended = []
    for broken in (False, True):
        objects = _made(kind, make)
        with Checkpoints(**objects, name=f"broken {broken}") as checkpoints:
            for step in range(8):
                _one(**objects)
                if broken and step == 3:
                    checkpoints.save(step)
                    checkpoints.wait()
                    objects = _made(kind, make)
                    random.random(), np.random.rand(), torch.rand(3)
                    assert Checkpoints(**objects, name="broken True").restore() is not None
        ended.append([*objects["model"].parameters(), torch.tensor(objects["optimizer"].param_groups[0]["lr"])])
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))


def _made(kind: Any, make: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = kind(model.parameters(), lr=0.05)
    return {"model": model, "optimizer": optimizer, "scheduler": make(optimizer)}


def _one(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    optimizer.zero_grad()
    loss = model(torch.randn(8, 3)).square().mean()
    loss.backward()
    optimizer.step()
    scheduler.step(*([loss.item()] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))


# A kill at any moment

TRAINING = """
    import os, random, sys, signal, time
    import numpy as np
    import torch
    from torch import nn
    import mlcore
    from mlcore_torch import Checkpoints, Monitor

    torch.set_num_threads(1)

    def training(kill_at, key):
        with mlcore.start_run(key=key):
            torch.manual_seed(0), random.seed(0), np.random.seed(0)
            model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 2))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
            rows = torch.randn(48, 8, generator=torch.Generator().manual_seed(3))
            data = torch.utils.data.TensorDataset(rows, (rows.sum(1) > 0).long())
            loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
            monitor = Monitor(model, optimizer, every=4)
            kept = dict(model=model, optimizer=optimizer, scheduler=scheduler, monitor=monitor)
            with monitor, Checkpoints(best="valid.loss", keep_best=2, every=5, **kept) as checkpoints:
                checkpoints.restore()
                for epoch in monitor.epochs(10):
                    for x, y in monitor.batches(loader):
                        x = x + random.gauss(0, 0.1) + np.random.normal() * 0.1
                        optimizer.zero_grad()
                        loss = nn.functional.cross_entropy(model(x), y)
                        loss.backward()
                        optimizer.step()
                        scheduler.step()
                        monitor.step(loss, len(x))
                        checkpoints.step()
                        if monitor.steps == kill_at:
                            os.kill(os.getpid(), signal.SIGKILL)
                    with monitor.phase() as valid:
                        valid.add(loss=nn.functional.cross_entropy(model.eval()(rows), data.tensors[1]))
                        model.train()
                    checkpoints.save()
            return {key: each.tolist() for key, each in model.state_dict().items()}
"""


def forked(code: str) -> str:
    """Return code that trains in children, so that torch is imported once."""
    return (
        TRAINING
        + """
    import json

    def child(kill_at, key, after=None):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            found = training(kill_at, key)
            with os.fdopen(write, "w") as file:
                json.dump(found, file)
            os._exit(0)
        os.close(write)
        if after is not None:
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(read) as file:
            told = file.read()
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), told
"""
        + code
    )


def test_a_training_that_was_killed_ends_with_the_very_same_weights(tmp_path: Path) -> None:
    """Guards resuming bit for bit, in the midst of an epoch and in that of a resumed one, with one series of all."""
    code = """
    whole = child(0, "whole")
    assert whole[0] == 0
    assert [child(at, "killed")[0] for at in (17, 38, 39)] == [-9, -9, -9]
    assert child(0, "killed") == whole
    """
    processes.run(tmp_path, forked(code), MLCORE_STORE=str(tmp_path / "store"), MLCORE_CAPTURE="off")
    killed, whole = mlcore.Client(tmp_path / "store").list_runs()
    assert (killed.status, whole.status) == ("FINISHED", "FINISHED")
    for key in ("train.loss", "train.gradient_norm", "train.learning_rate", "valid.loss", "train.epoch"):
        one, other = killed.series(key), whole.series(key)
        assert list(zip(one.steps, one.values, strict=True)) == list(zip(other.steps, other.values, strict=True))
    steps = {each.step for each in list_checkpoints(whole)}
    assert {each.step for each in list_checkpoints(killed)} & {60} == steps & {60} == {60}
    assert step_is_best(killed) == step_is_best(whole)


def step_is_best(run: mlcore.Run) -> dict[str, float]:
    """Return the metric of the best checkpoint, and its weights' sum."""
    found = load_checkpoint(run, "best")
    return {"sum": float(sum(each.sum() for each in found["model"].values())), "steps": found["monitor"]["steps"]}


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_that_is_not_older_than_one_before(tmp_path: Path) -> None:
    """Guards the slots: whatever a process was doing when it was killed, the next one goes on from where it may."""
    code = """
    from mlcore_torch import list_checkpoints, load_checkpoint

    random.seed(int(sys.argv[1]))
    key, ended, before, kills = "job", False, 0, 0
    start = time.monotonic()
    assert child(0, "whole")[0] == 0
    taken = time.monotonic() - start
    while not ended:
        status, _ = child(0, key, after=random.uniform(0, taken / 4))
        ended = status == 0
        kills += not ended
        found = [run for run in mlcore.list_runs() if run.id == mlcore.client().new_run_id(key)]
        states = load_checkpoint(found[0]) if found and list_checkpoints(found[0]) else None
        steps = states["monitor"]["steps"] if states else 0
        assert steps >= before, (steps, before)
        if found:
            assert len([each for each in found[0].artifacts.list("checkpoints")]) <= 8
        before = steps
        if kills > 40:
            ended = child(0, key)[0] == 0
    print(kills)
    """
    out, _ = processes.run(tmp_path, forked(code), 1, MLCORE_STORE=str(tmp_path / "store"), MLCORE_CAPTURE="off")
    assert int(out) > 3
    runs = mlcore.Client(tmp_path / "store").list_runs()
    ended = [load_checkpoint(run)["model"] for run in runs]
    assert all(torch.equal(ended[0][key], ended[1][key]) for key in ended[0])

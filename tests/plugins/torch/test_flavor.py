"""What networks of every make become when they are saved, and how they are asked when they were loaded."""

from __future__ import annotations

import copy
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mlcore
from mlcore.errors import InvalidValue, ModelError, Untrusted
from mlcore.models import Model, ModelInfo, Trust, infer_signature
from mlcore_torch.flavor import Torch
from toy_networks import Branching, Gated, Scaled

torch.set_num_threads(1)
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
HERE = Path(__file__).parents[2] / "toy_networks.py"


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's own trust out."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    torch.manual_seed(0)
    return iter([None])  # type: ignore[return-value]


def network() -> nn.Module:
    """Return a small network in train mode."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def answer(model: nn.Module, *data: Any, **names: Any) -> Any:
    """Return what a network says in eval mode."""
    with torch.inference_mode():
        return copy.deepcopy(model).eval()(*data, **names)


def state(model: nn.Module, folder: Path, **options: Any) -> ModelInfo:
    """Save a network as its weights."""
    return mlcore.save_model(model, folder, serialization="safetensors", **options)


def form(info: ModelInfo) -> Any:
    """Return how it was saved."""
    return info.flavors["pytorch"]["serialization_format"]


def load(info: ModelInfo, **options: Any) -> Model:
    """Load it, trusting nobody."""
    return mlcore.load_model(info.folder, trust=False, **options)


def test_a_network_in_training_stays_in_training(tmp_path: Path) -> None:
    """Guards the user's module: each part keeps its mode, and its statistics; what is loaded predicts."""
    model = network()
    model[3].eval()
    before = copy.deepcopy(model.state_dict())
    info = state(model, tmp_path / "model", input_example=ROWS)
    assert [each.training for each in model.modules()] == [True, True, True, True, False, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    loaded = load(info)
    assert not any(each.training for each in loaded.unwrap().modules())
    np.testing.assert_array_equal(loaded.predict(ROWS), answer(model, torch.from_numpy(ROWS)))


@pytest.mark.parametrize("wrapped", ["parallel", "compiled", "both"])
def test_what_trains_on_several_devices_or_compiles_is_taken_off(wrapped: str, tmp_path: Path) -> None:
    """Guards against names with module. and _orig_mod. in them."""
    model: Any = network()
    whole = {"parallel": nn.DataParallel, "compiled": torch.compile}
    whole["both"] = lambda each: torch.compile(nn.DataParallel(each))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = state(whole[wrapped](model), tmp_path / "model")
    assert load(info).unwrap().state_dict().keys() == model.state_dict().keys()


def test_any_batch_is_taken_by_what_saw_one_row(tmp_path: Path) -> None:
    """Guards programs: torch makes those of one row for one row only."""
    model = network()
    info = mlcore.save_model(model, tmp_path / "model", input_example=ROWS[:1])
    assert form(info) == "pt2"
    assert info.flavors["pytorch"]["any_batch"] is True
    np.testing.assert_allclose(load(info).predict(ROWS), answer(model, torch.from_numpy(ROWS)), rtol=1e-5, atol=1e-6)


class Fixed(nn.Module):
    """Takes batches of one size."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return them."""
        return rows.reshape(6, 4) * 2


def test_a_program_for_one_size_of_batch_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards what is told: when it is saved, in the MLmodel file, and when other data come."""
    with caplog.at_level(logging.INFO, "mlcore"):
        info = mlcore.save_model(Fixed(), tmp_path / "model", input_example=ROWS)
    assert "batches of the size of its example" in caplog.text
    assert info.flavors["pytorch"]["any_batch"] is False
    assert load(info).predict(ROWS).shape == (6, 4)
    with pytest.raises(ModelError, match="batches of the size of its example"):
        load(info).predict(ROWS[:3])


def test_a_program_tells_no_paths_and_keeps_no_examples(tmp_path: Path) -> None:
    """Guards what torch would write into every program: the source's lines, where it lay, and the data."""
    info = mlcore.save_model(network(), tmp_path / "model", input_example=ROWS)
    content = (info.folder / "data" / "model.pt2").read_bytes()
    assert b".py" not in content
    assert ROWS[0].tobytes() not in content


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """Guards the two names of one tensor, which safetensors refuse; and what no state holds."""
    model = Gated(4)
    data = {"rows": ROWS, "mask": np.ones((6, 1), np.float32)}
    info = state(model, tmp_path / "model", input_example=data, code=[HERE])
    assert info.needs_trust == ("toy_networks.Gated",)
    loaded = mlcore.load_model(info.folder, trust=True)
    found = loaded.unwrap()
    assert found.encode.weight is found.decode.weight
    expected = answer(model, **{name: torch.from_numpy(each) for name, each in data.items()})
    for name, each in loaded.predict(data).items():
        np.testing.assert_array_equal(each, expected[name])
    assert [each["name"] for each in info.signature.outputs or ()] == ["coded", "rows"]  # type: ignore[union-attr]


def test_a_class_is_built_by_those_who_trust_its_name(tmp_path: Path) -> None:
    """Guards trust: weights are data, the class is not."""
    info = state(Scaled(4, hidden=3), tmp_path / "model", init={"width": 4, "hidden": 3}, code=[HERE])
    with pytest.raises(Untrusted, match=r"toy_networks\.Scaled"):
        load(info)
    assert mlcore.load_model(info.folder, trust=True).unwrap().hidden == 3


def test_a_class_that_is_installed_is_trusted_by_its_name(tmp_path: Path) -> None:
    """Guards names: just this class, and nothing that came with the model."""
    model = Branching(4)
    info = state(model, tmp_path / "model", code=[HERE])
    config = info.flavors["pytorch"]
    shutil.rmtree(info.folder / "code")
    for names in (["toy_networks.Branching"], ["toy_networks.*"]):
        loaded = Torch().load(info.folder, config, Trust.of(names))
        assert torch.equal(loaded.one.weight, model.one.weight)
    with pytest.raises(Untrusted):
        Torch().load(info.folder, config, Trust.of(["toy_networks.Scaled"]))


def test_arguments_that_nothing_tells_are_asked_for(tmp_path: Path) -> None:
    """Guards against a network that is built otherwise than the one saved: `slope` is kept under another name."""
    options: dict[str, Any] = {"code": [HERE], "serialization": "safetensors"}
    with pytest.raises(ModelError, match=r"negative is 0\.1 and not 0\.5; say how with init="):
        mlcore.save_model(Scaled(4, slope=0.5), tmp_path / "wrong", **options)
    info = mlcore.save_model(Scaled(4, slope=0.5), tmp_path / "model", init={"width": 4, "slope": 0.5}, **options)
    assert mlcore.load_model(info.folder, trust=True).unwrap().negative == 0.5


def test_parts_of_torch_are_put_together_again(tmp_path: Path) -> None:
    """Guards recipes of torch's own classes: arguments, and containers within containers."""
    parts = [
        nn.Sequential(nn.Conv2d(1, 3, (2, 3), padding=1, bias=False), nn.GroupNorm(3, 3), nn.MaxPool2d(2)),
        nn.ModuleDict({"embed": nn.Embedding(5, 2, padding_idx=0), "norm": nn.LayerNorm((2, 3), eps=1e-3)}),
        nn.LSTM(3, 4, 2, batch_first=True, proj_size=2),
        nn.GRU(3, 4, bidirectional=True),
        nn.RNN(3, 4, nonlinearity="relu"),
        nn.ConvTranspose1d(2, 3, 2, stride=2),
        nn.MultiheadAttention(4, 2, bias=False),
        nn.LeakyReLU(0.3),
    ]
    for place, part in enumerate(parts):
        loaded = load(state(part, tmp_path / str(place))).unwrap()
        assert repr(loaded) == repr(part.eval())
        assert all(torch.equal(value, part.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_what_no_recipe_makes_is_pickled_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the last way: it says why, and what its reader needs."""
    info = mlcore.save_model(nn.TransformerEncoderLayer(4, 2, activation=torch.sin), tmp_path / "model")
    assert form(info) == "pickle"
    assert "saved as a pickle, which readers must trust: without input_example=" in caplog.text
    with pytest.raises(Untrusted):
        load(info)
    mlcore.load_model(info.folder, trust=True)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    """Guards bfloat16, which NumPy does not know: it goes in as numbers, and answers come as float32."""
    model = network().to(torch.bfloat16)
    loaded = load(state(model, tmp_path / "model", input_example=torch.from_numpy(ROWS).bfloat16()))
    assert {each.dtype for each in loaded.unwrap().parameters()} == {torch.bfloat16}
    assert loaded.predict(ROWS).dtype == np.float32


def test_a_network_that_gets_its_weights_with_its_data(tmp_path: Path) -> None:
    """Guards lazy modules: with an example a copy sees it, without one it says what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them new
        model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with pytest.raises(ModelError, match="ask it once"):
        mlcore.save_model(model, tmp_path / "without")
    info = state(model, tmp_path / "model", input_example=ROWS)
    assert isinstance(model[0], nn.LazyLinear)
    assert load(info).predict(ROWS).shape == (6, 3)


def test_a_network_without_weights_is_refused(tmp_path: Path) -> None:
    """Guards the device meta."""
    with pytest.raises(ModelError, match="device meta"):
        mlcore.save_model(network().to("meta"), tmp_path / "model")


def test_a_network_with_other_tensors_is_pickled(tmp_path: Path) -> None:
    """Guards tensors that safetensors do not hold."""
    model = nn.Sequential(nn.Linear(4, 2))
    model.register_buffer("few", torch.eye(3).to_sparse())
    assert form(mlcore.save_model(model, tmp_path / "model")) == "pickle"


def test_torchscript_is_kept_as_such(tmp_path: Path) -> None:
    """Guards TorchScript, which is a program that torch runs, and takes trust."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it old
        model = torch.jit.script(network().eval())
    info = mlcore.save_model(model, tmp_path / "model", input_example=ROWS)
    assert form(info) == "torchscript"
    with pytest.raises(Untrusted, match="TorchScript"):
        load(info)
    found = mlcore.load_model(info.folder, trust=True).predict(ROWS)
    np.testing.assert_allclose(found, answer(model, torch.from_numpy(ROWS)), rtol=1e-5)


def test_a_program_of_the_users_is_kept(tmp_path: Path) -> None:
    """Guards what was exported already; it stays the user's as it was."""
    program = torch.export.export(network().eval(), (torch.from_numpy(ROWS),))
    info = mlcore.save_model(program, tmp_path / "model", input_example=ROWS)
    assert program.example_inputs is not None
    np.testing.assert_array_equal(load(info).predict(ROWS), program.module()(torch.from_numpy(ROWS)).detach())


# Loading, and asking


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelInfo]:
    """One network, as a program and as weights."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("kept"), network()
    program = mlcore.save_model(model, folder / "program", input_example=ROWS)
    return {"program": program, "state": state(model, folder / "state", input_example=ROWS)}


@pytest.mark.parametrize("kind", ["program", "state"])
def test_a_reader_chooses_the_device_and_the_type(kind: str, kept: dict[str, ModelInfo]) -> None:
    """Guards `map_location` and `dtype`, by name or as torch has them."""
    loaded = load(kept[kind], map_location="cpu", dtype="bfloat16")
    assert {each.dtype for each in loaded.unwrap().parameters()} == {torch.bfloat16}
    plain = load(kept[kind]).predict(ROWS)
    np.testing.assert_allclose(loaded.predict(ROWS), plain, atol=0.05)
    wide = load(kept[kind], map_location=torch.device("cpu"), dtype=torch.float64)
    np.testing.assert_allclose(wide.predict(ROWS), plain, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"map_location": "nowhere"}, "no device"),
        ({"dtype": "int64"}, "no type of floating numbers"),
        ({"dtype": "nothing"}, "no type of floating numbers"),
        ({"batch_size": 0}, "a number of rows"),
        ({"colour": "red"}, "no such option"),
    ],
)
def test_an_option_that_is_none_is_refused(options: dict[str, Any], said: str, kept: dict[str, ModelInfo]) -> None:
    """Guards against options that are passed over in silence."""
    with pytest.raises(InvalidValue, match=said):
        load(kept["state"], **options)


@pytest.mark.parametrize("kind", ["program", "state"])
@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_batches_answer_as_the_whole_does(kind: str, size: int, kept: dict[str, ModelInfo]) -> None:
    """Guards `batch_size`: every row once, in order."""
    rows = np.random.default_rng(1).normal(size=(11, 4)).astype(np.float32)
    found = load(kept[kind], batch_size=size).predict(rows)
    np.testing.assert_allclose(found, load(kept[kind]).predict(rows), rtol=1e-5, atol=1e-6)
    assert load(kept[kind], batch_size=size).predict(rows[:0]).shape == (0, 2)


def test_a_network_without_a_row_of_output_for_each_of_input_takes_no_batches(tmp_path: Path) -> None:
    """Guards against numbers that are joined and mean something else."""

    class Mean(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows.mean(0, keepdim=True)

    info = mlcore.save_model(Mean(), tmp_path / "model", input_example=ROWS, batch_size=4)
    with pytest.raises(ModelError, match="one row of output"):
        load(info).predict(ROWS)
    with pytest.raises(ModelError, match="one number of rows"):
        load(info).predict(np.float32(3).reshape(()))


@pytest.mark.parametrize("kind", ["program", "state"])
@pytest.mark.parametrize(
    "data",
    [
        torch.from_numpy(ROWS),
        torch.from_numpy(ROWS).requires_grad_(),
        ROWS.astype(np.float64),
        ROWS.astype(np.float16).astype(np.float32),
        ROWS.tolist(),
        [list(each) for each in ROWS],
        pd.DataFrame(ROWS.astype(np.float64)),
        np.asfortranarray(ROWS),
        ROWS[::-1],
    ],
    ids=["tensor", "with gradient", "float64", "rounded", "lists", "values", "frame", "fortran", "backwards"],
)
def test_data_come_in_any_form(kind: str, data: Any, kept: dict[str, ModelInfo]) -> None:
    """Guards what is made tensors: the network's own width, whatever the data's."""
    model = load(kept[kind])
    values = np.asarray(data.detach() if isinstance(data, torch.Tensor) else data, dtype=np.float32)
    expected = answer(model.unwrap(), torch.from_numpy(values.copy())) if kind == "state" else model.predict(values)
    found = model._predictor(data, {})  # past the signature, which refuses some before
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_parameters_are_arguments_of_the_network(tmp_path: Path) -> None:
    """Guards an example with parameters: they may change, so it is no program that is kept."""
    model = Scaled(4)
    info = mlcore.save_model(model, tmp_path / "model", input_example=(ROWS, {"scale": 2.0}), code=[HERE])
    assert form(info) == "safetensors"
    loaded = mlcore.load_model(info.folder, trust=True)
    expected = answer(model, torch.from_numpy(ROWS))
    np.testing.assert_allclose(loaded.predict(ROWS), expected * 2, rtol=1e-5)
    np.testing.assert_allclose(loaded.predict(ROWS, {"scale": 3.0}), expected * 3, rtol=1e-5)


def test_several_inputs_come_as_a_list_too(tmp_path: Path) -> None:
    """Guards inputs by their places."""
    model, mask = Gated(4), np.full((6, 1), 0.5, np.float32)
    info = state(model, tmp_path / "model", input_example=[ROWS, mask], code=[HERE])
    found = mlcore.load_model(info.folder, trust=True).predict([ROWS, mask])
    expected = answer(model, torch.from_numpy(ROWS), torch.from_numpy(mask))
    np.testing.assert_array_equal(found["rows"], expected["rows"])


def test_texts_are_no_data_for_a_network(kept: dict[str, ModelInfo]) -> None:
    """Guards the error: it says what was given."""
    with pytest.raises(ModelError, match="numbers, not"):
        load(kept["state"])._predictor(np.array(["a"]), {})


def test_tensors_have_signatures() -> None:
    """Guards core, which knows what tensors hold and imports no torch for it."""
    half = torch.ones(3, 2, dtype=torch.bfloat16, requires_grad=True)
    signature = infer_signature({"rows": torch.ones(3, 2), "half": half}, torch.ones(3, dtype=torch.int64))
    assert str(signature).split() == (
        "inputs rows float32 (-1, 2) half float32 (-1, 2) outputs - int64 (-1,)".replace("(-1, 2)", "(-1, 2)").split()
    )


@pytest.mark.parametrize("options", [{"serialization": "onnx"}, {"colour": "red"}, {"batch_size": -1}])
def test_an_option_of_saving_that_is_none_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """Guards against options that are passed over in silence; nothing is left of them."""
    with pytest.raises(InvalidValue):
        mlcore.save_model(network(), tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_a_form_that_is_asked_for_is_taken_or_refused(tmp_path: Path) -> None:
    """Guards `serialization`: no other form is taken in its place."""
    with pytest.raises(ModelError, match=r"torch\.export fails"):
        mlcore.save_model(Branching(4), tmp_path / "model", input_example=ROWS, serialization="pt2")
    with pytest.raises(ModelError, match="input_example="):
        mlcore.save_model(network(), tmp_path / "model", serialization="pt2")
    assert not (tmp_path / "model").exists()

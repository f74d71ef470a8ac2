"""Models that are Python code: functions, classes and scripts, saved and loaded by mlcore alone."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlcore
from mlcore.errors import InvalidValue, ModelError, NotAModel, NotInstalled, UnsafePath, Untrusted
from mlcore.models import digest_of


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder of one's own, whose modules are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    for name, each in list(sys.modules.items()):
        if str(getattr(each, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def module(name: str, source: str) -> Any:
    """Write a module beside the test, and import it."""
    Path(f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def elsewhere(model: str, code: str) -> str:
    """Run code with `model` loaded in a process that has none of this one's modules; return what it prints."""
    script = f"import mlcore\nmodel = mlcore.load_model({os.fspath(Path(model).absolute())!r}, trust=True)\n{code}"
    Path("empty").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd="empty",
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Vocabulary(mlcore.PythonModel):
    """Count known words; `load` counts how often it was called."""

    loaded = 0

    def __init__(self, bonus: int) -> None:
        self.bonus = bonus

    def load(self, artifacts: dict[str, Path]) -> None:
        self.loaded += 1
        self.words = artifacts["vocabulary"].read_text().split()
        self.folder = sorted(path.name for path in artifacts["more"].iterdir())

    def predict(self, data: Any, params: Any = None) -> Any:
        times = (params or {}).get("times", 1)
        return [times * sum(word in self.words for word in text.split()) + self.bonus for text in data]


@pytest.fixture
def files() -> dict[str, str]:
    """Write a file and a folder for a model."""
    Path("words.txt").write_text("a b c")
    Path("parts").mkdir()
    Path("parts/one.bin").write_bytes(b"1")
    return {"vocabulary": "words.txt", "more": "parts"}


def test_a_class_gets_its_artifacts_once_and_predicts_with_parameters(files: dict[str, str]) -> None:
    """Guards `mlcore.PythonModel`."""
    namespace: dict[str, Any] = {"__name__": "__main__", "mlcore": mlcore}
    source = Path(__file__).read_text()
    exec(
        source[source.index("class Vocabulary") : source.index("@pytest.fixture\ndef files")],
        {**globals(), **namespace},
    )
    mlcore.save_model(Vocabulary(10), "model", artifacts=files)
    model = mlcore.load_model("model", trust=True)
    assert model.predict(["a b x", "y"]) == [12, 10]
    assert model.predict(["a b x", "y"], {"times": 2}) == [14, 10]
    assert model.unwrap().loaded == 1
    assert model.unwrap().folder == ["one.bin"]
    assert isinstance(model.unwrap(), mlcore.PythonModel)
    assert Path("model/artifacts/vocabulary/words.txt").read_text() == "a b c"


def test_a_class_of_main_is_one_of_ours_elsewhere_too() -> None:
    """Guards `isinstance` in another process: the base is mlcore's own where there is one."""
    Path("train.py").write_text(
        "import mlcore\n"
        "class Twice(mlcore.PythonModel):\n"
        "    def predict(self, data, params=None): return [2 * x for x in data]\n"
        "mlcore.save_model(Twice(), 'model')\n"
    )
    subprocess.run([sys.executable, "train.py"], check=True)
    said = elsewhere("model", "print(model.predict([1, 2]), isinstance(model.unwrap(), mlcore.PythonModel))")
    assert said == "[2, 4] True"


def test_functions_of_any_kind_are_models() -> None:
    """Guards lambdas, closures, functions of modules, and those that take parameters in either way."""
    library = module("library", "def named(data, scale=2): return [scale * x for x in data]\n")

    def outer(add: int) -> Any:
        def inner(data: Any, params: Any = None) -> Any:
            return [x + add + (params or {}).get("more", 0) for x in data]

        return inner

    for number, (model, params, expected) in enumerate(
        [
            (lambda data: [x + 1 for x in data], None, [2, 3]),
            (outer(5), None, [6, 7]),
            (outer(5), {"more": 10}, [16, 17]),
            (library.named, None, [2, 4]),
            (library.named, {"scale": 10}, [10, 20]),
        ]
    ):
        mlcore.save_model(model, f"{number}")
        loaded = mlcore.load_model(f"{number}", trust=True)
        assert loaded.predict([1, 2], params) == expected
        assert callable(loaded.unwrap())


def test_a_function_of_a_module_needs_that_name_only() -> None:
    """Guards trust by name: what is importable is saved as its name, and no code is in the pickle."""
    module("library", "def named(data): return [2 * x for x in data]\n")
    info = mlcore.save_model(importlib.import_module("library").named, "model")
    assert info.needs_trust == ("library.named",)
    mlcore.distrust(digest_of(Path("model")))
    with pytest.raises(Untrusted, match=r"'library\.named'"):
        mlcore.load_model("model")
    assert mlcore.load_model("model", trust="library.*").predict([1]) == [2]


def test_code_that_was_pickled_says_what_reading_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    """Guards that saving tells of the trust it will take."""
    info = mlcore.save_model(lambda data: data, "model")
    assert "cloudpickle.cloudpickle._make_function" in info.needs_trust
    assert "cloudpickle" in Path("model/requirements.txt").read_text()


def test_modules_given_as_code_come_with_the_model() -> None:
    """Guards readers who have none of the author's modules, imports within functions among them."""
    Path("package").mkdir()
    Path("package/__init__.py").write_text("")
    Path("package/deep.py").write_text("factor = 3")
    library = module(
        "library",
        "from package import deep\n"
        "def predict(data):\n    import late\n    return [late.shift + deep.factor * x for x in data]\n",
    )
    Path("late.py").write_text("shift = 100")
    info = mlcore.save_model(library.predict, "model", code=["library.py", "package", "late.py"])
    assert {"code/library.py", "code/package/deep.py", "code/late.py"} <= set(info.files)
    assert elsewhere("model", "print(model.predict([1, 2]))") == "[103, 106]"


def test_loading_leaves_the_model_as_it_was() -> None:
    """Guards the digest: nothing is compiled into the model's folder, and a second load is as good as the first."""
    library = module("library", "def predict(data): return data")
    mlcore.save_model(library.predict, "model", code=["library.py"])
    before = digest_of(Path("model"))
    for _ in range(2):
        assert mlcore.load_model("model", trust=True).predict([1]) == [1]
    assert digest_of(Path("model")) == before
    assert not list(Path("model").rglob("__pycache__"))


def test_bytecode_that_another_reader_left_does_no_harm() -> None:
    """Guards a model that MLflow loaded in place before."""
    library = module("library", "def predict(data): return data")
    mlcore.save_model(library.predict, "model", code=["library.py"])
    subprocess.run([sys.executable, "-m", "compileall", "-q", "model/code"], check=True)
    assert list(Path("model").rglob("*.pyc"))
    assert mlcore.load_model("model", trust=True).predict([1]) == [1]


SCRIPT = """
import json
from library import factor
def predict(data, params=None):
    return [factor * x for x in data]
"""


def test_a_script_is_saved_as_its_source() -> None:
    """Guards models from code: nothing is pickled, and nothing runs when it is saved without an example."""
    module("library", "factor = 4")
    Path("model.py").write_text(SCRIPT + "open('ran', 'a').close()\n")
    info = mlcore.save_model("model.py", "saved", code=["library.py"])
    assert not Path("ran").exists()
    assert Path("saved/model.py").read_text() == Path("model.py").read_text()
    assert not list(Path("saved").rglob("*.pkl"))
    assert info.needs_trust == ("model.py",)
    assert mlcore.load_model("saved", trust=True).predict([1, 2]) == [4, 8]


def test_a_script_may_make_a_model_with_artifacts(files: dict[str, str]) -> None:
    """Guards `model = ...` in a script; what has `load` gets the artifacts, be it of ours or not."""
    Path("script.py").write_text(
        "class Words:\n"
        "    def load(self, artifacts): self.words = artifacts['vocabulary'].read_text().split()\n"
        "    def predict(self, data): return [x in self.words for x in data]\n"
        "model = Words()\n"
    )
    mlcore.save_model(Path("script.py"), "saved", artifacts=files)
    assert mlcore.load_model("saved", trust=True).predict(["a", "z"]) == [True, False]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "defines neither"),
        ("def predict(", "no Python script"),
        ("\0", "no Python script"),
        (None, "no Python script"),
    ],
)
def test_a_script_that_is_no_model_is_told_when_it_is_saved(source: str | None, said: str) -> None:
    """Guards against a model that nobody can load."""
    if source is not None:
        Path("script.py").write_text(source)
    with pytest.raises(ModelError, match=said):
        mlcore.save_model("script.py", "saved")
    assert not Path("saved").exists()


def test_the_example_is_predicted_by_what_was_saved(files: dict[str, str]) -> None:
    """Guards the signature of models that need their artifacts to predict; the user's own object is left alone."""
    given = Vocabulary(0)
    info = mlcore.save_model(given, "model", artifacts=files, input_example=["a b", "c"])
    assert info.signature is not None
    assert not hasattr(given, "words")
    assert mlcore.load_model("model", trust=True).predict(["a b", "c"]) == [2, 1]
    Path("script.py").write_text("def predict(data): return [2.0 * x for x in data]")
    assert mlcore.save_model("script.py", "scripted", input_example=[1.0]).signature is not None


def test_type_hints_make_the_signature() -> None:
    """Guards functions that say what they take."""

    def hinted(data: list[str], times: int = 2) -> list[str]:
        return [times * each for each in data]

    info = mlcore.save_model(hinted, "model")
    assert info.signature is not None
    model = mlcore.load_model("model", trust=True)
    assert model.predict(["ab"]) == ["abab"]
    assert model.predict(["ab"], {"times": 3}) == ["ababab"]


def test_what_cannot_be_pickled_says_what_to_do() -> None:
    """Guards the most common failure: a lock, a socket or a file in a model."""
    lock = threading.Lock()
    with pytest.raises(ModelError, match=r"cannot be pickled.*PythonModel\.load"):
        mlcore.save_model(lambda data: (lock, data), "model")
    assert not Path("model").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "/x", ".hidden"])
def test_an_artifact_has_a_name_that_is_a_folder(name: str, files: dict[str, str]) -> None:
    """Guards the folder of the model against names that lead out of it."""
    with pytest.raises(ModelError, match="no name that can be a folder"):
        mlcore.save_model(Vocabulary(0), "model", artifacts={name: "words.txt"})


def test_an_artifact_that_is_not_there_is_named() -> None:
    """Guards the message."""
    with pytest.raises(ModelError, match=r"'vocabulary', missing\.txt"):
        mlcore.save_model(Vocabulary(0), "model", artifacts={"vocabulary": "missing.txt"})


def test_unknown_options_are_named() -> None:
    """Guards against a misspelt `artifacts`."""
    with pytest.raises((ModelError, InvalidValue), match="artefacts"):
        mlcore.save_model(lambda data: data, "model", artefacts={})


def rewritten(folder: str, change: Any) -> None:
    """Change the flavor's map in an MLmodel file, as whoever made the model could have."""
    import yaml

    path = Path(folder) / "MLmodel"
    content = yaml.safe_load(path.read_text())
    change(content["flavors"]["python_function"])
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a\\b", "code/__pycache__/x.pkl", ".mlcore-0011223344556677.tmp"]
)
def test_no_file_outside_of_what_the_digest_covers_is_read(name: str) -> None:
    """Guards D2: the MLmodel file names files, and may name any."""
    Path("secret").write_text("")
    mlcore.save_model(lambda data: data, "model")
    rewritten("model", lambda config: config.update(python_model=name))
    with pytest.raises(UnsafePath):
        mlcore.load_model("model", trust=True)
    rewritten("model", lambda config: config.update(python_model="model.pkl", artifacts={"x": {"path": name}}))
    model = mlcore.load_model("model", trust=True)  # a function has no use for artifacts
    assert model.predict(1) == 1


def test_a_missing_file_is_named() -> None:
    """Guards the message."""
    mlcore.save_model(lambda data: data, "model")
    rewritten("model", lambda config: config.update(python_model="gone.pkl"))
    with pytest.raises(NotAModel, match=r"'gone\.pkl'"):
        mlcore.load_model("model", trust=True)


def by_loader(folder: str, **config: Any) -> Path:
    """Write a model as other tools do: no digests, a loader module, whatever else."""
    path = Path(folder)
    (path / "code").mkdir(parents=True)
    (path / "MLmodel").write_text(json.dumps({"flavors": {"python_function": {"env": "conda.yaml", **config}}}))
    return path


def test_a_model_with_a_loader_of_its_own_is_loaded_by_it() -> None:
    """Guards what others made: `loader_module` in `code/`, its data, its settings, and an old `env`."""
    path = by_loader("model", loader_module="their_loader", code="code", data="data", config={"scale": 3})
    (path / "data").mkdir()
    (path / "data" / "offset").write_text("7")
    (path / "code" / "their_loader.py").write_text(
        "from pathlib import Path\n"
        "class Their:\n"
        "    def __init__(self, *numbers): self.numbers = numbers\n"
        "    def predict(self, data): return [self.numbers[0] + self.numbers[1] * x for x in data]\n"
        "def _load_pyfunc(path, settings): return Their(int(Path(path, 'offset').read_text()), settings['scale'])\n"
    )
    with pytest.raises(Untrusted, match=r"their_loader\._load_pyfunc"):
        mlcore.load_model("model")
    assert mlcore.load_model("model", trust=True).predict([1, 2]) == [10, 13]


def test_a_loader_that_is_not_installed_is_named() -> None:
    """Guards models of MLflow's where there is no MLflow."""
    by_loader("model", loader_module="mlflow.pyfunc.model")
    with pytest.raises(NotInstalled, match="mlflow"):
        mlcore.load_model("model", trust=True)
    by_loader("other", loader_module="json")
    with pytest.raises(ModelError, match="json, which has no _load_pyfunc"):
        mlcore.load_model("other", trust=True)


def test_what_is_no_pickle_says_so() -> None:
    """Guards the message: which model, and what is wrong with it; and a library that is missing is named."""
    (by_loader("model", loader_module="mlcore_loader_0") / "model.pkl").write_bytes(b"none")
    with pytest.raises(ModelError, match=r"cannot read model model: UnpicklingError"):
        mlcore.load_model("model", trust=True)
    path = by_loader("other", loader_module="mlcore_loader_0")
    (path / "model.pkl").write_bytes(b"cno_such_library\nModel\n.")
    with pytest.raises(NotInstalled, match="needs the module no_such_library"):
        mlcore.load_model("other", trust=True)


@pytest.mark.parametrize("loader", [None, 3, "", "../x", ["os"], "mlcore_loader_x"])
def test_a_loader_that_is_no_module_is_refused(loader: Any) -> None:
    """Guards against whatever else an MLmodel file can say."""
    by_loader("model", loader_module=loader)
    with pytest.raises(ModelError):
        mlcore.load_model("model", trust=True)


def test_a_model_saved_here_loads_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    """Guards one's own models from questions; a changed file is somebody else's model."""
    mlcore.save_model(lambda data: data, "model")
    with caplog.at_level(logging.WARNING, "mlcore"):
        assert mlcore.load_model("model").predict(3) == 3
    assert "running code of model" in caplog.text
    rewritten("model", lambda config: config.update(changed="yes"))
    with pytest.raises(Untrusted):
        mlcore.load_model("model")

"""`FlavorContract`: every promise of `mlcore.models.Flavor` as a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from mlcore import plugins
from mlcore.errors import InvalidValue, MlcoreError, Untrusted
from mlcore.models import Model, ModelInfo, load_folder, save_model

_ANSWER = """
import importlib, sys
if sys.argv[1]:
    from mlcore import plugins
    plugins.register(importlib.import_module(sys.argv[1]))
from mlcore.models import load_folder
from mlcore.testing import plain
model = load_folder(sys.argv[2], trust=sys.argv[3:] or None)
print(repr(plain(model.predict(*model.info.example()))))
"""
_IMPORTED = """
import importlib, sys
from mlcore import plugins
plugins.register(importlib.import_module(sys.argv[1])) if sys.argv[1] else plugins.installed()
print(sys.argv[2] in sys.modules)
"""


def plain(value: Any) -> Any:
    """Return arrays, frames and matrices as lists and dicts, whose `repr` is the same if they are."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "toarray"):
        return value.toarray().tolist()
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return plain(value.to_dict("list"))
    return value.tolist() if hasattr(value, "tolist") else value


class FlavorContract:
    """Subclass it in a test file, name the flavor, and return a model with data to predict.

    `trust` are the names that loading needs, none for a format that is only data. `options` are passed to
    `mlcore.save_model`. A plugin that is not installed is named by `plugin`, the module of its hooks. `generic` says
    whether MLflow's generic reader can load it, too.
    """

    flavor: ClassVar[str]
    trust: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    plugin: ClassVar[ModuleType | None] = None
    generic: ClassVar[bool] = True

    def model_and_data(self) -> tuple[Any, Any]:
        """Return a model that can predict, new at each call, and data for it."""
        raise NotImplementedError(f"{type(self).__name__} must return a model and data for it")

    @pytest.fixture(autouse=True)
    def _alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Keep the user's own trust out, and register a plugin that is not installed."""
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
        if self.plugin is not None:
            plugins.register(self.plugin)
        yield
        if self.plugin is not None:
            plugins.unregister(self.plugin.__name__)

    def save(self, folder: Path) -> ModelInfo:
        """Save the model with its data as the example, as a user unknown to the one who will read it."""
        model, data = self.model_and_data()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CONFIG_HOME", str(folder.parent / "somebody else"))
            return save_model(model, folder, input_example=data, **self.options)

    def load(self, folder: Path) -> Model:
        """Load it, trusting what the class says is needed."""
        return load_folder(folder, trust=self.trust or None)

    def test_a_model_finds_its_flavor(self, tmp_path: Path) -> None:
        """A model is taken by this flavor without being told."""
        assert self.save(tmp_path / "model").raw["mlcore"]["flavor"] == self.flavor

    def test_it_predicts_the_same_when_loaded(self, tmp_path: Path) -> None:
        """What was saved and loaded says the same of the same data, to the last bit."""
        model, data = self.model_and_data()
        self.save(tmp_path / "model")
        provider = plugins.load("flavors", self.flavor)()
        expected = provider.predictor(model, self.load(tmp_path / "model").info.flavors[self.flavor])(data, {})
        assert repr(plain(self.load(tmp_path / "model").predict(data))) == repr(plain(expected))

    def test_unwrap_gives_a_model_of_the_same_type(self, tmp_path: Path) -> None:
        """The library's own object comes out, not something around it."""
        self.save(tmp_path / "model")
        found, expected = type(self.load(tmp_path / "model").unwrap()), type(self.model_and_data()[0])
        assert (found.__module__, found.__qualname__) == (expected.__module__, expected.__qualname__)

    def test_a_new_process_loads_it(self, tmp_path: Path) -> None:
        """Nothing that loading needs was left in the process that saved."""
        self.save(tmp_path / "model")
        model = self.load(tmp_path / "model")
        assert self._run(_ANSWER, str(tmp_path / "model"), *self.trust) == repr(
            plain(model.predict(*model.info.example()))
        )

    def test_the_folder_can_move(self, tmp_path: Path) -> None:
        """No path of the place where it was saved is in it."""
        _, data = self.model_and_data()
        self.save(tmp_path / "model")
        expected = repr(plain(self.load(tmp_path / "model").predict(data)))
        (tmp_path / "model").rename(tmp_path / "moved")
        assert repr(plain(self.load(tmp_path / "moved").predict(data))) == expected
        assert str(tmp_path) not in (tmp_path / "moved" / "MLmodel").read_text(encoding="utf-8")

    def test_what_loading_needs_is_said_when_saving(self, tmp_path: Path) -> None:
        """Trust is asked for exactly where the saved model says so."""
        info = self.save(tmp_path / "model")
        if not info.needs_trust:
            load_folder(tmp_path / "model")
        else:
            with pytest.raises(Untrusted):
                load_folder(tmp_path / "model")

    def test_nothing_outside_the_folder_is_read(self, tmp_path: Path) -> None:
        """A path in the MLmodel file that leads out of the folder is refused."""
        info = self.save(tmp_path / "model")
        provider = plugins.load("flavors", self.flavor)()
        config = info.flavors[self.flavor]
        for key, value in config.items():
            inside = tmp_path / "model" / str(value)
            if isinstance(value, str) and value not in ("", ".", "code") and inside.exists():
                inside.rename(tmp_path / inside.name)
                for way_out in (f"../{inside.name}", str(tmp_path / inside.name)):
                    with pytest.raises(MlcoreError):
                        provider.load(tmp_path / "model", {**config, key: way_out}, _everything())
                (tmp_path / inside.name).rename(inside)

    def test_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        """A misspelt option is told of, and nothing is saved."""
        model, _ = self.model_and_data()
        with pytest.raises(InvalidValue):
            save_model(model, tmp_path / "model", **self.options, no_such_option=1)
        assert not (tmp_path / "model").exists()

    def test_the_requirements_name_the_library(self, tmp_path: Path) -> None:
        """The distribution that the model's class comes from is required, in the version that is here."""
        from mlcore.models import distribution_of

        self.save(tmp_path / "model")
        required = (tmp_path / "model" / "requirements.txt").read_text(encoding="utf-8")
        library = distribution_of(type(self.model_and_data()[0]).__module__.partition(".")[0])
        assert library is None or f"{library}==" in required

    def test_its_hooks_import_nothing_heavy(self) -> None:
        """Asking what plugins there are does not import the library."""
        library = type(self.model_and_data()[0]).__module__.partition(".")[0]
        if library not in ("builtins", "__main__", "mlcore", type(self).__module__):
            assert self._run(_IMPORTED, library) == "False"

    def test_the_signature_follows_from_the_example(self, tmp_path: Path) -> None:
        """The model predicts its example while it is saved, and what went in and came out is its signature."""
        signature = self.save(tmp_path / "model").raw.get("signature", {})
        assert json.loads(signature["inputs"])
        assert json.loads(signature["outputs"])

    def test_generic_readers_find_what_they_need(self, tmp_path: Path) -> None:
        """MLflow, MLServer and the clouds read it without mlcore."""
        info = self.save(tmp_path / "model")
        if self.generic:
            generic = info.flavors["python_function"]
            assert not generic["loader_module"].startswith("mlcore.")
            shipped = (tmp_path / "model" / "code" / f"{generic['loader_module']}.py").exists()
            assert shipped or generic["loader_module"].startswith("mlflow."), "ship the loader in code/"
            assert generic["python_version"].count(".") == 2

    def test_saving_leaves_the_model_as_it_was(self, tmp_path: Path) -> None:
        """A model can be used, and saved again, after it was saved."""
        model, data = self.model_and_data()
        first = save_model(model, tmp_path / "first", input_example=data, **self.options)
        second = save_model(model, tmp_path / "second", input_example=data, **self.options)
        assert first.flavors == second.flavors
        one, two = (repr(plain(load_folder(each.folder, trust=True).predict(data))) for each in (first, second))
        assert one == two

    def _run(self, script: str, *arguments: str) -> str:
        hooks = self.plugin.__name__ if self.plugin is not None else ""
        command = [sys.executable, "-c", script, hooks, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _everything() -> Any:
    from mlcore.models import Trust

    return Trust.of(True)

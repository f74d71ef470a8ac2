"""A sound flavor, and others that are broken in one way; ``MLCORE_TOY`` says which of them the hook provides."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mlcore.hookspecs import FlavorProvider
from mlcore.models import Flavor, Saved, Trust, file_inside

LOADER = """
import json

import toy_library


def _load_pyfunc(path):
    with open(path) as file:
        return toy_library.Scale(json.load(file)["factor"])
"""
MUTANTS: list[tuple[str, str]] = []


def breaks(*checks: str) -> Callable[[type[Toy]], type[Toy]]:
    """Say by which checks a broken flavor must be found out."""

    def note(mutant: type[Toy]) -> type[Toy]:
        MUTANTS.extend((f"test_{name}", mutant.__name__) for name in checks)
        return mutant

    return note


class Toy(Flavor):
    """Save, load and ask `toy_library.Scale`, as it should be done."""

    name = "toy"
    types: ClassVar[tuple[str, ...]] = ("toy_library.Scale",)
    loader, source = "toy_loader", LOADER

    def save(self, model: Any, folder: Path, *, example: Any = None) -> Saved:
        (folder / "scale.json").write_text(json.dumps(self.written(model)), encoding="utf-8")
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / "toy_loader.py").write_text(self.source, encoding="utf-8")
        return self.saved(folder)

    def written(self, model: Any) -> dict[str, Any]:
        return {"factor": model.factor}

    def saved(self, folder: Path) -> Saved:
        return Saved({"file": "scale.json"}, {"loader_module": self.loader, "data": "scale.json"}, ("toy_library",))

    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        from toy_library import Scale

        return Scale(json.loads(self.place(folder, config["file"]).read_bytes())["factor"])

    def place(self, folder: Path, name: str) -> Path:
        return file_inside(folder, name)

    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        return lambda data, params: model.predict(data)


@breaks("a_model_finds_its_flavor")
class TakesWhatIsNotThere(Toy):
    types = ("toy_library.Scales",)


@breaks("it_predicts_the_same_when_loaded")
class LosesDigits(Toy):
    def written(self, model: Any) -> dict[str, Any]:
        return {"factor": round(model.factor, 6)}


@breaks("unwrap_gives_a_model_of_the_same_type")
class WrapsTheModel(Toy):
    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(predict=super().load(folder, config, trust).predict)


@breaks("a_new_process_loads_it")
class RemembersTheModel(Toy):
    known: ClassVar[dict[str, Any]] = {}

    def save(self, model: Any, folder: Path, *, example: Any = None) -> Saved:
        self.known["latest"] = model
        return super().save(model, folder)

    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        super().load(folder, config, trust)
        return self.known["latest"]


@breaks("the_folder_can_move")
class KnowsWhereItWas(Toy):
    def saved(self, folder: Path) -> Saved:
        saved = super().saved(folder)
        return Saved({**saved.config, "made_in": str(folder.parent)}, saved.python_function, saved.modules)


@breaks("what_loading_needs_is_said_when_saving")
class AsksForTrustUnsaid(Toy):
    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        trust.demand("it is made by", "toy_library.Scale")
        return super().load(folder, config, trust)


@breaks("what_loading_needs_is_said_when_saving")
class SaysWhatItDoesNotAsk(Toy):
    def saved(self, folder: Path) -> Saved:
        saved = super().saved(folder)
        return Saved(saved.config, saved.python_function, saved.modules, needs_trust=("toy_library.Scale",))


@breaks("nothing_outside_the_folder_is_read")
class FollowsAnyPath(Toy):
    def place(self, folder: Path, name: str) -> Path:
        return folder / name


@breaks("an_unknown_option_is_refused")
class TakesAnyOption(Toy):
    def save(self, model: Any, folder: Path, *, example: Any = None, **options: Any) -> Saved:
        return super().save(model, folder)


@breaks("the_requirements_name_the_library")
class NeedsNothing(Toy):
    source = ""

    def saved(self, folder: Path) -> Saved:
        saved = super().saved(folder)
        return Saved(saved.config, saved.python_function)


@breaks("its_hooks_import_nothing_heavy")
class ImportsEarly(Toy):
    types = (*Toy.types, "early.Early")


@breaks("the_signature_follows_from_the_example")
class CannotPredictLists(Toy):
    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        return lambda data, params: model.predict(data.tolist())


@breaks("generic_readers_find_what_they_need")
class LeavesTheLoaderOut(Toy):
    loader = "toy_flavor"


@breaks("saving_leaves_the_model_as_it_was")
class WearsTheModelDown(Toy):
    def written(self, model: Any) -> dict[str, Any]:
        written = super().written(model)
        model.factor /= 2
        return written


def mlcore_flavors() -> Iterable[FlavorProvider]:
    """Provide the sound flavor, or the one that is asked for."""
    chosen: type[Toy] = globals()[os.environ.get("MLCORE_TOY", "Toy")]
    if chosen is ImportsEarly:
        import toy_library  # noqa: F401 - this is what is broken
    return [FlavorProvider("toy", chosen, "scales", types=chosen.types)]

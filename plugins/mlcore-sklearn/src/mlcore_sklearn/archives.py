"""Write and read skops archives: what they name is told when they are written, and trusted when they are read."""

from __future__ import annotations

import json
import pkgutil
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any
from zipfile import ZipFile, ZipInfo

import attrs

from mlcore.errors import MlcoreError, ModelError, NotInstalled
from mlcore.models import Trust
from mlcore_sklearn import soundness
from mlcore_sklearn.reach import within_reach
from mlcore_sklearn.trusted_types import HARMLESS

__all__ = ["Unreadable", "Written", "read", "write"]

# Reading back what was written proves that it can be read, and costs a third of writing it: what is larger than this,
# and holds nothing but what our tests read back, is spared it.
SMALL = 4_000_000


class Unreadable(ModelError):
    """Say why a reader could not load this model from a skops archive."""


@attrs.frozen
class Written:
    """Tell of an archive the names that some version of skops distrusts, those that we do, and the modules of all."""

    distrusted: tuple[str, ...]
    needs_trust: tuple[str, ...]
    modules: tuple[str, ...]


def write(model: object, path: Path, code: Path) -> Written:
    """Write `model` and make sure that a reader can load it. Raises `Unreadable` with why not, or `OSError`."""
    import skops.io

    try:
        skops.io.dump(model, path)
        _settle(path)
        nodes = list(_nodes(_schema(path)))
        _can_be_imported(model, nodes, code)
        untrusted = skops.io.get_untrusted_types(file=path)
        needs_trust = tuple(name for name in untrusted if name not in HARMLESS)
        if needs_trust or path.stat().st_size <= SMALL:
            skops.io.load(path, trusted=untrusted)
    except Exception as error:
        path.unlink(missing_ok=True)
        if isinstance(error, Unreadable | OSError):  # a full disk is none of the model's doing
            raise
        raise Unreadable(f"skops fails with {type(error).__name__}: {error}") from error
    modules = {str(node["__module__"]).partition(".")[0] for node in nodes if node.get("__module__")} - {"builtins"}
    distrusted = {*untrusted, *({_name(node) for node in nodes} & HARMLESS.keys())}
    return Written(tuple(sorted(distrusted)), needs_trust, tuple(sorted(modules)))


def _settle(path: Path) -> None:
    """Write an archive anew without the moment and the addresses in memory: of models that are equal, equal files."""
    settled, files = path.with_suffix(".settled"), dict[str, str]()
    try:
        with ZipFile(path) as archive, ZipFile(settled, "w") as target:
            schema = json.loads(archive.read("schema.json"))
            ids: dict[int, int] = {}
            for node in _nodes(schema):
                if "__id__" in node:
                    node["__id__"] = ids.setdefault(node["__id__"], len(ids) + 1)
                if (name := node.get("file")) in archive.NameToInfo:
                    node["file"] = files.setdefault(name, f"{len(files) + 1}{Path(name).suffix}")
            for name, new in files.items():
                with archive.open(name) as content, target.open(ZipInfo(new), "w", force_zip64=True) as copy:
                    shutil.copyfileobj(content, copy)
            target.writestr(ZipInfo("schema.json"), json.dumps(schema, indent=2))
        settled.replace(path)
    finally:
        settled.unlink(missing_ok=True)


def _can_be_imported(model: object, nodes: list[dict[str, Any]], code: Path) -> None:
    """Raise `Unreadable` if a reader would find another class or function by a name in the archive, or none."""
    meant = {
        (part.__module__, part.__name__): part
        for part in soundness.parts_of(model)
        if isinstance(part, type | FunctionType)
    }
    for module, name in {(str(node.get("__module__")), str(node.get("__class__"))) for node in nodes}:
        found = getattr(sys.modules.get(module), name, None)
        if module.partition(".")[0] == "__main__":
            raise Unreadable(f"{name} is defined in __main__, which is another module for every reader")
        if found is None or meant.get((module, name), found) is not found:
            raise Unreadable(f"{module}.{name} cannot be imported by that name: it is not at the top of its module")
        if not within_reach(module, code):
            raise Unreadable(f"{module} is neither installed nor given with code=, so readers lack {name}")


def read(path: Path, trust: Trust, code: Path) -> Any:
    """Load an archive if it names nothing but what is harmless or trusted, and if what it holds is sound.

    Raises `Untrusted` with the names, and `ModelError` if it is no archive or was damaged or forged.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        nodes = list(_nodes(_schema(path)))
        named = {(_name(node), node["__loader__"]) for node in nodes}
        misused = {name for name, loader in named if loader not in HARMLESS.get(name, ())}
        harmless = sorted({name for name, _ in named} - misused)
        with trust.code(code):
            try:
                model = skops.io.load(path, trusted=harmless)
            except UntrustedTypesFoundException:
                names = sorted({*skops.io.get_untrusted_types(file=path)} - {*harmless})
                trust.demand("its archive names", *names)
                _demand_what_they_are(nodes, {*names}, trust)
                model = skops.io.load(path, trusted=[*harmless, *names])
        soundness.examine(model)
    except soundness.Unsound as error:
        raise ModelError(f"{path} was damaged or forged, and using it could crash the process: {error}") from error
    except (MlcoreError, Warning):  # a warning that is an error to somebody, such as scikit-learn's of its version
        raise
    except ModuleNotFoundError as error:
        where = "in the model's own code/, which takes trust=True" if error.name in _own(code) else "not installed"
        raise NotInstalled(f"{path} needs the module {error.name}, which is {where}") from error
    except Exception as error:
        raise ModelError(f"{path} cannot be read as a skops archive: {type(error).__name__}: {error}") from error
    return model


def _demand_what_they_are(nodes: list[dict[str, Any]], names: set[str], trust: Trust) -> None:
    """Demand trust in what names lead to as well: ``mypkg.tools.system`` may be ``os.system``, imported there."""
    for node in nodes:
        if (name := _name(node)) in names:
            found = pkgutil.resolve_name(f"{node['__module__']}:{node['__class__']}")
            kind = found if isinstance(getattr(found, "__qualname__", None), str) else type(found)
            own = f"{kind.__module__}.{kind.__qualname__}"
            trust.demand(f"what its archive calls {name} is", own)


def _own(code: Path) -> set[str]:
    return {each.stem for each in code.iterdir()} if code.is_dir() else set()


def _schema(path: Path) -> object:
    with ZipFile(path) as archive:
        return json.loads(archive.read("schema.json"))


def _name(node: dict[str, Any]) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _nodes(schema: object) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__loader__" in node:
                yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)

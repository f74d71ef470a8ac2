"""What a plugin can do: every hook, with a whole plugin as its example.

A plugin is a module whose functions carry the names of hooks; it is found by the entry-point group
``mlcore``. No marker and no import of mlcore is needed: the prefix ``mlcore_`` is the marker.
*Provider* hooks take nothing and return records, of which mlcore picks one by name, so the order of
installation decides nothing. *Event* hooks tell what happened; what they raise is logged, not passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from mlcore._value import Value

if TYPE_CHECKING:
    from mlcore.registry import Change
    from mlcore.tracking._run import Run

__all__ = ["FlavorProvider", "Provider", "hookimpl"]

hookimpl = pluggy.HookimplMarker("mlcore")


@attrs.frozen(eq=False, repr=False)
class Provider(Value):
    """Name one thing that a plugin brings, and say where its implementation is.

    `name` is what users and core select by: the URI scheme of a store or an artifact backend, the word
    of a command. `implementation` is ``"module:attribute"`` or a callable that imports late, called with
    what the hook's docstring says. `summary` is one line for ``--help`` and ``mlcore plugins``.
    """

    name: str
    implementation: str | Callable[..., Any]
    summary: str = ""


@attrs.frozen(eq=False, repr=False)
class FlavorProvider(Provider):
    """Name a flavor, or what describes data, and the `types` that it takes, as dotted names: nearest base first."""

    types: tuple[str, ...] = ()


def mlcore_stores() -> Iterable[Provider]:
    """Provide stores, keyed by URI scheme; ``file`` also serves plain paths.

    The implementation is called with the URI and returns a `mlcore.store.Store`. A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def mlcore_stores():
        return [Provider("ram", "my_package.ram:open_store", "keeps runs in memory")]
    ```
    """


def mlcore_artifact_backends() -> Iterable[Provider]:
    """Provide places for files, keyed by URI scheme; they win over fsspec's own for the same scheme.

    The implementation is called with the URI and returns an ``fsspec`` filesystem and the path in it.
    A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def open_vault(uri):
        from my_package.vault import VaultFileSystem
        return VaultFileSystem(), uri.removeprefix("vault://")

    def mlcore_artifact_backends():
        return [Provider("vault", open_vault, "files in the lab's vault")]
    ```
    """


def mlcore_indexes() -> Iterable[Provider]:
    """Provide what makes folder stores fast to read, keyed by name; ``MLCORE_INDEX`` names one, by default ``sqlite``.

    The implementation is called with a path, where it may keep a file that can be deleted at any time, and the
    identity of the store, a text: what was kept under another identity belongs to a copy, and is forgotten. It
    returns an index, as `mlcore_local.Index` describes it. A whole plugin, whose index is kept in memory:

    ```python
    from mlcore.hookspecs import Provider

    def open_index(path, identity):
        from my_package.index import MemoryIndex
        return MemoryIndex()

    def mlcore_indexes():
        return [Provider("memory", open_index, "forgotten with the process")]
    ```
    """


def mlcore_flavors() -> Iterable[FlavorProvider]:
    """Provide kinds of models, keyed by their name in an MLmodel file.

    The implementation is called with nothing and returns a `mlcore.models.Flavor`. The types are compared with
    the classes a model derives from, by name, so that nothing is imported to find the flavor. A whole plugin:

    ```python
    from mlcore.hookspecs import FlavorProvider

    def mlcore_flavors():
        return [FlavorProvider("prophet", "my_package.flavor:Prophet", "time series", types=("prophet.Prophet",))]
    ```
    """


def mlcore_verifiers() -> Iterable[Provider]:
    """Provide what checks signatures of models, keyed by the name of their file in a model; mlcore asks ``model.sig``.

    The implementation is called before anything of the model is read, with its folder and with the public keys in PEM,
    by who requires them: of each of these, one key must have signed. It returns the sha256 of every file but the
    signature, by name, which are not computed again, or raises `mlcore.errors.BadSignature`. A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def check(folder, keys):
        from my_package.signatures import files_signed_by
        return files_signed_by(folder, keys)

    def mlcore_verifiers():
        return [Provider("model.sig", check, "keys in the lab's vault")]
    ```
    """


def mlcore_model_files() -> Iterable[Provider]:
    """Provide further files of every model that is saved, keyed by a name.

    The implementation is called with the folder of the model, its name, and the lines of its requirements.txt, when
    all else but MLmodel is written; the model's digest covers what it adds. If it fails, the model is saved without.
    A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def write_card(folder, name, requirements):
        (folder / "card.md").write_text(f"# {name} needs {', '.join(requirements)}", encoding="utf-8")

    def mlcore_model_files():
        return [Provider("card", write_card, "a card to fill in")]
    ```
    """


def mlcore_datasets() -> Iterable[FlavorProvider]:
    """Provide what describes data for `Run.log_dataset`, keyed by a name.

    The implementation is called with the data, ``source`` as the user gave it or None, and the options that they gave,
    and returns a `mlcore.Dataset`. The types are compared with the classes of the data by name, so that nothing is
    imported to find it. A whole plugin:

    ```python
    from mlcore.hookspecs import FlavorProvider

    def describe(recording, source=None):
        from hashlib import sha256
        from mlcore import Dataset
        about = {"kind": "recording", "rows": len(recording.samples), "columns": 1}
        return Dataset(sha256(recording.samples.tobytes()).hexdigest(), about, source=source)

    def mlcore_datasets():
        return [FlavorProvider("recordings", describe, "sound", types=("lab.sound.Recording",))]
    ```
    """


def mlcore_uploaders() -> Iterable[Provider]:
    """Provide what ships runs to stores that are no folder; mlcore uses the one named ``journals``.

    The implementation is called with the URI of the store, a callable that opens it, and one that returns where the
    files of a run go by its id, for runs that other processes left; the callables wait for the network. It returns an
    object whose `sink(run_id, place)` returns a `mlcore.journal.Writer`, where `place` is that callable for this run,
    `wait()` waits a little until the store has what was written, `finish()` is called as the process ends,
    `get(kind, id)` and `experiments()` answer from what is known here, `ask(online, offline)` waits a
    little for an answer, and `keep(run_id, sources, passing)` keeps files. A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def mlcore_uploaders():
        return [Provider("journals", "my_package.uploading:open_uploader", "ships by carrier pigeon")]
    ```
    """


def mlcore_context() -> Iterable[Provider]:
    """Provide what a run records about itself, keyed by a name that the setting ``capture`` can leave out.

    The implementation is called with the `Run`, in a thread beside the training, and returns a dict: its values stand
    in the run's family of attributes ``context`` as ``NAME.KEY``. It may write more about the run, and it never
    returns what may be secret. A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def ask_license_server(run):
        return {"server": "licenses.example.org", "seats": 4}

    def mlcore_context():
        return [Provider("license", ask_license_server, "which license the run used")]
    ```
    """


def mlcore_commands() -> Iterable[Provider]:
    """Provide commands of the ``mlcore`` program, keyed by their word.

    The implementation is a `click.Command`, imported only when the command runs or shows its help.
    A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def mlcore_commands():
        return [Provider("hello", "my_package.cli:hello", "Say hello.")]
    ```
    """


def mlcore_routes() -> Iterable[Provider]:
    """Provide routes of the tracking server, keyed by a name for all that belong together.

    The implementation is called with the `mlcore_server.service.Service` and returns `mlcore_server.Route` records,
    each of which says what right it needs. A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def make_routes(service):
        from mlcore_server import Route
        from my_package.pages import hello
        return [Route("GET", "/hello", hello, needs="read", summary="Say hello.")]

    def mlcore_routes():
        return [Provider("hello", make_routes, "says hello")]
    ```
    """


def mlcore_environments() -> Iterable[Provider]:
    """Provide kinds of environments that projects run in, keyed by the name that ``--env`` takes.

    The implementation is called with nothing and returns a `mlcore_projects.environments.Environments`. A whole
    plugin:

    ```python
    from mlcore.hookspecs import Provider

    def mlcore_environments():
        return [Provider("guix", "my_package.guix:GuixEnvironments", "profiles of GNU Guix")]
    ```
    """


def mlcore_runners() -> Iterable[Provider]:
    """Provide places where ``mlcore run`` runs a project, keyed by the name that ``--runner`` takes.

    The implementation is called with nothing and returns a `mlcore_projects.runners.Runner`. A whole plugin:

    ```python
    from mlcore.hookspecs import Provider

    def mlcore_runners():
        return [Provider("fridge", "my_package.fridge:FridgeRunner", "jobs on the lab's fridge")]
    ```
    """


def mlcore_run_ended(run: Run) -> None:
    """Learn that a run was ended by this process, after its last record was written.

    A whole plugin:

    ```python
    def mlcore_run_ended(run):
        print(f"{run.name} is {run.status}")
    ```
    """


def mlcore_registry_changed(event: Change) -> None:
    """Learn that this process changed something in the model registry, after it was stored.

    `event` is a `mlcore.registry.Change`: what was done, to which model and version, by whom and when. A whole plugin:

    ```python
    def mlcore_registry_changed(event):
        print(f"{event.by}: {event.action} {event.model} {event.version}")
    ```
    """


# the prefix is the marker here as well: every hook is listed
__all__ += [name for name in globals() if name.startswith("mlcore_")]

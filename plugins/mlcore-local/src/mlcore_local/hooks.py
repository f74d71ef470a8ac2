"""What mlcore-local brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlcore.hookspecs import FlavorProvider, Provider

if TYPE_CHECKING:
    from mlcore import Run
    from mlcore.registry import Change


def mlcore_stores() -> Iterable[Provider]:
    """Provide the folder store, for paths and ``file://``."""
    return [Provider("file", "mlcore_local.store:open_store", "runs as journals in a folder")]


def mlcore_artifact_backends() -> Iterable[Provider]:
    """Provide files on this machine."""
    return [Provider("file", "mlcore_local.artifacts:open_files", "files on this machine")]


def mlcore_uploaders() -> Iterable[Provider]:
    """Provide what ships runs to stores that are no folder."""
    return [Provider("journals", "mlcore_local.uploading:open_uploader", "ships journals from a spool")]


def mlcore_context() -> Iterable[Provider]:
    """Provide what every run records about itself; what takes longest comes last."""
    return [
        Provider("command", "mlcore_local.context:command", "what was called: script, module or notebook, arguments"),
        Provider("python", "mlcore_local.context:python", "which Python it is"),
        Provider("host", "mlcore_local.context:host", "the machine: its name, system, processors, memory, GPUs"),
        Provider("scheduler", "mlcore_local.context:scheduler", "ids of Slurm, Kubernetes, Ray and others"),
        Provider("seeds", "mlcore_local.context:seeds", "seeds that frameworks show"),
        Provider("packages", "mlcore_local.packages:packages", "which distributions are installed"),
        Provider("git", "mlcore_local.context:git", "commit, branch, remote, and what was changed since"),
        Provider("script", "mlcore_local.context:script", "the script and its project, where there is no git"),
    ]


def mlcore_registry_changed(event: Change) -> None:
    """Write what changed in the registry to a file, or run a command with it, where the user's settings say so."""
    from mlcore_local.registry.telling import tell

    tell(event)


def mlcore_commands() -> Iterable[Provider]:
    """Provide the commands that look after a folder store, and after the files of runs."""
    return [
        Provider("artifacts", "mlcore_local.artifact_commands:artifacts", "List, get, put and verify files of runs."),
        Provider("completion", "mlcore_local.setup_commands:completion", "Let a shell complete what you type."),
        Provider(
            "config", "mlcore_local.config_commands:config", "Show and change which store and experiment are used."
        ),
        Provider("doctor", "mlcore_local.setup_commands:doctor", "Tell what is installed, and what is wrong."),
        Provider(
            "experiments", "mlcore_local.experiment_commands:experiments", "List, make, rename, delete experiments."
        ),
        Provider("fsck", "mlcore_local.commands:fsck", "Check every journal of a store, and repair it."),
        Provider("history", "mlcore_local.history_commands:history", "Show what the runs of an experiment changed."),
        Provider("init", "mlcore_local.commands:init", "Make a store."),
        Provider("journal", "mlcore_local.commands:journal", "Look into journals."),
        Provider(
            "lineage",
            "mlcore_local.registry.lineage_commands:lineage",
            "Show what a model was made of, and who used it.",
        ),
        Provider("models", "mlcore_local.model_commands:models", "Look at models, predict with them, and check them."),
        Provider("models pack", "mlcore_local.packing_commands:pack", "Write a model into one file."),
        Provider("models unpack", "mlcore_local.packing_commands:unpack", "Unpack a model from such a file."),
        Provider("plugins", "mlcore_local.plugin_commands:commands", "List what is installed and what it provides."),
        Provider("registry", "mlcore_local.registry.commands:registry", "Register models: versions, aliases, stages."),
        Provider("registry check", "mlcore_local.registry.merging_commands:check", "Check that no change was altered."),
        Provider("registry compare", "mlcore_local.registry.comparing_commands:compare", "Compare two versions."),
        Provider(
            "registry history", "mlcore_local.registry.history_commands:history", "Show what was changed, by whom."
        ),
        Provider(
            "registry renumber", "mlcore_local.registry.merging_commands:renumber", "Give a version a free number."
        ),
        Provider("reindex", "mlcore_local.commands:reindex", "Make anew what speeds up reading."),
        Provider("runs", "mlcore_local.run_commands:runs", "List, compare, change, log and watch runs."),
        Provider("runs diff", "mlcore_local.diff_commands:diff", "Print what differs between two runs."),
        Provider("sync", "mlcore_local.sync_commands:command", "Bring one store what another has."),
        Provider("trust", "mlcore_local.trust_commands:trust", "Decide what models may run when you load them."),
        Provider("where", "mlcore_local.commands:where", "Tell which store is used, and why."),
    ]


def mlcore_datasets() -> Iterable[FlavorProvider]:
    """Provide what describes tables and arrays of several libraries, and files and folders."""
    tables = (
        "builtins.dict", "builtins.list", "numpy.ndarray", "numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray",
        *(f"pandas{where}" for where in (".DataFrame", ".core.frame.DataFrame", ".Series", ".core.series.Series")),
        *(f"pandas{where}" for where in (".Index", ".core.indexes.base.Index")),
        "polars.dataframe.frame.DataFrame", "polars.lazyframe.frame.LazyFrame", "polars.series.series.Series",
        *(f"pyarrow.lib.{name}" for name in ("Array", "ChunkedArray", "RecordBatch", "Table")),
        "scipy.sparse._base.sparray", "scipy.sparse._matrix.spmatrix",
    )  # fmt: skip
    paths = ("builtins.str", "pathlib.PurePath", "pathlib._local.PurePath")
    return [
        FlavorProvider("tables", "mlcore_local.datasets:describe_table", "tables and arrays", tables),
        FlavorProvider("files", "mlcore_local.datasets:describe_path", "files and folders", paths),
    ]


def mlcore_run_ended(run: Run) -> None:
    """Seal a run that was logged into a folder store, so that reading it costs what is read."""
    from mlcore_local.seal import seal_ended

    seal_ended(run)

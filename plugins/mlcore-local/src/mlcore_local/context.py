"""What every run records about itself: the machine, the Python, the command, seeds and the scheduler's ids.

Each function here is asked in a thread beside the training, at the start of every run: they read what the process and
the kernel already know, import nothing and start no process. What may be secret is masked or not looked at.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcore import config, journal, plugins

if TYPE_CHECKING:
    from mlcore import Run

__all__ = [
    "OWN",
    "allowed",
    "code_root",
    "command",
    "git",
    "graphics",
    "host",
    "masked",
    "python",
    "scheduler",
    "script",
    "seeds",
    "started_as",
]

OWN = ("command", "python", "packages", "seeds")  # what another process cannot tell of the one that trains
_MOST, _LONGEST = 500, 4_096  # arguments, and characters of one of them
_HINTS = (
    "pass",
    "pwd",
    "secret",
    "cred",
    "key",
    "token",
    "auth",
    "bearer",
    "conn",
    "sig=",
    "://",
    "eyj",
    "sg.",
    "hvs.",
)
# what names a job, and nothing else of the environment
_SCHEDULERS = {
    "slurm_job_id": "SLURM_JOB_ID", "slurm_array_job_id": "SLURM_ARRAY_JOB_ID",
    "slurm_array_task_id": "SLURM_ARRAY_TASK_ID", "slurm_cluster": "SLURM_CLUSTER_NAME",
    "slurm_partition": "SLURM_JOB_PARTITION", "slurm_restarts": "SLURM_RESTART_COUNT",
    "kubernetes_pod": "HOSTNAME", "ray_job_id": "RAY_JOB_ID", "pbs_job_id": "PBS_JOBID", "lsf_job_id": "LSB_JOBID",
    "aws_batch_job_id": "AWS_BATCH_JOB_ID", "torchelastic_run_id": "TORCHELASTIC_RUN_ID",
    "rank": "RANK", "world_size": "WORLD_SIZE",
}  # fmt: skip
_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_SEEDS = {"python_hash": "PYTHONHASHSEED", "lightning": "PL_GLOBAL_SEED"}


def allowed(*without: str) -> list[str]:
    """Return the names of what settings let a run record, without some: for who opens it and leaves these to others.

    A process that only starts the one that trains leaves it `OWN`.
    """
    said = {name.strip() for name in next(config.settings("capture")).value.split(",")}
    return [name for name in plugins.provided("context") if name not in without and said & {"all", name}]


def host(_: Run) -> dict[str, Any]:
    """Tell of the machine and the user: memory in bytes, and as many cores as this process may use."""
    about = platform.uname()
    found = {
        "name": about.node,
        "user": journal.user(),
        "system": f"{about.system} {about.release}",
        "machine": about.machine,
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _memory(),
        **graphics(Path("/")),
    }
    return {key: value for key, value in found.items() if value}


def python(_: Run) -> dict[str, Any]:
    """Tell which Python it is."""
    return {"version": platform.python_version(), "implementation": platform.python_implementation()}


def scheduler(_: Run) -> dict[str, Any]:
    """Tell by what ids Slurm, Kubernetes, Ray and others know this process; nothing outside of one."""
    pod = "KUBERNETES_SERVICE_HOST" in os.environ
    known = {key: name for key, name in _SCHEDULERS.items() if pod or key != "kubernetes_pod"}
    found = {key: os.environ[name] for key, name in known.items() if os.environ.get(name)}
    return found | ({"kubernetes_namespace": namespace} if pod and (namespace := _start(_NAMESPACE).strip()) else {})


def seeds(_: Run) -> Iterator[dict[str, int]]:
    """Tell the seeds that frameworks show of those that are set: now, and at the end of the run, for later ones."""
    yield _seeds()
    yield _seeds()


def _seeds() -> dict[str, int]:
    found = {key: int(os.environ[name]) for key, name in _SEEDS.items() if os.environ.get(name, "").isdecimal()}
    asked = {"torch": ("torch", "initial_seed"), "tensorflow": ("tensorflow.python.eager.context", "global_seed")}
    for key, (module, name) in asked.items():
        with suppress(Exception):  # half imported, or of another version
            seed = getattr(sys.modules[module], name)()
            found |= {} if seed is None else {key: int(seed)}
    return found


def command(_: Run) -> dict[str, Any]:
    """Tell what was called: its arguments, masked, and from where, by paths that count from `code_root`."""
    pid = os.environ.get("MLCORE_PROCESS", "")
    if pid not in ("", str(os.getpid())):  # a shell's script, say, which logs by commands
        argv = [os.fsdecode(each) for each in _bytes(f"/proc/{pid}/cmdline", 1 << 16).split(b"\0")[:-1]]
        return (
            {"kind": "command", "argv": masked(argv), "folder": _below(os.path.realpath(os.getcwd()), code_root())}
            if argv
            else {}
        )
    kind, entry = started_as()
    options, arguments = _split(sys.orig_argv)[1:]
    root, here = code_root(), os.path.realpath(os.getcwd())
    if kind == "script" and options and os.path.isabs(options[-1]) and entry.startswith(f"{root}/"):
        options[-1] = os.path.relpath(entry, here)  # so that it is the same from another place
    return {
        "kind": kind,
        "entry": _below(entry, root) if os.path.isabs(entry) else entry,
        "folder": _below(here, root),
        "argv": masked([os.path.basename(sys.orig_argv[0]), *options, *arguments] if sys.orig_argv else []),
        "arguments": masked(arguments),
    }


def git(run: Run) -> dict[str, Any]:
    """Tell the state of the repository that the code is in, and keep its changes; who has none does not pay for it."""
    if not os.path.lexists(os.path.join(code_root(), ".git")):
        return {}
    from mlcore_local.code import capturing

    return capturing.git(run)


def script(run: Run) -> dict[str, Any]:
    """Keep the code of a script, notebook or module that git cannot tell of."""
    if started_as()[0] in ("command", "interactive") and not _said():
        return {}
    from mlcore_local.code import capturing

    return capturing.script(run)


def started_as() -> tuple[str, str]:
    """Return how this process was started, and what: a script's absolute path, a module's name, a notebook's path.

    The kinds are ``script``, ``module``, ``notebook``, ``interactive`` and ``command``, which is ``python -c``.
    """
    main = sys.modules.get("__main__")
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel"):
        named = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")
        return "notebook", os.path.realpath(named) if named else ""
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":  # which is that of a folder or an archive
        return "module", spec.name.removesuffix(".__main__")
    if file and shell is None and not hasattr(sys, "ps1"):
        return "script", os.path.realpath(file)
    return ("command" if _split(sys.orig_argv)[0] == "c" else "interactive"), ""


def code_root() -> str:
    """Return the folder from which paths of the code count: the top of its repository, else that of the script.

    A program that was installed, such as a test runner, says nothing about the code: then the current folder counts.
    It is what `mlcore_local.code.code_folder` returns, and costs the start of a run less.
    """
    (kind, entry), here = started_as(), _said() or os.path.realpath(os.getcwd())
    known = kind in ("script", "notebook") and os.path.isabs(entry) and not _installed(entry) and not _said()
    start = os.path.dirname(entry) if known else here
    for folder in dict.fromkeys((start, here)):
        above = folder
        while not (os.path.isfile(f"{above}/.git/HEAD") or os.path.isfile(f"{above}/.git")):
            if above == (above := os.path.dirname(above)):
                break
        else:
            return above
    return start


def _said() -> str:
    """Return the folder that `mlcore_local.code.use_folder` names, for who runs something else than itself."""
    return str(getattr(sys.modules.get("mlcore_local.code.places"), "said", None) or "")


def _installed(file: str) -> bool:
    folders = (os.path.dirname(sys.executable), sys.prefix, sys.base_prefix, "/usr/bin", "/usr/lib")
    return file.startswith(tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in folders))


def _below(path: str, root: str) -> str:
    """Return a path as it counts from `root`, else its last name: where somebody's folders lie is nobody's business."""
    if f"{path}{os.sep}".startswith(f"{root.rstrip(os.sep)}{os.sep}"):
        return "" if path == root else os.path.relpath(path, root).replace(os.sep, "/")
    return os.path.basename(path)


def _split(argv: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Split a command line of Python: ``c`` or ``m`` if it has that, what is for Python, what for the program."""
    at = 1
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-", "--"):
        word = argv[at]
        letter = next((each for each in word[1:] if each in "cmWX"), "-") if word[1] != "-" else ""
        at += 1 + (word == "--check-hash-based-pycs" or word.find(letter, 1) == len(word) - 1)
        if letter and letter in "cm":
            return letter, list(argv[1:at]), list(argv[at:])
    return "", list(argv[1 : at + 1]), list(argv[at + 1 :])


def masked(argv: Sequence[str]) -> list[str]:
    """Return arguments without what looks like a secret, no more and none longer than is reasonable."""
    found = list(argv)
    if any(map(_suspect, found)):  # else the rules, which take long to compile, change nothing
        from mlcore_local.code.secrets import mask_arguments

        found = mask_arguments(found)
    short = [each if len(each) <= _LONGEST else f"{each[:_LONGEST]}…" for each in found[:_MOST]]
    return short + ["…"] * (len(found) > _MOST)


def _suspect(text: str) -> bool:
    small, run = text.casefold(), 0
    if any(hint in small for hint in _HINTS):
        return True
    for char in text:  # tokens are long
        run = run + 1 if char.isalnum() or char in "_-" else 0
        if run > 15:
            return True
    return False


def _processor() -> str:
    for line in _start("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def _memory() -> int:
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def graphics(root: Path) -> dict[str, Any]:
    """Tell of NVIDIA's and AMD's GPUs what their drivers show as files."""
    found: list[str] = []
    driver = root / "proc/driver/nvidia"
    if os.path.isdir(driver / "gpus"):
        for folder in sorted(os.listdir(driver / "gpus")):
            about = _fields(_start(driver / "gpus" / folder / "information"))
            found.append(about.get("Model", "NVIDIA"))
    version = _start(driver / "version").partition("Kernel Module")[2].split()[:1] if found else []
    cards = root / "sys/class/drm"
    there = sorted(os.listdir(cards)) if os.path.isdir(cards) else []
    found += [name for card in there if (name := _start(cards / card / "device/product_name").strip())]
    return {"gpus": found, "gpu_driver": "".join(version)}


def _fields(text: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _bytes(path: str | Path, most: int) -> bytes:
    with suppress(OSError), open(path, "rb", buffering=0) as file:  # the kernel makes no more than is asked for
        return file.read(most)
    return b""


def _start(path: str | Path) -> str:
    return _bytes(path, 2_048).decode(errors="replace")

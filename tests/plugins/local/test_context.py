"""What mlcore-local records about every run: how it was started, where, and on what, and nothing that is secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlcore
from faults.processes import environment, finish, run as run_process
from mlcore_local.context import graphics, masked

TRAIN = """
import json, os, sys, mlcore, mlcore_local.context, mlcore_local.code
with mlcore.Client(os.environ["STORE"]).start_run(capture="command") as run:
    pass
assert mlcore_local.context.code_root() == str(mlcore_local.code.code_folder())
print(json.dumps(run.context))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a repository with a script in a folder, and a package."""
    root = tmp_path.resolve() / "project"
    for folder in (".git", ".git/objects", "scripts", "package"):
        (root / folder).mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    for name in ("scripts/train.py", "package/__init__.py", "package/__main__.py", "package/fit.py"):
        (root / name).write_text(TRAIN if name != "package/__init__.py" else "")
    return root


def started(cwd: Path, *arguments: object, text: str = "", **settings: str) -> dict[str, Any]:
    """Run Python with arguments and return what its run recorded of the command, without the prefix."""
    env = environment(cwd.parent, STORE=str(cwd.parent / "store"), **settings)
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=env, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = finish(process, 0, text)
    assert "AssertionError" not in err, err
    found: dict[str, Any] = json.loads(out[out.index("{") :])
    assert found.pop("captured") == ["command"]
    return {key.removeprefix("command."): value for key, value in found.items()}


class TestCommand:
    """How it was started is recorded so that it can be started again from another place."""

    def test_a_script(self, project: Path) -> None:
        """Guards the usual call: paths count from the repository, and Python's own options are kept."""
        python = os.path.basename(sys.executable)
        found = started(project / "scripts", "-W", "ignore", "-Xutf8", "-u", "train.py", "--lr", "0.1", "-c", "a b")
        arguments = ["--lr", "0.1", "-c", "a b"]
        assert found == {
            "kind": "script",
            "entry": "scripts/train.py",
            "folder": "scripts",
            "argv": [python, "-W", "ignore", "-Xutf8", "-u", "train.py", *arguments],
            "arguments": arguments,
        }

    def test_a_script_by_its_absolute_path(self, project: Path) -> None:
        """Guards another checkout: where this one lies is in nothing that is recorded."""
        found = started(project / "scripts", project / "scripts" / "train.py")
        assert found["argv"][1:] == ["train.py"]
        assert str(project) not in json.dumps(found)

    def test_a_script_from_elsewhere(self, project: Path, tmp_path: Path) -> None:
        """Guards the code's root: it is the repository of the script, not of the folder that one stands in."""
        (tmp_path / "elsewhere").mkdir()
        found = started(tmp_path / "elsewhere", project / "scripts" / "train.py")
        assert (found["entry"], found["folder"]) == ("scripts/train.py", "elsewhere")

    def test_a_script_without_a_repository(self, tmp_path: Path) -> None:
        """Guards a folder that is nothing but a script."""
        (tmp_path / "plain").mkdir()
        (tmp_path / "plain" / "train.py").write_text(TRAIN)
        found = started(tmp_path / "plain", "train.py")
        assert (found["kind"], found["entry"], found["folder"]) == ("script", "train.py", "")

    @pytest.mark.parametrize(
        ("module", "entry"), [("package", "package"), ("package.fit", "package.fit")], ids=["a package", "a module"]
    )
    def test_a_module(self, project: Path, module: str, entry: str) -> None:
        """Guards ``python -m``."""
        found = started(project, "-m", module, "-m", "x")
        assert (found["kind"], found["entry"], found["argv"][1:]) == ("module", entry, ["-m", module, "-m", "x"])
        assert found["arguments"] == ["-m", "x"]

    def test_a_folder_that_is_a_program(self, project: Path) -> None:
        """Guards ``python FOLDER``, whose module has no name."""
        found = started(project, "package")
        assert (found["kind"], found["entry"]) == ("script", "package/__main__.py")

    @pytest.mark.parametrize("options", [("-c",), ("-Wignore", "-c"), ("-uc",)], ids=" ".join)
    def test_code_on_the_command_line(self, project: Path, options: tuple[str, ...]) -> None:
        """Guards ``python -c``."""
        found = started(project, *options, TRAIN, "-x")
        assert (found["kind"], found["entry"], found["arguments"]) == ("command", "", ["-x"])
        assert found["argv"][-2:] == [TRAIN, "-x"]

    def test_an_interactive_session(self, project: Path) -> None:
        """Guards code that is typed, or piped into Python."""
        found = started(project, "-i", text=TRAIN.replace("    pass\n", "    pass\n\n"))
        assert (found["kind"], found["entry"]) == ("interactive", "")

    def test_a_notebook(self, project: Path) -> None:
        """Guards notebooks: the path is what Jupyter says, as the kernel's own command tells nothing."""
        kernel = "import sys, types; shell = types.SimpleNamespace(kernel=1, user_ns={})\n"
        kernel += "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
        found = started(
            project, "-c", kernel + TRAIN.replace("assert", "#"), JPY_SESSION_NAME=str(project / "a b.ipynb")
        )
        assert (found["kind"], found["entry"]) == ("notebook", "a b.ipynb")

    def test_a_shell_script(self, project: Path) -> None:
        """Guards `mlcore runs start`: the run is the script's, and so is the command."""
        script = project / "train.sh"
        script.write_text(f"{sys.executable} -m mlcore runs start --store '{project.parent}/store'\nexit 0\n")
        done = subprocess.run(
            ["sh", "train.sh", "--lr", "1", "--api-key=abcdef"], cwd=project, env=environment(project.parent),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        context = mlcore.Client(project.parent / "store").get_run(done.stdout.split()[0]).context
        assert context["command.kind"] == "command"
        assert context["command.argv"] == ["sh", "train.sh", "--lr", "1", "--api-key=***"]
        assert "packages.digest" not in context  # which are left to who logs into it

    def test_what_is_long_is_cut(self) -> None:
        """Guards the record from command lines of megabytes."""
        found = masked(["x" * 10_000, *map(str, range(1_000))])
        assert len(found) == 501
        assert len(found[0]) < 5_000
        assert found[-1] == "…"


def test_the_machine(tmp_path: Path) -> None:
    """Guards what one asks first of a run that was slow: which machine it was."""
    with mlcore.Client(tmp_path).start_run(capture="host,python") as run:
        pass
    assert run.context["host.name"] == os.uname().nodename
    assert run.context["host.cores"] >= 1
    assert run.context["host.memory"] > 1 << 20
    assert run.context["host.system"].startswith(os.uname().sysname)
    assert run.context["host.user"] == run.user
    assert run.context["python.version"] == ".".join(map(str, sys.version_info[:3]))


def test_gpus_are_read_from_what_their_drivers_show(tmp_path: Path) -> None:
    """Guards GPUs without a subprocess or a library that would open one: laid out as on a machine with two and one."""
    for folder, model in (("0000:01:00.0", "NVIDIA H200"), ("0000:02:00.0", "NVIDIA H200")):
        place = tmp_path / "proc/driver/nvidia/gpus" / folder
        place.mkdir(parents=True)
        (place / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 44\nGPU UUID: \t GPU-1-2-3\n")
    (tmp_path / "proc/driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024\nGCC version:\n"
    )
    (tmp_path / "sys/class/drm/card0/device").mkdir(parents=True)
    (tmp_path / "sys/class/drm/card0/device/product_name").write_text("Instinct MI300X\n")
    found = graphics(tmp_path)
    assert found == {"gpus": ["NVIDIA H200", "NVIDIA H200", "Instinct MI300X"], "gpu_driver": "550.90.07"}
    assert graphics(tmp_path / "none") == {"gpus": [], "gpu_driver": ""}


def test_the_scheduler_tells_ids_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the list of names: of the environment only these are read, and outside of a scheduler none."""
    for name in [name for name in os.environ if name.startswith(("SLURM", "KUBERNETES", "RAY", "RANK", "WORLD"))]:
        monkeypatch.delenv(name)
    with mlcore.Client(tmp_path).start_run(capture="scheduler") as run:
        pass
    assert run.context == {"captured": ["scheduler"]}
    told = {"SLURM_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": "4", "RAY_JOB_ID": "01000000", "HOSTNAME": "pod-7"}
    kept = {"SLURM_JWT": "secret", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in (told | kept).items():
        monkeypatch.setenv(name, value)
    with mlcore.Client(tmp_path).start_run(capture="scheduler") as run:
        pass
    found = {key.removeprefix("scheduler."): value for key, value in run.context.items() if key != "captured"}
    assert found == {
        "slurm_job_id": "123",
        "slurm_array_task_id": "4",
        "ray_job_id": "01000000",
        "kubernetes_pod": "pod-7",
    }


def test_seeds_are_those_that_count_when_the_run_ends(tmp_path: Path) -> None:
    """Guards a seed that is set after the run was started, as most are; by a library that answers as torch does."""
    (tmp_path / "torch.py").write_text("seed = 1\ndef initial_seed(): return seed\n")
    code = """
    import os, sys
    sys.path.insert(0, os.getcwd())
    import mlcore
    run = mlcore.start_run()
    import torch
    torch.seed = 42
    run.end()
    print({key: value for key, value in run.context.items() if key.startswith("seeds.")})
    """
    out, _ = run_process(tmp_path, code, PYTHONHASHSEED="7", PL_GLOBAL_SEED="x")
    assert out.strip() == "{'seeds.python_hash': 7, 'seeds.torch': 42}"


def test_a_first_run_loads_nothing_heavy_for_it(tmp_path: Path) -> None:
    """Guards the start of every training: no process, no OpenSSL, no importlib.metadata, the second time at least."""
    code = """
    import sys, mlcore
    mlcore.start_run().end()
    print(*sys.modules)
    """
    run_process(tmp_path, code)
    os.utime(tmp_path, (0, 0))
    run_process(tmp_path, code)
    loaded = set(run_process(tmp_path, code)[0].split())
    assert {"mlcore_local.context", "mlcore_local.packages"} <= loaded
    heavy = {"subprocess", "hashlib", "importlib.metadata", "mlcore_local.code.secrets", "ctypes"}
    assert loaded & heavy == set()

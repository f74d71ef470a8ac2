"""Hostile models, as files on disk: refused by default through every door, and no trace of having run.

Each payload makes a marker file if anything of it runs. Each has a positive control, so that a payload that could never
run does not count as refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy
import pytest
import yaml
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

import mlcore
from mlcore.cli import program
from mlcore.errors import DigestMismatch, MlcoreError, ModelError, NotAModel, NotInstalled, UnsafePath, Untrusted

SKLEARN = {"python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"}}


class Touch:
    """Make a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def code(marker: Path) -> str:
    """Return Python source that makes the file."""
    return f"open({str(marker)!r}, 'w').close()\n"


def model(folder: Path, flavors: dict[str, Any], **files: bytes | str) -> None:
    """Write a model as a stranger would: an MLmodel file and whatever else, by path with ``__`` for a slash."""
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py").replace("_pkl", ".pkl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def sklearn_pickle(folder: Path, marker: Path, content: bytes, **config: Any) -> None:
    """Write a model of scikit-learn's flavor that is a pickle."""
    flavors = {"sklearn": {"pickled_model": "model.pkl", "sklearn_version": "1.9", **config}, **SKLEARN}
    model(folder, flavors, model_pkl=content)


def pyfunc(folder: Path, content: bytes, loader: str = "mlcore_loader_0", **config: Any) -> None:
    """Write a model of the generic flavor that is a pickle."""
    function = {"loader_module": loader, "python_model": "model.pkl", **config}
    model(folder, {"python_function": function}, model_pkl=content)


def skops_type(folder: Path, marker: Path) -> None:
    """Write an archive of skops that names a class in a module that the model brings."""
    import skops.io

    good = io.BytesIO(skops.io.dumps({"a": LogisticRegression()}))
    out = io.BytesIO()
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(out, "w") as target:
        schema = source.read("schema.json").decode()
        renamed = schema.replace("sklearn.linear_model._logistic", "evil").replace('"LogisticRegression"', '"Evil"')
        target.writestr("schema.json", renamed)
    flavors = {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "skops", "code": "code"}}
    model(folder, flavors, model_pkl=out.getvalue(), code__evil_py=code(marker) + "class Evil: pass\n")


def with_links(folder: Path, marker: Path) -> None:
    """Write a model whose pickle is a link to one outside."""
    sklearn_pickle(folder, marker, b"")
    (folder / "model.pkl").unlink()
    (folder.parent / "outside.pkl").write_bytes(pickle.dumps(Touch(marker)))
    (folder / "model.pkl").symlink_to(folder.parent / "outside.pkl")


def outside(folder: Path, marker: Path) -> None:
    """Write a model that names a pickle outside of it."""
    (folder.parent / "outside.pkl").write_bytes(pickle.dumps(Touch(marker)))
    model(folder, {"sklearn": {"pickled_model": "../outside.pkl"}, **SKLEARN})


def yaml_tag(folder: Path, marker: Path) -> None:
    """Write an MLmodel file that makes an object when it is read carelessly."""
    folder.mkdir()
    (folder / "MLmodel").write_text(f"flavors: !!python/object/apply:os.system ['touch {marker}']\n")


def example_pickle(folder: Path, marker: Path) -> None:
    """Write a model whose input example is a pickled array."""
    content = io.BytesIO()
    numpy.save(content, numpy.array([Touch(marker)], dtype=object), allow_pickle=True)
    info = {"artifact_path": "example.npy", "type": "ndarray"}
    pyfunc(folder, pickle.dumps(len))
    (folder / "example.npy").write_bytes(content.getvalue())
    about = yaml.safe_load((folder / "MLmodel").read_text())
    (folder / "MLmodel").write_text(yaml.safe_dump({**about, "saved_input_example_info": info}))


def zipped(folder: Path, marker: Path) -> None:
    """Write a model as torch does: a pickle within a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touch(marker)))
    pyfunc(folder, content.getvalue())


def frameless(marker: Path) -> bytes:
    """Return a pickle whose end is missing: what is before it is read all the same."""
    return pickle.dumps([Touch(marker), 1], protocol=2)[:-4]


# What runs with full trust, by what is hostile in it.
PAYLOADS: dict[str, Callable[[Path, Path], None]] = {
    "sklearn, pickle": lambda f, m: sklearn_pickle(f, m, pickle.dumps(Touch(m)), serialization_format="pickle"),
    "sklearn, cloudpickle": lambda f, m: sklearn_pickle(
        f, m, cloudpickle.dumps(Touch(m)), serialization_format="cloudpickle"
    ),
    "sklearn, no format named": lambda f, m: sklearn_pickle(f, m, pickle.dumps(Touch(m))),
    "sklearn, joblib": lambda f, m: sklearn_pickle(f, m, dumped(Touch(m))),
    "sklearn, joblib compressed": lambda f, m: sklearn_pickle(f, m, dumped(Touch(m), compress=("gzip", 3))),
    "sklearn, broken tail": lambda f, m: sklearn_pickle(f, m, frameless(m)),
    "sklearn, skops type in code/": skops_type,
    "python, pickle": lambda f, m: pyfunc(f, pickle.dumps(Touch(m))),
    "python, protocol 0": lambda f, m: pyfunc(f, pickle.dumps(Touch(m), protocol=0)),
    "python, gzip": lambda f, m: pyfunc(f, gzip.compress(pickle.dumps(Touch(m)))),
    "python, bzip2": lambda f, m: pyfunc(f, bz2.compress(pickle.dumps(Touch(m)))),
    "python, lzma": lambda f, m: pyfunc(f, lzma.compress(pickle.dumps(Touch(m))), python_model_compression="lzma"),
    "python, broken tail": lambda f, m: pyfunc(f, frameless(m)),
    "python, model_code_path": lambda f, m: model(
        f,
        {"python_function": {"loader_module": "mlcore_loader_0", "model_code_path": "model.py"}},
        model_py=code(m) + "def predict(data): return data\n",
    ),
    "loader_module in code/": lambda f, m: model(
        f,
        {"python_function": {"loader_module": "evil_loader", "code": "code"}},
        code__evil_loader_py=code(m) + "def _load_pyfunc(path): return print\n",
    ),
    "loader_module in a package in code/": lambda f, m: model(
        f,
        {"python_function": {"loader_module": "evil.loader", "code": "code", "data": "code"}},
        code__evil____init___py="",
        code__evil__loader_py="def _load_pyfunc(path):\n    " + code(m) + "    return print\n",
    ),
    "shadowing a library in code/": lambda f, m: model(
        f,
        {"python_function": {"loader_module": "joblib", "code": "code"}},
        code__joblib_py=code(m) + "def _load_pyfunc(path): return print\n",
    ),
    "a loader that unpickles": lambda f, m: model(
        f,
        {"python_function": {"loader_module": "their_loader", "code": "code", "data": "model.pkl"}},
        code__their_loader_py="import pathlib, pickle\n"
        "def _load_pyfunc(path): return pickle.loads(pathlib.Path(path).read_bytes())\n",
        model_pkl=pickle.dumps(Touch(m)),
    ),
}

# What never runs, whatever is trusted; the control is the careless reader.
NEVER: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], Any]]] = {
    "a pickle outside": (outside, lambda f: pickle.loads((f.parent / "outside.pkl").read_bytes())),
    "a link to a pickle outside": (with_links, lambda f: pickle.loads((f / "model.pkl").read_bytes())),
    "a tag in YAML": (yaml_tag, lambda f: yaml.unsafe_load((f / "MLmodel").read_text())),
    "a pickle in a zip file": (
        zipped,
        lambda f: pickle.loads(zipfile.ZipFile(f / "model.pkl").read("archive/data.pkl")),
    ),
    "a flavor that nobody knows": (
        lambda f, m: model(f, {"keras": {"keras_module": "evil"}}, code__evil_py=code(m), model_pkl=b""),
        lambda f: subprocess.run([sys.executable, "-c", "import evil"], cwd=f / "code", check=True),
    ),
    "torch, data.pkl": (
        lambda f, m: model(
            f,
            {
                "pytorch": {"model_data": "data", "code": None},
                "python_function": {"loader_module": "mlflow.pytorch", "data": "data"},
            },
            data__pickle_module_info_txt="evil",
            data__model_pkl=pickle.dumps(Touch(m)),
        ),
        lambda f: pickle.loads((f / "data" / "model.pkl").read_bytes()),
    ),
}


def dumped(value: Any, **options: Any) -> bytes:
    """Return what joblib writes."""
    out = io.BytesIO()
    joblib.dump(value, out, **options)
    return out.getvalue()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder and with a store of one's own, as a user who trusts nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    mlcore.set_store(tmp_path / "store")
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    for name, each in list(sys.modules.items()):
        if str(getattr(each, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `mlcore models check` use this environment, since making one takes longer than all these tests."""

    def run(command: list[str], cwd: str | None = None) -> str:
        if "mlcore" not in command[1:]:
            return ""
        done = CliRunner().invoke(program, command[command.index("mlcore") + 1 :])
        if done.exit_code:
            raise ModelError(str(done.exception or done.output))
        return done.stdout

    monkeypatch.setattr("mlcore_local.clean._run", run)


def with_example(folder: Path) -> None:
    """Give a stranger's model what `mlcore models check` asks for."""
    path = folder / "MLmodel"
    if "!!python" not in path.read_text():
        about = yaml.safe_load(path.read_text())
        about.setdefault("saved_input_example_info", {"artifact_path": "example.json", "type": "json_object"})
        path.write_text(yaml.safe_dump(about))
    (folder / "example.json").write_text("[1]")
    (folder / "requirements.txt").write_text("numpy\n")


def doors(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return every way by which a stranger's model comes in, without trust."""

    def command(*arguments: str) -> Any:
        done = CliRunner().invoke(program, ["models", *arguments])
        if done.exit_code:
            assert done.exception is not None
            raise done.exception
        return done

    with mlcore.Client(Path("store")).start_run() as run:
        if not any(path.is_symlink() for path in folder.iterdir()):
            run.log_artifacts(folder, "model")
    uri = f"runs:/{run.id}/model"
    return {
        "load_model": lambda: mlcore.load_model(folder),
        "load_model, file://": lambda: mlcore.load_model(f"file://{folder}"),
        "load_model, other names trusted": lambda: mlcore.load_model(folder, trust=["mypkg.*", "sklearn.base.*"]),
        "load_model, runs:/": lambda: mlcore.load_model(uri),
        "models predict": lambda: command("predict", str(folder), "--example"),
        "models predict, runs:/": lambda: command("predict", uri, "--example"),
        "models check": lambda: command("check", str(folder)),
    }


@pytest.mark.parametrize("name", [*PAYLOADS, *NEVER])
@pytest.mark.usefixtures("in_place")
def test_a_hostile_model_is_refused_and_runs_nothing(name: str, place: Path) -> None:
    """Guards D1, D2 and D5 of the check list: each payload through each door, by default."""
    make = PAYLOADS.get(name) or NEVER[name][0]
    marker, folder = place / "marker", place / "theirs"
    make(folder, marker)
    with_example(folder)
    for door, enter in doors(folder).items():
        with pytest.raises(MlcoreError):
            enter()
        assert not marker.exists(), door
    CliRunner().invoke(program, ["models", "inspect", str(folder)])
    CliRunner().invoke(program, ["models", "inspect", str(folder), "--json"])
    assert not marker.exists()


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_payload_does_run_with_full_trust(name: str, place: Path) -> None:
    """Guards the test above: what is refused would have run."""
    marker, folder = place / "marker", place / "theirs"
    PAYLOADS[name](folder, marker)
    try:
        mlcore.load_model(folder, trust=True)
    except MlcoreError as error:
        assert not isinstance(error, Untrusted)  # some break after they have run
    assert marker.exists()


@pytest.mark.parametrize("name", NEVER)
def test_some_payloads_run_in_careless_readers_only(name: str, place: Path) -> None:
    """Guards what no trust turns on: files outside, tags, unknown flavors; their control is a careless reader."""
    marker, folder = place / "marker", place / "theirs"
    make, careless = NEVER[name]
    make(folder, marker)
    with pytest.raises(MlcoreError):
        mlcore.load_model(folder, trust=True)
    assert not marker.exists()
    careless(folder)
    assert marker.exists()


def test_an_example_is_never_unpickled(place: Path) -> None:
    """Guards arrays of objects: `numpy.load` would unpickle them if it was told to."""
    marker, folder = place / "marker", place / "theirs"
    example_pickle(folder, marker)
    info = mlcore.get_model(folder)
    with pytest.raises(NotAModel, match="cannot be read"):
        info.example()
    assert not marker.exists()
    numpy.load(folder / "example.npy", allow_pickle=True)
    assert marker.exists()


def test_code_beside_plain_data_is_not_even_found(place: Path) -> None:
    """Guards a model that is data, and so loads without trust: what lies in its `code/` is not imported on the way."""
    marker, folder = place / "marker", place / "theirs"
    mlcore.save_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "ours")
    shutil.copytree("ours", folder)
    (folder / "code").mkdir(exist_ok=True)
    for name in ("sitecustomize", "sklearn", "numpy", "mlflow", "yaml", "skops", "json", "mlcore_sklearn"):
        (folder / "code" / f"{name}.py").write_text(code(marker))
    about = yaml.safe_load((folder / "MLmodel").read_text())
    del about["mlcore"]
    for flavor in about["flavors"].values():
        flavor["code"] = "code"
    (folder / "MLmodel").write_text(yaml.safe_dump(about))
    script = f"import mlcore, sys; print(mlcore.load_model({str(folder)!r}, trust=eval(sys.argv[1])).predict([[1.0]]))"
    done = subprocess.run([sys.executable, "-c", script, "None"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[1]", done.stderr
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", script, "True"], capture_output=True, text=True, check=False)
    assert marker.exists()  # with trust in everything the model's own modules come first


def test_requirements_are_not_installed_without_trust(place: Path) -> None:
    """Guards `mlcore models check`: installing a source runs its `setup.py`, before any model is loaded."""
    marker, folder = place / "marker", place / "theirs"
    mlcore.save_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), folder, input_example=[[1.0]])
    about = yaml.safe_load((folder / "MLmodel").read_text())
    del about["mlcore"]
    (folder / "MLmodel").write_text(yaml.safe_dump(about))
    package = folder / "package"
    package.mkdir()
    (package / "setup.py").write_text(code(marker) + "from setuptools import setup\nsetup(name='evil')\n")
    for line in (
        str(package),
        f"evil @ file://{package}",
        f"-e {package}",
        f"-r {package}/more.txt",
        "--index-url=http://localhost:1/simple",
        "no-such-distribution-anywhere==1",
        "git+file:///nowhere",
        f"numpy @ file://{package}",
        f"numpy; python_version>'3' @ file://{package}",
    ):
        (folder / "requirements.txt").write_text(f"numpy\n{line}\n")
        done = CliRunner().invoke(program, ["models", "check", str(folder)])
        assert isinstance(done.exception, Untrusted), line
        assert "requirements install" in str(done.exception)
        assert not marker.exists()
    subprocess.run([sys.executable, "setup.py", "--version"], cwd=package, capture_output=True, check=False)
    assert marker.exists()


LOOKED_AT = """
import json, sys
import mlcore
from click.testing import CliRunner
from mlcore.cli import program

def inspect(folder, *options):
    return CliRunner().invoke(program, ["models", "inspect", folder, *options])

first, *others = sys.argv[1:]
for options in ([], ["--json"]):  # once, so that what is imported late is there
    assert inspect(first, *options).exit_code == 0
    inspect(others[-1], *options)
before, events = set(sys.modules), []
running = ("import", "exec", "compile", "pickle.find_class", "os.system", "subprocess.Popen", "ctypes.dlopen")
sys.addaudithook(lambda event, about: events.append((event, repr(about)[:200])) if event in running else None)
for folder in others:
    inspect(folder), inspect(folder, "--json")
print(json.dumps([events, sorted(set(sys.modules) - before), sorted(
    {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)]))
"""


def test_inspecting_imports_and_unpickles_nothing(place: Path) -> None:
    """Guards D3: while every payload is inspected nothing at all is imported, compiled, unpickled or started."""
    mlcore.save_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "ours", input_example=[[1.0]])
    folders = ["ours"]
    for number, make in enumerate([*PAYLOADS.values(), *(make for make, _ in NEVER.values())]):
        make(place / str(number), place / "marker")
        folders.append(str(place / str(number)))
    done = subprocess.run([sys.executable, "-c", LOOKED_AT, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events, modules, everything = json.loads(done.stdout.splitlines()[-1])
    assert events == []
    assert modules == []
    foreign = {"numpy", "pandas", "sklearn", "skops", "scipy", "cloudpickle", "joblib", "mlflow", "torch"}
    assert foreign & set(everything) == set()
    assert not (place / "marker").exists()


def test_files_of_a_run_are_only_files(place: Path) -> None:
    """Guards artifacts: listing, getting, reading and verifying hostile files is looking at bytes."""
    marker = place / "marker"
    for number, make in enumerate(PAYLOADS.values()):
        make(place / "theirs" / str(number), marker)
    with mlcore.Client(Path("store")).start_run() as run:
        run.log_artifacts("theirs", "theirs")
    for arguments in (["list"], ["get"], ["verify"]):
        given = [*arguments, run.id, *(["theirs", "copy"] if arguments == ["get"] else [])]
        done = CliRunner().invoke(program, ["artifacts", *given])
        assert done.exit_code == 0, done.output
    assert len(run.artifacts.list()) > len(PAYLOADS)
    for each in run.artifacts.list():
        with run.artifacts.open(each.path) as file:
            file.read()
    assert not marker.exists()


# D6 -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ours(place: Path) -> Path:
    """Save a model with code, and forget that it was saved here."""
    (place / "helper.py").write_text("def predict(data): return data\n")
    sys.modules.pop("helper", None)  # a model's own, which stays for imports within its functions
    sys.path.insert(0, str(place))
    try:
        import helper  # type: ignore[import-not-found]

        mlcore.save_model(helper.predict, "ours", code=["helper.py"], input_example=[1])
    finally:
        sys.path.remove(str(place))
    (place / "nobody" / "mlcore" / "trust.json").unlink()
    return place / "ours"


CHANGES: dict[str, Callable[[Path, Path], Any]] = {
    "a flipped byte": lambda f, m: (f / "model.pkl").write_bytes(flipped((f / "model.pkl").read_bytes())),
    "a changed module": lambda f, m: (f / "code" / "helper.py").write_text(code(m)),
    "a missing file": lambda f, m: (f / "requirements.txt").unlink(),
    "an added file": lambda f, m: (f / "code" / "sitecustomize.py").write_text(code(m)),
    "another pickle": lambda f, m: (f / "model.pkl").write_bytes(pickle.dumps(Touch(m))),
    "a changed example": lambda f, m: (f / "input_example.json").write_text("[2]"),
}


def flipped(content: bytes) -> bytes:
    """Return bytes of which one has another bit."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("in_place")
def test_a_model_that_was_changed_is_not_read_at_all(change: str, ours: Path, place: Path) -> None:
    """Guards D6: one flipped byte, a missing or an added file, and nothing is parsed, with full trust neither."""
    marker = place / "marker"
    CHANGES[change](ours, marker)
    for trust in (None, True, ["helper.*"]):
        with pytest.raises(DigestMismatch):
            mlcore.load_model(ours, trust=trust)
    for arguments in (["predict", str(ours), "--example", "--trust-all"], ["check", str(ours), "--trust-all"]):
        done = CliRunner().invoke(program, ["models", *arguments])
        assert isinstance(done.exception, DigestMismatch), done.output
    assert CliRunner().invoke(program, ["models", "inspect", str(ours)]).exit_code in (0, 1)
    assert not marker.exists()


def test_a_digest_that_was_trusted_covers_the_mlmodel_file_too(ours: Path) -> None:
    """Guards the list of digests: what the files mean is said in MLmodel, which no digest within it can cover."""
    mlcore.trust(mlcore.get_model(ours).verify())
    assert mlcore.load_model(ours).predict([1]) == [1]
    path = ours / "MLmodel"
    path.write_text(path.read_text() + "changed: true\n")
    with pytest.raises(Untrusted):
        mlcore.load_model(ours)


def test_a_model_that_says_it_needs_no_trust_is_not_believed(ours: Path) -> None:
    """Guards against trust that the model gives itself: `needs_trust`, or anything like it, is only told."""
    about = yaml.safe_load((ours / "MLmodel").read_text())
    about["mlcore"]["needs_trust"] = []
    about |= {"trust": True, "trusted": ["*"], "skops_trusted_types": ["helper.predict"]}
    (ours / "MLmodel").write_text(yaml.safe_dump(about))
    assert mlcore.get_model(ours).needs_trust == ()
    with pytest.raises(Untrusted, match=r"helper\.predict"):
        mlcore.load_model(ours)


def test_what_is_missing_is_named_where_no_trust_helps(place: Path) -> None:
    """Guards D5: a flavor that is not installed is an error with its name, not something else that runs."""
    model(place / "theirs", {"keras": {"data": "data"}})
    for trust in (None, True):
        with pytest.raises(NotInstalled, match="keras"):
            mlcore.load_model(place / "theirs", trust=trust)
    with pytest.raises((UnsafePath, ModelError)):
        mlcore.load_model(place / "theirs", flavor="python_function")

"""What a model may run: the reader's list, the restricted unpickler, modules that come with a model."""

from __future__ import annotations

import bz2
import collections
import gzip
import importlib
import json
import logging
import lzma
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import mlcore
from mlcore.errors import InvalidValue, ModelError, NotFound, Untrusted
from mlcore.models import Trust, pickled_names, remember
from mlcore.models._trust import _DATA

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the user's configuration, which is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mlcore"


@pytest.fixture(autouse=True)
def imports_undone(tmp_path: Path) -> Iterator[None]:
    """Leave no module and no finder of one test to the next."""
    path, finders, modules = list(sys.path), list(sys.meta_path), dict(sys.modules)
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in sys.modules.keys() - modules.keys():
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    sys.modules.update(modules)
    importlib.invalidate_caches()


@pytest.fixture
def mylab(tmp_path: Path) -> Path:
    """Install a package that the user may trust, and that does what packages do: import others."""
    package = tmp_path / "site" / "mylab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text(
        "import os\nimport functools\nfrom os import system\n"
        "class Model:\n    def __init__(self, n=0): self.n = n\n"
        "    class Inner: pass\n"
        "def scale(x): return 2 * x\n"
        "partial = functools.partial(system)\n"
        "SHARED = Model(7)\n"
    )
    sys.path.insert(0, str(package.parent))
    importlib.invalidate_caches()
    return package


def pickled(path: Path, *opcodes: bytes) -> Path:
    """Write a pickle by hand: protocol 4, then what is given, then the end."""
    path.write_bytes(b"\x80\x04" + b"".join(opcodes) + b".")
    return path


def text(value: str) -> bytes:
    """Return the opcode for a string."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    """Return the opcodes for what a module calls by that name."""
    return text(module) + text(name) + b"\x93"


def touch(marker: Path) -> bytes:
    """Return the opcodes for the arguments of `os.system` that make a file."""
    return text(f"touch {marker}") + b"\x85R"


class Payload:
    """Make a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


# Restricted pickles ---------------------------------------------------------------------------------------------------


def test_plain_data_loads_without_any_trust(tmp_path: Path) -> None:
    """Guards that a pickle of nothing but data is data."""
    data = {
        "numbers": [1, 2.5, 3 + 4j, True, None],
        "sets": ({1}, frozenset({2}), bytearray(b"x"), b"y", range(3), slice(1)),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"k": [1]}),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
    }
    for protocol in range(3, 6):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(data, protocol))
        assert Trust(what="m").unpickle(path) == data
        assert pickled_names(path) == []


@pytest.mark.parametrize("name", sorted(_DATA))
def test_what_every_pickle_may_name_is_data_and_cannot_be_changed(name: str) -> None:
    """Guards the built-in list: a type of C's, so no pickle can set its attributes for the whole process."""
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, type)
    assert f"{found.__module__}.{found.__qualname__}" == name
    with pytest.raises(TypeError, match="immutable"):
        found.poisoned = 1


def test_numpys_dtype_is_not_among_what_every_pickle_may_name(tmp_path: Path) -> None:
    """Guards memory: a forged dtype of objects without its flags makes numpy follow pointers from the file."""
    numpy = pytest.importorskip("numpy")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(numpy.arange(3)))
    with pytest.raises(Untrusted, match=r"numpy\.dtype"):
        Trust().unpickle(tmp_path / "a.pkl")
    names = pickled_names(tmp_path / "a.pkl")
    assert Trust.of(names).unpickle(tmp_path / "a.pkl").tolist() == [0, 1, 2]


def tricks(marker: Path) -> dict[str, tuple[bytes, ...]]:
    """Return pickles that look as if they named `mylab` only, or nothing at all."""
    shell = touch(marker)
    return {
        "the name itself": (named("os", "system"), shell),
        "where it is defined": (named("posix", "system"), shell),
        "an old pickle's name": (b"cposix\nsystem\n", shell),
        "a re-export": (named("mylab.tools", "system"), shell),
        "a dotted name": (named("mylab.tools", "os.system"), shell),
        "a dotted name from the top": (named("mylab", "tools.os.system"), shell),
        "a module": (named("mylab.tools", "os"), b"}", text("path"), text("x"), b"sb"),
        "getattr": (named("builtins", "getattr"), named("mylab.tools", "os"), text("system"), b"\x86R", shell),
        "a partial": (named("mylab.tools", "partial"), shell),
        "a function's globals": (named("mylab.tools", "scale.__globals__"),),
        "a function's code": (named("mylab.tools", "scale.__code__"),),
        "a class's loader": (named("mylab.tools", "__loader__"),),
        "a class's bases": (named("mylab.tools", "Model.__base__.__subclasses__"), b")R"),
        "a data type's method": (named("builtins", "list.append.__class__"),),
        "evaluation": (named("builtins", "eval"), text(f"open({str(marker)!r}, 'w').close()"), b"\x85R"),
        "importing": (named("importlib", "import_module"), text("antigravity"), b"\x85R"),
        "an instance": (b"(" + text("touch") + b"ios\nsystem\n",),
    }


@pytest.mark.parametrize("trick", tricks(Path()))
def test_within_names_a_pickle_reaches_nothing_else(trick: str, tmp_path: Path, mylab: Path) -> None:
    """Guards the choke point against every way round a name; the marker would be there if anything had run."""
    marker = tmp_path / "marker"
    path = pickled(tmp_path / "m.pkl", *tricks(marker)[trick])
    importlib.import_module("mylab.tools")
    for trust in (None, "mylab.*", ["mylab.*", "collections.*"]):
        with pytest.raises(Untrusted):
            Trust.of(trust).unpickle(path)
    assert not marker.exists()


@pytest.mark.parametrize("trick", ["the name itself", "a re-export", "a dotted name", "a partial", "getattr"])
def test_the_same_pickles_run_when_everything_is_trusted(trick: str, tmp_path: Path, mylab: Path) -> None:
    """Guards the tests above: their payloads do bite."""
    marker = tmp_path / "marker"
    Trust.of(True).unpickle(pickled(tmp_path / "m.pkl", *tricks(marker)[trick]))
    assert marker.exists()


def test_a_pickle_that_is_broken_at_its_end_runs_nothing_before(tmp_path: Path) -> None:
    """Guards D1: a pickle runs while it is read."""
    marker = tmp_path / "marker"
    path = pickled(tmp_path / "m.pkl", named("posix", "system"), touch(marker), text("end"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(Untrusted, match=r"posix\.system"):
        Trust().unpickle(tmp_path / "m.pkl")
    assert not marker.exists()
    with pytest.raises(pickle.UnpicklingError):
        Trust.of(True).unpickle(tmp_path / "m.pkl")
    assert marker.exists()


def test_what_is_trusted_by_name_loads(tmp_path: Path, mylab: Path) -> None:
    """Guards that names are of use: classes, classes within, functions, and what an instance holds."""
    tools = importlib.import_module("mylab.tools")
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps([tools.Model(3), tools.Model.Inner, tools.scale]))
    for trust in ("mylab.*", ["mylab.tools.*"], pickled_names(path), "mylab.tools.[Ms]*"):
        model, inner, scale = Trust.of(trust).unpickle(path)
        assert (model.n, inner, scale(2)) == (3, tools.Model.Inner, 4)
    with pytest.raises(Untrusted, match=r"'mylab\.tools\.Model\.Inner'"):
        Trust.of(["mylab.tools.Model", "mylab.tools.scale"]).unpickle(path)
    assert pickled_names(path) == ["mylab.tools.Model", "mylab.tools.Model.Inner", "mylab.tools.scale"]


def test_code_pickled_by_value_takes_full_trust(tmp_path: Path) -> None:
    """Guards that a trusted package's name never lets a pickle bring code of its own."""
    path = tmp_path / "m.pkl"
    path.write_bytes(cloudpickle.dumps(lambda x: x + 1))
    with pytest.raises(Untrusted, match=r"cloudpickle\.cloudpickle\._make_function"):
        Trust.of(["mylab.*"]).unpickle(path)
    assert Trust.of(True).unpickle(path)(1) == 2


def test_no_module_is_imported_before_its_name_is_trusted(tmp_path: Path) -> None:
    """Guards that importing is running: `antigravity` opens a browser."""
    with pytest.raises(Untrusted):
        Trust.of(["mylab.*"]).unpickle(pickled(tmp_path / "m.pkl", named("antigravity", "webbrowser.open")))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles_are_read_and_refused_alike(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Guards D2: a scanner may not look into an archive, the unpickler does."""
    good, bad, marker = tmp_path / "good", tmp_path / "bad", tmp_path / "marker"
    good.write_bytes(compress(pickle.dumps([1, 2])))
    bad.write_bytes(compress(pickle.dumps(Payload(marker))))
    assert Trust().unpickle(good) == [1, 2]
    with pytest.raises(Untrusted, match=r"posix\.system"):
        Trust().unpickle(bad)
    assert not marker.exists()
    Trust.of(True).unpickle(bad)
    assert marker.exists()


def test_extension_codes_name_nothing(tmp_path: Path) -> None:
    """Guards the way to name things that goes by no name: a number, registered in the process."""
    path = pickled(tmp_path / "m.pkl", b"\x82\x01")
    for trust in (None, True):
        with pytest.raises(ValueError, match="unregistered extension code"):
            Trust.of(trust).unpickle(path)


# What the error says --------------------------------------------------------------------------------------------------


def test_the_error_says_what_would_run_from_where_and_how_to_trust_it(tmp_path: Path) -> None:
    """Guards the one message that every reader of a foreign model meets."""
    path = pickled(tmp_path / "m.pkl", named("os", "system"), named("lib", "f"), b"\x86")
    with pytest.raises(Untrusted) as caught:
        Trust.of(None, what="model /models/m").unpickle(path)
    said = str(caught.value)
    assert said.startswith("model /models/m would run code: its pickle names 'os.system', 'lib.f'.")
    assert "trust=['os.system', 'lib.f']" in said
    assert "trust=True" in said
    assert "mlcore trust add" in said


def test_the_error_names_ten_and_counts_the_rest() -> None:
    """Guards a terminal from a pickle with 10,000 names."""
    with pytest.raises(Untrusted, match=r"'pkg\.n9' and 15 more\.") as caught:
        Trust().demand("it names", *(f"pkg.n{number}" for number in range(25)))
    assert "pkg.n10" not in str(caught.value)


def test_names_from_a_model_cannot_play_with_the_terminal() -> None:
    """Guards whoever reads the error: control characters are shown, not sent."""
    with pytest.raises(Untrusted) as caught:
        Trust().demand("it names", "os.\x1b[2Jsystem\nall is well")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


# Modules --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "os.", "a b", "../evil", "a-b", "a;b", "os.path:join", "/etc", None, 3, ["os"]]
)
def test_what_is_no_name_of_a_module_is_no_module(name: Any) -> None:
    """Guards the importer against paths and relative names, whatever is trusted."""
    with pytest.raises(ModelError, match="no name of a module"):
        Trust.of(True).import_module(name)


def folder_with(path: Path, **sources: str) -> Path:
    """Write modules into a model's folder for code."""
    path.mkdir(parents=True)
    for name, source in sources.items():
        (path / f"{name}.py").write_text(source)
    return path


def test_a_models_own_modules_take_full_trust(tmp_path: Path) -> None:
    """Guards that names cover what is installed: the files in a model are chosen by who made it."""
    marker = tmp_path / "marker"
    code = folder_with(tmp_path / "code", mylab=f"open({str(marker)!r}, 'w').close()")
    with pytest.raises(ModuleNotFoundError, match="mylab"):
        Trust.of(["mylab.*"]).import_module("mylab", code)
    with pytest.raises(Untrusted):
        Trust.of(None).import_module("mylab", code)
    assert not marker.exists()
    assert Trust.of(True).import_module("mylab", code).__name__ == "mylab"
    assert marker.exists()


def test_trusted_names_mean_what_is_installed_even_if_the_model_brings_the_same(tmp_path: Path, mylab: Path) -> None:
    """Guards the list `mylab.*` of a user against a model with a `mylab` of its own."""
    marker = tmp_path / "marker"
    code = folder_with(tmp_path / "code", mylab=f"open({str(marker)!r}, 'w').close()")
    found = Trust.of(["mylab.*"]).import_module("mylab", code)
    assert Path(found.__file__ or "").parent == mylab
    assert not marker.exists()


def test_a_model_gets_its_own_modules_and_everybody_else_keeps_theirs(tmp_path: Path, mylab: Path) -> None:
    """Guards both sides: a module of the same name, imported or only installed, is neither used nor replaced."""
    (mylab.parent / "installed.py").write_text("here = 'installed'")
    imported = importlib.import_module("mylab.tools")
    path = list(sys.path)
    code = folder_with(tmp_path / "code", mylab="mine = 1", installed="here = 'model'", json="mine = 1")
    trust = Trust.of(True)
    assert trust.import_module("mylab", code).mine == 1
    assert trust.import_module("installed", code).here == "model"
    assert not hasattr(trust.import_module("json", code), "mine")  # the standard library's names are its own
    assert importlib.import_module("mylab.tools") is imported
    assert importlib.import_module("installed").here == "installed"
    assert sys.path == path


def test_two_models_with_a_module_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """Guards the comparison of two versions of a model in one process."""
    for version in ("1", "2"):
        code = folder_with(tmp_path / version / "code", preprocess=f"version = {version}\ndef f(): return version")
        with Trust.of(True).code(code):
            function = importlib.import_module("preprocess").f
        assert function() == int(version)


def test_modules_import_each_other_and_what_is_imported_late(tmp_path: Path) -> None:
    """Guards packages in `code/`, and imports within functions, which happen when the model predicts."""
    code = folder_with(
        tmp_path / "code" / "parts", __init__="from parts import one", one="late = lambda: __import__('later').x"
    )
    (code.parent / "later.py").write_text("x = 5")
    module = Trust.of(True).import_module("parts", code.parent)
    assert module.one.late() == 5
    assert "later" in sys.modules


def test_importing_from_a_model_leaves_its_folder_as_it_was(tmp_path: Path) -> None:
    """Guards the digest, and that no bytecode is read which was not made from the source beside it."""
    code = folder_with(tmp_path / "code" / "pkg", __init__="", part="x = 1")
    assert Trust.of(True).import_module("pkg.part", code.parent).x == 1
    assert [path.name for path in sorted(code.parent.rglob("*"))] == ["pkg", "__init__.py", "part.py"]


def test_stale_bytecode_in_a_model_is_not_run(tmp_path: Path) -> None:
    """Guards against a model whose source is clean and whose `__pycache__` is not."""
    code = folder_with(tmp_path / "code", helper="x = 'bytecode'")
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", code], check=True
    )
    (code / "helper.py").write_text("x = 'source'")
    assert Trust.of(True).import_module("helper", code).x == "source"


def test_a_pickle_finds_the_models_modules_by_their_own_names(tmp_path: Path) -> None:
    """Guards classes saved by reference with the file that defines them."""
    code = folder_with(tmp_path / "code", shapes="class Circle:\n    pass")
    pickled(tmp_path / "m.pkl", named("shapes", "Circle"), b")\x81")
    trust = Trust.of(True)
    with trust.code(code):
        model = trust.unpickle(tmp_path / "m.pkl")
    assert type(model).__module__ == "shapes"
    assert pickle.loads(pickle.dumps(model)).__class__ is type(model)


def test_a_script_runs_only_with_full_trust(tmp_path: Path) -> None:
    """Guards models from code: a name cannot cover a file that comes with the model."""
    marker = tmp_path / "marker"
    (tmp_path / "model.py").write_text(f"open({str(marker)!r}, 'w').close()\nmodel = 3")
    for trust in (None, "model.*", ["model.py"], "*"):
        with pytest.raises(Untrusted, match=r"it runs model\.py"):
            Trust.of(trust).run(tmp_path / "model.py")
    assert not marker.exists()
    assert Trust.of(True).run(tmp_path / "model.py").model == 3
    assert marker.exists()


# The user's own list --------------------------------------------------------------------------------------------------


def test_the_users_list_counts_where_nothing_was_said(tmp_path: Path, mylab: Path) -> None:
    """Guards `mlcore trust add`: names for every model, until they are taken off again."""
    assert not Trust.of().allows("mylab.tools")
    mlcore.trust("mylab.*", note="ours")
    assert mlcore.trusted() == {"mylab.*": "ours"}
    assert Trust.of().allows("mylab.tools.Model")
    assert Trust.of("other.*").allows("mylab.tools.Model")
    assert not Trust.of(False).allows("mylab.tools.Model")
    mlcore.distrust("mylab.*")
    assert not Trust.of().allows("mylab.tools")
    with pytest.raises(NotFound, match="mylab"):
        mlcore.distrust("mylab.*")


def test_a_trusted_digest_covers_everything_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a model saved here: it loads with a note, and only if its digest is the same."""
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    remember(DIGEST, "models/mine")
    with pytest.raises(Untrusted):
        Trust.of(None, digest="cd" * 32).unpickle(tmp_path / "m.pkl")
    assert not (tmp_path / "marker").exists()
    trust = Trust.of(None, digest=DIGEST, what="model m")
    assert caplog.messages == []
    trust.unpickle(tmp_path / "m.pkl")
    trust.unpickle(tmp_path / "m.pkl")
    assert caplog.messages == [f"running code of model m, as you trust {DIGEST}: saved here: models/mine"]
    assert (tmp_path / "marker").exists()


def test_a_digest_may_be_given_in_the_call() -> None:
    """Guards a digest told by a colleague: it trusts this very model."""
    assert Trust.of(DIGEST, digest=DIGEST).everything
    assert Trust.of([DIGEST], digest=DIGEST).everything
    assert not Trust.of(DIGEST, digest="cd" * 32).everything
    assert not Trust.of(DIGEST).everything
    assert not Trust.of(False, digest=DIGEST).everything


@pytest.mark.parametrize("trust", [3, "", [""], [3], [None], b"os.*"])
def test_trust_is_never_guessed(trust: Any) -> None:
    """Guards against values that look like yes."""
    with pytest.raises((InvalidValue, TypeError)):
        Trust.of(trust)


@pytest.mark.parametrize("entry", ["", "os system", "../x", "a/b", "-x\n"])
def test_the_list_takes_names_and_digests_only(entry: str) -> None:
    """Guards the list from what could never match."""
    with pytest.raises(InvalidValue, match="neither"):
        mlcore.trust(entry)
    assert mlcore.trusted() == {}


def test_the_list_is_private(config: Path) -> None:
    """Guards who may read and write it, whatever the umask."""
    before = os.umask(0)
    try:
        mlcore.trust("mylab.*")
    finally:
        os.umask(before)
    assert config.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in config.iterdir()} == dict.fromkeys(
        ("trust.json", "trust.lock"), 0o600
    )


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"trusted": ["os.*"]}', b'{"trusted": {"os.*": 1}}', b"\xff"])
def test_a_damaged_list_is_an_error_and_trusts_nothing(content: bytes, config: Path) -> None:
    """Guards against both guesses: trusting what cannot be read, and forgetting what was trusted."""
    config.mkdir(parents=True)
    (config / "trust.json").write_bytes(content)
    (config / "trust.json").chmod(0o600)
    with pytest.raises(ModelError, match=r"trust\.json.*repair or remove it"):
        Trust.of()
    with pytest.raises(ModelError, match="repair"):
        mlcore.trust("mylab.*")
    assert (config / "trust.json").read_bytes() == content
    assert Trust.of(True).everything


def test_a_list_that_others_can_write_says_nothing(config: Path) -> None:
    """Guards against trust put there by somebody else on the machine."""
    mlcore.trust("mylab.*")
    (config / "trust.json").chmod(0o666)
    with pytest.raises(ModelError, match="chmod 600"):
        Trust.of()


def test_a_repository_cannot_set_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against cloning as consent: no file in a project is asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.mlcore]\ntrust = ['os.*']\n")
    for folder in (".mlcore", ".config/mlcore", "mlcore"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "trust.json").write_text(json.dumps({"trusted": {"os.*": ""}}))
    assert not Trust.of().allows("os.system")


def test_many_processes_lose_no_entry(config: Path) -> None:
    """Guards the list against two that save at once: it is read, changed and put back under a lock."""
    code = "import sys, mlcore\nfor n in range(10): mlcore.trust(f'pkg{sys.argv[1]}.n{n}')"
    running = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(4)]
    assert [each.wait() for each in running] == [0] * 4
    assert len(mlcore.trusted()) == 40
    assert {path.name for path in config.iterdir()} == {"trust.json", "trust.lock"}


def test_where_no_list_can_be_kept_saving_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards containers with a home that cannot be written."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "mlcore"):
        remember(DIGEST, "m")
    assert "load only with trust" in caplog.text
    assert mlcore.trusted() == {}


def test_the_list_keeps_the_latest_models_saved_and_all_that_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the list from growing with every model ever saved."""
    monkeypatch.setattr("mlcore.models._trust._KEPT", 2)
    mlcore.trust("mylab.*", DIGEST)
    for number in range(4):
        remember(f"{number}" * 64, "m")
    assert list(mlcore.trusted()) == ["mylab.*", DIGEST, "2" * 64, "3" * 64]

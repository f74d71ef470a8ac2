"""The plugin door: real distributions in a folder, found by real interpreters; and plugins registered by hand."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlcore import plugins
from mlcore.errors import NotInstalled, PluginError
from mlcore.hookspecs import Provider, hookimpl

STORE = """
from mlcore.hookspecs import Provider
def mlcore_stores():
    return [Provider({name!r}, "{module}:open_store", "a store")]
def open_store(uri):
    return "{module} opens " + uri
"""
LIST = "from mlcore import plugins; show({each.name: [str(each), each.error] for each in plugins.installed()})"
PROVIDE = "from mlcore.hookspecs import Provider\ndef mlcore_stores(): return "


class Site:
    """A folder on `sys.path` with distributions that a test installs and removes."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        folder.mkdir()

    def install(
        self, name: str, code: str | None = None, *, version: str = "1.0", value: str = "", plugin: str = ""
    ) -> None:
        """Install the distribution `mlcore-NAME` whose module `NAME_hooks` holds `code`."""
        module = f"{name}_hooks"
        info = self.folder / f"mlcore_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mlcore-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[mlcore]\n{plugin or name} = {value or module}\n")
        (self.folder / f"{module}.py").write_text(STORE.format(name=name, module=module) if code is None else code)

    def remove(self, name: str, version: str = "1.0") -> None:
        """Remove a distribution again."""
        info = self.folder / f"mlcore_{name}-{version}.dist-info"
        for file in info.iterdir():
            file.unlink()
        info.rmdir()
        (self.folder / f"{name}_hooks.py").unlink()

    def run(self, code: str, **environment: str) -> Any:
        """Return what `code` shows, run by a new interpreter that has the folder on its path."""
        start = "import json, sys\ndef show(value): print(json.dumps(value))\n"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MLCORE_")}
        variables |= {"PYTHONPATH": str(self.folder), "XDG_CACHE_HOME": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-P", "-c", start + code],
            env=variables | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def fails(self, call: str, **environment: str) -> list[str]:
        """Return the type and text of the error that a call of `mlcore.plugins` raises."""
        code = f"from mlcore import plugins\ntry: plugins.{call}\nexcept Exception as e: "
        found: list[str] = self.run(code + "show([type(e).__name__, str(e)])", **environment)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return an empty folder for distributions."""
    return Site(tmp_path / "site", tmp_path / "cache")


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a door of its own, with nothing installed."""
    monkeypatch.setattr(plugins, "_door", plugins._Door())
    monkeypatch.setattr(plugins, "_declared", list)


def test_an_installed_plugin_is_found_and_loaded(site: Site) -> None:
    """Installing a distribution is all it takes: it is listed with its version, and its store opens."""
    site.install("alpha")
    assert site.run(LIST)["alpha"] == ["mlcore-alpha 1.0", ""]
    code = "from mlcore import plugins; show(plugins.load('stores', 'alpha')('alpha://x'))"
    assert site.run(code) == "alpha_hooks opens alpha://x"


def test_listing_imports_no_implementation(site: Site) -> None:
    """What a provider names as text is imported when it is asked for, not before."""
    site.install("alpha", PROVIDE + "[Provider('a', 'heavy:x')]")
    (site.folder / "heavy.py").write_text("x = len")
    before = "from mlcore import plugins; plugins.installed(); before = 'heavy' in sys.modules; "
    assert site.run(before + "plugins.load('stores', 'a'); show([before, 'heavy' in sys.modules])") == [False, True]


def test_a_plugin_need_not_import_mlcore(site: Site) -> None:
    """A library may carry hooks and an entry point without depending on mlcore: the prefix is the marker."""
    site.install("alpha", "def mlcore_run_ended(run):\n    print(__import__('json').dumps('ended ' + run))")
    assert site.run("from mlcore import plugins; plugins.notify('mlcore_run_ended', run='r')") == "ended r"


def test_an_entry_point_may_name_an_object(site: Site) -> None:
    """Hooks may be attributes of an object in the module, as entry points allow."""
    code = "class Hooks:\n    def mlcore_run_ended(self, run): ...\nhooks = Hooks()"
    site.install("alpha", code, value="alpha_hooks:hooks")
    code = "from mlcore import plugins; show([p.listens for p in plugins.installed() if p.name == 'alpha'])"
    assert site.run(code) == [["mlcore_run_ended"]]


def test_two_providers_of_one_name_are_a_conflict_of_that_name_only(site: Site) -> None:
    """The conflict names both distributions and versions, is listed, and raised only when the name is asked for."""
    provider = PROVIDE + "[Provider('same', len), Provider({!r}, len)]"
    site.install("alpha", provider.format("one"), version="1.5")
    site.install("beta", provider.format("two"), version="2.0")
    name, text = site.fails("load('stores', 'same')")
    assert name == "PluginError"
    assert "mlcore-alpha 1.5 and mlcore-beta 2.0 both provide 'same' under stores" in text
    assert site.run("from mlcore import plugins; show(plugins.conflicts())") == [text]
    assert site.run("from mlcore import plugins; show(plugins.load('stores', 'two')('abc'))") == 3


def test_two_distributions_with_a_plugin_of_one_name_are_both_listed(site: Site) -> None:
    """The second is set aside and says because of whom; the first works."""
    site.install("alpha", plugin="same")
    site.install("beta", plugin="same")
    listed = site.run(LIST)
    assert listed["same"] == ["mlcore-alpha 1.0", ""]
    assert "loaded already, as same of mlcore-alpha 1.0" in listed["same (mlcore-beta)"][1]


def test_two_entry_points_of_one_module_are_told_apart(site: Site) -> None:
    """A module that is entered twice is loaded once, and the other entry says so."""
    site.install("alpha")
    site.install("beta", value="alpha_hooks")
    assert "loaded already, as alpha of mlcore-alpha 1.0" in site.run(LIST)["beta"][1]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def mlcore_stores(): return None", "'NoneType' object is not iterable"),
        ("def mlcore_stores(): return ['x']", "mlcore_stores returned 'x', which is no Provider record"),
        ("def mlcore_stores(): raise OSError('disk')", "OSError: disk"),
        ("def mlcore_store(): return []", "unknown hook mlcore_store; did you mean mlcore_stores?"),
        ("def mlcore_zzzzzzz(): return []", "unknown hook mlcore_zzzzzzz; the hooks are mlcore_artifact_backends"),
        ("def mlcore_run_ended(run, colour): ...", "colour"),
        ("def mlcore_stores(uri): return []", "uri"),
    ],
)
def test_a_broken_plugin_is_set_aside_with_the_reason(site: Site, code: str, reason: str) -> None:
    """It is listed with what is wrong, and the others work as if it were not there."""
    site.install("broken", code)
    site.install("alpha")
    listed = site.run(LIST)
    assert reason in listed["broken"][1]
    assert listed["alpha"] == ["mlcore-alpha 1.0", ""]
    assert site.run("from mlcore import plugins; show(sorted(plugins.provided('stores')))").count("alpha") == 1


def test_a_broken_plugin_is_mentioned_when_it_may_be_what_was_meant(site: Site) -> None:
    """Who asks for something that is not there learns that a plugin failed to load, and why."""
    site.install("broken", "import no_such_module")
    name, text = site.fails("load('stores', 'broken')")
    assert name == "NotInstalled"
    assert "mlcore-broken 1.0 (ModuleNotFoundError: No module named 'no_such_module')" in text


def test_an_implementation_that_fails_to_import_names_its_plugin(site: Site) -> None:
    """A provider whose module is missing says which distribution is to blame."""
    site.install("alpha", PROVIDE + "[Provider('a', 'no_such:x')]")
    name, text = site.fails("load('stores', 'a')")
    assert (name, text.split(", which")[0]) == ("PluginError", "mlcore-alpha 1.0 provides 'a' as no_such:x")
    assert "No module named 'no_such'" in text


def test_a_plugin_that_was_set_aside_can_be_taken_out_and_replaced(site: Site) -> None:
    """A notebook that mends a broken plugin registers the mended one under the same name."""
    site.install("alpha", "import no_such_module")
    code = "from mlcore import plugins; plugins.unregister('alpha'); plugins.register(sys, 'alpha'); " + LIST
    assert site.run(code)["alpha"] == ["alpha", ""]


def test_distributions_with_broken_metadata_do_not_break_the_rest(site: Site) -> None:
    """Half-removed and hand-edited distributions cost themselves only."""
    site.install("alpha")
    broken = {"half": "[mlcore]\nhalf = alpha_hooks\n", "odd": "[mlcore]\nno equals sign\n", "empty": ""}
    for name, points in broken.items():
        info = site.folder / f"{name}-1.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(points)
    assert site.run(LIST)["alpha"] == ["mlcore-alpha 1.0", ""]


@pytest.mark.parametrize("names", ["alpha", "mlcore-alpha", " alpha , other"])
def test_plugins_can_be_switched_off(site: Site, names: str) -> None:
    """MLCORE_DISABLE_PLUGINS takes names of plugins or distributions; what is off is not even imported."""
    site.install("alpha", "import no_such_module")
    site.install("beta")
    listed = site.run(LIST, MLCORE_DISABLE_PLUGINS=names)
    assert ("alpha" in listed, "beta" in listed) == (False, True)


def test_the_first_of_two_installations_counts(site: Site, tmp_path: Path) -> None:
    """A distribution that shadows another on the path is found once, in the version that is imported."""
    site.install("alpha", version="2.0")
    other = Site(tmp_path / "other", site.cache)
    other.install("alpha", version="1.0")
    assert site.run(LIST, PYTHONPATH=f"{site.folder}{os.pathsep}{other.folder}")["alpha"] == ["mlcore-alpha 2.0", ""]


def test_finding_plugins_is_cheap(site: Site) -> None:
    """The metadata are read without `importlib.metadata`, which alone takes longer to import than all of mlcore."""
    site.install("alpha")
    code = "from mlcore import plugins; plugins.installed(); show('importlib.metadata' in sys.modules)"
    assert site.run(code) is False


@pytest.mark.parametrize(
    "points",
    [
        "[mlcore]\nalpha = alpha_hooks\n",
        "[gui_scripts]\nmlcore = x:main\n\n[mlcore]\n# alpha = no_hooks\nalpha=alpha_hooks\n\n[other]\nbeta = x\n",
        "[mlcore]\n  alpha   =   alpha_hooks:hooks  \nb.c-d = alpha_hooks:a.b\n",
        "[mlcore.plugins]\nalpha = alpha_hooks\n",
        "[other]\nalpha = alpha_hooks\n",
        "[mlcore]",
        "",
    ],
)
def test_entry_points_are_what_the_standard_library_reads(
    points: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an installer may write, names, modules and distributions are those of `importlib.metadata`."""
    site.install("alpha")
    (site.folder / "mlcore_alpha-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site.folder)
    expected = {
        (point.name, point.value, each.name, each.version)
        for each in distributions()
        for point in each.entry_points.select(group="mlcore")
    }
    assert {(each.name, each.module, each.distribution, each.version) for each in plugins._declared()} == expected


def test_plugins_in_an_archive_and_of_old_installers_are_found(site: Site, tmp_path: Path) -> None:
    """A zip on the path and an egg's folder declare plugins, too."""
    site.install("alpha")
    site.install("beta")
    old = site.folder / "mlcore_beta.egg-info"
    (site.folder / "mlcore_beta-1.0.dist-info").rename(old)
    (old / "METADATA").rename(old / "PKG-INFO")
    archive = shutil.make_archive(str(tmp_path / "app"), "zip", site.folder)
    for path in (str(site.folder), archive):
        listed = site.run(LIST, PYTHONPATH=path)
        assert (listed["alpha"], listed["beta"]) == (["mlcore-alpha 1.0", ""], ["mlcore-beta 1.0", ""])


def test_metadata_that_cannot_be_read_are_told_of(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A distribution whose files are not to be read is named in the log, and the others are found."""
    site.install("alpha")
    (site.folder / "mlcore_beta-1.0.dist-info" / "entry_points.txt").mkdir(parents=True)
    monkeypatch.syspath_prepend(site.folder)
    assert "alpha" in [each.name for each in plugins._declared()]
    assert "mlcore_beta-1.0.dist-info cannot be read" in caplog.text


def test_a_distribution_that_comes_or_goes_is_noticed(site: Site) -> None:
    """Installing, upgrading or removing counts from the next start on."""
    site.install("alpha")
    assert "alpha" in site.run(LIST)
    site.install("beta")
    assert {"alpha", "beta"} <= site.run(LIST).keys()
    site.remove("alpha")
    listed = site.run(LIST)
    assert ("alpha" in listed, "beta" in listed) == (False, True)
    site.remove("beta")
    site.install("beta", version="2.0")
    assert site.run(LIST)["beta"] == ["mlcore-beta 2.0", ""]


def test_a_home_that_cannot_be_written_or_found_costs_nothing_but_time(site: Site) -> None:
    """Read-only homes and users without one still have their plugins."""
    site.install("alpha")
    assert "alpha" in site.run(LIST, XDG_CACHE_HOME="/dev/null/cache")
    homeless = "import pathlib\ndef home(): raise RuntimeError('no home')\npathlib.Path.home = home\n"
    assert "alpha" in site.run(homeless + LIST, XDG_CACHE_HOME="")


def test_fifty_plugins_are_all_found(site: Site) -> None:
    """Many small plugins are the normal case: each is listed, none hides another."""
    for number in range(50):
        site.install(f"p{number}")
    working = {name for name, (_, error) in site.run(LIST).items() if not error}
    assert {f"p{number}" for number in range(50)} <= working


def stores(**named: Any) -> SimpleNamespace:
    """Return a plugin that provides stores."""
    return SimpleNamespace(mlcore_stores=lambda: [Provider(name, each) for name, each in named.items()])


def test_a_plugin_registered_by_hand_serves_until_it_is_taken_out(door: None) -> None:
    """Tests and notebooks add a plugin without installing one, and take it out without a trace."""
    plugin = plugins.register(stores(ram=len), "mine")
    assert (plugin.name, list(plugin.provides)) == ("mine", ["stores"])
    assert plugins.load("stores", "ram") is len
    plugins.unregister("mine")
    assert plugins.installed() == ()
    with pytest.raises(NotInstalled):
        plugins.load("stores", "ram")
    with pytest.raises(PluginError, match="no plugin named mine"):
        plugins.unregister("mine")
    plugins.register(stores(ram=len), "mine")


def test_registering_twice_is_an_error_that_leaves_the_first(door: None) -> None:
    """Neither a name nor an object is registered twice, and the error says as what it is known."""
    first = stores(ram=len)
    plugins.register(first, "mine")
    for module, name in ((stores(x=len), "mine"), (first, "other")):
        with pytest.raises(PluginError, match=f"plugin {name} is loaded already, as mine"):
            plugins.register(module, name)
    assert [each.name for each in plugins.installed()] == ["mine"]
    assert list(plugins.provided("stores")) == ["ram"]


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ({"mlcore_store": list}, "did you mean mlcore_stores"),
        ({"mlcore_run_ended": lambda colour: None}, "colour"),
        ({"mlcore_stores": lambda: None}, "not iterable"),
        ({"mlcore_stores": lambda: 1 / 0}, "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_is_refused_leaves_nothing_behind(door: None, hooks: dict[str, Any], reason: str) -> None:
    """After an error the same name can be registered, and none of the broken hooks is called."""
    with pytest.raises(PluginError, match=reason):
        plugins.register(SimpleNamespace(**hooks), "mine")
    plugins.register(stores(ram=len), "mine")
    plugins.notify("mlcore_run_ended", run="r")


def test_a_marked_hook_may_have_a_name_of_its_own(door: None) -> None:
    """Plugins that mark their hooks the way pluggy does may name the hook in the mark."""

    class Hooks:
        @hookimpl(specname="mlcore_stores")
        def our_stores(self) -> list[Provider]:
            return [Provider("ram", len)]

    plugins.register(Hooks(), "mine")
    assert plugins.load("stores", "ram") is len


def test_a_misspelt_mark_is_as_wrong_as_a_misspelt_name(door: None) -> None:
    """A mark that names no hook is told of, and taken for nothing else."""

    class Hooks:
        @hookimpl(specname="mlcore_store")
        def our_stores(self) -> list[Provider]:
            return [Provider("ram", len)]

    with pytest.raises(PluginError, match=r"unknown hook mlcore_store; did you mean mlcore_stores\?"):
        plugins.register(Hooks(), "mine")
    assert plugins.installed() == ()


def test_a_missing_provider_says_what_to_install_or_what_there_is(door: None) -> None:
    """What mlcore's own packages bring is one line away; of the rest the existing names are shown."""
    plugins.register(stores(ram=len, disk=len), "mine")
    with pytest.raises(NotInstalled, match=r"pip install mlcore-sql"):
        plugins.load("stores", "postgresql")
    with pytest.raises(NotInstalled, match=r"'rma' under stores; there is: disk, ram$"):
        plugins.load("stores", "rma")
    with pytest.raises(NotInstalled, match=r"there is: nothing"):
        plugins.load("no such kind", "x")


def test_an_event_reaches_everyone_though_one_raises(door: None, caplog: pytest.LogCaptureFixture) -> None:
    """What a listener raises is logged under its name, with the traceback, and does not reach the run."""
    heard: list[str] = []

    def heard_of(run: Any) -> None:
        heard.append(run)

    def fail(run: Any) -> None:
        raise ValueError("broken listener")

    plugins.register(SimpleNamespace(mlcore_run_ended=heard_of), "first")
    plugins.register(SimpleNamespace(mlcore_run_ended=fail), "failing")
    plugins.register(SimpleNamespace(mlcore_run_ended=lambda: heard.append("no arguments")), "last")
    with caplog.at_level(logging.WARNING, "mlcore"):
        plugins.notify("mlcore_run_ended", run="r")
    assert sorted(heard) == ["no arguments", "r"]
    (record,) = caplog.records
    assert record.getMessage() == "plugin failing failed in mlcore_run_ended"
    assert record.exc_info
    assert "broken listener" in str(record.exc_info[1])


def test_names_that_only_look_like_hooks_are_left_alone(door: None) -> None:
    """Modules and values whose names start with the prefix are no hooks."""
    hooks = SimpleNamespace(mlcore_sql=json, mlcore_version="1", **vars(stores(ram=len)))
    assert list(plugins.register(hooks, "mine").provides) == ["stores"]

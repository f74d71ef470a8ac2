"""Where the store is: argument, environment, files of settings, then the nearest project, and never beyond home."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mlcore
from mlcore.config import (
    artifacts_setting,
    experiment_setting,
    parse,
    project_file,
    project_root,
    settings,
    store_setting,
    user_cache,
    user_file,
)
from mlcore.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder, with nothing set."""
    for name in (
        "MLCORE_STORE",
        "MLCORE_EXPERIMENT",
        "MLCORE_CAPTURE",
        "MLCORE_ARTIFACTS",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/project/src/deep").mkdir(parents=True)
    return tmp_path / "home"


@pytest.mark.parametrize("mark", [".git", "pyproject.toml", "MLproject", ".mlcore"])
def test_the_store_is_at_the_nearest_project(mark: str, home: Path) -> None:
    """Guards discovery: each mark is found from deep inside, and named as the reason."""
    project = home / "project"
    (project / mark).mkdir() if mark.startswith(".") else (project / mark).touch()
    assert project_root(project / "src/deep")[0] == project
    assert mark in project_root(project / "src/deep")[1]
    (project / "src/MLproject").touch()
    assert project_root(project / "src/deep")[0] == project / "src", "the nearest"


def test_a_worktree_s_git_file_marks_a_project_too(home: Path) -> None:
    """Guards git worktrees and submodules, where .git is a file."""
    (home / "project/.git").write_text("gitdir: elsewhere")
    assert project_root(home / "project/src")[0] == home / "project"


def test_a_store_counts_before_another_mark_of_its_folder_and_after_a_nearer_one(home: Path) -> None:
    """Guards the order: folders from here upwards, whichever mark they have."""
    (home / "project/.mlcore").mkdir()
    (home / "project/.git").mkdir()
    assert project_root(home / "project/src")[1] == f"found {home / 'project/.mlcore'}"
    (home / "project/src/.git").mkdir()
    assert project_root(home / "project/src/deep")[0] == home / "project/src"


def test_the_search_ends_at_home(home: Path) -> None:
    """Guards whoever has a project above home: home itself may be one, what is above is not looked at."""
    (home.parent / ".git").mkdir()
    deep = home / "project/src"
    assert project_root(deep)[0] == deep
    assert "current folder" in project_root(deep)[1]
    (home / ".git").mkdir()
    assert project_root(deep)[0] == home
    outside = home.parent / "elsewhere/deep"
    outside.mkdir(parents=True)
    assert project_root(outside)[0] == home.parent


def test_a_home_behind_a_link_is_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards homes on network disks: HOME may be a link."""
    (home.parent / ".git").mkdir()
    (home.parent / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home.parent / "link"))
    assert project_root(home.parent / "link/project/src")[0] == home / "project/src"


@pytest.fixture
def mounted(home: Path) -> Iterator[Path]:
    """Return a folder of another file system within a project."""
    (home / "project/.git").mkdir()
    folder = home / "project/mounted"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_search_ends_at_a_file_system_border(mounted: Path) -> None:
    """Guards scratch disks: a project on another file system is not this one's."""
    assert project_root(mounted)[0] == mounted
    assert "on this file system" in project_root(mounted)[1]


def test_a_store_of_another_user_is_not_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards shared folders such as /tmp: a store that somebody else made there does not get our runs."""
    (home / "project/.mlcore").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: (home / "project/.mlcore").stat().st_uid + 1)
    here = home / "project/src"
    assert project_root(here) == (here, f"{home / 'project/.mlcore'} belongs to another user")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert project_root(here)[0] == home / "project", "root may"


def test_an_argument_wins_over_the_environment_and_that_over_discovery(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the order of settings, each with its reason."""
    monkeypatch.chdir(home / "project")
    (home / "project/.git").mkdir()
    assert store_setting().value == str(home / "project/.mlcore")
    assert experiment_setting().value == "Default"
    monkeypatch.setenv("MLCORE_STORE", "http://server")
    monkeypatch.setenv("MLCORE_EXPERIMENT", "x")
    assert (store_setting().value, store_setting().reason) == ("http://server", "environment variable MLCORE_STORE")
    assert experiment_setting().value == "x"
    assert (store_setting(Path("here")).value, store_setting("here").reason) == ("here", "given as an argument")
    monkeypatch.setenv("MLCORE_STORE", "")
    assert store_setting().value == str(home / "project/.mlcore"), "empty is not set"


def test_the_cache_is_where_the_system_keeps_caches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards XDG: the folder for what may be deleted."""
    assert user_cache() == home / ".cache/mlcore"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert user_cache() == Path("/x/mlcore")


def test_a_user_without_a_home_has_a_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards containers that run as a number: no HOME and no name is no error."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert project_root(home / "project")[0] == home / "project"
    user_cache()


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository, with the current folder deep inside."""
    (home / "project/.git").mkdir()
    monkeypatch.chdir(home / "project/src/deep")
    return home / "project"


def says(file: Path, *lines: str) -> Path:
    """Write settings into a file, of a project if it is called so; return it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = ["[tool.mlcore]"] if file.name == "pyproject.toml" else []
    file.write_text("\n".join([*head, *lines, ""]))
    return file


def test_the_project_wins_over_the_user_and_the_environment_over_both(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the order of the files, and that each reason names its file."""
    mine = says(user_file(), 'store = "/mine"', 'experiment = "mine"', 'artifacts = "/big"')
    assert (store_setting().value, store_setting().reason) == ("/mine", f"set in {mine}")
    ours = says(project / "pyproject.toml", 'store = "/ours"')
    assert (store_setting().value, store_setting().reason) == ("/ours", f"set in {ours}")
    assert experiment_setting().value == "mine", "each setting by itself"
    artifacts = artifacts_setting()
    assert artifacts is not None and (artifacts.value, artifacts.reason) == ("/big", f"set in {mine}")
    monkeypatch.setenv("MLCORE_STORE", "/env")
    assert [each.value for each in settings("store", "here")] == [
        "here", "/env", "/ours", "/mine", str(project / ".mlcore")
    ]  # fmt: skip
    assert [each.value for each in settings("experiment")] == ["mine", "Default"]


def test_a_run_goes_where_the_project_says(project: Path) -> None:
    """Guards that the settings are what runs use."""
    says(project / "pyproject.toml", 'store = "runs"', 'experiment = "digits"')
    with mlcore.Client().start_run() as run:
        pass
    assert [each.id for each in mlcore.Client(project / "runs").list_runs("digits")] == [run.id]


def test_a_path_counts_from_the_file_of_the_project_and_from_the_user_s_home(project: Path, home: Path) -> None:
    """Guards that a store is one store from whichever folder it is used."""
    says(user_file(), 'store = "runs"', 'artifacts = "~/big"')
    assert store_setting().value == str(home / "runs")
    assert [each.value for each in settings("artifacts")] == [str(home / "big")]
    says(project / "pyproject.toml", 'store = "../runs"')
    assert store_setting().value == str(home / "runs")
    for whole in ("http://server/x", "off", "/elsewhere"):
        says(project / "pyproject.toml", f'store = "{whole}"')
        assert store_setting().value == whole


def test_the_file_of_the_repository_counts_in_the_packages_within(project: Path, home: Path) -> None:
    """Guards repositories of many packages: the nearest file that says something, and none outside the repository."""
    says(home / "pyproject.toml", 'experiment = "outside"')
    assert experiment_setting().value == "Default"
    (project / "src/pyproject.toml").write_text('[project]\nname = "a-package"\n')
    ours = says(project / "pyproject.toml", 'experiment = "all"')
    assert (project_file(), experiment_setting().value) == (ours, "all")
    assert store_setting().value == str(project / "src/.mlcore"), "discovery is what it was"
    says(project / "src/pyproject.toml", 'experiment = "package"')
    assert experiment_setting().value == "package"


def test_a_file_that_changes_is_read_again(project: Path) -> None:
    """Guards notebooks, whose process lives on while somebody edits the file."""
    for name in ("a", "b", "a"):
        says(project / "pyproject.toml", f'experiment = "{name}"')
        assert experiment_setting().value == name


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("store = 3", "store must be some text in quotes, not beginning with ~"),
        ("store = ''", "store must be some text in quotes"),
        ("store = 'a\\u0000b'".replace("'", '"'), "store must be some text"),
        ("store = '~/runs'", "store must be some text in quotes, not beginning with ~"),
        ("experiment = ['a']", "experiment must be some text"),
        ("store = 0x" + "f" * 5000, "store must be some text"),
        ("store = 1" + "0" * 5000, "is not TOML"),
        ("stroe = 'x'", "sets 'stroe', and may set only store, experiment"),
        ("store = ", "is not TOML"),
        ("x = " + "[" * 100_000, "is not TOML"),
        ("a\xff = 1", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name_and_key(line: str, told: str, project: Path) -> None:
    """Guards that nobody's run goes elsewhere by a slip of the pen."""
    file = project / "pyproject.toml"
    file.write_bytes(f"[tool.mlcore]\n{line}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"pyproject\.toml") as caught:
        experiment_setting()
    assert str(file) in str(caught.value) and told in str(caught.value)


@pytest.mark.parametrize("text", ["[[tool.mlcore]]\nstore = 'x'", "tool = 1 # tool.mlcore", "tool.mlcore = 1"])
def test_what_is_no_table_is_told(text: str, project: Path) -> None:
    """Guards valid TOML of another shape."""
    (project / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match="must be a table"):
        store_setting()


def test_the_user_s_file_is_checked_as_well(home: Path) -> None:
    """Guards the same slips there, where one more key is known."""
    says(user_file(), 'token = "x"')
    with pytest.raises(
        ConfigError, match=r"config\.toml sets 'token', and may set only store, experiment, capture, artifacts"
    ):
        store_setting()
    says(user_file(), "artifacts = true")
    with pytest.raises(ConfigError, match=r"config\.toml: artifacts must be some text in quotes$"):
        artifacts_setting()


def test_what_is_said_elsewhere_needs_no_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the way out: whoever says it himself is not stopped by a broken file, and neither is another's project."""
    (project / "pyproject.toml").write_text("this is not [toml] of ours")
    assert experiment_setting().value == "Default"
    says(project / "pyproject.toml", "store = 3")
    assert (store_setting("x").value, experiment_setting("x").value) == ("x", "x")
    monkeypatch.setenv("MLCORE_STORE", "y")
    assert store_setting().value == "y"


HOSTILE = [
    "trust",
    "trusted",
    "plugins",
    "disable_plugins",
    "token",
    "artifacts",
    "registry_log",
    "registry_command",
    "run_id",
    "process",
    "env",
    "include",
]


@pytest.mark.parametrize("key", HOSTILE)
@pytest.mark.parametrize("form", ['[tool.mlcore]\n{} = "*"', '[tool.mlcore.{}]\nx = "*"', 'tool.mlcore.{} = ["*"]'])
def test_a_repository_cannot_decide_what_is_trusted_loaded_or_sent(
    form: str, key: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards whoever trains in a repository of strangers: more than store and experiment is refused, not ignored."""
    (project / "pyproject.toml").write_text(form.format(key))
    for read in (store_setting, experiment_setting, mlcore.Client):
        with pytest.raises(ConfigError, match=f"sets '{key}', and may set only store, experiment"):
            read()
    assert mlcore.trusted() == {}
    assert artifacts_setting() is None


@pytest.mark.parametrize("text", ["$SECRET", "${SECRET}", "%SECRET%", "{SECRET}", "`echo $SECRET`", "$(cat secret)"])
def test_nothing_in_a_repository_s_file_is_expanded(text: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the secrets of the environment: a URI of a stranger's server could carry them away."""
    monkeypatch.setenv("SECRET", "hunter2")
    uri = f"http://evil/{text}"
    for value, expected in ((uri, uri), (text, str(project / text))):
        assert parse(project / "pyproject.toml", f"[tool.mlcore]\nstore = '{value}'".encode()) == {"store": expected}
    says(project / "pyproject.toml", f"experiment = '{text}'")
    assert experiment_setting().value == text


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Return what lets this process be of one user, and every file of another."""
    real = Path.lstat

    def change(user: int, owner: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: user)
        monkeypatch.setattr(Path, "lstat", lambda path: os.stat_result([*real(path)[:4], owner, *real(path)[5:]]))

    return change


def test_a_file_of_another_user_is_not_read(
    project: Path, owners: Callable[[int, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Guards shared folders such as /tmp, where anybody may leave a file: it is told of once, even if it is broken."""
    owners(1234, 4321)
    file = says(project / "pyproject.toml", "store = 3")
    with caplog.at_level(logging.WARNING, "mlcore"):
        assert (experiment_setting().value, store_setting().reason) == ("Default", f"{project} has .git")
        assert project_file() is None
    assert caplog.messages == [f"{file} belongs to another user: what it sets is ignored"]


@pytest.mark.parametrize(("user", "owner"), [(4321, 4321), (0, 4321), (1234, 0)], ids=["theirs", "by root", "of root"])
def test_one_s_own_file_and_root_s_are_read(
    user: int, owner: int, project: Path, owners: Callable[[int, int], None]
) -> None:
    """Guards containers: root in a folder of the host, and another user on what root copied into the image."""
    says(project / "pyproject.toml", 'experiment = "x"')
    owners(user, owner)
    assert experiment_setting().value == "x"


def test_a_link_belongs_to_whoever_made_it(project: Path, home: Path, owners: Callable[[int, int], None]) -> None:
    """Guards against a link to a file of one's own, whose paths would count from where the link lies."""
    owners(1234, 4321)
    (project / "pyproject.toml").symlink_to(says(home / "mine/pyproject.toml", 'store = "runs"'))
    assert store_setting().value == str(project / ".mlcore")


def test_what_is_no_file_is_not_opened(project: Path, home: Path) -> None:
    """Guards against a pipe that would never end, and folders of that name."""
    os.mkfifo(project / "pyproject.toml")
    user_file().mkdir(parents=True)
    assert experiment_setting().value == "Default"


def test_only_a_file_that_says_something_costs_a_parser(project: Path) -> None:
    """Guards start-up: most projects have a pyproject.toml, and few of them name us."""
    code = (
        "import sys, mlcore; mlcore.Client(); print(mlcore.config.experiment_setting().value, 'tomllib' in sys.modules)"
    )

    def told() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert told() == "Default False\n"
    (project / "pyproject.toml").write_text("[tool.ruff]\n")
    assert told() == "Default False\n"
    says(project / "pyproject.toml", 'experiment = "x"')
    assert told() == "x True\n"


def test_a_home_that_cannot_be_entered_is_no_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards services that run as a user without a home, or with another's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    assert experiment_setting().value == "Default"

"""Lines of requirements are data: what they name is found, and what would be an option or a command is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcore_projects import interpreters
from mlcore_projects.environments import ready
from mlcore_projects.indexes import pip_indexes, uv_indexes
from mlcore_projects.local_packages import digest
from mlcore_projects.locks import EnvironmentFailed
from mlcore_projects.reasons import reason
from mlcore_projects.requirement_lines import check, read_lines, without_credentials
from mlcore_projects.specs import Wanted

BAD = [
    "six;touch {marker}",
    "six; touch {marker}",
    "$(touch {marker})",
    "`touch {marker}`",
    "six && touch {marker}",
    "six\ntouch {marker}",
    "six\n--index-url=http://localhost:9/simple",
    "six\r--no-index",
    "six --install-option=--prefix={marker}",
    "six --global-option=build",
    "six --config-settings=x=y",
    "six --index-url http://localhost:9/simple",
    "--upload-pack=touch {marker}",
    "--config-settings=x=y",
    "-oX",
    "-t /nowhere",
    "--target=/nowhere",
    "--log={marker}",
    "-r",
    "-r --log={marker}",
    "-r no-such-file.txt",
    "-e",
    "-e -oX",
    "--index-url",
    "--index-url=--log",
    "--index-url=ext::sh -c touch",
    "--extra-index-url=ssh://somewhere/simple",
    "ext::sh -c 'touch {marker}'",
    "six @ ext::sh -c 'touch {marker}'",
    "git+ext::sh -c 'touch {marker}'",
    "six @ git+ext://x",
    "six @ git+https://example.com/x.git@--upload-pack=touch",
    "git+git://example.com/x.git",
    "--find-links=ssh://-oProxyCommand=touch",
    "six==",
    "six @",
    "six[",
    "six ; no_such_marker == '1'",
    "./no-such-folder",
    "six\0",
]


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_is_no_requirement_is_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards checks E1 and CVE-2025-15379: no program sees such a line, and none of it runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    marker = tmp_path / "marker"
    for fields in ({"requirements": (line.format(marker=marker),)}, {"build": (line.format(marker=marker),)}):
        with pytest.raises(EnvironmentFailed) as raised:
            ready(Wanted(tmp_path, **fields), "uv")
        assert "\n" not in str(raised.value)
    assert not marker.exists()


def test_files_are_read_that_lines_name(tmp_path: Path) -> None:
    """Guards -r and -c, one in another, with comments, continued lines, markers, hashes and options."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text(
        "# first of all\n--extra-index-url https://me:secret@example.com/simple\nnumpy>=1.20 \\\n  ,<3  # why\n"
        "-r deep.txt\n-c limits.txt\n"
    )
    (tmp_path / "more" / "deep.txt").write_text(
        f"six==1.16 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n\nattrs ; python_version < '4'\n"
    )
    (tmp_path / "more" / "limits.txt").write_text("scipy<2\n")
    (tmp_path / "links").mkdir()
    asked = read_lines(["-r more/base.txt", "--pre", "-f links", "--no-binary :all:"], tmp_path)
    check(asked)
    hashes = f"--hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}"
    assert [" ".join(each.split()) for each in asked.lines] == [
        "numpy>=1.20 ,<3", f"six==1.16 {hashes}", "attrs ; python_version < '4'",
    ]  # fmt: skip
    assert asked.constraints == ("scipy<2",)
    assert asked.options == (
        "--extra-index-url=https://me:secret@example.com/simple", "--pre",
        f"--find-links={(tmp_path / 'links').as_uri()}", "--no-binary=:all:",
    )  # fmt: skip
    assert asked.indexes == ("https://example.com/simple", (tmp_path / "links").as_uri())
    assert "secret" not in repr(asked)


def test_files_that_name_each_other_end(tmp_path: Path) -> None:
    """Guards against reading for ever."""
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    with pytest.raises(EnvironmentFailed, match="without end"):
        read_lines(["-r a.txt"], tmp_path)


def test_local_packages_are_found_however_they_are_named(tmp_path: Path) -> None:
    """Guards the ways of pip: relative, editable, by name, as an address, with extras and markers."""
    package = tmp_path / "a package"
    package.mkdir()
    (tmp_path / "project").mkdir()
    lines = [
        "../a package", "-e ../a package", "name @ ../a package", f"name[x,y] @ {package.as_uri()}",
        f"{package}[z]", f"{package.parent.as_uri()}#subdirectory=a package", "../a package ; python_version > '3'",
    ]  # fmt: skip
    asked = read_lines(lines, tmp_path / "project")
    assert asked.lines == ()
    assert {each.path for each in asked.local} == {package}
    assert [each.extras for each in asked.local] == ["", "", "", "x,y", "z", "", ""]
    assert asked.local[-1].marker == "python_version > '3'"


def test_addresses_are_shown_without_credentials_and_used_with_them(tmp_path: Path) -> None:
    """Guards what is kept of an address, and that building from a lock is still let in."""
    lines = [
        "a @ git+https://token@example.com/a.git@main", "b @ https://files.example.com/b-1.whl?sig=secret",
        "c @ git+ssh://git@example.com/c.git",
    ]  # fmt: skip
    asked = read_lines(lines, tmp_path)
    check(asked)
    assert without_credentials(" ".join(asked.lines)) == (
        "a @ git+https://example.com/a.git@main b @ https://files.example.com/b-1.whl "
        "c @ git+ssh://git@example.com/c.git"
    )
    assert asked.with_credentials("git+https://example.com/a.git@0abc") == "git+https://token@example.com/a.git@0abc"
    assert asked.with_credentials("https://files.example.com/b-1.whl").endswith("?sig=secret")
    assert asked.with_credentials("https://other.example.com/x") == "https://other.example.com/x"


def test_a_digest_sees_what_a_build_reads(tmp_path: Path) -> None:
    """Guards what makes another environment: content, names and modes; not times, and not what tools leave."""
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "a.py"
    file.write_text("x = 1\n")
    with pytest.raises(EnvironmentFailed, match="no package"):
        digest(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    before = digest(tmp_path)
    os.utime(file, (0, 0))
    for left in ("build", ".git", "a.egg-info", "src/__pycache__"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "b.py").touch()
    assert digest(tmp_path) == before
    file.write_text("x = 2\n")
    assert digest(tmp_path) != before
    file.rename(tmp_path / "src" / "c.py")
    assert digest(tmp_path) != before


def test_indexes_are_those_the_tools_would_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards files and variables, the stronger winning, all told without credentials."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://u:p@one.example/simple\n"
        "[install]\nextra-index-url =\n  https://two.example\n  /x\n"
    )
    assert pip_indexes()[:3] == ("https://one.example/simple", "https://two.example", "/x")
    monkeypatch.setenv("PIP_INDEX_URL", "https://three.example/simple")
    assert pip_indexes()[0] == "https://three.example/simple"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_indexes() == ("no-index", "https://three.example/simple")
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text('[[index]]\nname = "a"\nurl = "https://u:p@four.example/simple"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.uv]\nextra-index-url = ["https://five.example"]\n')
    monkeypatch.setenv("UV_INDEX", "mine=https://u:p@six.example/simple https://seven.example")
    assert uv_indexes(tmp_path)[:4] == (
        "https://six.example/simple", "https://seven.example", "https://five.example", "https://four.example/simple",
    )  # fmt: skip


SAID = {
    "ERROR: Cannot install a==1 and b because these package versions have conflicting dependencies.": """\
Collecting a==1
WARNING: Location 'file:///x/' is ignored
ERROR: Cannot install a==1 and b because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested c==1
    b 1.0 depends on c>=2

To fix this you could try to:
1. loosen the range of package versions you've specified
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
""",
    "No solution found when resolving dependencies": """\
Using Python 3.11.7
error: No solution found when resolving dependencies
  cause: Because you require a==1 and a>1, we can conclude that your requirements are unsatisfiable.
""",
}


@pytest.mark.parametrize("first", SAID)
def test_a_reason_is_the_resolvers_own_and_short(first: str) -> None:
    """Guards what a person reads: why, not what was tried."""
    told = reason(SAID[first])
    assert told.splitlines()[0] == first.removeprefix("ERROR: ")
    assert len(told.splitlines()) <= 8
    assert "Collecting" not in told
    assert "loosen" not in told
    assert "b 1.0 depends on c>=2" in told or "unsatisfiable" in told


def test_a_reason_of_a_thousand_lines_is_short_and_says_no_password() -> None:
    """Guards the terminal against a compiler, and the log against an address."""
    told = reason("\n".join(["ERROR: it began", *map(str, range(1000)), "ERROR: https://u:canary@example.com failed"]))
    assert len(told.splitlines()) <= 8
    assert told.splitlines()[0] == "it began"
    assert "canary" not in told
    assert reason("") == "it said nothing"
    assert "mlcore envs prune" in reason("OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("3.11.7", "", True), ("3.11.7", "3.11", True), ("3.11.7", "3.11.7", True), ("3.11.7", "3.11.8", False),
        ("3.11.7", "3.1", False), ("3.11.7", "3", True), ("3.11.7", ">=3.11,<3.13", True),
        ("3.13.0", "~=3.11.0", False),
        ("3.14.0rc1", ">=3.11", True), ("3.11.7", "==3.11.*", True),
    ],
)  # fmt: skip
def test_versions_of_python_are_compared_as_users_mean_them(version: str, wanted: str, fits: bool) -> None:
    """Guards that 3.11 is any 3.11, as in python_env.yaml, and a specifier what it says."""
    assert interpreters.satisfies(version, wanted) is fits


def test_the_running_interpreter_comes_first_and_others_are_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards which Python is taken, and that finding it again starts nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = interpreters.found("")
    assert here.version == ".".join(map(str, sys.version_info[:3]))
    assert interpreters.found(f"=={here.version}") == here
    with pytest.raises(EnvironmentFailed):
        interpreters.found("3.99")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an interpreter was asked again")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(EnvironmentFailed, match=r"no Python 3\.99"):
        interpreters.found("3.99")
    with pytest.raises(EnvironmentFailed, match="no version of Python"):
        interpreters.found("three")

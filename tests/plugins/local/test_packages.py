"""What is installed, as runs record it: all of it, each once, remembered as long as nothing changes, and no secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

import mlcore
from faults.processes import environment, run as run_process
from mlcore_local.packages import installed, packages_of

ASK = """
import json, os, sys, mlcore
from mlcore_local.packages import packages_of
client = mlcore.Client("store")
with client.start_run(capture="packages") as run:
    print("", end="")
found = packages_of(client, run)
assert len(found) == run.context["packages.count"]
print(json.dumps([run.context["packages.digest"], found, "hashlib" in sys.modules]))
"""


def distribution(folder: Path, name: str, version: str = "1.0", origin: object = None) -> None:
    """Lay out a distribution as an installer does."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if origin is not None:
        (about / "direct_url.json").write_text(json.dumps(origin))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Make a folder of packages, which changed last a while ago."""
    folder = tmp_path / "site"
    distribution(folder, "Foo_Bar.baz", "1.2.post3")
    distribution(folder, "qux")
    os.utime(folder, (1_000_000_000, 1_000_000_000))
    return folder


def asked(site: Path, home: Path | None = None) -> tuple[str, dict[str, dict[str, object]], bool]:
    """Return digest and packages of a run of another process, and whether it had to find them anew."""
    out, _ = run_process(home or site.parent, ASK, PYTHONPATH=str(site))
    digest, found, anew = json.loads(out)
    return digest, found, anew


def test_it_is_what_importlib_finds() -> None:
    """Guards the shortcut by names of folders: of this environment it tells the same as reading every file."""
    expected: dict[str, str] = {}
    for each in distributions():
        expected.setdefault(re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(), each.version)
    assert {name: about["version"] for name, about in installed().items()} == expected


def test_a_run_has_the_list_as_an_entity_of_its_own(site: Path) -> None:
    """Guards what is read back, names normalized, and that it is in the run's own folder."""
    digest, found, _ = asked(site)
    assert found["foo-bar-baz"] == {"version": "1.2.post3"}
    assert found["pluggy"]["version"]
    client = mlcore.Client(site.parent / "store")
    (run,) = client.search_runs("context.packages.digest = ?", digest)
    (entity,) = client.store.get("environment", [digest])
    assert entity is not None
    assert entity.fields["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run.folder is not None


def test_it_is_remembered_until_something_changes(site: Path) -> None:
    """Guards the start of a run, and an installation after it: the digest is the same as long as the packages are."""
    first, found, anew = asked(site)
    assert anew
    assert asked(site) == (first, found, False)
    distribution(site, "late")
    changed, with_late, anew = asked(site)
    assert (changed != first, with_late["late"], anew) == (True, {"version": "1.0"}, True)
    assert asked(site)[2]  # what changed a moment ago may change again in the same tick of the clock
    (site / "late-1.0.dist-info" / "METADATA").unlink()
    (site / "late-1.0.dist-info").rmdir()
    assert asked(site)[:2] == (first, found)


def test_other_machines_and_folders_give_the_same_digest(site: Path, tmp_path: Path) -> None:
    """Guards comparison: where packages, caches and code lie is no part of it."""
    other = tmp_path / "another home" / "site"
    for name, version in (("qux", "1.0"), ("Foo_Bar.baz", "1.2.post3")):
        distribution(other, name, version)
    assert asked(site)[:2] == asked(other)[:2]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"folders": 3}'])
def test_a_damaged_memory_is_made_anew(site: Path, damage: bytes) -> None:
    """Guards runs from what a full disk or another version left in the cache."""
    before = asked(site)[:2]
    (kept,) = (site.parent / "cache" / "mlcore" / "installed").iterdir()
    kept.write_bytes(damage)
    assert asked(site)[:2] == before


def test_the_first_of_a_name_counts(site: Path, tmp_path: Path) -> None:
    """Guards an environment on top of another one: what is imported is what is recorded."""
    distribution(tmp_path / "second", "qux", "0.9")
    out, _ = run_process(tmp_path, ASK, PYTHONPATH=f"{site}{os.pathsep}{tmp_path / 'second'}")
    assert json.loads(out)[1]["qux"] == {"version": "1.0"}


def test_where_packages_come_from_is_told_without_what_lets_in(site: Path, tmp_path: Path) -> None:
    """Guards tokens in URLs, and what is needed to install the same: commit, hash, and the path in the repository."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    git = {"url": "https://me:hunter2@example.org/a/b.git?token=t0", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    distribution(site, "from_git", origin=git)
    wheel = {"url": "https://x:y@example.org/w.whl#sha256=1", "archive_info": {"hashes": {"sha256": "ab"}}}
    distribution(site, "from_wheel", origin=wheel)
    old = {"url": "file:///home/me/w.whl", "archive_info": {"hash": "sha256=cd"}}
    distribution(site, "from_file", origin=old)
    inside = {"url": f"file://{tmp_path}/libs/my%20lib", "dir_info": {"editable": True}}
    distribution(site, "inside", origin=inside)
    distribution(site, "outside", origin={"url": "file:///home/me/lib", "dir_info": {"editable": True}})
    distribution(site, "broken", origin=[3])
    _, found, _ = asked(site)
    assert {name: found[name] for name in ("from-git", "from-wheel", "from-file", "inside", "outside", "broken")} == {
        "from-git": {"version": "1.0", "url": "https://example.org/a/b.git", "commit": "c" * 40},
        "from-wheel": {"version": "1.0", "url": "https://example.org/w.whl", "hash": "sha256:ab"},
        "from-file": {"version": "1.0", "hash": "sha256:cd"},
        "inside": {"version": "1.0", "editable": True, "path": "libs/my lib"},
        "outside": {"version": "1.0", "editable": True},
        "broken": {"version": "1.0"},
    }


def test_many_packages_take_several_events(site: Path) -> None:
    """Guards the limit of an event: an environment of thousands is recorded whole."""
    for number in range(3_000):
        (site / f"a_distribution_of_a_long_name_{number}-2024.10.{number}.dist-info").mkdir()
    _, found, _ = asked(site)
    assert found["a-distribution-of-a-long-name-2999"] == {"version": "2024.10.2999"}
    assert len(found) > 3_000


def test_eggs_are_read_as_well(site: Path) -> None:
    """Guards what setuptools left in older environments: a folder, a file, and one without a version in its name."""
    (site / "an_egg-3.1-py3.11.egg-info").mkdir()
    (site / "a_file-2.0-py3.egg-info").write_text("Metadata-Version: 1.0\nName: a-file\nVersion: 2.0\n")
    (site / "in_place.egg-info").mkdir()
    (site / "in_place.egg-info" / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: In.Place\nVersion: 0.1\n")
    _, found, _ = asked(site)
    assert {name: found[name]["version"] for name in ("an-egg", "a-file", "in-place")} == {
        "an-egg": "3.1",
        "a-file": "2.0",
        "in-place": "0.1",
    }


def test_without_a_home_to_remember_it_in_it_is_found_each_time(site: Path) -> None:
    """Guards containers whose user has no home, or one that is read-only."""
    env = environment(site.parent, PYTHONPATH=str(site), XDG_CACHE_HOME="/proc/nowhere", HOME="/proc/nowhere")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", ASK], cwd=site.parent, env=env, text=True, capture_output=True, check=True
        )
        assert json.loads(done.stdout)[1]["qux"] == {"version": "1.0"}


def test_a_run_that_did_not_record_them_has_none(tmp_path: Path) -> None:
    """Guards runs of other versions, and those that were narrowed."""
    client = mlcore.Client(tmp_path)
    with client.start_run(capture="off") as run:
        pass
    assert packages_of(client, run) == {}

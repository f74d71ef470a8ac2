"""The bill of materials of a model: valid, true, and without what is nobody's business."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sklearn.linear_model import LinearRegression

import mlcore
from mlcore import plugins
from mlcore_signing import sbom
from mlcore_signing.sbom import SBOM, make_sbom

LINE = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder on `sys.path` to put distributions in; nothing is remembered of them."""
    monkeypatch.syspath_prepend(tmp_path)
    sbom._distribution.cache_clear()
    yield tmp_path
    sbom._distribution.cache_clear()


def install(place: Path, name: str, *fields: str, url: dict[str, Any] | None = None, record: str = "") -> None:
    """Write the metadata of a distribution of version 1.0."""
    folder = place / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *fields, "", "License: not here", ""]
    (folder / "METADATA").write_text("\n".join(lines), encoding="utf-8")
    if url is not None:
        (folder / "direct_url.json").write_text(json.dumps(url))
    if record:
        (folder / "RECORD").write_text(record)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the components of a bill by their names."""
    return {each["name"]: each for each in found["components"]}


def below(found: dict[str, Any]) -> dict[str, list[str]]:
    """Return what each component depends on."""
    return {each["ref"]: each.get("dependsOn", []) for each in found["dependencies"]}


def check(found: dict[str, Any]) -> None:
    """Hold a bill against the official schema, and its references against what is there."""
    said = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))
    assert said is None, said
    refs = [found["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in found["components"])]
    assert len(refs) == len(set(refs))
    assert sorted(below(found)) == sorted(refs)
    assert {ref for each in below(found).values() for ref in each} <= set(refs)


def test_a_model_comes_with_its_bill(tmp_path: Path) -> None:
    """Guards that each saved model has one, that its digest covers it, and that it names what the model needs."""
    info = mlcore.save_model(LINE, tmp_path / "line", input_example=[[0.5]])
    assert SBOM in info.files
    found = json.loads((tmp_path / "line" / SBOM).read_text())
    check(found)
    assert found["metadata"]["component"]["name"] == "line"
    listed = by_name(found)
    for name in ("scikit-learn", "numpy", "scipy", "joblib"):
        version = importlib.metadata.version(name)
        assert (listed[name]["version"], listed[name]["purl"]) == (version, f"pkg:pypi/{name}@{version}")
        assert listed[name]["licenses"]
    assert listed[platform.python_implementation()]["version"] == platform.python_version()
    sklearn = listed["scikit-learn"]["bom-ref"]
    assert sklearn in below(found)["model"]
    assert listed["joblib"]["bom-ref"] in below(found)[sklearn]


def test_a_logged_model_is_called_as_it_was_logged(tmp_path: Path) -> None:
    """Guards that the bill speaks of the model, not of the folder where it was made."""
    with mlcore.Client(tmp_path / "store").start_run() as run:
        run.log_model(LINE, "models/line")
        found = json.loads(run.artifacts.get(f"models/line/{SBOM}").read_text())
    assert found["metadata"]["component"]["name"] == "models/line"
    assert str(tmp_path) not in json.dumps(found)


def test_two_bills_of_the_same_are_the_same() -> None:
    """Guards that a difference between two bills means something, and that one that differs has a number of its own."""
    first, second = make_sbom("line", ["scikit-learn", "pandas"]), make_sbom("line", ["scikit-learn", "pandas"])
    assert first == second
    assert first["serialNumber"] != make_sbom("line", ["scikit-learn"])["serialNumber"]


def test_what_all_of_this_environment_needs_is_valid() -> None:
    """Guards against metadata that the schema does not take: here are a hundred distributions of all kinds."""
    names = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    found = make_sbom("all", sorted(names))
    check(found)
    assert {canonicalize_name(each) for each in names} <= {canonicalize_name(each) for each in by_name(found)}


def test_it_goes_as_far_as_packaging_says(installed: Path) -> None:
    """Guards markers, extras, circles and names in other spellings."""
    install(installed, "Top.Pkg", "Requires-Dist: ring-a", "Requires-Dist: old; python_version < '3'",
            "Requires-Dist: more[deep]; extra == 'all'", "Requires-Dist: not a requirement!")  # fmt: skip
    install(installed, "ring-a", "Requires-Dist: Ring_B (>=0.5)")
    install(installed, "ring-b", "Requires-Dist: ring-a")
    install(installed, "more", "Requires-Dist: deeper; extra == 'deep'")
    install(installed, "deeper")
    plain, full = make_sbom("m", ["top_pkg"]), make_sbom("m", ["top-pkg==1.0", "top_pkg[all]>=1"])
    check(plain)
    check(full)
    python = f"{platform.python_implementation()}"
    assert set(by_name(plain)) == {python, "Top.Pkg", "ring-a", "ring-b"}
    assert set(by_name(full)) == {python, "Top.Pkg", "ring-a", "ring-b", "more", "deeper"}
    assert below(full)["pkg:pypi/ring-b@1.0"] == ["pkg:pypi/ring-a@1.0"]
    assert below(full)["pkg:pypi/more@1.0"] == ["pkg:pypi/deeper@1.0"]
    assert Requirement("Ring_B (>=0.5)").name == "Ring_B"


def test_what_is_not_here_is_told_of(installed: Path) -> None:
    """Guards that nobody takes for complete what is not."""
    install(installed, "here", "Requires-Dist: gone>=2")
    found = make_sbom("m", ["here==2.0", "there", "git+https://example.org/x.git", "here"])
    check(found)
    assert found["compositions"] == [
        {"aggregate": "unknown", "dependencies": ["model", "pkg:pypi/gone", "pkg:pypi/here@2.0", "pkg:pypi/there"]}
    ]
    assert by_name(found)["there"]["properties"] == [{"name": "mlcore:installed", "value": "false"}]
    assert "compositions" not in make_sbom("m", ["scikit-learn"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["License-Expression: mit or apache-2.0"], [{"expression": "MIT OR Apache-2.0"}]),
        (["License: MIT"], [{"expression": "MIT"}]),
        (["License: BSD", "Classifier: License :: OSI Approved :: BSD"], [{"license": {"name": "BSD"}}]),
        (["Classifier: License :: OSI Approved"], None),
        (["License: UNKNOWN"], None),
        (["License: Own words"], [{"license": {"name": "Own words"}}]),
        ([f"License: {'whole text ' * 50}"], None),
        ([], None),
    ],
)  # fmt: skip
def test_licences_are_named_as_well_as_they_are_known(
    fields: list[str], expected: list[Any] | None, installed: Path
) -> None:
    """Guards SPDX expressions, names where there are none, and that a description is no licence."""
    install(installed, "licensed", *fields)
    found = make_sbom("m", ["licensed"])
    check(found)
    assert by_name(found)["licensed"].get("licenses") == expected


@pytest.mark.parametrize(
    ("url", "purl", "shown"),
    [
        ({"url": "file:///home/jo/secret-project", "dir_info": {"editable": True}}, "pkg:generic/odd@1.0", {}),
        (
            {"url": "https://jo:pw@example.org/odd-1.0.whl?key=k#x", "archive_info": {"hashes": {"sha256": "ab" * 32}}},
            "pkg:pypi/odd@1.0",
            {
                "hashes": [{"alg": "SHA-256", "content": "ab" * 32}],
                "externalReferences": [{"type": "distribution", "url": "https://example.org/odd-1.0.whl"}],
            },
        ),
        (
            {"url": "https://tok@example.org/o.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pkg:pypi/odd@1.0",
            {"externalReferences": [{"type": "vcs", "url": "https://example.org/o.git", "comment": "commit abc"}]},
        ),
    ],
)  # fmt: skip
def test_where_it_came_from_is_told_without_secrets(
    url: dict[str, Any], purl: str, shown: dict[str, Any], installed: Path
) -> None:
    """Guards that hashes and origins are kept, and that passwords, keys and paths of this machine are not."""
    install(installed, "odd", url=url, record="odd.py,sha256=x,1\n")
    found = make_sbom("m", ["odd @ https://user:password@example.org/odd-1.0.whl"])
    check(found)
    odd = by_name(found)["odd"]
    assert odd["purl"] == purl
    assert {key: odd.get(key) for key in ("hashes", "externalReferences") if key in odd} == shown
    assert re.search(r"jo|pw|tok@|password|key=|secret", json.dumps(found)) is None
    (record,) = odd["properties"]
    assert (record["name"], len(record["value"])) == ("mlcore:record-sha256", 64)


def test_a_model_is_saved_though_a_plugin_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards hours of training from a broken plugin, whose failure is told."""

    class Broken:
        @staticmethod
        def mlcore_model_files() -> list[mlcore.Provider]:
            def fail(folder: Path, name: str, requirements: list[str]) -> None:
                raise OSError(28, "No space left on device")

            return [mlcore.Provider("broken", fail)]

    plugins.register(Broken, "broken")
    try:
        with caplog.at_level(logging.WARNING, "mlcore"):
            info = mlcore.save_model(LINE, tmp_path / "line")
    finally:
        plugins.unregister("broken")
    assert "saved without what broken adds" in caplog.text
    assert SBOM in info.files

"""`mlcore models keygen`, `sign`, `verify` and `require`, as they are typed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlcore
from mlcore.cli import program
from mlcore.errors import BadSignature, ConfigError
from mlcore.models import SIGNATURE
from signatures import Lengths, pair, saved


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of a model that was logged to a run and registered; keys are made where the test is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    client = mlcore.set_store(tmp_path / "store")
    with client.start_run(name="words") as run:
        return run.log_model(Lengths(), "lengths", input_example=["ab"], register="lengths").uri


def call(*arguments: str | Path, said: str | None = None) -> str:
    """Run `mlcore models`, which works, and return what it prints on both."""
    done = answer(*arguments, said=said)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def answer(*arguments: str | Path, said: str | None = None) -> Result:
    """Run `mlcore models`."""
    return CliRunner().invoke(program, ["models", *map(str, arguments)], input=said)


def test_a_model_is_signed_and_verified_as_the_page_says(uri: str) -> None:
    """Guards the way from no key to a store that takes only what it signed."""
    told = call("keygen", "release")
    assert "release.pem  signs; not encrypted" in told
    fingerprint = told.split("fingerprint ")[1].strip()
    count = len(mlcore.get_model(uri).files) + 1  # its MLmodel is signed, too
    signed = call("sign", "runs:/words/lengths", "--key", "release.pem")
    assert f"lengths: {count} files, by the key {fingerprint[:16]}" in signed
    assert call("verify", "models:/lengths/1", "--key", "release.pub").startswith(f"verified {uri}: {count} files")
    assert f"by the key {fingerprint[:16]}, not verified" in call("inspect", uri)
    assert call("require", "release.pub") == f"requires {fingerprint}\n"
    assert fingerprint in call("require")
    assert "verified, as is required" in call("inspect", uri)
    assert call("verify", uri).startswith("verified")
    assert json.loads(call("predict", uri, "--example", "--trust-all")) == {"predictions": [2]}
    assert call("require", fingerprint[:12], "--remove") == f"no longer requires {fingerprint}\n"
    assert call("require") == "this store requires no signatures\n"
    with pytest.raises(ConfigError, match="no key is required or given"):
        call("verify", uri)


def test_json_tells_all(uri: str) -> None:
    """Guards scripts, which read JSON."""
    made = json.loads(call("keygen", "release", "--json"))
    assert made["private"] == "release.pem"
    signed = json.loads(call("sign", uri, "--key", "release.pem", "--json"))
    verified = json.loads(call("verify", uri, "--key", "release.pub", "--json"))
    assert signed == verified
    assert signed["signer"] == made["fingerprint"]
    assert signed["digest"] == mlcore.get_model(uri).verify()
    assert "MLmodel" in signed["files"]
    required = answer("require", "release.pub", "--json")
    assert json.loads(required.stdout)[0]["fingerprint"] == made["fingerprint"]
    assert json.loads(call("require", "--json"))[0]["key"] == Path("release.pub").read_text()


def test_a_model_that_was_changed_fails(uri: str) -> None:
    """Guards the exit code that a pipeline goes by."""
    call("keygen", "release")
    call("sign", uri, "--key", "release.pem")
    call("keygen", "other", "--curve", "P-384")
    with pytest.raises(BadSignature, match="none of the keys"):
        call("verify", uri, "--key", "other.pub")
    (mlcore.get_model(uri).folder / SIGNATURE).unlink()
    assert answer("verify", uri, "--key", "release.pub").exit_code == 1


def test_a_signature_of_no_known_format_can_be_looked_at(tmp_path: Path) -> None:
    """Guards `mlcore models inspect`, which verifies nothing where nothing is required."""
    folder = saved(tmp_path / "model")
    assert json.loads(call("inspect", folder, "--json"))["signed"] is None
    for content in (b"[]", b"{", b"[" * 100_000, b'{"verificationMaterial": 3}', b"\xff"):
        (folder / SIGNATURE).write_bytes(content)
        assert "by a key that it does not tell, not verified" in json.loads(call("inspect", folder, "--json"))["signed"]


def test_passwords_are_asked_for_and_are_never_arguments(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a key that is encrypted: with the variable, and without a terminal or the right word."""
    told = call("keygen", "release", "--password", said="dear\ndear\n")
    assert "release.pem  signs; encrypted" in told
    assert "ENCRYPTED" in Path("release.pem").read_text()
    with pytest.raises(ConfigError, match="MLCORE_SIGNING_PASSWORD"):
        call("sign", uri, "--key", "release.pem", said="dear\n")
    monkeypatch.setenv("MLCORE_SIGNING_PASSWORD", "wrong")
    with pytest.raises(ConfigError, match="password is wrong"):
        call("sign", uri, "--key", "release.pem")
    monkeypatch.setenv("MLCORE_SIGNING_PASSWORD", "dear")
    call("sign", uri, "--key", "release.pem")
    call("keygen", "another")
    assert "ENCRYPTED" in Path("another.pem").read_text()
    pair(Path(), "plain")
    call("sign", uri, "--key", "plain.pem")  # to a key that is not encrypted the variable says nothing


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal: run it on Linux or macOS")
def test_a_terminal_is_asked_for_the_password(uri: str) -> None:
    """Guards the prompt, which shows nothing of what is typed."""
    import pty
    import subprocess
    import sys

    pair(Path(), password="dear")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcore", "models", "sign", uri, "--key", "release.pem"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    try:
        os.close(theirs)
        shown = b""
        while b"Password: " not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, b"dear\n")
        assert b"signed" in process.communicate(timeout=60)[0]
        assert process.returncode == 0
        assert b"dear" not in shown
    finally:
        process.kill()
        os.close(ours)


def test_the_setting_is_written_with_whole_paths(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards `mlcore config set`, whose paths count from where it is typed, and the list that a file may have."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    both = os.pathsep.join(["release.pub", "other.pub"])
    done = CliRunner().invoke(program, ["config", "set", "require_signature", both])
    assert done.exit_code == 0, done.output
    whole = os.pathsep.join([f"{tmp_path}/release.pub", f"{tmp_path}/other.pub"])
    assert f"require_signature = {whole}" in done.output
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError, match=r"release\.pub.*cannot be read"):
        call("inspect", uri)
    assert CliRunner().invoke(program, ["config", "set", "require_signature", "a.pub", "--project"]).exit_code == 1


def test_wrong_usage_says_so(uri: str) -> None:
    """Guards against options that contradict each other."""
    assert answer("require", "--remove").exit_code == 2
    assert answer("sign", uri).exit_code == 2
    assert "models" in call("--help")
    for word in ("keygen", "sign", "verify", "require"):
        assert word in call("--help")


def test_check_loads_what_was_verified_in_a_place_without_what_verifies(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards `models check`, whose environment has the model's requirements and no more."""
    from mlcore_local.clean import check_model

    call("keygen", "release")
    call("sign", uri, "--key", "release.pem")
    monkeypatch.setenv("MLCORE_REQUIRE_SIGNATURE", "release.pub")
    folder = mlcore.get_model(uri).folder
    (folder / SIGNATURE).unlink()
    with pytest.raises(BadSignature):
        check_model(folder, everything=True)

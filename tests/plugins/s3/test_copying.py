"""``mlcore artifacts sync`` and ``verify`` with a bucket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mlcore
from ceph import Bucket
from faults import processes


def test_a_bucket_is_a_place_like_any(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards folder to bucket to run and back; the second time nothing is sent."""
    source = tmp_path / "home" / "source"
    (source / "deep").mkdir(parents=True)
    for number in range(150):
        (source / "deep" / f"{number} ü.txt").write_text(f"file {number}")
    (source / "large.bin").write_bytes(bytes(range(256)) * (24 << 12))

    def sync(src: str, dst: str, *options: str) -> dict[str, object]:
        done = processes.mlcore(
            tmp_path / "home", "artifacts", "sync", src, dst, "--json", *options, **bucket.settings()
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout)
        return told

    there = f"{bucket.uri}/copies/one"
    assert len(sync("source", there)["copied"]) == 151  # type: ignore[arg-type]
    assert len(bucket.names()) == 151
    assert sync("source", there)["same"] == 151
    (source / "deep" / "0 ü.txt").unlink()
    assert sync("source", there, "--delete")["removed"] == ["deep/0 ü.txt"]
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "home" / ".mlcore"))
    with mlcore.Client().start_run() as run:
        pass
    assert len(sync(there, f"runs:/{run.id}/kept")["copied"]) == 150  # type: ignore[arg-type]
    assert sync(f"runs:/{run.id}/kept", there)["same"] == 150
    assert sync(f"runs:/{run.id}/kept/deep", "back", "--size-only")["same"] == 0
    done = processes.mlcore(tmp_path / "home", "artifacts", "verify", "--all", **bucket.settings())
    assert done.stdout == "150 files, 0 problems\n", done.stderr
    assert bucket.uploads() == []

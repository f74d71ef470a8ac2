"""A server that fails, and a process that is killed, cost time and nothing else: no short file, no wrong one."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ceph import Bucket
from failing import Failing, failing
from faults import processes
from mlcore import artifacts
from mlcore.errors import ArtifactError, MlcoreError

PART = 8 << 20
FAULTS = ("500 InternalError", "503 SlowDown", "reset request", "reset answer", "cut answer", "lost", "slow")


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    """Yield what stands before the server from now on."""
    with failing(bucket.port) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


def written(path: Path, size: int) -> Path:
    """Write a file of which no two parts are alike."""
    path.write_bytes(random.Random(size).randbytes(size))
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_a_retry_and_nothing_else(fault: str, bucket: Bucket, proxy: Failing, tmp_path: Path) -> None:
    """Of all that is done a third fails, and all of it comes out right: parts, small files, listings, ranges."""
    large = written(tmp_path / "large", 2 * PART + 12_345)
    contents = {f"small/{number}": os.urandom(5_000) for number in range(6)}
    proxy.fault, proxy.share = fault, 0.35
    filesystem, root = artifacts.open_backend(f"{bucket.uri}/root")
    with large.open("rb") as stream:
        stored = artifacts.put(filesystem, root, {"large": large, "stream": stream, **contents})
    filesystem.cp_file(f"{root}/large", f"{root}/copy")
    assert sorted(artifacts.list_files(filesystem, root)) == sorted(["copy", *stored])
    artifacts.get(stored, tmp_path / "got")
    filesystem.rm_file(f"{root}/copy")
    assert proxy.broken.total() >= 3
    assert bucket.sizes() == {f"root/{name}": file.size for name, file in stored.items()}
    assert bucket.call("GET", "root/large") == bucket.call("GET", "root/stream") == large.read_bytes()
    assert (tmp_path / "got" / "large").read_bytes() == (tmp_path / "got" / "stream").read_bytes() == large.read_bytes()
    assert {name: (tmp_path / "got" / name).read_bytes() for name in contents} == contents
    # of an upload whose id was lost on its way nobody knows; it has nothing
    assert [bucket.parts(*each) for each in bucket.uploads() if bucket.parts(*each)] == []


def test_an_answer_that_says_that_it_is_all_and_is_half_is_found_out(
    bucket: Bucket, proxy: Failing, tmp_path: Path
) -> None:
    """Guards that a length which is wrong never makes a short file."""
    contents = {"large": written(tmp_path / "large", PART + 1), "small": b"x" * 10_000}
    filesystem, root = artifacts.open_backend(f"{bucket.uri}/root")
    stored = artifacts.put(filesystem, root, contents)
    proxy.fault, proxy.pattern = "short", "^GET .*root/"
    for name, file in stored.items():
        try:
            artifacts.get({name: file}, tmp_path / "got")
        except MlcoreError as error:
            assert "root/" in str(error)
            assert not (tmp_path / "got" / name).exists()
        else:
            assert artifacts.hash_file(tmp_path / "got" / name) == file.sha256
    assert proxy.broken


def test_an_error_that_comes_with_success_is_an_error(bucket: Bucket, proxy: Failing, tmp_path: Path) -> None:
    """Copies and the ends of uploads begin to be answered with 200 before the server knows how they end."""
    large = written(tmp_path / "large", PART + 1)
    filesystem, root = artifacts.open_backend(f"{bucket.uri}/root")
    proxy.fault, proxy.pattern = "error in 200", "^(POST|PUT .*copy)"
    artifacts.put(filesystem, root, {"large": large})
    filesystem.cp_file(f"{root}/large", f"{root}/copy")
    assert proxy.broken.total() >= 2
    assert bucket.call("GET", "root/large") == bucket.call("GET", "root/copy") == large.read_bytes()


@pytest.mark.parametrize("fault", ["500 InternalError", "503 SlowDown", "lost", "reset request"])
def test_a_server_that_never_recovers_is_told_of(
    fault: str, bucket: Bucket, proxy: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes when the patience is over, names what was to be stored, and nothing is there by halves."""
    monkeypatch.setenv("MLCORE_S3_PATIENCE", "1")
    large = written(tmp_path / "large", PART + 1)
    proxy.fault, proxy.pattern, proxy.most = fault, "large", 10**6
    filesystem, root = artifacts.open_backend(f"{bucket.uri}/root")
    started = time.monotonic()
    with pytest.raises(ArtifactError, match=f"{bucket.uri}/root/large.*MLCORE_S3_PATIENCE"):
        artifacts.put(filesystem, root, {"large": large})
    assert time.monotonic() - started < 10
    assert bucket.names() == []


UPLOAD = """
    import sys
    from pathlib import Path
    from mlcore import artifacts

    filesystem, root = artifacts.open_backend(sys.argv[1])
    print("begins", flush=True)
    artifacts.put(filesystem, root, {"large": Path(sys.argv[2])})
"""


def parts_sent(proxy: Failing) -> list[int]:
    """Return the number of each part that the server took, as often as it did."""
    found = (re.search(r"partNumber=(\d+)", each.path) for each in proxy.requests if each.status == 200)
    return [int(fit[1]) for fit in found if fit]


def test_an_upload_that_is_killed_is_gone_on_with(bucket: Bucket, proxy: Failing, tmp_path: Path) -> None:
    """Killed at any moment an upload shows nothing, and of the parts that arrived none is sent again."""
    size = 7 * PART + 777
    large, pick = written(tmp_path / "large", size), random.Random(10)
    settings = bucket.settings(proxy.url)
    proxy.pause = 0.1
    for _ in range(3):
        process = processes.start(tmp_path / "home", UPLOAD, f"{bucket.uri}/root", large, **settings)
        assert process.stdout
        assert process.stdout.readline() == "begins\n"
        before, deadline = len(proxy.requests), time.monotonic() + 60
        wanted = before + pick.randrange(1, 4)
        while len(proxy.requests) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(pick.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        processes.finish(process, None)
        proxy.quiet()
        assert bucket.names() in ([], ["root/large"])
        if bucket.names():
            break
    if (
        not bucket.names()
    ):  # else the last was killed when all was there, and whoever puts it once more sends it once more
        processes.run(tmp_path / "home", UPLOAD, f"{bucket.uri}/root", large, **settings)
    assert bucket.call("GET", "root/large") == large.read_bytes()
    assert bucket.uploads() == []
    assert sorted(parts_sent(proxy)) == list(range(1, 9))


def test_an_upload_of_what_has_changed_since_is_the_new_file(bucket: Bucket, proxy: Failing, tmp_path: Path) -> None:
    """Guards that going on never mixes two versions of a file, whatever their sizes and times say."""
    large = written(tmp_path / "large", 4 * PART)
    settings = bucket.settings(proxy.url)
    proxy.pause = 0.1
    process = processes.start(tmp_path / "home", UPLOAD, f"{bucket.uri}/root", large, **settings)
    deadline = time.monotonic() + 60
    while not parts_sent(proxy) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    processes.finish(process, None)
    proxy.quiet()
    assert bucket.names() == []
    before, data = os.stat(large), bytearray(large.read_bytes())
    data[5] ^= 1
    large.write_bytes(data)
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    processes.run(tmp_path / "home", UPLOAD, f"{bucket.uri}/root", large, **settings)
    assert bucket.call("GET", "root/large") == bytes(data)


def test_a_download_that_is_killed_leaves_nothing_by_its_name(bucket: Bucket, proxy: Failing, tmp_path: Path) -> None:
    """What is got appears when it is whole, and is got again."""
    large = written(tmp_path / "large", 4 * PART)
    filesystem, root = artifacts.open_backend(f"{bucket.uri}/root")
    artifacts.put(filesystem, root, {"large": large})
    proxy.fault, proxy.pattern, proxy.most = "slow", "^GET .*large", 10**6
    code = """
        import sys
        from pathlib import Path
        from mlcore import artifacts

        print("begins", flush=True)
        artifacts.get(artifacts.list_files(*artifacts.open_backend(sys.argv[1])), Path(sys.argv[2]))
    """
    process = processes.start(
        tmp_path / "home", code, f"{bucket.uri}/root", tmp_path / "got", **bucket.settings(proxy.url)
    )
    deadline = time.monotonic() + 60
    while not proxy.broken and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    processes.finish(process, None)
    assert not (tmp_path / "got" / "large").exists()
    proxy.fault = ""
    artifacts.get(artifacts.list_files(filesystem, root), tmp_path / "got")
    assert artifacts.hash_file(tmp_path / "got" / "large") == artifacts.hash_file(large)

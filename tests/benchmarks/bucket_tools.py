"""Store and get files by one tool, and print how long each part took: run by `buckets.py`, by the tool's Python."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHUNK, AT_ONCE = 8 << 20, 8
SMALL = 32  # small files at once
Tool = tuple[Callable[[], object], Callable[[], object], Callable[[], object], Callable[[], object]]


def mlcore(bucket: str, folder: Path, out: Path) -> Tool:
    """Use what users of mlcore use, sha256 included."""
    from mlcore import artifacts

    filesystem, root = artifacts.open_backend(f"s3://{bucket}/bench-mlcore")
    small, large = {path.name: path for path in (folder / "small").iterdir()}, {"large": folder / "large"}
    stored: dict[str, Any] = {}

    def up(sources: Any) -> None:
        stored.update(artifacts.put(filesystem, root, sources))

    def down(names: Any) -> None:
        artifacts.get({name: stored[name] for name in names}, out)

    return lambda: up(small), lambda: down(small), lambda: up(large), lambda: down(large)


def obstore(bucket: str, folder: Path, out: Path) -> Tool:
    """Use obstore alone: the small ones by asyncio, the large one by parts, and back by ranges in order."""
    import obstore as obs
    from obstore.store import S3Store

    url = os.environ["AWS_ENDPOINT_URL"]
    plain = {
        "endpoint": url,
        "region": os.environ.get("AWS_REGION", "us-east-1"),
        "virtual_hosted_style_request": False,
    }
    store = S3Store(bucket, config=plain, client_options={"allow_http": True, "timeout": "10min"})

    def all_of(one: Callable[[Path], Any]) -> None:
        async def run() -> None:
            gate = asyncio.Semaphore(SMALL)

            async def through(path: Path) -> None:
                async with gate:
                    await one(path)

            await asyncio.gather(*map(through, (folder / "small").iterdir()))

        asyncio.run(run())

    async def put(path: Path) -> None:
        await obs.put_async(store, f"bench-obstore/{path.name}", path.read_bytes())

    async def get(path: Path) -> None:
        answer = await obs.get_async(store, f"bench-obstore/{path.name}")
        (out / path.name).write_bytes(await answer.bytes_async())

    def up() -> None:
        obs.put(store, "bench-obstore/large", folder / "large", chunk_size=CHUNK, max_concurrency=AT_ONCE)

    def down() -> None:
        with open(out / "large", "wb") as file:
            file.writelines(obs.get(store, "bench-obstore/large").stream(CHUNK))

    return lambda: all_of(put), lambda: all_of(get), up, down


def s3fs(bucket: str, folder: Path, out: Path) -> Tool:
    """Use s3fs, which does many at once by itself."""
    import s3fs as library

    filesystem = library.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    here = sorted(str(path) for path in (folder / "small").iterdir())
    there = [f"{bucket}/bench-s3fs/{Path(each).name}" for each in here]

    def nothing() -> None:
        """Leave the large file to those it is compared with."""

    down = lambda: filesystem.get(there, [str(out / Path(each).name) for each in here])  # noqa: E731
    return lambda: filesystem.put(here, there), down, nothing, nothing


def main() -> None:
    """Do the four parts, and print their seconds, CPU seconds of all, and MB of memory at most."""
    tool, bucket, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    out = folder / f"got-{tool}"
    out.mkdir()
    told: dict[str, float] = {}
    names = ("1,000 files up", "1,000 files down", "large file up", "large file down")
    start = time.process_time()
    for name, part in zip(
        names, {"mlcore": mlcore, "obstore": obstore, "s3fs": s3fs}[tool](bucket, folder, out), strict=True
    ):
        began = time.perf_counter()
        part()
        if tool != "s3fs" or name.startswith("1,000"):
            told[name] = time.perf_counter() - began
    told["CPU"] = time.process_time() - start
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage counts what forked it, too
    told["MB"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    shutil.rmtree(out)
    print(json.dumps(told))


if __name__ == "__main__":
    main()

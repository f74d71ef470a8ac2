"""A job that is over at once: what it logged is with the server when it ends, its files as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import processes
from mlcore import Client
from serving import serving

JOBS = {
    "ended": """
        import mlcore
        with mlcore.start_run() as run:
            mlcore.log_text("hello", "greeting.txt")
        print(run.id)
    """,
    "left to the end of the process": """
        import mlcore
        run = mlcore.start_run()
        mlcore.log_text("hello", "greeting.txt")
        print(run.id)
    """,
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_files_of_a_short_job_are_with_the_server_when_it_ends(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards scripts of two lines: what brings files neither waits for itself, nor begins when nothing can begin."""
    with serving(tmp_path / "served") as server:
        settings = {"MLCORE_STORE": server.url, "MLCORE_TOKEN": server.token, "MLCORE_SPOOL_WAIT": "60"}
        out, err = processes.run(tmp_path / "home", job, **settings)
        assert err == ""
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        client = Client(server.url)
        assert client.get_run(out.strip()).artifacts.open("greeting.txt").read() == b"hello"
        client.close()

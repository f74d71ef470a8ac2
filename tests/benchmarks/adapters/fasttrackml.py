"""FastTrackML, a server in Go that speaks MLflow's protocol."""

from __future__ import annotations

TITLE = "FastTrackML"
REQUIREMENTS = ["fasttrackml==0.6.0"]
SLOWER = 1
SERVER = "fml"
SPEAKS = "Rest"


def server(port: int, level: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the arguments and the environment of its servers that keep what they are told so well.

    SQLite writes its log ahead and does not wait for the disk, unless it is asked to.
    """
    uri = "sqlite://fasttrackml.db" + ("?_synchronous=FULL" if level == "power" else "")
    return {"": (["server", "--listen-address", f"127.0.0.1:{port}", "--database-uri", uri], {})}

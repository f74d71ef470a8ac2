"""What this package brings to mlcore; nothing is imported before it is asked for."""

from mlcore.hookspecs import Provider


def mlcore_stores():
    """Provide stores for URIs such as ``onefile:///home/me/runs.db``."""
    return [Provider("onefile", "mlcore_onefile.store:open_store", "runs in one SQLite file")]

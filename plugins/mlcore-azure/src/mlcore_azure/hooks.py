"""What mlcore-azure brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider

_OPEN, _ABOUT = "mlcore_azure.opening:open_azure", "files in Azure Blob Storage"


def mlcore_artifact_backends() -> Iterable[Provider]:
    """Provide files in Azure, under the schemes that other programs know."""
    return [Provider(scheme, _OPEN, _ABOUT) for scheme in ("az", "abfs", "abfss", "wasb", "wasbs")]

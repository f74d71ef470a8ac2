"""What mlcore-signing brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_commands() -> Iterable[Provider]:
    """Provide the commands that sign models, and say whose signature they need."""
    return [
        Provider("models keygen", "mlcore_signing.sign_commands:keygen", "Make a pair of keys to sign models with."),
        Provider("models require", "mlcore_signing.sign_commands:require", "Load only what certain keys signed."),
        Provider("models sign", "mlcore_signing.sign_commands:sign", "Sign a model with a key of yours."),
        Provider("models verify", "mlcore_signing.sign_commands:verify", "Check who signed a model."),
    ]


def mlcore_model_files() -> Iterable[Provider]:
    """Provide the bill of materials of a model, ``sbom.cdx.json``."""
    return [Provider("sbom", "mlcore_signing.sbom:write_sbom", "which packages a model needs, as CycloneDX")]


def mlcore_verifiers() -> Iterable[Provider]:
    """Provide what checks OpenSSF's signatures of models."""
    return [Provider("model.sig", "mlcore_signing.verifying:check_files", "signatures of OpenSSF, by local keys")]

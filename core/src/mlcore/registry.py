"""The model registry: versions of models under names, what stands for which of them, and all that was changed.

The functions are the methods of the `Registry` of the default client.
"""

from mlcore.tracking._changes import MODEL, VERSION, Change, digest_of
from mlcore.tracking._model_uris import STAGES, ModelUri, parse
from mlcore.tracking._module import client, on
from mlcore.tracking._registered import ModelVersion, RegisteredModel, by_number, labels
from mlcore.tracking._registry import Registry


def default() -> Registry:
    """Return the registry of the default client."""
    return client().registry


create = on(default, Registry.create)
get = on(default, Registry.get)
list = on(default, Registry.list)  # noqa: A001 - as `Registry.list`
register = on(default, Registry.register)
search = on(default, Registry.search)
search_versions = on(default, Registry.search_versions)
version = on(default, Registry.version)

__all__ = [
    "MODEL", "STAGES", "VERSION", "Change", "ModelUri", "ModelVersion", "RegisteredModel", "Registry", "by_number",
    "create", "default", "digest_of", "get", "labels", "list", "parse", "register", "search", "search_versions",
    "version",
]  # fmt: skip

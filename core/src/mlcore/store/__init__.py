"""The store contract: events, batches, the fold, queries, and `SimpleStore` to build a store on."""

from mlcore.store import _clock as clock  # noqa: F401 - public as `clock`
from mlcore.store._contract import *
from mlcore.store._events import *
from mlcore.store._fold import *

# each part lists its own
__all__ = sorted(name for name in globals() if not name.startswith("_"))  # noqa: PLE0605

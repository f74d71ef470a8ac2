"""The store contract: events, batches, the fold, queries, and `SimpleStore` to build a store on."""

from mlcore.store import _batch, _codec, _contract, _events, _fold, _query, _rows
from mlcore.store import _clock as clock  # noqa: F401 - public as `clock`
from mlcore.store._batch import *
from mlcore.store._codec import *
from mlcore.store._contract import *
from mlcore.store._events import *
from mlcore.store._fold import *
from mlcore.store._query import *
from mlcore.store._rows import *

_PARTS = (_batch, _codec, _contract, _events, _fold, _query, _rows)
__all__ = sorted({"clock"}.union(*(part.__all__ for part in _PARTS)))  # noqa: PLE0605 - each part lists its own

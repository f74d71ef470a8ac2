"""The store contract: events, batches, the fold, queries, and `SimpleStore` to build a store on."""

from typing import TYPE_CHECKING, Any

from mlcore.store import _clock as clock  # noqa: F401 - public as `clock`
from mlcore.store._events import *
from mlcore.store._fold import *

if TYPE_CHECKING:
    from mlcore.store._contract import *

# what asks a store is imported when it is first used, as who only logs starts sooner without it
_ASKING = ["START", "And", "Capabilities", "Compare", "Not", "Or", "Page", "Query", "SeriesKey", "SimpleStore", "Sort"]
_ASKING += ["Store", "Stored", "Term", "Where", "find", "holds", "narrowed", "selected", "shaped", "value_of"]
# the other parts list their own
_HERE = {name for name in globals() if not name.startswith("_")} - {"Any", "TYPE_CHECKING"}
__all__ = sorted({*_HERE, *_ASKING})  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _ASKING:
        raise AttributeError(f"module 'mlcore.store' has no attribute {name!r}")
    from mlcore.store import _contract

    value = globals()[name] = getattr(_contract, name)
    return value

"""Models: their format on disk, what goes in and comes out, what saves and loads them, and whom the reader trusts."""

from mlcore.models._flavor import *
from mlcore.models._mlmodel import *
from mlcore.models._save import *
from mlcore.models._signature import *
from mlcore.models._signed import *
from mlcore.models._trust import *

# each part lists its own
__all__ = sorted(name for name in globals() if not name.startswith("_"))  # noqa: PLE0605

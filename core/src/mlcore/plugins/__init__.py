"""Find, load and ask plugins: the door through which everything that is not core comes in."""

from mlcore.plugins import _manager
from mlcore.plugins._manager import *

__all__ = _manager.__all__

"""Models: their format on disk, what saves and loads them, and whom the reader trusts."""

from mlcore.models._flavor import *
from mlcore.models._python import *
from mlcore.models._trust import *
from mlcore.models._trusted import *

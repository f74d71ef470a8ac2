"""Models: their format on disk, what saves and loads them, and whom the reader trusts."""

from mlcore.models._example import *
from mlcore.models._flavor import *
from mlcore.models._infer import *
from mlcore.models._signature import *
from mlcore.models._trust import *

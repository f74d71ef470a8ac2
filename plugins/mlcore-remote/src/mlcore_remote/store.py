"""The store of a server: everything is asked of it, nothing is kept here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from mlcore.errors import ConfigError, Malformed, MlcoreError, NewerFormat, NotFound, StoreError
from mlcore.store import START, Batch, Capabilities, Columns, Entity, Page, Query, SeriesKey, SimpleStore, Stored
from mlcore_remote.connection import Answer, Connection
from mlcore_remote.explaining import explain_answer, who_answers
from mlcore_remote.protocol import (
    API,
    BATCHES,
    MESSAGE_BYTES,
    MESSAGE_EVENTS,
    SERIES,
    VERSION_HEADER,
    about_from_json,
    document,
    entities_from_json,
    pack_batches,
    page_from_json,
    query_to_json,
    results_from_json,
    unpack_series,
    unpack_stored,
)

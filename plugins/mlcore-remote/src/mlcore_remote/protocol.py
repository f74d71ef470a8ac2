"""What goes over the wire between mlcore-remote and mlcore-server: one index of both forms, binary and JSON.

``docs/reference/wire-format.md`` describes it for those who write a client of their own.
"""

from mlcore_remote.faults import error_from_json, error_to_json, results_from_json, results_to_json
from mlcore_remote.framing import (
    DEPTH,
    MESSAGE_BYTES,
    MESSAGE_EVENTS,
    document,
    pack_batches,
    pack_series,
    pack_stored,
    unpack_batches,
    unpack_series,
    unpack_stored,
)
from mlcore_remote.shapes import (
    MAX_IDS,
    QUERY_CLAUSES,
    QUERY_DEPTH,
    about_from_json,
    about_to_json,
    batches_from_json,
    batches_to_json,
    entities_from_json,
    entities_to_json,
    entity_from_json,
    entity_to_json,
    find_from_json,
    get_from_json,
    keys_asked,
    keys_from_json,
    page_from_json,
    page_to_json,
    query_from_json,
    query_to_json,
    series_asked,
    series_from_json,
    series_to_json,
    stored_from_json,
    stored_lines,
    stored_to_json,
)

API = "/api/v1"  # the path before every route of the native protocol
BATCHES = "application/vnd.mlcore.batches"
SERIES = "application/vnd.mlcore.series"
JSON = "application/json"
LINES = "application/x-ndjson"
VERSION_HEADER = "Mlcore-Version"

__all__ = ["API", "BATCHES", "DEPTH", "JSON", "LINES", "MAX_IDS", "MESSAGE_BYTES", "MESSAGE_EVENTS"]
__all__ += ["QUERY_CLAUSES", "QUERY_DEPTH", "SERIES", "VERSION_HEADER", "about_from_json", "about_to_json"]
__all__ += ["batches_from_json", "batches_to_json", "document", "entities_from_json", "entities_to_json"]
__all__ += ["entity_from_json", "entity_to_json", "error_from_json", "error_to_json", "find_from_json"]
__all__ += ["get_from_json", "keys_asked", "keys_from_json", "pack_batches", "pack_series", "pack_stored"]
__all__ += ["page_from_json", "page_to_json", "query_from_json", "query_to_json", "results_from_json"]
__all__ += ["results_to_json", "series_asked", "series_from_json", "series_to_json", "stored_from_json"]
__all__ += ["stored_lines", "stored_to_json", "unpack_batches", "unpack_series", "unpack_stored"]

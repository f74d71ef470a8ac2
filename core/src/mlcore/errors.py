"""Every error that mlcore raises on purpose, in one tree.

::

    MlcoreError
    ├── ConfigError              a file of settings says what cannot be
    ├── PluginError              a plugin is broken, misspelt or in conflict
    │   └── NotInstalled         nothing installed provides what was asked for
    ├── StoreError
    │   ├── StoreNotFound        there is no store where one was to be read
    │   ├── NewerFormat          the store was written by a newer mlcore
    │   ├── NotSupported         the store lacks a capability
    │   ├── AccessDenied         a server wants a token, or a better one
    │   ├── PositionLost         a position is unknown; start over from START
    │   ├── Refused              an append was refused; sending it again will not help
    │   │   ├── Malformed        the batch breaks the format
    │   │   ├── OutOfOrder       records before it are missing
    │   │   ├── SourceReused     other content stands under this source and range
    │   │   └── AlreadyExists    the claim is held by somebody else
    │   └── JournalError         a file is not a journal, or not one we can read
    ├── NotFound                 nothing of that id or name
    │   └── Ambiguous            several of them
    ├── AliasMoved               somebody else moved an alias of a model first
    ├── ArtifactError            a file cannot be stored or read
    │   ├── ArtifactNotFound     there is no file of that name
    │   ├── UnsafePath           a name leads out of its root
    │   └── DigestMismatch       a file is not what was stored
    ├── ModelError               a model cannot be saved or loaded
    │   ├── BadSignature         it is not signed by whom you require, or not what they signed
    │   ├── NotAModel            a folder holds no model
    │   ├── Untrusted            loading it would run code that nobody trusted
    │   └── SchemaMismatch       data do not fit the model's signature
    ├── InvalidValue             a key or value cannot be logged
    │   ├── InvalidQuery         a filter or an order is not of the query language
    │   └── ParamConflict        a parameter has another value already
    └── RunStateError            the run's state forbids the call
"""


class MlcoreError(Exception):
    """Stand at the root of everything that mlcore raises on purpose."""


class ConfigError(MlcoreError, ValueError):
    """Say which file of settings is wrong, in which key, and what may stand there."""


class PluginError(MlcoreError):
    """Say that a plugin is broken, misspelt or in conflict with another."""


class NotInstalled(PluginError):
    """Say that nothing installed provides what was asked for, and what would."""


class StoreError(MlcoreError):
    """Stand above everything a store can answer instead of data."""


class StoreNotFound(StoreError):
    """Say that there is no store where one was to be read."""


class NewerFormat(StoreError):
    """Say that a newer mlcore wrote this, and that this one must not guess."""


class NotSupported(StoreError):
    """Say which capability a store lacks, and what to do instead."""

    def __init__(self, store: str, capability: str, remedy: str) -> None:
        super().__init__(f"store {store} does not support {capability}: {remedy}")
        self.store, self.capability, self.remedy = store, capability, remedy


class AccessDenied(StoreError):
    """Say that a server does not know who asks (`status` 401) or does not let them (403), and what to do."""

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


class PositionLost(StoreError):
    """Say that a position is unknown here; start over from ``START``."""


class Refused(StoreError):
    """Stand above the reasons for which an append can never succeed as it is."""


class Malformed(Refused):
    """Say what in a batch breaks the format."""


class OutOfOrder(Refused):
    """Say that records of the source before this batch are missing."""

    def __init__(self, source: str, expected: int, given: int) -> None:
        super().__init__(f"source {source}: expected record {expected} next, was given {given}")
        self.source, self.expected, self.given = source, expected, given


class SourceReused(Refused):
    """Say that other content is stored under this source and range already."""


class AlreadyExists(Refused):
    """Say that a claim is held: `claim` is what was asked for, `holder` the source that has it."""

    def __init__(self, claim: str, holder: str) -> None:
        super().__init__(f"{claim} exists already, held by {holder}")
        self.claim, self.holder = claim, holder


class JournalError(StoreError):
    """Say that a file is not a journal, or not one that can be read."""


class NotFound(MlcoreError, LookupError):
    """Say that nothing of its kind has that id or name."""


class Ambiguous(NotFound):
    """Say that several fit, and which."""


class AliasMoved(MlcoreError):
    """Say that somebody else moved an alias first, and where to."""


class ArtifactError(MlcoreError):
    """Stand above what can go wrong with files, and name the URI."""


class ArtifactNotFound(ArtifactError, LookupError):
    """Say that there is no file of that name, and which there are."""


class UnsafePath(ArtifactError, ValueError):
    """Say which name leads out of the folder it must stay in."""


class DigestMismatch(ArtifactError):
    """Say which file is not what was stored: changed, missing or added."""


class ModelError(MlcoreError):
    """Stand above what can go wrong when a model is saved, loaded or asked."""


class BadSignature(ModelError):
    """Say why a model's signature does not stand: none, of another key, or which file is not what was signed."""


class NotAModel(ModelError):
    """Say that a folder holds no model, or what in its MLmodel file cannot be read."""


class Untrusted(ModelError):
    """Say what loading a model would run, and how to trust it."""


class SchemaMismatch(ModelError, ValueError):
    """Say which column or tensor does not fit the signature: what it asks for, and what was given."""


class InvalidValue(MlcoreError, ValueError):
    """Say which key or value cannot be logged, and why."""


class InvalidQuery(InvalidValue):
    """Say where a query is wrong, what was expected there and what was found: `query`, `position` and `problem`."""

    def __init__(self, query: str, position: int, problem: str) -> None:
        before, line = query[:position].rpartition("\n")[2], query[position:].partition("\n")[0]
        shown = "".join(char if char.isprintable() else " " for char in before + line)
        super().__init__(f"{problem}\n  {shown}\n  {' ' * len(before)}^")
        self.query, self.position, self.problem = query, position, problem


class ParamConflict(InvalidValue):
    """Say that a parameter has another value already."""


class RunStateError(MlcoreError, RuntimeError):
    """Say that the state of the run forbids the call."""


# The tree above is the list; every class here belongs to it.
__all__ = sorted(name for name, each in globals().items() if isinstance(each, type))  # noqa: PLE0605

"""Ids and names: time-ordered ids for runs, derived ids for what has a name, and names to remember."""

import os
from time import time_ns

from mlcore.errors import InvalidValue

DEFAULT_EXPERIMENT = "Default"
_FIRST = """
amber bold brave bright calm clever cosmic crisp daring deft eager early fair fleet gentle glad golden grand happy keen
kind lively lucid lucky mellow mighty noble patient proud quick quiet rapid rare sharp silent smart steady sunny swift
tidy vivid warm wild wise witty young zesty"""
_SECOND = """
badger beaver bison condor crane dolphin eagle falcon ferret finch fox gecko hare heron ibex jaguar kestrel koala lark
lemur lynx marten moth newt ocelot orca osprey otter owl panda perch puffin quail raven robin salmon seal shrew sparrow
stork swan tapir tern toad trout viper walrus wolf wren yak"""


def new_run_id() -> str:
    """Return a UUIDv7 (RFC 9562) as 32 hex digits: ids sort by the time they were made."""
    number = time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    return f"{number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"


def keyed_run_id(experiment: str, key: str) -> str:
    """Return the id of the run that a requeued job finds again, as a UUIDv8 (RFC 9562)."""
    number = int(_sha256(f"run\0{experiment}\0{key}")[:32], 16)
    return f"{number & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62:032x}"


def is_run_id(text: object) -> bool:
    """Tell whether `text` is a whole run id."""
    return isinstance(text, str) and len(text) == 32 and set(text) <= set("0123456789abcdef")


def check_run_id(text: str) -> str:
    """Return `text`, a whole run id. Raises `InvalidValue` if it is none."""
    if not is_run_id(text):
        raise InvalidValue(f"run id {text!r} is not 32 lower-case hex digits")
    return text


def experiment_id(name: str, generation: int = 0) -> str:
    """Return the decimal id, below 2**53, that everyone derives from an experiment's name; Default's is 0."""
    if name == DEFAULT_EXPERIMENT and generation == 0:
        return "0"
    return str(int(_sha256(f"experiment\0{name}\0{generation}"), 16) % (1 << 53) or 1)


def memorable_name(run_id: str) -> str:
    """Return a name such as ``brave-otter-418``, the same for the same id."""
    number = int(run_id[-16:], 16)  # the bits that differ between runs of one time, too
    firsts, seconds = _FIRST.split(), _SECOND.split()
    number, first = divmod(number, len(firsts))
    number, second = divmod(number, len(seconds))
    return f"{firsts[first]}-{seconds[second]}-{number % 1000}"


def _sha256(text: str) -> str:
    import hashlib  # loads OpenSSL, which most runs do not need

    return hashlib.sha256(text.encode()).hexdigest()

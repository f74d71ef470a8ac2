"""What mlcore tells Python's logging, as the logger "mlcore": it is imported then, as most commands tell nothing."""

from typing import Any


def warning(text: str, *values: Any, **options: Any) -> None:
    """Log a warning."""
    _say("warning", text, *values, **options)


def debug(text: str, *values: Any) -> None:
    """Log what only who looks for a reason wants to know."""
    _say("debug", text, *values)


def _say(level: str, text: str, *values: Any, **options: Any) -> None:
    try:
        import logging
    except (ImportError, OSError):  # no file can be opened: what is told of goes on without
        return
    getattr(logging.getLogger("mlcore"), level)(text, *values, stacklevel=3, **options)

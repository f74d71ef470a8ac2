"""What mlcore tells Python's logging."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from mlcore import _log


def test_a_warning_is_of_mlcores_logger_and_of_the_line_that_gave_it(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever shows lines of programs shows the right one."""
    _log.warning("it is %s", "so")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("mlcore", logging.WARNING, "it is so")
    assert record.pathname == __file__


def test_what_cannot_be_told_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file descriptor left, nothing can be imported."""
    monkeypatch.setitem(sys.modules, "logging", None)
    _log.warning("no more files")


def test_commands_that_tell_nothing_do_not_wait_for_logging() -> None:
    """It is a twentieth of what a short command costs."""
    code = "import sys; from mlcore import Client, cli, plugins; plugins.installed(); print('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

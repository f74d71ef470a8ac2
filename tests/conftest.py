"""Leave slow tests for CI, unless they are asked for, where nothing at all may be skipped; keep the user out of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
ALL = os.environ.get("MLCORE_TEST_ALL") == "1"

# how long an example takes says how busy the machine is
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """Let tests send Ctrl-C where whoever started them in the background had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nobody(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Keep the lists of whoever runs the tests out of them, and the tests out of the lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        # thousands of runs would each look at this repository; `faults.processes` starts processes without this
        patch.setenv("MLCORE_CAPTURE", "off")
        yield


@pytest.fixture(autouse=True)
def _spool(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a spool of its own, so that nothing of one is shipped by another."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(autouse=True)
def _clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test the clock of a new process: one that ran ahead stamps all that comes next with one millisecond."""
    monkeypatch.setattr("mlcore.store._clock._last", 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked slow, unless MLCORE_TEST_ALL=1."""
    for item in items:
        if item.get_closest_marker("slow") and not ALL:
            item.add_marker(pytest.mark.skip(reason="slow: set MLCORE_TEST_ALL=1"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where MLCORE_TEST_ALL=1."""
    return _unskipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped module into a failed one where MLCORE_TEST_ALL=1."""
    return _unskipped((yield))


def _unskipped(report: Report) -> Report:
    if ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"with MLCORE_TEST_ALL=1 nothing may be skipped: {report.longrepr}"
    return report

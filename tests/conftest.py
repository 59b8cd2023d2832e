"""Hypothesis: the same examples every time, no data base, and the blob that repeats a failure.

At the end: how many tests needed recordings, how many were skipped for want of them, and how many for want of a tool
or a right.
"""

import contextlib
import gc
import itertools
import os

import pytest
from hypothesis import HealthCheck, settings
from support.connections import left_open

settings.register_profile(
    "holdfast",
    derandomize=True,
    database=None,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("holdfast")

_NUMBERS = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def own_key_home(tmp_path_factory):
    """No test, and no process that a test starts, makes or reads keys in the home of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def key_home_of_one_test(own_key_home, tmp_path_factory, monkeypatch):
    """Each test has keys of its own: two that write a log of the same id do not meet."""
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path_factory.getbasetemp() / "home" / f"{next(_NUMBERS)}"))


@pytest.fixture(scope="session")
def decoder():
    """One child that decodes recordings, for all tests of a session."""
    from holdfast.venues.decoding import Decoder

    with Decoder() as child:
        yield child


@pytest.fixture
def one_decoder(decoder, monkeypatch):
    """Many recordings are opened: each time by the same child instead of one of their own."""
    for tape in ("holdfast.venues.paper.tape", "holdfast.venues.broker.tape"):
        monkeypatch.setattr(f"{tape}.Decoder", lambda: contextlib.nullcontext(decoder))


@pytest.fixture(autouse=True)
def no_connection_left_open():
    """Whoever opens a connection closes it before the event loop ends."""
    yield
    assert left_open() == []


def pytest_collection_finish():
    """Seven thousand tests and all they import stay: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Whatever ends with the process is collected as ever."""
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter):
    """Say how many data tests ran; a skipped one is never silent."""
    reports = {
        outcome: [report for report in terminalreporter.stats.get(outcome, []) if "data" in report.keywords]
        for outcome in ("passed", "failed", "skipped")
    }
    ran = len(reports["passed"]) + len(reports["failed"])
    skipped = len(reports["skipped"])
    if ran or skipped:
        where = os.environ.get("HOLDFAST_DATA", "../shared/data")
        terminalreporter.write_line(
            f"data tests: {ran} run, {skipped} skipped (recordings looked for in {where})"
        )
    left_out = len(terminalreporter.stats.get("skipped", [])) - skipped
    if left_out:
        terminalreporter.write_line(
            f"SKIPPED FOR WANT OF A TOOL OR A RIGHT: {left_out} (root, a loop device, strace, go …; named above)"
        )

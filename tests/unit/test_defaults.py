"""The process-wide objects: built once, on first use, anew in a forked child."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from holdfast import defaults
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.breaker.config import PRESETS
from holdfast.core.errors import ConfigError
from holdfast.core.money import MoneyE6

NAMES = {
    "kalshi_breaker": "kalshi_api",
    "polymarket_breaker": "polymarket_api",
    "sportradar_breaker": "sportradar_api",
    "gemini_breaker": "gemini_api",
}


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty working directory, no environment, nothing built; what the test builds is closed and forgotten."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("KALSHI_")]:
        monkeypatch.delenv(name)
    before = dict(defaults._built)
    defaults._built.clear()
    yield tmp_path
    if "audit_logger" in defaults._built:
        defaults._built["audit_logger"].wal.close()
    defaults._built.clear()
    defaults._built.update(before)


def run(code: str, folder: Path) -> str:
    """What a fresh interpreter prints for *code* in *folder*."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.contract("A5", "A6")
def test_four_breakers_stand_in_the_registry_from_its_first_use():
    """`registry` holds the four presets before any call, and the four names are these very breakers."""
    assert list(defaults.registry.get_all_stats()) == list(PRESETS)
    for name, key in NAMES.items():
        breaker = getattr(defaults, name)
        assert breaker is defaults.registry.get(key)
        assert breaker.config == PRESETS[key]
        assert breaker.get_state() == "closed"


def test_each_object_is_built_once():
    """Eight threads that ask at once get the same log and the same registry."""
    barrier, found = threading.Barrier(8), []

    def ask():
        barrier.wait(30)
        found.append((defaults.audit_logger, defaults.registry))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len({(id(log), id(registry)) for log, registry in found}) == 1


def test_nothing_is_written_before_the_first_record(fresh):
    """Reading the defaults makes no directory; the first record makes the configured one."""
    assert defaults.audit_logger.wal.query() == []
    assert defaults.kalshi_breaker.get_state() == "closed"
    assert not list(fresh.iterdir())
    defaults.audit_logger.log_config("desk", {"a": 1})
    assert verify(fresh / "logs" / "audit").ok


def test_a_breakers_change_is_written_to_the_default_log(fresh):
    """A process-wide breaker that opens leaves a BREAKER record in the process-wide log."""
    for _ in range(5):
        defaults.kalshi_breaker.record_failure("HTTP 500")
    assert defaults.kalshi_breaker.get_state() == "open"
    defaults.audit_logger.wal.sync()
    records = [
        record.details for record in read_records(fresh / "logs" / "audit") if record.type == "BREAKER"
    ]
    assert [(details["breaker"], details["to"]) for details in records] == [("kalshi_api", "open")]


def test_the_configuration_is_read_once_and_names_log_user_and_limits(fresh):
    """`holdfast.toml` decides the directory, the user and the limits; a later change of the file does nothing."""
    (fresh / "holdfast.toml").write_text(
        '[paths]\naudit = "elsewhere"\n[limits]\nmax_order_value = "50"\n[venue.kalshi]\nmember_id = "m-1"\n',
        encoding="utf-8",
    )
    defaults.audit_logger.log_config("", {"a": 1})
    (fresh / "holdfast.toml").write_text('[paths]\naudit = "later"\n', encoding="utf-8")
    assert defaults.audit_logger.wal.directory == Path("elsewhere")
    assert defaults.audit_logger.user == "m-1"
    limits = defaults.configured_limits()
    assert limits is not None
    assert limits.max_order_value == MoneyE6(50_000_000)


def test_limits_that_nobody_set_are_none(fresh):
    """Without limits in the file the callers' own defaults hold."""
    assert defaults.configured_limits() is None


def test_a_bad_configuration_is_told_and_not_remembered(fresh):
    """A file that cannot be used raises ConfigError; once mended it is read."""
    (fresh / "holdfast.toml").write_text("[limits]\nmax_order_value = 5.0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="max_order_value"):
        _ = defaults.audit_logger
    (fresh / "holdfast.toml").unlink()
    assert defaults.audit_logger.wal.state == "closed"


def test_a_name_that_is_not_there_is_an_attribute_error():
    """A misspelt name fails as an attribute does."""
    with pytest.raises(AttributeError, match="kalshi_braeker"):
        _ = defaults.kalshi_braeker


@pytest.mark.contract("A5")
def test_a_forked_child_builds_its_own(fresh):
    """After fork the child has another registry and log; it cannot write the parent's, and the parent goes on."""
    said = run(
        """
        import os, sys
        import holdfast
        from holdfast import defaults
        from holdfast.core.errors import LogHeld

        log, registry = holdfast.audit_logger, holdfast.registry
        holdfast.kalshi_breaker.force_open("parent's own")
        log.log_config("parent", {"n": 1})
        defaults._lock.acquire()  # as another thread of the parent may, at the moment of the fork
        child = os.fork()
        if child == 0:
            try:
                assert holdfast.registry is not registry
                assert holdfast.audit_logger is not log
                assert holdfast.kalshi_breaker.get_state() == "closed"
                assert len(holdfast.registry.get_all_stats()) == 4
                try:
                    holdfast.audit_logger.log_config("child", {"n": 2})
                except LogHeld:
                    os._exit(0)
                os._exit(3)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(4)
        defaults._lock.release()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert holdfast.registry is registry
        assert holdfast.audit_logger is log
        log.log_config("parent", {"n": 3})
        """,
        fresh,
    )
    assert said.split() == ["0"]
    written = [
        record.details["n"] for record in read_records(fresh / "logs" / "audit") if record.type == "CONFIG"
    ]
    assert written == [1, 3]
    assert verify(fresh / "logs" / "audit").ok

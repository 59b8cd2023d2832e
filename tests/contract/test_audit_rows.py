"""Rows A10 to A13 and A18 of the contract, on the real writer and a real directory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.audit.logfiles import list_segments
from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import query, read_lines
from holdfast.audit.storage import LocalStorage
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import NANOS, ManualClock

DAY_SECS = 86_400
START = 1_763_634_000  # 2025-11-20T10:20:00Z


@pytest.fixture
def home(tmp_path):
    return tmp_path / "logs" / "audit"


@pytest.fixture
def clock():
    return ManualClock(START * NANOS)


def trade(n):
    return {
        "trade_id": f"5f0e0d3c-{n:08x}",
        "order_id": f"c0ffee00-0000-4000-8000-{n:012d}",
        "client_order_id": f"hf-1042-{n}",
        "ticker": "KXNBAGAME-26MAR07GSWOKC-GSW",
        "market": "KXNBAGAME-26MAR07GSWOKC-GSW",
        "side": "bid",
        "quantity": f"{n % 50 + 1}.00",
        "price": f"0.{n * 37 % 9000 + 500:04d}",
        "fee": f"0.{n * 13 % 900:04d}",
        "is_taker": n % 3 == 0,
        "external": False,
    }


@pytest.mark.contract("A10")
def test_the_four_methods_and_config_write_their_event_types(home, clock):
    """Each method of the logger leaves one entry of its type."""
    with WriteAheadLog(home, clock=clock) as log:
        audit = AuditLogger(log)
        audit.log_config("ops", {"limits.max_position_size": 100})
        audit.log_order("ann", "hf-1", "yes", "limit", 10, "0.56")
        audit.log_api_call("ann", "kalshi", "markets/KXA", "GET", 200, 12.5)
        audit.log_trade("ann", "v-1", "bid", 10, "0.56", "KXA")
        audit.log_risk_violation("ann", "position_limit_exceeded", 150, 100, {"ticker": "KXA"})
        types = [entry.event_type for entry in log.query()]
    assert types == ["SEGMENT", "CONFIG", "ORDER", "API_CALL", "TRADE", "RISK_VIOLATION"]


@pytest.mark.contract("A11")
def test_a_thousand_trades_take_at_most_a_megabyte_raw_and_a_tenth_of_it_compressed(
    home, clock, record_property, capsys
):
    """1,000 TRADE records stay under 1 MB, and under 100 KB once sealed."""
    with WriteAheadLog(home, clock=clock, seal=True) as log:
        audit = AuditLogger(log, user="desk-1")
        for n in range(0, 1000, 50):
            clock.advance(0.37)
            audit.record_many([Entry("TRADE", trade(k), component="router") for k in range(n, n + 50)])
        clock.advance(DAY_SECS)
        audit.record("NOTE", {})
    with WriteAheadLog(home, clock=clock, seal=True) as log:
        log.append("NOTE", {})  # a start seals what is still raw
    sealed = min(home.glob("*.log.gz"))
    packed, raw = sealed.stat().st_size, len(gzip.decompress(sealed.read_bytes()))
    record_property("bytes_per_1000_trades_raw", raw)
    record_property("bytes_per_1000_trades_compressed", packed)
    with capsys.disabled():
        print(f"\n  1,000 TRADE records: {raw:,} bytes raw, {packed:,} bytes compressed")
    assert raw <= 1_000_000
    assert packed <= 100_000
    assert verify(home).ok


@pytest.mark.contract("A11")
def test_files_are_named_rotated_daily_and_by_size_and_compressed(home, clock):
    """A file per UTC day and per size limit, named by its time and first sequence; rotated ones become gzip."""
    with WriteAheadLog(home, clock=clock, rotate_bytes=100_000) as log:
        for _ in range(5):
            log.append_many([Entry("NOTE", {"text": "x" * 400}) for _ in range(100)])
        clock.advance(DAY_SECS)
        log.append("NOTE", {})
    with WriteAheadLog(home, clock=clock) as log:
        log.append("NOTE", {})
    names = sorted(path.name for path in home.glob("audit_*.log*"))
    assert all(re.fullmatch(r"audit_\d{8}_\d{6}_\d{12}\.log(\.gz)?", name) for name in names)
    assert names[0].startswith("audit_20251120_102000_000000000001.log")
    assert names[-1].startswith("audit_20251121_")
    assert [name.endswith(".gz") for name in names] == [True] * (len(names) - 1) + [False]
    assert len(names) >= 4
    assert all(path.stat().st_size <= 100_000 for path in home.glob("*.log"))
    report = verify(home)
    assert report.ok, report.problems
    assert [line.count(b'"type":"SEALED"') for line in read_lines(home)].count(1) == len(names) - 1


@pytest.mark.contract("A12")
def test_a_second_process_queries_while_the_first_one_writes(home, clock):
    """Another process sees at once what was acknowledged, in sequence order and complete."""
    with WriteAheadLog(home, clock=clock, rotate_bytes=20_000, seal=False) as log:
        for n in range(200):
            log.append("TRADE", trade(n), user="ann", level=Level.DURABLE if n % 20 == 19 else Level.WRITTEN)
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.cli.main", "audit", "query", str(home), "--type", "TRADE", "--json"],
            capture_output=True, check=True,
        )  # fmt: skip
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["details"]["trade_id"] for entry in entries] == [trade(n)["trade_id"] for n in range(200)]


@pytest.mark.contract("A12")
def test_all_results_come_back_when_no_limit_is_given(home, clock):
    """`max_results=None` returns everything, never a silent first page."""
    with WriteAheadLog(home, clock=clock) as log:
        log.append_many([Entry("NOTE", {"n": n}) for n in range(12_000)])
        assert len(log.query()) == 12_001
        assert len(log.query(event_type="NOTE", max_results=7)) == 7
        assert [entry.sequence for entry in log.query(max_results=3)] == [1, 2, 3]


@pytest.mark.contract("A13")
def test_reopening_rerunning_and_rotating_never_make_gaps(home, clock):
    """Over many runs, days and sizes the sequence is 1, 2, 3 … and the log verifies."""
    for run in range(6):
        with WriteAheadLog(home, clock=clock, rotate_bytes=6_000) as log:
            for n in range(run * 7):
                log.append("NOTE", {"run": run, "n": n, "text": "x" * 150})
            clock.advance((0, 3600, DAY_SECS, 0, 2 * DAY_SECS, 5)[run])
            log.append("NOTE", {"run": run})
            facts = log.verify_integrity()
            assert facts["integrity_ok"], facts
    sequences = [entry.sequence for entry in query(home)]
    assert sequences == list(range(1, len(sequences) + 1))
    facts = verify(home).to_dict()
    assert facts["total_entries"] == len(sequences)
    assert facts["corrupted_entries"] == 0
    assert facts["integrity_ok"] is True
    directory = LocalStorage().directory(home, create=False)
    assert len(list_segments(directory)) > 6
    directory.close()


@pytest.mark.contract("A13")
def test_verify_integrity_names_what_was_changed(home, clock):
    """A changed record is counted and named by the dict that callers index."""
    with WriteAheadLog(home, clock=clock, seal=False) as log:
        for n in range(5):
            log.append("TRADE", trade(n))
    path = min(home.glob("*.log"))
    path.write_bytes(path.read_bytes().replace(b'"quantity":"3.00"', b'"quantity":"9.00"'))
    facts = WriteAheadLog(home, clock=clock).verify_integrity()
    assert facts["integrity_ok"] is False
    assert facts["corrupted_entries"] == 1
    assert facts["total_entries"] == 5
    assert facts["first_bad_sequence"] == 4
    assert facts["first_bad_file"] == path.name


@pytest.mark.slow
@pytest.mark.contract("A13")
@pytest.mark.invariant("I8")
def test_a_changed_byte_of_a_real_log_is_reported(home, clock):
    """What the real writer and sealer leave behind is covered byte by byte, the process id in `run/` aside."""
    for _ in range(2):
        with WriteAheadLog(home, clock=clock, rotate_bytes=4096) as log:
            log.append_many([Entry("TRADE", trade(n)) for n in range(12)])
    assert verify(home).ok
    assert list(home.glob("*.gz"))
    for path in sorted(path for path in home.iterdir() if path.is_file()):
        original = path.read_bytes()
        for offset in range(0, len(original), 11):
            path.write_bytes(original[:offset] + bytes([original[offset] ^ 4]) + original[offset + 1 :])
            assert not verify(home).ok, (path.name, offset)
        path.write_bytes(original)


def test_a_log_never_written_to_answers_empty(home, clock):
    """Before the first record a query finds nothing and nothing is damaged; no directory is made."""
    log = WriteAheadLog(home, clock=clock)
    assert log.query() == []
    assert list(log.records()) == []
    assert log.verify_integrity()["integrity_ok"] is True
    assert not home.exists()


@pytest.fixture
def desk(home, clock):
    """Forty days of one desk: a trade every day, a violation every tenth, a slow call every seventh."""
    with WriteAheadLog(home, clock=clock, seal=False) as log:
        audit = AuditLogger(log)
        for day in range(40):
            audit.log_trade(
                "ann" if day % 2 else "bob", f"v-{day}", "bid", 1, "0.50", "KXA", trade_id=f"t-{day}"
            )
            if day % 10 == 0:
                audit.log_risk_violation("ann", "position_limit_exceeded", 150, 100, {"day": day})
            audit.log_api_call("ann", "kalshi", "markets/KXA", "GET", 200, 1500.0 if day % 7 == 0 else 80.0)
            clock.advance(DAY_SECS)
    return home


@pytest.mark.contract("A18")
def test_all_trades_of_a_user_in_a_day(desk):
    """The first compliance question: who traded what on one UTC day."""
    day = datetime(2025, 11, 23, tzinfo=UTC)
    found = query(desk, start_time=day, end_time=day + timedelta(days=1), event_type="TRADE", user_id="ann")
    assert [entry.details["trade_id"] for entry in found] == ["t-3"]


@pytest.mark.contract("A18")
def test_all_violations_of_thirty_days(desk):
    """The second: every limit that was broken in the last thirty days."""
    end = START + 40 * DAY_SECS
    found = query(desk, start_time=end - 30 * DAY_SECS, end_time=end, event_type="RISK_VIOLATION")
    assert [entry.details["details"]["day"] for entry in found] == [10, 20, 30]


@pytest.mark.contract("A18")
def test_api_calls_slower_than_a_second(desk):
    """The third: calls that took longer than 1000 ms."""
    slow = [entry for entry in query(desk, event_type="API_CALL") if entry.details["latency_ms"] > 1000]
    assert len(slow) == 6

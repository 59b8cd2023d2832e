from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from support.journal import SECOND, START_NS, HandmadeLog, rows, small_log

from holdfast.audit.head import HeadState
from holdfast.audit.logfiles import list_segments
from holdfast.audit.query import iter_query, moment_ns, query, read_lines, read_records
from holdfast.audit.storage import LocalStorage
from holdfast.core.errors import AuditCorruption, BadInput

START = START_NS // SECOND


@pytest.fixture
def home(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def trading_log(home):
    """Two segments, one record a second: SEGMENT at 0 s and 4 s."""
    log = HandmadeLog(home)
    log.segment(
        [
            ("ORDER", {"order_id": "hf-1", "client_order_id": "hf-1"}, "ann", "router"),
            ("TRADE", {"order_id": "v-9", "client_order_id": "hf-1"}, "ann", "stream"),
            ("TRADE", {"order_id": "v-8", "client_order_id": "hf-2", "note": "hf-1"}, "bob", "stream"),
        ]
    )
    log.segment(
        [
            ("API_CALL", {"latency_ms": 1200.5}, "ann", "client"),
            ("TRADE", {"order_id": "v-7"}, "ann", "stream"),
        ]
    )
    log.head()
    return log


def sequences(entries):
    return [entry.sequence for entry in entries]


@pytest.mark.contract("A12")
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"event_type": "TRADE"}, [3, 4, 7]),
        ({"event_type": "TRADE", "user_id": "ann"}, [3, 7]),
        ({"user_id": "nobody"}, []),
        ({"component": "client"}, [6]),
        ({"order_id": "hf-1"}, [2, 3]),
        ({"order_id": "v-9"}, [3]),
        ({"max_results": 2}, [1, 2]),
        ({"max_results": 0}, []),
        ({"newest_first": True}, [7, 6, 5, 4, 3, 2, 1]),
        ({"newest_first": True, "max_results": 2}, [7, 6]),
        ({"start_time": START + 2}, [3, 4, 5, 6, 7]),
        ({"end_time": START + 2}, [1, 2]),
        ({"start_time": START + 1, "end_time": START + 4}, [2, 3, 4]),
        ({"start_time": START + 1.5, "end_time": Decimal(START) + Decimal("4.000000001")}, [3, 4, 5]),
        ({"start_time": datetime.fromtimestamp(START + 5, UTC)}, [6, 7]),
        ({"end_time": datetime.fromtimestamp(START + 1, timezone(timedelta(hours=5)))}, [1]),
    ],
)  # fmt: skip
def test_a_query_returns_exactly_what_matches(trading_log, home, conditions, expected):
    """Start is included, end is not, and every condition given must hold."""
    assert sequences(query(home, **conditions)) == expected


def test_an_entry_has_the_contracts_attributes(trading_log, home):
    """An entry gives type, user, sequence, aware time and details, and all of them as a dict."""
    entry = query(home, event_type="API_CALL")[0]
    assert entry.event_type == "API_CALL"
    assert entry.user_id == "ann"
    assert entry.sequence == 6
    assert entry.timestamp == datetime.fromtimestamp(START + 5, UTC)
    assert entry.details == {"latency_ms": 1200.5}
    assert entry.to_dict()["details"] == {"latency_ms": 1200.5}
    assert entry.to_dict()["timestamp"] == entry.timestamp.isoformat()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 20),  # noqa: DTZ001  that it is naive is the point
        float("nan"),
        float("inf"),
        True,
        "1763634000",
        10**15,
    ],
)
def test_a_time_that_cannot_be_read_is_refused(home, moment):
    """A naive datetime, NaN, an infinity, text and milliseconds are refused by name, before anything is read."""
    small_log(home)
    with pytest.raises(BadInput, match="start_time"):
        iter_query(home, start_time=moment)


def test_a_float_means_its_shortest_decimal_text():
    """1763634000.1 is one tenth of a second, not its binary neighbour."""
    assert moment_ns(1763634000.1, "t") == 1763634000_100_000_000


@pytest.mark.parametrize("count", [-1, True])
def test_a_limit_that_is_no_count_is_refused(home, count):
    """A negative number of results is refused."""
    small_log(home)
    with pytest.raises(BadInput, match="max_results"):
        query(home, max_results=count)


def test_clock_steps_do_not_hide_records(home):
    """A record stamped before its segment's first one is found by its own time."""
    log = HandmadeLog(home)
    log.segment(rows(2))
    log.now_ns -= 3600 * SECOND
    log.segment(rows(2))
    log.head()
    assert sequences(query(home, end_time=START)) == [4, 5, 6]


def test_lines_are_given_as_stored(home):
    """`read_lines` returns the bytes of each line, sealed or not, in order."""
    log = small_log(home, (5, 4, 3), seal_first=True)
    assert list(read_lines(home)) == log.lines
    assert list(read_lines(home, start_seq=9)) == log.lines[8:]
    assert list(read_lines(home, start_seq=100)) == []


def test_newest_first_reads_sealed_segments_backwards(home):
    """A sealed segment of several members is read backwards too."""
    log = small_log(home, (50, 4), seal_first=True)
    assert sequences(query(home, newest_first=True)) == list(range(len(log.lines), 0, -1))


def test_records_beyond_the_head_are_not_seen(home):
    """What is not yet durable is not returned."""
    log = HandmadeLog(home)
    log.segment(rows(5), filler=64)
    lines = (home / log.name).read_bytes().splitlines(keepends=True)
    log.head(HeadState.OPEN, sequence=4, end=sum(map(len, lines[:4])))
    assert [record.seq for record in read_records(home)] == [1, 2, 3, 4]


def test_damage_ends_a_query_with_its_place(home):
    """A search that meets a damaged line raises and names it; nothing is quietly left out."""
    log = small_log(home)
    path = min(home.glob("*.log"))
    content = path.read_bytes()
    at = content.index(log.lines[3]) + 60
    path.write_bytes(content[:at] + b"~" + content[at + 1 :])
    with pytest.raises(AuditCorruption) as caught:
        query(home, user_id="nobody")
    assert caught.value.sequence == 4
    assert caught.value.file == path.name
    assert caught.value.offset == content.index(log.lines[3])


@pytest.mark.parametrize("victim", ["first", "last", "head"])
def test_a_missing_file_ends_a_query(home, victim):
    """A search over a log that lacks a file raises."""
    small_log(home)
    segments = sorted(home.glob("*.log"))
    {"first": segments[0], "last": segments[-1], "head": home / "head"}[victim].unlink()
    with pytest.raises(AuditCorruption):
        query(home)


def test_an_empty_directory_holds_no_records_and_a_missing_one_is_refused(home):
    """No log yet is no records; no directory is the caller's mistake."""
    with pytest.raises(BadInput, match="no audit log"):
        query(home)
    home.mkdir(mode=0o700)
    assert query(home) == []


def test_a_segment_sealed_between_listing_and_opening_is_read(home):
    """A segment that became `.log.gz` after it was listed is looked for again."""
    from holdfast.audit.logfiles import open_segment

    log = HandmadeLog(home)
    name = log.segment(rows(5))
    directory = LocalStorage().directory(home, create=False)
    listed = list_segments(directory)
    log.seal(name)
    file, sealed = open_segment(directory, listed[0])
    assert sealed
    file.close()
    directory.close()


def test_a_twin_is_counted_once(home):
    """A segment that stands there raw and compressed is read once."""
    log = HandmadeLog(home)
    name = log.segment(rows(5))
    raw = (home / name).read_bytes()
    sealed = log.seal(name)
    (home / name).write_bytes(raw)
    log.segment([("SEALED", sealed)])
    log.head()
    assert sequences(query(home)) == list(range(1, 9))

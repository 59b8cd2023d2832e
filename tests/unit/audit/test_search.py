"""What a search trusts, what it reads, and what it notices."""

from __future__ import annotations

import subprocess
import sys
import threading
from hashlib import sha256
from unittest import mock
from zlib import crc32

import pytest
from support.journal import SECOND, START_NS, HandmadeLog, rows

from holdfast.audit import search
from holdfast.audit.format import decode_line, encode_line
from holdfast.audit.head import HeadState
from holdfast.audit.index import Index
from holdfast.audit.pruned import InArchive, encode_marker, marker_name
from holdfast.audit.query import LogReader, query
from holdfast.audit.schemas import PrunedDetails
from holdfast.audit.seal import compress_segment, replace_raw
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import AuditCorruption, BadInput

START = START_NS // SECOND


class CountingFile:
    """A file that notes how many bytes were read of it."""

    def __init__(self, file, read):
        self._file = file
        self._read = read

    def __getattr__(self, name):
        return getattr(self._file, name)

    def pread(self, size, offset):
        data = self._file.pread(size, offset)
        self._read[self._file.name] = self._read.get(self._file.name, 0) + len(data)
        return data


class CountingStorage:
    """The machine's disks, noting what is read; `before_open` is called with every name that is opened."""

    def __init__(self):
        self.read = {}
        self.before_open = lambda name: None

    def directory(self, path, *, create):
        return CountingDirectory(LocalStorage().directory(path, create=create), self)


class CountingDirectory:
    def __init__(self, directory, storage):
        self._directory = directory
        self._storage = storage

    def __getattr__(self, name):
        return getattr(self._directory, name)

    def open(self, name, *, writable=False):
        self._storage.before_open(name)
        return CountingFile(self._directory.open(name, writable=writable), self._storage.read)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def storage():
    return CountingStorage()


def sequences(entries):
    return [entry.sequence for entry in entries]


def users(count, every=10):
    """Records of "ann", and one of "bob" in each *every*."""
    return [("NOTE", {"n": n}, "bob" if n % every == 3 else "ann") for n in range(count)]


def sealed_log(home, counts=(40, 40, 5), *, indexed=True):
    """A closed log of which every segment but the last is sealed, in members of four lines."""
    log, pending = HandmadeLog(home), []
    for count in counts:
        name = log.segment([*pending, *users(count)])
        pending = [("SEALED", log.seal(name, indexed=indexed))] if count != counts[-1] else []
    log.head()
    return log


# -- trust -------------------------------------------------------------------------------------------------------


def test_an_index_that_the_log_vouches_for_is_used(home, storage):
    """Of a sealed segment with a trusted index only the blocks are read that may hold a match."""
    sealed_log(home)
    reader = LogReader(home, storage=storage)
    found = reader.query(user_id="bob", max_results=1)
    assert sequences(found) == [5]
    first = min(home.glob("*.gz"))
    assert storage.read[first.name.replace(".log.gz", ".idx")] > 0
    damaged = bytearray(first.read_bytes())
    damaged[-4:] = b"\0\0\0\0"
    first.write_bytes(damaged)
    assert sequences(LogReader(home).query(user_id="bob", max_results=1)) == [5]


@pytest.mark.parametrize("lie", ["other words", "missing", "cut", "no index"])
def test_an_index_that_the_log_does_not_vouch_for_is_not_used(home, lie):
    """A well-formed index that lies, or none at all, changes no answer."""
    sealed_log(home)
    expected = sequences(query(home, user_id="bob"))
    assert len(expected) == 9
    for path in home.glob("*.idx"):
        body = path.read_bytes()[:-4].replace(b"bob", b"eve")
        match lie:
            case "other words":
                path.write_bytes(body + crc32(body).to_bytes(4, "little"))
            case "missing":
                path.unlink()
            case "cut":
                path.write_bytes(path.read_bytes()[:-1])
            case _:
                path.write_bytes(b"")
    assert sequences(query(home, user_id="bob")) == expected
    assert query(home, user_id="eve") == []


def test_a_false_index_with_its_hash_in_a_later_segment_misleads_but_never_lies(home):
    """Where even SEALED was forged, a record that is not what the index says ends the search."""
    log = HandmadeLog(home)
    name = log.segment(users(10))
    details = log.seal(name, indexed=True)
    path = next(home.glob("*.idx"))
    body = path.read_bytes()[:-4].replace(b"bob", b"eve")
    content = body + crc32(body).to_bytes(4, "little")
    path.write_bytes(content)
    log.segment([("SEALED", details | {"index_sha256": sha256(content).hexdigest()})])
    log.head()
    with pytest.raises(AuditCorruption, match="not what the index says") as caught:
        query(home, user_id="eve")
    assert caught.value.sequence == 5


def test_the_planted_bug_of_a_trusted_index_is_found(home, monkeypatch):
    """With every index taken at its word, the lie of the test above changes the answer: the check is what saves it."""
    sealed_log(home)
    expected = sequences(query(home, user_id="bob"))
    for path in home.glob("*.idx"):
        body = path.read_bytes()[:-4].replace(b"bob", b"eve")
        path.write_bytes(body + crc32(body).to_bytes(4, "little"))

    class Trusting:
        def __init__(self, content):
            pass

        def hexdigest(self):
            return mock.ANY  # equal to whatever SEALED says

    monkeypatch.setattr(search, "sha256", Trusting)
    assert sequences(query(home, user_id="bob")) != expected


@pytest.mark.parametrize("together", [True, False])
def test_of_two_seals_of_one_segment_the_later_counts(home, together):
    """A crash between SEALED and rename leaves a SEALED record whose index never came to be."""
    log = HandmadeLog(home)
    details = log.seal(log.segment(users(10)), indexed=True)
    stale = ("SEALED", details | {"index_sha256": "ab" * 32})
    if together:
        log.segment([stale, ("SEALED", details)])
    else:
        second = log.segment([stale])
        log.segment([("SEALED", details), ("SEALED", log.seal(second, indexed=True))])
    log.head()
    reader = LogReader(home)
    assert sequences(reader.query(user_id="bob")) == [5]
    assert 1 in reader._searcher._files, "its index file was not trusted"


def test_a_log_sealed_without_indexes_is_searched(home, storage, monkeypatch):
    """SEALED records of an older version name no index; the segment is indexed in memory, once."""
    monkeypatch.setattr(search, "_SPARSE", 1)
    sealed_log(home, indexed=False)
    reader = LogReader(home, storage=storage)
    expected = sequences(reader.query(user_id="bob"))
    assert len(expected) == 9
    storage.read.clear()
    assert sequences(reader.query(user_id="bob")) == expected
    assert not any(name.startswith("audit_") for name in storage.read)


# -- what is read --------------------------------------------------------------------------------------------------


def test_a_reader_reads_only_what_is_new(home, storage):
    """Between two queries the reader of a growing log reads the lines that were appended, and the head."""
    log = HandmadeLog(home)
    log.segment(users(200), filler=64)
    log.head(HeadState.OPEN)
    reader = LogReader(home, storage=storage)
    assert len(reader.query(user_id="bob")) == 20
    path = home / log.name
    for n in range(3):
        line = log.line("NOTE", {"n": n}, "bob")
        content = path.read_bytes().rstrip(b"\n") + b"\n" + line + b"\n"
        path.write_bytes(content + b"\n" * 64)
        log.end = len(content)
        log.head(HeadState.OPEN)
        storage.read.clear()
        assert len(reader.query(user_id="bob")) == 21 + n
        # The new line, with the filler behind it, to index it; its block once more to give it.
        assert storage.read[log.name] < 2 * len(line) + 128 + search.MEMBER_BYTES


def test_what_was_found_once_is_not_read_again(home, storage, monkeypatch):
    """The same question again reads no segment at all."""
    monkeypatch.setattr(search, "_SPARSE", 1)
    sealed_log(home)
    reader = LogReader(home, storage=storage)
    first = reader.query(user_id="bob")
    storage.read.clear()
    assert reader.query(user_id="bob") == first
    assert set(storage.read) == {"head"}


def test_a_search_streams_and_stops_when_it_has_enough(home, storage):
    """With max_results no segment behind the last match is read."""
    log = sealed_log(home, (40, 40, 40, 5))
    reader = LogReader(home, storage=storage)
    reader.query(user_id="nobody")
    storage.read.clear()
    assert sequences(reader.query(user_id="ann", max_results=2)) == [2, 3]
    names = sorted(path.name for path in home.glob("*.log*"))
    assert {name for name in storage.read if name in names} == {names[0]}
    storage.read.clear()
    last = len(log.lines)
    assert sequences(reader.query(user_id="ann", max_results=2, newest_first=True)) == [last, last - 2]
    assert {name for name in storage.read if name in names} == {names[-1]}


def test_a_window_leaves_out_segments(home, storage):
    """A time window reads the segments that hold such times, after one look at each index."""
    sealed_log(home)
    reader = LogReader(home, storage=storage)
    reader.query(user_id="nobody")
    storage.read.clear()
    assert sequences(reader.query(START + 44, START + 46)) == [45, 46]
    assert [name for name in storage.read if name.endswith(".gz")] == [sorted(home.glob("*.gz"))[1].name]


def test_memory_for_indexes_and_lines_is_bounded(home, monkeypatch):
    """With room for almost nothing every answer is the same."""
    sealed_log(home, (40, 40, 40, 5))
    expected = query(home, user_id="bob")
    monkeypatch.setattr(search, "INDEX_BYTES", 1)
    monkeypatch.setattr(search, "LINE_BYTES", 1)
    reader = LogReader(home)
    for _ in range(2):
        assert reader.query(user_id="bob") == expected
        assert sum(known.index is not None for known in reader._searcher._known.values()) <= 2
        assert len(reader._searcher._lines) <= 1


def test_a_segment_is_cut_alike_raw_and_sealed(home):
    """The blocks of a raw segment, indexed bit by bit as it grows, are the members that its sealing makes."""
    log = HandmadeLog(home)
    lengths = [100, 30_000, 60_000, 5_000, 31_000, 10, *[700] * 300]
    log.segment([("NOTE", {"text": "x" * length}) for length in lengths])
    reader = LogReader(home)
    for sequence in (*range(1, 30), 250, log.next_seq - 1):
        log.head(HeadState.OPEN, sequence=sequence)
        reader.query(user_id="nobody")
    grown = reader._searcher._known[1].index.blocks
    directory = LocalStorage().directory(home, create=False)
    compress_segment(directory, log.name)
    directory.close()
    sealed = Index.decode((home / log.name.replace(".log", ".idx.tmp")).read_bytes()).blocks
    assert grown == [block._replace(gzip_offset=0) for block in sealed]
    assert len(grown) > 8


# -- while the log lives ----------------------------------------------------------------------------------------------


def seal_for_real(home, log, names):
    directory = LocalStorage().directory(home, create=False)
    for name in names:
        facts = compress_segment(directory, name)
        line = log.line("SEALED", search.msgspec.structs.asdict(facts))
        path = home / log.name
        path.write_bytes(path.read_bytes() + line + b"\n")
        log.end = path.stat().st_size
        log.head(HeadState.OPEN)
        replace_raw(directory, name)
    directory.close()


@pytest.mark.parametrize("when", ["between two queries", "between listing and opening"])
def test_a_segment_sealed_meanwhile_is_searched(home, storage, when):
    """A reader that knows a segment raw finds the same records once it is compressed, at whatever moment."""
    log = HandmadeLog(home)
    name = log.segment([("NOTE", {"text": "x" * 500}, "bob" if n % 10 == 3 else "ann") for n in range(400)])
    log.segment(users(5))
    log.head(HeadState.OPEN)
    reader = LogReader(home, storage=storage)
    expected = sequences(query(home, user_id="ann"))
    assert sequences(reader.query(user_id="ann", max_results=1)) == expected[:1]
    if when == "between two queries":
        seal_for_real(home, log, [name])
    else:

        def seal_now(opened):
            if opened == name:
                storage.before_open = lambda name: None
                seal_for_real(home, log, [name])

        storage.before_open = seal_now
    assert sequences(reader.query(user_id="ann")) == expected
    assert not (home / name).exists()
    assert sequences(reader.query(user_id="ann")) == expected
    assert sequences(reader.query(user_id="ann", newest_first=True)) == expected[::-1]


def test_a_log_that_was_replaced_is_read_anew(home, tmp_path):
    """A reader whose directory holds another log now does not answer from the old one."""
    log = HandmadeLog(home)
    log.segment(users(30))
    log.head()
    log.head()
    reader = LogReader(home)
    assert len(reader.query(user_id="bob")) == 3
    home.rename(tmp_path / "old")
    other = HandmadeLog(home)
    other.segment(rows(3, user="bob"))
    other.head()
    assert len(reader.query(user_id="bob")) == 3
    assert sequences(reader.query(user_id="ann")) == []
    assert [entry.details for entry in reader.query(user_id="bob")] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_many_threads_share_a_reader_while_the_log_grows(tmp_path):
    """Each thread's answers hold every record appended before it asked, in order and once."""
    home = tmp_path / "audit"
    wrong = []
    with WriteAheadLog(home, clock=SystemClock(), rotate_bytes=20_000) as log:
        log.append("NOTE", {"n": -1}, user="u")
        done = threading.Event()

        def ask():
            while not done.is_set():
                before = log.durable_seq
                found = log.query(user_id="u")
                numbers = [entry.details["n"] for entry in found]
                if numbers != list(range(-1, len(numbers) - 1)) or (
                    found and found[-1].sequence < before - 40
                ):
                    wrong.append(numbers)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(0, 600, 20):
            log.append_many([Entry("NOTE", {"n": n + k, "text": "x" * 50}, "u") for k in range(20)])
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(log.query(user_id="u")) == 601


FORKED_IN_A_QUERY = """
import os, sys, threading
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock

log = WriteAheadLog(sys.argv[1], clock=SystemClock(), seal=False)
log.append("NOTE", {})
log.query()
held, done = threading.Event(), threading.Event()

def query_for_long():
    with log._reader._searcher._lock:
        held.set()
        done.wait()

thread = threading.Thread(target=query_for_long)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(7 if [entry.event_type for entry in log.query()] == ["SEGMENT", "NOTE"] else 8)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
log.close()
sys.exit(code)
"""


def test_a_forked_copy_can_query_whatever_the_parent_was_doing(tmp_path):
    """A child forked while another thread is inside a query reads the log and hangs nowhere."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED_IN_A_QUERY, str(tmp_path / "log")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 7


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.contract("A12")
@pytest.mark.parametrize("where", ["raw", "sealed"])
def test_damage_in_what_had_to_be_read_is_reported(home, where):
    """A changed byte in a record that matches ends the search with its place, though an index leads there."""
    log = sealed_log(home, (40, 5))
    if where == "raw":
        path = home / log.name
        content = path.read_bytes()
        victim = next(line for line in log.lines[41:] if b'"bob"' in line)
        path.write_bytes(content.replace(victim, victim.replace(b'"n":', b'"m":')))
        bad = decode_line(victim).seq
    else:
        path = next(home.glob("*.gz"))
        content = bytearray(path.read_bytes())
        content[content.index(b"\x1f\x8b\x08", 10) + 30] ^= 0x10  # in the second member: sequences 5 to 8
        path.write_bytes(content)
        bad = None
    with pytest.raises(AuditCorruption) as caught:
        query(home, user_id="bob")
    assert caught.value.file == path.name
    if bad is not None:
        assert caught.value.sequence == bad


def test_a_line_changed_after_it_was_indexed_is_noticed(home):
    """An order id that a damaged line does not hold any more is reported, not passed over."""
    log = HandmadeLog(home)
    log.segment([("ORDER", {"order_id": f"hf-{n % 3}"}, "ann") for n in range(30)])
    log.head()
    reader = LogReader(home)
    reader.query(user_id="nobody")
    path = home / log.name
    path.write_bytes(path.read_bytes().replace(b'"hf-1"', b'"hf-7"', 1))
    with pytest.raises(AuditCorruption, match="crc"):
        reader.query(order_id="hf-1")


def test_a_lost_line_is_named(home):
    """A line cut out behind the reader's back is reported at the first sequence that is out of place."""
    log = HandmadeLog(home)
    log.segment(users(30))
    log.head()
    reader = LogReader(home)
    reader.query(user_id="nobody")
    path = home / log.name
    path.write_bytes(path.read_bytes().replace(log.lines[3] + b"\n", b""))
    with pytest.raises(AuditCorruption) as caught:
        reader.query(user_id="bob")
    assert caught.value.sequence == 4


def test_an_order_id_spelled_with_escapes_is_found(home):
    """Another writer may spell the letters of an id as \\u escapes; it is the same id."""
    log = HandmadeLog(home)
    log.segment([])
    spelled = encode_line(2, 1, START_NS, "ORDER", "", "", b'{"order_id":"\\u0068f-1"}')
    (home / log.name).write_bytes(log.lines[0] + b"\n" + spelled + b"\n")
    log.next_seq, log.end = 3, (home / log.name).stat().st_size
    log.head()
    assert sequences(query(home, order_id="hf-1")) == [2]


def test_an_empty_order_id_is_found(home):
    """Many updates carry an empty id of the venue; asking for it gives them."""
    log = HandmadeLog(home)
    log.segment(
        [("ORDER_UPDATE", {"order_id": ""}), ("ORDER_UPDATE", {"order_id": "x"}), ("NOTE", {"a": ""})]
    )
    log.head()
    assert sequences(query(home, order_id="")) == [2]


# -- what is asked ------------------------------------------------------------------------------------------------------


def test_several_types_are_one_question(home):
    """A sequence of types matches a record of any of them, in sequence order."""
    log = HandmadeLog(home)
    log.segment([("TRADE", {}), ("ORDER", {}), ("NOTE", {}), ("TRADE", {})])
    log.head()
    assert sequences(query(home, event_type=["ORDER", "TRADE"])) == [2, 3, 5]
    assert sequences(query(home, event_type=("NOTE",))) == [4]


@pytest.mark.parametrize(
    ("type_", "suggested"),
    [("TRADES", "TRADE"), ("trade", "TRADE"), ("NOET", "NOTE"), ("API-CALL", "API_CALL")],
)
def test_a_misspelt_type_is_refused_with_a_suggestion(home, type_, suggested):
    """A type that occurs nowhere and resembles one that could is a mistake, not an empty answer."""
    log = HandmadeLog(home)
    log.segment(rows(3))
    log.head()
    with pytest.raises(BadInput, match="no record has the type") as caught:
        query(home, event_type=["ORDER", type_])
    assert f"did you mean {suggested}?" in caught.value.hint
    assert query(home, event_type="SOMETHING_ELSE") == []
    assert sequences(query(home, event_type="NOTE")) == [2, 3, 4]


@pytest.mark.parametrize("bad", [[], 7, [7], b"TRADE", ["TRADE", None]])
def test_what_is_no_type_is_refused(home, bad):
    """An empty list, numbers and bytes name no record type."""
    HandmadeLog(home).segment([])
    with pytest.raises(BadInput, match="event_type"):
        query(home, event_type=bad)


@pytest.mark.parametrize("name", ["user_id", "component", "order_id"])
def test_a_condition_that_is_no_text_is_refused_by_name(home, name):
    """Numbers are not looked for as text."""
    with pytest.raises(BadInput, match=name):
        query(home, **{name: 7}, missing_ok=True)


def test_an_impossible_range_is_refused_by_name(home):
    """An end before the start is the caller's mistake; an empty range is not."""
    log = HandmadeLog(home)
    log.segment(rows(3))
    log.head()
    with pytest.raises(BadInput, match=r"end_time 5 is before start_time 6") as caught:
        query(home, 6, 5)
    assert "exchange" in caught.value.hint
    assert query(home, START + 1, START + 1) == []


# -- pruned logs ----------------------------------------------------------------------------------------------------------


def test_what_was_pruned_is_named_when_it_is_asked_for(home):
    """A search that may need archived records says where they are; one that cannot need them works."""
    log = HandmadeLog(home)
    first = log.segment(rows(4))
    tree_after_first = log.frontier.copy()
    details = log.seal(first, indexed=True)
    log.segment([("SEALED", details), *rows(3)])
    log.head()
    marker = PrunedDetails(
        segment=first, first_seq=1, last_seq=5, archive="s3://bucket/log", key=None, quarantine=[],
        peaks=[peak.hex() for peak in tree_after_first.peaks()],
        **{name: details[name] for name in ("raw_sha256", "raw_bytes", "gzip_sha256", "gzip_bytes", "index_sha256")},
    )  # fmt: skip
    (home / marker_name(first)).write_bytes(encode_marker(marker))
    (home / f"{first}.gz").unlink()
    (home / first.replace(".log", ".idx")).unlink()
    with pytest.raises(InArchive, match="s3://bucket/log"):
        query(home)
    with pytest.raises(InArchive):
        query(home, START + 2, user_id="u")
    assert sequences(query(home, START + 5)) == [6, 7, 8, 9, 10]
    assert sequences(query(home, newest_first=True, max_results=2)) == [10, 9]
    with pytest.raises(InArchive):
        query(home, newest_first=True)


def test_sealing_makes_the_index_that_queries_trust(tmp_path):
    """What the real writer and sealer leave is searched through indexes whose hashes its SEALED records give."""
    home = tmp_path / "audit"
    with WriteAheadLog(home, clock=ManualClock(), rotate_bytes=8192) as log:
        for n in range(200):
            log.append("ORDER", {"order_id": f"hf-{n % 20}", "text": "x" * 100}, user=f"u{n % 5}")
    assert len(list(home.glob("*.idx"))) >= 3
    storage = CountingStorage()
    reader = LogReader(home, storage=storage)
    found = reader.query(order_id="hf-7", user_id="u2")
    assert [entry.details["order_id"] for entry in found] == ["hf-7"] * 10
    for path in home.glob("*.idx"):
        assert storage.read[path.name] == path.stat().st_size

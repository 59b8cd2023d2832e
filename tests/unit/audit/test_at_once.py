"""Records that are written at once, past the empty queue: what holds for every other record holds for them."""

import asyncio
import threading
from random import Random

import pytest

from holdfast.audit import state
from holdfast.audit.format import leaf_hash
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_lines, read_records
from holdfast.audit.redact import Redactor
from holdfast.audit.schemas import RiskEventDetails
from holdfast.audit.tree import Frontier
from holdfast.audit.verify import verify
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditWriteError, BadInput
from holdfast.testing.storage import FaultyStorage, SimulatedStorage

SEED = 3


def write_some(log, rng, count, clock):
    """Appends of every level and kind, in random order; (sequence, number) of each."""
    told = []
    for number in range(count):
        details = {"n": number, "text": "x" * rng.choice([0, 30, 300, 6000])}
        how = rng.randrange(8)
        if how == 0:
            seq = asyncio.run(log.append_async("NOTE", details, level=rng.choice(list(Level)[:3])))
        elif how == 1:
            seq = log.append("NOTE", details, level=Level.WRITTEN, leaves=[])
        else:
            seq = log.append(
                "NOTE", details, level=rng.choice([Level.BUFFERED, *[Level.WRITTEN] * 4, Level.DURABLE])
            )
        told.append((seq, number))
        clock.advance(rng.choice([0, 0, 1, 30_000]))
        if rng.random() < 0.02:
            log.root()
    return told


@pytest.mark.invariant("I7")
@pytest.mark.contract("A13")
@pytest.mark.parametrize("signed", [True, False])
def test_records_of_every_level_keep_one_order_and_one_tree(tmp_path, signed):
    """Mixed with queued ones, over rotations by size and by day, they have their sequences, their leaves and their root."""
    print(f"seed {SEED}")
    rng, clock = Random(SEED), ManualClock()
    keys = KeyHome(tmp_path / "keys") if signed else None
    with WriteAheadLog(tmp_path / "log", clock=clock, seal=False, rotate_bytes=20_000, keys=keys) as log:
        told = write_some(log, rng, 300, clock)
        size, root = log.root()
        log.sync()
        log_root = log.root()
    records = {record.seq: record for record in read_records(tmp_path / "log")}
    assert [(seq, records[seq].details["n"]) for seq, _ in told] == told
    frontier = Frontier()
    for number, line in enumerate(read_lines(tmp_path / "log"), start=1):
        frontier.append(leaf_hash(line))
        if number == size:
            assert frontier.root() == root
        if number == log_root[0]:
            assert frontier.root() == log_root[1]
    assert len(list((tmp_path / "log").glob("audit_*.log"))) > 5
    assert verify(tmp_path / "log").ok


@pytest.mark.invariant("I8")
def test_they_count_for_the_bound_on_what_is_unsigned(tmp_path):
    """A sync two seconds behind an unsigned record signs before the head moves, also if nothing was ever queued."""
    clock = ManualClock()
    with WriteAheadLog(tmp_path / "log", clock=clock, seal=False, keys=KeyHome(tmp_path / "keys")) as log:
        log.append("NOTE", {})
        log.checkpoint()
        signed = log._signer.signed
        log.append("NOTE", {"n": 1}, level=Level.WRITTEN)
        clock.advance(3)
        log.append("NOTE", {"n": 2}, level=Level.WRITTEN)
        log.sync()
        assert log._signer.signed > signed
        assert log._signer.signed == log.last_seq


@pytest.mark.parametrize("most", [0, 10_000])
def test_the_tree_of_a_close_is_whole_although_leaves_were_forgotten(tmp_path, monkeypatch, most):
    """A log remembers a bounded number of leaves; its tiles are complete and right all the same."""
    monkeypatch.setattr(state, "MOST_LEAVES_BYTES", most)
    keys = KeyHome(tmp_path / "keys")
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False, keys=keys) as log:
        for number in range(700):
            log.append("NOTE", {"n": number}, level=(Level.WRITTEN, Level.BUFFERED)[number % 2])
            assert len(log._leaves) <= most
        log.sync()
        pins = keys.log(log.log_id).pins()
    report = verify(tmp_path / "log", keys=pins)
    assert report.ok, report.problems
    tiles = [path for path in (tmp_path / "log").rglob("*") if "tile" in str(path) and path.is_file()]
    assert sum(path.stat().st_size for path in tiles) >= 700 * 32


def test_segments_grow_as_full_as_by_the_queue(tmp_path):
    """Records of one size rotate at the same sequence, written at once or queued."""
    firsts = []
    for level in (Level.WRITTEN, Level.DURABLE):
        with WriteAheadLog(tmp_path / level.name, clock=ManualClock(), seal=False, rotate_bytes=8192) as log:
            for number in range(200):
                log.append("NOTE", {"n": number}, level=level)
        firsts.append(sorted(path.name[-16:] for path in (tmp_path / level.name).glob("audit_*")))
    assert firsts[0] == firsts[1]
    assert len(firsts[0]) > 2


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("error", [5, 28, "short"])
def test_a_failed_write_poisons(error):
    """A write that fails or is short is acknowledged to nobody, and nothing is acknowledged after it."""
    storage = FaultyStorage(
        SimulatedStorage(), error=error, counts=lambda op, name: op == "pwrite" and "audit_" in name
    )
    log = WriteAheadLog("/log", clock=ManualClock(), storage=storage, seal=False)
    log.append("NOTE", {})
    told = []
    log.on_poison(told.append)
    storage._fail_at = len(storage.calls) + 1
    with pytest.raises(AuditWriteError):
        log.append("NOTE", {"n": 1}, level=Level.WRITTEN)
    assert (log.state, len(told)) == ("poisoned", 1)
    with pytest.raises(AuditWriteError):
        log.append("NOTE", {"n": 2}, level=Level.WRITTEN)
    log.close()


@pytest.mark.invariant("I7")
def test_threads_that_write_at_once_and_queue_never_collide(tmp_path):
    """Eight threads of both kinds: each record once, in gapless order, each thread's own in its order."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as log:

        def work(name):
            for number in range(100):
                level = (Level.WRITTEN, Level.BUFFERED, Level.WRITTEN, Level.DURABLE)[
                    (number + len(name)) % 4
                ]
                log.append("NOTE", {"by": name, "n": number}, level=level)

        threads = [threading.Thread(target=work, args=("x" * n,)) for n in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = [record for record in read_records(tmp_path / "log") if record.type == "NOTE"]
    assert len(records) == 800
    for name in {record.details["by"] for record in records}:
        assert [record.details["n"] for record in records if record.details["by"] == name] == list(range(100))
    assert verify(tmp_path / "log").ok


EVENTS = [
    RiskEventDetails("trailing_stop_update", "ic-1", entry_premium="100.0000", failure_count=0),
    RiskEventDetails("portfolio_limit_check", allowed=False, metadata={"rows": [1, "é", None]}),
    RiskEventDetails("circuit_breaker_failure", metadata={"reason": "Authorization: Bearer abcdefghijkl"}),
    RiskEventDetails("trailing_stop_add", execution_id="token=hunter2hunter2"),
    RiskEventDetails("trailing_stop_add", execution_id="letmein-12345678"),
]


@pytest.mark.invariant("I14")
@pytest.mark.parametrize("details", EVENTS, ids=range(len(EVENTS)))
def test_a_risk_event_is_recorded_as_any_record_of_its_type(details, tmp_path):
    """The quick way writes the very details, user and component of the plain one, secrets hidden, twice too."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as log:
        audit = AuditLogger(log, user="desk", redactor=Redactor(["letmein-12345678", "31415926"]))
        audit.record_risk_event(details, component="trailing_stop")
        audit.record_risk_event(details, component="trailing_stop")
        fields = {name: getattr(details, name) for name in details.__struct_fields__}
        blank = RiskEventDetails("")
        plain = {name: value for name, value in fields.items() if value != getattr(blank, name)}
        audit.record("RISK_EVENT", plain, component="trailing_stop")
        log.sync()
        lines = [line[line.index(b'"type"') :] for line in read_lines(log.directory)][1:]
    assert lines[0] == lines[1] == lines[2]
    assert b"abcdefghijkl" not in lines[0]
    assert b"hunter2" not in lines[0]
    assert b"letmein" not in lines[0]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\ud800", object()])
def test_a_risk_event_that_no_record_may_hold_is_refused(value, tmp_path):
    """NaN, a set, half a letter and a thing without JSON form are refused by name, and the log goes on."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as log:
        audit = AuditLogger(log)
        with pytest.raises(BadInput):
            audit.record_risk_event(RiskEventDetails("trailing_stop_add", metadata={"x": value}))
        assert audit.record_risk_event(RiskEventDetails("trailing_stop_add")) == 2

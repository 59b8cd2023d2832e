"""Turns: who is asked when, and what stops everything."""

import pytest
from contract.anchor_sink_contract import MemorySource
from support.anchors import LOG_ID, MemoryLog

from holdfast.anchors.receipts import Receipts
from holdfast.anchors.sink import Outcome, Receipt
from holdfast.anchors.submit import Anchorer
from holdfast.audit.anchor import Mark
from holdfast.audit.keys import KeyHome
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AnchorUnreachable, AuditCorruption


class ScriptedSink:
    """Answers as told, the last answer from then on."""

    def __init__(self, name, *outcomes):
        self.name = name
        self.outcomes = list(outcomes)
        self.asked = []

    def submit(self, submission):
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        size = submission.checkpoint.size
        self.asked.append(size)
        if isinstance(outcome, int):  # it knows that size
            went_back = outcome > size
            outcome, known = (Outcome.WENT_BACK, outcome) if went_back else (Outcome.ANCHORED, 0)
            return Receipt(self.name, outcome, size, "told", submission.note, known_size=known)
        return Receipt(self.name, outcome, size, "told", submission.note)

    def marks(self, log_id):
        return ()


@pytest.fixture
def receipts(tmp_path):
    return Receipts(KeyHome(tmp_path / "home"))


def an_anchorer(log, receipts, *sinks, clock=None, **options):
    return Anchorer(
        MemorySource(log), sinks, receipts, clock=clock or ManualClock(), jitter=lambda: 0.0, **options
    )


def test_a_sink_that_cannot_be_asked_is_asked_again_ever_less_often(receipts):
    """Waits double from 1 s to 300 s, and begin anew after a success."""
    clock, log = ManualClock(), MemoryLog(3)
    sink = ScriptedSink("s", *[Outcome.UNKNOWN] * 11, Outcome.ANCHORED, Outcome.UNKNOWN)
    anchorer = an_anchorer(log, receipts, sink, clock=clock)
    waits = []
    for _ in range(13):
        anchorer.step()
        waits.append(anchorer.wait_secs())
        clock.advance(waits[-1])
        log.grow(1)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 60, 1]


def test_a_turn_has_not_come_before_its_time(receipts):
    """Nothing is submitted before the wait is over, and one sink's failures do not hold up another."""
    clock, log = ManualClock(), MemoryLog(3)
    bad, good = ScriptedSink("bad", Outcome.UNKNOWN), ScriptedSink("good", Outcome.ANCHORED)
    anchorer = an_anchorer(log, receipts, bad, good, clock=clock, every_secs=5)
    anchorer.step()
    assert anchorer.step() == []
    for _ in range(5):
        clock.advance(1)
        log.grow(1)
        anchorer.step()
    assert (bad.asked, good.asked) == ([3, 4, 6], [3, 8])


def test_a_sink_that_has_the_newest_is_left_alone(receipts):
    """Where the log did not grow nothing is submitted; when it did, it is."""
    clock, log = ManualClock(), MemoryLog(3)
    sink = ScriptedSink("s", Outcome.ANCHORED)
    anchorer = an_anchorer(log, receipts, sink, clock=clock, every_secs=5)
    for grown in (0, 0, 2, 0):
        log.grow(grown)
        anchorer.step()
        clock.advance(5)
    assert sink.asked == [3, 5]


def test_another_process_that_anchored_meanwhile_is_no_rollback(receipts):
    """A sink that knows more than was submitted is asked again with the log's newest checkpoint."""
    log = MemoryLog(3)
    sink = ScriptedSink("s", 7)

    class Racing(MemorySource):
        def newest(self):
            newest = log.submission()
            log.grow(4 if len(log.leaves) == 3 else 0)
            return newest

    anchorer = Anchorer(Racing(log), [sink], receipts, clock=ManualClock())
    assert [receipt.outcome for receipt in anchorer.step()] == [Outcome.ANCHORED]
    assert sink.asked == [3, 7]


def test_a_receipt_of_more_records_stops_before_anything_is_sent(receipts):
    """Where a kept receipt remembers what the log does not hold, no sink is asked at all."""
    sink = ScriptedSink("s", Outcome.ANCHORED)
    an_anchorer(MemoryLog(9), receipts, sink).step()
    for false in (MemoryLog(5), MemoryLog(5).grow(9, b"x")):
        with pytest.raises(AuditCorruption, match="receipt"):
            an_anchorer(false, receipts, sink).step()
    assert sink.asked == [9]


def test_only_what_was_confirmed_is_kept(receipts):
    """UNKNOWN, REFUSED and WENT_BACK leave no receipt."""
    for number, outcome in enumerate((Outcome.UNKNOWN, Outcome.REFUSED, Outcome.WENT_BACK)):
        an_anchorer(MemoryLog(3), receipts, ScriptedSink(f"s{number}", outcome)).step()
    assert list(receipts.marks(LOG_ID)) == []


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ((Outcome.ANCHORED,), None),
        ((Outcome.ANCHORED, Outcome.UNKNOWN), None),
        ((Outcome.UNKNOWN, Outcome.REFUSED), AnchorUnreachable),
        ((), AnchorUnreachable),
        ((Outcome.ANCHORED, Outcome.WENT_BACK), AuditCorruption),
    ],
)
def test_an_anchored_record_is_confirmed_by_one_sink_and_doubted_by_none(receipts, outcomes, error):
    """`confirm` returns with one ANCHORED; with none it is unreachable, with one WENT_BACK it is corruption."""
    log = MemoryLog(3)
    sinks = [ScriptedSink(f"s{number}", outcome) for number, outcome in enumerate(outcomes)]
    anchorer = an_anchorer(log, receipts, *sinks)
    if error is None:
        anchorer.confirm(log.note())
        assert Mark(3, log.checkpoint().root, next(receipts.marks(LOG_ID)).source) in receipts.marks(LOG_ID)
    else:
        with pytest.raises(error):
            anchorer.confirm(log.note())

"""What every anchor sink must pass. Subclass `AnchorSinkContract` and give it a `stage`.

Nothing here knows which sink it is; what an authority that remembers nothing cannot do, it does with its receipts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from support.anchors import MemoryLog

from holdfast.anchors.read import read_anchor
from holdfast.anchors.receipts import AUTHORITY, Receipts, folder_name
from holdfast.anchors.sink import AnchorSink, Outcome
from holdfast.anchors.submit import Anchorer
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import open_note
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AnchorUnreachable, AuditCorruption


@dataclass
class Stage:
    """A sink and what the tests need beside it.

    Attributes:
        sink: Under test; it knows `log` and `other`, where it must know logs beforehand.
        remembers: Whether it is itself able to tell that a log went back.
    """

    sink: AnchorSink
    remembers: bool = True


class MemorySource:
    """What an `Anchorer` asks of a log's directory."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log

    def newest(self):
        return self.log.submission()


class AnchorSinkContract:
    """Every promise of `anchors/sink.py` that can be seen from outside."""

    @contextmanager
    def stage(self, receipts: Receipts, *logs: MemoryLog) -> Iterator[Stage]:
        """A sink that can be reached and is new."""
        raise NotImplementedError

    @contextmanager
    def unreachable(self, receipts: Receipts) -> Iterator[AnchorSink]:
        """A sink of this kind that cannot be reached now."""
        raise NotImplementedError

    @pytest.fixture
    def home(self, tmp_path):
        return KeyHome(tmp_path / "home")

    @pytest.fixture
    def receipts(self, home):
        return Receipts(home)

    def test_a_sink_anchors_a_log_as_it_grows(self, receipts):
        """Each newer checkpoint is ANCHORED with a receipt of its size that holds the signed checkpoint."""
        log = MemoryLog(3)
        with self.stage(receipts, log) as stage:
            for more in (0, 1, 40):
                log.grow(more)
                receipt = stage.sink.submit(log.submission())
                assert (receipt.outcome, receipt.sink) == (Outcome.ANCHORED, stage.sink.name), receipt.why
                assert receipt.size == len(log.leaves)
                assert open_note(receipt.note, [log.vkey]).text == log.checkpoint().text()
                receipts.keep(log.log_id, receipt, ManualClock().now_ns())
            again = stage.sink.submit(log.submission())
            assert again.outcome is Outcome.ANCHORED, "the same checkpoint once more"

    def test_a_sink_that_cannot_be_reached_is_unknown(self, receipts):
        """An unreachable sink answers UNKNOWN with a reason and no note, and nothing is kept."""
        log = MemoryLog(3)
        with self.unreachable(receipts) as sink:
            receipt = sink.submit(log.submission())
            assert receipt.outcome is Outcome.UNKNOWN
            assert receipt.why
            assert not receipt.note
            anchorer = Anchorer(MemorySource(log), [sink], receipts, clock=ManualClock())
            anchorer.step()
            assert not list(receipts.marks(log.log_id))
            with pytest.raises(AnchorUnreachable, match="not anchored"):
                anchorer.confirm(log.note())

    @pytest.mark.contract("X2")
    @pytest.mark.invariant("I8")
    @pytest.mark.parametrize("attack", ["shorter", "other records", "other records, longer"])
    def test_a_log_that_went_back_is_named(self, receipts, attack):
        """A log rolled back, or rebuilt with other records, is WENT_BACK, by the sink itself or by its receipt."""
        log = MemoryLog(20)
        false = {
            "shorter": MemoryLog(12),
            "other records": MemoryLog(12).grow(8, b"x"),
            "other records, longer": MemoryLog(12).grow(30, b"x"),
        }[attack]
        with self.stage(receipts, log) as stage:
            source = MemorySource(log)
            anchorer = Anchorer(source, [stage.sink], receipts, clock=ManualClock())
            assert [receipt.outcome for receipt in anchorer.step()] == [Outcome.ANCHORED]
            if stage.remembers:
                receipt = stage.sink.submit(false.submission())
                assert receipt.outcome is Outcome.WENT_BACK
                assert receipt.known_size == 20
                assert attack != "shorter" or "covers 12" in receipt.why
                assert not receipt.note
            source.log = false
            with pytest.raises(AuditCorruption, match="went back"):
                anchorer.confirm(false.note())

    @pytest.mark.contract("X2")
    def test_a_sink_remembers_without_the_receipts(self, receipts, tmp_path):
        """Whoever lost the receipts learns from the sink that the log went back, where the sink remembers at all."""
        log, false = MemoryLog(20), MemoryLog(12).grow(30, b"x")
        with self.stage(receipts, log) as stage:
            if not stage.remembers:
                stage.sink.submit(log.submission())
                assert list(stage.sink.marks(log.log_id)) == [], "what remembers nothing says nothing"
                return
            receipts.keep(log.log_id, stage.sink.submit(log.submission()), 0)
            (tmp_path / "home").rename(tmp_path / "lost")
            assert stage.sink.submit(false.submission()).outcome is Outcome.WENT_BACK
            assert stage.sink.submit(log.submission(12)).outcome is Outcome.WENT_BACK
            assert stage.sink.submit(log.grow(5).submission()).outcome is Outcome.ANCHORED

    def test_logs_are_kept_apart(self, receipts):
        """A second log on the same machine is never held against the first one's marks."""
        log, other = MemoryLog(20), MemoryLog(4, log_id="cd" * 16)
        with self.stage(receipts, log, other) as stage:
            for one in (log, other):
                receipt = stage.sink.submit(one.submission())
                assert receipt.outcome is Outcome.ANCHORED
                receipts.keep(one.log_id, receipt, 0)
            assert {mark.size for mark in stage.sink.marks(log.log_id)} <= {20}
            assert {mark.size for mark in stage.sink.marks(other.log_id)} <= {4}
            assert list(stage.sink.marks("ef" * 16)) == []

    def test_what_a_sink_confirms_can_be_read_as_an_anchor(self, receipts, home):
        """The receipt kept for `audit verify --anchor` says origin, size and root, and who confirmed it."""
        log = MemoryLog(20)
        with self.stage(receipts, log) as stage:
            receipt = stage.sink.submit(log.submission())
            receipts.keep(log.log_id, receipt, ManualClock().now_ns())
            folder = home.log(log.log_id).path / "anchors" / folder_name(stage.sink.name)
            kept = [path for path in sorted(folder.iterdir()) if path.name != AUTHORITY]
            assert kept
            for path in kept:
                (anchor,) = read_anchor(path)
                assert (anchor.origin, anchor.size) == (log.origin, 20)
                assert anchor.root == log.checkpoint().root
                assert path.stem in anchor.source
                assert path.stat().st_mode & 0o777 == 0o600
            assert [mark.size for mark in receipts.marks(log.log_id)] == [20]

    def test_a_name_shows_no_key(self, receipts):
        """A sink's name is its kind and address; what its answers are verified by is not in it."""
        with self.stage(receipts, MemoryLog(1)) as stage:
            assert stage.sink.name.partition(":")[0] in {"file", "witness", "rfc3161", "s3"}
            assert "+" not in stage.sink.name, "verifier keys have plus signs"
            assert ".pem" not in stage.sink.name

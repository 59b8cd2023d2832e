"""Who vouches for the records: the chain of keys, the checkpoints, and what somebody outside the log remembers.

The chain is walked from its first KEY record. An epoch counts only where its key was given to us, or where the
epoch before it counts and signed for it; a key that only the log names may be a forger's own, and what it signed is
called signed by an unknown key. Every checkpoint and every anchor is held against the root over the records as they
are; the first that disagrees names the range in which a record was changed.

Promise: nothing the log says of itself is believed here. What is *anchored* agreed with something kept outside the
log; what is *signed only* agrees with a checkpoint by a key that counts; the rest is unsigned. `unknowns` says in
words what cannot be known from what was given.

Limits: anchors are believed as they are given, signatures of witnesses on them are for whoever reads their files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from holdfast.audit.anchor import Anchor
from holdfast.audit.history import CHECKPOINT_NAME, HISTORY_SUFFIX, history_name
from holdfast.audit.keys import FIRST, REPLACEMENT, ROTATION, check_key_note, log_name
from holdfast.audit.note import ED25519, VerifierKey, parse_checkpoint, parse_note
from holdfast.audit.pruned import frontier_of, marker_name
from holdfast.audit.schemas import KeyDetails, PrunedDetails, SegmentDetails
from holdfast.audit.storage import Directory
from holdfast.audit.tree import EMPTY_ROOT
from holdfast.audit.verify_course import Course, Problem
from holdfast.audit.verify_history import MAX_NOTE, HistoryFault, HistoryNote, HistoryReader
from holdfast.audit.verify_segments import OwnRecord, SegmentFacts, Stop
from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput

BOUND_RECORDS = 20_000
BOUND_NS = 2 * NANOS
"""How far the head may be beyond a synced record that no checkpoint covers."""


class _Ended(NamedTuple):
    """What must be remembered of a segment until it is known whether it was the last."""

    facts: SegmentFacts
    has_key: bool
    signed: int  # its last checkpoint's size


class Signatures:
    """The keys, checkpoints and anchors of one log, held against its tree as that grows.

    Args:
        course: The walk; problems are noted there.
        keys: Those that count.
        anchors: What is remembered outside the log.

    Attributes:
        epoch: The newest epoch, 0 before the first.
        signed_to: The size of the newest checkpoint by a key that counts.
        unknown_key_to: Of the newest one by a key that does not.
        anchored_to: The size of the newest anchor that agreed.
        covered: The size of the newest checkpoint whose signatures are right, whoever's they are.
        torn: Where a checkpoint stands that a crash may have cut short, in words, or "".
    """

    def __init__(self, course: Course, keys: Iterable[VerifierKey], anchors: Sequence[Anchor]) -> None:
        self.course = course
        self.epoch = 0
        self.signed_to = 0
        self.unknown_key_to = 0
        self.anchored_to = 0
        self.torn = ""
        self._keys = frozenset(keys)
        self._anchors = sorted(anchors, key=lambda anchor: anchor.size)
        self._origin = ""
        self._known: list[VerifierKey] = []  # of all epochs, the newest last
        self._counts = False  # whether the epoch at hand does
        self._ever_counted = False
        self._key_seq = 0  # of the KEY record of the epoch at hand
        self._first_key_seq = 0
        self._first_key_place = ("", 0)
        self._first_file = ""
        self._handed_over = (
            False  # whether the first checkpoint of this epoch is the one before's to sign too
        )
        self._faulty_from: int | None = None  # offset of the first fault in the history at hand
        self._doubts: list[Problem] = []  # wrongly signed notes with no other behind them in their history
        self._unsettled: list[Problem] = []  # what is wrong unless a writer was about to do it
        self._agreed = 0  # the largest size at which roots agreed
        self.covered = 0  # the newest checkpoint's size
        self._notes = 0
        self._disagrees = False
        self._ended: _Ended | None = None
        self._uncovered: tuple[int, str, int, int] | None = None  # sequence, file, offset, time
        self._newest: bytes | None = None  # the file `checkpoint`
        self._newest_size = 0
        self._newest_found = False
        self._newest_fault = ""

    def sizes(self) -> list[int]:
        """At which tree sizes anchors are to be compared, ascending."""
        return sorted({anchor.size for anchor in self._anchors if anchor.size > 0})

    def read_newest(self, directory: Directory, names: Iterable[str]) -> None:
        """Take the file `checkpoint`; before any history is read, which then holds at least as much."""
        if CHECKPOINT_NAME not in names:
            return
        try:
            file = directory.open(CHECKPOINT_NAME)
            try:
                self._newest = file.pread(MAX_NOTE + 1, 0)
            finally:
                file.close()
            self._newest_size = parse_checkpoint(parse_note(self._newest).text).size
        except FileNotFoundError:
            return
        except (BadInput, OSError) as why:
            self._newest = b"" if self._newest is None else self._newest
            self._newest_fault = f"not a checkpoint: {why}"

    # -- keys --------------------------------------------------------------------------------------------------

    def begin_log(self, claim: SegmentDetails) -> None:
        """The first segment says which log this is.

        Raises:
            BadInput: An anchor is one of another log.
        """
        self._origin = log_name(claim.origin, claim.log_id)
        for anchor in self._anchors:
            if anchor.origin != self._origin:
                raise BadInput(
                    f"anchor {anchor.source!r} is of log {anchor.origin!r}, this is {self._origin!r}",
                    hint="give it with the log that it is of",
                )

    def take_pruned(self, markers: Iterable[PrunedDetails], directory: Directory) -> None:
        """Walk the chain through segments that are in the archive; their checkpoints are still here."""
        for marker in markers:
            if marker.key is not None:
                self._take_key(marker.key, marker.first_seq + 1, marker_name(marker.segment), 0)
                if not self._first_key_seq:
                    self._first_key_seq = marker.first_seq + 1
                    self._first_key_place = (marker_name(marker.segment), 0)
                self._check_pruned_history(marker, directory)

    def _check_pruned_history(self, marker: PrunedDetails, directory: Directory) -> None:
        """Of the roots only the last can be compared: the marker carries the tree at that size."""
        name = history_name(marker.segment)
        try:
            file = directory.open(name)
        except OSError as why:
            missing = "missing" if isinstance(why, FileNotFoundError) else f"cannot be read: {why}"
            self.course.note(0, name, 0, missing)
            return
        history = HistoryReader(file)
        history.origin = self._origin
        try:
            while (note := history.next()) is not None:
                history.accept(note)
                self._faulty_from = history.faults[0].offset if history.faults else None
                root = frontier_of(marker).root() if note.size == marker.last_seq else note.root
                self._hold_note(name, note, root, alone=False)
            history.finish()
        finally:
            file.close()
        self._say_doubts()
        for fault in [*history.faults, *([] if history.torn is None else [history.torn])]:
            self.course.note(0, name, fault.offset, fault.reason)
        if history.filler:
            self.course.note(0, name, history.end, "filler in the checkpoint history of an archived segment")
        elif self.covered != marker.last_seq:
            self.course.note(
                0,
                name,
                history.end,
                f"its last checkpoint covers records up to {self.covered}, the segment ends at {marker.last_seq}",
            )

    def enter(self, facts: SegmentFacts) -> None:
        """A segment begins: its key, if it has one, is the next of the chain."""
        self._first_file = self._first_file or facts.file
        key = next((own for own in facts.own if own.type == "KEY" and own.number == 2), None)
        for own in facts.own:
            if own.type == "KEY" and own is not key:
                self.course.note(
                    own.seq, facts.file, own.offset, "KEY is not the second record of its segment"
                )
        replaced = False
        if key is not None:
            replaced = self._take_own_key(facts, key)
        elif self.epoch and facts.records > 1:
            self.course.note(
                facts.first_seq + 1,
                facts.file,
                facts.second_offset,
                "KEY is missing: an epoch of the chain of keys is not there",
            )
        for fault in facts.history_faults:
            self.course.note(0, history_name(facts.file), fault.offset, fault.reason)
        self._faulty_from = min((fault.offset for fault in facts.history_faults), default=None)
        if facts.records:
            wrong = self._leave(replaced=replaced)
            if wrong is not None and facts.first_seq > self.course.promised:
                self._unsettled.append(wrong)  # the segment before may have ended while it was read
            elif wrong is not None:
                self.course.note(*wrong)
            self._ended = _Ended(facts, key is not None, self.covered)

    def _take_own_key(self, facts: SegmentFacts, own: OwnRecord) -> bool:
        try:
            details = msgspec.json.decode(own.details, type=KeyDetails)
        except msgspec.ValidationError as why:
            self.course.note(own.seq, facts.file, own.offset, f"KEY does not fit its schema: {why}")
            return False
        self._take_key(details, own.seq, facts.file, own.offset)
        if not self._first_key_seq:
            self._first_key_seq, self._first_key_place = own.seq, (facts.file, own.offset)
        return details.reason == REPLACEMENT

    def _take_key(self, details: KeyDetails, sequence: int, file: str, offset: int) -> None:
        """The next epoch begins with the KEY record at *sequence*."""
        fault = ""
        before = self._known[-1] if self._known else None
        handed_over = details.reason == ROTATION
        if details.epoch != self.epoch + 1:
            fault = f"epoch {details.epoch} follows epoch {self.epoch}: a key of the chain is missing"
        elif details.reason not in {FIRST, ROTATION, REPLACEMENT} or (details.reason == FIRST) != (
            details.epoch == 1
        ):
            fault = f"epoch {details.epoch} begins with reason {details.reason!r}"
        vkey = None
        try:
            vkey = VerifierKey.parse(details.vkey)
            said = check_key_note(details, before if handed_over else None)
            if not fault and log_name(said.origin, said.log_id) != self._origin:
                fault = f"its note is of log {log_name(said.origin, said.log_id)!r}, this is {self._origin!r}"
            elif not fault and (vkey.name != self._origin or vkey.algorithm != ED25519):
                fault = f"its key is {vkey.name!r}, this log is {self._origin!r}"
        except (BadInput, ValueError) as why:
            fault = fault or str(why)
        counted = self._counts
        self.epoch = max(self.epoch + 1, min(details.epoch, 2**31))
        self._counts = not fault and (vkey in self._keys or (handed_over and counted))
        self._ever_counted = self._ever_counted or self._counts
        self._key_seq = sequence
        self._handed_over = handed_over and before is not None
        if vkey is not None:
            self._known = [*self._known[-1:], vkey]
        if fault:
            self.course.note(sequence, file, offset, f"KEY is not the next of the chain: {fault}")
        elif counted and not self._counts:
            self.course.note(
                sequence,
                file,
                offset,
                f"signed by an unknown key from here on: epoch {self.epoch} replaces a key",
            )

    # -- roots -------------------------------------------------------------------------------------------------

    def hold(self, facts: SegmentFacts, stop: Stop, root: bytes) -> None:
        """Hold what is said of the first `stop.size` records against their *root*."""
        for anchor in self._anchors:
            if anchor.size == stop.size:
                self._hold_anchor(anchor, root)
        if stop.note is not None:
            self._hold_note(history_name(facts.file), stop.note, root, alone=stop.alone)
            self._uncovered = None

    def _hold_anchor(self, anchor: Anchor, root: bytes) -> None:
        if anchor.root == root:
            self.anchored_to = max(self.anchored_to, anchor.size)
            self._agreed = max(self._agreed, anchor.size)
        else:
            self._say_disagreement(anchor.size, anchor.source, 0, "the anchor")

    def _hold_note(self, file: str, note: HistoryNote, root: bytes, *, alone: bool) -> None:
        fault = ""
        if self._faulty_from is not None and self._faulty_from < note.offset:
            self._handed_over = False  # which note was the first of its epoch is not known any more
        if note.origin != self._origin:
            fault = f"it is of log {note.origin!r}, this is {self._origin!r}"
        elif not (alone and note.size >= self._key_seq and not self._handed_over):
            fault = self._signature_fault(note)
        if fault:
            self._doubts.append(Problem(0, file, note.offset, f"checkpoint of size {note.size}: {fault}"))
            self._handed_over = False
            return
        self._say_doubts()
        self._handed_over = self._handed_over and note.size < self._key_seq
        self._notes += 1
        self.covered = note.size
        if note.size == self._newest_size:
            self._newest_found = note.raw == self._newest
        if note.root != root:
            if not self._disagrees:
                self._say_disagreement(note.size, file, note.offset, f"the checkpoint of size {note.size}")
            self._disagrees = True
            return
        self._disagrees = False
        self._agreed = max(self._agreed, note.size)
        if self._counts:
            self.signed_to = note.size
        else:
            self.unknown_key_to = note.size

    def _say_doubts(self) -> None:
        """What is wrongly signed has a valid note behind it, or is too much for one that a crash cut short."""
        for doubt in self._doubts:
            self.course.note(*doubt)
        self._doubts.clear()

    def _signature_fault(self, note: HistoryNote) -> str:
        """Why the signatures of *note* are not exactly those that it must have, in their order, or ""."""
        parsed, signers = note.note, self._signers(note.size)
        if not signers:
            return "no KEY record names its key"
        for number, key in enumerate(signers):
            who = f"{key.name!r} (key id {key.key_id:08x})"
            if number == len(parsed.signatures):
                return f"the epoch before did not sign it, with {who}"
            one = parsed.signatures[number]
            if (one.name, one.key_id) != (key.name, key.key_id):
                return f"signed by {one.name!r} (key id {one.key_id:08x}) where {who} must sign"
            if not key.verify(parsed.text, one.value):
                return f"wrong signature of {who}"
        return f"more than {len(signers)} signed it" if len(parsed.signatures) > len(signers) else ""

    def _signers(self, size: int) -> list[VerifierKey]:
        """Whose signatures the next checkpoint carries, if it is of this *size*, in order."""
        if size < self._key_seq:
            return self._known[-2:-1]
        return [*self._known[-1:], *(self._known[-2:-1] if self._handed_over else [])]

    def _say_disagreement(self, size: int, file: str, offset: int, who: str) -> None:
        first = self._agreed + 1
        which = f"record {first} is not" if first == size else f"one of the records {first} to {size} is not"
        self.course.note(first, file, offset, f"{which} what {who} covers: the roots differ")

    # -- the ends of segments ----------------------------------------------------------------------------------

    def leave(self, facts: SegmentFacts) -> None:
        """A segment was read and its stops were held."""
        torn = facts.history_torn
        if len(self._doubts) == 1 and (torn is None or not (torn.named or torn.several)):
            facts.history_torn = HistoryFault(self._doubts[0].offset, self._doubts[0].reason)
            self._doubts.clear()
        self._say_doubts()
        has_notes = any(stop.note is not None for stop in facts.stops)
        if has_notes or self._uncovered is None:
            first = facts.uncovered
            self._uncovered = None if first is None else (first[0], facts.file, first[2], first[1])
        if self._ended is not None and self._ended.facts is facts:
            self._ended = self._ended._replace(signed=self.covered)

    def _leave(self, *, replaced: bool) -> Problem | None:
        """Another segment follows the one that ended: what is wrong at the end of its history."""
        if self._ended is None:
            return None
        facts, has_key, signed = self._ended
        file, torn = history_name(facts.file), facts.history_torn
        if torn is not None:
            return Problem(0, file, torn.offset, torn.reason)
        if facts.history_filler:
            return Problem(
                0, file, facts.history_end, "filler in the checkpoint history of a segment that others follow"
            )
        if facts.beyond is not None:
            return self._what_is_beyond(facts, facts.beyond)
        if has_key and not replaced and signed != facts.last_seq:
            return _what_is_uncovered(facts, signed, f"the segment ends at {facts.last_seq}")
        return None

    def _what_is_beyond(self, facts: SegmentFacts, note: HistoryNote) -> Problem | None:
        if self.course.run_open:
            return None
        return Problem(
            facts.last_seq + 1,
            history_name(facts.file),
            note.offset,
            f"the checkpoint covers records up to {note.size}, its segment ends at {facts.last_seq}",
        )

    def finish(self, *, live: bool, head_ts: int | None, kept: int) -> None:
        """The last segment was read.

        Args:
            live: Whether a writer is at work.
            head_ts: Time of the record where the head ends, or None where that was not read.
            kept: How many records there are.
        """
        closed = self.course.is_closed
        intact = not self.course.corrupted and not self.course.run_open
        for wrong in [] if live else self._unsettled:
            self.course.note(*wrong)
        if self._ended is not None:
            self._judge_last(self._ended, live=live, intact=intact, kept=kept)
        if intact:
            self._judge_newest(live=live, closed=closed, kept=kept)
            self._judge_bound(head_ts)
            for anchor in self._anchors:
                if anchor.size > kept:
                    self.course.note(
                        kept + 1,
                        anchor.source,
                        0,
                        f"the log went back: it had {anchor.size} records, and now has {kept}",
                    )
                elif anchor.size == 0 and anchor.root != EMPTY_ROOT:
                    self._say_disagreement(1, anchor.source, 0, "the anchor")
        self._judge_trust(live=live, closed=closed, intact=intact)

    def _judge_last(self, ended: _Ended, *, live: bool, intact: bool, kept: int) -> None:
        """The history of the last segment; beside a writer only what was whole before anything was read."""
        facts, has_key, signed = ended
        closed = self.course.is_closed and not live
        file, torn, wrong = history_name(facts.file), facts.history_torn, None
        if torn is not None:
            known = signed < self._newest_size <= (kept if live else self._newest_size)
            if closed or known or (torn.several and not live):
                wrong = Problem(0, file, torn.offset, torn.reason)
            elif not live:
                self.torn = f"a torn checkpoint in {file!r} at byte {torn.offset}"
        elif live:
            return
        elif facts.beyond is not None and intact:
            wrong = self._what_is_beyond(facts, facts.beyond)
        elif closed and facts.history_filler:
            wrong = Problem(0, file, facts.history_end, "filler in the checkpoint history of a closed log")
        elif closed and has_key and intact and signed != self.course.promised:
            wrong = _what_is_uncovered(facts, signed, f"the closed log ends at {self.course.promised}")
        if wrong is not None:
            self.course.note(*wrong)

    def _judge_newest(self, *, live: bool, closed: bool, kept: int) -> None:
        """The file `checkpoint` is one note of the history; on a closed log the last."""
        fault = self._newest_fault
        if self._newest is None:
            if self._notes and (closed or self._notes > 1) and not live:
                fault = "missing, though checkpoints were made"
        elif not fault and not self._newest_found:
            if not live or self._newest_size <= kept:  # it was there before the history was read
                fault = f"its checkpoint of size {self._newest_size} is not in the log's history"
        elif not fault and closed and not live and self._newest_size != self.covered:
            fault = (
                f"its checkpoint of size {self._newest_size} is not the last, which has size {self.covered}"
            )
        if fault:
            self.course.note(0, CHECKPOINT_NAME, 0, fault)

    def _judge_bound(self, head_ts: int | None) -> None:
        """Of what is durable, only the newest may be without checkpoint."""
        if not self._first_key_seq or head_ts is None or self._uncovered is None:
            return
        if any(one.file.endswith((HISTORY_SUFFIX, CHECKPOINT_NAME)) for one in self.course.problems):
            return  # a checkpoint that is damaged may have covered them
        durable = self.course.promised
        first, file, offset, ts = self._uncovered
        if first < self._first_key_seq:
            return  # the first checkpoint of a log that was not signed before is about to be made
        if first <= durable and (durable - first > BOUND_RECORDS or head_ts - ts > BOUND_NS):
            self.course.note(
                first,
                file,
                offset,
                f"records {first} to {durable} were durable without a checkpoint for longer than"
                f" {BOUND_NS // NANOS} s or {BOUND_RECORDS} records",
            )

    def _judge_trust(self, *, live: bool, closed: bool, intact: bool) -> None:
        if not self._keys:
            return
        if self._counts:
            # Whoever forges a log can name one of our keys in it, and not sign with it.
            if self.unknown_key_to > self.signed_to and not self.course.problem_count:
                self.course.note(
                    self._first_key_seq,
                    *self._first_key_place,
                    "signed by an unknown key: the log names a key given, and no checkpoint is signed by it",
                )
            return
        last = self._ended
        if self.epoch:
            if not self._ever_counted:
                self.course.note(
                    self._first_key_seq,
                    *self._first_key_place,
                    "signed by an unknown key: none of the log's keys is one given",
                )
        elif last is not None and intact and not live and (closed or last.facts.records > 1):
            self.course.note(
                1,
                self._first_file,
                0,
                "not signed: there is no KEY record, though a key of this log is known",
            )

    # -- what cannot be known ----------------------------------------------------------------------------------

    def unknowns(self, total: int) -> list[str]:
        """What cannot be known from what was given, one sentence each."""
        if not total:
            return []
        known: list[str] = []
        if not self.epoch:
            known.append(
                "the log is not signed: a record changed by somebody who computed everything anew is not seen"
            )
        elif not self._keys:
            known.append(
                f"records 1 to {self.unknown_key_to} are signed by an unknown key:"
                " pin the log's first key or name it with --key, else a forger's own key looks the same"
            )
        if not self._anchors:
            known.append(
                "no anchor was given: whether later records were cut off, or the log taken back to an earlier state,"
                " cannot be known"
            )
        if self.anchored_to < self.signed_to:
            known.append(
                f"records {self.anchored_to + 1} to {self.signed_to} are signed only:"
                " who had the keys could have written them anew"
            )
        best = max(self.anchored_to, self.signed_to, self.unknown_key_to)
        if self.epoch and best < total:
            which = "that agrees with them" if self.course.problem_count else "yet"
            known.append(f"records {best + 1} to {total} are not covered by a checkpoint {which}")
        return known


def _what_is_uncovered(facts: SegmentFacts, signed: int, what: str) -> Problem:
    if facts.history or not facts.own:
        reason = f"its last checkpoint covers records up to {signed}, {what}"
    else:
        reason = "missing, though the segment has a KEY record"
    return Problem(0, history_name(facts.file), facts.history_end, reason)

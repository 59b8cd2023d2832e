"""Verification: everything the log claims is computed again from its bytes.

Checked: each line (form, CRC, JSON, sequence without gap), filler only after the last line, each SEGMENT's content
with its root over all records before it, the chain of keys and every checkpoint, each SEALED's hashes, indexes and
tiles, the head and its unused bytes, the quarantine against the RECOVERY records, and that nothing else lies in the
directory: no unknown file, no link, no missing file. The first bad sequence is named with file, byte offset and
reason, and of the records that are right it is said how far they are anchored, signed only, or unsigned.

    verify_course.py      the walk over the sequence: what is damage, what is tail
    verify_segments.py    one segment, here or in a child process; verify_history.py its checkpoints
    verify_signatures.py  keys, checkpoints, anchors
    verify_sidecars.py    what lies beside the segments

Promise: `verify` changes nothing, takes no lock, and neither raises nor hangs on any content. Beside a live
writer it judges what was durable when it began; rotation and sealing meanwhile are no alarm. A log that a crash
left open may end in a torn tail: that is `needs_recovery`, not damage.

Limits: what nobody outside the log remembers, nobody can be sure of: `VerifyReport.unknowns` says what could not be
known from the keys and anchors that were given. A log of a format newer than ours is refused, not judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.audit.anchor import Anchor
from holdfast.audit.format import FILLER, decode_line
from holdfast.audit.head import HEAD_NAME, HeadMark, decode_head
from holdfast.audit.logfiles import list_segments, open_segment, whole_lines
from holdfast.audit.note import VerifierKey
from holdfast.audit.pruned import Pruned, read_pruned
from holdfast.audit.schemas import SegmentDetails
from holdfast.audit.storage import PAGE_BYTES, Directory, LocalDirectory, LocalStorage, Storage
from holdfast.audit.tree import Frontier
from holdfast.audit.verify_course import MAX_PROBLEMS, Course, Problem
from holdfast.audit.verify_segments import SegmentFacts, SegmentHelpers, Task, check_segment
from holdfast.audit.verify_sidecars import (
    Listing,
    OwnClaims,
    TileCheck,
    WriterWatch,
    check_quarantine,
    check_run,
    head_faults,
)
from holdfast.audit.verify_signatures import Signatures
from holdfast.core.errors import AuditCorruption, AuditError, BadInput, LogUnwritable

__all__ = ["MAX_PROBLEMS", "Problem", "VerifyReport", "log_name_of", "verify"]

HELP_FROM_BYTES = 48 << 20
"""Segments of fewer bytes in all are not worth the start of child processes."""


class VerifyReport(msgspec.Struct):
    """What verification found.

    Attributes:
        directory: The log.
        total_entries: Valid records in their place.
        corrupted_entries: Records that are damaged, missing or out of place.
        problems: What is wrong, in the order found, at most `MAX_PROBLEMS` of them.
        problem_count: How many problems there were.
        needs_recovery: Whether the log was left open by a crash and the next writer has something to repair.
        recovery_range: What it will repair, in words, or "".
        state: The head's: "open", "closed", "poisoned", or "empty" where no record was ever durable.
        live_writer: Whether a writer held the log, or moved it on, while it was verified.
        segments: How many segment files were read.
        root: RFC 9162 root over `total_entries` records, hexadecimal; "" where something is wrong.
        log_id: The log's own id, or "".
        origin: The log's name in checkpoints and keys, or "".
        archived_to: Records 1 to this one are in the archive, not here; they were not verified.
        anchored_to: Records 1 to this one agree with something that was kept outside the log.
        signed_to: Records 1 to this one agree with a checkpoint by a key that counts.
        unknown_key_to: Records 1 to this one agree with a checkpoint by a key that only the log names; 0 where
            `signed_to` reaches as far.
        epoch: The newest epoch of the chain of keys; 0 where the log is not signed.
        unknowns: What cannot be known from the keys and anchors that were given, one sentence each.
    """

    directory: Path
    total_entries: int = 0
    corrupted_entries: int = 0
    problems: list[Problem] = []
    problem_count: int = 0
    needs_recovery: bool = False
    recovery_range: str = ""
    state: str = "empty"
    live_writer: bool = False
    segments: int = 0
    root: str = ""
    log_id: str = ""
    origin: str = ""
    archived_to: int = 0
    anchored_to: int = 0
    signed_to: int = 0
    unknown_key_to: int = 0
    epoch: int = 0
    unknowns: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a torn tail that recovery repairs is not wrong."""
        return not self.problem_count

    @property
    def first_bad(self) -> Problem | None:
        """The problem with the lowest sequence, or the first by kind of file where no record is concerned."""
        return min(self.problems, key=Problem.order, default=None)

    @property
    def size(self) -> int:
        """The tree's size: records here and in the archive."""
        return self.archived_to + self.total_entries

    def ranges(self) -> list[tuple[str, int, int]]:
        """The records from the first to the last, by who vouches for them: what, first, last."""
        ends = [
            ("archived, not here", self.archived_to),
            ("anchored", self.anchored_to),
            ("signed only", self.signed_to),
            ("signed by an unknown key", self.unknown_key_to),
            ("unsigned", self.size),
        ]
        found: list[tuple[str, int, int]] = []
        done = 0
        for what, end in ends:
            if end > done:
                found.append((what, done + 1, end))
                done = end
        return found

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        bad = self.first_bad
        return {
            "directory": str(self.directory),
            "total_entries": self.total_entries,
            "corrupted_entries": self.corrupted_entries,
            "integrity_ok": self.ok,
            "first_bad_sequence": bad.sequence if bad is not None and bad.sequence else None,
            "first_bad_file": bad.file if bad is not None else None,
            "first_bad_offset": bad.offset if bad is not None else None,
            "reason": bad.reason if bad is not None else None,
            "needs_recovery": self.needs_recovery,
            "recovery_range": self.recovery_range,
            "state": self.state,
            "live_writer": self.live_writer,
            "segments": self.segments,
            "root": self.root,
            "log_id": self.log_id,
            "origin": self.origin,
            "archived_to": self.archived_to,
            "anchored_to": self.anchored_to,
            "signed_to": self.signed_to,
            "unknown_key_to": self.unknown_key_to,
            "epoch": self.epoch,
            "ranges": [{"what": what, "first": first, "last": last} for what, first, last in self.ranges()],
            "unknowns": self.unknowns,
            "problem_count": self.problem_count,
            "problems": [problem._asdict() for problem in self.problems],
        }


def verify(
    directory: Path | str,
    progress: Callable[[int], None] | None = None,
    *,
    keys: Sequence[VerifierKey] = (),
    anchors: Sequence[Anchor] = (),
    jobs: int = 0,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> VerifyReport:
    """Check every byte of the log in *directory*.

    Args:
        directory: The log.
        progress: Called with the number of bytes of segment files read so far, about ten times per MiB.
        keys: The public keys that count: pinned ones, and those that the user names.
        anchors: What is remembered of the log outside it: saved checkpoints, the high-water mark.
        jobs: Processes that read segments at the same time; 0 takes one for each core where the log is large
            enough to be worth it, 1 does everything here.
        storage: Where the directory lies; the machine's disks by default.
        missing_ok: Whether a directory that does not exist is an empty log.

    Raises:
        BadInput: There is no such directory, the log is of a newer format, or an anchor is one of another log.
        LogUnwritable: This user may not read it.
    """
    path = Path(directory)
    try:
        opened = (storage or LocalStorage()).directory(path, create=False)
    except FileNotFoundError as why:
        if missing_ok:
            return VerifyReport(path)
        raise BadInput(
            f"no audit log at {str(path)!r}", hint="name the directory that holds audit_….log"
        ) from why
    except PermissionError as why:
        raise LogUnwritable(
            f"audit log {str(path)!r} cannot be read: permission denied",
            hint="run it as the user who writes the log; nothing is known about the log itself",
        ) from why
    except (AuditError, OSError) as why:
        return VerifyReport(path, problems=[Problem(0, str(path), 0, str(why))], problem_count=1)
    try:
        return _Verification(
            path, opened, progress=progress, storage=storage, keys=keys, anchors=anchors
        ).run(jobs)
    finally:
        opened.close()


def log_name_of(directory: Path | str, *, storage: Storage | None = None) -> tuple[str, str] | None:
    """Origin and id that the first segment in *directory* claims, so that its keys and anchors can be found.

    None where that cannot be read; nothing is checked.
    """
    try:
        opened = (storage or LocalStorage()).directory(Path(directory), create=False)
    except (AuditError, OSError):
        return None
    try:
        for segment in list_segments(opened)[:1]:
            file, sealed = open_segment(opened, segment)
            try:
                piece = next(whole_lines(file, sealed=sealed), (0, b""))[1]
                claim = msgspec.convert(decode_line(piece.partition(FILLER)[0]).details, SegmentDetails)
            finally:
                file.close()
            return claim.origin, claim.log_id
    except (AuditError, BadInput, OSError, msgspec.ValidationError):
        return None
    finally:
        opened.close()
    return None


class _Verification:
    """One run over one log."""

    def __init__(
        self,
        path: Path,
        directory: Directory,
        *,
        progress: Callable[[int], None] | None,
        storage: Storage | None,
        keys: Sequence[VerifierKey],
        anchors: Sequence[Anchor],
    ) -> None:
        self.report = VerifyReport(path)
        self.directory = directory
        self.progress = progress
        self.bytes_done = 0
        page, mark, self.unreadable_head = _read_head(directory)  # before the files: what it names is in them
        self.page = page
        self.course = Course(mark)
        self.watch = WriterWatch(directory, mark)
        self.signatures = Signatures(self.course, keys, anchors)
        self.claims = OwnClaims(self.course, directory, storage)
        self.frontier = Frontier()
        self.head_ts: int | None = None
        self.pruned = Pruned((), Frontier())

    def run(self, jobs: int) -> VerifyReport:
        """Check everything."""
        course, report = self.course, self.report
        listing = Listing(self.directory, course)
        self.signatures.read_newest(self.directory, listing.names)
        self._check_head(has_segments=bool(listing.segments))
        self.pruned = pruned = self._take_pruned(listing)
        tiles = TileCheck(self.directory, course, pruned.frontier)
        self._check_segments(listing, tiles, jobs)
        course.end()
        live = self._judge_tail()
        intact = course.is_plain
        self.signatures.finish(live=live, head_ts=self.head_ts, kept=course.expected - 1)
        if (live or self.watch.moved_on()) and self.claims.lacks_seals():
            self.claims.collect_newer()
        self.claims.check_sealed(listing, live=live)
        self.claims.check_pruned(pruned, listing)
        tiles.finish(live=live, intact=intact)
        to_name = check_quarantine(self.directory, course, listing.names, self.claims.quarantined, live=live)
        check_run(self.directory, course, listing.names, live=live)
        listing.check_others(self.claims.indexes(), live=live)
        if not live:
            self._need_recovery(self.signatures.torn, to_name)
        self._fill_report()
        return report

    def _fill_report(self) -> None:
        report, course, signatures = self.report, self.course, self.signatures
        report.total_entries = course.total
        report.corrupted_entries = course.corrupted
        report.problems, report.problem_count = course.problems, course.problem_count
        if course.mark is not None:
            report.state = course.mark.state.name.lower()
        if report.ok:
            report.root = self.frontier.root().hex()
        report.archived_to = self.pruned.next_seq - 1
        report.anchored_to = signatures.anchored_to
        report.signed_to = signatures.signed_to
        if signatures.unknown_key_to > signatures.signed_to:
            report.unknown_key_to = signatures.unknown_key_to
        report.epoch = signatures.epoch
        report.unknowns = signatures.unknowns(report.size)

    def _need_recovery(self, *what: str) -> None:
        parts = [part for part in (self.report.recovery_range, *what) if part]
        if parts and not self.course.is_closed:
            self.report.needs_recovery = True
            self.report.recovery_range = ", ".join(parts)

    # -- before the segments -----------------------------------------------------------------------------------

    def _check_head(self, *, has_segments: bool) -> None:
        page, why = self.page, self.unreadable_head
        if page is None or head_faults(page):
            page, _, why = _read_head(
                self.directory
            )  # it was being made; before the first segment it is whole
        if page is None:
            if has_segments:
                self.course.note(0, HEAD_NAME, 0, "missing beside segments")
            return
        if why:
            self.course.note(0, HEAD_NAME, 0, why)
            return
        if not has_segments and not page.strip(b"\0"):
            return  # its writer got no further, or is just there
        for offset, reason in head_faults(page):
            self.course.note(0, HEAD_NAME, offset, reason)

    def _take_pruned(self, listing: Listing) -> Pruned:
        """Begin behind the segments that are in the archive."""
        pruned = Pruned((), Frontier())
        if any(name.endswith(".pruned") for name in listing.names):
            try:
                pruned = read_pruned(self.directory)
            except AuditCorruption as why:
                self.course.note(0, why.file, 0, str(why).rpartition(": ")[2])
        if pruned.markers:
            self.course.expected = pruned.next_seq
            self.frontier = pruned.frontier.copy()
        return pruned

    # -- the segments ------------------------------------------------------------------------------------------

    def _check_segments(self, listing: Listing, tiles: TileCheck, jobs: int) -> None:
        sizes = self.signatures.sizes()
        tasks: list[Task] = []
        ends = [*(segment.first_seq for segment in listing.segments[1:]), 1 << 63]
        for segment, end in zip(listing.segments, ends, strict=False):
            anchors = [size for size in sizes if segment.first_seq <= size < end]
            tasks.append(Task(*segment, anchors, tiles.wanted))
        helpers = self._helpers(tasks, jobs)
        try:
            for index, task in enumerate(tasks):
                self._check_one(task, tiles, None if helpers is None else helpers.answer(index))
        finally:
            if helpers is not None:
                helpers.close()

    def _helpers(self, tasks: list[Task], jobs: int) -> SegmentHelpers | None:
        if jobs == 1 or len(tasks) < 2 or not isinstance(self.directory, LocalDirectory):
            return None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = min(jobs or cores, len(tasks))
        if count < 2 or (not jobs and self._size(tasks) < HELP_FROM_BYTES):
            return None
        return SegmentHelpers(self.directory.path, self.course.mark, tasks, count, self._advance)

    def _size(self, tasks: list[Task]) -> int:
        """About how many raw bytes there are to read."""
        total = 0
        for task in tasks:
            try:
                size = (self.directory.path / task.name).lstat().st_size
            except OSError:
                continue
            total += size * 5 if task.sealed else size
        return total

    def _check_one(self, task: Task, tiles: TileCheck, answer: SegmentFacts | None) -> None:
        """Check one segment, here unless a child has done so and nothing before it is wrong."""
        course = self.course
        self.report.segments += 1
        joins = course.expected == task.first_seq and not course.tail and course.filler is None
        if answer is not None and joins:
            facts: SegmentFacts | None = answer
            course.take(answer.records)
            course.highest_synced = max(course.highest_synced, answer.synced)
            course.last_place = (answer.file, answer.last_offset)
            if answer.filler_at >= 0 and answer.records:
                course.filler = (answer.file, answer.filler_at)
        else:
            facts = check_segment(self.directory, task, course, self._advance)
        if facts is None:
            self.report.segments -= 1
            return
        self._check_claim(facts)
        self.signatures.enter(facts)
        self._grow(facts, tiles)
        self.signatures.leave(facts)
        if facts.head_ts is not None:
            self.head_ts = facts.head_ts
        self.claims.take(facts)

    def _check_claim(self, facts: SegmentFacts) -> None:
        """Hold a SEGMENT record against the log before it."""
        own = next((own for own in facts.own if own.type == "SEGMENT" and own.number == 1), None)
        if own is None:
            return
        claim = msgspec.json.decode(own.details, type=SegmentDetails)
        report, fault = self.report, ""
        follows_all = self.frontier.size == own.seq - 1  # else records are missing, which is said already
        if report.log_id not in {"", claim.log_id}:
            fault = f"SEGMENT says log {claim.log_id}, the one before it {report.log_id}"
        elif follows_all and claim.root != self.frontier.root().hex():
            fault = f"SEGMENT says root {claim.root}, the records before it have {self.frontier.root().hex()}"
        if fault:
            self.course.note(own.seq, facts.file, own.offset, fault)
        if not report.origin:
            report.origin = f"{claim.origin}/{claim.log_id}"
            self.signatures.begin_log(claim)
            self.signatures.take_pruned(self.pruned.markers, self.directory)
        report.log_id = claim.log_id

    def _grow(self, facts: SegmentFacts, tiles: TileCheck) -> None:
        """Join the segment's leaves to the tree, and hold what is said of it at the sizes where something is."""
        if self.frontier.size != facts.first_seq - 1:
            return  # records before it are missing, which is said already
        done = 0
        for stop in facts.stops:
            self.frontier.join(facts.nodes[done : stop.nodes])
            done = stop.nodes
            self.signatures.hold(facts, stop, self.frontier.root())
        self.frontier.join(facts.nodes[done:])
        tiles.feed(facts.leaves, facts.nodes)

    def _advance(self, size: int) -> None:
        self.bytes_done += size
        if self.progress is not None:
            self.progress(self.bytes_done)

    # -- judgement ---------------------------------------------------------------------------------------------

    def _judge_tail(self) -> bool:
        """Say whether what lies beyond the head is a writer at work, a torn tail, or damage; whether the first.

        The rule is the one of recovery: what some valid line, a checkpoint or the head calls durable must be
        there.
        """
        if self.watch.moved_on() or (not self.course.is_closed and self.watch.is_held()):
            self.report.live_writer = True  # what lay beyond the head was its work
        elif self.course.is_closed:
            self._judge_closed_end()
        elif not self.course.problem_count:
            self._judge_open_end()
        return self.report.live_writer

    def _judge_closed_end(self) -> None:
        course = self.course
        for problem in course.tail:
            course.note(*problem[:3], f"beyond the end of the closed log: {problem.reason}")
        if course.filler is not None:
            course.note(0, *course.filler, "filler at the end of the closed log")
        if course.expected > course.promised + 1:
            course.note(
                course.promised + 1, *course.last_place, f"the closed log ends at sequence {course.promised}"
            )

    def _judge_open_end(self) -> None:
        course = self.course
        first = course.tail[0] if course.tail else None
        kept = course.expected - 1
        known = max(course.highest_synced, course.promised, min(self.signatures.covered, kept))
        if known > kept:
            name, offset, why = (
                first[1:] if first is not None else (*course.last_place, "the log ends before it")
            )
            course.note(course.expected, name, offset, f"{why}, though records up to {known} were durable")
            return
        parts: list[str] = []
        if kept > known:
            parts.append(f"sequences {known + 1} to {kept} are to be made durable")
        if first is not None:
            parts.append(
                f"a torn tail from sequence {kept + 1}, {first.file!r} byte {first.offset}: {first.reason}"
            )
        self._need_recovery(", ".join(parts))


def _read_head(directory: Directory) -> tuple[bytes | None, HeadMark | None, str]:
    """The head's bytes, or None where there is none; its newest mark; why it cannot be read, or "".

    A reading that fell into a writer's change is taken anew; damage stays.
    """
    page: bytes | None = None
    for _ in range(8):
        before = page
        try:
            file = directory.open(HEAD_NAME)
            try:
                page = file.pread(PAGE_BYTES + 1, 0)
            finally:
                file.close()
        except FileNotFoundError:
            return None, None, ""
        except OSError as why:
            return b"", None, f"cannot be read: {why}"
        if page == before or not head_faults(page):
            break
    return page, None if page is None else decode_head(page), ""

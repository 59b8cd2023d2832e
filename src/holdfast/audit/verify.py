"""Verification: everything the log claims is computed again from its bytes.

Checked: each line (form, CRC, JSON, sequence without gap), filler only after the last line, each SEGMENT's
content with its root over all records before it, each SEALED's hashes, the head and its unused bytes, the
quarantine against the RECOVERY records, and that nothing else lies in the directory: no unknown file, no link,
no missing file. The first bad sequence is named with file, byte offset and reason.

Promise: `verify` changes nothing, takes no lock, and neither raises nor hangs on any content. Beside a live
writer it judges what was durable when it began; rotation and sealing meanwhile are no alarm. A log that a crash
left open may end in a torn tail: that is `needs_recovery`, not damage.

Limits: checksums and hashes that somebody computed anew are not seen, and neither is a log cut back to an
earlier, orderly state together with its head; only a signature kept elsewhere proves those.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from holdfast.audit.format import (
    CRC_END,
    FORMAT_VERSION,
    MAX_RECORD_BYTES,
    Record,
    SegmentName,
    decode_line,
    parse_segment_name,
)
from holdfast.audit.head import (
    HEAD_NAME,
    SLOT_BYTES,
    SLOT_OFFSETS,
    HeadMark,
    HeadState,
    decode_head,
    decode_slot,
    read_head,
)
from holdfast.audit.history import CHECKPOINT_NAME, CHECKPOINT_TEMPORARY, parse_history_name
from holdfast.audit.index import INDEX_SUFFIX
from holdfast.audit.logfiles import open_segment
from holdfast.audit.query import read_records
from holdfast.audit.schemas import RecoveryDetails, SealedDetails, SegmentDetails
from holdfast.audit.seal import TEMPORARY_SUFFIX, find_member, read_blocks, read_members, salvage_member
from holdfast.audit.storage import PAGE_BYTES, Directory, File, LocalStorage, Storage
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption, AuditError, BadInput, LogUnwritable, TradingError

QUARANTINE = "quarantine"
RUN = "run"
PID = "pid"
MAX_PROBLEMS = 1000
"""More problems are counted, not kept."""

_QUARANTINE_NAME = re.compile(r"(audit_\d{8}_\d{6}_\d{12}\.log)-(\d+)-([0-9a-f]{16})", re.ASCII)
_decode_record = msgspec.json.Decoder(Record).decode
_BRACE = ord("}")
_OWN_TYPES = frozenset({"SEGMENT", "SEALED", "RECOVERY"})


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        sequence: The record concerned, or 0 where none is.
        file: Its file's name.
        offset: Byte offset in the raw file; in a compressed one, of the gzip member.
        reason: What is wrong, one sentence.
    """

    sequence: int
    file: str
    offset: int
    reason: str

    def __str__(self) -> str:
        """As the command line prints it."""
        named = f"sequence {self.sequence} in " if self.sequence else ""
        return f"{named}{self.file!r} at byte {self.offset}: {self.reason}"


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

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a torn tail that recovery repairs is not wrong."""
        return not self.problem_count

    @property
    def first_bad(self) -> Problem | None:
        """The problem with the lowest sequence, or the first one where no record is concerned."""
        named = [problem for problem in self.problems if problem.sequence]
        return min(named, key=lambda problem: problem.sequence) if named else next(iter(self.problems), None)

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
            "problem_count": self.problem_count,
            "problems": [problem._asdict() for problem in self.problems],
        }


def verify(
    directory: Path | str,
    progress: Callable[[int], None] | None = None,
    *,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> VerifyReport:
    """Check every byte of the log in *directory*.

    Args:
        directory: The log.
        progress: Called with the number of raw bytes checked so far, about once per MiB.
        storage: Where the directory lies; the machine's disks by default.
        missing_ok: Whether a directory that does not exist is an empty log.

    Raises:
        BadInput: There is no such directory.
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
        return _Verification(path, opened, progress, storage).run()
    finally:
        opened.close()


class _Segment(NamedTuple):
    """What was computed from one segment's bytes."""

    file: str
    sealed: bool
    readable: bool
    first_seq: int
    last_seq: int
    raw_sha256: str
    raw_bytes: int
    gzip_sha256: str
    gzip_bytes: int
    members: int


class _Verification:
    """One run over one log.

    Damage comes in runs: a run begins at the first line that is not the one expected and ends at the next
    record that stands in its place. A run is one problem, named by the first sequence it took.
    """

    def __init__(
        self,
        path: Path,
        directory: Directory,
        progress: Callable[[int], None] | None,
        storage: Storage | None,
    ) -> None:
        self.report = VerifyReport(path)
        self.directory = directory
        self.storage = storage
        self.progress = progress
        self.bytes_done = 0
        self.expected = 1  # the sequence that comes next
        self.total = 0
        self.run_open = False
        self.frontier = Frontier()
        self.mark: HeadMark | None = None
        self.unreadable_head = ""
        self.highest_synced = 0
        self.sealed: dict[str, list[tuple[int, SealedDetails]]] = {}
        self.seen: dict[str, _Segment] = {}
        self.quarantined: set[str] = set()
        # What is wrong beyond the head: judged at the end, when it is known whether a writer is at work.
        self.tail: list[Problem] = []
        self.filler: tuple[str, int] | None = (
            None  # where the last file that held lines went over into filler
        )
        self.last_place: tuple[str, int] = (HEAD_NAME, 0)

    @property
    def durable(self) -> int:
        """The highest sequence that the head promises."""
        return self.mark.sequence if self.mark is not None else 0

    @property
    def is_closed(self) -> bool:
        """Whether the last writer ended in order."""
        return self.mark is not None and self.mark.state is HeadState.CLOSED

    def run(self) -> VerifyReport:
        """Check everything."""
        report = self.report
        page = self._read_head()  # before the files: what it names is in them
        names = sorted({*self.directory.names(), *self.directory.names()})
        segments = self._sort_names(names)
        self._check_head(page, has_segments=bool(segments))
        for segment in segments:
            self._check_segment(segment)
        if self.expected <= self.durable:
            if not self.run_open:
                name, offset = self.last_place
                self.damage(name, offset, f"missing: the head promises records up to {self.durable}")
            report.corrupted_entries += self.durable - self.expected + 1
        self._judge_tail()
        self._check_sealed()
        self._check_quarantine(names)
        report.total_entries = self.total
        if self.mark is not None:
            report.state = self.mark.state.name.lower()
        if report.ok:
            report.root = self.frontier.root().hex()
        return report

    # -- what the segments report ------------------------------------------------------------------------------

    def note(self, sequence: int, file: str, offset: int, reason: str) -> None:
        """Something is wrong."""
        self.report.problem_count += 1
        if len(self.report.problems) < MAX_PROBLEMS:
            self.report.problems.append(Problem(sequence, file, offset, reason))

    def damage(self, file: str, offset: int, reason: str, *, again: bool = False) -> None:
        """The expected record is not there; *again*: say so even inside a run of damage."""
        if self.expected > self.durable:
            if len(self.tail) < MAX_PROBLEMS:
                self.tail.append(Problem(self.expected, file, offset, reason))
        elif again or not self.run_open:
            self.note(self.expected, file, offset, reason)
            self.run_open = True

    def skip_to(self, sequence: int) -> None:
        """The records before *sequence* are lost; a run of damage ends here."""
        self.report.corrupted_entries += sequence - self.expected
        self.expected = sequence
        self.run_open = False

    def enter(self, segment: SegmentName, file: str) -> None:
        """A file begins; what should stand before its first sequence does not follow any more."""
        if segment.first_seq == self.expected:
            return
        if segment.first_seq < self.expected or self.expected > self.durable:
            self.damage(file, 0, f"begins at sequence {segment.first_seq} where {self.expected} belongs")
            return
        if not self.run_open:
            self.damage(file, 0, f"missing: the next file begins at sequence {segment.first_seq}")
        if segment.first_seq <= self.durable:
            self.skip_to(segment.first_seq)

    def advance(self, size: int) -> None:
        """So many more bytes were checked."""
        self.bytes_done += size
        if self.progress is not None:
            self.progress(self.bytes_done)

    # -- the head ----------------------------------------------------------------------------------------------

    def _read_head(self) -> bytes | None:
        """The head's bytes, or None where there is none.

        A reading that fell into a writer's change is taken anew; damage stays.
        """
        page: bytes | None = b""
        for _ in range(8):
            page = self._head_page()
            if page is None or not _head_faults(page):
                break
        self.mark = None if page is None else decode_head(page)
        return page

    def _head_page(self) -> bytes | None:
        try:
            file = self.directory.open(HEAD_NAME)
            try:
                return file.pread(PAGE_BYTES + 1, 0)
            finally:
                file.close()
        except FileNotFoundError:
            return None
        except OSError as why:
            self.unreadable_head = f"cannot be read: {why}"
            return b""

    def _check_head(self, page: bytes | None, *, has_segments: bool) -> None:
        if page is None or _head_faults(page):
            page = self._head_page()  # it was being made; before the first segment it is whole
        if page is None:
            if has_segments:
                self.note(0, HEAD_NAME, 0, "missing beside segments")
            return
        if self.unreadable_head:
            self.note(0, HEAD_NAME, 0, self.unreadable_head)
            return
        if not has_segments and not page.strip(b"\0"):
            return  # its writer got no further, or is just there
        for offset, reason in _head_faults(page):
            self.note(0, HEAD_NAME, offset, reason)

    # -- what lies in the directory ----------------------------------------------------------------------------

    def _sort_names(self, names: list[str]) -> list[SegmentName]:
        """The segments by first sequence, each once; everything without business here is a problem."""
        found: dict[int, SegmentName] = {}
        for name in names:
            segment = parse_segment_name(name)
            if segment is None:
                self._check_other(name, names)
                continue
            other = found.get(segment.first_seq)
            if other is None:
                found[segment.first_seq] = segment
            elif other.name.removesuffix(".gz") != segment.name.removesuffix(".gz"):
                self.note(
                    segment.first_seq, segment.name, 0, f"begins at the same sequence as {other.name!r}"
                )
            else:
                raw, packed = sorted((other, segment), key=lambda one: one.sealed)
                self._check_twins(raw.name, packed.name)
                found[segment.first_seq] = raw
        return [found[first] for first in sorted(found)]

    def _check_other(self, name: str, names: list[str]) -> None:
        if name in {HEAD_NAME, QUARANTINE, "tile", CHECKPOINT_NAME, CHECKPOINT_TEMPORARY}:
            return
        if parse_history_name(name) is not None:
            return
        if name == RUN:
            self._check_run()
            return
        beside = name.removesuffix(".tmp").removesuffix(INDEX_SUFFIX) + ".log"
        if INDEX_SUFFIX in name and parse_segment_name(beside) is not None:
            return
        raw = name.removesuffix(TEMPORARY_SUFFIX)
        parsed = parse_segment_name(raw)
        being_sealed = name != raw and parsed is not None and not parsed.sealed
        if being_sealed and (raw in names or raw + ".gz" in names):
            return  # a seal in progress, or one that a crash cut short; the next writer deletes it
        with contextlib.suppress(OSError):
            if name not in self.directory.names():
                return  # it was there for a moment only
        self.note(0, name, 0, "an unknown file")

    def _check_run(self) -> None:
        """`run/` holds what concerns the running writer alone: its process id, never synced and no evidence."""
        try:
            run = self.directory.subdirectory(RUN)
        except OSError as why:
            self.note(0, RUN, 0, f"cannot be read: {why}")
            return
        try:
            for name in sorted(run.names()):
                if name not in {PID, "reserve"}:
                    self.note(0, f"{RUN}/{name}", 0, "an unknown file")
        finally:
            run.close()

    def _check_twins(self, raw_name: str, packed_name: str) -> None:
        """A crash, or a seal just now, leaves a segment both raw and compressed: then they are equal."""
        try:
            raw, packed = self.directory.open(raw_name), self.directory.open(packed_name)
        except FileNotFoundError:
            return  # the seal is finished
        except OSError as why:
            self.note(0, packed_name, 0, f"cannot be read: {why}")
            return
        offset = 0
        try:
            for _, piece in read_members(packed):
                if raw.pread(len(piece), offset) != piece:
                    break
                offset += len(piece)
            else:
                if raw.size() == offset:
                    return
            self.note(0, packed_name, 0, f"differs from {raw_name!r} at byte {offset} of that")
        except (AuditCorruption, OSError) as why:
            self.note(0, packed_name, getattr(why, "offset", 0), str(why))
        finally:
            raw.close()
            packed.close()

    # -- segments ----------------------------------------------------------------------------------------------

    def _check_segment(self, segment: SegmentName) -> None:
        try:
            file, sealed = open_segment(self.directory, segment)
        except OSError as why:
            reason = "missing" if isinstance(why, FileNotFoundError) else f"cannot be read: {why}"
            self.damage(segment.name, 0, reason)
            return
        try:
            _SegmentCheck(self, segment, file, sealed=sealed).run()
        except OSError as why:
            self.damage(file.name, 0, f"cannot be read: {why}")
        finally:
            file.close()

    # -- judgement ---------------------------------------------------------------------------------------------

    def _judge_tail(self) -> None:
        """Say whether what lies beyond the head is a writer at work, a torn tail, or damage.

        The rule is the one of recovery: what some valid line or the head calls durable must be there.
        """
        if self._moved_on() or (not self.is_closed and self._is_held()):
            self.report.live_writer = True  # what lay beyond the head was its work
        elif self.is_closed:
            self._judge_closed_end()
        elif not self.report.problem_count:
            self._judge_open_end()

    def _judge_closed_end(self) -> None:
        for problem in self.tail:
            self.note(*problem[:3], f"beyond the end of the closed log: {problem.reason}")
        if self.filler is not None:
            self.note(0, *self.filler, "filler at the end of the closed log")
        if self.expected > self.durable + 1:
            self.note(self.durable + 1, *self.last_place, f"the closed log ends at sequence {self.durable}")

    def _judge_open_end(self) -> None:
        first = self.tail[0] if self.tail else None
        known, kept = max(self.highest_synced, self.durable), self.expected - 1
        if known > kept:
            name, offset, why = (
                first[1:] if first is not None else (*self.last_place, "the log ends before it")
            )
            self.note(self.expected, name, offset, f"{why}, though records up to {known} were durable")
            return
        parts: list[str] = []
        if kept > known:
            parts.append(f"sequences {known + 1} to {kept} are to be made durable")
        if first is not None:
            parts.append(
                f"a torn tail from sequence {kept + 1}, {first.file!r} byte {first.offset}: {first.reason}"
            )
        self.report.needs_recovery = bool(parts)
        self.report.recovery_range = ", ".join(parts)

    def _moved_on(self) -> bool:
        """Whether a writer changed the head since it was read."""
        try:
            now = read_head(self.directory)
        except OSError:
            return False
        return now is not None and (self.mark is None or now.writes != self.mark.writes)

    def _is_held(self) -> bool:
        """Whether the process that noted itself in `run/pid` holds the log's lock; asked without taking it.

        Linux lists the locks it has given; elsewhere a writer is known only by its moving the head.
        """
        try:
            run = self.directory.subdirectory(RUN) if RUN in self.directory.names() else None
            if run is None:
                return False
            try:
                file = run.open(PID)
                try:
                    pid = file.pread(32, 0).strip()
                finally:
                    file.close()
            finally:
                run.close()
            inode = b"%d" % self.directory.path.stat().st_ino
            given = Path("/proc/locks").read_bytes().splitlines()
        except OSError:
            return False
        # "1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF": kind, mode, process, device and inode.
        locks = (line.split() for line in given)
        return any(
            lock[1] == b"FLOCK" and lock[4] == pid and lock[5].rpartition(b":")[2] == inode
            for lock in locks
            if len(lock) >= 6
        )

    # -- sealed segments, quarantine ---------------------------------------------------------------------------

    def _check_sealed(self) -> None:
        unproved = [name for name, one in self.seen.items() if one.sealed and name not in self.sealed]
        if unproved and self._moved_on():
            self._collect_newer_seals()
        for name, one in self.seen.items():
            if not one.readable:
                continue  # named already
            claims = self.sealed.get(name, [])
            if one.sealed and not claims:
                self.note(0, one.file, 0, "compressed, but no SEALED record vouches for it")
            for sequence, claim in claims:
                self._check_claim(one, sequence, claim, newest=claim is claims[-1][1])

    def _check_claim(self, one: _Segment, sequence: int, claim: SealedDetails, *, newest: bool) -> None:
        facts: list[tuple[str, object, object]] = [
            ("first sequence", one.first_seq, claim.first_seq),
            ("last sequence", one.last_seq, claim.last_seq),
            ("raw length", one.raw_bytes, claim.raw_bytes),
            ("raw SHA-256", one.raw_sha256, claim.raw_sha256),
        ]
        if one.sealed and newest:
            facts += [
                ("compressed length", one.gzip_bytes, claim.gzip_bytes),
                ("compressed SHA-256", one.gzip_sha256, claim.gzip_sha256),
                ("number of gzip members", one.members, claim.members),
            ]
        for what, actual, claimed in facts:
            if actual != claimed:
                self.note(
                    0, one.file, 0, f"{what} is {actual}, but SEALED (sequence {sequence}) says {claimed}"
                )
                return

    def _collect_newer_seals(self) -> None:
        """A segment sealed after we took the head is vouched for by a record behind it."""
        try:
            for record in read_records(
                self.report.directory, start_seq=self.durable + 1, storage=self.storage
            ):
                if record.type == "SEALED":
                    claim = msgspec.convert(record.details, SealedDetails)
                    self.sealed.setdefault(claim.segment, []).append((record.seq, claim))
        except (TradingError, msgspec.ValidationError, OSError) as why:
            self.note(0, HEAD_NAME, 0, f"the log could not be read on: {why}")

    def _check_quarantine(self, names: list[str]) -> None:
        kept: list[str] = []
        if QUARANTINE in names:
            try:
                quarantine = self.directory.subdirectory(QUARANTINE)
            except OSError as why:
                self.note(0, QUARANTINE, 0, f"cannot be read: {why}")
                return
            try:
                kept = quarantine.names()
                for name in sorted(kept):
                    self._check_kept_tail(quarantine, name)
            finally:
                quarantine.close()
        if self.report.live_writer:
            return
        for name in sorted(self.quarantined.difference(kept)):
            self.note(0, f"{QUARANTINE}/{name}", 0, "missing, though a RECOVERY record names it")
        for name in sorted(set(kept) - self.quarantined):
            if self.is_closed:
                self.note(0, f"{QUARANTINE}/{name}", 0, "no RECOVERY record names it")
            elif not self.report.needs_recovery:
                self.report.needs_recovery = True
                self.report.recovery_range = f"{QUARANTINE}/{name} to be named by a RECOVERY record"

    def _check_kept_tail(self, quarantine: Directory, name: str) -> None:
        match = _QUARANTINE_NAME.fullmatch(name)
        if match is None:
            self.note(0, f"{QUARANTINE}/{name}", 0, "an unknown file")
            return
        digest = sha256()
        try:
            file = quarantine.open(name)
            try:
                for block in read_blocks(file):
                    digest.update(block)
            finally:
                file.close()
        except OSError as why:
            self.note(0, f"{QUARANTINE}/{name}", 0, f"cannot be read: {why}")
            return
        # One that no RECOVERY names yet may be half written; the next start writes it anew.
        if digest.hexdigest()[:16] != match[3] and name in self.quarantined:
            self.note(0, f"{QUARANTINE}/{name}", 0, "its SHA-256 is not the one in its name")


def _head_faults(page: bytes) -> list[tuple[int, str]]:
    """What is wrong with the bytes of a head, with its offset.

    A slot fills part of one sector, which no crash tears, so each is valid or was never written.
    """
    faults: list[tuple[int, str]] = []
    if len(page) != PAGE_BYTES:
        faults.append((min(len(page), PAGE_BYTES), f"{len(page)} bytes long, expected {PAGE_BYTES}"))
    rest = bytearray(page)
    marks: list[HeadMark] = []
    for offset in SLOT_OFFSETS:
        slot = page[offset : offset + SLOT_BYTES]
        mark = decode_slot(slot)
        if mark is not None:
            marks.append(mark)
        elif slot.strip(b"\0"):
            faults.append((offset, "a slot of it is not valid"))
        rest[offset : offset + SLOT_BYTES] = bytes(len(slot))
    newest = max(marks, key=lambda mark: mark.writes, default=None)
    # A power cut may keep the two sectors from different times; a close has put both on the disk.
    closed = newest is not None and newest.state is HeadState.CLOSED
    if closed and len(marks) == 2 and abs(marks[0].writes - marks[1].writes) != 1:
        faults.append((0, f"its slots were written as numbers {marks[0].writes} and {marks[1].writes}"))
    stray = next((index for index, byte in enumerate(rest) if byte), None)
    if stray is not None:
        faults.append((stray, "a byte outside its two slots is not zero"))
    return faults


class _SegmentCheck:
    """One segment read from its first to its last byte."""

    def __init__(self, whole: _Verification, segment: SegmentName, file: File, *, sealed: bool) -> None:
        self.whole = whole
        self.segment = segment
        self.file = file
        self.sealed = sealed
        self.offset = 0  # in the raw file, of the line at hand
        self.member = 0  # where its gzip member begins
        self.members = 0
        self.lines = 0  # that are not filler
        self.last_seq = 0
        self.filler_at: int | None = None
        self.readable = True
        self.raw_digest = sha256()

    @property
    def place(self) -> int:
        """The offset that a problem names."""
        return self.member if self.sealed else self.offset

    def run(self) -> None:
        whole = self.whole
        whole.report.segments += 1
        whole.enter(self.segment, self.file.name)
        rest = b""
        for piece in self._sealed_pieces() if self.sealed else self._raw_pieces():
            self.raw_digest.update(piece)
            rest = self._check_lines(rest + piece)
            whole.advance(len(piece))
            if len(rest) > 2 * MAX_RECORD_BYTES:
                self._bad(f"no line end for {len(rest)} bytes")
                self.offset, rest = self.offset + len(rest), b""
        if rest:
            self._bad("the last line has no end")
            self.offset += len(rest)
        if self.filler_at is not None and self.lines:
            whole.filler = (self.file.name, self.filler_at)
        whole.last_place = (self.file.name, self.place)
        self._remember()

    def _raw_pieces(self) -> Iterator[bytes]:
        return read_blocks(self.file)

    def _sealed_pieces(self) -> Iterator[bytes]:
        """The members' contents; of a damaged member, what can still be read of it."""
        start: int | None = 0
        while start is not None:
            try:
                for began, piece in read_members(self.file, start=start):
                    self.member = began
                    self.members += 1
                    yield piece
                start = None
            except AuditCorruption as why:
                self.readable = False
                self.member = why.offset
                reason = str(why).rpartition(": ")[2]
                content, complete = salvage_member(self.file, why.offset)
                yield content
                if complete:
                    self.whole.note(
                        0, self.file.name, why.offset, f"gzip member damaged around its lines: {reason}"
                    )
                else:
                    self.whole.damage(self.file.name, why.offset, f"gzip member damaged: {reason}")
                start = find_member(self.file, why.offset + 1)

    def _check_lines(self, data: bytes) -> bytes:
        """Check every whole line of *data*; what follows the last newline."""
        lines = data.split(b"\n")
        rest = lines.pop()
        index = self._pass_plain_lines(lines, 0)
        while index < len(lines):
            self._check_line(lines[index])
            index = self._pass_plain_lines(lines, index + 1)
        return rest

    def _pass_plain_lines(self, lines: list[bytes], start: int) -> int:
        """Take the valid lines from *start* on that are in their place; the index of the first that needs a closer look.

        This is `decode_line` and the bookkeeping of `_check_line` for the line that nearly all lines are: an
        ordinary record, not a file's first, not the one where the head ends.
        """
        whole = self.whole
        if self.filler_at is not None or whole.filler is not None or whole.tail or not self.lines:
            return start
        expected, last = whole.expected, whole.durable
        synced, size = whole.highest_synced, 0
        leaves: list[bytes] = []
        try:
            for line in islice(lines, start, None):
                if expected == last or not line.startswith(
                    b'{"crc":"%08x","seq":%d,' % (crc32(line[CRC_END:]), expected)
                ):
                    break
                record = _decode_record(line)
                if record.type in _OWN_TYPES or line[-1] != _BRACE or len(line) > MAX_RECORD_BYTES:
                    break
                if not 0 <= record.synced < expected:
                    break
                if record.synced > synced:  # noqa: PLR1730  a call of max() costs here
                    synced = record.synced
                leaves.append(sha256(b"\0" + line).digest())
                size += len(line) + 1
                expected += 1
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # the line at hand needs the closer look
        if leaves:
            whole.frontier.extend(leaves)
            whole.highest_synced = synced
            whole.expected = expected
            whole.total += len(leaves)
            whole.run_open = False
            self.last_seq = expected - 1
            self.lines += len(leaves)
            self.offset += size
        return start + len(leaves)

    def _check_line(self, line: bytes) -> None:
        whole = self.whole
        if not line:
            if self.filler_at is None:
                self.filler_at = self.offset
            self.offset += 1
            return
        try:
            record = decode_line(line)
        except (BadInput, RecursionError) as why:
            self._bad(str(why) if isinstance(why, BadInput) else "nested too deep")
            self.offset += len(line) + 1
            return
        if self.filler_at is not None or whole.filler is not None:
            self._filler_before_a_line()
        if record.type in _OWN_TYPES or not self.lines:
            self._check_own(record)
        self.lines += 1
        self.offset += len(line) + 1
        whole.highest_synced = max(whole.highest_synced, record.synced)
        if record.seq != whole.expected or whole.tail:
            self._out_of_place(record, len(line) + 1)
            return
        whole.expected += 1
        whole.total += 1
        whole.run_open = False
        self.last_seq = record.seq
        whole.frontier.append(sha256(b"\0" + line).digest())
        if record.seq == whole.durable:
            self._check_head_end()

    def _bad(self, reason: str) -> None:
        """The line at hand is not a record."""
        if self.filler_at is not None:
            self._filler_before_a_line()
        self.whole.damage(self.file.name, self.place, reason)

    def _filler_before_a_line(self) -> None:
        whole = self.whole
        if self.filler_at is not None:
            whole.damage(self.file.name, self.filler_at, "filler before the last line")
        elif whole.filler is not None:
            name, offset = whole.filler
            whole.damage(name, offset, "filler in a segment that others follow")
        self.filler_at = whole.filler = None

    def _out_of_place(self, record: Record, size: int) -> None:
        """A valid line, but not the one that belongs here."""
        whole = self.whole
        place = self.place if self.sealed else self.offset - size
        if record.seq <= whole.expected or record.seq > whole.durable:
            whole.damage(
                self.file.name,
                place,
                f"sequence {record.seq} stands where {whole.expected} belongs",
                again=True,
            )
            return
        if not whole.run_open:
            whole.damage(self.file.name, place, f"missing: sequence {record.seq} stands in its place")
        whole.skip_to(record.seq)
        whole.expected += 1
        whole.total += 1
        self.last_seq = record.seq

    def _check_head_end(self) -> None:
        mark = self.whole.mark
        if mark is None:
            return
        name = self.file.name.removesuffix(".gz")
        if (mark.segment.removesuffix(".gz"), mark.end_offset) != (name, self.offset):
            self.whole.note(
                mark.sequence,
                self.file.name,
                self.place,
                f"ends at byte {self.offset} of {name!r}, the head says {mark.end_offset} of {mark.segment!r}",
            )

    def _check_own(self, record: Record) -> None:
        """The first line of a file, and the journal's own records anywhere."""
        whole = self.whole
        try:
            if record.type == "SEGMENT" or not self.lines:
                why = self._segment_fault(record)
                if why:
                    whole.damage(self.file.name, self.place, why, again=True)
            elif record.type == "SEALED":
                claim = msgspec.convert(record.details, SealedDetails)
                whole.sealed.setdefault(claim.segment, []).append((record.seq, claim))
            elif record.type == "RECOVERY":
                whole.quarantined.update(msgspec.convert(record.details, RecoveryDetails).quarantine)
        except msgspec.ValidationError as why:
            whole.damage(
                self.file.name, self.place, f"{record.type} does not fit its schema: {why}", again=True
            )

    def _segment_fault(self, record: Record) -> str:
        """What is wrong with a file's first line, or with a SEGMENT record; "" where nothing is."""
        if record.type != "SEGMENT":
            return f"the first line is {record.type}, not SEGMENT"
        if self.lines:
            return "SEGMENT is not the first line of its file"
        whole, fault = self.whole, ""
        claim = msgspec.convert(record.details, SegmentDetails)
        follows_all = whole.frontier.size == record.seq - 1  # else records are missing, which is said already
        if claim.format_ != FORMAT_VERSION:
            fault = f"format {claim.format_} is not known, this reads {FORMAT_VERSION}"
        elif not record.seq == claim.first_seq == self.segment.first_seq:
            fault = f"SEGMENT says first sequence {claim.first_seq}, the file's name {self.segment.first_seq}"
        elif whole.report.log_id not in {"", claim.log_id}:
            fault = f"SEGMENT says log {claim.log_id}, the one before it {whole.report.log_id}"
        elif follows_all and claim.root != whole.frontier.root().hex():
            fault = (
                f"SEGMENT says root {claim.root}, the records before it have {whole.frontier.root().hex()}"
            )
        whole.report.log_id = claim.log_id
        return fault

    def _remember(self) -> None:
        """Keep the hashes of a file that no longer changes, for the SEALED records to be held against."""
        whole = self.whole
        if not self.sealed and not 0 < self.last_seq < whole.durable:
            return
        digest, size = sha256(), 0
        if self.sealed:
            for block in read_blocks(self.file):
                digest.update(block)
                size += len(block)
        whole.seen[self.segment.name.removesuffix(".gz")] = _Segment(
            file=self.file.name,
            sealed=self.sealed,
            readable=self.readable,
            first_seq=self.segment.first_seq,
            last_seq=self.last_seq,
            raw_sha256=self.raw_digest.hexdigest(),
            raw_bytes=self.offset,
            gzip_sha256=digest.hexdigest(),
            gzip_bytes=size,
            members=self.members,
        )

"""What lies beside the segments: head, SEALED claims, indexes, tiles, markers, quarantine, `run/`, and nothing else.

Promise: every file under the log is evidence or absent. Each is held against what the records give, and a file, a
link or a folder that has no business there is a problem. Nothing is written, no link is followed, and nothing that
lies there makes the reader wait or grow: sizes are looked at before contents.

Limits: `run/pid` is a courtesy and no evidence. The words in `run/reserve` are no evidence until a start took them
up, so they are judged on a closed log alone, where there are none.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.audit.format import FILLER, SegmentName, parse_segment_name
from holdfast.audit.head import (
    HEAD_NAME,
    SLOT_BYTES,
    SLOT_OFFSETS,
    HeadMark,
    HeadState,
    decode_slot,
    read_head,
)
from holdfast.audit.history import CHECKPOINT_NAME, CHECKPOINT_TEMPORARY, parse_history_name
from holdfast.audit.holder import PID, RUN
from holdfast.audit.index import INDEX_SUFFIX, index_name
from holdfast.audit.logfiles import open_segment
from holdfast.audit.pruned import MARKER_SUFFIX, Pruned, parse_marker_name, read_marker
from holdfast.audit.query import read_records
from holdfast.audit.recovery import QUARANTINE
from holdfast.audit.reserve import RESERVE
from holdfast.audit.schemas import PrunedDetails, RecoveryDetails, SealedDetails
from holdfast.audit.seal import TEMPORARY_ENDING, read_blocks, read_members
from holdfast.audit.storage import PAGE_BYTES, Directory, Storage
from holdfast.audit.tiles import TILE_ROOT, TilePlace, TileStore, parse_tile_path, tile_path, tile_root
from holdfast.audit.tree import HASH_BYTES, Frontier, Span, SpanNode, node_hash
from holdfast.audit.verify_course import Course
from holdfast.audit.verify_segments import TILE_LEAVES, OwnRecord, SegmentFacts
from holdfast.core.errors import AuditCorruption, TradingError

MAX_KEPT_TAIL_BYTES = 1 << 30
"""No tail that was put into quarantine is longer: what is not synced is a few MiB."""
MAX_RESERVE_BYTES = 1 << 30

_QUARANTINE_NAME = re.compile(r"(audit_\d{8}_\d{6}_\d{12}\.log)-(\d+)-([0-9a-f]{16})", re.ASCII)
_TILE_HEIGHT = 8
_TILE_BYTES = TILE_LEAVES * HASH_BYTES


# -- the head --------------------------------------------------------------------------------------------------


def head_faults(page: bytes) -> list[tuple[int, str]]:
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
    if closed and len(marks) == 1 and newest is not None and newest.writes > 1 and not faults:
        faults.append(
            (SLOT_OFFSETS[(newest.writes - 1) & 1], "a slot of it is empty that was written before")
        )
    if closed and len(marks) == 2 and abs(marks[0].writes - marks[1].writes) != 1:
        faults.append((0, f"its slots were written as numbers {marks[0].writes} and {marks[1].writes}"))
    stray = re.search(rb"[^\0]", rest)
    if stray is not None:
        faults.append((stray.start(), "a byte outside its two slots is not zero"))
    return faults


class WriterWatch:
    """Tells a writer at work from one that is gone, without taking its lock."""

    def __init__(self, directory: Directory, mark: HeadMark | None) -> None:
        self._directory = directory
        self._mark = mark

    def moved_on(self) -> bool:
        """Whether a writer changed the head since it was read."""
        try:
            now = read_head(self._directory)
        except OSError:
            return False
        return now is not None and (self._mark is None or now.writes != self._mark.writes)

    def is_held(self) -> bool:
        """Whether the process that noted itself in `run/pid` holds the log's lock.

        Linux lists the locks it has given; elsewhere a writer is known only by its moving the head.
        """
        try:
            run = self._directory.subdirectory(RUN) if RUN in self._directory.names() else None
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
            inode = b"%d" % self._directory.path.stat().st_ino
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


# -- what lies in the directory --------------------------------------------------------------------------------


class Listing:
    """What lies in the directory, sorted by what it is.

    Attributes:
        names: Every name, sorted.
        segments: By first sequence, each once; the raw file where both forms are there.
    """

    def __init__(self, directory: Directory, course: Course) -> None:
        self.names = sorted({*directory.names(), *directory.names()})
        self._present = frozenset(self.names)
        self._directory = directory
        self._course = course
        self._later: frozenset[str] | None = None
        self.segments = self._sort_segments()

    def has(self, name: str) -> bool:
        """Whether *name* was there."""
        return name in self._present

    def _sort_segments(self) -> list[SegmentName]:
        found: dict[int, SegmentName] = {}
        for name in self.names:
            segment = parse_segment_name(name)
            if segment is None:
                continue
            other = found.get(segment.first_seq)
            if other is None:
                found[segment.first_seq] = segment
            elif other.name.removesuffix(".gz") != segment.name.removesuffix(".gz"):
                self._course.note(
                    segment.first_seq, segment.name, 0, f"begins at the same sequence as {other.name!r}"
                )
            else:
                raw, packed = sorted((other, segment), key=lambda one: one.sealed)
                self._check_twins(raw.name, packed.name)
                found[segment.first_seq] = raw
        return [found[first] for first in sorted(found)]

    def _check_twins(self, raw_name: str, packed_name: str) -> None:
        """A crash, or a seal just now, leaves a segment both raw and compressed: then they are equal."""
        try:
            raw, packed = self._directory.open(raw_name), self._directory.open(packed_name)
        except FileNotFoundError:
            return  # the seal is finished
        except OSError as why:
            self._course.note(0, packed_name, 0, f"cannot be read: {why}")
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
            self._course.note(0, packed_name, 0, f"differs from {raw_name!r} at byte {offset} of that")
        except (AuditCorruption, OSError) as why:
            self._course.note(0, packed_name, getattr(why, "offset", 0), str(why))
        finally:
            raw.close()
            packed.close()

    def check_others(self, vouched_indexes: Iterable[str], *, live: bool) -> None:
        """Whatever is no segment must be one of the files that a log has.

        Args:
            vouched_indexes: The indexes that a SEALED record names.
            live: Whether a writer is at work.
        """
        indexes = frozenset(vouched_indexes)
        temporary = live or not self._course.is_closed
        for name in self.names:
            if parse_segment_name(name) is not None or name in indexes:
                continue
            if not self._belongs(name, temporary=temporary, present=self._present) and not (
                live and self._settled(name)
            ):
                self._course.note(0, name, 0, "an unknown file")

    def _belongs(self, name: str, *, temporary: bool, present: frozenset[str]) -> bool:
        if name in {HEAD_NAME, QUARANTINE, RUN, TILE_ROOT, CHECKPOINT_NAME}:
            return True
        if name == CHECKPOINT_TEMPORARY:
            return temporary
        marked = parse_marker_name(name)
        history = parse_history_name(name)
        segment = marked if marked is not None else None if history is None else history.name
        if segment is None and temporary and name.endswith(TEMPORARY_ENDING):
            inner = name.removesuffix(TEMPORARY_ENDING)
            for suffix in (".log.gz", INDEX_SUFFIX, MARKER_SUFFIX):
                if inner.endswith(suffix):
                    segment = inner.removesuffix(suffix) + ".log"
        if segment is None or parse_segment_name(segment) is None:
            return False
        if marked is not None:
            return True  # held against the PRUNED records elsewhere
        return not present.isdisjoint(
            {segment, segment + ".gz", segment.removesuffix(".log") + MARKER_SUFFIX}
        )

    def _settled(self, name: str) -> bool:
        """Whether *name*, which a writer may have been about to make or remove, is in order by now."""
        if self._later is None:
            with contextlib.suppress(OSError):
                self._later = frozenset(self._directory.names())
        later = self._later or frozenset()
        if name not in later:
            return True
        return name.endswith(INDEX_SUFFIX) or self._belongs(name, temporary=True, present=later)


# -- sealed segments -------------------------------------------------------------------------------------------


class Claim(NamedTuple):
    """A SEALED record: its sequence, and what it says."""

    sequence: int
    details: SealedDetails


class OwnClaims:
    """What the log's own records say about files, gathered while the segments are read.

    Attributes:
        sealed: By raw file name, in order.
        quarantined: Names that RECOVERY records give.
        pruned: By raw file name.
    """

    def __init__(self, course: Course, directory: Directory, storage: Storage | None) -> None:
        self.sealed: dict[str, list[Claim]] = {}
        self.quarantined: set[str] = set()
        self.pruned: dict[str, list[PrunedDetails]] = {}
        self._seen: list[SegmentFacts] = []
        self._course = course
        self._directory = directory
        self._storage = storage

    def take(self, facts: SegmentFacts) -> None:
        """Gather from one segment; its facts are kept without their hashes."""
        for own in facts.own:
            try:
                self._take_record(own)
            except msgspec.ValidationError as why:
                self._course.note(
                    own.seq, facts.file, own.offset, f"{own.type} does not fit its schema: {why}"
                )
        facts.leaves, facts.nodes, facts.stops = b"", [], []
        self._seen.append(facts)

    def _take_record(self, own: OwnRecord) -> None:
        if own.type == "SEALED":
            claim = msgspec.json.decode(own.details, type=SealedDetails)
            self.sealed.setdefault(claim.segment, []).append(Claim(own.seq, claim))
        elif own.type == "RECOVERY":
            self.quarantined.update(msgspec.json.decode(own.details, type=RecoveryDetails).quarantine)
        elif own.type == "PRUNED":
            marker = msgspec.json.decode(own.details, type=PrunedDetails)
            self.pruned.setdefault(marker.segment, []).append(marker)

    def collect_newer(self) -> None:
        """A segment sealed after we took the head is vouched for by a record behind it."""
        try:
            for record in read_records(
                self._directory.path, start_seq=self._course.expected, storage=self._storage
            ):
                if record.type in {"SEALED", "RECOVERY", "PRUNED"}:
                    self._take_record(
                        OwnRecord(record.seq, 0, 0, record.type, msgspec.json.encode(record.details))
                    )
        except (TradingError, msgspec.ValidationError, OSError) as why:
            self._course.note(0, HEAD_NAME, 0, f"the log could not be read on: {why}")

    def lacks_seals(self) -> bool:
        """Whether a compressed segment was read for which no SEALED record was."""
        return any(one.sealed and one.file.removesuffix(".gz") not in self.sealed for one in self._seen)

    def indexes(self) -> set[str]:
        """The indexes that SEALED records name."""
        return {
            index_name(segment)
            for segment, claims in self.sealed.items()
            if any(claim.details.index_sha256 for claim in claims)
        }

    def check_sealed(self, listing: Listing, *, live: bool) -> None:
        """Hold every SEALED record against the file that it speaks of."""
        for one in self._seen:
            if not one.readable:
                continue  # named already
            claims = self.sealed.get(one.file.removesuffix(".gz"), [])
            if one.sealed and not claims:
                self._course.note(0, one.file, 0, "compressed, but no SEALED record vouches for it")
            if one.sealed or claims:
                self._check_claims(one, claims, listing, live=live)

    def _check_claims(
        self, one: SegmentFacts, claims: Sequence[Claim], listing: Listing, *, live: bool
    ) -> None:
        if claims and not one.sealed:
            self._hash_raw(one)
        for claim in claims:
            fault = _claim_fault(one, claim.details, newest=claim is claims[-1])
            if fault:
                self._course.note(
                    0,
                    one.file,
                    0,
                    f"{fault[0]} is {fault[1]}, but SEALED (sequence {claim.sequence}) says {fault[2]}",
                )
                return
        name = index_name(one.file)
        if not listing.has(name):
            if one.sealed and claims and claims[-1].details.index_sha256 and not live:
                self._course.note(0, name, 0, "missing, though a SEALED record names it")
            return
        if not one.sealed:
            self._hash_index(one, name)
        hashes = {claim.details.index_sha256 for claim in (claims[-1:] if one.sealed else claims)}
        if one.index_fault is not None:
            self._course.note(0, name, *one.index_fault)
        elif one.index_sha256 and one.index_sha256 not in hashes and any(hashes):
            self._course.note(0, name, 0, "its SHA-256 is not the one that SEALED says")

    def _hash_raw(self, one: SegmentFacts) -> None:
        """The raw file's hash, which reading its lines did not need; it may be compressed by now."""
        digest, segment = sha256(), parse_segment_name(one.file)
        if segment is None:
            return
        try:
            file, sealed = open_segment(self._directory, segment)
            try:
                for block in (piece for _, piece in read_members(file)) if sealed else read_blocks(file):
                    digest.update(block)
            finally:
                file.close()
        except (OSError, AuditCorruption) as why:
            self._course.note(0, one.file, 0, f"cannot be read again: {why}")
        one.raw_sha256 = digest.hexdigest()

    def _hash_index(self, one: SegmentFacts, name: str) -> None:
        digest = sha256()
        with contextlib.suppress(OSError):
            file = self._directory.open(name)
            try:
                for block in read_blocks(file, end=MAX_RESERVE_BYTES):
                    digest.update(block)
            finally:
                file.close()
        one.index_sha256 = digest.hexdigest()

    # -- pruned segments, quarantine ---------------------------------------------------------------------------

    def check_pruned(self, pruned: Pruned, listing: Listing) -> None:
        """Every marker says what a PRUNED record says, and what the records show."""
        by_segment = {one.file.removesuffix(".gz"): one for one in self._seen}
        gone = {marker.segment for marker in pruned.markers}
        for name in listing.names:
            segment = parse_marker_name(name)
            if segment is None:
                continue
            try:
                marker = read_marker(self._directory, name)
            except AuditCorruption as why:
                self._course.note(0, name, 0, str(why).rpartition(": ")[2])
                continue
            # The record of an earlier pruning may have gone to the archive since; that of the last cannot have.
            may_lack = segment in gone and segment != pruned.markers[-1].segment
            if marker not in self.pruned.get(segment, [marker] if may_lack else []):
                self._course.note(0, name, 0, "no PRUNED record says the same")
            here = by_segment.get(segment)
            if here is None:
                if segment not in gone:
                    self._course.note(0, name, 0, "its segment is neither here nor pruned")
            elif (here.first_seq, here.last_seq) != (marker.first_seq, marker.last_seq):
                self._course.note(0, name, 0, "it does not fit its segment")
        self.quarantined |= pruned.quarantine


def _claim_fault(
    one: SegmentFacts, claim: SealedDetails, *, newest: bool
) -> tuple[str, object, object] | None:
    """What of a SEALED record is not so: what, what it is, what is claimed."""
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
    return next((fact for fact in facts if fact[1] != fact[2]), None)


def check_quarantine(
    directory: Directory, course: Course, names: Sequence[str], named: set[str], *, live: bool
) -> str:
    """Hold each kept tail against its name and the RECOVERY records; what the next writer has to do about it."""
    kept: list[str] = []
    if QUARANTINE in names:
        try:
            quarantine = directory.subdirectory(QUARANTINE)
        except OSError as why:
            course.note(0, QUARANTINE, 0, f"cannot be read: {why}")
            return ""
        try:
            kept = quarantine.names()
            for name in sorted(kept):
                _check_kept_tail(quarantine, course, name, is_named=name in named)
        finally:
            quarantine.close()
    if live:
        return ""
    for name in sorted(named.difference(kept)):
        course.note(0, f"{QUARANTINE}/{name}", 0, "missing, though a RECOVERY record names it")
    unnamed = sorted(set(kept) - named)
    if course.is_closed:
        for name in unnamed:
            course.note(0, f"{QUARANTINE}/{name}", 0, "no RECOVERY record names it")
    elif unnamed:
        return f"{QUARANTINE}/{unnamed[-1]} to be named by a RECOVERY record"
    return ""


def _check_kept_tail(quarantine: Directory, course: Course, name: str, *, is_named: bool) -> None:
    match = _QUARANTINE_NAME.fullmatch(name)
    if match is None:
        course.note(0, f"{QUARANTINE}/{name}", 0, "an unknown file")
        return
    digest = sha256()
    try:
        file = quarantine.open(name)
        try:
            if file.size() > MAX_KEPT_TAIL_BYTES:
                course.note(0, f"{QUARANTINE}/{name}", MAX_KEPT_TAIL_BYTES, "longer than any tail")
                return
            for block in read_blocks(file):
                digest.update(block)
        finally:
            file.close()
    except OSError as why:
        course.note(0, f"{QUARANTINE}/{name}", 0, f"cannot be read: {why}")
        return
    # One that no RECOVERY names yet may be half written; the next start writes it anew.
    if digest.hexdigest()[:16] != match[3] and is_named:
        course.note(0, f"{QUARANTINE}/{name}", 0, "its SHA-256 is not the one in its name")


def check_run(directory: Directory, course: Course, names: Sequence[str], *, live: bool) -> None:
    """`run/` holds what concerns the running writer alone: its process id, and the reserve for last words."""
    if RUN not in names:
        return
    try:
        run = directory.subdirectory(RUN)
    except OSError as why:
        course.note(0, RUN, 0, f"cannot be read: {why}")
        return
    try:
        for name in sorted(run.names()):
            if name not in {PID, RESERVE}:
                course.note(0, f"{RUN}/{name}", 0, "an unknown file")
            elif name == RESERVE and course.is_closed and not live:
                _check_reserve(run, course)
    finally:
        run.close()


def _check_reserve(run: Directory, course: Course) -> None:
    """A log that was closed has no last words: its reserve is filler, whole pages of it."""
    try:
        file = run.open(RESERVE)
        try:
            size, offset = file.size(), 0
            if size % PAGE_BYTES or size > MAX_RESERVE_BYTES:
                course.note(0, f"{RUN}/{RESERVE}", size, f"{size} bytes long, expected whole pages")
                return
            for block in read_blocks(file):
                if block.strip(FILLER):
                    stray = offset + len(block) - len(block.lstrip(FILLER))
                    course.note(0, f"{RUN}/{RESERVE}", stray, "last words on a log that was closed")
                    return
                offset += len(block)
        finally:
            file.close()
    except OSError as why:
        course.note(0, f"{RUN}/{RESERVE}", 0, f"cannot be read: {why}")


# -- tiles -----------------------------------------------------------------------------------------------------


class _Row:
    """One tile while it is filled: its number, its entries so far, and how many at its start are not known."""

    def __init__(self, number: int, entries: bytearray, unknown: int) -> None:
        self.number = number
        self.entries = entries
        self.unknown = unknown


class TileCheck:
    """Holds every tile against the hashes that the records give, as these are computed.

    Args:
        directory: The log.
        course: Problems are noted there.
        frontier: The tree over the records that are not here, because their segments were pruned.

    Attributes:
        wanted: Whether there is any tile.
    """

    def __init__(self, directory: Directory, course: Course, frontier: Frontier) -> None:
        self._store = TileStore(directory)
        self._course = course
        self._places: dict[tuple[int, int], list[int]] = {}
        self._strange: list[str] = []
        try:
            paths = self._store.names()
        except OSError as why:
            paths = []
            course.note(0, TILE_ROOT, 0, f"cannot be read: {why}")
        for path in paths:
            place = parse_tile_path(path)
            if place is None:
                self._strange.append(path)
            else:
                self._places.setdefault((place.level, place.number), []).append(place.width)
        self.wanted = bool(self._places)
        self._rows: list[_Row] = []  # by level, the tile that is being filled
        self._blocks: list[bytes | None] = []  # subtrees inside the tile of leaves at hand
        self._hidden = 0  # leaves whose hashes are not known
        if frontier.size and not self._feed_archived(frontier):
            self._hidden = size = frontier.size
            while size:
                number, width = divmod(size, TILE_LEAVES)
                self._rows.append(_Row(number, bytearray(width * HASH_BYTES), width))
                size = number

    def _feed_archived(self, frontier: Frontier) -> bool:
        """Take the leaves that are in the archive from their tiles, which must hash to what the markers say.

        False where that cannot be, which is a problem: nothing is known of these leaves then.
        """
        number, width = divmod(frontier.size, TILE_LEAVES)
        places = [TilePlace(0, at, TILE_LEAVES) for at in range(number)]
        if width:
            widths = [one for one in self._places.get((0, number), []) if one >= width]
            places.append(TilePlace(0, number, max(widths, default=TILE_LEAVES)))
        rebuilt, tiles = Frontier(), list[bytes]()
        for place in places:
            try:
                tile = self._store.read(*place)
            except (AuditCorruption, OSError) as why:
                self._course.note(0, tile_path(*place), 0, f"cannot be read as a tile: {why}")
                return False
            if tile is None:
                self._course.note(
                    0, tile_path(*place), 0, "missing: no other place holds the hashes of archived records"
                )
                return False
            tile = tile[: min(TILE_LEAVES, frontier.size - place.number * TILE_LEAVES) * HASH_BYTES]
            tiles.append(tile)
            rebuilt.extend([tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)])
        if rebuilt.peaks() != frontier.peaks():
            self._course.note(
                0, TILE_ROOT, 0, "the tiles of the archived records are not those of their markers"
            )
            return False
        for number, tile in enumerate(tiles):
            span = Span(number * TILE_LEAVES)
            span.extend([tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)])
            self.feed(tile, span.nodes())
        return True

    def feed(self, leaves: bytes, nodes: Iterable[SpanNode]) -> None:
        """The next leaves, and the subtrees over them, none above a tile."""
        if not self.wanted:
            return
        row = self._row(0)
        row.entries += leaves
        while len(row.entries) >= _TILE_BYTES:
            rest = row.entries[_TILE_BYTES:]
            del row.entries[_TILE_BYTES:]
            self._compare(0, row)
            row = self._rows[0] = _Row(row.number + 1, rest, 0)
        for level, index, subtree in nodes:
            self._climb(level, index, subtree)

    def _row(self, level: int) -> _Row:
        while len(self._rows) <= level:
            self._rows.append(_Row(0, bytearray(), 0))
        return self._rows[level]

    def _climb(self, level: int, index: int, subtree: bytes | None) -> None:
        """Join a subtree inside a tile to its left sibling; a whole tile's root is an entry of the level above."""
        while level < _TILE_HEIGHT and index & 1:
            left = self._blocks.pop() if self._blocks else None
            subtree = None if left is None or subtree is None else node_hash(left, subtree)
            level, index = level + 1, index >> 1
        if level < _TILE_HEIGHT:
            self._blocks.append(subtree)
        else:
            self._push(1, subtree)

    def _push(self, level: int, entry: bytes | None) -> None:
        row = self._row(level)
        row.entries += entry or bytes(HASH_BYTES)
        if entry is None:
            row.unknown = len(row.entries) // HASH_BYTES
        if len(row.entries) == _TILE_BYTES:
            self._compare(level, row)
            self._rows[level] = _Row(row.number + 1, bytearray(), 0)
            self._push(level + 1, None if row.unknown else tile_root(bytes(row.entries)))

    def _compare(self, level: int, row: _Row) -> None:
        """Hold the files at one place against its entries."""
        widths = self._places.get((level, row.number))
        if widths is None:
            return
        for width in [width for width in widths if width <= len(row.entries) // HASH_BYTES]:
            widths.remove(width)
            self._compare_file(TilePlace(level, row.number, width), row)

    def _compare_file(self, place: TilePlace, row: _Row) -> None:
        path = tile_path(*place)
        try:
            tile = self._store.read(*place)
        except AuditCorruption as why:
            self._course.note(0, path, why.offset or 0, f"not {place.width} hashes long")
            return
        except OSError as why:
            self._course.note(0, path, 0, f"cannot be read: {why}")
            return
        expected = bytes(row.entries[: place.width * HASH_BYTES])
        if tile is None or tile == expected:
            return  # None: superseded meanwhile
        for at in range(row.unknown, place.width):
            offset = at * HASH_BYTES
            if tile[offset : offset + HASH_BYTES] != expected[offset : offset + HASH_BYTES]:
                leaf = place.number * TILE_LEAVES + at + 1 if place.level == 0 else 0
                self._course.note(leaf, path, offset, "not the hash that the records give")
                return

    def finish(self, *, live: bool, intact: bool) -> None:
        """All leaves were given: the unfinished tiles are compared, and no other may lie there."""
        for level, row in enumerate(self._rows):
            self._compare(level, row)
        temporary = live or not self._course.is_closed
        for path in self._strange:
            inner = path.removesuffix(TEMPORARY_ENDING)
            if not (temporary and inner != path and parse_tile_path(inner) is not None):
                self._course.note(0, path, 0, "an unknown file")
        if intact and not live:
            for (level, number), widths in sorted(self._places.items()):
                if number << _TILE_HEIGHT * (level + 1) < self._hidden:
                    continue
                for width in widths:
                    self._course.note(
                        0,
                        tile_path(level, number, width),
                        0,
                        "a tile over records that the log does not hold",
                    )
        self._store.close()

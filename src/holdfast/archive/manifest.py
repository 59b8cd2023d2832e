"""What lies in an archive: the names of its objects, and the manifests that say what they must contain.

    audit_….manifest.json            one sealed segment: its files with lengths and SHA-256, and where the tree stood
    audit_….log.gz .idx .checkpoints  the segment's files as they stand in the log
    audit_….tiles                    the full hash tiles whose last record is in the segment, one behind the other
    quarantine/<name>                torn tails that the segment's RECOVERY records name
    log_<last sequence>.manifest.json  the log as far as one run archived it
    closed_<last sequence>_<hash>.manifest.json, closed_…/<file>   the rest of a log that was closed
    selftest/<name>                  what `selftest.py` leaves

Every object is written once, a manifest after the files it names and only when each of them was read back and
was equal: a segment is in the archive when its manifest is. Each manifest names the hash of the one before.

Promise: names from a store are used only where these functions made or parsed them, so that none of them leads
out of a directory, stands there twice or differs from another by case alone. Manifests are bounded and judged
here; what they claim is evidence only together with the bytes, the tree and the signed checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

from holdfast.audit.format import parse_segment_name
from holdfast.audit.schemas import KeyDetails
from holdfast.audit.tiles import TILE_WIDTH, partial_width, tile_path
from holdfast.audit.tree import HASH_BYTES, Frontier
from holdfast.core.errors import AuditCorruption, BadInput

VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30
MAX_FILES = 10_000
TILE_BYTES = TILE_WIDTH * HASH_BYTES
TILES, PARTIAL_TILES = "tiles", "partial-tiles"
HEAD, CHECKPOINT, QUARANTINE = "head", "checkpoint", "quarantine"

_MANIFEST = ".manifest.json"
_LOG = re.compile(r"log_(\d{12})\.manifest\.json", re.ASCII)
_CLOSED = re.compile(r"closed_(\d{12})_[0-9a-f]{16}\.manifest\.json", re.ASCII)
_QUARANTINE = re.compile(r"quarantine/audit_\d{8}_\d{6}_\d{12}\.log-\d{1,12}-[0-9a-f]{16}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LOG_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SIDECARS = (".idx", ".checkpoints", ".tiles")


class FileEntry(msgspec.Struct, frozen=True):
    """One file of the archive.

    Attributes:
        name: As in the log's directory, or the name of a bundle of tiles.
        bytes: Its length.
        sha256: Of its content, hexadecimal.
    """

    name: str
    bytes: int
    sha256: str


class SegmentManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive holds of one sealed segment.

    Attributes:
        version: `VERSION`.
        log_id: The log's.
        origin: As its SEGMENT record says.
        segment: The raw file's name.
        first_seq: Its first sequence.
        last_seq: Its last sequence.
        last_ts_ns: The latest time of a record in it; the lock counts from here.
        raw_sha256: Of the raw file.
        raw_bytes: Its length.
        peaks: The tree over records 1 to last_seq, hexadecimal, largest subtree first.
        key: What its KEY record says, or null.
        quarantine: The names its RECOVERY records give.
        previous: SHA-256 of the manifest before, "" in the first.
        files: Each once.
    """

    version: int
    log_id: str
    origin: str
    segment: str
    first_seq: int
    last_seq: int
    last_ts_ns: int
    raw_sha256: str
    raw_bytes: int
    peaks: list[str]
    key: KeyDetails | None
    quarantine: list[str]
    previous: str
    files: list[FileEntry]

    @property
    def frontier(self) -> Frontier:
        """The tree at its end."""
        return Frontier.of(self.last_seq, [bytes.fromhex(peak) for peak in self.peaks])

    def file(self, name: str) -> FileEntry | None:
        """The entry of *name*."""
        return next((one for one in self.files if one.name == name), None)


class LogManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The log as far as it was archived.

    Attributes:
        version: `VERSION`.
        log_id: The log's.
        origin: As its SEGMENT records say.
        segments: How many segments are archived.
        last_seq: The last record in them.
        root: RFC 9162 root over records 1 to last_seq.
        vkey: The key that signed last, or ""; no reason to trust it.
        newest: SHA-256 of the newest segment's manifest.
    """

    version: int
    log_id: str
    origin: str
    segments: int
    last_seq: int
    root: str
    vkey: str
    newest: str


class ClosedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The rest of a closed log, behind its archived segments: with it, the whole directory comes back.

    Attributes:
        version: `VERSION`.
        log_id: The log's.
        first_seq: The first record that is in no archived segment.
        last_seq: The log's last record.
        previous: SHA-256 of the newest segment's manifest, "" where there is none.
        files: Each once.
    """

    version: int
    log_id: str
    first_seq: int
    last_seq: int
    previous: str
    files: list[FileEntry]


class SegmentKey(NamedTuple):
    """A segment that the listing of an archive shows.

    Attributes:
        segment: The raw file's name.
        first_seq: Its first sequence.
    """

    segment: str
    first_seq: int


_Manifest = TypeVar("_Manifest", SegmentManifest, LogManifest, ClosedManifest)


# -- names -----------------------------------------------------------------------------------------------------


def segment_manifest_name(segment: str) -> str:
    """The object that says what the archive holds of *segment*."""
    return _stem(segment) + _MANIFEST


def parse_segment_manifest_name(name: str) -> SegmentKey | None:
    """The segment whose manifest *name* is, or None."""
    if not name.endswith(_MANIFEST):
        return None
    parsed = parse_segment_name(name.removesuffix(_MANIFEST) + ".log")
    return SegmentKey(parsed.name, parsed.first_seq) if parsed is not None else None


def log_manifest_name(last_seq: int) -> str:
    """The object that says how far the log was archived."""
    return f"log_{last_seq:012d}{_MANIFEST}"


def parse_log_manifest_name(name: str) -> int | None:
    """How far the log was archived, by the name of a log's manifest; None where it is none."""
    match = _LOG.fullmatch(name)
    return int(match[1]) if match is not None else None


def closed_manifest_name(manifest: ClosedManifest) -> str:
    """The object that says what the rest of a closed log is."""
    return f"closed_{manifest.last_seq:012d}_{sha256(encode(manifest)).hexdigest()[:16]}{_MANIFEST}"


def parse_closed_manifest_name(name: str) -> int | None:
    """The log's last sequence, by the name of its rest's manifest; None where it is none."""
    match = _CLOSED.fullmatch(name)
    return int(match[1]) if match is not None else None


def closed_folder(manifest_name: str) -> str:
    """Where the files of the rest are that the manifest of this name lists."""
    return manifest_name.removesuffix(_MANIFEST)


def segment_files(segment: str) -> dict[str, str]:
    """By their endings, the names that belong to a sealed segment."""
    return {ending: _stem(segment) + ending for ending in (".log.gz", *_SIDECARS)}


def is_quarantine_name(name: str) -> bool:
    """Whether *name* is one that recovery gives to a torn tail, its folder included."""
    return _QUARANTINE.fullmatch(name) is not None


def _stem(segment: str) -> str:
    return segment.removesuffix(".gz").removesuffix(".log")


# -- tiles -----------------------------------------------------------------------------------------------------


def full_tiles(first_seq: int, last_seq: int) -> Iterator[str]:
    """The full tiles whose last record lies from *first_seq* to *last_seq*: by level, then from the left."""
    level, records = 0, TILE_WIDTH
    while records <= last_seq:
        for number in range((first_seq - 1) // records, last_seq // records):
            yield tile_path(level, number)
        level, records = level + 1, records * TILE_WIDTH


def partial_tiles(size: int) -> Iterator[tuple[str, int]]:
    """The unfinished tiles of a tree of *size* records, each with its length in bytes."""
    level = 0
    while size >> (8 * level):
        width = partial_width(level, size)
        if width:
            yield tile_path(level, size >> (8 * (level + 1)), width), width * HASH_BYTES
        level += 1


# -- content ---------------------------------------------------------------------------------------------------


def encode(manifest: SegmentManifest | LogManifest | ClosedManifest) -> bytes:
    """A manifest's bytes: one JSON object, its keys in the order above, and a newline."""
    return msgspec.json.encode(manifest) + b"\n"


def decode(name: str, data: bytes, kind: type[_Manifest]) -> _Manifest:
    """The manifest in object *name*, once its own values are possible.

    Raises:
        AuditCorruption: It is none.
        BadInput: It is one of a later version.
    """
    try:
        manifest = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise _damaged(name, f"not a manifest: {why}") from why
    if manifest.version > VERSION:
        raise BadInput(
            f"archive object {name!r} has version {manifest.version}, this reads {VERSION}",
            hint="use a newer holdfast",
        )
    if encode(manifest) != data:
        raise _damaged(name, "is not written as a manifest is")
    try:
        fault = next(_faults(name, manifest), "")
    except (BadInput, ValueError) as why:
        raise _damaged(name, str(why)) from why
    if fault:
        raise _damaged(name, fault)
    return manifest


def _faults(name: str, manifest: SegmentManifest | LogManifest | ClosedManifest) -> Iterator[str]:
    """What is impossible in a manifest; each may be relied on by those after it."""
    if _LOG_ID.fullmatch(manifest.log_id) is None:
        yield f"has the log id {manifest.log_id!r}"
    if isinstance(manifest, LogManifest):
        if parse_log_manifest_name(name) != manifest.last_seq or not _HASH.fullmatch(manifest.root):
            yield f"speaks of the log up to sequence {manifest.last_seq}"
        return
    names = [one.name for one in manifest.files]
    if len(names) > MAX_FILES or len(set(map(str.lower, names))) != len(names):
        yield "names a file twice, or too many"
    for one in manifest.files:
        if not 0 <= one.bytes <= MAX_FILE_BYTES or _HASH.fullmatch(one.sha256) is None:
            yield f"says {one.bytes} bytes and SHA-256 {one.sha256!r} of {one.name!r}"
    if isinstance(manifest, ClosedManifest):
        yield from _closed_faults(name, manifest)
    else:
        yield from _segment_faults(name, manifest)


def _segment_faults(name: str, manifest: SegmentManifest) -> Iterator[str]:
    key = parse_segment_manifest_name(name)
    if key is None or manifest.segment != key.segment or manifest.first_seq != key.first_seq:
        yield f"speaks of segment {manifest.segment!r} from sequence {manifest.first_seq}"
    if manifest.last_seq < manifest.first_seq or not 0 < manifest.raw_bytes <= MAX_FILE_BYTES:
        yield f"says records up to {manifest.last_seq} in {manifest.raw_bytes} bytes"
    if not all(map(_HASH.fullmatch, manifest.peaks)) or manifest.frontier.size != manifest.last_seq:
        yield "has peaks that are not hashes"
    own = segment_files(manifest.segment)
    allowed = {*own.values(), *(f"{QUARANTINE}/{tail}" for tail in manifest.quarantine)}
    for one in manifest.files:
        if one.name not in allowed or ("/" in one.name and not is_quarantine_name(one.name)):
            yield f"names the file {one.name!r}, which is none of its segment's"
    if manifest.file(own[".log.gz"]) is None:
        yield "does not name the segment's own file"
    tiles = manifest.file(own[".tiles"])
    expected = TILE_BYTES * sum(1 for _ in full_tiles(manifest.first_seq, manifest.last_seq))
    if tiles is not None and tiles.bytes != expected:
        yield f"says {tiles.bytes} bytes of tiles, expected {expected}"


def _closed_faults(name: str, manifest: ClosedManifest) -> Iterator[str]:
    if closed_manifest_name(manifest) != name or not 1 <= manifest.first_seq <= manifest.last_seq + 1:
        yield f"speaks of records {manifest.first_seq} to {manifest.last_seq}"
    for one in manifest.files:
        if one.name in {HEAD, CHECKPOINT, TILES, PARTIAL_TILES} or is_quarantine_name(one.name):
            continue
        stem = one.name.partition(".")[0]
        parsed = parse_segment_name(stem + ".log")
        own = {stem + ending for ending in (".log", ".log.gz", ".idx", ".checkpoints")}
        if parsed is None or parsed.first_seq < manifest.first_seq or one.name not in own:
            yield f"names the file {one.name!r}, which is none of its records'"


def _damaged(name: str, why: str) -> AuditCorruption:
    return AuditCorruption(f"archive damaged: {name!r} {why}", file=name)

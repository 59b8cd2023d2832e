"""Archiving a log: what is complete goes to the store, is read back, and only then counts.

    self-test of the store → for each sealed segment that is not there yet: examine it → put its files, each
    created once with checksums and object lock → read each back and hash it → put the manifest → read it back

Promise: a segment's manifest stands in the archive only when every file that it names was read back from the
store equal to the local one and, unless no lock was wanted, locked long enough. A run may end anywhere, by
kill -9 too: the next one asks the store what it holds, reads that back, and goes on. A repeat writes nothing. The
log itself is only read; a live writer is not disturbed. Nothing local is removed here (`prune.py` does that).

What goes: sealed segments from the oldest on, up to the first one that is not sealed, each with index,
checkpoints, quarantined tails and full tiles. Of a log that is closed, also the rest: its last segments as they
stand, its head, newest checkpoint and unfinished tiles, so that the whole directory can be restored.

Limits: one file is held in memory at a time. Retention counts from the run, never less than from the records.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.archive import manifest as kept
from holdfast.archive.local import Segments, list_log, open_log, read_file, read_tiles
from holdfast.archive.manifest import ClosedManifest, FileEntry, LogManifest, SegmentManifest
from holdfast.archive.policy import Policy
from holdfast.archive.segment import Examined, examine
from holdfast.archive.selftest import Findings, prove
from holdfast.archive.store import AlreadyThere, Bucket, Lock
from holdfast.audit.format import parse_segment_name
from holdfast.audit.head import HeadState, read_head
from holdfast.audit.query import read_lines
from holdfast.audit.schemas import RecordType, SealedDetails
from holdfast.audit.storage import PAGE_BYTES, Directory, Storage
from holdfast.audit.tree import Frontier
from holdfast.core.clock import utc
from holdfast.core.errors import ArchiveRefused, AuditCorruption, BadInput

Tell = Callable[[str], None]
"""Is given one sentence for each step that took time."""


class ArchiveReport(NamedTuple):
    """What one run did.

    Attributes:
        archive: Where.
        log_id: The log's.
        archived_to: The last record in archived segments, 0 for none.
        segments: How many segments the archive holds.
        new_segments: How many of them this run added.
        new_objects: How many objects this run wrote.
        new_bytes: Their length together.
        closed: Whether the archive holds the rest of the closed log too.
        waiting: Raw segments that wait for being sealed, the active one included.
        findings: What the self-test found.
    """

    archive: str
    log_id: str
    archived_to: int
    segments: int
    new_segments: int
    new_objects: int
    new_bytes: int
    closed: bool
    waiting: int
    findings: Findings


def archive(
    path: Path,
    bucket: Bucket,
    policy: Policy,
    *,
    now: datetime,
    token: str,
    whole: bool = True,
    tell: Tell = lambda _: None,
    storage: Storage | None = None,
) -> ArchiveReport:
    """Copy to *bucket* what of the log in *path* is complete and not there yet.

    Args:
        path: The log.
        bucket: The archive; it holds this log and no other.
        policy: How copies are locked.
        now: The time; locks count from here.
        token: Random hexadecimal digits for the self-test's object.
        whole: Whether the rest of a closed log goes too.
        tell: Is told of each segment.
        storage: Where *path* lies.

    Raises:
        BadInput: There is no such log, or the archive is another log's.
        AuditCorruption: The log is damaged, or the store holds or returns something else than what was put.
        ArchiveRefused: The store refused or is not fit; `ArchiveUnreachable` where repeating helps.
    """
    directory = open_log(path, storage)
    try:
        findings = prove(bucket, lock_mode=policy.mode, now=now, token=token)
        return _Run(directory, bucket, policy, now, tell, storage).run(findings, whole=whole)
    finally:
        directory.close()


def read_back(bucket: Bucket, key: str, entry: FileEntry) -> None:
    """Hash what the store returns for *key*.

    Raises:
        AuditCorruption: It is not what *entry* says.
    """
    digest = sha256()
    for piece in bucket.stream(key, entry.bytes):
        digest.update(piece)
    if digest.hexdigest() != entry.sha256:
        raise AuditCorruption(
            f"archive damaged: {key!r} in {bucket} is not the file that the log holds", file=entry.name
        )


class _Run:
    """One run of `archive`."""

    def __init__(  # noqa: PLR0917  the arguments of `archive`
        self,
        directory: Directory,
        bucket: Bucket,
        policy: Policy,
        now: datetime,
        tell: Tell,
        storage: Storage | None,
    ) -> None:
        self.directory = directory
        self.bucket = bucket
        self.policy = policy
        self.now = now
        self.tell = tell
        self.storage = storage
        self.present = bucket.sizes()
        self.new_objects = 0
        self.new_bytes = 0

    def run(self, findings: Findings, *, whole: bool) -> ArchiveReport:
        mark = read_head(self.directory)  # before the files: what it names is in them
        log = list_log(self.directory)
        names = [marker.segment for marker in log.pruned.markers] + log.sealed
        self._refuse_another_log(names + log.others)
        newest, waiting = self._archived(log, names)
        added = 0
        claims = self._claims(waiting[0]) if waiting else {}
        for name in waiting:
            newest = self._archive_segment(name, newest, claims.get(name))
            added += 1
            self.tell(f"{name}: archived and read back ({added} of {len(waiting)})")
        if newest is not None:
            self._put_log_manifest(newest, len(names))
        closed = False
        if whole and mark is not None and mark.state is HeadState.CLOSED:
            closed = self._archive_rest(log, newest, mark.sequence)
        return ArchiveReport(
            archive=str(self.bucket),
            log_id=newest.log_id if newest is not None else "",
            archived_to=newest.last_seq if newest is not None else 0,
            segments=len(names),
            new_segments=added,
            new_objects=self.new_objects,
            new_bytes=self.new_bytes,
            closed=closed,
            waiting=len({name.removesuffix(".gz") for name in log.others}),
            findings=findings,
        )

    # -- what is there already ---------------------------------------------------------------------------------

    def _refuse_another_log(self, local: list[str]) -> None:
        known = {name.removesuffix(".gz") for name in local}
        for name in self.present:
            key = kept.parse_segment_manifest_name(name)
            if key is not None and key.segment not in known:
                raise BadInput(
                    f"archive {self.bucket} holds another log: its segment {key.segment!r} is not in"
                    f" {str(self.directory.path)!r}",
                    hint="give each log a prefix of its own",
                )

    def _archived(self, log: Segments, names: list[str]) -> tuple[SegmentManifest | None, list[str]]:
        """The newest archived segment's manifest, and the segments that wait."""
        count = 0
        while count < len(names) and kept.segment_manifest_name(names[count]) in self.present:
            count += 1
        if count < len(log.pruned.markers):
            raise AuditCorruption(
                f"archive damaged: segment {names[count]!r} was pruned here and is not in {self.bucket}",
                file=names[count],
                hint="name the archive that the segment's marker names",
            )
        if not count:
            return None, names
        return read_segment_manifest(self.bucket, names[count - 1]), names[count:]

    def _claims(self, first: str) -> dict[str, SealedDetails]:
        """What the SEALED records from segment *first* on say, the last one of each segment."""
        parsed = parse_segment_name(first)
        claims: dict[str, SealedDetails] = {}
        needle = f'"type":"{RecordType.SEALED}"'.encode()
        lines = read_lines(
            self.directory.path, start_seq=parsed.first_seq if parsed is not None else 1, storage=self.storage
        )
        for line in lines:
            if needle in line:
                record = msgspec.json.decode(line)
                if record["type"] == RecordType.SEALED:
                    claim = msgspec.convert(record["details"], SealedDetails)
                    claims[claim.segment] = claim
        return claims

    # -- one segment -------------------------------------------------------------------------------------------

    def _archive_segment(
        self, name: str, before: SegmentManifest | None, claim: SealedDetails | None
    ) -> SegmentManifest:
        frontier = before.frontier if before is not None else Frontier()
        facts = examine(self.directory, name + ".gz", frontier, max_raw_bytes=kept.MAX_FILE_BYTES)
        self._check_claim(facts, claim)
        if before is not None and (facts.log_id, facts.first_seq) != (before.log_id, before.last_seq + 1):
            raise AuditCorruption(
                f"audit log damaged: {name!r} does not follow sequence {before.last_seq} of log {before.log_id}",
                sequence=facts.first_seq,
                file=name,
            )
        made = utc(facts.last_ts_ns)
        files = [
            self._put_proven(file, file, data, made) for file, data in self._files_of(facts, claim).items()
        ]
        manifest = SegmentManifest(
            version=kept.VERSION,
            log_id=facts.log_id,
            origin=facts.origin,
            segment=name,
            first_seq=facts.first_seq,
            last_seq=facts.last_seq,
            last_ts_ns=facts.last_ts_ns,
            raw_sha256=facts.raw_sha256,
            raw_bytes=facts.raw_bytes,
            peaks=[peak.hex() for peak in frontier.peaks()],
            key=facts.key,
            quarantine=facts.quarantine,
            previous=sha256(kept.encode(before)).hexdigest() if before is not None else "",
            files=files,
        )
        key = kept.segment_manifest_name(name)
        self._put_proven(key, key, kept.encode(manifest), made)
        return manifest

    def _check_claim(self, facts: Examined, claim: SealedDetails | None) -> None:
        said = None if claim is None else (claim.last_seq, claim.raw_sha256, claim.gzip_sha256)
        if said != (facts.last_seq, facts.raw_sha256, facts.gzip_sha256):
            why = "no SEALED record names it" if claim is None else "it is not what its SEALED record says"
            raise AuditCorruption(
                f"audit log damaged: {facts.segment + '.gz'!r} is not archived: {why}",
                sequence=facts.first_seq,
                file=facts.segment + ".gz",
                hint="holdfast audit verify lists everything that is damaged",
            )

    def _files_of(self, facts: Examined, claim: SealedDetails | None) -> dict[str, bytes]:
        """The segment's files, by name; those that it does not have are left out."""
        own = kept.segment_files(facts.segment)
        found: dict[str, bytes] = {}
        for name in (own[".log.gz"], own[".idx"], own[".checkpoints"]):
            try:
                found[name] = read_file(self.directory, name)
            except FileNotFoundError:
                continue
        if sha256(found.get(own[".log.gz"], b"")).hexdigest() != facts.gzip_sha256:
            raise AuditCorruption(f"audit log damaged: {facts.segment + '.gz'!r} changed while it was read")
        index = sha256(found[own[".idx"]]).hexdigest() if own[".idx"] in found else ""
        if claim is not None and index != claim.index_sha256:
            raise AuditCorruption(
                f"audit log damaged: {own['.idx']!r} is not what the SEALED record of its segment says",
                file=own[".idx"],
            )
        for tail in facts.quarantine:
            found[f"{kept.QUARANTINE}/{tail}"] = read_file(self.directory, f"{kept.QUARANTINE}/{tail}")
        tiles = read_tiles(self.directory, list(kept.full_tiles(facts.first_seq, facts.last_seq)))
        if tiles:
            found[own[".tiles"]] = tiles
        return found

    # -- the log -----------------------------------------------------------------------------------------------

    def _put_log_manifest(self, newest: SegmentManifest, segments: int) -> None:
        key = kept.log_manifest_name(newest.last_seq)
        if key in self.present:
            return
        manifest = LogManifest(
            version=kept.VERSION,
            log_id=newest.log_id,
            origin=newest.origin,
            segments=segments,
            last_seq=newest.last_seq,
            root=newest.frontier.root().hex(),
            vkey=newest.key.vkey if newest.key is not None else "",
            newest=sha256(kept.encode(newest)).hexdigest(),
        )
        self._put_proven(key, key, kept.encode(manifest), utc(newest.last_ts_ns))

    def _archive_rest(self, log: Segments, newest: SegmentManifest | None, last_seq: int) -> bool:
        """The rest of a closed log; False where a writer opened it meanwhile."""
        first_seq = newest.last_seq + 1 if newest is not None else 1
        found = self._rest_of(log, first_seq, last_seq)
        if self._head_now() != found.get(kept.HEAD):
            self.tell("the log was opened again: its rest is not archived by this run")
            return False
        manifest = ClosedManifest(
            version=kept.VERSION,
            log_id=newest.log_id if newest is not None else self._log_id(log),
            first_seq=first_seq,
            last_seq=last_seq,
            previous=sha256(kept.encode(newest)).hexdigest() if newest is not None else "",
            files=[FileEntry(name, len(data), sha256(data).hexdigest()) for name, data in found.items()],
        )
        key = kept.closed_manifest_name(manifest)
        if key not in self.present:
            parsed = parse_segment_name(log.others[-1]) if log.others else None
            made = utc(parsed.created_ns) if parsed is not None else self.now
            for name, data in found.items():
                self._put_proven(f"{kept.closed_folder(key)}/{name}", name, data, made)
            self._put_proven(key, key, kept.encode(manifest), made)
            self.tell(
                f"the rest of the closed log, sequences {first_seq} to {last_seq}: archived and read back"
            )
        return True

    def _rest_of(self, log: Segments, first_seq: int, last_seq: int) -> dict[str, bytes]:
        """Every file of the log behind its archived segments, by name, and its tiles in two bundles."""
        found: dict[str, bytes] = {}
        stems = {name.partition(".")[0] for name in log.others}
        names = self.directory.names()
        for name in sorted(names):
            stem, _, ending = name.partition(".")
            of_segment = stem in stems and ending in {"log", "log.gz", "idx", "checkpoints"}
            if of_segment or name in {kept.HEAD, kept.CHECKPOINT}:
                found[name] = read_file(self.directory, name)
        if kept.QUARANTINE in names:
            inner = self.directory.subdirectory(kept.QUARANTINE)
            try:
                tails = sorted(f"{kept.QUARANTINE}/{name}" for name in inner.names())
            finally:
                inner.close()
            found.update(
                {name: read_file(self.directory, name) for name in tails if kept.is_quarantine_name(name)}
            )
        full = list(kept.full_tiles(first_seq, last_seq))
        partial = [name for name, _ in kept.partial_tiles(last_seq)]
        for bundle, tiles in ((kept.TILES, full), (kept.PARTIAL_TILES, partial)):
            data = read_tiles(self.directory, tiles)
            if data:
                found[bundle] = data
        return found

    def _head_now(self) -> bytes:
        file = self.directory.open(kept.HEAD)
        try:
            return file.pread(PAGE_BYTES, 0)
        finally:
            file.close()

    def _log_id(self, log: Segments) -> str:
        """The log's id, by its first record."""
        first = next(read_lines(self.directory.path, storage=self.storage), None)
        if first is None:
            raise BadInput(
                f"log {str(self.directory.path)!r} holds no record", hint=f"{log.others[0]} is empty"
            )
        log_id: str = msgspec.json.decode(first)["details"]["log_id"]
        return log_id

    # -- one object --------------------------------------------------------------------------------------------

    def _put_proven(self, key: str, name: str, data: bytes, made: datetime) -> FileEntry:
        """Have *data* in the store, equal when read back and locked; *made* is when its records were."""
        entry = FileEntry(name, len(data), sha256(data).hexdigest())
        lock = self.policy.lock(max(self.now, made))
        if key not in self.present:
            try:
                self.bucket.put_new(key, data, lock)
                self.new_objects += 1
                self.new_bytes += len(data)
            except AlreadyThere:
                pass  # a put whose answer was lost, or another run beside this one: what is there decides
        read_back(self.bucket, key, entry)
        required = self.policy.lock(made)
        if required is not None:
            check_lock(self.bucket, key, required)
        self.present[key] = len(data)
        return entry


def check_lock(bucket: Bucket, key: str, required: Lock) -> None:
    """Ask the store whether *key* is locked as *required* says.

    Raises:
        ArchiveRefused: It is not.
    """
    state = bucket.lock_of(key)
    if not state.covers(required):
        raise ArchiveRefused(
            f"archive {bucket}: {key!r} has {state}, required {required.mode} until {required.until:%Y-%m-%d}",
            hint="a copy from a run with a weaker policy: archive to a new prefix, or ask for what it has",
        )


def read_segment_manifest(bucket: Bucket, segment: str) -> SegmentManifest:
    """The manifest of *segment* in *bucket*.

    Raises:
        AuditCorruption: It is damaged.
        ObjectMissing: It is not there.
    """
    name = kept.segment_manifest_name(segment)
    return kept.decode(name, bucket.read(name, kept.MAX_MANIFEST_BYTES), SegmentManifest)

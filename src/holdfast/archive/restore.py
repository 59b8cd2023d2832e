"""Restoring a log from its archive: verified while it is downloaded, in place only when it is whole.

    listing → manifests, each holding the hash of the one before → for each segment: download (bounded, hashed) →
    decompress (bounded), every line, the sequence, the tree → newest checkpoint and pinned keys → rename

Promise: nothing appears under the name that was asked for unless all of it was verified; a directory that exists
is not touched. What was restored is bit for bit what was archived. Names come from our own parser alone: no path
in a manifest or a listing leads anywhere, no link is made or followed, no name stands there twice or differs by
case alone. No download is longer than its manifest says, no gzip member unpacks to more than 128 KiB and no
segment to more than its manifest says.

What comes back: with the rest of a closed log, the directory as it was. Without it, a closed log that ends with
the last archived segment; a segment whose SEALED record stands behind that end, as the last one's always does,
comes back raw, since nothing would vouch for its compressed form. From a range, the segments that hold it, with a marker for each one before: such a
copy is for reading, and `verify` says that its beginning is missing. A range that reaches into the rest of a
closed log brings back all of it.

Limits: a checkpoint counts only by a pinned key; without one, `Restored.signed_by` is "" and only the hashes and
the tree speak. An archive from which the newest segments are withheld looks like an older one, except for what
its own log manifests and an anchor kept elsewhere say.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from holdfast.archive import manifest as kept
from holdfast.archive.manifest import ClosedManifest, FileEntry, LogManifest, SegmentManifest
from holdfast.archive.segment import Examined, examine
from holdfast.archive.store import Bucket
from holdfast.archive.upload import Tell
from holdfast.audit.head import SLOT_OFFSETS, HeadMark, HeadState, encode_slot
from holdfast.audit.history import notes_in
from holdfast.audit.keys import FIRST, ROTATION, check_key_note, log_name
from holdfast.audit.note import VerifierKey, open_note
from holdfast.audit.pruned import encode_marker, marker_name
from holdfast.audit.schemas import PrunedDetails
from holdfast.audit.seal import read_blocks, read_members
from holdfast.audit.storage import PAGE_BYTES, Directory, File, LocalStorage
from holdfast.audit.tiles import TileStore, parse_tile_path
from holdfast.audit.tree import Frontier
from holdfast.audit.verify import verify
from holdfast.core.errors import AuditCorruption, BadInput

Keys = Callable[[str], Sequence[VerifierKey]]
"""The pinned keys of a log, by its id."""


class Restored(NamedTuple):
    """What was restored.

    Attributes:
        directory: Where.
        log_id: The log's.
        first_seq: The first record that came back.
        last_seq: The last one.
        segments: How many segments came back.
        bytes: Length of what was downloaded.
        root: RFC 9162 root over records 1 to last_seq.
        signed_to: Size of the newest checkpoint by a trusted key, 0 for none.
        signed_by: That key, or "".
        whole: Whether the directory is what the closed log was.
    """

    directory: Path
    log_id: str
    first_seq: int
    last_seq: int
    segments: int
    bytes: int
    root: str
    signed_to: int
    signed_by: str
    whole: bool


class Contents(NamedTuple):
    """What an archive holds, by its manifests; nothing of it is downloaded yet.

    Attributes:
        segments: In order, from the first on.
        closed: The rest of a closed log that follows them, with its manifest's name.
    """

    segments: list[SegmentManifest]
    closed: tuple[str, ClosedManifest] | None


def restore(
    bucket: Bucket,
    directory: Path,
    keys: Keys,
    *,
    first: int | None = None,
    last: int | None = None,
    tell: Tell = lambda _: None,
) -> Restored:
    """Bring back the log in *bucket*, or its segments that hold the sequences *first* to *last*, as *directory*.

    Args:
        bucket: The archive.
        directory: Must not exist yet.
        keys: Gives the pinned keys.
        first: The lowest sequence wanted; None for all.
        last: The highest sequence wanted; None for all.
        tell: Is told of each segment.

    Raises:
        BadInput: The directory exists, the archive is empty, or the range lies outside it.
        AuditCorruption: Something is damaged, missing, or not signed as it must be; nothing was put in place.
        ArchiveRefused: The store refused; `ArchiveUnreachable` where repeating helps.
    """
    if directory.exists() or directory.is_symlink():
        raise BadInput(
            f"restore refused: {str(directory)!r} exists", hint="name a directory that does not exist yet"
        )
    if not directory.parent.is_dir():
        raise BadInput(
            f"restore refused: there is no directory {str(directory.parent)!r}",
            hint="make it, or name another place",
        )
    contents = read_contents(bucket)
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.restoring-", dir=directory.parent))
    try:
        restored = _Restore(bucket, stage, contents, tell).run(keys, first, last)
        stage.rename(directory)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    parent = LocalStorage().directory(directory.parent.resolve(), create=False)
    parent.sync()
    parent.close()
    return restored._replace(directory=directory)


def read_contents(bucket: Bucket) -> Contents:
    """Every manifest in *bucket*, held against one another.

    Raises:
        BadInput: There is no archive at that place.
        AuditCorruption: A manifest is damaged or missing, or does not follow the one before.
    """
    names = bucket.sizes()
    found = sorted(filter(None, map(kept.parse_segment_manifest_name, names)), key=lambda one: one.first_seq)
    segments: list[SegmentManifest] = []
    previous = ""
    for one in found:
        name = kept.segment_manifest_name(one.segment)
        data = bucket.read(name, kept.MAX_MANIFEST_BYTES)
        manifest = kept.decode(name, data, SegmentManifest)
        expected = segments[-1].last_seq + 1 if segments else 1
        if manifest.first_seq != expected:
            raise _damaged(name, f"begins at sequence {manifest.first_seq} where {expected} belongs")
        if manifest.previous != previous or (segments and manifest.log_id != segments[0].log_id):
            raise _damaged(name, "does not follow the manifest before it")
        segments.append(manifest)
        previous = sha256(data).hexdigest()
    _check_log_manifest(bucket, names, segments, previous)
    closed = _newest_rest(bucket, names, segments, previous)
    if not segments and closed is None:
        raise BadInput(
            f"there is no archive at {bucket}",
            hint="name the address that `holdfast audit archive` was given",
        )
    return Contents(segments, closed)


def _check_log_manifest(
    bucket: Bucket, names: dict[str, int], segments: list[SegmentManifest], newest: str
) -> None:
    """Hold the newest statement about the whole log against its segments."""
    sizes = [(size, name) for name in names if (size := kept.parse_log_manifest_name(name)) is not None]
    if not sizes:
        return  # a first run ended before it
    size, name = max(sizes)
    said = kept.decode(name, bucket.read(name, kept.MAX_MANIFEST_BYTES), LogManifest)
    if not segments or size > segments[-1].last_seq:
        raise _damaged(name, f"says that records up to {size} are archived, and their segments are missing")
    if size == segments[-1].last_seq and (said.newest, said.root, said.segments) != (
        newest,
        segments[-1].frontier.root().hex(),
        len(segments),
    ):
        raise _damaged(name, "says something else than its segments")


def _newest_rest(
    bucket: Bucket, names: dict[str, int], segments: list[SegmentManifest], newest: str
) -> tuple[str, ClosedManifest] | None:
    """The rest of the closed log, where the newest one follows the segments that are there."""
    rests = [(size, name) for name in names if (size := kept.parse_closed_manifest_name(name)) is not None]
    archived_to = segments[-1].last_seq if segments else 0
    for size, name in sorted(rests, reverse=True):
        if size < archived_to:
            break
        manifest = kept.decode(name, bucket.read(name, kept.MAX_MANIFEST_BYTES), ClosedManifest)
        if segments and manifest.log_id != segments[0].log_id:
            raise _damaged(name, "is another log's")
        if manifest.first_seq == archived_to + 1 and manifest.previous == newest:
            return name, manifest
    return None


class Epoch(NamedTuple):
    """One key of the log.

    Attributes:
        manifest: The segment that it begins with.
        vkey: The public key.
        trusted: Whether it is pinned, or signed for by one that is.
    """

    manifest: SegmentManifest
    vkey: VerifierKey
    trusted: bool


class _Restore:
    """One restore into a staging directory that nobody else knows."""

    def __init__(self, bucket: Bucket, stage: Path, contents: Contents, tell: Tell) -> None:
        self.bucket = bucket
        self.stage = stage
        self.contents = contents
        self.tell = tell
        self.bytes = 0
        manifests = [*contents.segments[:1], *(contents.closed or ())[1:]]
        self.log_id = manifests[0].log_id

    def run(self, keys: Keys, first: int | None, last: int | None) -> Restored:
        segments, rest = self.contents
        archived_to = segments[-1].last_seq if segments else 0
        end = rest[1].last_seq if rest is not None else archived_to
        low, high = 1 if first is None else first, end if last is None else last
        if not 1 <= low <= high <= end:
            raise BadInput(
                f"sequences {low} to {high} refused: the archive holds 1 to {end}",
                hint="what is not archived yet is in the log's own directory",
            )
        with_rest = rest is not None and high > archived_to
        if with_rest:
            low = 1  # its checkpoints are verified with everything that they cover
        taken = [one for one in segments if one.last_seq >= low and one.first_seq <= high]
        home: Directory = LocalStorage().directory(self.stage, create=True)
        try:
            skipped = [one for one in segments if one.last_seq < low]
            for one in skipped:
                self._leave_marker(home, one)
            frontier = skipped[-1].frontier if skipped else Frontier()
            vouched: set[str] = set()
            for number, one in enumerate(taken, 1):
                vouched.update(self._segment(home, one, frontier).sealed)
                self.tell(f"{one.segment}: restored and verified ({number} of {len(taken)})")
            if with_rest and rest is not None:
                self._rest(home, *rest)
            else:
                for one in taken:
                    if one.segment not in vouched:
                        _unpack(home, one)
                _end_with(home, taken[-1])
            pinned = list(keys(self.log_id))
            signed = self._signed(home, walk_epochs([*skipped, *taken], pinned), pinned)
            home.sync()
        finally:
            home.close()
        last_seq = rest[1].last_seq if with_rest and rest is not None else taken[-1].last_seq
        root = taken[-1].frontier.root().hex() if skipped else self._verify_whole(pinned)
        return Restored(
            directory=self.stage,
            log_id=self.log_id,
            first_seq=taken[0].first_seq if taken else archived_to + 1,
            last_seq=last_seq,
            segments=len(taken),
            bytes=self.bytes,
            root=root,
            signed_to=signed[0],
            signed_by=signed[1],
            whole=with_rest,
        )

    # -- one segment -------------------------------------------------------------------------------------------

    def _segment(self, home: Directory, manifest: SegmentManifest, frontier: Frontier) -> Examined:
        own = kept.segment_files(manifest.segment)
        for entry in manifest.files:
            if entry.name == own[".tiles"]:
                names = list(kept.full_tiles(manifest.first_seq, manifest.last_seq))
                self._tiles(
                    home, self._download(entry.name, entry), [(name, kept.TILE_BYTES) for name in names]
                )
            else:
                self._file(home, entry.name, entry)
        facts = examine(home, own[".log.gz"], frontier, max_raw_bytes=manifest.raw_bytes)
        said = (manifest.last_seq, manifest.raw_sha256, manifest.log_id, manifest.key, manifest.quarantine)
        if said != (facts.last_seq, facts.raw_sha256, facts.log_id, facts.key, facts.quarantine):
            raise _damaged(own[".log.gz"], "is not what its manifest says")
        if frontier.root() != manifest.frontier.root():
            raise _damaged(
                own[".log.gz"], f"gives another tree over records 1 to {facts.last_seq} than its manifest"
            )
        return facts

    def _leave_marker(self, home: Directory, manifest: SegmentManifest) -> None:
        """Say in the place of a segment that did not come back what it was."""
        own = kept.segment_files(manifest.segment)
        packed, index = manifest.file(own[".log.gz"]), manifest.file(own[".idx"])
        marker = PrunedDetails(
            segment=manifest.segment,
            first_seq=manifest.first_seq,
            last_seq=manifest.last_seq,
            raw_sha256=manifest.raw_sha256,
            raw_bytes=manifest.raw_bytes,
            gzip_sha256=packed.sha256 if packed is not None else "",
            gzip_bytes=packed.bytes if packed is not None else 0,
            index_sha256=index.sha256 if index is not None else "",
            archive=str(self.bucket),
            peaks=manifest.peaks,
            key=manifest.key,
            quarantine=manifest.quarantine,
        )
        _write(home, marker_name(manifest.segment), encode_marker(marker))

    # -- the rest of a closed log ------------------------------------------------------------------------------

    def _rest(self, home: Directory, name: str, manifest: ClosedManifest) -> None:
        folder = kept.closed_folder(name)
        sizes = {
            kept.TILES: [
                (tile, kept.TILE_BYTES) for tile in kept.full_tiles(manifest.first_seq, manifest.last_seq)
            ],
            kept.PARTIAL_TILES: list(kept.partial_tiles(manifest.last_seq)),
        }
        present = {f"{kept.QUARANTINE}/{tail}" for one in self.contents.segments for tail in one.quarantine}
        for entry in manifest.files:
            key = f"{folder}/{entry.name}"
            if entry.name in sizes:
                self._tiles(home, self._download(key, entry), sizes[entry.name])
            elif entry.name not in present:
                self._file(home, key, entry)
        self.tell(
            f"the rest of the closed log: restored (sequences {manifest.first_seq} to {manifest.last_seq})"
        )

    # -- one object --------------------------------------------------------------------------------------------

    def _download(self, key: str, entry: FileEntry) -> bytes:
        data = self.bucket.read(key, entry.bytes)
        self._check(key, entry, sha256(data).hexdigest(), len(data))
        return data

    def _check(self, key: str, entry: FileEntry, digest: str, size: int) -> None:
        self.bytes += size
        if (digest, size) != (entry.sha256, entry.bytes):
            raise _damaged(key, f"is not what its manifest says ({size} bytes, SHA-256 {digest})")

    def _file(self, home: Directory, key: str, entry: FileEntry) -> None:
        """Download into the file that *entry* names: one name, or one in the quarantine."""
        folder, _, base = entry.name.rpartition("/")
        place = home.subdirectory(kept.QUARANTINE) if folder else home
        try:
            file = place.create(base)
            try:
                digest, size = sha256(), 0
                for piece in self.bucket.stream(key, entry.bytes):
                    digest.update(piece)
                    _write_at(file, piece, size)
                    size += len(piece)
                file.fsync()
            finally:
                file.close()
            place.sync()
        finally:
            if place is not home:
                place.close()
        self._check(key, entry, digest.hexdigest(), size)

    def _tiles(self, home: Directory, data: bytes, sizes: list[tuple[str, int]]) -> None:
        if len(data) != sum(size for _, size in sizes):
            raise _damaged("tiles", f"{len(data)} bytes of tiles, expected {sum(size for _, size in sizes)}")
        at = 0
        with TileStore(home) as tiles:
            for name, size in sizes:
                place = parse_tile_path(name)
                if place is not None:
                    tiles.write(place.level, place.number, data[at : at + size])
                at += size
            tiles.sync()

    # -- who signed it -----------------------------------------------------------------------------------------

    def _signed(
        self, home: Directory, epochs: Sequence[Epoch], pinned: Sequence[VerifierKey]
    ) -> tuple[int, str]:
        """Size and key of the newest checkpoint that came back, by a trusted key; (0, "") where none is pinned.

        Raises:
            AuditCorruption: A key is pinned and that checkpoint is by none that follows it; or it is not whole, or
                names another tree.
        """
        if not epochs:
            if pinned:
                raise AuditCorruption("archive damaged: a key is pinned for this log, and nothing is signed")
            return 0, ""
        newest = epochs[-1]
        manifest = newest.manifest
        name = kept.segment_files(manifest.segment)[".checkpoints"]
        history = notes_in(_read(home, name), [epoch.vkey for epoch in epochs[-2:]])
        if not history.notes or history.rest:
            raise _damaged(name, f"holds no whole checkpoint at byte {history.end}: {history.reason}")
        checkpoint, note = history.notes[-1].checkpoint, history.notes[-1].note
        if checkpoint.origin != log_name(manifest.origin, manifest.log_id):
            raise _damaged(name, f"holds a checkpoint of {checkpoint.origin!r}")
        if checkpoint.size == manifest.last_seq and checkpoint.root != manifest.frontier.root():
            raise _damaged(name, f"its checkpoint of size {checkpoint.size} has another root")
        # An older one says nothing of the records behind it, and the key before nothing at all any more.
        if pinned and checkpoint.size != manifest.last_seq:
            raise _damaged(
                name,
                f"its last checkpoint covers records up to {checkpoint.size}, the segment ends at {manifest.last_seq}",
            )
        try:
            open_note(note, [newest.vkey])
        except BadInput as why:
            raise _damaged(
                name, f"the key of its own segment did not sign its last checkpoint: {why}"
            ) from why
        if pinned and not newest.trusted:
            raise AuditCorruption(
                f"archive damaged: {name!r} is signed by a key that does not follow the pinned one",
                file=name,
                hint="`holdfast audit keys show` prints a log's keys",
            )
        return (checkpoint.size, str(newest.vkey)) if pinned else (0, "")

    def _verify_whole(self, pinned: Sequence[VerifierKey]) -> str:
        """The root of the whole staged log, once `verify` finds nothing wrong with it."""
        report = verify(self.stage, keys=pinned)
        if not report.ok:
            raise AuditCorruption(
                f"archive damaged: the restored log does not verify: {report.first_bad}",
                sequence=report.first_bad.sequence if report.first_bad is not None else 0,
            )
        return report.root


def walk_epochs(segments: Sequence[SegmentManifest], pinned: Sequence[VerifierKey]) -> list[Epoch]:
    """The epochs of *segments*, which begin with the log's first.

    Raises:
        AuditCorruption: One is missing, or is not signed by the one before.
    """
    found: list[Epoch] = []
    for manifest in segments:
        details = manifest.key
        if details is None:
            if found:
                raise _damaged(manifest.segment, "has no KEY record, and segments before it have")
            continue
        name, before = manifest.segment, found[-1] if found else None
        if details.epoch != len(found) + 1 or (before is None) != (details.reason == FIRST):
            raise _damaged(name, f"begins epoch {details.epoch} where {len(found) + 1} belongs")
        follows = before if details.reason == ROTATION else None
        try:
            said = check_key_note(details, follows.vkey if follows is not None else None)
        except BadInput as why:
            raise _damaged(name, f"has the key of epoch {details.epoch}, which does not hold: {why}") from why
        if (said.log_id, said.origin) != (manifest.log_id, manifest.origin):
            raise _damaged(name, f"has the key of log {said.log_id}")
        trusted = said.vkey in pinned or (follows is not None and follows.trusted)
        found.append(Epoch(manifest, said.vkey, trusted))
    return found


def _unpack(home: Directory, manifest: SegmentManifest) -> None:
    """Turn a compressed segment back into the raw one; its bytes are verified already."""
    own = kept.segment_files(manifest.segment)
    packed = home.open(own[".log.gz"])
    raw = home.create(manifest.segment)
    try:
        offset = 0
        for _, piece in read_members(packed):
            _write_at(raw, piece, offset)
            offset += len(piece)
        raw.fsync()
    finally:
        raw.close()
        packed.close()
    home.unlink(own[".log.gz"])
    with contextlib.suppress(FileNotFoundError):
        home.unlink(own[".idx"])


def _end_with(home: Directory, manifest: SegmentManifest) -> None:
    """Let a closed log end with this segment: a head that says so, and its newest checkpoint."""
    page = bytearray(PAGE_BYTES)
    for count in (1, 2):
        mark = HeadMark(manifest.last_seq, manifest.segment, manifest.raw_bytes, HeadState.CLOSED, count)
        slot = encode_slot(mark)
        page[SLOT_OFFSETS[count & 1] : SLOT_OFFSETS[count & 1] + len(slot)] = slot
    _write(home, kept.HEAD, bytes(page))
    if manifest.key is not None:
        name = kept.segment_files(manifest.segment)[".checkpoints"]
        newest = notes_in(_read(home, name), [VerifierKey.parse(manifest.key.vkey)]).notes
        if newest:
            _write(home, kept.CHECKPOINT, newest[-1].note)


def _read(home: Directory, name: str) -> bytes:
    try:
        file = home.open(name)
    except FileNotFoundError:
        raise _damaged(name, "is missing") from None
    try:
        return b"".join(read_blocks(file))
    finally:
        file.close()


def _write(home: Directory, name: str, data: bytes) -> None:
    file = home.create(name)
    try:
        _write_at(file, data, 0)
        file.fsync()
    finally:
        file.close()


def _write_at(file: File, data: bytes, offset: int) -> None:
    while data:
        taken = file.pwrite(data, offset)
        offset += taken
        data = data[taken:]


def _damaged(name: str, why: str) -> AuditCorruption:
    return AuditCorruption(f"archive damaged: {name!r} {why}", file=name)

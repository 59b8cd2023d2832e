"""Removing local segments whose copies in the archive are proven, in this moment and not once upon a time.

Promise: a segment goes only when all of this was found true in the same call: it is sealed, the oldest one here,
not the newest sealed one, and older than was asked for; its own bytes are an orderly segment; the archive's
manifest says of it what these bytes say; every file that the manifest names was read back from the store and
hashed equal; each is locked as long as the policy demands; and the tree over it lies in full tiles, from which its
root was computed. Then one PRUNED record is made durable by the log's one writer, the marker takes the segment's
place, and the file goes (`audit.pruned`). Tiles and checkpoints stay, so every old proof stays valid.

Limits: while another process writes the log nothing can be pruned: it is the one writer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.archive import manifest as kept
from holdfast.archive.local import list_log, open_log, read_tiles
from holdfast.archive.manifest import SegmentManifest
from holdfast.archive.policy import Policy
from holdfast.archive.segment import Examined, examine
from holdfast.archive.store import Bucket, ObjectMissing
from holdfast.archive.upload import Tell, check_lock, read_back, read_segment_manifest
from holdfast.audit.pruned import prune_segment
from holdfast.audit.schemas import PrunedDetails
from holdfast.audit.storage import Directory, Storage
from holdfast.audit.tiles import TILE_WIDTH, tile_path
from holdfast.audit.tree import HASH_BYTES, Frontier
from holdfast.core.clock import utc
from holdfast.core.errors import AuditCorruption

Append = Callable[[str, dict[str, Any]], int]
"""Writes one record of the log durably; its sequence."""


class PruneReport(NamedTuple):
    """What one run removed.

    Attributes:
        pruned: The segments that went, oldest first.
        freed: Bytes of their files.
        next_seq: The first sequence that is still here.
        stopped: Why the next segment stayed.
    """

    pruned: list[str]
    freed: int
    next_seq: int
    stopped: str


def prune(
    path: Path,
    bucket: Bucket,
    policy: Policy,
    append: Append,
    *,
    older_than: timedelta,
    now: datetime,
    tell: Tell = lambda _: None,
    storage: Storage | None = None,
) -> PruneReport:
    """Remove from the log in *path* the oldest segments whose copies in *bucket* are proven now.

    Args:
        path: The log.
        bucket: Its archive.
        policy: How the copies must be locked.
        append: The log's writer.
        older_than: Segments with a younger record stay.
        now: The time.
        tell: Is told of each segment.
        storage: Where *path* lies.

    Raises:
        BadInput: There is no such log.
        AuditCorruption: The log and its archive do not agree, or one of them is damaged; nothing more was removed.
        ArchiveRefused: The store refused, or a copy is not locked as the policy demands.
        LogHeld: Another process writes the log.
    """
    directory = open_log(path, storage)
    try:
        log = list_log(directory)
        pruned: list[str] = []
        freed = 0
        frontier = log.pruned.frontier
        stopped = "the newest sealed segment stays" if log.sealed else "no segment here is sealed"
        for name in log.sealed[:-1]:
            try:
                manifest = read_segment_manifest(bucket, name)
            except ObjectMissing:
                stopped = f"{name} is not in {bucket} yet"
                break
            if utc(manifest.last_ts_ns) > now - older_than:
                stopped = f"{name} holds records that are younger"
                break
            missing = _missing_tiles(directory, manifest)
            if missing:
                stopped = f"the tree over {name} is not in full tiles yet: {missing}"
                break
            facts = _prove(directory, bucket, policy, manifest, frontier)
            prune_segment(directory, append, _details(bucket, manifest, facts))
            pruned.append(name)
            freed += facts.gzip_bytes
            tell(f"{name}: its copy was read back, the local one is removed")
        return PruneReport(pruned, freed, frontier.size + 1, stopped)
    finally:
        directory.close()


def _prove(
    directory: Directory, bucket: Bucket, policy: Policy, manifest: SegmentManifest, frontier: Frontier
) -> Examined:
    """Hold the local segment, its manifest, its copies, their locks and its tiles against one another."""
    name = manifest.segment
    leaves_before = frontier.copy()
    facts = examine(directory, name + ".gz", frontier, max_raw_bytes=manifest.raw_bytes)
    entry = manifest.file(name + ".gz")
    said = (manifest.log_id, manifest.last_seq, manifest.raw_sha256, manifest.key, manifest.quarantine)
    here = (facts.log_id, facts.last_seq, facts.raw_sha256, facts.key, facts.quarantine)
    if said != here or entry is None or entry.sha256 != facts.gzip_sha256:
        raise AuditCorruption(
            f"archive damaged: the manifest of {name!r} in {bucket} is not that of the segment here",
            file=name,
        )
    if [peak.hex() for peak in frontier.peaks()] != manifest.peaks:
        raise AuditCorruption(f"archive damaged: the manifest of {name!r} names another tree", file=name)
    required = policy.lock(utc(manifest.last_ts_ns))
    for one in manifest.files:
        read_back(bucket, one.name, one)
        if required is not None:
            check_lock(bucket, one.name, required)
    if required is not None:
        check_lock(bucket, kept.segment_manifest_name(name), required)
    _check_tiles(directory, manifest, leaves_before)
    return facts


def _tiles_over(manifest: SegmentManifest) -> list[str]:
    """The level-0 tiles that hold the segment's leaves, the last one full too."""
    first, last = (manifest.first_seq - 1) // TILE_WIDTH, (manifest.last_seq - 1) // TILE_WIDTH
    return [tile_path(0, number) for number in range(first, last + 1)]


def _missing_tiles(directory: Directory, manifest: SegmentManifest) -> str:
    """Which tile a proof would lack once the segment is gone; "" for none."""
    wanted = [*_tiles_over(manifest), *kept.full_tiles(manifest.first_seq, manifest.last_seq)]
    return next((name for name in wanted if read_tiles(directory, [name]) is None), "")


def _check_tiles(directory: Directory, manifest: SegmentManifest, before: Frontier) -> None:
    """Compute the root at the segment's end from the tiles that stay."""
    tiles = read_tiles(directory, _tiles_over(manifest)) or b""
    start = (manifest.first_seq - 1) % TILE_WIDTH
    count = manifest.last_seq - manifest.first_seq + 1
    cut = tiles[start * HASH_BYTES : (start + count) * HASH_BYTES]
    before.extend([cut[at : at + HASH_BYTES] for at in range(0, len(cut), HASH_BYTES)])
    if before.size != manifest.last_seq or before.root() != manifest.frontier.root():
        raise AuditCorruption(
            f"audit log damaged: the tiles over {manifest.segment!r} do not give its root",
            file=_tiles_over(manifest)[0],
            hint="holdfast audit verify names the tile",
        )


def _details(bucket: Bucket, manifest: SegmentManifest, facts: Examined) -> PrunedDetails:
    index = manifest.file(kept.segment_files(manifest.segment)[".idx"])
    return PrunedDetails(
        segment=manifest.segment,
        first_seq=manifest.first_seq,
        last_seq=manifest.last_seq,
        raw_sha256=facts.raw_sha256,
        raw_bytes=facts.raw_bytes,
        gzip_sha256=facts.gzip_sha256,
        gzip_bytes=facts.gzip_bytes,
        index_sha256=index.sha256 if index is not None else "",
        archive=str(bucket),
        peaks=manifest.peaks,
        key=facts.key,
        quarantine=facts.quarantine,
    )

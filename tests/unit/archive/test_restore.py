"""Restoring a log: nothing comes back that is not what was archived, whatever lies in the store."""

from __future__ import annotations

import gzip
import resource
import zlib
from hashlib import sha256

import msgspec
import pytest
from support.s3 import Fault, FaultProxy, Interrupted, MemoryBucket, Store, make_log

from holdfast.archive import manifest as kept
from holdfast.archive.manifest import ClosedManifest, LogManifest, SegmentManifest
from holdfast.archive.policy import Policy
from holdfast.archive.restore import read_contents, restore
from holdfast.archive.store import Bucket
from holdfast.archive.upload import archive
from holdfast.audit.format import encode_line
from holdfast.audit.note import Checkpoint, SigningKey, VerifierKey, sign_note
from holdfast.audit.pruned import InArchive
from holdfast.audit.query import query, read_lines
from holdfast.audit.schemas import KeyDetails
from holdfast.audit.tree import Frontier
from holdfast.audit.verify import verify
from holdfast.core.errors import ArchiveRefused, ArchiveUnreachable, AuditCorruption, BadInput

from .conftest import NOW, files_of

pytestmark = pytest.mark.contract("A19")

FIRST = "audit_20251120_102000_000000000001"
SECOND = "audit_20251121_102000_000000000303"


def _nothing_left(tmp_path) -> bool:
    return not [path for path in tmp_path.iterdir() if path.name not in {"log", "home"}]


# -- ranges ----------------------------------------------------------------------------------------------------


def test_range_brings_its_segments_and_says_where_the_rest_is(desk, tmp_path):
    """A range comes back as the segments that hold it, readable; what is before it is named as archived."""
    desk.archive()
    done = restore(desk.memory, tmp_path / "part", desk.keys, first=400, last=450)
    assert (done.first_seq, done.last_seq, done.segments, done.whole) == (303, 604, 1, False)
    assert done.signed_to == 604
    lines = list(read_lines(desk.log))
    assert list(read_lines(tmp_path / "part", start_seq=303)) == lines[302:604]
    with pytest.raises(InArchive, match="sequences 1 to 302"):
        query(tmp_path / "part")
    assert not verify(tmp_path / "part").ok, "a copy without its beginning is no whole log"


def test_beginning_comes_back_as_a_log_that_verifies(desk, tmp_path):
    """Records up to some sequence come back as a closed log that verifies by itself, with its signatures."""
    desk.archive()
    done = restore(desk.memory, tmp_path / "part", desk.keys, last=400)
    report = verify(tmp_path / "part", keys=desk.keys(done.log_id))
    assert report.ok
    assert (report.total_entries, report.signed_to, report.root) == (604, 604, done.root)


@pytest.mark.parametrize(("first", "last"), [(0, None), (5, 4), (None, 10**6), (10**6, None), (-1, -1)])
def test_range_outside_the_archive_is_refused(desk, tmp_path, first, last):
    """A range that the archive does not hold is a user error that names what it holds."""
    desk.archive()
    with pytest.raises(BadInput, match="the archive holds 1 to 912"):
        restore(desk.memory, tmp_path / "part", desk.keys, first=first, last=last)
    assert _nothing_left(tmp_path)


# -- where it goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["directory", "file", "link", "no parent"])
def test_place_that_is_taken_is_not_touched(small, tmp_path, what):
    """A restore goes to a new directory only: nothing that exists is replaced or followed."""
    small.archive()
    target = tmp_path / "home" / "back" if what != "no parent" else tmp_path / "none" / "back"
    if what == "directory":
        target.mkdir()
    elif what == "file":
        target.write_text("mine")
    elif what == "link":
        target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="restore refused"):
        restore(small.memory, target, small.keys)
    assert target.is_file() is (what == "file")
    assert not (tmp_path / "elsewhere").exists()


def test_restored_files_are_private(small, tmp_path):
    """What comes back is readable by its owner alone."""
    small.archive()
    restore(small.memory, tmp_path / "back", small.keys)
    for path in (tmp_path / "back", *(tmp_path / "back").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_interrupted_restore_leaves_nothing(small, tmp_path):
    """An end at any operation leaves neither a directory nor its parts behind."""
    small.archive()
    small.memory.calls = 0
    restore(small.memory, tmp_path / "home" / "back", small.keys)
    for stop in range(1, small.memory.calls + 1):
        small.memory.calls, small.memory.stop_at = 0, stop
        with pytest.raises(Interrupted):
            restore(small.memory, tmp_path / "back", small.keys)
        assert _nothing_left(tmp_path), stop


@pytest.mark.parametrize(("kind", "error"), [("500", ArchiveUnreachable), ("cut", ArchiveUnreachable), ("denied", ArchiveRefused)])  # fmt: skip
def test_trouble_on_the_way_is_named(small, locked, tmp_path, kind, error):
    """A store that fails in the middle of a restore is named, and nothing is left."""
    small.archive(locked)
    with FaultProxy(Store(locked.account.endpoint)) as proxy:
        proxy.faults.append(Fault(kind, "GET", ".log.gz"))
        with pytest.raises(error):
            restore(
                Bucket(str(locked), Store(proxy.endpoint).environ, retries=0), tmp_path / "back", small.keys
            )
    assert _nothing_left(tmp_path)


def test_no_archive_is_named(tmp_path):
    """An empty place is a user error."""
    with pytest.raises(BadInput, match="there is no archive"):
        restore(MemoryBucket(), tmp_path / "back", lambda _: [])


# -- what somebody did to the store ----------------------------------------------------------------------------


def test_any_changed_object_is_found(desk, tmp_path):
    """A flipped bit, a cut and an added byte in any object are damage (exit 3), and nothing comes back."""
    desk.archive()
    for name, data in dict(desk.memory.objects).items():
        if name.startswith("log_"):
            continue  # says nothing that the segments do not; its own test is below
        middle = len(data) // 2
        for changed in (
            data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
            data[:-1],
            data + b"\n",
        ):
            desk.memory.replace(name, changed)
            with pytest.raises(AuditCorruption) as damaged:
                restore(desk.memory, tmp_path / "back", desk.keys)
            assert damaged.value.exit_code == 3
            assert _nothing_left(tmp_path), name
        desk.memory.replace(name, data)
    restore(desk.memory, tmp_path / "back", desk.keys)


def test_any_missing_file_is_found(small, tmp_path):
    """An archive from which a file of a segment is gone is refused by that file's name."""
    small.archive()
    for name in [name for name in small.memory.objects if "manifest" not in name]:
        data = small.memory.objects.pop(name)
        with pytest.raises(ArchiveRefused, match=f"{name}' is missing"):
            restore(small.memory, tmp_path / "back", small.keys)
        small.memory.replace(name, data)


def test_missing_manifests_are_found(desk, tmp_path):
    """A segment in the middle, or the newest one, that is withheld is missed by the manifests that remain."""
    desk.archive()
    segments = [name for name in desk.memory.objects if kept.parse_segment_manifest_name(name)]
    for name, says in zip(
        segments, ("where 1 belongs", "where 303 belongs", "their segments are missing"), strict=True
    ):
        data = desk.memory.objects.pop(name)
        with pytest.raises(AuditCorruption, match=says):
            restore(desk.memory, tmp_path / "back", desk.keys)
        desk.memory.replace(name, data)
    name = next(name for name in desk.memory.objects if name.startswith("log_"))
    said = kept.decode(name, desk.memory.objects[name], LogManifest)
    desk.memory.replace(name, kept.encode(msgspec.structs.replace(said, root="00" * 32)))
    with pytest.raises(AuditCorruption, match="something else than its segments"):
        restore(desk.memory, tmp_path / "back", desk.keys)


def test_file_that_only_its_manifest_names_is_held_against_it(desk, tmp_path):
    """A file that nothing else would judge, as an index in a range, is held against its manifest's hash."""
    desk.archive()
    name = f"{SECOND}.idx"
    data = desk.memory.objects[name]
    for changed in (data[:-1] + b"?", data[:-1], b""):
        desk.memory.replace(name, changed)
        with pytest.raises(AuditCorruption, match="is not what its manifest says"):
            restore(desk.memory, tmp_path / "back", desk.keys, first=400, last=401)


def test_manifests_hold_one_another(desk, tmp_path):
    """A manifest that does not name the hash of the one before is damage, whatever else in it is right."""
    desk.archive()
    name = kept.segment_manifest_name(f"{SECOND}.log")
    manifest = _manifest_of(desk.memory, f"{SECOND}.log")
    desk.memory.replace(name, kept.encode(msgspec.structs.replace(manifest, previous="00" * 32)))
    with pytest.raises(AuditCorruption, match="does not follow the manifest before it"):
        restore(desk.memory, tmp_path / "back", desk.keys)


def _forge(
    bucket: MemoryBucket,
    segment: str,
    packed: bytes,
    *,
    history: bytes | None = None,
    first_key=None,
    **changes,
) -> None:
    """Put *packed* in the place of a segment, and *history* of its checkpoints, and write every manifest anew."""
    put = {segment + ".log.gz": packed} | ({} if history is None else {segment + ".checkpoints": history})
    contents = read_contents(bucket)
    previous = ""
    for manifest in contents.segments:
        name = kept.segment_manifest_name(manifest.segment)
        new = msgspec.structs.replace(manifest, previous=previous)
        if first_key is not None and not previous:
            new = msgspec.structs.replace(new, key=first_key)
        if manifest.segment == segment + ".log":
            files = [
                msgspec.structs.replace(
                    one, bytes=len(put[one.name]), sha256=sha256(put[one.name]).hexdigest()
                )
                if one.name in put
                else one
                for one in manifest.files
            ]
            new = msgspec.structs.replace(new, files=files, **changes)
            for file, data in put.items():
                bucket.replace(file, data)
        bucket.replace(name, kept.encode(new))
        previous = sha256(kept.encode(new)).hexdigest()
    for name in [name for name in bucket.objects if name.startswith(("log_", "closed_"))]:
        del bucket.objects[name]


def _manifest_of(bucket: MemoryBucket, segment: str) -> SegmentManifest:
    name = kept.segment_manifest_name(segment)
    return kept.decode(name, bucket.objects[name], SegmentManifest)


@pytest.mark.parametrize("kind", ["member", "raw", "garbage", "no end"])
def test_bomb_is_not_unpacked(small, tmp_path, kind):
    """A segment that unpacks to more than it says is stopped there, without taking the memory that it asks for."""
    small.archive()
    honest = small.memory.objects[f"{FIRST}.log.gz"]
    lines = gzip.decompress(honest)
    packed = {"raw": honest * 200, "garbage": b"\x1f\x8b" + bytes(1000), "no end": honest[:-3]}.get(kind, b"")
    if kind == "member":
        zeros = zlib.compressobj(1, wbits=31)
        packed = b"".join([*(zeros.compress(bytes(1 << 20)) for _ in range(200)), zeros.flush()])
    _forge(small.memory, FIRST, packed, raw_bytes=len(lines))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AuditCorruption) as damaged:
        restore(small.memory, tmp_path / "back", small.keys)
    assert damaged.value.exit_code == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "KiB"
    assert _nothing_left(tmp_path)


def test_rewritten_record_is_found_by_its_signature(small, tmp_path):
    """Who changes a record and computes everything anew but the signatures is found by the pinned key."""
    small.archive(whole=False)
    lines = gzip.decompress(small.memory.objects[f"{FIRST}.log.gz"]).splitlines()
    victim = msgspec.json.decode(lines[9])
    lines[9] = encode_line(
        victim["seq"], victim["synced"], victim["ts"], "NOTE", "somebody else", "", msgspec.json.encode(victim["details"])
    )  # fmt: skip
    raw = b"".join(line + b"\n" for line in lines)
    frontier = Frontier()
    frontier.extend([sha256(b"\0" + line).digest() for line in lines])
    _forge(
        small.memory, FIRST, gzip.compress(raw), raw_bytes=len(raw), raw_sha256=sha256(raw).hexdigest(),
        peaks=[peak.hex() for peak in frontier.peaks()],
    )  # fmt: skip
    for keys in (small.keys, lambda _: []):
        with pytest.raises(AuditCorruption, match="root"):
            restore(small.memory, tmp_path / "back", keys)
    assert _nothing_left(tmp_path)


def _rewritten(bucket: MemoryBucket) -> tuple[bytes, Frontier]:
    """The second segment with one record changed near its end, and the tree over that."""
    frontier = _manifest_of(bucket, f"{FIRST}.log").frontier
    lines = gzip.decompress(bucket.objects[f"{SECOND}.log.gz"]).splitlines()
    victim = msgspec.json.decode(lines[250])
    lines[250] = encode_line(
        victim["seq"], victim["synced"], victim["ts"], "NOTE", "somebody else", "", msgspec.json.encode(victim["details"])
    )  # fmt: skip
    frontier.extend([sha256(b"\0" + line).digest() for line in lines])
    return b"".join(line + b"\n" for line in lines), frontier


@pytest.mark.invariant("I8")
def test_older_checkpoint_does_not_sign_a_range(desk, tmp_path):
    """A record changed behind the last checkpoint that is left is found: a range is signed to its end, or not."""
    desk.archive()
    raw, frontier = _rewritten(desk.memory)
    notes = desk.memory.objects[f"{SECOND}.checkpoints"]
    first_note = notes[: notes.index(b"\n\n", notes.index(b"\n\n") + 2) + 2]
    _forge(
        desk.memory, SECOND, gzip.compress(raw), history=first_note, raw_bytes=len(raw),
        raw_sha256=sha256(raw).hexdigest(), peaks=[peak.hex() for peak in frontier.peaks()],
    )  # fmt: skip
    with pytest.raises(AuditCorruption, match="its last checkpoint covers records up to 304"):
        restore(desk.memory, tmp_path / "part", desk.keys, first=400, last=450)


@pytest.mark.invariant("I8")
def test_range_that_only_names_the_pinned_key_is_not_signed_by_it(desk, tmp_path):
    """A forger's checkpoint is not taken for one of the victim's key because a KEY record names that as the next."""
    desk.archive()
    manifest = _manifest_of(desk.memory, f"{SECOND}.log")
    assert manifest.key is not None
    pinned = VerifierKey.parse(manifest.key.vkey)
    thief = SigningKey(pinned.name, bytes(32))
    keys = [
        KeyDetails(
            epoch=epoch,
            vkey=str(vkey),
            reason=reason,
            note=sign_note(
                f"holdfast key v1\n{manifest.origin}\n{manifest.log_id}\n{epoch}\n{vkey}\n".encode(), thief
            ).decode(),
        )
        for epoch, vkey, reason in ((1, thief.vkey, "first"), (2, pinned, "rotation"))
    ]
    lines = gzip.decompress(desk.memory.objects[f"{SECOND}.log.gz"]).splitlines()
    was = msgspec.json.decode(lines[1])
    lines[1] = encode_line(
        was["seq"], was["synced"], was["ts"], "KEY", was["user"], was["component"], msgspec.json.encode(keys[1])
    )  # fmt: skip
    frontier = _manifest_of(desk.memory, f"{FIRST}.log").frontier
    frontier.extend([sha256(b"\0" + line).digest() for line in lines])
    raw = b"".join(line + b"\n" for line in lines)
    note = sign_note(Checkpoint(pinned.name, manifest.last_seq, frontier.root()).text(), thief)
    _forge(
        desk.memory, SECOND, gzip.compress(raw), history=note + b"\n", first_key=keys[0], key=keys[1],
        raw_bytes=len(raw), raw_sha256=sha256(raw).hexdigest(), peaks=[peak.hex() for peak in frontier.peaks()],
    )  # fmt: skip
    with pytest.raises(AuditCorruption, match="did not sign its last checkpoint"):
        restore(desk.memory, tmp_path / "part", lambda _: [pinned], first=400, last=450)


def test_whole_archive_under_another_key_is_refused(small, tmp_path):
    """A log written anew under the same id, with keys of its own, is not taken for the pinned one."""
    small.archive()
    log_id = bytes.fromhex(_manifest_of(small.memory, f"{FIRST}.log").log_id)
    make_log(tmp_path / "home" / "forged", tmp_path / "home" / "thief", segments=1, records=20, log_id=log_id)
    forged = MemoryBucket()
    archive(tmp_path / "home" / "forged", forged, Policy(), now=NOW, token="ab" * 8)
    with pytest.raises(AuditCorruption, match="does not follow the pinned one"):
        restore(forged, tmp_path / "back", small.keys)
    assert restore(forged, tmp_path / "unpinned", lambda _: []).signed_by == ""


def test_unsigned_archive_is_not_taken_for_a_signed_log(small, tmp_path):
    """Where a key is pinned, an archive without signatures is refused."""
    small.archive()
    log_id = bytes.fromhex(_manifest_of(small.memory, f"{FIRST}.log").log_id)
    make_log(
        tmp_path / "home" / "bare", tmp_path / "home", segments=1, records=20, signed=False, log_id=log_id
    )
    bare = MemoryBucket()
    archive(tmp_path / "home" / "bare", bare, Policy(), now=NOW, token="ab" * 8)
    with pytest.raises(AuditCorruption, match="nothing is signed"):
        restore(bare, tmp_path / "back", small.keys)


def test_foreign_objects_lead_nowhere(small, tmp_path):
    """Objects of other names are no part of the archive, whatever paths they spell."""
    small.archive()
    for name in ("../../evil", "/etc/passwd", "tile/0/000", "run/pid", "HEAD", "notes.txt", "x.manifest.json",
                 "audit_20251120_102000_000000000001.LOG.GZ", "closed_9.manifest.json"):  # fmt: skip
        small.memory.replace(name, b"foreign")
    restore(small.memory, tmp_path / "back", small.keys)
    assert files_of(tmp_path / "back") == files_of(small.log)


def test_second_segment_with_the_same_start_is_damage(small, tmp_path):
    """Two segments that begin at one sequence are refused, not chosen between."""
    small.archive()
    other = "audit_20251120_102001_000000000001.log"
    manifest = _manifest_of(small.memory, f"{FIRST}.log")
    files = [msgspec.structs.replace(manifest.files[0], name=other + ".gz")]
    twin = msgspec.structs.replace(manifest, segment=other, files=files)
    small.memory.replace(kept.segment_manifest_name(other), kept.encode(twin))
    with pytest.raises(AuditCorruption, match="where 23 belongs"):
        restore(small.memory, tmp_path / "back", small.keys)


def test_rest_of_another_state_is_not_mixed_in(small, tmp_path):
    """A rest that does not follow the archived segments is left out, not glued on."""
    small.archive()
    name = next(name for name in small.memory.objects if kept.parse_closed_manifest_name(name) is not None)
    rest = kept.decode(name, small.memory.objects.pop(name), ClosedManifest)
    strange = msgspec.structs.replace(rest, previous="00" * 32)
    small.memory.replace(kept.closed_manifest_name(strange), kept.encode(strange))
    done = restore(small.memory, tmp_path / "back", small.keys)
    assert (done.last_seq, done.whole) == (22, False)

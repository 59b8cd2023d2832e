"""Archiving a log: what goes, how it is locked, and how an ended run is taken up."""

from __future__ import annotations

import gzip
import shutil
from datetime import timedelta

import pytest
from support.s3 import START_NS, Fault, FaultProxy, Interrupted, MemoryBucket, Store, make_log

from holdfast.archive.policy import Policy, Retention
from holdfast.archive.restore import restore
from holdfast.archive.store import GOVERNANCE, Bucket
from holdfast.archive.upload import archive
from holdfast.audit.keys import KeyHome
from holdfast.audit.pruned import marker_name
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import ArchiveRefused, ArchiveUnreachable, AuditCorruption, BadInput

from .conftest import NOW, files_of

pytestmark = pytest.mark.contract("A19")

FIRST = "audit_20251120_102000_000000000001"


def sealed_to(log):
    """The last sequence before the newest segment, as its name says."""
    return max(int(path.stem.rpartition("_")[2]) for path in log.glob("audit_*.log")) - 1


def test_closed_log_comes_back_bit_for_bit(desk, locked, tmp_path):
    """Every file of a closed log is restored equal, no more and no fewer, and the log was not touched."""
    before = files_of(desk.log)
    report = desk.archive(locked)
    assert (report.segments, report.archived_to, report.closed) == (3, sealed_to(desk.log), True)
    restored = restore(locked, tmp_path / "back", desk.keys)
    assert files_of(tmp_path / "back") == before == files_of(desk.log)
    assert restored.whole
    assert restored.signed_by


def test_every_object_is_locked_for_seven_years(small, locked, store):
    """Each object is in COMPLIANCE mode for seven years from the run, and its version cannot be deleted."""
    small.archive(locked)
    client = store.boto()
    names = [name for name in locked.sizes() if "selftest" not in name]
    assert len(names) > 8
    for name in names:
        place = {"Bucket": locked.place.bucket, "Key": f"desk/{name}"}
        facts = client.head_object(**place)
        assert facts["ObjectLockMode"] == "COMPLIANCE", name
        assert facts["ObjectLockRetainUntilDate"] == NOW.replace(year=NOW.year + 7, microsecond=0), name
        with pytest.raises(client.exceptions.ClientError, match="Access Denied"):
            client.delete_object(**place, VersionId=facts["VersionId"])


def test_policy_is_kept(small):
    """Another retention and GOVERNANCE are set where they are asked for."""
    small.archive(policy=Policy(GOVERNANCE, Retention.parse("90d"), legal_hold=True))
    state = small.memory.lock_of(f"{FIRST}.idx")
    assert state == (GOVERNANCE, (NOW + timedelta(days=90)).replace(microsecond=0), True)


def test_repeat_writes_nothing(desk):
    """A second run finds everything there and puts nothing but its self-test, which it takes away."""
    desk.archive()
    objects = dict(desk.memory.objects)
    again = desk.archive()
    assert (again.new_segments, again.new_objects, again.archived_to) == (0, 0, sealed_to(desk.log))
    assert desk.memory.objects == objects


def test_live_log_goes_as_far_as_it_is_sealed(desk, tmp_path):
    """Beside a live writer the sealed segments go; the rest follows once it is closed, and the writer goes on."""
    clock = ManualClock(START_NS + 10 * 86_400 * 10**9)
    log = WriteAheadLog(desk.log, clock=clock, keys=KeyHome(desk.home))
    log.append("NOTE", {"n": 1})
    report = desk.archive()
    assert not report.closed
    assert report.waiting >= 1
    first = restore(desk.memory, tmp_path / "first", desk.keys)
    assert first.last_seq == report.archived_to
    assert not first.whole
    log.append("NOTE", {"n": 2})
    log.close()
    assert desk.archive().closed
    second = restore(desk.memory, tmp_path / "second", desk.keys)
    assert second.last_seq > first.last_seq
    assert files_of(tmp_path / "second") == files_of(desk.log)


def test_unsigned_log_is_archived_too(tmp_path):
    """A log without keys goes and comes back; nothing is said to be signed."""
    make_log(tmp_path / "log", tmp_path / "home", segments=1, records=20, signed=False)
    bucket = MemoryBucket()
    archive(tmp_path / "log", bucket, Policy(), now=NOW, token="ab" * 8)
    restored = restore(bucket, tmp_path / "back", lambda _: [])
    assert files_of(tmp_path / "back") == files_of(tmp_path / "log")
    assert (restored.signed_to, restored.signed_by) == (0, "")


def test_sealed_only_leaves_the_rest(small):
    """With sealed segments only, nothing of the last one goes."""
    assert not small.archive(whole=False).closed
    assert not [name for name in small.memory.objects if name.startswith("closed_")]


def test_prefix_of_another_log_is_refused(small, tmp_path):
    """Two logs are not mixed under one prefix."""
    small.archive()
    objects = dict(small.memory.objects)
    make_log(tmp_path / "other", tmp_path / "home2", segments=1, records=5)
    for path in (tmp_path / "other").glob("*_000000000001.*"):
        path.rename(path.with_name(path.name.replace("audit_2025", "audit_2024")))
    with pytest.raises(BadInput, match="holds another log"):
        archive(tmp_path / "other", small.memory, Policy(), now=NOW, token="ab" * 8)
    assert small.memory.objects.items() >= objects.items()
    assert len([name for name in small.memory.objects if "manifest" in name]) == 3


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_no_log_is_named(tmp_path, what):
    """A directory without a log is a user error, and nothing of it is put."""
    path = tmp_path / "log"
    if what == "empty":
        path.mkdir(mode=0o700)
    bucket = MemoryBucket()
    with pytest.raises(BadInput, match="no audit log"):
        archive(path, bucket, Policy(), now=NOW, token="ab" * 8)
    assert not bucket.objects


def test_run_that_ended_anywhere_is_taken_up(small):
    """After an end at any operation on the store, no manifest names what is not there, and a repeat completes it."""
    small.archive()
    whole, operations = dict(small.memory.objects), small.memory.calls
    assert operations > 40
    for stop in range(1, operations + 1):
        bucket = MemoryBucket()
        bucket.stop_at = stop
        with pytest.raises(Interrupted):
            small.archive(bucket)
        for name in bucket.objects:
            if name.endswith(".manifest.json") and name.startswith("audit_"):
                assert {f"{FIRST}.log.gz", f"{FIRST}.idx", f"{FIRST}.checkpoints"} <= bucket.objects.keys()
        bucket.stop_at = 0
        small.archive(bucket)
        left = {name: data for name, data in bucket.objects.items() if "selftest" not in name}
        assert left == whole, stop


def test_error_in_the_middle_is_taken_up(small, locked):
    """A store that fails in the middle ends the run with its name, and a repeat goes on with what is there."""
    with FaultProxy(Store(locked.account.endpoint)) as proxy:
        proxy.faults.append(Fault("503", "PUT", "/desk/audit_", after=2))
        with pytest.raises(ArchiveUnreachable, match="SlowDown"):
            small.archive(Bucket(str(locked), Store(proxy.endpoint).environ, retries=0))
    there = [name for name in locked.sizes() if name.startswith("audit_")]
    assert len(there) == 2
    small.archive()
    assert small.archive(locked).new_objects == len(small.memory.objects) - 2


# -- copies that cannot be believed ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["flip", "cut", "longer"])
def test_copy_that_reads_back_differently_is_not_archived(small, change):
    """A copy that the store returns changed is damage (exit 3), and no manifest names it."""

    class Wrong(MemoryBucket):
        def put_new(self, name, data, lock):
            version = super().put_new(name, data, lock)
            if name.endswith(".log.gz"):
                changed = {"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "longer": data + b"?"}
                self.objects[name] = changed[change]
            return version

    bucket = Wrong()
    with pytest.raises(AuditCorruption, match="archive damaged") as damaged:
        small.archive(bucket)
    assert damaged.value.exit_code == 3
    assert not [name for name in bucket.objects if name.endswith(".manifest.json")]


def test_other_content_under_our_name_is_damage(small):
    """An object that stands there under a segment's name and is not it is never taken for the copy."""
    small.memory.put_new(f"{FIRST}.idx", (small.log / f"{FIRST}.idx").read_bytes()[:-1] + b"?", None)
    with pytest.raises(AuditCorruption, match="is not the file that the log holds"):
        small.archive()


def test_weaker_lock_of_an_earlier_run_is_named(small):
    """A file that an interrupted run locked for less is refused, not counted."""
    lock = Policy(retention=Retention.parse("1d")).lock(NOW)
    small.memory.put_new(f"{FIRST}.log.gz", (small.log / f"{FIRST}.log.gz").read_bytes(), lock)
    with pytest.raises(ArchiveRefused, match="required COMPLIANCE until"):
        small.archive()


# -- damaged logs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".log.gz", ".idx"])
def test_damaged_segment_is_not_archived(small, ending):
    """A sealed segment that is not what its records say goes nowhere."""
    victim = small.log / f"{FIRST}{ending}"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(AuditCorruption, match="audit log damaged"):
        small.archive()
    assert not [name for name in small.memory.objects if name.endswith(".manifest.json")]


def test_segment_that_no_record_vouches_for_is_not_archived(small):
    """A segment compressed anew by somebody else, with the same lines, is refused."""
    victim = small.log / f"{FIRST}.log.gz"
    victim.write_bytes(gzip.compress(gzip.decompress(victim.read_bytes()), 1))
    with pytest.raises(AuditCorruption, match="not what its SEALED record says"):
        small.archive()


def test_pruned_log_needs_its_own_archive(desk, tmp_path):
    """A log whose beginning is only in an archive cannot begin another one."""
    desk.archive()
    restore(desk.memory, tmp_path / "part", desk.keys, first=400, last=401)
    marker = marker_name(f"{FIRST}.log")
    shutil.copy(tmp_path / "part" / marker, desk.log / marker)
    (desk.log / f"{FIRST}.log.gz").unlink()
    with pytest.raises(AuditCorruption, match="was pruned here and is not in"):
        desk.archive(MemoryBucket())

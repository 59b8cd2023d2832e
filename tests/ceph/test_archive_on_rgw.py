"""The archive on a real S3 server: Ceph's gateway, with object lock. A lane of its own: `make ceph`.

Ceph 16 honours put-if-absent in plain buckets and ignores it where versions are kept; there it locks the first
version, so nothing is lost. What holds on moto and in memory must hold here too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.s3 import make_log

from holdfast.archive.policy import Policy, Retention
from holdfast.archive.prune import prune
from holdfast.archive.restore import restore
from holdfast.archive.selftest import prove
from holdfast.archive.store import COMPLIANCE, GOVERNANCE, AlreadyThere, Bucket, Lock
from holdfast.archive.upload import archive
from holdfast.audit.keys import KeyHome
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.core.errors import ArchiveRefused, AuditCorruption

pytestmark = [pytest.mark.contract("A19"), pytest.mark.slow]


@pytest.fixture
def locked(store) -> Bucket:
    return store.bucket(f"s3://{store.make()}/desk")


@pytest.fixture
def log(tmp_path) -> Path:
    make_log(tmp_path / "log", tmp_path / "home")
    return tmp_path / "log"


def _keys(tmp_path):
    return lambda log_id: KeyHome(tmp_path / "home").log(log_id).pins()


def _files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "run"
    }


def _archive(log: Path, bucket: Bucket, policy: Policy | None = None):
    return archive(log, bucket, policy or Policy(), now=datetime.now(UTC), token=os.urandom(8).hex())


def test_store_is_known_for_what_it_is(store, locked):
    """The gateway keeps versions locked where it ignores put-if-absent, and honours it in a plain bucket."""
    now = datetime.now(UTC)
    findings = prove(locked, lock_mode=COMPLIANCE, now=now, token="ab" * 8)
    assert findings.locked
    assert findings.checks_checksums
    assert findings.refuses_second or any("every version locked" in note for note in findings.notes())
    plain = store.bucket(f"s3://{store.make(lock=False)}/desk")
    assert prove(plain, lock_mode=None, now=now, token="cd" * 8).refuses_second
    plain.put_new("x", b"one", None)
    with pytest.raises(AlreadyThere):
        plain.put_new("x", b"two", None)
    with pytest.raises(ArchiveRefused, match="no object lock"):
        prove(plain, lock_mode=COMPLIANCE, now=now, token="ef" * 8)


def test_closed_log_goes_and_comes_back_bit_for_bit(log, locked, tmp_path):
    """A whole log is archived under lock, repeated without a write, and restored equal."""
    report = _archive(log, locked)
    assert (report.segments, report.closed) == (3, True)
    assert _archive(log, locked).new_objects == 0
    restored = restore(locked, tmp_path / "back", _keys(tmp_path))
    assert restored.whole
    assert restored.signed_by
    assert _files(tmp_path / "back") == _files(log)


def test_lock_holds_against_everybody(log, locked, store):
    """No version can be deleted, shortened or freed from its lock; a plain delete only hides it, and it stays readable."""
    _archive(log, locked)
    client = store.boto()
    name = next(name for name in locked.sizes() if name.endswith(".log.gz"))
    place = {"Bucket": locked.place.bucket, "Key": f"desk/{name}"}
    facts = client.head_object(**place)
    assert facts["ObjectLockMode"] == "COMPLIANCE"
    assert facts["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=7 * 365)
    refused = client.exceptions.ClientError
    for bypass in (False, True):
        with pytest.raises(refused, match="AccessDenied"):
            client.delete_object(**place, VersionId=facts["VersionId"], BypassGovernanceRetention=bypass)
    sooner = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    with pytest.raises(refused):
        client.put_object_retention(**place, Retention=sooner)
    client.delete_object(**place)
    assert locked.read(name, 1 << 20, version=facts["VersionId"]) == (log / name).read_bytes()


def test_weaker_policies_and_holds(log, locked, store):
    """GOVERNANCE is set where it is asked for; a legal hold by our own signed request holds until it is released."""
    _archive(log, locked, Policy(GOVERNANCE, Retention.parse("1d")))
    name = next(name for name in locked.sizes() if name.endswith(".log.gz"))
    assert locked.lock_of(name).mode == GOVERNANCE
    locked.set_legal_hold(name, hold=True)
    assert locked.lock_of(name).legal_hold
    client = store.boto()
    place = {"Bucket": locked.place.bucket, "Key": f"desk/{name}"}
    version = client.head_object(**place)["VersionId"]
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(**place, VersionId=version, BypassGovernanceRetention=True)
    locked.set_legal_hold(name, hold=False)
    assert not locked.lock_of(name).legal_hold


def test_pruned_log_verifies_and_its_archive_is_whole(log, locked, tmp_path):
    """Local segments go after their copies were read back from the gateway; log and archive verify after it."""
    _archive(log, locked)
    writer = WriteAheadLog(log, clock=SystemClock(), keys=KeyHome(tmp_path / "home"))
    report = prune(
        log, locked, Policy(), lambda type_, details: writer.append(type_, details, component="journal"),
        older_than=timedelta(), now=datetime.now(UTC),
    )  # fmt: skip
    writer.close()
    assert len(report.pruned) == 2
    assert verify(log).ok
    _archive(log, locked)
    restored = restore(locked, tmp_path / "back", _keys(tmp_path))
    assert verify(restored.directory, keys=_keys(tmp_path)(restored.log_id)).ok


def test_wrong_checksums_and_changed_copies_are_found(log, store, tmp_path):
    """The gateway refuses a body that is not what its header says; a copy changed later is found by restore."""
    plain = store.bucket(f"s3://{store.make(lock=False)}/desk")
    with pytest.raises(ArchiveRefused, match="BadDigest"):
        plain.put_with_wrong_checksums("x", b"abc")
    _archive(log, plain, Policy(mode=None))
    name = next(name for name in plain.sizes() if name.endswith(".log.gz"))
    data = bytearray(plain.read(name, 1 << 20))
    data[len(data) // 2] ^= 1
    store.boto().put_object(Bucket=plain.place.bucket, Key=f"desk/{name}", Body=bytes(data))
    with pytest.raises(AuditCorruption, match="not what its manifest says"):
        restore(plain, tmp_path / "back", _keys(tmp_path))


def test_errors_are_named(store, locked):
    """Wrong keys, a wrong secret and a missing bucket have their sentences here too."""
    for change, says in (
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not know this key"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "secret key is wrong"),
    ):
        with pytest.raises(ArchiveRefused, match=says):
            Bucket(str(locked), store.environ | change, retries=0).put_new(
                "x", b"", Lock(COMPLIANCE, datetime.now(UTC))
            )
    with pytest.raises(ArchiveRefused, match="no such bucket"):
        store.bucket("s3://not-there/desk").put_new("x", b"", None)


def test_command_line_reaches_it(log, store, tmp_path):
    """`archive` and `restore` run against the gateway with nothing but the usual variables."""
    url = f"s3://{store.make()}/desk"
    environ = {**os.environ, **store.environ, "HOLDFAST_HOME": str(tmp_path / "home")}
    for arguments in (("archive", str(log), url), ("restore", url, str(tmp_path / "back"))):
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", "audit", *arguments],
            env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "back") == _files(log)

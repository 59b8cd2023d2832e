"""The self-test of a store: whether it keeps what an archive needs, asked before anything is entrusted to it.

Not every server that speaks S3 is one: some answer a put-if-absent with success and overwrite what was there,
some answer every question about retention with success and lock nothing. So each run begins with a small object
of its own, and a store is refused that does one of these:

* what was written cannot be read back at once, or is not listed;
* a second put-if-absent replaces the first object. Where the bucket keeps versions and locks them, as every
  bucket with object lock does, some servers (Ceph RGW 16) add a version instead of refusing: that loses nothing,
  is accepted when the first version is still there and locked, and is said;
* the object lock that was sent with an object cannot be read back from it.

Whether the store checks checksums is found out and said, not demanded: each copy is read back and hashed here.

Limits: the test object is locked for a day, so each run leaves one of some 40 bytes in `selftest/`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from holdfast.archive.store import AlreadyThere, Bucket, Lock
from holdfast.core.errors import ArchiveRefused, ArchiveUnreachable

FOLDER = "selftest"

_LIMIT = 1024
_REFUSED = "use another store; nothing was entrusted to this one"


class Findings(NamedTuple):
    """What the self-test found.

    Attributes:
        refuses_second: Whether a second put-if-absent is refused; else it becomes a version of its own.
        checks_checksums: Whether bytes that are not what their headers say are refused.
        locked: Whether an object lock was set and read back.
    """

    refuses_second: bool
    checks_checksums: bool
    locked: bool

    def notes(self) -> list[str]:
        """What a person should know, one sentence each."""
        said: list[str] = []
        if not self.refuses_second:
            said.append(
                "the store ignores put-if-absent in this bucket but keeps every version locked: nothing is lost"
            )
        if not self.checks_checksums:
            said.append("the store does not check checksum headers: only reading back shows a damaged copy")
        if not self.locked:
            said.append("without object lock, whoever has the right may delete what is archived")
        return said


def prove(bucket: Bucket, *, lock_mode: str | None, now: datetime, token: str) -> Findings:
    """Try *bucket* with an object of its own, named by *token*, random hexadecimal digits.

    Args:
        bucket: The store.
        lock_mode: The object lock that copies will have, or None where none was wanted.
        now: The time; the lock is for a day.
        token: Makes the test object's name.

    Raises:
        ArchiveRefused: It does not keep what an archive needs; the message says what.
    """
    name = f"{FOLDER}/{token}"
    lock = None if lock_mode is None else Lock(lock_mode, now + timedelta(days=1))
    first, second = f"first {token}\n".encode(), f"second {token}\n".encode()
    try:
        version = bucket.put_new(name, first, lock)
    except ArchiveUnreachable:
        raise
    except ArchiveRefused as why:
        if lock is not None and "InvalidRequest" in str(why):
            raise ArchiveRefused(
                f"archive {bucket}: the bucket has no object lock",
                hint="make one with object lock; to go without, say --no-lock",
            ) from why
        raise
    if bucket.read(name, _LIMIT) != first:
        raise ArchiveRefused(f"archive {bucket}: the store did not return what it was given", hint=_REFUSED)
    if name not in bucket.sizes(FOLDER):
        raise ArchiveRefused(f"archive {bucket}: the store does not list what it was given", hint=_REFUSED)
    if lock is not None:
        state = bucket.lock_of(name)
        if not state.covers(lock):
            raise ArchiveRefused(
                f"archive {bucket}: the store accepted an object lock and did not set it ({state})",
                hint=f"{_REFUSED}; to go without, say --no-lock",
            )
    refuses = _refuses_second(bucket, name, second)
    if bucket.read(name, _LIMIT, version="" if refuses else version) != first or not (refuses or version):
        raise _overwrites(bucket)
    if not refuses and lock is None:
        raise _overwrites(bucket)  # versions that nobody locked may be deleted
    checks = _checks_checksums(bucket, f"{name}-sum", first)
    bucket.forget(name)
    return Findings(refuses, checks, lock is not None)


def _refuses_second(bucket: Bucket, name: str, data: bytes) -> bool:
    try:
        bucket.put_new(name, data, None)
    except AlreadyThere:
        return True
    return False


def _overwrites(bucket: Bucket) -> ArchiveRefused:
    return ArchiveRefused(
        f"archive {bucket}: the store ignores put-if-absent and overwrites what is there",
        hint="two writers would destroy each other's copies there; use another store",
    )


def _checks_checksums(bucket: Bucket, name: str, data: bytes) -> bool:
    try:
        bucket.put_with_wrong_checksums(name, data)
    except ArchiveUnreachable:
        raise
    except ArchiveRefused:
        return True
    bucket.forget(name)
    return False

"""The sink that is a bucket with object lock, against moto and a proxy that makes trouble."""

import pytest
from support.anchors import LOG_ID, MemoryLog
from support.s3 import Fault, FaultProxy, Store, moto_store

from holdfast.anchors.s3 import ObjectLockSink
from holdfast.anchors.sink import Outcome
from holdfast.core.clock import SystemClock


@pytest.fixture(scope="module")
def store():
    with moto_store() as store:
        yield store


def nothing_known(log_id, sink):
    return None


def a_sink(store, bucket, **options):
    return ObjectLockSink(f"s3://{bucket}/desk", store.environ, nothing_known, SystemClock(), **options)


def key(size):
    return f"desk/anchors/{LOG_ID}/{size:020d}.note"


def test_each_checkpoint_is_an_object_locked_for_seven_years(store):
    """The object lies under its log's id and size, holds the note, and is in COMPLIANCE mode until 2557 days on."""
    bucket, log = store.make(), MemoryLog(5)
    receipt = a_sink(store, bucket).submit(log.submission())
    assert receipt.outcome is Outcome.ANCHORED
    kept = store.boto().get_object(Bucket=bucket, Key=key(5))
    assert kept["Body"].read() == log.note()
    assert kept["ObjectLockMode"] == "COMPLIANCE"
    days = (kept["ObjectLockRetainUntilDate"] - kept["LastModified"]).days
    assert days in {2556, 2557}
    assert "COMPLIANCE until" in receipt.why


def test_a_bucket_without_object_lock_is_refused(store):
    """Where nothing can be locked the sink is REFUSED, not ANCHORED."""
    assert a_sink(store, store.make(lock=False)).submit(MemoryLog(5).submission()).outcome is Outcome.REFUSED


def test_a_store_that_forgets_the_lock_is_refused(store):
    """A store that takes the object and drops its lock is found by asking for the lock."""
    bucket = store.make()
    with FaultProxy(store) as proxy:
        proxy.faults.append(Fault("unlocked"))
        receipt = a_sink(Store(proxy.endpoint), bucket).submit(MemoryLog(5).submission())
    assert receipt.outcome is Outcome.REFUSED
    assert "does not keep the object lock" in receipt.why


@pytest.mark.parametrize(
    ("content", "outcome"),
    [(MemoryLog(4).grow(1, b"x").note(), Outcome.WENT_BACK), (b"rubbish", Outcome.REFUSED)],
)
def test_what_lies_there_already_is_read(store, content, outcome):
    """An object of this size with other records is WENT_BACK, one that is no checkpoint is REFUSED."""
    bucket = store.make()
    with FaultProxy(store) as proxy:
        # Stored by somebody else between our looking and our writing.
        sink = a_sink(Store(proxy.endpoint), bucket)
        sink._known = lambda log_id, name: (
            store.boto().put_object(Bucket=bucket, Key=key(5), Body=content) and None
        )
        sink._bucket.sizes = lambda folder: {}
        assert sink.submit(MemoryLog(5).submission()).outcome is outcome


def test_an_answer_that_was_lost_is_made_up_for(store):
    """After a put whose answer never came the sink is UNKNOWN; asked again it finds the object and is ANCHORED."""
    bucket, log = store.make(), MemoryLog(5)
    with FaultProxy(store) as proxy:
        proxy.faults.append(Fault("lose", times=1))
        sink = a_sink(Store(proxy.endpoint), bucket)
        assert sink.submit(log.submission()).outcome is Outcome.UNKNOWN
        assert sink.submit(log.submission()).outcome is Outcome.ANCHORED
        assert sink.submit(log.grow(1).submission()).outcome is Outcome.ANCHORED


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("500", Outcome.UNKNOWN),
        ("503", Outcome.UNKNOWN),
        ("cut", Outcome.UNKNOWN),
        ("denied", Outcome.REFUSED),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_trouble_is_never_an_anchor(store, kind, outcome, method):
    """An error of the store at any step is UNKNOWN, a missing right REFUSED."""
    bucket = store.make()
    with FaultProxy(store) as proxy:
        proxy.faults.append(Fault(kind, method))
        receipt = a_sink(Store(proxy.endpoint), bucket).submit(MemoryLog(5).submission())
    assert receipt.outcome is outcome
    assert receipt.note == b""


def test_without_a_receipt_the_newest_object_is_found(store):
    """The mark is the object of the largest size, however many there are, and never another log's."""
    bucket, log = store.make(), MemoryLog(30)
    sink = a_sink(store, bucket)
    for size in (9, 30, 10):
        sink._bucket.put_new(f"anchors/{LOG_ID}/{size:020d}.note", log.note(size), None)
    other = MemoryLog(99, log_id="cd" * 16)
    sink._bucket.put_new(f"anchors/{other.log_id}/{99:020d}.note", other.note(), None)
    (mark,) = sink.marks(LOG_ID)
    assert (mark.size, mark.root) == (30, log.checkpoint().root)

"""A sink that is an S3 bucket with object lock: one object for each checkpoint, which nobody can remove in time.

Promise: ANCHORED means that `<prefix>/anchors/<log id>/<size, 20 digits>.note` was created, never replaced, reads
back as a checkpoint of this size and root, and that the store says it is locked in COMPLIANCE mode for as long as
was asked. An object of the same size that holds another root is WENT_BACK.

Limits: the newest object is looked for by listing where no receipt says what was stored last; after years that
takes a while, once. Credentials come from the usual AWS variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from holdfast.anchors.sink import Outcome, Receipt, Submission, checkpoint_of, follows
from holdfast.archive.store import COMPLIANCE, AlreadyThere, Bucket, Lock
from holdfast.audit.anchor import Mark
from holdfast.core.clock import Clock, utc
from holdfast.core.errors import ArchiveRefused, ArchiveUnreachable, AuditCorruption, BadInput

RETAIN_DAYS = 2557
"""Seven years, as the archive keeps."""

_FOLDER = "anchors"
_NOTE_BYTES = 1 << 20


class ObjectLockSink:
    """Checkpoints as locked objects.

    Args:
        url: `s3://bucket/prefix`.
        environ: Where credentials, region and endpoint stand.
        known: What was stored last, by log id and sink: the receipts.
        clock: From when the retention counts.
        retain_days: For how long an object is locked.

    Raises:
        BadInput: The address is none, or obstore is not installed.
    """

    def __init__(
        self,
        url: str,
        environ: Mapping[str, str],
        known: Callable[[str, str], Mark | None],
        clock: Clock,
        retain_days: int = RETAIN_DAYS,
    ) -> None:
        self._bucket = Bucket(url, environ, retries=0)  # a sink is asked again in its turn
        self._known = known
        self._clock = clock
        self._retain = timedelta(days=retain_days)

    @property
    def name(self) -> str:
        """Kind and address."""
        return str(self._bucket)

    def submit(self, submission: Submission) -> Receipt:
        """Store the checkpoint, unless the bucket shows that the log went back."""
        size = submission.checkpoint.size
        try:
            for mark in self.marks(submission.log_id):
                if why := follows(submission, mark):
                    return Receipt(self.name, Outcome.WENT_BACK, size, why, known_size=mark.size)
            return self._store(submission)
        except ArchiveUnreachable as why:
            return Receipt(self.name, Outcome.UNKNOWN, size, str(why))
        except (ArchiveRefused, AuditCorruption, BadInput) as why:
            return Receipt(self.name, Outcome.REFUSED, size, str(why))

    def marks(self, log_id: str) -> Iterable[Mark]:
        """The newest checkpoint stored, as the receipts say; the bucket's listing where there is none."""
        mark = self._known(log_id, self.name)
        if mark is not None:
            return (mark,)
        names = self._bucket.sizes(f"{_FOLDER}/{log_id}")
        newest = max((name for name in names if name.endswith(".note")), default=None)
        if newest is None:
            return ()
        checkpoint = checkpoint_of(self._bucket.read(newest, _NOTE_BYTES), log_id)
        return (Mark(checkpoint.size, checkpoint.root, f"{newest} in {self.name}"),)

    def _store(self, submission: Submission) -> Receipt:
        log_id, checkpoint = submission.log_id, submission.checkpoint
        name = f"{_FOLDER}/{log_id}/{checkpoint.size:020d}.note"
        lock = Lock(COMPLIANCE, utc(self._clock.now_ns()) + self._retain)
        try:
            self._bucket.put_new(name, submission.note, lock)
        except AlreadyThere:
            lock = Lock(
                COMPLIANCE, utc(self._clock.now_ns())
            )  # another submission's, as long as that one asked
        kept = self._bucket.read(name, _NOTE_BYTES)
        stored = checkpoint_of(kept, log_id)
        if (stored.size, stored.root) != (checkpoint.size, checkpoint.root):
            why = f"{name} in {self.name} saw other records among the first {stored.size} than the log holds now"
            return Receipt(self.name, Outcome.WENT_BACK, checkpoint.size, why, known_size=stored.size)
        state = self._bucket.lock_of(name)
        if not state.covers(lock):
            why = f"the store does not keep the object lock: {name!r} has {state}"
            return Receipt(self.name, Outcome.REFUSED, checkpoint.size, why)
        return Receipt(self.name, Outcome.ANCHORED, checkpoint.size, f"{name}, {state}", kept)

"""A sink that is a witness: it cosigns checkpoints and refuses a log that went back.

Promise: ANCHORED means that a cosignature of the pinned witness key over exactly this checkpoint was verified; other
signatures in the answer are dropped. The witness is told the size it confirmed last; where it knows another one it
says so (409) and is given the proof from there. When it does not know the log's present key yet, it is given the
KEY notes it lacks (`add-key`, which only our own witness has).

What its answers mean here: a known size above the log's, the same size with another root (409), records that no
proof leads from (422), or an epoch of keys that the log does not hold are WENT_BACK. 403, 404 and 400 are REFUSED,
everything else is UNKNOWN. 403 is also what a witness says to a log whose lost key was replaced: pin the new one there.

Source: https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from holdfast.anchors import wire
from holdfast.anchors.http import check_url, post
from holdfast.anchors.sink import Outcome, Receipt, Submission, cosigned_ns, follows
from holdfast.anchors.wire import Answer
from holdfast.audit.anchor import Mark
from holdfast.audit.keys import parse_key_note
from holdfast.audit.note import ED25519, VerifierKey, parse_signature
from holdfast.core.clock import iso_utc
from holdfast.core.errors import AnchorUnreachable, BadInput

Ask = Callable[[str, bytes], Answer]
"""Send a body to a path below the witness's submission prefix; `AnchorUnreachable` where no answer came."""

_ROUNDS = 5
_KEY_BATCH_BYTES = wire.MAX_REQUEST_BYTES - 1024


class WitnessSink:
    """A witness that is asked over HTTP.

    Args:
        url: Its submission prefix.
        key: What its cosignatures are verified by.
        known: What it confirmed last, by log id: the receipts.
        ask: The wire; HTTP by default.

    Raises:
        BadInput: The URL is none, or the key is not a cosigner's.
    """

    def __init__(
        self, url: str, key: VerifierKey, known: Callable[[str, str], Mark | None], ask: Ask | None = None
    ) -> None:
        self._url = check_url(url).rstrip("/")
        self._key = key
        self._known = known
        self._ask = ask or self._post
        if key.algorithm == ED25519:
            raise BadInput(
                f"key {key.name!r} is a log's, not a witness's",
                hint="`holdfast audit witness` prints its own key",
            )

    @property
    def name(self) -> str:
        """Kind and address."""
        return f"witness:{self._url}"

    def submit(self, submission: Submission) -> Receipt:
        """Have the checkpoint cosigned."""
        mark = self._known(submission.log_id, self.name)
        if mark is not None and (why := follows(submission, mark)):
            return Receipt(
                self.name, Outcome.WENT_BACK, submission.checkpoint.size, why, known_size=mark.size
            )
        try:
            return self._submit(submission, 0 if mark is None else mark.size)
        except AnchorUnreachable as why:
            return self._receipt(submission, Outcome.UNKNOWN, str(why))

    def marks(self, log_id: str) -> Iterable[Mark]:
        """What it confirmed last; the protocol has no question for it."""
        mark = self._known(log_id, self.name)
        return () if mark is None else (mark,)

    def _submit(self, submission: Submission, old: int) -> Receipt:
        size = submission.checkpoint.size
        taught = False
        for _ in range(_ROUNDS):
            body = wire.encode_add_checkpoint(old, submission.prove(old), submission.note)
            answer = self._ask("/add-checkpoint", body)
            if answer.status == 200:
                return self._cosigned(submission, answer.body)
            if answer.status == 409:
                known = _count(answer, wire.SIZE_TYPE)
                if known > size:
                    why = f"the witness saw {known} records, the log's checkpoint covers {size}"
                    return self._receipt(submission, Outcome.WENT_BACK, why, known)
                if known == old:
                    why = f"the witness saw other records among the first {known} than the log holds now"
                    return self._receipt(submission, Outcome.WENT_BACK, why, known)
                old = known
            elif answer.status == 403 and not taught:
                refused = self._teach(submission, answer)
                if refused is not None:
                    return refused
                taught = True
            elif answer.status == 422:
                why = f"the witness saw other records among the first {old} than the log holds now"
                return self._receipt(submission, Outcome.WENT_BACK, why, old)
            elif answer.status in {400, 403, 404}:
                return self._refused(submission, answer)
            else:
                raise AnchorUnreachable(f"{self._url} answered with status {answer.status}")
        raise AnchorUnreachable(f"{self._url} knew another size each of {_ROUNDS} times it was asked")

    def _cosigned(self, submission: Submission, body: bytes) -> Receipt:
        """The receipt over the cosignatures of our witness among the lines of its answer."""
        text = submission.checkpoint.text()
        for line in body.splitlines(keepends=True):
            try:
                signature = parse_signature(line.removesuffix(b"\n"))
            except BadInput:
                continue
            if (signature.name, signature.key_id) == (self._key.name, self._key.key_id):
                if not self._key.verify(text, signature.value):
                    break
                when = iso_utc(cosigned_ns(signature.value))
                why = f"cosigned by {self._key.name!r} at {when}"
                return Receipt(
                    self.name,
                    Outcome.ANCHORED,
                    submission.checkpoint.size,
                    why,
                    submission.note + signature.line(),
                )
        raise AnchorUnreachable(f"{self._url} answered without a valid cosignature of {self._key.name!r}")

    def _teach(self, submission: Submission, answer: Answer) -> Receipt | None:
        """Give the witness the KEY notes it lacks; None once it took them, else what that means."""
        newest = submission.key_notes(0)[-1:]
        if not newest:
            return self._refused(submission, answer)
        learned = self._ask_to_learn(newest)
        known = parse_key_note(newest[0]).epoch - 1
        if learned.status == 409:
            known = _count(learned, wire.EPOCH_TYPE)
            # A witness that was pinned to a later key passes over the notes before it: the last answer counts.
            for batch in _batches(submission.key_notes(known)):
                learned = self._ask_to_learn(batch)
        if learned.status == 200:
            return None
        if learned.status in {403, 409} and known:
            # It follows no further than that epoch. If by the log's own key, that one was replaced; if by another
            # one, or one that the log never had, this is another history of the log.
            own = submission.key_notes(known - 1)[:1]
            if not own or self._ask_to_learn(own).status == 409:
                return self._other_keys(submission, known)
        return self._refused(submission, answer)

    def _other_keys(self, submission: Submission, known: int) -> Receipt:
        why = f"the witness follows this log's keys up to epoch {known}, which the log does not hold, or holds otherwise"
        return self._receipt(submission, Outcome.WENT_BACK, why)

    def _ask_to_learn(self, notes: list[bytes]) -> Answer:
        answer = self._ask("/add-key", wire.encode_notes(notes))
        if answer.status >= 500:
            raise AnchorUnreachable(f"{self._url} answered with status {answer.status}")
        return answer

    def _refused(self, submission: Submission, answer: Answer) -> Receipt:
        said = answer.body[:200].decode("utf-8", "replace").strip()
        return self._receipt(submission, Outcome.REFUSED, f"status {answer.status}: {said}")

    def _receipt(self, submission: Submission, outcome: Outcome, why: str, known: int = 0) -> Receipt:
        return Receipt(self.name, outcome, submission.checkpoint.size, why, known_size=known)

    def _post(self, path: str, body: bytes) -> Answer:
        answer = post(self._url + path, body, wire.TEXT_TYPE, most=wire.MAX_ANSWER_BYTES)
        return Answer(answer.status, answer.body, answer.content_type)


def _count(answer: Answer, content_type: str) -> int:
    try:
        return wire.parse_count(answer, content_type)
    except BadInput as why:
        raise AnchorUnreachable(f"the witness gave an answer that cannot be read: {why}") from why


def _batches(notes: Iterable[bytes]) -> Iterator[list[bytes]]:
    """*notes* in groups that one request holds."""
    batch: list[bytes] = []
    length = 0
    for note in notes:
        if batch and length + len(note) + 1 > _KEY_BATCH_BYTES:
            yield batch
            batch, length = [], 0
        batch.append(note)
        length += len(note) + 1
    if batch:
        yield batch

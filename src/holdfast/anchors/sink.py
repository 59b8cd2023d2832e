"""The port of an anchor sink: somebody outside the log who takes its checkpoints and remembers them.

Promise: a sink says ANCHORED only when it, or the third party behind it, durably has the checkpoint; UNKNOWN
when nobody can tell, which is never taken for a yes. WENT_BACK is the alarm: the sink remembers records that
this log does not hold. Sinks are asked by `audit anchor` and by whoever waits for an ANCHORED record, never on
the writer's path.

A refusal is a value here (`Receipt.outcome`); only a caller's mistake raises. Every sink keys what it remembers
by the log's id or origin, so that a second log on the same machine is never held against the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from holdfast.audit.anchor import Mark
from holdfast.audit.note import Checkpoint, cosigned_at, parse_checkpoint, parse_note
from holdfast.audit.tree import EMPTY_ROOT, HASH_BYTES, check_consistency
from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput

_LAST_SECOND = 253_402_300_799


class Outcome(Enum):
    """What became of a submission.

    Attributes:
        ANCHORED: The sink has it.
        UNKNOWN: It could not be asked, or gave no answer that can be believed; ask again later.
        REFUSED: It does not take this log's checkpoints as things are; a person mends that.
        WENT_BACK: It remembers what this log does not hold.
    """

    ANCHORED = "anchored"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    WENT_BACK = "went back"


class Receipt(NamedTuple):
    """A sink's answer.

    Attributes:
        sink: Its name.
        outcome: What became of the submission.
        size: The checkpoint's size.
        why: Who confirmed it, or what stood in the way.
        note: The checkpoint as it is to be kept, cosignatures included; b"" unless ANCHORED.
        token: An RFC 3161 response over the note, DER, or b"".
        authority: The certificates that the token was checked with, PEM, or b"".
        known_size: How many records the sink has seen of this log, where it said so.
    """

    sink: str
    outcome: Outcome
    size: int
    why: str
    note: bytes = b""
    token: bytes = b""
    authority: bytes = b""
    known_size: int = 0


@dataclass(frozen=True)
class Submission:
    """One checkpoint, and what a sink may ask its log for.

    Attributes:
        log_id: 32 lower-case hexadecimal digits.
        checkpoint: The newest one.
        note: Its signed bytes.
        prove: The consistency proof from an older size to the checkpoint's.
        key_notes: The signed notes of the KEY records of every epoch after the given one, in order.
    """

    log_id: str
    checkpoint: Checkpoint
    note: bytes
    prove: Callable[[int], list[bytes]]
    key_notes: Callable[[int], list[bytes]]


class AnchorSink(Protocol):
    """Where checkpoints are kept."""

    @property
    def name(self) -> str:
        """What it is called in messages: its kind and its address, no secret in it."""
        ...

    def submit(self, submission: Submission) -> Receipt:
        """Hand over a checkpoint; return once the sink has it, or what stood in the way."""
        ...

    def marks(self, log_id: str) -> Iterable[Mark]:
        """What the sink last saw of this log, where it can say so.

        Raises:
            AnchorUnreachable: It cannot be asked now.
            BadInput: What it kept cannot be read.
        """
        ...


def checkpoint_of(note: bytes, log_id: str) -> Checkpoint:
    """The checkpoint in *note*; its signatures are not checked.

    Raises:
        BadInput: It is none, or one of another log.
    """
    checkpoint = parse_checkpoint(parse_note(note).text)
    if checkpoint.origin.rpartition("/")[2] != log_id:
        raise BadInput(f"it speaks of log {checkpoint.origin!r}, not of log {log_id}")
    if len(checkpoint.root) != HASH_BYTES:
        raise BadInput(f"its root has {len(checkpoint.root)} bytes, not {HASH_BYTES}")
    return checkpoint


def cosigned_ns(signature: bytes) -> int:
    """When a cosignature (a `Signature.value`) says it was made, UTC ns; what lies beyond the year 9999 is its end."""
    return min(cosigned_at(signature), _LAST_SECOND) * NANOS


def follows(submission: Submission, mark: Mark) -> str:
    """Why the submitted log is not the one that *mark* saw, or "" where it holds all of it."""
    checkpoint = submission.checkpoint
    if mark.size > checkpoint.size:
        return f"{mark.source} saw {mark.size} records, the log's checkpoint covers {checkpoint.size}"
    try:
        if mark.size == 0:
            return "" if mark.root == EMPTY_ROOT else f"{mark.source} names no root of an empty log"
        path = submission.prove(mark.size)
        check_consistency(mark.size, mark.root, checkpoint.size, checkpoint.root, path)
    except BadInput:
        return f"{mark.source} saw other records among the first {mark.size} than the log holds now"
    return ""

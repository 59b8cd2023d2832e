"""What was appended and is not written yet, in order, with the segments that it will go to.

Promise: the place of a record in this queue is its sequence; a record that would make a segment too long, or
that a new UTC day begins with, has the mark of a new segment before it; the queue forgets nothing, and what it
had to refuse for lack of room it counts, by type.

Limits: no lock, no clock and no disk here. Every method is called under the log's mutex, and each leaves the
queue in order wherever an interruption cuts it: the sequence follows from the queue's length, so that none is
skipped and none given twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from holdfast.audit.format import type_of_middle
from holdfast.core.clock import NANOS

DAY_NS = 86_400 * NANOS
SEGMENT_BOUND = 600
"""Bytes of a SEGMENT record, at most."""
KEY_BOUND = 1600
"""Bytes of a KEY record, at most."""

Item = tuple[int, bytes, bytes, "list[bytes] | None"]
"""A record: ts, middle, details, and where its leaf hash goes; an empty middle begins a segment, and stands there
once for each record that a segment begins with."""


class Taken(NamedTuple):
    """The whole queue, taken to be written.

    Attributes:
        items: The records and marks.
        first: The sequence of the first.
        begins_segments: Whether there are marks among them.
        bound: The most bytes that the records take.
        plan: Which segment was the newest, for `give_back`.
    """

    items: list[Item]
    first: int
    begins_segments: bool
    bound: int
    plan: int


class Backlog:
    """The queue of one log.

    Args:
        rotate_bytes: No segment is planned longer than this.
        signed: Whether a segment begins with two records, SEGMENT and KEY, instead of one.

    Attributes:
        mark_items: How many items, and sequences, the mark of a new segment takes.
        items: The records and marks, in order.
        base: The sequence of the first of them.
        bytes: Bound of what they take.
        markers: How many segments begin among them, or one more after an interruption.
        plan_bytes: Bound of the bytes of the segment that the next record goes to.
        has_dropped: Whether a GAP record is due.
    """

    def __init__(self, rotate_bytes: int, *, signed: bool = False) -> None:
        self.mark_items = 2 if signed else 1
        self._begin_bytes = SEGMENT_BOUND + (KEY_BOUND if signed else 0)
        self.items: list[Item] = []
        self.base = 1
        self.bytes = 0
        self.markers = 0
        self.plan_bytes = 0
        self.has_dropped = False
        self._rotate_bytes = rotate_bytes
        self._plan_count = 0
        self._plan_used = False  # whether the segment has a record besides its SEGMENT record
        self._has_segment = False
        self._midnight_ns = 0
        self._dropped: dict[str, int] = {}
        self._dropped_ts = (0, 0)

    @property
    def last_seq(self) -> int:
        """The highest sequence given."""
        return self.base + len(self.items) - 1

    def take_up(self, next_seq: int) -> None:
        """Begin with *next_seq*, and with a new segment."""
        self.base = next_seq

    def take_up_segment(self, end: int, begun_ns: int, *, used: bool) -> None:
        """Go on in a segment of *end* bytes that was begun at *begun_ns*; *used*: it has a record of its own."""
        self._has_segment = True
        self.plan_bytes = end
        self._plan_used = used
        self._midnight_ns = (begun_ns // DAY_NS + 1) * DAY_NS

    def add(self, ts: int, middle: bytes, body: bytes, bound: int, leaves: list[bytes] | None) -> int:
        """Queue one record; its sequence."""
        if self._is_another_day(ts) or self.plan_bytes + bound > self._rotate_bytes:
            self.plan_segment(ts)
        items = self.items
        seq = self.base + len(items)
        items.append((ts, middle, body, leaves))
        self._plan_used = True
        self.plan_bytes += bound
        self.bytes += bound
        return seq

    def pass_by(self, ts: int, bound: int) -> int:
        """The sequence of a record that is written at once, past the empty queue; 0 where it has to queue.

        Whoever writes it adds its length to `plan_bytes`.
        """
        if (
            self.items
            or self.has_dropped
            or self.plan_bytes + bound > self._rotate_bytes
            or not self._has_segment
            or not self._midnight_ns - 2 * DAY_NS <= ts < self._midnight_ns
        ):
            return 0
        seq = self.base
        self.base = seq + 1
        self._plan_used = True
        return seq

    def add_many(
        self, ts: int, ready: Iterable[tuple[bytes, bytes, int]], leaves: list[bytes] | None
    ) -> list[int]:
        """As `add`, for records that follow one another; they share one time."""
        if self._is_another_day(ts):
            self.plan_segment(ts)
        items, base, limit = self.items, self.base, self._rotate_bytes
        seqs: list[int] = []
        for middle, body, bound in ready:
            if self.plan_bytes + bound > limit:
                self.plan_segment(ts)
            seqs.append(base + len(items))
            items.append((ts, middle, body, leaves))
            self._plan_used = True
            self.plan_bytes += bound
            self.bytes += bound
        return seqs

    def add_gap(self, ts: int, middle: bytes, body: bytes, bound: int) -> None:
        """Queue the record that counts what was dropped, and begin to count anew; it never begins a segment."""
        self._dropped, self._dropped_ts, self.has_dropped = {}, (0, 0), False
        self.items.append((ts, middle, body, None))
        self.plan_bytes += bound
        self.bytes += bound

    def drop(self, ts: int, middles: Sequence[bytes]) -> None:
        """Count records that found no room."""
        for middle in middles:
            type_ = type_of_middle(middle)
            self._dropped[type_] = self._dropped.get(type_, 0) + 1
        self._dropped_ts = (self._dropped_ts[0] or ts, ts)
        self.has_dropped = True

    def gap_details(self) -> dict[str, Any]:
        """What a GAP record says of the records dropped since the last one."""
        return {
            "dropped": sum(self._dropped.values()),
            "first_ts_ns": self._dropped_ts[0],
            "last_ts_ns": self._dropped_ts[1],
            "types": self._dropped,
        }

    def day_is_over(self, now: int) -> bool:
        """Whether a segment with records belongs to a UTC day that has ended."""
        return self._is_another_day(now) and self._plan_used

    def _is_another_day(self, ts: int) -> bool:
        """Whether *ts* belongs to another segment: behind midnight, or a whole day before the segment's own.

        A clock that was set far ahead and back again would otherwise leave one key in force until it gets there; one
        that is set back by less has not ended a day.
        """
        return not self._midnight_ns - 2 * DAY_NS <= ts < self._midnight_ns

    def plan_segment(self, ts: int) -> None:
        """Let the next record begin a new segment, unless the current one is empty."""
        if self._plan_used or not self._has_segment:
            # Counted first: an interruption in between must not leave a marker that is written as a line.
            self.markers += 1
            self.items.extend([(ts, b"", b"", None)] * self.mark_items)
            self._plan_count += 1
            self.plan_bytes = self._begin_bytes
            self._plan_used = False
            self._has_segment = True
        self._midnight_ns = (ts // DAY_NS + 1) * DAY_NS

    def take(self) -> Taken:
        """Everything queued; whoever takes it writes it, or the log ends."""
        taken = Taken(self.items, self.base, self.markers > 0, self.bytes, self._plan_count)
        self.bytes = self.markers = 0
        self.items, self.base = [], taken.first + len(taken.items)
        return taken

    def give_back(self, taken: Taken, written: int) -> None:
        """Return what the bounds of *taken*, *written* bytes long, asked for too much, so that segments fill up."""
        if not taken.begins_segments and taken.plan == self._plan_count:
            self.plan_bytes -= taken.bound - written

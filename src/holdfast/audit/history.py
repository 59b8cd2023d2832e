"""The checkpoints of one segment, in the file beside it: one signed note behind the other.

Promise: what `notes_in` gives are whole notes of this log in the order in which they were signed, and what stands
behind the last of them is given too, for whoever may judge whether a crash left it. Pure: no I/O, no verdict.

    <note><empty line> <note><empty line> … <filler: newlines>

A note is written with one write and one sync, and the next one only behind it, so a crash leaves at most one that
is not whole, and only behind all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from holdfast.audit.format import FILLER, SegmentName, parse_segment_name
from holdfast.audit.note import Checkpoint, VerifierKey, open_note, parse_checkpoint
from holdfast.core.errors import BadInput

CHECKPOINT_NAME = "checkpoint"
CHECKPOINT_TEMPORARY = "checkpoint.tmp"
HISTORY_SUFFIX = ".checkpoints"
NOTE_END = b"\n"
"""What stands between two notes: an empty line."""

_HOLE = b"\0"
_NOTE = re.compile(rb"(?:[^\n]+\n){3}\n(?:\xe2\x80\x94 [^\n]+\n)+(?=\n)")


def history_name(segment: str) -> str:
    """The name of the file that holds the checkpoints of *segment*, raw or sealed."""
    return segment.removesuffix(".gz").removesuffix(".log") + HISTORY_SUFFIX


def parse_history_name(name: str) -> SegmentName | None:
    """The segment, as it is called while raw, whose checkpoints the file *name* holds; None for other files."""
    if not name.endswith(HISTORY_SUFFIX):
        return None
    return parse_segment_name(name.removesuffix(HISTORY_SUFFIX) + ".log")


class HistoryNote(NamedTuple):
    """One checkpoint of the history.

    Attributes:
        offset: Where in its file it begins.
        note: Its bytes, without the empty line behind it.
        checkpoint: What it says.
    """

    offset: int
    note: bytes
    checkpoint: Checkpoint


class History(NamedTuple):
    """What a file holds.

    Attributes:
        notes: The whole and valid notes at its start, in order.
        end: Where they end; the next one belongs here.
        rest: What follows, without the filler and holes at its end; empty where there is only that.
        only_filler: Whether newlines and nothing else follow.
        reason: Why *rest* is no note, or "".
    """

    notes: list[HistoryNote]
    end: int
    rest: bytes
    only_filler: bool
    reason: str


def notes_in(content: bytes, keys: Sequence[VerifierKey], *, start: int = 0) -> History:
    """The notes of *content*, from byte *start* on, that one of *keys* signed and none of them wrongly."""
    notes: list[HistoryNote] = []
    at, reason = start, ""
    while (found := _NOTE.match(content, at)) is not None:
        try:
            opened = open_note(found[0], keys)
            checkpoint = parse_checkpoint(opened.text)
        except BadInput as why:
            reason = str(why)
            break
        if notes and checkpoint.size <= notes[-1].checkpoint.size:
            reason = f"checkpoint of size {checkpoint.size} follows one of size {notes[-1].checkpoint.size}"
            break
        notes.append(HistoryNote(at, found[0], checkpoint))
        at = found.end() + len(NOTE_END)
    following = content[at:]
    rest = following.rstrip(FILLER + _HOLE)
    return History(
        notes, at, rest, not rest and _HOLE not in following, reason or ("not a whole note" if rest else "")
    )


def last_start(content: bytes, origin: str, count: int) -> int:
    """Where the *count*-th note from the end seems to begin, so that a long file need not be read from its start."""
    mark = NOTE_END * 2 + origin.encode() + b"\n"
    at = len(content)
    for _ in range(count):
        at = content.rfind(mark, 0, at + len(mark) - 1)
        if at < 0:
            return 0
    return at + 2

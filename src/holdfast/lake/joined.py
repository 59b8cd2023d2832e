"""A journal that lies in several places: what an archive gave back, and what is still in the log's own directory.

Promise: every record is given once, in sequence order, from the first place that holds it; places that hold the
same record must hold the same bytes of it.

Limits: the same record is compared where two places meet, not everywhere. Whether a place is whole is what
`holdfast audit verify` and the restore itself say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.audit.pruned import InArchive
from holdfast.core.errors import AuditCorruption, BadInput
from holdfast.lake.journal import JournalReader, Piece


class JoinedJournal:
    """Reads one log forward, wherever its parts lie.

    Attributes:
        log_id: The log's.
        durable: The highest sequence that a part holds.
        next_seq: The sequence that comes next.
    """

    def __init__(self, parts: Sequence[JournalReader]) -> None:
        """Join *parts*, copies of one log, each looked at."""
        self._parts = sorted(parts, key=lambda part: part.durable)
        self.log_id = parts[0].log_id
        self.durable = self._parts[-1].durable
        self.next_seq = 1
        self._current: JournalReader | None = None

    def seek(self, seq: int) -> None:
        """Go on with sequence *seq*.

        Raises:
            InArchive: No part holds it.
        """
        self.next_seq = seq
        self._current = self._holding(seq)

    def read(self, most: int) -> Piece | None:
        """The next lines of one segment, at most *most*; None where all are read.

        Raises:
            InArchive: No part holds them.
            AuditCorruption: A part is damaged, or another history than the part before.
        """
        while self.next_seq <= self.durable:
            if self._current is None:
                self._current = self._holding(self.next_seq)
            piece = self._current.read(most)
            if piece is not None:
                self.next_seq = piece.last_seq + 1
                return piece
            self._compare_ends(self._current)
            self._current = None
        return None

    def close(self) -> None:
        """Give up what is open."""
        for part in self._parts:
            part.close()

    def _holding(self, seq: int) -> JournalReader:
        """The first part that holds *seq*, at that place."""
        refusal: InArchive | None = None
        for part in self._parts:
            if part.durable >= seq:
                try:
                    part.seek(seq)
                except InArchive as why:
                    refusal = why
                else:
                    return part
        raise refusal or BadInput(f"log {self.log_id} ends before sequence {seq}")

    def _compare_ends(self, ended: JournalReader) -> None:
        """Hold the last line of the part that *ended* against the same line of every other part."""
        last = ended.last_line(ended.durable)
        for part in self._parts:
            if part.durable <= ended.durable:
                continue
            other = part.last_line(ended.durable)
            if None not in {last, other} and last != other:
                raise AuditCorruption(
                    f"audit log replaced: sequence {ended.durable} in {str(ended.path)!r} is not that in"
                    f" {str(part.path)!r}",
                    sequence=ended.durable,
                    hint="they are two histories of one log; name the one that the lake was made of",
                )


def journals_of(logs: Sequence[Path]) -> list[JoinedJournal]:
    """The journals in *logs*; parts of one log are joined.

    Raises:
        BadInput: One is not there, or holds no record.
        AuditCorruption: The head of one is damaged.
    """
    parts: dict[str, list[JournalReader]] = {}
    for path in logs:
        reader = JournalReader(path)
        if not reader.look():
            raise BadInput(f"no record in {str(path)!r}", hint="name the log that the lake is made of")
        parts.setdefault(reader.log_id, []).append(reader)
    return [JoinedJournal(readers) for readers in parts.values()]

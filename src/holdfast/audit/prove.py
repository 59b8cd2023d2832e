"""Making proofs of single records from a log's directory.

Promise: a proof that is given out was checked as its reader will check it: the record is in the tree, a checkpoint
with that tree's root is signed, and the KEY notes lead to the key that signed it. Hashes come from the tiles where
they are and from the records else; where the tiles lead to another root, from the records alone. What does not come
out right is `AuditCorruption`, never a proof. Nothing is changed, no lock is taken, a writer may be at work.

Limits: only records that the checkpoint covers can be proven. Without tiles every record is read once for the first
proof. Who has signed is not judged: the keys are the log's own words, and whoever checks the proof names his.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.audit.format import facts_in_place, leaf_hash
from holdfast.audit.history import CHECKPOINT_NAME
from holdfast.audit.key_records import KeyRecord, key_records
from holdfast.audit.keys import ROTATION
from holdfast.audit.logfiles import checked_lines, damaged_line, missing, open_log, read_batches
from holdfast.audit.note import MAX_NOTE_BYTES, Checkpoint, parse_checkpoint, parse_note
from holdfast.audit.proofs import ProofChecker, RecordProof
from holdfast.audit.storage import Directory, Storage
from holdfast.audit.tiles import TileStore, tile_reader
from holdfast.audit.tree import inclusion_proof
from holdfast.core.errors import AuditCorruption, BadInput, ProofRefused

_VERIFY = "holdfast audit verify lists everything that is damaged"


class Prover:
    """Makes proofs of one log's records under one checkpoint.

    Args:
        directory: The log.
        checkpoint: The signed note to prove against, perhaps cosigned; by default the log's newest.
        storage: Where the directory lies; the machine's disks by default.

    Attributes:
        checkpoint: What every proof leads to.
        note: The same as it was signed.
        key_notes: The notes of the KEY records of epochs 2, 3 … up to that of its signer.
        tiles_damaged: Why the tiles were put aside and all hashes taken from the records, or "".

    Raises:
        BadInput: There is no such directory, or it has no checkpoint; or the one given is none, or of another log.
        AuditCorruption: The log's own checkpoint or a KEY record cannot be read.
    """

    def __init__(
        self, directory: Path | str, *, checkpoint: bytes | None = None, storage: Storage | None = None
    ) -> None:
        opened = open_log(Path(directory), storage, missing_ok=False)
        assert opened is not None  # noqa: S101  it was not to be missing
        self._directory: Directory = opened
        self.tiles_damaged = ""
        try:
            self.note = _newest_checkpoint(opened) if checkpoint is None else checkpoint
            self.checkpoint: Checkpoint = parse_checkpoint(parse_note(self.note).text)
            epochs = self._epochs()
            self.key_notes = tuple(epoch.details.note.encode() for epoch in epochs[1:])
            # As one checks it who pinned the first key, or the first of a new chain.
            self._checker = ProofChecker(epoch.vkey for epoch in epochs if epoch.details.reason != ROTATION)
            self._open_checkpoint(own=checkpoint is None)
        except BaseException:
            opened.close()
            raise
        self._store = TileStore(opened)
        self._read = tile_reader(self._store, self.checkpoint.size, self._leaves)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the descriptors."""
        self._store.close()
        self._directory.close()

    def prove(self, sequences: Iterable[int]) -> Iterator[RecordProof]:
        """The proofs of the records with these sequences, in ascending order, each once.

        Raises:
            BadInput: One is not covered by the checkpoint, or lies in the archive.
            AuditCorruption: A record, or what leads from it to the checkpoint's root, is damaged.
        """
        wanted = sorted(set(sequences))
        for sequence in (*wanted[:1], *wanted[-1:]):
            self._refuse_uncovered(sequence)
        return (self.proof_of(sequence, line) for sequence, line in self._lines(wanted))

    def proof_of(self, sequence: int, line: bytes) -> RecordProof:
        """The proof that the record with this *sequence* is stored as *line*.

        Raises as `prove` does.
        """
        self._refuse_uncovered(sequence)
        if not self.tiles_damaged:
            try:
                return self._checked(sequence, line)
            except (AuditCorruption, ProofRefused, OSError) as why:
                self.tiles_damaged = str(why)
                self._read = tile_reader(None, self.checkpoint.size, self._leaves)
        try:
            return self._checked(sequence, line)
        except (BadInput, ProofRefused) as why:
            raise AuditCorruption(
                f"audit log damaged: sequence {sequence} cannot be proven: {why}",
                sequence=sequence,
                hint=_VERIFY,
            ) from why

    def _checked(self, sequence: int, line: bytes) -> RecordProof:
        path = inclusion_proof(sequence - 1, self.checkpoint.size, self._read)
        proof = RecordProof(line, sequence - 1, tuple(path), self.note, self.key_notes)
        self._checker.check(proof)
        return proof

    def _refuse_uncovered(self, sequence: int) -> None:
        if not 1 <= sequence <= self.checkpoint.size:
            raise BadInput(
                f"no proof of sequence {sequence}: the checkpoint covers {self.checkpoint.size} records",
                hint="holdfast audit checkpoint DIR signs one that covers the newest; sequences begin at 1",
            )

    def _epochs(self) -> list[KeyRecord]:
        """The epochs up to the one whose key signs a checkpoint of this size."""
        epochs = [epoch for epoch in key_records(self._directory) if epoch.sequence <= self.checkpoint.size]
        if not epochs:
            raise BadInput(
                f"no proof: no key signs the first {self.checkpoint.size} records of this log",
                hint="name a newer checkpoint, or leave --checkpoint out",
            )
        if epochs[0].vkey.name != self.checkpoint.origin:
            raise BadInput(
                f"no proof: the checkpoint is one of {self.checkpoint.origin!r}, the log is {epochs[0].vkey.name!r}",
                hint="name a checkpoint of this log, or leave --checkpoint out",
            )
        return epochs

    def _open_checkpoint(self, *, own: bool) -> None:
        try:
            self._checker.open(self.note, self.key_notes)
        except (BadInput, ProofRefused) as why:
            if own:
                raise AuditCorruption(
                    f"audit log damaged: no chain of its keys leads to {CHECKPOINT_NAME!r}: {why}",
                    file=CHECKPOINT_NAME,
                    hint=_VERIFY,
                ) from why
            raise BadInput(
                f"no proof: the checkpoint given was not signed by this log: {why}",
                hint="name a checkpoint of this log, or leave --checkpoint out",
            ) from why

    def _lines(self, wanted: list[int]) -> Iterator[tuple[int, bytes]]:
        """The lines with these ascending sequences, read in one pass."""
        at = 0
        for batch in read_batches(self._directory, wanted[0]) if wanted else ():
            while at < len(wanted) and wanted[at] < batch.first_seq + len(batch.lines):
                line = batch.lines[wanted[at] - batch.first_seq]
                if facts_in_place(line, wanted[at]) is None:
                    raise damaged_line(batch, wanted[at])
                yield wanted[at], line
                at += 1
            if at == len(wanted):
                return
        if at < len(wanted):
            raise missing(wanted[at], "")

    def _leaves(self, begin: int, end: int) -> Iterator[bytes]:
        for batch in read_batches(self._directory, begin + 1):
            for sequence, line in checked_lines(batch):
                if sequence > end:
                    return
                yield leaf_hash(line)


def _newest_checkpoint(directory: Directory) -> bytes:
    try:
        file = directory.open(CHECKPOINT_NAME)
    except FileNotFoundError:
        raise BadInput(
            f"no proof: {str(directory.path)!r} holds no checkpoint",
            hint="only signed logs can prove; holdfast audit checkpoint DIR signs one",
        ) from None
    try:
        note = file.pread(MAX_NOTE_BYTES + 1, 0)
    finally:
        file.close()
    try:
        parse_checkpoint(parse_note(note).text)
    except BadInput as why:
        raise AuditCorruption(
            f"audit log damaged: {CHECKPOINT_NAME!r}: {why}",
            file=CHECKPOINT_NAME,
            hint=_VERIFY,
        ) from why
    return note

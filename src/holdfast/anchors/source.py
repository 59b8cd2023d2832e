"""What is handed to sinks: the newest checkpoint of a log on this machine, and proofs out of its tiles and records.

Promise: only reads, takes no lock, runs beside a writer. A checkpoint is handed over only when a key of this log
that counts here signed it (the key in force in the key directory, else the newest KEY record's): who can write to
the log's directory alone cannot have a checkpoint of his own anchored. Every proof is held against the checkpoint's
root before it leaves; where the tiles do not give it, the records themselves are asked.

Limits: a proof that begins in the segment now written hashes that segment's records anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from holdfast.anchors.sink import Submission
from holdfast.audit.format import leaf_hash
from holdfast.audit.history import CHECKPOINT_NAME
from holdfast.audit.key_records import KeyRecord, key_records
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import (
    MAX_NOTE_BYTES,
    Checkpoint,
    VerifierKey,
    open_note,
    parse_checkpoint,
    parse_note,
)
from holdfast.audit.pruned import InArchive
from holdfast.audit.query import read_lines
from holdfast.audit.storage import Directory, LocalStorage, Storage
from holdfast.audit.tiles import TileStore, tile_reader
from holdfast.audit.tree import HashReader, check_consistency, consistency_proof, tree_root
from holdfast.core.errors import AuditCorruption, BadInput

_ROUNDS = 3
"""A key may change between reading the checkpoint and reading the keys; then both are read again."""


class LogSource:
    """One log's checkpoints.

    Args:
        directory: The log.
        home: Where its keys are.
        storage: The disk; the machine's own by default.
    """

    def __init__(self, directory: Path, home: KeyHome, storage: Storage | None = None) -> None:
        self._directory = directory
        self._home = home
        self._storage = storage or LocalStorage()

    def newest(self) -> Submission:
        """The newest checkpoint.

        Raises:
            BadInput: There is no log, or it has no checkpoint, or not one by a key that counts.
        """
        for _ in range(_ROUNDS):
            note = self._newest_note()
            try:
                return self._submission(note)
            except BadInput:
                if self._newest_note() == note:
                    raise
        raise BadInput(
            f"the checkpoint of log {str(self._directory)!r} changed {_ROUNDS} times while it was read"
        )

    def _newest_note(self) -> bytes:
        opened = self._open()
        try:
            file = opened.open(CHECKPOINT_NAME)
        except FileNotFoundError as why:
            raise BadInput(
                f"log {str(self._directory)!r} has no checkpoint to anchor",
                hint="its writer signs one when a record is appended; `holdfast audit keys show` tells its keys",
            ) from why
        finally:
            opened.close()
        try:
            return file.pread(MAX_NOTE_BYTES + 1, 0)
        finally:
            file.close()

    def _submission(self, note: bytes) -> Submission:
        try:
            checkpoint = parse_checkpoint(parse_note(note).text)
        except BadInput as why:
            raise AuditCorruption(
                f"audit log damaged: {CHECKPOINT_NAME!r}: {why}",
                file=CHECKPOINT_NAME,
                hint=f"holdfast audit verify {self._directory}",
            ) from why
        log_id = checkpoint.origin.rpartition("/")[2]
        open_note(note, self._signers(log_id))

        @cache  # sinks and receipts mostly ask from the same size, and one proof may hash a whole segment
        def prove(old: int) -> list[bytes]:
            return self._prove(old, checkpoint)

        return Submission(log_id, checkpoint, note, prove, self.key_notes)

    def key_notes(self, after: int) -> list[bytes]:
        """The notes of the KEY records of every epoch after *after*, in order."""
        return [key.details.note.encode() for key in self._keys() if key.details.epoch > after]

    def _signers(self, log_id: str) -> set[VerifierKey]:
        keys = self._home.log(log_id)
        held = {key.signer.vkey for key in (keys.current(), keys.upcoming()) if key is not None}
        return held or {key.vkey for key in self._keys()[-1:]}

    def _keys(self) -> list[KeyRecord]:
        opened = self._open()
        try:
            return key_records(opened)
        finally:
            opened.close()

    def _prove(self, old: int, checkpoint: Checkpoint) -> list[bytes]:
        if old in {0, checkpoint.size}:
            return []
        opened = self._open()
        try:
            with TileStore(opened) as tiles:
                return _proof(old, checkpoint, tile_reader(tiles, checkpoint.size, self._leaves))
        except InArchive:
            raise
        except (BadInput, AuditCorruption):
            # A tile is derived, and may be damaged; then the records are asked.
            return self._prove_from_records(old, checkpoint)
        finally:
            opened.close()

    def _prove_from_records(self, old: int, checkpoint: Checkpoint) -> list[bytes]:
        try:
            return _proof(old, checkpoint, tile_reader(None, checkpoint.size, self._leaves))
        except InArchive:
            raise
        except BadInput as why:
            raise AuditCorruption(
                f"audit log damaged: its records do not give the root of its checkpoint of size {checkpoint.size}",
                hint=f"holdfast audit verify {self._directory}",
            ) from why

    def _leaves(self, start: int, end: int) -> Iterator[bytes]:
        lines = read_lines(self._directory, start_seq=start + 1, storage=self._storage)
        return map(leaf_hash, islice(lines, end - start))

    def _open(self) -> Directory:
        try:
            return self._storage.directory(self._directory, create=False)
        except FileNotFoundError as why:
            raise BadInput(
                f"no audit log at {str(self._directory)!r}", hint="name the directory that holds audit_….log"
            ) from why


def _proof(old: int, checkpoint: Checkpoint, read: HashReader) -> list[bytes]:
    """The consistency proof from *old*, which leads to the checkpoint's root."""
    proof = consistency_proof(old, checkpoint.size, read)
    check_consistency(old, tree_root(old, read), checkpoint.size, checkpoint.root, proof)
    return proof

"""A log in memory that signs, grows, changes its keys and misbehaves: what sinks and witnesses are tested against."""

from __future__ import annotations

from hashlib import sha256

from holdfast.anchors.sink import Submission
from holdfast.anchors.wire import encode_add_checkpoint
from holdfast.audit.keys import FIRST, ROTATION, LogKey, log_name
from holdfast.audit.note import Checkpoint, SigningKey, sign_note
from holdfast.audit.tree import consistency_proof, node_hash, tree_root

LOG_ID = "ab" * 16


class MemoryLog:
    """Leaves and keys; nothing on any disk."""

    def __init__(self, size: int = 0, *, log_id: str = LOG_ID, seed: bytes = b"a") -> None:
        self.log_id = log_id
        self.seed = seed
        self.leaves: list[bytes] = []
        self.keys = [self._key(1)]
        self.notes = [self.keys[0].details(FIRST, None).note.encode()]
        self.grow(size)

    def _key(self, epoch: int) -> LogKey:
        seed = sha256(self.seed + b"%d" % epoch).digest()
        return LogKey(self.log_id, "test", epoch, SigningKey(log_name("test", self.log_id), seed))

    @property
    def origin(self) -> str:
        return log_name("test", self.log_id)

    @property
    def vkey(self):
        """The first epoch's key, which people pin."""
        return self.keys[0].signer.vkey

    def grow(self, count: int, mark: bytes = b"") -> MemoryLog:
        start = len(self.leaves)
        self.leaves += [sha256(b"\0" + mark + b"%d" % (start + one)).digest() for one in range(count)]
        return self

    def rotate(self) -> None:
        key = self._key(len(self.keys) + 1)
        self.notes.append(key.details(ROTATION, self.keys[-1]).note.encode())
        self.keys.append(key)

    def read(self, level: int, index: int) -> bytes:
        if level == 0:
            return self.leaves[index]
        return node_hash(self.read(level - 1, 2 * index), self.read(level - 1, 2 * index + 1))

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = len(self.leaves) if size is None else size
        return Checkpoint(self.origin, size, tree_root(size, self.read))

    def note(self, size: int | None = None) -> bytes:
        return sign_note(self.checkpoint(size).text(), self.keys[-1].signer)

    def prove(self, old: int, new: int | None = None) -> list[bytes]:
        return consistency_proof(old, len(self.leaves) if new is None else new, self.read)

    def request(self, old: int, size: int | None = None) -> bytes:
        return encode_add_checkpoint(old, self.prove(old, size), self.note(size))

    def submission(self, size: int | None = None) -> Submission:
        return Submission(
            log_id=self.log_id,
            checkpoint=self.checkpoint(size),
            note=self.note(size),
            prove=lambda old: self.prove(old, size),
            key_notes=lambda after: self.notes[after:],
        )

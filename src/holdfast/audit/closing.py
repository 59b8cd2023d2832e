"""What a close leaves besides the records: the tree's tiles, complete up to the last checkpoint.

Promise: after it every full tile of the first *size* records is there, and the unfinished ones of that size and of
no other. Leaf hashes come from memory where the writer still has them, else from the records themselves.

Limits: tiles are derived and nobody believes them, so a disk without room for them, and one that lies there and
cannot be read, do not stop a close; `verify` names what is wrong with those that are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice

from holdfast.audit.logfiles import read_batches
from holdfast.audit.segment import NO_SPACE
from holdfast.audit.storage import Directory
from holdfast.audit.tiles import TileStore, write_tiles
from holdfast.core.errors import AuditCorruption, BadInput

_HASH_BYTES = 32


def complete_tiles(home: Directory, size: int, known_from: int, known: bytes | bytearray) -> None:
    """Write the tiles of the first *size* records that are missing.

    Args:
        home: The log; its head must say at least *size*.
        size: Records of the last checkpoint.
        known_from: The index of the first leaf in *known*.
        known: Leaf hashes, 32 bytes each, up to *size* at least.
    """

    def leaves(begin: int, end: int) -> Iterator[bytes]:
        if begin < known_from:
            yield from islice(_read_leaves(home, begin), min(end, known_from) - begin)
        for index in range(max(begin, known_from) - known_from, end - known_from):
            yield bytes(known[index * _HASH_BYTES : (index + 1) * _HASH_BYTES])

    with TileStore(home) as store:
        store.remove_temporary()
        try:
            # BadInput: a leaf that is needed was pruned, and its tile with it.
            with contextlib.suppress(AuditCorruption, BadInput):
                write_tiles(store, size, leaves, partial=True)
        except OSError as why:
            if why.errno not in NO_SPACE:
                raise
            store.remove_temporary()


def _read_leaves(home: Directory, begin: int) -> Iterator[bytes]:
    for batch in read_batches(home, begin + 1):
        for line in batch.lines:
            yield sha256(b"\0" + line).digest()

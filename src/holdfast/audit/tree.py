"""The Merkle tree over the log, as RFC 9162 draws it, kept as a frontier.

Promise: `Frontier.root()` after n leaves is MTH of RFC 9162 section 2.1.1 over these n leaves, whatever the
mixture of `append` and `extend` that brought them. Pure: no I/O, not thread-safe; the log changes it under its
own lock. It keeps one hash per set bit of the size, so a log of any length fits in 2 KiB.

A leaf hash is SHA-256(0x00 || entry) (`format.leaf_hash`), a node SHA-256(0x01 || left || right); the empty
tree's root is SHA-256 of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


class Frontier:
    """The right edge of the tree: the roots of its perfect subtrees, largest first.

    Attributes:
        size: How many leaves it holds.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf by its 32-byte hash."""
        peaks, rest = self._peaks, self.size
        while rest & 1:
            leaf_hash = sha256(b"\1" + peaks.pop() + leaf_hash).digest()
            rest >>= 1
        peaks.append(leaf_hash)
        self.size += 1

    def extend(self, leaf_hashes: Sequence[bytes]) -> None:
        """Add many leaves at once, each level of the tree in one pass.

        At every level the new nodes are paired from the left; a peak that waits at this level joins the first
        of them, an odd last one becomes the level's peak.
        """
        if len(leaf_hashes) < 4:
            for leaf_hash in leaf_hashes:
                self.append(leaf_hash)
            return
        hasher = sha256
        peaks, rest = self._peaks, self.size
        self.size += len(leaf_hashes)
        nodes = list(leaf_hashes)
        lower: list[bytes] = []
        while nodes:
            if rest & 1:
                nodes.insert(0, peaks.pop())
            rest >>= 1
            if len(nodes) & 1:
                lower.append(nodes.pop())
            pairs = iter(nodes)
            nodes = [hasher(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        peaks.extend(reversed(lower))

    def root(self) -> bytes:
        """The root over every leaf so far, 32 bytes."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = sha256(b"\1" + peak + root).digest()
        return root

    def copy(self) -> Frontier:
        """An independent frontier of the same leaves."""
        twin = Frontier()
        twin.size, twin._peaks = self.size, list(self._peaks)
        return twin

"""The Merkle tree over the log, as RFC 9162 draws it: its right edge, parts of it, and proofs.

Promise: `Frontier.root()` after n leaves is MTH of RFC 9162 section 2.1.1 over these n leaves, whatever the
mixture of `append`, `extend` and `join` that brought them. `inclusion_proof` and `consistency_proof` are PATH
and PROOF of sections 2.1.3.1 and 2.1.4.1; `check_inclusion` and `check_consistency` accept exactly what these
sections accept, whoever made the proof, and hash nothing that has not 32 bytes.

Pure: no I/O, not thread-safe; the log changes its frontier under its own lock. A frontier keeps one hash per
set bit of the size, so a log of any length fits in 2 KiB; a span keeps at most two per level.

A leaf hash is SHA-256(0x00 || entry) (`format.leaf_hash`), a node SHA-256(0x01 || left || right); the empty
tree's root is SHA-256 of nothing. A place (level, index) is the perfect subtree over the leaves from
index * 2**level to (index + 1) * 2**level, the end excluded; (0, n) is leaf n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from holdfast.core.errors import BadInput

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

HashReader = Callable[[int, int], bytes]
"""The hash of the perfect subtree at (level, index)."""


SpanNode = tuple[int, int, bytes]
"""One perfect subtree: its level, its index on that level, its hash."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node over two subtrees."""
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of the tree: the roots of its perfect subtrees, largest first.

    Attributes:
        size: How many leaves it holds.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    @classmethod
    def of(cls, size: int, peaks: Sequence[bytes]) -> Frontier:
        """The frontier of *size* leaves whose peaks, largest first, are known.

        Raises:
            BadInput: They are not as many as *size* has, or one is not a hash.
        """
        _check_hashes(peaks, "peak")
        if size < 0 or len(peaks) != size.bit_count():
            raise BadInput(f"frontier refused: {len(peaks)} peaks for {size} leaves")
        frontier = cls()
        frontier.size, frontier._peaks = size, list(peaks)
        return frontier

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

    def join(self, nodes: Iterable[SpanNode]) -> None:
        """Add the leaves of a span that begins where this frontier ends.

        Raises:
            BadInput: A node does not begin where the leaves so far end; the nodes before it were added.
        """
        for level, index, subtree in nodes:
            if index << level != self.size:
                raise BadInput(f"span refused: it begins at leaf {index << level}, not at {self.size}")
            rest = self.size >> level
            while rest & 1:
                subtree = node_hash(self._peaks.pop(), subtree)  # noqa: PLW2901  it grows to the left
                rest >>= 1
            self._peaks.append(subtree)
            self.size += 1 << level

    def peaks(self) -> list[bytes]:
        """The roots of the perfect subtrees, largest first; `peak_places` says which they are."""
        return list(self._peaks)

    def root(self) -> bytes:
        """The root over every leaf so far, 32 bytes."""
        return _bag(self._peaks) if self._peaks else EMPTY_ROOT

    def copy(self) -> Frontier:
        """An independent frontier of the same leaves."""
        twin = Frontier()
        twin.size, twin._peaks = self.size, list(self._peaks)
        return twin


class Span:
    """Consecutive leaves from anywhere in the tree, reduced to the perfect subtrees they fill.

    Several processes hash a part of the log each; one joins their `nodes()` to a frontier.

    Args:
        start: The index of the first leaf.

    Attributes:
        start: The same.
        size: How many leaves it holds.
    """

    __slots__ = ("_closed", "_waiting", "size", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.size = 0
        self._closed: list[SpanNode] = []  # right siblings of nodes left of the span, lowest level first
        self._waiting: dict[int, SpanNode] = {}  # by level: a left sibling whose right one is to come

    def extend(self, leaf_hashes: Sequence[bytes]) -> None:
        """Add the next leaves by their hashes, each level of the tree in one pass."""
        hasher = sha256
        level, index = 0, self.start + self.size
        self.size += len(leaf_hashes)
        nodes = list(leaf_hashes)
        while nodes:
            if index & 1:
                waiting = self._waiting.pop(level, None)
                if waiting is None:  # its left sibling lies before the span
                    self._closed.append((level, index, nodes.pop(0)))
                    index += 1
                else:
                    nodes.insert(0, waiting[2])
                    index -= 1
            if len(nodes) & 1:
                self._waiting[level] = (level, index + len(nodes) - 1, nodes.pop())
            pairs = iter(nodes)
            nodes = [hasher(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            level, index = level + 1, index >> 1

    def nodes(self) -> list[SpanNode]:
        """The subtrees from left to right; together they cover exactly the span's leaves."""
        return [*self._closed, *(self._waiting[level] for level in sorted(self._waiting, reverse=True))]


def peak_places(size: int, start: int = 0) -> list[tuple[int, int]]:
    """Level and index of the perfect subtrees of *size* leaves from leaf *start* on, largest first.

    *start* must be a multiple of the largest of them, as it is wherever RFC 9162 splits a tree.
    """
    places: list[tuple[int, int]] = []
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            places.append((level, start >> level))
            start += 1 << level
    return places


def tree_root(size: int, read: HashReader) -> bytes:
    """The root over the first *size* leaves."""
    return _range_root(0, size, read) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: HashReader) -> list[bytes]:
    """The audit path of leaf *index* in the tree of *size* leaves, the leaf's sibling first.

    Raises:
        BadInput: There is no such leaf in that tree.
    """
    if not 0 <= index < size:
        raise BadInput(f"no inclusion proof: leaf {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, read))
            end = middle
        else:
            path.append(_range_root(start, middle, read))
            start = middle
    path.reverse()
    return path


def consistency_proof(old_size: int, new_size: int, read: HashReader) -> list[bytes]:
    """What shows that the tree of *old_size* leaves is the beginning of the one of *new_size* leaves.

    Empty where the sizes are equal, and for the empty tree, which begins every tree and needs no proof.

    Raises:
        BadInput: The old tree is larger than the new one.
    """
    if not 0 <= old_size <= new_size:
        raise BadInput(f"no consistency proof from {old_size} leaves to {new_size} leaves")
    if old_size in {0, new_size}:
        return []
    proof: list[bytes] = []
    start, end = 0, new_size
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_root(middle, end, read))
            end = middle
        else:
            proof.append(_range_root(start, middle, read))
            start = middle
    if start:  # else it is the old root itself, which the verifier has
        proof.append(_range_root(start, end, read))
    proof.reverse()
    return proof


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Return if *path* proves that *leaf* (a hash) is leaf *index* of the tree with *size* leaves and *root*.

    Raises:
        BadInput: It does not; the message says in what way.

    Source: RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size:
        raise BadInput(f"inclusion proof refused: leaf {index} is not in a tree of {size} leaves")
    _check_hashes((leaf, root, *path), "inclusion proof")
    subtree = leaf
    for sibling, on_left in zip(path, _sides(index, size - 1, len(path), "inclusion proof"), strict=True):
        subtree = sha256(b"\1" + (sibling + subtree if on_left else subtree + sibling)).digest()
    if subtree != root:
        raise BadInput(
            f"inclusion proof refused: it leads to root {subtree.hex()}, not to {root.hex()} (index={index})"
        )


def check_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Return if *path* proves that the old tree is the beginning of the new one.

    The empty tree is refused: there is nothing to prove, so whoever asks compares its root with `EMPTY_ROOT`.

    Raises:
        BadInput: It does not; the message says in what way.

    Source: RFC 9162, 2.1.4.2.
    """
    if not 0 < old_size <= new_size:
        raise BadInput(f"consistency proof refused: from {old_size} leaves to {new_size} leaves")
    if old_size == new_size:
        if path:
            raise BadInput(f"consistency proof refused: {len(path)} hashes between trees of one size")
        if old_root != new_root:
            raise BadInput(f"consistency proof refused: two trees of {new_size} leaves have different roots")
        return
    _check_hashes((old_root, new_root, *path), "consistency proof")
    old, new = _proven_roots(old_size, old_root, new_size, path)
    if old != old_root:
        raise BadInput(f"consistency proof refused: the old root is {old_root.hex()}, proven is {old.hex()}")
    if new != new_root:
        raise BadInput(f"consistency proof refused: the new root is {new_root.hex()}, proven is {new.hex()}")


def _proven_roots(
    old_size: int, old_root: bytes, new_size: int, path: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The roots that a consistency proof leads to."""
    steps = list(path)
    if old_size & (old_size - 1) == 0:  # the old tree is perfect: its root is the first step
        steps.insert(0, old_root)
    if not steps:
        raise BadInput("consistency proof refused: it is empty")
    level = (old_size & -old_size).bit_length() - 1  # of the old tree's last peak, the first step
    old = new = steps[0]
    rest = steps[1:]
    sides = _sides((old_size - 1) >> level, (new_size - 1) >> level, len(rest), "consistency proof")
    for sibling, on_left in zip(rest, sides, strict=True):
        if on_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return old, new


def _sides(place: int, last: int, count: int, what: str) -> list[bool]:
    """For each of *count* hashes from node *place* up to the root: whether it stands on the left.

    *last* is the index of the last node on the level of *place*.
    """
    sides: list[bool] = []
    for _ in range(count):
        if not last:
            raise BadInput(f"{what} refused: {count} hashes are too many")
        on_left = place & 1 == 1 or place == last
        sides.append(on_left)
        while on_left and place and not place & 1:  # a right edge that has no sibling on these levels
            place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    if last:
        raise BadInput(f"{what} refused: {count} hashes are too few")
    return sides


def _split(size: int) -> int:
    """The largest power of two below *size*: where RFC 9162 splits a tree."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(start: int, end: int, read: HashReader) -> bytes:
    return _bag([read(level, index) for level, index in peak_places(end - start, start)])


def _bag(peaks: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees, largest first, at least one."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = sha256(b"\1" + peak + root).digest()
    return root


def _check_hashes(hashes: Sequence[bytes], what: str) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise BadInput(f"{what} refused: a hash has {len(value)} bytes, not {HASH_BYTES}")

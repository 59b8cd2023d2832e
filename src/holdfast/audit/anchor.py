"""What somebody outside the log remembers of it: the words that writer, verifier and sinks share.

Promise: plain values. A *mark* says that a log once held `size` records under `root`; a log that holds fewer, or
other ones, went back. An *anchor* is such a statement as it lies in a file, with the bytes that were signed. Who
says so, and how far that can be believed, stands in `source`; nothing here checks a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Mark(NamedTuple):
    """How far a log was, as somebody outside it saw it.

    Attributes:
        size: How many records it held.
        root: The root of the tree over them, 32 bytes.
        source: Who says so, for messages: "receipt 20261121-000000000412.note of sink 'file …'".
    """

    size: int
    root: bytes
    source: str


MarkSource = Callable[[str], Iterable[Mark]]
"""The marks of the log with this id, 32 lower-case hexadecimal digits; none where it was never seen."""


class Anchor(NamedTuple):
    """One statement about a log, read from a file that was kept outside it.

    Attributes:
        origin: The log it speaks of, the first line of its checkpoint.
        size: How many records the log held.
        root: The root of the tree over them, 32 bytes.
        source: The file, and who confirmed it.
        note: The signed checkpoint, or b"" where only the numbers are known.
        seen_ns: When a third party had seen it, UTC ns, if that was proven; else 0.
    """

    origin: str
    size: int
    root: bytes
    source: str
    note: bytes = b""
    seen_ns: int = 0

    def mark(self) -> Mark:
        """The same, as a writer asks for it."""
        return Mark(self.size, self.root, self.source)

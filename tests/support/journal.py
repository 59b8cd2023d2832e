"""A log laid down by hand, byte by byte, without the writer: what reading and verification are tested against."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from holdfast.audit.format import encode_details, encode_line, leaf_hash, segment_name
from holdfast.audit.head import SLOT_OFFSETS, HeadMark, HeadState, encode_slot
from holdfast.audit.index import Index, index_name
from holdfast.audit.tree import Frontier

START_NS = 1_763_634_000 * 10**9
SECOND = 10**9
Row = tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], str] | tuple[str, dict[str, Any], str, str]


class HandmadeLog:
    """Writes segments, SEALED records and the head as the format's page says."""

    def __init__(self, directory: Path, *, log_id: str = "ab" * 16) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self.log_id = log_id
        self.frontier = Frontier()
        self.next_seq = 1
        self.synced = 0
        self.now_ns = START_NS
        self.name = ""
        self.end = 0
        self.lines: list[bytes] = []
        self.sealed: list[str] = []

    def line(self, type_: str, details: dict[str, Any], user: str = "", component: str = "") -> bytes:
        line = encode_line(
            self.next_seq, self.synced, self.now_ns, type_, user, component, encode_details(details)
        )
        self.frontier.append(leaf_hash(line))
        self.lines.append(line)
        self.next_seq += 1
        self.now_ns += SECOND
        return line

    def segment(self, rows: Iterable[Row], *, filler: int = 0) -> str:
        """One more file: its SEGMENT record, then *rows*; its name."""
        self.name = segment_name(self.now_ns, self.next_seq)
        head = {
            "format": 1,
            "schema": 1,
            "log_id": self.log_id,
            "origin": "test",
            "first_seq": self.next_seq,
            "root": self.frontier.root().hex(),
            "clock": "manual",
        }
        lines = [self.line("SEGMENT", head, "", "journal")]
        for row in rows:
            self.synced = self.next_seq - 1
            lines.append(self.line(*row))
        self.synced = self.next_seq - 1
        content = b"".join(line + b"\n" for line in lines)
        (self.directory / self.name).write_bytes(content + b"\n" * filler)
        self.end = len(content)
        return self.name

    def seal(self, name: str, *, member_lines: int = 4, indexed: bool = False) -> dict[str, Any]:
        """Compress segment *name* by hand, and index it where asked; the details that its SEALED record must have."""
        raw = (self.directory / name).read_bytes()
        lines = raw.splitlines(keepends=True)
        members = [b"".join(lines[at : at + member_lines]) for at in range(0, len(lines), member_lines)]
        packed = b"".join(zlib.compress(member, 6, wbits=31) for member in members)
        (self.directory / (name + ".gz")).write_bytes(packed)
        (self.directory / name).unlink()
        first = int(name.split("_")[3].split(".", maxsplit=1)[0])
        facts: dict[str, Any] = {}
        if indexed:
            index, raw_offset, offset = Index(first), 0, 0
            for member in members:
                index.begin_block(raw_offset, offset)
                index.take(member.splitlines())
                raw_offset += len(member)
                offset += len(zlib.compress(member, 6, wbits=31))
            content = index.encode(sha256(raw).digest())
            (self.directory / index_name(name)).write_bytes(content)
            facts = {"index_sha256": sha256(content).hexdigest(), "index_bytes": len(content)}
        return {
            "segment": name,
            "first_seq": first,
            "last_seq": first + len(lines) - 1,
            "raw_sha256": sha256(raw).hexdigest(),
            "raw_bytes": len(raw),
            "gzip_sha256": sha256(packed).hexdigest(),
            "gzip_bytes": len(packed),
            "members": len(members),
            **facts,
        }

    def head(
        self, state: HeadState = HeadState.CLOSED, *, sequence: int | None = None, end: int | None = None
    ) -> None:
        """Both slots, the newest one naming the last record unless told otherwise."""
        sequence = self.next_seq - 1 if sequence is None else sequence
        end = self.end if end is None else end
        page = bytearray(4096)
        for count, at in ((1, HeadState.OPEN), (2, state)):
            slot = encode_slot(HeadMark(sequence, self.name, end, at, count))
            page[SLOT_OFFSETS[count & 1] : SLOT_OFFSETS[count & 1] + len(slot)] = slot
        (self.directory / "head").write_bytes(bytes(page))


def rows(count: int, *, type_: str = "NOTE", user: str = "u") -> list[Row]:
    """*count* plain records."""
    return [(type_, {"n": n}, user) for n in range(count)]


def small_log(directory: Path, counts: Sequence[int] = (5, 4), *, seal_first: bool = False) -> HandmadeLog:
    """A closed log of several segments, the first one sealed where asked."""
    log = HandmadeLog(directory)
    sealed: list[Row] = []
    for index, count in enumerate(counts):
        name = log.segment([*sealed, *rows(count)])
        sealed = [("SEALED", log.seal(name))] if seal_first and index == 0 else []
    log.head()
    return log

"""An attacker's toolkit: edits the files of a real log, and makes everything fit again that needs no key.

`Forger(directory)` takes a closed log apart into records; after any change to them, `write` lays the files down
anew: sequences, CRCs, file names, SEGMENT roots, SEALED hashes, gzip members, indexes, tiles and head. What it has
no key for it can only keep or leave out, unless keys were stolen; then it signs as the writer would.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.format import Record, decode_line, encode_line, leaf_hash, segment_name
from holdfast.audit.head import SLOT_OFFSETS, HeadMark, HeadState, decode_head, encode_slot
from holdfast.audit.history import history_name
from holdfast.audit.index import Index, index_name
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import Checkpoint, SigningKey, parse_checkpoint, parse_note, sign_note
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tiles import TileStore, write_tiles
from holdfast.audit.tree import Frontier
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock

_NOTE = re.compile(rb"(?:[^\n]+\n){3}\n(?:[^\n]+\n)+(?=\n)")


class Part(NamedTuple):
    """One segment taken apart.

    Attributes:
        name: Its raw file's name, as it was.
        records: Its records, SEGMENT first; to be changed at will.
        created_ns: The time in its name.
        member_lines: Lines of each gzip member; empty for a raw one.
        notes: Its checkpoints.
    """

    name: str
    records: list[Record]
    created_ns: int
    member_lines: list[int]
    notes: list[bytes]


class Forger:
    """Whoever may write every file of the log.

    Args:
        directory: A closed log.

    Attributes:
        parts: Its segments.
        stolen: The private keys that were stolen, by epoch.
    """

    def __init__(self, directory: Path, stolen: Mapping[int, SigningKey] | None = None) -> None:
        self.directory = directory
        self.stolen = dict(stolen or {})
        self.parts: list[Part] = []
        self.size = 0
        for path in sorted(directory.glob("audit_*.log*"), key=lambda one: one.name.split("_")[3]):
            packed = path.read_bytes()
            members = list(_members(packed)) if path.suffix == ".gz" else []
            content = b"".join(members) if members else packed
            history = directory / history_name(path.name)
            notes = [one[0] for one in _NOTE.finditer(history.read_bytes())] if history.exists() else []
            records = [decode_line(line) for line in content.rstrip(b"\n").splitlines()]
            created = path.name.split("_", 1)[1]
            self.parts.append(
                Part(
                    path.name.removesuffix(".gz"),
                    records,
                    _parse_time(created[:15]),
                    [one.count(b"\n") for one in members],
                    notes,
                )
            )

    @property
    def records(self) -> list[Record]:
        """All of them, in order; a copy."""
        return [record for part in self.parts for record in part.records]

    def place(self, sequence: int) -> tuple[Part, int]:
        """The part that holds the record *sequence*, and where in it."""
        for part in self.parts:
            if sequence <= len(part.records):
                return part, sequence - 1
            sequence -= len(part.records)
        raise IndexError(sequence)

    def edit(self, sequence: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the details of one record."""
        part, at = self.place(sequence)
        details = dict(part.records[at].details)
        change(details)
        part.records[at] = msgspec.structs.replace(part.records[at], details=details)

    def truncate(self, size: int) -> None:
        """Leave out every record behind *size*, and their segments."""
        kept = 0
        for index, part in enumerate(self.parts):
            room = size - kept
            del part.records[max(room, 0) :]
            kept += len(part.records)
            if not part.records:
                del self.parts[index:]
                return

    def write(self, *, keep_notes: Callable[[Checkpoint], bool] = lambda _: True) -> None:
        """Lay all files down anew, each as the writer would have made it; only *keep_notes* stay."""
        for path in self.directory.iterdir():
            if path.name.startswith("audit_") or path.name in {"checkpoint", "tile"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        frontier, sealed, newest = Frontier(), dict[str, dict[str, Any]](), b""
        leaves: list[bytes] = []
        name, content = "", b""
        vouched = {record.details["segment"] for record in self.records if record.type == "SEALED"}
        for part in self.parts:
            first = frontier.size + 1
            name = segment_name(part.created_ns, first)
            lines: list[bytes] = []
            frontiers: dict[int, bytes] = {}
            for record in part.records:
                line = self._line(record, frontier, first, sealed)
                frontier.append(leaf_hash(line))
                leaves.append(leaf_hash(line))
                frontiers[frontier.size] = frontier.root()
                lines.append(line)
            content = b"".join(line + b"\n" for line in lines)
            notes = self._notes(part, frontiers, keep_notes)
            newest = notes[-1] if notes else newest
            if part.notes:
                (self.directory / history_name(name)).write_bytes(b"".join(one + b"\n" for one in notes))
            if part.member_lines and part.name in vouched:
                sealed[part.name] = self._seal(name, first, lines, part)
            else:
                (self.directory / name).write_bytes(content)
        if newest:
            (self.directory / "checkpoint").write_bytes(newest)
        self.size = frontier.size
        self._write_head(name, len(content))
        self._write_tiles(leaves)

    @staticmethod
    def _line(record: Record, frontier: Frontier, first: int, sealed: Mapping[str, dict[str, Any]]) -> bytes:
        details = dict(record.details)
        if record.type == "SEGMENT":
            details |= {"first_seq": first, "root": frontier.root().hex()}
        elif record.type == "SEALED":
            details |= sealed.get(details["segment"], {})
        sequence = frontier.size + 1
        return encode_line(
            sequence, min(record.synced, sequence - 1), record.ts, record.type, record.user, record.component,
            msgspec.json.encode(details),
        )  # fmt: skip

    def _seal(self, name: str, first: int, lines: list[bytes], part: Part) -> dict[str, Any]:
        raw = b"".join(line + b"\n" for line in lines)
        index, packed, raw_at, at = Index(first), b"", 0, 0
        counts = [*part.member_lines[:-1], len(lines)]
        members = 0
        while at < len(lines):
            piece = lines[at : at + counts[min(members, len(counts) - 1)]]
            index.begin_block(raw_at, len(packed))
            index.take(piece)
            member = b"".join(line + b"\n" for line in piece)
            packed += zlib.compress(member, 6, wbits=31)
            raw_at += len(member)
            at += len(piece)
            members += 1
        encoded = index.encode(sha256(raw).digest())
        (self.directory / (name + ".gz")).write_bytes(packed)
        (self.directory / index_name(name)).write_bytes(encoded)
        return {
            "segment": name,
            "first_seq": first,
            "last_seq": first + len(lines) - 1,
            "raw_sha256": sha256(raw).hexdigest(),
            "raw_bytes": len(raw),
            "gzip_sha256": sha256(packed).hexdigest(),
            "gzip_bytes": len(packed),
            "members": members,
            "index_sha256": sha256(encoded).hexdigest(),
            "index_bytes": len(encoded),
        }

    def _notes(
        self, part: Part, roots: Mapping[int, bytes], keep: Callable[[Checkpoint], bool]
    ) -> list[bytes]:
        """The part's checkpoints: signed anew where the keys were stolen, else as they were."""
        epoch = next((one.details["epoch"] for one in part.records if one.type == "KEY"), 0)
        notes: list[bytes] = []
        last = max(roots, default=0)
        for raw in part.notes:
            note = parse_note(raw)
            said = parse_checkpoint(note.text)
            if not keep(said):
                continue
            if epoch not in self.stolen or roots.get(said.size) == said.root:
                notes.append(raw)
            elif said.size <= last:
                text = Checkpoint(said.origin, said.size, roots[said.size]).text()
                signers = [self.stolen[epoch]]
                if len(note.signatures) == 2 and epoch - 1 in self.stolen:
                    signers.append(self.stolen[epoch - 1])
                notes.append(sign_note(text, *signers))
        if epoch in self.stolen and (not notes or parse_checkpoint(parse_note(notes[-1]).text).size < last):
            origin = parse_checkpoint(parse_note(part.notes[0]).text).origin
            notes.append(sign_note(Checkpoint(origin, last, roots[last]).text(), self.stolen[epoch]))
        return notes

    def _write_head(self, name: str, end: int) -> None:
        path = self.directory / "head"
        mark = decode_head(path.read_bytes())
        assert mark is not None
        page = bytearray(4096)
        for back in (1, 0):
            slot = encode_slot(HeadMark(self.size, name, end, HeadState.CLOSED, mark.writes - back))
            at = SLOT_OFFSETS[(mark.writes - back) & 1]
            page[at : at + len(slot)] = slot
        path.write_bytes(bytes(page))

    def _write_tiles(self, leaves: list[bytes]) -> None:
        directory = LocalStorage().directory(self.directory, create=False)
        with TileStore(directory) as store:
            write_tiles(store, len(leaves), lambda begin, end: leaves[begin:end], partial=True)
        directory.close()


def _members(packed: bytes) -> list[bytes]:
    members: list[bytes] = []
    while packed:
        unpack = zlib.decompressobj(31)
        members.append(unpack.decompress(packed))
        packed = unpack.unused_data
    return members


def _parse_time(text: str) -> int:
    from datetime import UTC, datetime

    return int(datetime.strptime(text, "%Y%m%d_%H%M%S").replace(tzinfo=UTC).timestamp()) * 10**9


class KeyThief:
    """Keeps a copy of every private key the moment it is made, as somebody with a root shell would.

    Attributes:
        keys: By epoch, once the log is known.
    """

    def __init__(self, home: Path) -> None:
        self._seeds: list[bytes] = []
        self.home = KeyHome(home, random_bytes=self._random)

    def _random(self, size: int) -> bytes:
        seed = sha256(b"seed %d" % len(self._seeds)).digest()[:size]
        self._seeds.append(seed)
        return seed

    def keys(self, name: str) -> dict[int, SigningKey]:
        """All private keys of the log called *name*, by epoch."""
        return {epoch: SigningKey(name, seed) for epoch, seed in enumerate(self._seeds, 1)}


def signed_log(
    directory: Path,
    home: KeyHome,
    counts: tuple[int, ...] = (5, 5, 5),
    *,
    seal: bool = True,
    close: bool = True,
    text: str = "qty 7",
) -> WriteAheadLog:
    """A real log, signed, with one segment for each of *counts*; all but the last are sealed where asked."""
    clock = ManualClock()
    log = WriteAheadLog(directory, clock=clock, keys=home, seal=seal)
    for number, count in enumerate(counts):
        if number:
            log.rotate()
        for at in range(count):
            clock.advance(0.1)
            log.append("NOTE", {"n": at, "text": text}, user="desk", level=Level.DURABLE)
    if close:
        log.close()
    return log

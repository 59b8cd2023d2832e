#!/usr/bin/env python3
"""Check a holdfast journal, or proofs of single records, without any of holdfast's code.

    python holdfast_verify.py DIR…  [--key VKEY|FILE]… [--anchor FILE]… [--json]
    python holdfast_verify.py --proof FILE…  --key VKEY|FILE… [--json]

Needs Python 3.11 or newer and the package `cryptography`. It was written from docs/journal-format.md alone, in
that page's order and words, to be read beside it. It opens files for reading and does nothing else.

    --key     a public key that you trust: the text "name+id+base64", or a file with one on each line. Without one,
              signatures only show that the log agrees with itself.
    --anchor  a checkpoint of this log that you kept elsewhere: the only thing that shows a log cut back, or
              written anew, by whoever holds its present key.

Exit code: 0 intact, also where a crash left a torn tail that the next start will repair; 1 nothing can be said
(no such log, a key or anchor that is none, a newer format); 2 usage; 3 damaged.

How it goes: `Journal.verify` reads the segments in order, one line at a time. Every line in its place goes through
`take`, which follows what the journal says about itself and grows the tree; whenever the tree reaches the size
of a checkpoint or an anchor, the roots are compared. What cannot be said before the end is held against what
was gathered: the head, the tail, sealed files, tiles, quarantine, other names. At no time is more in memory than
one compressed block, the edge of the tree and, while a sealed segment is read, its index.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import stat
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = 1
MAX_LINE = 65_000
MAX_MEMBER = 131_072
MAX_PROBLEMS = 1000
MAX_CHAIN = 10_000
MAX_FILE = 1 << 30  # of a file that is hashed as a whole
MAX_WASTE = 1 << 26  # bytes without a line, behind which a file is given up
MAX_UNPACKED_WASTE = 1 << 21  # the same of a compressed file, counted in what it unpacks to
BOUND_RECORDS, BOUND_NS = 20_000, 2 * 10**9
ED25519, COSIGNATURE = 1, 4
OPEN, CLOSED, POISONED = 1, 2, 3
STATES = {OPEN: "open", CLOSED: "closed", POISONED: "poisoned"}

SEGMENT = re.compile(r"(audit_(\d{8}_\d{6})_(\d{12}))\.log(\.gz)?", re.ASCII)
SIDECAR = re.compile(r"(audit_\d{8}_\d{6}_\d{12})\.(idx|checkpoints|pruned)", re.ASCII)
TEMPORARY = re.compile(r"(audit_\d{8}_\d{6}_\d{12}\.(log\.gz|idx|pruned)|checkpoint)\.tmp", re.ASCII)
TILE = re.compile(r"(0|[1-9]\d?)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?", re.ASCII)
SEAL_KEYS = (
    "first_seq",
    "last_seq",
    "raw_sha256",
    "raw_bytes",
    "gzip_sha256",
    "gzip_bytes",
    "members",
    "index_sha256",
)
TILE_FOLDER = re.compile(r"\d{1,2}(/x\d{3})*(/\d{3}\.p)?", re.ASCII)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
NO_TILE = "not a name of C2SP tlog-tiles"
LINE = re.compile(rb'\{"crc":"([0-9a-f]{8})","seq":[1-9]')
DECIMAL = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
SEGMENT_KEYS = {
    "format": int,
    "schema": int,
    "log_id": str,
    "origin": str,
    "first_seq": int,
    "root": str,
    "clock": str,
}


class Refused(Exception):
    """Nothing can be said about this log or proof: exit code 1."""


class Bad(Exception):
    """Bytes that are not what they should be; the message says in what way."""


# -- lines ("Lines") ----------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """A valid line, read."""

    seq: int
    synced: int
    ts: int
    type: str
    user: str
    component: str
    details: dict[str, Any]


def not_json(word: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python's reader would take."""
    raise Bad(f"not a record: {word} is not JSON")


def read_line(line: bytes) -> Record:
    """The record of a valid line (without its newline); `Bad` says why it is not valid."""
    start = LINE.match(line)
    if start is None or not line.endswith(b"}"):
        raise Bad("not a record line")
    if int(start[1], 16) != zlib.crc32(line[18:]):
        raise Bad("crc does not match")
    if len(line) > MAX_LINE:
        raise Bad(f"line too long: more than {MAX_LINE} bytes")
    try:
        whole = json.loads(line.decode(), parse_constant=not_json)
        json.dumps(whole, ensure_ascii=False).encode() if b"\\u" in line else None  # no unpaired surrogate
        record = Record(*(whole[name] for name in Record._fields))
    except (ValueError, RecursionError, KeyError) as why:
        raise Bad(f"not a record: {why}") from why
    numbers = (record.seq, record.synced, record.ts)
    texts = (record.type, record.user, record.component)
    if any(type(n) is not int for n in numbers) or any(type(t) is not str for t in texts):
        raise Bad("not a record: a value has the wrong type")
    if type(record.details) is not dict:
        raise Bad("not a record: details is not an object")
    if not 0 <= record.synced < record.seq:
        raise Bad(f"synced {record.synced} is not below seq {record.seq}")
    if not -(2**63) <= record.ts < 2**63:
        raise Bad("ts does not fit in 64 bits")
    return record


def details_bytes(line: bytes) -> bytes:
    """The details of a valid line as they stand in it: inside strings a quote has a backslash before it."""
    return line[line.index(b',"details":') + 11 : -1]


# -- the tree ("Lines", RFC 9162) ---------------------------------------------------------------------------------


def leaf_hash(line: bytes) -> bytes:
    """The leaf of a record."""
    return sha256(b"\0" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """An inner node."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """The tree over the records so far, by the roots of its perfect subtrees, largest first.

    Each new root of a perfect subtree of 1, 256, 256² … leaves is given to *on_tile_hash* with its level.
    """

    def __init__(self, on_tile_hash: Callable[[int, bytes], None] | None = None) -> None:
        self.size = 0
        self.peaks: list[bytes] = []
        self.on_tile_hash = on_tile_hash

    def append(self, node: bytes) -> None:
        """Add one leaf by its hash."""
        height, rest = 0, self.size
        if self.on_tile_hash:
            self.on_tile_hash(0, node)
        while rest & 1:
            node, rest, height = node_hash(self.peaks.pop(), node), rest >> 1, height + 1
            if height % 8 == 0 and self.on_tile_hash:
                self.on_tile_hash(height // 8, node)
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root over all of them."""
        if not self.peaks:
            return sha256(b"").digest()
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162, section 2.1.3.2)."""
    node, last = leaf, size - 1
    for sibling in path:
        if last == 0:
            raise Bad("the inclusion proof is too long")
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    if last != 0:
        raise Bad("the inclusion proof is too short")
    return node


# -- keys, notes and checkpoints ("Checkpoints") ------------------------------------------------------------------


def canonical_base64(text: str) -> bytes:
    """The bytes of *text*, which must be their only spelling."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as why:
        raise Bad("not base64") from why
    if base64.b64encode(content).decode() != text:
        raise Bad("not canonical base64")
    return content


def decimal(text: str) -> int:
    """A number of at most 19 digits without sign and leading zero."""
    if not DECIMAL.fullmatch(text):
        raise Bad(f"not a decimal number: {text[:20]!r}")
    return int(text)


class Key(NamedTuple):
    """A public key: of a log (algorithm 1, Ed25519), or of a witness (algorithm 4, Ed25519 over a time)."""

    vkey: str
    name: str
    id: bytes
    algorithm: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> Key:
        """The key in a text "name+id+base64"."""
        parts = vkey.split("+", 2)
        if len(parts) != 3 or not parts[0] or re.search(r"\s", parts[0]):
            raise Bad(f"not a public key: {vkey[:100]!r}")
        name, key_id, content = parts[0], parts[1], canonical_base64(parts[2])
        if sha256(name.encode() + b"\n" + content).hexdigest()[:8] != key_id:
            raise Bad("a public key's id is not the one of its bytes")
        if content[0] not in {ED25519, COSIGNATURE} or len(content) != 33:
            raise Bad(f"a public key of algorithm {content[0]}, which is not known here")
        return cls(vkey, name, bytes.fromhex(key_id), content[0], content[1:])

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether *signature* is this key's over *text*."""
        if self.algorithm == COSIGNATURE:
            when, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            text = b"cosignature/v1\ntime %d\n" % when + text
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class Note(NamedTuple):
    """A signed note: its text, and its signature lines as (name, key id, signature)."""

    text: bytes
    signatures: list[tuple[str, bytes, bytes]]

    @classmethod
    def parse(cls, content: bytes) -> Note:
        """The note that *content* is, all of it."""
        try:
            if CONTROL.search(content.decode()):
                raise Bad("a control character in a note")
        except UnicodeDecodeError as why:
            raise Bad("not UTF-8") from why
        text, empty, below = content.partition(b"\n\n")
        if not empty or not below.endswith(b"\n"):
            raise Bad("not a signed note")
        signatures: list[tuple[str, bytes, bytes]] = []
        for line in below.decode()[:-1].split("\n"):
            dash, name, value = [*line.split(" "), "", ""][:3]
            if dash != "—" or line != f"— {name} {value}" or not name:
                raise Bad("not a signature line")
            blob = canonical_base64(value)
            if len(blob) < 5:
                raise Bad("a signature is too short")
            signatures.append((name, blob[:4], blob[4:]))
        return cls(text + b"\n", signatures)

    def signed_by(self, key: Key) -> bool | None:
        """Whether *key* signed it; None where no line names the key."""
        for name, key_id, signature in self.signatures:
            if (name, key_id) == (key.name, key.id):
                return key.signed(self.text, signature)
        return None

    def check_signers(self, *keys: Key) -> None:
        """Refuse the note unless these keys signed it, in this order, and nobody else."""
        if [line[:2] for line in self.signatures] != [(key.name, key.id) for key in keys]:
            raise Bad("its signature lines are not those of the epoch's key")
        for key in keys:
            if not self.signed_by(key):
                raise Bad(f"the signature of key {key.id.hex()} is not valid")


class Checkpoint(NamedTuple):
    """The text of a checkpoint."""

    name: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """The checkpoint in a note's text."""
        lines = text.decode().split("\n")
        if len(lines) != 4 or not lines[0]:
            raise Bad("not a checkpoint")
        root = canonical_base64(lines[2])
        if len(root) != 32:
            raise Bad("a root has not 32 bytes")
        return cls(lines[0], decimal(lines[1]), root)


# -- reading files ("Segments", "Sealing") ------------------------------------------------------------------------


def open_file(path: Path) -> BinaryIO:
    """A regular file for reading, never through a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return os.fdopen(descriptor, "rb", buffering=1 << 18)


def read_small(path: Path, limit: int) -> bytes:
    """The content of a file, but at most one byte more than *limit*."""
    with open_file(path) as file:
        return file.read(limit + 1)


def file_sha256(path: Path) -> tuple[str, int]:
    """SHA-256 of a file, hexadecimal, and its length."""
    digest, size = sha256(), 0
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE:
            raise OSError("too large")
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def is_file(path: Path) -> bool:
    """Whether *path* is a regular file and no link; one that a writer has just removed will do."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def first_difference(one: bytes, other: bytes) -> int:
    """The offset of the first byte in which two contents differ."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


class Line(NamedTuple):
    """Something between two newlines of a segment.

    Attributes:
        at: Where it begins in the raw bytes.
        where: Where a reader should look: the same, or where its gzip member begins.
        content: Its bytes; of a line that is too long only the first ones.
        ended: Whether a newline follows.
    """

    at: int
    where: int
    content: bytes
    ended: bool


def raw_lines(file: BinaryIO) -> Iterator[Line]:
    """What stands between the newlines of a raw segment; filler is passed over."""
    at = 0
    while content := file.readline(MAX_LINE + 2):
        if content == b"\n":
            at += 1 + skip_filler(file)
            continue
        size, rest = len(content), content
        while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
            size += len(rest)
            if size > MAX_WASTE:
                yield Line(at, at, content, ended=False)
                return
        yield Line(at, at, content.removesuffix(b"\n"), rest.endswith(b"\n"))
        at += size


def skip_filler(file: BinaryIO) -> int:
    """Pass over newlines; how many there were."""
    skipped = 0
    while skipped <= MAX_WASTE and (block := file.read(1 << 16)):
        content = block.lstrip(b"\n")
        skipped += len(block) - len(content)
        if content:
            file.seek(-len(content), os.SEEK_CUR)
            return skipped
    file.seek(0, os.SEEK_END)
    return skipped


class Member(NamedTuple):
    """One gzip member.

    Attributes:
        at: Where it begins in the file.
        raw: What it holds; of a damaged one, what still inflates.
        fault: What is wrong with it, or "".
        usable: Whether all of its content is in `raw`, so that the next member can be read.
    """

    at: int
    raw: bytes
    fault: str
    usable: bool


def members(file: BinaryIO) -> Iterator[Member]:
    """The gzip members of a sealed segment, up to the first one that cannot be read to its end."""
    at = 0
    while True:
        file.seek(at)
        header = file.read(10)
        if not header:
            return
        fault = "" if header.startswith(b"\x1f\x8b\x08\0\0\0\0\0") else "not the header of a gzip member"
        raw, packed, whole = inflate(file)
        trailer_at = at + 10 + packed
        file.seek(trailer_at)
        trailer = file.read(8)
        if not whole:
            fault = fault or "compressed data make no sense, or end inside a member"
        elif trailer != struct.pack("<II", zlib.crc32(raw), len(raw)):
            fault = fault or "a gzip member does not hold what its checksum says"
        elif not raw.endswith(b"\n"):
            fault = fault or "a gzip member does not end with a line"
        yield Member(at, raw, fault, whole)
        if not whole:
            return
        at = trailer_at + 8


def inflate(file: BinaryIO, step: int = 1 << 14) -> tuple[bytes, int, bool]:
    """The deflate stream that begins here: its content, its length, and whether it ends as it should.

    Where it makes no sense it is read once more byte by byte, to get everything before that place.
    """
    start, unpack, raw, fed = file.tell(), zlib.decompressobj(-15), b"", 0
    while not unpack.eof and max(len(raw), fed // 2) <= MAX_MEMBER and (block := file.read(step)):
        try:
            raw += unpack.decompress(block, MAX_MEMBER + 1 - len(raw))
        except zlib.error:
            if step == 1:
                break
            file.seek(start)
            return inflate(file, 1)
        fed += len(block) - len(unpack.unused_data)
    return raw[:MAX_MEMBER], fed, unpack.eof and len(raw) <= MAX_MEMBER


class Unit(NamedTuple):
    """What should be a note of a `.checkpoints` file.

    Attributes:
        at: Where it begins: behind the one before it.
        content: Its bytes without the newlines around it; a long one is cut.
        newlines: How many there are behind it; before it there must be none.
        name_inside: Whether the log's name stands in it as a line, but not at its beginning.
    """

    at: int
    content: bytes
    newlines: int
    name_inside: bool


def units(file: BinaryIO, name: bytes) -> Iterator[Unit]:
    """The notes of a `.checkpoints` file, or what stands in their places.

    A note is two paragraphs, text and signatures, so a unit ends behind the second one; or behind the first one,
    where a paragraph follows that begins with the log's name: that is where a reader of damage finds his way again.
    """
    begin = at = newlines = paragraphs = 0
    content, inside = b"", False
    while line := file.readline(4096):
        if line == b"\n":
            skipped = 1 + skip_filler(file)
            newlines, at = newlines + skipped, at + skipped
            continue
        named = line == name + b"\n"
        if content and newlines >= 2 and (named or paragraphs == 2):
            yield Unit(begin, content, newlines, inside)
            begin, content, inside, paragraphs = begin + len(content) + 2, b"", False, 0
            newlines = at - begin
        paragraphs += newlines >= 2 or not content
        inside = inside or (named and bool(content))
        if at - begin > MAX_WASTE:
            break
        if len(content) < 4096:
            content += b"\n" * min(newlines, 4096) + line.removesuffix(b"\n")
        newlines = int(line.endswith(b"\n"))
        at += len(line)
    if content:
        yield Unit(begin, content, newlines, inside)


# -- the index of a sealed segment ("The index") ------------------------------------------------------------------


class Index:
    """The index that a segment must have, made from its lines as they are read."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.blocks: list[list[int]] = []
        self.keys: dict[tuple[str, str, str], array[int]] = {}
        self.ids: set[tuple[int, int]] = set()

    def take(self, line: Line, record: Record) -> None:
        """The next record."""
        number = record.seq - self.first_seq
        if not self.blocks or self.blocks[-1][1] != line.where:
            self.blocks.append([line.at, line.where, number, 0, record.ts, record.ts])
        block = self.blocks[-1]
        block[3:] = [block[3] + 1, min(block[4], record.ts), max(block[5], record.ts)]
        self.keys.setdefault((record.type, record.user, record.component), array("I")).append(number)
        for name in ("order_id", "client_order_id"):
            value = record.details.get(name)
            if isinstance(value, str) and value:
                (id_hash,) = struct.unpack("<I", sha256(value.encode()).digest()[:4])
                self.ids.add((id_hash, len(self.blocks) - 1))

    def encode(self, raw_sha256: bytes) -> bytes:
        """Its bytes."""
        count = sum(len(numbers) for numbers in self.keys.values())
        pairs = sorted(self.ids)
        parts = [struct.pack("<8s32sQ", b"HFINDX1\0", raw_sha256, self.first_seq)]
        parts.append(struct.pack("<IIII", count, len(self.blocks), len(self.keys), len(pairs)))
        parts += [struct.pack("<QQIIqq", *block) for block in self.blocks]
        for names, numbers in self.keys.items():
            texts = [name.encode() for name in names]
            parts.append(struct.pack("<HHHI", *map(len, texts), len(numbers)) + b"".join(texts))
        parts += [struct.pack(f"<{len(numbers)}I", *numbers) for numbers in self.keys.values()]
        parts += [struct.pack(f"<{len(pairs)}I", *(pair[side] for pair in pairs)) for side in (0, 1)]
        body = b"".join(parts)
        return body + struct.pack("<I", zlib.crc32(body))


# -- what was found ("What it says") ------------------------------------------------------------------------------

# The order in which problems are told that concern no record, or the same one.
HEAD, LINES, KEYS, HISTORY, NEWEST, INDEXES, TILES, COPIES, OTHER = range(9)


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        sequence: The record concerned, or 0 where none is.
        file: The file concerned.
        offset: Where in it; in a compressed segment, where the gzip member begins.
        reason: What is wrong.
    """

    sequence: int
    file: str
    offset: int
    reason: str


class Findings:
    """Everything that is wrong with one log, of which no more than `MAX_PROBLEMS` are kept."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[tuple[int, Problem]] = []

    def add(self, order: int, sequence: int, file: str, offset: int, reason: str) -> None:
        """Note what is wrong."""
        self.count += 1
        if len(self._kept) < MAX_PROBLEMS:
            self._kept.append((order, Problem(sequence, file, offset, reason)))

    def report(self) -> dict[str, Any]:
        """The problems in their order, and the first bad one."""
        kept = sorted(self._kept, key=lambda one: (one[0], one[1].file, one[1].offset))
        problems = [problem for _, problem in kept]
        numbered = [problem for problem in problems if problem.sequence]
        first = min(numbered, key=lambda one: one.sequence) if numbered else next(iter(problems), None)
        return {
            "first_bad_sequence": (first.sequence or None) if first else None,
            "first_bad_file": first.file if first else None,
            "first_bad_offset": first.offset if first else None,
            "reason": first.reason if first else None,
            "problem_count": self.count,
            "problems": [problem._asdict() for problem in problems],
        }


class Place(NamedTuple):
    """A record's sequence, and where it stands."""

    sequence: int
    file: str
    offset: int


class Segment(NamedTuple):
    """A segment's file name, taken apart; *stem* is what its sidecars share with it."""

    name: str
    stem: str
    first: int
    sealed: bool

    @classmethod
    def parse(cls, name: str) -> Segment | None:
        """The segment that *name* names, if any."""
        match = SEGMENT.fullmatch(name)
        if match is None or int(match[3]) < 1:
            return None
        try:
            datetime.strptime(match[2], "%Y%m%d_%H%M%S").astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        return cls(name, match[1], int(match[3]), match[4] is not None)


# -- the chain of keys ("Epochs and KEY records", check 4) --------------------------------------------------------


class Chain:
    """The keys of a log, epoch by epoch, and which of them are to be trusted.

    Attributes:
        epoch: The epoch in force; 0 in an unsigned log.
        key: Its key.
        cosigner: The key of the epoch before, where it must sign the first checkpoint of this one.
        trusted: Whether a pinned key leads to this one.
    """

    def __init__(self, findings: Findings, pins: Sequence[Key]) -> None:
        self.epoch = 0
        self.key: Key | None = None
        self.cosigner: Key | None = None
        self.trusted = False
        self._findings = findings
        self._pins = {pin.vkey for pin in pins}
        self._ever_trusted = False
        self._first: Place | None = None  # the first KEY; as long as there is none, the first record

    def begin(self, place: Place) -> None:
        """The first record of the log stands at *place*."""
        self._first = self._first or place

    def take(self, place: Place, origin: str, log_id: str, details: dict[str, Any]) -> None:
        """A KEY record: a new epoch begins."""
        previous, self.key, self.cosigner, self.epoch = self.key, None, None, self.epoch + 1
        if self.epoch == 1:
            self._first = place
        try:
            rotation = self._check(origin, log_id, details, previous)
        except Bad as why:
            self.trusted = False
            self._findings.add(KEYS, *place, f"the KEY record of epoch {self.epoch} is wrong: {why}")
            return
        self.trusted = str(details["vkey"]) in self._pins or (self.trusted and rotation)
        if self._ever_trusted and not self.trusted:
            self._findings.add(KEYS, *place, f"from epoch {self.epoch} on signed by an unknown key")
        self._ever_trusted = self._ever_trusted or self.trusted

    def _check(self, origin: str, log_id: str, details: dict[str, Any], previous: Key | None) -> bool:
        """Refuse a KEY record that does not continue the chain; whether the key before it vouches for this one."""
        if details.keys() != {"epoch", "vkey", "reason", "note"}:
            raise Bad("its details do not have the keys epoch, vkey, reason and note")
        key, reason = Key.parse(str(details["vkey"])), details["reason"]
        self.key, self.cosigner = key, previous if reason == "rotation" else None
        if (details["epoch"], type(details["epoch"])) != (self.epoch, int):
            raise Bad(f"it says epoch {details['epoch']!r}")
        if key.name != f"{origin}/{log_id}" or key.algorithm != ED25519:
            raise Bad("its key is not one for this log")
        if reason not in ({"first"} if self.epoch == 1 else {"rotation", "replacement"}):
            raise Bad(f"its reason is {reason!r}")
        note = Note.parse(str(details["note"]).encode())
        if note.text != f"holdfast key v1\n{origin}\n{log_id}\n{self.epoch}\n{key.vkey}\n".encode():
            raise Bad("its note is not about this epoch")
        note.check_signers(self.cosigner or key)
        return bool(reason == "rotation")

    def judge(self, *, whole: bool) -> None:
        """The end of the log; *whole* says that it was read to its end."""
        if self._pins and not self._ever_trusted and self._first and (self.epoch or whole):
            why = "signed by unknown keys only" if self.epoch else "not signed, though a key was given"
            self._findings.add(KEYS, *self._first, why)

    def judge_signing(self, signed_to: int, unknown_to: int) -> None:
        """A KEY record may name any key; unless checkpoints are signed by it, that says nothing of the records."""
        if self.trusted and self._first and unknown_to > signed_to:
            self._findings.add(
                KEYS, *self._first, "signed by unknown keys: no checkpoint is by the one that was given"
            )


# -- checkpoints and anchors ("Checkpoints", checks 5 and 6) ------------------------------------------------------


class Anchor(NamedTuple):
    """A size and a root that somebody kept elsewhere."""

    name: str
    size: int
    root: bytes
    source: str


class Entry(NamedTuple):
    """A checkpoint of the history, as it stands in its file."""

    unit: Unit
    note: Note
    checkpoint: Checkpoint


class History:
    """The checkpoints of a log, each held against the tree when the tree has its size; anchors likewise.

    Attributes:
        signed_to: The size of the newest checkpoint that a trusted key signed and the records bear out.
        unknown_to: The same for a key that is not trusted.
        anchored_to: The size of the largest anchor that the records bear out.
        size: Of the last checkpoint read.
        beyond: Checkpoints that cover more than the log holds: file, offset, size.
    """

    def __init__(
        self,
        home: Path,
        findings: Findings,
        chain: Chain,
        tree: Tree,
        anchors: Sequence[Anchor],
        *,
        promised: int,
    ) -> None:
        self.signed_to = self.unknown_to = self.anchored_to = self.size = 0
        self.beyond: list[tuple[str, int, int]] = []
        self._home, self._findings, self._chain, self._tree = home, findings, chain, tree
        self._anchors = sorted(anchors, key=lambda anchor: anchor.size)
        self._agreed = (0, 0)  # the two last sizes at which a root agreed
        self._uncovered: tuple[Place, int] | None = None  # the first record without checkpoint, and its ts
        self._entries: Iterator[Entry] = iter(())
        self._next: Entry | None = None
        self._segment: Segment | None = None
        self._file, self._end, self._name = "", 0, ""
        self._keyed = ""  # the file, if the segment has a KEY record
        self._before = ("", 0, 0)  # file, its end and the last size when this segment began
        self._bad: list[tuple[Segment, Unit, str]] = []
        self._fillers: list[tuple[Segment, str, int]] = []
        self._count, self._good_behind_bad = 0, False
        self._promised = promised  # a segment that begins behind it may have begun while we read
        self._unsettled: list[Problem] = []  # wrong, unless a writer was about to do it
        self._firsts: list[int] = []  # of the segments so far
        self._newest_at = (0, 0)  # in which segment, and where, `checkpoint` stands
        try:
            self._newest = read_small(home / "checkpoint", 4096)
            self._had_newest = True
        except OSError:
            self._newest, self._had_newest = b"", False
        self._newest_found = self._newest_is_last = False

    def begin(self, segment: Segment, name: str) -> None:
        """The first record of *segment* was read; the log's name is *name*."""
        for anchor in self._anchors:
            if anchor.name != name:
                raise Refused(f"{anchor.source!r} is a checkpoint of {anchor.name!r}, this log is {name!r}")
        if self._keyed and not os.path.lexists(self._home / self._keyed):
            self._findings.add(HISTORY, 0, self._keyed, 0, "missing")
        self._keyed = ""
        for file, offset, size in self.beyond:
            why = f"it covers records up to {size}, its segment ends at {self._tree.size}"
            self._say(segment, Problem(self._tree.size + 1, file, offset, why))
        self.beyond = []
        self._firsts.append(segment.first)
        self._before = (self._file, self._end, self.size)
        self._segment, self._name = segment, name
        self._file, self._end = f"{segment.stem}.checkpoints", 0
        self._entries = self._read(segment)
        self._next = next(self._entries, None)

    def _say(self, following: Segment, problem: Problem) -> None:
        """Something is wrong at the end of the segment before *following*."""
        if following.first > self._promised:
            self._unsettled.append(problem)
        else:
            self._findings.add(HISTORY, *problem)

    def settle(self, *, live: bool) -> None:
        """It is known whether a writer was there, whose work may have been seen half done."""
        for problem in [] if live else self._unsettled:
            self._findings.add(HISTORY, *problem)

    def _had_ended(self, segment: Segment) -> bool:
        """Whether *segment* had ended when we began, because the head knew of the next one."""
        return any(segment.first < first <= self._promised for first in self._firsts)

    def _read(self, segment: Segment) -> Iterator[Entry]:
        """The checkpoints in the file of *segment*; what stands in their places is put by."""
        with contextlib.suppress(FileNotFoundError), open_file(self._home / self._file) as file:
            end = 0
            for unit in units(file, self._name.encode()):
                end = unit.at + len(unit.content) + 2
                try:
                    if unit.newlines < 2:
                        raise Bad("no empty line behind it")
                    note = Note.parse(unit.content + b"\n")
                    yield Entry(unit, note, Checkpoint.parse(note.text))
                except Bad as why:
                    self._bad.append((segment, unit, str(why)))
                    if len(self._bad) > MAX_PROBLEMS:
                        return
            if os.fstat(file.fileno()).st_size > end:
                self._fillers.append((segment, self._file, end))

    def began_epoch(self, last: int) -> None:
        """A KEY record was read, behind a segment that ended with record *last*."""
        file, end, size = self._before
        if self._segment and self._chain.cosigner and size != last and not self._bad:
            self._say(self._segment, Problem(0, file, end, "no checkpoint covers the end of its segment"))
        self._keyed = self._file

    def grew(self, place: Place, ts: int) -> None:
        """The tree has a new record: are there checkpoints and anchors of this size?"""
        if self._uncovered is None and self._chain.epoch:
            self._uncovered = (place, ts)
        while self._next and self._next.checkpoint.size <= self._tree.size:
            self._take(self._next)
            self._next = next(self._entries, None)
        while self._anchors and self._anchors[0].size <= self._tree.size:
            anchor = self._anchors.pop(0)
            if anchor.size == self._tree.size and self._agrees(anchor.root, LINES, anchor.source, 0):
                self.anchored_to = anchor.size

    def end(self, segment: Segment, name: str) -> None:
        """*segment* is over, and so must its checkpoints be."""
        if segment is not self._segment:
            self.begin(segment, name)  # it holds no record
        while self._next:
            self._take(self._next)
            self._next = next(self._entries, None)

    def _take(self, entry: Entry) -> None:
        """One checkpoint that the tree has reached, or never will."""
        unit, note, checkpoint = entry
        segment = self._segment
        if segment is None or not self._signed(segment, unit, note):
            return
        if checkpoint.name != self._name:
            why = f"a checkpoint of {checkpoint.name!r}, this log is {self._name!r}"
            self._findings.add(HISTORY, 0, self._file, unit.at, why)
        elif checkpoint.size > self._tree.size:
            self.beyond.append((self._file, unit.at, checkpoint.size))
        elif checkpoint.size <= self.size or checkpoint.size < segment.first:
            why = f"a checkpoint of size {checkpoint.size} does not belong there"
            self._findings.add(HISTORY, 0, self._file, unit.at, why)
        elif self._agrees(checkpoint.root, HISTORY, self._file, unit.at):
            self._uncovered = None
            if self._chain.trusted:
                self.signed_to = checkpoint.size
            else:
                self.unknown_to = checkpoint.size
        self._count_in(unit, checkpoint)

    def _signed(self, segment: Segment, unit: Unit, note: Note) -> bool:
        """Whether exactly those keys signed that must; else the unit is put by."""
        key, cosigner = self._chain.key, self._chain.cosigner
        if any(bad is segment for bad, _, _ in self._bad):
            cosigner = None  # it was to sign the first one
        try:
            if key is None:
                raise Bad("a checkpoint without a KEY record before it")
            note.check_signers(key, *([cosigner] if cosigner else []))
        except Bad as why:
            self._bad.append((segment, unit, str(why)))
            return False
        self._chain.cosigner = None
        return True

    def _count_in(self, unit: Unit, checkpoint: Checkpoint) -> None:
        """One more checkpoint; is it what `checkpoint` holds?"""
        self._count += 1
        self._good_behind_bad = bool(self._bad)
        self._newest_is_last = unit.content + b"\n" == self._newest
        if self._newest_is_last and self._segment:
            self._newest_at = (self._segment.first, unit.at)
        self._newest_found = self._newest_found or self._newest_is_last
        self.size = max(self.size, checkpoint.size)
        self._end = unit.at + len(unit.content) + 2

    def _agrees(self, root: bytes, order: int, file: str, offset: int) -> bool:
        """Whether *root* is that of the records so far; if not, some of them are in doubt."""
        size = self._tree.size
        if root == self._tree.root():
            self._agreed = self._agreed if size == self._agreed[1] else (self._agreed[1], size)
            return True
        first = 1 + (self._agreed[0] if size == self._agreed[1] else self._agreed[1])
        doubt = f"record {size}" if first == size else f"one of the records {first} to {size}"
        why = f"its root of size {size} is not that of the records: {doubt} was changed, or it is false"
        self._findings.add(order, first, file, offset, why)
        return False

    def pruned(self, segment: Segment, name: str) -> None:
        """The checkpoints of a segment that is not here: only the one at its end can be compared."""
        self.begin(segment, name)
        while self._next:
            unit, note, checkpoint = entry = self._next
            if checkpoint.size == self._tree.size:
                self._take(entry)
            elif self._signed(segment, unit, note):
                self._count_in(unit, checkpoint)
            self._next = next(self._entries, None)

    # At the end of the log

    def known(self) -> list[tuple[str, int, int]]:
        """What outside the lines says how long the log was: file, offset and size."""
        known = [*self.beyond, ("checkpoint", 0, self._newest_size())]
        return known + [(anchor.source, 0, anchor.size) for anchor in self._anchors]

    def _newest_size(self) -> int:
        """The size of `checkpoint`, where it is one by the key in force; else 0."""
        try:
            note = Note.parse(self._newest)
            checkpoint = Checkpoint.parse(note.text)
        except Bad:
            return 0
        return checkpoint.size if self._chain.key and note.signed_by(self._chain.key) else 0

    def judge(self, last: Segment | None, *, closed: bool, live: bool) -> str:
        """Units that are no checkpoints, and filler; *last* holds the last record. What is torn, or ""."""
        torn, bad = "", self._bad
        if live:
            bad = [
                (one, unit, why)
                for one, unit, why in bad
                if self._had_ended(one) or (one.first, unit.at) < self._newest_at
            ]
        elif bad and last and not closed and self._newest_size() <= self.size and self._may_be_torn(last):
            torn, bad = f"torn checkpoint in '{last.stem}.checkpoints' at byte {bad[0][1].at}", []
        for segment, unit, why in bad:
            self._findings.add(HISTORY, 0, f"{segment.stem}.checkpoints", unit.at, f"not a checkpoint: {why}")
        for segment, file, offset in self._fillers:
            followed = bool(last and segment.first < last.first)
            if self._had_ended(segment) or (not live and (closed or followed)):
                self._findings.add(HISTORY, 0, file, offset, "filler where no more is to come")
        if closed and not live and self._chain.epoch and self.size != self._tree.size:
            self._findings.add(HISTORY, 0, self._file, self._end, "the end of a closed log is not covered")
        return torn

    def _may_be_torn(self, last: Segment) -> bool:
        """Whether everything behind the last checkpoint may be what a crash left of one note."""
        units = [unit for segment, unit, _ in self._bad if segment.stem == last.stem]
        name = self._name.encode() + b"\n"
        names = any(unit.name_inside for unit in units) or any(
            unit.content.startswith(name) for unit in units[1:]
        )
        return len(units) == len(self._bad) and not names and not self._good_behind_bad

    def judge_bound(self, head: Head, head_ts: int) -> None:
        """The hard bound: how long a record that the head covers may wait for a checkpoint."""
        if self._uncovered and not self._bad:
            place, ts = self._uncovered
            far = head.sequence - place.sequence > BOUND_RECORDS or head_ts - ts > BOUND_NS
            if head.sequence >= place.sequence and far:
                self._findings.add(HISTORY, *place, "it has waited too long for a checkpoint")

    def judge_newest(self, *, closed: bool, live: bool) -> None:
        """`checkpoint` against the history; beside a writer, as it was before that was read."""
        why = ""
        if live and not self._had_newest:
            return
        if not os.path.lexists(self._home / "checkpoint"):
            why = "missing" if self._chain.epoch and (closed or self._count > 1) else ""
        elif not self._chain.epoch:
            why = "the log is not signed"
        elif not self._newest_found:
            why = "not one of the log's checkpoints"
        elif closed and not live and not self._newest_is_last:
            why = "not the last one of a closed log"
        if why:
            self._findings.add(NEWEST, 0, "checkpoint", 0, why)


# -- files beside the segments ("Sealing", "The index", "Recovery", "The directory"; checks 7, 9, 10, 11) ---------


class Found(NamedTuple):
    """What was read of a whole segment, to be held against its SEALED records."""

    segment: Segment
    last: int
    raw_sha256: str
    raw_bytes: int
    members: int


class Sidecars:
    """What lies beside the segments, and what the records say about it.

    Attributes:
        names: What the directory holds.
        seals: SEALED records by the segment they name.
        copies: Quarantine files that RECOVERY records name.
        pruned: SHA-256 of the details of PRUNED records.
        markers: The content of each `.pruned` file.
    """

    def __init__(self, home: Path, findings: Findings) -> None:
        self.names = sorted(os.listdir(home), key=os.fsencode)
        self.seals: dict[str, list[dict[str, Any]]] = {}
        self.copies: set[str] = set()
        self.pruned: set[bytes] = set()
        self.markers: dict[str, bytes] = {}
        self._home, self._findings = home, findings
        self._found: list[Found] = []
        self._wrong: set[str] = set()  # indexes that are not what the records give

    def segments(self) -> list[Segment]:
        """The segments in order, the raw form where both are there."""
        chosen: dict[tuple[int, str], Segment] = {}
        for name in self.names:
            segment = Segment.parse(name)
            if segment and (not segment.sealed or (segment.first, segment.stem) not in chosen):
                chosen[segment.first, segment.stem] = segment
        return [chosen[key] for key in sorted(chosen)]

    def take(self, record: Record, line: bytes) -> None:
        """Note what a record says about files."""
        if record.type == "RECOVERY" and isinstance(record.details.get("quarantine"), list):
            self.copies.update(map(str, record.details["quarantine"]))
        elif record.type == "SEALED":
            segment = str(record.details.get("segment"))[:64]
            facts = {name: record.details.get(name) for name in SEAL_KEYS}
            self.seals[segment] = [*self.seals.get(segment, [])[-9:], facts]
        elif record.type == "PRUNED":
            self.pruned.add(sha256(details_bytes(line)).digest())

    def segment_read(self, found: Found, index: Index) -> None:
        """A segment is whole. If it is sealed, its index must be *index*."""
        self._found.append(found)
        name = f"{found.segment.stem}.idx"
        if found.segment.sealed and os.path.lexists(self._home / name):
            expected = index.encode(bytes.fromhex(found.raw_sha256))
            try:
                content = read_small(self._home / name, len(expected))
            except OSError as why:
                self._findings.add(INDEXES, 0, name, 0, f"cannot be read: {why}")
                return
            if content != expected:
                self._wrong.add(name)
                offset = first_difference(content, expected)
                self._findings.add(INDEXES, 0, name, offset, "not what the records give")

    def judge(self, *, closed: bool, whole: bool, live: bool) -> None:
        """The end of the log; *whole* says that it was read to its end, so that all records about files are known."""
        for found in self._found:
            if live and found.segment.name not in self.names:
                continue  # sealed since the names were read; what says so may stand in a newer segment
            try:
                self._check_sealed(found, closed=closed)
            except OSError as why:
                self._findings.add(LINES, 0, found.segment.name, 0, f"cannot be read: {why}")
        self._check_copies(closed=closed, whole=whole)
        self._check_names(closed=closed, whole=whole)
        if "run" in self.names:
            self._check_run(self._home / "run", closed=closed)

    def _check_sealed(self, found: Found, *, closed: bool) -> None:
        """A segment and its index against the SEALED records that name it."""
        segment = found.segment
        raw, index = f"{segment.stem}.log", f"{segment.stem}.idx"
        seals = self.seals.get(raw, [])
        if segment.sealed:
            seals = seals[-1:]
            self._check_seal(found, seals[0] if seals else {})
        elif os.path.lexists(self._home / f"{raw}.gz"):
            self._check_twin(found, f"{raw}.gz", closed=closed)
        hashes = {str(seal["index_sha256"]) for seal in seals if seal.get("index_sha256")}
        if index in self.names or (segment.sealed and os.path.lexists(self._home / index)):
            if index not in self._wrong and file_sha256(self._home / index)[0] not in hashes:
                self._findings.add(INDEXES, 0, index, 0, "no SEALED record names this content")
        elif hashes and segment.sealed:
            self._findings.add(INDEXES, 0, index, 0, "missing")

    def _check_seal(self, found: Found, seal: dict[str, Any]) -> None:
        gzip_sha256, gzip_bytes = file_sha256(self._home / found.segment.name)
        facts = {
            "first_seq": found.segment.first,
            "last_seq": found.last,
            "raw_sha256": found.raw_sha256,
            "raw_bytes": found.raw_bytes,
            "gzip_sha256": gzip_sha256,
            "gzip_bytes": gzip_bytes,
            "members": found.members,
        }
        wrong = [name for name, value in facts.items() if seal.get(name) != value]
        if wrong:
            why = f"SEALED says otherwise about {', '.join(wrong)}" if seal else "no SEALED record names it"
            self._findings.add(LINES, 0, found.segment.name, 0, why)

    def _check_twin(self, found: Found, name: str, *, closed: bool) -> None:
        """A compressed segment beside its raw form: what a crash leaves, and then equal."""
        digest, whole = sha256(), True
        with open_file(self._home / name) as file:
            for member in members(file):
                digest.update(member.raw)
                whole = whole and not member.fault
        if closed:
            self._findings.add(LINES, 0, name, 0, "it stands beside its raw form")
        elif not whole or digest.hexdigest() != found.raw_sha256:
            self._findings.add(LINES, 0, name, 0, "not the same as its raw form")

    def _check_copies(self, *, closed: bool, whole: bool) -> None:
        """The quarantine: what is named is there, and is what its name says."""
        home, present = self._home / "quarantine", set[str]()
        if "quarantine" in self.names:
            with contextlib.suppress(OSError):
                present = set(os.listdir(home))
        for name in sorted(self.copies - present) if whole else ():
            self._findings.add(
                COPIES, 0, f"quarantine/{name}", 0, "missing, though a RECOVERY record names it"
            )
        for name in sorted(present, key=os.fsencode):
            try:
                genuine = name.endswith(f"-{file_sha256(home / name)[0][:16]}")
            except OSError as why:
                self._findings.add(COPIES, 0, f"quarantine/{name}", 0, f"cannot be read: {why}")
                continue
            if name in self.copies and not genuine:
                self._findings.add(COPIES, 0, f"quarantine/{name}", 0, "not the content that its name says")
            elif name not in self.copies and closed and whole:
                self._findings.add(COPIES, 0, f"quarantine/{name}", 0, "no RECOVERY record names it")

    def _check_names(self, *, closed: bool, whole: bool) -> None:
        """Markers that no record names, and whatever does not belong there."""
        stems = {segment.stem for segment in self.segments()}
        stems |= {name.removesuffix(".pruned") for name in self.markers}
        for name, content in self.markers.items():
            known = content.endswith(b"}\n") and sha256(content[:-1]).digest() in self.pruned
            if whole and not known:
                self._findings.add(OTHER, 0, name, 0, "no PRUNED record says what this marker says")
        for name in self.names:
            sidecar = SIDECAR.fullmatch(name)
            if name in {"tile", "quarantine", "run"}:
                belongs = stat.S_ISDIR(os.lstat(self._home / name).st_mode)
            elif name in {"head", "checkpoint"} or Segment.parse(name) or (sidecar and sidecar[1] in stems):
                belongs = is_file(self._home / name)
            else:
                belongs = bool(TEMPORARY.fullmatch(name)) and not closed and is_file(self._home / name)
            if not belongs:
                self._findings.add(OTHER, 0, name, 0, "does not belong in a journal")

    def _check_run(self, home: Path, *, closed: bool) -> None:
        """`run/`; on a closed log the reserve has been taken up and cleared."""
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(home), key=os.fsencode):
                if name not in {"pid", "reserve"} or not is_file(home / name):
                    self._findings.add(OTHER, 0, f"run/{name}", 0, "does not belong in a journal")
                elif name == "reserve" and closed:
                    with open_file(home / name) as file:
                        size, filler = os.fstat(file.fileno()).st_size, skip_filler(file)
                    if filler < size or size % 4096:
                        why = "not whole pages of filler on a closed log"
                        self._findings.add(OTHER, 0, "run/reserve", filler, why)


# -- the head ("The head", check 1) -------------------------------------------------------------------------------


class Head(NamedTuple):
    """What a slot of the head says."""

    writes: int
    sequence: int
    end: int
    state: int
    segment: str

    @classmethod
    def parse(cls, slot: bytes) -> Head | None:
        """The head in a slot of 104 bytes; None where it is not valid."""
        body, checksum = slot[:100], slot[100:]
        if len(slot) != 104 or checksum != struct.pack("<I", zlib.crc32(body)):
            return None
        magic, count, sequence, end, state, segment = struct.unpack("<8sQQQI64s", body)
        name = segment.rstrip(b"\0")
        if magic != b"HFHEAD1\0" or state not in STATES or not name.isascii():
            return None
        return cls(count, sequence, end, state, name.decode())


NO_HEAD = Head(0, 0, 0, OPEN, "")


def read_head(home: Path, findings: Findings, *, needed: bool) -> Head:
    """The head of the log in *home*; `NO_HEAD` where it says nothing."""
    try:
        page = read_small(home / "head", 4096)
    except OSError as why:
        missing = isinstance(why, FileNotFoundError)
        if needed or not missing:
            findings.add(HEAD, 0, "head", 0, "missing" if missing else f"cannot be read: {why}")
        return NO_HEAD
    if needed and len(page) != 4096:  # before the first segment a crash may have cut its making short
        findings.add(HEAD, 0, "head", min(len(page), 4096), "not one page of 4096 bytes")
    slots: list[Head] = []
    for number, at in enumerate((0, 512)):
        slot = Head.parse(page[at : at + 104])
        if slot is not None and slot.writes % 2 == number:
            slots.append(slot)
        elif page[at : at + 104].strip(b"\0"):
            findings.add(HEAD, 0, "head", at, "a slot is neither valid nor empty")
    for begin, end in ((104, 512), (616, 4096)):
        unused = page[begin:end]
        if content := unused.lstrip(b"\0"):
            findings.add(HEAD, 0, "head", begin + len(unused) - len(content), "unused bytes are not zero")
    head = max(slots, key=lambda slot: slot.writes, default=NO_HEAD)
    if head.state == CLOSED and {slot.writes for slot in slots} != {head.writes, head.writes - 1} - {0}:
        # Without a clean close one sector of the page may be much older than the other.
        findings.add(
            HEAD, 0, "head", 512 * ((head.writes + 1) % 2), "a slot is not the one written before the last"
        )
    return head


# -- a journal ("Lines", "Segments", "Recovery"; checks 1, 2, 3) --------------------------------------------------


def refuse_newer(file: str, record: Record) -> None:
    """Refuse a log whose SEGMENT record says that it has a format of which this page knows nothing."""
    version = record.details.get("format")
    if record.type == "SEGMENT" and type(version) is int and version > FORMAT:
        raise Refused(f"{file!r} has format {version}, newer than {FORMAT}, the one known here")


class Journal:
    """One log, read once from its first line to its last."""

    def __init__(self, home: Path, pins: Sequence[Key] = (), anchors: Sequence[Anchor] = ()) -> None:
        self.home, self.findings = home, Findings()
        needed = any(Segment.parse(name) for name in os.listdir(home))
        self.head = read_head(home, self.findings, needed=needed)
        self.closed, self.live = self.head.state == CLOSED, False
        # The log so far: the next record is number tree.size + 1.
        self.tiles = Tiles(home / "tile", self.findings)
        self.tree = Tree(self.tiles.add)
        self.chain = Chain(self.findings, pins)
        self.history = History(
            home, self.findings, self.chain, self.tree, anchors, promised=self.head.sequence
        )
        self.sidecars = Sidecars(home, self.findings)
        self.log_id = self.origin = self.before = ""  # before: the type of the record before
        self.durable = self.head.sequence  # m of "Recovery"
        self.pruned_to = self.total = self.highest = 0
        self.head_end: Place | None = None  # where the record that the head names ends
        self.head_ts = 0
        self.beyond_head: Place | None = None
        # Where the next record should stand, and, once it does not, why; whether a crash may have done that.
        self.place, self.broken, self.crash = ("head", 0), "", True
        self.damaged = False
        self.fillers: list[tuple[Segment, int]] = []
        self.last: Segment | None = None  # the segment that holds the last record
        self.members = 0

    def verify(self) -> dict[str, Any]:
        """Read the log and judge it; the report as plain values."""
        segments = self.sidecars.segments()
        self.read_markers({segment.stem for segment in segments})
        for segment in segments:
            self.read_segment(segment)
        self.live = self.has_writer()
        self.history.settle(live=self.live)
        torn = [self.judge_tail()]
        self.judge_head()
        self.chain.judge(whole=not self.damaged)
        if not self.damaged:
            torn.append(self.history.judge(self.last, closed=self.closed, live=self.live))
            self.history.judge_bound(self.head, self.head_ts)
            self.history.judge_newest(closed=self.closed, live=self.live)
        if not self.findings.count:
            self.chain.judge_signing(self.history.signed_to, self.history.unknown_to)
        self.sidecars.judge(closed=self.closed, whole=not self.damaged, live=self.live)
        self.tiles.judge(self.tree.size, bounded=not self.damaged and not self.live, closed=self.closed)
        return self.report("; ".join(filter(None, torn)))

    def report(self, torn: str) -> dict[str, Any]:
        """Everything that was found out."""
        intact, history = not self.findings.count, self.history
        return {
            "directory": str(self.home),
            "integrity_ok": intact,
            "needs_recovery": intact and bool(torn),
            "recovery_range": torn if intact else "",
            "state": STATES[self.head.state] if self.head.writes else "empty",
            "live_writer": self.live,
            "total_entries": self.total if self.damaged else self.tree.size - self.pruned_to,
            "root": self.tree.root().hex() if intact else "",
            "log_id": self.log_id,
            "anchored_to": history.anchored_to,
            "signed_to": history.signed_to,
            "unknown_key_to": history.unknown_to if history.unknown_to > history.signed_to else 0,
            "archived_to": self.pruned_to,
            **self.findings.report(),
        }

    @property
    def name(self) -> str:
        """The log's name, on its checkpoints and its keys."""
        return f"{self.origin}/{self.log_id}"

    # Reading

    def read_markers(self, here: set[str]) -> None:
        """Begin the tree behind what was pruned; whether a record says so too is seen at the end."""
        for name in self.sidecars.names:
            match = SIDECAR.fullmatch(name)
            if not match or match[2] != "pruned":
                continue
            try:
                content = self.sidecars.markers[name] = read_small(self.home / name, MAX_LINE)
                if match[1] not in here:
                    self.take_marker(Segment(name, match[1], self.tree.size + 1, sealed=True), content)
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, Bad) as why:
                why_not = f"not the marker of a pruned segment: {why}"
                self.findings.add(LINES, self.tree.size + 1, name, 0, why_not)
                return
        self.tiles.begin_at(self.tree)

    def take_marker(self, segment: Segment, content: bytes) -> None:
        """Take what a marker says for what it stands for."""
        marker = json.loads(content, parse_constant=not_json)
        peaks, last = [bytes.fromhex(peak) for peak in marker["peaks"]], marker["last_seq"]
        if marker["first_seq"] != segment.first or type(last) is not int or not segment.first <= last < 2**63:
            raise Bad("it does not continue what was pruned before it")
        if len(peaks) != last.bit_count() or {len(peak) for peak in peaks} != {32}:
            raise Bad("its peaks are not those of a tree of its size")
        self.sidecars.copies.update(str(name) for name in marker["quarantine"])
        if marker["key"] is not None:
            self.origin, self.log_id = str(marker["key"]["note"]).split("\n")[1:3]
            self.chain.take(Place(0, segment.name, 0), self.origin, self.log_id, marker["key"])
        self.tree.size, self.tree.peaks = last, peaks
        self.pruned_to = self.highest = last
        self.history.pruned(segment, self.name)

    def read_segment(self, segment: Segment) -> None:
        """Read one segment, also where it was sealed since its name was read."""
        sealed = segment._replace(name=f"{segment.stem}.log.gz", sealed=True)
        for form in (segment, sealed):
            try:
                with open_file(self.home / form.name) as file:
                    self.read_lines(form, file)
            except FileNotFoundError:
                continue
            except OSError as why:
                self.stop(form.name, 0, f"cannot be read: {why}")
                self.crash = False
            return

    def read_lines(self, segment: Segment, file: BinaryIO) -> None:
        """Take every line of a segment that is in its place; learn from the others."""
        was_broken = bool(self.broken)
        if not self.broken:
            self.place = (segment.name, 0)
            if segment.first != self.tree.size + 1:
                self.stop(segment.name, 0, f"the next segment begins with sequence {segment.first}")
        size, digest, index = 0, sha256(), Index(segment.first)
        for line in self.sealed_lines(segment, file) if segment.sealed else raw_lines(file):
            record = None if self.broken else self.record_in_place(segment, line, size)
            if record is None:
                self.learn_from(segment.name, line)
                continue
            self.take(segment, line, record)
            size += len(line.content) + 1
            digest.update(line.content + b"\n")
            self.place = (segment.name, line.where if segment.sealed else size)
            if segment.sealed:
                index.take(line, record)
        if self.log_id and not was_broken:
            self.history.end(segment, self.name)
        if self.broken:
            self.crash = self.crash and not segment.sealed
            return
        if not segment.sealed and os.fstat(file.fileno()).st_size > size:
            self.fillers.append((segment, size))
        if size:
            found = Found(segment, self.tree.size, digest.hexdigest(), size, self.members)
            self.sidecars.segment_read(found, index)

    def sealed_lines(self, segment: Segment, file: BinaryIO) -> Iterator[Line]:
        """The lines of a compressed segment; what is wrong with its form is noted on the way."""
        at = self.members = wasted = 0
        known = (self.tree.size, self.total)
        for member in members(file):
            self.members += 1
            before, known = known, (self.tree.size, self.total)
            wasted = wasted + max(len(member.raw), 256) if known == before else 0
            if wasted > MAX_UNPACKED_WASTE:  # a few bytes of it may unpack to any number of lines
                self.stop(segment.name, member.at, "no record for so many bytes that the rest was not read")
                return
            *lines, rest = member.raw.split(b"\n")
            for content in lines:
                yield Line(at, member.at, content, ended=True)
                at += len(content) + 1
            if member.fault:
                self.findings.add(LINES, 0, segment.name, member.at, member.fault)
            if rest or not member.usable:
                yield Line(at, member.at, rest, ended=False)

    def record_in_place(self, segment: Segment, line: Line, at: int) -> Record | None:
        """The record that *line* is, provided that it is the next one and stands at *at*."""
        try:
            if line.at != at:
                raise Bad("newlines stand before the end")
            record = read_line(line.content)
            if record.seq != self.tree.size + 1:
                raise Bad(f"found sequence {record.seq}")
            if not line.ended:
                raise Bad("cut before its newline")
        except Bad as why:
            self.stop(segment.name, line.where if segment.sealed else at, str(why))
            return None
        return record

    def stop(self, file: str, offset: int, reason: str) -> None:
        """From here on no record is in its place."""
        if not self.broken:
            self.broken, self.place = reason, (file, offset)

    def learn_from(self, file: str, line: Line) -> None:
        """A line behind the first bad place proves nothing but what its writer knew to be durable."""
        with contextlib.suppress(Bad):
            record = read_line(line.content.lstrip(b"\0"))
            refuse_newer(file, record)
            self.durable = max(self.durable, record.synced)
            if record.seq > self.highest and line.ended:
                self.highest = record.seq
                self.total += 1

    # What the records say

    def take(self, segment: Segment, line: Line, record: Record) -> None:
        """Follow what the next record says, and add it to the tree."""
        place = Place(record.seq, segment.name, line.where)
        self.chain.begin(place)
        if line.at == 0:
            self.take_segment(place, record)
            self.history.begin(segment, self.name)
        elif record.type == "SEGMENT":
            self.findings.add(LINES, *place, "a SEGMENT record inside a segment")
        if record.type == "KEY" and self.before == "SEGMENT":
            self.chain.take(place, self.origin, self.log_id, record.details)
            self.history.began_epoch(record.seq - 2)
        elif record.type == "KEY":
            self.findings.add(KEYS, *place, "a KEY record that is not the second one of its segment")
        elif self.before == "SEGMENT" and self.chain.epoch:
            self.findings.add(KEYS, *place, f"the KEY record of epoch {self.chain.epoch + 1} is missing")
        self.sidecars.take(record, line.content)
        self.tree.append(leaf_hash(line.content))
        self.total, self.highest = self.total + 1, record.seq
        self.before, self.last = record.type, segment
        self.durable = max(self.durable, record.synced)
        if record.seq == self.head.sequence:
            self.head_end = Place(record.seq, f"{segment.stem}.log", line.at + len(line.content) + 1)
            self.head_ts = record.ts
        elif record.seq == self.head.sequence + 1:
            self.beyond_head = place
        self.history.grew(place, record.ts)

    def take_segment(self, place: Place, record: Record) -> None:
        """The first record of a segment."""
        details = record.details
        if record.type != "SEGMENT":
            self.findings.add(LINES, *place, f"the first record is {record.type}, expected SEGMENT")
            return
        if any(type(details.get(name)) is not kind for name, kind in SEGMENT_KEYS.items()):
            self.findings.add(LINES, *place, "a SEGMENT record without its keys")
            return
        refuse_newer(place.file, record)
        if self.log_id not in {"", details["log_id"]}:
            self.findings.add(LINES, *place, f"log id {details['log_id']!r} is not {self.log_id!r}")
        if details["format"] != FORMAT or details["first_seq"] != record.seq:
            self.findings.add(LINES, *place, "its format or first sequence is not what it should be")
        if details["root"] != self.tree.root().hex():
            self.findings.add(LINES, *place, "its root is not the root of the records before it")
        self.log_id, self.origin = details["log_id"], details["origin"]

    # The end

    def has_writer(self) -> bool:
        """Whether somebody holds the log, or wrote while we read: then the end of it is his, and is not judged."""
        moved = read_head(self.home, Findings(), needed=False).writes > self.head.writes
        with contextlib.suppress(OSError):
            # Linux lists the locks that are held. Trying to take one might stop a writer that starts just now.
            lock = f":{self.home.stat().st_ino} "
            locks = Path("/proc/locks").read_text().splitlines()
            return moved or any(" FLOCK " in one and " WRITE " in one and lock in one for one in locks)
        return moved

    def judge_tail(self) -> str:
        """The table of "Recovery": what is torn, in words, or ""."""
        missing = self.tree.size + 1
        file, offset = self.place
        if self.live and self.head.sequence < missing:
            return ""
        why, durable = self.broken or "missing", self.durable
        for source, at, size in self.history.known():
            if not self.broken and durable < missing <= size:
                # The lines know of no loss; then whoever does is named.
                file, offset, why = source, at, "it covers records that are not here"
            durable = max(durable, size)
        if durable >= missing or (self.broken and (self.closed or not self.crash)):
            self.damaged = True
            self.findings.add(LINES, missing, file, offset, f"{why} (durable up to {durable})")
        elif self.closed and self.beyond_head:
            self.findings.add(LINES, *self.beyond_head, "beyond the head of a closed log")
        elif self.broken or durable < self.tree.size:
            again = self.tree.size - durable
            kept = f", and {again} records before it to be written again" if again else ""
            return f"torn tail from sequence {missing} in {file!r} at byte {offset}{kept}"
        return ""

    def judge_head(self) -> None:
        """Where the head's record ends; and filler behind lines that are the last of their segment."""
        if self.head_end and self.head_end[1:] != (self.head.segment, self.head.end):
            why = f"the head says that it ends at byte {self.head.end} of {self.head.segment!r}"
            self.findings.add(HEAD, *self.head_end, why)
        for segment, offset in self.fillers:
            if not self.live and (self.closed or (self.last and segment.first < self.last.first)):
                self.findings.add(LINES, 0, segment.name, offset, "filler where no more is to come")


# -- tiles ("Tiles") ----------------------------------------------------------------------------------------------


def tile_path(level: int, number: int) -> str:
    """The path of a full tile below `tile/`."""
    path = f"{number % 1000:03d}"
    while number := number // 1000:
        path = f"x{number % 1000:03d}/{path}"
    return f"{level}/{path}"


class Tiles:
    """Check 8: the tiles, held against the hashes of the tree while it grows.

    Of every level no more is kept than the tile that is being filled.
    """

    def __init__(self, home: Path, findings: Findings) -> None:
        self.home, self.findings = home, findings
        self.present = home.is_dir()
        self.rows: list[list[bytes]] = []
        self.numbers: list[int] = []

    def begin_at(self, tree: Tree) -> None:
        """The tree begins with *tree*, whose leaves are in tiles alone: those must be there, and give its peaks."""
        found = Tree(self.add)
        for number in range(-(-tree.size // 256)):
            path = tile_path(0, number)
            try:
                content = read_small(self.home / path, 8192)
            except OSError:
                content = b""
            if len(content) != 8192:
                self.findings.add(TILES, 0, f"tile/{path}", 0, "missing, and the records under it are pruned")
                self.present = False
                return
            for at in range(0, 32 * min(256, tree.size - 256 * number), 32):
                found.append(content[at : at + 32])
        if found.peaks != tree.peaks:
            self.findings.add(TILES, 0, "tile", 0, "its leaves are not those of what was pruned")

    def add(self, level: int, node: bytes) -> None:
        """The next hash of a level."""
        if not self.present:
            return
        if level == len(self.rows):
            self.rows.append([])
            self.numbers.append(0)
        row = self.rows[level]
        row.append(node)
        if len(row) == 256:
            self.check(level)
            row.clear()
            self.numbers[level] += 1

    def check(self, level: int) -> None:
        """Every file of the tile that is being filled, as far as it is filled."""
        row, number = self.rows[level], self.numbers[level]
        path = tile_path(level, number)
        if len(row) == 256:
            self.compare(level, number, path, row)
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.home / f"{path}.p")):
                if TILE.fullmatch(f"{path}.p/{name}") and int(name) <= min(len(row), 255):
                    self.compare(level, number, f"{path}.p/{name}", row[: int(name)])

    def compare(self, level: int, number: int, file: str, row: Sequence[bytes]) -> None:
        """One tile file against the hashes it must hold."""
        try:
            content = read_small(self.home / file, 32 * len(row))
        except FileNotFoundError:
            return  # a tile that is missing is rebuilt
        except OSError as why:
            self.findings.add(TILES, 0, f"tile/{file}", 0, f"cannot be read: {why}")
            return
        expected = b"".join(row)
        if len(content) != len(expected):
            offset = min(len(content), len(expected))
            self.findings.add(TILES, 0, f"tile/{file}", offset, f"not {len(row)} hashes")
        elif content != expected:
            place = first_difference(content, expected) // 32
            sequence = 256 * number + place + 1 if level == 0 else 0
            why_not = f"hash {place} is not that of the records"
            self.findings.add(TILES, sequence, f"tile/{file}", 32 * place, why_not)

    def judge(self, size: int, *, bounded: bool, closed: bool) -> None:
        """The tiles at the edge of a tree of *size*, and every name; *bounded*: no tile may go beyond."""
        if not self.present:
            return
        for level, row in enumerate(self.rows):
            if row:
                self.check(level)
        for folder, folders, files in os.walk(self.home):
            prefix = "" if folder == str(self.home) else os.path.relpath(folder, self.home) + "/"
            for name in folders:
                if not TILE_FOLDER.fullmatch(prefix + name) or (Path(folder) / name).is_symlink():
                    self.findings.add(TILES, 0, f"tile/{prefix}{name}", 0, NO_TILE)
            for name in files:
                self.check_name(prefix + name, size if bounded else None, closed=closed)

    def check_name(self, path: str, size: int | None, *, closed: bool) -> None:
        """Whether a file may lie there."""
        match = TILE.fullmatch(path)
        if not match or not is_file(self.home / path):
            if closed or not TILE.fullmatch(path.removesuffix(".tmp")) or not is_file(self.home / path):
                self.findings.add(TILES, 0, f"tile/{path}", 0, NO_TILE)
            return
        level, width = int(match[1]), int(match[3] or 256)
        number = int(match[2].replace("x", "").replace("/", ""))
        end = 256 * number + width
        if level > 63 or width > 255 + (match[3] is None) or not path.startswith(tile_path(level, number)):
            self.findings.add(TILES, 0, f"tile/{path}", 0, NO_TILE)
        elif size is not None and end > size >> (8 * level):
            self.findings.add(TILES, 0, f"tile/{path}", 0, "beyond the end of the log")


# -- proofs of single records ("Proofs") --------------------------------------------------------------------------


def check_proof(content: bytes, pins: Sequence[Key]) -> dict[str, Any]:
    """What a proof file proves.

    Raises:
        Refused: It is no proof of a journal's record, or no key was given that could vouch for it.
        Bad: It says something false.
    """
    try:
        head, empty, signed = content.partition(b"\n\n")
        heading, extra, index_line, *path_lines = [*head.decode().split("\n"), "", ""]
        if not empty or heading != "c2sp.org/tlog-proof@v1":
            raise Bad("it does not begin with c2sp.org/tlog-proof@v1")
        if not extra.startswith("extra ") or not index_line.startswith("index "):
            raise Bad("extra or index is missing")
        index = decimal(index_line[6:])
        path = [canonical_base64(line) for line in path_lines[:-2]]
        line, _, below = canonical_base64(extra[6:]).partition(b"\n")
        chain = [Note.parse(one) for one in chain_notes(below)]
        note = Note.parse(signed)
        checkpoint = Checkpoint.parse(note.text)
        if {len(node) for node in path} > {32}:
            raise Bad("a hash has not 32 bytes")
    except (Bad, UnicodeDecodeError) as why:
        raise Refused(f"not the proof of a record: {why}") from why
    record = read_line(line)
    if record.seq != index + 1 or index >= checkpoint.size:
        raise Bad(f"record {record.seq} is not number {index} of a log of {checkpoint.size}")
    if root_of_path(leaf_hash(line), index, checkpoint.size, path) != checkpoint.root:
        raise Bad("the path does not lead from the record to the checkpoint's root")
    trusted = [pin for pin in pins if pin.name == checkpoint.name and pin.algorithm == ED25519]
    last = follow_chain(chain, checkpoint.name, trusted)
    verdicts = {
        key.vkey: note.signed_by(key)
        for key in [*trusted, *(pin for pin in pins if pin.algorithm == COSIGNATURE)]
    }
    if False in verdicts.values():
        raise Bad("a signature on the checkpoint is not valid")
    signers = [vkey for vkey, valid in verdicts.items() if valid]
    if not any(verdicts[key.vkey] for key in trusted) or (last and last.vkey not in signers):
        raise Refused("no key that was given vouches for the checkpoint")
    return {"record": record._asdict(), "log": checkpoint.name, "size": checkpoint.size, "signers": signers}


def chain_notes(content: bytes) -> Iterator[bytes]:
    """Notes that stand one behind the other, each with an empty line behind it."""
    at, count = 0, 0
    while at < len(content):
        count += 1
        text_end = content.find(b"\n\n", at)
        end = content.find(b"\n\n", text_end + 2)
        if text_end < 0 or end < 0 or count > MAX_CHAIN:
            raise Bad("a KEY note is cut, or there are too many")
        yield content[at : end + 1]
        at = end + 2


def follow_chain(chain: Sequence[Note], name: str, trusted: list[Key]) -> Key | None:
    """Add to *trusted* every key that a KEY note makes so; the key of the last note."""
    previous: Key | None = None
    epoch = 0
    for note in chain:
        kind, origin, log_id, number, vkey, *rest = [*note.text.decode().split("\n"), "", "", "", ""]
        key = Key.parse(vkey)
        follows = not epoch or decimal(number) == epoch + 1
        if (
            kind != "holdfast key v1"
            or f"{origin}/{log_id}" != name
            or key.name != name
            or any(rest)
            or not follows
        ):
            raise Bad("a KEY note is not one of this log, or out of order")
        epoch = decimal(number)
        # Which key the epoch before the first note had is not said; it can only be one that was given.
        verdicts = {note.signed_by(signer) for signer in trusted if previous in {None, signer}}
        if False in verdicts:
            raise Bad(f"the note of epoch {epoch} does not carry the signature it claims")
        if True in verdicts:
            trusted.append(key)
        previous = key
    return previous


# -- the command line ---------------------------------------------------------------------------------------------


def read_keys(texts: Sequence[str]) -> list[Key]:
    """The keys given by --key, each as a text or as a file with one on each line."""
    keys: list[Key] = []
    for text in texts:
        try:
            lines = [text] if text.count("+") >= 2 else read_small(Path(text), 1 << 20).decode().split("\n")
            keys += [Key.parse(line.strip()) for line in lines if line.strip()]
        except (OSError, ValueError, Bad) as why:
            raise Refused(f"key {text!r} cannot be used: {why}") from why
    return keys


def read_anchor(path: str) -> Anchor:
    """The checkpoint in a file."""
    try:
        checkpoint = Checkpoint.parse(Note.parse(read_small(Path(path), 1 << 20)).text)
    except (OSError, Bad) as why:
        raise Refused(f"anchor {path!r} cannot be used: {why}") from why
    return Anchor(*checkpoint, source=path)


def printable(text: object) -> str:
    """*text* without anything that could move the cursor of the terminal it is shown on."""
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in str(text))


def tell(report: dict[str, Any]) -> None:
    """A report for people."""
    total = report["total_entries"]
    word = (
        "DAMAGED"
        if not report["integrity_ok"]
        else "needs recovery"
        if report["needs_recovery"]
        else "intact"
    )
    print(f"{printable(report['directory'])}: {word}, {total} records, state {report['state']}")
    if report["root"]:
        print(f"  tree size {total}, root {report['root']}")
    ranges = {
        "archived, not here and not verified": report["archived_to"],
        "anchored": report["anchored_to"],
        "signed by a trusted key": report["signed_to"],
        "signed by an unknown key": report["unknown_key_to"],
    }
    for word, end in ranges.items():
        if end:
            print(f"  1 to {end}: {word}")
    if (covered := max(ranges.values())) < total and report["integrity_ok"]:
        print(f"  {covered + 1} to {total}: unsigned; only accidents are excluded")
    if report["needs_recovery"]:
        print(f"  {printable(report['recovery_range'])}; the next start repairs it")
    for problem in report["problems"][:20]:
        record = f"sequence {problem['sequence']}, " if problem["sequence"] else ""
        where = f"{problem['file']!r} at byte {problem['offset']}: " if problem["file"] else ""
        print(f"  {printable(record + where + problem['reason'])}")
    if report["problem_count"] > 20:
        print(f"  … and {report['problem_count'] - 20} more")


def verify(directory: str, pins: Sequence[Key], anchors: Sequence[Anchor]) -> dict[str, Any]:
    """The report on one log."""
    try:
        return Journal(Path(directory), pins, anchors).verify()
    except OSError as why:
        raise Refused(f"{directory!r} cannot be read: {why}") from why


def prove(path: str, pins: Sequence[Key]) -> dict[str, Any]:
    """The report on one proof file."""
    try:
        return {
            "file": path,
            "ok": True,
            "reason": None,
            **check_proof(read_small(Path(path), 4 << 20), pins),
        }
    except OSError as why:
        raise Refused(f"{path!r} cannot be read: {why}") from why
    except Bad as why:
        return {"file": path, "ok": False, "reason": str(why)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Check a holdfast journal, or proofs of single records.")
    parser.add_argument("paths", nargs="+", metavar="DIR", help="logs, or with --proof proof files")
    parser.add_argument("--proof", action="store_true", help="the paths are proof files")
    parser.add_argument(
        "--key", action="append", default=[], metavar="VKEY|FILE", help="a key that you trust"
    )
    parser.add_argument(
        "--anchor", action="append", default=[], metavar="FILE", help="a checkpoint kept elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each path")
    given = parser.parse_args(arguments)
    worst = 0
    try:
        pins, anchors = read_keys(given.key), [read_anchor(path) for path in given.anchor]
        if given.proof and not pins:
            raise Refused("a proof is worth what its key is worth: name one with --key")
        for path in given.paths:
            report = prove(path, pins) if given.proof else verify(path, pins, anchors)
            if not report.get("ok", report.get("integrity_ok")):
                worst = 3
            if given.json:
                print(json.dumps(report))
            elif not given.proof:
                tell(report)
            elif report["ok"]:
                record = json.dumps(report["record"], ensure_ascii=False)
                print(
                    f"{printable(path)}: proven, in {report['log']} of size {report['size']}: {printable(record)}"
                )
            else:
                print(f"{printable(path)}: REFUSED: {printable(report['reason'])}")
    except Refused as why:
        print(f"error: {printable(why)}", file=sys.stderr)
        return 1
    return worst


if __name__ == "__main__":
    sys.exit(main())

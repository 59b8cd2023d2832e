"""Make the test vectors of the journal format: small logs, good and damaged, with the verdict each must get.

    python vectors/journal/make.py            write every log and verdicts.json beside this file
    python vectors/journal/make.py --check    say whether that would change anything; exit 1 if so

This is a third writing of the format: it imports nothing of holdfast and lays down bytes as
docs/journal-format.md says. Clock, keys and log ids are fixed, Ed25519 is deterministic, and compressed
segments hold stored blocks, so every run on every machine gives the same bytes. The verdicts are written by
hand, beside the damage they are about; no verifier had a part in them.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = Path(__file__).parent
START_NS = 1_763_634_000_123_456_789
MILLISECOND = 10**6
FILLER = b"\n"
OPEN, CLOSED, POISONED = 1, 2, 3
LOG_ID = "00112233445566778899aabbccddeeff"
Files = dict[str, bytes]


# -- the pieces of the format -----------------------------------------------------------------------------------


def compact(value: object) -> bytes:
    """JSON without spaces, as the page's lines are written."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def line(seq: int, synced: int, ts: int, type_: str, user: str, component: str, details: object) -> bytes:
    """One record's line without its newline."""
    named = compact({"type": type_, "user": user, "component": component, "details": details})[1:]
    body = b'"seq":%d,"synced":%d,"ts":%d,%b' % (seq, synced, ts, named)
    return b'{"crc":"%08x",%b' % (crc32(body), body)


def tree_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\1" + tree_root(leaves[:half]) + tree_root(leaves[half:])).digest()


class Key(NamedTuple):
    """One Ed25519 key of the log named *name*."""

    name: str
    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The algorithm's number and the 32 bytes of the public key."""
        return b"\1" + self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def id(self) -> bytes:
        """What a signature line names the key by."""
        return sha256(self.name.encode() + b"\n" + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """The key as others pin it."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.public).decode()}"

    def signature(self, text: bytes) -> str:
        """One signature line over *text*."""
        return f"— {self.name} {base64.b64encode(self.id + self.private.sign(text)).decode()}\n"


def key(number: int, log_id: str = LOG_ID, owner: str = "log") -> Key:
    """The *number*-th key of *owner*: fixed, and worthless anywhere else."""
    seed = sha256(f"holdfast test vector key: {owner} {log_id} {number}".encode()).digest()
    return Key(f"holdfast/{log_id}", Ed25519PrivateKey.from_private_bytes(seed))


def note(text: str, *signers: Key) -> str:
    """*text* as a signed note."""
    return text + "\n" + "".join(signer.signature(text.encode()) for signer in signers)


def checkpoint_note(leaves: list[bytes], *signers: Key) -> str:
    """The signed checkpoint over *leaves*."""
    root = base64.b64encode(tree_root(leaves)).decode()
    return note(f"{signers[0].name}\n{len(leaves)}\n{root}\n", *signers)


def head_slot(count: int, sequence: int, end: int, state: int, segment: str) -> bytes:
    """One slot of the head page."""
    body = struct.pack("<8sQQQI64s", b"HFHEAD1\0", count, sequence, end, state, segment.encode())
    return body + struct.pack("<I", crc32(body))


def head_page(*slots: bytes) -> bytes:
    """The head page: *slots* as written one after the other, counted from 1."""
    page = bytearray(4096)
    for count, slot in enumerate(slots, 1):
        at = 512 * (count % 2)
        page[at : at + len(slot)] = slot
    return bytes(page)


def gzip_member(raw: bytes) -> bytes:
    """*raw* as one gzip member made of stored blocks: the same bytes whichever zlib is near."""
    blocks = [raw[at : at + 65_535] for at in range(0, len(raw), 65_535)]
    packed = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed + struct.pack("<II", crc32(raw), len(raw))


def index_bytes(first_seq: int, lines: list[bytes], members: list[list[bytes]], packed: list[bytes]) -> bytes:
    """The index of a segment with these *lines*, compressed as *members* to *packed*."""
    records = [json.loads(one) for one in lines]
    groups: dict[tuple[str, str, str], list[int]] = {}
    ids: set[tuple[int, int]] = set()
    blocks, raw_at, gzip_at, first = b"", 0, 0, 0
    for number, (member, content) in enumerate(zip(members, packed, strict=True)):
        part = records[first : first + len(member)]
        times = [record["ts"] for record in part]
        blocks += struct.pack("<QQIIqq", raw_at, gzip_at, first, len(member), min(times), max(times))
        for place, record in enumerate(part, first):
            groups.setdefault((record["type"], record["user"], record["component"]), []).append(place)
            for name in ("order_id", "client_order_id"):
                value = record["details"].get(name)
                if isinstance(value, str) and value:
                    digest = sha256(value.encode()).digest()[:4]
                    ids.add((int.from_bytes(digest, "little"), number))
        raw_at += sum(len(one) + 1 for one in member)
        gzip_at += len(content)
        first += len(member)
    body = struct.pack(
        "<8s32sQIIII",
        b"HFINDX1\0",
        sha256(b"".join(one + b"\n" for one in lines)).digest(),
        first_seq,
        *(len(lines), len(members), len(groups), len(ids)),
    )
    body += blocks
    for names, places in groups.items():
        texts = [name.encode() for name in names]
        body += struct.pack("<HHHI", *(len(text) for text in texts), len(places)) + b"".join(texts)
    body += b"".join(struct.pack(f"<{len(places)}I", *places) for places in groups.values())
    body += b"".join(struct.pack("<I", one[0]) for one in sorted(ids))
    body += b"".join(struct.pack("<I", one[1]) for one in sorted(ids))
    return body + struct.pack("<I", crc32(body))


def tile_path(level: int, number: int, width: int = 256) -> str:
    """Where C2SP tlog-tiles puts a tile."""
    digits = f"{number:03d}".rjust(3 * -(-len(str(number)) // 3), "0")
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join(["x" + part for part in parts[:-1]] + parts[-1:])
    return f"tile/{level}/{path}" + (f".p/{width}" if width < 256 else "")


# -- a log --------------------------------------------------------------------------------------------------------


class Segment:
    """One segment while it is laid down."""

    def __init__(self, name: str, first_seq: int) -> None:
        self.name = name
        self.first_seq = first_seq
        self.lines: list[bytes] = []
        self.notes: list[str] = []
        self.sealed = self.indexed = False

    @property
    def content(self) -> bytes:
        """The raw bytes of its lines."""
        return b"".join(one + b"\n" for one in self.lines)

    @property
    def checkpoints(self) -> str:
        """The name of its checkpoints file."""
        return self.name.removesuffix(".log") + ".checkpoints"


class Log:
    """A log as a writer would have left it, record by record.

    Attributes:
        files: Everything that lies in its directory; filled by `finish`.
    """

    def __init__(
        self, *, signed: bool = True, log_id: str = LOG_ID, owner: str = "log", step_ns: int = MILLISECOND
    ) -> None:
        self.signed, self.log_id, self.owner, self.step_ns = signed, log_id, owner, step_ns
        self.now = START_NS
        self.synced = 0
        self.epoch = 0
        self.segments: list[Segment] = []
        self.leaves: list[bytes] = []
        self.lines: list[bytes] = []
        self.places: list[tuple[str, int]] = []
        self.files: Files = {}

    # What the writer does

    def segment(
        self, *, format_: int = 1, key_reason: str = "", key_number: int = 0, with_key: bool = True
    ) -> Segment:
        """Begin a segment: its SEGMENT record and, in a signed log, its KEY record and their checkpoint."""
        seconds = self.now // 10**9
        stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d_%H%M%S")
        first = len(self.lines) + 1
        segment = Segment(f"audit_{stamp}_{first:012d}.log", first)
        self.segments.append(segment)
        details = {
            "format": format_,
            "schema": 1,
            "log_id": self.log_id,
            "origin": "holdfast",
            "first_seq": first,
            "root": tree_root(self.leaves).hex(),
            "clock": "manual",
        }
        self.add("SEGMENT", details, component="journal")
        if self.signed and with_key:
            self.key_record(key_reason, key_number)
        return segment

    def key_record(self, reason: str = "", number: int = 0) -> None:
        """Begin an epoch: KEY, and the checkpoint signed by both keys."""
        previous, self.epoch = self.key, number or self.epoch + 1
        reason = reason or ("first" if previous is None else "rotation")
        current = key(self.epoch, self.log_id, self.owner)
        text = f"holdfast key v1\nholdfast\n{self.log_id}\n{self.epoch}\n{current.vkey}\n"
        by = previous if reason == "rotation" and previous is not None else current
        details = {"epoch": self.epoch, "vkey": current.vkey, "reason": reason, "note": note(text, by)}
        self.add("KEY", details, component="journal")
        self.checkpoint(*((current, previous) if by is previous and previous is not None else (current,)))

    @property
    def key(self) -> Key | None:
        """The key in force."""
        return key(self.epoch, self.log_id, self.owner) if self.epoch else None

    def add(
        self, type_: str, details: object, user: str = "", component: str = "", *, sync: bool = True
    ) -> int:
        """Append one record; its sequence."""
        seq = len(self.lines) + 1
        self.put(line(seq, self.synced, self.now, type_, user, component, details))
        self.now += self.step_ns
        if sync:
            self.synced = seq
        return seq

    def put(self, content: bytes) -> None:
        """Append a line as it is."""
        segment = self.segments[-1]
        self.places.append((segment.name, len(segment.content)))
        segment.lines.append(content)
        self.lines.append(content)
        self.leaves.append(sha256(b"\0" + content).digest())

    def notes(self, count: int, *, sync: bool = True) -> None:
        """*count* small records of people and orders."""
        for _ in range(count):
            n = len(self.lines) + 1
            if n % 3:
                self.add(
                    "NOTE", {"n": n, "text": "Überprüfung, 検証"}, ("ann", "bob")[n % 2], "desk", sync=sync
                )
            else:
                details = {"order_id": f"v-{n // 6}", "client_order_id": f"hf-{n}", "price": "0.5200"}
                details |= {"side": "yes", "order_type": "limit", "quantity": "10"}
                self.add("ORDER", details, "", "engine", sync=sync)

    def checkpoint(self, *signers: Key) -> None:
        """A checkpoint over everything, by the key in force unless told otherwise."""
        by = signers or ((self.key,) if self.key else ())
        self.segments[-1].notes.append(checkpoint_note(self.leaves, *by))

    def rotate(self) -> Segment:
        """Close the segment and begin the next one."""
        if self.signed and self.epoch:
            self.checkpoint()
        return self.segment()

    def seal(self, segment: Segment, *, member_lines: int = 4, index: bool = True) -> None:
        """Compress *segment* and say so in a SEALED record; with its index unless told otherwise."""
        members = [segment.lines[at : at + member_lines] for at in range(0, len(segment.lines), member_lines)]
        packed = [gzip_member(b"".join(one + b"\n" for one in member)) for member in members]
        content = b"".join(packed)
        details: dict[str, Any] = {
            "segment": segment.name,
            "first_seq": segment.first_seq,
            "last_seq": segment.first_seq + len(segment.lines) - 1,
            "raw_sha256": sha256(segment.content).hexdigest(),
            "raw_bytes": len(segment.content),
            "gzip_sha256": sha256(content).hexdigest(),
            "gzip_bytes": len(content),
            "members": len(members),
        }
        if index:
            table = index_bytes(segment.first_seq, segment.lines, members, packed)
            details |= {"index_sha256": sha256(table).hexdigest(), "index_bytes": len(table)}
            self.files[segment.name.removesuffix(".log") + ".idx"] = table
        self.add("SEALED", details, component="journal")
        self.files[segment.name + ".gz"] = content
        segment.sealed = True

    def tiles(self) -> None:
        """Every full tile and the partial ones of the size now."""
        hashes, level = self.leaves, 0
        while hashes:
            for at in range(0, len(hashes), 256):
                part = hashes[at : at + 256]
                self.files[tile_path(level, at // 256, len(part))] = b"".join(part)
            hashes = [tree_root(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
            level += 1

    def close(self) -> Files:
        """End as a writer does."""
        if self.signed and self.epoch:
            self.checkpoint()
            self.tiles()
        return self.finish(CLOSED)

    def finish(self, state: int = OPEN, *, head_at: int = 0, filler: int = 0, behind: int = 0) -> Files:
        """Lay the files down with the head at sequence *head_at* (the last one by default).

        Args:
            state: What the head says.
            head_at: Its sequence.
            filler: Newlines behind the last line, and behind the last checkpoint.
            behind: By how many notes `checkpoint` is older than the history.
        """
        history: list[str] = []
        for segment in self.segments:
            last = segment is self.segments[-1]
            if not segment.sealed:
                self.files[segment.name] = segment.content + FILLER * (filler if last else 0)
            if segment.notes:
                written = "".join(one + "\n" for one in segment.notes).encode()
                self.files[segment.checkpoints] = written + FILLER * (filler if last else 0)
            history += segment.notes
        if history:
            self.files["checkpoint"] = history[-1 - behind].encode()
        sequence = head_at or len(self.lines)
        name, offset = self.places[sequence - 1]
        end = offset + len(self.lines[sequence - 1]) + 1
        self.files["head"] = head_page(
            head_slot(1, sequence, end, OPEN, name), head_slot(2, sequence, end, state, name)
        )
        return self.files

    # What a scenario asks

    def vkey(self, epoch: int) -> str:
        """The public key of *epoch*."""
        return key(epoch, self.log_id, self.owner).vkey

    def file_of(self, seq: int) -> str:
        """The raw segment that holds record *seq*."""
        return self.places[seq - 1][0]

    def offset_of(self, seq: int) -> int:
        """Where record *seq* begins in it."""
        return self.places[seq - 1][1]


# -- what a verifier must say -------------------------------------------------------------------------------------


class Check(NamedTuple):
    """What a verifier must say about a log, given these keys and anchors.

    Attributes:
        exit: Its exit code.
        keys: Verifier keys it is given.
        anchors: Names of files under `anchors/` it is given.
        verdict: Fields of its JSON report; those not named are null, 0 or false.
    """

    exit: int
    keys: list[str]
    anchors: list[str]
    verdict: dict[str, Any]


class Vector(NamedTuple):
    """A log and everything that must be said about it.

    Attributes:
        about: What happened to it, in a sentence.
        files: Its directory.
        checks: Each with other keys or anchors.
        anchors: Checkpoints that somebody kept.
    """

    about: str
    files: Files
    checks: list[Check]
    anchors: Mapping[str, bytes] = {}


def intact(total: int, *, keys: Sequence[str] = (), anchors: Sequence[str] = (), **ranges: Any) -> Check:
    """Nothing is wrong."""
    verdict = {"integrity_ok": True, "total_entries": total} | ranges
    return Check(0, list(keys), list(anchors), verdict)


def damaged(
    file: str,
    offset: int,
    sequence: int | None = None,
    *,
    keys: Sequence[str] = (),
    anchors: Sequence[str] = (),
    **ranges: Any,
) -> Check:
    """The first bad thing is there."""
    bad = {"first_bad_sequence": sequence, "first_bad_file": file, "first_bad_offset": offset}
    return Check(3, list(keys), list(anchors), {"integrity_ok": False} | bad | ranges)


def flip(files: Files, name: str, offset: int, bit: int = 0x01) -> None:
    """Change one bit."""
    content = bytearray(files[name])
    content[offset] ^= bit
    files[name] = bytes(content)


def splice(files: Files, name: str, offset: int, remove: int, insert: bytes = b"") -> None:
    """Replace *remove* bytes at *offset*."""
    content = files[name]
    files[name] = content[:offset] + insert + content[offset + remove :]


def renamed(files: Files, old: str, new: str) -> Files:
    """*files* with one of them under another name."""
    return {new if name == old else name: content for name, content in files.items()}


# -- the logs -----------------------------------------------------------------------------------------------------

VECTORS: dict[str, Callable[[], Vector]] = {}


def vector(make: Callable[[], Vector]) -> Callable[[], Vector]:
    """List the vector that *make* makes, under its function's name with hyphens."""
    VECTORS[make.__name__.replace("_", "-")] = make
    return make


def page_log() -> Log:
    """The log whose parts docs/journal-format.md shows: two epochs, the first one sealed."""
    log = Log()
    log.now -= 6 * log.step_ns
    first = log.segment()
    log.add("CONFIG", {"paths.audit": "logs/audit"}, component="cli")
    log.add("NOTE", {"text": "Überprüfung, 検証"}, "ann", "desk")
    log.add(
        "ORDER",
        {"order_id": "v-1", "client_order_id": "hf-1", "side": "yes", "price": "0.5200"},
        "",
        "engine",
    )
    log.add("NOTE", {"text": "not synced yet"}, "ann", "desk", sync=False)
    log.add("STATE", {"from": "ACTIVE", "to": "HALTED", "reason": "test", "who": "ops"}, "ops", "gate")
    log.rotate()
    log.seal(first)
    log.notes(3)
    return log


def three_epochs() -> Log:
    """Three segments, three epochs, the first one sealed; 18 records."""
    log = Log()
    first = log.segment()
    log.notes(4)
    log.rotate()
    log.seal(first, member_lines=3)
    log.notes(3)
    log.rotate()
    log.notes(4)
    return log


def open_log(*, unsynced: int = 2) -> Log:
    """A log that its writer still has, or left by a crash; the head covers record 7."""
    log = Log()
    log.segment()
    log.notes(5)
    log.checkpoint()
    log.notes(unsynced, sync=False) if unsynced else None
    return log


@vector
def page() -> Vector:
    log = page_log()
    log.close()
    key1, key2 = log.vkey(1), log.vkey(2)
    kept = log.segments[0].notes[-1].encode()
    whole = log.segments[1].notes[-1].encode()
    checks = [
        intact(13, unknown_key_to=13),
        intact(13, keys=[key1], signed_to=13),
        intact(13, keys=[key2], signed_to=13),
        intact(13, keys=[key1], anchors=["kept"], signed_to=13, anchored_to=7),
        intact(13, anchors=["kept", "whole"], unknown_key_to=13, anchored_to=13),
        damaged(log.segments[0].name + ".gz", 0, 2, keys=[key(3).vkey], unknown_key_to=13),
        Check(1, [], ["of-another-log"], {}),
    ]
    other = Log(log_id="ff" * 16)
    other.segment()
    anchors = {"kept": kept, "whole": whole, "of-another-log": other.segments[0].notes[0].encode()}
    return Vector("a closed log of two epochs, the first one sealed", log.files, checks, anchors)


@vector
def old_unsigned() -> Vector:
    log = Log(signed=False)
    first = log.segment()
    log.notes(4)
    log.rotate()
    log.seal(first, index=False)
    log.notes(3)
    checks = [intact(10), damaged(first.name + ".gz", 0, 1, keys=[log.vkey(1)])]
    return Vector("a log from before signatures and indexes", log.close(), checks)


@vector
def signed_late() -> Vector:
    log = Log(signed=False)
    log.segment()
    log.notes(4)
    log.signed = True
    log.rotate()
    log.notes(2)
    checks = [intact(9, unknown_key_to=9), intact(9, keys=[log.vkey(1)], signed_to=9)]
    return Vector("an old log that became a signed one with its second segment", log.close(), checks)


@vector
def key_replaced() -> Vector:
    log = Log()
    log.segment()
    log.notes(2)
    log.segment(key_reason="replacement")
    log.notes(2)
    second, at = log.segments[1], log.offset_of(6)
    checks = [
        intact(8, unknown_key_to=8),
        damaged(second.name, at, 6, keys=[log.vkey(1)], signed_to=2, unknown_key_to=8),
        intact(8, keys=[log.vkey(1), log.vkey(2)], signed_to=8),
        intact(8, keys=[log.vkey(2)], signed_to=8),
    ]
    return Vector("the first key was lost, the second one vouches for itself", log.close(), checks)


@vector
def full_tile() -> Vector:
    log = Log()
    first = log.segment()
    for n in range(255):
        log.add("TICK", {"n": n})
    log.rotate()
    log.seal(first, member_lines=64)
    log.add("TICK", {"n": 255})
    checks = [intact(261, keys=[log.vkey(1)], signed_to=261)]
    return Vector("261 records: a full tile, partial ones of two levels", log.close(), checks)


@vector
def three_epochs_one_sealed() -> Vector:
    log = three_epochs()
    checks = [intact(18, keys=[log.vkey(1)], signed_to=18), intact(18, keys=[log.vkey(3)], signed_to=18)]
    return Vector("a closed log of three epochs, the first segment sealed", log.close(), checks)


@vector
def broken_tile() -> Vector:
    log = three_epochs()
    files = log.close()
    flip(files, "tile/0/000.p/18", 32 * 6 + 3)
    checks = [damaged("tile/0/000.p/18", 32 * 6, 7, keys=[log.vkey(1)], signed_to=18)]
    return Vector("one bit of a tile differs: either the tile or record 7 was changed", files, checks)


@vector
def written_by_a_later_version() -> Vector:
    log = Log()
    log.segment()
    body = (
        line(3, 2, log.now, "HOLOGRAM", "ann", "desk", {"depth": [1.5, None, True]})[18:-1] + b',"later":{}}'
    )
    log.put(b'{"crc":"%08x",%b' % (crc32(body), body))
    log.synced = 3
    log.add("NOTE", {"text": "known"}, "ann", "desk")
    return Vector(
        "a record type that no reader knows", log.close(), [intact(4, keys=[log.vkey(1)], signed_to=4)]
    )


@vector
def clock_set_back() -> Vector:
    log = Log()
    log.segment()
    log.notes(2)
    before, log.now = log.now, log.now - 3600 * 10**9
    step = {"before_ns": before, "after_ns": log.now, "step_ns": -3600 * 10**9}
    log.add("CLOCK_STEP", step, component="journal")
    log.notes(2)
    return Vector("the clock went back an hour", log.close(), [intact(7, keys=[log.vkey(1)], signed_to=7)])


@vector
def being_written() -> Vector:
    log = open_log(unsynced=0)
    log.notes(2)
    files = log.finish(OPEN, filler=600)
    checks = [
        intact(9, keys=[log.vkey(1)], signed_to=7),
        intact(9, unknown_key_to=7),
    ]
    return Vector(
        "a log that its writer still has: filler, and records that no checkpoint covers", files, checks
    )


@vector
def nothing_yet() -> Vector:
    return Vector("a log that was opened, and nothing more", {"head": bytes(4096)}, [intact(0)])


@vector
def only_segment_records() -> Vector:
    log = Log()
    log.segment()
    log.notes(2)
    log.checkpoint()
    log.segment(with_key=False)
    files = log.finish(OPEN, filler=300)
    checks = [intact(5, keys=[log.vkey(1)], signed_to=4)]
    return Vector("a crash between the SEGMENT and the KEY of the second segment", files, checks)


@vector
def recovered() -> Vector:
    log = open_log(unsynced=1)
    torn = log.segments[0].lines.pop()[:70]
    log.lines.pop()
    log.leaves.pop()
    name, offset = log.places.pop()
    copy = f"{name}-{offset}-{sha256(torn).hexdigest()[:16]}"
    details = {"first_lost": 8, "known_durable": 7, "file": name, "offset": offset, "tail_bytes": len(torn)}
    log.add("RECOVERY", details | {"quarantine": [copy], "head": "open"}, component="journal")
    log.notes(2)
    log.files[f"quarantine/{copy}"] = torn
    files = log.close()
    return Vector("a torn tail was cut away and kept", files, [intact(10, keys=[log.vkey(1)], signed_to=10)])


@vector
def recovered_copy_changed() -> Vector:
    files = dict(recovered().files)
    name = next(name for name in files if name.startswith("quarantine/"))
    flip(files, name, 12)
    return Vector("the copy of a torn tail was changed", files, [damaged(name, 0, unknown_key_to=10)])


@vector
def pruned() -> Vector:
    log = Log()
    first = log.segment()
    for n in range(250):
        log.add("TICK", {"n": n})
    log.rotate()
    log.seal(first, member_lines=64)
    seal = json.loads(log.lines[-1])["details"]
    log.notes(2)
    peaks, start = list[str](), 0
    for height in range(8, -1, -1):
        if 252 >> height & 1:
            peaks.append(tree_root(log.leaves[start : start + (1 << height)]).hex())
            start += 1 << height
    names = ("segment", "first_seq", "last_seq", "raw_sha256", "raw_bytes", "gzip_sha256", "gzip_bytes")
    details = {name: seal[name] for name in (*names, "index_sha256")} | {"archive": "s3://bucket/logs"}
    details |= {"peaks": peaks, "key": json.loads(log.lines[1])["details"], "quarantine": []}
    log.add("PRUNED", details, component="journal")
    files = log.close()
    stem = first.name.removesuffix(".log")
    del files[f"{stem}.log.gz"], files[f"{stem}.idx"]
    files[f"{stem}.pruned"] = compact(details) + b"\n"
    checks = [intact(6, keys=[log.vkey(1)], signed_to=258, archived_to=252)]
    return Vector("the first segment was moved to the archive", files, checks)


@vector
def pruned_without_its_tile() -> Vector:
    files = dict(pruned().files)
    del files["tile/0/000"]
    checks = [damaged("tile/0/000", 0, keys=[key(1).vkey], signed_to=258, archived_to=252)]
    return Vector("the leaf hashes of what was pruned are gone", files, checks)


@vector
def poisoned() -> Vector:
    log = open_log(unsynced=0)
    words = b'"n":1,"ts":%d,"type":"NOTE","user":"","component":"gate","details":{"exit":true}}' % log.now
    log.files["run/reserve"] = b'{"crc":"%08x",%b\n' % (crc32(words), words) + FILLER * 200
    log.files["run/pid"] = b"4711\n"
    files = log.finish(POISONED, filler=100)
    checks = [intact(7, keys=[log.vkey(1)], signed_to=7)]
    return Vector("a sync failed; the last words stand in the reserve", files, checks)


# What a crash leaves


def needs_recovery(total: int, *, keys: Sequence[str] = (), **ranges: Any) -> Check:
    """A torn tail, or a torn checkpoint, that the next start repairs."""
    return intact(total, keys=keys, needs_recovery=True, **ranges)


@vector
def torn_line() -> Vector:
    log = open_log()
    files = log.finish(OPEN, head_at=7)
    name, at = log.file_of(9), log.offset_of(9)
    files[name] = files[name][: at + 60] + FILLER * 500
    return Vector("the last line is torn", files, [needs_recovery(8, keys=[log.vkey(1)], signed_to=7)])


@vector
def torn_in_the_middle() -> Vector:
    log = open_log(unsynced=3)
    files = log.finish(OPEN, head_at=7, filler=300)
    splice(files, log.file_of(9), log.offset_of(9) + 40, 64, bytes(64))
    checks = [needs_recovery(8, keys=[log.vkey(1)], signed_to=7)]
    return Vector("of three lines that were not synced the second one did not reach the disk", files, checks)


@vector
def not_synced() -> Vector:
    log = open_log()
    files = log.finish(OPEN, head_at=7, filler=300)
    checks = [needs_recovery(9, keys=[log.vkey(1)], signed_to=7)]
    return Vector("whole lines that nobody knows to be durable", files, checks)


@vector
def torn_checkpoint() -> Vector:
    log = open_log(unsynced=0)
    log.notes(2)
    log.checkpoint()
    files = log.finish(OPEN, filler=400, behind=1)
    name = log.segments[0].checkpoints
    at = files[name].rstrip(FILLER).rfind(b"\n\nholdfast/") + 2
    files[name] = files[name][: at + 100] + FILLER * 400
    return Vector("the last checkpoint is torn", files, [needs_recovery(9, keys=[log.vkey(1)], signed_to=7)])


# Damage by accident


@vector
def bit_flip_in_a_line() -> Vector:
    log = page_log()
    files = log.close()
    flip(files, log.file_of(12), log.offset_of(12) + 90)
    where = (log.file_of(12), log.offset_of(12), 12)
    checks = [damaged(*where, keys=[log.vkey(1)], signed_to=9), damaged(*where, unknown_key_to=9)]
    return Vector("one bit of record 12 differs", files, checks)


@vector
def bit_flip_in_the_last_acknowledged_line() -> Vector:
    log = open_log(unsynced=0)
    files = log.finish(OPEN, filler=300)
    flip(files, log.file_of(7), log.offset_of(7) + 30)
    checks = [damaged(log.file_of(7), log.offset_of(7), 7, keys=[log.vkey(1)], signed_to=2)]
    return Vector("the last line the head covers is damaged: no torn tail", files, checks)


@vector
def bit_flip_in_a_sealed_segment() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[0].name + ".gz"
    flip(files, name, files[name].index(b'"seq":3') + 60)
    checks = [damaged(name, 0, 3, keys=[log.vkey(1)], signed_to=2)]
    return Vector("one bit of a compressed record differs", files, checks)


@vector
def bit_flip_in_a_gzip_header() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[0].name + ".gz"
    flip(files, name, 9)
    checks = [damaged(name, 0, keys=[log.vkey(1)], signed_to=13)]
    return Vector("one bit of a gzip header differs, which costs no record", files, checks)


@vector
def bit_flip_in_the_head() -> Vector:
    log = page_log()
    files = log.close()
    flip(files, "head", 17)
    return Vector(
        "the slot in force is damaged", files, [damaged("head", 0, keys=[log.vkey(1)], signed_to=13)]
    )


@vector
def bit_flip_in_the_history() -> Vector:
    log = open_log(unsynced=0)
    log.notes(2)
    files = log.close()
    name = log.segments[0].checkpoints
    at = files[name].index(b"\n\nholdfast/") + 2
    flip(files, name, at + 45)
    checks = [damaged(name, at, keys=[log.vkey(1)], signed_to=9)]
    return Vector("one bit of the second checkpoint differs", files, checks)


@vector
def bit_flip_in_the_newest_checkpoint() -> Vector:
    log = page_log()
    files = log.close()
    flip(files, "checkpoint", 60)
    return Vector("`checkpoint` differs", files, [damaged("checkpoint", 0, keys=[log.vkey(1)], signed_to=13)])


@vector
def spare_bits_in_base64() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[1].checkpoints
    at = files[name].rindex(b"=\n") - 1
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    splice(files, name, at, 1, bytes([digits[digits.index(files[name][at]) ^ 1]]))
    start = files[name].rindex(b"\n\nholdfast/") + 2
    about = "a signature is spelt with spare bits: other base64 for the same bytes"
    return Vector(about, files, [damaged(name, start, unknown_key_to=9)])


@vector
def checkpoint_of_another_moment() -> Vector:
    log = open_log(unsynced=0)
    files = log.finish(OPEN, filler=100)
    files["checkpoint"] = checkpoint_note(log.leaves[:5], key(1)).encode()
    about = "`checkpoint` is signed and true, and not one of the history"
    return Vector(about, files, [damaged("checkpoint", 0, keys=[log.vkey(1)], signed_to=7)])


@vector
def filler_behind_the_history_of_a_closed_log() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[1].checkpoints
    at = len(files[name])
    files[name] += FILLER * 9
    return Vector(
        "newlines behind the checkpoints of a closed log", files, [damaged(name, at, unknown_key_to=13)]
    )


@vector
def head_with_another_end() -> Vector:
    log = page_log()
    files, last = log.close(), log.file_of(13)
    files["head"] = head_page(head_slot(1, 13, 1000, OPEN, last), head_slot(2, 13, 1000, CLOSED, last))
    checks = [damaged(last, len(files[last]), 13, unknown_key_to=13)]
    return Vector("the head names an offset where no line ends", files, checks)


@vector
def head_without_its_older_slot() -> Vector:
    log = page_log()
    files = log.close()
    splice(files, "head", 512, 104, bytes(104))
    return Vector(
        "a closed log's head lacks the write before the last",
        files,
        [damaged("head", 512, unknown_key_to=13)],
    )


@vector
def synced_beyond_itself() -> Vector:
    log = chapters((1, 2, 3), signed=False)
    at = log.offset_of(4)
    files = log.close()
    forged = line(4, 4, json.loads(log.lines[3])["ts"], "NOTE", "ann", "desk", {"n": 3})
    splice(files, log.file_of(4), at, len(log.lines[3]), forged)
    return Vector(
        "a line says that it was synced before it was written", files, [damaged(log.file_of(4), at, 4)]
    )


@vector
def edited_line_without_new_crc() -> Vector:
    log = chapters((1, 2, 3), (4, 5), signed=False)
    files, at = log.close(), log.offset_of(3)
    splice(files, log.file_of(3), at + log.lines[2].index(b'"n":2') + 4, 1, b"7")
    return Vector("a digit was changed", files, [damaged(log.file_of(3), at, 3)])


@vector
def edited_line_and_old_root() -> Vector:
    log = chapters((1, 2, 3), (4, 5), signed=False)
    files, at = log.close(), log.offset_of(3)
    body = log.lines[2][18:].replace(b'"n":2', b'"n":7')
    splice(files, log.file_of(3), at, len(log.lines[2]), b'{"crc":"%08x",%b' % (crc32(body), body))
    about = "an unsigned record was edited with its CRC, but not the root that the next segment says"
    return Vector(about, files, [damaged(log.segments[1].name, 0, 5)])


@vector
def pruned_and_marked_otherwise() -> Vector:
    files = dict(pruned().files)
    name = next(name for name in files if name.endswith(".pruned"))
    files[name] = files[name].replace(b"s3://bucket/", b"s3://burned/")
    checks = [damaged(name, 0, keys=[key(1).vkey], signed_to=258, archived_to=252)]
    return Vector("a marker says what no PRUNED record says", files, checks)


@vector
def pruned_with_a_wrong_tile() -> Vector:
    files = dict(pruned().files)
    flip(files, "tile/0/000", 33)
    checks = [damaged("tile", 0, keys=[key(1).vkey], signed_to=258, archived_to=252)]
    return Vector("a leaf hash of what was pruned differs", files, checks)


@vector
def bit_flip_in_an_index() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[0].name.replace(".log", ".idx")
    flip(files, name, 70)
    return Vector("one bit of an index differs", files, [damaged(name, 70, keys=[log.vkey(1)], signed_to=13)])


@vector
def index_missing() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[0].name.replace(".log", ".idx")
    del files[name]
    return Vector("an index is missing", files, [damaged(name, 0, unknown_key_to=13)])


@vector
def head_missing() -> Vector:
    log = page_log()
    files = log.close()
    del files["head"]
    return Vector("the head is missing", files, [damaged("head", 0, keys=[log.vkey(1)], signed_to=13)])


@vector
def segment_missing() -> Vector:
    log = three_epochs()
    files = log.close()
    del files[log.segments[1].name]
    first = log.segments[1].first_seq
    checks = [damaged(log.segments[2].name, 0, first, keys=[log.vkey(1)], signed_to=first - 1)]
    return Vector("the second segment is missing", files, checks)


@vector
def truncated() -> Vector:
    log = three_epochs()
    files = log.close()
    name, at = log.file_of(17), log.offset_of(17)
    files[name] = files[name][:at]
    checks = [damaged(name, at, 17, keys=[log.vkey(1)], signed_to=14)]
    return Vector("the last two lines are gone", files, checks)


@vector
def filler_on_a_closed_log() -> Vector:
    log = page_log()
    files = log.close()
    name = log.segments[1].name
    at = len(files[name])
    files[name] += FILLER * 9
    return Vector("newlines behind a closed log", files, [damaged(name, at, unknown_key_to=13)])


@vector
def foreign_file() -> Vector:
    log = page_log()
    files = log.close() | {"notes.txt": b"not ours\n"}
    return Vector("a file that does not belong there", files, [damaged("notes.txt", 0, unknown_key_to=13)])


@vector
def stray_temporary_file() -> Vector:
    log = page_log()
    files = log.close() | {log.segments[1].name + ".gz.tmp": b""}
    checks = [damaged(log.segments[1].name + ".gz.tmp", 0, unknown_key_to=13)]
    return Vector("a temporary file on a closed log", files, checks)


@vector
def two_forms_that_differ() -> Vector:
    log = page_log()
    raw = log.segments[0].content
    files = log.finish(OPEN, filler=50) | {log.segments[0].name: raw}
    name = log.segments[0].name + ".gz"
    flip(files, name, 200)
    checks = [damaged(name, 0, keys=[log.vkey(1)], signed_to=9)]
    return Vector("a segment stands there raw and compressed, and the two differ", files, checks)


@vector
def no_checkpoint_for_too_long() -> Vector:
    log = open_log(unsynced=0)
    log.notes(1)
    log.now += 3 * 10**9
    log.notes(1)
    checks = [damaged(log.file_of(8), log.offset_of(8), 8, keys=[log.vkey(1)], signed_to=7)]
    return Vector("a synced record three seconds old without a checkpoint", log.finish(OPEN), checks)


@vector
def newer_format() -> Vector:
    log = Log()
    log.segment()
    log.notes(2)
    log.checkpoint()
    log.segment(format_=2)
    log.notes(2)
    return Vector("its second segment has format 2", log.close(), [Check(1, [], [], {})])


# Damage on purpose: the attacker recomputes whatever needs no key


def chapters(*parts: Sequence[int], signed: bool = True, owner: str = "log") -> Log:
    """A log of one segment for each part, with one record for each number.

    Of ((1, 2, 3), (4, 5, 6), (7, 8, 9)) the records are 3 to 5, 8 to 10 and 13 to 15, the KEY records 2, 7 and
    12, and the checkpoints have sizes 2, 5, 7, 10, 12 and 15.
    """
    log = Log(signed=signed, owner=owner)
    for part in parts:
        if log.segments:
            log.rotate()
        else:
            log.segment()
        for n in part:
            log.add("NOTE", {"n": n}, "ann", "desk")
    return log


def genuine() -> Log:
    """The log that the attacks below are made on."""
    log = chapters((1, 2, 3), (4, 5, 6), (7, 8, 9))
    log.close()
    return log


@vector
def three_chapters() -> Vector:
    log = genuine()
    checks = [
        intact(15, keys=[log.vkey(1)], signed_to=15),
        intact(15, keys=[log.vkey(1)], anchors=["kept"], signed_to=15, anchored_to=15),
    ]
    return Vector("a closed log of three epochs; the attacks below are made on it", log.files, checks, kept())


def without_the_keys(forged: Log) -> Files:
    """*forged* as it looks when its maker had no key: the signed notes are those of the genuine log."""
    real = genuine()
    files = dict(forged.close())
    files["checkpoint"] = real.files["checkpoint"]
    for here, there in zip(forged.segments, real.segments, strict=True):
        files[here.checkpoints] = real.files[there.checkpoints]
    return files


def second_note_of(files: Files, segment: Segment) -> int:
    """Where the second checkpoint of a segment begins."""
    return files[segment.checkpoints].index(b"\n\nholdfast/") + 2


def kept() -> Mapping[str, bytes]:
    """The genuine log's last checkpoint, kept elsewhere."""
    return {"kept": genuine().files["checkpoint"]}


@vector
def edited_line_with_new_crc() -> Vector:
    log = genuine()
    files, second = log.files, log.segments[1]
    body = log.lines[8][18:].replace(b'"n":5', b'"n":6')
    splice(files, second.name, log.offset_of(9), len(log.lines[8]), b'{"crc":"%08x",%b' % (crc32(body), body))
    where = (second.checkpoints, second_note_of(files, second), 8)
    return Vector(
        "record 9 was edited, its CRC made anew", files, [damaged(*where, keys=[log.vkey(1)], signed_to=7)]
    )


@vector
def edited_and_all_recomputed() -> Vector:
    forged = chapters((1, 2, 3), (4, 55, 6), (7, 8, 9))
    files, second = without_the_keys(forged), forged.segments[1]
    where = (second.checkpoints, second_note_of(files, second), 8)
    checks = [damaged(*where, keys=[forged.vkey(1)], signed_to=7), damaged(*where, unknown_key_to=7)]
    return Vector("record 9 was edited, everything that needs no key made anew", files, checks)


@vector
def deleted() -> Vector:
    log = genuine()
    files = log.files
    splice(files, log.file_of(9), log.offset_of(9), len(log.lines[8]) + 1)
    checks = [damaged(log.file_of(9), log.offset_of(9), 9, keys=[log.vkey(1)], signed_to=7)]
    return Vector("record 9 was cut out", files, checks)


@vector
def deleted_and_renumbered() -> Vector:
    forged = chapters((1, 2, 3), (4, 6), (7, 8, 9))
    checks = [damaged(forged.segments[2].checkpoints, 0, 8, keys=[forged.vkey(1)], signed_to=7)]
    return Vector("record 9 was cut out, the rest renumbered", without_the_keys(forged), checks)


@vector
def inserted_and_renumbered() -> Vector:
    forged = chapters((1, 2, 3), (4, 44, 5, 6), (7, 8, 9))
    files, second = without_the_keys(forged), forged.segments[1]
    checks = [
        damaged(second.checkpoints, second_note_of(files, second), 8, keys=[forged.vkey(1)], signed_to=7)
    ]
    return Vector("a record was slipped in behind record 8, the rest renumbered", files, checks)


@vector
def swapped_and_renumbered() -> Vector:
    forged = chapters((1, 2, 3), (5, 4, 6), (7, 8, 9))
    files, second = without_the_keys(forged), forged.segments[1]
    checks = [
        damaged(second.checkpoints, second_note_of(files, second), 8, keys=[forged.vkey(1)], signed_to=7)
    ]
    return Vector("records 8 and 9 changed places", files, checks)


@vector
def swapped_segment() -> Vector:
    forged = chapters((1, 2, 3), (40, 50, 60), (7, 8, 9))
    files, second = without_the_keys(forged), forged.segments[1]
    checks = [
        damaged(second.checkpoints, second_note_of(files, second), 8, keys=[forged.vkey(1)], signed_to=7)
    ]
    return Vector("the second segment was replaced by another one", files, checks)


@vector
def cut_back_naively() -> Vector:
    log = genuine()
    files, third = log.files, log.segments[2]
    shorter = chapters((1, 2, 3), (4, 5, 6), (7, 8))
    files |= {one: shorter.close()[one] for one in (third.name, "head")}
    checks = [damaged(third.checkpoints, second_note_of(files, third), 15, unknown_key_to=12)]
    return Vector("the last record and its mark in the head are gone", files, checks)


@vector
def cut_back_to_a_checkpoint() -> Vector:
    shorter = chapters((1, 2, 3), (4, 5, 6))
    files, key1 = shorter.close(), [shorter.vkey(1)]
    checks = [
        intact(10, keys=key1, signed_to=10),
        damaged("anchors/kept", 0, 11, keys=key1, anchors=["kept"], signed_to=10),
    ]
    about = "cut back to an orderly end with all its files: only an anchor shows it"
    return Vector(about, files, checks, kept())


@vector
def rolled_back() -> Vector:
    earlier = chapters((1, 2, 3), (4, 5, 6), (7,))
    files = earlier.finish(OPEN, filler=100)
    checks = [
        intact(13, keys=[earlier.vkey(1)], signed_to=12),
        damaged("anchors/kept", 0, 14, anchors=["kept"], unknown_key_to=12),
    ]
    return Vector("an old copy of the whole directory was put back", files, checks, kept())


@vector
def stripped_of_checkpoints() -> Vector:
    log = genuine()
    files = {name: content for name, content in log.files.items() if "checkpoint" not in name}
    checks = [damaged(log.segments[0].checkpoints, 0, keys=[log.vkey(1)])]
    return Vector("all checkpoints are gone", files, checks)


@vector
def stripped_of_signatures() -> Vector:
    forged = chapters((1, 2, 3), (4, 5, 6), (7, 8, 9), signed=False)
    key1 = key(1).vkey
    checks = [intact(12), damaged(forged.segments[0].name, 0, 1, keys=[key1])]
    return Vector("written anew as a log that never was signed", forged.close(), checks)


@vector
def unsigned_and_rewritten() -> Vector:
    real = chapters((1, 2, 3), signed=False)
    real.close()
    note_kept = checkpoint_note(real.leaves, key(1)).encode()
    forged = chapters((1, 20, 3), signed=False)
    checks = [intact(4), damaged("anchors/kept", 0, 1, anchors=["kept"])]
    return Vector("an unsigned log was written anew", forged.close(), checks, {"kept": note_kept})


@vector
def epoch_without_key() -> Vector:
    log = Log()
    log.segment()
    log.notes(2)
    log.checkpoint()
    second = log.segment(with_key=False)
    log.notes(2)
    files = log.close()
    checks = [damaged(second.name, log.offset_of(6), 6, keys=[log.vkey(1)], signed_to=7)]
    return Vector("the second segment has no KEY record", files, checks)


@vector
def epoch_skipped() -> Vector:
    log = Log()
    log.segment()
    log.notes(2)
    log.checkpoint()
    second = log.segment(key_number=3)
    log.notes(2)
    checks = [damaged(second.name, log.offset_of(6), 6, keys=[log.vkey(1)], signed_to=4, unknown_key_to=8)]
    return Vector("epoch 3 follows epoch 1", log.close(), checks)


@vector
def thief_of_the_key_rewrites_the_past() -> Vector:
    forged = chapters((1, 2, 3), (4, 55, 6), (7, 8, 9))
    files, real = forged.close(), genuine()
    second, third = forged.segments[1], forged.segments[2]
    files[second.checkpoints] = real.files[second.checkpoints]
    borrowed = real.segments[2].notes[0].splitlines(keepends=True)[-1]
    lines = third.notes[0].splitlines(keepends=True)
    files[third.checkpoints] = "".join([*lines[:-1], borrowed, "\n", third.notes[1], "\n"]).encode()
    where = (second.checkpoints, second_note_of(files, second), 8)
    checks = [damaged(*where, keys=[forged.vkey(1)], signed_to=15)]
    return Vector("the present key was stolen, and record 9, of an epoch before, edited", files, checks)


@vector
def thief_of_the_key_rewrites_the_present() -> Vector:
    forged = chapters((1, 2, 3), (4, 5, 6), (7, 88, 9))
    checks = [
        intact(15, keys=[forged.vkey(1)], signed_to=15),
        damaged("anchors/kept", 0, 13, keys=[forged.vkey(1)], anchors=["kept"], signed_to=15),
    ]
    about = "the present key was stolen, and record 14 edited: only an anchor shows it"
    return Vector(about, forged.close(), checks, kept())


@vector
def forged_with_other_keys() -> Vector:
    forged = chapters((1, 2, 3), (4, 5, 6), (7, 8, 10), owner="mallory")
    checks = [
        intact(15, unknown_key_to=15),
        damaged(forged.file_of(2), forged.offset_of(2), 2, keys=[key(1).vkey], unknown_key_to=15),
    ]
    return Vector("the whole log was written anew with keys of somebody else", forged.close(), checks)


@vector
def chain_broken_by_other_keys() -> Vector:
    log = Log()
    log.segment()
    log.notes(3)
    log.checkpoint()
    log.owner = "mallory"
    second = log.segment(key_reason="replacement")
    log.notes(3)
    checks = [
        intact(10, unknown_key_to=10),
        damaged(second.name, log.offset_of(7), 7, keys=[key(1).vkey], signed_to=5, unknown_key_to=10),
    ]
    return Vector("behind the first epoch somebody goes on with a key of his own", log.close(), checks)


@vector
def seal_that_lies() -> Vector:
    log = Log()
    first = log.segment()
    log.notes(3)
    log.rotate()
    log.seal(first)
    name = first.name + ".gz"
    log.files[name] = b"".join(gzip_member(one + b"\n") for one in first.lines)
    del log.files[first.name.replace(".log", ".idx")]
    checks = [damaged(name, 0, unknown_key_to=8)]
    return Vector("another compressed file with the same records", log.close(), checks)


# -- writing them down --------------------------------------------------------------------------------------------

MAX_EDIT_BYTES = 2500


def edits_between(base: Files, files: Files) -> dict[str, Any]:
    """What makes *files* out of *base*: per file null where it goes, else [offset, bytes removed, base64 put in]."""
    edits: dict[str, Any] = {}
    for name in sorted(base.keys() | files.keys()):
        old, new = base.get(name, b""), files.get(name)
        if new is None:
            edits[name] = None
        elif old != new or name not in base:
            shorter = min(len(old), len(new))
            start = next((at for at in range(shorter) if old[at] != new[at]), shorter)
            end = next((at for at in range(shorter - start) if old[-1 - at] != new[-1 - at]), shorter - start)
            put_in = base64.b64encode(new[start : len(new) - end]).decode()
            edits[name] = [start, len(old) - end - start, put_in]
    return edits


def apply_edits(base: Files, edits: Mapping[str, Any]) -> Files:
    """*base* with *edits*; what a reader of verdicts.json does."""
    files = dict(base)
    for name, edit in edits.items():
        if edit is None:
            del files[name]
        else:
            offset, removed, put_in = edit
            files.setdefault(name, b"")
            splice(files, name, offset, removed, base64.b64decode(put_in))
    return files


def everything() -> Files:
    """Every file of this folder that this script makes.

    A log that differs little from one that lies under `logs/` is told in verdicts.json by what differs.
    """
    files: Files = {}
    verdicts: dict[str, Any] = {}
    plain: dict[str, Files] = {}
    for name, make in VECTORS.items():
        made = make()
        about: dict[str, Any] = {"about": made.about}
        differences: list[tuple[str, dict[str, Any]]] = [
            (base, edits_between(plain[base], made.files)) for base in plain
        ]
        base, edits = min(differences, key=lambda one: len(compact(one[1])), default=(name, None))
        if edits is not None and len(compact(edits)) <= MAX_EDIT_BYTES:
            assert apply_edits(plain[base], edits) == made.files
            about |= {"from": base, "edits": edits}
        else:
            plain[name] = dict(made.files)
            files |= {f"logs/{name}/{path}": content for path, content in made.files.items()}
        about["anchors"] = {anchor: content.decode() for anchor, content in made.anchors.items()}
        verdicts[name] = about | {"checks": [check._asdict() for check in made.checks]}
    files["verdicts.json"] = json.dumps(verdicts, indent=1, ensure_ascii=False).encode() + b"\n"
    return files


def write(files: Files, home: Path) -> None:
    """Lay *files* down under *home*."""
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main() -> int:
    """Write everything, or say what would change."""
    parser = argparse.ArgumentParser(description="Make the test vectors of the journal format.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if something would change"
    )
    parser.add_argument(
        "--expand", metavar="DIR", type=Path, help="write each log as a directory into DIR instead"
    )
    given = parser.parse_args()
    if given.expand:
        for name, make in VECTORS.items():
            made = make()
            write(made.files, given.expand / name)
            write(dict(made.anchors), given.expand / f"{name}.anchors")
        return 0
    files = everything()
    present = {
        path.relative_to(HERE).as_posix(): path.read_bytes()
        for path in [HERE / "verdicts.json", *(HERE / "logs").rglob("*")]
        if path.is_file()
    }
    changed = sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name))
    print("\n".join(changed) or f"{len(files)} files, {sum(map(len, files.values()))} bytes, as they are")
    if changed and not given.check:
        shutil.rmtree(HERE / "logs", ignore_errors=True)
        write(files, HERE)
    return int(bool(changed) and given.check)


if __name__ == "__main__":
    sys.exit(main())

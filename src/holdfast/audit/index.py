"""The index of one segment: where each block of it begins and when, and which records are of whom.

A search reads blocks, not segments: block times say where a window lies, posting lists which records have a
type, user and component, id hashes in which blocks an order id occurs. The file `audit_….idx` beside a sealed
segment, little-endian:

    offset  bytes   what
    0       8       magic "HFINDX1" and a NUL
    8       32      SHA-256 of the raw segment
    40      8       first sequence
    48      4       n records
    52      4       b blocks; a block is a gzip member of the sealed segment
    56      4       k keys
    60      4       i ids
    64      b x 40  raw offset, gzip offset (8 each), first record, records (4 each), lowest and highest ts (8 each, signed)
                    k keys in order of first appearance: lengths of type, user, component (2 each), records (4), the strings
                    for each key its records, 4 bytes each, ascending; every record is in exactly one of these lists
                    i x 4 bytes: the first 4 bytes of SHA-256 of an id; then i x 4 bytes: a block where it occurs
                    4 bytes: CRC-32 of everything before

A record is numbered from the segment's first sequence, which is 0. Ids are the texts, other than "", under
`order_id` and `client_order_id` in the details; the pairs of hash and block are sorted, each once.

Promise: the same lines cut into the same blocks give the same bytes, whether one process read them at once or
many calls did. Limits: an index is derived and proves nothing; who uses a file checks first that the log vouches
for its hash, and still checks every line that it leads to.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from operator import lt
from struct import Struct, error
from typing import Annotated, Any, NamedTuple
from zlib import crc32

import msgspec

from holdfast.audit.format import CRC_END, MAX_RECORD_BYTES, Record, decode_facts
from holdfast.core.errors import BadInput

INDEX_SUFFIX = ".idx"

_MAGIC = b"HFINDX1\0"
_HEADER = Struct("<8s32sQIIII")
_BLOCK = Struct("<QQIIqq")
_KEY = Struct("<HHHI")
_CRC = Struct("<I")
_NUMBER_BYTES = 4
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
_LITTLE = sys.byteorder == "little"
_CLOSING_BRACE = ord("}")

Key = tuple[str, str, str]
"""Type, user and component of a record."""


class Block(NamedTuple):
    """A stretch of whole lines that is read at once.

    Attributes:
        raw_offset: Where it begins in the raw segment.
        gzip_offset: Where its gzip member begins in the sealed one; 0 while there is none.
        first: Number of its first record in the segment.
        records: How many it holds.
        min_ts: The lowest time in it; a clock may step back.
        max_ts: The highest.
    """

    raw_offset: int
    gzip_offset: int
    first: int
    records: int
    min_ts: int
    max_ts: int


class Conditions(NamedTuple):
    """What a search asks of a record; None asks nothing.

    Attributes:
        types: One of these types.
        user: This user.
        component: This component.
        order_id: Under `order_id` or `client_order_id` in the details.
        start_ns: Not before.
        end_ns: Before.
    """

    types: frozenset[str] | None = None
    user: str | None = None
    component: str | None = None
    order_id: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None

    def has_key(self, type_: str, user: str, component: str) -> bool:
        """Whether type, user and component are as asked."""
        return (
            (self.types is None or type_ in self.types)
            and self.user in {None, user}
            and self.component in {None, component}
        )

    def may_lie_within(self, min_ts: int, max_ts: int) -> bool:
        """Whether a record between these times may be as asked."""
        return (self.start_ns is None or max_ts >= self.start_ns) and (
            self.end_ns is None or min_ts < self.end_ns
        )

    def accepts(self, ts: int, details: Mapping[str, Any]) -> bool:
        """Whether time and order id are as asked."""
        return self.may_lie_within(ts, ts) and (
            self.order_id is None
            or self.order_id == details.get("order_id")
            or self.order_id == details.get("client_order_id")
        )


class Pick(NamedTuple):
    """Records of one block that a search must look at.

    Attributes:
        block: Number of the block.
        numbers: The records, ascending.
        beside: How many records the block has.
    """

    block: int
    numbers: Sequence[int]
    beside: int


class _Ids(msgspec.Struct, gc=False):
    order_id: Any = None
    client_order_id: Any = None


class _Line(msgspec.Struct, gc=False):
    seq: int
    synced: int
    ts: Annotated[int, msgspec.Meta(ge=_LOWEST, le=_HIGHEST)]
    type: str
    user: str
    component: str
    details: _Ids


_decode_line = msgspec.json.Decoder(_Line).decode


def index_name(segment: str) -> str:
    """The name of the index beside *segment*, raw or sealed."""
    return segment.removesuffix(".gz").removesuffix(".log") + INDEX_SUFFIX


def id_hash(order_id: str) -> int:
    """The four bytes that stand for an id."""
    return int.from_bytes(
        sha256(order_id.encode("utf-8", "surrogatepass")).digest()[:_NUMBER_BYTES], "little"
    )


class Index:
    """The index of one segment, growing by lines or read from a file.

    Attributes:
        first_seq: The segment's first sequence.
        raw_sha256: SHA-256 of the raw segment; empty while it grows.
        records: How many records it knows.
        blocks: In order.
        times: The lowest and the highest time of any record.
    """

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.raw_sha256 = b""
        self.records = 0
        self.blocks: list[Block] = []
        self.times = (_HIGHEST, _LOWEST)
        self._firsts: list[int] = []
        # While it grows.
        self._growing: dict[Key, array[int]] = {}
        self._new_ids: set[int] = set()  # hash << 32 | block
        # Read from a file: the records of all keys one behind the other, and where those of each key stand.
        self._records: Sequence[int] = ()
        self._places: dict[Key, tuple[int, int]] = {}
        self._id_hashes: Sequence[int] = ()
        self._id_blocks: Sequence[int] = ()
        # The keys by one of their three fields, made when first asked for.
        self._by_field: list[dict[str, list[Key]] | None] = [None, None, None]

    def all_keys(self) -> Iterable[Key]:
        """Every type, user and component that occur together."""
        return self._growing or self._places

    # -- growing -----------------------------------------------------------------------------------------------

    def begin_block(self, raw_offset: int, gzip_offset: int = 0) -> None:
        """The next line stands at *raw_offset*, in the gzip member at *gzip_offset*, and begins a block."""
        self.blocks.append(Block(raw_offset, gzip_offset, self.records, 0, 0, 0))
        self._firsts.append(self.records)

    def take(self, lines: Iterable[bytes]) -> None:
        """Add the next *lines* of the segment, without newlines, to the newest block.

        Raises:
            BadInput: A line is not the valid one that belongs there; the index is of no use any more, and
                `records` is the number of that line.
        """
        block = self.blocks[-1]
        number, growing, ids = self.records, self._growing, self._new_ids
        low, high = (block.min_ts, block.max_ts) if block.records else (None, 0)
        for line in lines:
            facts = self._read(line, number)
            ts, ids_of = facts.ts, facts.details
            if low is None:
                low = high = ts
            elif ts < low:
                low = ts
            elif ts > high:
                high = ts
            key = (facts.type, facts.user, facts.component)
            records = growing.get(key)
            if records is None:
                records = self._add_key(key)
            records.append(number)
            order_id, client_order_id = ids_of.order_id, ids_of.client_order_id
            if type(order_id) is str and order_id:
                ids.add(id_hash(order_id) << 32 | len(self.blocks) - 1)
            if type(client_order_id) is str and client_order_id and client_order_id != order_id:
                ids.add(id_hash(client_order_id) << 32 | len(self.blocks) - 1)
            number += 1
            self.records = number
        if low is not None:
            self.blocks[-1] = block._replace(records=number - block.first, min_ts=low, max_ts=high)
            self.times = (min(low, self.times[0]), max(high, self.times[1]))

    def take_records(self, records: Sequence[Record]) -> None:
        """As `take`, for lines that somebody has read and found to be the valid ones that belong there."""
        if not records:
            return
        first, at, block = self.records, len(self.blocks) - 1, self.blocks[-1]
        keys = [(record.type, record.user, record.component) for record in records]
        if keys.count(keys[0]) == len(keys):  # as nearly always
            (self._growing.get(keys[0]) or self._add_key(keys[0])).extend(range(first, first + len(keys)))
        else:
            for number, key in enumerate(keys, first):
                (self._growing.get(key) or self._add_key(key)).append(number)
        details = [record.details for record in records]
        ids = {found for one in details if type(found := one.get("order_id")) is str}
        ids.update([found for one in details if type(found := one.get("client_order_id")) is str])
        ids.discard("")
        hasher = sha256  # `id_hash` without a call for each
        hashes = b"".join([hasher(one.encode()).digest()[:_NUMBER_BYTES] for one in ids])
        self._new_ids.update([number << 32 | at for number in _numbers_in(memoryview(hashes))])
        times = [record.ts for record in records]
        low, high = min(times), max(times)
        if block.records:
            low, high = min(low, block.min_ts), max(high, block.max_ts)
        self.records = first + len(records)
        self.blocks[-1] = block._replace(records=self.records - block.first, min_ts=low, max_ts=high)
        self.times = (min(low, self.times[0]), max(high, self.times[1]))

    def _read(self, line: bytes, number: int) -> _Line:
        """What the line with this *number* says.

        Raises:
            BadInput: It is not the valid line that belongs there.
        """
        sequence = self.first_seq + number
        if line.startswith(b'{"crc":"%08x","seq":%d,' % (crc32(line[CRC_END:]), sequence)):
            try:
                facts = _decode_line(line)
                if (
                    facts.seq == sequence
                    and 0 <= facts.synced < sequence
                    and line[-1] == _CLOSING_BRACE
                    and len(line) <= MAX_RECORD_BYTES
                    and (line.isascii() or line.decode())
                ):
                    return facts
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
                raise BadInput(f"not a record: {why}") from why
        found = decode_facts(line).seq
        raise BadInput(f"sequence {found} stands where {sequence} belongs")

    def _add_key(self, key: Key) -> array[int]:
        self._growing[key] = records = array("I")
        for keys, value in zip(self._by_field, key, strict=True):
            if keys is not None:
                keys.setdefault(value, []).append(key)
        return records

    # -- the file ----------------------------------------------------------------------------------------------

    @property
    def ending_bytes(self) -> int:
        """How long the end of its file will be: the ids, and the CRC."""
        return 2 * _NUMBER_BYTES * len(self._new_ids) + _CRC.size

    def encode(self, raw_sha256: bytes, like: bytes = b"") -> bytes:
        """The index as a file, for a segment whose raw bytes hash to *raw_sha256*.

        *like* is the end of a file that may hold the same ids: where it does, they need not be sorted.
        """
        ending = like[: -_CRC.size] if self._ends_with(like) else self._sorted_ids()
        parts = [
            _HEADER.pack(
                _MAGIC,
                raw_sha256,
                self.first_seq,
                self.records,
                len(self.blocks),
                len(self._growing),
                len(self._new_ids),
            )
        ]
        parts += [_BLOCK.pack(*block) for block in self.blocks]
        for key, records in self._growing.items():
            names = [name.encode() for name in key]
            parts += [_KEY.pack(*map(len, names), len(records)), *names]
        parts += [_numbers_out(records) for records in self._growing.values()]
        parts.append(ending)
        content = b"".join(parts)
        return content + _CRC.pack(crc32(content))

    def _sorted_ids(self) -> bytes:
        pairs = sorted(self._new_ids)
        hashes, blocks = [pair >> 32 for pair in pairs], [pair & 0xFFFFFFFF for pair in pairs]
        return _numbers_out(array("I", hashes)) + _numbers_out(array("I", blocks))

    def _ends_with(self, ending: bytes) -> bool:
        """Whether *ending* holds these ids, each once and in order, and room for the CRC."""
        if len(ending) != self.ending_bytes:
            return False
        numbers = _numbers_in(memoryview(ending)[: -_CRC.size])
        count = len(numbers) // 2
        pairs = [number << 32 | block for number, block in zip(numbers[:count], numbers[count:], strict=True)]
        return all(map(lt, pairs, pairs[1:])) and self._new_ids.issuperset(pairs)

    @classmethod
    def decode(cls, content: bytes) -> Index:
        """The index in a file; it answers, but does not grow.

        Raises:
            BadInput: The bytes are no index file.
        """
        try:
            return cls._decode(content)
        except (error, UnicodeDecodeError, IndexError) as why:
            raise BadInput(f"not an index: {why}") from why

    @classmethod
    def _decode(cls, content: bytes) -> Index:
        magic, raw_sha256, first_seq, records, blocks, keys, ids = _HEADER.unpack_from(content)
        if magic != _MAGIC or crc32(content[: -_CRC.size]) != _CRC.unpack(content[-_CRC.size :])[0]:
            raise BadInput("not an index: its magic or its CRC does not match")
        index = cls(first_seq)
        index.raw_sha256, index.records = raw_sha256, records
        at = _HEADER.size
        stop = at + blocks * _BLOCK.size
        if stop > len(content):
            raise BadInput("not an index: it ends inside its blocks")
        index.blocks = list(map(Block._make, _BLOCK.iter_unpack(content[at:stop])))
        index._firsts = [block.first for block in index.blocks]
        at, total = stop, 0
        text = content.decode(
            "latin-1"
        )  # one character a byte: slices of it are ready where the bytes are ASCII
        for _ in range(keys):
            type_bytes, user_bytes, component_bytes, count = _KEY.unpack_from(content, at)
            user = at + _KEY.size + type_bytes
            component = user + user_bytes
            stop = component + component_bytes
            key = (text[at + _KEY.size : user], text[user:component], text[component:stop])
            if not content[user - type_bytes : stop].isascii():
                key = (_utf8(key[0]), _utf8(key[1]), _utf8(key[2]))
            index._places[key] = (total, total + count)
            total += count
            at = stop
        if len(content) != at + _NUMBER_BYTES * (total + 2 * ids) + _CRC.size:
            raise BadInput("not an index: its length is not the one that its counts give")
        view = memoryview(content)[at : -_CRC.size]
        numbers = _numbers_in(view)
        index._records = numbers[:total]
        index._id_hashes, index._id_blocks = numbers[total : total + ids], numbers[total + ids :]
        index.times = (
            min((block.min_ts for block in index.blocks), default=_HIGHEST),
            max((block.max_ts for block in index.blocks), default=_LOWEST),
        )
        return index

    # -- searching ---------------------------------------------------------------------------------------------

    def select(self, wanted: Conditions, among: range) -> Sequence[int]:
        """Those of the records *among* that may match, ascending: each one that does match is among them.

        Type, user and component are exact; time and order id only leave out blocks.
        """
        if not (self.records and wanted.may_lie_within(*self.times)):
            return ()
        blocks = self._blocks_with(wanted)
        keys = self._keys_with(wanted)
        runs = [(0, self.records)] if blocks is None else self._runs(blocks)
        parts = [part for part in (_common(among, *run) for run in runs) if part]
        if keys is None:
            return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))
        return _within([self._of(key) for key in keys], parts)

    def by_block(self, numbers: Sequence[int]) -> Iterator[Pick]:
        """Ascending record *numbers*, parted by the blocks that hold them."""
        at, firsts = 0, self._firsts
        while at < len(numbers):
            block = bisect_right(firsts, numbers[at]) - 1
            stop = max(bisect_left(numbers, self._span(block)[1], at), at + 1)
            yield Pick(block, numbers[at:stop], self.blocks[block].records)
            at = stop

    def block_with(self, number: int) -> tuple[Block, Block | None]:
        """The block that holds record *number*, and the one behind it, if there is one."""
        at = bisect_right(self._firsts, number) - 1
        following = self.blocks[at + 1 : at + 2]
        return self.blocks[at], following[0] if following else None

    def _span(self, block: int) -> tuple[int, int]:
        first = self._firsts[block]
        return first, first + self.blocks[block].records

    def _blocks_with(self, wanted: Conditions) -> list[int] | None:
        """The blocks that may hold a match, or None for all of them."""
        found: list[int] | None = None
        start, end = wanted.start_ns, wanted.end_ns
        if wanted.order_id:  # "" is in no list
            found = self._blocks_of(wanted.order_id)
        if start is not None and self.times[0] < start:
            found = [at for at in self._or_all(found) if self.blocks[at].max_ts >= start]
        if end is not None and self.times[1] >= end:
            found = [at for at in self._or_all(found) if self.blocks[at].min_ts < end]
        return found

    def _or_all(self, blocks: list[int] | None) -> Iterable[int]:
        return range(len(self.blocks)) if blocks is None else blocks

    def _blocks_of(self, order_id: str) -> list[int]:
        wanted = id_hash(order_id)
        if self._new_ids:
            return [at for at in range(len(self.blocks)) if wanted << 32 | at in self._new_ids]
        first = bisect_left(self._id_hashes, wanted)
        return list(self._id_blocks[first : bisect_right(self._id_hashes, wanted, first)])

    def _of(self, key: Key) -> Sequence[int]:
        """The records with *key*, ascending."""
        growing = self._growing.get(key)
        if growing is not None:
            return growing
        first, end = self._places[key]
        return self._records[first:end]

    def _keys_with(self, wanted: Conditions) -> list[Key] | None:
        """The keys that match, or None where none is asked for."""
        keys: Iterable[Key]
        if wanted.user is not None:
            keys = self._keys_by(1).get(wanted.user, [])
        elif wanted.types is not None:
            by_type = self._keys_by(0)
            keys = chain.from_iterable(by_type.get(type_, []) for type_ in wanted.types)
        elif wanted.component is not None:
            keys = self._keys_by(2).get(wanted.component, [])
        else:
            return None
        return [key for key in keys if wanted.has_key(*key)]

    def _keys_by(self, field: int) -> dict[str, list[Key]]:
        found = self._by_field[field]
        if found is None:
            found = self._by_field[field] = {}
            for key in self.all_keys():
                found.setdefault(key[field], []).append(key)
        return found

    def _runs(self, blocks: Iterable[int]) -> list[tuple[int, int]]:
        """Blocks that follow one another, joined: first record and end of each run."""
        runs: list[tuple[int, int]] = []
        for at in blocks:
            first, end = self._span(at)
            if runs and runs[-1][1] == first:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((first, end))
        return runs


def _utf8(bytes_as_text: str) -> str:
    return bytes_as_text.encode("latin-1").decode()


def _common(among: range, first: int, end: int) -> range:
    return range(max(among.start, first), min(among.stop, end))


def _within(lists: Sequence[Sequence[int]], parts: Sequence[range]) -> list[int]:
    """What *lists* hold of *parts*, ascending."""
    found: list[int] = []
    for part in parts:
        kept: list[Sequence[int]] = []
        for numbers in lists:
            start = bisect_left(numbers, part.start)
            kept.append(numbers[start : bisect_left(numbers, part.stop, start)])
        found += kept[0] if len(kept) == 1 else sorted(chain.from_iterable(kept))
    return found


def _numbers_out(numbers: array[int]) -> bytes:
    if not _LITTLE:
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _numbers_in(content: memoryview) -> Sequence[int]:
    if _LITTLE:
        return content.cast("I")
    numbers = array("I", content.tobytes())
    numbers.byteswap()
    return numbers

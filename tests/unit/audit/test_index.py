from __future__ import annotations

import struct
from hashlib import sha256
from random import Random
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.audit.format import encode_details, encode_line
from holdfast.audit.index import Conditions, Index, id_hash, index_name
from holdfast.core.errors import BadInput

SECOND = 10**9


def line(seq, ts=0, type_="NOTE", user="u", component="c", **details):
    return encode_line(seq, seq - 1, ts, type_, user, component, encode_details(details))


def small_index():
    """Sequences 11 to 15 in two blocks."""
    index = Index(11)
    index.begin_block(0, 0)
    index.take([line(11, 50, "SEGMENT", "", "journal"), line(12, 70, order_id="é", client_order_id="b")])
    index.begin_block(400, 90)
    index.take(
        [line(13, 60, order_id="b", client_order_id="b"), line(14, 80, order_id="", client_order_id=7)]
    )
    index.take([line(15, 65, user="v")])
    return index


def test_the_file_has_the_bytes_that_its_page_draws():
    """Every field of an index file stands where the module's head says, little-endian."""
    content = small_index().encode(b"\7" * 32)
    expected = b"HFINDX1\0" + b"\7" * 32 + struct.pack("<QIIII", 11, 5, 2, 3, 3)
    expected += struct.pack("<QQIIqq", 0, 0, 0, 2, 50, 70) + struct.pack("<QQIIqq", 400, 90, 2, 3, 60, 80)
    for key, count in ((("SEGMENT", "", "journal"), 1), (("NOTE", "u", "c"), 3), (("NOTE", "v", "c"), 1)):
        texts = [text.encode() for text in key]
        expected += struct.pack("<HHHI", *map(len, texts), count) + b"".join(texts)
    expected += struct.pack("<5I", 0, 1, 2, 3, 4)
    pairs = sorted(
        (int.from_bytes(sha256(text.encode()).digest()[:4], "little"), block)
        for text, block in (("é", 0), ("b", 0), ("b", 1))
    )
    expected += struct.pack("<3I", *(pair[0] for pair in pairs))
    expected += struct.pack("<3I", *(pair[1] for pair in pairs))
    assert content == expected + struct.pack("<I", crc32(expected))


@pytest.mark.parametrize("places", [(0, 1, 2), (1, 0, 2), (0, 0, 2), (0, 1), (0, 1, 2, 2), ()])
def test_a_file_to_compare_with_changes_no_byte(places):
    """Whatever ids the file holds that an index is encoded for, in whatever order, they are not believed."""
    content = small_index().encode(b"\7" * 32)
    numbers = struct.unpack("<6I", content[-28:-4])
    pairs = [numbers[place] for place in places] + [numbers[3 + place] for place in places]
    for changed in (pairs, [number ^ 1 for number in pairs]):
        ending = struct.pack(f"<{len(changed)}I", *changed) + b"wxyz"
        assert small_index().encode(b"\7" * 32, like=ending) == content


def test_the_same_lines_give_the_same_bytes_however_they_come():
    """An index that grew line by line is the index of the segment read at once."""
    lines = [line(n, n * 3, f"T{n % 3}", f"u{n % 5}", order_id=f"o{n % 7}") for n in range(1, 41)]
    at_once, by_one = Index(1), Index(1)
    for first in range(0, 40, 10):
        at_once.begin_block(first * 100, first)
        at_once.take(lines[first : first + 10])
        by_one.begin_block(first * 100, first)
        for one in lines[first : first + 10]:
            by_one.take([one])
    assert at_once.encode(bytes(32)) == by_one.encode(bytes(32))


@pytest.mark.parametrize("seed", range(20))
def test_an_index_finds_what_a_scan_finds(seed):
    """Grown or decoded, an index leads to every record that matches, and to no record of another key."""
    random = Random(seed)
    print("seed", seed)
    records = [
        (
            random.randrange(100),
            random.choice("AB"),
            random.choice("xyz"),
            random.choice(["", "p"]),
            random.choice(["", "1", "2", "3"]),
        )
        for _ in range(60)
    ]
    lines = [
        line(n, ts, type_, user, component, order_id=order)
        for n, (ts, type_, user, component, order) in enumerate(records, 1)
    ]
    grown, at = Index(1), 0
    while at < len(lines):
        size = random.randrange(1, 9)
        grown.begin_block(at, at)
        grown.take(lines[at : at + size])
        at += size
    decoded = Index.decode(grown.encode(bytes(32)))
    for _ in range(60):
        wanted = Conditions(
            random.choice([None, frozenset("A"), frozenset("AB"), frozenset("Q"), frozenset()]),
            random.choice([None, "x", "q"]),
            random.choice([None, "", "p"]),
            random.choice([None, None, "1", "", "9"]),
            random.choice([None, random.randrange(-5, 105)]),
            random.choice([None, random.randrange(-5, 105)]),
        )
        among = range(
            random.choice([0, 0, random.randrange(61)]), random.choice([60, 60, random.randrange(61)])
        )
        exact = {
            n
            for n, (_, type_, user, component, _) in enumerate(records)
            if n in among
            and (wanted.types is None or type_ in wanted.types)
            and wanted.user in {None, user}
            and wanted.component in {None, component}
        }
        match = {
            n
            for n in exact
            if wanted.order_id in {None, records[n][4]}
            and (wanted.start_ns is None or records[n][0] >= wanted.start_ns)
            and (wanted.end_ns is None or records[n][0] < wanted.end_ns)
        }
        for index in (grown, decoded):
            picks = list(index.by_block(index.select(wanted, among)))
            found = [number for pick in picks for number in pick.numbers]
            assert found == sorted(found)
            assert match <= set(found) <= exact
            for pick in picks:
                block = index.blocks[pick.block]
                assert all(block.first <= number < block.first + block.records for number in pick.numbers)


def test_time_and_order_id_leave_out_blocks():
    """A window or an id that only one block can hold leads to that block alone."""
    index = small_index()
    assert [pick.block for pick in index.by_block(index.select(Conditions(start_ns=71), range(5)))] == [1]
    assert [pick.block for pick in index.by_block(index.select(Conditions(end_ns=60), range(5)))] == [0]
    assert [pick.block for pick in index.by_block(index.select(Conditions(order_id="é"), range(5)))] == [0]
    assert not index.select(Conditions(order_id="nowhere"), range(5))
    assert not index.select(Conditions(start_ns=81), range(5))


@pytest.mark.parametrize(
    "bad",
    [
        line(3),
        line(2)[:-1],
        line(2).replace(b"NOTE", b"NOPE"),
        b"",
        encode_line(2, 1, 1 << 63, "NOTE", "", "", b"{}"),
        encode_line(2, 1, 1, "NOTE", "", "", b"[]"),
        encode_line(2, 2, 1, "NOTE", "", "", b"{}"),
    ],
)
def test_a_line_that_is_not_the_one_that_belongs_there_is_not_indexed(bad):
    """A wrong sequence, checksum, time or shape is refused, and `records` says which line it was."""
    index = Index(1)
    index.begin_block(0)
    with pytest.raises(BadInput):
        index.take([line(1), bad])
    assert index.records == 1


GOOD = small_index().encode(bytes(32))


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
        lambda flip: GOOD[: flip[0]] + bytes([GOOD[flip[0]] ^ flip[1]]) + GOOD[flip[0] + 1 :]
    )
    | st.integers(0, len(GOOD) - 1).map(lambda size: GOOD[:size])
)
@example(b"HFINDX1\0" + bytes(24) + b"\xff" * 24)
def test_bytes_that_are_no_index_are_refused(content):
    """Any other bytes than an index's, each flip and each truncation of one included, are bad input."""
    with pytest.raises(BadInput):
        Index.decode(content)


def test_counts_that_promise_more_than_there_is_are_refused():
    """With a right CRC over wrong counts nothing is read beyond the end, nor allocated for it."""
    for field in (52, 56, 60):
        body = GOOD[:field] + b"\xff\xff\xff\x7f" + GOOD[field + 4 : -4]
        with pytest.raises(BadInput):
            Index.decode(body + struct.pack("<I", crc32(body)))


def test_an_index_is_named_after_its_segment():
    """Raw and sealed segment share one index name."""
    assert index_name("audit_20251120_102000_000000000001.log") == "audit_20251120_102000_000000000001.idx"
    assert index_name("audit_20251120_102000_000000000001.log.gz") == "audit_20251120_102000_000000000001.idx"
    assert id_hash("hf-1") == int.from_bytes(sha256(b"hf-1").digest()[:4], "little")

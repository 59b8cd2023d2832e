import dataclasses
import json
import math
import zlib
from datetime import UTC, datetime
from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit import format as audit_format
from holdfast.audit.format import (
    MAX_NESTING,
    MAX_RECORD_BYTES,
    _refuse_unwritable,
    decode_facts,
    decode_line,
    encode_details,
    encode_line,
    is_plain,
    leaf_hash,
    line_bound,
    line_middle,
    parse_segment_name,
    record_in_place,
    segment_name,
    type_of_middle,
)
from holdfast.core.errors import BadInput
from holdfast.core.signals import Side

LINE = encode_line(
    7, 5, 1763634000123456789, "STATE", "ops", "gate", encode_details({"from": "A", "to": "B"})
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_worked_example_of_the_format_page_is_valid():
    """The line printed at the head of format.py is valid and says what the page says."""
    example = next(
        line.strip() for line in audit_format.__doc__.splitlines() if line.strip().startswith('{"crc"')
    )
    record = decode_line(example.encode())
    assert (record.seq, record.synced, record.type, record.user) == (7, 5, "STATE", "ops")
    assert record.details == {"from": "ACTIVE", "to": "HALTED", "reason": "test", "who": "ops"}


@given(
    seq=st.integers(1, 2**62),
    synced=st.integers(0, 2**62),
    ts=st.integers(0, 2**62),
    words=st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20)),
    details=st.dictionaries(st.text(), JSON_VALUES, max_size=4),
)
def test_line_reads_back_what_was_written(seq, synced, ts, words, details):
    """Every record reads back as it was written, on one line, in the published key order, with the published CRC."""
    synced %= seq
    line = encode_line(seq, synced, ts, *words, encode_details(details))
    record = decode_line(line)
    assert (record.seq, record.synced, record.ts) == (seq, synced, ts)
    assert (record.type, record.user, record.component) == words
    assert json.loads(line)["details"] == record.details
    assert record.details == json.loads(json.dumps(details))
    assert b"\n" not in line
    assert list(json.loads(line)) == ["crc", "seq", "synced", "ts", "type", "user", "component", "details"]
    assert json.loads(line)["crc"] == f"{zlib.crc32(line[18:]):08x}"
    facts = decode_facts(line)
    assert (facts.seq, facts.synced, facts.type) == (seq, synced, words[0])
    assert record_in_place(line, seq) == record
    assert record_in_place(line, seq + 1) is None
    assert len(line) + 1 <= line_bound(line_middle(*words), encode_details(details))
    assert type_of_middle(line_middle(*words)) == words[0]


@pytest.mark.invariant("I8")
def test_every_changed_byte_makes_a_line_invalid():
    """No byte of a line can be replaced by another without the line becoming invalid."""
    for position in range(len(LINE)):
        for change in (0x01, 0x20, 0x80):
            changed = bytearray(LINE)
            changed[position] ^= change
            with pytest.raises(BadInput):
                decode_line(bytes(changed))
            with pytest.raises(BadInput):
                decode_facts(bytes(changed))
            assert record_in_place(bytes(changed), 7) is None


@pytest.mark.parametrize("length", range(len(LINE)))
def test_cut_line_is_invalid(length):
    """A line cut anywhere is invalid."""
    with pytest.raises(BadInput):
        decode_line(LINE[:length])


def signed(body: bytes) -> bytes:
    return b'{"crc":"%08x",' % zlib.crc32(body) + body


@pytest.mark.parametrize(
    "body",
    [
        b'"seq":1,"synced":1,"ts":1,"type":"A","user":"","component":"","details":{}}',
        b'"seq":0,"synced":0,"ts":1,"type":"A","user":"","component":"","details":{}}',
        b'"seq":1,"synced":-1,"ts":1,"type":"A","user":"","component":"","details":{}}',
        b'"seq":1,"synced":0,"ts":1,"type":"A","user":"","component":"","details":[]}',
        b'"seq":1,"synced":0,"ts":1,"type":"A","user":"","component":""}',
        b'"seq":1,"synced":0,"ts":"1","type":"A","user":"","component":"","details":{}}',
        b'"seq":1,"synced":0,"ts":9223372036854775808,"type":"A","user":"","component":"","details":{}}',
        b'"seq":1,"synced":0,"ts":-9223372036854775809,"type":"A","user":"","component":"","details":{}}',
        b'"synced":0,"seq":1,"ts":1,"type":"A","user":"","component":"","details":{}}',
        b'"seq":1,"synced":0,"ts":1,"type":"\xff","user":"","component":"","details":{}}',
        b'"seq":1,"synced":0,"ts":1,"type":"A","user":"","component":"","details":{}} }',
        b'"seq":1,"synced":0,"ts":1,"type":"A","user":"","component":"","details":{"x":"'
        + b"y" * 65_000
        + b'"}}',
    ],
)
def test_line_with_a_right_crc_and_wrong_content_is_invalid(body):
    """A right CRC does not make a line valid: its keys, types, numbers and length count too."""
    with pytest.raises(BadInput):
        decode_line(signed(body))
    with pytest.raises(BadInput):
        decode_facts(signed(body))
    assert record_in_place(signed(body), 1) is None


def test_unknown_keys_and_types_are_read():
    """A reader keeps what a later version wrote into details, and reads its types."""
    record = decode_line(
        signed(
            b'"seq":1,"synced":0,"ts":1,"type":"NEWER","user":"","component":"","details":{"new":[1]},"more":1}'
        )
    )
    assert (record.type, record.details) == ("NEWER", {"new": [1]})


@pytest.mark.parametrize(
    "details",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": [1, {"y": -float("inf")}]},
        {1: "x"},
        {"x": {1: "y"}},
        {"x": {1, 2}},
        {"x": object()},
        {"x": "\ud800"},
    ],
)
@pytest.mark.invariant("I11")
def test_details_that_json_cannot_hold_are_refused(details):
    """NaN, infinities, keys that are not text, sets and broken text never reach a line."""
    with pytest.raises(BadInput):
        encode_details(details)


NUMBERS = st.integers() | st.floats()
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.sampled_from(list(Side)) | st.frozensets(NUMBERS),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner)
    ),
    max_leaves=12,
)


@pytest.mark.invariant("I11")
@given(value=ANYTHING)
def test_the_quick_look_at_details_passes_nothing_that_the_slow_one_refuses(value):
    """What is found plain by exact types is never something that the walk over every type refuses."""
    if is_plain(value):
        _refuse_unwritable(value, "details")


def test_a_refusal_names_the_place():
    """However deep it hides, what cannot be written is named with the way to it."""
    with pytest.raises(BadInput, match=r"details\.rows\[1\]\.x is nan"):
        encode_details({"rows": [[1, "a"], {"x": float("nan")}]})
    with pytest.raises(BadInput, match=r"details\.rows has the key 7 of type int"):
        encode_details({"rows": {7: 1}})


def test_too_long_record_is_refused():
    """A record above 65,000 bytes is refused with both numbers."""
    with pytest.raises(BadInput, match=f"> {MAX_RECORD_BYTES} bytes"):
        encode_line(1, 0, 0, "A", "", "", encode_details({"x": "y" * MAX_RECORD_BYTES}))


def test_leaf_hash_is_the_one_of_rfc_9162():
    """The leaf hash of the empty entry is the published one."""
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_segment_name_reads_back():
    """A segment's name says when it was created and with which sequence it begins."""
    ns = int(datetime(2026, 11, 20, 23, 59, 58, tzinfo=UTC).timestamp()) * 10**9
    name = segment_name(ns, 48211)
    assert name == "audit_20261120_235958_000000048211.log"
    assert parse_segment_name(name) == (name, 48211, ns, False)
    assert parse_segment_name(name + ".gz") == (name + ".gz", 48211, ns, True)


@pytest.mark.parametrize(
    "name",
    [
        "head",
        "audit_20261120_235958_000000000000.log",
        "audit_20261320_235958_000000000001.log",
        "x",
        "audit_20261120_235958_000000000001.log.gz.tmp",
    ],
)
def test_other_names_are_no_segments(name):
    """A name of another form is not taken for a segment."""
    assert parse_segment_name(name) is None


@dataclasses.dataclass
class Reading:
    value: object


class Measured(msgspec.Struct):
    value: object


@pytest.mark.parametrize(
    "value",
    [
        Reading(math.nan),
        Measured(math.inf),
        [Measured([Reading(-math.inf)])],
        msgspec.Raw(b"1\n2"),
        Measured(msgspec.Raw(b"}")),
        Enum("Odd", {"A": math.nan}).A,
    ],
)
def test_no_wrapper_smuggles_in_what_a_record_may_not_hold(value):
    """NaN, infinities and bytes encoded elsewhere are refused inside structs, dataclasses and enum members too."""
    with pytest.raises(BadInput):
        encode_details({"x": value})


@pytest.mark.parametrize("words", [(None, "", ""), ("NOTE", None, ""), ("NOTE", "", 5)])
def test_words_of_a_line_are_text(words):
    """A type, user or component that is not text is refused: no reader would take the line."""
    with pytest.raises(BadInput, match="is not text"):
        line_middle(*words)


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner], lambda inner: (inner,)])
def test_nesting_is_bounded(wrap):
    """Details nested deeper than the bound are refused, so that reading needs no deeper stack than that."""
    value: object = 1
    for _ in range(MAX_NESTING - 1):
        value = wrap(value)
    assert encode_details({"x": value})
    with pytest.raises(BadInput, match="nested deeper than 64 levels"):
        encode_details({"x": wrap(value)})


@pytest.mark.parametrize("decode", [decode_line, decode_facts])
@pytest.mark.parametrize("value", [b"[" * 20_000 + b"]" * 20_000, b'"\xff"'])
def test_hostile_details_are_bad_input_to_every_reader(decode, value):
    """Details that no parser should follow, or that are not UTF-8, make a line invalid, not a crash."""
    line = signed(
        b'"seq":1,"synced":0,"ts":1,"type":"A","user":"","component":"","details":{"x":%b}}' % value
    )
    with pytest.raises(BadInput, match="not a record"):
        decode(line)

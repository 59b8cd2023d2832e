"""Many records at once give the rows that one after the other gives (contract B8, X7)."""

from __future__ import annotations

import json
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.audit.format import (
    LineFacts,
    all_facts_in_place,
    assemble_line,
    facts_in_place,
    leaf_hash,
    line_middle,
)
from holdfast.lake import ahead as ahead_module
from holdfast.lake.ahead import ReadAhead
from holdfast.lake.columns import Made, made_of
from holdfast.lake.journal import Piece
from holdfast.lake.rows import RiskFields, arrow_of, row_of
from holdfast.lake.tables import LakeTable, RiskEventsTable

LOG = "ab" * 16
TS = 1_763_634_000_123_456_789


def line(seq: int, type_: str, details: bytes, ts: int = TS) -> bytes:
    """A valid line."""
    return assemble_line(seq, seq - 1, ts + seq, line_middle(type_, "desk", "part"), details)


def piece(records: list[tuple[str, bytes]], first: int = 7) -> Piece:
    """Records as the reader gives them."""
    lines = [line(seq, type_, details) for seq, (type_, details) in enumerate(records, first)]
    facts = [facts_in_place(one, seq) for seq, one in enumerate(lines, first)]
    assert None not in facts
    return Piece(3, first, lines, [one for one in facts if one is not None])


def one_by_one(given: Piece) -> dict[type[LakeTable], tuple[list[int], list]]:
    """The rows of *given* made singly."""
    found: dict[type[LakeTable], tuple[list[int], list]] = {}
    for facts in given.facts:
        if (made := row_of(facts, LOG, given.epoch)) is not None:
            seqs, rows = found.setdefault(made[0], ([], []))
            seqs.append(facts.seq)
            rows.append(made[1])
    return found


def assert_same(given: Piece) -> dict[type[LakeTable], Made]:
    """Both ways agree over *given*; what they made."""
    expected, found = one_by_one(given), made_of(given, LOG)
    assert found.keys() == expected.keys()
    for table, (seqs, rows) in expected.items():
        made = found[table]
        assert made.seqs == seqs
        assert made.rows.equals(arrow_of(table, rows))
        assert made.leaves == [leaf_hash(given.lines[seq - given.first_seq]) for seq in seqs]
    return found


_TEXT = st.one_of(st.text(max_size=5), st.just(""), st.none())
_DECIMAL = st.one_of(
    st.decimals(-10, 10, places=4).map(str), st.floats().map(str),
    st.sampled_from(["nan", "inf", "-Infinity", "1e400", "-0.0", "1e-400", "1e308", "1.", ".5", "+1", " 1", "1_0", "0x1p3", "1e5", "x", ""]),
)  # fmt: skip
_ANY = st.one_of(
    _TEXT, _DECIMAL, st.booleans(), st.integers(-(2**70), 2**70), st.lists(st.integers(), max_size=2)
)
_FOREIGN = st.sampled_from(["1e400", '{"x":[-1e999]}', "1" + "0" * 5_000])
_JSON = st.one_of(
    st.sampled_from(["{}", "null", "[]", '{"a": [1, {"b":"\\u00e9é"}]}', "7", '{"x":1e300}', '"{"']), _FOREIGN
)


@st.composite
def _risk_details(draw) -> bytes:
    """RISK_EVENT details: mostly ordinary, now and then anything."""
    said = ['"event_type":' + json.dumps(draw(_TEXT) or "trailing_stop_update")]
    for field in msgspec.structs.fields(RiskFields)[1:]:
        if not draw(st.booleans()):
            continue
        if field.name == "metadata":
            value = draw(_JSON)
        elif "premium" in field.name or "value" in field.name:
            value = json.dumps(draw(_DECIMAL))
        elif field.name in {"failure_count", "limits_version"}:
            value = json.dumps(draw(st.sampled_from([0, 3, 2**31, -(2**63), 2**63, None])))
        elif field.name == "allowed":
            value = json.dumps(draw(st.sampled_from([True, False, None])))
        else:
            value = json.dumps(draw(_TEXT))
        said.append(f'"{field.name}":{value}')
    if draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from([*RiskFields.__struct_fields__, "other"]))
        value = json.dumps(draw(_ANY.filter(lambda value: value == value)))  # noqa: PLR0124  no NaN
        said.append(f'"{name}":{draw(st.one_of(st.just(value), _FOREIGN))}')
    return f"{{{','.join(said)}}}".encode()


_RECORDS = st.one_of(
    _risk_details().map(lambda details: ("RISK_EVENT", details)),
    st.just(("ORDER", b'{"order_id":"o","quantity":"1.00","price":"0.5000"}')),
    st.just(("STATE", b'{"from":"ACTIVE"}')),
    st.just(
        (
            "LATE",
            b'{"n":1,"type":"RISK_EVENT","ts":5,"user":"u","component":"c","details":{"event_type":"x"}}',
        )
    ),
)


@pytest.mark.contract("B8")
@settings(max_examples=50)
@given(st.lists(_risk_details(), min_size=1, max_size=40))
def test_risk_events_made_together_equal_those_made_singly(details):
    """Whatever stands beside it, a risk event gives the row that it gives alone."""
    assert_same(piece([("RISK_EVENT", one) for one in details]))


FOREIGN = {
    "number": (b'{"event_type":"x","load":1e400}', '{"load":1e400}'),
    "in a column": (b'{"event_type":"x","failure_count":-1e999}', '{"failure_count":-1e999}'),
    "nested": (b'{"event_type":"x","a":{"b":[1, 1e400]},"c":1.50}', '{"a":{"b":[1, 1e400]},"c":1.5}'),
    "in metadata": (b'{"event_type":"x","metadata":{"n":1e400}}', '{"n":1e400}'),
    "beside metadata": (b'{"event_type":"x","metadata":{"n":1e400},"o":1}', '{"n":1e400,"o":1}'),
    "as metadata": (b'{"event_type":"x","metadata":1e400}', '{"metadata":1e400}'),
    "whole number": (b'{"event_type":"x","n":%b}' % (b"9" * 5_000), f'{{"n":{"9" * 5_000}}}'),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_number_beyond_a_double_stays_in_the_row_to_the_letter(kind):
    """What only a foreign writer says ends nothing: the other columns are filled, and metadata keeps the text."""
    details, metadata = FOREIGN[kind]
    plain = b'{"event_type":"x","current_value":"1.5"}'
    made = assert_same(piece([("RISK_EVENT", plain), ("RISK_EVENT", details), ("RISK_EVENT", plain)]))
    rows = made[RiskEventsTable].rows
    assert rows["metadata"].to_pylist() == ["{}", metadata, "{}"]
    assert rows["event_type"].to_pylist() == ["x"] * 3


def test_late_record_with_a_number_beyond_a_double_is_projected_too():
    """What a poisoned journal still had to say loses nothing either."""
    late = b'{"n":4,"type":"RISK_EVENT","ts":5,"user":"u","component":"c","details":{"event_type":"x","load":1e400}}'
    rows = assert_same(piece([("LATE", late)]))[RiskEventsTable].rows
    assert rows["metadata"].to_pylist() == ['{"load":1e400,"late":4}']


@settings(max_examples=50)
@given(st.lists(_RECORDS, min_size=1, max_size=12))
def test_records_of_every_kind_made_together_equal_those_made_singly(records):
    """Orders, late records and records without a row between the risk events change nothing."""
    assert_same(piece(records))


def test_one_odd_event_among_thousands_costs_the_others_nothing_but_halving(monkeypatch):
    """Only the last few around an odd event are made singly."""
    singly = []
    monkeypatch.setattr(
        "holdfast.lake.columns.row_of",
        lambda facts, *rest: (singly.append(facts.seq), row_of(facts, *rest))[1],
    )
    plain, odd = b'{"event_type":"x","current_value":"1.5"}', b'{"event_type":"x","current_value":"many"}'
    given = piece([("RISK_EVENT", odd if n == 700 else plain) for n in range(2_000)])
    assert_same(given)
    assert 0 < len(singly) <= 32
    assert 707 in singly


def test_rows_are_cut_at_a_sequence():
    """What lies behind a watermark, or up to it, keeps its rows and leaves together."""
    made = made_of(piece([("RISK_EVENT", b'{"event_type":"x"}'), ("STATE", b"{}")] * 4), LOG)[RiskEventsTable]
    assert made.seqs == [7, 9, 11, 13]
    for cut in range(5, 16):
        head, tail = made.until(cut), made.behind(cut)
        assert head.seqs + tail.seqs == made.seqs
        assert head.leaves + tail.leaves == made.leaves
        assert head.rows["seq"].to_pylist() == head.seqs
        assert tail.rows["seq"].to_pylist() == tail.seqs
        assert all(seq <= cut for seq in head.seqs)
        assert all(seq > cut for seq in tail.seqs)


_DAMAGE = st.sampled_from(
    [
        b'{"a":1}',
        b'{"a":[1}',
        b'{"a":1}}{"b":2}',
        b"[]",
        b'{"a":"\xff"}',
        b'{"a":"}',
        b'{"a":{"b":1}',
        b'{"a":1}\n',
        b"{}",
    ]
)


@given(st.lists(_DAMAGE, min_size=1, max_size=5), st.integers(0, 3))
def test_lines_checked_together_are_those_that_are_valid_singly(bodies, shift):
    """Many lines pass if and only if each of them does, and say the same; no damage of one is another's cure."""
    lines: list[bytes] = []
    for seq, body in enumerate(bodies, 7):
        synced = 9 if shift == 1 else 1
        text = b'"seq":%d,"synced":%d,"ts":5,"type":"X","user":"","component":"","details":%b}' % (
            seq,
            synced,
            body,
        )
        lines.append(b'{"crc":"%08x",%b' % (crc32(text), text))
    first = 8 if shift == 2 else 7
    singly = [facts_in_place(one, seq) for seq, one in enumerate(lines, first)]
    together = all_facts_in_place(lines, first)
    if None in singly:
        assert together is None
    else:
        assert together == singly


class _Script:
    """A reader of three pieces, of which the third is damaged."""

    log_id = LOG

    def __init__(self) -> None:
        self.left = [piece([("RISK_EVENT", b'{"event_type":"x"}')] * 2, first) for first in (1, 3)]

    def read(self, most: int) -> Piece | None:
        if not self.left:
            raise ValueError(f"damaged, asked for {most}")
        return self.left.pop(0)


def test_what_was_read_ahead_of_a_failure_is_taken_before_it(monkeypatch):
    """Pieces come in order, each as it was, and a failure at its place; stopping waits for the thread."""
    monkeypatch.setattr(ahead_module, "PIECES", 4)
    with ReadAhead(_Script(), 5) as reading:
        taken = [reading.take(), reading.take()]
        assert [one.last_seq for one in taken if one is not None] == [2, 4]
        with pytest.raises(ValueError, match="damaged, asked for 5"):
            reading.take()


def test_facts_are_those_of_the_line():
    """What is decoded together is a line's facts, details as they stand."""
    lines = [line(seq, "STATE", b'{"from":"\xc3\xa9"}') for seq in range(5, 9)]
    facts = all_facts_in_place(lines, 5)
    assert facts == [
        LineFacts(seq, seq - 1, TS + seq, "STATE", "desk", "part", msgspec.Raw(b'{"from":"\xc3\xa9"}'))
        for seq in range(5, 9)
    ]

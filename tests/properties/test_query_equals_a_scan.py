"""A query is the naive filter over the records that were appended, whatever the segments, seals and clock steps."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journal import SECOND, START_NS, HandmadeLog

from holdfast.audit.query import query

TYPES = ["ORDER", "TRADE", "API_CALL", 'O"DD\\ü']
USERS = ["ann", "bob", "", "ünï\u2028"]
ROW = st.tuples(
    st.sampled_from(TYPES),
    st.fixed_dictionaries(
        {}, optional={"order_id": st.sampled_from(["a", "b"]), "client_order_id": st.sampled_from(["a", "c"])}
    ),
    st.sampled_from(USERS),
    st.sampled_from(["", "router"]),
)
SEGMENTS = st.lists(
    st.tuples(st.lists(ROW, max_size=12), st.integers(-20, 20), st.booleans()), min_size=1, max_size=4
)
OPTIONAL_TIME = st.none() | st.integers(-25, 60).map(lambda n: START_NS + n * SECOND // 2)


@pytest.mark.contract("A12")
@given(
    segments=SEGMENTS,
    start=OPTIONAL_TIME,
    end=OPTIONAL_TIME,
    type_=st.none() | st.sampled_from([*TYPES, "NONE"]),
    user=st.none() | st.sampled_from(USERS),
    component=st.none() | st.sampled_from(["", "router", "journal"]),
    order=st.none() | st.sampled_from(["a", "b", "c", "d"]),
    limit=st.none() | st.integers(0, 30),
    newest=st.booleans(),
)
def test_a_query_equals_a_scan_of_everything(  # noqa: PLR0917  one argument per condition
    segments, start, end, type_, user, component, order, limit, newest
):
    """Every combination of conditions gives what filtering all records gives, in order, forwards and backwards."""
    with tempfile.TemporaryDirectory() as root:
        log = HandmadeLog(Path(root) / "audit")
        times, rows = [], []
        honest = log.line

        def noted(kind, details, who="", part=""):
            times.append(log.now_ns)
            rows.append((kind, details, who, part))
            return honest(kind, details, who, part)

        log.line = noted
        pending = []
        for content, step, seal in segments:
            log.now_ns += step * SECOND
            name = log.segment([*pending, *content])
            pending = [("SEALED", log.seal(name))] if seal else []
        log.segment(pending)
        log.head()
        expected = [
            sequence
            for sequence, (at, (kind, details, who, part)) in enumerate(zip(times, rows, strict=True), 1)
            if (start is None or at >= start) and (end is None or at < end)
            and type_ in {None, kind} and user in {None, who} and component in {None, part}
            and (order is None or order in {details.get("order_id"), details.get("client_order_id")})
        ]  # fmt: skip
        if newest:
            expected.reverse()
        found = query(
            log.directory,
            None if start is None else Decimal(start).scaleb(-9),
            None if end is None else Decimal(end).scaleb(-9),
            type_, user, limit,
            component=component, order_id=order, newest_first=newest,
        )  # fmt: skip
        assert [entry.sequence for entry in found] == expected[:limit]
        assert [entry.details for entry in found] == [rows[n - 1][1] for n in expected[:limit]]

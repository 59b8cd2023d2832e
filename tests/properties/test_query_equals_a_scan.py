"""A query is the naive filter over the records that were appended, whatever the segments, seals, indexes and clock steps."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journal import SECOND, START_NS, HandmadeLog

from holdfast.audit.format import decode_line
from holdfast.audit.head import HeadState
from holdfast.audit.query import LogReader, iter_matching_lines, query
from holdfast.core.errors import BadInput

TYPES = ["ORDER", "TRADE", "API_CALL", 'O"DD\\ü']
USERS = ["ann", "bob", "", "ünï\u2028"]
ID = st.sampled_from(["a", "b", "ü\u2028", "", 7, None])
ROW = st.tuples(
    st.sampled_from(TYPES),
    st.fixed_dictionaries({}, optional={"order_id": ID, "client_order_id": ID, "note": ID}),
    st.sampled_from(USERS),
    st.sampled_from(["", "router"]),
)
KEPT = st.sampled_from(["raw", "sealed", "indexed", "forged index", "index of another"])
SEGMENTS = st.lists(st.tuples(st.lists(ROW, max_size=12), st.integers(-20, 20), KEPT), min_size=1, max_size=4)
TIME = st.none() | st.integers(-25, 60).map(lambda n: START_NS + n * SECOND // 2)
QUESTION = st.fixed_dictionaries(
    {
        "start": TIME,
        "end": TIME,
        "types": st.none()
        | st.sampled_from([*TYPES, "NONE"])
        | st.lists(st.sampled_from([*TYPES, "SEALED"]), min_size=1, max_size=3),
        "user": st.none() | st.sampled_from(USERS),
        "component": st.none() | st.sampled_from(["", "router", "journal"]),
        "order": st.none() | st.sampled_from(["a", "b", "ü\u2028", "", "d"]),
        "limit": st.none() | st.integers(0, 30),
        "newest": st.booleans(),
    }
)


class Lived:
    """A log, and every record of it as it was appended."""

    def __init__(self, home: Path) -> None:
        self.log = HandmadeLog(home)
        self.pending = []

    def segment(self, content, step, kept) -> None:
        self.log.now_ns += step * SECOND
        name = self.log.segment([*self.pending, *content])
        self.pending = []
        if kept == "raw":
            return
        self.pending = [("SEALED", self.log.seal(name, indexed=kept != "sealed"))]
        index = next(self.log.directory.glob(name.replace(".log", ".idx")), None)
        if kept == "forged index":
            body = index.read_bytes()[:-4].replace(b"TRADE", b"TRADX").replace(b"SEGMENT", b"SEGMENX")
            index.write_bytes(body + crc32(body).to_bytes(4, "little"))
        elif kept == "index of another":
            index.write_bytes(min(self.log.directory.glob("*.idx")).read_bytes())

    def head(self, state=HeadState.OPEN) -> None:
        self.log.head(state)

    def scan(self, question) -> list[int]:
        """What the naive filter finds, over lines read one by one."""
        types = question["types"]
        types = {types} if isinstance(types, str) else types
        start, end = question["start"], question["end"]
        found = [
            record.seq
            for record in map(decode_line, self.log.lines)
            if (start is None or record.ts >= start) and (end is None or record.ts < end)
            and (types is None or record.type in types)
            and question["user"] in {None, record.user} and question["component"] in {None, record.component}
            and (
                question["order"] is None
                or question["order"] in (record.details.get("order_id"), record.details.get("client_order_id"))
            )
        ]  # fmt: skip
        if question["newest"]:
            found.reverse()
        return found[: question["limit"]]


def arguments(question):
    times = (question["start"], question["end"])
    return (
        *(None if moment is None else Decimal(moment).scaleb(-9) for moment in times),
        question["types"], question["user"], question["limit"],
    ), {
        "component": question["component"], "order_id": question["order"], "newest_first": question["newest"],
    }  # fmt: skip


def impossible(question) -> bool:
    start, end = question["start"], question["end"]
    return start is not None and end is not None and end < start


@pytest.mark.contract("A12")
@given(segments=SEGMENTS, questions=st.lists(QUESTION, min_size=1, max_size=5), more=SEGMENTS)
def test_a_query_equals_a_scan_of_everything(segments, questions, more):
    """Every combination of conditions gives what filtering all lines gives, in order, forwards and backwards.

    With indexes, without them and with false ones; cold, and by a reader that remembers while the log grows.
    """
    with tempfile.TemporaryDirectory() as root:
        lived = Lived(Path(root) / "audit")
        reader = LogReader(lived.log.directory)
        for content in (segments, more):
            for part in content:
                lived.segment(*part)
            lived.segment([], 0, "raw")
            lived.head()
            for question in questions:
                positional, named = arguments(question)
                if impossible(question):
                    with pytest.raises(BadInput, match="before start_time"):
                        reader.query(*positional, **named)
                    continue
                expected = lived.scan(question)
                for found in (
                    query(lived.log.directory, *positional, **named),
                    reader.query(*positional, **named),
                    reader.query(*positional, **named),
                ):
                    assert [entry.sequence for entry in found] == expected
                    assert [entry.details for entry in found] == [
                        decode_line(lived.log.lines[sequence - 1]).details for sequence in expected
                    ]
                lines = list(iter_matching_lines(lived.log.directory, *positional, **named))
                assert lines == [(sequence, lived.log.lines[sequence - 1]) for sequence in expected]

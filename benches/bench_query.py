"""Searching the log beside sqlite3, DuckDB and Polars over the same records.

Two logs, made once and kept under build/bench-query: one million records (100 users, 6 types) and ten million
(2,000 users, 10 types), about 300 bytes each, sealed as the sealer seals but for the compression level and the
tree's roots, which no search reads. The peers get the same records: sqlite3 a table with indexes on (type, user, ts)
and on ts, the others Parquet files sorted by time. Every answer is compared by its sequences before it is timed.

Warm is the median of 20 repetitions by a reader, or a connection, that has answered the question before. Cold is
the first answer of a new one, after the kernel was asked to drop the files' pages (POSIX_FADV_DONTNEED).
`python benches/bench_query.py` prints the table; `run()` returns it.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from statistics import median

from holdfast.audit.format import encode_details, encode_line, segment_name
from holdfast.audit.head import SLOT_OFFSETS, HeadMark, HeadState, encode_slot
from holdfast.audit.index import Index, index_name
from holdfast.audit.query import LogReader
from holdfast.audit.seal import CUT_BYTES

HOME = Path(__file__).resolve().parent.parent / "build" / "bench-query"
VERSION = "1"
START_NS = 1_763_634_000 * 10**9
STEP_NS = 1_000_000
SEGMENT_RECORDS = 330_000
TYPES = (
    "ORDER",
    "ORDER_UPDATE",
    "TRADE",
    "DECISION",
    "API_CALL",
    "RISK_VIOLATION",
    "STATE",
    "RECONCILE",
    "BREAKER",
    "NOTE",
)
WARM_ROUNDS = 20
REST = (
    b',"client_order_id":"hf-%016x","strategy":"maker-1","ticker":"KXNBAGAME-26MAR07GSWOKC-GSW","side":"yes",'
    b'"quantity":"%d.00","price":"0.%04d","tif":"ioc","reserved":"5.60","fee_bound":"0.18"}}'
)


def made(name: str, records: int, users: int, types: int) -> Path:
    """The log of *records* records and its twins in other formats, made where they are missing."""
    home = HOME / name
    done = home / "done"
    if not done.exists() or done.read_text() != VERSION:
        if home.exists():
            import shutil

            shutil.rmtree(home)
        (home / "parquet").mkdir(parents=True)
        print(f"  making {home.relative_to(HOME.parent.parent)}: {records:,} records, once", file=sys.stderr)
        _make(home, records, users, types)
        done.write_text(VERSION)
    return home


def _make(home: Path, records: int, users: int, types: int) -> None:
    import polars as pl

    log = home / "log"
    log.mkdir(mode=0o700)
    base = sqlite3.connect(home / "sqlite.db")
    base.execute("pragma journal_mode=off")
    base.execute("pragma synchronous=off")
    base.execute("create table log(seq integer primary key, ts integer, type text, user text, line text)")
    rnd = random.Random(7)
    seq, rows, parquet = 1, list[tuple[int, int, str, str, str]](), 0
    pending: bytes | None = None
    while seq <= records:
        first, lines = seq, list[bytes]()
        count = min(SEGMENT_RECORDS, records - seq + 1)
        opening = {
            "format": 1, "schema": 1, "log_id": "ab" * 16, "origin": "bench", "first_seq": first,
            "root": "00" * 32, "clock": "bench",
        }  # fmt: skip
        for at in range(count):
            ts = START_NS + seq * STEP_NS
            if at == 0:
                kind, user = "SEGMENT", ""
                line = encode_line(seq, seq - 1, ts, kind, user, "journal", encode_details(opening))
            elif at == 1 and pending is not None:
                kind, user = "SEALED", ""
                line = encode_line(seq, seq - 1, ts, kind, user, "", pending)
            else:
                kind, user = TYPES[rnd.randrange(types)], f"desk-{rnd.randrange(users)}"
                order = seq // 4
                body = b'"seq":%d,"synced":%d,"ts":%d,"type":"%b","user":"%b","component":"trader","details":{"order_id":"hf-%016x"' % (
                    seq, seq - 1, ts, kind.encode(), user.encode(), order,
                ) + REST % (order, seq % 99 + 1, seq % 9999)  # fmt: skip
                line = b'{"crc":"%08x",%b' % (zlib.crc32(body), body)
            lines.append(line)
            rows.append((seq, ts, kind, user, line.decode()))
            seq += 1
        is_last = seq > records
        pending = _segment(log, first, lines, is_last=is_last)
        base.executemany("insert into log values(?,?,?,?,?)", rows)
        columns = ("seq", "ts", "type", "user", "line")
        frame = pl.DataFrame(
            rows, schema=dict(zip(columns, (int, int, str, str, str), strict=True)), orient="row"
        )
        frame.write_parquet(home / "parquet" / f"{parquet:04d}.parquet", row_group_size=65_536)
        rows, parquet = [], parquet + 1
        if is_last:
            _head(
                log,
                records,
                segment_name(START_NS + first * STEP_NS, first),
                sum(map(len, lines)) + len(lines),
            )
    base.execute("create index by_key on log(type, user, ts)")
    base.execute("create index by_time on log(ts)")
    base.commit()
    base.close()


def _segment(log: Path, first: int, lines: list[bytes], *, is_last: bool) -> bytes | None:
    """One segment, sealed and indexed unless it is the last; the details of its SEALED record."""
    name = segment_name(START_NS + first * STEP_NS, first)
    raw = b"".join(line + b"\n" for line in lines)
    if is_last:
        (log / name).write_bytes(raw)
        return None
    index, packed, start = Index(first), list[bytes](), 0
    offset = 0
    while start < len(raw):
        cut = raw.rfind(b"\n", start, start + CUT_BYTES) + 1
        index.begin_block(start, offset)
        index.take(raw[start : cut - 1].split(b"\n"))
        packed.append(zlib.compress(raw[start:cut], 1, wbits=31))
        offset += len(packed[-1])
        start = cut
    compressed, digest = b"".join(packed), sha256(raw)
    content = index.encode(digest.digest())
    (log / f"{name}.gz").write_bytes(compressed)
    (log / index_name(name)).write_bytes(content)
    return encode_details(
        {
            "segment": name, "first_seq": first, "last_seq": first + len(lines) - 1,
            "raw_sha256": digest.hexdigest(), "raw_bytes": len(raw),
            "gzip_sha256": sha256(compressed).hexdigest(), "gzip_bytes": len(compressed), "members": len(packed),
            "index_sha256": sha256(content).hexdigest(), "index_bytes": len(content),
        }
    )  # fmt: skip


def _head(log: Path, records: int, name: str, end: int) -> None:
    page = bytearray(4096)
    slot = encode_slot(HeadMark(records, name, end, HeadState.CLOSED, 2))
    page[SLOT_OFFSETS[0] : SLOT_OFFSETS[0] + len(slot)] = slot
    (log / "head").write_bytes(page)


# -- the questions ------------------------------------------------------------------------------------------------

Ask = Callable[[str | None, str | None, int | None, int | None], list[int]]
"""Type, user, start and end; the sequences of the records, each of them fetched and decoded."""


def ours(home: Path) -> Ask:
    reader = LogReader(home / "log")

    def ask(kind: str | None, user: str | None, start: int | None, end: int | None) -> list[int]:
        found = reader.query(*(None if at is None else at / 1e9 for at in (start, end)), kind, user)
        return [entry.sequence for entry in found]

    ask.reader = reader
    return ask


def _where(kind: str | None, user: str | None, start: int | None, end: int | None) -> tuple[str, list]:
    parts = [("type = ?", kind), ("user = ?", user), ("ts >= ?", start), ("ts < ?", end)]
    given = [(text, value) for text, value in parts if value is not None]
    return " and ".join(text for text, _ in given), [value for _, value in given]


def _decoded(lines: Iterator[str | bytes]) -> list[int]:
    import msgspec

    decode = msgspec.json.Decoder().decode
    return [decode(line)["seq"] for line in lines]


def with_sqlite(home: Path) -> Ask:
    base = sqlite3.connect(f"file:{home / 'sqlite.db'}?mode=ro", uri=True)

    def ask(*asked) -> list[int]:
        where, values = _where(*asked)
        return _decoded(
            line
            for (line,) in base.execute(f"select line from log where {where} order by seq", values)  # noqa: S608  our own words
        )

    return ask


def with_duckdb(home: Path) -> Ask:
    import duckdb

    base = duckdb.connect()
    files = str(home / "parquet" / "*.parquet")

    def ask(*asked) -> list[int]:
        where, values = _where(*asked)
        found = base.execute(
            f"select line from read_parquet('{files}') where {where} order by seq",  # noqa: S608  our own words
            values,
        ).fetchall()
        return _decoded(line for (line,) in found)

    return ask


def with_polars(home: Path) -> Ask:
    import polars as pl

    frame = pl.scan_parquet(home / "parquet" / "*.parquet")

    def ask(kind, user, start, end) -> list[int]:
        tests = {
            "type": lambda column: column == kind,
            "user": lambda column: column == user,
            "from": lambda _: pl.col("ts") >= start,
            "to": lambda _: pl.col("ts") < end,
        }
        kept = frame
        for (name, test), value in zip(tests.items(), (kind, user, start, end), strict=True):
            if value is not None:
                kept = kept.filter(test(pl.col(name)))
        return _decoded(kept.select("seq", "line").sort("seq").collect()["line"])

    return ask


PEERS = {"sqlite3": with_sqlite, "DuckDB": with_duckdb, "Polars": with_polars}


# -- measuring ------------------------------------------------------------------------------------------------------


def drop_pages(home: Path) -> None:
    """Ask the kernel to forget the files' pages; it may decline."""
    for path in home.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def measured(ask: Ask, asked: tuple) -> tuple[float, float]:
    """Median wall time and least CPU time of `WARM_ROUNDS` answers, ms; on a busy machine the latter says more."""
    walls, busies = [], []
    for _ in range(WARM_ROUNDS):
        busy = time.process_time()
        walls.append(once(ask, asked))
        busies.append((time.process_time() - busy) * 1e3)
    return median(walls), min(busies)


def once(ask: Ask, asked: tuple) -> float:
    start = time.perf_counter()
    ask(*asked)
    return (time.perf_counter() - start) * 1e3


def figures(home: Path, label: str, asked: tuple, bar: str) -> list[dict]:
    """Cold and warm, beside every peer that is installed."""
    makers = {"holdfast": ours, **PEERS}
    cold, warm, busy, missing = {}, {}, {}, {}
    expected: list[int] | None = None
    unremembered = 0.0
    for name, make in makers.items():
        drop_pages(home)
        try:
            start = time.perf_counter()
            ask = make(home)
            found = ask(*asked)
            cold[name] = (time.perf_counter() - start) * 1e3
        except ImportError as why:
            missing[name] = why.name
            continue
        expected = found if expected is None else expected
        assert found == expected, f"{name} finds {len(found)} records, not {len(expected)}"
        warm[name], busy[name] = measured(ask, asked)
        if name == "holdfast":
            unremembered = median(_forgetful(ask, asked) for _ in range(5))
    assert expected
    beside = {
        kind: ", ".join(
            [f"{name} {took[name]:.1f} ms" for name in PEERS if name in took]
            + [f"{name} missing" for name in missing]
        )
        for kind, took in (("warm", warm), ("cold", cold))
    }
    beside["warm"] += f"; least CPU time {busy['holdfast']:.1f} ms, sqlite3 {busy['sqlite3']:.1f} ms"
    what = f"{label}, {len(expected):,} records"
    rows = [
        ("warm", warm["holdfast"], beside["warm"], warm["sqlite3"], bar),
        ("warm, lines read and unpacked anew", unremembered, beside["warm"], warm["sqlite3"], ""),
        ("cold", cold["holdfast"], beside["cold"], cold["sqlite3"], ""),
    ]
    return [
        {
            "name": f"{what}: {kind}",
            "value": took,
            "unit": "ms",
            "beside": others,
            "ratio": took / peer,
            "bar": limit,
        }
        for kind, took, others, peer, limit in rows
    ]


def _forgetful(ask: Ask, asked: tuple) -> float:
    searcher = ask.reader._searcher
    searcher._lines.clear()
    searcher._line_bytes = 0
    return once(ask, asked)


def bytes_of_indexes(home: Path, records: int) -> dict:
    size = sum(path.stat().st_size for path in (home / "log").glob("*.idx"))
    packed = sum(path.stat().st_size for path in (home / "log").glob("*.gz"))
    return {
        "name": f"index files of {records:,} records",
        "value": size / records,
        "unit": "bytes/rec",
        "beside": f"compressed log {packed / records:.1f} bytes/rec; sqlite3 {(home / 'sqlite.db').stat().st_size / records:.0f}",
        "ratio": size / packed,
        "bar": "",
    }


def run() -> list[dict]:
    """Each row has name, value, unit, beside, ratio (to sqlite3) and bar."""
    million = made("1m", 1_000_000, 100, 6)
    window = (START_NS + 600_000 * STEP_NS, START_NS + 610_000 * STEP_NS)
    rows = figures(million, "1 % window of 1 M, one user and type", ("TRADE", "desk-7", *window), "<= 10 ms")
    rows += figures(million, "1 % window of 1 M, all of it", (None, None, *window), "")
    ten = made("10m", 10_000_000, 2000, 10)
    rows += figures(ten, "one user's TRADEs in 10 M", ("TRADE", "desk-7", None, None), "<= 10 ms")
    rows.append(bytes_of_indexes(ten, 10_000_000))
    return rows


if __name__ == "__main__":
    for row in run():
        print(
            f"{row['name']:78} {row['value']:9.2f} {row['unit']:9} x {row['ratio']:6.2f}  {row['bar']:9} {row['beside']}"
        )

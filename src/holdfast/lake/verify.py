"""Whether a lake says what its journals say: every row, by its sequence.

    journal ── made_of ─▶ rows ── hash ──┐
                                          ├─▶ joined by sequence: missing, duplicate, foreign, changed
    lake ── newest version's files ─ hash ┘

Promise: every row of the newest version is compared in all its columns with the row that the journal's record gives,
up to the sequence that each table says it covers (`holdfast:<log id>`); it works beside a running projector, and
changes nothing. A journal that no table knows is named with all its records. What the kept commits claim of themselves
(how many rows, and the RFC 9162 root over the records they come from) is held against the journal too, and what the
newest version claims of each file, which readers skip it by, against the file's rows. A file that cannot be read is
named, and its rows are missing.

Rows are compared by 64-bit hashes under a seed drawn for each run: nobody can prepare a row that passes, and two
different rows pass for one with a chance of 5e-20.

A row says in `schema_version` by which version of its record's schema it was made: earlier ones pass for ours, so that
an upgrade asks for no rebuild, as long as they say what this version says.

Limits: the journal is believed; whether it is whole is what `holdfast audit verify` says. Records that were pruned
are compared only where their archive is given. Rows of journals that were not named are counted, not compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from holdfast.audit.pruned import InArchive
from holdfast.audit.tree import Frontier
from holdfast.core.errors import LakeDamaged
from holdfast.lake.ahead import PIECE_RECORDS, ReadAhead
from holdfast.lake.claims import Claims
from holdfast.lake.columns import Made
from holdfast.lake.commit import app_id
from holdfast.lake.extras import load
from holdfast.lake.filestats import Claimed, Counted, claims_of
from holdfast.lake.findings import MOST_RANGES, Compared, Finding, Range, Report
from holdfast.lake.joined import JoinedJournal, journals_of
from holdfast.lake.store import LakeStore
from holdfast.lake.tables import TABLES, LakeTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

MOST_COMMITS = 10_000
"""Of so many kept commits of a table the claims are compared."""


class _Table:
    """One table of the lake: the version that is compared, and the hash of each of its rows."""

    def __init__(self, kind: type[LakeTable], delta: DeltaTable) -> None:
        self.kind = kind
        self.delta = delta
        self.rows = pl.DataFrame(schema=_HASHED)
        self.history: list[dict[str, Any]] = []

    def covered(self, log_id: str) -> int:
        return self.delta.transaction_version(app_id(log_id)) or 0


_NOTHING = Claimed(None, {})
_HASHED = {"writer_id": pl.String, "seq": pl.Int64, "version": pl.Int32, "hash": pl.UInt64}
_VERSION = "schema_version"


def verify_lake(
    store: LakeStore,
    logs: Sequence[Path],
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
    tell: Callable[[str], object] = lambda _: None,
) -> Report:
    """Compare the lake in *store* with the journals *logs*.

    Args:
        store: Where the lake lies.
        logs: The journals' directories; restored ones where they come from an archive.
        random_bytes: The seed of the hashes.
        tell: Is told of the progress, one sentence each.

    Raises:
        BadInput: There is no lake, or no such journal.
        LakeDamaged: The log of a table cannot be read.
        AuditCorruption: A journal is damaged.
        LakeUnreachable: The store gave no usable answer.
    """
    findings: list[Finding] = []
    tables = _open_all(store, findings)
    # The newest versions first, then the journals: a running projector covers nothing that was not durable before.
    readers = journals_of(logs)
    seed = int.from_bytes(random_bytes(8))
    for table in tables.values():
        _hash_rows(store, table, seed, findings)
        _read_history(store, table, findings)
        tell(f"{table.kind.name}: version {table.delta.version()}, {table.rows.height:,} rows read")
    compared: list[Compared] = []
    for reader in readers:
        if tables and not any(table.covered(reader.log_id) for table in tables.values()):
            findings.append(_unknown(reader))
        compared += _compare(reader, tables, seed, findings, tell)
    others = _rows_of_others(tables, [reader.log_id for reader in readers], findings)
    return Report(
        lake=str(store),
        versions={name: table.delta.version() for name, table in tables.items()},
        compared=tuple(compared),
        others=others,
        findings=tuple(findings),
    )


def _rows_of_others(
    tables: Mapping[str, _Table], known: Sequence[str], findings: list[Finding]
) -> dict[str, int]:
    """How many rows each table has of journals that it covers and that are none of *known*; 0 is left out."""
    others: dict[str, int] = {}
    for name, table in tables.items():
        unnamed = table.rows.filter(~pl.col("writer_id").is_in(known))
        vouched = [one for one in unnamed["writer_id"].unique() if table.covered(one)]
        if count := unnamed.filter(pl.col("writer_id").is_in(vouched)).height:
            others[name] = count
        if count := unnamed.height - count:
            what = f"{count:,} rows are of no journal that the table covers"
            findings.append(Finding(kind="foreign", table=name, count=count, what=what))
    return others


def require_schema(store: LakeStore, kind: type[LakeTable], delta: DeltaTable) -> None:
    """Refuse a table that has not *kind*'s columns.

    Raises:
        LakeDamaged: A column has another type, or one that every row must have is missing; columns of later versions
            pass, and so do those that came since an earlier one.
    """
    arrow: Any = load("pyarrow").schema(delta.schema().to_arrow())
    for field in kind.schema():
        at = arrow.get_field_index(field.name)
        found = None if at < 0 else _plain_type(str(arrow.field(at).type))
        if found != str(field.type) and not (found is None and field.nullable):
            is_what = "is missing" if found is None else f"is {found}, expected {field.type}"
            raise LakeDamaged(
                f"lake {store}: table {kind.name!r} has another schema: column {field.name!r} {is_what}",
                hint="this is not the table that holdfast wrote; choose another place, or `holdfast lake rebuild`",
            )


# -- the lake's side --------------------------------------------------------------------------------------------


def _open_all(store: LakeStore, findings: list[Finding]) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    absent: list[Finding] = []
    for kind in TABLES:
        if not store.has(kind.name):
            absent.append(Finding(kind="missing", table=kind.name, what="the table is not there"))
            continue
        delta = store.open(kind.name)
        try:
            require_schema(store, kind, delta)
        except LakeDamaged as why:
            findings.append(Finding(kind="schema", table=kind.name, what=str(why)))
            continue
        tables[kind.name] = _Table(kind, delta)
    if not tables and not findings:
        store.open(TABLES[0].name)  # says by name that there is no table
    findings += absent
    return tables


def _plain_type(name: str) -> str:
    """The name of an Arrow type, the views of newer readers told as what they hold."""
    return name.replace("large_", "").replace("_view", "")


def _hash_rows(store: LakeStore, table: _Table, seed: int, findings: list[Finding]) -> None:
    hashed: list[pl.DataFrame] = []
    columns, schema = list(table.kind.column_names()), table.kind.schema()
    with store.failures("read its files"):
        claims = claims_of(table.delta)
    for fragment in fragments_of(store, table.delta):
        path = unquote(str(fragment.path))
        name, counted = path.rpartition("/")[2], Counted(claims.get(path, _NOTHING))
        try:
            for batch in fragment.to_batches(schema=schema, columns=columns, batch_size=PIECE_RECORDS):
                frame = pl.DataFrame(batch)
                counted.take(frame)
                hashed.append(_hashed(frame, seed))
        except (OSError, ValueError) as why:  # Arrow's own errors are ValueErrors
            what = f"file {name} cannot be read: {str(why).splitlines()[0][:160]}"
            findings.append(Finding(kind="unreadable", table=table.kind.name, what=what))
            continue
        for untrue in counted.untrue():
            what = f"file {name} {untrue}"
            findings.append(Finding(kind="statistics", table=table.kind.name, what=what))
    if hashed:
        table.rows = pl.concat(hashed)


def _read_history(store: LakeStore, table: _Table, findings: list[Finding]) -> None:
    """The kept commits, of which the rows need none that a checkpoint covers."""
    try:
        with store.failures("read its history"):
            table.history = table.delta.history(MOST_COMMITS)
    except LakeDamaged as why:
        findings.append(Finding(kind="unreadable", table=table.kind.name, what=str(why)))


def fragments_of(store: LakeStore, delta: DeltaTable) -> list[Any]:
    """The files of the version that *delta* shows, as Arrow's fragments."""
    table: Any = delta
    with store.failures("read its files"):
        return list(table.to_pyarrow_dataset().get_fragments())


def _hashed(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    # Where another hand left them empty: no journal, no sequence that a journal has, no version.
    place = frame.select(
        pl.col("writer_id").fill_null(""), pl.col("seq").fill_null(-1), version=pl.col(_VERSION).fill_null(0)
    )
    return place.with_columns(hash=frame.drop(_VERSION).hash_rows(seed=seed))


# -- the journal's side -----------------------------------------------------------------------------------------


def _unknown(reader: JoinedJournal) -> Finding:
    return Finding(
        kind="unknown",
        table="",
        log_id=reader.log_id,
        count=reader.durable,
        ranges=(Range(1, reader.durable),),
        what=f"nothing of log {reader.log_id} is in the lake: {reader.durable:,} records are missing",
    )


class _Expected:
    """What one journal gives one table: its rows' hashes and what its commits claim."""

    def __init__(self, table: _Table, log_id: str, seed: int) -> None:
        self.table = table
        self.covered = table.covered(log_id)
        self.frontier = Frontier()
        self.hashed: list[pl.DataFrame] = []
        self.claims = Claims(table.kind.name, table.history, log_id)
        self._seed = seed

    def take(self, made: Made) -> None:
        made = made.until(self.covered)
        if made.seqs:
            self.frontier.extend(made.leaves)
            self.claims.take(made.seqs, made.leaves)
            self.hashed.append(_hashed(pl.DataFrame(made.rows), self._seed))


def _compare(
    reader: JoinedJournal,
    tables: Mapping[str, _Table],
    seed: int,
    findings: list[Finding],
    tell: Callable[[str], object],
) -> Iterator[Compared]:
    expected = {name: _Expected(table, reader.log_id, seed) for name, table in tables.items()}
    until = max((one.covered for one in expected.values()), default=0)
    first = _read_records(reader, expected, until, tell)
    for name, one in expected.items():
        mine = tables[name].rows.filter(pl.col("writer_id") == reader.log_id)
        findings += _differences(name, reader.log_id, mine, one, first)
        findings += one.claims.findings(first)
        if one.covered > reader.durable:
            what = f"covers sequence {one.covered}, and the journal ends at {reader.durable}"
            beyond = (Range(reader.durable + 1, one.covered),)
            findings.append(Finding(kind="ahead", table=name, log_id=reader.log_id, ranges=beyond, what=what))
        yield Compared(
            table=name,
            log_id=reader.log_id,
            rows=mine.height,
            expected=one.frontier.size,
            covered=one.covered,
            journal=reader.durable,
            first_compared=first,
            root=one.frontier.root().hex(),
        )


def _read_records(
    reader: JoinedJournal, expected: Mapping[str, _Expected], until: int, tell: Callable[[str], object]
) -> int:
    """Give each record's row to its table; the first sequence that is still in the journal."""
    first = 1
    try:
        reader.seek(1)
    except InArchive as why:
        first = why.last_seq + 1
        reader.seek(first)
    seq = first - 1
    with ReadAhead(reader, PIECE_RECORDS) as ahead:
        while seq < until and (read := ahead.take()) is not None:
            for table, made in read.made.items():
                if table.name in expected:
                    expected[table.name].take(made)
            if read.last_seq // 1_000_000 > seq // 1_000_000:
                tell(f"journal {reader.log_id[:8]}: {read.last_seq:,} of {until:,} records read")
            seq = read.last_seq
    reader.close()
    return first


def _differences(
    name: str, log_id: str, mine: pl.DataFrame, expected: _Expected, first: int
) -> Iterator[Finding]:
    wanted = pl.concat(expected.hashed) if expected.hashed else pl.DataFrame(schema=_HASHED)
    mine = mine.filter((pl.col("seq") >= first) | (pl.col("seq") < 1))
    twice = mine.filter(pl.col("seq").is_duplicated())["seq"].unique().sort()
    both = wanted.join(mine, on="seq", how="left", suffix="_lake")
    missing = both.filter(pl.col("hash_lake").is_null())["seq"]
    is_version = pl.col("version_lake").is_between(1, pl.col("version"))
    changed = both.filter((pl.col("hash") != pl.col("hash_lake")) | ~is_version)["seq"].unique()
    foreign = mine.join(wanted, on="seq", how="anti")["seq"].unique()
    for kind, sequences, sentence in (
        ("missing", missing, "rows are missing"),
        ("duplicate", twice, "rows stand there more than once"),
        ("changed", changed, "rows say something else than their records"),
        ("foreign", foreign, "rows have no record in the journal"),
    ):
        if sequences.len():
            yield Finding(
                kind=kind,
                table=name,
                log_id=log_id,
                count=sequences.len(),
                ranges=tuple(_ranges(sequences.sort().to_list())),
                what=f"{sequences.len():,} {sentence}",
            )


def _ranges(sequences: Iterable[int]) -> list[Range]:
    found: list[Range] = []
    for seq in sequences:
        if found and found[-1].last + 1 == seq:
            found[-1] = Range(found[-1].first, seq)
        elif len(found) == MOST_RANGES:
            break
        else:
            found.append(Range(seq, seq))
    return found

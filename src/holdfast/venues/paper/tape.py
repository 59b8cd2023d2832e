"""Recordings as a feed: what was shown and traded, when it was, and nothing that was not known yet.

Two schemas are recognised by their columns, whatever the file is called:

* *depth* (one market per parquet file: i, kind, sid, seq, ts_us, side, price_e4, qty_e2, trade_id). `seq` counts
  per subscription over all its markets, so files of one date are merged by it; a trade, which another
  subscription delivered, stays behind the book message it followed. Time is the exchange's, held
  from falling: snapshots carry none, trades only whole seconds. A snapshot without levels at the end = closed.
* *prints* (many markets per file: ts_s, ticker, taker_side, yes_price_e4, qty, and spx_e2 for settlement).

A folder plays all its parquet files, which must be of one schema, in time order. Each file is checked as a whole
before the first event: columns, values, rising seq, and that no level ever becomes negative.

Settlement needs a supplied result. Depth: the last trade before the close at 0.95 or above is yes, at 0.05 or
below no, anything else leaves the market closed and undetermined. Prints: the last index value at most
`INDEX_AGE_SECS` before 16:00 New York of the ticker's date against the strike in the ticker ("T6899.9999": above;
"B6787": the 25-point bucket that holds 6787). DETERMINED follows CLOSED by `DETERMINED_AFTER_NS`, FINALIZED
that by `FINALIZED_AFTER_NS`: shorter than at the venue, so that a run sees them.

Events are built from columns as they are asked for.
"""

# The signatures of polars name numpy types, and numpy is not installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import polars as pl

from holdfast.core.errors import BadInput
from holdfast.core.instruments import PriceRange
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2
from holdfast.core.signals import Side
from holdfast.venues.decoding import Decoder
from holdfast.venues.paper.events import (
    Delta,
    Feed,
    FeedKind,
    FeeType,
    Levels,
    Lifecycle,
    MarketEvent,
    MarketSpec,
    MarketStatus,
    Print,
    Snapshot,
)

DETERMINED_AFTER_NS: Final = 60_000_000_000
FINALIZED_AFTER_NS: Final = 60_000_000_000
INDEX_AGE_SECS: Final = 300
YES_FROM_E4: Final = 9_500
NO_UP_TO_E4: Final = 500

_LAST_SECS: Final = 4_102_444_800
_DAY_NS: Final = 86_400_000_000_000
_BATCH_ROWS: Final = 16_384
_SIDES: Final = {"yes": Side.YES, "no": Side.NO}
_DATE = re.compile(r"-(\d{2})([A-Z]{3})(\d{2})")
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# KXINXU asks "above T...", KXINX "in the bucket B..."; the open ends of KXINX name no side, so they have no result.
_INDEX_TICKER = re.compile(
    r"KXINX(?:U-\d{2}[A-Z]{3}\d{2}H1600-(?P<above>T)|-\d{2}[A-Z]{3}\d{2}H1600-B)(?P<strike>\d{3,6}(?:\.\d{1,4})?)"
)

# Which series' markets exclude each other, and where makers pay (source: data/kalshi/universe, events index).
_EXCLUSIVE_SERIES: Final = re.compile(r"KX[A-Z]+GAME|KXINX")
_MAKER_FEE_SERIES: Final = re.compile(r"KX[A-Z]+GAME")

_DEPTH_COLUMNS: Final[Mapping[str, type[pl.DataType]]] = {
    "i": pl.Int64,
    "kind": pl.String,
    "sid": pl.Int64,
    "seq": pl.Int64,
    "ts_us": pl.Int64,
    "side": pl.String,
    "price_e4": pl.Int64,
    "qty_e2": pl.Int64,
    "trade_id": pl.String,
}
_PRINT_COLUMNS: Final[Mapping[str, type[pl.DataType]]] = {
    "ts_s": pl.Int64,
    "ticker": pl.String,
    "taker_side": pl.String,
    "yes_price_e4": pl.Int64,
    "qty": pl.Int64,
}
_PLAYED_COLUMNS: Final = ("ticker", "i", "kind", "ts", "side", "price_e4", "qty_e2", "trade_id")
_INDEX_COLUMN: Final[Mapping[str, type[pl.DataType]]] = {"spx_e2": pl.Int64}


def open_feed(
    path: str | Path,
    tickers: Iterable[str] | None = None,
    start: int | None = None,
    end: int | None = None,
) -> Feed:
    """The recording in a file, or in all parquet files of a folder, checked and ready to play.

    Args:
        path: A parquet file or a folder (searched with its subfolders).
        tickers: Only these markets; default all.
        start: Market time in UTC ns to begin at: books are shown as they stood, earlier prints are not.
        end: Market time in UTC ns; later events are left out, and with them settlements.

    Raises:
        BadInput: Missing, damaged, of another schema, or nothing left after the selection; names the file.
    """
    root = Path(path)
    wanted = None if tickers is None else frozenset(tickers)
    found, tables = _tables(root, wanted)
    kinds = {source.kind for source in found}
    known = frozenset(chain.from_iterable(table.tickers for table in tables))
    if wanted is not None and not wanted <= known:
        held = sorted(known | {source.ticker for source in found if source.ticker})
        some = ", ".join(held[:6])
        _refuse(root, f"does not hold market {min(wanted - known)!r}", f"it holds {len(held)}: {some}")
    chosen = known if wanted is None else wanted
    tape = _depth_tape if kinds == {FeedKind.DEPTH} else _print_tape
    feed = tape(root, tables, chosen, start, end)
    if next(iter(feed), None) is None:
        _refuse(root, "holds no event between start and end", "widen the selection")
    return feed


class Tape:
    """A recording being played: a `Feed`. Made by `open_feed`."""

    def __init__(
        self,
        *,
        name: str,
        kind: FeedKind,
        markets: Sequence[MarketSpec],
        rows: int,
        start_ns: int,
        end_ns: int,
        play: Callable[[], Iterator[MarketEvent]],
    ) -> None:
        self.name = name
        self.kind = kind
        self.markets = tuple(markets)
        self.rows = rows
        self.start_ns = start_ns
        self.end_ns = end_ns
        self._play = play

    def __iter__(self) -> Iterator[MarketEvent]:
        return self._play()

    def describe(self) -> str:
        """One line for people: what is played, how much of it, when."""
        begin, end = (
            datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M")
            for ns in (self.start_ns, self.end_ns)
        )
        return f"recording {self.name!r}: {len(self.markets)} markets, {self.kind.value}, {self.rows:,} rows, {begin} to {end} UTC"


# Reading and recognising.


class _Source(NamedTuple):
    """One file, recognised: its kind, the columns to read, and on depth files its market, else ""."""

    file: Path
    kind: FeedKind
    columns: Mapping[str, type[pl.DataType]]
    ticker: str


class _Table(NamedTuple):
    """One file, read and checked."""

    file: Path
    frame: pl.DataFrame
    tickers: frozenset[str]


def _refuse(path: Path, reason: str, hint: str) -> NoReturn:
    raise BadInput(f"recording {str(path)!r} {reason}", hint=hint)


def _tables(root: Path, wanted: frozenset[str] | None) -> tuple[list[_Source], list[_Table]]:
    """What was found, all of one kind, and of it what is wanted, read."""
    files = _files(root)
    with Decoder() as decoder:
        found = [_recognise(decoder, file) for file in files]
        first = {source.kind: source.file.name for source in reversed(found)}
        if len(first) > 1:
            _refuse(
                root,
                f"mixes full depth ({first[FeedKind.DEPTH]!r}) with prints ({first[FeedKind.PRINTS]!r})",
                "name one of the folders or files inside it",
            )
        # A depth file names its market, so those that are not wanted need not be read.
        chosen = [source for source in found if wanted is None or source.ticker in {*wanted, ""}]
        return found, [_read(decoder, source) for source in chosen]


def _stop(error: OSError) -> NoReturn:
    """A folder that cannot be read is no empty one: half a recording is none."""
    raise error


def _files(root: Path) -> list[Path]:
    try:
        if root.is_file():
            return [root]
        if not root.is_dir():
            _refuse(root, "does not exist", "name a parquet file or a folder that holds some")
        files = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(root, onerror=_stop)
            for name in names
            if name.endswith(".parquet")
        )
    except OSError as error:
        raise BadInput(
            f"recording {str(error.filename or root)!r} cannot be read: {error.strerror}",
            hint="check the permissions",
        ) from error
    if not files:
        _refuse(root, "holds no parquet file", "name the folder of one recording, such as kalshi/spx-tape")
    return files


def _recognise(decoder: Decoder, file: Path) -> _Source:
    contents = decoder.contents(file)
    names = contents.columns
    if names >= set(_DEPTH_COLUMNS):
        ticker = contents.metadata.get("market_ticker") or file.stem
        return _Source(file, FeedKind.DEPTH, _DEPTH_COLUMNS, ticker)
    if names >= set(_PRINT_COLUMNS):
        index = _INDEX_COLUMN if names >= set(_INDEX_COLUMN) else {}
        return _Source(file, FeedKind.PRINTS, {**_PRINT_COLUMNS, **index}, "")
    missing = sorted(set(_DEPTH_COLUMNS) - names)
    _refuse(
        file,
        f"is of no known schema: it lacks {', '.join(missing[:4])}",
        "playable are full-depth files (kalshi/l2-...) and print tapes (kalshi/spx-tape)",
    )


def _read(decoder: Decoder, source: _Source) -> _Table:
    file, columns = source.file, source.columns
    try:
        frame = decoder.frame(file, list(columns)).select(
            pl.col(name).cast(dtype) for name, dtype in columns.items()
        )
        return _checked(source, frame)
    except pl.exceptions.PolarsError as error:  # a column of another kind
        reason = str(error).split("\n", 1)[0]
        raise BadInput(f"recording {str(file)!r} is damaged: {reason}", hint="restore the file") from error


def _checked(source: _Source, frame: pl.DataFrame) -> _Table:
    file = source.file
    if frame.is_empty():
        _refuse(file, "holds no rows", "restore the file")
    if source.kind is FeedKind.DEPTH:
        _check_depth(file, frame)
        return _Table(file, frame.with_columns(ticker=pl.lit(source.ticker)), frozenset({source.ticker}))
    _check_prints(file, frame)
    return _Table(file, frame, frozenset(frame["ticker"].unique().to_list()))


def _check_rows(file: Path, frame: pl.DataFrame, checks: dict[str, pl.Expr]) -> None:
    """Refuse the file at the first row for which a check is not true; unknown (null) is not true."""
    for reason, fine in checks.items():
        bad = frame.select(fine.fill_null(value=False).not_().arg_true().first()).item()
        if bad is not None:
            _refuse(file, f"is damaged at row {bad}: {reason}", "restore the file")


def _check_depth(file: Path, frame: pl.DataFrame) -> None:
    kind, price, qty = pl.col("kind"), pl.col("price_e4"), pl.col("qty_e2")
    bare = (kind == "snapshot") & pl.col("side").is_null() & price.is_null() & qty.is_null()
    trade, snapshot = kind == "trade", kind == "snapshot"
    _check_rows(
        file,
        frame,
        {
            "kind is not snapshot, delta or trade": kind.is_in(["snapshot", "delta", "trade"]),
            "i, sid or seq is missing": pl.all_horizontal(pl.col("i", "sid", "seq").is_not_null()),
            "the first message is not a snapshot": (pl.int_range(pl.len()) > 0) | snapshot | trade,
            "side is not yes or no": bare | pl.col("side").is_in(["yes", "no"]),
            "price outside 0 to 10000 (1/10,000 dollar)": bare | price.is_between(1, 9_999),
            "quantity is missing, zero or negative": bare
            | pl.when(kind == "delta").then(qty != 0).otherwise(qty > 0),
            "time is missing or beyond 2100": snapshot
            | pl.col("ts_us").is_between(1, _LAST_SECS * 1_000_000),
            "trade_id is missing": ~trade | pl.col("trade_id").is_not_null(),
            "message number goes back": pl.col("i") >= pl.col("i").shift(1, fill_value=-1),
            "seq does not rise": _rises(),
        },
    )
    if frame.filter(trade.not_()).is_empty():
        _refuse(file, "holds no order book", "restore the file")
    # Every snapshot begins the book anew; from there each level is a running sum.
    levels = (
        frame.with_row_index("row")
        .with_columns(first=snapshot & (pl.col("i") != pl.col("i").shift(1, fill_value=-1)))
        .with_columns(epoch=pl.col("first").cum_sum())
        .filter(trade.not_() & price.is_not_null())
        .with_columns(level=qty.cum_sum().over("epoch", "side", "price_e4"))
    )
    negative = levels.filter(pl.col("level") < 0)
    if negative.height:
        _refuse(
            file,
            f"is damaged at row {negative['row'][0]}: a level would become negative, so a message is missing",
            "restore the file",
        )


def _rises() -> pl.Expr:
    """Within a subscription seq rises from message to message; rows of one snapshot share it."""
    step = pl.col("seq").diff().over("sid")
    return step.is_null() | (step > 0) | ((step == 0) & (pl.col("i").diff().over("sid") == 0))


def _check_prints(file: Path, frame: pl.DataFrame) -> None:
    _check_rows(
        file,
        frame,
        {
            "ticker is missing": pl.col("ticker").is_not_null() & (pl.col("ticker") != ""),
            "time is missing or beyond 2100": pl.col("ts_s").is_between(1, _LAST_SECS),
            "taker_side is not yes or no": pl.col("taker_side").is_in(["yes", "no"]),
            "price outside 0 to 10000 (1/10,000 dollar)": pl.col("yes_price_e4").is_between(1, 9_999),
            "quantity is missing, zero or negative": pl.col("qty") > 0,
        },
    )


# What a ticker says.


class _Steps(NamedTuple):
    """The coarsest steps that hold everything recorded of a market."""

    price: PriceE4
    qty: QtyE2


def _steps(rows: pl.DataFrame, price: str, qty: pl.Expr) -> dict[str, _Steps]:
    """Whole cents and contracts where all are; else tenths of a cent (or finer) and hundredths of a contract."""
    fits = [(pl.col(price) % step == 0).all().alias(f"by_{step}") for step in (100, 10)]
    found = rows.group_by("ticker").agg(*fits, (qty % 100 == 0).all().alias("whole"))
    return {
        ticker: _Steps(PriceE4(100 if cents else 10 if tenths else 1), QtyE2(100 if whole else 1))
        for ticker, cents, tenths, whole in found.iter_rows()
    }


def _spec(ticker: str, last_ns: int, steps: _Steps) -> MarketSpec:
    """A market as far as its ticker, its steps and the venue's published structure tell; nothing from the end."""
    event, _, outcome = ticker.rpartition("-")
    event = event or ticker
    series = ticker.split("-", 1)[0]
    maker_fees = _MAKER_FEE_SERIES.fullmatch(series) is not None
    index = _INDEX_TICKER.fullmatch(ticker)
    date_ns = _date_ns(ticker)
    if index and date_ns is not None:
        close_ns = _four_pm_new_york(ticker)
        title = (
            f"S&P 500 at 16:00 New York {'above' if index['above'] else 'in the bucket of'} {index['strike']}"
        )
    else:
        # Kalshi's games close early, some days before their scheduled end.
        close_ns = last_ns // _DAY_NS * _DAY_NS + 2 * _DAY_NS if date_ns is None else date_ns + 3 * _DAY_NS
        title = f"{event}: {outcome}"
    return MarketSpec(
        ticker=ticker,
        event_ticker=event,
        series_ticker=series,
        title=title,
        yes_title=outcome,
        close_ns=close_ns,
        price_ranges=(PriceRange(PriceE4(0), ONE_DOLLAR_E4, steps.price),),
        qty_step=steps.qty,
        fee_type=FeeType.QUADRATIC_WITH_MAKER_FEES if maker_fees else FeeType.QUADRATIC,
        maker_fee_ppm=17_500 if maker_fees else 0,
        mutually_exclusive=_EXCLUSIVE_SERIES.fullmatch(series) is not None,
        initial_status=MarketStatus.INITIALIZED,
    )


def _date_ns(ticker: str) -> int | None:
    """Midnight UTC of the date in the ticker ("26MAR07"), in ns."""
    match = _DATE.search(ticker)
    if match is None or match[2] not in _MONTHS:
        return None
    try:
        day = datetime(2000 + int(match[1]), _MONTHS.index(match[2]) + 1, int(match[3]), tzinfo=UTC)
    except ValueError:
        return None
    return int(day.timestamp()) * 1_000_000_000


def _four_pm_new_york(ticker: str) -> int:
    """16:00 New York of the ticker's date, UTC ns; polars brings its own time zones."""
    naive = pl.Series([(_date_ns(ticker) or 0) + 16 * 3_600_000_000_000]).cast(pl.Datetime("ns"))
    return int(naive.dt.replace_time_zone("America/New_York").dt.epoch("ns").item())


def index_result(ticker: str, spx_e2: int) -> Side | None:
    """How an index market ends at an index level of *spx_e2* (x 100); None where the ticker names no strike."""
    match = _INDEX_TICKER.fullmatch(ticker)
    if match is None:
        return None
    whole, _, fraction = match["strike"].partition(".")
    strike_e4 = int(whole) * 10_000 + int(fraction.ljust(4, "0") or "0")
    level_e4 = spx_e2 * 100
    if match["above"]:
        return Side.YES if level_e4 > strike_e4 else Side.NO
    low_e4 = strike_e4 // 250_000 * 250_000
    return Side.YES if low_e4 <= level_e4 < low_e4 + 250_000 else Side.NO


def last_trade_result(yes_price: int | None) -> Side | None:
    """What the last trade before the close supplies; None between the bounds, or without any trade."""
    if yes_price is None:
        return None
    if yes_price >= YES_FROM_E4:
        return Side.YES
    return Side.NO if yes_price <= NO_UP_TO_E4 else None


def _settlement(ticker: str, closed_ns: int, result: Side | None) -> list[Lifecycle]:
    events = [Lifecycle(ticker, closed_ns, MarketStatus.CLOSED)]
    if result is not None:
        determined_ns = closed_ns + DETERMINED_AFTER_NS
        events += [
            Lifecycle(ticker, determined_ns, MarketStatus.DETERMINED, result),
            Lifecycle(ticker, determined_ns + FINALIZED_AFTER_NS, MarketStatus.FINALIZED, result),
        ]
    return events


class _Later:
    """Lifecycle events that fall due between the rows of a recording."""

    def __init__(self, events: Iterable[Lifecycle] = ()) -> None:
        self._order = 0
        self._heap: list[tuple[int, int, Lifecycle]] = []
        self.add(events)

    def add(self, events: Iterable[Lifecycle]) -> None:
        for event in events:
            self._order += 1
            heapq.heappush(self._heap, (event.ts_ns, self._order, event))

    def due(self, ts_ns: int) -> Iterator[Lifecycle]:
        """What falls before or at *ts_ns*."""
        while self._heap and self._heap[0][0] <= ts_ns:
            yield heapq.heappop(self._heap)[2]


# Full depth.


def _merge_depth(tables: Sequence[_Table]) -> pl.DataFrame:
    """Rows of one date in the order in which they arrived, with `ts` in ns that never falls."""
    is_trade = pl.col("kind") == "trade"
    frames = [
        # The book message each row follows or is.
        table.frame.with_columns(after=pl.when(is_trade.not_()).then(pl.col("seq")).forward_fill().cum_max())
        for table in tables
    ]
    # One number per message; several columns at once would cost a copy of them.
    message = (pl.col("seq") * 65_536 + pl.col("sid")).n_unique()
    messages = sum(frame.select(message).item() for frame in frames)
    rows = pl.concat(frames)
    if rows.select(message).item() == messages:
        trades = rows.filter(is_trade).sort("seq", maintain_order=True)
        rows = pl.concat([rows.filter(is_trade.not_()), trades.with_columns(pl.col("after").cum_max())])
        # Stable: after one book message its trades follow in their own order.
        rows = rows.sort("after", maintain_order=True)
    else:
        # Recorded by separate connections: only time relates them.
        file_ts = pl.col("ts_us").forward_fill().cum_max().backward_fill()
        rows = pl.concat([frame.with_columns(file_ts) for frame in frames]).sort("ts_us", maintain_order=True)
    return rows.select(
        "ticker",
        "i",
        "kind",
        (pl.col("ts_us").forward_fill().cum_max().backward_fill() * 1_000).alias("ts"),
        "side",
        "price_e4",
        "qty_e2",
        "trade_id",
    )


def _depth_tape(
    root: Path, tables: Sequence[_Table], chosen: frozenset[str], start: int | None, end: int | None
) -> Tape:
    groups: dict[int, list[_Table]] = {}
    for table in tables:
        (ticker,) = table.tickers
        if ticker in chosen:
            groups.setdefault(_date_ns(ticker) or 0, []).append(table)
    seen: dict[str, Path] = {}
    for table in chain.from_iterable(groups.values()):
        (ticker,) = table.tickers
        if ticker in seen:
            _refuse(table.file, f"records {ticker!r}, as {str(seen[ticker])!r} does", "keep one of them")
        seen[ticker] = table.file
    rows = pl.concat([_merge_depth(group) for _, group in sorted(groups.items())])
    # Sessions that overlap in time are interleaved; the sort is stable, so each keeps its own order.
    rows = rows.with_columns(pl.col("ts").cum_max().over("ticker")).sort("ts", maintain_order=True)
    if end is not None:
        rows = rows.filter(pl.col("ts") <= end)
    steps = _steps(rows, "price_e4", pl.col("qty_e2"))
    markets = [_spec(ticker, int(rows["ts"][-1]), steps[ticker]) for ticker in sorted(steps)]
    begin_ns, end_ns = _span(rows, start)
    # The last book message of a market tells whether an empty snapshot is its close.
    last_message = dict(
        rows.filter(pl.col("kind") != "trade").group_by("ticker").agg(pl.col("i").max()).rows()
    )

    def play() -> Iterator[MarketEvent]:
        events = _play_depth(rows, last_message)
        return events if start is None else _from(start, events)

    return Tape(
        name=root.name,
        kind=FeedKind.DEPTH,
        markets=markets,
        rows=rows.height,
        start_ns=begin_ns,
        end_ns=end_ns,
        play=play,
    )


def _span(rows: pl.DataFrame, start: int | None) -> tuple[int, int]:
    if rows.is_empty():
        return start or 0, start or 0
    first, last = int(rows["ts"][0]), int(rows["ts"][-1])
    return (first if start is None else max(first, start)), max(last, start or 0)


def _batches(rows: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in rows.select(columns).iter_slices(_BATCH_ROWS):
        yield from zip(*(column.to_list() for column in batch.get_columns()), strict=True)


def _play_depth(rows: pl.DataFrame, last_message: dict[str, int]) -> Iterator[MarketEvent]:
    later = _Later()
    opened: set[str] = set()
    last_trade: dict[str, int] = {}
    pending: _OpenSnapshot | None = None
    for ticker, number, kind, ts_ns, side, price, qty, trade_id in _batches(rows, _PLAYED_COLUMNS):
        if pending is not None and (pending.number != number or pending.ticker != ticker):
            yield from pending.events(opened, later, last_message, last_trade)
            pending = None
        yield from later.due(ts_ns)
        if kind == "delta":
            yield Delta(ticker, ts_ns, _SIDES[side], price, qty)
        elif kind == "trade":
            last_trade[ticker] = price
            yield Print(ticker, ts_ns, trade_id, _SIDES[side], price, qty)
        else:
            if pending is None:
                pending = _OpenSnapshot(ticker, number, ts_ns)
            if side is not None:
                pending.levels[_SIDES[side]].append((price, qty))
    if pending is not None:
        yield from pending.events(opened, later, last_message, last_trade)
    yield from later.due(1 << 63)


class _OpenSnapshot:
    """The rows of one snapshot message, while they are read."""

    def __init__(self, ticker: str, number: int, ts_ns: int) -> None:
        self.ticker = ticker
        self.number = number
        self.ts_ns = ts_ns
        self.levels: dict[Side, list[tuple[PriceE4, QtyE2]]] = {Side.YES: [], Side.NO: []}

    def events(
        self, opened: set[str], later: _Later, last_message: dict[str, int], last_trade: dict[str, int]
    ) -> Iterator[MarketEvent]:
        """The snapshot, with the opening before the first and the close after an empty last."""
        ticker = self.ticker
        if ticker not in opened:
            opened.add(ticker)
            yield Lifecycle(ticker, self.ts_ns, MarketStatus.ACTIVE)
        yield Snapshot(ticker, self.ts_ns, tuple(self.levels[Side.YES]), tuple(self.levels[Side.NO]))
        if not any(self.levels.values()) and last_message.get(ticker) == self.number:
            later.add(_settlement(ticker, self.ts_ns, last_trade_result(last_trade.get(ticker))))
            yield from later.due(self.ts_ns)


def _from(start: int, events: Iterator[MarketEvent]) -> Iterator[MarketEvent]:
    """Skip to *start*, keeping what was still true then: open markets and their books."""
    books: dict[str, dict[Side, dict[PriceE4, QtyE2]]] = {}
    state: dict[str, Lifecycle] = {}
    for event in events:
        if event.ts_ns >= start:
            for ticker, lifecycle in state.items():
                yield Lifecycle(ticker, start, lifecycle.status, lifecycle.result)
                book = books.get(ticker)
                if book is not None and lifecycle.status is MarketStatus.ACTIVE:
                    yield Snapshot(ticker, start, _levels(book[Side.YES]), _levels(book[Side.NO]))
            yield event
            yield from events
            return
        if isinstance(event, Lifecycle):
            state[event.ticker] = event
        elif isinstance(event, Snapshot):
            books[event.ticker] = {Side.YES: dict(event.yes_bids), Side.NO: dict(event.no_bids)}
        elif isinstance(event, Delta):
            level = books[event.ticker][event.side]
            level[event.price] = QtyE2(level.get(event.price, 0) + event.delta)


def _levels(book: dict[PriceE4, QtyE2]) -> Levels:
    return tuple((price, size) for price, size in sorted(book.items()) if size)


# Prints.


def _print_tape(
    root: Path, tables: Sequence[_Table], chosen: frozenset[str], start: int | None, end: int | None
) -> Tape:
    every = pl.concat([table.frame for table in tables], how="diagonal").sort("ts_s", maintain_order=True)
    every = every.with_columns(ts=pl.col("ts_s") * 1_000_000_000).with_row_index("row")
    rows = every.filter(pl.col("ticker").is_in(sorted(chosen)))
    if end is not None:
        rows = rows.filter(pl.col("ts") <= end)
    last_ns = 0 if rows.is_empty() else int(rows["ts"][-1])
    steps = _steps(rows, "yes_price_e4", pl.col("qty") * 100)
    markets = [_spec(ticker, last_ns, steps[ticker]) for ticker in sorted(steps)]
    settled = [event for spec in markets for event in _index_settlement(spec, every, last_ns)]
    if end is not None:
        settled = [event for event in settled if event.ts_ns <= end]
    begin_ns, end_ns = _span(rows, start)

    def play() -> Iterator[MarketEvent]:
        events = _play_prints(rows, settled)
        return events if start is None else _from(start, events)

    return Tape(
        name=root.name,
        kind=FeedKind.PRINTS,
        markets=markets,
        rows=rows.height,
        start_ns=begin_ns,
        end_ns=end_ns,
        play=play,
    )


def _index_settlement(spec: MarketSpec, every: pl.DataFrame, last_ns: int) -> list[Lifecycle]:
    """Close and result of one index market, as far as the recording reaches; [] for any other market."""
    if "spx_e2" not in every.columns or _INDEX_TICKER.fullmatch(spec.ticker) is None:
        return []
    oldest = spec.close_ns - INDEX_AGE_SECS * 1_000_000_000
    known = every.filter(pl.col("ts").is_between(oldest, spec.close_ns) & (pl.col("spx_e2") > 0))
    if known.is_empty():
        return [] if last_ns < spec.close_ns else _settlement(spec.ticker, spec.close_ns, None)
    return _settlement(spec.ticker, spec.close_ns, index_result(spec.ticker, int(known["spx_e2"][-1])))


def _play_prints(rows: pl.DataFrame, settled: Sequence[Lifecycle]) -> Iterator[MarketEvent]:
    later = _Later(settled)
    opened: set[str] = set()
    columns = ("row", "ticker", "ts", "taker_side", "yes_price_e4", "qty")
    for row, ticker, ts_ns, taker_side, price, qty in _batches(rows, columns):
        yield from later.due(ts_ns)
        if ticker not in opened:
            opened.add(ticker)
            yield Lifecycle(ticker, ts_ns, MarketStatus.ACTIVE)
        yield Print(ticker, ts_ns, f"{ticker}-{row}", _SIDES[taker_side], price, QtyE2(qty * 100))
    yield from later.due(1 << 63)

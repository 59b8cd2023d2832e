"""Recorded option quotes as a feed: minute bars of `*-quotes.parquet` beside `underlyings.parquet`.

A bar is stamped at its start and known at its close, a minute later; only the closing bid and ask with their sizes are
used. Days follow each other as they were. An option settles in cash if its style is European and by delivery if it is
American. The index level comes from its own bars, else from put-call parity: the median over the nearest expiry's
two-sided pairs. A stock is quoted as recorded, where its bars have no quote at the bar's low and high, with the bar's
volume as size.

What is read is checked before the first minute is played: columns, ranges, names, days, doubles. The first wrong row is
named with its file. A crossed, one-sided or sizeless quote is no damage: it is what was shown, and nothing trades on it.

Units and columns: `data/README.md` of the recordings.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import polars as pl

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import (
    ExerciseStyle,
    OptionTerms,
    Right,
    SettlementStyle,
)
from holdfast.venues.broker.feed import (
    MINUTE_NS,
    OPTION_FEE,
    OPTION_MULTIPLIER,
    Listing,
    Minute,
    Quote,
    Spot,
    closing_ns,
    day_of,
)
from holdfast.venues.decoding import Decoder

UNDERLYINGS: Final = "underlyings.parquet"
QUOTES: Final = "*-quotes.parquet"
LAST_DAY: Final = -1
"""As the day of a tape: the last one that is recorded."""
_MINUTE_MS: Final = 60_000
_NS_PER_MS: Final = 1_000_000
_LAST_MS: Final = 4_102_444_800_000
_MOST_E4: Final = 10**9
_MOST_SIZE: Final = 10**7
UNDERLYING_OF: Final[Mapping[str, str]] = {"SPXW": "SPX", "SPX": "SPX"}
"""Roots of option classes that are not their underlying's own symbol."""
_NO_STOCK: Final = frozenset({"SPX"})
_QUOTE_COLUMNS: Final = {
    "ts_ms": pl.Int64,
    "root": pl.String,
    "expiry": pl.Int32,
    "right": pl.String,
    "strike_e4": pl.Int32,
    "style": pl.String,
    "bid_c": pl.Int32,
    "ask_c": pl.Int32,
    "bid_sz": pl.Int32,
    "ask_sz": pl.Int32,
}
_SPOT_COLUMNS: Final = {
    "ts_ms": pl.Int64,
    "symbol": pl.String,
    "kind": pl.String,
    "h": pl.Int32,
    "l": pl.Int32,
    "c": pl.Int32,
    "volume": pl.Int64,
    "bid_c": pl.Int32,
    "ask_c": pl.Int32,
}
_KEY: Final = ["ts_ms", "root", "expiry", "right", "strike_e4"]


class _Stock(NamedTuple):
    """One minute of an underlying."""

    price: PriceE4
    quote: Quote | None


class OptionTape:
    """A recording of one or more days.

    Args:
        path: A folder, or one file of quotes with `underlyings.parquet` beside it.
        day: Play this day alone, yyyymmdd; 0 for all, LAST_DAY for the last one.

    Raises:
        BadInput: Nothing is recorded there (on that day), or a file is damaged.
    """

    def __init__(self, path: Path, *, day: int = 0) -> None:
        if not path.exists():
            raise BadInput(
                f"{str(path)!r} does not exist",
                hint=f"name a folder with {QUOTES}, here or in $HOLDFAST_DATA, or one such file",
            )
        files = _quote_files(path) if path.is_dir() else [path]
        if not files:
            raise BadInput(
                f"{str(path)!r} holds no {QUOTES}", hint="name the folder with the option recordings"
            )
        folder = path if path.is_dir() else path.parent
        with Decoder() as decoder:
            frame = pl.concat([_read_quotes(decoder, file) for file in files])
            self._stocks = _read_underlyings(decoder, folder / UNDERLYINGS)
        self._others: list[int] = []
        recorded = _days_of(frame)
        self.recorded = _symbols_of(frame, recorded)
        if day:
            played = max(recorded, default=0) if day == LAST_DAY else day
            self._others = [other for other in recorded if other != played]
            frame = frame.filter(pl.col("ts_ms").is_in(recorded.get(played, [])))
        if frame.is_empty():
            raise BadInput(
                f"{str(path)!r} holds no quotes{f' of {day}' if day else ''}",
                hint=f"recorded are: {', '.join(map(str, recorded)) or 'no days'}",
            )
        self._frame = frame.sort(_KEY)
        self._contracts = self._listed()
        symbols = dict.fromkeys(listing.underlying for listing in self._contracts.values())
        shares = tuple(Listing(ticker=symbol) for symbol in symbols if symbol not in _NO_STOCK)
        self.listings = shares + tuple(self._contracts.values())
        self.start_ns = int(self._frame.item(0, "ts_ms")) * _NS_PER_MS
        self._name = str(path.name)

    def describe(self) -> str:
        """One line for people."""
        days = sorted({day_of(ts * _NS_PER_MS) for ts in self._frame["ts_ms"].unique().to_list()})
        others = f" (other days: {', '.join(map(str, self._others))})" if self._others else ""
        return (
            f"option tape {self._name!r}: {self._frame.height:,} minute quotes of {len(self._contracts)} contracts on"
            f" {', '.join(day.isoformat() for day in days)}"
            f"{others}"
        )

    def __iter__(self) -> Iterator[Minute]:
        rows = self._frame.select(*_KEY, "bid_c", "bid_sz", "ask_c", "ask_sz").iter_rows()
        for ts_ms, of_minute in groupby(rows, key=lambda row: row[0]):
            ts_ns = ts_ms * _NS_PER_MS + MINUTE_NS
            options: list[Quote] = []
            symbols: dict[str, None] = {}
            for _, root, expiry, right, strike, bid, bid_size, ask, ask_size in of_minute:
                listing = self._contracts[root, expiry, right, strike]
                symbols[listing.underlying] = None
                options.append(
                    Quote(
                        listing.ticker,
                        PriceE4(bid or 0),
                        QtyE2(100 * bid_size if bid else 0),
                        PriceE4(ask or 0),
                        QtyE2(100 * ask_size if ask else 0),
                    )
                )
            yield self._minute(ts_ms, ts_ns, options, list(symbols))

    def _minute(self, ts_ms: int, ts_ns: int, options: list[Quote], symbols: list[str]) -> Minute:
        stocks: list[Quote] = []
        spots: list[Spot] = []
        for symbol in symbols:
            known = self._stocks.get((symbol, ts_ms))
            if known is not None:
                spots.append(Spot(symbol, known.price, "trade"))
                if known.quote is not None and symbol not in _NO_STOCK:
                    stocks.append(known.quote)
            else:
                implied = self._parity(symbol, options)
                if implied is not None:
                    spots.append(Spot(symbol, implied, "parity"))
        return Minute(ts_ns, (*stocks, *options), tuple(spots))

    def _parity(self, symbol: str, options: list[Quote]) -> PriceE4 | None:
        """Strike + call - put at the mids of the nearest expiry's pairs; None where there is no pair."""
        mids: dict[int, dict[tuple[int, Right], int]] = {}
        by_ticker = self._by_ticker
        for quote in options:
            terms = by_ticker[quote.ticker]
            if terms.underlying == symbol and 0 < quote.bid <= quote.ask:
                mids.setdefault(terms.expiry, {})[terms.strike, terms.right] = quote.bid + quote.ask
        for _, pairs in sorted(mids.items()):
            found = [
                strike + (twice - pairs[strike, Right.PUT]) / 2
                for (strike, right), twice in pairs.items()
                if right is Right.CALL and (strike, Right.PUT) in pairs
            ]
            if found:
                return PriceE4(round(median(found) / 100) * 100)
        return None

    def _listed(self) -> dict[tuple[str, int, str, int], Listing]:
        listed: dict[tuple[str, int, str, int], Listing] = {}
        self._by_ticker: dict[str, OptionTerms] = {}
        names = ["root", "expiry", "right", "strike_e4", "style"]
        contract: tuple[str, int, str, int, str]
        for contract in self._frame.select(names).unique().sort(names).iter_rows():
            root, expiry, right, strike, style = contract
            is_european = style == ExerciseStyle.EUROPEAN.value
            terms = OptionTerms(
                underlying=UNDERLYING_OF.get(root, root),
                root=root,
                expiry=expiry,
                right=Right(right),
                strike=PriceE4(strike),
                style=ExerciseStyle(style),
                settlement=SettlementStyle.CASH if is_european else SettlementStyle.PHYSICAL,
                expires_ns=closing_ns(_date(expiry)),
            )
            self._by_ticker[terms.ticker] = terms
            listed[root, expiry, right, strike] = Listing(
                ticker=terms.ticker, terms=terms, multiplier=OPTION_MULTIPLIER, fee=OPTION_FEE
            )
        return listed


def _quote_files(folder: Path) -> list[Path]:
    try:
        names = [file.name for file in folder.iterdir()]
    except OSError as error:
        raise BadInput(
            f"{str(folder)!r} cannot be read: {error.strerror}", hint="check the permissions"
        ) from error
    return [folder / name for name in sorted(fnmatch.filter(names, QUOTES))]


def _date(day: int) -> date:
    return date(day // 10_000, day // 100 % 100, day % 100)


def _days_of(frame: pl.DataFrame) -> dict[int, list[int]]:
    """The minutes that were recorded, by day, in order."""
    days: dict[int, list[int]] = {}
    for ts in frame["ts_ms"].unique().sort().to_list():
        days.setdefault(int(day_of(ts * _NS_PER_MS).strftime("%Y%m%d")), []).append(ts)
    return days


def _symbols_of(frame: pl.DataFrame, days: Mapping[int, list[int]]) -> dict[int, tuple[str, ...]]:
    """The underlyings of each day, in order."""
    day_of_ts = {ts: day for day, times in days.items() for ts in times}
    found: dict[int, set[str]] = {day: set() for day in days}
    quoted: Iterable[tuple[int, str]] = frame.select("ts_ms", "root").unique().iter_rows()
    for ts, root in quoted:
        symbol: str = UNDERLYING_OF.get(root) or root
        found[day_of_ts[ts]].add(symbol)
    return {day: tuple(sorted(symbols)) for day, symbols in found.items()}


def _read(decoder: Decoder, path: Path, columns: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    if not path.exists():
        raise BadInput(f"{str(path)!r} does not exist", hint="it lies beside the quotes")
    frame = decoder.frame(path)
    for name, kind in columns.items():
        found = frame.schema.get(name)
        if found != kind:
            raise BadInput(
                f"{str(path)!r}: column {name!r} is {found or 'missing'}, expected {kind()}",
                hint="that is no recording of options",
            )
    return frame.select(list(columns))


def _refuse_first(path: Path, frame: pl.DataFrame, wrong: Mapping[str, pl.Expr]) -> None:
    """Name the first row that any of *wrong* is true for.

    Raises:
        BadInput: There is one.
    """
    for what, is_wrong in wrong.items():
        rows = frame.with_row_index("row").filter(is_wrong.fill_null(value=True))
        if not rows.is_empty():
            row = rows.row(0, named=True)
            number = row.pop("row")
            raise BadInput(f"{str(path)!r}, row {number}: {what}: {row}", hint="the recording is damaged")


def _read_quotes(decoder: Decoder, path: Path) -> pl.DataFrame:
    frame = _read(decoder, path, _QUOTE_COLUMNS)
    price = {
        side: pl.col(side).is_not_null() & ~pl.col(side).is_between(1, _MOST_E4)
        for side in ("bid_c", "ask_c")
    }
    day = pl.col("expiry").cast(pl.String).str.to_date("%Y%m%d", strict=False)
    _refuse_first(
        path,
        frame,
        {
            "time is no whole minute before 2100": ~pl.col("ts_ms").is_between(1, _LAST_MS)
            | (pl.col("ts_ms") % _MINUTE_MS != 0),
            "root is no option class": ~pl.col("root").str.contains(r"^[A-Z][A-Z0-9.]{0,5}$"),
            "right is neither C nor P": ~pl.col("right").is_in(["C", "P"]),
            "style is neither american nor european": ~pl.col("style").is_in(["american", "european"]),
            "expiry is no day of this century": day.is_null()
            | ~pl.col("expiry").is_between(20_000_101, 20_991_231),
            "strike is not above 0 in steps of 0.001 USD": (pl.col("strike_e4") <= 0)
            | (pl.col("strike_e4") % 10 != 0),
            "bid is no price": price["bid_c"],
            "ask is no price": price["ask_c"],
            "size is negative or beyond belief": ~pl.col("bid_sz").is_between(0, _MOST_SIZE)
            | ~pl.col("ask_sz").is_between(0, _MOST_SIZE),
            "the same contract twice in a minute": pl.struct(_KEY).is_duplicated(),
            "quoted after its expiry": pl.from_epoch("ts_ms", "ms").dt.date() > day,
        },
    )
    return frame


def _read_underlyings(decoder: Decoder, path: Path) -> dict[tuple[str, int], _Stock]:
    """By symbol and start of the bar, ms."""
    frame = _read(decoder, path, _SPOT_COLUMNS)
    is_trade, is_quote = pl.col("kind") == "trade", pl.col("kind") == "quote"
    _refuse_first(
        path,
        frame,
        {
            "time is no whole minute before 2100": ~pl.col("ts_ms").is_between(1, _LAST_MS)
            | (pl.col("ts_ms") % _MINUTE_MS != 0),
            "kind is neither trade nor quote": ~(is_trade | is_quote),
            "trade without a price": is_trade
            & ~(
                pl.col("l").is_between(1, _MOST_E4).fill_null(value=False)
                & (pl.col("l") <= pl.col("c")).fill_null(value=False)
                & (pl.col("c") <= pl.col("h")).fill_null(value=False)
            ),
            "volume is negative": pl.col("volume").fill_null(0) < 0,
            "quote without a price": is_quote
            & ~(
                pl.col("bid_c").is_between(1, _MOST_E4).fill_null(value=False)
                & pl.col("ask_c").is_between(1, _MOST_E4).fill_null(value=False)
            ),
        },
    )
    quoted = {
        (symbol, ts_ms): (bid, ask)
        for symbol, ts_ms, bid, ask in frame.filter(is_quote)
        .select("symbol", "ts_ms", "bid_c", "ask_c")
        .iter_rows()
    }
    stocks: dict[tuple[str, int], _Stock] = {}
    for symbol, ts_ms, high, low, close, volume in (
        frame.filter(is_trade).select("symbol", "ts_ms", "h", "l", "c", "volume").iter_rows()
    ):
        bid, ask = quoted.get((symbol, ts_ms), (low, high))
        size = QtyE2(100 * (volume or 0))
        # A share trades in whole cents; a bar's extremes may have more places.
        quote = Quote(symbol, PriceE4(bid // 100 * 100), size, PriceE4(-(-ask // 100) * 100), size)
        stocks[symbol, ts_ms] = _Stock(PriceE4(close), quote)
    return stocks

"""Recorded option quotes as a feed; a damaged recording is refused by file and row."""

from __future__ import annotations

import errno
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from support.data import require

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.core.money import QtyE2
from holdfast.core.options import ExerciseStyle, SettlementStyle
from holdfast.core.orders import FillCause
from holdfast.venues.broker.engine import Engine
from holdfast.venues.broker.feed import MINUTE_NS, closing_ns, day_of
from holdfast.venues.broker.tape import LAST_DAY, OptionTape

pytestmark = pytest.mark.usefixtures("one_decoder")

TS_MS = 1_609_770_600_000
ROW = {
    "ts_ms": TS_MS,
    "root": "SPXW",
    "expiry": 20210106,
    "right": "C",
    "strike_e4": 37_000_000,
    "style": "european",
    "bid_c": 100_000,
    "ask_c": 110_000,
    "bid_sz": 4,
    "ask_sz": 7,
}
TRADE = {
    "ts_ms": TS_MS,
    "symbol": "SPX",
    "kind": "trade",
    "h": 37_100_000,
    "l": 36_900_000,
    "c": 37_000_000,
    "volume": 60,
    "bid_c": None,
    "ask_c": None,
}
NARROW = ["expiry", "strike_e4", "bid_c", "ask_c", "bid_sz", "ask_sz", "h", "l", "c"]


def written(folder, quotes, underlyings=(TRADE,)):
    def frame(rows):
        made = pl.DataFrame(rows, infer_schema_length=None)
        whole = made.with_columns(pl.col(name).cast(pl.Int32) for name in NARROW if name in made.columns)
        return whole.with_columns(pl.col("ts_ms").cast(pl.Int64))

    frame(quotes).write_parquet(folder / "x-quotes.parquet")
    frame([*underlyings]).with_columns(pl.col("volume").cast(pl.Int64)).write_parquet(
        folder / "underlyings.parquet"
    )
    return folder


def test_a_bar_is_known_at_its_close_with_its_closing_quote(tmp_path):
    """A minute after the stamp; sizes in 1/100 contract; an absent side is zero."""
    quotes = [ROW, ROW | {"right": "P", "bid_c": None, "bid_sz": 3}]
    tape = OptionTape(written(tmp_path, quotes))
    (minute,) = list(tape)
    assert minute.ts_ns == TS_MS * 1_000_000 + MINUTE_NS
    call, put = minute.quotes
    assert (call.bid, call.bid_size, call.ask, call.ask_size) == (100_000, 400, 110_000, 700)
    assert (put.bid, put.bid_size, put.ask, put.greeks) == (0, 0, 110_000, None)
    assert [(spot.symbol, spot.price, spot.source) for spot in minute.spots] == [("SPX", 37_000_000, "trade")]
    assert tape.start_ns < minute.ts_ns


def test_a_missing_index_level_comes_from_put_call_parity_of_the_nearest_expiry(tmp_path):
    """Strike + call - put at the mids; a farther expiry has no say."""
    quotes = [
        ROW,
        ROW | {"right": "P", "bid_c": 40_000, "ask_c": 50_000},
        ROW | {"expiry": 20210108},
        ROW | {"expiry": 20210108, "right": "P"},
    ]
    (minute,) = list(OptionTape(written(tmp_path, quotes, [TRADE | {"ts_ms": TS_MS - 60_000}])))
    assert [(spot.price, spot.source) for spot in minute.spots] == [(37_060_000, "parity")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ts_ms": TS_MS + 1}, "time is no whole minute"),
        ({"ts_ms": 9_223_372_036_854_720_000}, "time is no whole minute before 2100"),
        ({"root": "spx"}, "root is no option class"),
        ({"right": "X"}, "right is neither C nor P"),
        ({"style": "bermudan"}, "style is neither american nor european"),
        ({"expiry": 20210132}, "expiry is no day"),
        ({"expiry": 99991231}, "expiry is no day of this century"),
        ({"expiry": 20210101}, "quoted after its expiry"),
        ({"strike_e4": 0}, "strike is not above 0"),
        ({"bid_c": 0}, "bid is no price"),
        ({"bid_c": -100}, "bid is no price"),
        ({"ask_c": -1}, "ask is no price"),
        ({"bid_sz": -1}, "size is negative"),
        ({"right": None}, "right is neither C nor P"),
        ({}, "the same contract twice in a minute"),
    ],
)
def test_a_damaged_row_is_named_with_its_file(tmp_path, change, what):
    """File, row number and what is wrong with it."""
    folder = written(tmp_path, [ROW, ROW | {"ts_ms": TS_MS + 60_000}, ROW | change])
    with pytest.raises(BadInput, match=what) as caught:
        OptionTape(folder)
    assert "x-quotes.parquet" in str(caught.value)
    assert "row " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kind": "rumour"}, "kind is neither"),
        ({"c": None}, "trade without a price"),
        ({"l": 37_050_000}, "trade without a price"),
        ({"kind": "quote"}, "quote without a price"),
        ({"volume": -1}, "volume is negative"),
    ],
)
def test_a_damaged_underlying_is_named(tmp_path, change, what):
    """The second file is checked like the first."""
    with pytest.raises(BadInput, match=what):
        OptionTape(written(tmp_path, [ROW], [TRADE | change]))


def test_what_is_no_recording_is_refused(tmp_path):
    """No files, no parquet, a missing column, a day that is not there."""
    with pytest.raises(BadInput, match="holds no"):
        OptionTape(tmp_path)
    folder = written(tmp_path, [ROW])
    with pytest.raises(BadInput, match="holds no quotes of 20210105") as caught:
        OptionTape(folder, day=20210105)
    assert "recorded are: 2" in caught.value.hint
    (folder / "y-quotes.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BadInput, match="no parquet file"):
        OptionTape(folder / "y-quotes.parquet")
    pl.DataFrame({"ts_ms": [1]}).write_parquet(folder / "y-quotes.parquet")
    with pytest.raises(BadInput, match="column 'root' is missing"):
        OptionTape(folder)
    (folder / "y-quotes.parquet").unlink()
    (folder / "underlyings.parquet").unlink()
    with pytest.raises(BadInput, match="does not exist"):
        OptionTape(folder)


@pytest.mark.data
def test_the_recordings_play_as_they_were():
    """Five days, 142 contracts, 44,661 quotes; crossed and one-sided ones among them, none before its close."""
    tape = OptionTape(require("options"))
    minutes = list(tape)
    assert len(tape.listings) == 144
    options = [q for m in minutes for q in m.quotes if q.ticker not in {"SPY", "GOOG"}]
    assert len(options) == 44_661
    assert sum(q.bid > q.ask > 0 for q in options) == 7
    assert sum(not q.bid for q in options) == 8_750
    assert [m.ts_ns for m in minutes] == sorted({m.ts_ns for m in minutes})
    sources = Counter((spot.symbol, spot.source) for m in minutes for spot in m.spots)
    assert sources == {
        ("SPX", "trade"): 405,
        ("SPX", "parity"): 810,
        ("SPY", "trade"): 405,
        ("GOOG", "trade"): 391,
    }
    styles = {(one.terms.root, one.terms.style, one.terms.settlement) for one in tape.listings if one.terms}
    assert ("SPXW", ExerciseStyle.EUROPEAN, SettlementStyle.CASH) in styles
    assert ("GOOG", ExerciseStyle.AMERICAN, SettlementStyle.PHYSICAL) in styles
    one_day = OptionTape(require("options", "spy-20230803-quotes.parquet"))
    assert {day_of(m.ts_ns).isoformat() for m in one_day} == {"2023-08-03"}


@pytest.mark.data
def test_the_last_day_alone_names_the_others():
    """LAST_DAY plays the newest day; the line for people says which others there are."""
    tape = OptionTape(require("options"), day=LAST_DAY)
    assert {day_of(m.ts_ns).isoformat() for m in tape} == {"2023-08-03"}
    assert "on 2023-08-03 (other days: 20151223, 20210104, 20210105, 20210106)" in tape.describe()


@pytest.mark.data
def test_recorded_contracts_settle_in_cash_at_the_close_of_their_day():
    """On a day without index bars the settlement price is parity's; the call pays its intrinsic value at it."""
    tape = OptionTape(require("options"), day=20210106)
    book = Engine(tape)
    today = [one for one in tape.listings if one.terms is not None and one.terms.expiry == 20210106]
    for listing in today:
        book.account.positions[listing.ticker] = QtyE2(-100)
    for minute in tape:
        book.apply(minute)
    ends_ns = closing_ns(date(2021, 1, 6))
    last = next(m.spots[0].price for m in tape if m.ts_ns == ends_ns)
    assert book.account.positions == {}
    assert {e.cause for e in book.executions} == {FillCause.EXPIRATION}
    assert {e.ticker: e.price for e in book.executions} == {
        one.ticker: one.terms.payoff(last) for one in today
    }
    assert sum(e.price > 0 for e in book.executions) == len(today) // 2


@pytest.mark.data
def test_parity_agrees_with_the_index_where_both_are_known():
    """On the day with index bars, parity of the quotes lies within a tenth of a percent of it."""
    tape = OptionTape(require("options"), day=20210104)
    far = [
        abs(implied / minute.spots[0].price - 1)
        for minute in tape
        if (implied := tape._parity("SPX", list(minute.quotes))) is not None
    ]
    assert len(far) > 380
    assert sorted(far)[len(far) // 2] < 0.0005
    assert max(far) < 0.002


@pytest.mark.parametrize(
    ("day", "hour"), [("2021-01-06", 21), ("2023-08-03", 20), ("2015-12-24", 18), ("2023-11-24", 18)]
)
def test_contracts_end_at_the_close_of_their_day(day, hour):
    """16:00 in New York, winter and summer; 13:00 on half days."""
    ends = datetime.fromtimestamp(closing_ns(date.fromisoformat(day)) // NANOS, UTC)
    assert (ends.hour, ends.minute) == (hour, 0)


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path, monkeypatch):
    """Its name and the reason are told."""
    folder = written(tmp_path, [ROW])

    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(BadInput, match=r"cannot be read: Permission denied"):
        OptionTape(folder)

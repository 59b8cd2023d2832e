"""Recordings: recognised by schema, merged as they arrived, settled by a result, refused when damaged."""

from __future__ import annotations

import errno
import os
import random
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from support.data import require

from holdfast.core.errors import EXIT_USER_ERROR, BadInput
from holdfast.core.signals import BookSide, Side
from holdfast.venues.paper.events import Delta, FeedKind, Lifecycle, MarketStatus, Print, Snapshot
from holdfast.venues.paper.matching import MarketBook
from holdfast.venues.paper.tape import index_result, last_trade_result, open_feed

pytestmark = pytest.mark.usefixtures("one_decoder")

T0_US = 1_772_928_000_000_000
DEPTH = {
    "i": pl.Int32, "kind": pl.Categorical, "sid": pl.Int16, "seq": pl.Int64, "ts_us": pl.Int64,
    "side": pl.Categorical, "price_e4": pl.Int32, "qty_e2": pl.Int64, "trade_id": pl.String,
}  # fmt: skip
PRINTS = {
    "ts_s": pl.Int64, "ticker": pl.String, "taker_side": pl.String, "yes_price_e4": pl.Int32, "qty": pl.Int32,
    "spx_e2": pl.Int32,
}  # fmt: skip


def snapshot(i, seq, side=None, price=None, qty=None):
    return (i, "snapshot", 1, seq, None, side, price, qty, None)


def delta(i, seq, secs, *level):
    return (i, "delta", 1, seq, T0_US + round(secs * 1_000_000), *level, None)


def trade(i, seq, secs, taker, *price_and_qty):
    price, qty = (*price_and_qty, 100)[:2]
    return (i, "trade", 2, seq, T0_US + int(secs) * 1_000_000, taker, price, qty, f"t{seq}")


def write_depth(folder, ticker, rows):
    frame = pl.DataFrame(rows, schema=DEPTH, orient="row")
    frame.write_parquet(folder / f"{ticker}.parquet", metadata={"market_ticker": ticker})
    return folder / f"{ticker}.parquet"


def write_prints(folder, rows):
    pl.DataFrame(rows, schema=PRINTS, orient="row").write_parquet(folder / "prints.parquet")
    return folder / "prints.parquet"


GAME = "KXNBAGAME-26MAR07AAABBB"


@pytest.fixture
def game(tmp_path):
    """Two markets recorded by one connection: messages of both share each subscription's seq."""
    write_depth(
        tmp_path,
        f"{GAME}-AAA",
        [
            snapshot(0, 1, "yes", 4_500, 1_000),
            snapshot(0, 1, "no", 5_300, 2_000),
            delta(1, 3, 1.0, "yes", 4_500, -400),
            trade(2, 1, 1.9, "no", 4_500, 400),
            delta(3, 6, 3.0, "yes", 4_500, 100),
            trade(4, 3, 4.0, "yes", 9_600),
            snapshot(5, 9),
        ],
    )
    write_depth(
        tmp_path,
        f"{GAME}-BBB",
        [
            snapshot(0, 2, "yes", 5_200, 500),
            trade(1, 2, 2.0, "yes", 5_500),
            delta(2, 4, 2.5, "no", 4_700, 300),
            delta(3, 5, 2.4, "no", 4_700, 300),
            trade(4, 4, 5.0, "yes", 400),
            snapshot(5, 8),
        ],
    )
    return tmp_path


def test_depth_files_of_one_date_are_merged_as_they_arrived(game):
    """Book messages follow seq over both files, trades the message they came after, and time never falls."""
    feed = open_feed(game)
    told = [(e.ticker[-3], type(e).__name__) for e in feed if not isinstance(e, Lifecycle)]
    assert told == [
        ("A", "Snapshot"), ("B", "Snapshot"), ("A", "Delta"), ("A", "Print"), ("B", "Print"),
        ("B", "Delta"), ("B", "Delta"), ("A", "Delta"), ("A", "Print"), ("B", "Print"),
        ("B", "Snapshot"), ("A", "Snapshot"),
    ]  # fmt: skip
    assert all(a.ts_ns <= b.ts_ns for a, b in pairwise(feed))
    assert feed.kind is FeedKind.DEPTH
    assert [spec.ticker[-3:] for spec in feed.markets] == ["AAA", "BBB"]
    assert all(spec.mutually_exclusive and spec.event_ticker == GAME for spec in feed.markets)
    assert "2 markets" in feed.describe()


def test_depth_tape_opens_closes_and_settles_by_the_last_trade(game):
    """Each market becomes active at its first snapshot and ends closed, determined, finalized by its last trade."""
    stages = {}
    for event in open_feed(game):
        if isinstance(event, Lifecycle):
            stages.setdefault(event.ticker[-3:], []).append((event.status, event.result))
    active, closed = (MarketStatus.ACTIVE, None), (MarketStatus.CLOSED, None)
    for market, result in (("AAA", Side.YES), ("BBB", Side.NO)):
        assert stages[market] == [
            active, closed, (MarketStatus.DETERMINED, result), (MarketStatus.FINALIZED, result),
        ]  # fmt: skip


def test_an_empty_snapshot_in_the_middle_is_not_the_close(tmp_path):
    """Only an empty snapshot that ends the recording of a market closes it."""
    rows = [
        snapshot(0, 1, "yes", 4_500, 100), delta(1, 2, 1, "yes", 4_500, 100), snapshot(2, 3),
        snapshot(3, 4, "yes", 4_500, 100), delta(4, 5, 2, "yes", 4_500, 100),
    ]  # fmt: skip
    events = list(open_feed(write_depth(tmp_path, "KXA-26MAR07X-A", rows)))
    assert [e.status for e in events if isinstance(e, Lifecycle)] == [MarketStatus.ACTIVE]
    assert sum(isinstance(e, Snapshot) for e in events) == 3


@pytest.mark.parametrize(
    ("price", "result"),
    [(9_500, Side.YES), (9_499, None), (501, None), (500, Side.NO), (None, None)],
)
def test_last_trade_supplies_a_result_only_at_the_ends(price, result):
    """From 0.95 it is yes, up to 0.05 no, between them and without a trade unknown."""
    assert last_trade_result(price) is result


def test_market_without_a_clear_last_trade_stays_undetermined(tmp_path):
    """A market that closed at a last trade of 0.50 is never determined."""
    rows = [snapshot(0, 1, "yes", 4_500, 100), delta(1, 2, 1, "yes", 4_500, 100), trade(2, 1, 2, "yes", 5_000), snapshot(3, 3)]  # fmt: skip
    events = list(open_feed(write_depth(tmp_path, "KXA-26MAR07X-A", rows)))
    assert [e.status for e in events if isinstance(e, Lifecycle)] == [
        MarketStatus.ACTIVE,
        MarketStatus.CLOSED,
    ]


def test_start_begins_with_the_books_as_they_stood(game):
    """A feed begun in the middle shows each open market's book at that moment and everything after it."""
    start = (T0_US + 2_450_000) * 1_000
    late = list(open_feed(game, start=start))
    whole = [event for event in open_feed(game) if event.ts_ns >= start]
    assert late[-len(whole) :] == whole
    begun = late[: -len(whole)]
    assert all(event.ts_ns == start for event in begun)
    books = {event.ticker[-3:]: event for event in begun if isinstance(event, Snapshot)}
    assert books["AAA"].yes_bids == ((4_500, 600),)
    assert books["AAA"].no_bids == ((5_300, 2_000),)


def test_end_leaves_out_what_comes_later_and_with_it_the_settlement(game):
    """No event after the end is played, and no market settles on what was not seen."""
    end = (T0_US + 2_600_000) * 1_000
    events = list(open_feed(game, end=end))
    assert max(event.ts_ns for event in events) <= end
    assert {e.status for e in events if isinstance(e, Lifecycle)} == {MarketStatus.ACTIVE}


def test_tickers_select_markets(game):
    """Only the named markets are played, and an unknown name is refused with what there is."""
    feed = open_feed(game, tickers=[f"{GAME}-AAA"])
    assert {event.ticker for event in feed} == {f"{GAME}-AAA"}
    with pytest.raises(BadInput, match="ZZZ") as refused:
        open_feed(game, tickers=[f"{GAME}-ZZZ"])
    assert "AAA" in refused.value.hint


def test_separately_recorded_files_are_merged_by_time(tmp_path):
    """Files that use the same seq for different messages come from different connections: time orders them."""
    write_depth(
        tmp_path, "KXA-26MAR07X-A", [snapshot(0, 1, "yes", 4_500, 100), delta(1, 2, 5, "yes", 4_500, 100)]
    )
    write_depth(
        tmp_path, "KXA-26MAR07X-B", [snapshot(0, 1, "yes", 4_500, 100), delta(1, 2, 1, "yes", 4_500, 100)]
    )
    deltas = [e.ticker[-1] for e in open_feed(tmp_path) if isinstance(e, Delta)]
    assert deltas == ["B", "A"]


# Print tapes.


def four_pm(day=2):
    return int(datetime(2026, 1, day, 21, tzinfo=UTC).timestamp())


def test_print_tape_settles_at_four_in_new_york_against_the_strike(tmp_path):
    """Index markets close at 16:00 New York and are determined by the index then, not by a later one."""
    rows = [
        (four_pm() - 600, "KXINXU-26JAN02H1600-T6899.9999", "yes", 4_000, 3, 680_000),
        (four_pm() - 20, "KXINX-26JAN02H1600-B6887", "no", 4_100, 2, 690_050),
        (four_pm(5), "KXINXU-26JAN05H1600-T6899.9999", "yes", 4_000, 1, 600_000),
    ]
    feed = open_feed(write_prints(tmp_path, rows))
    assert feed.kind is FeedKind.PRINTS
    ends = {(e.ticker[:18], e.status): e for e in feed if isinstance(e, Lifecycle)}
    closed = ends["KXINXU-26JAN02H160", MarketStatus.CLOSED]
    assert closed.ts_ns == four_pm() * 1_000_000_000
    assert closed.result is None
    assert ends["KXINXU-26JAN02H160", MarketStatus.DETERMINED].result is Side.YES
    assert ends["KXINX-26JAN02H1600", MarketStatus.DETERMINED].result is Side.NO
    first = next(e for e in feed if isinstance(e, Print))
    assert (first.taker_side, first.yes_price, first.qty) == (Side.YES, 4_000, 300)
    assert all(a.ts_ns <= b.ts_ns for a, b in pairwise(feed))


def test_print_tape_without_an_index_near_the_close_does_not_settle(tmp_path):
    """An index value older than five minutes at 16:00 is no result: the market closes undetermined."""
    rows = [
        (four_pm() - 301, "KXINXU-26JAN02H1600-T6899.9999", "yes", 4_000, 3, 690_050),
        (four_pm() + 60, "KXINXU-26JAN05H1600-T6899.9999", "yes", 4_000, 3, 690_050),
    ]
    events = list(open_feed(write_prints(tmp_path, rows)))
    ended = [e.status for e in events if isinstance(e, Lifecycle) and "JAN02" in e.ticker]
    assert ended == [MarketStatus.ACTIVE, MarketStatus.CLOSED]


@pytest.mark.parametrize(
    ("ticker", "spx_e2", "result"),
    [
        ("KXINXU-26JAN02H1600-T6899.9999", 690_000, Side.YES),
        ("KXINXU-26JAN02H1600-T6899.9999", 689_999, Side.NO),
        ("KXINX-26JAN02H1600-B6887", 687_500, Side.YES),
        ("KXINX-26JAN02H1600-B6887", 689_999, Side.YES),
        ("KXINX-26JAN02H1600-B6887", 690_000, Side.NO),
        ("KXINX-26JAN02H1600-B6887", 687_499, Side.NO),
        ("KXINX-26JAN02H1600-T6400", 690_000, None),
        ("KXNBAGAME-26MAR07GSWOKC-GSW", 690_000, None),
    ],
)
def test_strike_is_read_from_the_ticker(ticker, spx_e2, result):
    """T means strictly above, B the 25-point bucket that holds the number, anything else has no strike."""
    assert index_result(ticker, spx_e2) is result


@pytest.mark.parametrize(
    ("price", "qty", "steps"),
    [(4_500, 100, (100, 100)), (4_510, 100, (10, 100)), (4_501, 25, (1, 1)), (4_500, 25, (100, 1))],
)
def test_market_steps_hold_what_was_recorded(tmp_path, price, qty, steps):
    """A recording in whole cents and contracts trades in those, one with finer values in finer steps."""
    rows = [snapshot(0, 1, "yes", 4_400, 100), delta(1, 2, 1, "yes", price, qty)]
    (spec,) = open_feed(write_depth(tmp_path, "KXA-26MAR07X-A", rows)).markets
    assert (spec.price_ranges[0].step, spec.qty_step) == steps


def test_schedule_gives_nothing_away(game):
    """The scheduled close follows from the ticker and is the same however early the recording is cut."""
    cut = open_feed(game, end=(T0_US + 2_600_000) * 1_000)
    assert [spec.close_ns for spec in cut.markets] == [spec.close_ns for spec in open_feed(game).markets]


# Bad files.

GOOD = [snapshot(0, 1, "yes", 4_500, 100), delta(1, 2, 1, "yes", 4_500, 100)]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([*GOOD, delta(2, 3, 2, "yes", 4_500, -300)], "negative"),
        ([*GOOD, delta(2, 2, 2, "yes", 4_500, 100)], "seq does not rise"),
        ([*GOOD, delta(0, 3, 2, "yes", 4_500, 100)], "message number"),
        ([*GOOD, delta(2, 3, 2, "maybe", 4_500, 100)], "side"),
        ([*GOOD, delta(2, 3, 2, "yes", 10_000, 100)], "price"),
        ([*GOOD, delta(2, 3, 2, "yes", 4_500, 0)], "quantity"),
        ([*GOOD, delta(2, 3, 2, None, None, None)], "side"),
        ([*GOOD, trade(2, 1, 2, "yes", 4_500, -5)], "quantity"),
        ([delta(0, 1, 1, "yes", 4_500, 100)], "first message"),
        ([trade(0, 1, 1, "yes", 4_500)], "no order book"),
        ([], "no rows"),
    ],
)
def test_damaged_depth_file_is_refused_before_the_first_event(tmp_path, rows, reason):
    """A file that contradicts itself is bad input that names the file and the reason, with a hint."""
    file = write_depth(tmp_path, "KXA-26MAR07X-A", rows)
    with pytest.raises(BadInput, match=reason) as refused:
        open_feed(file)
    assert file.name in str(refused.value)
    assert refused.value.hint
    assert refused.value.exit_code == EXIT_USER_ERROR


@pytest.mark.parametrize("secs", [9_223_372_037, 4_102_444_801, 0, -5])
def test_a_time_that_nobody_lives_in_is_refused(tmp_path, secs):
    """Seconds that do not fit the clock would make time run backwards."""
    late = (secs, "KXINX-26JAN02H1600-B6887", "yes", 4_000, 1, 690_000)
    file = write_prints(tmp_path, [(four_pm(), *late[1:]), late])
    with pytest.raises(BadInput, match="row 1: time is missing or beyond 2100"):
        open_feed(file)


@pytest.mark.parametrize("name", ["i", "seq", "ts_us", "price_e4", "kind"])
def test_a_column_of_another_kind_is_refused(tmp_path, name):
    """A struct where a number or a word is expected is bad input that names the file."""
    file = write_depth(tmp_path, "KXA-26MAR07X-A", GOOD)
    frame = pl.read_parquet(file)
    frame.with_columns(pl.struct(pl.col(name).alias("x")).alias(name)).write_parquet(file)
    with pytest.raises(BadInput, match="is damaged"):
        open_feed(file)


def test_a_folder_that_cannot_be_read_is_not_left_out(game, monkeypatch):
    """Half a recording is none: the folder inside it that is closed to us is named."""
    closed = game / "closed"
    closed.mkdir()
    scandir = os.scandir

    def ours(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", ours)
    with pytest.raises(BadInput, match=r"closed' cannot be read: Permission denied"):
        open_feed(game)


def test_cut_or_foreign_files_are_refused_by_name(tmp_path):
    """A missing path, an empty folder, a cut file, another format and another schema each name file and reason."""
    whole = write_depth(tmp_path, "KXA-26MAR07X-A", GOOD).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("not a recording")
    (tmp_path / "zero.parquet").write_bytes(b"")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "foreign.parquet")
    (tmp_path / "empty").mkdir()
    reasons = {
        "gone": "does not exist", "empty": "no parquet file", "cut.parquet": "damaged",
        "text.parquet": "damaged", "zero.parquet": "damaged", "foreign.parquet": "no known schema",
    }  # fmt: skip
    for name, reason in reasons.items():
        with pytest.raises(BadInput, match=reason) as refused:
            open_feed(tmp_path / name)
        assert name in str(refused.value)
        assert refused.value.hint


def test_no_damage_ends_in_anything_but_a_refusal_or_a_feed(tmp_path):
    """Whatever bytes of a file are changed or cut, opening and playing it ends in events or in bad input."""
    rows = [snapshot(0, 1, "yes", 4_500, 1_000)]
    rows += [delta(n, n + 1, n, "yes", 4_500, 100 if n % 2 else -100) for n in range(1, 200)]
    whole = write_depth(tmp_path, "KXA-26MAR07X-A", rows).read_bytes()
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    source, refused = random.Random(seed), []
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            del damaged[source.randrange(len(whole)) :]
        else:
            for _ in range(source.choice([1, 8])):
                damaged[source.randrange(len(whole))] ^= 1 << source.randrange(8)
        (tmp_path / "damaged.parquet").write_bytes(damaged)
        try:
            list(open_feed(tmp_path / "damaged.parquet"))
        except BadInput as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all("damaged.parquet" in message for message in refused)


def test_folder_of_two_schemas_or_two_copies_is_refused(tmp_path):
    """A folder that mixes depth and prints, or holds one market twice, is refused."""
    write_depth(tmp_path, "KXA-26MAR07X-A", GOOD)
    (tmp_path / "copy").mkdir()
    write_depth(tmp_path / "copy", "KXA-26MAR07X-A", GOOD)
    with pytest.raises(BadInput, match="KXA-26MAR07X-A"):
        open_feed(tmp_path)
    write_prints(tmp_path, [(four_pm(), "KXINX-26JAN02H1600-B6887", "yes", 4_000, 1, 690_000)])
    with pytest.raises(BadInput, match="mixes"):
        open_feed(tmp_path)


def test_selection_without_events_is_refused(game):
    """A window before the recording begins is bad input, not a silent empty run."""
    with pytest.raises(BadInput, match="no event"):
        open_feed(game, end=1)


# The recordings themselves.


def test_promised_recordings_that_are_missing_fail_instead_of_skipping(tmp_path, monkeypatch):
    """With HOLDFAST_DATA set a missing recording is a failure; without it a skip that says what and where."""
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="gone"):
        require("gone")
    monkeypatch.delenv("HOLDFAST_DATA")
    with pytest.raises(pytest.skip.Exception, match="no-such-recording"):
        require("no-such-recording")


@pytest.mark.data
@pytest.mark.slow
def test_every_recorded_game_replays_without_negative_or_crossed_books():
    """All six recorded markets replay with no negative level, no crossed book at every 50th delta, and settle."""
    feed = open_feed(require("kalshi", "l2-nba-unlicensed"))
    books = {spec.ticker: MarketBook(spec) for spec in feed.markets}
    deltas = dict.fromkeys(books, 0)
    last_ns = feed.start_ns
    for event in feed:
        assert event.ts_ns >= last_ns
        last_ns = event.ts_ns
        book = books[event.ticker]
        book.apply(event)
        if isinstance(event, Delta):
            deltas[event.ticker] += 1
            if deltas[event.ticker] % 50 == 0:
                bid, ask = book.best(BookSide.BID), book.best(BookSide.ASK)
                assert bid is None or ask is None or bid[0] < ask[0]
    assert sum(deltas.values()) == 480_503
    results = {ticker[-3:]: book.result for ticker, book in books.items()}
    assert results == {
        "GSW": Side.NO, "OKC": Side.YES, "ATL": Side.YES, "DAL": Side.NO, "BOS": Side.YES,
    }  # fmt: skip
    assert {book.status for book in books.values()} == {MarketStatus.FINALIZED}


@pytest.mark.data
def test_recorded_index_prints_settle_every_market_plausibly():
    """All 225 index markets finalize, and those printed in the last five minutes agree with their last price in 9 of 10 cases."""
    feed = open_feed(require("kalshi", "spx-tape"))
    assert len(feed.markets) == 225
    last, results, prints = {}, {}, 0
    for event in feed:
        if isinstance(event, Print):
            prints += 1
            last[event.ticker] = event
        elif isinstance(event, Lifecycle) and event.status is MarketStatus.FINALIZED:
            results[event.ticker] = event.result
    assert prints == 21_274
    assert len(results) == 225
    closes = {spec.ticker: spec.close_ns for spec in feed.markets}
    late = {t: p for t, p in last.items() if closes[t] - p.ts_ns < 300 * 1_000_000_000}
    agree = sum((p.yes_price > 5_000) is (results[t] is Side.YES) for t, p in late.items())
    assert len(late) > 50
    assert agree * 10 >= len(late) * 9

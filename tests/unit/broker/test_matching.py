"""What a quote lets an order have, and the name of every reason why not."""

from __future__ import annotations

import pytest
from support.broker import CALL, HIGH_CALL, START_NS, quote

from holdfast.core.money import PriceE4, QtyE2
from holdfast.venues.broker.matching import STALE_NS, Executable, NoFill, Shown, executable, take


def shown(one=None, *, ends_ns=0):
    made = Shown(ends_ns)
    if one is not None:
        made.show(one, START_NS)
    return made


def test_a_buyer_gets_the_ask_and_a_seller_the_bid_with_their_sizes():
    """The executable side is the other side, up to what it shows."""
    one = shown(quote(CALL, 310, 320, size=7, bid_size=4))
    assert one.executable(START_NS, buys=True) == (32_000, 700)
    assert one.executable(START_NS, buys=False) == (31_000, 400)


@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("what", "buying", "selling"),
    [
        (shown(), NoFill.NO_QUOTE, NoFill.NO_QUOTE),
        (shown(quote(CALL, 320, 310)), NoFill.CROSSED, NoFill.CROSSED),
        (shown(quote(CALL, 0, 310)), (31_000, 1_000), NoFill.ONE_SIDED),
        (shown(quote(CALL, 310, 0)), NoFill.ONE_SIDED, (31_000, 1_000)),
        (shown(quote(CALL, 0, 0)), NoFill.ONE_SIDED, NoFill.ONE_SIDED),
        (shown(quote(CALL, 310, 320, size=0)), NoFill.NO_SIZE, NoFill.NO_SIZE),
        (shown(quote(CALL, 310, 320, bid_size=0)), (32_000, 1_000), NoFill.NO_SIZE),
        (shown(quote(CALL, 310, 310)), (31_000, 1_000), (31_000, 1_000)),
        (shown(quote(CALL, 310, 320), ends_ns=START_NS), NoFill.ENDED, NoFill.ENDED),
    ],
    ids=["missing", "crossed", "no bid", "no ask", "empty", "no size", "no bid size", "locked", "ended"],
)
def test_each_bad_quote_is_named_and_gives_nothing(what, buying, selling):
    """A side that cannot be traded says why; a zero is an absent side and never a price."""
    assert what.executable(START_NS, buys=True) == buying
    assert what.executable(START_NS, buys=False) == selling


def test_a_quote_is_stale_only_beyond_its_age():
    """At the bound it trades, a nanosecond later it does not."""
    one = shown(quote(CALL, 310, 320))
    assert one.executable(START_NS + STALE_NS, buys=True) == (32_000, 1_000)
    assert one.executable(START_NS + STALE_NS + 1, buys=True) is NoFill.STALE


def test_what_was_taken_stays_taken_until_the_next_quote():
    """Displayed size is had once."""
    one = shown(quote(CALL, 310, 320, size=3))
    one.take(QtyE2(200), buys=True)
    assert one.executable(START_NS, buys=True) == (32_000, 100)
    assert one.executable(START_NS, buys=False) == (31_000, 300)
    one.show(quote(CALL, 310, 320, size=3), START_NS + 1)
    assert one.executable(START_NS + 1, buys=True) == (32_000, 300)


def test_a_combination_trades_at_the_sum_of_its_legs_and_as_many_as_the_scarcest_leg_allows():
    """One long, two short: the short leg's bid twice, and half its size."""
    legs = ((CALL.ticker, 1), (HIGH_CALL.ticker, -2))
    book = {
        CALL.ticker: shown(quote(CALL, 310, 320, size=10)),
        HIGH_CALL.ticker: shown(quote(HIGH_CALL, 200, 210, size=9, bid_size=7)),
    }
    buying = executable(legs, book, START_NS, buys=True)
    assert buying == Executable(PriceE4(32_000 - 2 * 20_000), QtyE2(300), (PriceE4(32_000), PriceE4(20_000)))
    selling = executable(legs, book, START_NS, buys=False)
    assert selling == Executable(PriceE4(31_000 - 2 * 21_000), QtyE2(400), (PriceE4(31_000), PriceE4(21_000)))
    take(legs, book, QtyE2(300), buys=True)
    assert (book[CALL.ticker].ask_left, book[HIGH_CALL.ticker].bid_left) == (700, 100)
    assert executable(legs, book, START_NS, buys=True) == (CALL.ticker, NoFill.NO_SIZE)


def test_one_bad_leg_bars_the_combination_and_is_named():
    """No leg trades alone."""
    legs = ((CALL.ticker, 1), (HIGH_CALL.ticker, -1))
    book = {CALL.ticker: shown(quote(CALL, 310, 320)), HIGH_CALL.ticker: shown(quote(HIGH_CALL, 0, 5))}
    assert executable(legs, book, START_NS, buys=True) == (HIGH_CALL.ticker, NoFill.ONE_SIDED)

"""How old a price is: since its source was last proven alive, not since it last changed."""

from support.execution import OTHER, TICKER

from holdfast.core.money import PriceE4
from holdfast.risk.market import Market

BID, ASK = PriceE4(5500), PriceE4(5600)


def test_a_streamed_price_stays_fresh_while_the_stream_lives():
    """Any message proves every streamed book without a gap; a book that was read by itself only ages."""
    market = Market()
    market.saw_book(TICKER, BID, ASK, 1, streamed=True)
    market.saw_book(OTHER, BID, ASK, 1, streamed=False)
    market.saw_stream(9)
    assert market.mark(TICKER).as_of_ns == 9
    assert market.mark(OTHER).as_of_ns == 1


def test_a_gap_takes_away_only_the_markets_it_names():
    """A named market has no price until its next book; a private gap names none."""
    market = Market()
    for ticker in (TICKER, OTHER):
        market.saw_book(ticker, BID, ASK, 1, streamed=True)
    market.lost(())
    assert market.mark(TICKER) is not None
    market.lost((TICKER,))
    assert market.mark(TICKER) is None
    assert market.mark(OTHER) is not None
    market.saw_book(TICKER, BID, None, 2, streamed=True)
    assert market.mark(TICKER).ask is None


def test_a_known_result_is_worth_what_it_pays():
    """After the venue said yes or no, no book matters."""
    market = Market()
    market.saw_book(TICKER, BID, ASK, 1, streamed=True)
    market.saw_result(TICKER, "yes")
    market.saw_result(OTHER, "no")
    assert market.mark(TICKER)[:2] == (10_000, 10_000)
    assert market.mark(OTHER)[:2] == (0, 0)
    assert market.is_resolved(TICKER)


def test_market_time_never_runs_backwards():
    """An older event leaves the newest time standing."""
    market = Market()
    market.saw_time(5)
    market.saw_time(3)
    assert market.time_ns == 5

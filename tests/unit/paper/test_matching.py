"""Each rule of the matching, one example at a time. Prices in cents and whole contracts, for reading."""

from __future__ import annotations

import pytest

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import BookSide, Side, TimeInForce
from holdfast.venues.paper.events import (
    Delta,
    FeedKind,
    Lifecycle,
    MarketSpec,
    MarketStatus,
    Print,
    Snapshot,
)
from holdfast.venues.paper.matching import (
    PRINT_LAG_NS,
    BookChange,
    BookReset,
    Canceled,
    CancelReason,
    Expired,
    Fill,
    MarketBook,
    NewOrder,
    RejectCode,
    Rejected,
    Rested,
    SelfTrade,
    StatusChange,
    TradePrint,
)

SECOND = 1_000_000_000
BID, ASK = BookSide.BID, BookSide.ASK
GTC, IOC, FOK = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK


class Desk:
    """A book with a pen: cents and contracts in, compact facts out."""

    def __init__(self, kind=FeedKind.DEPTH, bids=(), asks=(), **options):
        spec = MarketSpec(ticker="M", event_ticker="E", series_ticker="S", title="t", close_ns=1 << 62)
        self.book = MarketBook(spec, kind, **options)
        self.ts = 100 * SECOND
        self.numbers = iter(range(1_000))
        if bids or asks:
            self.snapshot(bids, asks)

    def snapshot(self, bids, asks):
        yes = tuple((PriceE4(p * 100), QtyE2(n * 100)) for p, n in bids)
        no = tuple((PriceE4(10_000 - p * 100), QtyE2(n * 100)) for p, n in asks)
        return self.book.apply(Snapshot("M", self.ts, yes, no))

    def bid_level(self, cents, change):
        return self.book.apply(Delta("M", self.ts, Side.YES, PriceE4(cents * 100), QtyE2(change * 100)))

    def ask_level(self, cents, change):
        return self.book.apply(
            Delta("M", self.ts, Side.NO, PriceE4(10_000 - cents * 100), QtyE2(change * 100))
        )

    def trade(self, taker, cents, count):
        number = str(next(self.numbers))
        return self.book.apply(
            Print("M", self.ts, number, Side(taker), PriceE4(cents * 100), QtyE2(count * 100))
        )

    def place(self, side, cents, count, tif=GTC, *, name=None, account="x", **more):
        order = NewOrder(
            order_id=name or f"o{next(self.numbers)}",
            account=account,
            side=side,
            price=PriceE4(cents * 100),
            qty=QtyE2(count * 100),
            tif=tif,
            **more,
        )
        return self.book.place(order, self.ts)


def fills(events):
    return [(e.order_id, e.price // 100, e.qty // 100) for e in events if isinstance(e, Fill)]


def executed(events):
    return [(e.price // 100, e.qty // 100) for e in events if isinstance(e, Fill)]


def canceled(events):
    return [(e.qty // 100, e.reason) for e in events if isinstance(e, Canceled)]


def ahead(desk, name):
    return desk.book.resting(name).ahead // 100


# Taking.


def test_taker_pays_each_levels_price_best_first():
    """A bid through two ask levels pays the first level's price for its size, then the second's."""
    desk = Desk(asks=[(53, 10), (51, 5), (55, 10)])
    events = desk.place(BID, 54, 12, IOC)
    assert executed(events) == [(51, 5), (53, 7)]
    assert [e.taker_side for e in events if isinstance(e, TradePrint)] == [Side.YES, Side.YES]


def test_ask_takes_bids_from_the_highest_down_to_its_limit():
    """An ask never sells below its limit."""
    desk = Desk(bids=[(45, 5), (47, 5), (44, 5)])
    assert executed(desk.place(ASK, 45, 20, IOC)) == [(47, 5), (45, 5)]


def test_ioc_cancels_what_it_cannot_take():
    """What an IOC order leaves is canceled, not rested."""
    desk = Desk(asks=[(51, 5)])
    events = desk.place(BID, 51, 8, IOC)
    assert canceled(events) == [(3, CancelReason.IOC_REMAINDER)]
    assert not desk.book.resting_orders()


def test_gtc_rests_what_it_cannot_take():
    """The remainder of a GTC order shows in the public book at its limit."""
    desk = Desk(asks=[(51, 5)])
    events = desk.place(BID, 51, 8)
    assert [e.leaves for e in events if isinstance(e, Rested)] == [300]
    assert desk.book.public_levels() == (((5_100, 300),), ())


@pytest.mark.parametrize(("count", "expected"), [(15, [(51, 5), (52, 10)]), (16, [])])
def test_fok_takes_all_or_nothing(count, expected):
    """A FOK order executes in full or leaves the book untouched."""
    desk = Desk(asks=[(51, 5), (52, 10)])
    before = desk.book.public_levels()
    events = desk.place(BID, 52, count, FOK)
    assert executed(events) == expected
    if not expected:
        assert canceled(events) == [(16, CancelReason.FOK_UNFILLED)]
        assert desk.book.public_levels() == before


@pytest.mark.parametrize(("cents", "rejected"), [(51, True), (50, False)])
def test_post_only_is_rejected_where_it_would_take(cents, rejected):
    """A post-only bid at the ask is rejected, one cent below it rests."""
    desk = Desk(asks=[(51, 5)])
    events = desk.place(BID, cents, 5, post_only=True)
    assert (
        any(isinstance(e, Rejected) and e.code is RejectCode.POST_ONLY_WOULD_CROSS for e in events)
        is rejected
    )
    assert bool(desk.book.resting_orders()) is not rejected


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"price": PriceE4(5_150)}, RejectCode.PRICE_OFF_GRID),
        ({"price": PriceE4(10_000)}, RejectCode.PRICE_OFF_GRID),
        ({"price": PriceE4(0)}, RejectCode.PRICE_OFF_GRID),
        ({"qty": QtyE2(0)}, RejectCode.BAD_COUNT),
        ({"qty": QtyE2(-100)}, RejectCode.BAD_COUNT),
        ({"qty": QtyE2(150)}, RejectCode.BAD_COUNT),
        ({"expiration_ns": 100 * SECOND}, RejectCode.BAD_EXPIRATION),
        ({"expiration_ns": 900 * SECOND, "tif": IOC}, RejectCode.BAD_EXPIRATION),
    ],
)
def test_order_that_the_market_does_not_know_is_rejected_by_name(order, code):
    """Prices off the grid, counts off the step and senseless expirations each have their own code."""
    desk = Desk(asks=[(51, 5)])
    fields = {
        "order_id": "a",
        "account": "x",
        "side": BID,
        "price": PriceE4(5_100),
        "qty": QtyE2(100),
    } | order
    (event,) = desk.book.place(NewOrder(**fields), desk.ts)
    assert isinstance(event, Rejected)
    assert event.code is code


def test_what_we_took_stays_taken_until_the_level_drains():
    """Size that the recording still shows after we took it is not on offer again; new size is."""
    desk = Desk(asks=[(51, 10)])
    assert executed(desk.place(BID, 51, 6, IOC)) == [(51, 6)]
    assert executed(desk.place(BID, 51, 10, IOC)) == [(51, 4)]
    assert executed(desk.place(BID, 51, 10, IOC)) == []
    desk.ask_level(51, 3)
    assert executed(desk.place(BID, 51, 10, IOC)) == [(51, 3)]
    # The level drains in the recording: what comes afterwards is fresh.
    desk.ask_level(51, -13)
    desk.ask_level(51, 7)
    assert executed(desk.place(BID, 51, 10, IOC)) == [(51, 7)]


def test_a_shrinking_level_loses_what_we_left_first():
    """When the recording removes size, what remains is at most what we did not take."""
    desk = Desk(asks=[(51, 10)])
    desk.place(BID, 51, 6, IOC)
    desk.ask_level(51, -4)
    assert executed(desk.place(BID, 51, 10, IOC)) == []
    desk.ask_level(51, -2)
    desk.ask_level(51, 5)
    assert executed(desk.place(BID, 51, 10, IOC)) == [(51, 5)]


def test_a_snapshot_restates_but_does_not_refresh():
    """A snapshot showing the same level offers only what exceeds our take of it."""
    desk = Desk(asks=[(51, 10)])
    desk.place(BID, 51, 10, IOC)
    desk.snapshot([], [(51, 12)])
    assert executed(desk.place(BID, 51, 20, IOC)) == [(51, 2)]


# Self-trade prevention and other accounts.


def test_taker_at_cross_stops_at_its_own_order():
    """The arriving order takes what is better, then is canceled where it meets its own account."""
    desk = Desk(asks=[(51, 5)])
    desk.place(ASK, 52, 5, name="mine")
    events = desk.place(BID, 53, 20, name="taker")
    assert fills(events) == [("taker", 51, 5)]
    assert canceled(events) == [(15, CancelReason.SELF_TRADE)]
    assert desk.book.resting("mine")


def test_maker_prevention_cancels_the_resting_order_and_goes_on():
    """With MAKER the account's own resting order leaves and the taker continues behind it."""
    desk = Desk(asks=[(53, 5)])
    desk.place(ASK, 52, 5, name="mine")
    events = desk.place(BID, 53, 4, name="taker", self_trade=SelfTrade.MAKER)
    assert fills(events) == [("taker", 53, 4)]
    assert canceled(events) == [(5, CancelReason.SELF_TRADE)]


def test_fok_counts_nothing_of_its_own_account():
    """A FOK order that could only fill against itself executes nothing and leaves its resting order."""
    desk = Desk(asks=[(53, 5)])
    desk.place(ASK, 52, 5, name="mine")
    for prevention in SelfTrade:
        events = desk.place(BID, 53, 6, FOK, self_trade=prevention)
        assert canceled(events) == [(6, CancelReason.FOK_UNFILLED)]
        assert desk.book.resting("mine")


def test_fok_that_would_meet_its_own_account_on_the_way_takes_nothing():
    """With TAKER_AT_CROSS what lies behind the own order is out of reach; with MAKER it is not."""
    desk = Desk(asks=[(53, 5)])
    desk.place(ASK, 52, 5, name="mine")
    assert canceled(desk.place(BID, 53, 5, FOK)) == [(5, CancelReason.FOK_UNFILLED)]
    assert executed(desk.place(BID, 53, 5, FOK, self_trade=SelfTrade.MAKER)) == [(53, 5)]


def test_accounts_trade_with_each_other_in_price_then_time_after_the_outside():
    """At one price the outside trades first, then our accounts in the order they came."""
    desk = Desk(asks=[(52, 5)])
    desk.place(ASK, 52, 5, name="first", account="y")
    desk.place(ASK, 52, 5, name="second", account="z")
    desk.place(ASK, 51, 1, name="better", account="z")
    events = desk.place(BID, 52, 13, name="t")
    assert fills(events) == [
        ("t", 51, 1), ("better", 51, 1),
        ("t", 52, 5),
        ("t", 52, 5), ("first", 52, 5),
        ("t", 52, 2), ("second", 52, 2),
    ]  # fmt: skip


def test_what_another_account_takes_is_no_longer_ahead_of_us():
    """The queue ahead is never more than what is on offer at the price."""
    desk = Desk(asks=[(52, 10)])
    desk.place(ASK, 52, 5, name="a", account="y")
    desk.place(BID, 52, 4, IOC)
    assert ahead(desk, "a") == 6


# Resting on recorded depth.


def test_order_joins_behind_everything_displayed():
    """A resting order's queue is the size displayed at its price when it came."""
    desk = Desk(bids=[(45, 30), (44, 10)])
    desk.place(BID, 45, 5, name="a")
    assert ahead(desk, "a") == 30
    desk.bid_level(45, 20)
    assert ahead(desk, "a") == 30
    desk.place(BID, 45, 5, name="b", account="y")
    assert ahead(desk, "b") == 50
    assert desk.book.queue_position("b") == 5_500


def test_prints_at_our_price_eat_the_queue_before_us():
    """A print reaches us only with what it leaves after the queue ahead."""
    desk = Desk(bids=[(45, 30)])
    desk.place(BID, 45, 5, name="a")
    assert fills(desk.trade("no", 45, 28)) == []
    assert ahead(desk, "a") == 2
    assert fills(desk.trade("no", 45, 4)) == [("a", 45, 2)]
    assert fills(desk.trade("no", 45, 9)) == [("a", 45, 3)]


def test_prints_of_the_same_side_do_not_fill_us():
    """A print whose taker bought does not fill a resting bid, whatever its price."""
    desk = Desk(bids=[(45, 30)])
    desk.place(BID, 45, 5, name="a")
    assert fills(desk.trade("yes", 45, 100)) == []
    assert fills(desk.trade("yes", 40, 100)) == []


def test_print_strictly_through_our_price_fills_up_to_its_size():
    """A print below our bid fills it whatever the queue, and all our orders together at most its size."""
    desk = Desk(bids=[(45, 30), (46, 9)])
    desk.place(BID, 45, 5, name="low")
    desk.place(BID, 46, 5, name="high", account="y")
    assert fills(desk.trade("no", 44, 7)) == [("high", 46, 5), ("low", 45, 2)]


@pytest.mark.parametrize("delta_first", [True, False])
def test_a_trade_told_twice_moves_us_once(delta_first):
    """A shrinking level and its print, in either order, take the traded size off the queue once."""
    desk = Desk(bids=[(45, 10)])
    desk.place(BID, 45, 5, name="a")
    tells = [lambda: desk.bid_level(45, -4), lambda: desk.trade("no", 45, 4)]
    for tell in tells if delta_first else reversed(tells):
        assert fills(tell()) == []
    assert ahead(desk, "a") == 6
    desk.bid_level(45, 5)
    tells = [lambda: desk.bid_level(45, -8), lambda: desk.trade("no", 45, 8)]
    got = [fill for tell in (tells if delta_first else reversed(tells)) for fill in fills(tell())]
    assert got == [("a", 45, 2)]


def test_cancels_are_taken_to_be_behind_us():
    """A level that shrinks without a print moves us only when less is displayed than was ahead."""
    desk = Desk(bids=[(45, 10)])
    desk.place(BID, 45, 5, name="a")
    desk.bid_level(45, 10)
    desk.bid_level(45, -10)
    assert ahead(desk, "a") == 10
    desk.bid_level(45, -3)
    assert ahead(desk, "a") == 7


def test_a_cancel_is_not_held_against_later_prints_for_ever():
    """Once `PRINT_LAG_NS` has passed, a shrinking that no print explained was a cancel."""
    desk = Desk(bids=[(45, 10)])
    desk.place(BID, 45, 5, name="a")
    desk.bid_level(45, -6)
    desk.ts += PRINT_LAG_NS + 1
    desk.bid_level(45, -4)
    desk.bid_level(45, 9)
    desk.ts += PRINT_LAG_NS + 1
    assert fills(desk.trade("no", 45, 5)) == [("a", 45, 5)]


@pytest.mark.parametrize("cents", [45, 46])
def test_the_print_of_a_trade_before_we_came_is_not_ours(cents):
    """A print announced by a level change from before our order rested neither fills it nor moves it."""
    desk = Desk(bids=[(45, 100)], asks=[(50, 1)])
    desk.bid_level(45, -90)
    desk.place(BID, cents, 50, name="a")
    assert fills(desk.trade("no", 45, 90)) == []
    if cents == 45:
        assert ahead(desk, "a") == 10
    assert fills(desk.trade("no", 45, 12)) == [("a", cents, 2 if cents == 45 else 12)]


def test_external_size_that_crosses_us_fills_us_at_our_price():
    """An ask arriving at or below our bid trades with us at our price, up to its size, and is then gone."""
    desk = Desk(bids=[(40, 5)], asks=[(50, 5)])
    desk.place(BID, 45, 8, name="a")
    events = desk.ask_level(44, 6)
    assert fills(events) == [("a", 45, 6)]
    assert [(e.yes_price, e.taker_side) for e in events if isinstance(e, TradePrint)] == [(4_500, Side.NO)]
    assert desk.book.best(ASK) == (5_000, 500)
    assert desk.book.best(BID) == (4_500, 200)


def test_snapshot_that_crosses_us_fills_us_too():
    """A snapshot whose ask is at our bid trades with us at our price before the book is published anew."""
    desk = Desk(bids=[(40, 5)], asks=[(50, 5)])
    desk.place(BID, 45, 8, name="a")
    events = desk.snapshot([(40, 5)], [(45, 3), (50, 5)])
    assert fills(events) == [("a", 45, 3)]
    assert isinstance(events[-1], BookReset)


def test_recording_crossed_in_itself_serves_its_own_ranks_first():
    """While recorded bids rank before ours, crossing recorded asks reach us only with what those leave."""
    desk = Desk(bids=[(45, 4)], asks=[(50, 5)])
    desk.place(BID, 45, 8, name="a")
    desk.bid_level(46, 3)
    assert fills(desk.ask_level(45, 9)) == [("a", 45, 2)]


# Ends.


def test_expiration_takes_the_order_off_at_its_moment():
    """From its expiration on an order is gone; an event of that very moment does not fill it."""
    desk = Desk(bids=[(45, 1)])
    desk.place(BID, 45, 5, name="a", expiration_ns=desk.ts + SECOND)
    desk.ts += SECOND - 1
    assert desk.book.advance(desk.ts) == []
    desk.ts += 1
    events = desk.trade("no", 44, 100)
    assert [(e.order_id, e.qty) for e in events if isinstance(e, Expired)] == [("a", 500)]
    assert fills(events) == []


def test_cancel_tells_what_it_released_and_only_once():
    """Canceling a partly filled order releases its leaves; canceling again releases nothing."""
    desk = Desk(bids=[(40, 1)])
    desk.place(BID, 45, 5, name="a")
    desk.ask_level(45, 2)
    assert canceled(desk.book.cancel("a", desk.ts)) == [(3, CancelReason.REQUESTED)]
    assert desk.book.cancel("a", desk.ts) == []


def test_market_takes_orders_only_while_active():
    """Before the opening and after the close an order is rejected; a pause keeps what rests."""
    desk = Desk(bids=[(45, 1)])
    desk.place(BID, 44, 5, name="a")
    for status in (MarketStatus.INACTIVE, MarketStatus.ACTIVE, MarketStatus.CLOSED):
        events = desk.book.apply(Lifecycle("M", desk.ts, status))
        assert isinstance(events[-1], StatusChange)
        refused = [e.code for e in desk.place(BID, 43, 1) if isinstance(e, Rejected)]
        assert refused == ([] if status is MarketStatus.ACTIVE else [RejectCode.MARKET_NOT_ACTIVE])
        assert bool(desk.book.resting("a")) is (status is not MarketStatus.CLOSED)
    assert desk.book.public_levels() == ((), ())


def test_result_is_known_from_determination_on():
    """The book carries the supplied result and no other."""
    desk = Desk()
    desk.book.apply(Lifecycle("M", desk.ts, MarketStatus.CLOSED))
    assert desk.book.result is None
    desk.book.apply(Lifecycle("M", desk.ts, MarketStatus.DETERMINED, Side.NO))
    assert desk.book.result is Side.NO


def test_a_level_below_zero_is_a_damaged_feed():
    """A delta that would make a level negative is refused by name, not clamped."""
    desk = Desk(bids=[(45, 1)])
    with pytest.raises(BadInput, match="would be -100"):
        desk.bid_level(45, -2)


def test_events_of_another_market_are_refused():
    """An event of another ticker never changes this book."""
    desk = Desk()
    with pytest.raises(BadInput, match="given to the book"):
        desk.book.apply(Snapshot("OTHER", desk.ts, (), ()))


def test_an_order_id_rests_once():
    """The same order id cannot rest twice in one book."""
    desk = Desk()
    desk.place(BID, 45, 1, name="a")
    with pytest.raises(BadInput, match="'a'"):
        desk.place(BID, 45, 1, name="a")


def test_published_changes_name_the_wire_side():
    """A change of the asks is told as bids of NO at one dollar less the price."""
    desk = Desk(bids=[(45, 1)])
    (change,) = desk.ask_level(60, 7)
    assert change == BookChange("M", Side.NO, PriceE4(4_000), QtyE2(700), QtyE2(700), desk.ts)
    desk.place(ASK, 60, 3, name="a")
    assert desk.book.public_levels()[1] == ((4_000, 1_000),)


# Prints only.


def prints_desk(**options):
    return Desk(FeedKind.PRINTS, **options)


def test_print_tape_fills_a_resting_order_only_strictly_through():
    """A print at the price of a resting order does not fill it; one beyond fills it up to the print's size."""
    desk = prints_desk()
    desk.place(BID, 45, 8, name="a")
    assert fills(desk.trade("no", 45, 100)) == []
    assert fills(desk.trade("no", 44, 5)) == [("a", 45, 5)]
    assert fills(desk.trade("yes", 44, 50)) == [("a", 45, 3)]


def test_print_tape_ignores_prints_from_before_the_order():
    """A print through the price counts only when it comes later than the order."""
    desk = prints_desk()
    desk.trade("no", 44, 100)
    desk.place(BID, 45, 8, name="a")
    assert desk.book.resting("a").leaves == 800


def test_print_tape_taker_gets_what_the_latest_print_showed_once():
    """An IOC bid takes at the price of the latest buyer's print, at most its size, each contract once."""
    desk = prints_desk()
    desk.trade("yes", 50, 6)
    assert executed(desk.place(BID, 49, 5, IOC)) == []
    assert executed(desk.place(BID, 52, 5, IOC)) == [(50, 5)]
    assert executed(desk.place(BID, 52, 5, IOC)) == [(50, 1)]
    assert executed(desk.place(BID, 52, 5, IOC)) == []


def test_print_tape_taker_gets_no_future_print():
    """An IOC order with nothing shown is canceled; a print after it does not fill it."""
    desk = prints_desk()
    assert canceled(desk.place(BID, 60, 5, IOC)) == [(5, CancelReason.IOC_REMAINDER)]
    assert fills(desk.trade("yes", 50, 100)) == []


def test_print_tape_taker_does_not_sell_to_buyers_of_the_ask():
    """A buyer's print shows an ask, not a bid: an arriving ask finds nothing."""
    desk = prints_desk()
    desk.trade("yes", 50, 100)
    assert executed(desk.place(ASK, 40, 5, IOC)) == []
    desk.trade("no", 48, 3)
    assert executed(desk.place(ASK, 40, 5, IOC)) == [(48, 3)]


def test_print_tape_size_grows_old():
    """After the window a print proves nothing; the public book says so."""
    desk = prints_desk(window_ns=5 * SECOND)
    desk.trade("yes", 50, 6)
    assert desk.book.public_levels() == ((), ((5_000, 600),))
    desk.ts += 5 * SECOND
    assert desk.book.advance(desk.ts) == []
    desk.ts += 1
    (gone,) = desk.book.advance(desk.ts)
    assert (gone.size, gone.delta) == (0, -600)
    assert executed(desk.place(BID, 60, 5, IOC)) == []


def test_print_tape_price_moves_with_the_latest_print():
    """Only the latest price on a side is on offer, with what was printed there within the window."""
    desk = prints_desk()
    desk.trade("yes", 50, 6)
    desk.trade("yes", 52, 4)
    desk.trade("yes", 52, 3)
    assert executed(desk.place(BID, 60, 50, IOC)) == [(52, 7)]


def test_print_tape_offer_is_gone_once_the_other_side_disproves_it():
    """A seller's print at or above the last ask shows a bid there: that ask is gone."""
    desk = prints_desk()
    desk.trade("yes", 50, 6)
    desk.trade("no", 50, 2)
    assert executed(desk.place(BID, 60, 50, IOC)) == []


def test_print_that_fills_us_is_not_offered_again():
    """What a print gave to a resting order is not on offer to a taker."""
    desk = prints_desk()
    desk.place(ASK, 48, 4, name="a")
    desk.trade("yes", 50, 6)
    assert executed(desk.place(BID, 60, 50, IOC, account="y")) == [(50, 2)]

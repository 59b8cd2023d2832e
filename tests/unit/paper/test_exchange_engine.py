"""The exchange without its sockets: whatever is asked of it, its books add up."""

from hypothesis import given
from hypothesis import strategies as st
from support.exchange import START_NS, TICKER, book, spec

from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import Action, BookSide, Side, TimeInForce
from holdfast.venues.paper.accounts import OrderRequest, OrderState
from holdfast.venues.paper.engine import BookMoved, Engine, Refusal
from holdfast.venues.paper.events import Delta, FeedKind, Lifecycle, MarketStatus, Print
from holdfast.venues.paper.matching import BookReset, SelfTrade

CENTS = st.integers(30, 60)
PLACE = st.tuples(
    st.just("place"),
    st.sampled_from(list(BookSide)),
    CENTS,
    st.integers(1, 200),
    st.sampled_from(list(TimeInForce)),
    st.booleans(),
    st.sampled_from(list(SelfTrade)),
    st.integers(0, 6),
)
STEPS = st.lists(
    st.one_of(
        PLACE,
        PLACE,
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("delta"), st.sampled_from(list(Side)), CENTS, st.integers(-100, 300)),
        st.tuples(st.just("print"), st.sampled_from(list(Side)), CENTS, st.integers(1, 300)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
    ),
    max_size=40,
)


class OneMarket:
    kind = FeedKind.DEPTH
    start_ns = START_NS
    markets = (spec(),)

    def __iter__(self):
        return iter(())

    def describe(self):
        return "one market"


def _step(engine, step, now_ns):
    """Do one step; market time afterwards."""
    what = step[0]
    if what == "place":
        _, side, cents, contracts, tif, post_only, self_trade, expires = step
        engine.place(
            OrderRequest(
                ticker=TICKER,
                side=side,
                named=Side.YES,
                action=Action.BUY if side is BookSide.BID else Action.SELL,
                yes_price=PriceE4(cents * 100),
                qty=QtyE2(contracts * 100),
                tif=tif,
                post_only=post_only,
                self_trade=self_trade,
                expiration_ns=now_ns + expires * 10**9 if expires and tif is TimeInForce.GTC else 0,
            )
        )
    elif what == "cancel":
        orders = list(engine.account.orders)
        if orders:
            engine.cancel(orders[step[1] % len(orders)])
    elif what == "delta":
        _, side, cents, contracts = step
        place = BookSide.BID if side is Side.YES else BookSide.ASK
        price = PriceE4(cents * 100)
        yes_price = price if side is Side.YES else PriceE4(10_000 - price)
        shown = engine.markets[TICKER].book._depth._shown[place].get(yes_price, 0)
        change = max(contracts * 100, -shown)
        if change:
            engine.apply(Delta(ticker=TICKER, ts_ns=now_ns, side=side, price=price, delta=QtyE2(change)))
    elif what == "print":
        _, side, cents, contracts = step
        engine.apply(
            Print(
                ticker=TICKER,
                ts_ns=now_ns,
                trade_id=str(now_ns),
                taker_side=side,
                yes_price=PriceE4(cents * 100),
                qty=QtyE2(contracts * 100),
            )
        )
    else:
        now_ns += step[1] * 10**9
        engine.advance(now_ns)
    return now_ns


def _check(engine):
    account = engine.account
    for order in account.orders.values():
        assert order.filled + order.leaves + order.canceled == order.initial
        assert (order.state is OrderState.RESTING) == (order.leaves > 0)
    moved = sum(f.order.request.side.sign * f.qty for f in account.fills)
    assert account.holding(TICKER).position == moved
    resting = engine.markets[TICKER].book.resting_orders()
    assert {o.order_id: o.leaves for o in resting} == {o.order_id: o.leaves for o in account.open_orders()}
    assert account.reserved() == account._needed(TICKER, account.open_orders(TICKER)) >= 0
    assert len({f.trade_id for f in account.fills}) == len(account.fills)


@given(STEPS, st.sampled_from([Side.YES, Side.NO]))
def test_the_books_add_up_after_every_step_and_at_settlement(steps, result):
    """Orders, fills, positions and the matching agree always, and after settlement cash is what trades moved."""
    engine = Engine(OneMarket())
    opening = engine.account.cash
    engine.apply(book())
    now_ns = START_NS
    for step in steps:
        now_ns = _step(engine, step, now_ns)
        _check(engine)
    for status in (MarketStatus.CLOSED, MarketStatus.DETERMINED, MarketStatus.FINALIZED):
        engine.apply(Lifecycle(ticker=TICKER, ts_ns=now_ns, status=status, result=result))
    assert engine.books().positions == {}
    assert engine.books().open_orders == ()
    worth = 10_000 if result is Side.YES else 0
    moved = sum(
        f.order.request.side.sign * f.qty * (worth - f.yes_price) - f.fee for f in engine.account.fills
    )
    assert engine.account.cash == opening + moved
    assert engine.account.reserved() == 0


@given(STEPS)
def test_deltas_rebuild_the_public_book(steps):
    """Whoever follows snapshot and deltas holds the book that the exchange shows."""
    engine = Engine(OneMarket())
    engine.apply(book())
    now_ns, followed = START_NS, {}
    for step in [("wait", 1), *steps]:
        now_ns = _step(engine, step, now_ns)
        for what in engine.drain():
            if isinstance(what, BookReset):
                yes, no = engine.markets[TICKER].book.public_levels()
                followed = {(Side.YES, p): q for p, q in yes} | {(Side.NO, p): q for p, q in no}
            elif isinstance(what, BookMoved):
                place = (what.change.side, what.change.price)
                followed[place] = followed.get(place, 0) + what.change.delta
        yes, no = engine.markets[TICKER].book.public_levels()
        shown = {(Side.YES, p): q for p, q in yes} | {(Side.NO, p): q for p, q in no}
        assert {place: qty for place, qty in followed.items() if qty} == shown


@given(STEPS)
def test_equal_engines_say_the_same(steps):
    """Two engines given the same steps hold the same orders under the same ids."""

    def play():
        engine = Engine(OneMarket(), seed=5)
        engine.apply(book())
        now_ns = START_NS
        for step in steps:
            now_ns = _step(engine, step, now_ns)
        return [(o.order_id, o.state, o.filled, o.taker_fees) for o in engine.books().orders], [
            (f.trade_id, f.qty, f.fee) for f in engine.books().fills
        ]

    assert play() == play()


def test_a_refused_order_leaves_no_number_behind():
    """Ids follow accepted orders alone up to the book, so a refusal before it changes no later id."""

    def request(ticker):
        return OrderRequest(
            ticker=ticker,
            side=BookSide.BID,
            named=Side.YES,
            action=Action.BUY,
            yes_price=PriceE4(3_000),
            qty=QtyE2(100),
        )

    plain, refused_first = Engine(OneMarket()), Engine(OneMarket())
    for engine in (plain, refused_first):
        engine.apply(book())
    assert isinstance(refused_first.place(request("KXNONE")), Refusal)
    first, second = plain.place(request(TICKER)), refused_first.place(request(TICKER))
    assert not isinstance(first, Refusal)
    assert not isinstance(second, Refusal)
    assert first.order_id == second.order_id

"""What the exchange remembers rebuilds its books exactly, and only its own."""

import random

import pytest

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import Action, BookSide, Side, TimeInForce
from holdfast.venues.paper.accounts import OrderRequest
from holdfast.venues.paper.engine import Engine
from holdfast.venues.paper.market import SeededMarket
from holdfast.venues.paper.memory import FILE_NAME, Line, Memory, remembered_start

STEP_NS = 500_000_000


class Driven:
    """An engine on the seeded market, with the feed at hand."""

    def __init__(self):
        self.feed = SeededMarket(random.Random(7))
        self.engine = Engine(self.feed, seed=7)
        self.events = iter(self.feed)
        self.upcoming = next(self.events)
        self.release(self.feed.start_ns)

    def release(self, until_ns):
        while self.upcoming is not None and self.upcoming.ts_ns <= until_ns:
            self.engine.apply(self.upcoming)
            self.upcoming = next(self.events, None)

    def step(self, now_ns):
        self.release(now_ns)
        self.engine.advance(now_ns)


def keeping(memory):
    def keep(told):
        if isinstance(told, int):
            memory.keep(Line(time=told))
        elif isinstance(told, str):
            memory.keep(Line(cancel=told))
        else:
            memory.keep(Line(place=told))

    return keep


def trade(driven, seed):
    """Five hundred steps with orders and cancels drawn from *seed*."""
    dice = random.Random(seed)
    tickers = [spec.ticker for spec in driven.feed.markets]
    for _ in range(500):
        driven.step(driven.engine.now_ns + STEP_NS)
        if dice.random() < 0.3:
            driven.engine.place(
                OrderRequest(
                    ticker=dice.choice(tickers),
                    side=dice.choice(list(BookSide)),
                    named=Side.YES,
                    action=Action.BUY,
                    yes_price=PriceE4(dice.randint(1, 99) * 100),
                    qty=QtyE2(dice.randint(1, 9) * 100),
                    tif=dice.choice(list(TimeInForce)),
                )
            )
        resting = driven.engine.books().open_orders
        if resting and dice.random() < 0.1:
            driven.engine.cancel(dice.choice(resting).order_id)


def facts(engine):
    books = engine.books()
    orders = [(o.order_id, o.filled, o.leaves, o.canceled) for o in books.orders]
    return books.cash, dict(books.positions), orders, [fill.trade_id for fill in books.fills], engine.now_ns


def test_telling_an_engine_everything_again_rebuilds_its_books(tmp_path):
    """Orders, fills, ids, cash and time are the same after a replay, and it goes on as the first would have."""
    first = Driven()
    memory = Memory(tmp_path, "seven", first.feed.start_ns)
    first.engine.told = keeping(memory)
    trade(first, 1)
    memory.close()

    again = Driven()
    remembered = Memory(tmp_path, "seven", again.feed.start_ns)
    remembered.replay(again.engine, again.release)
    remembered.close()
    assert facts(again.engine) == facts(first.engine)
    assert len(first.engine.books().fills) > 20

    first.engine.told = None
    trade(first, 2)
    trade(again, 2)
    assert facts(again.engine) == facts(first.engine)


def test_a_half_written_last_line_never_took_effect(tmp_path):
    """A tear is cut off; what stands before it counts."""
    memory = Memory(tmp_path, "seven", 5)
    memory.keep(Line(time=9))
    memory.close()
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"place":{"tick')
    memory = Memory(tmp_path, "seven", 5)
    memory.keep(Line(time=10))
    memory.close()
    assert (tmp_path / FILE_NAME).read_bytes().splitlines()[1:] == [b'{"time":9}', b'{"time":10}']


def test_another_market_and_damage_are_refused_by_name(tmp_path):
    """Books of another market, or lines that cannot be read, are never gone on with."""
    Memory(tmp_path, "seven", 5).close()
    assert remembered_start(tmp_path) == 5
    with pytest.raises(BadInput, match="remembers another market"):
        Memory(tmp_path, "eight", 5)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(BadInput, match="cannot be read"):
        Memory(tmp_path, "seven", 5)


def test_nothing_is_remembered_of_an_empty_directory(tmp_path):
    """A new directory has no start to go on from."""
    assert remembered_start(tmp_path / "new") is None

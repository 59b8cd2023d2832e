"""A user's strategy is found where it is, and what is wrong with it is said as its own mistake, with the line."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from holdfast.cli.paper.strategies import load_strategies
from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import Fill
from holdfast.core.signals import BookSide, Signal
from holdfast.execution.venue import Book, Level

PAGE = Path(__file__).resolve().parents[3] / "docs" / "strategy.md"
_NUMBERS = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the working directory; its name, a new one each time."""
    monkeypatch.chdir(tmp_path)

    def write(source):
        name = f"bot_of_a_test_{next(_NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


def book(bid, ask):
    levels = [tuple([Level(PriceE4(price), QtyE2(500))] if price else []) for price in (bid, ask)]
    return Book(ticker="KXRAIN-T1", bids=levels[0], asks=levels[1], alive_ns=0)


BOT = "from holdfast import Signal, Strategy\nclass Bot(Strategy):\n    name = 'mine'\n"


def test_the_page_s_strategy_trades_as_it_says(module):
    """The example of docs/strategy.md loads, buys while the spread is a cent, and stops at three contracts."""
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    (bot,) = load_strategies([f"{module(source)}:Bot"])
    assert bot.name == "my-bot"
    (wish,) = bot.on_book(book(5500, 5600))
    assert (wish.ticker, wish.count, wish.price, wish.book_side) == ("KXRAIN-T1", 100, 5600, BookSide.BID)
    assert not list(bot.on_book(book(5400, 5600)))
    assert not list(bot.on_book(book(None, 5600)))
    fill = Fill(
        trade_id="t",
        order_id="o",
        ticker="KXRAIN-T1",
        side=BookSide.BID,
        price=PriceE4(5600),
        qty=QtyE2(300),
        fee=0,
        is_taker=True,
        ts_ns=0,
    )
    assert not list(bot.on_fill(fill))
    assert not list(bot.on_book(book(5500, 5600)))
    assert not list(bot.on_tick(0))


@pytest.mark.parametrize(
    ("source", "spec", "said"),
    [
        ("", "{}", "not of the form module:Class"),
        ("", "no_such_module_anywhere:Bot", "No module named 'no_such_module_anywhere'"),
        ("", "{}:Bot", "has no attribute 'Bot'"),
        ("\nraise ValueError('boom')\n", "{}:Bot", r"ValueError: boom \({}.py line 2\)"),
        ("class Bot:\n    def __init__(self, size): ...\n", "{}:Bot", "missing 1 required positional"),
        ("class Bot: ...\n", "{}:Bot", "is no holdfast.Strategy"),
        ("Bot = 3\n", "{}:Bot", "'int' object is not callable"),
    ],
)
def test_a_strategy_that_cannot_be_loaded_is_named_with_what_to_do(module, source, spec, said):
    """Whatever the module does, the message has the strategy, the cause and a hint."""
    name = module(source)
    with pytest.raises(BadInput, match=said.replace("{}", name)) as refused:
        load_strategies([spec.replace("{}", name)])
    assert refused.value.hint


def test_two_strategies_of_one_name_are_refused(module):
    """None of two strategies is silently left out because both are called the same."""
    name = module(BOT + "class Other(Bot): ...\n")
    with pytest.raises(BadInput, match="second one named 'mine'"):
        load_strategies([f"{name}:Bot", f"{name}:Other"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("        1 / 0\n", r"failed in on_book: ZeroDivisionError: division by zero \(\w+\.py line 5\)"),
        ("        yield 1 / 0\n", r"ZeroDivisionError: division by zero \(\w+\.py line 5\)"),
        ("        pass\n", "it returned NoneType, expected signals"),
        ("        return [{'ticker': 'T'}]\n", "dict is no Signal"),
    ],
)
def test_a_mistake_of_a_strategy_ends_the_run_by_its_name(module, body, said):
    """A callback that raises or returns no signals is named with its line; it is no error of holdfast."""
    (bot,) = load_strategies([module(BOT + "    def on_book(self, book):\n" + body) + ":Bot"])
    with pytest.raises(BadInput, match=said) as failed:
        list(bot.on_book(book(5500, 5600)))
    assert str(failed.value).startswith("strategy 'bot_of_a_test_")
    assert failed.value.hint


def test_signals_are_asked_for_one_at_a_time(module):
    """A generator goes on only when the trader asks, as it does without the watch."""
    body = (
        "    def on_tick(self, now_ns):\n"
        "        for n in range(2):\n"
        "            self.at = n\n"
        "            yield Signal(ticker='T', side=Side.YES, count=100, price=5600)\n"
    )
    name = module("from holdfast.core.signals import Side\n" + BOT + body)
    (bot,) = load_strategies([f"{name}:Bot"])
    wishes = iter(bot.on_tick(0))
    assert isinstance(next(wishes), Signal)
    assert bot._strategy.at == 0
    assert len(list(wishes)) == 1

"""`holdfast settle`: what an ended option paid, said by a person, in the journal of a stopped trader."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from support.contracts import EXPIRES_NS, NOW_NS, option_world, put, wish
from support.execution import MemoryLog, drain, world

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.wal import Entry
from holdfast.cli.audit.writing import open_log
from holdfast.cli.main import main
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_INTEGRITY, EXIT_OK, EXIT_USER_ERROR
from holdfast.core.money import format_money
from holdfast.core.options import ExerciseStyle, SettlementStyle
from holdfast.execution.replay import replay_log
from holdfast.risk.halt import TradingState

_LISTED = put(470, settlement=SettlementStyle.CASH)
PUT = msgspec.structs.replace(
    _LISTED, option=msgspec.structs.replace(_LISTED.option, style=ExerciseStyle.EUROPEAN)
)
SAID = ["--who", "ann", "--reason", "statement of 2026-12-18"]


async def _ended() -> SimpleNamespace:
    """A long put that paid 10.00 a unit at the broker, and nothing here."""
    w = option_world(PUT, clock=ManualClock(NOW_NS))
    await w.trader.start()
    await w.trader.route(wish(PUT, "buy", 2, 1.1, key="in"))
    await drain(w)
    w.clock.set_now_ns(EXPIRES_NS + 7_200 * NANOS)
    w.venue.end_option(PUT.ticker, 460 * 10_000, told=False)
    for _ in range(4):
        w.clock.advance(61)
        await w.trader.tick(w.clock.now_ns())
    return w


@pytest.fixture
def ended(tmp_path, monkeypatch) -> SimpleNamespace:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    w = asyncio.run(_ended())
    assert w.account.holds.state is TradingState.REDUCING
    with open_log(tmp_path / "journal") as log:
        AuditLogger(log).record_many(
            [Entry(one.type, dict(one.details), one.user, one.component) for one in w.log.records()]
        )
    return w


def settle(*words: str) -> int:
    return main(["settle", "--log", "journal", *words])


@pytest.mark.contract("B12")
def test_what_a_person_says_is_booked_and_lets_trading_go_on(ended, capsys):
    """The ending is listed as unknown; once told, cash is the broker's, nothing is held back, and who and why are kept."""
    assert settle("--json") == EXIT_OK
    (told,) = json.loads(capsys.readouterr().out)["endings"]
    assert told == {"ticker": PUT.ticker, "quantity": "2.00", "price": "0.0000", "amount": "unknown"}
    assert settle(PUT.ticker, "9.00", *SAID) == EXIT_OK
    assert capsys.readouterr().out == f"settled: {PUT.ticker} at 9.00, cash 1800.00 USD; state ACTIVE\n"
    assert settle(PUT.ticker, "10.00", *SAID, "--json") == EXIT_OK
    assert json.loads(capsys.readouterr().out)["cash"] == "200.00"
    records = list(read_records("journal"))
    account = replay_log(records).account
    assert account.portfolio.positions == {}
    assert account.holds.state is TradingState.ACTIVE
    assert format_money(account.portfolio.cash) == format_money(ended.venue._cash)
    said = [one for one in records if one.details.get("who") == "ann" and one.type == "RECONCILE"]
    assert [one.details["why"] for one in said] == [SAID[3]] * 2
    assert {one.user for one in said} == {"ann"}
    assert settle() == EXIT_OK
    assert "2.00 closed at 10.0000: amount claimed" in capsys.readouterr().out


@pytest.mark.contract("B12")
@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([PUT.ticker], "lacks PRICE, --who, --reason"),
        ([PUT.ticker, "9.00", "--who", "ann"], "lacks --reason"),
        ([PUT.ticker, "9.00", "--who", " ", "--reason", "x"], "by somebody and for a reason"),
        (["SPY", "9.00", *SAID], "no claimed ending"),
        ([PUT.ticker, "3450.00", *SAID], "not per contract"),
        ([PUT.ticker, "nine", *SAID], "nine"),
        ([PUT.ticker, "nan", *SAID], "nan"),
    ],
)
def test_what_cannot_be_is_refused_and_books_nothing(ended, capsys, words, named):
    """A price without its reason, of nothing that ended, per contract or no number is refused by name."""
    before = len(list(read_records("journal")))
    assert settle(*words) == EXIT_USER_ERROR
    assert named in capsys.readouterr().err
    records = [one for one in read_records("journal") if one.component == "trader"]
    assert len(records) <= before
    assert replay_log(records).account.holds.state is TradingState.REDUCING


@pytest.mark.invariant("I7")
@pytest.mark.parametrize("is_told", [False, True])
def test_a_settlement_cut_off_at_any_record_holds_nothing_back_for_ever(ended, is_told):
    """The next start bars increases only while the cash of an ending is unknown, which a person can still say."""
    before = len(list(read_records("journal")))
    assert settle(PUT.ticker, "9.00", *SAID) == EXIT_OK
    story = [one for one in read_records("journal") if one.component == "trader"]
    tail = sum(1 for one in list(read_records("journal"))[before:] if one.component == "trader")

    async def started(records):
        w = await _ended()
        w.venue._backlog.clear()
        if is_told:
            w.venue.tell_endings()
        w = world(clock=w.clock, venue=w.venue, log=MemoryLog(records))
        await w.trader.start()
        for _ in range(5):
            w.clock.advance(61)
            await w.trader.tick(w.clock.now_ns())
        return w

    for cut in range(tail + 1):
        w = asyncio.run(started(story[: len(story) - cut]))
        lacks = [claim for claim in w.account.claims.settleable() if claim.amount == "unknown"]
        assert w.account.holds.state is (TradingState.REDUCING if lacks else TradingState.ACTIVE)
        assert w.account.portfolio.positions == {}
        assert not (is_told and lacks)


def test_the_journal_of_a_running_trader_is_left_alone(ended, capsys):
    """While somebody writes the journal nothing can be settled in it, and the message says who."""
    with open_log(Path("journal")) as log:
        log.open()
        assert settle(PUT.ticker, "9.00", *SAID) == EXIT_CANNOT_ACT
    assert "is held" in capsys.readouterr().err


def test_nothing_is_booked_on_top_of_a_story_that_contradicts_itself(ended, capsys):
    """A journal whose records do not follow from one another is named, and stays as it is."""
    with open_log(Path("journal")) as log:
        update = {
            "client_order_id": "hf-none",
            "event": "ack",
            "released": "0.00",
            "order_id": "",
            "reason": "",
        }
        update |= {"status": "working", "filled": "0.00", "leaves": "1.00", "evidence": ""}
        AuditLogger(log).record_many([Entry("ORDER_UPDATE", update, "x", "trader")])
    assert settle(PUT.ticker, "9.00", *SAID) == EXIT_INTEGRITY
    assert "contradicts itself" in capsys.readouterr().err
    assert not [one for one in read_records("journal") if one.user == "ann"]


def test_no_journal_is_no_journal(tmp_path, monkeypatch, capsys):
    """A directory without a log is named, and none is made there."""
    monkeypatch.chdir(tmp_path)
    assert settle() == EXIT_USER_ERROR
    assert "no audit log at 'journal'" in capsys.readouterr().err
    assert not (tmp_path / "journal").exists()

"""The story of an options run: chapters from records alone, and the page at its end."""

import pytest

from holdfast.audit.format import Record
from holdfast.cli.paper.desk_story import DESK_CHAPTERS, DeskStory
from holdfast.cli.paper.desk_summary import LakeFacts, sparkline
from holdfast.core.money import PriceE4
from holdfast.execution.entry import EntryRules
from holdfast.execution.structures import StructureKind, StructurePlan

COMBO = "+1*SPY230901P00430000,-1*SPY230901P00470000"


def told(*records):
    """A story after *records*, each (type, details), and its lines."""
    story, lines = DeskStory(), []
    for seq, (type_, details) in enumerate(records, start=1):
        record = Record(seq=seq, synced=0, ts=seq * 10**9, type=type_, user="", component="", details=details)
        lines += story.tell(record)
    return story, [f"{line.actor}: {line.text}" for line in lines]


def stop(did, **facts):
    return "RISK_EVENT", {"event_type": f"trailing_stop_{did}", "execution_id": "x-SPY-1", **facts}


def order(ticker=COMBO, intent="put_credit-SPY-1/open"):
    return "ORDER", {
        "client_order_id": "hf-1",
        "intent": intent,
        "ticker": ticker,
        "action": "buy",
        "quantity": "1.00",
        "price": "-1.2000",
    }


def trade(ticker, **facts):
    return "TRADE", {
        "client_order_id": "hf-1",
        "ticker": ticker,
        "side": "bid",
        "quantity": "1.00",
        "price": "1.0000",
        "fee": "0.65",
        **facts,
    }


def test_nothing_is_proven_by_nothing():
    """A run of which nothing was recorded misses every chapter."""
    assert DeskStory().missing == list(DESK_CHAPTERS)


def test_a_combination_is_entered_once_every_leg_is_filled():
    """One of two legs proves nothing."""
    one, _ = told(order(), trade("SPY230901P00430000"))
    assert "entered" not in one.proven
    both, lines = told(order(), trade("SPY230901P00430000"), trade("SPY230901P00470000"))
    assert both.proven["entered"] == 3
    assert "combination of 2 legs at -1.20 (a credit of 1.20)" in lines[0]


def test_all_legs_of_an_order_are_told_or_none():
    """With many orders some are left out whole: no order shows one leg of two."""
    legs = ("SPY230901P00430000", "SPY230901P00470000")
    orders = [order() for _ in range(9)]
    for n, (_, details) in enumerate(orders):
        details |= {"client_order_id": f"hf-{n}", "intent": f"put_credit-SPY-{n}/open"}
    fills = [trade(leg, client_order_id=f"hf-{n}") for n in range(9) for leg in legs]
    _, lines = told(*orders, *fills)
    told_of = [sum(f"-{n}/open bought" in line for line in lines) for n in range(9)]
    assert set(told_of) == {0, 2}


def test_ages_are_told_in_seconds_and_name_the_contract():
    """A refusal and a warning say how old which Greeks are."""
    facts = {
        "limit_type": "greeks_stale",
        "current_value": "960000",
        "limit_value": "300000",
        "unit": "ms",
        "scope": "SPY230901P00430000",
    }
    _, lines = told(
        ("RISK_EVENT", {"event_type": "portfolio_limit_rejection", "symbol": "SPY", **facts}),
        ("RISK_EVENT", {"event_type": "portfolio_limit_warning", **facts}),
    )
    assert lines == [
        "refused: SPY: greeks_stale 960 > 300 s (SPY230901P00430000); nothing was sent",
        "warning: the book as it stands: greeks_stale 960 > 300 s (SPY230901P00430000)",
    ]


@pytest.mark.parametrize("lacking", ["activate", "update", "trigger", "remove"])
def test_a_stop_must_have_done_everything(lacking):
    """Without any one of its steps the chapter is missing."""
    steps = [did for did in ("add", "activate", "update", "trigger", "remove") if did != lacking]
    assert "stop" in told(*(stop(did) for did in steps))[0].missing


def test_a_whole_stop_is_a_chapter():
    """Added, active, ratcheted, triggered, removed."""
    story, lines = told(*(stop(did) for did in ("add", "activate", "update", "trigger", "remove")))
    assert "stop" in story.proven
    assert story.stops["trigger"] == 1
    assert any("TRIGGERED" in line for line in lines)


def test_a_refusal_by_a_portfolio_limit_counts_and_one_by_a_rule_does_not():
    """The chapter is about the limits of the book."""

    def refused(limit):
        return "RISK_EVENT", {
            "event_type": "portfolio_limit_rejection",
            "limit_type": limit,
            "symbol": "SPY",
            "current_value": "36.00",
            "limit_value": "20.00",
            "unit": "shares",
        }

    story, lines = told(refused("symbol_delta"))
    assert "limits" in story.proven
    assert lines == ["refused: SPY: symbol_delta 36.00 > 20.00 shares; nothing was sent"]
    assert "limits" in told(refused("vix"))[0].missing


def test_a_rule_without_figures_says_in_words_what_it_lacked():
    """No structure for lack of a leg or of one cheap enough: the story says which."""
    facts = {"limit_type": "no_structure", "symbol": "SPX", "limit_value": "", "unit": ""}
    said = {**facts, "rejection_reason": "no_structure none that costs 5.0000 or less"}
    _, lines = told(("RISK_EVENT", {"event_type": "portfolio_limit_rejection", **said}))
    assert lines == ["refused: SPX: no_structure none that costs 5.0000 or less; nothing was sent"]


def test_what_is_looked_for_is_told_from_the_record():
    """The plans of a run stand in its journal, and the story says them before the first entry."""
    plans = StructurePlan(kind=StructureKind.LONG_CALL, max_debit=PriceE4(50_000)), StructurePlan()
    rules = EntryRules(when_cheap=plans, when_dear=()).facts()
    _, (line,) = told(("CONFIG", {f"options.entry.{name}": value for name, value in rules.items()}))
    assert line == (
        "rules: where options are cheap: long_call, delta 0.16, 1 to 60 days, for at most 5.0000; else "
        "iron_condor, delta 0.16, 1 to 60 days, width 5.0000"
    )


def test_an_end_at_the_broker_is_told_with_its_cause():
    """Expiry, exercise and assignment are no trades."""
    story, lines = told(trade("SPY230901P00430000", cause="expiration", client_order_id=""))
    assert story.contracts_ended == {"expiration": 1}
    assert "expiry" in story.proven
    assert lines[0].startswith("expired: SPY230901P00430000")


@pytest.mark.parametrize(
    ("event", "sends", "proven"), [("found", 1, True), ("fill", 1, True), ("found", 2, False)]
)
def test_a_lost_answer_must_be_found_and_sent_once(event, sends, proven):
    """UNKNOWN and then evidence is the chapter; an order sent twice is none."""

    def update(what, status):
        facts = {"client_order_id": "hf-1", "event": what, "status": status, "reason": "cut", "evidence": ""}
        return "ORDER_UPDATE", facts | {"leaves": "1.00", "filled": "0.00"}

    story, _ = told(*[order()] * sends, update("unknown", "unknown"), update(event, "filled"))
    assert ("lost" in story.proven) is proven


def test_alarms_are_told_and_counted():
    """An exit that is barred is what a person must see."""
    details = {
        "violation_type": "exit_barred",
        "current_value": "state_cancel_only",
        "details": {"execution_id": "x"},
    }
    story, lines = told(("RISK_VIOLATION", details))
    assert story.alarms == {"exit_barred": 1}
    assert lines[0].endswith("stays demanded")
    _, (told_of,) = told(("RISK_VIOLATION", {**details, "current_value": "not_reducing"}))
    assert "close both at the broker as one order" in told_of


def test_stock_taking_gives_the_greeks_over_time():
    """Each event is one row, unknown values empty."""
    taken = {
        "event_type": "portfolio_limit_check",
        "limit_type": "stock_taking",
        "metadata": {"delta": "1.50", "equity": "100000.00", "positions": 2},
    }
    (stock,) = told(("RISK_EVENT", taken))[0].stocks
    assert (stock.delta, stock.gamma, stock.equity, stock.positions) == ("1.50", "", "100000.00", 2)


def test_a_sparkline_spans_from_least_to_most():
    """Equal values are flat; more than fit are thinned."""
    assert sparkline([0.0, 1.0, 2.0]) == "▁▅█"
    assert sparkline([5.0, 5.0]) == "▄▄"
    assert len(sparkline([float(n) for n in range(500)])) == 48


def test_a_lake_is_whole_with_every_event_once():
    """One too few and one too many are not."""
    for count, whole in ((9, False), (10, True), (11, False)):
        assert LakeFacts(rows={"risk_events": count}, expected=10).is_whole is whole
    assert LakeFacts(expected=10).is_whole


def test_an_exit_that_waits_says_for_what_and_how_long_it_waited():
    """The wait is told when it begins, once; the order that ends it says how long it lasted."""
    facts = {"execution_id": "x-SPY-1", "limit_type": "exit_waits", "rejection_reason": "worthless"}
    held = {"metadata": {"rule": "TrailingStop", "held": {"SPY230901P00430000": "1.00"}}}
    waits = ("RISK_EVENT", {"event_type": "portfolio_limit_warning", **facts, **held})
    between = [("RISK_EVENT", {"event_type": "x"})] * 118
    story, lines = told(waits, waits, *between, order("SPY230901P00430000", "x-SPY-1/exit-2"))
    beginning, end = lines
    assert beginning.startswith(
        "waits: x-SPY-1: nobody bids for what is left of it: 1 SPY230901P00430000 stays"
    )
    assert end == (
        "order: x-SPY-1/exit-2: buy 1 SPY230901P00430000 at -1.20, after waiting 2 min, record 121 on disk, then sent"
    )
    assert not story.warnings

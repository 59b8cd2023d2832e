"""The story of a paper run is told from records alone, and says which chapters it never saw."""

from holdfast.audit.format import Record
from holdfast.cli.paper.story import CHAPTERS, Story

START_NS = 1_772_463_600_000_000_000


class Journal:
    """Hands out records with rising sequences."""

    def __init__(self):
        self.story = Story()
        self.lines = []

    def add(self, kind, **details):
        seq = self.story.last_seq + 1
        record = Record(
            seq=seq, synced=0, ts=START_NS + seq, type=kind, user="u", component="", details=details
        )
        self.lines += [str(line) for line in self.story.tell(record)]
        return seq

    def decide(self, intent, *, verdict="allow", reason="", strategy="s1"):
        return self.add(
            "DECISION",
            intent=intent,
            strategy=strategy,
            ticker="T",
            action="buy",
            side="yes",
            count="5.00",
            price="0.5600",
            verdict=verdict,
            reason=reason,
            rows=[[reason, "T", "500.00", "100.00", "contracts", False]] if reason else [],
        )

    def order(self, intent, order_id, strategy="s1"):
        return self.add(
            "ORDER",
            client_order_id=order_id,
            intent=intent,
            strategy=strategy,
            ticker="T",
            action="buy",
            side="yes",
            quantity="5.00",
            price="0.5600",
        )

    def update(self, order_id, event, status, **more):
        details = {"filled": "0.00", "leaves": "5.00", "reason": ""} | more
        return self.add("ORDER_UPDATE", client_order_id=order_id, event=event, status=status, **details)

    def trade(self, order_id):
        return self.add(
            "TRADE",
            client_order_id=order_id,
            side="bid",
            quantity="5.00",
            ticker="T",
            price="0.5600",
            fee="0.09",
        )

    def call(self, status):
        return self.add("API_CALL", method="GET", endpoint="portfolio/balance", status_code=status)

    def breaker(self, before, after):
        return self.add("BREAKER", breaker="kalshi_api", **{"from": before, "to": after}, reason="5 failures")


def test_a_run_without_records_misses_every_chapter():
    """Nothing is assumed: a chapter stands only on a record."""
    assert Story().missing == list(CHAPTERS)


def test_trading_needs_fills_of_two_strategies():
    """One strategy's fills are not the trading of several."""
    journal = Journal()
    journal.order("a", "hf-a", "s1")
    journal.trade("hf-a")
    assert "trading" in journal.story.missing
    journal.order("b", "hf-b", "s2")
    seq = journal.trade("hf-b")
    assert journal.story.proven["trading"] == seq


def test_a_refused_order_is_told_with_its_measure_and_withdrawn_when_it_was_sent_after_all():
    """The chapter holds only while no ORDER record exists for the refused intent."""
    journal = Journal()
    journal.decide("big", verdict="deny", reason="position_limit_exceeded")
    journal.add("RISK_VIOLATION", violation_type="position_limit_exceeded")
    assert "refused" in journal.story.proven
    assert any("500.00 > 100.00 contracts" in line for line in journal.lines)
    journal.order("big", "hf-big")
    assert "refused" in journal.story.missing


def test_the_outage_needs_every_step_in_order():
    """A breaker that never refused a call, or never closed, leaves the chapter out."""
    journal = Journal()
    for _ in range(5):
        journal.call(500)
    journal.breaker("closed", "open")
    journal.breaker("open", "half_open")
    journal.breaker("half_open", "closed")
    assert "outage" in journal.story.missing

    journal = Journal()
    for _ in range(5):
        journal.call(500)
    journal.breaker("closed", "open")
    journal.add("RISK_VIOLATION", violation_type="circuit_breaker_open")
    journal.breaker("open", "half_open")
    assert "outage" in journal.story.missing
    seq = journal.breaker("half_open", "closed")
    assert journal.story.proven["outage"] == seq


def test_a_lost_answer_is_proven_only_by_finding_the_order_once_sent():
    """An order sent twice, or declared never arrived, is not a lost answer found."""
    journal = Journal()
    journal.order("a", "hf-a")
    journal.update("hf-a", "unknown", "unknown")
    assert journal.story.unknown_now == 1
    seq = journal.update("hf-a", "found", "working")
    assert journal.story.proven["lost"] == seq
    assert journal.story.unknown_now == 0

    journal = Journal()
    journal.order("a", "hf-a")
    journal.update("hf-a", "unknown", "unknown")
    journal.order("a", "hf-a")
    journal.update("hf-a", "found", "working")
    assert "lost" in journal.story.missing


def test_an_order_that_never_arrived_is_unknown_no_longer():
    """It is not "found", proves no lost answer, and the run ends without an open question."""
    journal = Journal()
    journal.order("i", "hf-a")
    journal.update("hf-a", "unknown", "unknown")
    journal.update("hf-a", "never_arrived", "never_arrived", evidence="absent beyond the bound on lateness")
    assert journal.story.unknown_now == 0
    assert "lost" not in journal.story.proven
    assert "never reached the venue: absent beyond the bound" in journal.lines[-1]


def test_repeated_lines_grow_rare():
    """A thousand fills are told in a few lines."""
    journal = Journal()
    journal.order("a", "hf-a")
    for _ in range(1000):
        journal.trade("hf-a")
    assert len(journal.lines) < 20


def test_an_order_that_leaves_while_the_breaker_is_open_says_why():
    """Only what reduces leaves while a breaker is open, and its line says so; before, and after, nothing is explained."""
    journal = Journal()
    journal.order("i1", "hf-1", "s1")
    journal.breaker("closed", "open")
    journal.order("i2", "hf-2", "s2")
    journal.breaker("open", "half_open")
    journal.breaker("half_open", "closed")
    journal.order("i3", "hf-3", "s3")
    orders = [line for line in journal.lines if " order " in line]
    assert [line.partition("sent")[2] for line in orders] == [
        "", ": it reduces, and an open breaker lets that through", "",
    ]  # fmt: skip


def test_money_in_the_story_is_said_in_dollars():
    """A price and a fee carry their unit."""
    journal = Journal()
    journal.order("i1", "hf-1")
    journal.trade("hf-1")
    assert any("@ $0.5600" in line for line in journal.lines)
    assert any("at $0.5600, fee $0.09" in line for line in journal.lines)

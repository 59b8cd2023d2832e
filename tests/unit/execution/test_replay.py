from __future__ import annotations

import json

import pytest

from holdfast.audit.format import Record
from holdfast.cli.main import main
from holdfast.execution.replay import replay_log


def records(*entries):
    """Records of (type, component, details)."""
    return [
        Record(seq=n, synced=0, ts=n, type=type_, user="u", component=component, details=details)
        for n, (type_, component, details) in enumerate(entries, 1)
    ]


ORDER = {
    "order_id": "hf-1", "client_order_id": "hf-1", "intent": "a", "strategy": "s", "ticker": "KX", "event": "E",
    "action": "buy", "side": "yes", "order_type": "limit", "quantity": "10.00", "price": "0.5600",
    "yes_price": "0.5600", "book_side": "bid", "tif": "gtc", "reduce_only": False, "post_only": False,
    "expiration_ns": None, "reserved": "5.60", "fee_bound": "0.18", "decision": 1, "content": "c",
    "created_ns": 1,
}  # fmt: skip
TRADE = {
    "order_id": "v-1", "client_order_id": "hf-1", "trade_id": "t-1", "side": "bid", "quantity": "4.00",
    "price": "0.5500", "market": "KX", "ticker": "KX", "fee": "0.02", "is_taker": True, "external": False,
}  # fmt: skip
STATE = {"holder": "x", "from": "ACTIVE", "to": "ACTIVE", "reason": "", "who": "", "holders": {}}


def test_positions_cash_and_open_orders_come_from_the_records():
    """A fill moves the position and the cash once, however often it is recorded; the rest of the order stays open."""
    done = replay_log(
        records(("ORDER", "trader", ORDER), ("TRADE", "trader", TRADE), ("TRADE", "trader", TRADE))
    )
    facts = done.to_dict()
    assert done.holds_together
    assert facts["positions"] == {"KX": "4.00"}
    assert facts["cash"] == "-2.22"
    assert [(order["client_order_id"], order["leaves"]) for order in facts["open_orders"]] == [
        ("hf-1", "6.00")
    ]


def test_what_another_component_wrote_moves_no_position():
    """A TRADE of somebody's own program is a record, not a fill of this account."""
    assert replay_log(records(("TRADE", "my-bot", TRADE))).to_dict()["positions"] == {}


def test_an_exit_from_the_reserve_counts_as_the_order_that_it_is():
    """A LATE record holds an order that was sent while the journal could not be written; a late cancel is none."""
    late = {"n": 1, "ts": 5, "type": "ORDER", "user": "u", "component": "trader", "details": ORDER}
    cancel = late | {"type": "CANCEL", "details": {"client_order_id": "hf-9"}}
    done = replay_log(records(("LATE", "journal", late), ("LATE", "journal", cancel)))
    assert [order["client_order_id"] for order in done.to_dict()["open_orders"]] == ["hf-1"]


def test_records_that_contradict_one_another_are_named():
    """An update of an order that was never written is named by its sequence, and the replay goes on."""
    update = {
        "client_order_id": "hf-7",
        "event": "ack",
        "order_id": "v",
        "status": "working",
        "released": "0.00",
    }
    done = replay_log(records(("ORDER_UPDATE", "trader", update), ("ORDER", "trader", ORDER)))
    assert [sequence for sequence, _ in done.contradictions] == [1]
    assert not done.holds_together
    assert len(done.to_dict()["open_orders"]) == 1


def test_a_record_that_no_trader_wrote_is_named():
    """Somebody's own record under the trader's name lacks what an order needs; it is named, and nothing fails."""
    done = replay_log(records(("ORDER", "trader", {"client_order_id": "x"}), ("DECISION", "gate", {"n": 1})))
    assert [sequence for sequence, _ in done.contradictions] == [1, 2]
    assert "not what a trader writes" in done.contradictions[0][1]


@pytest.mark.slow
@pytest.mark.contract("A18", "X3")
def test_a_decision_that_does_not_follow_from_its_inputs_is_named(tmp_path, capsys):
    """Every decision of a real run is made again alike; one whose recorded inputs were changed is named, exit 3."""
    from holdfast.audit.query import read_records

    assert main(["paper", "--dir", str(tmp_path / "run"), "--speed", "max", "--seconds", "1", "--json"]) in {
        0,
        1,
    }
    capsys.readouterr()
    log = tmp_path / "run" / "audit"
    assert main(["audit", "replay", str(log), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["decisions"] > 3
    changed = list(read_records(log))
    victim = next(record for record in changed if record.type == "DECISION" and record.details["inputs"])
    victim.details["inputs"]["position_e2"] += 1_000_000
    done = replay_log(changed)
    assert done.differing == [victim.seq]
    assert main(["audit", "replay", str(log)]) == 0
    assert "0 with another outcome" in capsys.readouterr().out

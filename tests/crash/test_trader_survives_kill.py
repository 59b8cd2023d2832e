"""kill -9 of the trader at random points of a paper run on a faulty exchange, and what a restart makes of it."""

import json
import random
import select
import signal
import subprocess
import sys
from collections import Counter

import pytest

from holdfast.audit.query import read_records
from holdfast.audit.verify import verify

SEED = 20261120
KILLS = 6
HOLDFAST = [sys.executable, "-m", "holdfast"]
FAULTS = "drop=0.06,5xx_after=0.04,5xx_before=0.02"
LIMIT_SECS = 120


class Exchange:
    """The exchange in a process of its own, so that it outlives every trader."""

    def __init__(self, directory):
        market = ["--seed", "3", "--speed", "120", "--seconds", "8", "--faults", FAULTS, "--dedup", "none"]
        self.process = subprocess.Popen(
            [
                *HOLDFAST,
                "exchange",
                *market,
                "--hold",
                "--json",
                "--exit-with-stdin",
                "--dir",
                str(directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.endpoints = json.loads(self.process.stdout.readline())

    def trader(self, run, *more):
        """A paper trader that joins this exchange and takes *run* up again."""
        joined = [
            "--exchange",
            self.endpoints["rest"],
            "--key-id",
            self.endpoints["key_id"],
            "--pem",
            self.endpoints["pem"],
        ]
        return subprocess.Popen(
            [*HOLDFAST, "paper", *joined, "--dir", str(run), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=run.parent,
            text=True,
        )

    def close(self):
        self.process.stdin.close()
        self.process.wait(LIMIT_SECS)
        self.process.stdout.close()


def kill_after(process, lines, more_secs):
    """SIGKILL after *lines* lines of the story and at most *more_secs* further; False when it ended before."""
    for _ in range(lines):
        if not process.stdout.readline():
            return False
    select.select([process.stderr], [], [], more_secs)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_SECS)
    return True


@pytest.mark.slow
@pytest.mark.contract("A16")
@pytest.mark.invariant("I2", "I7")
def test_a_killed_trader_loses_nothing_and_repeats_nothing(tmp_path):
    """After six kills every acknowledged record is there, positions equal the exchange's, and no order went twice."""
    dice = random.Random(SEED)
    run = tmp_path / "run"
    run.mkdir()
    exchange = Exchange(tmp_path / "exchange")
    seen = {}
    killed = 0
    try:
        for _ in range(KILLS):
            trader = exchange.trader(run)
            killed += kill_after(trader, dice.randint(2, 14), dice.uniform(0, 0.4))
            trader.stdout.close()
            trader.stderr.close()
            trader.wait(LIMIT_SECS)
            report = verify(run / "audit")
            assert report.ok, f"seed {SEED}: {report.first_bad}"
            durable = {record.seq: record for record in read_records(run / "audit")}
            for seq, record in seen.items():
                assert durable.get(seq) == record, f"seed {SEED}: record {seq} changed or went"
            seen = durable
        last = exchange.trader(run, "--json")
        out, err = last.communicate(timeout=LIMIT_SECS)
        assert killed >= KILLS // 2, f"seed {SEED}: the kills came too late to matter"
        assert out.strip(), err
        summary = json.loads(out.strip().splitlines()[-1])
    finally:
        exchange.close()
    assert summary["exchange_matches"], f"seed {SEED}: {summary['differences']}"
    assert summary["journal"]["verify_ok"]
    records = list(read_records(run / "audit"))
    for seq, record in seen.items():
        assert records[seq - 1] == record, f"seed {SEED}: record {seq} changed or went"
    sent = Counter(record.details["client_order_id"] for record in records if record.type == "ORDER")
    assert sent, "nothing was traded"
    assert max(sent.values()) == 1, f"seed {SEED}: an intent was written twice"
    calls = [r for r in records if r.type == "API_CALL" and r.details["method"] == "POST"]
    assert len(calls) <= len(sent), f"seed {SEED}: more placements than intents"
    trades = Counter(record.details["trade_id"] for record in records if record.type == "TRADE")
    assert max(trades.values()) == 1, f"seed {SEED}: a fill was booked twice"

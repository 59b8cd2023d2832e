"""`holdfast paper` shows what it promises, twice the same, and says so when it cannot."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from support.data import require
from support.exchange import as_process

from holdfast.audit.query import read_records
from holdfast.breaker.machine import Verdict
from holdfast.cli.main import main
from holdfast.cli.paper import session
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.execution import ledger
from holdfast.execution.reconcile import resolve
from holdfast.venues.kalshi import transport

FAST = ["--speed", "max"]
pytestmark = pytest.mark.slow


def paper(tmp_path, capsys, monkeypatch, *arguments):
    """The exit code and the summary of a run in this process."""
    monkeypatch.chdir(tmp_path)
    code = main(["paper", "--json", *arguments])
    out = capsys.readouterr().out.strip().splitlines()
    return code, json.loads(out[-1])


@pytest.mark.contract("A14", "A21", "X6")
def test_a_paper_run_keeps_its_promises_and_repeats_itself(tmp_path, capsys, monkeypatch):
    """Every chapter is proven from the journal, books are equal, and the same seed decides the same at another speed."""
    code, first = paper(tmp_path, capsys, monkeypatch, *FAST)
    assert code == 0, first
    assert first["chapters_missing"] == []
    assert first["exchange_matches"]
    assert first["journal"]["verify_ok"]
    assert first["tampered"]["found"]
    assert first["orders"]["unknown"] == 0
    assert first["orders"]["submitted"] > 100
    assert first["refusals"]["position_limit_exceeded"] == 1
    assert [step["to"] for step in first["breaker"]] == ["open", "half_open", "closed"]

    code, again = paper(tmp_path, capsys, monkeypatch, "--speed", "200")
    assert code == 0
    assert again["decisions"] == first["decisions"]
    assert again["decisions_sha256"] == first["decisions_sha256"]


def test_the_refused_order_made_no_api_call(tmp_path, capsys, monkeypatch):
    """Between the refusal and the next record nothing was sent, and no ORDER record exists for its intent."""
    _, summary = paper(tmp_path, capsys, monkeypatch, "--speed", "150", "--seconds", "2")
    records = list(read_records(tmp_path / summary["directory"] / "audit"))
    denied = next(r for r in records if r.type == "DECISION" and r.details["verdict"] == "deny")
    assert denied.details["strategy"] == "overreach"
    assert not [r for r in records if r.type == "ORDER" and r.details["intent"] == denied.details["intent"]]
    posts = [r for r in records if r.type == "API_CALL" and r.details["method"] == "POST"]
    orders = [r for r in records if r.type == "ORDER"]
    assert len(posts) == len(orders)
    following = [r.type for r in records if r.seq > denied.seq][:2]
    assert following == ["RISK_VIOLATION", "RISK_VIOLATION"]


@pytest.mark.invariant("I1")
def test_every_order_was_durable_before_its_call(tmp_path, capsys, monkeypatch):
    """Each POST's record has its ORDER record before it, already synced when the call was recorded."""
    _, summary = paper(tmp_path, capsys, monkeypatch, "--speed", "200", "--seconds", "3")
    waiting = []
    sent = 0
    for record in read_records(tmp_path / summary["directory"] / "audit"):
        if record.type == "ORDER":
            waiting.append(record.seq)
        elif record.type == "API_CALL" and record.details["method"] == "POST":
            assert waiting, f"record {record.seq} is a call without an intent before it"
            assert record.synced >= waiting.pop(0)
            sent += 1
    assert sent > 20


def without(monkeypatch, change):
    """Run with one safety part switched off."""
    real = session.open_desk

    def open_broken(*args, **kwargs):
        desk = real(*args, **kwargs)
        change(desk)
        return desk

    monkeypatch.setattr(session, "open_desk", open_broken)


def test_without_the_breaker_the_run_fails(tmp_path, capsys, monkeypatch):
    """A breaker that counts nothing as failure leaves the outage unproven: exit code 1."""
    monkeypatch.setattr(transport, "verdict_for_status", lambda *_args, **_options: Verdict.IGNORED)
    code, summary = paper(tmp_path, capsys, monkeypatch, *FAST)
    assert code == 1
    assert any("breaker" in chapter for chapter in summary["chapters_missing"])


def test_without_the_gate_the_run_fails(tmp_path, capsys, monkeypatch):
    """Limits so wide that nothing is refused leave the refusal unproven: exit code 1."""

    def widen(desk):
        limits = desk.trader.gate.limits
        desk.trader.gate.set_limits(
            dataclasses.replace(
                limits,
                max_position=QtyE2(10**12),
                max_order_value=MoneyE6(10**15),
                max_exit_value=MoneyE6(10**15),
            )
        )

    without(monkeypatch, widen)
    code, summary = paper(tmp_path, capsys, monkeypatch, *FAST)
    assert code == 1
    assert any("position limit" in chapter for chapter in summary["chapters_missing"])


def test_without_the_reconciler_the_run_fails(tmp_path, capsys, monkeypatch):
    """An order whose evidence nobody weighs stays unknown: the exit code is not 0."""

    def blind(status, evidence):
        return None if status is OrderStatus.UNKNOWN else resolve(status, evidence)

    monkeypatch.setattr(ledger, "resolve", blind)
    code, summary = paper(tmp_path, capsys, monkeypatch, *FAST)
    assert code in {1, 4}
    assert any("lost" in chapter for chapter in summary["chapters_missing"])


def test_a_bad_option_is_named(tmp_path, capsys, monkeypatch):
    """Bad input ends with 1, one sentence and a hint, before anything is started."""
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "--strategy", "no_such:Bot"]) == 1
    assert "no_such" in capsys.readouterr().err
    assert main(["paper", "--tape", "/nowhere/at/all"]) == 1
    assert "/nowhere/at/all" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.contract("A21")
def test_a_recorded_game_is_traded_to_its_settlement(tmp_path, capsys, monkeypatch):
    """A recording runs through the same path: orders, fills, settlement, equal books."""
    tape = require("kalshi/l2-nba-unlicensed/KXNBAGAME-26MAR18ATLDAL-ATL.parquet")
    code, summary = paper(tmp_path, capsys, monkeypatch, "--tape", str(tape))
    assert code == 0, summary
    assert summary["orders"]["filled"] > 10
    settled = [r for r in read_records(tmp_path / summary["directory"] / "audit") if r.type == "SETTLEMENT"]
    assert {record.details["result"] for record in settled} <= {"yes", "no"}
    assert settled


@pytest.mark.data
def test_prints_alone_can_be_traded(tmp_path, capsys, monkeypatch):
    """A day of prints trades against what was printed, and the books stay equal."""
    tape = require("kalshi/spx-tape/kxinx-trades-2026-01.parquet")
    prints = pl.read_parquet(tape)
    first = prints["ts_s"].min()
    day = tmp_path / "day.parquet"
    prints.filter(pl.col("ts_s") < first + 24 * 3600).write_parquet(day)
    code, summary = paper(tmp_path, capsys, monkeypatch, "--tape", str(day))
    assert code == 0, summary
    assert summary["orders"]["filled"] > 0


def test_plain_lines_tell_the_story_when_nobody_watches(tmp_path):
    """Without a terminal the story is one line each on standard output, ending in the summary."""
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "paper", "--speed", "max"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "refused",
        "UNKNOWN",
        "sent once, not repeated",
        "SUMMARY",
        "verify names record",
        "next:",
    ):
        assert expected in done.stdout


def started(tmp_path, *arguments):
    """A paper run as a child process that has told its first line of trading."""
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "paper", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if " order " in line:
            break
    return process


def test_ctrl_c_ends_the_run_with_its_summary_and_lists_what_rests(tmp_path):
    """An interrupted run is summed up: books equal, journal verified, exit code 0."""
    process = started(tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert "interrupted" in out
    assert "equal the exchange's own" in out
    assert "verified" in out


def test_an_exchange_that_dies_ends_the_run_by_name(tmp_path):
    """Killed under a running trader, the exchange is named as unreachable, exit code 5, and the journal verifies."""
    with as_process("--hold", "--speed", "5") as exchange:
        endpoints = exchange.endpoints
        joined = [
            "--exchange",
            endpoints.rest,
            "--key-id",
            endpoints.key_id,
            "--pem",
            str(endpoints.pem_path),
        ]
        process = started(tmp_path, *joined, "--dir", "run")
        exchange.process.kill()
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "no paper exchange answers" in err
    assert "hint:" in err
    assert main(["audit", "verify", str(tmp_path / "run" / "audit")]) == 0


def test_an_interrupted_run_is_taken_up_again_from_its_directory(tmp_path):
    """`--dir` alone goes on: exchange and trader remember, nothing is repeated, and the whole story stands."""
    process = started(tmp_path, "--dir", "run", "--speed", "60")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    before = list(read_records(tmp_path / "run" / "audit"))

    again = subprocess.run(
        [sys.executable, "-m", "holdfast", "paper", "--dir", "run", "--speed", "max", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    summary = json.loads(again.stdout.splitlines()[-1])
    assert summary["exchange_matches"]
    assert summary["chapters_missing"] == []
    records = list(read_records(tmp_path / "run" / "audit"))
    assert records[: len(before)] == before
    names = [record.details["client_order_id"] for record in records if record.type == "ORDER"]
    assert len(names) == len(set(names))


def test_a_directory_of_another_market_is_refused(tmp_path):
    """An exchange does not go on with books that another market made."""
    held = ["--exit-with-stdin", "--json", "--dir", "x", "--hold"]
    for seed, code, said in ((1, 0, ""), (2, 1, "remembers another market")):
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", "exchange", *held, "--seed", str(seed)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert said in done.stderr


_LAST_TICK = """
from datetime import datetime

from holdfast import Signal, Strategy
from holdfast.cli.paper.session import DEFAULT_MARKET_SECS, SEEDED_START
from holdfast.core.signals import Side

END_NS = (int(datetime.fromisoformat(SEEDED_START).timestamp()) + DEFAULT_MARKET_SECS) * 10**9


class Last(Strategy):
    name = "last-tick"

    def __init__(self):
        self.books = {}

    def on_book(self, book):
        self.books[book.ticker] = book
        return ()

    def on_tick(self, now_ns):
        if now_ns >= END_NS:
            for ticker, book in self.books.items():
                if book.best_ask:
                    yield Signal(ticker=ticker, side=Side.YES, count=100, price=book.best_ask)
"""


def test_an_order_at_the_last_tick_is_booked_before_the_books_are_compared(tmp_path, capsys, monkeypatch):
    """What was executed after the final tick is in our books too: they equal the exchange's."""
    (tmp_path / "bot_at_the_last_tick.py").write_text(_LAST_TICK, encoding="utf-8")
    code, summary = paper(tmp_path, capsys, monkeypatch, *FAST, "--strategy", "bot_at_the_last_tick:Last")
    assert summary["exchange_matches"], summary["differences"]
    assert code == 0
    assert summary["orders"]["filled"] == summary["orders"]["submitted"] > 0


def test_a_killed_exchange_is_taken_up_again_with_the_run(tmp_path):
    """kill -9 of the exchange ends the run by name; `--dir` brings both back, books equal, nothing sent twice."""
    process = started(tmp_path, "--dir", "run", "--speed", "60")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    exchange = next(
        int(child) for child in children if b"exchange" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    os.kill(exchange, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5, out + err
    again = subprocess.run(
        [sys.executable, "-m", "holdfast", "paper", "--dir", "run", "--speed", "max", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    summary = json.loads(again.stdout.splitlines()[-1])
    assert summary["exchange_matches"], summary["differences"]
    assert summary["journal"]["verify_ok"]
    records = list(read_records(tmp_path / "run" / "audit"))
    names = [record.details["client_order_id"] for record in records if record.type == "ORDER"]
    assert len(names) == len(set(names))

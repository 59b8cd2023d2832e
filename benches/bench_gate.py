"""The gate, and the way from the gate to the socket beside the journal's durable append.

CPU time of the calling thread for the gate (medians of rounds), beside the lock taken and the clock read,
which every decision needs, so that a slow or busy machine shows; wall time for what waits for the disk, each
order interleaved with bare appends of the same two records, because a shared disk changes from second to
second: read the ratio. `python benches/bench_gate.py [DIR]` prints the rows; `run()` returns them.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from holdfast.audit.format import encode_details
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import NANOS, SystemClock
from holdfast.core.greeks import MODEL, Greeks
from holdfast.core.instruments import PREMIUM_CENTS, ComboLeg, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_price, format_qty
from holdfast.core.options import OptionTerms, Right
from holdfast.core.signals import Intent, Side, Signal
from holdfast.execution.trader import Trader, order_details
from holdfast.execution.venue import Ack
from holdfast.risk.account import Account
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.testing.venue import FakeVenue, combination

TICKER = "KXBENCH-26NOV20-A"
MARKET = Instrument(venue="bench", ticker=TICKER)
ROUNDS = 15
ORDERS = 2_000
COMBINATIONS = 50
SENDS = 400
WIDE = RiskLimits(max_position=QtyE2(10**12), max_order_value=MoneyE6(10**15), max_exit_value=MoneyE6(10**15))
PORTFOLIO = RiskLimits(
    max_order_value=MoneyE6(10**15),
    max_exit_value=MoneyE6(10**15),
    max_daily_loss=MoneyE6(10**15),
    portfolio=RiskLimitsConfig(10**6, 10**6, 1, 10**6, 1, concentration_base="position_total"),
)
NARROW = RiskLimits(max_order_value=MoneyE6(1))


def wish(n: int) -> Signal:
    return Signal(ticker=TICKER, side=Side.YES, count=QtyE2(1000), price=PriceE4(5600), key=f"k{n}")


def fresh_gate(limits: RiskLimits = WIDE) -> Gate:
    account = Account()
    account.apply(
        "SESSION_OPEN",
        {
            "session": "",
            "opened_ns": 0,
            "cash": "0.00",
            "liquidation": "0.00",
            "positions": {TICKER: "5.00"},
            "marks": {},
        },
    )
    gate = Gate(account, limits, clock=SystemClock())
    gate.market.saw_book(TICKER, PriceE4(5500), PriceE4(5600), time.monotonic_ns(), streamed=False)
    return gate


def lock_and_clock(gate, _intent) -> None:
    with gate.account.lock:
        gate._clock.monotonic_ns()


def evaluate_after_a_move(gate, intent) -> None:
    gate.market.saw_book(TICKER, PriceE4(5500), PriceE4(5600), gate._clock.monotonic_ns(), streamed=False)
    gate.evaluate(intent)


def micros(work, gate_of=fresh_gate) -> float:
    """CPU microseconds per order, median of the rounds."""
    intents = [
        Intent(client_order_id=f"hf-{n}", key=f"k{n}", signal=wish(n), instrument=MARKET)
        for n in range(ORDERS)
    ]
    spent = []
    for _ in range(ROUNDS):
        gate = gate_of()
        gc.collect()
        gc.disable()
        start = time.thread_time_ns()
        for intent in intents:
            work(gate, intent)
        spent.append((time.thread_time_ns() - start) / ORDERS / 1000)
        gc.enable()
    return statistics.median(spent)


def put(strike: int) -> Instrument:
    terms = OptionTerms(
        underlying="SPY",
        root="SPY",
        expiry=20991218,
        right=Right.PUT,
        strike=PriceE4(strike * 10_000),
        expires_ns=4_100_000_000 * NANOS,
    )
    return Instrument(
        venue="bench",
        ticker=terms.ticker,
        kind=InstrumentKind.OPTION,
        option=terms,
        multiplier=100,
        price_ranges=PREMIUM_CENTS,
    )


def combination_micros(held: int) -> float:
    """CPU microseconds to judge a spread with the portfolio's rows while *held* options are held."""
    strikes = [put(400 + 5 * n) for n in range(held)]
    spread = combination((ComboLeg(put(300), 1), ComboLeg(put(310), -1)))
    gate = fresh_gate(PORTFOLIO)
    for instrument in (spread, *strikes):
        gate.market.saw_rules(instrument)
    as_of_ns = gate._clock.monotonic_ns()
    for number, instrument in enumerate(strikes):
        qty = 100 if number % 2 else -100
        gate.account.portfolio.positions[instrument.ticker] = QtyE2(qty)
    gate.account.portfolio.positions.pop(TICKER)
    for instrument in (*strikes, *(leg.instrument for leg in spread.legs)):
        gate.market.saw_book(instrument.ticker, PriceE4(100), PriceE4(200), as_of_ns, streamed=False)
        gate.market.saw_greeks(instrument.ticker, Greeks(1000, 100, 0, 0, 0, MODEL, as_of_ns))
    signal = Signal(ticker=spread.ticker, side=Side.YES, count=QtyE2(100), price=PriceE4(-10_000))
    intent = Intent(client_order_id="hf-s", key="s", signal=signal, instrument=spread)
    spent = []
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        for _ in range(COMBINATIONS):
            decision = gate.evaluate(intent)
        spent.append((time.thread_time_ns() - start) / COMBINATIONS / 1000)
        if not decision.allowed:
            raise SystemExit(f"the bench's spread is refused: {decision.reason}")
    return statistics.median(spent)


class SocketVenue(FakeVenue):
    """Hands the order's bytes to a connected socket, as a client would after signing, and notes when."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(clock, [MARKET])
        self.near, self.far = socket.socketpair()
        self.sent_ns = 0

    async def place(self, intent, admission, permit):  # noqa: ARG002  the port's signature
        body = msgspec.json.encode(
            {
                "ticker": intent.ticker,
                "client_order_id": intent.client_order_id,
                "side": intent.book_side.value,
                "count": format_qty(intent.count),
                "price": format_price(intent.yes_price),
                "time_in_force": "immediate_or_cancel",
            }
        )
        head = f"POST /trade-api/v2/portfolio/events/orders HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        admission.consume(intent)
        self.near.send(head + body)
        self.sent_ns = time.perf_counter_ns()
        self.far.recv(4096)
        return Ack(order_id=intent.client_order_id, filled=QtyE2(0), remaining=QtyE2(0))


async def to_socket(directory: Path) -> tuple[float, float]:
    """Median wall microseconds from `route` to the socket, and of a bare durable append of the same records."""
    clock = SystemClock()
    log = AuditLogger(WriteAheadLog(directory, clock=clock, seal=False))
    venue = SocketVenue(clock)
    trader = Trader(venue, log=log, clock=clock, limits=WIDE)
    await trader.start()
    ways, appends = [], []
    sample: list[Entry] = []
    for n in range(SENDS):
        start = time.perf_counter_ns()
        result = await trader.route(wish(n))
        ways.append((venue.sent_ns - start) / 1000)
        if not sample:
            order = trader.account.orders[result.client_order_id]
            intent = Intent(
                client_order_id=order.client_order_id, key=order.key, signal=wish(n), instrument=MARKET
            )
            decision = trader.gate.evaluate(intent)
            sample = [
                Entry("DECISION", decision.details(), "", "bench"),
                Entry("ORDER", order_details(intent, order), "", "bench"),
            ]
        start = time.perf_counter_ns()
        await log.record_many_async(sample, Level.DURABLE)
        appends.append((time.perf_counter_ns() - start) / 1000)
    await trader.stop()
    log.wal.close()
    return statistics.median(ways[20:]), statistics.median(appends[20:])


def run(directory: str | None = None) -> list[dict]:
    floor = micros(lock_and_clock)
    asked = micros(lambda gate, intent: gate.evaluate(intent))
    moved = micros(evaluate_after_a_move)
    admitted = micros(lambda gate, intent: gate.admit(intent, content="0" * 16))
    refused = micros(lambda gate, intent: gate.evaluate(intent), gate_of=lambda: fresh_gate(NARROW))
    recorded = micros(lambda gate, intent: encode_details(gate.evaluate(intent).details()))
    beside = f"lock and clock {floor:.2f} us"
    spread, crowded = combination_micros(0), combination_micros(20)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        way, append = asyncio.run(to_socket(Path(scratch) / "audit"))
    return [
        {
            "name": "gate, every check",
            "value": asked,
            "unit": "us",
            "beside": beside,
            "ratio": asked / floor,
            "bar": "1.0 us",
        },
        {
            "name": "gate, every check, a held price having changed",
            "value": moved,
            "unit": "us",
            "beside": beside,
            "ratio": moved / floor,
            "bar": "",
        },
        {
            "name": "gate, three limits with reservation",
            "value": admitted,
            "unit": "us",
            "beside": "NautilusTrader RiskEngine 1.9-3.2 us",
            "ratio": None,
            "bar": "1.5 us",
        },
        {
            "name": "gate, a refusal that explains itself",
            "value": refused,
            "unit": "us",
            "beside": beside,
            "ratio": refused / floor,
            "bar": "",
        },
        {
            "name": "gate, a spread with the portfolio's rows, twenty options held",
            "value": crowded,
            "unit": "us",
            "beside": f"nothing held {spread:.0f} us",
            "ratio": crowded / spread,
            "bar": "",
        },
        {
            "name": "gate, with its decision record encoded",
            "value": recorded,
            "unit": "us",
            "beside": beside,
            "ratio": recorded / floor,
            "bar": "5 us",
        },
        {
            "name": "signal to first byte at the socket",
            "value": way,
            "unit": "us",
            "beside": f"durable append of the same two records {append:.0f} us",
            "ratio": way / append,
            "bar": "1.5 x",
        },
    ]


if __name__ == "__main__":
    for row in run(sys.argv[1] if len(sys.argv) > 1 else None):
        print(row)

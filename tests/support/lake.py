"""Lakes for tests: a journal of an options desk's day, and what reads a lake's rows back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.audit.format import leaf_hash
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.lake.columns import Made, joined, made_of
from holdfast.lake.commit import Span, TableWriter
from holdfast.lake.journal import JournalReader
from holdfast.lake.store import LakeStore, store_of
from holdfast.lake.tables import TABLES

START_NS = 1_763_634_000 * 10**9  # 2025-11-20, 10:20 UTC
DAY_SECS = 86_400


def make_journal(
    directory: Path,
    *,
    days: int = 2,
    events: int = 200,
    seed: int = 7,
    home: Path | None = None,
    log_id: bytes | None = None,
) -> Path:
    """A closed log of *days* days with about *events* records of every projected kind on each; a segment a day."""
    rnd = random.Random(seed)
    clock = ManualClock(START_NS)
    log = WriteAheadLog(
        directory,
        clock=clock,
        keys=KeyHome(home) if home is not None else None,
        random_bytes=rnd.randbytes if log_id is None else lambda _: log_id,
    )
    for day in range(days):
        for n in range(events):
            clock.advance(0.25)
            type_, details, component = record(rnd, day, n)
            log.append(type_, details, user="desk", component=component, level=Level.WRITTEN)
        clock.advance(DAY_SECS - events * 0.25)
        if day < days - 1:
            log.rotate()
    log.close()
    return directory


def record(rnd: random.Random, day: int, n: int) -> tuple[str, dict[str, Any], str]:  # noqa: PLR0911  one kind each
    """Type, details and component of one record of a desk's day; of every projected kind."""
    execution = f"exec-{day}-{n % 5}"
    premium = 200 + rnd.randrange(-40, 40)
    name = f"hf-{day}-{n // 10}"
    match n % 10:
        case 0:
            action = rnd.choice(["ADD", "UPDATE", "TRIGGER"])
            return (
                "RISK_EVENT",
                {
                    "event_type": f"trailing_stop_{action.lower()}", "execution_id": execution, "symbol": "SPY",
                    "old_state": "active", "new_state": "triggered" if action == "TRIGGER" else "active",
                    "entry_premium": "2.0000", "current_premium": f"{premium / 100:.4f}", "highest_premium": "2.4000",
                    "stop_premium": "2.1600", "action": action, "metadata": {"trail": "0.10"},
                },
                "trailing_stop",
            )  # fmt: skip
        case 1 | 2:
            value = rnd.randrange(0, 70)
            allowed = value <= 50
            return (
                "RISK_EVENT",
                {
                    "event_type": "portfolio_limit_check" if allowed else "portfolio_limit_rejection",
                    "limit_type": "portfolio_delta", "current_value": f"{value}.5", "limit_value": "50", "unit": "shares",
                    "allowed": allowed, "rejection_reason": "" if allowed else "portfolio_delta", "symbol": "SPY",
                    "scope": "portfolio", "limits_version": 3, "decision_id": str(n), "intent_id": f"entry-{n}",
                },
                "portfolio_limits",
            )  # fmt: skip
        case 3:
            opened = rnd.random() < 0.3
            return (
                "RISK_EVENT",
                {
                    "event_type": "circuit_breaker_state_change" if opened else "circuit_breaker_failure",
                    "old_state": "closed", "new_state": "open" if opened else "closed", "scope": "broker",
                    "failure_count": n % 7, "metadata": {"reason": "5 failures in 60 s"} if opened else {},
                },
                "circuit_breaker",
            )  # fmt: skip
        case 4:
            return (
                "DECISION",
                {
                    "n": day * 1000 + n, "intent": f"entry-{n}", "strategy": "desk", "ticker": "SPY250117C00430000",
                    "action": "buy", "side": "yes", "count": "1.00", "price": "2.1000",
                    "verdict": "allow" if n % 20 == 4 else "deny", "reason": "" if n % 20 == 4 else "concentration",
                    "rows": [["order_value", "order", 1, 2, "usd", True]], "inputs": {"quote": [1, 2]},
                    "market_ts_ns": START_NS, "limits_version": 3,
                },
                "gate",
            )  # fmt: skip
        case 5:
            return (
                "ORDER",
                {
                    "order_id": name, "client_order_id": name, "side": "buy", "order_type": "limit",
                    "quantity": "1.00", "price": "2.1000", "ticker": "SPY250117C00430000", "action": "buy",
                    "intent": f"entry-{n}", "strategy": "desk", "reserved": "210.650000",
                },
                "trader",
            )  # fmt: skip
        case 6 | 7:
            event = "ack" if n % 10 == 6 else rnd.choice(["fill", "unknown", "canceled"])
            return (
                "ORDER_UPDATE",
                {
                    "client_order_id": name, "event": event, "order_id": f"v-{name}",
                    "status": {"ack": "resting", "fill": "executed"}.get(event, event), "filled": "0.00",
                },
                "trader",
            )  # fmt: skip
        case 8:
            return (
                "TRADE",
                {
                    "order_id": f"v-{name}", "side": "bid", "quantity": "1.00", "price": "2.1000",
                    "market": "SPY250117C00430000", "ticker": "SPY250117C00430000", "trade_id": f"t-{day}-{n}",
                    "client_order_id": name, "fee": "0.650000", "is_taker": True,
                },
                "trader",
            )  # fmt: skip
        case _:
            return (
                "API_CALL",
                {
                    "api": rnd.choice(["broker", "quotes"]), "endpoint": "/orders", "method": "POST",
                    "status_code": rnd.choice([200, 200, 500]), "latency_ms": rnd.randrange(5, 900) / 10,
                },
                "client",
            )  # fmt: skip


def project(store: LakeStore | str | Path, *logs: Path, rows_per_commit: int = 50) -> LakeStore:
    """Write the rows of *logs* as a projector does, in small commits; the store."""
    place = store if isinstance(store, LakeStore) else store_of(str(store))
    for kind in TABLES:
        writer = TableWriter(place, kind, clock=SystemClock())
        writer.open()
        for log in logs:
            _project_one(writer, log, rows_per_commit)
    return place


def _project_one(writer: TableWriter, log: Path, rows_per_commit: int) -> None:
    reader = JournalReader(log)
    reader.look()
    first = writer.watermark(reader.log_id) + 1
    reader.seek(first)
    waiting: list[Made] = []
    while (piece := reader.read(rows_per_commit)) is not None:
        if (made := made_of(piece, reader.log_id).get(writer.table)) is not None:
            waiting.append(made)
        if sum(len(made.seqs) for made in waiting) >= rows_per_commit or reader.next_seq > reader.durable:
            leaf = leaf_hash(piece.lines[-1])
            rows = joined((made.rows for made in waiting), writer.table)
            leaves = [leaf for made in waiting for leaf in made.leaves]
            writer.commit(rows, [Span(reader.log_id, first, piece.last_seq, piece.epoch, leaves, leaf)])
            first, waiting = piece.last_seq + 1, []
    reader.close()


def rows_of(store: LakeStore, name: str) -> list[dict[str, Any]]:
    """Every row of a table, in the order of its key."""
    table = store.open(name).to_pyarrow_table()
    return sorted(table.to_pylist(), key=lambda row: row["event_id"])


def all_rows(store: LakeStore) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    return {kind.name: rows_of(store, kind.name) for kind in TABLES if store.has(kind.name)}


def live_files(store: LakeStore, name: str) -> Sequence[Path]:
    """The data files of the newest version of a table on a disk."""
    return [Path(uri.removeprefix("file://")) for uri in store.open(name).file_uris()]

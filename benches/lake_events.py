"""Risk events as an options desk makes them, by the million: what bench_lake_query.py and bench_lake_s3.py write.

One day is six and a half hours of market: some 100 stops live at a time, for a median of half an hour; each sees its
premium walk on the tick grid, ratchets, and triggers once. Between them limits are asked, mostly allowed, each
question with a decision of its own, and breakers count their calls. Times fall as they come: nanoseconds at random.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

DAY_NS = 86_400 * 10**9
FIRST_DAY_NS = 20_400 * DAY_NS  # 2025-11-08
OPEN_NS, SESSION_NS = int(14.5 * 3600) * 10**9, int(6.5 * 3600) * 10**9
EPOCH = date(1970, 1, 1)
LOG_ID = "9f3c1a5be07744d2a6c1ffb03e8d2c71"
SYMBOLS = np.array(["SPY", "QQQ", "IWM", "GOOG", "SPXW"])
LIMITS = np.array(
    ["portfolio_delta", "portfolio_gamma", "symbol_delta", "concentration", "correlated_exposure", "total_exposure"]
)  # fmt: skip
BREAKERS = np.array(["broker", "quotes", "greeks"])


def day(number: int, rows: int, schema: pa.Schema) -> pa.Table:
    """The events of day *number*, from 0, in the order of their sequences, which go on from the day before."""
    r = np.random.default_rng(number)
    seq = 1 + number * rows + np.arange(rows, dtype=np.int64)
    ts = np.sort(r.integers(0, SESSION_NS, rows)) + FIRST_DAY_NS + number * DAY_NS + OPEN_NS
    kind = r.choice(4, rows, p=[0.55, 0.415, 0.005, 0.03])  # stops, checks, refusals, breakers
    stop, check, refused, breaker = (kind == n for n in range(4))
    limit = check | refused

    # Slots hold one execution after another; each is a walk.
    slot = r.integers(0, 100, rows)
    life = SESSION_NS // 13
    generation = (ts % DAY_NS - OPEN_NS + slot * (life // 100)) // life
    execution = number * 2_000 + slot * 14 + generation
    order = np.lexsort((seq, execution, ~stop))[: int(stop.sum())]
    walk = _walks(r, execution[order])
    entry = np.zeros(rows)
    current, best = np.zeros(rows), np.zeros(rows)
    entry[order], current[order], best[order], first, last, rose = walk
    action = np.full(rows, "", dtype=object)
    words = np.where(first, "ADD", np.where(last, "TRIGGER", np.where(rose, "UPDATE", "HOLD")))
    action[order] = words
    stop_type = {"ADD": "add", "TRIGGER": "trigger", "UPDATE": "update", "HOLD": "update"}

    event_type = np.full(rows, "", dtype=object)
    event_type[order] = [f"trailing_stop_{stop_type[word]}" for word in words]
    event_type[check], event_type[refused] = "portfolio_limit_check", "portfolio_limit_rejection"
    event_type[breaker] = np.where(
        r.random(int(breaker.sum())) < 0.97, "circuit_breaker_success", "circuit_breaker_failure"
    )
    name = LIMITS[np.arange(rows) % 6]
    value = np.round(np.cumsum(r.normal(0, 0.05, rows)) % 50, 2)
    bound = np.array([50.0, 10.0, 20.0, 0.02, 0.05, 250_000.0])[np.arange(rows) % 6]
    decision = np.cumsum(np.where(limit & (np.arange(rows) % 6 == 0), 1, 0)) + number * rows
    text = {
        "event_id": [f"{LOG_ID}/000000000001/{n:012d}" for n in seq],
        "event_type": event_type,
        "component": np.where(stop, "trailing_stop", np.where(limit, "portfolio_limits", "circuit_breaker")),
        "execution_id": np.where(stop, [f"exec-{n:08d}" for n in execution], ""),
        "old_state": np.where(stop, "active", np.where(breaker, "closed", "")),
        "new_state": np.where(action == "TRIGGER", "triggered", np.where(stop, "active", np.where(breaker, "closed", ""))),
        "action": action,
        "limit_type": np.where(limit, name, ""),
        "rejection_reason": np.where(refused, name, ""),
        "metadata": np.where(action == "ADD", '{"trail_pct":"0.10"}', ""),
        "writer_id": np.full(rows, f"holdfast:{LOG_ID}"),
        "symbol": np.where(breaker, "", SYMBOLS[slot % 5]),
        "scope": np.where(breaker, BREAKERS[slot % 3], np.where(limit, "portfolio", "")),
        "unit": np.where(limit, "shares", ""),
        "decision_id": np.where(limit, [str(n) for n in decision], ""),
        "intent_id": np.where(limit, [f"entry-{n:08d}" for n in decision], ""),
    }  # fmt: skip
    data = {
        "timestamp": pa.array(ts // 1000, pa.timestamp("us", "UTC")),
        "failure_count": pa.array(np.where(event_type == "circuit_breaker_failure", 1, 0), mask=~breaker),
        "entry_premium": pa.array(entry, mask=~stop),
        "current_premium": pa.array(current, mask=~stop),
        "highest_premium": pa.array(best, mask=~stop),
        "stop_premium": pa.array(np.round(best * 0.9, 4), mask=~stop),
        "current_value": pa.array(value, mask=~limit),
        "limit_value": pa.array(bound, mask=~limit),
        "allowed": pa.array(check, mask=~limit),
        "epoch": pa.array(np.ones(rows, dtype=np.int64)),
        "seq": pa.array(seq),
        "ts_ns": pa.array(ts),
        "event_date": pa.array((ts // DAY_NS).astype("int32"), pa.date32()),
        "limits_version": pa.array(np.ones(rows, dtype=np.int64)),
        "schema_version": pa.array(np.ones(rows, dtype=np.int64)),
    }
    columns: list[pa.Array] = []
    for field in schema:
        if field.name in text:
            array = pa.array([word or None for word in text[field.name]], pa.string())
            columns.append(array.fill_null("") if not field.nullable else array)
        else:
            columns.append(data[field.name].cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _walks(r: np.random.Generator, execution: np.ndarray) -> tuple[np.ndarray, ...]:
    """Entry, current and best premium per event of sorted *execution*s, and whether it is first, last, a new best."""
    count = len(execution)
    first = np.ones(count, dtype=bool)
    first[1:] = execution[1:] != execution[:-1]
    last = np.roll(first, -1)
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    step = r.integers(-3, 4, count)
    total = np.cumsum(step)
    walk = total - total[starts][group]
    start = r.integers(100, 2_000, len(starts))[group]
    ticks = np.maximum(start + walk, 1)
    best = _running_best(ticks, first)
    rose = np.zeros(count, dtype=bool)
    rose[1:] = (best[1:] > best[:-1]) & ~first[1:]
    return start / 100, ticks / 100, best / 100, first, last & ~first, rose


def _running_best(ticks: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The running maximum of *ticks*, begun anew at each *first*."""
    lift = np.cumsum(first) * (int(ticks.max()) + 1)
    return np.maximum.accumulate(ticks + lift) - lift


def journal(directory: Path, records: int) -> Path:
    """A closed journal of *records* risk events: stops that move and limits that are asked, by turns."""
    from holdfast.audit.wal import Level, WriteAheadLog
    from holdfast.core.clock import SystemClock

    log = WriteAheadLog(directory, clock=SystemClock())
    for n in range(records):
        premium = 150 + n % 97
        if n % 2:
            details = {
                "event_type": "trailing_stop_update", "execution_id": f"exec-{n % 500:08d}", "old_state": "active",
                "new_state": "active", "entry_premium": "1.5000", "current_premium": f"{premium / 100:.4f}",
                "highest_premium": "2.4700", "stop_premium": "2.2230", "action": "UPDATE", "symbol": "SPY",
            }  # fmt: skip
            component = "trailing_stop"
        else:
            details = {
                "event_type": "portfolio_limit_check", "limit_type": "portfolio_delta", "current_value": f"{n % 50}.25",
                "limit_value": "50", "allowed": True, "symbol": "SPY", "scope": "portfolio", "unit": "shares",
                "limits_version": 1, "decision_id": str(n), "intent_id": f"entry-{n:08d}",
            }  # fmt: skip
            component = "portfolio_limits"
        log.append("RISK_EVENT", details, component=component, level=Level.WRITTEN)
    log.close()
    return directory

"""Questions about a lake by name: `holdfast lake sql --saved NAME --lake URI`.

Promise: each is plain SQL over the documented columns, printed by `--list`, so that anybody may take it and change
it. Rows of a history name the journal's sequence, where `holdfast audit show` and `audit prove` find the record.
docs/lake.md documents every one; a test asks each of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NamedTuple

from holdfast.core.errors import BadInput


class Drawn(NamedTuple):
    """How a question's answer is drawn.

    Attributes:
        columns: The columns that the picture is made of; () are all.
        up: The label at the side, with its unit; "" is the column's name.
        bound: A line is drawn here; None is none.
        instead: The question to draw in place of this one, which is a list to read; "" draws this one.
    """

    columns: tuple[str, ...] = ()
    up: str = ""
    bound: float | None = None
    instead: str = ""


ALL = Drawn()
"""Every column, under its own name."""


class SavedSql(NamedTuple):
    """One question.

    Attributes:
        name: How it is asked for.
        question: What it asks, one sentence.
        sql: How DuckDB is asked.
        parameters: What stands for `$name` when it is not given; "" where it must be.
        drawn: What `--plot` makes of the answer.
    """

    name: str
    question: str
    sql: str
    parameters: Mapping[str, str] = {}
    drawn: Drawn = ALL


_HISTORIES = (
    SavedSql(
        "breaker_history",
        "What did the circuit breakers do, in order?",
        """SELECT timestamp, scope AS breaker, event_type, old_state, new_state, failure_count,
       json_extract_string(metadata, '$.reason') AS reason, seq
FROM risk_events WHERE component = 'circuit_breaker'
ORDER BY ts_ns, writer_id, seq""",
        drawn=Drawn(instead="breaker_outages"),
    ),
    SavedSql(
        "breaker_outages",
        "How often did each breaker open on each day, and how many calls failed?",
        """SELECT event_date, scope AS breaker,
       count(*) FILTER (new_state = 'open' AND event_type = 'circuit_breaker_state_change') AS opened,
       count(*) FILTER (event_type = 'circuit_breaker_failure') AS failures,
       count(*) FILTER (event_type = 'circuit_breaker_success') AS successes
FROM risk_events WHERE component = 'circuit_breaker'
GROUP BY ALL ORDER BY event_date, breaker""",
    ),
    SavedSql(
        "stop_history",
        "What did the trailing stops do, in order?",
        """SELECT timestamp, execution_id, symbol, event_type, action, entry_premium, current_premium,
       highest_premium, stop_premium, seq
FROM risk_events WHERE component = 'trailing_stop'
ORDER BY ts_ns, writer_id, seq""",
        drawn=Drawn(("timestamp", "execution_id", "current_premium"), "premium, dollars"),
    ),
    SavedSql(
        "stops_triggered",
        "Which stops triggered, where, and how far from the best premium?",
        """SELECT timestamp, execution_id, symbol, entry_premium, highest_premium, stop_premium,
       current_premium AS triggered_at, round(current_premium - entry_premium, 4) AS from_entry,
       round(abs(highest_premium - current_premium), 4) AS from_best, seq
FROM risk_events WHERE event_type = 'trailing_stop_trigger'
ORDER BY ts_ns, writer_id, seq""",
        drawn=Drawn(("execution_id", "from_entry"), "premium at the trigger less at entry, dollars"),
    ),
    SavedSql(
        "stop_path",
        "How did premium and stop of one execution move?",
        """SELECT timestamp, current_premium, highest_premium, stop_premium
FROM risk_events WHERE component = 'trailing_stop' AND execution_id = $execution
ORDER BY ts_ns, seq""",
        {"execution": ""},
        drawn=Drawn(up="premium, dollars"),
    ),
    SavedSql(
        "limit_history",
        "What did limits and entry rules say, in order, and which of them?",
        """SELECT timestamp, event_type, component AS said_by, limit_type, scope, symbol, current_value, limit_value, unit,
       allowed, rejection_reason, intent_id, seq
FROM risk_events WHERE event_type LIKE 'portfolio_limit_%'
ORDER BY ts_ns, writer_id, seq""",
        drawn=Drawn(instead="limit_use"),
    ),
    SavedSql(
        "limit_use",
        "How much of each limit was used, at most, minute by minute (1 is all of it)?",
        """WITH said AS (
  SELECT timestamp, limit_type, current_value AS value, limit_value AS bound
  FROM risk_events WHERE component = 'portfolio_limits'
  UNION ALL
  SELECT timestamp, asked ->> 0, try_cast(asked ->> 2 AS DOUBLE), try_cast(asked ->> 3 AS DOUBLE)
  FROM (SELECT timestamp, unnest(json_extract(metadata, '$.rows[*]')) AS asked
        FROM risk_events WHERE component = 'portfolio_limits'))
SELECT time_bucket(INTERVAL 1 minute, timestamp) AS minute, limit_type,
       round(max(abs(value) / nullif(bound, 0)), 4) AS used
FROM said GROUP BY ALL HAVING used IS NOT NULL ORDER BY minute, limit_type""",
        drawn=Drawn(up="share of the limit", bound=1.0),
    ),
    SavedSql(
        "risk_events_by_type",
        "How many risk events of each type were there, and when?",
        """SELECT event_type, count(*) AS events, min(timestamp) AS first, max(timestamp) AS last
FROM risk_events GROUP BY event_type ORDER BY events DESC, event_type""",
    ),
    SavedSql(
        "refusals_by_reason",
        "How often did each reason refuse, and who said so: the gate an order, a rule or a limit an entry before it?",
        """WITH said AS (
  SELECT reason, component, symbol, timestamp FROM decisions
  WHERE verdict = 'deny' AND NOT coalesce(question, false)
  UNION ALL
  SELECT limit_type, component, symbol, timestamp FROM risk_events
  WHERE event_type = 'portfolio_limit_rejection')
SELECT reason, component AS said_by, count(*) AS refusals, count(DISTINCT symbol) AS symbols,
       min(timestamp) AS first, max(timestamp) AS last
FROM said GROUP BY ALL ORDER BY refusals DESC, reason, said_by""",
    ),
    SavedSql(
        "fills_by_day",
        "What was filled on each day, in which symbol, for how much in (or out, below 0) and at what fees?",
        """SELECT event_date, symbol, count(*) AS fills, sum(quantity_e2) / 100 AS contracts,
       sum(CASE side WHEN 'ask' THEN 1 ELSE -1 END * price_e4 * quantity_e2 * coalesce(multiplier, 1)) / 1e6 AS cash_usd,
       sum(fee_e6) / 1e6 AS fees_usd
FROM fills GROUP BY ALL ORDER BY event_date, symbol""",
        drawn=Drawn(("event_date", "symbol", "cash_usd"), "dollars in, or out below 0"),
    ),
    SavedSql(
        "slowest_api_calls",
        "Which calls to venues and feeds took longest?",
        """SELECT timestamp, api, method, endpoint, status_code, latency_ms, error, seq
FROM api_calls WHERE latency_ms IS NOT NULL
ORDER BY latency_ms DESC, ts_ns LIMIT 50""",
        drawn=Drawn(("timestamp", "method", "latency_ms"), "milliseconds"),
    ),
    SavedSql(
        "api_latency",
        "How fast did each API answer, hour by hour?",
        """SELECT time_bucket(INTERVAL 1 hour, timestamp) AS hour, api, count(*) AS calls,
       round(quantile_cont(latency_ms, 0.5), 3) AS p50_ms,
       round(quantile_cont(latency_ms, 0.95), 3) AS p95_ms,
       count(*) FILTER (status_code >= 400 OR coalesce(status_code, 0) = 0) AS failed
FROM api_calls GROUP BY ALL ORDER BY hour, api""",
        drawn=Drawn(("hour", "api", "p95_ms", "p50_ms"), "milliseconds"),
    ),
    SavedSql(
        "orders_unknown",
        "Which orders got no answer, and have none to this day?",
        """WITH newest AS (
  SELECT writer_id, client_order_id, max(seq) AS seq FROM orders
  WHERE client_order_id IS NOT NULL GROUP BY ALL)
SELECT o.timestamp, o.client_order_id, i.symbol, i.action, i.side, i.quantity_e2 / 100 AS contracts,
       i.price_e4 / 10000 AS price, o.event_type, o.status, o.reason, o.seq
FROM newest JOIN orders o USING (writer_id, seq)
LEFT JOIN orders i ON i.writer_id = o.writer_id AND i.client_order_id = o.client_order_id AND i.event_type = 'intent'
WHERE o.event_type IN ('intent', 'unknown') OR lower(o.status) = 'unknown'
ORDER BY o.ts_ns, o.seq""",
        drawn=Drawn(instead="breaker_outages"),
    ),
)

SAVED: Mapping[str, SavedSql] = {one.name: one for one in _HISTORIES}
"""Every saved question, by name."""


def saved_sql(name: str) -> SavedSql:
    """The question *name*.

    Raises:
        BadInput: There is none of this name; the hint says which is near.
    """
    found = SAVED.get(name)
    if found is None:
        close = difflib.get_close_matches(name, SAVED, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? --list prints them" if close else "--list prints them"
        raise BadInput(f"no saved query {name!r}", hint=hint)
    return found


def parameters_of(query: SavedSql, given: Mapping[str, str]) -> dict[str, str]:
    """What *query* is asked with.

    Raises:
        BadInput: A parameter is unknown, or missing.
    """
    for name in given:
        if name not in query.parameters:
            known = ", ".join(query.parameters) or "none"
            raise BadInput(f"saved query {query.name!r} has no parameter {name!r}", hint=f"it has: {known}")
    asked = {**query.parameters, **given}
    for name, value in asked.items():
        if not value:
            raise BadInput(f"saved query {query.name!r} needs {name}", hint=f"--param {name}=…")
    return asked

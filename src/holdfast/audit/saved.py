"""The questions that auditors ask, by name: `holdfast audit query DIR --saved NAME --param KEY=VALUE`.

Promise: each answer is computed from the records alone, and its rows name the sequences that they rest on, so that
anybody can read them again with `audit query` or prove them with `audit prove`. docs/compliance.md documents every
question; a test asks each of them as it is printed there.

Limits: an event that was never recorded is in no answer. Questions about a fact inside the details (a latency, an
outcome) read every record of the types concerned.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, NamedTuple, cast

from holdfast.audit.query import AuditEntry, LogReader, Moment, moment_ns
from holdfast.core.clock import NANOS, iso_utc
from holdfast.core.errors import BadInput
from holdfast.core.orders import CLOSED_STATUSES, CORRECTED, OrderStatus

Row = Mapping[str, Any]
"""One line of an answer: column → JSON value."""

RECORD_COLUMNS = ("timestamp", "sequence", "event_type", "user_id", "component", "details")
"""The columns of an answer whose rows are records."""

_MOST = 1_000_000  # of days and of milliseconds
_DECISIONS_LOOKED_AT = 10_000
_CLOSED = frozenset(status.value for status in CLOSED_STATUSES)


class Parameter(NamedTuple):
    """What a question asks back.

    Attributes:
        name: As in `--param NAME=VALUE`.
        meaning: One phrase, with unit and form.
        default: What is taken when it is not given; None where it must be.
    """

    name: str
    meaning: str
    default: str | None = None


class SavedQuery(NamedTuple):
    """One question.

    Attributes:
        name: How it is asked for.
        question: What it asks, one sentence.
        parameters: What must or may be said.
        columns: Of each row of the answer.
        rows: The answer.
    """

    name: str
    question: str
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    rows: Callable[[LogReader, Arguments], Iterator[Row]]


class Arguments:
    """What was said for a question's parameters, read as what each means.

    Args:
        given: Texts by parameter name, defaults filled in.
        now_ns: The time of asking.
    """

    def __init__(self, given: Mapping[str, str], now_ns: int) -> None:
        self._given = given
        self._now_ns = now_ns

    def text(self, name: str) -> str:
        """The text itself."""
        return self._given[name]

    def text_or_none(self, name: str) -> str | None:
        """The text, or None where it is empty."""
        return self._given[name] or None

    def number(self, name: str) -> Decimal:
        """A number that is not negative.

        Raises:
            BadInput: It is none.
        """
        text = self._given[name]
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal(-1)
        if not number.is_finite() or not 0 <= number <= _MOST:
            raise BadInput(
                f"parameter {name}={text[:40]!r} is not a number from 0 to {_MOST}", hint="for instance 30"
            )
        return number

    def day(self, name: str) -> tuple[Moment, Moment]:
        """A UTC day's start and end.

        Raises:
            BadInput: It is no day.
        """
        text = self._given[name]
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise BadInput(
                f"parameter {name}={text!r} is not a day", hint="for instance 2026-11-20, a day in UTC"
            ) from None
        if day == date.max:
            raise BadInput(f"parameter {name}={text!r} has no end", hint="the day before is the last one")
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return start, start + timedelta(days=1)

    def moment(self, name: str) -> Moment | None:
        """Unix seconds or ISO 8601 with an offset; "now" is the time of asking; None where it is empty.

        Raises:
            BadInput: It is neither.
        """
        text = self._given[name]
        if not text:
            return None
        return Decimal(self._now_ns).scaleb(-9) if text == "now" else read_moment(text, f"parameter {name}")


def read_moment(text: str, what: str) -> Decimal:
    """Unix seconds, or ISO 8601 with an offset, as exact Unix seconds; *what* names it in errors.

    Raises:
        BadInput: It is neither, or has no time zone.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{what} {text!r} is neither Unix seconds nor an ISO 8601 time",
            hint="for instance 1763596800 or 2026-11-20T00:00:00Z",
        ) from None
    if moment.tzinfo is None:
        raise BadInput(f"{what} {text!r} names no time zone", hint=f"for UTC: {moment.isoformat()}Z")
    return Decimal(moment_ns(moment, what)).scaleb(-9)


def saved_query(name: str) -> SavedQuery:
    """The question *name*.

    Raises:
        BadInput: There is none of this name; the hint says which is near.
    """
    found = SAVED.get(name)
    if found is None:
        close = difflib.get_close_matches(name, SAVED, n=1, cutoff=0.4)
        raise BadInput(
            f"no saved query {name!r}",
            hint=f"did you mean {close[0]!r}? --list-saved lists them"
            if close
            else "--list-saved lists them",
        )
    return found


def answer(query: SavedQuery, reader: LogReader, given: Mapping[str, str], *, now_ns: int) -> Iterator[Row]:
    """The rows that answer *query* over the log of *reader*.

    Args:
        query: From `saved_query`.
        reader: The log.
        given: Texts by parameter name.
        now_ns: The time of asking, UTC nanoseconds.

    Raises:
        BadInput: A parameter is unknown, missing or cannot be read.
        AuditCorruption: What had to be read is damaged.
    """
    known = {parameter.name: parameter for parameter in query.parameters}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise BadInput(
                f"saved query {query.name!r} has no parameter {name!r}",
                hint=f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(known) or 'none'}",
            )
    missing = [name for name, one in known.items() if one.default is None and not given.get(name)]
    if missing:
        raise BadInput(
            f"saved query {query.name!r} needs {missing[0]}: {known[missing[0]].meaning}",
            hint=f"--param {missing[0]}=…",
        )
    defaults = {name: one.default for name, one in known.items() if one.default is not None}
    rows = query.rows(reader, Arguments({**defaults, **given}, now_ns))
    # The first row is found here, so that what cannot be read is said before anything is printed.
    first = next(rows, None)
    return rows if first is None else chain((first,), rows)


def record_row(entry: AuditEntry) -> Row:
    """A record as a row."""
    return entry.to_dict()


# -- the answers ------------------------------------------------------------------------------------------------


def _trades(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    start, end = arguments.day("day")
    return map(record_row, reader.iter_query(start, end, "TRADE", arguments.text("user")))


def _violations(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    until = moment_ns(arguments.moment("until"), "parameter until")
    start_ns = until - int(arguments.number("days") * 86_400 * NANOS)
    return map(record_row, reader.iter_query(_seconds(start_ns), _seconds(until), "RISK_VIOLATION"))


def _slow_calls(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    bound = arguments.number("over_ms")
    calls = reader.iter_query(arguments.moment("from"), arguments.moment("to"), "API_CALL")
    for entry in calls:
        latency = entry.details.get("latency_ms")
        if isinstance(latency, int | float) and latency > bound:
            yield record_row(entry)


def _order_life(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    """All records of an order, whichever of its ids is given: the decision, the intent, every answer and fill."""
    found: dict[int, AuditEntry] = {}
    waiting, ids = [arguments.text("order")], set[str]()
    while waiting:
        order_id = waiting.pop()
        ids.add(order_id)
        for entry in reader.iter_query(order_id=order_id):
            if entry.sequence in found:
                continue
            found[entry.sequence] = entry
            if entry.event_type == "ORDER":
                decision = _decision_of(reader, entry)
                if decision is not None:
                    found[decision.sequence] = decision
            waiting += [one for one in _ids(entry.details) if one not in ids and one not in waiting]
    if found:
        for entry in reader.iter_query(event_type="LATE"):
            words = entry.details.get("details")
            if isinstance(words, dict) and ids.intersection(_ids(cast("dict[str, Any]", words))):
                found[entry.sequence] = entry
    return (record_row(found[sequence]) for sequence in sorted(found))


def _decision_of(reader: LogReader, order: AuditEntry) -> AuditEntry | None:
    """The DECISION that admitted *order*: the newest one before it with its number and intent."""
    number = order.details.get("decision")
    if number is None:
        return None
    before = reader.iter_query(
        None, _seconds(order.timestamp_ns + 1), "DECISION", None, _DECISIONS_LOOKED_AT, newest_first=True
    )
    for entry in before:
        if (
            entry.sequence < order.sequence
            and entry.details.get("n") == number
            and entry.details.get("intent") == order.details.get("intent")
        ):
            return entry
    return None


def _ids(details: Mapping[str, Any]) -> list[str]:
    names = (details.get("order_id"), details.get("client_order_id"))
    return [name for name in names if isinstance(name, str) and name]


def _limits_and_halts(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    """Every change of the trading state, of the configuration, of the limits that decisions were made under."""
    version: Any = None
    for entry in reader.iter_query(
        arguments.moment("from"), arguments.moment("to"), ("STATE", "CONFIG", "BREAKER", "DECISION")
    ):
        details, change, reason, who = entry.details, "", details_text(entry, "reason"), entry.user_id
        match entry.event_type:
            case "STATE":
                change = f"state {details.get('from')} -> {details.get('to')}"
                who = details_text(entry, "who") or who
            case "BREAKER" if "latched" in {details.get("from"), details.get("to")}:
                change = f"breaker {details.get('breaker')}: {details.get('from')} -> {details.get('to')}"
            case "CONFIG":
                change = f"settings: {', '.join(sorted(details))}"
            case "DECISION" if details.get("limits_version") != version:
                change = f"limits {version} -> {details.get('limits_version')}"
                reason, version = "first decision under them", details.get("limits_version")
            case _:
                continue
        yield {**_when(entry), "change": change, "who": who, "reason": reason}


def _without_outcome(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    """Orders that are not known to have ended: still working, or their answer was lost."""
    orders: dict[str, dict[str, Any]] = {}
    for entry in reader.iter_query(None, arguments.moment("to"), ("ORDER", "ORDER_UPDATE", "TRADE")):
        details = entry.details
        name = details_text(entry, "client_order_id") or details_text(entry, "order_id")
        if entry.event_type == "ORDER":
            orders[name] = {
                **_when(entry), "user_id": entry.user_id, "client_order_id": name, "order_id": "",
                "ticker": details_text(entry, "ticker"), "quantity": details.get("quantity"),
                "filled": Decimal(0), "status": OrderStatus.PENDING.value, "last_sequence": entry.sequence,
            }  # fmt: skip
        elif name in orders:
            order = orders[name]
            order["last_sequence"] = entry.sequence
            if entry.event_type == "TRADE":
                if CORRECTED not in details_text(entry, "trade_id"):  # it counts its first telling
                    order["filled"] += _decimal(details.get("quantity"))
                order["order_id"] = order["order_id"] or details_text(entry, "order_id")
            else:
                order["status"] = details.get("status") or order["status"]
                order["order_id"] = details_text(entry, "order_id") or order["order_id"]
    for order in orders.values():
        if order["status"] not in _CLOSED and order["filled"] < _decimal(order["quantity"]):
            yield {**order, "filled": str(order["filled"])}


def _refusals(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    """How often each reason refused something, with the first and last record that says so."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in reader.iter_query(
        arguments.moment("from"),
        arguments.moment("to"),
        ("DECISION", "RISK_VIOLATION"),
        arguments.text_or_none("user"),
    ):
        if entry.event_type == "RISK_VIOLATION":
            reason = details_text(entry, "violation_type")
        elif entry.details.get("verdict") == "deny" and not entry.details.get("question"):
            reason = details_text(entry, "reason")
        else:
            continue
        group = groups.setdefault(
            (reason, entry.event_type),
            {
                "reason": reason, "event_type": entry.event_type, "count": 0,
                "first": iso_utc(entry.timestamp_ns), "first_sequence": entry.sequence,
            },
        )  # fmt: skip
        group["count"] += 1
        group["last"], group["last_sequence"] = iso_utc(entry.timestamp_ns), entry.sequence
    return iter(sorted(groups.values(), key=lambda group: (-group["count"], group["reason"])))


def _interruptions(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    types = ("GAP", "RECOVERY", "CLOCK_STEP", "LATE")
    return map(record_row, reader.iter_query(arguments.moment("from"), arguments.moment("to"), types))


def _reconciliations(reader: LogReader, arguments: Arguments) -> Iterator[Row]:
    for entry in reader.iter_query(arguments.moment("from"), arguments.moment("to"), "RECONCILE"):
        yield {
            **_when(entry),
            "phase": details_text(entry, "phase"),
            "what": details_text(entry, "what"),
            "explained": entry.details.get("explained"),
            "differences": entry.details.get("differences", []),
        }


def _when(entry: AuditEntry) -> dict[str, Any]:
    return {"timestamp": iso_utc(entry.timestamp_ns), "sequence": entry.sequence}


def details_text(entry: AuditEntry, name: str) -> str:
    """A detail as text; "" where it is not there."""
    value = entry.details.get(name)
    return "" if value is None else str(value)


def _decimal(value: object) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)


def _seconds(ns: int) -> Decimal:
    return Decimal(ns).scaleb(-9)


_FROM = Parameter("from", "not before this time", "")
_TO = Parameter("to", "before this time", "")

SAVED: Mapping[str, SavedQuery] = {
    query.name: query
    for query in (
        SavedQuery(
            "trades-of-user",
            "Every trade of one user on one day.",
            (Parameter("user", "the user id"), Parameter("day", "a day in UTC, YYYY-MM-DD")),
            RECORD_COLUMNS,
            _trades,
        ),
        SavedQuery(
            "violations",
            "Every limit that was broken or would have been, in the last 30 days.",
            (Parameter("days", "how many days back", "30"), Parameter("until", "the end of them", "now")),
            RECORD_COLUMNS,
            _violations,
        ),
        SavedQuery(
            "slow-api-calls",
            "Every call to a venue or feed that took longer than 1000 ms.",
            (Parameter("over_ms", "milliseconds; longer than this is slow", "1000"), _FROM, _TO),
            RECORD_COLUMNS,
            _slow_calls,
        ),
        SavedQuery(
            "order-life",
            "One order from the decision to its end, by the venue's order id or our client order id.",
            (Parameter("order", "either id"),),
            RECORD_COLUMNS,
            _order_life,
        ),
        SavedQuery(
            "limits-and-halts",
            "Who changed limits or settings, who halted trading, who released it, and why.",
            (_FROM, _TO),
            ("timestamp", "sequence", "change", "who", "reason"),
            _limits_and_halts,
        ),
        SavedQuery(
            "orders-without-outcome",
            "Orders that are not known to have ended: still working, or their answer was lost.",
            (_TO,),
            (
                "timestamp", "sequence", "user_id", "client_order_id", "order_id", "ticker", "quantity", "filled",
                "status", "last_sequence",
            ),
            _without_outcome,
        ),
        SavedQuery(
            "refusals-by-reason",
            "How often each reason refused an order or raised an alarm.",
            (Parameter("user", "only this user", ""), _FROM, _TO),
            ("reason", "event_type", "count", "first", "first_sequence", "last", "last_sequence"),
            _refusals,
        ),
        SavedQuery(
            "gaps-and-recoveries",
            "Where the record was interrupted: dropped records, recoveries, clock steps, late last words.",
            (_FROM, _TO),
            RECORD_COLUMNS,
            _interruptions,
        ),
        SavedQuery(
            "reconciliations",
            "Every comparison with the venue's books, and what it could not explain.",
            (_FROM, _TO),
            ("timestamp", "sequence", "phase", "what", "explained", "differences"),
            _reconciliations,
        ),
    )
}  # fmt: skip
"""Every question by its name, in the order in which they are listed."""

"""The audit logger: what the trading code calls to write something down.

Promise: nothing reaches the log but through `record` and its siblings, and there every record loses its
secrets (`redact`), is held against its published schema and gets the durability its type deserves. Each call
returns the record's sequence once the record is as durable as its level says, or raises; it never drops.

The four `log_*` methods with fixed signatures, and `log_config`, are faces of `record`. Money, prices and
quantities go in as text, `Decimal` or whole numbers and are recorded as decimal text; a float price or
quantity is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, cast

import msgspec

from holdfast.audit import schemas
from holdfast.audit.format import encode_details, is_plain
from holdfast.audit.people import PersonalData
from holdfast.audit.redact import REDACTOR, Redactor
from holdfast.audit.schemas import RecordType, RiskEventDetails
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.errors import BadInput
from holdfast.core.money import format_price, format_qty, parse_price, parse_qty

_encode = msgspec.json.Encoder().encode
_BLANK = RiskEventDetails(event_type="")

WRITTEN_TYPES = frozenset({RecordType.API_CALL, RecordType.BREAKER, RecordType.RISK_EVENT, RecordType.STREAM})
"""Types acknowledged once written: a crash of this process keeps them, a power cut may cost the last 100 ms.
Every other type, known or not, waits for the disk."""


def default_level(type_: str) -> Level:
    """The durability of a record of this type when the caller names none."""
    return Level.WRITTEN if type_ in WRITTEN_TYPES else Level.DURABLE


class AuditLogger:
    """Writes records to one log.

    Attributes:
        wal: The log itself: `wal.query(…)`, `wal.verify_integrity()`.
        user: Who stands in a record when a call names nobody.

    Args:
        wal: An open or not yet opened log.
        user: The default user id.
        redactor: Which secrets to hide; by default those registered in this process.
        personal: Which fields are recorded under the key of the record's user; by default none.
    """

    def __init__(
        self,
        wal: WriteAheadLog,
        *,
        user: str = "unknown",
        redactor: Redactor | None = None,
        personal: PersonalData | None = None,
    ) -> None:
        self.wal = wal
        self.user = user
        self._redactor = redactor if redactor is not None else REDACTOR
        self._personal = personal

    def record(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str | None = None,
        component: str = "",
        level: Level | None = None,
    ) -> int:
        """Append one record and return its sequence.

        Args:
            type: A `RecordType`.
            details: As its schema says; times in `_ns`, money as decimal text.
            user: Who; the logger's own user when None.
            component: Which part of the system writes.
            level: How durable before this returns; by default as the type deserves.

        Raises:
            BadInput: The details do not fit the type's schema or cannot be written.
            AuditWriteError: The log is poisoned: nothing is acknowledged any more.
        """
        entry = self._entry(type, details, user, component)
        return self.wal.append(
            entry.type,
            entry.details,
            user=entry.user,
            component=entry.component,
            level=default_level(type) if level is None else level,
        )

    def record_risk_event(
        self, details: RiskEventDetails, *, component: str = "", level: Level | None = None
    ) -> int:
        """`record` for a RISK_EVENT whose details are its schema's own struct; what is not set is left out.

        There are many of them, so this is quick where nothing has to be hidden: the type of *details* is the check
        of the schema, and one encoding is searched and written.
        """
        hide, personal = self._redactor, self._personal
        try:
            body = _encode(details)
        except (TypeError, ValueError, OverflowError, RecursionError):
            body = b""  # `record` says why
        if (
            body
            and hide.is_harmless(body)
            and (personal is None or not personal.fields)
            and (not details.metadata or is_plain(details.metadata))
        ):
            return self.wal.append_encoded(
                RecordType.RISK_EVENT,
                body,
                user=hide.name(self.user),
                component=hide.name(component),
                level=Level.WRITTEN if level is None else level,
            )
        said = {name: getattr(details, name) for name in details.__struct_fields__}
        fields = {name: value for name, value in said.items() if value != getattr(_BLANK, name)}
        return self.record(RecordType.RISK_EVENT, fields, component=component, level=level)

    async def record_async(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str | None = None,
        component: str = "",
        level: Level | None = None,
    ) -> int:
        """`record`, waiting without blocking the event loop; cancelling the wait does not undo the record."""
        entry = self._entry(type, details, user, component)
        return await self.wal.append_async(
            entry.type,
            entry.details,
            user=entry.user,
            component=entry.component,
            level=default_level(type) if level is None else level,
        )

    def record_many(self, entries: Sequence[Entry], level: Level | None = None) -> list[int]:
        """Append *entries* as one batch with one sync; their sequences, in order.

        Args:
            entries: An entry without user gets the logger's own.
            level: By default the highest that any of the types deserves.

        Raises:
            BadInput: One entry does not fit its schema; none is written.
            AuditWriteError: The log is poisoned.
        """
        batch = self._batch(entries)
        return self.wal.append_many(batch, level=_highest(batch) if level is None else level)

    async def record_many_async(self, entries: Sequence[Entry], level: Level | None = None) -> list[int]:
        """`record_many`, waiting without blocking the event loop."""
        batch = self._batch(entries)
        return await self.wal.append_many_async(batch, level=_highest(batch) if level is None else level)

    def last_words(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str | None = None,
        component: str = "",
    ) -> int:
        """Write one record into the reserve of a poisoned log; its number there, once it is durable.

        Raises:
            BadInput: The details do not fit the type's schema or cannot be written.
            AuditWriteError: The reserve took nothing: there is none, it is full, or it failed too.
            AuditError: The log is not poisoned.
        """
        entry = self._entry(type, details, user, component)
        return self.wal.last_words(entry.type, entry.details, user=entry.user, component=entry.component)

    def log_order(  # noqa: PLR0917  a fixed signature of the contract
        self,
        user_id: str,
        order_id: str,
        side: str,
        order_type: str,
        quantity: str | Decimal | int,
        price: str | Decimal | int | None,
        *,
        component: str = "",
        level: Level | None = None,
        **details: Any,
    ) -> int:
        """Record an ORDER; durable when this returns.

        Args:
            user_id: Whose order.
            order_id: Our client order id.
            side: As the caller names it: "yes", "no", "buy", "bid", …
            order_type: "limit", "market".
            quantity: Contracts.
            price: Dollars as text or Decimal, whole cents as int, None for a market order.
            component: Which part writes.
            level: As in `record`.
            details: Further fields of the ORDER schema, or the caller's own.
        """
        fields = {
            "order_id": order_id,
            "side": side,
            "order_type": order_type,
            "quantity": format_qty(parse_qty(quantity, "quantity")),
            "price": _price_text(price),
        }
        return self.record(
            RecordType.ORDER, _joined(fields, details), user=user_id, component=component, level=level
        )

    def log_trade(  # noqa: PLR0917  a fixed signature of the contract
        self,
        user_id: str,
        order_id: str,
        side: str,
        quantity: str | Decimal | int,
        price: str | Decimal | int,
        market: str,
        *,
        component: str = "",
        level: Level | None = None,
        **details: Any,
    ) -> int:
        """Record a TRADE, which is one fill; durable when this returns.

        Args:
            user_id: Whose fill.
            order_id: The order it belongs to.
            side: As the caller names it.
            quantity: Contracts filled.
            price: Dollars as text or Decimal, whole cents as int.
            market: The ticker.
            component: Which part writes.
            level: As in `record`.
            details: Further fields of the TRADE schema, or the caller's own.
        """
        fields = {
            "order_id": order_id,
            "side": side,
            "quantity": format_qty(parse_qty(quantity, "quantity")),
            "price": _price_text(price),
            "market": market,
        }
        return self.record(
            RecordType.TRADE, _joined(fields, details), user=user_id, component=component, level=level
        )

    def log_risk_violation(
        self,
        user_id: str,
        violation_type: str,
        current_value: str | Decimal | float,
        limit: str | Decimal | float,
        details: Mapping[str, Any],
        *,
        component: str = "",
        level: Level | None = None,
    ) -> int:
        """Record a RISK_VIOLATION; durable when this returns.

        Args:
            user_id: Whose order was refused.
            violation_type: A reject reason: "position_limit_exceeded", …
            current_value: The value that broke the limit, in the limit's unit; a float is read by its shortest
                decimal text, NaN and infinities are refused.
            limit: The bound, in the same way.
            details: What the check looked at.
            component: Which part writes.
            level: As in `record`.
        """
        fields = {
            "violation_type": violation_type,
            "current_value": _number(current_value, "current_value"),
            "limit": _number(limit, "limit"),
            "details": dict(details),
        }
        return self.record(RecordType.RISK_VIOLATION, fields, user=user_id, component=component, level=level)

    def log_api_call(  # noqa: PLR0917  a fixed signature of the contract
        self,
        user_id: str,
        api: str,
        endpoint: str,
        method: str,
        status_code: int,
        latency_ms: float,
        *,
        error: str | None = None,
        component: str = "",
        level: Level | None = None,
        **details: Any,
    ) -> int:
        """Record an API_CALL; written, not yet synced, when this returns.

        Args:
            user_id: Member id, else API key id, else "unknown".
            api: "kalshi", …
            endpoint: The path without the host: "markets/{ticker}".
            method: "GET", "POST", …
            status_code: HTTP status, 0 when no answer came.
            latency_ms: From the first byte sent to the last received, milliseconds.
            error: What went wrong, when something did; secrets in it are removed.
            component: Which part writes.
            level: As in `record`.
            details: The caller's own fields.
        """
        fields: dict[str, Any] = {
            "api": api,
            "endpoint": endpoint,
            "method": method,
            "status_code": status_code,
            "latency_ms": latency_ms,
        }
        if error is not None:
            fields["error"] = error
        return self.record(
            RecordType.API_CALL, _joined(fields, details), user=user_id, component=component, level=level
        )

    def log_config(
        self,
        user_id: str,
        settings: Mapping[str, Any],
        *,
        component: str = "",
        level: Level | None = None,
    ) -> int:
        """Record the effective configuration (CONFIG): setting → value, secrets removed; durable on return."""
        return self.record(RecordType.CONFIG, settings, user=user_id, component=component, level=level)

    def _entry(self, type_: str, details: Mapping[str, Any], user: str | None, component: str) -> Entry:
        if type_ in schemas.JOURNALS_OWN:
            raise BadInput(f"{type_} record refused: only the log itself writes it")
        hide = self._redactor
        try:
            encoded = _encode(details)  # only to be searched: the log encodes, and refuses, on its own
        except (TypeError, ValueError, OverflowError, RecursionError):
            encoded = encode_details(details)  # says in the log's words what cannot be written
        if not is_plain(details):
            details = cast("dict[str, Any]", _opened(details))
        plain = hide.details(details, encoded)
        schemas.check(type_, plain)
        who = hide.text(self.user if user is None else user)
        if self._personal is not None:
            plain = self._personal.hide(who, plain)
        return Entry(type_, plain, who, hide.text(component))

    def _batch(self, entries: Sequence[Entry]) -> list[Entry]:
        return [
            self._entry(entry.type, entry.details, entry.user or None, entry.component) for entry in entries
        ]


def _opened(value: Any) -> Any:
    """*value* with structs and dataclasses as the objects that they are written as: their fields have names too."""
    if isinstance(value, Mapping):
        return {key: _opened(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_opened(inner) for inner in cast("Sequence[Any]", value)]
    if isinstance(value, str | bytes | bytearray | memoryview | set | frozenset):
        return cast("Any", value)  # sets are refused later, and raw bytes are judged as what they are
    try:
        plain: object = msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview))
    except TypeError:
        return value  # so is what has no JSON form
    return plain if type(plain) in {dict, list} or isinstance(value, Enum) else value


def _highest(entries: Sequence[Entry]) -> Level:
    return max((default_level(entry.type) for entry in entries), default=Level.DURABLE)


def _joined(fields: dict[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, **further} if further else fields


def _price_text(price: str | Decimal | int | None) -> str | None:
    """Four-place dollars; an int is whole cents, as in the rest of the contract."""
    if price is None:
        return None
    if isinstance(price, bool):
        raise BadInput(f"price {price!r} is a truth value, expected a number")
    return format_price(parse_price(Decimal(price).scaleb(-2) if isinstance(price, int) else price))


def _number(value: str | Decimal | float, what: str) -> str | int:
    """A count stays an int; everything else becomes decimal text."""
    if isinstance(value, bool):
        raise BadInput(f"{what} {value!r} is a truth value, expected a number")
    if isinstance(value, int | str):
        return value
    if not isfinite(value):
        raise BadInput(f"{what} {value!r} is not a finite number")
    return format(value if isinstance(value, Decimal) else Decimal(repr(value)), "f")

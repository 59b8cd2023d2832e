"""The bounds that the gate holds orders against, in integer units, validated together.

People say contracts and dollars; `RiskLimits.of` reads those. A value above its bound refuses, a value at it
passes. Limits are one frozen value with a version: a decision names the version it was made under.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput, ConfigError
from holdfast.core.money import (
    MoneyE6,
    QtyE2,
    format_money,
    format_qty,
    parse_money,
    parse_qty,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskLimits:
    """What an order may not exceed.

    Attributes:
        max_position: Worst-case position of one market on either side, 1/100 contract; default 100 contracts.
        max_order_value: Count times the price paid, fees left out; default $500.
        max_exit_value: The same for an order that only reduces; wider, because getting out must not need many
            orders; default $5,000.
        max_daily_loss: Loss since the session opened, as a positive amount; default $1,000.
        max_mark_age_secs: A held market's price older than this is unknown; default 30 s.
        send_deadline_secs: An admission not sent within this time is void; default 5 s.
        throttled_interval_secs: While THROTTLED, increasing orders leave at least this far apart; default 1 s.
        version: Counts changes of limits.
    """

    max_position: QtyE2 = QtyE2(100_00)
    max_order_value: MoneyE6 = MoneyE6(500_000_000)
    max_exit_value: MoneyE6 = MoneyE6(5_000_000_000)
    max_daily_loss: MoneyE6 = MoneyE6(1_000_000_000)
    max_mark_age_secs: int = 30
    send_deadline_secs: int = 5
    throttled_interval_secs: int = 1
    version: int = 1

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {value!r} must be a whole number of at least {least}"
            for name, least in _LEAST.items()
            if not isinstance(value := getattr(self, name), int) or isinstance(value, bool) or value < least
        ]
        if not problems and self.max_exit_value < self.max_order_value:
            problems.append("max_exit_value is below max_order_value: an exit may be as large as an entry")
        if problems:
            raise ConfigError("limits: " + "; ".join(problems))

    @classmethod
    def of(
        cls,
        *,
        max_position_size: int | str | Decimal = 100,
        max_daily_loss: int | str | Decimal = 1000,
        max_order_value: int | str | Decimal = 500,
        **other: Any,
    ) -> RiskLimits:
        """Limits in contracts and dollars, as people write them.

        Raises:
            ConfigError: One or more values cannot be read or are negative; all are named.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name, read, given in (
            ("max_position", parse_qty, max_position_size),
            ("max_daily_loss", parse_money, max_daily_loss),
            ("max_order_value", parse_money, max_order_value),
        ):
            try:
                values[name] = read(given, name)
            except BadInput as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("limits: " + "; ".join(problems))
        values.setdefault("max_exit_value", MoneyE6(10 * values["max_order_value"]))
        return cls(**(values | other))

    @property
    def max_mark_age_ns(self) -> int:
        """`max_mark_age_secs` in ns."""
        return self.max_mark_age_secs * NANOS

    def tightest(self, other: RiskLimits) -> RiskLimits:
        """Every bound of the two that refuses more."""
        return RiskLimits(
            max_position=min(self.max_position, other.max_position),
            max_order_value=min(self.max_order_value, other.max_order_value),
            max_exit_value=min(self.max_exit_value, other.max_exit_value),
            max_daily_loss=min(self.max_daily_loss, other.max_daily_loss),
            max_mark_age_secs=min(self.max_mark_age_secs, other.max_mark_age_secs),
            send_deadline_secs=min(self.send_deadline_secs, other.send_deadline_secs),
            throttled_interval_secs=max(self.throttled_interval_secs, other.throttled_interval_secs),
            version=max(self.version, other.version) + (self != other),
        )

    def compact(self) -> list[int]:
        """The bounds that decide, in the order of `from_compact`."""
        return [
            self.max_position,
            self.max_order_value,
            self.max_exit_value,
            self.max_daily_loss,
            self.max_mark_age_secs,
            self.throttled_interval_secs,
        ]

    @classmethod
    def from_compact(cls, values: list[int], version: int) -> RiskLimits:
        """The limits that a decision record holds."""
        position, value, exit_value, loss, age, interval = values
        return cls(
            max_position=QtyE2(position),
            max_order_value=MoneyE6(value),
            max_exit_value=MoneyE6(exit_value),
            max_daily_loss=MoneyE6(loss),
            max_mark_age_secs=age,
            throttled_interval_secs=interval,
            version=version,
        )

    def describe(self) -> dict[str, str]:
        """For people and for the CONFIG record: contracts, dollars, seconds."""
        return {
            "max_position_size": format_qty(self.max_position),
            "max_order_value": format_money(self.max_order_value),
            "max_exit_value": format_money(self.max_exit_value),
            "max_daily_loss": format_money(self.max_daily_loss),
            "max_mark_age_secs": str(self.max_mark_age_secs),
            "version": str(self.version),
        }


_LEAST = {
    "max_position": 0,
    "max_order_value": 0,
    "max_exit_value": 0,
    "max_daily_loss": 0,
    "max_mark_age_secs": 1,
    "send_deadline_secs": 1,
    "throttled_interval_secs": 0,
    "version": 1,
}

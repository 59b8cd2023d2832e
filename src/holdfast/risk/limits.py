"""The bounds that the gate holds orders against, in integer units, validated together.

People say contracts and dollars; `RiskLimits.of` reads those. A value above its bound refuses, a value at it
passes. Limits are one frozen value with a version: a decision names the version it was made under.

`RiskLimitsConfig` bounds a whole portfolio of options and stock: Greeks, and what can still be lost. Its numbers
are kept as they are given and read once, by their shortest decimal text, into the integers of `PortfolioBounds`,
which alone take part in comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

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

Number = int | float | str | Decimal
"""As people write numbers; a float is read by its shortest decimal text."""
PPM = 1_000_000


class ConcentrationBase(StrEnum):
    """What a ratio of exposure is taken of."""

    EQUITY = "equity"
    """What the account is worth. A first position has something to be small against."""
    POSITION_TOTAL = "position_total"
    """All exposure, the new position included: as B did it, where a first position is 100 % and is refused."""


class PortfolioBounds(NamedTuple):
    """`RiskLimitsConfig` as integers: what decisions compare, and what their records hold.

    Attributes:
        delta_e6, gamma_e6, symbol_delta_e6: 1e-6 share-equivalents.
        position_ppm, correlated_ppm: Parts per million of the base.
        exposure_e6: 1e-6 dollar; None where nothing is said.
        greeks_age_secs: Older ones are unknown.
        positions: Structures at once; None where nothing is said.
        is_of_equity: Whether the base is equity.
    """

    delta_e6: int
    gamma_e6: int
    symbol_delta_e6: int
    position_ppm: int
    correlated_ppm: int
    exposure_e6: int | None
    greeks_age_secs: int
    positions: int | None
    is_of_equity: bool

    @property
    def greeks_age_ns(self) -> int:
        """`greeks_age_secs` in ns."""
        return self.greeks_age_secs * NANOS


@dataclass(frozen=True, slots=True)
class RiskLimitsConfig:
    """What a portfolio of options and stock may not exceed. At a bound passes.

    Share-equivalents are Greek x contracts x multiplier: 10 calls of delta 0.5 on 100 shares are 500.

    Attributes:
        max_portfolio_delta: Share-equivalents, either sign; default 50.
        max_portfolio_gamma: Share-equivalents per dollar, either sign; default 10.
        max_single_position_pct: What one structure (the legs of one underlying and expiry) can still lose, as a
            ratio of the base: 0.02 is 2 %, despite the name; default 0.02.
        max_per_symbol_delta: Share-equivalents of one underlying, either sign; default 20.
        max_correlated_pct: What all underlyings of one group can still lose, as a ratio; default 0.05.
        total_exposure_cap: Dollars that the whole portfolio can still lose; None, the default, sets no cap.
        correlated_groups: Group of an underlying, such as {"SPY": "us", "QQQ": "us"}; one that is not named is a
            group by itself.
        max_greeks_age_secs: Older Greeks are unknown; default 300 s.
        concentration_base: What the two ratios are of; default equity.
        max_positions: Structures held or working at once; None, the default, does not count them.
        bounds: The same as integers.

    Raises:
        ConfigError: One or more values cannot be used; all are named.
    """

    max_portfolio_delta: Number = field(default=50, compare=False)
    max_portfolio_gamma: Number = field(default=10, compare=False)
    max_single_position_pct: Number = field(default=0.02, compare=False)
    max_per_symbol_delta: Number = field(default=20, compare=False)
    max_correlated_pct: Number = field(default=0.05, compare=False)
    total_exposure_cap: Number | None = field(default=None, compare=False)
    _: KW_ONLY
    correlated_groups: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    max_greeks_age_secs: int = field(default=300, compare=False)
    concentration_base: ConcentrationBase | str = field(default=ConcentrationBase.EQUITY, compare=False)
    max_positions: int | None = field(default=None, compare=False)
    bounds: PortfolioBounds = field(init=False, repr=False)

    def __post_init__(self) -> None:
        problems: list[str] = []

        def amount(name: str) -> int:
            return _read_e6(name, getattr(self, name), problems)

        bounds = PortfolioBounds(
            delta_e6=amount("max_portfolio_delta"),
            gamma_e6=amount("max_portfolio_gamma"),
            symbol_delta_e6=amount("max_per_symbol_delta"),
            position_ppm=_ratio("max_single_position_pct", amount("max_single_position_pct"), problems),
            correlated_ppm=_ratio("max_correlated_pct", amount("max_correlated_pct"), problems),
            exposure_e6=None if self.total_exposure_cap is None else amount("total_exposure_cap"),
            greeks_age_secs=_whole("max_greeks_age_secs", self.max_greeks_age_secs, 1, problems),
            positions=None
            if self.max_positions is None
            else _whole("max_positions", self.max_positions, 0, problems),
            is_of_equity=self.concentration_base == ConcentrationBase.EQUITY,
        )
        if self.concentration_base not in set(ConcentrationBase):
            known = " or ".join(repr(base.value) for base in ConcentrationBase)
            problems.append(f"concentration_base = {self.concentration_base!r} is not {known}")
        problems += [
            f"correlated_groups: {symbol!r} = {group!r} is not a symbol and the name of its group"
            for symbol, group in self.correlated_groups.items()
            if not (_is_name(symbol) and _is_name(group))
        ]
        if problems:
            raise ConfigError("portfolio limits: " + "; ".join(problems))
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "correlated_groups", dict(self.correlated_groups))

    def group(self, symbol: str) -> str:
        """The group of an underlying."""
        return self.correlated_groups.get(symbol, symbol)

    def tightest(self, other: RiskLimitsConfig) -> RiskLimitsConfig:
        """Every bound of the two that refuses more; groups of both, ours where both name a symbol."""
        one, two = self.bounds, other.bounds
        bounds = PortfolioBounds(
            delta_e6=min(one.delta_e6, two.delta_e6),
            gamma_e6=min(one.gamma_e6, two.gamma_e6),
            symbol_delta_e6=min(one.symbol_delta_e6, two.symbol_delta_e6),
            position_ppm=min(one.position_ppm, two.position_ppm),
            correlated_ppm=min(one.correlated_ppm, two.correlated_ppm),
            exposure_e6=_least(one.exposure_e6, two.exposure_e6),
            greeks_age_secs=min(one.greeks_age_secs, two.greeks_age_secs),
            positions=_least(one.positions, two.positions),
            is_of_equity=one.is_of_equity or two.is_of_equity,
        )
        return RiskLimitsConfig.from_bounds(bounds, {**other.correlated_groups, **self.correlated_groups})

    def compact(self) -> list[int]:
        """The bounds in the order of `PortfolioBounds`, -1 where nothing is said; groups are facts of a decision."""
        return [-1 if bound is None else int(bound) for bound in self.bounds]

    @classmethod
    def from_compact(cls, values: list[int]) -> RiskLimitsConfig:
        """The limits that a decision record holds; its groups are left out."""
        delta, gamma, symbol_delta, position, correlated, exposure, age, positions, is_of_equity = values
        bounds = PortfolioBounds(
            delta,
            gamma,
            symbol_delta,
            position,
            correlated,
            _said(exposure),
            age,
            _said(positions),
            bool(is_of_equity),
        )
        return cls.from_bounds(bounds, {})

    @classmethod
    def from_bounds(cls, bounds: PortfolioBounds, groups: Mapping[str, str]) -> RiskLimitsConfig:
        """The limits of integers."""
        cap = bounds.exposure_e6
        return cls(
            _e6_text(bounds.delta_e6),
            _e6_text(bounds.gamma_e6),
            _e6_text(bounds.position_ppm),
            _e6_text(bounds.symbol_delta_e6),
            _e6_text(bounds.correlated_ppm),
            None if cap is None else _e6_text(cap),
            correlated_groups=groups,
            max_greeks_age_secs=bounds.greeks_age_secs,
            concentration_base=ConcentrationBase.EQUITY
            if bounds.is_of_equity
            else ConcentrationBase.POSITION_TOTAL,
            max_positions=bounds.positions,
        )

    def describe(self) -> dict[str, str]:
        """For people and for the CONFIG record."""
        bounds = self.bounds
        return {
            "max_portfolio_delta": _e6_text(bounds.delta_e6),
            "max_portfolio_gamma": _e6_text(bounds.gamma_e6),
            "max_single_position_pct": _e6_text(bounds.position_ppm),
            "max_per_symbol_delta": _e6_text(bounds.symbol_delta_e6),
            "max_correlated_pct": _e6_text(bounds.correlated_ppm),
            "total_exposure_cap": "" if bounds.exposure_e6 is None else _e6_text(bounds.exposure_e6),
            "max_greeks_age_secs": str(bounds.greeks_age_secs),
            "max_positions": "" if bounds.positions is None else str(bounds.positions),
            "concentration_base": str(self.concentration_base),
            "correlated_groups": ",".join(
                f"{symbol}={group}" for symbol, group in sorted(self.correlated_groups.items())
            ),
        }


def read_e6(value: object, what: str) -> int:
    """A number in 1/1,000,000, exactly; a float by its shortest decimal text.

    Raises:
        BadInput: No finite plain number, or more than six decimal places.
    """
    if isinstance(value, float):
        number = Decimal(repr(value))
        if not number.is_finite():
            raise BadInput(f"{what} {value!r} is not a finite number")
        value = number
    return parse_money(value, what)  # type: ignore[arg-type]  # it names every other type


def _read_e6(name: str, value: object, problems: list[str]) -> int:
    try:
        number = read_e6(value, name)
    except BadInput as error:
        problems.append(str(error))
        return 0
    if number < 0:
        problems.append(f"{name} = {value!r} is negative: a bound is held against both signs")
    return number


def _ratio(name: str, ppm: int, problems: list[str]) -> int:
    if ppm > PPM:
        problems.append(
            f"{name} = {_e6_text(ppm)} is above 1: it is a ratio, so {_e6_text(ppm)} % is "
            f"{format_money(MoneyE6(ppm // 100))}"
        )
    return ppm


def _whole(name: str, value: object, least: int, problems: list[str]) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        problems.append(f"{name} = {value!r} must be a whole number of at least {least}")
        return least
    return value


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _least(one: int | None, two: int | None) -> int | None:
    said = [bound for bound in (one, two) if bound is not None]
    return min(said, default=None)


def _said(value: int) -> int | None:
    return None if value < 0 else value


def _e6_text(value: int) -> str:
    """Without needless zeros: "50", "0.02"."""
    return format_money(MoneyE6(value)).rstrip("0").rstrip(".")


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
        no_entry_before_close_secs: Of options, combinations and stocks: nothing is opened this shortly before the
            day's trading ends; default 300 s.
        no_entry_before_expiry_secs: The same before a contract's own end; default 3,600 s.
        allow_short_on_expiry_day: Whether options may be sold short on the day they expire; default no.
        portfolio: Limits over the whole book of options and stock; None, the default, sets none.
    """

    max_position: QtyE2 = QtyE2(100_00)
    max_order_value: MoneyE6 = MoneyE6(500_000_000)
    max_exit_value: MoneyE6 = MoneyE6(5_000_000_000)
    max_daily_loss: MoneyE6 = MoneyE6(1_000_000_000)
    max_mark_age_secs: int = 30
    send_deadline_secs: int = 5
    throttled_interval_secs: int = 1
    version: int = 1
    no_entry_before_close_secs: int = 300
    no_entry_before_expiry_secs: int = 3_600
    allow_short_on_expiry_day: bool = False
    portfolio: RiskLimitsConfig | None = None

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
            no_entry_before_close_secs=max(self.no_entry_before_close_secs, other.no_entry_before_close_secs),
            no_entry_before_expiry_secs=max(
                self.no_entry_before_expiry_secs, other.no_entry_before_expiry_secs
            ),
            allow_short_on_expiry_day=self.allow_short_on_expiry_day and other.allow_short_on_expiry_day,
            portfolio=_tighter(self.portfolio, other.portfolio),
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
            self.no_entry_before_close_secs,
            self.no_entry_before_expiry_secs,
            int(self.allow_short_on_expiry_day),
            *(() if self.portfolio is None else self.portfolio.compact()),
        ]

    @classmethod
    def from_compact(cls, values: list[int], version: int) -> RiskLimits:
        """The limits that a decision record holds; one made before portfolios were limited holds the first six."""
        position, value, exit_value, loss, age, interval, *options = values
        close_secs, expiry_secs, may_short, *portfolio = options or (0, 0, 1)
        return cls(
            max_position=QtyE2(position),
            max_order_value=MoneyE6(value),
            max_exit_value=MoneyE6(exit_value),
            max_daily_loss=MoneyE6(loss),
            max_mark_age_secs=age,
            throttled_interval_secs=interval,
            version=version,
            no_entry_before_close_secs=close_secs,
            no_entry_before_expiry_secs=expiry_secs,
            allow_short_on_expiry_day=bool(may_short),
            portfolio=RiskLimitsConfig.from_compact(portfolio) if portfolio else None,
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
            **({} if self.portfolio is None else self._describe_portfolio(self.portfolio)),
        }

    def _describe_portfolio(self, portfolio: RiskLimitsConfig) -> dict[str, str]:
        return {
            "no_entry_before_close_secs": str(self.no_entry_before_close_secs),
            "no_entry_before_expiry_secs": str(self.no_entry_before_expiry_secs),
            "allow_short_on_expiry_day": str(self.allow_short_on_expiry_day).lower(),
            **portfolio.describe(),
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
    "no_entry_before_close_secs": 0,
    "no_entry_before_expiry_secs": 0,
}


def _tighter(one: RiskLimitsConfig | None, two: RiskLimitsConfig | None) -> RiskLimitsConfig | None:
    if one is None or two is None:
        return one or two
    return one.tightest(two)

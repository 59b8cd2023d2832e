"""How far a trailing stop stays behind: the rules as data, and the configuration of one stop.

Everything is whole numbers: premiums in 1/10,000 dollar, ratios in basis points (1/100 percent), ages in
nanoseconds. A *level* is the premium seen from the position: the premium itself for a long, its negative for a
short. In levels every position gains upwards and every stop lies below, so that a short is a mirrored long and a
structure with a negative premium is nothing special; a percentage is one of the premium's absolute value.

Promise: a rule's candidate never falls when the best level rises or time passes, whatever its numbers, and it is
rounded towards the market, which is towards the position's protection. A configuration is held against every rule
together; one error lists all that is wrong.

| rule              | the stop stands                                                               |
| ----------------- | ----------------------------------------------------------------------------- |
| `PercentTrail`    | a percentage of the best premium, or of the entry premium, behind the best    |
| `DistanceTrail`   | a fixed distance behind: dollars, or ticks                                    |
| `VolatilityTrail` | a multiple of a volatility (an average true range, say) behind                |
| `GiveBack`        | where a fraction of the best gain would be given back                         |
| `BreakEven`       | at the entry, or a little better, once the gain was large enough              |
| `TimeTightening`  | a percentage behind that shrinks with the age of the stop                     |
| `RatchetTable`    | a percentage behind that shrinks in steps as the gain grows                   |

Where a configuration names several rules, the tightest one counts. The hard floor is not a rule: it lies under the
entry from the beginning, activated or not.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.errors import ConfigError
from holdfast.core.money import PriceE4, parse_price

BP = 10_000
"""Basis points of one."""
MAX_PREMIUM_E4 = 10**12
"""A hundred million dollars; beyond it 64-bit columns could overflow."""
MAX_BP = 100_000
"""Ten times: no percentage of a stop is larger."""
FAR = 1 << 62
"""Beyond every level."""


class PercentTrail(msgspec.Struct, frozen=True, tag="percent"):
    """A percentage behind the best premium.

    Attributes:
        trailing_bp: Basis points, 1 to 9,999.
        base: Of what: the best premium so far ("extreme", as published), or the "entry" premium, which keeps the
            distance of a short whose premium nears zero from vanishing.
    """

    trailing_bp: int
    base: Literal["extreme", "entry"] = "extreme"

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  one face for all rules
        """The level to stop at."""
        return extreme - abs(extreme if self.base == "extreme" else entry) * self.trailing_bp // BP

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        return _within("trailing_bp", self.trailing_bp, 1, BP - 1)


class DistanceTrail(msgspec.Struct, frozen=True, tag="distance"):
    """A fixed distance behind the best premium.

    Attributes:
        distance: 1/10,000 dollar, at least 1.
    """

    distance: int

    @classmethod
    def dollars(cls, distance: str | Decimal) -> DistanceTrail:
        """*distance* in dollars, as text or Decimal."""
        return cls(parse_price(distance, "distance"))

    @classmethod
    def ticks(cls, count: int, tick: PriceE4) -> DistanceTrail:
        """*count* ticks of *tick* each."""
        return cls(count * tick)

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  as above
        """The level to stop at."""
        return extreme - self.distance

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        return _within("distance", self.distance, 1, MAX_PREMIUM_E4)


class VolatilityTrail(msgspec.Struct, frozen=True, tag="volatility"):
    """A multiple of a volatility, measured when the stop is made, behind the best premium.

    Attributes:
        volatility: Of the premium, 1/10,000 dollar; an average true range or a standard deviation.
        multiple_e2: How many of them, in hundredths: 250 is two and a half.
    """

    volatility: int
    multiple_e2: int

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  as above
        """The level to stop at."""
        return extreme - self.volatility * self.multiple_e2 // 100

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        return _within("volatility", self.volatility, 1, MAX_PREMIUM_E4) + _within(
            "multiple_e2", self.multiple_e2, 1, 10_000
        )


class GiveBack(msgspec.Struct, frozen=True, tag="give_back"):
    """Where a fraction of the best gain would be given back.

    Attributes:
        fraction_bp: Of the gain, basis points, 1 to 10,000; 5,000 keeps half of it.
    """

    fraction_bp: int

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  as above
        """The level to stop at; none while there is no gain."""
        gain = extreme - entry
        return extreme - gain * self.fraction_bp // BP if gain > 0 else None

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        return _within("fraction_bp", self.fraction_bp, 1, BP)


class BreakEven(msgspec.Struct, frozen=True, tag="break_even"):
    """The entry premium, or a little better, once the gain was large enough.

    Attributes:
        gain_bp: The gain that sets it, basis points of the entry premium.
        lock_bp: How much of the entry premium it keeps; 0 (default) is the entry itself. Below `gain_bp`.
    """

    gain_bp: int
    lock_bp: int = 0

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  as above
        """The level to stop at; none before the gain."""
        if (extreme - entry) * BP < self.gain_bp * abs(entry):
            return None
        return entry - -self.lock_bp * abs(entry) // BP

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        return _within("gain_bp", self.gain_bp, 1, MAX_BP) or _within(
            "lock_bp", self.lock_bp, 0, self.gain_bp - 1
        )


class TimeTightening(msgspec.Struct, frozen=True, tag="time_tightening"):
    """A percentage of the best premium behind it that shrinks evenly with time, in steps of the minimum move.

    Attributes:
        trailing_bp: At first, basis points.
        final_bp: In the end, basis points; below `trailing_bp`.
        over_secs: How long that takes from the making of the stop, or its reset, on.
    """

    trailing_bp: int
    final_bp: int
    over_secs: int

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  as above
        """The level to stop at."""
        over = self.over_secs * NANOS
        shrunk = (self.trailing_bp - self.final_bp) * min(max(age_ns, 0), over)
        return extreme - abs(extreme) * (self.trailing_bp * over - shrunk) // (BP * over)

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        return (
            _within("trailing_bp", self.trailing_bp, 2, BP - 1)
            or _within("final_bp", self.final_bp, 1, self.trailing_bp - 1)
        ) + _within("over_secs", self.over_secs, 1, 366 * 86_400)


class RatchetTable(msgspec.Struct, frozen=True, tag="ratchet_table"):
    """A percentage of the best premium behind it that shrinks in steps as the gain grows.

    Attributes:
        rows: (gain, trail), both basis points, of the entry and of the best premium; gains rise, trails shrink.
    """

    rows: tuple[tuple[int, int], ...]

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:  # noqa: ARG002  as above
        """The level to stop at; none before the first gain."""
        gain, base = (extreme - entry) * BP, abs(entry)
        reached = [trail for least, trail in self.rows if gain >= least * base]
        return extreme - abs(extreme) * reached[-1] // BP if reached else None

    def problems(self) -> list[str]:
        """What is wrong with its numbers."""
        found = [] if self.rows else ["rows must not be empty"]
        for gain, trail in self.rows:
            found += _within("gain", gain, 1, MAX_BP) + _within("trail", trail, 1, BP - 1)
        for (gain, trail), (next_gain, next_trail) in zip(self.rows, self.rows[1:], strict=False):
            if next_gain <= gain or next_trail >= trail:
                found.append(f"rows: behind ({gain}, {trail}) the gain must rise and the trail shrink")
        return found


TrailRule = (
    PercentTrail | DistanceTrail | VolatilityTrail | GiveBack | BreakEven | TimeTightening | RatchetTable
)


@dataclass(frozen=True, slots=True)
class TrailingStopConfig:
    """What one stop does. Percent, not ratio: 2.0 is two percent; at most two decimal places.

    Attributes:
        activation_pct: Gain on the entry premium at which the stop begins to trail; reached is enough. Default 2.0.
        trailing_pct: How far behind the best premium it trails, where `rules` names nothing else. Default 1.5.
        min_move_pct: The least move of the stop, in percent of itself; smaller ones are left out. Default 0.5.
        rules: What it trails by; () (default) is `PercentTrail` of `trailing_pct`. Of several the tightest counts.
        hard_floor_pct: A stop this far under the entry premium from the beginning on; None (default) is none.
        negative_premiums: Whether the premium may fall below zero, as the net price of a structure may. Default
            False: a negative premium is refused.
        refuse_zero: True refuses a premium of 0, as the published code did. Default False: a worthless option is a
            price, and stops out.
        spread_factor_pct: A trail narrower than this share of the spread is warned about. Default 150.

    Raises:
        ConfigError: Something cannot be used; all of it is named.
    """

    activation_pct: float | str | Decimal = field(default=2.0, compare=False)
    trailing_pct: float | str | Decimal = field(default=1.5, compare=False)
    min_move_pct: float | str | Decimal = field(default=0.5, compare=False)
    _: KW_ONLY
    rules: tuple[TrailRule, ...] = ()
    hard_floor_pct: float | str | Decimal | None = field(default=None, compare=False)
    negative_premiums: bool = False
    refuse_zero: bool = False
    spread_factor_pct: int = 150
    # What decides, and what two configurations are compared by.
    activation_bp: int = field(init=False, repr=False, default=0)
    min_move_bp: int = field(init=False, repr=False, default=0)
    hard_floor_bp: int | None = field(init=False, repr=False, default=None)
    follows_time: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        problems: list[str] = []
        activation = _basis_points("activation_pct", self.activation_pct, MAX_BP, problems)
        trailing = _basis_points("trailing_pct", self.trailing_pct, BP - 1, problems)
        min_move = _basis_points("min_move_pct", self.min_move_pct, MAX_BP, problems)
        floor = None
        if self.hard_floor_pct is not None:
            floor = _basis_points("hard_floor_pct", self.hard_floor_pct, MAX_BP, problems)
        if not problems and not self.rules and trailing >= activation:
            problems.append(
                f"trailing_pct {self.trailing_pct} must be below activation_pct {self.activation_pct}"
            )
        for rule in self.rules:
            problems += [f"{type(rule).__name__}: {one}" for one in rule.problems()]
        problems += _within("spread_factor_pct", self.spread_factor_pct, 0, 10_000)
        if problems:
            raise ConfigError("trailing stop: " + "; ".join(problems))
        for name, value in (
            ("activation_bp", activation),
            ("min_move_bp", min_move),
            ("hard_floor_bp", floor),
            ("rules", self.rules or (PercentTrail(trailing),)),
            ("follows_time", any(isinstance(rule, TimeTightening) for rule in self.rules)),
        ):
            object.__setattr__(self, name, value)

    def candidate(self, entry: int, extreme: int, age_ns: int) -> int | None:
        """The tightest level that a rule asks for, always below *extreme*; None where no rule asks for any."""
        best: int | None = None
        for rule in self.rules:
            level = rule.candidate(entry, extreme, age_ns)
            if level is not None and (best is None or level > best):
                best = level
        return best if best is None else min(best, extreme - 1)

    def floor(self, entry: int) -> int | None:
        """The level of the hard floor."""
        return None if self.hard_floor_bp is None else entry - abs(entry) * self.hard_floor_bp // BP

    def activates_at(self, entry: int) -> int:
        """The lowest level that activates."""
        return entry - -self.activation_bp * abs(entry) // BP

    def least_move(self, stop: int) -> int:
        """How far, at least, a stop at level *stop* moves."""
        return max(1, -(-self.min_move_bp * abs(stop) // BP))

    def wakes_at(self, stop: int | None) -> int:
        """A level below which a trailing stop at *stop* certainly stays where it is.

        It spares the arithmetic on most updates; the stop itself decides.
        """
        if stop is None or self.follows_time:
            return -FAR
        target = stop + self.least_move(stop)
        if len(self.rules) == 1:
            rule = self.rules[0]
            if isinstance(rule, PercentTrail) and rule.base == "extreme" and target > 0:
                # x - x * t // BP >= target, for the smallest x.
                return max(target + 1, (target - 1) * BP // (BP - rule.trailing_bp) + 1)
        return target + 1  # a candidate is below its level

    def to_json(self) -> dict[str, object]:
        """As `from_json` reads it; what a stop's ADD record holds."""
        return {
            "activation_pct": str(self.activation_pct),
            "trailing_pct": str(self.trailing_pct),
            "min_move_pct": str(self.min_move_pct),
            "rules": msgspec.to_builtins(self.rules),
            "hard_floor_pct": None if self.hard_floor_pct is None else str(self.hard_floor_pct),
            "negative_premiums": self.negative_premiums,
            "refuse_zero": self.refuse_zero,
            "spread_factor_pct": self.spread_factor_pct,
        }

    @classmethod
    def from_json(cls, values: object) -> TrailingStopConfig:
        """The configuration that *values* hold.

        Raises:
            ConfigError: They hold something else.
        """
        try:
            return cls(**msgspec.structs.asdict(msgspec.convert(values, _Recorded)))
        except msgspec.ValidationError as why:
            raise ConfigError(f"trailing stop: {why}") from why


class _Recorded(msgspec.Struct, kw_only=True):
    """A configuration as it is recorded."""

    activation_pct: str
    trailing_pct: str
    min_move_pct: str
    rules: tuple[TrailRule, ...]
    hard_floor_pct: str | None
    negative_premiums: bool
    refuse_zero: bool
    spread_factor_pct: int


def _within(name: str, value: int, least: int, most: int) -> list[str]:
    if type(value) is not int or not least <= value <= most:
        return [f"{name} {value!r} must be a whole number from {least} to {most}"]
    return []


def _basis_points(name: str, value: float | str | Decimal, most: int, problems: list[str]) -> int:
    """*value* percent in basis points, read by its shortest decimal text; what is wrong goes to *problems*."""
    try:
        number = Decimal(repr(float(value)) if isinstance(value, float) else value)
    except (InvalidOperation, ValueError, TypeError):
        problems.append(f"{name} {value!r} is not a number")
        return 0
    if isinstance(value, bool) or not number.is_finite() or not 0 < number * 100 <= most:
        problems.append(f"{name} {value!r} must be above 0 and at most {Decimal(most) / 100} percent")
        return 0
    if number * 100 != int(number * 100):
        problems.append(f"{name} {value!r} has more than two decimal places")
    return int(number * 100)

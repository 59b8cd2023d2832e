"""Every key of `holdfast.toml` and how its value is read; a value that cannot be used says what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from holdfast.anchors.spec import parse_sink
from holdfast.config.sections import LAYERS
from holdfast.core.errors import BadInput
from holdfast.core.money import MoneyE6, QtyE2, format_money, parse_money, parse_qty
from holdfast.risk.limits import PPM, ConcentrationBase, read_e6

KALSHI_ENVS = ("demo", "prod")
Reader = Callable[[object], object]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput("expected text in quotes")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadInput("expected true or false")
    return value


def _one_of(words: tuple[str, ...]) -> Reader:
    def read(value: object) -> str:
        if value not in words:
            raise BadInput("expected " + " or ".join(f'"{word}"' for word in words))
        return str(value)

    return read


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadInput('expected a list of names, such as ["email"]')
    return tuple(_text(name) for name in cast("list[object]", value))


def _symbols(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadInput('expected a list of symbols, such as ["SPY", "QQQ"]')
    symbols = tuple(_text(name) for name in cast("list[object]", value))
    for symbol in symbols:
        if symbol != symbol.strip().upper():
            raise BadInput(f"symbol {symbol!r} is not in capital letters")
        if symbols.count(symbol) > 1:
            raise BadInput(f"symbol {symbol!r} is named twice")
    return symbols


def _layers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadInput('expected a list, such as ["breaker", "stops"]')
    named = [str(name) for name in cast("list[object]", value)]
    for known, count in ((LAYERS[:count], count) for count in range(len(LAYERS) + 1)):
        if len(named) == count and set(named) == set(known):
            return known
    raise BadInput('they are switched on one by one: ["breaker"], then with "stops", then with "limits"')


def _sinks(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadInput('expected a list, such as ["file:/mnt/second/anchors"]')
    names: list[str] = []
    for name in cast("list[object]", value):
        try:
            parse_sink(_text(name))
        except BadInput as why:
            raise BadInput(f"{why}; {why.hint}" if why.hint else str(why)) from why
        if name in names:
            raise BadInput(f"sink {name!r} is named twice")
        names.append(str(name))
    return tuple(names)


def _whole(least: int, most: int | None = None) -> Reader:
    expected = f"expected a whole number of at least {least}"
    if most is not None:
        expected = f"expected a whole number from {least} to {most}"

    def read(value: object) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or cast("int", value) < least or (most is not None and cast("int", value) > most):
            raise BadInput(expected)
        return cast("int", value)

    return read


def _positive_int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise BadInput("expected a whole number above zero")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
        raise BadInput("expected a number of seconds above zero")
    return float(value)


def _positive_qty(value: object) -> QtyE2:
    qty = parse_qty(_amount(value))
    if qty <= 0:
        raise BadInput("expected a number of contracts above zero")
    return qty


def _positive_money(value: object) -> MoneyE6:
    money = parse_money(_amount(value))
    if money <= 0:
        raise BadInput("expected an amount above zero")
    return money


def _cap(value: object) -> str:
    if parse_money(_amount(value)) < 0:
        raise BadInput("expected an amount of at least zero")
    return str(value)


def _amount(value: object) -> str | int:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise BadInput('expected an amount in quotes, such as "500" or "0.50"')


def _number(value: object) -> str:
    """A Greek's bound, exactly as it is written."""
    if read_e6(value, "number") < 0:
        raise BadInput("expected a number of at least zero: it is held against both signs")
    return str(value)


def _ratio(value: object) -> str:
    ppm = read_e6(value, "ratio")
    if not 0 <= ppm <= PPM:
        percent = format_money(MoneyE6(ppm // 100))
        hint = f"; it is a ratio, despite its name: {value} % is {percent}" if ppm > PPM else ""
        raise BadInput(f"expected a number from 0 to 1{hint}")
    return str(value)


def _percent(value: object) -> str:
    if read_e6(value, "percent") <= 0:
        raise BadInput("expected a percentage above zero, such as 2.0 for two percent")
    return str(value)


def _index(most: int | None) -> Reader:
    def read(value: object) -> str:
        number = read_e6(value, "number")
        if number < 0 or (most is not None and number > most * PPM):
            raise BadInput(
                f"expected a number from 0 to {most}" if most else "expected a number of at least 0"
            )
        return str(value)

    return read


def _yearly(value: object) -> str:
    if abs(read_e6(value, "ratio")) > PPM // 2:
        raise BadInput("expected a ratio per year of at most a half: 5 % is 0.05")
    return str(value)


KEYS: Mapping[str, Reader] = {
    "paths.audit": _text,
    "paths.lake": _text,
    "paths.state": _text,
    "paths.reserve": _text,
    "limits.max_position_size": _positive_qty,
    "limits.max_order_value": _positive_money,
    "limits.max_daily_loss": _positive_money,
    "limits.max_mark_age_secs": _positive_int,
    "limits.options.max_portfolio_delta": _number,
    "limits.options.max_portfolio_gamma": _number,
    "limits.options.max_single_position_pct": _ratio,
    "limits.options.max_per_symbol_delta": _number,
    "limits.options.max_correlated_pct": _ratio,
    "limits.options.total_exposure_cap": _cap,
    "limits.options.max_greeks_age_secs": _positive_int,
    "limits.options.max_positions": _whole(0),
    "limits.options.concentration_base": _one_of(tuple(base.value for base in ConcentrationBase)),
    "limits.options.no_entry_before_close_secs": _whole(0),
    "limits.options.no_entry_before_expiry_secs": _whole(0),
    "limits.options.allow_short_on_expiry_day": _flag,
    "stops.activation_pct": _percent,
    "stops.trailing_pct": _percent,
    "stops.min_move_pct": _percent,
    "stops.hard_floor_pct": _percent,
    "stops.confirmations": _positive_int,
    "stops.max_quote_age_secs": _positive_int,
    "desk.options.symbols": _symbols,
    "desk.options.contracts": _positive_int,
    "desk.options.max_positions": _positive_int,
    "desk.options.max_per_symbol": _positive_int,
    "desk.options.entry_secs": _positive_int,
    "desk.options.monitor_secs": _positive_int,
    "desk.options.exit_secs": _positive_int,
    "desk.options.equity": _positive_money,
    "desk.options.iv_rank": _index(100),
    "desk.options.vix": _index(None),
    "desk.options.reference": _text,
    "desk.options.rate": _yearly,
    "desk.options.layers": _layers,
    "lake.commit_rows": _positive_int,
    "lake.commit_secs": _seconds,
    "lake.memory_mb": _positive_int,
    "lake.retention_days": _whole(0, 36_500),
    "lake.maintain": _flag,
    "audit.personal_fields": _names,
    "anchors.sinks": _sinks,
    "anchors.every_secs": _positive_int,
    "venue.kalshi.env": _one_of(KALSHI_ENVS),
    "venue.kalshi.key_id": _text,
    "venue.kalshi.pem": _text,
    "venue.kalshi.base_url": _text,
    "venue.kalshi.ws_url": _text,
    "venue.kalshi.member_id": _text,
    "venue.ib.host": _text,
    "venue.ib.port": _whole(1, 65_535),
    "venue.ib.client_id": _whole(1, 2**31 - 1),
    "venue.ib.account": _text,
    "venue.ib.readonly": _flag,
    "venue.ib.timeout_secs": _seconds,
    "venue.ib.commission_bound": _positive_money,
}
"""By full name."""

TABLES: Mapping[str, Reader] = {
    "limits.options.correlated_groups": _text,
    "desk.options.dividends": _yearly,
}
"""Tables whose keys are names of the user's own."""


def reader_of(key: str) -> Reader | None:
    """How *key* is read; None where nobody knows it."""
    return KEYS.get(key) or TABLES.get(key.rpartition(".")[0])

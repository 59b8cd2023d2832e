"""`holdfast.toml`: read once, checked whole, every problem reported at once.

No file means the defaults of the contract. A file is read from the working directory, or from where
`--config` points. Each problem names its line, what was found, what is expected, and the nearest known key.
Environment variables for a venue win over the file, $HOLDFAST_DATA
names the folder of recordings, and $HOLDFAST_HOME the folder of the keys that sign logs, which otherwise is
`holdfast` in $XDG_CONFIG_HOME or ~/.config; nothing else reads the environment.

    [paths]    audit = "logs/audit"   lake = "data/lake"   state = "run"   reserve = ""   for last words: a directory on another volume
    [limits]   max_position_size = "100"      contracts per market, worst case by side
               max_order_value = "500"        dollars, count x price of the side paid
               max_daily_loss = "1000"        dollars below the session's opening value
               max_mark_age_secs = 30         older prices count as unknown
    [limits.options]                          orders for options, combinations and stocks
               max_portfolio_delta = 50       share-equivalents (Greek x contracts x multiplier), either sign
               max_portfolio_gamma = 10       the same
               max_per_symbol_delta = 20      the same, of one underlying
               max_single_position_pct = 0.02 what one structure can still lose, a ratio of equity: 0.02 is 2 %
               max_correlated_pct = 0.05      the same of one group of underlyings
               total_exposure_cap = "20000"   dollars that the whole book can still lose; without it none
               max_positions = 5              structures held or working; without it not counted
               max_greeks_age_secs = 300      older Greeks count as unknown
               concentration_base = "equity"  or "position_total": the ratios are then of all exposure
               no_entry_before_close_secs = 300    nothing is opened so shortly before the day's trading ends
               no_entry_before_expiry_secs = 3600  nor before a contract's own end
               allow_short_on_expiry_day = false   whether options may be sold short on the day they expire
    [limits.options.correlated_groups]        SPY = "us-equity", QQQ = "us-equity": judged together
    [stops]    activation_pct = 2.0           percent of gain on the entry premium at which a stop begins to trail
               trailing_pct = 1.5             percent behind the best premium
               min_move_pct = 0.5             smaller moves of the stop are left out
               hard_floor_pct = 50            percent under the entry premium, from the beginning; without it none
               confirmations = 2              distinct quotes that must cross a stop
               max_quote_age_secs = 150       older quotes drive no stop
    [desk.options]
               symbols = ["SPY", "QQQ", "IWM"]
               contracts = 1                  units of a structure per entry
               max_positions = 5              at once; max_per_symbol = 5 on one underlying
               entry_secs = 3600              market time between looks for entries; monitor_secs = 30 at open
               monitor_secs = 30              positions, exit_secs = 60 at exits under way
               equity = "100000"              dollars that a paper account begins with
               iv_rank = "60"   vix = "16"    by hand, recorded as assumed; without them nothing is entered
               reference = "reference.toml"   or a file of both
               rate = "0.05"                  interest a year, for Greeks that no feed gives; recorded as assumed
               layers = ["breaker", "stops", "limits"]   each needs those before it
    [desk.options.dividends]                  SPY = "0.013": a year, of the price; likewise assumed
    [lake]     commit_rows = 5000             a table with so many waiting rows is committed
               commit_secs = 1                a row waits at most so long; on S3 10
               memory_mb = 600                above it the projector starts itself anew
               retention_days = 7             files of old versions are kept that long
               maintain = true                whether the projector compacts, orders and vacuums
    [audit]    personal_fields = ["email"]    recorded under a key per person, which `holdfast audit erase` destroys
    [anchors]  sinks = ["file:/mnt/second/anchors", "witness:https://… <key>"]   who remembers the log elsewhere
               every_secs = 60                how often `holdfast audit anchor --follow` submits
    [venue.kalshi]
               env = "demo"                   or "prod", which must be typed
               key_id = "…"   pem = "path"    the API key and its private key file
               base_url, ws_url               another host, for instance `holdfast exchange`
               member_id = "…"                written as the user of every record
    [venue.ib] host = "127.0.0.1"             of the gateway or workstation
               port = 7497                    7497 paper, 7496 live (workstation); 4002, 4001 (gateway)
               client_id = 17                 ours; not 0, which is the person's at the screen
               account = "…"                  where the login has several, or it is real money
               readonly = false               true refuses orders before they are sent
               timeout_secs = 10              for an answer
               commission_bound = "2.00"      dollars that one contract can cost at most on one side

Of a limit in `[limits.options]` and `[stops]` numbers may stand bare or in quotes; dollars stand in quotes.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from holdfast.config.keys import KALSHI_ENVS, KEYS, TABLES, reader_of
from holdfast.config.sections import (
    AnchorsConfig,
    AuditConfig,
    Config,
    InteractiveBrokersConfig,
    KalshiConfig,
    LakeConfig,
    LimitsConfig,
    OptionsDeskConfig,
    OptionsLimitsConfig,
    PathsConfig,
    StopsConfig,
)
from holdfast.core.errors import BadInput, ConfigError
from holdfast.core.files import read_named
from holdfast.risk.limits import RiskLimitsConfig
from holdfast.risk.stop_rules import TrailingStopConfig

__all__ = [
    "CONFIG_NAME",
    "KALSHI_ENVS",
    "AnchorsConfig",
    "AuditConfig",
    "Config",
    "InteractiveBrokersConfig",
    "KalshiConfig",
    "LakeConfig",
    "LimitsConfig",
    "OptionsDeskConfig",
    "OptionsLimitsConfig",
    "PathsConfig",
    "StopsConfig",
    "find_recording",
    "key_home",
    "load_config",
    "people_home",
]

CONFIG_NAME = "holdfast.toml"
_MAX_BYTES = 1 << 20
_ENVIRONMENT = {
    "KALSHI_ENV": "venue.kalshi.env",
    "KALSHI_API_KEY_ID": "venue.kalshi.key_id",
    "KALSHI_PRIVATE_KEY_PATH": "venue.kalshi.pem",
    "KALSHI_BASE_URL": "venue.kalshi.base_url",
    "KALSHI_WS_URL": "venue.kalshi.ws_url",
}


def load_config(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration of *path*, or of `holdfast.toml` here, or the defaults.

    Args:
        path: A file that must exist, or None to take the one in the working directory if it is there.
        environ: The environment; the process's own by default.

    Raises:
        ConfigError: The file cannot be read, or anything in it or in the environment cannot be used.
    """
    environ = os.environ if environ is None else environ
    wanted = path or Path(CONFIG_NAME)
    source = str(wanted)
    try:
        # Nothing here is no mistake; a link to nothing is one.
        there = os.path.lexists(wanted)
        if path is not None and not there:
            raise ConfigError(f"no configuration file at {source!r}", hint="check the path")
        text = read_named(wanted, _MAX_BYTES, "configuration").decode() if there else ""
        source = source if there else ""
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"configuration {source!r} cannot be read: {error}", hint="it is TOML, which is UTF-8"
        ) from error
    except BadInput as error:
        raise ConfigError(str(error), hint=error.hint) from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source!r} is not valid TOML: {error}", hint="correct that line") from error

    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in _leaves(tree):
        _read(key, value, f"line {_line(text, key):<4}", values, problems)
    for variable, key in _ENVIRONMENT.items():
        if environ.get(variable):
            _read(key, environ[variable], f"${variable}", values, problems)
    config = Config() if problems else _build(values, source, problems)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(
            f"{source or 'the environment'} has {count} (nothing was started)\n\n" + "\n".join(problems)
        )
    return config


def key_home(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the keys that sign this user's logs; it need not exist yet.

    Raises:
        ConfigError: Neither $HOLDFAST_HOME, $XDG_CONFIG_HOME nor $HOME says where.
    """
    environ = os.environ if environ is None else environ
    if environ.get("HOLDFAST_HOME"):
        return Path(environ["HOLDFAST_HOME"])
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"], "holdfast")
    if environ.get("HOME"):
        return Path(environ["HOME"], ".config", "holdfast")
    raise ConfigError(
        "no folder for the keys that sign logs: HOLDFAST_HOME, XDG_CONFIG_HOME and HOME are not set",
        hint="set HOLDFAST_HOME to a folder of this user's own, outside the log",
    )


def people_home(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the keys under which personal fields are recorded, one for each person; as `key_home`."""
    return key_home(environ) / "people"


def find_recording(path: Path, *, environ: Mapping[str, str] | None = None) -> Path:
    """*path* as given where it exists, else below $HOLDFAST_DATA, else below ../shared/data; else as given."""
    environ = os.environ if environ is None else environ
    data = Path(environ.get("HOLDFAST_DATA") or Path("..", "shared", "data"))
    return next((found for found in (path, data / path) if found.exists()), path)


def _read(key: str, value: object, where: str, values: dict[str, Any], problems: list[str]) -> None:
    reader = reader_of(key)
    if reader is None:
        near = difflib.get_close_matches(key, [*KEYS, *TABLES], n=1)
        suggestion = f"Did you mean {near[0]}?" if near else f"known: {', '.join([*KEYS, *TABLES])}"
        problems.append(f"  {where} {key}\n            unknown key. {suggestion}")
        return
    try:
        values[key] = reader(value)
    except BadInput as error:
        problems.append(f"  {where} {key} = {value!r}\n            {error}")


def _build(values: dict[str, Any], source: str, problems: list[str]) -> Config:
    """The configuration of values that are each in order; what does not fit together goes to *problems*."""

    def section(prefix: str) -> dict[str, Any]:
        """The keys of one table, its sub-tables left out."""
        names = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        return {name: value for name, value in names.items() if "." not in name}

    options = section("limits.options.")
    near_the_end = {
        name: options.pop(name) for name in OptionsLimitsConfig.__struct_fields__ if name in options
    }
    stops = section("stops.")
    desk = section("desk.options.")
    if ("iv_rank" in desk) is not ("vix" in desk):
        problems.append("  desk.options: iv_rank and vix are given together, or neither")
    if "reference" in desk and "vix" in desk:
        problems.append(
            "  desk.options: iv_rank and vix are given by hand or read from the reference file, not both"
        )
    of_quotes = {name: stops.pop(name) for name in StopsConfig.__struct_fields__ if name in stops}
    try:
        groups = section("limits.options.correlated_groups.")
        portfolio = RiskLimitsConfig(**options, correlated_groups=groups)
        trailing_stop = TrailingStopConfig(**stops)
    except ConfigError as error:
        problems.append(f"  {error}")
        return Config()
    return Config(
        paths=PathsConfig(**section("paths.")),
        limits=LimitsConfig(
            **section("limits."), options=OptionsLimitsConfig(portfolio=portfolio, **near_the_end)
        ),
        kalshi=KalshiConfig(**section("venue.kalshi.")),
        anchors=AnchorsConfig(**section("anchors.")),
        audit=AuditConfig(**section("audit.")),
        stops=StopsConfig(trailing_stop=trailing_stop, **of_quotes),
        options_desk=OptionsDeskConfig(**desk, dividends=section("desk.options.dividends.")),
        lake=LakeConfig(**section("lake.")),
        ib=InteractiveBrokersConfig(**section("venue.ib.")),
        source=source,
        explicit_limits=any(key.startswith("limits.") for key in values),
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            found += _leaves(cast("dict[str, Any]", value), f"{key}.")
        else:
            found.append((key, value))
    return found


def _line(text: str, key: str) -> int:
    """The line that sets *key*: the last part of its name, after the header of its table, or its inline table."""
    table, _, name = key.rpartition(".")
    inside = not table
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = stripped.strip("[] ") == table
        elif (inside and stripped.split("=")[0].strip().strip('"') == name) or stripped.startswith(f"{key} "):
            return number
    return _line(text, table) if table else 0

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
    [audit]    personal_fields = ["email"]    recorded under a key per person, which `holdfast audit erase` destroys
    [anchors]  sinks = ["file:/mnt/second/anchors", "witness:https://… <key>"]   who remembers the log elsewhere
               every_secs = 60                how often `holdfast audit anchor --follow` submits
    [venue.kalshi]
               env = "demo"                   or "prod", which must be typed
               key_id = "…"   pem = "path"    the API key and its private key file
               base_url, ws_url               another host, for instance `holdfast exchange`
               member_id = "…"                written as the user of every record
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast.anchors.spec import parse_sink
from holdfast.core.errors import BadInput, ConfigError
from holdfast.core.files import read_named
from holdfast.core.money import MoneyE6, QtyE2, parse_money, parse_qty

CONFIG_NAME = "holdfast.toml"
KALSHI_ENVS = ("demo", "prod")
_MAX_BYTES = 1 << 20


class PathsConfig(msgspec.Struct, frozen=True):
    """Where things are kept, relative to the working directory.

    Attributes:
        audit: The log's directory.
        state: Runs of the paper market and process notes.
        lake: Where the Delta tables lie: a directory or s3://BUCKET/PREFIX.
        reserve: Where the log's last words go when its disk fails, best on another volume; "" keeps them in `run/`
            beside the log, which helps on a full disk and not on a dead one.
    """

    audit: str = "logs/audit"
    lake: str = "data/lake"
    state: str = "run"
    reserve: str = ""


class LimitsConfig(msgspec.Struct, frozen=True):
    """The bounds of the gate. At the bound passes; beyond it is refused.

    Attributes:
        max_position_size: Contracts per market, worst case by side, in 1/100.
        max_order_value: Count x price of the side paid, without fees, in 1e-6 dollar.
        max_daily_loss: Loss since the session opened, in 1e-6 dollar, positive.
        max_mark_age_secs: A price whose source was not proven alive for longer is unknown.
    """

    max_position_size: QtyE2 = QtyE2(100_00)
    max_order_value: MoneyE6 = MoneyE6(500_000_000)
    max_daily_loss: MoneyE6 = MoneyE6(1_000_000_000)
    max_mark_age_secs: int = 30


class AuditConfig(msgspec.Struct, frozen=True):
    """What is special about the log's content.

    Attributes:
        personal_fields: Names of details, at any depth, that are hidden under a key of the record's user.
    """

    personal_fields: tuple[str, ...] = ()


class AnchorsConfig(msgspec.Struct, frozen=True):
    """Who remembers the log outside its directory.

    Attributes:
        sinks: As `anchors.spec` names them. Files are asked whenever the log is opened for writing: one that is not
            there keeps the writer from starting, because whether the log went back is then unknown.
        every_secs: How often `audit anchor --follow` gives them a newer checkpoint.
    """

    sinks: tuple[str, ...] = ()
    every_secs: int = 60


class KalshiConfig(msgspec.Struct, frozen=True):
    """How to reach Kalshi.

    Attributes:
        env: "demo" or "prod"; which host, unless `base_url` names one.
        key_id, pem: The API key and its private key file.
        base_url, ws_url: "" follows `env`, and `base_url`.
        member_id: Written as the user of every record; "" is the key id.
    """

    env: str = "demo"
    key_id: str = ""
    pem: str = ""
    base_url: str = ""
    ws_url: str = ""
    member_id: str = ""


class Config(msgspec.Struct, frozen=True):
    """Everything that can be set.

    Attributes:
        source: The file it was read from, or "" for the defaults.
        explicit_limits: Whether the file sets any limit; real money asks for that.
    """

    paths: PathsConfig = PathsConfig()
    limits: LimitsConfig = LimitsConfig()
    kalshi: KalshiConfig = KalshiConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    audit: AuditConfig = AuditConfig()
    source: str = ""
    explicit_limits: bool = False


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput("expected text in quotes")
    return value


def _env(value: object) -> str:
    if value not in KALSHI_ENVS:
        raise BadInput('expected "demo" or "prod"')
    return str(value)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadInput('expected a list of names, such as ["email"]')
    return tuple(_text(name) for name in cast("list[object]", value))


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


def _positive_int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise BadInput("expected a whole number above zero")
    return value


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


def _amount(value: object) -> str | int:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise BadInput('expected an amount in quotes, such as "500" or "0.50"')


_Reader = Callable[[object], object]
_KEYS: Mapping[str, _Reader] = {
    "paths.audit": _text,
    "paths.lake": _text,
    "paths.state": _text,
    "paths.reserve": _text,
    "limits.max_position_size": _positive_qty,
    "limits.max_order_value": _positive_money,
    "limits.max_daily_loss": _positive_money,
    "limits.max_mark_age_secs": _positive_int,
    "audit.personal_fields": _names,
    "anchors.sinks": _sinks,
    "anchors.every_secs": _positive_int,
    "venue.kalshi.env": _env,
    "venue.kalshi.key_id": _text,
    "venue.kalshi.pem": _text,
    "venue.kalshi.base_url": _text,
    "venue.kalshi.ws_url": _text,
    "venue.kalshi.member_id": _text,
}
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
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(
            f"{source or 'the environment'} has {count} (nothing was started)\n\n" + "\n".join(problems)
        )
    return _build(values, source)


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
    reader = _KEYS.get(key)
    if reader is None:
        near = difflib.get_close_matches(key, _KEYS, n=1)
        suggestion = f"Did you mean {near[0]}?" if near else f"known: {', '.join(_KEYS)}"
        problems.append(f"  {where} {key}\n            unknown key. {suggestion}")
        return
    try:
        values[key] = reader(value)
    except BadInput as error:
        problems.append(f"  {where} {key} = {value!r}\n            {error}")


def _build(values: dict[str, Any], source: str) -> Config:
    def section(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}

    limits = section("limits.")
    return Config(
        paths=PathsConfig(**section("paths.")),
        limits=LimitsConfig(**limits),
        kalshi=KalshiConfig(**section("venue.kalshi.")),
        anchors=AnchorsConfig(**section("anchors.")),
        audit=AuditConfig(**section("audit.")),
        source=source,
        explicit_limits=bool(limits),
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
    """The line that sets *key*: the last part of its name, after the header of its table."""
    table, _, name = key.rpartition(".")
    inside = not table
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = stripped.strip("[] ") == table
        elif (inside and stripped.split("=")[0].strip().strip('"') == name) or stripped.startswith(f"{key} "):
            return number
    return 0

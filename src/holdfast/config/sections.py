"""Every section of `holdfast.toml` as one frozen value, with its defaults and units.

What a section says to another component it gives as that component's own configuration: `LimitsConfig.risk_limits`,
`LimitsConfig.options.portfolio`, `StopsConfig.trailing_stop`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast.core.money import MoneyE6, QtyE2
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.stop_rules import TrailingStopConfig

LAYERS = ("breaker", "stops", "limits")
"""What of the options desk can be switched on, in this order."""


class PathsConfig(msgspec.Struct, frozen=True):
    """Where things are kept, relative to the working directory.

    Attributes:
        audit: The log's directory.
        state: Runs of the paper market and process notes.
        reserve: Where the log's last words go when its disk fails, best on another volume; "" keeps them in `run/`
            beside the log, which helps on a full disk and not on a dead one.
        lake: Where the Delta tables lie: a directory or s3://BUCKET/PREFIX.
    """

    audit: str = "logs/audit"
    state: str = "run"
    reserve: str = ""
    lake: str = "data/lake"


class OptionsLimitsConfig(msgspec.Struct, frozen=True):
    """The bounds on orders for options, combinations and stocks, beside those of `[limits]`.

    Attributes:
        portfolio: Over the whole book.
        no_entry_before_close_secs: Nothing is opened this shortly before the day's trading ends.
        no_entry_before_expiry_secs: The same before a contract's own end.
        allow_short_on_expiry_day: Whether options may be sold short on the day they expire.
    """

    portfolio: RiskLimitsConfig = RiskLimitsConfig()
    no_entry_before_close_secs: int = 300
    no_entry_before_expiry_secs: int = 3_600
    allow_short_on_expiry_day: bool = False


class LimitsConfig(msgspec.Struct, frozen=True):
    """The bounds of the gate. At the bound passes; beyond it is refused.

    Attributes:
        max_position_size: Contracts per market, worst case by side, in 1/100.
        max_order_value: Count x price of the side paid, without fees, in 1e-6 dollar.
        max_daily_loss: Loss since the session opened, in 1e-6 dollar, positive.
        max_mark_age_secs: A price whose source was not proven alive for longer is unknown.
        options: For options, combinations and stocks.
    """

    max_position_size: QtyE2 = QtyE2(100_00)
    max_order_value: MoneyE6 = MoneyE6(500_000_000)
    max_daily_loss: MoneyE6 = MoneyE6(1_000_000_000)
    max_mark_age_secs: int = 30
    options: OptionsLimitsConfig = OptionsLimitsConfig()

    def risk_limits(self, *, portfolio: bool = False) -> RiskLimits:
        """As the gate takes them; *portfolio* says whether the bounds over the whole book come into force."""
        options = self.options
        return RiskLimits(
            max_position=self.max_position_size,
            max_order_value=self.max_order_value,
            max_exit_value=MoneyE6(10 * self.max_order_value),
            max_daily_loss=self.max_daily_loss,
            max_mark_age_secs=self.max_mark_age_secs,
            no_entry_before_close_secs=options.no_entry_before_close_secs,
            no_entry_before_expiry_secs=options.no_entry_before_expiry_secs,
            allow_short_on_expiry_day=options.allow_short_on_expiry_day,
            portfolio=options.portfolio if portfolio else None,
        )


class StopsConfig(msgspec.Struct, frozen=True):
    """What trailing stops do unless a position says otherwise.

    Attributes:
        trailing_stop: Percent of the premium: gain at which a stop begins to trail, distance, least move, hard floor.
        confirmations: Distinct quotes that must cross a stop before it triggers.
        max_quote_age_secs: Older quotes drive no stop.
    """

    trailing_stop: TrailingStopConfig = TrailingStopConfig()
    confirmations: int = 2
    max_quote_age_secs: int = 150


class OptionsDeskConfig(msgspec.Struct, frozen=True):
    """What the options desk trades and when.

    Attributes:
        symbols: Underlyings.
        contracts: Units of a structure per entry.
        max_positions: Positions at once.
        max_per_symbol: Positions on one underlying at once.
        entry_secs: Market time between two looks for entries.
        monitor_secs: Between two looks at open positions.
        exit_secs: Between two looks at exits under way.
        equity: Cash that a paper account begins with, 1e-6 dollar.
        iv_rank: IV rank of every symbol, 0 to 100 as text, given by hand and recorded as assumed; "" is not given.
        vix: The VIX in points, likewise.
        reference: A file of both, read instead; "" is none.
        rate: Of interest, a ratio per year as text, continuously compounded; prices Greeks that no feed gives.
        dividends: By underlying, likewise; none where it is not named.
        layers: Of "breaker", "stops", "limits", each with those before it.
    """

    symbols: tuple[str, ...] = ("SPY", "QQQ", "IWM")
    contracts: int = 1
    max_positions: int = 5
    max_per_symbol: int = 5
    entry_secs: int = 3_600
    monitor_secs: int = 30
    exit_secs: int = 60
    equity: MoneyE6 = MoneyE6(100_000_000_000)
    iv_rank: str = ""
    vix: str = ""
    reference: str = ""
    rate: str = "0"
    dividends: Mapping[str, str] = {}
    layers: tuple[str, ...] = LAYERS


class LakeConfig(msgspec.Struct, frozen=True):
    """How the projector commits and keeps the tables; where they lie is `paths.lake`.

    Attributes:
        commit_rows: A table with so many waiting rows is committed.
        commit_secs: A row waits at most so long; None is 1 s on a disk and 10 s on S3.
        memory_mb: Above so much memory the projector starts itself anew.
        retention_days: Files that no version needs are kept that long for readers of older ones.
        maintain: Whether the projector compacts, orders and vacuums.
    """

    commit_rows: int = 5_000
    commit_secs: float | None = None
    memory_mb: int = 600
    retention_days: int = 7
    maintain: bool = True


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


class InteractiveBrokersConfig(msgspec.Struct, frozen=True):
    """How to reach a gateway or workstation of Interactive Brokers.

    Attributes:
        host, port: Where its API listens; 7497 is a paper workstation's.
        client_id: Our own at the gateway; orders of other ids are not ours. 0 is the person's at the screen.
        account: Which one; "" takes the only one, where that is a paper account: real money has to be named.
        readonly: Whether orders are refused before they are sent.
        timeout_secs: For an answer.
        commission_bound: The most that one contract can cost on one side, 1e-6 dollar.
    """

    host: str = "127.0.0.1"
    port: int = 7497
    client_id: int = 17
    account: str = ""
    readonly: bool = False
    timeout_secs: float = 10.0
    commission_bound: MoneyE6 = MoneyE6(2_000_000)


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
    stops: StopsConfig = StopsConfig()
    options_desk: OptionsDeskConfig = OptionsDeskConfig()
    lake: LakeConfig = LakeConfig()
    ib: InteractiveBrokersConfig = InteractiveBrokersConfig()
    source: str = ""
    explicit_limits: bool = False

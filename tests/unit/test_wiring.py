"""The composition root: what a configuration becomes, and what a new process takes over from the log."""

import asyncio
import dataclasses

import msgspec
import pytest

from holdfast import wiring
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.reserve import RESERVE_BYTES
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.breaker.registry import standard_registry
from holdfast.config import Config, KalshiConfig, LimitsConfig, PathsConfig, key_home
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    ConfigError,
    LogHeld,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.execution.reference import ReferenceInput
from holdfast.venues.kalshi.client import HOSTS
from holdfast.venues.paper.auth import KeyPair
from holdfast.wiring import BROKER_BREAKER, CREDENTIAL, Desk, open_desk, open_options_desk


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """Two private keys."""
    return [str(KeyPair().write_pem(tmp_path_factory.mktemp("keys"))) for _ in range(2)]


@pytest.fixture
def config(pems):
    return Config(
        kalshi=KalshiConfig(key_id="key-1", pem=pems[0], base_url="http://127.0.0.1:9/trade-api/v2")
    )


def other_key(config: Config, **changes: str) -> Config:
    return msgspec.structs.replace(config, kalshi=msgspec.structs.replace(config.kalshi, **changes))


def with_desk(config, log, act=lambda desk: None, **options):
    """Open a desk, let *act* have it, close it; what *act* returned."""

    async def run():
        desk = open_desk(config, audit_dir=log, **options)
        try:
            return act(desk)
        finally:
            await desk.close()

    return asyncio.run(run())


def configs(log):
    return [record.details for record in read_records(log) if record.type == "CONFIG"]


@pytest.mark.contract("A21")
def test_paper_and_live_differ_in_values_alone(config, tmp_path):
    """A venue's time makes the clock the venue's, without it the machine's; the wired classes are the same."""

    def kinds(desk: Desk):
        parts = {field.name: type(getattr(desk, field.name)) for field in dataclasses.fields(desk)}
        return (
            desk.clock.source,
            {name: kind for name, kind in parts.items() if name != "clock"},
            type(desk.clock),
        )

    live, live_parts, live_clock = with_desk(config, tmp_path / "live", kinds)
    paper, paper_parts, paper_clock = with_desk(config, tmp_path / "paper", kinds, market_ns=5, seed=1)
    assert (live, live_clock) == ("system", SystemClock)
    assert (paper, paper_clock) == ("venue:kalshi", ManualClock)
    assert live_parts == paper_parts


def test_limits_and_user_come_from_the_configuration(config, tmp_path):
    """Every limit of the configuration is the gate's, and the member id stands in every record."""
    limits = LimitsConfig(
        max_position_size=QtyE2(700),
        max_order_value=MoneyE6(8_000_000),
        max_daily_loss=MoneyE6(9_000_000),
        max_mark_age_secs=11,
    )
    chosen = other_key(msgspec.structs.replace(config, limits=limits), member_id="member-1")
    found = with_desk(chosen, tmp_path / "log", lambda desk: (desk.trader.gate.limits, desk.audit.user))
    assert found[1] == "member-1"
    assert (found[0].max_position, found[0].max_order_value, found[0].max_daily_loss) == (
        700,
        8_000_000,
        9_000_000,
    )
    assert found[0].max_exit_value == 80_000_000
    assert found[0].max_mark_age_secs == 11
    assert {record.user for record in read_records(tmp_path / "log")} <= {"member-1", ""}


@pytest.mark.parametrize("env", ["demo", "prod"])
def test_the_environment_chooses_the_host(config, tmp_path, env):
    """Without an address the vendor's own host of the environment is used, by REST and stream."""
    chosen = other_key(config, env=env, base_url="")
    client = with_desk(chosen, tmp_path / "log", lambda desk: desk.client)
    assert (client.base_url, client.ws_url) == HOSTS[env]


@pytest.mark.contract("A5")
def test_the_desks_breaker_stands_in_its_registry(config, tmp_path):
    """The client's breaker is the registry's `kalshi_api`, beside the other three."""

    def look(desk: Desk):
        assert desk.client.breaker is desk.breakers.get("kalshi_api")
        return set(desk.breakers.get_all_stats())

    assert with_desk(config, tmp_path / "log", look) == {
        "kalshi_api",
        "polymarket_api",
        "sportradar_api",
        "gemini_api",
    }


def test_a_held_log_is_refused_before_anything_else(config, tmp_path):
    """A desk on another's log raises LogHeld and writes nothing."""
    log = WriteAheadLog(tmp_path / "log", clock=SystemClock())
    log.open()
    try:
        with pytest.raises(LogHeld):
            open_desk(config, audit_dir=tmp_path / "log")
    finally:
        log.close()
    assert not configs(tmp_path / "log")


def test_a_bad_key_file_leaves_no_log_behind(config, tmp_path):
    """A private key that cannot be read is ConfigError; the log was not even made."""
    with pytest.raises(ConfigError, match=r"none\.pem"):
        open_desk(other_key(config, pem=str(tmp_path / "none.pem")), audit_dir=tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("latched", [True, False])
def test_an_options_desk_that_reads_no_chain_lets_go_of_its_log(config, tmp_path, latched):
    """Whether its breaker is latched or nobody listens: the error says so, and the log is free for the next one."""
    keys = KeyHome(key_home())
    with WriteAheadLog(tmp_path / "log", clock=SystemClock(), keys=keys) as log:
        log.open()
        if latched:
            breakers = standard_registry(clock=SystemClock(), audit=AuditLogger(log))
            breakers.get_or_create(BROKER_BREAKER, CircuitBreakerConfig()).latch("refused us")
    opening = open_options_desk(
        config,
        audit_dir=tmp_path / "log",
        url="ws://127.0.0.1:9/",
        token="t",  # noqa: S106  nobody's
        symbols=("SPY",),
        reference=ReferenceInput.by_hand(iv_rank="20", vix="16"),
    )
    with pytest.raises(CircuitBreakerOpenError if latched else VenueUnreachable):
        asyncio.run(opening)
    with WriteAheadLog(tmp_path / "log", clock=SystemClock(), keys=keys) as again:
        again.open()


# -- what a person has to release ----------------------------------------------------------------------------


def states(desk: Desk):
    return desk.client.breaker.get_state()


@pytest.mark.contract("A4")
def test_a_latch_holds_for_its_credential_through_a_restart(config, pems, tmp_path):
    """The same key stays latched after a restart; another private key or key id starts closed, for good."""
    log = tmp_path / "log"
    with_desk(config, log, lambda desk: desk.client.breaker.latch("GET portfolio/balance: 401", "kalshi"))
    assert with_desk(config, log, states) == "latched"
    assert with_desk(other_key(config, pem=pems[1]), log, states) == "closed"
    assert with_desk(other_key(config, pem=pems[1]), log, states) == "closed"
    assert with_desk(other_key(config, key_id="key-2"), log, states) == "closed"
    assert verify(log).ok


def test_a_reset_of_a_latch_lasts(config, tmp_path):
    """What a person released stays released after a restart."""
    log = tmp_path / "log"
    with_desk(config, log, lambda desk: desk.client.breaker.latch("401", "kalshi"))
    with_desk(config, log, lambda desk: desk.client.breaker.reset("anna", "new rights"))
    assert with_desk(config, log, states) == "closed"


def test_what_a_person_forced_open_stays_open_for_every_credential(config, pems, tmp_path):
    """A breaker that a person opened is not closed by changing the key."""
    log = tmp_path / "log"
    with_desk(config, log, lambda desk: desk.client.breaker.force_open("weekend", "anna"))
    assert with_desk(other_key(config, pem=pems[1]), log, states) == "forced_open"


def test_the_credential_is_recorded_once_and_tells_nothing(config, pems, tmp_path):
    """One CONFIG record per change of credential holds a fingerprint: no key, no path."""
    log = tmp_path / "log"
    for chosen in (config, config, other_key(config, pem=pems[1]), config):
        with_desk(chosen, log)
    prints = [details[CREDENTIAL] for details in configs(log)]
    assert len(prints) == 3
    assert prints[0] == prints[2] != prints[1]
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)


def test_last_words_go_to_the_configured_volume_or_beside_the_log(config, tmp_path):
    """A desk has its reserve filled at once: under `[paths] reserve`, named after the log, or in the log's `run/`."""
    with_desk(config, tmp_path / "a")
    assert (tmp_path / "a" / "run" / "reserve").stat().st_size == RESERVE_BYTES
    elsewhere = tmp_path / "other"
    moved = msgspec.structs.replace(config, paths=PathsConfig(reserve=str(elsewhere)))
    log_id = with_desk(moved, tmp_path / "b", lambda desk: desk.audit.wal.log_id)
    assert (elsewhere / f"{log_id}.reserve").stat().st_size == RESERVE_BYTES
    assert not (tmp_path / "b" / "run" / "reserve").exists()
    assert verify(tmp_path / "b").ok


@pytest.mark.parametrize(("code", "status"), [("unauthorized", 401), ("version", 0)])
def test_only_what_is_not_there_cannot_be_owned(code, status):
    """An index is passed over; a broker that refuses us for another reason is no index."""

    class Broker:
        async def instrument(self, symbol):
            if symbol == "SPY":
                return symbol
            raise VenueRejected(symbol, code="not_found" if symbol == "SPX" else code, status=status)

    assert asyncio.run(wiring._ownable(Broker(), ["SPX", "SPY"])) == ["SPY"]
    with pytest.raises(VenueRejected):
        asyncio.run(wiring._ownable(Broker(), ["SPY", "QQQ"]))

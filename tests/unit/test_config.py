"""holdfast.toml is read whole, and every problem is named with its line."""

from pathlib import Path

import pytest

import holdfast.config
from holdfast.config import (
    Config,
    InteractiveBrokersConfig,
    LakeConfig,
    OptionsDeskConfig,
    StopsConfig,
    find_recording,
    load_config,
)
from holdfast.config.keys import KEYS, TABLES
from holdfast.core.errors import ConfigError
from holdfast.core.money import MoneyE6
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.stop_rules import TrailingStopConfig


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "holdfast.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_gives_the_defaults_of_the_contract(tmp_path, monkeypatch):
    """Without a file the limits are 100 contracts, $500 an order and $1,000 a day."""
    monkeypatch.chdir(tmp_path)
    config = load_config(environ={})
    assert config == Config()
    assert (config.limits.max_position_size, config.limits.max_order_value, config.limits.max_daily_loss) == (
        10_000,
        500_000_000,
        1_000_000_000,
    )
    assert not config.explicit_limits


def test_a_file_sets_limits_and_paths(tmp_path):
    """Amounts are read exactly, as text or whole numbers."""
    path = write(
        tmp_path, '[paths]\naudit = "trail"\n[limits]\nmax_order_value = "250.50"\nmax_position_size = 40\n'
    )
    config = load_config(path, environ={})
    assert config.paths.audit == "trail"
    assert config.limits.max_order_value == 250_500_000
    assert config.limits.max_position_size == 4_000
    assert config.explicit_limits


def test_every_problem_is_reported_at_once_with_its_line(tmp_path):
    """Three bad lines give one error that names all three lines and a suggestion."""
    path = write(
        tmp_path,
        '[limits]\nmax_order_value = "one hundred"\nmax_daily_los = "5"\n\n[venue.kalshi]\nenv = "live"\n',
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    text = str(caught.value)
    assert "3 problems" in text
    assert "line 2    limits.max_order_value" in text
    assert "line 3    limits.max_daily_los" in text
    assert "Did you mean limits.max_daily_loss?" in text
    assert "line 6    venue.kalshi.env" in text


@pytest.mark.parametrize("value", ["0.5", "-1", '"-1"', "nan", "true", '"1e3"', '"0"'])
def test_a_limit_that_is_no_positive_exact_amount_is_refused(tmp_path, value):
    """Floats, signs, exponents, NaN and zero never become a limit."""
    path = write(tmp_path, f"[limits]\nmax_daily_loss = {value}\n")
    with pytest.raises(ConfigError, match="max_daily_loss"):
        load_config(path, environ={})


def test_the_environment_wins_and_is_named_when_wrong(tmp_path):
    """A key and a host from the environment replace the file's; a wrong value names its variable."""
    path = write(tmp_path, '[venue.kalshi]\nkey_id = "a"\n')
    host = "http://127.0.0.1:9/trade-api/v2"
    config = load_config(path, environ={"KALSHI_API_KEY_ID": "b", "KALSHI_BASE_URL": host})
    assert (config.kalshi.key_id, config.kalshi.base_url) == ("b", host)
    with pytest.raises(ConfigError, match=r"\$KALSHI_ENV"):
        load_config(path, environ={"KALSHI_ENV": "production"})


def test_prod_must_be_typed(tmp_path):
    """The demo exchange is the default; production is used only when named."""
    assert load_config(write(tmp_path, ""), environ={}).kalshi.env == "demo"
    assert load_config(write(tmp_path, ""), environ={"KALSHI_ENV": "prod"}).kalshi.env == "prod"


def test_a_missing_or_broken_file_is_named(tmp_path):
    """A path that was asked for must exist and be TOML."""
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(write(tmp_path, "limits = ["), environ={})


def test_a_recording_is_found_here_or_in_the_data_folder(tmp_path, monkeypatch):
    """A path that exists wins; else the folder that HOLDFAST_DATA names is searched; else the path stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "games").mkdir(parents=True)
    environ = {"HOLDFAST_DATA": str(tmp_path / "data")}
    assert find_recording(Path("games"), environ=environ) == tmp_path / "data" / "games"
    (tmp_path / "games").mkdir()
    assert find_recording(Path("games"), environ=environ) == Path("games")
    assert find_recording(Path("none"), environ=environ) == Path("none")


WHOLE = """
[limits]
max_order_value = "250"

[limits.options]
max_portfolio_delta = 75.5
max_portfolio_gamma = "12"
max_single_position_pct = 0.03
max_per_symbol_delta = 30
max_correlated_pct = "0.1"
total_exposure_cap = "20000"
max_greeks_age_secs = 60
max_positions = 4
concentration_base = "position_total"
no_entry_before_close_secs = 0
no_entry_before_expiry_secs = 1800
allow_short_on_expiry_day = true

[limits.options.correlated_groups]
SPY = "us"
QQQ = "us"

[stops]
activation_pct = 5
trailing_pct = "3"
min_move_pct = 1.0
hard_floor_pct = 40
confirmations = 3
max_quote_age_secs = 90

[desk.options]
symbols = ["SPY", "GOOG"]
contracts = 2
max_positions = 3
max_per_symbol = 1
entry_secs = 600
monitor_secs = 15
exit_secs = 30
equity = "50000"
iv_rank = 60.5
vix = "16"
layers = ["stops", "breaker"]
rate = "0.05"

[desk.options.dividends]
SPY = "0.013"

[lake]
commit_rows = 100
commit_secs = 0.5
memory_mb = 300
retention_days = 0
maintain = false

[venue.ib]
host = "::1"
port = 4002
client_id = 5
account = "DU1"
readonly = true
timeout_secs = 5
commission_bound = "1.25"
"""


@pytest.mark.contract("B5", "B13", "B15")
def test_the_options_desk_its_limits_its_lake_and_its_broker_are_read(tmp_path):
    """Every section of the options desk is read exactly and becomes the component's own configuration."""
    config = load_config(write(tmp_path, WHOLE), environ={})
    limits = config.limits.risk_limits(portfolio=True)
    assert limits.portfolio == RiskLimitsConfig(
        75.5,
        12,
        0.03,
        30,
        0.1,
        20_000,
        correlated_groups={"SPY": "us", "QQQ": "us"},
        max_greeks_age_secs=60,
        max_positions=4,
        concentration_base="position_total",
    )
    assert (limits.no_entry_before_close_secs, limits.no_entry_before_expiry_secs) == (0, 1800)
    assert limits.allow_short_on_expiry_day
    assert limits.max_order_value == 250_000_000
    assert config.limits.risk_limits().portfolio is None
    assert config.stops == StopsConfig(TrailingStopConfig(5, 3, 1, hard_floor_pct=40), 3, 90)
    assert config.options_desk == OptionsDeskConfig(
        ("SPY", "GOOG"),
        2,
        3,
        1,
        600,
        15,
        30,
        MoneyE6(50_000_000_000),
        "60.5",
        "16",
        "",
        "0.05",
        {"SPY": "0.013"},
        ("breaker", "stops"),
    )
    assert config.lake == LakeConfig(100, 0.5, 300, retention_days=0, maintain=False)
    assert config.ib == InteractiveBrokersConfig("::1", 4002, 5, "DU1", True, 5.0, MoneyE6(1_250_000))


@pytest.mark.contract("B2", "B5", "B11", "B13")
def test_without_a_file_the_options_desk_has_the_contracts_defaults():
    """50 / 10 / 0.02 / 20 / 0.05 without a cap; 2 / 1.5 / 0.5; SPY, QQQ, IWM, one contract, 3600 / 30 / 60 s."""
    config = Config()
    assert config.limits.options.portfolio == RiskLimitsConfig()
    assert config.limits.risk_limits(portfolio=True) == RiskLimits(portfolio=RiskLimitsConfig())
    assert config.stops.trailing_stop == TrailingStopConfig()
    assert config.stops.confirmations == 2
    desk = config.options_desk
    assert (desk.symbols, desk.contracts, desk.max_positions) == (("SPY", "QQQ", "IWM"), 1, 5)
    assert (desk.entry_secs, desk.monitor_secs, desk.exit_secs) == (3600, 30, 60)
    assert (config.paths.lake, config.ib.port) == ("data/lake", 7497)


WRONG = [
    ("limits.options", "max_single_position_pct = 2", "a ratio, despite its name: 2 % is 0.02"),
    ("limits.options", "max_correlated_pct = -0.1", "expected a number from 0 to 1"),
    ("limits.options", "max_portfolio_delta = -50", "held against both signs"),
    ("limits.options", "max_portfolio_gamma = true", "is a bool"),
    ("limits.options", "max_per_symbol_delta = nan", "not a finite number"),
    ("limits.options", 'max_portfolio_delta = "many"', "not a plain decimal number"),
    ("limits.options", "total_exposure_cap = 0.5", "expected an amount in quotes"),
    ("limits.options", "max_positions = -1", "expected a whole number of at least 0"),
    ("limits.options", "max_portfolio_dleta = 50", "Did you mean limits.options.max_portfolio_delta?"),
    ("limits.options", 'concentration_base = "cash"', 'expected "equity" or "position_total"'),
    ("limits.options", "allow_short_on_expiry_day = 1", "expected true or false"),
    ("limits.options", "correlated_groups = { SPY = 1 }", "expected text in quotes"),
    ("stops", "trailing_pct = 0", "a percentage above zero"),
    ("desk.options", 'symbols = ["spy"]', "not in capital letters"),
    ("desk.options", 'symbols = ["SPY", "SPY"]', "named twice"),
    ("desk.options", 'layers = ["limits"]', "one by one"),
    ("desk.options", "iv_rank = 101", "expected a number from 0 to 100"),
    ("desk.options", "rate = 5", "5 % is 0.05"),
    ("desk.options.dividends", "SPY = 1.3", "5 % is 0.05"),
    ("lake", "commit_secs = 0", "a number of seconds above zero"),
    ("lake", "retention_days = 1.5", "a whole number from 0 to 36500"),
    ("venue.ib", "port = 70000", "from 1 to 65535"),
    ("venue.ib", "client_id = 0", "from 1 to"),
    ("venue.ib", "commission_bound = 2.0", "expected an amount in quotes"),
]


@pytest.mark.contract("B5")
@pytest.mark.parametrize(("table", "line", "said"), WRONG, ids=[row[1] for row in WRONG])
def test_a_wrong_setting_is_named_with_its_line_and_what_is_expected(tmp_path, table, line, said):
    """Wrong types, signs, percent for ratio, unknown keys and groups: line three, and words that help."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, f"# ours\n[{table}]\n{line}\n"), environ={})
    assert "line 3 " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[stops]\nactivation_pct = 1\n", "trailing_pct 1.5 must be below activation_pct 1"),
        ("[desk.options]\nvix = 16\n", "iv_rank and vix are given together"),
        ('[desk.options]\nvix = 16\niv_rank = 60\nreference = "r.toml"\n', "not both"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(tmp_path, text, said):
    """Each is fine alone; together they are refused in one sentence."""
    with pytest.raises(ConfigError, match="1 problem") as caught:
        load_config(write(tmp_path, text), environ={})
    assert said in str(caught.value)


def test_every_setting_stands_in_the_reference():
    """The reference page, the docstring of holdfast.config, names every key under its table's header."""
    page = str(holdfast.config.__doc__)
    for key in [*KEYS, *TABLES]:
        table, _, name = key.rpartition(".")
        assert f"[{table}]" in page or f"[{key}]" in page, key
        assert name in page, key

"""holdfast.toml is read whole, and every problem is named with its line."""

from pathlib import Path

import pytest

from holdfast.config import Config, find_recording, load_config
from holdfast.core.errors import ConfigError


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

"""`holdfast paper` refuses what it would otherwise ignore without a word, and leaves other people's folders alone."""

import importlib.util

import pytest

from holdfast.cli.main import main
from holdfast.cli.paper.desk_session import _is_plain
from holdfast.config import load_config

BEGUN = '{"seed":1,"tape":null,"symbols":["SPY"],"layers":["breaker"],"full_story":false,"day":0}'


@pytest.mark.parametrize("flag", ["--symbols", "--day", "--market-seconds", "--layers", "--vix", "--lake"])
def test_flags_of_the_options_desk_need_it(tmp_path, capsys, monkeypatch, flag):
    """Each ends with exit code 1 on event contracts, and begins nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(["paper", flag, "20230803" if flag == "--day" else "1"]) == 1
    assert f"{flag} belongs to --desk options" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("desk", ["kalshi", "options"])
def test_a_folder_of_other_things_is_no_run(tmp_path, capsys, desk):
    """A checkout named by mistake stays as it was."""
    (tmp_path / "README.md").touch()
    assert main(["paper", "--desk", desk, "--dir", str(tmp_path)]) == 1
    assert "holds other things than a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("flag", "value", "had"),
    [("--layers", "breaker,stops", "breaker"), ("--symbols", "QQQ", "SPY"), ("--day", "20230803", "none")],
)
def test_a_run_taken_up_again_stays_what_it_was(tmp_path, capsys, flag, value, had):
    """Other layers, symbols or days than it was begun with are refused by name."""
    (tmp_path / "run.json").write_text(BEGUN)
    assert main(["paper", "--desk", "options", "--dir", str(tmp_path), flag, value]) == 1
    assert f"{flag} {value}: the run in" in (said := capsys.readouterr().err)
    assert f"begun with {had}" in said


KALSHI = '{"seed":1,"tape":null,"full_story":true}'


@pytest.mark.parametrize(
    ("begun", "of", "asked"), [(BEGUN, "options", "kalshi"), (KALSHI, "kalshi", "options")]
)
def test_a_run_is_taken_up_by_its_own_desk_alone(tmp_path, capsys, begun, of, asked):
    """Another desk would book what it does not know as gone: it is refused and nothing of the run changes."""
    (tmp_path / "audit").mkdir()
    (tmp_path / "run.json").write_text(begun)
    assert main(["paper", "--desk", asked, "--dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"was begun with --desk {of}" in said
    assert f"hint: take it up with --desk {of}" in said
    assert (tmp_path / "run.json").read_text() == begun
    assert not any((tmp_path / "audit").iterdir())


def test_a_word_that_is_refused_leaves_a_run_of_several_days_what_it_was(tmp_path, capsys):
    """Its days have logs of their own; what it was begun with is kept, so that it can be taken up."""
    (tmp_path / "run.json").write_text(BEGUN)
    (tmp_path / "20151223" / "audit").mkdir(parents=True)
    assert main(["paper", "--desk", "options", "--dir", str(tmp_path), "--symbols", "QQQ"]) == 1
    assert "--symbols QQQ" in capsys.readouterr().err
    assert (tmp_path / "run.json").read_text() == BEGUN


def test_a_day_without_a_tape_is_refused(tmp_path, capsys, monkeypatch):
    """A seeded chain has its own day."""
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "--desk", "options", "--day", "20230803"]) == 1
    assert "--day is of a tape" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "plain"),
    [
        ("[limits.options]\nmax_per_symbol_delta = 5", False),
        ("[stops]\nhard_floor_pct = 50", False),
        ("[desk.options]\nmax_positions = 2", False),
        ('[paths]\nstate = "runs"', True),
    ],
)
def test_only_the_rules_as_they_come_are_held_to_the_story(tmp_path, setting, plain):
    """Limits, stops or a schedule of one's own may well leave a chapter out; where files lie does not."""
    (tmp_path / "own.toml").write_text(setting)
    assert _is_plain(load_config(tmp_path / "own.toml")) is plain


def test_a_recording_without_what_computes_greeks_begins_nothing(tmp_path, capsys, monkeypatch):
    """Without QuantLib `--tape` is refused with what to install, before a run's directory or log is there."""
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "QuantLib" else find(name))
    assert main(["paper", "--desk", "options", "--tape", "options"]) == 1
    said = capsys.readouterr().err
    assert "need QuantLib" in said
    assert "pip install -e '.[options]'" in said
    assert not any(tmp_path.iterdir())

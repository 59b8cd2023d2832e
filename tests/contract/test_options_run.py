"""`holdfast paper --desk options` shows what it promises, twice the same, layer by layer, and says so when it cannot."""

import json
from pathlib import Path

import pytest
from support.data import require

from holdfast.audit.query import read_records
from holdfast.cli.main import main

pytestmark = pytest.mark.slow
BRIEF = ["--market-seconds", "3900", "--symbols", "SPY", "--lake", "none"]


def paper(tmp_path, capsys, monkeypatch, *arguments):
    """The exit code and the summary of a run in this process."""
    monkeypatch.chdir(tmp_path)
    code = main(["paper", "--desk", "options", "--json", *arguments])
    out = capsys.readouterr().out.strip().splitlines()
    return code, json.loads(out[-1])


@pytest.mark.contract("B6", "B7", "B11", "B12", "B13", "X6")
def test_a_day_keeps_its_promises(tmp_path, capsys, monkeypatch):
    """Every chapter is proven from the journal, the books are the broker's, every event stands in the lake once."""
    code, day = paper(tmp_path, capsys, monkeypatch)
    assert code == 0, day
    assert day["chapters_missing"] == []
    assert day["exchange_matches"]
    assert day["journal"]["verify_ok"]
    assert day["tampered"]["found"]
    assert day["lake"]["rows"]["risk_events"] == day["lake"]["expected"] > 50
    assert [step["to"] for step in day["breaker"]] == ["open", "half_open", "closed"]
    assert {"add", "activate", "update", "trigger", "remove"} <= set(day["stops"])
    assert day["contracts_ended"]["expiration"] >= 1
    assert day["rejections"]["portfolio_gamma"] >= 1
    assert day["warnings"]["portfolio_delta"] >= 1
    assert len(day["greeks"]) > 20
    assert day["pnl_e6"] is not None


@pytest.mark.contract("B13")
@pytest.mark.invariant("I12")
def test_equal_seeds_decide_the_same_at_any_speed(tmp_path, capsys, monkeypatch):
    """The same chain at another pace gives the same decisions; another seed gives others."""
    _, first = paper(tmp_path, capsys, monkeypatch, *BRIEF)
    _, slower = paper(tmp_path, capsys, monkeypatch, *BRIEF, "--speed", "2000")
    assert slower["decisions_sha256"] == first["decisions_sha256"]
    assert first["decisions"] >= 2
    _, other = paper(tmp_path, capsys, monkeypatch, *BRIEF, "--seed", "2")
    assert other["decisions_sha256"] != first["decisions_sha256"]


@pytest.mark.contract("B13")
def test_layers_are_rolled_out_one_by_one(tmp_path, capsys, monkeypatch):
    """Breaker alone has no stop and no portfolio limit; with stops there are stops, and still no limit."""
    code, breaker = paper(tmp_path, capsys, monkeypatch, *BRIEF, "--layers", "breaker")
    assert code == 0
    assert not breaker["stops"]
    assert breaker["orders"]["filled"] > 0
    assert not {"portfolio_gamma", "concentration", "symbol_delta"} & set(breaker["rejections"])
    _, stops = paper(tmp_path, capsys, monkeypatch, *BRIEF, "--layers", "breaker,stops")
    assert stops["stops"]["add"] > 0


def test_a_run_is_taken_up_again_where_it_was(tmp_path, capsys, monkeypatch):
    """The second half of a day keeps the positions, the stops and the names of the first."""
    half = ["--dir", "run", "--symbols", "SPY", "--lake", "none"]
    _, first = paper(tmp_path, capsys, monkeypatch, *half, "--market-seconds", "1200")
    code, second = paper(tmp_path, capsys, monkeypatch, *half, "--market-seconds", "5000")
    assert code == 0, second
    assert second["exchange_matches"]
    assert second["journal"]["verify_ok"]
    records = list(read_records(tmp_path / "run" / "audit"))
    orders = [r.details["client_order_id"] for r in records if r.type == "ORDER"]
    assert len(orders) == len(set(orders)) >= second["orders"]["submitted"] > first["orders"]["submitted"]
    adds = [r.details["execution_id"] for r in records if r.details.get("action") == "ADD"]
    assert len(adds) == len(set(adds))


def _references(directory):
    """What was declared in the journal of a run, each time that it was declared otherwise."""
    told = [
        r.details for r in read_records(Path(directory) / "audit") if "options.reference.vix" in r.details
    ]
    return {json.dumps(facts, sort_keys=True) for facts in told}


def test_what_was_declared_when_a_run_began_stands_when_it_is_taken_up(tmp_path, capsys, monkeypatch):
    """IV rank and VIX as given are those of the second half, too."""
    half = ["--dir", "run", "--symbols", "SPY", "--lake", "none", "--market-seconds"]
    paper(tmp_path, capsys, monkeypatch, *half, "300", "--iv-rank", "31", "--vix", "21")
    _, day = paper(tmp_path, capsys, monkeypatch, "--dir", "run", "--lake", "none", "--market-seconds", "600")
    assert set(day["rejections"]) == {"iv_rank"}
    (facts,) = _references("run")
    assert '"options.reference.vix": "21.00"' in facts


def test_entries_without_a_reference_are_all_refused(tmp_path, capsys, monkeypatch):
    """Nobody declares IV rank and VIX: reference_unknown for every symbol, and no order."""
    code, day = paper(tmp_path, capsys, monkeypatch, *BRIEF, "--reference", "none", "--market-seconds", "600")
    assert code == 0
    assert set(day["rejections"]) == {"reference_unknown"}
    assert day["orders"]["submitted"] == 0


@pytest.mark.data
@pytest.mark.contract("B13")
@pytest.mark.parametrize(("date", "root"), [("20151223", "GOOG"), ("20210105", "SPXW"), ("20230803", "SPY")])
def test_every_recorded_underlying_trades(tmp_path, capsys, monkeypatch, date, root):
    """Under the limits as they come contracts of each are bought and sold, stops move and trigger, exits fill."""
    monkeypatch.setenv("HOLDFAST_DATA", str(require()))
    code, day = paper(tmp_path, capsys, monkeypatch, "--tape", "options", "--day", date, "--lake", "none")
    assert code == 0
    assert day["exchange_matches"]
    assert {"add", "activate", "trigger", "remove"} <= set(day["stops"])
    records = list(read_records(next((tmp_path / "run").iterdir()) / "audit"))
    sold = [r.details["ticker"] for r in records if r.type == "TRADE" and r.details["side"] == "ask"]
    assert any(ticker.startswith(root) for ticker in sold)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layers", "limits"], "without 'breaker'"),
        (["--layers", "chaos"], "'chaos'"),
        (["--symbols", "TSLA"], "TSLA"),
        (["--reference", "nowhere.toml"], "cannot be read"),
        (["--reference", "x.toml", "--vix", "20"], "exclude each other"),
        (["--iv-rank", "120"], "outside 0 to 100"),
        (["--vix", "calm"], "not a plain decimal"),
        (["--strategy", "a:B"], "event contracts"),
        (["--tape", "no-such-folder"], "no-such-folder"),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, monkeypatch, arguments, said):
    """Each mistake on the command line ends with exit code 1 and a message that names it."""
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "--desk", "options", "--json", *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--symbols", "SPY,AAPL", "--tape"], "no contracts on AAPL"),
        (["--symbols", "SPY", "--day", "20210104", "--tape"], "no contracts on SPY are recorded on 20210104"),
        (["--day", "20200101", "--tape"], "nothing is recorded on 20200101"),
        (["--lake", "lake-file/below"], "lake-file"),
    ],
)
def test_what_cannot_be_traded_or_kept_is_said_before_the_day(tmp_path, capsys, monkeypatch, arguments, said):
    """An underlying without contracts and a lake that takes nothing end the run with 1 before anything is traded."""
    if "--tape" in arguments:
        arguments = [*arguments, str(require("options"))]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake-file").write_text("no folder")
    code = main(["paper", "--desk", "options", *arguments])
    told = capsys.readouterr().err
    assert code == 1
    assert said in told
    assert "--tape" not in arguments or "20151223 GOOG" in told
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.mark.contract("B13")
def test_the_market_decides_what_another_seed_shows(tmp_path, capsys, monkeypatch):
    """A whole day of another seed keeps its promise without every chapter of the known one."""
    code, day = paper(tmp_path, capsys, monkeypatch, "--seed", "3", "--lake", "none")
    assert (code, day["chapters_missing"]) == (0, [])


@pytest.mark.data
@pytest.mark.contract("B13")
def test_a_recording_is_played_day_by_day_and_taken_up_again(tmp_path, capsys, monkeypatch):
    """Each day that has the underlying has a journal of its own; the end names them all, and `--dir` goes on."""
    monkeypatch.setenv("HOLDFAST_DATA", str(require()))
    monkeypatch.chdir(tmp_path)
    tape = ["paper", "--desk", "options", "--dir", "run", "--lake", "none"]
    begin = [*tape, "--tape", "options", "--symbols", "SPX"]
    assert main([*begin, "--market-seconds", "4000"]) == 0
    out = capsys.readouterr().out
    assert out.count("SUMMARY") == 3
    days = out[out.index("RECORDED DAYS") :]
    assert all(f"  2021010{day}   " in days for day in (4, 5, 6))
    assert main([*tape, "--market-seconds", "5000", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.strip().splitlines()]
    assert [one["directory"] for one in again] == [f"run/2021010{day}" for day in (4, 5, 6)]
    assert all(one["exchange_matches"] and one["journal"]["verify_ok"] for one in again)
    assert len(_references("run/20210105")) == 1

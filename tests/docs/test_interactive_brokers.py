"""docs/interactive-brokers.md is followed literally, against a gateway in memory."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.ib import OPENED_NS, gateway
from support.pages import commands, page, pattern

from holdfast import wiring
from holdfast.config import load_config
from holdfast.core.clock import ManualClock
from holdfast.core.money import parse_money
from holdfast.testing.ib import FakeIB
from holdfast.venues.ib import adapter, check, library
from holdfast.venues.ib.errors import CODES

PAGE = page("interactive-brokers.md")


def block(language: str, nth: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[nth]


@pytest.fixture
def at():
    made = gateway(ManualClock(OPENED_NS))
    made.holdings[made.number_of("SPY")] = 100
    return made


@pytest.mark.contract("B15")
def test_the_first_connection_prints_what_the_page_says(at, capsys):
    """The check connects, reads, orders nothing, and prints the page's lines."""
    (command,) = commands(PAGE)
    words = shlex.split(command.text)
    assert words[:3] == ["python", "-m", "holdfast.venues.ib.check"]
    at_ten = ManualClock(OPENED_NS)
    venue = adapter.IBVenue
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "IBVenue", lambda *args, **options: venue(*args, clock=at_ten, **options))
        assert check.main(words[3:], ib=FakeIB(at)) == 0
    told = "".join(f"{' '.join(line.split())}\n" for line in capsys.readouterr().out.splitlines())
    assert re.fullmatch(pattern(command.printed), told)
    assert not {"placeOrder", "cancelOrder", "reqOpenOrders"} & set(at.heard)


def test_a_gateway_that_is_not_there_ends_the_check_with_5(at, capsys):
    """Without a gateway the check says so with a hint and exits with 5; with a wrong account it exits with 1."""
    assert check.main(["--account", "U999"], ib=FakeIB(at)) == 1
    assert "DU1234567" in capsys.readouterr().err
    at.stop()
    assert check.main([], ib=FakeIB(at)) == 5
    assert "hint:" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "0", "paper"])
def test_a_port_that_is_none_is_named(at, capsys, port):
    """It ends as a wrong argument, and no connection is tried."""
    with pytest.raises(SystemExit):
        check.main(["--port", port], ib=FakeIB(at))
    assert f"'{port}' is no port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--client-id", "0"], "'0' is no client id"),
        (["--client-id", "-3"], "'-3' is no client id"),
        (["--timeout", "0"], "'0' is no time to wait"),
        (["--timeout", "nan"], "'nan' is no time to wait"),
        (["--timeout", "soon"], "'soon' is no time to wait"),
    ],
)
def test_what_the_gateway_cannot_be_asked_with_is_a_usage_error(at, capsys, words, named):
    """The person's client id would take over the person's orders, and no time limit would wait for ever: neither connects."""
    with pytest.raises(SystemExit) as ended:
        check.main(words, ib=FakeIB(at))
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
    assert not at.heard


def test_the_check_says_that_an_account_is_real_money(at, capsys):
    """A live account is shown, without any order, under its name."""
    at.accounts = ["U7654321"]
    check.main([], ib=FakeIB(at))
    assert "account U7654321, real money\n" in capsys.readouterr().out


@pytest.mark.contract("B15")
def test_the_first_order_goes_as_the_page_says(at, capsys, monkeypatch, tmp_path):
    """The program rests one order, lists it, cancels it; run again it sends nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    Path("holdfast.toml").write_text(block("toml"), encoding="utf-8")
    Path("logs").mkdir()
    at.holdings.clear()
    monkeypatch.setattr(wiring, "SystemClock", lambda: at.clock)
    monkeypatch.setattr(adapter, "prepared", lambda _ib: library.prepared(FakeIB(at)))
    program = compile(block("python"), "interactive-brokers.md", "exec")
    exec(program, {})  # noqa: S102  the page's own program
    assert capsys.readouterr().out == block("text")
    assert [order.totalQuantity for order in at.arrived] == [1.0]
    assert [leg.action for leg in at.order_of(at.arrived[0].orderRef).contract.comboLegs] == ["BUY", "SELL"]
    exec(program, {})  # noqa: S102  as above
    assert len(at.arrived) == 1


@pytest.mark.contract("B15")
@pytest.mark.parametrize(
    ("account", "named"),
    [
        ("U7654321", "has not the account 'DU1234567', but U7654321"),
        ("", "nothing listens there\nhint: start the gateway"),
    ],
)
def test_the_first_order_says_why_there_is_none(at, monkeypatch, tmp_path, account, named):
    """A gateway of another account, and none at all, end the page's program by name, and nothing is ordered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    Path("holdfast.toml").write_text(block("toml"), encoding="utf-8")
    Path("logs").mkdir()
    at.accounts, at.is_running = [account], bool(account)
    monkeypatch.setattr(wiring, "SystemClock", lambda: at.clock)
    monkeypatch.setattr(adapter, "prepared", lambda _ib: library.prepared(FakeIB(at)))
    with pytest.raises(SystemExit) as ended:
        exec(compile(block("python"), "interactive-brokers.md", "exec"), {})  # noqa: S102  the page's own program
    assert named in ended.value.code
    assert not at.arrived


def test_the_configuration_of_the_page_is_read(tmp_path):
    """The page's configuration loads and means what it says."""
    path = tmp_path / "holdfast.toml"
    path.write_text(block("toml"), encoding="utf-8")
    config = load_config(path)
    assert (config.ib.host, config.ib.port, config.ib.client_id) == ("127.0.0.1", 7497, 17)
    assert (config.ib.account, config.ib.readonly) == ("DU1234567", False)
    assert config.ib.commission_bound == parse_money("2.00")


def test_every_code_on_the_page_is_in_the_table():
    """What the page says people meet are codes that the adapter knows."""
    rows = re.findall(r"^\| ([\d, ]+?)(?:, \"Read-Only\"| otherwise| and their like)? \|", PAGE, re.MULTILINE)
    codes = {int(code) for row in rows for code in row.split(",") if code.strip()}
    assert len(codes) >= 20
    assert codes <= set(CODES)

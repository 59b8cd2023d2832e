"""What a hurried person types: each slip is answered with what was meant, in a person's words."""

import socket

import pytest
from support.journal import HandmadeLog

from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput
from holdfast.core.signals import read_signal
from holdfast.execution.desk import read_layers
from holdfast.venues.fault_words import read_script

WISH = {"ticker": "KXRAIN", "side": "yes", "count": "5", "price": "0.50"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audit", "verfy", "log"], "unknown verb 'verfy'; did you mean 'verify'?"),
        (["audit", "keys", "shwo", "log"], "unknown verb 'shwo'; did you mean 'show'?"),
        (["audit", "zzz"], "unknown verb 'zzz'; one of: append, cat,"),
        (["lake", "verfiy"], "unknown verb 'verfiy'; did you mean 'verify'?"),
        (["paper", "--desk", "option"], "argument --desk 'option'; did you mean 'options'?"),
        (["paper", "--seed", "x"], "argument --seed: 'x' is not a whole number"),
        (["paper", "--desk", "options", "--day", "monday"], "'monday' is no day such as 20230803"),
    ],
)
def test_wrong_word_is_answered_with_the_right_one(words, said, capsys):
    """A misspelt verb of a verb, a choice and a number are named with what is near or expected; exit code 2."""
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "invalid" not in told


def test_a_day_is_read_with_hyphens_or_without(capsys, tmp_path, monkeypatch):
    """`--day` takes the day as other verbs do, too: what is then missing is the recording."""
    monkeypatch.chdir(tmp_path)
    for day in ("2023-08-03", "20230803"):
        assert main(["paper", "--desk", "options", "--tape", "nowhere", "--day", day]) == 1
        assert "'nowhere' does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": "YES"}, "side 'YES' is none of yes, no"),
        ({"tif": "day"}, "tif 'day' is none of "),
        ({"action": 1}, "action 1 is none of buy, sell"),
    ],
)
def test_a_wrong_word_of_a_signal_is_named_with_the_right_ones(change, said):
    """A signal's word that means nothing is refused with the field and the words it takes."""
    with pytest.raises(BadInput) as refused:
        read_signal(WISH | change)
    assert str(refused.value).startswith(said)


def test_a_layer_and_a_fault_that_do_not_exist_are_named():
    """An unknown layer or scripted fault is called by its name, with those there are, not its form doubted."""
    with pytest.raises(BadInput, match="there is no layer 'brekaer'") as refused:
        read_layers("brekaer,stops")
    assert "breaker, stops, limits" in (refused.value.hint or "")
    with pytest.raises(BadInput, match="there is no scripted fault 'foo'") as refused:
        read_script("10:foo=2", ["drop"], 0)
    assert "drop" in (refused.value.hint or "")
    with pytest.raises(BadInput, match="'foo=2' is not SECONDS:FAULT=COUNT"):
        read_script("foo=2", ["drop"], 0)


def test_a_key_that_is_no_file_is_called_neither(tmp_path, capsys):
    """`--key` with a mistyped path says that it is neither a file nor a key."""
    log = HandmadeLog(tmp_path / "audit")
    log.segment([("NOTE", {})])
    log.head()
    assert main(["audit", "verify", str(tmp_path / "audit"), "--key", "log.vkye"]) == 1
    assert "'log.vkye' is neither a file nor a verifier key" in capsys.readouterr().err


def test_single_records_are_shown_by_their_sequence(tmp_path, capsys):
    """`audit show` prints the records asked for, field by field or as JSON, and names what is not there."""
    log = HandmadeLog(tmp_path / "audit")
    log.segment([("TRADE", {"price": "0.56"}), ("NOTE", {"text": "limits\x1b[2J reviewed"})])
    log.head()
    words = ["audit", "show", str(tmp_path / "audit")]
    assert main([*words, "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "  3  NOTE" in said[0]
    assert said[1] == "    text  limits\\x1b[2J reviewed"
    assert main([*words, "2", "3", "--json"]) == 0
    assert [line[:14] for line in capsys.readouterr().out.splitlines()] == [
        '{"sequence":2,',
        '{"sequence":3,',
    ]
    for missing in ("99", "0"):
        assert main([*words, missing]) == 1
        assert f"no record {missing} in" in capsys.readouterr().err


def test_a_sink_that_is_not_there_comes_with_what_to_do(tmp_path, capsys):
    """`audit anchor` to a directory that nobody made says who makes it, beside its exit code."""
    log = WriteAheadLog(tmp_path / "audit", clock=ManualClock(10**18), keys=KeyHome(tmp_path / "home"))
    log.append("NOTE", {"text": "x"}, user="u")
    log.close()
    assert main(["audit", "anchor", str(tmp_path / "audit"), "--sink", f"file:{tmp_path / 'no'}"]) == 5
    told = capsys.readouterr()
    assert "is not there" in told.out
    assert "hint: a file: sink is a directory on another volume" in told.err


def test_an_exchange_that_is_not_there_is_no_matter_of_ssl(tmp_path, capsys, monkeypatch):
    """Where nothing listens that is said, not what the library's connector was set to."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert main(["paper", "--exchange", url, "--key-id", "a", "--pem", "b"]) == 5
    told = capsys.readouterr().err
    assert f"no paper exchange answers at '{url}': nothing listens there" in told
    assert "ssl" not in told


@pytest.mark.parametrize(
    "verb",
    ["paper", "exchange", "submit", "settle", "audit verify", "audit anchor", "lake sql", "lake maintain"],
)
def test_help_fits_a_terminal_of_80_columns(verb, capsys, monkeypatch):
    """Prose is wrapped to the terminal and no word of it lost; a command of the examples stays one line to copy."""
    told = {}
    for columns in (80, 400):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main([*verb.split(), "--help"]) == 0
        told[columns] = capsys.readouterr().out
    assert all(len(line) <= 80 for line in told[80].splitlines() if not line.startswith("  "))
    assert told[80].split("examples:")[1].split() == told[400].split("examples:")[1].split()
    for line in told[400].splitlines():
        if line.startswith("  holdfast "):
            assert line in told[80].splitlines()

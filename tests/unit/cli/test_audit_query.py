from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys

import pytest
from support.journal import HandmadeLog, rows, small_log

from holdfast.audit.saved import SAVED
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import SystemClock


@pytest.fixture
def home(tmp_path):
    return tmp_path / "audit"


def printed(capsys, *words):
    assert main(["audit", "query", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_types_may_be_repeated(home, capsys):
    """Several --type options ask for any of them."""
    log = HandmadeLog(home)
    log.segment([("TRADE", {}), ("ORDER", {}), ("NOTE", {})])
    log.head()
    out = printed(capsys, home, "--type", "TRADE", "--type", "NOTE", "--json")
    assert [json.loads(line)["sequence"] for line in out.splitlines()] == [2, 4]


def test_the_three_formats_say_the_same(home, capsys):
    """Table, JSON Lines and CSV have the same records; --json is --format jsonl."""
    small_log(home)
    table = printed(capsys, home).splitlines()
    assert printed(capsys, home, "--format", "table").splitlines() == table
    lines = printed(capsys, home, "--json")
    assert printed(capsys, home, "--format", "jsonl") == lines
    entries = [json.loads(line) for line in lines.splitlines()]
    cells = list(csv.DictReader(io.StringIO(printed(capsys, home, "--format", "csv"))))
    assert len(table) - 1 == len(entries) == len(cells) == 11
    for entry, row in zip(entries, cells, strict=True):
        assert json.loads(row.pop("details")) == entry.pop("details")
        assert row == {name: str(value) for name, value in entry.items()}


@pytest.mark.parametrize("user", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_of_a_csv_is_a_formula(home, capsys, user):
    """A text that a spreadsheet would compute begins with an apostrophe; other cells are as they are."""
    log = HandmadeLog(home)
    log.segment([("NOTE", {"a": 'x,"y"'}, user)])
    log.head()
    rows_ = list(csv.reader(io.StringIO(printed(capsys, home, "--type", "NOTE", "--format", "csv"))))
    assert rows_[1][4] == f"'{user}"
    assert json.loads(rows_[1][6]) == {"a": 'x,"y"'}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "--format", "csv"], "--json does not go with --format csv"),
        (["--follow", "--newest-first"], "--follow does not go with --newest-first"),
        (["--saved", "violations", "--user", "x"], "--saved does not go with --user"),
        (["--saved", "violations", "--to", "0"], "--saved does not go with --to"),
        (["--param", "a=b"], "--param goes with --saved only"),
        (["--saved", "violation"], "did you mean 'violations'?"),
        (["--saved", "violations", "--param", "day=3"], "did you mean 'days'?"),
        (["--saved", "violations", "--param", "days"], "--param 'days' is not KEY=VALUE"),
        (["--saved", "violations", "--param", "days=-1"], "not a number"),
        (["--saved", "trades-of-user", "--param", "user=a"], "needs day: a day in UTC"),
        (["--saved", "trades-of-user", "--param", "user=a", "--param", "day=19.11."], "not a day"),
        (["--saved", "slow-api-calls", "--param", "from=2026-01-01"], "for UTC: 2026-01-01T00:00:00Z"),
        (["--type", "TRADES"], "did you mean TRADE?"),
        (["--type", "trade", "--follow"], "did you mean TRADE?"),
        (["--from", "2", "--to", "1"], "end_time 1 is before start_time 2"),
        (["--limit", "-1"], "max_results -1 is not a count"),
        (["--saved", "violations", "--limit", "-1"], "--limit -1 is not a count"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(home, capsys, words, said):
    """Each refusal exits 1, prints nothing on stdout and says what to write instead."""
    small_log(home)
    assert main(["audit", "query", str(home), *words]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err


def test_a_query_without_a_log_is_refused(capsys):
    """Only --list-saved needs no directory."""
    assert main(["audit", "query"]) == 1
    assert "no log named" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "meant"), [("--usr", "--user"), ("--order_id=x", "--order-id"), ("--zzz", "")]
)
def test_an_unknown_option_is_a_usage_error_with_a_suggestion(home, capsys, option, meant):
    """A misspelt field exits 2 and names the one it resembles."""
    small_log(home)
    assert main(["audit", "query", str(home), option]) == 2
    said = capsys.readouterr().err
    assert f"unrecognized arguments: {option}" in said
    assert (f"did you mean {meant}?" in said) if meant else ("did you mean" not in said)


def test_saved_queries_are_listed(capsys):
    """Every question stands in the list with its parameters; as JSON, one object each."""
    listed = printed(capsys, "--list-saved")
    objects = [json.loads(line) for line in printed(capsys, "--list-saved", "--json").splitlines()]
    assert [one["name"] for one in objects] == list(SAVED)
    for query in SAVED.values():
        assert query.name in listed
        assert query.question in listed
        assert all(f"--param {one.name}=" in listed for one in query.parameters)


def test_a_saved_query_prints_in_every_format(home, capsys):
    """The rows of an answer have its columns, as a table, as CSV and as JSON."""
    log = HandmadeLog(home)
    log.segment(
        [
            ("DECISION", {"verdict": "deny", "reason": "notional", "n": n, "limits_version": 1})
            for n in range(3)
        ]
    )
    log.head()
    words = (home, "--saved", "refusals-by-reason")
    (row,) = [json.loads(line) for line in printed(capsys, *words, "--json").splitlines()]
    assert (row["reason"], row["count"], row["first_sequence"], row["last_sequence"]) == ("notional", 3, 2, 4)
    (cells,) = csv.DictReader(io.StringIO(printed(capsys, *words, "--format", "csv")))
    assert cells == {name: str(value) for name, value in row.items()}
    assert printed(capsys, *words).splitlines()[0].split("\t") == list(SAVED["refusals-by-reason"].columns)
    assert main(["audit", "query", str(home), "--saved", "violations", "--json"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "holdfast: no record answers that question\n")


def test_follow_with_a_limit_ends(home, capsys):
    """--follow with --limit ends after so many records."""
    log = HandmadeLog(home)
    log.segment(rows(5))
    log.head()
    out = printed(capsys, home, "--follow", "--limit", "2", "--type", "NOTE", "--json")
    assert [json.loads(line)["sequence"] for line in out.splitlines()] == [2, 3]


def test_follow_prints_at_once_and_ends_on_ctrl_c(home):
    """A new match is printed while the writer goes on; Ctrl-C ends it without a traceback."""
    with WriteAheadLog(home, clock=SystemClock()) as log:
        log.append("NOTE", {"n": 1})
        command = [sys.executable, "-m", "holdfast.cli.main", "audit", "query", str(home)]
        with subprocess.Popen(
            [*command, "--follow", "--type", "NOTE", "--user", "ann", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            for n in range(3):
                log.append("NOTE", {"n": n}, user="bob")
                log.append("NOTE", {"n": n}, user="ann")
                assert json.loads(child.stdout.readline())["details"] == {"n": n}
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=10)
        assert (child.returncode, out, err) == (130, b"", b"interrupted\n")

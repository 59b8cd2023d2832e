"""`holdfast exchange --desk options` from the outside."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.data import require

BASE = (sys.executable, "-m", "holdfast", "exchange", "--desk", "options")


def command(*args, **options):
    return subprocess.run([*BASE, *args], capture_output=True, text=True, timeout=30, check=False, **options)


def test_it_prints_one_line_of_json_and_stops_with_its_stdin():
    """Where, with which token, what time it is, and what is played."""
    done = command("--json", "--exit-with-stdin", "--symbols", "SPY", "--seed", "3", stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert set(said) == {"ws", "token", "clock", "market", "symbols", "days"}
    assert (said["symbols"], said["days"]) == (["SPY"], {})
    assert said["ws"].startswith("ws://127.0.0.1:")
    assert said["market"].startswith("seeded chain 3: 136 contracts on SPY")
    assert said["clock"] == 1_694_179_800_000_000_000


@pytest.mark.data
def test_a_tape_is_found_in_the_folder_of_recordings_and_a_day_chosen(monkeypatch):
    """`data/options` is the folder's name wherever it is."""
    monkeypatch.setenv("HOLDFAST_DATA", str(require()))
    done = command(
        "--tape",
        "data/options",
        "--day",
        "20210106",
        "--speed",
        "max",
        "--exit-with-stdin",
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "on 2021-01-06 (other days: 2015" in done.stdout
    assert "as fast as its followers" in done.stdout


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (("--symbols", "TSLA"), "no seeded chain for TSLA"),
        (("--days", "0"), "0 days"),
        (("--tape", "nowhere"), "nowhere"),
        (("--cash", "much"), "--cash"),
        (("--assign-at", "5:SPY=1"), "no contract of this market"),
        (("--assign-rate", "2"), "no rate from 0 to 1"),
        (("--faults", "dup=0.1"), "fault 'dup' is unknown"),
        (("--faults-at", "5:dup_next_fill=1"), "no scripted fault 'dup_next_fill'"),
        (("--host", "0.0.0.0"), "loopback"),  # noqa: S104  refused
        (("--tier", "basic"), "--tier belongs to --desk kalshi"),
        (("--desk", "kalshi", "--assign-at", "5:SPY=1"), "--assign-at belongs to --desk options"),
        (("--port", "70000"), "outside 0 to 65535"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(args, what, capsys):
    """No traceback, the value named."""
    from holdfast.cli.main import main

    assert main(["exchange", "--desk", "options", *args]) == 1
    said = capsys.readouterr().err
    assert what in said
    assert "Traceback" not in said

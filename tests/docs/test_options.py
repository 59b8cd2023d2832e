"""docs/options.md is followed literally: every command runs, and prints what the page says it prints."""

import json
import re
import subprocess
import sys

import pytest
from support.pages import follow, page, surroundings

from holdfast.config.keys import KEYS, TABLES
from holdfast.execution.exits import RUNGS
from holdfast.execution.outcomes import Outcome
from holdfast.execution.structures import StructureKind

PAGE = page("options.md")


@pytest.mark.slow
@pytest.mark.contract("B13")
def test_the_page_can_be_followed(tmp_path):
    """The runs, the reference inputs, the layers and the questions go as the page says."""
    assert follow(PAGE, tmp_path)


@pytest.mark.slow
@pytest.mark.contract("B10", "B12")
def test_a_structure_of_ones_own_trades_as_written(tmp_path):
    """The script of the page enters a call spread on a broker started as the page starts it."""
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_desk.py").write_text(script)
    start = next(line for line in PAGE.splitlines() if line.startswith("holdfast exchange"))
    words, target = start.removesuffix(" &").split(" > ")
    broker = subprocess.Popen(
        [*words.split(), "--exit-with-stdin"],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = broker.stdout.readline()
        json.loads(line)
        (tmp_path / target).write_text(line)
        done = subprocess.run(
            [sys.executable, "my_desk.py"],
            cwd=tmp_path,
            env=surroundings(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        broker.communicate(timeout=20)
    assert done.returncode == 0, done
    assert re.search(
        r"^call_debit-SPY-1 (holds|is flat) after a net debit of 0\.\d+$", done.stdout, re.MULTILINE
    ), done.stdout


def test_the_page_names_every_structure_rung_and_outcome():
    """What the code knows stands on the page."""
    for word in (*StructureKind, *Outcome):
        assert f"`{word.value}`" in PAGE
    for rung in RUNGS:
        assert f"| {rung.name} |" in PAGE


def test_every_setting_of_the_desk_is_on_the_page():
    """The three sections list the keys that `holdfast.toml` takes, each once, and no other."""
    rows = dict(re.findall(r"^\| `\[([a-z.]+)\]` \| (.+) \|$", PAGE, re.MULTILINE))
    known = [*KEYS, *TABLES]
    for section in ("limits.options", "stops", "desk.options"):
        taken = [key.removeprefix(f"{section}.") for key in known if key.startswith(f"{section}.")]
        assert sorted(re.findall(r"`(\w+)`", rows[section])) == sorted(taken)

"""What a person sees on a terminal: every line of the story whole, and the figures on one line below it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from holdfast.cli.paper.screen import TOGETHER, LiveScreen, hanging
from holdfast.cli.paper.story import Line, Story

LONG = Line(
    "16:03:20",
    "refused",
    "overreach buy YES 500.00 KXPAPERGAME-OAKELM-ELM @ 0.3400: position_limit_exceeded 503.00 > 100.00 contracts",
    "bad",
)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_long_line_goes_on_below_its_own_text(width):
    """No line is wider than the terminal, no word is lost, and only the first starts at the left."""
    lines = hanging(str(LONG), 20, width).splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(lines).split()) == " ".join(str(LONG).split())
    assert all(line.startswith(" " * 20) and line[20] != " " for line in lines[1:])


def test_a_narrow_terminal_gets_the_line_as_it_is():
    """Where there is no room for columns, the terminal wraps."""
    assert hanging(str(LONG), 20, 30) == str(LONG)


def shown(width, height, *, chapters):
    """Everything a terminal of that size was sent while sixty lines were told."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, height=height, force_terminal=True, color_system=None)
    story = Story()
    story.decisions, story.breaker = 1424, [{"to": "half_open"}]
    story.orders.update(submitted=1416, filled=1207, denied=8)
    with LiveScreen(console, chapters=chapters) as screen:
        for number in range(60):
            screen.show(LONG._replace(text=f"line {number}"), story)
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_figures_stand_on_one_line_and_every_line_is_kept(width, height):
    """The whole story is on the terminal in the end, the newest line too, with the figures unbroken."""
    output = shown(width, height, chapters=True)
    assert all(f"line {number}\n" in output.replace("\r", "") for number in range(60))
    figures = "breaker half_open  decided 1424  sent 1416  filled 1207  refused 8  unknown 0"
    assert figures[: width - 4] in output
    assert "shown so far" in output


def test_chapters_are_not_asked_of_a_run_that_does_not_owe_them():
    """A recording or a user's strategy shows no list of things missing."""
    assert "shown so far" not in shown(80, 24, chapters=False)


def test_words_that_belong_together_stay_on_one_line():
    """A quantity is never parted from its contract, and what is printed has plain spaces only."""
    held = ", ".join(f"-{n}{TOGETHER}SPY230915P0042900{n}" for n in range(1, 10))
    for width in (80, 60, 40):
        lines = hanging(f"  held         {held}", 15, width).splitlines()
        assert max(map(len, lines)) <= width
        assert all(re.findall(r"-\d SPY", line) for line in lines)
        assert TOGETHER not in "".join(lines)
    assert hanging(f"a{TOGETHER}b", 15, 80) == "a b"

"""Tables for eyes: cells under their names at any width, and none cut into a column of letters."""

import os

import pytest

from holdfast.cli import output

COLUMNS = ("timestamp", "execution_id", "event_type", "premium", "seq")
ROWS = [
    ("2023-09-08T13:31:15Z", "iron_condor-SPY-1", "trailing_stop_activate", "0.81", "87"),
    ("2023-09-08T18:17:00Z", "long_strangle-SPX-9", "trailing_stop_trigger", "10.30", "821"),
]


def _printed(monkeypatch, capsys, width: int, rows=ROWS) -> list[str]:
    monkeypatch.setattr(output.shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))
    output.print_table(COLUMNS, rows, right={3, 4})
    return capsys.readouterr().out.splitlines()


def test_a_table_that_fits_has_a_line_a_row(monkeypatch, capsys):
    """Where there is room each row is one line, and figures end where their names end."""
    names, one, two = _printed(monkeypatch, capsys, 100)
    assert names.endswith("premium  seq")
    assert one.endswith("   0.81   87")
    assert two.endswith("  10.30  821")


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_table_that_does_not_fit_goes_on_below(monkeypatch, capsys, width):
    """At 80 columns and fewer every cell is still whole, under its name, and no line is wider than the terminal."""
    lines = _printed(monkeypatch, capsys, width)
    assert max(map(len, lines)) <= width
    for row in ROWS:
        for cell in row:
            assert any(cell in line.split() for line in lines)
    assert lines[0].startswith("timestamp")
    step = len(lines) // 3
    names, figures = lines[step - 1], lines[2 * step - 1]
    assert names.index("seq") + 3 == figures.index("87") + 2


def test_a_cell_wider_than_the_terminal_is_broken_and_nothing_of_it_lost(monkeypatch, capsys):
    """The letters of a long cell are all there, on lines that fit; what is no character is spelled out."""
    long = "abcdefghij" * 12
    lines = _printed(monkeypatch, capsys, 80, [("t", long, "\x1b[2J", "1", "2")])
    assert max(map(len, lines)) <= 80
    assert long in "".join(line.strip() for line in lines)
    assert "\\x1b[2J" in "".join(lines)
    assert "\x1b" not in "".join(lines)

from __future__ import annotations

import sys

from holdfast.cli import output


def test_a_table_off_a_terminal_is_tab_separated(capsys):
    """Pipes get one header line and plain rows, never wrapped."""
    output.print_table(("a", "b"), [("1", "x" * 500)])
    assert capsys.readouterr().out == "a\tb\n1\t" + "x" * 500 + "\n"


def test_a_table_on_a_terminal_is_drawn(capsys, monkeypatch):
    """A terminal gets columns, and markup in a record is only text."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.print_table(("name", "value"), [("[red]n[/red]", "v\x1b[2J")])
    said = capsys.readouterr().out
    assert "[red]n[/red]" in said
    assert "\x1b[2J" not in said


def test_json_is_one_compact_line(capsys):
    """Programs get one object per line."""
    output.print_json({"a": [1, "ü"]})
    assert capsys.readouterr().out == '{"a":[1,"ü"]}\n'

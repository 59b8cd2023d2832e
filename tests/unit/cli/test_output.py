from __future__ import annotations

import sys

from holdfast.cli import output


def test_records_off_a_terminal_are_tab_separated(capsys):
    """Pipes get one header line and plain rows, never wrapped."""
    output.print_records(("a", "b"), [("1", "x" * 500)])
    assert capsys.readouterr().out == "a\tb\n1\t" + "x" * 500 + "\n"


def test_records_on_a_terminal_fit_its_width(capsys, monkeypatch):
    """A terminal gets the long cell below its row, all of it, and no control character of a record."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    words = " ".join(f"word{n}" for n in range(30))
    output.print_records(("name", "user", "value"), [("[red]n[/red]", "", words), ("b", "u", "v\x1b[2J")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[red]n[/red]"
    assert lines[-2:] == ["b  u", "    v\\x1b[2J"]
    assert max(map(len, lines)) <= 40
    assert " ".join(line.strip() for line in lines[1:-2]) == words


def test_json_is_one_compact_line(capsys):
    """Programs get one object per line."""
    output.print_json({"a": [1, "ü"]})
    assert capsys.readouterr().out == '{"a":[1,"ü"]}\n'

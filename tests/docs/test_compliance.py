"""docs/compliance.md is followed literally: every command runs, and prints what the page says it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.audit.saved import SAVED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "compliance.md").read_text(encoding="utf-8")
QUESTIONS, RECOVERY = PAGE.split("## Recovery and replay")


class Command(NamedTuple):
    text: str
    printed: list[str]


def commands(section):
    """Each `$ ` line with the `> ` lines that continue it, and the lines that follow until the next."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], []))
            elif line.startswith("> ") and not found[-1].printed:
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line[2:]}")
            else:
                found[-1].printed.append(line)
    return found


def pattern(lines):
    """What the lines of the page match: `…` anything within a line, alone in a line any lines; blanks are alike."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            words = re.escape(" ".join(line.split())).replace("…", r"[^\n]*?")
            parts.append(words + r"\n")
    return "".join(parts)


def follow(section, folder):
    """Run every command of *section* in *folder*, one after the other."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    found = commands(section)
    for command in found:
        done = subprocess.run(
            ["bash", "-ec", command.text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (command.text, done.stdout, done.stderr)
        printed = "".join(" ".join(line.split()) + "\n" for line in done.stdout.splitlines())
        assert re.fullmatch(pattern(command.printed), printed), (command.text, command.printed, done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.contract("A18")
def test_every_question_of_the_page_is_answered_as_written(tmp_path):
    """The demonstration log answers each saved query with the records that the page shows."""
    asked = follow(QUESTIONS, tmp_path)
    assert len(asked) >= 12


@pytest.mark.contract("A18")
def test_every_saved_query_stands_on_the_page():
    """No question is undocumented, and the page asks none that does not exist."""
    assert set(re.findall(r"--saved ([a-z-]+)", PAGE)) == set(SAVED)


@pytest.mark.slow
@pytest.mark.contract("A18")
@pytest.mark.invariant("I7")
def test_the_recovery_procedure_works_as_written(tmp_path):
    """A killed trader's log is verified, recovered, replayed and compared with the venue, command by command."""
    follow(RECOVERY, tmp_path)


def test_an_output_that_differs_is_noticed():
    """The check itself can fail: other numbers, missing and further lines do not match."""
    page = ["a 1 … z", "…", "end"]
    assert re.fullmatch(pattern(page), "a 1 x y z\nmore\nend\n")
    for printed in ("a 2 x z\nend\n", "a 1 x z\nmore\n", "a 1 x z\nend\nmore\n", ""):
        assert not re.fullmatch(pattern(page), printed)

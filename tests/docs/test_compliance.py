"""docs/compliance.md is followed literally: every command runs, and prints what the page says it prints."""

import re

import pytest
from support.pages import follow, page, pattern

from holdfast.audit.saved import SAVED

PAGE = page("compliance.md")
QUESTIONS, RECOVERY = PAGE.split("## Recovery and replay")


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

"""How a paper run begins at an exchange that answers badly."""

import asyncio
from types import SimpleNamespace

import pytest

from holdfast.cli.paper.session import open_markets
from holdfast.core.errors import VenueAnswerUnknown, VenueRejected, VenueUnreachable


def listing(*failures):
    """A list of one market that is read after *failures*; and how often it was asked for."""
    asked = []

    async def read():
        asked.append(len(asked))
        if len(asked) <= len(failures):
            raise failures[len(asked) - 1]
        return [SimpleNamespace(ticker="KXRAIN")]

    return read, asked


def test_a_run_begins_although_the_first_answers_are_errors():
    """Three bad answers to the list of markets end no run, and do not open the breaker."""
    read, asked = listing(*[VenueAnswerUnknown("GET markets: 500", status=500)] * 3)
    assert asyncio.run(open_markets(read)) == ["KXRAIN"]
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("failures", "times"),
    [
        ([VenueAnswerUnknown("GET markets: 500", status=500)] * 9, 4),
        ([VenueRejected("GET markets: 401", code="unauthorized", status=401)], 1),
        ([VenueUnreachable("nobody listens")], 1),
    ],
)
def test_a_run_that_cannot_begin_says_why(failures, times):
    """An exchange that always answers badly, refuses us or is not there is told by its own error."""
    read, asked = listing(*failures)
    with pytest.raises(type(failures[0])):
        asyncio.run(open_markets(read))
    assert len(asked) == times

"""What an error shows where nobody catches it."""

import pickle
import traceback

from holdfast.core.errors import BadInput


def test_a_traceback_ends_with_the_hint():
    """A program that lets an error through shows what to do about it, also after a process handed it over; without
    a hint nothing is added, and the message stays the message."""
    error = pickle.loads(pickle.dumps(BadInput("no key", hint="set KALSHI_API_KEY_ID")))  # noqa: S301  our own
    assert "".join(traceback.format_exception(error)).endswith(
        "BadInput: no key\nhint: set KALSHI_API_KEY_ID\n"
    )
    assert str(error) == "no key"
    assert "hint" not in "".join(traceback.format_exception(BadInput("no key")))

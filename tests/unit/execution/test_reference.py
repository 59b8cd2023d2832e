"""IV rank and VIX as declared inputs: read or refused, never guessed."""

import pytest

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.core.reasons import Code, RejectReason
from holdfast.execution.reference import Reading, ReferenceInput

FILE = """\
as_of = 2023-08-03T13:30:00Z
source = "morning sheet"
vix = "15.92"

[iv_rank]
SPY = "22"
GOOG = "61.5"
"""
AS_OF = 1_691_069_400 * NANOS
pytestmark = pytest.mark.contract("B10")


def read(tmp_path, text=FILE, **options):
    path = tmp_path / "reference.toml"
    path.write_text(text)
    return ReferenceInput.read(path, **options)


def test_a_file_gives_its_figures_with_their_age(tmp_path):
    """Ranks by symbol and the VIX come out in 1/100, not assumed, as old as they are."""
    reference = read(tmp_path)
    assert reference.reading("SPY", AS_OF + 60 * NANOS) == Reading(2200, 1592, False, 60 * NANOS)
    assert reference.reading("GOOG", AS_OF).iv_rank_e2 == 6150
    assert reference.facts()["iv_rank"] == {"GOOG": "61.50", "SPY": "22.00"}


def test_figures_given_by_hand_are_assumed_and_say_so():
    """The same for every symbol, and the record says that nobody read them anywhere."""
    reference = ReferenceInput.by_hand(iv_rank="20", vix="18.5")
    assert reference.reading("ANY", AS_OF) == Reading(2000, 1850, True, 0)
    assert reference.facts()["assumed"]


@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("symbol", "secs", "lacks"),
    [("TSLA", 0, "iv_rank"), ("SPY", 86_401, "freshness"), ("SPY", -1, "a time that is not in the future")],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, symbol, secs, lacks):
    """A missing symbol, an old file and one from the future are `reference_unknown`."""
    reason = read(tmp_path).reading(symbol, AS_OF + secs * NANOS)
    assert isinstance(reason, RejectReason)
    assert reason.code is Code.REFERENCE_UNKNOWN
    assert reason.keys["lacks"] == lacks


def test_nothing_declared_refuses_everything():
    """No default stands in for an input that was never given."""
    assert ReferenceInput().reading("SPY", 0).code is Code.REFERENCE_UNKNOWN


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('vix = "15.92"', "vix = 15.92", "float"),
        ('vix = "15.92"', 'vix = "0"', "not above 0"),
        ('SPY = "22"', 'SPY = "122"', "outside 0 to 100"),
        ("as_of = 2023-08-03T13:30:00Z", "", "lacks as_of"),
        ("as_of = 2023-08-03T13:30:00Z", "as_of = 2023-08-03T13:30:00", "time zone"),
        ("source =", "sauce =", "unknown field 'sauce'"),
        ("[iv_rank]", "[iv_rank", "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path, old, new, said):
    """Each mistake in a reference file ends in a message that names it."""
    with pytest.raises(BadInput, match=said):
        read(tmp_path, FILE.replace(old, new))

"""What can have become of options that the venue no longer has: every row of the table, and random books."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import EXPIRES_NS, call, put

from holdfast.core.clock import NANOS
from holdfast.core.instruments import Instrument
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import ExerciseStyle, SettlementStyle
from holdfast.execution.endings import ENDED_SECS, MARGIN_BP, Amount, Lack, Line, explain

OVER_NS = EXPIRES_NS + ENDED_SECS * NANOS
EARLY_NS = EXPIRES_NS - 86_400 * NANOS


def lack(option: Instrument, ours: int, theirs: int = 0, **terms: Any) -> Lack:
    """Contracts of *option*."""
    assert option.option is not None
    told = msgspec.structs.replace(option.option, **terms)
    return Lack(option.ticker, told, 100, QtyE2(ours * 100), QtyE2(theirs * 100))


def ended(
    lacks: list[Lack], shares: int, *, now_ns: int = OVER_NS, spot: float | None = None
) -> list[Line] | str:
    spots = {} if spot is None else {EXPIRES_NS: PriceE4(round(spot * 10_000))}
    return explain(lacks, QtyE2(shares * 100), now_ns=now_ns, spots=spots)


def told(lines: list[Line] | str) -> Any:
    """Ticker, contracts or shares, dollars, cause and amount of each line."""
    if isinstance(lines, str):
        return lines
    return [(x.ticker, x.qty // 100, x.price / 10_000, x.cause.value, x.amount.value) for x in lines]


P, C = put(480), call(520)
EXPIRED = [
    ([lack(P, -1)], 0, [(P.ticker, 1, 0, "expiration", "claimed")]),
    ([lack(P, 2)], 0, [(P.ticker, -2, 0, "expiration", "claimed")]),
    ([lack(P, -1)], 100, [(P.ticker, 1, 0, "assignment", "known"), ("SPY", 100, 480, "assignment", "known")]),
    (
        [lack(C, -2)],
        -200,
        [(C.ticker, 2, 0, "assignment", "known"), ("SPY", -200, 520, "assignment", "known")],
    ),
    ([lack(P, 1)], -100, [(P.ticker, -1, 0, "exercise", "known"), ("SPY", -100, 480, "exercise", "known")]),
    ([lack(C, 3)], 300, [(C.ticker, -3, 0, "exercise", "known"), ("SPY", 300, 520, "exercise", "known")]),
    (
        [lack(P, -3)],
        100,
        [
            (P.ticker, 1, 0, "assignment", "known"),
            ("SPY", 100, 480, "assignment", "known"),
            (P.ticker, 2, 0, "expiration", "known"),
        ],
    ),
]


@pytest.mark.contract("B12")
@pytest.mark.parametrize(("lacks", "shares", "lines"), EXPIRED)
def test_one_expired_option_ended_as_its_shares_say(lacks, shares, lines):
    """Worthless without shares, exercised or assigned with them, split where a part was."""
    assert told(ended(lacks, shares)) == lines


@pytest.mark.parametrize(
    ("lacks", "shares"),
    [
        ([lack(P, -1)], -100),  # the wrong way
        ([lack(P, -1)], 200),  # more than it can deliver
        ([lack(P, -1)], 50),
        ([lack(P, -1, 1)], 0),  # the other side is held there
        ([lack(P, -1, -2)], 0),  # more of it is held there
        ([lack(P, 0, 1)], 0),
        ([lack(P, -2, -1)], 0),  # one of two, and no share moved: nothing ended
        ([lack(P, -1, style=ExerciseStyle.EUROPEAN, expires_ns=OVER_NS)], 100),
        ([lack(P, -1, settlement=SettlementStyle.CASH, expires_ns=OVER_NS)], 0),
        ([lack(P, -1, expires_ns=0)], 0),
        ([Lack(P.ticker, P.option, 100, QtyE2(-150), QtyE2(-120))], 30),
    ],
)
def test_what_fits_no_row_is_not_explained(lacks, shares):
    """Wrong direction, wrong number, other sides, parts of contracts and what cannot have ended stay differences."""
    assert isinstance(ended(lacks, shares), str)


@pytest.mark.parametrize(
    ("lacks", "shares", "is_explained"),
    [
        ([lack(P, -1)], 100, True),
        ([lack(P, -2, -1)], 100, True),
        ([lack(P, -1)], 0, False),
        ([lack(P, -2)], 100, False),
        ([lack(P, -1), lack(put(470), -1)], 200, True),
        ([lack(P, -1), lack(put(470), 1)], 0, False),
        ([lack(P, -1, style=ExerciseStyle.EUROPEAN)], 100, False),
    ],
)
def test_before_its_expiry_an_option_ended_only_where_all_of_its_shares_came(lacks, shares, is_explained):
    """An American one with exactly its shares; what cancels out proves nothing, and a European one cannot."""
    assert isinstance(ended(lacks, shares, now_ns=EARLY_NS), list) is is_explained


def test_within_the_bound_on_lateness_nothing_has_expired_yet():
    """One nanosecond before the bound the absence of an option means nothing."""
    assert isinstance(ended([lack(P, -1)], 0, now_ns=OVER_NS - 1), str)
    assert isinstance(ended([lack(P, -1)], 0, now_ns=OVER_NS), list)


CONDOR = [lack(put(470), 1), lack(put(480), -1), lack(call(520), -1), lack(call(530), 1)]


@pytest.mark.parametrize(
    ("shares", "spot", "amount", "cash"),
    [
        (100, None, Amount.KNOWN, -48_000),
        (-100, None, Amount.KNOWN, 52_000),
        (0, 500, Amount.KNOWN, 0),
        (0, 450, Amount.KNOWN, -1_000),
        (0, 560, Amount.KNOWN, -1_000),
        (0, None, Amount.UNKNOWN, 0),
        (100, 475, Amount.KNOWN, -48_000),
        (100, 500, None, 0),
        (200, None, None, 0),
    ],
)
def test_a_condor_ended_where_the_underlying_stood(shares, spot, amount, cash):
    """Shares tell which leg; without shares the price tells, and without either the cash is unknown and not invented."""
    lines = ended(CONDOR, shares, spot=spot)
    if amount is None:
        assert isinstance(lines, str)
        return
    assert not isinstance(lines, str)
    assert sum(-x.qty * x.price * x.multiplier for x in lines) == cash * 1_000_000
    assert {x.amount for x in lines} == {amount}


def test_gone_without_a_share_is_worthless_for_sure_only_by_a_price():
    """Somebody may have closed it before: without a price seen at the expiry, nothing paid is a claim."""
    assert {x.amount for x in ended([lack(P, -1)], 0)} == {Amount.CLAIMED}
    assert {x.amount for x in ended([lack(P, -1)], 0, spot=500)} == {Amount.KNOWN}
    assert isinstance(ended([lack(P, -1)], 0, spot=450), str)


def test_a_price_too_near_to_a_strike_tells_nothing():
    """A dollar wide spread: with the underlying within the margin of both ends the cash stays unknown."""
    spread = [lack(put(480), -1), lack(put(479), 1)]
    far, near = 480 * (1 + 3 * MARGIN_BP / 10_000), 480 * (1 + MARGIN_BP / 20_000)
    assert {x.amount for x in ended(spread, 0, spot=far)} == {Amount.KNOWN}
    assert {x.amount for x in ended(spread, 0, spot=near)} == {Amount.UNKNOWN}


def test_what_settles_in_cash_pays_what_was_seen_or_nobody_knows_what():
    """The payoff is claimed where the underlying was seen; elsewhere the contract is closed at 0 and said to be unknown."""
    cash = lack(put(480), -1, settlement=SettlementStyle.CASH, style=ExerciseStyle.EUROPEAN)
    assert told(ended([cash], 0, spot=470)) == [(P.ticker, 1, 10, "expiration", "claimed")]
    assert told(ended([cash], 0)) == [(P.ticker, 1, 0, "expiration", "unknown")]
    assert isinstance(ended([cash], 100), str)


STRIKES = (470, 480, 490)


@st.composite
def books(draw):
    """Options of one expiry as held, and where the underlying ended, never on a strike."""
    chain = [make(strike) for make, strike in product((call, put), STRIKES)]
    held = {one.ticker: draw(st.integers(-3, 3)) for one in chain}
    spot = draw(st.sampled_from((460, 475, 485, 500)))
    is_seen = draw(st.booleans())
    return [one for one in chain if held[one.ticker]], held, spot, is_seen


@given(books())
@settings(max_examples=150, deadline=None)
def test_random_books_are_explained_exactly_where_one_explanation_is_left(drawn):
    """Positions become theirs and cash what the expiry paid, or the amount is unknown and nothing is booked, or nothing fits."""
    chain, held, spot, is_seen = drawn
    lacks = [lack(one, held[one.ticker]) for one in chain]
    shares, cash = _outcome(chain, held, spot)
    lines = ended(lacks, shares, spot=spot if is_seen else None)
    others = {
        paid
        for moved, paid in (_outcome(chain, held, at, splits) for at, splits in _courses(chain, held))
        if moved == shares
    }
    assert cash in others
    if isinstance(lines, str):
        assert not is_seen
        assert len(others) > 1
        assert shares
        return
    moved: dict[str, int] = {}
    for line in lines:
        moved[line.ticker] = moved.get(line.ticker, 0) + line.qty
    assert {ticker: qty for ticker, qty in moved.items() if qty} == {
        **{one.ticker: -held[one.ticker] * 100 for one in chain},
        **({"SPY": shares * 100} if shares else {}),
    }
    paid = sum(-x.qty * x.price * x.multiplier for x in lines) // 1_000_000
    if any(x.amount is Amount.UNKNOWN for x in lines):
        assert (len(others) > 1, paid, is_seen) == (True, 0, False)
    else:
        assert paid == cash
        assert is_seen or len(others) == 1


def _outcome(chain, held, spot, splits=()):
    """Shares and dollars that the end at *spot* moved; *splits* says how many contracts at that strike were delivered."""
    shares = cash = 0
    at_strike = iter(splits)
    for one in chain:
        count, strike = held[one.ticker], one.option.strike // 10_000
        if strike == spot and splits:
            taken = next(at_strike) * (1 if count > 0 else -1)
        else:
            taken = count if one.option.payoff(PriceE4(spot * 10_000)) else 0
        moved = taken * 100 * (1 if one.option.right == "C" else -1)
        shares += moved
        cash -= moved * strike
    return shares, cash


def _courses(chain, held):
    yield from ((spot, ()) for spot in (460, 475, 485, 500))
    for strike in STRIKES:
        there = [range(abs(held[one.ticker]) + 1) for one in chain if one.option.strike == strike * 10_000]
        yield from ((strike, splits) for splits in product(*there) if splits)

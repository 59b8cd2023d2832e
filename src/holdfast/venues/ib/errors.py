"""What Interactive Brokers' message codes mean here: one table, read by the adapter and by people.

The gateway says everything that goes wrong through one channel, numbered: a lost link, a refused order, a warning
that changes nothing. `CODES` gives each number we know its kind, `RULES` gives each kind its consequence:

| kind | the breaker | an order it names | the adapter |
| --- | --- | --- | --- |
| link_lost | failure | is unknown | sends nothing, calls every read unreachable, marks books stale |
| link_back | - | is unknown | reads executions and orders again |
| link_back_data_lost | - | is unknown | the same, and asks for market data again |
| farm_down, farm_up | - | lives | marks books stale, and asks for them again when it is back |
| refused | - | never reached the market | `Reject` with the code |
| canceled | - | has ended | reads how much was filled |
| warning | - | lives, whatever its status says | asks for the open orders where the status says otherwise |
| validation | - | may live | asks for the open orders; where they do not tell, `Unknown` |
| not_cancelable | - | has ended, or is not ours to end | reads the order |
| unknown_contract | - | never reached the market | `VenueRejected`, not found |
| pacing | - | may live | holds its own messages back for a second |
| no_data | - | lives | has no price, which refuses; says why |
| read_only | latch | never reached the market | `Reject`; a person changes the gateway's settings |
| session | failure | is unknown | connects again later |
| taken | failure | is unknown | says that the client id is in use |
| unknown | - | may live | as validation: a code nobody taught us is no verdict |

The library turns every error that it does not count as a warning into a canceled order, and every warning into the
status ValidationError: neither is believed. A code counts here, and the gateway's own books.

Limits: numbers as Interactive Brokers published them in 2025; what is not listed is `unknown`, which asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from holdfast.breaker.machine import Verdict


class Kind(StrEnum):
    """What a message is about."""

    LINK_LOST = "link_lost"
    LINK_BACK = "link_back"
    LINK_BACK_DATA_LOST = "link_back_data_lost"
    FARM_DOWN = "farm_down"
    FARM_UP = "farm_up"
    REFUSED = "refused"
    CANCELED = "canceled"
    WARNING = "warning"
    VALIDATION = "validation"
    NOT_CANCELABLE = "not_cancelable"
    UNKNOWN_CONTRACT = "unknown_contract"
    PACING = "pacing"
    NO_DATA = "no_data"
    READ_ONLY = "read_only"
    SESSION = "session"
    TAKEN = "taken"
    UNKNOWN = "unknown"


class OrderSays(StrEnum):
    """What a message means for the order that it names."""

    LIVES = "lives"
    REFUSED = "refused"
    ENDED = "ended"
    ASK = "ask"


class Rule(NamedTuple):
    """What follows from a kind of message."""

    verdict: Verdict
    order: OrderSays
    hint: str = ""


_K, _V, _O = Kind, Verdict, OrderSays

RULES: Mapping[Kind, Rule] = {
    _K.LINK_LOST: Rule(
        _V.FAILURE, _O.ASK, "the gateway lost its link to Interactive Brokers and restores it itself"
    ),
    _K.LINK_BACK: Rule(_V.IGNORED, _O.ASK),
    _K.LINK_BACK_DATA_LOST: Rule(_V.IGNORED, _O.ASK),
    _K.FARM_DOWN: Rule(
        _V.IGNORED, _O.LIVES, "a data centre of prices is down; they are unknown until it is back"
    ),
    _K.FARM_UP: Rule(_V.IGNORED, _O.LIVES),
    _K.REFUSED: Rule(_V.IGNORED, _O.REFUSED, "the message says what the order lacks"),
    _K.CANCELED: Rule(_V.IGNORED, _O.ENDED),
    _K.WARNING: Rule(_V.IGNORED, _O.LIVES),
    _K.VALIDATION: Rule(_V.IGNORED, _O.ASK),
    _K.NOT_CANCELABLE: Rule(_V.IGNORED, _O.ASK),
    _K.UNKNOWN_CONTRACT: Rule(_V.IGNORED, _O.REFUSED, "no such contract, or it has expired"),
    _K.PACING: Rule(_V.IGNORED, _O.ASK, "too many messages: 50 a second is the gateway's limit"),
    _K.NO_DATA: Rule(
        _V.IGNORED,
        _O.LIVES,
        "subscribe to live market data for this exchange in the account, share it with the paper account, and log "
        "in nowhere else with the same user",
    ),
    _K.READ_ONLY: Rule(
        _V.LATCH, _O.REFUSED, "untick Read-Only API in the gateway's API settings, then reset the breaker"
    ),
    _K.SESSION: Rule(_V.FAILURE, _O.ASK, "is the gateway logged in, and its API port open to this machine?"),
    _K.TAKEN: Rule(
        _V.FAILURE, _O.ASK, "another program uses this client id: choose another in [venue.ib] client_id"
    ),
    _K.UNKNOWN: Rule(_V.IGNORED, _O.ASK),
}

_BY_KIND: Mapping[Kind, Iterable[int]] = {
    _K.LINK_LOST: (1100, 2110),
    _K.LINK_BACK: (1102,),
    _K.LINK_BACK_DATA_LOST: (1101,),
    # Of the centres of prices. Those of history (2105) and of definitions (2157) take no price away, and a centre that is
    # being connected (2119) is not back yet: warnings.
    _K.FARM_DOWN: (2103,),
    _K.FARM_UP: (2104, 2106, 2107, 2108, 2158),
    # Refused before anything could rest: bad fields, no rights, no margin, price off the grid, id used before.
    _K.REFUSED: (
        *(103, 107, 109, 110, 111, 113, 114, 115, 116, 117, 118, 119, 131, 132),
        *(201, 203, 387, 388, 412, 435, 436, 460, 10043, 10052, 10268, 10269, 10270),
    ),
    _K.CANCELED: (202,),
    _K.WARNING: (399, 404, 481, 492, 2105, 2109, 2119, 2137, 2148, 2157, 10349),
    _K.VALIDATION: (104, 105, 320, 321, 322, 329, 434),
    _K.NOT_CANCELABLE: (135, 136, 161, 10147, 10148),
    _K.UNKNOWN_CONTRACT: (200,),
    _K.PACING: (100, 420),
    _K.NO_DATA: (101, 354, 10089, 10090, 10091, 10167, 10168, 10186, 10197),
    _K.SESSION: (501, 502, 503, 504, 507, 1300),
    _K.TAKEN: (326,),
}

CODES: Mapping[int, Kind] = {code: kind for kind, codes in _BY_KIND.items() for code in codes}


class Heard(NamedTuple):
    """One message of the gateway.

    Attributes:
        about: Number of the order or request it names, -1 for none.
        code: Its number.
        text: What it says.
    """

    about: int
    code: int
    text: str

    @property
    def kind(self) -> Kind:
        """What it is about."""
        return classify(self.code, self.text)

    @property
    def farm(self) -> str:
        """Of a message about a data centre, which one: its name ends the text."""
        return self.text.rpartition(":")[2].strip()

    @property
    def rule(self) -> Rule:
        """What follows."""
        return RULES[self.kind]

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip()


def classify(code: int, text: str = "") -> Kind:
    """The kind of message *code*; its *text* tells a gateway that only reads from a field that it dislikes."""
    if code == 321 and "read-only" in text.lower():
        return Kind.READ_ONLY
    known = CODES.get(code)
    if known is not None:
        return known
    return Kind.WARNING if 2100 <= code < 2200 else Kind.UNKNOWN

"""What an options run is begun with: which market, which days of a recording, which underlyings, which layers.

It is written down as `run.json` before anything is traded, so that `--dir` alone takes a run up again. A recording is
played day by day, each with an account, a journal and a lake of its own: days years apart are no market that a position
lives through. What nobody can trade is refused here, by name, with what there is.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from holdfast.cli.paper.exchange_process import BrokerEndpoints, running_exchange
from holdfast.cli.paper.session import refuse_another_desk
from holdfast.config import Config, OptionsDeskConfig
from holdfast.core.errors import BadInput
from holdfast.core.money import format_money
from holdfast.execution.desk import Layer

SYMBOLS = ("SPY", "QQQ", "IWM", "SPX")
LAST = "last"
"""As a day of a recording, to the broker."""

Recorded = Mapping[int, tuple[str, ...]]
"""Every day of a recording, yyyymmdd, with its underlyings."""
_NOTHING: Recorded = {}


class DeskFacts(msgspec.Struct, frozen=True):
    """What a run was begun with.

    *day* is of a tape, 0 for its last one where *days* does not name several, which are then played one after the
    other; *cash* is what the account began with, "" for the broker's own; *reference*, *iv_rank* and *vix* are as they
    were given, "" for not at all.
    """

    seed: int
    tape: str | None
    symbols: tuple[str, ...]
    layers: tuple[str, ...]
    full_story: bool
    day: int = 0
    cash: str = ""
    days: tuple[int, ...] = ()
    reference: str = ""
    iv_rank: str = ""
    vix: str = ""


def recall(args: argparse.Namespace, config: Config, directory: Path, layers: frozenset[Layer]) -> DeskFacts:
    """What the run in *directory* was begun with; written down when it begins now.

    Raises:
        BadInput: It was begun otherwise, or is no such run, or begins with what the recording does not hold.
        VenueUnreachable: There is no such recording.
    """
    path = directory / "run.json"
    try:
        content = path.read_bytes()
        refuse_another_desk(content, directory, "options")
        begun = msgspec.json.decode(content, type=DeskFacts)
    except FileNotFoundError:
        facts = _begin(args, config.options_desk, layers)
        path.write_bytes(msgspec.json.encode(facts))
        return facts
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"{str(path)!r} is no options run: {error}", hint="start a new run without --dir"
        ) from error
    _refuse_another(args, begun, directory)
    return begun


def _begin(args: argparse.Namespace, own: OptionsDeskConfig, layers: frozenset[Layer]) -> DeskFacts:
    plain = OptionsDeskConfig()
    chosen = own.symbols if own.symbols != plain.symbols else ()
    named = tuple(word.strip() for word in args.symbols.split(",")) if args.symbols else chosen
    played = _asked_for(args.day, named, asyncio.run(_recorded(args.tape))) if args.tape else _NOTHING
    found = tuple(dict.fromkeys(symbol for there in played.values() for symbol in there))
    cut = args.tape or named or args.reference or args.iv_rank or args.vix
    return DeskFacts(
        seed=args.seed,
        tape=args.tape,
        symbols=named or found or SYMBOLS,
        layers=tuple(layer.value for layer in Layer if layer in layers),
        full_story=not cut and len(layers) == len(Layer),
        day=args.day or (next(iter(played)) if len(played) == 1 else 0),
        cash="" if own.equity == plain.equity else format_money(own.equity),
        days=tuple(sorted(played)) if len(played) > 1 else (),
        reference=args.reference or "",
        iv_rank=args.iv_rank or "",
        vix=args.vix or "",
    )


async def _recorded(tape: str) -> Recorded:
    """What *tape* holds, asked of the only process that reads recordings."""
    async with running_exchange(
        ["--desk", "options", "--port", "0", f"--tape={tape}", "--day", LAST], BrokerEndpoints
    ) as broker:
        return broker.days


def _asked_for(day: int | None, named: tuple[str, ...], recorded: Recorded) -> Recorded:
    """The days asked for that have something named; what none has would be traded by nobody, without a word.

    Raises:
        BadInput: A day or an underlying that is not recorded; it lists what there is.
    """
    asked = recorded if day is None else {day: recorded.get(day, ())}
    held = {symbol for there in asked.values() for symbol in there}
    lacking = [symbol for symbol in named if symbol not in held]
    if lacking or not held:
        there = "; ".join(f"{one} {', '.join(symbols)}" for one, symbols in sorted(recorded.items()))
        on = "" if day is None else f" on {day}"
        raise BadInput(
            f"no contracts on {', '.join(lacking)} are recorded{on}"
            if lacking
            else f"nothing is recorded{on}",
            hint=f"there are: {there}",
        )
    return {one: there for one, there in asked.items() if not named or set(named) & set(there)}


def _refuse_another(args: argparse.Namespace, begun: DeskFacts, directory: Path) -> None:
    """What a run was begun with stays so; another wish would be ignored without a word."""
    had = {
        "tape": begun.tape or "",
        "day": str(begun.day or ""),
        "symbols": ",".join(begun.symbols),
        "layers": ",".join(begun.layers),
    }
    for name, value in had.items():
        wanted = getattr(args, name)
        if wanted is not None and str(wanted).replace(" ", "") != value:
            raise BadInput(
                f"--{name} {wanted}: the run in {str(directory)!r} was begun with {value or 'none'}",
                hint=f"leave --{name} out, or start a new run without --dir",
            )

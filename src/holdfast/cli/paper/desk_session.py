"""One options run, from the broker's start to the summary.

Order of events: broker up → desk wired, its chains read → reconciled → trading in the broker's market time, the story
told from the journal → books compared with the broker's own → journal closed and verified → the lake brought up to
the journal's end and compared with it → one byte of a copy changed → summary. Ends with 1 when anything the run
promises was not seen, 3 when the journal is damaged, 4 when an order is still unknown.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import sys
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.query import read_records
from holdfast.cli.output import on_terminal, print_json, tell
from holdfast.cli.paper.desk_facts import LAST, DeskFacts, recall
from holdfast.cli.paper.desk_story import DeskStory
from holdfast.cli.paper.desk_summary import (
    DeskOutcome,
    LakeFacts,
    print_days,
    print_desk_summary,
    sum_up_desk,
    worst_of,
)
from holdfast.cli.paper.exchange_process import BrokerEndpoints, listens, running_exchange, until_gone
from holdfast.cli.paper.screen import Screen, choose_screen
from holdfast.cli.paper.session import (
    compare_books,
    forget_unbegun,
    run_directory,
    tell_from,
    until_final,
    until_told,
)
from holdfast.cli.paper.summary import sum_up
from holdfast.config import Config, OptionsDeskConfig, load_config
from holdfast.core.errors import BadInput, TradingError, VenueUnreachable
from holdfast.core.extras import how_to_install
from holdfast.core.money import PriceE4, format_qty
from holdfast.execution.desk import Layer, read_layers
from holdfast.execution.entry import EntryRules
from holdfast.execution.reference import ReferenceInput
from holdfast.execution.structures import StructureKind, StructurePlan
from holdfast.risk.stop_rules import PercentTrail, TrailingStopConfig
from holdfast.wiring import WiredOptionsDesk, open_options_desk

KNOWN_SEED = 1
"""Whose day is known to show every chapter; of another the market decides what it shows."""
# Market seconds at which the broker of the full story misbehaves: in the first combination, and before the second entries.
STORY_FAULTS = "30:disconnect_mid_combo=1,3390:reads_500=6"
ASSUMED_RANKS = {"SPY": 6200, "QQQ": 7000, "IWM": 3500, "SPX": 1800}
"""IV ranks of the seeded run, in 1/100: dear, dear, neither, cheap."""
TAPE_RANKS = {"SPY": 1800, "GOOG": 6200, "SPX": 1800}
ASSUMED_RANK, ASSUMED_VIX = 6000, 1800
OWN = "own"
"""As a lake: a folder of the run's own directory, or of its day's."""
CREDIT_STOP = TrailingStopConfig(10, 8, 1, rules=(PercentTrail(800, "entry"),), negative_premiums=True)
"""Of a net credit: trails once a tenth of it is earned, and keeps its distance when the premium nears zero."""
DEBIT_STOP = TrailingStopConfig(100, 50, 1)
"""Of what was bought: trails once it has doubled. The published 2 / 1.5 / 0.5 lies inside most options' spread."""
PAPER_RULES = EntryRules(
    when_dear=(StructurePlan(kind=StructureKind.IRON_CONDOR, width=PriceE4(50_000), min_days=5),),
    when_cheap=(StructurePlan(kind=StructureKind.LONG_STRANGLE, delta_e6=80_000, min_days=0, max_days=0),),
)
TAPE_RULES = EntryRules(
    when_dear=tuple(
        StructurePlan(kind=kind, delta_e6=250_000, width=PriceE4(50_000), max_debit=PriceE4(-5_000))
        for kind in (StructureKind.PUT_CREDIT, StructureKind.CALL_CREDIT, StructureKind.IRON_CONDOR)
    ),
    when_cheap=tuple(
        StructurePlan(kind=kind, max_debit=PriceE4(50_000))
        for kind in (StructureKind.LONG_STRANGLE, StructureKind.LONG_CALL, StructureKind.LONG_PUT)
    ),
)
"""The recordings hold few strikes, and those far out are seldom quoted: spreads near the money that bring in a
tenth of their width, and of what is bought, an index's strangle among it, only what costs no more than the $500 that an
order may cost where nothing else is said."""
TAPE_DEBIT_STOP = TrailingStopConfig(4, 3, 1)
"""Of what was bought on a recorded day, on which little doubles."""


class _Plan(NamedTuple):
    """One market to trade: the whole run, or one day of a recording."""

    args: argparse.Namespace
    facts: DeskFacts
    config: Config
    directory: Path
    reference: ReferenceInput
    lake: str


class _Ended(NamedTuple):
    outcome: DeskOutcome
    interrupted: bool


def run_desk_session(args: argparse.Namespace) -> int:
    """Run it, print a summary for each day, return the exit code."""
    if args.strategy or args.exchange or args.key_id or args.pem:
        raise BadInput(
            "--strategy, --exchange, --key-id and --pem are for event contracts",
            hint="docs/options.md shows a structure of your own",
        )
    if args.day is not None and not args.tape and not args.dir:
        raise BadInput("--day is of a tape, and none is named", hint="add --tape, or leave --day out")
    config = load_config(Path(args.config) if args.config else None)
    _reference(args, None, config.options_desk)  # what cannot be read is said before anything is begun
    layers = read_layers(args.layers or ",".join(config.options_desk.layers))
    lake = _lake_of(args)
    if args.tape and importlib.util.find_spec("QuantLib") is None:
        raise BadInput(
            "the Greeks of a recording need QuantLib, which is not installed", hint=how_to_install("options")
        )
    directory = run_directory(args, Path(config.paths.state), "options")
    try:
        facts = recall(args, config, directory, layers)
        reference = _reference(args, facts, config.options_desk)
        return _play(_Plan(args, facts, config, directory, reference, lake))
    except (BadInput, VenueUnreachable):
        forget_unbegun(directory)
        raise


def _play(whole: _Plan) -> int:
    """Trade every day of the run until one is cut short; the exit code of the worst."""
    days = whole.facts.days
    outcomes: list[DeskOutcome] = []
    stops = logging.getLogger("holdfast.risk.stops")
    heard = stops.level
    stops.setLevel(logging.ERROR)  # a trail inside the spread is said in the stop's own event
    try:
        for day in days or (whole.facts.day,):
            plan = whole
            if days:
                own = whole.directory / str(day)
                own.mkdir(mode=0o700, exist_ok=True)
                plan = whole._replace(facts=msgspec.structs.replace(whole.facts, day=day), directory=own)
            screen = choose_screen(
                json=plan.args.json, terminal=on_terminal(), chapters=plan.facts.full_story
            )
            ended = asyncio.run(_session(plan, screen))
            outcomes.append(ended.outcome)
            if plan.args.json:
                print_json(ended.outcome)
            else:
                print_desk_summary(ended.outcome)
            if ended.interrupted:
                break
    finally:
        stops.setLevel(heard)
    if len(days) > 1 and not whole.args.json:
        print_days(outcomes, days)
    return worst_of(outcomes)


def _reference(
    args: argparse.Namespace, begun: DeskFacts | None, configured: OptionsDeskConfig
) -> ReferenceInput:
    """IV rank and VIX: as given now or when the run was begun, as configured, or the paper run's own assumptions."""
    given = args.iv_rank is not None or args.vix is not None
    if begun is not None and not given and args.reference is None:
        was = {"reference": begun.reference, "iv_rank": begun.iv_rank, "vix": begun.vix}
        args = argparse.Namespace(**{name: value or None for name, value in was.items()})
        given = args.iv_rank is not None or args.vix is not None
    if args.reference is not None:
        if given:
            raise BadInput(
                "--reference and --iv-rank, --vix exclude each other", hint="name a file or the figures"
            )
        return ReferenceInput() if args.reference == "none" else ReferenceInput.read(Path(args.reference))
    if given:
        return ReferenceInput.by_hand(
            iv_rank=args.iv_rank if args.iv_rank is not None else str(Decimal(ASSUMED_RANK) / 100),
            vix=args.vix if args.vix is not None else str(Decimal(ASSUMED_VIX) / 100),
        )
    if configured.reference:
        return ReferenceInput.read(Path(configured.reference))
    if configured.iv_rank and configured.vix:
        return ReferenceInput.by_hand(iv_rank=configured.iv_rank, vix=configured.vix)
    return ReferenceInput(
        vix_e2=ASSUMED_VIX,
        iv_ranks_e2=TAPE_RANKS if begun is not None and begun.tape else ASSUMED_RANKS,
        iv_rank_e2=ASSUMED_RANK,
        source="the paper run's own",
    )


def _lake_of(args: argparse.Namespace) -> str:
    """Where the risk events go, "" for nowhere, OWN for a folder of the run; what was asked for must take them.

    Raises:
        BadInput: It needs its extra, or is no place that tables can lie in.
    """
    if args.lake == "none":
        return ""
    is_there = importlib.util.find_spec("deltalake") is not None
    if args.lake is not None and not is_there:
        raise BadInput("--lake needs the extra 'lake', which is not installed", hint=how_to_install("lake"))
    if args.lake is None:
        return OWN if is_there else ""
    from holdfast.lake.store import store_of

    store = store_of(args.lake)
    store.prove()  # a day's trading should not end with a place that takes nothing
    return store.uri


async def _session(plan: _Plan, screen: Screen) -> _Ended:
    args, facts, directory = plan.args, plan.facts, plan.directory
    lake = str(directory / "lake") if plan.lake == OWN else plan.lake
    audit = directory / "audit"
    full_story = _promises_all(plan)
    async with running_exchange(_broker_arguments(args, facts, directory), BrokerEndpoints) as broker:
        screen.heading(f"run directory {directory}: {broker.market}; Ctrl-C ends it")
        desk = await _open(plan, broker, lake)
        story = DeskStory()
        for record in read_records(audit, missing_ok=True):
            story.recall(record)
        why_none = "none, as asked" if args.lake == "none" else f"none; for one, {how_to_install('lake')}"
        said = await _start_projector(desk) if lake else why_none
        try:
            with screen:
                interrupted = await until_told(
                    lambda stop: _follow(desk, stop),
                    tell_from(audit, story, screen),
                    until_gone(lambda: listens(broker.ws)),
                )
                if interrupted:
                    full_story = False
                    screen.heading("interrupted; the story ends here")
            resting, differences = await compare_books(desk.trader, cancel=args.cancel_on_exit)
            today = desk.trader.gate.daily_pnl()
            positions = sorted(desk.trader.account.portfolio.positions.items())
            held = {ticker: format_qty(qty) for ticker, qty in positions if qty}
        finally:
            await desk.close()
    for record in read_records(audit, start_seq=story.last_seq + 1):
        for line in story.tell(record):
            screen.show(line, story)
    run = sum_up(
        facts.seed, directory, story,
        differences=differences, resting=resting, today=today, full_story=full_story,
    )  # fmt: skip
    kept = await _bring_to_the_end(audit, lake, said)
    return _Ended(sum_up_desk(run, story, layers=list(facts.layers), held=held, lake=kept), interrupted)


def _promises_all(plan: _Plan) -> bool:
    """Whether every chapter must be shown: not by a run cut short, taken up again, or under rules of one's own."""
    args, facts = plan.args, plan.facts
    return (
        facts.full_story
        and facts.seed == KNOWN_SEED
        and not (plan.directory / "audit").exists()
        and args.seconds is None
        and args.market_seconds is None
        and _is_plain(plan.config)
    )


async def _open(plan: _Plan, broker: BrokerEndpoints, lake: str) -> WiredOptionsDesk:
    """The desk at *broker*, under the paper run's rules and, where nobody configured others, its stops."""
    facts, config = plan.facts, plan.config
    own_stops = config.stops.trailing_stop == TrailingStopConfig()
    return await open_options_desk(
        config,
        audit_dir=plan.directory / "audit",
        url=broker.ws,
        token=broker.token,
        symbols=[symbol for symbol in facts.symbols if symbol in broker.symbols],
        reference=plan.reference,
        market_ns=broker.clock,
        layers=[Layer(word) for word in facts.layers],
        lake=lake or None,
        entry_rules=TAPE_RULES if facts.tape else PAPER_RULES,
        stops=(TAPE_DEBIT_STOP if facts.tape else DEBIT_STOP) if own_stops else None,
        credit_stops=CREDIT_STOP if own_stops else None,
        seed=facts.seed,
        tell=tell,
    )


def _is_plain(config: Config) -> bool:
    """Whether limits, stops and desk are as they come."""
    plain = Config()
    own = (config.limits, config.stops, config.options_desk)
    return own == (plain.limits, plain.stops, plain.options_desk)


def _broker_arguments(args: argparse.Namespace, facts: DeskFacts, directory: Path) -> list[str]:
    arguments = ["--desk", "options", "--seed", str(facts.seed), "--port", "0", "--hold"]
    arguments += ["--dir", str(directory / "broker"), "--speed", args.speed or "max"]
    if args.seconds is not None:
        arguments += ["--seconds", str(args.seconds)]
    if args.market_seconds is not None:
        arguments += ["--market-seconds", str(args.market_seconds)]
    if facts.tape:
        arguments += [f"--tape={facts.tape}", "--day", str(facts.day or LAST)]
    else:
        arguments += ["--symbols", ",".join(facts.symbols)]
    if facts.cash:
        arguments += ["--cash", facts.cash]
    if facts.full_story:
        arguments += ["--faults-at", STORY_FAULTS]
    return arguments


async def _follow(desk: WiredOptionsDesk, stop: asyncio.Event) -> None:
    """Reconcile, then deal with the broker's events in order."""
    stream = until_final(stop, desk.venue.events(desk.tickers))
    async with aclosing(stream):
        await desk.trader.start()
        await desk.trader.run(stream)


async def _start_projector(desk: WiredOptionsDesk) -> str:
    """Start what carries events into the lake beside the run; why it did not start, or ""."""
    try:
        await desk.events.initialize()
    except TradingError as error:
        # Events are in the journal all the same; the end of the run brings them.
        return str(error)
    return ""


async def _bring_to_the_end(audit: Path, lake: str, said: str) -> LakeFacts:
    """Project what is left once the journal is closed, and count what is there, in a process that holds the lake."""
    expected = sum(1 for record in read_records(audit) if record.type == "RISK_EVENT")
    if not lake:
        return LakeFacts(said=said, expected=expected)
    code, told = await _lake_verb("project", str(audit), "--lake", lake)
    if code:
        return LakeFacts(uri=lake, said=f"NOT brought to the end: {told}", expected=expected, failed=True)
    code, told = await _lake_verb("verify", str(audit), "--lake", lake)
    said = "" if not code else told
    return LakeFacts(uri=lake, rows=_rows(told), said=said, expected=expected, failed=bool(code))


async def _lake_verb(*words: str) -> tuple[int, str]:
    """Run `holdfast lake …` in a process of its own; its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", "lake", *words, "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, (out or err).decode(errors="replace").strip()


def _rows(told: str) -> dict[str, int] | None:
    """Rows by table, as `lake verify --json` says."""
    try:
        words: dict[str, Any] = msgspec.json.decode(told)
    except msgspec.DecodeError:
        return None
    return {str(one["table"]): int(one["rows"]) for one in words.get("compared", ())} or None

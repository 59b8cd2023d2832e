"""`holdfast settle`: a person says what an ended option paid that the broker told by positions alone.

It works on the journal of a trader that is stopped, and holds it meanwhile: the next start goes on from what was said.
Who said it and why stands in the journal beside what is booked. Without a contract it lists what waits to be told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.audit.verbs import path_argument, require_log
from holdfast.cli.output import add_json_argument, print_json, printable
from holdfast.core.errors import EXIT_OK, AuditCorruption, AuditWriteError, BadInput

if TYPE_CHECKING:
    from holdfast.audit.wal import WriteAheadLog
    from holdfast.risk.account import Account
    from holdfast.risk.claims import Claim

_EXAMPLES = """examples:
  holdfast settle --log logs/ib                                    # what waits to be told, and what was assumed
  holdfast settle --log logs/ib SPXW251219C06600000 34.5000 --who ann --reason "statement of 2025-12-19"

The price is what one unit of the underlying paid, in dollars: of a contract for 100 that paid 3,450.00 it is 34.50.
Stop the trader first. Said again, the later word counts; an execution that the broker tells after all counts before both.
exit code: 0 listed or booked; 1 no such ending is claimed, or it cannot have paid that; 3 the journal contradicts
itself; 4 the trader runs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb."""
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--log", metavar="DIR", type=path_argument, required=True, help="the trader's journal"
    )
    parser.add_argument("ticker", metavar="CONTRACT", nargs="?", help="the option that ended")
    parser.add_argument("price", metavar="PRICE", nargs="?", help="dollars per unit of the underlying")
    parser.add_argument("--who", metavar="NAME", help="who says so")
    parser.add_argument("--reason", metavar="TEXT", help="where it is from")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """List what waits to be told, or book what is told."""
    directory: Path = args.log
    require_log(directory)
    if args.ticker is None:
        return _list(directory, as_json=args.json)
    missing = [
        word
        for word, said in (("PRICE", args.price), ("--who", args.who), ("--reason", args.reason))
        if not said
    ]
    if missing:
        raise BadInput(
            f"settling {args.ticker!r} lacks {', '.join(missing)}",
            hint="holdfast settle --help shows a whole one",
        )
    return _settle(directory, args)


def _list(directory: Path, *, as_json: bool) -> int:
    from holdfast.audit.query import read_records
    from holdfast.execution.replay import replay_log

    account = replay_log(read_records(directory)).account
    waiting = account.claims.settleable()
    if as_json:
        print_json({"state": account.holds.state.name, "endings": [_facts(claim) for claim in waiting]})
        return EXIT_OK
    if not waiting:
        print("no ending of an option is claimed")
    for claim in waiting:
        facts = _facts(claim)
        print(
            f"{printable(facts['ticker'])}  {facts['quantity']} closed at {facts['price']}: amount {facts['amount']}"
        )
    return EXIT_OK


def _settle(directory: Path, args: argparse.Namespace) -> int:
    from holdfast.audit.logger import AuditLogger
    from holdfast.cli.audit.writing import open_log
    from holdfast.core.money import format_money, parse_price
    from holdfast.execution.claimed import ClaimedEndings
    from holdfast.execution.ledger import Ledger

    price = parse_price(args.price)
    with open_log(directory) as log:
        log.open()  # nobody writes it from here on: what is read stays true until it is written
        account = _account_of(log)
        ledger = Ledger(account, AuditLogger(log, user=args.who), user=args.who)
        cash = account.portfolio.cash
        booked = ClaimedEndings(ledger).settle(args.ticker, price, who=args.who, why=args.reason)
        if not ledger.write_now():
            raise AuditWriteError(
                "nothing is settled: the journal took no record", hint="look at its disk, then say it again"
            )
        change = format_money(type(cash)(account.portfolio.cash - cash))
        state = account.holds.state.name
    facts = {
        "ticker": args.ticker,
        "price": args.price,
        "booked": len(booked),
        "cash": change,
        "state": state,
    }
    if args.json:
        print_json(facts)
    else:
        print(f"settled: {printable(args.ticker)} at {args.price}, cash {change} USD; state {state}")
    return EXIT_OK


def _account_of(log: WriteAheadLog) -> Account:
    """The account as the trader would begin with it.

    Raises:
        AuditCorruption: The journal is no whole story; nothing is booked on top of it.
    """
    from holdfast.execution.replay import replay_log

    replayed = replay_log(log.records())
    if replayed.contradictions:
        sequence, why = replayed.contradictions[0]
        raise AuditCorruption(
            f"the journal contradicts itself at sequence {sequence}: {why}",
            hint="holdfast audit replay DIR names all of it",
        )
    return replayed.account


def _facts(claim: Claim) -> dict[str, Any]:
    from holdfast.core.money import format_price, format_qty

    return {
        "ticker": claim.fill.ticker,
        "quantity": format_qty(claim.left),
        "price": format_price(claim.fill.price),
        "amount": claim.amount,
    }

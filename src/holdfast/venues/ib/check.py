"""`python -m holdfast.venues.ib.check`: what a gateway lets us see, without a journal and without any order.

It connects as a client that only reads and prints the account, its cash, its positions, how many options are listed
on one stock, and the stock's quote. It exits with 0, or as the error says: 1 for a refusal, 5
for a gateway that cannot be reached.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from holdfast.audit.wal import Level
from holdfast.core.errors import EXIT_OK, TradingError, VenueError
from holdfast.core.money import format_money, format_price, format_qty
from holdfast.venues.ib.adapter import IBVenue

_LAST_PORT = 65_535
_LONGEST_SECS = 300


class _Unrecorded:
    """Takes the records of reads that nobody keeps."""

    async def record_async(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str | None = None,
        component: str = "",
        level: Level | None = None,
    ) -> int:
        del type, details, user, component, level
        return 0


async def report(venue: IBVenue, symbol: str) -> AsyncIterator[str]:
    """What *venue* lets us see, line by line.

    Raises:
        VenueError: Something that every account has could not be read.
    """
    await venue.connect()
    money = "" if venue.session.is_paper else ", real money"
    yield f"connected to {venue.session.address}, account {venue.session.account}{money}"
    yield f"cash {format_money(await venue.balance())} USD, free for new positions {format_money(await venue.buying_power())} USD"
    held = await venue.positions()
    yield f"positions: {len(held)}"
    for ticker, qty in sorted(held.items()):
        yield f"  {ticker} {format_qty(qty)}"
    stock = await venue.instrument(symbol)
    yield f"{symbol}: {'open' if stock.is_open else 'closed'}"
    days = await venue.expiries(symbol)
    listed = len(await venue.chain(symbol, expiry=days[0])) if days else 0
    yield f"options on {symbol}: {len(days)} expiries, {listed} contracts in the first"
    try:
        book = await venue.book(symbol)
    except VenueError as error:
        yield f"quote of {symbol}: none: {error}"
        if error.hint:
            yield f"hint: {error.hint}"
        return
    sides = (book.best_bid, book.best_ask)
    bid, ask = ("none" if price is None else format_price(price) for price in sides)
    yield f"quote of {symbol}: bid {bid}, ask {ask}"


async def check(arguments: argparse.Namespace, ib: Any = None) -> int:
    """Print the report; returns the exit code."""
    venue = IBVenue(
        ib,
        audit=_Unrecorded(),
        host=arguments.host,
        port=arguments.port,
        client_id=arguments.client_id,
        account=arguments.account,
        timeout_secs=arguments.timeout,
        readonly=True,
    )
    try:
        async for line in report(venue, arguments.symbol):
            sys.stdout.write(f"{line}\n")
    except TradingError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"holdfast: {error}{hint}\n")
        return error.exit_code
    finally:
        await venue.close()
    return EXIT_OK


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a whole number from 1 to {_LAST_PORT}")
    return int(text)


def _client_id(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no client id: a whole number from 1, 0 is the person's at the screen"
        )
    return int(text)


def _timeout(text: str) -> float:
    try:
        secs = float(text)
    except ValueError:
        secs = 0.0
    if not 0 < secs <= _LONGEST_SECS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time to wait: seconds above 0, up to {_LONGEST_SECS}"
        )
    return secs


def main(argv: Sequence[str] | None = None, ib: Any = None) -> int:
    """The command; *ib* stands in for the library's client in tests."""
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.venues.ib.check",
        description="Show what a gateway of Interactive Brokers lets us see; nothing is ordered.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the gateway listens (default %(default)s)")
    parser.add_argument("--port", type=_port, default=7497, help="its API port (default %(default)s)")
    parser.add_argument(
        "--client-id", type=_client_id, default=18, help="free at the gateway (default %(default)s)"
    )
    parser.add_argument("--account", default="", help="where the login has several")
    parser.add_argument("--symbol", default="SPY", help="a stock to look at (default %(default)s)")
    parser.add_argument("--timeout", type=_timeout, default=10.0, help="seconds for an answer (default 10)")
    try:
        return asyncio.run(check(parser.parse_args(argv), ib))
    except TradingError as error:
        sys.stderr.write(f"holdfast: {error}\nhint: {error.hint}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

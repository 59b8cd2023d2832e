"""`holdfast submit`: a trader for any language. Signals in as JSON Lines, one outcome line each out.

Every line goes through the same gate, journal and client as everything else. An intent that is already in the
journal is not sent again: its recorded outcome is printed. The outcome of an order is printed once it
is final, or after `--settle` seconds; an order whose answer was lost stays UNKNOWN with its exposure
reserved, is printed as `unknown`, and makes the exit code 4.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.breaker.breaker import TradingCircuitBreaker
    from holdfast.config import Config
    from holdfast.core.reasons import RejectReason
    from holdfast.core.signals import Signal
    from holdfast.execution.trader import Trader
    from holdfast.wiring import Desk

_MAX_LINE_BYTES = 65_536
_TOLD_EACH = 3
_START_WAITS_SECS = (0.2, 0.4, 0.8, 1.6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `holdfast submit`."""
    from holdfast.cli.output import add_json_argument

    parser.epilog = (
        "one JSON object a line on standard input:\n"
        '  {"intent": "my-1", "ticker": "KX…", "action": "buy", "side": "yes", "count": "10", "price": "0.56"}\n'
        'price in dollars of the named side; "tif" is "ioc" (default), "fok", or "gtc", final once it works.\n\n'
        "one JSON object a line on standard output:\n"
        '  {"intent", "client_order_id", "outcome", "reason", "order_id", "filled"}\n'
        "outcome: filled partial working canceled rejected denied not_sent unknown\n"
        "why an order was denied stands on standard error too, with its figures and a hint\n\n"
        "examples:\n"
        "  holdfast submit < signals.jsonl\n"
        "  my-bot | holdfast submit --rest http://127.0.0.1:8080/trade-api/v2 --key-id ID --pem key.pem\n\n"
        "Limits come from holdfast.toml; without one the defaults of `holdfast submit --show-limits` hold.\n"
        "exit codes:\n"
        "  0  all lines were dealt with\n"
        "  1  a line could not be read, the key was refused, the journal cannot be written there\n"
        "  4  an order is still unknown, the journal is held or its disk full, trading is restricted\n"
        "  5  the venue cannot be reached"
    )
    parser.add_argument(
        "--venue", choices=["kalshi"], default="kalshi", help="where to trade (default kalshi)"
    )
    parser.add_argument("--rest", metavar="URL", help="REST address, ending in /trade-api/v2")
    parser.add_argument("--ws", metavar="URL", help="WebSocket address; default: beside --rest")
    parser.add_argument(
        "--key-id", metavar="ID", help="API key; it needs read and trade rights, never transfer"
    )
    parser.add_argument("--pem", metavar="FILE", help="its private key, mode 0600")
    parser.add_argument("--log", metavar="DIR", help="the journal's directory (default [paths] audit)")
    parser.add_argument(
        "--settle", type=float, default=30.0, metavar="SECS", help="longest wait for an outcome"
    )
    parser.add_argument(
        "--reset-breaker",
        action="store_true",
        help="release the venue's breaker that a refused key or a wrong clock latched, once that is repaired",
    )
    parser.add_argument("--config", metavar="FILE", help="read this holdfast.toml")
    parser.add_argument("--show-limits", action="store_true", help="print the limits in force and stop")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Trade standard input; the exit code."""
    import msgspec

    from holdfast.config import load_config
    from holdfast.core.errors import EXIT_OK, ConfigError

    config = load_config(Path(args.config) if args.config else None)
    if args.show_limits:
        _print_limits(config, as_json=args.json)
        return EXIT_OK
    given = {
        "base_url": args.rest,
        "ws_url": args.ws,
        "key_id": args.key_id,
        "pem": args.pem,
    }
    kalshi = msgspec.structs.replace(config.kalshi, **{name: value for name, value in given.items() if value})
    if not kalshi.key_id or not kalshi.pem:
        raise ConfigError(
            "no API key to trade with",
            hint="give --key-id and --pem, set KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH, or write [venue.kalshi]",
        )
    config = msgspec.structs.replace(config, kalshi=kalshi)
    return asyncio.run(
        _submit(
            config, Path(args.log or config.paths.audit), args.settle, reset_breaker=bool(args.reset_breaker)
        )
    )


async def _submit(config: Config, log: Path, settle_secs: float, *, reset_breaker: bool) -> int:
    from holdfast.cli.output import tell
    from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_OK, EXIT_USER_ERROR
    from holdfast.wiring import open_desk

    desk = open_desk(config, audit_dir=log, tell=tell)
    bad = unknown = number = 0
    try:
        if reset_breaker:
            desk.client.breaker.reset(desk.client.user_id, "submit --reset-breaker")
        await _start(desk)
        running = asyncio.create_task(desk.trader.run(desk.venue.events(())))
        lines, refusals = _Lines(), _Refusals()
        try:
            while line := await lines.next(running):
                number += 1
                if not line.strip():
                    continue
                answer = await _answer(desk.trader, line, number, settle_secs, refusals)
                bad += "error" in answer
                unknown += answer.get("outcome") == "unknown"
                _print(answer)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        _refuse_if_unable(desk)
    finally:
        await desk.close()
    if unknown:
        return EXIT_CANNOT_ACT
    return EXIT_USER_ERROR if bad else EXIT_OK


async def _start(desk: Desk) -> None:
    """Reconcile with the venue; an outage is waited out for a few seconds, a refusal is final.

    Raises:
        VenueError: The venue could not be read; nothing was sent.
        CircuitBreakerOpenError: A latch of an earlier run stands, or the outage lasts.
        AuditError: The journal cannot be opened or written.
    """
    from holdfast.core.errors import CircuitBreakerOpenError, VenueRejected

    first: Exception | None = None
    for wait_secs in (*_START_WAITS_SECS, 0.0):
        await desk.trader.start()
        error = desk.trader.unread
        if error is None:
            return _refuse_if_latched(desk.client.breaker)
        if isinstance(error, VenueRejected):
            if error.status in {401, 403}:
                error.hint += "; with this same key: submit --reset-breaker"
            raise error
        if isinstance(error, CircuitBreakerOpenError):
            _refuse_if_latched(desk.client.breaker)
            raise first or error
        first = error
        await asyncio.sleep(wait_secs)
    raise first or AssertionError("the loop runs")


def _refuse_if_latched(breaker: TradingCircuitBreaker) -> None:
    """Read no line where a person has to release the breaker first: its intents would all be denied for good.

    Raises:
        CircuitBreakerOpenError: It is latched, or forced open.
    """
    from holdfast.core.errors import CircuitBreakerOpenError

    if breaker.get_state() not in {"latched", "forced_open"}:
        return
    try:
        breaker.acquire(probe=False).withdraw()
    except CircuitBreakerOpenError as error:
        error.hint = "mend what the log's newest BREAKER record names, then start once with --reset-breaker"
        raise


def _refuse_if_unable(desk: Desk) -> None:
    """At the end: say so where trading is not possible any more.

    Raises:
        AuditError: The journal cannot take records, or has no more room for orders that add risk.
        CannotAct: The trading state allows no increasing order.
    """
    from holdfast.core.errors import CannotAct, DiskFull

    wal = desk.audit.wal
    if wal.state == "poisoned":
        wal.sync()  # raises what it failed of
    if wal.space_low:
        raise DiskFull(
            f"audit log {str(wal.directory)!r} has no room for orders that add risk",
            hint="free space on that volume; cancels and exits go on while they can be written down",
        )
    holds = desk.trader.account.holds
    if not holds.state.allows_increasing:
        held = ", ".join(f"{who}={state}" for who, state in holds.snapshot().items())
        raise CannotAct(
            f"trading is restricted: {holds.state.name} ({held})",
            hint=f"why: holdfast audit query {wal.directory} --type STATE --type RECONCILE --newest-first --limit 5",
        )


class _Lines:
    """Standard input, read one line at a time by a thread that never keeps the process alive."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Semaphore(0)
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        threading.Thread(target=self._read, name="holdfast-stdin", daemon=True).start()

    async def next(self, running: asyncio.Task[None]) -> bytes:
        """The next line, b"" at the end; raises what stopped *running*, if that ends first."""
        self._wanted.release()
        arriving = asyncio.create_task(self._arrived.get())
        await asyncio.wait({arriving, running}, return_when=asyncio.FIRST_COMPLETED)
        if arriving.done():
            return arriving.result()
        arriving.cancel()
        running.result()
        return b""

    def _read(self) -> None:
        while True:
            self._wanted.acquire()
            try:
                line = sys.stdin.buffer.readline(_MAX_LINE_BYTES)
            except (OSError, ValueError):  # closed under us: as good as its end
                line = b""
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, line)
            if not line:
                return


async def _answer(
    trader: Trader, line: bytes, number: int, settle_secs: float, refusals: _Refusals
) -> dict[str, Any]:
    """The outcome of one line, or what is wrong with it."""
    from holdfast.core.errors import BadInput

    try:
        signal = read_line(line)
    except BadInput as error:
        return {"line": number, "error": str(error) + (f" ({error.hint})" if error.hint else "")}
    return await trader.submit(signal, settle_secs=settle_secs, on_refusal=refusals.tell)


class _Refusals:
    """Says on stderr what was refused, with the facts that the answer's one word leaves out.

    The first few of each reason, then every doubling: a bot that never reads our stderr must not block us.
    """

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()

    def tell(self, name: str, reason: RejectReason) -> None:
        """Tell of one refusal."""
        from holdfast.audit.redact import redact_text

        self._told[reason.code] += 1
        count = self._told[reason.code]
        if count <= _TOLD_EACH or count & (count - 1) == 0:
            text = f"holdfast: order {name!r} denied: {reason}\nhint: {reason.hint}"
            print(redact_text(text), file=sys.stderr, flush=True)


def read_line(line: bytes) -> Signal:
    """One line of standard input as a signal.

    Raises:
        BadInput: Not a JSON object, or a field is missing, unknown or unreadable.
    """
    import msgspec

    from holdfast.core.errors import BadInput
    from holdfast.core.signals import read_signal

    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"not one JSON object: {error}") from error
    if not fields.get("intent"):
        raise BadInput("'intent' is missing", hint="a name of your own; the same name is never sent twice")
    for name in ("price", "count"):
        if name in fields and not isinstance(fields[name], str):
            raise BadInput("'price' and 'count' must be decimal strings", hint='such as "0.56" and "10"')
    return read_signal(fields)


def _print(answer: dict[str, Any]) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


def _print_limits(config: Config, *, as_json: bool) -> None:
    from holdfast.cli.output import print_json
    from holdfast.core.money import format_money, format_qty

    limits = config.limits
    if as_json:
        print_json(
            {
                "source": config.source,
                "max_position_size": format_qty(limits.max_position_size),
                "max_order_value": format_money(limits.max_order_value),
                "max_daily_loss": format_money(limits.max_daily_loss),
                "max_mark_age_secs": limits.max_mark_age_secs,
            }
        )
        return
    print(f"limits from {config.source or 'the defaults (no holdfast.toml here)'}")
    print(
        f"  max_position_size  {format_qty(limits.max_position_size)} contracts per market, worst case by side"
    )
    print(f"  max_order_value    ${format_money(limits.max_order_value)} per order, fees left out")
    print(f"  max_daily_loss     ${format_money(limits.max_daily_loss)} below the session's opening value")
    print(f"  max_mark_age_secs  {limits.max_mark_age_secs} s until a held market's price counts as unknown")

"""Bad input, end to end: each mistake has its own name, a hint, an exit code, and costs nothing.

The faults are real: a full volume, a held lock, a directory without rights, a taken port, a damaged file, a
clock that is off. After each the log verifies, what was acknowledged is there, and positions are the exchange's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import polars as pl
import pytest
from support.exchange import (
    TICKER,
    Endpoints,
    ThreadedExchange,
    in_thread,
    lifecycle,
    quiet_feed,
)
from support.places import NOBODY, Volume, as_nobody, folder_for_everybody, small_files, small_volume
from support.recordings import uncountable

from holdfast import KalshiClient, OrderRouter, RiskManager
from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.registry import standard_registry
from holdfast.cli import submit as submit_verb
from holdfast.cli.main import main
from holdfast.core.clock import SystemClock
from holdfast.core.errors import (
    EXIT_CANNOT_ACT,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    EXIT_USER_ERROR,
    AuditError,
    BadInput,
    DiskFull,
    LogHeld,
    LogUnwritable,
    VenueRejected,
)
from holdfast.core.reasons import HINTS, Code
from holdfast.execution.venue import Canceled
from holdfast.venues.paper.auth import KeyPair
from holdfast.venues.paper.events import MarketStatus
from holdfast.venues.paper.tape import open_feed

CLOSED = "KXCLOSED-26DEC31-A"
CHILD_SECS = 60
NOTE = '{"type":"NOTE","user":"desk","details":{"text":"x"}}\n'


class ShiftedClock:
    """The machine's clock, off by some seconds that a test may change."""

    source = "shifted"

    def __init__(self, secs: float) -> None:
        self.secs = secs
        self._clock = SystemClock()

    def now_ns(self) -> int:
        return self._clock.now_ns() + int(self.secs * 1_000_000_000)

    def monotonic_ns(self) -> int:
        return self._clock.monotonic_ns()


class Said(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="module")
def market() -> Iterator[ThreadedExchange]:
    """One open market with a book, one that is closed."""
    feed = quiet_feed(TICKER, CLOSED, events=[lifecycle(0, MarketStatus.CLOSED, ticker=CLOSED)])
    with in_thread(feed) as running:
        yield running


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a verb in this process, its standard input given."""

    def run(*words: object, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def child(*words: object, stdin: str = "", before: tuple[str, ...] = (), **options: Any) -> Said:
    """Runs a verb as a process of its own."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "holdfast", *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CHILD_SECS,
        check=False,
        **options,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def order(intent: str, **changes: Any) -> dict[str, Any]:
    wish = {"ticker": TICKER, "action": "buy", "side": "yes", "count": "1", "price": "0.46"}
    return {"intent": intent, **wish, **changes}


def lines(*wishes: dict[str, Any] | str) -> str:
    return "".join((wish if isinstance(wish, str) else json.dumps(wish)) + "\n" for wish in wishes)


def account(at: Endpoints, log: Path, **instead: object) -> list[object]:
    """The arguments of `submit` for the account at *at*."""
    given = {"rest": at.rest, "ws": at.ws, "key-id": at.key_id, "pem": at.pem_path, "log": log, "settle": 10}
    return [
        "submit",
        *(
            word
            for name, value in (given | instead).items()
            for word in (f"--{name.replace('_', '-')}", value)
        ),
    ]


def explains(said: Said, code: int, *words: str) -> None:
    """The command ended with *code*, its message and its hint on stderr, no traceback and no secret."""
    assert said.code == code, said
    assert said.err.startswith("holdfast: "), said
    assert "\nhint: " in said.err, said
    assert "Traceback" not in said.err
    assert "panicked" not in said.err
    assert "PRIVATE KEY-----\n" not in said.err
    for word in words:
        assert word in said.err, said


def intact(log: Path) -> None:
    report = verify(log)
    assert report.ok, report.problems


def sent(log: Path) -> set[str]:
    """The intents that have an ORDER record: all that may ever have left."""
    return {record.details["intent"] for record in read_records(log) if record.type == "ORDER"}


def orders_at(running: ThreadedExchange) -> int:
    return running.call(lambda: len(running.exchange.books().orders))


def positions_at(running: ThreadedExchange) -> dict[str, int]:
    return {
        ticker: held
        for ticker, held in running.call(lambda: running.exchange.books().positions).items()
        if held
    }


def booked(log: Path) -> dict[str, int]:
    """Positions as the log's fills add up, in 1/100 contract."""
    held: dict[str, int] = {}
    for record in read_records(log):
        if record.type == "TRADE":
            sign = 1 if record.details["side"] == "bid" else -1
            ticker = record.details["ticker"]
            held[ticker] = held.get(ticker, 0) + sign * int(Decimal(record.details["quantity"]) * 100)
    return held


# -- the order itself ----------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, str], Code]] = [
    ("unknown ticker", {"ticker": "KXNOSUCH-26DEC31-A"}, Code.UNKNOWN_INSTRUMENT),
    ("off the grid", {"price": "0.4655"}, Code.PRICE_OFF_GRID),
    ("price of zero", {"price": "0"}, Code.PRICE_OUT_OF_RANGE),
    ("price of one", {"price": "1.00"}, Code.PRICE_OUT_OF_RANGE),
    ("price above one", {"price": "1.20"}, Code.PRICE_OUT_OF_RANGE),
    ("price below zero", {"price": "-0.20"}, Code.PRICE_OUT_OF_RANGE),
    ("price of one for no", {"price": "1.00", "side": "no"}, Code.PRICE_OUT_OF_RANGE),
    ("count of zero", {"count": "0"}, Code.BAD_COUNT),
    ("negative count", {"count": "-3"}, Code.BAD_COUNT),
    ("count below the step", {"count": "0.5"}, Code.COUNT_BELOW_STEP),
    ("count between steps", {"count": "2.25"}, Code.COUNT_BELOW_STEP),
    ("market closed", {"ticker": CLOSED}, Code.MARKET_CLOSED),
]

UNREADABLE: list[tuple[str, dict[str, Any] | str, str]] = [
    ("float price", order("u", price=0.46), "decimal strings"),
    ("float count", order("u", count=1.5), "decimal strings"),
    ("int price", order("u", price=46), "decimal strings"),
    (
        "NaN literal",
        '{"intent":"u","ticker":"X","action":"buy","side":"yes","count":"1","price":NaN}',
        "JSON",
    ),
    ("NaN price", order("u", price="NaN"), "not a plain decimal number"),
    ("infinite price", order("u", price="Infinity"), "not a plain decimal number"),
    ("NaN count", order("u", count="nan"), "not a plain decimal number"),
    ("exponent", order("u", count="1e3"), "not a plain decimal number"),
    ("empty price", order("u", price=""), "not a plain decimal number"),
    ("too exact a price", order("u", price="0.46001"), "more than 4 decimal places"),
    ("too exact a count", order("u", count="1.001"), "more than 2 decimal places"),
    ("no intent", order(""), "'intent' is missing"),
    ("side", order("u", side="maybe"), "maybe"),
    ("misspelt field", order("u", cuont="1"), "unknown field 'cuont'"),
    ("not an object", "[1, 2]", "not one JSON object"),
    ("not JSON", "buy ten", "not one JSON object"),
    ("nested for ever", "[" * 5000, "not one JSON object"),
]


def test_every_bad_order_is_denied_by_name_and_the_good_ones_trade(market, command, tmp_path):
    """`submit` denies each bad order under its own reason with a hint, sends nothing for it, and goes on."""
    log, before = tmp_path / "log", orders_at(market)
    held = positions_at(market).get(TICKER, 0)
    wishes = [order(name, **changes) for name, changes, _ in REFUSED]
    said = command(*account(market.endpoints, log), stdin=lines(order("first"), *wishes, order("last")))

    assert said.code == EXIT_OK, said
    outcomes = {answer["intent"]: answer for answer in said.answers}
    assert outcomes["first"]["outcome"] == outcomes["last"]["outcome"] == "filled"
    violations = [record.details for record in read_records(log) if record.type == "RISK_VIOLATION"]
    for name, _, code in REFUSED:
        answer = outcomes[name]
        assert (answer["outcome"], answer["reason"]) == ("denied", code), answer
        assert (answer["order_id"], answer["filled"]) == ("", "0.00")
        own = [
            line["violation_type"]
            for line in violations
            if line["client_order_id"] == answer["client_order_id"]
        ]
        assert own == [code, "risk_check_failed"]
        assert f"denied: {code}" in said.err
        assert f"hint: {HINTS[code]}" in said.err
    assert sent(log) == {"first", "last"}
    assert orders_at(market) == before + 2
    assert positions_at(market)[TICKER] - held == booked(log)[TICKER] == 200
    intact(log)


def test_a_line_that_cannot_be_read_is_named_and_costs_its_neighbours_nothing(market, command, tmp_path):
    """Float and NaN money, excess digits and broken lines get `line` and `error`; exit code 1; the rest trades."""
    log, before = tmp_path / "log", orders_at(market)
    said = command(
        *account(market.endpoints, log),
        stdin=lines(order("first"), *(wish for _, wish, _ in UNREADABLE), order("last")),
    )
    assert said.code == EXIT_USER_ERROR, said
    assert [said.answers[0]["outcome"], said.answers[-1]["outcome"]] == ["filled", "filled"]
    for number, ((name, _, words), answer) in enumerate(zip(UNREADABLE, said.answers[1:-1], strict=True), 2):
        assert set(answer) == {"line", "error"}, name
        assert answer["line"] == number
        assert words in answer["error"], (name, answer)
    assert sent(log) == {"first", "last"}
    assert orders_at(market) == before + 2
    intact(log)


@contextlib.contextmanager
def desk(at: Endpoints, log: Path, **options: Any) -> Iterator[tuple[KalshiClient, OrderRouter, RiskManager]]:
    """What a Python user has: client, router and manager on one log."""
    clock = SystemClock()
    audit = AuditLogger(WriteAheadLog(log, clock=clock), user="desk")
    given = {"base_url": at.rest, "ws_url": at.ws, "audit_logger": audit}
    client = KalshiClient(
        at.key_id,
        at.pem_path,
        **given | {"registry": standard_registry(clock=clock, audit=audit)} | options,
    )
    try:
        manager = RiskManager(audit_logger=audit)
        router = OrderRouter(client, manager)
        try:
            yield client, router, manager
        finally:
            router.close()
    finally:
        client.close()
        with contextlib.suppress(AuditError):
            audit.wal.close()


@pytest.mark.contract("A7", "A9")
def test_python_meets_the_same_refusals(market, tmp_path):
    """`check_risk` is False with code and hint, `route_order` answers risk_check_failed, and no call is made."""
    log, before = tmp_path / "log", orders_at(market)
    with desk(market.endpoints, log) as (_, router, manager):
        assert router.route_order(order("first"))["status"] == "submitted"
        for name, changes, code in REFUSED:
            answer = router.route_order(order(name, **changes))
            assert answer == {"status": "rejected", "reason": "risk_check_failed"}, name
            assert not manager.check_risk(order(f"{name}, asked", **changes)), name
            assert manager.last_decision is not None
            assert manager.last_decision.reason is not None
            assert manager.last_decision.reason.code is code, name
            assert manager.last_decision.reason.hint == HINTS[code]
    assert sent(log) == {"first"}
    assert orders_at(market) == before + 1
    intact(log)


@pytest.mark.parametrize("ask", ["route_order", "check_risk"])
@pytest.mark.parametrize(
    "changes",
    [
        {"price": 0.46},
        {"price": float("nan")},
        {"price": Decimal("NaN")},
        {"price": Decimal("Infinity")},
        {"price": True},
        {"price": None},
        {"count": 1.5},
        {"count": float("inf")},
        {"count": Decimal("NaN")},
        {"count": "0x10"},
    ],
    ids=repr,
)
def test_python_refuses_float_and_nan_money(unused_desk, ask, changes):
    """A float, NaN or infinite price or count raises BadInput that names the field and says what to write."""
    router, manager, log = unused_desk
    call = router.route_order if ask == "route_order" else manager.check_risk
    with pytest.raises(BadInput, match=next(iter(changes))) as caught:
        call(order("u", **changes))
    assert caught.value.hint
    assert caught.value.exit_code == EXIT_USER_ERROR
    assert not list(log.glob("audit_*")), "nothing is decided about what cannot be read"


@pytest.fixture(scope="module")
def unused_desk(market, tmp_path_factory):
    log = tmp_path_factory.mktemp("python") / "log"
    with desk(market.endpoints, log) as (_, router, manager):
        yield router, manager, log


def test_every_refusal_says_what_to_do():
    """Each code of the closed set has a hint."""
    assert set(HINTS) == set(Code)
    assert all(HINTS.values())


# -- the account ---------------------------------------------------------------------------------------------


@pytest.fixture
def wrong_pem(tmp_path) -> Path:
    """Somebody else's private key, well formed."""
    return KeyPair().write_pem(tmp_path)


@pytest.mark.parametrize("wrong", ["key id", "private key"])
def test_a_wrong_key_ends_submit_before_a_line_is_read(market, command, tmp_path, wrong_pem, wrong):
    """Exit code 1 with the venue's word and a hint; nothing is sent or denied; the right key then trades at once."""
    log, before = tmp_path / "log", orders_at(market)
    instead = {"key-id": "00000000-dead"} if wrong == "key id" else {"pem": wrong_pem}
    said = command(*account(market.endpoints, log, **instead), stdin=lines(order("one")))
    explains(said, EXIT_USER_ERROR, "401 authentication_error", "check the API key")
    assert not said.out
    assert not [record for record in read_records(log) if record.type in {"ORDER", "DECISION"}]
    assert orders_at(market) == before
    intact(log)

    repaired = command(*account(market.endpoints, log), stdin=lines(order("one")))
    assert repaired.code == EXIT_OK, repaired
    assert repaired.answers[0]["outcome"] == "filled"
    intact(log)


@pytest.mark.parametrize("bad", ["missing", "garbage", "readable by others"])
def test_a_private_key_that_cannot_be_used_is_named(market, command, tmp_path, wrong_pem, bad):
    """A missing, broken or exposed key file ends submit with exit code 1, its name and what to do."""
    pem = wrong_pem
    if bad == "missing":
        pem = tmp_path / "none.pem"
    elif bad == "garbage":
        pem.write_text("hello", encoding="ascii")
    else:
        pem.chmod(0o644)
    said = command(*account(market.endpoints, tmp_path / "log", pem=pem), stdin=lines(order("one")))
    explains(said, EXIT_USER_ERROR, str(pem))
    assert not said.out


@pytest.mark.parametrize("skew_secs", [-120, 120])
def test_a_skewed_clock_is_named_and_released_by_a_person(command, tmp_path, skew_secs):
    """Exit code 1 names the time stamp and the clock; with the same key a later start needs --reset-breaker."""
    log, clock = tmp_path / "log", ShiftedClock(skew_secs)
    with in_thread(clock=clock) as running:
        said = command(*account(running.endpoints, log), stdin=lines(order("one")))
        explains(said, EXIT_USER_ERROR, "401 header_timestamp_expired", "clock", "--reset-breaker")
        assert not said.out
        assert orders_at(running) == 0

        clock.secs = 0
        again = command(*account(running.endpoints, log), stdin=lines(order("one")))
        explains(again, EXIT_CANNOT_ACT, "breaker 'kalshi_api' is latched", "--reset-breaker")
        assert not again.out, "a line that is denied for this would be denied for good"

        released = command(*account(running.endpoints, log), "--reset-breaker", stdin=lines(order("one")))
        assert released.code == EXIT_OK, released
        assert released.answers[0]["outcome"] == "filled"
        assert positions_at(running) == booked(log)
    steps = [record.details["to"] for record in read_records(log) if record.type == "BREAKER"]
    assert steps == ["latched", "closed"]
    intact(log)


def test_python_meets_a_skewed_clock_by_name(market, tmp_path):
    """A client whose clock is off raises VenueRejected with the venue's code and a hint; an order is not sent."""
    log, before = tmp_path / "log", orders_at(market)
    with desk(market.endpoints, log, wall_clock=ShiftedClock(-120)) as (client, router, _):
        with pytest.raises(VenueRejected) as caught:
            client.get_balance()
        assert (caught.value.code, caught.value.status) == ("header_timestamp_expired", 401)
        assert "clock" in caught.value.hint
        assert router.route_order(order("one")) == {"status": "error", "reason": "circuit_breaker_open"}
    assert orders_at(market) == before
    intact(log)


def test_an_unreachable_venue_ends_submit(command, monkeypatch, market, tmp_path):
    """Nobody listens: exit code 5, the address is asked about, no line is denied for it."""
    monkeypatch.setattr(submit_verb, "_START_WAITS_SECS", (0.01,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    at = {"rest": f"http://127.0.0.1:{port}/trade-api/v2", "ws": f"ws://127.0.0.1:{port}/"}
    said = command(*account(market.endpoints, log, **at), stdin=lines(order("one")))
    explains(said, EXIT_UNREACHABLE, "Connect call failed", "is the address right")
    assert not said.out
    intact(log)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("verb", ["audit append", "submit", "exchange"])
def test_a_closed_standard_stream_is_an_empty_one(market, tmp_path, verb, closed):
    """A verb that is started without stdin, stdout or stderr neither hangs nor fails, nor writes into its own log."""
    log = tmp_path / "log"
    words: dict[str, list[object]] = {
        "audit append": ["audit", "append", log],
        "submit": account(market.endpoints, log),
        "exchange": ["exchange", "--exit-with-stdin"],
    }
    said = child(*words[verb], before=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert said.code == EXIT_OK, said
    assert all("is signed from here on" in line for line in said.err.splitlines())
    if verb == "submit":
        intact(log)


def test_limits_can_be_shown_to_people_and_programs(command, tmp_path, monkeypatch):
    """`submit --show-limits` prints the limits in force, with --json as one object, and trades nothing."""
    monkeypatch.chdir(tmp_path)
    assert "max_order_value    $500.00" in command("submit", "--show-limits").out
    (shown,) = command("submit", "--show-limits", "--json").answers
    assert (shown["max_position_size"], shown["max_daily_loss"], shown["source"]) == ("100.00", "1000.00", "")


# -- the recording -------------------------------------------------------------------------------------------


def write_tape(path: Path, **changes: Any) -> Path:
    """Two hundred prints of one market."""
    rows = [
        {
            "ts_s": 1_772_461_800 + n,
            "ticker": "KXINXU-26MAR02H1600-T6899.9999",
            "taker_side": "yes" if n % 2 else "no",
            "yes_price_e4": 5_000 + 100 * (n % 7),
            "qty": 10 + n % 5,
            "spx_e2": 690_000 + n,
        }
        for n in range(200)
    ]
    rows[100] |= changes
    pl.DataFrame(rows).write_parquet(path)
    return path


BAD_TAPES = {
    "missing": "does not exist",
    "empty folder": "holds no parquet file",
    "text": "damaged or no parquet file",
    "cut off": "damaged or no parquet file",
    "footer flipped": "damaged or no parquet file",
    "a negative count": "its decoder died (SIGABRT",
    "a pipe inside": "is not a file",
    "another table": "of no known schema",
    "price of 12,000": "damaged at row 100",
    "no rows": "holds no rows",
}


def bad_tape(folder: Path, kind: str) -> Path:
    tape = folder / "tape.parquet"
    match kind:
        case "missing":
            pass
        case "empty folder":
            tape.mkdir()
        case "text":
            tape.write_text("time,price\n", encoding="ascii")
        case "cut off":
            whole = write_tape(tape).read_bytes()
            tape.write_bytes(whole[: len(whole) * 2 // 3])
        case "footer flipped":
            data = bytearray(write_tape(tape).read_bytes())
            for place in (40, 60, 100, 200):
                data[-place] ^= 0xFF
            tape.write_bytes(data)
        case "a negative count":
            uncountable(write_tape(tape))
        case "a pipe inside":
            tape.mkdir()
            os.mkfifo(tape / "x.parquet")
        case "another table":
            pl.DataFrame({"a": [1], "b": [2]}).write_parquet(tape)
        case "price of 12,000":
            write_tape(tape, yes_price_e4=12_000)
        case "no rows":
            pl.read_parquet(write_tape(tape)).clear().write_parquet(tape)
    return tape


@pytest.mark.parametrize("kind", BAD_TAPES)
def test_a_bad_tape_is_named_with_its_place(command, tmp_path, kind):
    """`exchange --tape` ends with exit code 1, the file's name, what is wrong with it and a hint; nothing listens."""
    tape = bad_tape(tmp_path, kind)
    said = command("exchange", "--json", "--tape", tape)
    explains(said, EXIT_USER_ERROR, str(tape), BAD_TAPES[kind])
    assert not said.out


@pytest.mark.parametrize("kind", ["missing", "a negative count"])
def test_paper_passes_on_what_is_wrong_with_the_tape(tmp_path, kind):
    """`paper --tape` says what the exchange said, with its exit code and without the Rust code's own complaints."""
    tape = bad_tape(tmp_path, kind)
    said = child("paper", "--json", "--tape", tape, cwd=tmp_path)
    explains(said, EXIT_USER_ERROR, repr(str(tape)), BAD_TAPES[kind])
    assert not said.out


@pytest.mark.usefixtures("one_decoder")
def test_a_flipped_byte_anywhere_is_refused_or_plays_to_the_end(tmp_path):
    """Whatever byte of a tape is flipped, it is refused as BadInput or every event can be played."""
    good = write_tape(tmp_path / "good.parquet").read_bytes()
    whole = sum(1 for _ in open_feed(tmp_path / "good.parquet"))
    flipped, refused = tmp_path / "flipped.parquet", 0
    for place in range(0, len(good), max(1, len(good) // 60)):
        data = bytearray(good)
        data[place] ^= 0xFF
        flipped.write_bytes(data)
        try:
            assert abs(sum(1 for _ in open_feed(flipped)) - whole) <= 200
        except BadInput:
            refused += 1
    assert refused > 10


# -- the machine ---------------------------------------------------------------------------------------------


def test_a_taken_port_is_named(command):
    """`exchange --port` of another listener ends with exit code 1 and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = command("exchange", "--port", port)
        explains(said, EXIT_USER_ERROR, f"port {port} on 127.0.0.1", "address already in use", "--port")
    assert not said.out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--port", "70000"), EXIT_USER_ERROR),
        (("--port", "http"), EXIT_USAGE),
        (("--seconds", "nan"), EXIT_USAGE),
        (("--seconds", "inf"), EXIT_USAGE),
        (("--seconds", "-3"), EXIT_USAGE),
        (("--market-seconds", "0"), EXIT_USAGE),
        (("--speed", "nan"), EXIT_USAGE),
        (("--start", "yesterday"), EXIT_USAGE),
        (("--host", "0.0.0.0"), EXIT_USER_ERROR),  # noqa: S104  it is refused
        (("--faults", "nope=1"), EXIT_USER_ERROR),
        (("--faults", "drop=2"), EXIT_USER_ERROR),
        (("--tier", "gold"), EXIT_USER_ERROR),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_that_cannot_be_used_is_named(command, words, code):
    """A bad option of `exchange` ends with 1 or 2 and names the value; it is never an internal error."""
    said = command("exchange", *words)
    assert said.code == code, said
    assert words[1] in said.err or words[1].partition("=")[0] in said.err
    assert "internal error" not in said.err
    assert not said.out


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_everybody() as folder:
        yield folder


def without_rights(folder: Path) -> dict[str, Any]:
    """Options under which a child has no right to write in *folder*."""
    folder.chmod(0o555)
    before = as_nobody()
    return {"before": before, "env": os.environ | {"HOME": str(folder)}} if before else {}


@pytest.mark.parametrize("verb", ["audit append", "audit recover", "submit", "paper", "exchange"])
def test_an_unwritable_directory_is_named(market, open_folder, verb):
    """Each verb that must write ends with exit code 1, the path, the reason and a hint; no order leaves."""
    place, before = open_folder / "there", orders_at(market)
    pem = open_folder / "key.pem"
    shutil.copy(market.endpoints.pem_path, pem)
    pem.chmod(0o600)
    if verb == "audit recover":
        child("audit", "append", place, stdin=NOTE)
        place.chmod(0o755)
        for file in place.glob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        place.chmod(0o555)
    options = without_rights(open_folder)
    if options:
        os.chown(pem, NOBODY, NOBODY)
    words: dict[str, list[object]] = {
        "audit append": ["audit", "append", place],
        "audit recover": ["audit", "recover", place],
        "submit": account(market.endpoints, place, pem=pem),
        "paper": ["paper", "--dir", place],
        "exchange": ["exchange", "--dir", place],
    }
    said = child(
        *words[verb], stdin=lines(order("one")) if verb == "submit" else NOTE, cwd=open_folder, **options
    )
    explains(said, EXIT_USER_ERROR, str(place), "another user" if verb == "audit recover" else "right")
    assert not said.out
    assert orders_at(market) == before
    if verb == "audit recover":
        intact(place)


def test_a_log_that_may_not_be_read_is_not_called_damaged(open_folder):
    """`audit verify` and `cat` of another user's log end with exit code 1 and a hint; nobody is told of damage."""
    log = open_folder / "log"
    child("audit", "append", log, stdin=NOTE)
    if os.geteuid() == 0:
        options = without_rights(open_folder)
    else:
        options = {}
        log.chmod(0)
    try:
        for verb in ("verify", "cat", "query"):
            said = child("audit", verb, log, cwd=open_folder, **options)
            explains(said, EXIT_USER_ERROR, str(log), "permission denied")
            assert "DAMAGED" not in said.out
    finally:
        log.chmod(0o700)
    intact(log)


@pytest.mark.parametrize("kind", ["a file", "a link", "below a file"])
def test_a_path_that_is_no_directory_is_refused(market, command, tmp_path, kind):
    """A log that would lie on a file, behind a link or below a file is refused with exit code 1."""
    (tmp_path / "file").write_text("x", encoding="ascii")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    log = {
        "a file": tmp_path / "file",
        "a link": tmp_path / "link",
        "below a file": tmp_path / "file" / "log",
    }[kind]
    said = command(*account(market.endpoints, log), stdin=lines(order("one")))
    explains(said, EXIT_USER_ERROR, str(log))
    assert (tmp_path / "file").read_text(encoding="ascii") == "x"
    with pytest.raises(LogUnwritable):
        WriteAheadLog(log, clock=SystemClock()).open()


def test_a_held_log_is_refused_with_its_holder(market, command, tmp_path):
    """Another writer's log gives exit code 4 and its process id; its records stay, and it writes on."""
    log, before = tmp_path / "log", orders_at(market)
    holder = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "audit", "append", str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(NOTE)
        holder.stdin.flush()
        first = holder.stdout.readline()
        assert first.startswith("ACK ")
        held = f"process {holder.pid} writes it"
        said = command(*account(market.endpoints, log), stdin=lines(order("one")))
        explains(said, EXIT_CANNOT_ACT, repr(str(log)), held, "stop it, or choose another directory")
        assert not said.out
        explains(child("audit", "append", log, stdin=NOTE), EXIT_CANNOT_ACT, held)
        explains(command("audit", "recover", log), EXIT_CANNOT_ACT, held)
        with (
            pytest.raises(LogHeld, match=held),
            desk(market.endpoints, log) as (_, router, _),
        ):
            router.route_order(order("one"))
        holder.stdin.write(NOTE)
        holder.stdin.flush()
        second = holder.stdout.readline()
        holder.stdin.close()
        assert holder.wait(CHILD_SECS) == EXIT_OK
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert int(second.split()[1]) == int(first.split()[1]) + 1
    assert sum(record.type == "NOTE" for record in read_records(log)) == 2
    assert orders_at(market) == before
    intact(log)


# -- the disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def volume(tmp_path) -> Iterator[Volume]:
    with small_volume(tmp_path / "volume") as made:
        yield made


def notes(count: int) -> str:
    return "".join(
        json.dumps({"type": "NOTE", "user": "desk", "details": {"n": n, "text": "x" * 2_000}}) + "\n"
        for n in range(count)
    )


def acknowledged(said: Said) -> list[int]:
    return [int(line.split()[1]) for line in said.out.splitlines() if line.startswith("ACK ")]


def until_refused(log: Path, **options: Any) -> tuple[list[int], Said]:
    """Append batches until the log refuses one; what was acknowledged, and the refusal."""
    seen: list[int] = []
    for _ in range(20):
        said = child("audit", "append", log, stdin=notes(40), **options)
        seen += acknowledged(said)
        if said.code != EXIT_OK:
            return seen, said
    raise AssertionError("the volume never became full")


@pytest.mark.slow
def test_a_full_disk_refuses_an_append_and_keeps_what_it_acknowledged(volume):
    """Exit code 4 and the hint to free space; every acknowledged record is there, and the next start goes on."""
    log = volume.path / "log"
    seen, said = until_refused(log)
    explains(said, EXIT_CANNOT_ACT, "no space left", "free space")
    intact(log)
    assert {record.seq for record in read_records(log)} >= set(seen)
    assert child("audit", "verify", log).code == EXIT_OK

    volume.fill()
    explains(child("audit", "append", volume.path / "another", stdin=NOTE), EXIT_CANNOT_ACT, "free space")
    explains(child("exchange", "--dir", volume.path / "keys"), EXIT_CANNOT_ACT, "free space")
    volume.free()
    (volume.path / "another").exists() and shutil.rmtree(volume.path / "another")
    after = child("audit", "append", log, stdin=NOTE)
    if after.code == EXIT_OK:  # the rest of the volume holds at least one more line
        assert acknowledged(after)[0] == max(record.seq for record in read_records(log))
    assert {record.seq for record in read_records(log)} >= set(seen)
    intact(log)


def test_a_file_size_limit_refuses_an_append_and_keeps_what_it_acknowledged(tmp_path):
    """A file that may not grow is a full disk: exit code 4, a hint, and nothing acknowledged is lost."""
    log = tmp_path / "log"
    seen, said = until_refused(log, **small_files(300 << 10))
    explains(said, EXIT_CANNOT_ACT, "free space")
    assert len(seen) > 20
    after = child("audit", "append", log, stdin=NOTE)
    assert after.code == EXIT_OK, after
    assert {record.seq for record in read_records(log)} >= set(seen)
    intact(log)


@pytest.mark.slow
def test_a_full_disk_while_trading_stops_new_risk_alone(market, command, volume):
    """`submit` denies new orders as audit_unavailable, ends with 4, and trades on once there is room again."""
    log = volume.path / "log"
    held = positions_at(market).get(TICKER, 0)
    trader = subprocess.Popen(
        [sys.executable, "-m", "holdfast", *map(str, account(market.endpoints, log))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert trader.stdin is not None
    assert trader.stdout is not None
    assert trader.stderr is not None

    def ask(wish: dict[str, Any]) -> dict[str, Any]:
        trader.stdin.write(lines(wish))
        trader.stdin.flush()
        return json.loads(trader.stdout.readline())

    outcomes: list[dict[str, Any]] = []
    try:
        assert ask(order("bought"))["outcome"] == "filled"
        volume.fill()
        for n in range(300):
            outcomes.append(ask(order(f"far {n}", price="0.05")))
            if outcomes[-1]["outcome"] == "denied":
                break
        before = orders_at(market)
        assert ask(order("more", price="0.05"))["reason"] == "audit_unavailable"
        # There is still room in the log for an order that only takes risk away.
        assert ask(order("sold", action="sell", price="0.30"))["outcome"] == "filled"
        assert orders_at(market) == before + 1
        trader.stdin.close()
        assert trader.wait(CHILD_SECS) == EXIT_CANNOT_ACT
        err = trader.stderr.read()
    finally:
        trader.kill()
        trader.wait()
        for pipe in (trader.stdout, trader.stderr):
            pipe.close()
    assert outcomes[-1]["reason"] == "audit_unavailable"
    assert all(line["outcome"] == "canceled" for line in outcomes[:-1])
    assert f"hint: {HINTS[Code.AUDIT_UNAVAILABLE]}" in err
    assert "no room for orders that add risk" in err
    intact(log)
    assert sent(log) == {"bought", "sold"} | {line["intent"] for line in outcomes[:-1]}

    volume.free()
    after = command(*account(market.endpoints, log), stdin=lines(order("more"), order("after")))
    assert after.code == EXIT_OK, after
    assert [answer["outcome"] for answer in after.answers] == ["filled", "filled"], after
    assert positions_at(market).get(TICKER, 0) - held == booked(log)[TICKER] == 200
    intact(log)


@pytest.mark.slow
@pytest.mark.contract("A2", "A11")
def test_cancels_still_work_when_the_log_cannot_take_another_byte(market, volume):
    """With the log poisoned by a full disk an order is refused unsent and a cancel reaches the venue; a restart recovers."""
    log = volume.path / "log"
    with desk(market.endpoints, log) as (client, router, _):
        for name in ("resting", "other"):
            assert router.route_order(order(name, price="0.05", tif="gtc"))["status"] == "submitted"
        volume.fill()
        wal = client.audit_logger.wal
        for _ in range(3_000):
            if wal.state == "poisoned":
                break
            with contextlib.suppress(DiskFull):
                client.get_balance()
        assert wal.state == "poisoned"
        before = orders_at(market)
        assert router.route_order(order("more", price="0.05")) == {
            "status": "error",
            "reason": "audit_unavailable",
        }
        assert orders_at(market) == before
        resting = {item.key: item.client_order_id for item in router.trader.account.open_orders()}
        assert isinstance(client.run(router.trader.cancel(resting["resting"])), Canceled)
        assert [left.key for left in client.run(router.trader.cancel_all_own())] == []
        assert not market.call(lambda: market.exchange.books().open_orders)
        acknowledged_last = wal.durable_seq
        with pytest.raises(DiskFull) as caught:
            client.audit_logger.log_config("desk", {"a": 1})
        assert caught.value.hint
    intact(log)
    assert max(record.seq for record in read_records(log)) >= acknowledged_last

    volume.free()
    with desk(market.endpoints, log) as (_, router, _):
        assert router.start(), "the cancels that could not be written are read from the venue's books"
        assert not router.trader.account.open_orders()
        assert router.route_order(order("after", price="0.05"))["status"] == "submitted"
    intact(log)

"""Bad input to the options desk: each mistake is named, has its exit code and costs nothing; what is unknown is refused."""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support.places import small_files
from support.portfolio import call, loose, noon, options_gate, put, wish
from support.recordings import flipped, uncountable

from holdfast import (
    PortfolioLimitsChecker,
    RiskEventLogger,
    RiskLimitsConfig,
    TrailingStop,
    TrailingStopManager,
)
from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.config import load_config
from holdfast.core.clock import ManualClock
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_USER_ERROR, BadInput, ConfigError, TradingError
from holdfast.core.money import parse_price
from holdfast.execution.reference import ReferenceInput
from holdfast.risk.events import RiskEvent, RiskEventType
from holdfast.risk.portfolio import PortfolioRisk, SymbolRisk
from holdfast.venues.broker.memory import Memory as BrokerMemory
from holdfast.venues.broker.tape import OptionTape
from holdfast.venues.paper.memory import Line as ExchangeLine
from holdfast.venues.paper.memory import Memory as ExchangeMemory

NAN, INFINITE = math.nan, math.inf
BROKER = ("exchange", "--desk", "options", "--exit-with-stdin")
RUN = ("paper", "--desk", "options", "--lake", "none", "--json")


@pytest.fixture(autouse=True)
def no_hanging():
    """What waits for ever is interrupted; the test then fails with its traceback."""

    def too_long(*_: object) -> None:
        raise AssertionError("something waits for what does not come")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Callable[..., None]:
    """Runs a command in an empty folder: it must end with the code, the words and a hint, and leave nothing there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")

    def run(words: tuple[str, ...], code: int, *said: str) -> None:
        before = {str(path) for path in tmp_path.rglob("*")}
        assert main(list(words)) == code
        err = capsys.readouterr().err
        assert all(word in err for word in said), err
        assert ("\nhint: " in err) == (code == EXIT_USER_ERROR), err
        assert "internal error" not in err
        assert "Traceback" not in err
        assert {str(path) for path in tmp_path.rglob("*")} == before

    return run


# -- the broker's and the run's own words -------------------------------------------------------------------------

BROKER_WORDS = [
    ("--symbols ,", 1, "no seeded chain for no symbol"),
    ("--symbols spy", 1, "spy"),
    ("--days 0", 1, "0 days"),
    ("--days x", 2, "'x'"),
    ("--day 20210104", 1, "--day says nothing to the seeded chain"),
    ("--tape empty --symbols GOOG", 1, "--symbols says nothing to a tape"),
    ("--cash -5", 1, "--cash -5 is below 0"),
    ("--cash nan", 1, "--cash 'nan'"),
    ("--assign-rate nan", 1, "'nan' is no rate"),
    ("--assign-at 5", 1, "'5' is not SECONDS:TICKER=COUNT"),
    ("--assign-at 5:SPY=1", 1, "no contract of this market"),
    ("--start 0", 1, "cannot begin 0 s from 1970"),
    ("--start 0001-01-01T00:00:00Z", 1, "cannot begin"),
    ("--start 9999-12-31T23:00:00Z", 1, "cannot begin"),
    ("--start 1000000000000000000", 2, "neither ISO 8601 nor Unix seconds"),
    ("--speed nan", 2, "nan is outside"),
    ("--seconds inf", 2, "inf is outside"),
    ("--market-seconds -1", 2, "-1 is outside"),
    ("--faults 500", 1, "'500' is not NAME=VALUE"),
    ("--faults 500=nan", 1, "rate nan"),
    ("--faults-at 5:orders_500=-1", 1, "orders_500=-1"),
    ("--faults-at ²:orders_500=1", 1, "whole numbers"),
    ("--port -1", 1, "port -1"),
    ("--host 8.8.8.8", 1, "not a loopback address"),
    ("--dir file", 1, "file"),
    ("--dir ", 2, "no path is named"),
    ("--tape ", 2, "no path is named"),
    ("--tape nowhere", 1, "'nowhere' does not exist"),
    ("--tape empty", 1, "'empty' holds no *-quotes.parquet"),
    ("--tape file", 1, "'file' is damaged or no parquet file"),
    ("--tape pipe", 1, "'pipe' is not a file"),
    ("--tape /dev/null", 1, "'/dev/null' is not a file"),
]


@pytest.mark.parametrize(("words", "code", "said"), BROKER_WORDS, ids=[row[0] for row in BROKER_WORDS])
def test_the_broker_names_a_word_that_cannot_be_meant(refused, words, code, said):
    """Wrong types, negative, absurd and missing things end `exchange --desk options` with 1 or 2 before it listens."""
    refused((*BROKER, *words.split(" ")), code, said)


RUN_WORDS = [
    ("--iv-rank 101", 1, "IV rank 101 is outside 0 to 100"),
    ("--vix nan", 1, "VIX 'nan'"),
    ("--vix 0", 1, "VIX 0 is not above 0"),
    ("--reference nowhere", 1, "reference file 'nowhere' cannot be read"),
    ("--reference empty", 1, "reference file 'empty' is not a file"),
    ("--reference pipe", 1, "reference file 'pipe' is not a file"),
    ("--reference /dev/zero", 1, "reference file '/dev/zero' is not a file"),
    ("--reference file --vix 15", 1, "exclude each other"),
    ("--layers limits", 1, "layer 'limits' without 'breaker'"),
    ("--layers sails", 1, "'sails'"),
    ("--exchange http://127.0.0.1:9", 1, "for event contracts"),
    ("--key-id x", 1, "for event contracts"),
    ("--config nowhere", 1, "'nowhere'"),
    ("--config ", 2, "no path is named"),
    ("--dir file", 1, "'file' is no directory"),
    ("--tape ", 2, "no path is named"),
    ("--seed x", 2, "'x'"),
]


@pytest.mark.parametrize(("words", "code", "said"), RUN_WORDS, ids=[row[0] for row in RUN_WORDS])
def test_a_run_names_a_word_that_cannot_be_meant(refused, words, code, said):
    """`paper --desk options` ends with 1 or 2 before anything is begun."""
    refused((*RUN, *words.split(" ")), code, said)


def test_a_path_that_is_no_text_is_refused_before_a_run(refused):
    """The name of a recording or a directory goes into the run's records: bytes that are no UTF-8 end with 2."""
    for word in ("--tape", "--dir"):
        refused((*RUN, word, os.fsdecode(b"bad\xff")), 2, "is no UTF-8 text")


def test_no_run_begins_inside_an_audit_log(refused, tmp_path):
    """`--dir` of a log is refused: its books and notes would make the log one with unknown files."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as log:
        log.append("NOTE", {"text": "x"})
    refused((*RUN, "--dir", "log"), EXIT_USER_ERROR, "'log' is an audit log")


@pytest.mark.slow
@pytest.mark.invariant("I9")
def test_a_run_whose_disk_fills_up_ends_by_name(tmp_path):
    """Exit code 4, the file, what to do and no traceback, of the event loop neither; what was acknowledged verifies."""
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *RUN, "--dir", str(run), "--market-seconds", "600"],
        **small_files(20_000), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == EXIT_CANNOT_ACT, done.stderr
    assert "no space left" in done.stderr
    assert "\nhint: free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert verify(run / "audit").ok


# -- recordings ------------------------------------------------------------------------------------------------------

TS_MS = 1_609_770_600_000
QUOTE: dict[str, Any] = {
    "ts_ms": TS_MS, "root": "SPY", "expiry": 20210106, "right": "C", "strike_e4": 3_700_000, "style": "american",
    "bid_c": 10_000, "ask_c": 11_000, "bid_sz": 4, "ask_sz": 7,
}  # fmt: skip
SPOT: dict[str, Any] = {
    "ts_ms": TS_MS, "symbol": "SPY", "kind": "trade", "h": 3_710_000, "l": 3_690_000, "c": 3_700_000,
    "volume": 60, "bid_c": None, "ask_c": None,
}  # fmt: skip
NARROW = ("expiry", "strike_e4", "bid_c", "ask_c", "bid_sz", "ask_sz", "h", "l", "c")
MINUTE = 60_000


def framed(rows: list[dict[str, Any]]) -> pl.DataFrame:
    kinds = {name: pl.Int32 for name in NARROW if name in rows[0]} | {"ts_ms": pl.Int64}
    if "volume" in rows[0]:
        kinds |= {"volume": pl.Int64}
    return pl.DataFrame(rows, infer_schema_length=None).cast(kinds)


def record(folder: Path, *quotes: dict[str, Any], spots: tuple[dict[str, Any], ...] = (SPOT,)) -> Path:
    folder.mkdir(exist_ok=True)
    framed([*quotes]).write_parquet(folder / "x-quotes.parquet")
    framed([*spots]).write_parquet(folder / "underlyings.parquet")
    return folder


ROWS = [QUOTE | {"ts_ms": TS_MS + n * MINUTE} for n in range(20)]
DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: os.truncate(file, 0),
    "another format": lambda file: file.write_text("ts_ms,root\n1,SPY\n"),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "a lacking column": lambda file: pl.read_parquet(file).drop("ts_ms").write_parquet(file),
    "a column of text": lambda file: pl.read_parquet(file).cast({"ts_ms": pl.String}).write_parquet(file),
    "a column of floats": lambda file: pl.read_parquet(file).cast({"bid_c": pl.Float64}).write_parquet(file),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("name", ["x-quotes.parquet", "underlyings.parquet"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_recording_is_named_by_its_file(refused, tmp_path, name, damage):
    """Whichever of its files is cut off, foreign, of other columns or types, or gone: exit code 1, its name, a hint."""
    tape = record(tmp_path / "tape", *ROWS)
    DAMAGE[damage](tape / name)
    gone = damage == "missing" and name.startswith("x-")
    refused((*BROKER, "--tape", "tape"), EXIT_USER_ERROR, "holds no" if gone else name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strike_e4": None}, "strike is not above 0"),
        ({"ts_ms": None}, "time is no whole minute"),
        ({"root": None}, "root is no option class"),
        ({"expiry": None}, "expiry is no day"),
        ({"bid_c": -100}, "bid is no price"),
        ({"ask_c": 0}, "ask is no price"),
        ({"ask_c": 2**31 - 1}, "ask is no price"),
        ({"bid_sz": -1}, "size is negative"),
        ({"ask_sz": None}, "size is negative"),
        ({}, "the same contract twice in a minute"),
    ],
    ids=str,
)
def test_a_row_that_cannot_be_true_is_named_by_its_place(refused, tmp_path, change, said):
    """Nulls, prices and sizes out of range, and the same minute twice: file, row and what is wrong, before a minute plays."""
    record(tmp_path / "tape", *ROWS, ROWS[0] | change)
    refused((*BROKER, "--tape", "tape"), EXIT_USER_ERROR, "x-quotes.parquet", "row ", said)


def test_minutes_out_of_order_play_in_order(tmp_path):
    """A recording that was not sorted is sorted: market time never goes back."""
    shuffled = random.Random(5).sample(ROWS, len(ROWS))
    times = [minute.ts_ns for minute in OptionTape(record(tmp_path / "tape", *shuffled))]
    assert times == sorted(times)
    assert len(times) == len(ROWS)


def test_quotes_that_are_no_price_are_shown_and_nothing_trades_on_them(tmp_path):
    """Crossed and sizeless quotes play as they were recorded, and the venue's reader takes neither for a price."""
    from holdfast.venues.options.quotes import QuoteFault, read_sides

    odd = (QUOTE | {"bid_c": 12_000}, QUOTE | {"ts_ms": TS_MS + MINUTE, "bid_sz": 0, "ask_sz": 0})
    shown = [minute.quotes[-1] for minute in OptionTape(record(tmp_path / "tape", *odd))]
    assert [(quote.bid, quote.ask) for quote in shown[:1]] == [(12_000, 11_000)]
    read = [read_sides(q.bid or None, q.bid_size, q.ask or None, q.ask_size) for q in shown]
    assert read == [QuoteFault.CROSSED, QuoteFault.MISSING]


@pytest.mark.usefixtures("one_decoder")
def test_a_flipped_bit_anywhere_is_refused_or_plays_to_the_end(tmp_path):
    """Whatever bit of a recording is flipped, it is refused as BadInput or every minute can be played."""
    tape = record(tmp_path / "tape", *ROWS)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    refusals: list[str] = []
    for file in (tape / "x-quotes.parquet", tape / "underlyings.parquet"):
        whole = file.read_bytes()
        for _ in range(60):
            file.write_bytes(flipped(whole, 8 * rnd.randrange(len(whole)) + rnd.randrange(8)))
            try:
                list(OptionTape(tape))
            except BadInput as why:
                refusals.append(str(why))
        file.write_bytes(whole)
    assert len(refusals) > 10


@pytest.mark.parametrize("name", ["x-quotes.parquet", "underlyings.parquet"])
def test_a_bit_that_kills_the_decoder_is_named_by_its_file(refused, tmp_path, name):
    """A file that polars aborts its process over ends the broker with exit code 1, the file's name and a hint."""
    file = record(tmp_path / "tape", *ROWS) / name
    uncountable(file)
    refused((*BROKER, "--tape", "tape"), EXIT_USER_ERROR, name, "SIGABRT", "restore the file")


# -- what the broker remembers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["broker.jsonl", "broker.token"])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xff\xfe\nmine\n"], ids=["a line", "lines"])
def test_a_file_in_the_brokers_place_is_refused_and_kept(refused, tmp_path, name, content):
    """Foreign or damaged books and tokens end the broker with exit code 1 and their name; no byte of them is lost."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "broker.jsonl").touch()
    (tmp_path / "books" / name).write_bytes(content)
    refused((*BROKER, "--dir", "books"), EXIT_USER_ERROR, name)
    assert (tmp_path / "books" / name).read_bytes() == content


@pytest.mark.parametrize("kind", [BrokerMemory, ExchangeMemory])
def test_a_full_disk_leaves_no_half_line_in_the_books(tmp_path, monkeypatch, kind):
    """A line that found room for a part of it is taken back and raised as a full disk; the next one is whole."""
    memory = kind(tmp_path, "market", 1)
    line = 2 if kind is BrokerMemory else ExchangeLine(time=2)
    write = os.write
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
        with pytest.raises(OSError, match=r"\[Errno 28\]"):
            memory.keep(line)
    memory.keep(line)
    memory.close()
    again = kind(tmp_path, "market", 1)
    again.close()
    assert len(again._file.lines) == 2


# -- the declared reference --------------------------------------------------------------------------------------------

AS_OF = "as_of = 2023-08-03T13:30:00Z\n"


@pytest.mark.contract("B10")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "lacks as_of with a time zone"),
        (b"\xff\xfe", "cannot be read"),
        (b"vix = ", "cannot be read"),
        (b"as_of = 2023-08-03", "lacks as_of with a time zone"),
        (b"as_of = 2023-08-03T13:30:00", "lacks as_of with a time zone"),
        (AS_OF + "vix = 15.9", "VIX 15.9 is a float"),
        (AS_OF + 'vix = "nan"', "VIX 'nan'"),
        (AS_OF + 'vix = "-1"', "VIX -1 is not above 0"),
        (AS_OF + f'vix = "{"9" * 100}"', "not a plain decimal number"),
        (AS_OF + "iv_rank = 5", "is no table"),
        (AS_OF + '[iv_rank]\nSPY = "101"', "iv_rank of SPY 101 is outside 0 to 100"),
        (AS_OF + "[iv_rank]\nSPY = true", "iv_rank of SPY True is a bool"),
        (AS_OF + "[iv_rank]\nSPY = {}", "iv_rank of SPY {} is a dict"),
        (AS_OF + 'vixx = "15"', "unknown field 'vixx'"),
        (b"#" * (2 << 20), "bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_reference_that_cannot_be_used_is_named_by_its_field(tmp_path, text, said):
    """Nothing of a damaged reference file is believed: the field is named, with what is wrong and what to write."""
    path = tmp_path / "reference.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        ReferenceInput.read(path)
    assert caught.value.hint


# -- the configuration ---------------------------------------------------------------------------------------------------

WRONG = {
    "limits.options": [
        "max_portfolio_delta = -1", "max_portfolio_gamma = nan", 'max_single_position_pct = "2"',
        "max_per_symbol_delta = true", "max_correlated_pct = inf", 'total_exposure_cap = "-5"', "max_positions = -1",
        "max_greeks_age_secs = 0", 'concentration_base = "cash"', "no_entry_before_close_secs = 1.5",
        'no_entry_before_expiry_secs = "x"', 'allow_short_on_expiry_day = "no"', "max_portfolio_vega = 5",
    ],
    "limits.options.correlated_groups": ["SPY = 5", 'QQQ = ""'],
    "stops": [
        "activation_pct = 0", "trailing_pct = nan", 'min_move_pct = "x"', "hard_floor_pct = -5", "confirmations = 0",
        "max_quote_age_secs = 1.5", "trail_pct = 1",
    ],
    "desk.options": [
        'symbols = ["spy"]', "contracts = 0", 'max_positions = "5"', "max_per_symbol = -1", "entry_secs = 0",
        "monitor_secs = nan", "exit_secs = []", "equity = 100.5", 'iv_rank = "101"', 'vix = "-1"', 'reference = ""',
        'layers = ["stops"]',
    ],
    "lake": [
        "commit_rows = 0", "commit_secs = nan", "memory_mb = -1", "retention_days = 99999999999", 'maintain = "yes"',
        "commit_row = 5",
    ],
    "venue.ib": [
        'host = ""', "port = 70000", "client_id = 0", "account = 5", "readonly = 1", "timeout_secs = inf",
        'commission_bound = "-1"', "hots = 5",
    ],
}  # fmt: skip


@pytest.mark.contract("B5")
def test_every_error_of_every_section_is_named_at_once_with_its_line(tmp_path):
    """One reading names all of them, each with its line and its key; nothing is started on a part of it."""
    lines, expected = [], []
    for table, wrong in WRONG.items():
        lines.append(f"[{table}]")
        for text in wrong:
            lines.append(text)
            expected.append((len(lines), f"{table}.{text.partition(' ')[0]}"))
    path = tmp_path / "holdfast.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    said = [line.split() for line in str(caught.value).splitlines() if line.startswith("  line ")]
    assert [(int(words[1]), words[2]) for words in said] == expected
    assert f"has {len(expected)} problems (nothing was started)" in str(caught.value)


# -- Python --------------------------------------------------------------------------------------------------------------


@pytest.mark.contract("B2")
@pytest.mark.parametrize(
    "premium", [NAN, INFINITE, -INFINITE, True, None, "much", "", [], b"1", -0.01, 1e300], ids=repr
)
def test_a_premium_that_is_none_changes_no_stop(premium):
    """Neither an entry nor a quote is guessed: BadInput names the premium, and the stop is what it was."""
    stop = TrailingStop("ic-1", 100.0)
    stop.update(103.0)
    before = stop.levels()
    with pytest.raises(BadInput, match="premium"):
        stop.update(premium)
    assert stop.levels() == before
    with pytest.raises(BadInput, match="entry_premium"):
        TrailingStop("ic-1", premium)
    manager = TrailingStopManager()
    manager.add_trailing_stop("ic-1", 100.0)
    manager.add_trailing_stop("ic-2", 100.0)
    assert set(asyncio.run(manager.update_stops({"ic-1": premium, "ic-2": 103.0}))) == {"ic-2"}, (
        "its neighbour is judged"
    )


@pytest.mark.contract("B3")
@pytest.mark.parametrize("name", ["", None, 5, b"x"], ids=repr)
def test_a_stop_needs_an_id_and_a_whole_sign(name):
    """An id that is no text could not be found again, and a sign of -1.0 would make its prices float."""
    with pytest.raises(BadInput, match="execution id"):
        TrailingStop(name, 100.0)
    for sign in (0, 2, True, None, "1", -1.0):
        with pytest.raises(BadInput, match="sign"):
            TrailingStop("ic-1", 100.0, sign=sign)


class Calculator:
    """Says, or raises, what it was given."""

    def __init__(self, said: object) -> None:
        self.said = said

    def portfolio_risk(self) -> Any:
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said() if callable(self.said) else self.said


def nan_inside() -> PortfolioRisk:
    return PortfolioRisk(symbols={"SPY": SymbolRisk(exposure=NAN)}, equity=10**11, as_of_ns=0)


@pytest.mark.contract("B4")
@pytest.mark.contract("B6")
@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (RuntimeError("the feed is down"), "RuntimeError: the feed is down"),
        (KeyError("SPY"), "KeyError: 'SPY'"),
        (None, "it said NoneType"),
        ({"delta": 1}, "it said dict"),
        (nan_inside, "exposure of SPY nan is a float"),
        (lambda: PortfolioRisk(symbols={}, equity=NAN, as_of_ns=0), "equity nan is a float"),
    ],
    ids=["raises", "no key", "nothing", "a dict", "nan exposure", "nan equity"],
)
def test_a_calculator_that_fails_leaves_nothing_known(said, why, caplog):
    """The question is refused as greeks_unknown with what failed, one event says so, health warns, nothing more fits."""
    events: list[RiskEvent] = []

    class Sink:
        def emit(self, event: RiskEvent, /) -> None:
            events.append(event)

    checker = PortfolioLimitsChecker(Calculator(said), RiskLimitsConfig(), Sink(), clock=ManualClock())
    with caplog.at_level("CRITICAL"):
        allowed, reason = asyncio.run(checker.check_entry_allowed(1, "SPY", 100, new_position_gamma=0))
        assert not allowed
        assert str(reason).startswith("greeks_unknown")
        assert why in str(reason)
        assert [(event.event_type.value, event.allowed) for event in events] == [
            ("portfolio_limit_rejection", False)
        ]
        assert any("greeks_unknown" in line for line in asyncio.run(checker.check_portfolio_health()))
        left = asyncio.run(checker.get_remaining_capacity("SPY"))
    assert (left["delta"], left["symbol_delta"], left["exposure"]) == (0, 0, 0)


@pytest.mark.contract("B4")
@pytest.mark.parametrize(
    ("question", "said"),
    [
        (("1e999999", "SPY", 1), "new_position_delta '1e999999'"),
        ((1, "SPY", "1e999999"), "position_value '1e999999'"),
        ((True, "SPY", 1), "new_position_delta True"),
        ((1, "", 1), "symbol ''"),
        ((1, None, 1), "symbol None"),
    ],
    ids=str,
)
def test_a_question_that_is_none_is_the_callers_mistake(question, said):
    """What is no number, and a symbol that names nothing, raise BadInput by name."""
    checker = PortfolioLimitsChecker(
        Calculator(PortfolioRisk.of(delta={}, gamma={}, exposure={}, equity=1, as_of_ns=0)),
        RiskLimitsConfig(),
    )
    with pytest.raises(BadInput, match=said):
        asyncio.run(checker.check_entry_allowed(*question))


# -- what is unknown, and what still goes ----------------------------------------------------------------------------------

SHORT, WING, OTHER = put(95), put(90), call(105)
GREEKS = {SHORT: (-0.3, 0.01), WING: (-0.2, 0.01), OTHER: (0.4, 0.02)}
SOUND = ("2.00", "2.10")
UNKNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "crossed": ("mark_unknown", {"quote": ("2.20", "2.10")}),
    "nobody offers": ("mark_unknown", {"quote": ("2.00", None)}),
    "nobody at all": ("mark_unknown", {"quote": (None, None)}),
    "never quoted": ("mark_unknown", {"quote": None}),
    "stale": ("mark_stale", {"secs": 31}),
    "without Greeks": ("greeks_unknown", {"deltas": {WING: GREEKS[WING], OTHER: GREEKS[OTHER]}}),
    "old Greeks": ("greeks_stale", {"secs": 301}),
    "soon at its end": ("near_expiry", {"secs": 3 * 86_400 + 4 * 3_600 - 60}),
}


@pytest.mark.contract("B4")
@pytest.mark.invariant("I4")
@pytest.mark.invariant("I5")
@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_unknown_refuses_what_increases_and_lets_what_reduces_go(what):
    """A short whose quote or Greeks cannot be believed: nothing is opened, by name; buying the short back passes."""
    code, case = UNKNOWN[what]
    clock = noon()
    quote = case.get("quote", SOUND)
    quotes = {WING: ("1.00", "1.10"), OTHER: ("1.40", "1.50")} | ({} if quote is None else {SHORT: quote})
    limits = loose(portfolio=RiskLimitsConfig(10**6, 10**6, 1, 10**6, 1))
    gate = options_gate(
        limits, held={SHORT: -1, WING: 1}, quotes=quotes, deltas=case.get("deltas", GREEKS), clock=clock
    )
    if "secs" in case:
        clock.advance(case["secs"])
    if code != "mark_stale":  # the prices are young, whatever else is old
        for ticker, (bid, ask) in quotes.items():
            sides = (None if side is None else parse_price(side) for side in (bid, ask))
            gate.market.saw_book(ticker, *sides, clock.monotonic_ns(), streamed=True)
    entry = gate.evaluate(wish(OTHER, "1.50"))
    assert not entry.allowed
    assert code in {row.code.value for row in entry.rows if not row.ok}
    leaving = gate.evaluate(wish(SHORT, "2.10"))
    assert (leaving.reducing, leaving.allowed) == (True, True), leaving.reason


def test_the_same_entry_passes_where_everything_is_known():
    """What the test above refuses, it refuses for what is unknown alone."""
    quotes = {SHORT: SOUND, WING: ("1.00", "1.10"), OTHER: ("1.40", "1.50")}
    limits = loose(portfolio=RiskLimitsConfig(10**6, 10**6, 1, 10**6, 1))
    gate = options_gate(limits, held={SHORT: -1, WING: 1}, quotes=quotes, deltas=GREEKS)
    assert gate.evaluate(wish(OTHER, "1.50")).allowed


# -- the event logger ------------------------------------------------------------------------------------------------------

ADD = RiskEvent(event_type=RiskEventType.TRAILING_STOP_ADD, component="trailing_stop", execution_id="ic-1")


def decided(stops: TrailingStopManager, *premiums: float) -> list[str]:
    """What the stop of ic-1 does at each premium."""
    return [asyncio.run(stops.update_stops({"ic-1": premium}))["ic-1"].action.value for premium in premiums]


def risk_events(log: Path) -> int:
    return sum(record.type == "RISK_EVENT" for record in read_records(log))


@pytest.mark.contract("B7")
def test_events_before_the_start_and_after_the_end_cost_nothing(tmp_path):
    """`emit` before `initialize` writes; after the logger's close too; after the journal's it counts the event as lost."""
    wal = WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False)
    logger = RiskEventLogger(AuditLogger(wal), project=False)
    assert logger.emit(ADD)
    asyncio.run(logger.initialize())
    asyncio.run(logger.close())
    asyncio.run(logger.close())
    assert logger.emit(ADD)
    wal.close()
    assert logger.emit(ADD) == 0
    assert logger.lost == {"trailing_stop_add": 1}
    assert logger.failure
    assert risk_events(tmp_path / "log") == 2


@pytest.mark.contract("B7")
@pytest.mark.invariant("I9")
def test_a_forked_copy_writes_nothing_and_harms_nothing(tmp_path):
    """A child of a fork loses its events by name, its stop decides all the same; the parent writes on and verifies."""
    wal = WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False)
    logger = RiskEventLogger(AuditLogger(wal), project=False)
    stops = TrailingStopManager(logger)
    stops.add_trailing_stop("ic-1", 100.0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            actions = decided(stops, 103.0, 101.0)
            code = 0 if actions == ["ACTIVATE", "TRIGGER"] and sum(logger.lost.values()) == 2 else 2
        finally:
            os._exit(code)
    assert _waited(child) == 0
    decided(stops, 103.0)
    wal.close()
    assert not logger.lost
    assert risk_events(tmp_path / "log") == 2


def _waited(child: int, most_secs: float = 10) -> int:
    until = time.monotonic() + most_secs
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the forked child hangs")


@pytest.mark.contract("B7")
@pytest.mark.invariant("I9")
def test_a_place_that_takes_no_journal_costs_no_decision(tmp_path, caplog):
    """Where no log can be begun a stop triggers all the same; each event is counted as lost, the reason told once."""
    (tmp_path / "file").write_text("x")
    logger = RiskEventLogger(
        AuditLogger(WriteAheadLog(tmp_path / "file" / "log", clock=ManualClock())), project=False
    )
    stops = TrailingStopManager(logger)
    with caplog.at_level("ERROR"):
        stops.add_trailing_stop("ic-1", 100.0)
        assert decided(stops, 103.0, 101.0) == ["ACTIVATE", "TRIGGER"]
    assert set(logger.lost.values()) == {1}
    assert len(logger.lost) == 3
    assert [record.message[:16] for record in caplog.records] == ["risk event lost:"]
    with pytest.raises((TradingError, OSError)):
        asyncio.run(logger.flush())

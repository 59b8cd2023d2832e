"""`lake sql`: answers, saved questions, errors that name what is near, pictures; and nothing can be changed."""

import json
import struct
import sys
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.parsers.expat import ParserCreate

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from support.lake import START_NS, live_files, make_journal, project

from holdfast.cli.main import main
from holdfast.core.errors import BadInput, LakeDamaged
from holdfast.lake.plot import MOST_BARS, MOST_LINES, chosen, plot
from holdfast.lake.saved import SAVED, parameters_of, saved_sql
from holdfast.lake.sql import Lake
from holdfast.lake.store import store_of

START = datetime.fromtimestamp(START_NS // 10**9, UTC)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    home = tmp_path_factory.mktemp("sql")
    return project(home / "lake", make_journal(home / "log", events=200))


def _ask(lake, sql: str, **parameters: str):
    with Lake(lake) as asked:
        return asked.ask(sql, parameters).to_pylist()


def test_tables_are_views_with_their_columns_in_order(lake):
    """Each table answers under its name, its columns as documented, the partition among them."""
    with Lake(lake) as asked:
        assert set(asked.versions) == {"risk_events", "orders", "fills", "api_calls", "decisions"}
        for name in asked.versions:
            answer = asked.ask(f"FROM {name}")
            assert answer.column_names == asked.columns(name)
            assert answer.num_rows
        days = asked.ask("SELECT DISTINCT event_date FROM fills ORDER BY 1").to_pylist()
    assert [str(day["event_date"]) for day in days] == ["2025-11-20", "2025-11-21"]


def test_window_shows_rows_of_that_time_alone(lake):
    """With a time window every view holds the rows from its start to before its end."""
    with Lake(lake, since=START + timedelta(seconds=10), until=START + timedelta(seconds=20)) as asked:
        answer = asked.ask(
            "SELECT min(timestamp) AS a, max(timestamp) AS b, count(*) AS n FROM risk_events"
        ).to_pylist()
    assert answer[0]["a"] >= START + timedelta(seconds=10)
    assert answer[0]["b"] < START + timedelta(seconds=20)
    assert answer[0]["n"] == 16


@pytest.mark.parametrize(
    ("sql", "said", "hint"),
    [
        ("SELECT event_typ FROM risk_events", "no column 'event_typ'", "'event_type'"),
        ("SELECT f.sedq FROM fills f", "no column 'sedq'", "'seq'"),
        ("SELECT * FROM risk_event", "no table 'risk_event'", "'risk_events'"),
        ("SELECT foo(1)", "no function 'foo'", "'floor'"),
        ("SELEC 1", "syntax error at or near", "the tables are risk_events"),
        ("SELECT 1; SELECT 2", "2 statements, expected one", "one question"),
        ("", "0 statements, expected one", "one question"),
        ("INSERT INTO fills VALUES (1)", "INSERT is no question", "SELECT"),
        ("COPY fills TO 'x.csv'", "COPY is no question", "--parquet"),
        ("ATTACH 'x.db'", "ATTACH is no question", "SELECT"),
        ("SET enable_external_access = true", "is no question", "SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Cannot access file", "nothing else"),
        ("SELECT * FROM 'pyproject.toml'", "sql refused", ""),
        ("SELECT 1 / 'x'", "sql refused", ""),
    ],
)  # fmt: skip
def test_question_that_cannot_be_asked_is_refused_with_what_is_near(lake, sql, said, hint):
    """What is missing is named with the nearest name; what would change or read something else is refused."""
    with pytest.raises(BadInput, match=said) as why:
        _ask(lake, sql)
    assert hint in why.value.hint
    assert "\n" not in str(why.value)


@pytest.mark.contract("B14")
@pytest.mark.parametrize("name", sorted(SAVED))
def test_saved_question_answers(lake, name):
    """Every saved question is answered over a lake that holds something for it."""
    query = saved_sql(name)
    given = {"execution": "exec-0-0"} if "execution" in query.parameters else {}
    with Lake(lake) as asked:
        answer = asked.ask(query.sql, parameters_of(query, given))
    assert answer.num_rows > 0
    assert query.question.endswith("?")


@pytest.mark.contract("B14")
def test_histories_hold_every_event_in_order(lake):
    """The breaker, stop and limit histories together are all risk events, each in the order of its journal."""
    with Lake(lake) as asked:
        found = [
            asked.ask(saved_sql(f"{one}_history").sql).to_pylist() for one in ("breaker", "stop", "limit")
        ]
        total = asked.ask("SELECT count(*) AS n FROM risk_events").to_pylist()[0]["n"]
    assert sum(map(len, found)) == total
    for rows in found:
        assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
    breaker, stop, limit = (rows[0] for rows in found)
    assert breaker["breaker"] == "broker"
    assert stop["highest_premium"] == 2.4
    assert limit["limit_value"] == 50.0


@pytest.mark.contract("B14")
def test_the_limit_history_holds_what_entry_rules_refused():
    """An IV rank, a VIX or a number of positions that an entry rule refused stands there, and so does who said it."""
    base = duckdb.connect()
    base.execute(
        "CREATE TABLE risk_events AS SELECT *, NULL AS scope, 'SPY' AS symbol, 37.0 AS current_value, NULL AS limit_value,"
        " 'rank' AS unit, false AS allowed, 'iv_rank' AS rejection_reason, '' AS intent_id, 'w' AS writer_id, n AS seq,"
        " n AS ts_ns, TIMESTAMPTZ '2025-11-20 15:00:01+00' AS timestamp FROM (VALUES"
        " (2, 'portfolio_limit_rejection', 'entry_rules', 'iv_rank'),"
        " (1, 'portfolio_limit_check', 'portfolio_limits', 'symbol_delta'),"
        " (3, 'trailing_stop_add', 'trailing_stop', NULL)) AS t(n, event_type, component, limit_type)"
    )
    rows = base.sql(saved_sql("limit_history").sql).to_arrow_table().to_pylist()
    assert [(row["said_by"], row["limit_type"]) for row in rows] == [
        ("portfolio_limits", "symbol_delta"),
        ("entry_rules", "iv_rank"),
    ]


@pytest.mark.contract("B14")
def test_a_limit_that_let_an_entry_pass_was_used_too():
    """Use is read from refusals and from the rows of checks that passed; a row without a limit says nothing."""
    rows = [
        ["symbol_delta", "SPY", "5.00", "20.00", "shares", True],
        ["total_exposure_cap", "", "", "", "", True],
    ]
    base = duckdb.connect()
    base.execute(
        "CREATE TABLE risk_events AS SELECT * FROM (VALUES"
        " (TIMESTAMPTZ '2025-11-20 15:00:01+00', 'portfolio_limits', NULL, NULL::DOUBLE, NULL::DOUBLE, $1),"
        " (TIMESTAMPTZ '2025-11-20 15:01:02+00', 'portfolio_limits', 'symbol_delta', 21.0, 20.0, NULL))"
        " AS t(timestamp, component, limit_type, current_value, limit_value, metadata)",
        [json.dumps({"rows": rows})],
    )
    used = base.sql(saved_sql("limit_use").sql).to_arrow_table().to_pylist()
    assert [(row["limit_type"], row["used"]) for row in used] == [
        ("symbol_delta", 0.25),
        ("symbol_delta", 1.05),
    ]


@pytest.mark.contract("B14")
def test_refusals_are_counted_by_who_said_so():
    """The gate's denials and the entries refused before it; a question to the gate is neither."""
    base = duckdb.connect()
    base.execute(
        "CREATE TABLE decisions AS SELECT * FROM (VALUES"
        " ('order_value_exceeded', 'gate', 'SPX', TIMESTAMPTZ '2025-11-20 15:00:00+00', 'deny', NULL),"
        " ('order_value_exceeded', 'gate', 'SPX', TIMESTAMPTZ '2025-11-20 15:00:00+00', 'deny', true))"
        " AS t(reason, component, symbol, timestamp, verdict, question);"
        " CREATE TABLE risk_events AS SELECT * FROM (VALUES"
        " ('vix', 'entry_rules', 'SPX', TIMESTAMPTZ '2025-11-20 15:00:00+00', 'portfolio_limit_rejection'),"
        " ('vix', 'entry_rules', 'SPY', TIMESTAMPTZ '2025-11-20 15:00:00+00', 'portfolio_limit_rejection'),"
        " ('vix', 'entry_rules', 'SPY', TIMESTAMPTZ '2025-11-20 15:00:00+00', 'portfolio_limit_check'))"
        " AS t(limit_type, component, symbol, timestamp, event_type)"
    )
    rows = base.sql(saved_sql("refusals_by_reason").sql).to_arrow_table().to_pylist()
    assert [(row["reason"], row["said_by"], row["refusals"], row["symbols"]) for row in rows] == [
        ("vix", "entry_rules", 2, 2),
        ("order_value_exceeded", "gate", 1, 1),
    ]


@pytest.mark.contract("B14")
def test_a_short_stop_triggers_as_far_from_its_best_premium_as_a_long_one():
    """The best premium of a short is its lowest: how far the trigger lies from it is no negative distance."""
    base = duckdb.connect()
    base.execute(
        "CREATE TABLE risk_events AS SELECT * FROM (VALUES"
        " (1, 1, 'w', 'trailing_stop_trigger', 'long', 2.0, 2.4, 2.2, 2.1),"
        " (2, 2, 'w', 'trailing_stop_trigger', 'short', 2.0, 1.6, 1.8, 1.9))"
        " AS t(seq, ts_ns, writer_id, event_type, execution_id, entry_premium, highest_premium, stop_premium,"
        " current_premium)"
    )
    base.execute(
        "ALTER TABLE risk_events ADD COLUMN timestamp TIMESTAMPTZ; ALTER TABLE risk_events ADD COLUMN symbol TEXT"
    )
    rows = base.sql(saved_sql("stops_triggered").sql).to_arrow_table().to_pylist()
    assert [float(row["from_best"]) for row in rows] == [0.3, 0.3]
    assert [float(row["from_entry"]) for row in rows] == [0.1, -0.1]


def test_saved_question_that_is_not_there_or_lacks_something_is_refused():
    """A wrong name is answered with the nearest, a parameter that is missing or unknown with its name."""
    with pytest.raises(BadInput, match="no saved query 'breaker_histroy'") as why:
        saved_sql("breaker_histroy")
    assert "'breaker_history'" in why.value.hint
    with pytest.raises(BadInput, match="needs execution"):
        parameters_of(SAVED["stop_path"], {})
    with pytest.raises(BadInput, match="has no parameter 'x'"):
        parameters_of(SAVED["stop_path"], {"x": "1"})


def test_unreadable_file_is_damage_and_no_panic(tmp_path):
    """A torn data file ends the question as damage, with exit code 3."""
    lake = project(tmp_path / "lake", make_journal(tmp_path / "log", days=1, events=40))
    path = live_files(lake, "fills")[0]
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))
    with pytest.raises(LakeDamaged) as why:
        _ask(lake, "SELECT * FROM fills")
    assert why.value.exit_code == 3
    assert "verify" in why.value.hint
    path.unlink()
    with pytest.raises(LakeDamaged):
        _ask(lake, "SELECT * FROM fills")


def test_table_without_a_row_can_be_asked(tmp_path):
    """An empty table answers with no rows."""
    lake = project(tmp_path / "lake", make_journal(tmp_path / "log", days=1, events=1))
    assert _ask(lake, "SELECT count(*) AS n FROM fills") == [{"n": 0}]


def test_missing_library_is_named_with_its_extra(lake, monkeypatch, capsys):
    """Without duckdb, or matplotlib, the hint says which extra brings it."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["lake", "sql", "SELECT 1", "--lake", str(lake)]) == 1
    assert "pip install -e '.[sql]'" in capsys.readouterr().err


# -- the command ------------------------------------------------------------------------------------------------------


def test_answers_are_printed_for_pipes_programs_and_spreadsheets(lake, capsys):
    """Tab-separated, JSON Lines and CSV hold the same rows; times are UTC with a Z."""
    sql = "SELECT timestamp, symbol, allowed, current_value FROM risk_events WHERE limit_type IS NOT NULL ORDER BY seq LIMIT 2"
    words = ["lake", "sql", sql, "--lake", str(lake)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "timestamp\tsymbol\tallowed\tcurrent_value"
    assert lines[1].startswith("2025-11-20T10:20:00.500000Z\tSPY\t")
    assert main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["timestamp"] == "2025-11-20T10:20:00.500000Z"
    assert isinstance(rows[0]["allowed"], bool)
    assert main([*words, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "timestamp,symbol,allowed,current_value"


def test_terminal_gets_a_table(lake, capsys, monkeypatch):
    """On a terminal the columns stand under one another."""
    monkeypatch.setattr("holdfast.cli.lake.sql.on_terminal", lambda: True)
    assert main(["lake", "sql", "--saved", "fills_by_day", "--lake", str(lake)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "event_date" in lines[0]
    assert "\t" not in "".join(lines)
    assert any("42" in line for line in lines)


def test_parquet_keeps_the_answer(lake, tmp_path, capsys):
    """`--parquet` writes the answer to a new file and never over another one."""
    out = tmp_path / "fills.parquet"
    words = ["lake", "sql", "SELECT * FROM fills", "--lake", str(lake), "--parquet", str(out)]
    assert main(words) == 0
    assert pl.read_parquet(out).height == 40
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err


def test_long_answers_are_cut_and_said(lake, capsys):
    """Rows beyond `--limit` are told, not silently dropped."""
    assert main(["lake", "sql", "SELECT * FROM fills", "--lake", str(lake), "--limit", "3"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 4
    assert "there are more than these 3 rows" in told.err


def test_printing_computes_no_more_than_is_printed(lake, capsys):
    """An answer of a million million rows is cut where it is made; of two columns of one name both are printed."""
    assert (
        main(
            [
                "lake",
                "sql",
                "SELECT range AS a, 1 AS a FROM range(1000000000000)",
                "--lake",
                str(lake),
                "--limit",
                "2",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out == "a\ta_1\n0\t1\n1\t1\n"


def test_list_prints_every_saved_question_with_its_sql(capsys):
    """`--list` needs no lake and prints name, question and SQL."""
    assert main(["lake", "sql", "--list"]) == 0
    told = capsys.readouterr().out
    for query in SAVED.values():
        assert query.question in told
        assert query.sql.splitlines()[0] in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lake", "sql"], "ask one question"),
        (["lake", "sql", "SELECT 1", "--saved", "stop_history"], "ask one question"),
        (["lake", "sql", "--saved", "stop_path"], "needs execution"),
        (["lake", "sql", "--saved", "stop_path", "--param", "x"], "has no value"),
        (["lake", "sql", "SELECT 1", "--csv", "--json"], "--csv does not go with --json"),
        (["lake", "sql", "SELECT 1", "--from", "yesterday"], "--from 'yesterday' is neither"),
        (["lake", "sql", "SELECT 1", "--lake", "nowhere"], "there is no Delta table"),
    ],
)
def test_wrong_words_are_named(words, said, capsys):
    """What cannot be meant is said before anything is asked."""
    assert main(words) == 1
    assert said in capsys.readouterr().err


# -- pictures -----------------------------------------------------------------------------------------------------------


def expat(data: bytes) -> str:
    """The name of a well-formed document's outermost element."""
    names: list[str] = []
    parser = ParserCreate()
    parser.StartElementHandler = lambda name, _: names.append(name)
    parser.Parse(data, True)
    return names[0]


def _pixels(path: Path) -> tuple[int, int, set[bytes]]:
    """Width, height and distinct rows of a PNG, from its own bytes."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    raw = zlib.decompress(packed)
    stride = len(raw) // height
    return width, height, {raw[row * stride : (row + 1) * stride] for row in range(height)}


@pytest.mark.contract("B14")
@pytest.mark.parametrize("name", ["breaker_outages", "limit_use", "risk_events_by_type", "api_latency"])
def test_saved_question_is_drawn(lake, name, tmp_path):
    """A plot is a real PNG of a useful size that is not blank."""
    out = tmp_path / "plot.png"
    assert main(["lake", "sql", "--saved", name, "--lake", str(lake), "--plot", str(out)]) == 0
    width, height, rows = _pixels(out)
    assert width >= 1000
    assert height >= 300
    assert len(rows) > 50


def test_svg_names_what_it_draws_and_is_the_same_each_time(lake, tmp_path):
    """An SVG is well-formed, is titled, and equal answers give equal bytes."""
    with Lake(lake) as asked:
        answer = asked.ask(SAVED["stop_path"].sql, {"execution": "exec-0-0"})
    pictures = [plot(answer, tmp_path / f"{n}.svg", "How did it move?") for n in (1, 2)]
    one, two = ((tmp_path / f"{n}.svg").read_bytes() for n in (1, 2))
    assert one == two
    assert expat(one) == "svg"
    assert [series.label for series in pictures[0].series] == [
        "current_premium", "highest_premium", "stop_premium",
    ]  # fmt: skip


def test_columns_decide_what_is_drawn():
    """Times give lines, one for each name; unique names give bars; two numbers give points."""
    times = [START + timedelta(minutes=n) for n in range(6)]
    lines = chosen(pa.table({"t": times, "who": list("ababab"), "n": [1, 2, 3, 4, 5, None]}))
    assert (lines.kind, [one.label for one in lines.series]) == ("time", ["a", "b"])
    assert list(lines.series[1].up) == [2.0, 4.0]
    many = chosen(pa.table({"t": times, "x": range(6), "y": range(6), "seq": range(6)}))
    assert [one.label for one in many.series] == ["x", "y"]
    bars = chosen(pa.table({"who": [f"w{n}" for n in range(40)], "n": range(40)}))
    assert (bars.kind, len(bars.series[0].up), bars.series[0].up[0]) == ("bars", MOST_BARS, 39.0)
    assert bars.note == "10 more of who are not drawn"
    crowd = chosen(pa.table({"t": times * 4, "who": [f"w{n % 12}" for n in range(24)], "n": range(24)}))
    assert len(crowd.series) == MOST_LINES
    assert chosen(pa.table({"x": [1.0, 2.0], "y": [3, 4]})).kind == "points"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (pa.table({"a": pa.array([], pa.int64())}), "no rows"),
        (pa.table({"a": ["x"], "b": ["y"]}), "no number among a, b"),
        (pa.table({"n_of": [1, 2]}), "stands alone"),
    ],
)
def test_answer_that_cannot_be_drawn_is_named(answer, said):
    """An answer without rows, numbers or anything beside them is refused with the reason."""
    with pytest.raises(BadInput, match=said):
        chosen(answer)


def test_picture_needs_a_known_ending_and_a_free_name(lake, tmp_path, capsys):
    """A PDF is no picture here, and no file is overwritten."""
    words = ["lake", "sql", "--saved", "risk_events_by_type", "--lake", str(lake), "--plot"]
    assert main([*words, str(tmp_path / "x.pdf")]) == 1
    assert "x.png or x.svg" in capsys.readouterr().err
    (tmp_path / "x.png").write_text("mine")
    assert main([*words, str(tmp_path / "x.png")]) == 1
    assert (tmp_path / "x.png").read_text() == "mine"


@pytest.mark.parametrize("how", ["EXPLAIN ANALYZE", "EXPLAIN (analyse)", "/* plan */ explain /* */ Analyze"])
def test_plan_that_would_run_is_refused(lake, how):
    """EXPLAIN ANALYZE runs what it explains, and COPY may write the files that a question may read: neither is run."""
    file = live_files(store_of(lake.uri), "fills")[0]
    before = file.read_bytes()
    with pytest.raises(BadInput, match="EXPLAIN ANALYZE runs what it explains"):
        _ask(lake, f"{how} COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)")
    assert file.read_bytes() == before
    assert _ask(lake, "EXPLAIN SELECT count(*) FROM fills")


def test_lake_is_unchanged_by_any_question(lake):
    """Asking writes nothing."""
    before = {path: path.stat().st_mtime_ns for path in store_of(lake.uri).path.rglob("*")}
    _ask(lake, "SELECT count(*) FROM risk_events")
    assert {path: path.stat().st_mtime_ns for path in store_of(lake.uri).path.rglob("*")} == before

from __future__ import annotations

import grp
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from support.journal import HandmadeLog, rows, small_log

from holdfast.audit.format import leaf_hash
from holdfast.audit.head import HeadState
from holdfast.audit.query import read_lines, read_records
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock

COMMAND = [sys.executable, "-m", "holdfast.cli.main", "audit"]


def append(home, *lines: str | bytes, args=()) -> subprocess.CompletedProcess[bytes]:
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    done = subprocess.run(
        [*COMMAND, "append", str(home), *args], input=data, capture_output=True, check=False
    )
    told = done.stderr.splitlines(keepends=True)
    done.stderr = b"".join(line for line in told if b"is signed from here on" not in line)
    return done


def note(n, **more):
    return json.dumps({"type": "NOTE", "user": "u", "details": {"n": n}, **more})


@pytest.fixture
def home(tmp_path):
    return tmp_path / "audit"


def test_append_acknowledges_each_line_with_sequence_and_leaf(home):
    """Each good line gives `ACK <sequence> <first 16 hex digits of its leaf hash>`, in order."""
    done = append(home, note(1), note(2, component="c"))
    assert done.returncode == 0, done.stderr
    lines = list(read_lines(home))
    assert done.stdout.decode().splitlines() == [
        f"ACK {sequence} {leaf_hash(lines[sequence - 1]).hex()[:16]}" for sequence in (3, 4)
    ]
    assert done.stderr == b""


def test_append_goes_on_after_bad_lines_and_exits_1(home):
    """A bad line gives `ERR <line> <reason>`, the rest go on."""
    done = append(
        home,
        note(1),
        "not json",
        "[1]",
        '{"type":"NOTE","user":"u"}',
        '{"type":"NOTE","details":{}}',
        '{"type":"","user":"u","details":{}}',
        '{"type":"SEALED","user":"u","details":{}}',
        '{"type":"NOTE","user":1,"details":{}}',
        '{"type":"NOTE","user":"u","details":[]}',
        '{"type":"NOTE","user":"u","details":{},"seq":9}',
        '{"type":"NOTE","user":"u","details":{"x":NaN}}',
        '{"type":"NOTE","user":"u","details":{"x":1e999}}',
        b'{"type":"NOTE","user":"\xff","details":{}}',
        '{"type":"NOTE","user":"u","details":' + '{"a":' * 5000 + "1" + "}" * 5001,
        '{"type":"NOTE","user":"u","details":{"x":"' + "a" * 65_000 + '"}}',
        "",
        note(2),
    )
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.decode().splitlines()] == ["3", "4"]
    errors = done.stderr.decode().splitlines()
    assert [line.split()[:2] for line in errors] == [["ERR", str(number)] for number in range(2, 16)]
    assert verify(home).total_entries == 4


def test_append_takes_a_last_line_without_newline(home):
    """A final line that lacks its newline is a line."""
    done = subprocess.run(
        [*COMMAND, "append", str(home)], input=note(1).encode(), capture_output=True, check=False
    )
    assert done.stdout.startswith(b"ACK 3 ")


def test_append_refuses_an_endless_line_without_keeping_it(home):
    """A line of many megabytes is one error, and the next line is written."""
    done = append(home, b"x" * 20_000_000, note(1))
    assert done.stdout.startswith(b"ACK 3 ")
    assert done.stderr.startswith(b"ERR 1 ")
    assert len(done.stderr) < 500


def test_append_answers_a_slow_writer_line_by_line(home):
    """Each line is acknowledged before the next one is written."""
    with subprocess.Popen(
        [*COMMAND, "append", str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        for n in range(3):
            child.stdin.write(note(n).encode() + b"\n")
            child.stdin.flush()
            assert child.stdout.readline().startswith(f"ACK {n + 3} ".encode())
        child.stdin.close()
        assert child.wait() == 0


def test_append_batches_a_fast_writer(home):
    """Many lines that are there at once share few syncs and keep their order."""
    done = append(home, *(note(n) for n in range(5000)))
    assert done.returncode == 0
    assert [int(line.split()[1]) for line in done.stdout.decode().splitlines()] == list(range(3, 5003))
    synced = {json.loads(line)["synced"] for line in read_lines(home)}
    assert len(synced) < 500


def test_append_as_json(home):
    """With --json an acknowledgement carries line number, sequence and the whole leaf hash."""
    done = append(home, note(1), args=["--json"])
    assert json.loads(done.stdout) == {
        "ack": 3,
        "line": 1,
        "leaf": leaf_hash(list(read_lines(home))[2]).hex(),
    }


@pytest.mark.invariant("I14")
def test_append_redacts(home):
    """A secret handed to `audit append` is not stored."""
    append(home, '{"type":"NOTE","user":"u","details":{"password":"canary-1","e":"Bearer canary-2222"}}')
    assert b"canary" not in b"".join(path.read_bytes() for path in home.glob("*.log"))


@pytest.mark.invariant("I7")
def test_everything_acknowledged_survives_kill_9(home):
    """A writer that is killed has on disk whatever it acknowledged."""
    with subprocess.Popen(
        [*COMMAND, "append", str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdin.write("".join(note(n) + "\n" for n in range(300)).encode())
        child.stdin.flush()
        acknowledged = [child.stdout.readline() for _ in range(150)]
        child.send_signal(signal.SIGKILL)
        child.stdin.close()
        child.wait()
    report = verify(home)
    assert report.ok, report.problems
    leaves = {int(line.split()[1]): line.split()[2].decode() for line in acknowledged}
    lines = list(read_lines(home))
    assert all(leaf_hash(lines[sequence - 1]).hex()[:16] == leaf for sequence, leaf in leaves.items())


def test_a_second_writer_is_refused_with_the_pid_of_the_first(home, capsys):
    """`append` and `recover` beside a live writer exit 4 and name it."""
    with WriteAheadLog(home, clock=ManualClock(), seal=False) as log:
        log.append("NOTE", {})
        for verb in ("append", "recover"):
            done = subprocess.run(
                [*COMMAND, verb, str(home)], input=note(1).encode(), capture_output=True, check=False
            )
            assert done.returncode == 4
            assert str(os.getpid()) in done.stderr.decode()


def test_an_unwritable_directory_is_a_user_error(tmp_path):
    """A log that cannot be created exits 1 with one line."""
    (tmp_path / "file").write_bytes(b"")
    done = append(tmp_path / "file" / "audit", note(1))
    assert done.returncode in {1, 4}
    assert b"Traceback" not in done.stderr


def test_cat_prints_the_stored_lines(home, capfdbinary):
    """`cat` gives the bytes of each line, sealed or not, up to the head."""
    log = small_log(home, (5, 4), seal_first=True)
    assert main(["audit", "cat", str(home)]) == 0
    assert capfdbinary.readouterr().out == b"".join(line + b"\n" for line in log.lines)
    assert main(["audit", "cat", str(home), "--hash"]) == 0
    assert capfdbinary.readouterr().out == b"".join(
        leaf_hash(line).hex().encode() + b"\t" + line + b"\n" for line in log.lines
    )


def test_cat_of_a_damaged_log_prints_what_comes_before_and_exits_3(home, capfdbinary):
    """Everything before the damage is shown, and the damage is named."""
    log = small_log(home)
    path = min(home.glob("*.log"))
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    assert main(["audit", "cat", str(home)]) == 3
    said = capfdbinary.readouterr()
    assert said.out == b"".join(line + b"\n" for line in log.lines[:3])
    assert b"sequence 4" in said.err


def test_query_prints_matches_as_lines_and_as_json(home, capsys):
    """Off a terminal: a header and tab-separated lines; with --json one object per line."""
    small_log(home)
    assert main(["audit", "query", str(home), "--type", "NOTE", "--limit", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["time", "sequence", "type", "user", "component", "details"]
    assert [line.split("\t")[1] for line in lines[1:]] == ["2", "3"]
    assert (
        main(["audit", "query", str(home), "--type", "NOTE", "--newest-first", "--json", "--limit", "1"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["sequence"] == 11


@pytest.mark.parametrize(
    ("start", "count"),
    [("2025-11-20T10:20:05Z", 6), ("1763634005", 6), ("1763634005.5", 5), ("2025-11-20T11:20:05+01:00", 6)],
)
def test_query_reads_times(home, capsys, start, count):
    """Unix seconds and ISO 8601 with an offset mean the same moment."""
    small_log(home)
    assert main(["audit", "query", str(home), "--from", start, "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == count


@pytest.mark.parametrize("start", ["2025-11-20T10:20:05", "yesterday", "nan"])
def test_query_refuses_a_time_it_cannot_read(home, capsys, start):
    """A time without zone, or no time at all, is refused with a hint."""
    small_log(home)
    assert main(["audit", "query", str(home), "--from", start]) == 1
    assert "start_time" in (said := capsys.readouterr().err) or "--from" in said


def test_a_query_without_matches_says_so_beside_the_output(home, capsys):
    """Nothing found is told on stderr; stdout stays what a program expects."""
    small_log(home)
    assert main(["audit", "query", str(home), "--type", "TRADE", "--json"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "holdfast: no record matches\n")
    assert main(["audit", "query", str(home), "--user", "nobody"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert shown.err == "holdfast: no record matches\n"


@pytest.mark.parametrize("verb", ["query", "cat", "verify"])
def test_the_folder_around_a_log_is_told_from_a_log(home, capsys, verb):
    """The parent of a log is neither an empty log nor a damaged one; the log in it is named."""
    small_log(home)
    assert main(["audit", verb, str(home.parent)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"hint: it holds one: {home}" in shown.err


def test_a_moment_without_a_time_zone_is_refused_with_the_one_to_type(home, capsys):
    """The hint can be pasted back into the command."""
    small_log(home)
    assert main(["audit", "query", str(home), "--from", "2026-11-20"]) == 1
    assert "hint: for UTC: 2026-11-20T00:00:00Z" in capsys.readouterr().err


def test_a_record_cannot_write_to_the_readers_terminal(home, capsys):
    """Control characters in a record are printed spelled out."""
    log = HandmadeLog(home)
    log.segment([("NOTE", {}, "a\x1b[2Jb\nc")])
    log.head()
    main(["audit", "query", str(home), "--type", "NOTE"])
    assert "a\\x1b[2Jb\\x0ac" in capsys.readouterr().out


def test_verify_names_the_damage_and_exits_3(home, tmp_path, capsys):
    """Of several logs each gets its verdict; one bad one makes the exit code 3."""
    small_log(home)
    small_log(tmp_path / "other")
    path = min(home.glob("*.log"))
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    assert main(["audit", "verify", str(home), str(tmp_path / "other")]) == 3
    said = capsys.readouterr().out
    assert "DAMAGED" in said
    assert "sequence 4" in said
    assert "intact" in said
    assert main(["audit", "verify", str(home), "--json"]) == 3
    facts = json.loads(capsys.readouterr().out)
    assert (facts["integrity_ok"], facts["first_bad_sequence"]) == (False, 4)


def test_verify_of_a_torn_log_exits_0_and_recover_repairs_it(home, capsys):
    """A torn tail waits for recovery; `recover` opens the log as a restart does."""
    log = HandmadeLog(home)
    name = log.segment(rows(5))
    log.head(HeadState.OPEN)
    with (home / name).open("ab") as file:
        file.write(b'{"crc":"half a line')
    assert main(["audit", "verify", str(home)]) == 0
    assert "needs recovery" in capsys.readouterr().out
    assert main(["audit", "recover", str(home)]) == 0
    assert "recovered" in capsys.readouterr().out
    report = verify(home)
    assert report.ok, report.problems
    assert not report.needs_recovery
    # It goes on in a new, signed segment, says that it recovered, and seals the day before.
    later = [record.type for record in read_records(home, start_seq=7)]
    assert later == ["SEGMENT", "KEY", "RECOVERY", "SEALED"]


def test_recover_refuses_damage_and_changes_nothing(home, capsys):
    """A damaged log is left exactly as it was, exit 3."""
    small_log(home)
    path = min(home.glob("*.log"))
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    before = {one.name: one.read_bytes() for one in home.glob("*") if one.is_file()}
    assert main(["audit", "recover", str(home)]) == 3
    assert "sequence 4" in capsys.readouterr().err
    assert {one.name: one.read_bytes() for one in home.glob("*") if one.is_file()} == before


@pytest.mark.parametrize("verb", ["cat", "query", "verify", "recover"])
def test_a_missing_log_is_a_user_error_and_is_not_made(tmp_path, capsys, verb):
    """Reading verbs, and recover, do not create what they were asked about."""
    assert main(["audit", verb, str(tmp_path / "nothing")]) == 1
    assert "no audit log" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_append_lets_a_group_read_the_log_and_nobody_else(home):
    """`--group` gives files 0640 and directories 2750 of that group, those made later too; without it 0600 and 0700."""
    append(home, note(1))
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir() if path.is_file()} == {0o600}
    group = grp.getgrgid(os.getgid())
    assert append(home, note(2), args=["--group", group.gr_name]).returncode == 0
    assert append(home, note(3)).returncode == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o2750
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o2750 if path.is_dir() else 0o640), path
        assert path.stat().st_gid == group.gr_gid
    assert verify(home).ok

    refused = append(home, note(4), args=["--group", "no-such-group"])
    assert refused.returncode == 1
    assert b"no-such-group" in refused.stderr

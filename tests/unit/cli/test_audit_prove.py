"""`holdfast audit prove | check-proof`: what they print, what they refuse, and with which exit code."""

import io
import json
import shutil
import sys
from types import SimpleNamespace

import pytest

from holdfast.audit.format import decode_line, encode_line
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import (
    COSIGNATURE_ED25519,
    SigningKey,
    VerifierKey,
    add_signature,
    cosign,
    parse_checkpoint,
    parse_note,
    sign_note,
)
from holdfast.audit.proofs import MAX_PROOF_BYTES, RecordProof, parse_record_proof
from holdfast.audit.query import read_lines
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock

START_NS = 1_763_634_000 * 10**9
WITNESS = SigningKey("witness.example/w", b"\2" * 32, COSIGNATURE_ED25519)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("template")
    clock = ManualClock(START_NS)
    with WriteAheadLog(home / "log", clock=clock, keys=KeyHome(home / "keys"), seal=False) as log:
        for number in range(300):
            log.append("NOTE", {"n": number}, user="auditor", level=Level.BUFFERED)
            if number == 150:
                log.rotate()
    return home


@pytest.fixture
def log(template, tmp_path):
    shutil.copytree(template / "log", tmp_path / "log")
    return tmp_path / "log"


@pytest.fixture
def pinned(template, monkeypatch):
    """This user keeps the log's keys."""
    monkeypatch.setenv("HOLDFAST_HOME", str(template / "keys"))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """This user knows nothing of the log."""
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "nothing"))


@pytest.fixture
def vkey(log):
    return next(
        record.details["vkey"] for record in map(decode_line, read_lines(log)) if record.type == "KEY"
    )


def run(capfdbinary, *words):
    code = main(["audit", *map(str, words)])
    out, err = capfdbinary.readouterr()
    return code, out.decode(), err.decode()


@pytest.fixture
def call(capfdbinary):
    return lambda *words: run(capfdbinary, *words)


@pytest.fixture
def proof(call, log, tmp_path, stranger):
    """The file of one proof."""
    assert call("prove", log, 200, "--out", tmp_path / "proofs")[0] == 0
    return tmp_path / "proofs" / "000000000200.tlog-proof"


@pytest.mark.contract("X2")
def test_a_proof_made_here_is_checked_elsewhere(call, log, tmp_path, vkey, stranger):
    """`prove` writes one file for each record, and `check-proof` accepts them with nothing but the first key."""
    code, out, err = call("prove", log, 200, 7, 200, "--out", tmp_path / "a/b")
    files = [tmp_path / "a/b" / f"{sequence:012d}.tlog-proof" for sequence in (7, 200)]
    assert (code, out.split(), err) == (0, [str(file) for file in files], "")
    assert sorted((tmp_path / "a/b").iterdir()) == files
    shutil.rmtree(log)
    code, out, err = call("check-proof", *files, "--key", vkey)
    assert (code, err) == (0, "")
    assert f"{files[1]}: proven: sequence 200 of holdfast/" in out
    assert out.count("signed by holdfast/") == 2
    assert '"user":"auditor"' in out
    assert json.loads(out.splitlines()[3])["seq"] == 7


def test_one_proof_goes_to_stdout_and_comes_from_stdin(call, log, vkey, monkeypatch, stranger):
    """Without a folder one proof is printed as it is; several are refused; `-` reads one from stdin."""
    code, out, _ = call("prove", log, 7)
    assert code == 0
    proof = parse_record_proof(out.encode())
    assert proof.leaf_index == 6
    code, out, err = call("prove", log, 7, 8)
    assert (code, out) == (1, "")
    assert "2 proofs need a folder" in err
    assert "--out FOLDER" in err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(proof.encode())))
    assert call("check-proof", "-", "--key", vkey)[0] == 0


def test_json_says_the_same(call, log, tmp_path, vkey, stranger):
    """With `--json` both verbs print one object for each record, and a proof in it is a whole one."""
    code, out, _ = call("prove", log, 7, 8, "--json")
    assert code == 0
    made = [json.loads(line) for line in out.splitlines()]
    assert [one["sequence"] for one in made] == [7, 8]
    files = []
    for one in made:
        files.append(tmp_path / f"{one['sequence']}")
        files[-1].write_text(one["proof"])
    (tmp_path / "junk").write_text("junk")
    code, out, err = call("check-proof", *files, tmp_path / "junk", "--key", vkey, "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert [one["proven"] for one in told] == [True, True, False]
    assert told[0]["sequence"] == 7
    assert told[0]["size"] == len(list(read_lines(log)))
    assert json.loads(told[0]["record"])["details"] == decode_line(list(read_lines(log))[6]).details
    assert VerifierKey.parse(told[0]["signed_by"][0]).name == told[0]["log"]
    assert told[2]["exit_code"] == 1
    code, out, _ = call("prove", log, 7, "--out", tmp_path / "out", "--json")
    assert json.loads(out) == {"sequence": 7, "file": str(tmp_path / "out/000000000007.tlog-proof")}


def test_keys_come_from_the_option_from_a_file_or_from_the_pins(  # noqa: PLR0917  fixtures
    call, proof, tmp_path, vkey, template, monkeypatch
):
    """A key on the command line, one in a file and a pinned one count; without any the proof is not judged."""
    file = tmp_path / "log.vkey"
    file.write_text(f"\n{SigningKey('other', b'1' * 32).vkey}\n  {vkey}\n")
    assert call("check-proof", proof, "--key", file)[0] == 0
    assert call("check-proof", proof, "--key", vkey, "--key", WITNESS.vkey)[0] == 0
    code, out, err = call("check-proof", proof)
    assert (code, out) == (1, "")
    assert "0 were named" in err
    assert "--key VKEY" in err
    monkeypatch.setenv("HOLDFAST_HOME", str(template / "keys"))
    assert call("check-proof", proof)[0] == 0
    assert call("check-proof", proof, "--key", WITNESS.vkey)[0] == 0  # a witness beside the pinned key
    code, _, err = call("check-proof", proof, "--key", SigningKey("other", b"1" * 32).vkey)
    assert code == 1  # a log's key that was named stands in the place of the pins
    monkeypatch.delenv("HOLDFAST_HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HOME")
    assert call("check-proof", proof)[0] == 1


@pytest.mark.parametrize("text", ["", "nonsense", "/nowhere/at/all", "a+12345678+AAAA", "x" * 5000])
def test_a_key_that_is_none_is_refused(call, proof, text):
    """What is neither a key nor a file is named, and no proof is judged."""
    code, out, err = call("check-proof", proof, "--key", text)
    assert (code, out) == (1, "")
    assert "key" in err
    assert repr(text)[1:20] in err or "unknown algorithm" in err


def test_a_file_without_keys_is_refused(call, proof, tmp_path):
    """An empty key file, and one with a line that is no key, is named."""
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "bad").write_text("nonsense\n")
    for name, words in (("empty", "holds no key"), ("bad", "not a verifier key")):
        code, _, err = call("check-proof", proof, "--key", tmp_path / name)
        assert code == 1
        assert words in err


@pytest.mark.contract("X2")
def test_a_false_proof_is_told_from_one_that_cannot_be_judged(call, proof, tmp_path, vkey):
    """A changed record exits 3; a file that is no proof, or of a key nobody named, exits 1; the worst one counts."""
    good = parse_record_proof(proof.read_bytes())
    record = decode_line(good.line)
    line = encode_line(record.seq, record.synced, record.ts, "NOTE", "somebody", "", b"{}")
    false, cut = tmp_path / "false", tmp_path / "cut"
    false.write_bytes(good._replace(line=line).encode())
    cut.write_bytes(proof.read_bytes()[:-1])
    code, out, err = call("check-proof", false, proof, cut, "--key", vkey)
    assert code == 3
    assert out.count("proven") == 1
    assert f"holdfast: {false}: proof refused: record 200 is not in the tree" in err
    assert f"{cut}: " in err
    assert call("check-proof", proof, cut, "--key", vkey)[0] == 1
    forged = tmp_path / "forged"
    note = parse_note(good.checkpoint)
    larger = parse_checkpoint(note.text)._replace(size=10**6).text()
    forged.write_bytes(good._replace(checkpoint=good.checkpoint.replace(note.text, larger)).encode())
    assert call("check-proof", forged, "--key", vkey)[0] == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"c2sp.org/tlog-proof@v1\n", "— ä\n".encode() * 1000, b"x" * (MAX_PROOF_BYTES + 1)],
)
def test_hostile_files_are_refused_in_words(call, content, tmp_path, vkey, stranger):
    """Empty, binary, cut and endless files are named with a reason, without a traceback."""
    (tmp_path / "hostile").write_bytes(content)
    code, out, err = call("check-proof", tmp_path / "hostile", "--key", vkey)
    assert (code, out) == (1, "")
    assert str(tmp_path / "hostile") in err
    assert "Traceback" not in err


def test_files_that_cannot_be_read_are_named(call, proof, tmp_path, vkey):
    """A missing file and a directory are named, and the others are still checked."""
    code, out, err = call("check-proof", tmp_path / "nothing", tmp_path, proof, "--key", vkey)
    assert code == 1
    assert "proven" in out
    assert f"{str(tmp_path / 'nothing')!r} cannot be read: no such file or directory" in err
    assert f"{str(tmp_path)!r} is not a file" in err


def test_a_record_cannot_draw_on_the_terminal(call, tmp_path, stranger):
    """Control characters in names that a hostile proof carries are spelled out."""
    name = "holdfast/\u009b31mred"
    signer = SigningKey(name, b"\1" * 32)
    line = encode_line(1, 0, 2**63 - 1, "NO\u009bTE", "u", "c", b"{}")
    from holdfast.audit.format import leaf_hash
    from holdfast.audit.note import Checkpoint

    text = Checkpoint(name, 1, leaf_hash(line)).text()
    hostile = RecordProof(line, 0, (), sign_note(text, signer))
    (tmp_path / "hostile").write_bytes(hostile.encode())
    code, out, err = call("check-proof", tmp_path / "hostile", "--key", signer.vkey)
    assert code == 0
    assert "\u009b" not in out + err
    assert call("check-proof", tmp_path / "hostile")[0] == 1


def test_cosignatures_are_shown_with_their_time(call, log, tmp_path, vkey, stranger):
    """A cosigned checkpoint that is given is what the proof leads to; a named witness is shown with its time."""
    note = (log / "checkpoint").read_bytes()
    for when, shown in ((1_763_634_000, "2025-11-20T10:20:00.000Z"), (2**62, f"{2**62} s after 1970")):
        line = cosign(parse_note(note).text, WITNESS, when).line()
        (tmp_path / "cosigned").write_bytes(add_signature(note, line))
        code, _, err = call("prove", log, 5, "--checkpoint", tmp_path / "cosigned", "--out", tmp_path)
        assert (code, err) == (0, "")
        made = tmp_path / "000000000005.tlog-proof"
        _, out, _ = call("check-proof", made, "--key", vkey, "--key", WITNESS.vkey)
        assert f"signed by witness.example/w (key id {WITNESS.vkey.key_id:08x}), cosigned {shown}" in out
        _, out, _ = call("check-proof", made, "--key", vkey, "--key", WITNESS.vkey, "--json")
        assert list(json.loads(out)["cosigned"].values()) == [shown]
        _, out, _ = call("check-proof", made, "--key", vkey)
        assert "also signed by witness.example/w, a key that was not named" in out


def test_the_newest_cosigned_receipt_is_proven_against(call, log, tmp_path, vkey, monkeypatch):
    """Of the receipts that this user keeps, the newest cosigned one that covers the records is taken."""
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    text, signatures = min(log.glob("*.checkpoints")).read_bytes().split(b"\n\n")[:2]
    older = parse_note(text + b"\n\n" + signatures + b"\n")
    newest = parse_note((log / "checkpoint").read_bytes())
    origin = parse_checkpoint(newest.text).origin
    size = parse_checkpoint(older.text).size
    kept = tmp_path / "home/logs" / origin.rpartition("/")[2] / "anchors/witness-12345678"
    kept.mkdir(parents=True)

    def keep(name, note, *witnesses):
        lines = [*note.signatures, *(cosign(note.text, witness, 1_763_634_000) for witness in witnesses)]
        (kept / name).write_bytes(note.text + b"\n" + b"".join(line.line() for line in lines))

    keep(f"20251120-{size:012d}.note", older, WITNESS)
    keep("20251120-000000000999.note", newest)  # a time stamp's: nobody cosigned it
    (kept / "20251119-000000000001.note").write_bytes(b"junk")
    made = tmp_path / f"{size:012d}.tlog-proof"
    code, _, err = call("prove", log, size, "--out", tmp_path)
    assert code == 0
    assert "receipt passed over" in err
    assert len(err.splitlines()) == 1
    assert parse_note(parse_record_proof(made.read_bytes()).checkpoint).text == older.text
    assert "cosigned 2025" in call("check-proof", made, "--key", vkey, "--key", WITNESS.vkey)[1]
    assert call("prove", log, size + 1, "--out", tmp_path)[0] == 0  # not covered by it: the log's own newest
    made = tmp_path / f"{size + 1:012d}.tlog-proof"
    assert parse_note(parse_record_proof(made.read_bytes()).checkpoint) == newest
    # One that was changed is not passed over in silence.
    keep(f"20251120-{size:012d}.note", older._replace(text=newest.text.replace(b"\n3", b"\n4", 1)), WITNESS)
    assert call("prove", log, size, "--out", tmp_path)[0] == 1


def test_what_cannot_be_proven_is_refused(call, log, tmp_path, pinned):
    """A sequence that is not covered, a directory without log and a log without checkpoint exit 1, damage exits 3."""
    size = len(list(read_lines(log)))
    for words, code, said in (
        ((log, size + 1), 1, f"covers {size} records"),
        ((log, 0), 1, "covers"),
        ((log, "-1"), 1, "covers"),
        ((log, "seven"), 2, ""),
        ((tmp_path / "nothing", 1), 1, "no audit log"),
        ((tmp_path, 1), 1, "it holds one"),
        ((log, 1, "--checkpoint", tmp_path / "nothing"), 1, "no such file"),
        ((log, 1, "--checkpoint", log / "head"), 1, "note refused"),
        ((log, 1, "--out", log / "head"), 1, "exists"),
    ):
        found = call("prove", *words)
        assert (found[0], found[1]) == (code, ""), words
        assert said in found[2]
    segment = max(log.glob("audit_*.log"))
    segment.write_bytes(segment.read_bytes().replace(b'{"n":299}', b'{"n":298}'))
    code, out, err = call("prove", log, size)
    assert (code, out) == (3, "")
    assert "crc does not match" in err


def test_damaged_tiles_are_said_beside_the_proof(call, log, tmp_path, vkey, stranger):
    """Where tiles are damaged the proof is whole all the same, and stderr says where its hashes came from."""
    for tile in (log / "tile").rglob("*"):
        if tile.is_file():
            tile.write_bytes(bytes(len(tile.read_bytes())))
    code, _, err = call("prove", log, 5, "--out", tmp_path)
    assert code == 0
    assert "tiles put aside, all hashes taken from the records" in err
    assert call("check-proof", tmp_path / "000000000005.tlog-proof", "--key", vkey)[0] == 0

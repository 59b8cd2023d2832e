"""Exports: what is written, what the manifest says, and what a check finds."""

import csv
import json
from hashlib import sha256

import pytest

from holdfast.archive.export import COLUMNS, FORMATS, Source, check_export, export
from holdfast.audit.format import decode_line, encode_details, encode_line, leaf_hash
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import SigningKey
from holdfast.audit.prove import Prover
from holdfast.audit.query import read_lines
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, BadInput

USERS = ["desk-1", "=cmd()", "+1", "@x", 'ä,"q"\n']


class Log:
    """A signed log of 20 records, the last three of them younger than the checkpoint in hand."""

    def __init__(self, home, *, signed=True):
        keys = KeyHome(home / "keys") if signed else None
        self.path = home / "log"
        with WriteAheadLog(self.path, clock=ManualClock(), keys=keys, seal=False) as wal:
            for n in range(15 if signed else 16):
                wal.append("NOTE", {"n": n, "text": "x,y"}, user=USERS[n % 5], component="test")
            self.note = wal.checkpoint() if signed else b""
            for n in range(3):
                wal.append("NOTE", {"n": n, "text": "x,y"}, user=USERS[n % 5], component="test")
            self.id = wal.log_id
        self.lines = list(enumerate(read_lines(self.path), 1))
        self.pins = keys.log(self.id).pins() if keys is not None else []
        self.prover = Prover(self.path, checkpoint=self.note) if signed else None

    def source(self, lines=None, chosen=lambda n: n % 3 != 0):
        matches = [(n, line) for n, line in self.lines if chosen(n)] if lines is None else lines
        return Source(iter(matches), {"type": "NOTE"}, self.id, self.prover)


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.prover.close()


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("proofs", [False, True])
@pytest.mark.contract("X2")
def test_an_export_checks_and_its_manifest_says_what_it_holds(log, out, format_, proofs):
    """Rows, hashes, sequences and proofs of the manifest are those of the file, whatever the format."""
    target = out / f"out.{format_}"
    manifest = export(log.source(), target, format_, proofs=proofs)
    assert (manifest.rows, manifest.first_sequence, manifest.last_sequence) == (14, 1, 20)
    assert manifest.sha256 == sha256(target.read_bytes()).hexdigest()
    assert (manifest.checkpoint_size, manifest.rows_beyond_checkpoint) == (17, 2)
    found = check_export(out / f"out.{format_}.manifest.json", log.pins)
    assert not found.problems
    assert found.signed_by == tuple(map(str, log.pins))
    assert found.proven == (12 if proofs else 0)
    left = {path.name.removeprefix(target.name) for path in out.iterdir()}
    assert left == {"", ".manifest.json"} | ({".proofs.jsonl"} if proofs else set())


def test_jsonl_is_the_stored_lines(log, out):
    """Byte for byte, so that their leaf hashes can be computed from the export alone."""
    export(log.source(), out / "out", "jsonl")
    assert (out / "out").read_bytes().splitlines() == [line for n, line in log.lines if n % 3]


def test_csv_has_every_value_and_no_formula(log, out):
    """A CSV reader gets the record back; a cell that a spreadsheet would compute is marked as text."""
    export(log.source(log.lines), out / "out.csv", "csv")
    with (out / "out.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == COLUMNS
    for row, (_, line) in zip(rows, log.lines, strict=True):
        record = decode_line(line)
        assert row["user_id"].removeprefix("'") == record.user
        assert row["user_id"][:1] not in {"=", "+", "-", "@"}
        assert json.loads(row["details"]) == record.details
        assert row["leaf"] == leaf_hash(line).hex()


def test_parquet_has_typed_columns(log, out):
    """Times are times, sequences integers, leaves 32 bytes."""
    parquet = pytest.importorskip("pyarrow.parquet")
    export(log.source(), out / "out.parquet", "parquet")
    table = parquet.read_table(out / "out.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert str(table.schema.field("timestamp").type) == "timestamp[ns, tz=UTC]"
    assert table["leaf"][0].as_py() == leaf_hash(log.lines[0][1])


def test_an_export_without_rows_is_one(log, out):
    """Nothing found is a result too."""
    for format_ in FORMATS:
        manifest = export(log.source([]), out / format_, format_, proofs=True)
        assert manifest.rows == 0
        assert not check_export(out / f"{format_}.manifest.json").problems


@pytest.mark.parametrize("format_", FORMATS)
def test_every_changed_byte_is_found(log, out, format_):
    """A change in file or proofs is a problem, never a pass."""
    target = out / "out"
    export(log.source(log.lines[2:5]), target, format_, proofs=True)
    manifest = out / "out.manifest.json"
    for path in (target, out / "out.proofs.jsonl"):
        content = path.read_bytes()
        for at in range(0, len(content), 7 if format_ != "parquet" else 29):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert check_export(manifest, log.pins).problems, (path, at)
        path.write_bytes(content)
    assert not check_export(manifest, log.pins).problems


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 5), ("sha256", "0" * 64), ("leaves_sha256", "0" * 64), ("checkpoint_size", 3), ("proven_rows", 0),
        ("proofs_sha256", "0" * 64), ("bytes", 1), ("file", "gone"), ("proofs", "gone"), ("key_notes", ["x"]),
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_found(log, out, field, value):
    """Each statement of the manifest is held against what it speaks of."""
    export(log.source(), out / "out", "jsonl", proofs=True)
    manifest = out / "out.manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {field: value}))
    assert check_export(manifest, log.pins).problems


def test_a_checkpoint_that_no_named_key_signed_is_a_problem(log, out):
    """Rows count as proven against a trusted signature only; without a key nothing is said of signatures."""
    export(log.source(), out / "out", "jsonl", proofs=True)
    stranger = SigningKey(log.pins[0].name, bytes(32)).vkey
    assert check_export(out / "out.manifest.json", [stranger]).problems
    unsaid = check_export(out / "out.manifest.json")
    assert not unsaid.problems
    assert not unsaid.signed_by


def test_an_export_stripped_of_its_signature_does_not_hold_for_who_names_a_key(log, out):
    """Whoever takes the checkpoint out and changes rows is found by a reader who has the log's key."""
    export(log.source(), out / "out", "jsonl")
    manifest = out / "out.manifest.json"
    stripped = {"checkpoint": "", "checkpoint_size": 0, "key_notes": [], "proofs": "", "proven_rows": 0}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | stripped))
    assert not check_export(manifest).problems
    (problem,) = check_export(manifest, log.pins).problems
    assert "checkpoint: there is none" in problem


def test_a_row_that_is_not_what_was_signed_stops_the_export(log, out):
    """A record changed since it was signed is named, and nothing is left behind."""
    forged = encode_line(2, 1, 5, "NOTE", "x", "test", encode_details({"n": "forged"}))
    with pytest.raises(AuditCorruption, match="sequence 2 "):
        export(log.source([log.lines[0], (2, forged)]), out / "out", "csv", proofs=True)
    assert not list(out.iterdir())


def test_an_unsigned_log_is_exported_without_proofs(tmp_path, out):
    """No checkpoint, no proof, and the manifest says so."""
    log = Log(tmp_path, signed=False)
    manifest = export(log.source(), out / "out", "csv")
    assert (manifest.checkpoint, manifest.checkpoint_size, manifest.rows_beyond_checkpoint) == (
        "",
        0,
        manifest.rows,
    )
    assert not check_export(out / "out.manifest.json").problems
    with pytest.raises(BadInput, match="not signed"):
        export(log.source(), out / "new", "csv", proofs=True)


def test_what_is_in_the_way_is_named(log, out):
    """No file is overwritten; the folder must be there; a manifest must be one."""
    (out / "out.manifest.json").write_text("mine")
    with pytest.raises(BadInput, match="exists"):
        export(log.source(), out / "out", "csv")
    with pytest.raises(BadInput, match="no directory"):
        export(log.source(), out / "none" / "new", "csv")
    (out / "bad.manifest.json").write_text("[]")
    with pytest.raises(BadInput, match="no manifest"):
        check_export(out / "bad.manifest.json")

"""Exports: what is written, what the manifest says, and what a check finds."""

import csv
import json
from hashlib import sha256

import pytest

from holdfast.archive.export import COLUMNS, FORMATS, Source, check_export, export
from holdfast.audit.format import decode_line, encode_details, encode_line, leaf_hash
from holdfast.audit.note import Checkpoint, SigningKey, sign_note
from holdfast.audit.tree import Frontier, node_hash
from holdfast.core.errors import AuditCorruption, BadInput

KEY = SigningKey("holdfast/00", bytes(32))
OTHER = SigningKey("holdfast/00", bytes(31) + b"\1")
USERS = ["desk-1", "=cmd()", "+1", "@x", 'ä,"q"\n']


def stored(count=20):
    return [
        encode_line(
            n,
            n - 1,
            1_763_634_000_000_000_000 + n,
            "NOTE",
            USERS[n % 5],
            "test",
            encode_details({"n": n, "text": "x,y"}),
        )
        for n in range(1, count + 1)
    ]


def hashes(lines):
    def read(level, index):
        if level == 0:
            return leaf_hash(lines[index])
        return node_hash(read(level - 1, 2 * index), read(level - 1, 2 * index + 1))

    return read


def source(lines=None, covered=17, chosen=lambda n: n % 3 != 0, key=KEY):
    lines = stored() if lines is None else lines
    frontier = Frontier()
    frontier.extend([leaf_hash(line) for line in lines[:covered]])
    note = sign_note(Checkpoint("holdfast/00", covered, frontier.root()).text(), key) if covered else b""
    matches = [(n, line) for n, line in enumerate(lines, 1) if chosen(n)]
    return Source(iter(matches), {"type": "NOTE"}, "00", note, hashes(lines))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("proofs", [False, True])
@pytest.mark.contract("X2")
def test_an_export_checks_and_its_manifest_says_what_it_holds(tmp_path, format_, proofs):
    """Rows, hashes, sequences and proofs of the manifest are those of the file, whatever the format."""
    target = tmp_path / f"out.{format_}"
    manifest = export(source(), target, format_, proofs=proofs)
    assert (manifest.rows, manifest.first_sequence, manifest.last_sequence) == (14, 1, 20)
    assert manifest.sha256 == sha256(target.read_bytes()).hexdigest()
    assert (manifest.checkpoint_size, manifest.rows_beyond_checkpoint) == (17, 2)
    found = check_export(tmp_path / f"out.{format_}.manifest.json", [KEY.vkey])
    assert not found.problems
    assert found.signed_by == ("holdfast/00",)
    assert found.proven == (12 if proofs else 0)
    assert sorted(path.name for path in tmp_path.iterdir())[:2] == [
        target.name,
        f"{target.name}.manifest.json",
    ]


def test_jsonl_is_the_stored_lines(tmp_path):
    """Byte for byte, so that their leaf hashes can be computed from the export alone."""
    export(source(), tmp_path / "out", "jsonl")
    assert (tmp_path / "out").read_bytes().splitlines() == [
        line for n, line in enumerate(stored(), 1) if n % 3
    ]


def test_csv_has_every_value_and_no_formula(tmp_path):
    """A CSV reader gets the record back; a cell that a spreadsheet would compute is marked as text."""
    export(source(chosen=lambda _: True), tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == COLUMNS
    for row, line in zip(rows, stored(), strict=True):
        record = decode_line(line)
        assert row["user_id"].removeprefix("'") == record.user
        assert row["user_id"][0] not in "=+-@"
        assert json.loads(row["details"]) == record.details
        assert row["leaf"] == leaf_hash(line).hex()


def test_parquet_has_typed_columns(tmp_path):
    """Times are times, sequences integers, leaves 32 bytes."""
    parquet = pytest.importorskip("pyarrow.parquet")
    export(source(), tmp_path / "out.parquet", "parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert str(table.schema.field("timestamp").type) == "timestamp[ns, tz=UTC]"
    assert table["leaf"][0].as_py() == leaf_hash(stored()[0])


def test_an_export_without_rows_is_one(tmp_path):
    """Nothing found is a result too."""
    for format_ in FORMATS:
        manifest = export(source(chosen=lambda _: False), tmp_path / format_, format_, proofs=True)
        assert manifest.rows == 0
        assert not check_export(tmp_path / f"{format_}.manifest.json").problems


@pytest.mark.parametrize("format_", FORMATS)
def test_every_changed_byte_is_found(tmp_path, format_):
    """A change in file, proofs or manifest is a problem or an unreadable manifest, never a pass."""
    target = tmp_path / "out"
    export(source(stored(4), covered=4), target, format_, proofs=True)
    manifest = tmp_path / "out.manifest.json"
    for path in (target, tmp_path / "out.proofs.jsonl"):
        content = path.read_bytes()
        for at in range(0, len(content), 1 if format_ != "parquet" else 29):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert check_export(manifest, [KEY.vkey]).problems, (path, at)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 4), ("sha256", "0" * 64), ("leaves_sha256", "0" * 64), ("checkpoint_size", 3), ("proven_rows", 0),
        ("proofs_sha256", "0" * 64), ("bytes", 1), ("file", "gone"), ("proofs", "gone"),
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_found(tmp_path, field, value):
    """Each statement of the manifest is held against what it speaks of."""
    export(source(stored(4), covered=4), tmp_path / "out", "jsonl", proofs=True)
    manifest = tmp_path / "out.manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {field: value}))
    assert check_export(manifest, [KEY.vkey]).problems


def test_a_forged_checkpoint_is_not_signed(tmp_path):
    """Rows proven against a checkpoint that no pinned key signed are a problem."""
    export(source(stored(4), covered=4, key=OTHER), tmp_path / "out", "jsonl", proofs=True)
    assert check_export(tmp_path / "out.manifest.json", [KEY.vkey]).problems
    assert not check_export(tmp_path / "out.manifest.json").signed_by


def test_rows_that_the_checkpoint_does_not_cover_as_they_are_stop_the_export(tmp_path):
    """A record changed since it was signed is named, and nothing is left behind."""
    lines = stored()
    good = source()
    forged = encode_line(2, 1, 5, "NOTE", "x", "test", encode_details({"n": "forged"}))
    with pytest.raises(AuditCorruption, match="sequence 2 "):
        export(good._replace(lines=[(1, lines[0]), (2, forged)]), tmp_path / "out", "csv", proofs=True)
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_named(tmp_path):
    """No file is overwritten; proofs need a checkpoint; the folder must be there."""
    (tmp_path / "out.manifest.json").write_text("mine")
    with pytest.raises(BadInput, match="exists"):
        export(source(), tmp_path / "out", "csv")
    with pytest.raises(BadInput, match="no checkpoint"):
        export(source(covered=0), tmp_path / "new", "csv", proofs=True)
    with pytest.raises(BadInput, match="no directory"):
        export(source(), tmp_path / "none" / "new", "csv")
    (tmp_path / "bad.manifest.json").write_text("[]")
    with pytest.raises(BadInput, match="no manifest"):
        check_export(tmp_path / "bad.manifest.json")

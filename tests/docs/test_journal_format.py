"""The format page, its example bytes and the code say the same."""

import gzip
import json
import re
import zlib
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from holdfast.audit import format as audit_format
from holdfast.audit import head, schemas, seal
from holdfast.audit.format import decode_line, leaf_hash, parse_segment_name
from holdfast.audit.head import HeadMark, HeadState, decode_slot, encode_slot
from holdfast.audit.index import Index
from holdfast.audit.keys import check_key_note, log_name
from holdfast.audit.note import VerifierKey, open_note, parse_checkpoint
from holdfast.audit.seal import read_members
from holdfast.audit.storage import PAGE_BYTES, LocalStorage
from holdfast.audit.tiles import parse_tile_path, tile_path
from holdfast.audit.tree import Frontier

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/journal-format.md").read_text()
EXAMPLE = ROOT / "vectors/journal/logs/page"
BLOCKS = dict(re.findall(r"^```([a-z]+ [a-z-]+|regex)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
LINE = BLOCKS["json line"].rstrip("\n").encode()


def example_bytes(name):
    return bytes.fromhex(BLOCKS[f"hex {name}"])


def example_lines(first):
    """The lines of the example log's segment that begins with sequence *first*."""
    name = next(name for name in EXAMPLE.iterdir() if re.search(rf"_{first:012d}\.log(\.gz)?$", name.name))
    content = name.read_bytes()
    return (gzip.decompress(content) if name.suffix == ".gz" else content).splitlines()


def section(title):
    """The text of one section of the page."""
    return re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def table_keys(text, header="| key | type | meaning |"):
    """The keys in the first column of the first table below *header*."""
    rows = text.split(header, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_worked_example_is_the_one_at_the_head_of_the_code():
    """The page's line is the line at the head of format.py, valid, and record 7 of the example log."""
    lines = [line.strip() for line in audit_format.__doc__.splitlines() if line.strip().startswith('{"crc"')]
    assert lines == [LINE.decode()]
    record = decode_line(LINE)
    assert (record.seq, record.synced, record.type) == (7, 5, "STATE")
    assert example_lines(1)[6] == LINE


def test_keys_of_a_line_are_told_in_their_order():
    """The page's table of keys has the order of the line and of the code's Record."""
    assert table_keys(section("Lines")) == list(json.loads(LINE))
    assert list(json.loads(LINE)) == ["crc", *audit_format.Record.__struct_fields__]
    assert f"from byte {audit_format.CRC_END} of the line to its end" in PAGE
    assert json.loads(LINE)["crc"] == f"{zlib.crc32(LINE[audit_format.CRC_END :]):08x}"


def test_bounds_and_names_are_those_of_the_code():
    """Line length, nesting, member size and the names of segments are the code's."""
    assert f"at most {audit_format.MAX_RECORD_BYTES} bytes long without its newline" in PAGE
    assert f"`details` at most {audit_format.MAX_NESTING} deep" in PAGE
    assert f"at most {seal.MEMBER_BYTES} raw\nbytes" in PAGE
    assert BLOCKS["regex"].strip() == audit_format._SEGMENT_NAME.pattern
    assert audit_format.FORMAT_VERSION == 1
    assert "`format` | integer | the version of this format: 1 |" in PAGE
    assert f"`head` is one page of {PAGE_BYTES} bytes with two slots, at 0 and at 512" in PAGE
    assert head.SLOT_OFFSETS == (0, 512)
    for state in HeadState:
        assert f"{state.value} {state.name.lower()}" in section("The head")


def test_validity_is_told_alike():
    """What the head of format.py demands of a valid line, the page demands."""
    code = " ".join(audit_format.__doc__.split("A line is valid if and only if")[1].split())
    page = " ".join(section("Lines").split("A line is **valid** if and only if")[1].split())
    for demand in (
        'begins with `{"crc":"`',
        "8 lower-case hexadecimal digits",
        "ends with `}`",
        "one JSON object",
    ):
        assert demand in code
        assert demand in page
    assert "65,000 bytes" in code
    assert "65000 bytes" in page


def test_leaf_is_the_hash_of_the_line():
    """The page's leaf hash is that of its line."""
    assert leaf_hash(LINE) == example_bytes("leaf")


def test_head_slot_is_read_and_written_by_the_code():
    """The page's slot says what the example log ends with, and encodes back to itself."""
    slot = example_bytes("head")
    mark = decode_slot(slot)
    assert mark == HeadMark(
        13, next(EXAMPLE.glob("*_000000000008.log")).name, mark.end_offset, HeadState.CLOSED, 2
    )
    assert encode_slot(mark) == slot
    assert (EXAMPLE / "head").read_bytes()[:104] == slot


def test_checkpoint_opens_with_the_key():
    """The page's checkpoint is signed by the page's key and covers the first segment of the example log."""
    key = VerifierKey.parse(BLOCKS["text vkey"].strip())
    assert str(key) == BLOCKS["text vkey"].strip()
    assert key.name == BLOCKS["text name"].strip()
    note = BLOCKS["text checkpoint"].encode()
    opened = open_note(note, [key])
    assert opened.verified == (key,)
    checkpoint = parse_checkpoint(opened.text)
    tree = Frontier()
    tree.extend([leaf_hash(line) for line in example_lines(1)])
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (key.name, tree.size, tree.root())
    assert note + b"\n" in next(EXAMPLE.glob("*_000000000001.checkpoints")).read_bytes()


def test_key_note_hands_over_from_the_key():
    """The page's KEY note is that of the example log's second epoch, signed by the page's key."""
    details = msgspec.convert(decode_line(example_lines(8)[1]).details, schemas.KeyDetails)
    assert details.note == BLOCKS["text key-note"]
    said = check_key_note(details, VerifierKey.parse(BLOCKS["text vkey"].strip()))
    assert (log_name(said.origin, said.log_id), said.epoch) == (BLOCKS["text name"].strip(), 2)


def test_gzip_member_is_read_by_the_code(tmp_path):
    """The page's gzip member holds its line and newline, for gzip and for the journal's own reader."""
    member = example_bytes("gzip")
    assert gzip.decompress(member) == LINE + b"\n"
    (tmp_path / "member").write_bytes(member)
    directory = LocalStorage().directory(tmp_path, create=False)
    file = directory.open("member")
    try:
        assert list(read_members(file)) == [(0, LINE + b"\n")]
    finally:
        file.close()
        directory.close()


def test_index_is_the_one_that_the_code_makes():
    """The index of the example log, whose beginning the page shows, is what index.py makes of the segment."""
    lines, content = example_lines(1), next(EXAMPLE.glob("*.log.gz")).read_bytes()
    index = Index(1)
    raw_at = gzip_at = 0
    while gzip_at < len(content):
        unpack = zlib.decompressobj(31)
        raw = unpack.decompress(content[gzip_at:])
        index.begin_block(raw_at, gzip_at)
        index.take(raw.splitlines())
        raw_at, gzip_at = raw_at + len(raw), len(content) - len(unpack.unused_data)
    made = index.encode(sha256(b"".join(line + b"\n" for line in lines)).digest())
    assert made == next(EXAMPLE.glob("*.idx")).read_bytes()
    assert made[:64] == example_bytes("index")


def test_tile_holds_the_leaves():
    """The page's tile begins with the hashes of the first two records, under the name that C2SP gives it."""
    assert example_bytes("tile") == b"".join(leaf_hash(line) for line in example_lines(1)[:2])
    path = re.search(r"`(tile/0/000\.p/\d+)`", PAGE)[1]
    assert (EXAMPLE / path).read_bytes().startswith(example_bytes("tile"))
    assert parse_tile_path(path) is not None
    assert "1234067 is `x001/x234/067`" in PAGE
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"


@pytest.mark.parametrize(
    ("title", "type_"),
    [
        ("Segments", "SEGMENT"),
        ("Epochs and KEY records", "KEY"),
        ("Sealing", "SEALED"),
        ("Recovery", "RECOVERY"),
    ],
)
def test_details_of_the_journals_own_records_are_told(title, type_):
    """The page's table of a record's details has the keys of its schema, in their order."""
    published = [field.encode_name for field in msgspec.structs.fields(schemas.SCHEMAS[type_])]
    told = table_keys(section(title))
    if type_ == "SEALED":  # its table groups keys that belong together
        told, published = sorted(told), sorted(published)
    assert told == published


def test_details_of_pruned_records_are_told():
    """The page's table of PRUNED, and of CLOCK_STEP and LATE in prose, names every key of the schema."""
    table = section("Pruning").split("| key | type | meaning |")[1].split("\n\n")[0]
    for type_, text in (
        ("PRUNED", table),
        ("CLOCK_STEP", section("Record types")),
        ("LATE", section("Record types")),
    ):
        for field in msgspec.structs.fields(schemas.SCHEMAS[type_]):
            assert f"`{field.encode_name}`" in text, f"{type_}: {field.encode_name} is not told"


def test_every_type_of_the_journals_own_is_told():
    """The page lists the types that the journal writes about itself, and no other."""
    own = section("Record types").split("are ", 1)[1].split(". All others")[0]
    own = re.sub(r"\([^)]*\)", "", own)
    assert set(re.findall(r"`([A-Z_]+)`", own)) == {type_.value for type_ in schemas.JOURNALS_OWN}


def test_names_of_the_directory_are_parsed_by_the_code():
    """Every segment name of the example log is one to the code, and nothing else there is."""
    segments = {name.name for name in EXAMPLE.iterdir() if parse_segment_name(name.name)}
    assert segments == {name.name for name in EXAMPLE.iterdir() if ".log" in name.name}
    assert len(segments) == 2


@pytest.mark.parametrize("version", range(1, schemas.SCHEMA_VERSION + 1))
def test_recordings_of_every_version_are_read(version):
    """Lines of every published version of the schemas are valid and fit the schemas of today."""
    lines = (ROOT / f"vectors/journal/recordings/schema-{version}.jsonl").read_bytes().splitlines()
    types = set()
    for line in lines:
        record = decode_line(line)
        types.add(record.type)
        msgspec.convert(record.details, schemas.SCHEMAS[record.type])
        if record.type != "CONFIG":
            known = {field.encode_name for field in msgspec.structs.fields(schemas.SCHEMAS[record.type])}
            assert record.details.keys() <= known, f"{record.type} lost a key"
    if version == schemas.SCHEMA_VERSION:
        assert types == set(schemas.SCHEMAS), "every type needs a recording in the newest file"
        for line in lines:
            record = decode_line(line)
            published = {field.encode_name for field in msgspec.structs.fields(schemas.SCHEMAS[record.type])}
            if record.type != "CONFIG":
                assert record.details.keys() == published, (
                    f"{record.type} has new keys: raise VERSIONS and SCHEMA_VERSION, add a recording of it"
                )

from __future__ import annotations

import gzip
from hashlib import sha256

import pytest
from support.journal import HandmadeLog, rows

from holdfast.audit import seal
from holdfast.audit.format import leaf_hash
from holdfast.audit.query import query
from holdfast.audit.seal import (
    CUT_BYTES,
    MEMBER_BYTES,
    Sealer,
    compress_segment,
    find_member,
    finish_interrupted,
    read_members,
    replace_raw,
)
from holdfast.audit.storage import LocalStorage
from holdfast.audit.verify import verify
from holdfast.core.errors import AuditCorruption, AuditWriteError, BadInput


@pytest.fixture
def log(tmp_path):
    return HandmadeLog(tmp_path / "audit")


@pytest.fixture
def directory(log):
    opened = LocalStorage().directory(log.directory, create=False)
    yield opened
    opened.close()


def long_rows(count):
    return [("NOTE", {"text": f"{n} " * 200}, "u") for n in range(count)]


def test_a_sealed_segment_unpacks_to_the_same_bytes(log, directory):
    """The compressed file is what gzip reads, its facts are its own, and the raw file is untouched."""
    name = log.segment(long_rows(1000))
    raw = (log.directory / name).read_bytes()
    facts = compress_segment(directory, name)
    packed = (log.directory / f"{name}.gz.tmp").read_bytes()
    assert gzip.decompress(packed) == raw
    assert (log.directory / name).read_bytes() == raw
    assert facts.raw_sha256 == sha256(raw).hexdigest()
    assert facts.gzip_sha256 == sha256(packed).hexdigest()
    assert (facts.raw_bytes, facts.gzip_bytes) == (len(raw), len(packed))
    assert (facts.first_seq, facts.last_seq) == (1, 1001)


def test_members_are_bounded_and_hold_whole_lines(log, directory):
    """Each gzip member holds one line or at most 32 KiB and ends behind a line, so a reader may enter at any of them."""
    name = log.segment([*long_rows(1000), ("NOTE", {"t": "x" * 60_000}), *long_rows(3)])
    facts = compress_segment(directory, name)
    file = directory.open(f"{name}.gz.tmp")
    members = list(read_members(file))
    assert len(members) == facts.members > 5
    assert all(len(piece) <= CUT_BYTES or piece.count(b"\n") == 1 for _, piece in members)
    assert all(piece.endswith(b"\n") for _, piece in members)
    began, piece = members[3]
    assert next(read_members(file, start=began)) == (began, piece)
    assert find_member(file, members[2][0] + 1) == began
    file.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content + b"\n" * 10,
        lambda content: content[:-1],
        lambda content: content.replace(b'"seq":2,', b'"seq":9,'),
        lambda content: b"".join(content.splitlines(keepends=True)[:1] + content.splitlines(keepends=True)[2:]),
        lambda content: b"",
        lambda content: b"x" * 300_000,
    ],
)  # fmt: skip
def test_nothing_is_sealed_over_damage(log, directory, spoil):
    """A segment that is not an orderly series of lines is refused and stays as it is."""
    name = log.segment(rows(3))
    path = log.directory / name
    spoiled = spoil(path.read_bytes())
    path.write_bytes(spoiled)
    with pytest.raises(AuditCorruption):
        compress_segment(directory, name)
    assert path.read_bytes() == spoiled


def test_a_wrong_compressor_is_found_before_the_raw_file_goes(log, directory, monkeypatch):
    """What does not unpack to the raw bytes is never vouched for."""
    name = log.segment(rows(5))
    honest = seal.zlib.compress
    monkeypatch.setattr(
        seal.zlib, "compress", lambda data, *a, **k: honest(data.replace(b"NOTE", b"NOPE"), *a, **k)
    )
    with pytest.raises(AuditCorruption, match="differ at byte 0"):
        compress_segment(directory, name)
    assert (log.directory / name).exists()
    assert not (log.directory / f"{name}.gz").exists()


def test_a_foreign_name_is_refused(directory):
    """Only raw segments are sealed."""
    with pytest.raises(BadInput):
        compress_segment(directory, "head")


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 30,
        gzip.compress(b"a\n")[:-3],
        gzip.compress(bytes(MEMBER_BYTES + 1)),
        gzip.compress(b"a\n") + b"x",
    ],
    ids=["garbage", "cut", "too large", "a trailing byte"],
)
def test_what_is_not_a_series_of_small_members_is_corruption(log, directory, data):
    """Garbage, a cut file, a member too large and a trailing byte are all named, and nothing hangs."""
    (log.directory / "audit_20251120_102000_000000000001.log.gz").write_bytes(data)
    file = directory.open("audit_20251120_102000_000000000001.log.gz")
    with pytest.raises(AuditCorruption):
        list(read_members(file))
    file.close()


def _append_to(log):
    """What the writer does: SEALED goes to the log's current segment."""

    def append(type_, details):
        line = log.line(type_, dict(details))
        path = log.directory / log.name
        path.write_bytes(path.read_bytes() + line + b"\n")
        log.end = path.stat().st_size
        log.head()
        return log.next_seq - 1

    return append


def test_the_sealer_compresses_in_a_child_and_vouches_before_it_renames(log, directory):
    """After a seal the log holds SEALED and `.log.gz`, the raw file is gone, and everything verifies."""
    name = log.segment(rows(50))
    log.segment(rows(1))
    log.head()
    appended = []
    append = _append_to(log)

    def watched(type_, details):
        appended.append(sorted(path.name for path in log.directory.glob(f"{name[:-4]}*")))
        return append(type_, details)

    sealer = Sealer(directory, watched)
    sealer.start([name])
    sealer.close()
    assert sealer.failures == []
    index = name.replace(".log", ".idx")
    assert appended == [[f"{index}.tmp", name, f"{name}.gz.tmp"]]
    assert sorted(path.name for path in log.directory.glob(f"{name[:-4]}*")) == [index, f"{name}.gz"]
    claim = next(entry for entry in query(log.directory, event_type="SEALED")).details
    content = (log.directory / index).read_bytes()
    assert (claim["index_sha256"], claim["index_bytes"]) == (sha256(content).hexdigest(), len(content))
    report = verify(log.directory)
    assert report.ok, report.problems


def test_sealing_writes_the_tiles_that_end_in_the_segment(log, directory):
    """A full tile is written with the segment that holds its last leaf, whichever segments it began in."""
    names = [log.segment(rows(count)) for count in (300, 3, 400)]
    log.segment(rows(1))
    log.head()
    leaves = [leaf_hash(line) for line in log.lines]
    tiles = [b"".join(leaves[at : at + 256]) for at in (0, 256)]
    for name, expected in zip(names, [tiles[:1], tiles[:1], tiles], strict=True):
        compress_segment(directory, name)
        found = sorted(path for path in (log.directory / "tile").rglob("*") if path.is_file())
        assert [path.read_bytes() for path in found] == expected
        replace_raw(directory, name)


def test_a_segment_is_sealed_though_the_records_before_it_are_damaged(log, directory):
    """The tile that begins in a damaged segment stays missing, and the seal goes on."""
    damaged, name = log.segment(rows(300)), log.segment(rows(600))
    log.segment(rows(1))
    log.head()
    (log.directory / damaged).write_bytes(b"~" * 90_000 + b"\n")
    facts = compress_segment(directory, name)
    assert facts.first_seq == 302
    assert not list((log.directory / "tile").rglob("001"))


def test_a_poisoned_log_ends_sealing_and_keeps_the_raw_file(log, directory):
    """Without a SEALED record nothing is renamed, and no temporary file stays."""
    name = log.segment(rows(5))

    def refuse(type_, details):
        raise AuditWriteError("poisoned")

    sealer = Sealer(directory, refuse)
    sealer.rotated(name)
    sealer.close()
    assert "poisoned" in sealer.failures[0]
    assert [path.name for path in log.directory.glob("audit_*")] == [name]


def test_a_damaged_segment_stays_raw_and_the_next_is_sealed(log, directory):
    """One segment that cannot be sealed does not stop the others."""
    bad, good = log.segment(rows(5)), log.segment(rows(5))
    (log.directory / bad).write_bytes((log.directory / bad).read_bytes() + b"\n")
    log.segment(rows(1))
    sealer = Sealer(directory, _append_to(log))
    sealer.rotated(bad)
    sealer.close()
    sealer = Sealer(directory, _append_to(log))
    sealer.start([good])
    sealer.close()
    assert (log.directory / bad).exists()
    assert (log.directory / f"{good}.gz").exists()


def test_a_stray_temporary_file_is_deleted_and_sealing_starts_over(log, directory):
    """What a crashed sealer left does not count."""
    name = log.segment(rows(5))
    (log.directory / f"{name}.gz.tmp").write_bytes(b"half")
    (log.directory / name.replace(".log", ".idx.tmp")).write_bytes(b"half")
    assert finish_interrupted(directory, [name]) == [name]
    assert [path.name for path in log.directory.glob("audit_*")] == [name]


def test_equal_twins_lose_the_raw_file(log, directory):
    """A crash between rename and unlink is finished."""
    name = log.segment(rows(5))
    raw = (log.directory / name).read_bytes()
    compress_segment(directory, name)
    replace_raw(directory, name)
    (log.directory / name).write_bytes(raw)
    assert finish_interrupted(directory, [name]) == []
    assert not (log.directory / name).exists()
    assert gzip.decompress((log.directory / f"{name}.gz").read_bytes()) == raw


@pytest.mark.parametrize("where", ["inside", "longer", "shorter"])
def test_twins_that_differ_are_corruption_and_both_are_kept(log, directory, where):
    """Nobody decides which of two versions was true."""
    name = log.segment(rows(5))
    raw = (log.directory / name).read_bytes()
    compress_segment(directory, name)
    replace_raw(directory, name)
    other = {"inside": raw.replace(b'"n":3', b'"n":4'), "longer": raw + b"\n", "shorter": raw[:-1]}[where]
    (log.directory / name).write_bytes(other)
    with pytest.raises(AuditCorruption, match="differ"):
        finish_interrupted(directory, [name])
    assert (log.directory / name).read_bytes() == other
    assert (log.directory / f"{name}.gz").exists()

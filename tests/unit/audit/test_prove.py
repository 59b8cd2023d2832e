"""Proofs made from a log's directory: with tiles, without, with damaged ones, beside a writer."""

import shutil
from random import Random

import msgspec
import pytest

from holdfast.audit.format import decode_line, encode_details, encode_line, leaf_hash
from holdfast.audit.key_records import key_records
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import (
    COSIGNATURE_ED25519,
    SigningKey,
    add_signature,
    cosign,
    parse_checkpoint,
    parse_note,
    sign_note,
)
from holdfast.audit.proofs import ProofChecker, parse_record_proof
from holdfast.audit.prove import Prover
from holdfast.audit.pruned import InArchive, encode_marker, marker_name
from holdfast.audit.query import read_lines
from holdfast.audit.schemas import KeyDetails, PrunedDetails
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tree import Frontier, node_hash
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, BadInput, ProofRefused

START_NS = 1_763_634_000 * 10**9
RECORDS = 600


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A signed log of three epochs, closed, with all its tiles."""
    home = tmp_path_factory.mktemp("template")
    clock = ManualClock(START_NS)
    with WriteAheadLog(home / "log", clock=clock, keys=KeyHome(home / "keys"), seal=False) as log:
        for number in range(RECORDS):
            log.append("STATE", {"n": number}, level=Level.BUFFERED)
            if number in {100, 400}:
                log.rotate()
    return home


@pytest.fixture
def log(template, tmp_path):
    shutil.copytree(template / "log", tmp_path / "log")
    return tmp_path / "log"


@pytest.fixture
def first_key(log):
    return keys_of(log)[0]


def keys_of(log):
    directory = LocalStorage().directory(log, create=False)
    try:
        return [record.vkey for record in key_records(directory)]
    finally:
        directory.close()


def size_of(log):
    return parse_checkpoint(parse_note((log / "checkpoint").read_bytes()).text).size


@pytest.mark.contract("X2")
def test_every_kind_of_record_is_proven(log, first_key):
    """Records of every segment, the journal's own too, are proven to whoever pinned the first epoch's key."""
    lines = list(read_lines(log))
    assert size_of(log) == len(lines)
    wanted = [1, 2, 3, 102, 103, 104, 256, 257, 512, 513, len(lines)]
    checker = ProofChecker([first_key])
    with Prover(log) as prover:
        proofs = list(prover.prove(reversed([*wanted, *wanted])))
        assert prover.tiles_damaged == ""
    assert [proof.leaf_index + 1 for proof in proofs] == wanted
    for proof in proofs:
        assert len(proof.key_notes) == 2
        proven = checker.check(parse_record_proof(proof.encode()))
        assert proven.record == decode_line(lines[proof.leaf_index])
        assert proven.signers == (keys_of(log)[-1],)


def test_proofs_come_from_tiles_where_they_are(log, monkeypatch):
    """With all tiles no record but the one to prove is read; without any the proof is the same."""
    with Prover(log) as prover:
        monkeypatch.setattr(prover, "_leaves", None)
        with_tiles = list(prover.prove([300, 600]))
    shutil.rmtree(log / "tile")
    with Prover(log) as prover:
        assert list(prover.prove([300, 600])) == with_tiles
        assert prover.tiles_damaged == ""
    assert not (log / "tile").exists()


@pytest.mark.contract("X2")
def test_damaged_tiles_never_make_a_wrong_proof(log, first_key):
    """With any byte of any tile changed, or a tile cut, the proof is made from the records and says that it was."""
    rng = Random(5)
    print("seed 5")
    with Prover(log) as prover:
        (good,) = prover.prove([300])
    used = 0
    for tile in sorted(path for path in (log / "tile").rglob("*") if path.is_file()):
        content = tile.read_bytes()
        for at in rng.sample(range(len(content)), 4):
            changed = bytearray(content)
            changed[at] ^= 1
            tile.write_bytes(changed)
            with Prover(log) as prover:
                assert list(prover.prove([300])) == [good]
                used += bool(prover.tiles_damaged)
        tile.write_bytes(content[:-1])
        with Prover(log) as prover:
            assert list(prover.prove([300])) == [good]
            used += "has not" in prover.tiles_damaged
        tile.write_bytes(content)
    assert used >= 10  # not every byte of every tile is needed for one record
    ProofChecker([first_key]).check(good)


def test_tiles_that_cannot_be_read_are_put_aside(log, tmp_path):
    """A link in the place of the tiles, and a folder in the place of one, lead to the proof from the records."""
    with Prover(log) as prover:
        (good,) = prover.prove([300])
    (log / "tile").rename(tmp_path / "elsewhere")
    (log / "tile").symlink_to(tmp_path / "elsewhere")
    with Prover(log) as prover:
        assert list(prover.prove([300])) == [good]
        assert prover.tiles_damaged
    (log / "tile").unlink()
    (tmp_path / "elsewhere").rename(log / "tile")
    (log / "tile/0/001").unlink()
    (log / "tile/0/001").mkdir()
    with Prover(log) as prover:
        assert list(prover.prove([300])) == [good]
        assert prover.tiles_damaged


def test_tiles_of_another_tree_are_put_aside(log):
    """Tiles that agree with one another and not with the records lead to the proof from the records."""
    leaves = (log / "tile/0/001").read_bytes()
    forged = b"\0" * 32 + leaves[32:]
    nodes = [forged[at : at + 32] for at in range(0, 8192, 32)]
    while len(nodes) > 1:
        nodes = [node_hash(*nodes[at : at + 2]) for at in range(0, len(nodes), 2)]
    upper = log / "tile/1/000.p/2"
    (log / "tile/0/001").write_bytes(forged)
    upper.write_bytes(upper.read_bytes()[:32] + nodes[0])
    with Prover(log) as prover:
        (proof,) = prover.prove([300])
        assert "leads to root" in prover.tiles_damaged
    shutil.rmtree(log / "tile")
    with Prover(log) as prover:
        assert list(prover.prove([300])) == [proof]


def test_a_changed_record_is_not_proven(log):
    """A record changed with its CRC right, tiles whole or changed with it, makes no proof but a named damage."""
    segment = sorted(log.glob("audit_*.log"))[1]
    lines = list(read_lines(log))
    old = lines[299]
    record = decode_line(old)
    new = encode_line(
        record.seq, record.synced, record.ts, record.type, record.user, record.component, b'{"n":0}'
    )
    segment.write_bytes(segment.read_bytes().replace(old, new))
    with (
        pytest.raises(AuditCorruption, match="sequence 300 cannot be proven") as error,
        Prover(log) as prover,
    ):
        list(prover.prove([300]))
    assert error.value.sequence == 300
    with Prover(log) as prover:
        assert len(list(prover.prove([299]))) == 1  # its neighbour still can, from the tiles
    shutil.rmtree(log / "tile")
    with pytest.raises(AuditCorruption, match="sequence 299 cannot be proven"), Prover(log) as prover:
        list(prover.prove([299]))
    segment.write_bytes(segment.read_bytes().replace(new, new[:-2] + b"1}"))
    for sequence in (300, 301):
        with pytest.raises(AuditCorruption, match="crc does not match") as error, Prover(log) as prover:
            list(prover.prove([sequence]))
        assert (error.value.sequence, error.value.file) == (300, segment.name)
        damaged = segment.read_bytes()[error.value.offset :].partition(b"\n")[0]
        assert b'"seq":300,' in damaged
        assert damaged.startswith(b'{"crc":"')


def test_a_damaged_line_is_named_though_its_tiles_are_whole(log):
    """A line whose CRC does not match is damage at its place, whatever the tiles say."""
    segment = sorted(log.glob("audit_*.log"))[1]
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b'{"n":297}', b'{"n":298}', 1))
    with pytest.raises(AuditCorruption, match="crc does not match") as error, Prover(log) as prover:
        list(prover.prove([300, 302]))
    assert error.value.sequence == 302
    assert decode_line(content[error.value.offset :].partition(b"\n")[0]).details == {"n": 297}


def test_what_the_checkpoint_does_not_cover_is_refused(log):
    """Sequence 0, negative ones and those behind the checkpoint are refused; no sequence gives no proof."""
    with Prover(log) as prover:
        assert list(prover.prove([])) == []
        for sequence in (0, -1, size_of(log) + 1, 10**30):
            with pytest.raises(BadInput, match=f"checkpoint covers {size_of(log)} records"):
                prover.prove([1, sequence])


def test_a_log_without_checkpoint_proves_nothing(tmp_path):
    """An unsigned log, a directory without log and a missing one are refused in words."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(START_NS), seal=False) as log:
        log.append("STATE", {"n": 1})
    for path, words in ((tmp_path / "log", "holds no checkpoint"), (tmp_path / "nothing", "no audit log")):
        with pytest.raises(BadInput, match=words):
            Prover(path)


def test_a_damaged_checkpoint_or_key_chain_is_named(log):
    """A checkpoint that is none or forged, and a KEY note that the key before did not sign, are damage."""
    good = (log / "checkpoint").read_bytes()
    for bad in (b"", b"nonsense", good[:-9], good.replace(b"\n6", b"\n5", 1)):
        (log / "checkpoint").write_bytes(bad)
        with pytest.raises(AuditCorruption) as error:
            Prover(log)
        assert error.value.file == "checkpoint"
    (log / "checkpoint").write_bytes(good)
    second = sorted(log.glob("audit_*.log"))[1]
    content = second.read_bytes()
    key_line = content.split(b"\n")[1]
    record = decode_line(key_line)
    note = parse_note(record.details["note"].encode())
    forged = sign_note(note.text, SigningKey(note.signatures[0].name, b"\1" * 32)).decode()
    line = encode_line(
        record.seq,
        record.synced,
        record.ts,
        record.type,
        record.user,
        record.component,
        encode_details(record.details | {"note": forged}),
    )
    second.write_bytes(content.replace(key_line, line))
    with pytest.raises(AuditCorruption, match="no chain of its keys"):
        Prover(log)
    second.write_bytes(content.replace(key_line, key_line[:-3] + b"x" + key_line[-2:]))
    with pytest.raises(AuditCorruption, match="crc") as error:
        Prover(log)
    assert (error.value.sequence, error.value.file) == (record.seq, second.name)
    second.unlink()
    with pytest.raises(AuditCorruption, match="begins epoch 3, not 2"):
        Prover(log)


def test_a_log_whose_beginning_was_pruned_still_proves_the_rest(log, first_key):
    """Keys come from the markers of pruned segments, hashes from the tiles; what was pruned is in the archive."""
    lines = list(read_lines(log))
    with Prover(log) as prover:
        proofs = list(prover.prove([200, 500]))
    first, second, _ = sorted(log.glob("audit_*.log"))
    keys = [record for record in map(decode_line, lines) if record.type == "KEY"]
    before = 0
    for segment, key in zip((first, second), keys, strict=False):
        count = segment.read_bytes().count(b"\n")
        frontier = Frontier()
        frontier.extend([leaf_hash(line) for line in lines[: before + count]])
        marker = PrunedDetails(
            segment=segment.name,
            first_seq=before + 1,
            last_seq=before + count,
            raw_sha256="00" * 32,
            raw_bytes=1,
            gzip_sha256="00" * 32,
            gzip_bytes=1,
            index_sha256="00" * 32,
            archive="s3://bucket/log",
            peaks=[peak.hex() for peak in frontier.peaks()],
            key=msgspec.convert(key.details, KeyDetails),
            quarantine=[],
        )
        (log / marker_name(segment.name)).write_bytes(encode_marker(marker))
        assert len(keys_of(log)) == 3  # a marker beside its segment counts once
        segment.unlink()
        before += count
        assert len(keys_of(log)) == 3
    with Prover(log) as prover:
        assert list(prover.prove([500])) == proofs[1:]
        with pytest.raises(InArchive, match="s3://bucket/log"):
            list(prover.prove([200]))
        assert prover.proof_of(200, lines[199]) == proofs[0]  # whoever has the record gets its proof
    shutil.rmtree(log / "tile")
    with pytest.raises(InArchive), Prover(log) as prover:
        list(prover.prove([500]))
    for proof in proofs:
        ProofChecker([first_key]).check(proof)


def test_a_segment_whose_second_line_is_another_is_damage(log):
    """A valid line of another place in the place of a KEY record is damage there, not a log without that key."""
    second = sorted(log.glob("audit_*.log"))[1]
    content = second.read_bytes().split(b"\n")
    second.write_bytes(b"\n".join([content[0], content[2], *content[2:]]))
    with pytest.raises(AuditCorruption, match="it says sequence 106") as error:
        Prover(log)
    assert error.value.sequence == 105


def test_an_older_cosigned_checkpoint_is_proven_against(log, first_key):
    """A checkpoint of the history that a witness cosigned is used where it is given, with its epoch's keys alone."""
    first = min(log.glob("*.checkpoints")).read_bytes().rstrip(b"\n") + b"\n"
    note = first[first.rindex(b"\n\nholdfast/") + 2 :] if b"\n\nholdfast/" in first else first
    witness = SigningKey("witness.example/w", b"\2" * 32, COSIGNATURE_ED25519)
    cosigned = add_signature(note, cosign(parse_note(note).text, witness, 1_763_634_000).line())
    size = parse_checkpoint(parse_note(note).text).size
    with Prover(log, checkpoint=cosigned) as prover:
        assert prover.checkpoint.size == size < size_of(log)
        (proof,) = prover.prove([size])
        with pytest.raises(BadInput, match=f"covers {size} records"):
            prover.prove([size + 1])
    assert proof.key_notes == ()
    proven = ProofChecker([first_key, witness.vkey]).check(proof)
    assert proven.signers == (first_key, witness.vkey)


def test_a_checkpoint_of_another_log_is_refused(log):
    """A checkpoint that another log, or another key under this log's name, signed is no ground for a proof."""
    own = parse_checkpoint(parse_note((log / "checkpoint").read_bytes()).text)
    stranger = SigningKey(own.origin, b"\3" * 32)
    for note, words in (
        (sign_note(own._replace(origin="holdfast/other").text(), stranger), "is one of 'holdfast/other'"),
        (sign_note(own.text(), stranger), "was not signed by this log"),
        (sign_note(own._replace(size=1).text(), stranger), "no key signs the first 1 records"),
        (b"nonsense", "not a signed note"),
    ):
        with pytest.raises(BadInput, match=words):
            Prover(log, checkpoint=note)


def test_a_log_is_proven_while_it_is_written(tmp_path):
    """Beside a live writer without tiles, everything that its newest checkpoint covers is proven."""
    clock = ManualClock(START_NS)
    with WriteAheadLog(tmp_path / "log", clock=clock, keys=KeyHome(tmp_path / "keys"), seal=False) as log:
        for number in range(300):
            log.append("STATE", {"n": number}, level=Level.BUFFERED)
        log.checkpoint()
        with Prover(tmp_path / "log") as prover:
            log.append("STATE", {"n": 300})
            proofs = list(prover.prove([1, 256, 302]))
            with pytest.raises(BadInput):
                prover.prove([303])
        log.checkpoint()
        with Prover(tmp_path / "log") as prover:
            (newer,) = prover.prove([303])
    key = keys_of(tmp_path / "log")[0]
    assert [ProofChecker([key]).check(proof).record.seq for proof in (*proofs, newer)] == [1, 256, 302, 303]


def test_sealed_segments_are_proven_too(tmp_path):
    """Records and keys are read from compressed segments as from raw ones."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(START_NS), keys=KeyHome(tmp_path / "keys")) as log:
        for number in range(300):
            log.append("STATE", {"n": number}, level=Level.BUFFERED)
            if number == 150:
                log.rotate()
    home = tmp_path / "log"
    assert [path.name.endswith(".gz") for path in sorted(home.glob("audit_*.log*"))] == [True, False]
    lines = list(read_lines(home))
    for tiles in (True, False):
        with Prover(home) as prover:
            proofs = list(prover.prove([1, 2, 100, 200, len(lines)]))
            assert prover.tiles_damaged == ""
        for proof in proofs:
            proven = ProofChecker(keys_of(home)[:1]).check(proof)
            assert proven.record == decode_line(lines[proof.leaf_index])
        if tiles:
            shutil.rmtree(home / "tile")


def test_a_proof_is_of_the_line_that_was_given(log):
    """Whoever has the stored line already gets its proof, and none for another line."""
    lines = list(read_lines(log))
    with Prover(log) as prover:
        assert prover.proof_of(5, lines[4]) == next(prover.prove([5]))
        for false in (lines[5], lines[4][:-1], b""):
            with pytest.raises((AuditCorruption, BadInput, ProofRefused)):
                prover.proof_of(5, false)

"""Reading anchors: every kind of file somebody may have kept, and everything that is none."""

import os
import random
import shutil
from pathlib import Path

import pytest
import rfc3161_client as tsp
from support.anchor_servers import Authority
from support.anchors import LOG_ID, MemoryLog

from holdfast.anchors.file import FileSink
from holdfast.anchors.read import read_anchor
from holdfast.anchors.witness import Witness
from holdfast.audit.highwater import HighWater
from holdfast.audit.note import COSIGNATURE_ED25519, SigningKey, cosign
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tree import Frontier
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import BadInput

WITNESS = SigningKey("witness.example/w1", b"w" * 32, COSIGNATURE_ED25519)
AT = 1_763_634_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def token(authority):
    query = (
        tsp.TimestampRequestBuilder()
        .data(MemoryLog(9).note())
        .hash_algorithm(tsp.HashAlgorithm.SHA256)
        .build()
    )
    return authority.stamp(query.as_bytes())


def cosigned(log):
    return log.note() + cosign(log.checkpoint().text(), WITNESS, AT).line()


def written(path, data):
    path.write_bytes(data)
    return path


def test_a_plain_checkpoint_is_an_anchor(tmp_path):
    """The output of `audit checkpoint` kept in a file says origin, size and root, in the words of its bytes."""
    log = MemoryLog(9)
    (anchor,) = read_anchor(written(tmp_path / "c.txt", log.note()))
    assert anchor[:3] == (log.origin, 9, log.checkpoint().root)
    assert (anchor.note, anchor.seen_ns) == (log.note(), 0)
    assert "c.txt" in anchor.source
    assert anchor.mark().size == 9


def test_a_cosignature_counts_only_by_a_named_key(tmp_path):
    """With the witness's key the time and the name are told; without it, that it was not checked."""
    path = written(tmp_path / "c", cosigned(MemoryLog(9)))
    (checked,) = read_anchor(path, [WITNESS.vkey])
    (unchecked,) = read_anchor(path)
    assert checked.seen_ns == AT * NANOS
    assert "cosigned by 'witness.example/w1' at 2025-11-20T" in checked.source
    assert unchecked.seen_ns == 0
    assert "not checked" in unchecked.source


def test_a_wrong_signature_of_a_named_key_refuses_the_file(tmp_path):
    """Where log or witness are named, a signature of theirs over something else is no anchor."""
    log = MemoryLog(9)
    false = log.note().replace(b"\n9\n", b"\n8\n")
    with pytest.raises(BadInput, match="false"):
        read_anchor(written(tmp_path / "c", false), [log.vkey])
    false = MemoryLog(8).note() + cosign(log.checkpoint().text(), WITNESS, AT).line()
    with pytest.raises(BadInput, match="false"):
        read_anchor(written(tmp_path / "c", false), [WITNESS.vkey])


def test_a_file_sink_s_history_is_many_anchors(tmp_path):
    """Each checkpoint of the file is a statement, oldest first, whatever a broken write left between them."""
    log = MemoryLog()
    for size in (2, 5, 9):
        FileSink(tmp_path).submit(log.grow(size - len(log.leaves)).submission())
        path = tmp_path / f"{LOG_ID}.notes"
        written(path, path.read_bytes() + log.origin.encode())
    assert [anchor.size for anchor in read_anchor(path)] == [2, 5, 9]


def test_a_witness_s_own_record_is_an_anchor(tmp_path):
    """The file in which a witness keeps a log's newest checkpoint can be handed over as it is."""
    log = MemoryLog(9)
    witness = Witness(tmp_path / "w", clock=ManualClock())
    witness.pin(log.vkey)
    witness.add_checkpoint(log.request(0))
    (path,) = (tmp_path / "w" / "logs").glob("*.checkpoint")
    (anchor,) = read_anchor(path, [witness.vkey, log.vkey])
    assert anchor.size == 9
    assert "cosigned by" in anchor.source
    witness.close()


def test_a_high_water_page_is_an_anchor(tmp_path):
    """The page of the key directory, copied elsewhere, gives its newest checkpoint."""
    log, frontier = MemoryLog(9), Frontier()
    directory = LocalStorage().directory(tmp_path / "h", create=True)
    page = HighWater(directory)
    for leaf in log.leaves:
        frontier.append(leaf)
    page.write(log.note(), 100, frontier)
    page.close()
    directory.close()
    (anchor,) = read_anchor(tmp_path / "h" / "high-water", [log.vkey])
    assert (anchor.size, anchor.root) == (9, log.checkpoint().root)
    assert "high-water" in anchor.source


@pytest.mark.parametrize("name", ["a.note", "a.checkpoint", "a"])
def test_a_time_stamp_is_read_with_its_checkpoint(tmp_path, authority, token, name):
    """With the certificates beside it the time is proven; without them the source says that it is not."""
    written(tmp_path / name, MemoryLog(9).note())
    path = written(tmp_path / "a.tsr", token)
    (unchecked,) = read_anchor(path)
    assert (unchecked.size, unchecked.seen_ns) == (9, 0)
    assert "not checked" in unchecked.source
    shutil.copy(authority.root, tmp_path / "authority.pem")
    (checked,) = read_anchor(path)
    assert checked.seen_ns > AT * NANOS
    assert "stamped at" in checked.source


def test_a_time_stamp_of_something_else_is_false(tmp_path, token, tmp_path_factory):
    """A token beside another checkpoint, or by an authority that the certificates do not know, is refused."""
    path = written(tmp_path / "a.tsr", token)
    with pytest.raises(BadInput, match="no checkpoint beside it"):
        read_anchor(path)
    written(tmp_path / "a.note", MemoryLog(8).note())
    with pytest.raises(BadInput, match="false"):
        read_anchor(path)
    written(tmp_path / "a.note", MemoryLog(9).note())
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    shutil.copy(stranger.root, tmp_path / "a.pem")
    with pytest.raises(BadInput, match="false"):
        read_anchor(path)
    written(tmp_path / "a.pem", b"rubbish")
    with pytest.raises(BadInput, match=r"a\.pem"):
        read_anchor(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"rubbish",
        b"\x30",
        b"\x30\x82\xff\xff",
        b"\0" * 4096,
        b"a\n1\nAAAA\n",
        b"a\n1\nAAAA\n\n\xe2\x80\x94 a AAAAAAAA\n",
        b"\n\n" * 100_000,
        "a\n\n— ".encode() * 1000,
        MemoryLog(9).note().replace(b"\n9\n", b"\n09\n"),
        MemoryLog(9).note()[:-1],
    ],
)
def test_what_says_nothing_is_refused_by_name(tmp_path, content):
    """Empty, foreign, cut and malformed files are BadInput with the file's name, and exit code 1."""
    path = written(tmp_path / "hostile", content)
    with pytest.raises(BadInput, match="hostile") as refused:
        read_anchor(path)
    assert refused.value.exit_code == 1


def test_only_a_file_is_read(tmp_path):
    """A missing path, a directory, a pipe and a device are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(BadInput, match=path.name):
            read_anchor(path)


def test_of_a_huge_file_the_last_part_is_read(tmp_path, monkeypatch):
    """A history beyond the bound gives its last checkpoints, and never half a one."""
    log = MemoryLog(40)
    path = written(tmp_path / "h", b"".join(log.note(size) + b"\n" for size in range(1, 41)))
    for bound in range(900, 1200):
        monkeypatch.setattr("holdfast.anchors.read.MAX_BYTES", bound)
        anchors = read_anchor(path)
        assert [anchor.size for anchor in anchors] == list(range(41 - len(anchors), 41))
        assert 2 <= len(anchors) <= 5
        assert {anchor.origin for anchor in anchors} == {log.origin}


def test_damage_never_gets_further_than_a_refusal(tmp_path, authority, token):
    """Random changes of every kind of anchor lead to BadInput or to anchors that can be read; seed 99."""
    randomly, log = random.Random(99), MemoryLog(9)
    shutil.copy(authority.root, tmp_path / "authority.pem")
    kinds = [log.note(), cosigned(log), (log.note(4) + b"\n") * 3, token]
    for round_ in range(200):
        data = bytearray(kinds[round_ % 4])
        for _ in range(randomly.randrange(1, 5)):
            at = randomly.randrange(len(data))
            data[at : at + randomly.randrange(3)] = randomly.randbytes(randomly.randrange(3))
        written(tmp_path / "a.note", log.note())
        path = written(tmp_path / ("a.tsr" if round_ % 4 == 3 else "b"), bytes(data))
        try:
            anchors = read_anchor(path, [log.vkey, WITNESS.vkey])
        except BadInput:
            continue
        assert all(len(anchor.root) == 32 for anchor in anchors)

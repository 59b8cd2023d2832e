"""Go's own transparency log packages, which share no line with ours, read a directory that we wrote."""

import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from holdfast.audit.format import decode_line, leaf_hash
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import parse_checkpoint, parse_note, sign_note
from holdfast.audit.prove import Prover
from holdfast.audit.query import read_lines
from holdfast.audit.tiles import parse_tile_path
from holdfast.audit.tree import Frontier
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock

SOURCES = Path("/usr/share/gocode")
START_NS = 1_763_634_000 * 10**9
RECORDS = 560


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds one of the Go programmes beside this file, from Debian's sources alone."""
    missing = [
        package
        for package, there in (
            ("golang-go", shutil.which("go")),
            ("golang-golang-x-mod-dev", (SOURCES / "src/golang.org/x/mod/sumdb/tlog").is_dir()),
        )
        if not there
    ]
    if missing:
        pytest.skip(f"Go does not check our log: apt-get install {' '.join(missing)}")
    folder = tmp_path_factory.mktemp("go")
    environ = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(SOURCES),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }

    def binary(name):
        source = Path(__file__).with_name(f"{name}.go")
        subprocess.run(["go", "build", "-o", folder / name, source], env=environ, check=True, timeout=300)
        return folder / name

    return binary


@pytest.fixture(scope="module")
def verify_log(build):
    """Go's verdict on a log: what it checked, or its complaint."""
    binary = build("verify_log")

    def run(directory, vkeys):
        done = subprocess.run(
            [binary, directory, *vkeys], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode in {0, 1}, done.stderr
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr

    return run


def written(home, *, seal):
    """A signed log of three epochs, closed, and the keys of its epochs."""
    clock = ManualClock(START_NS)
    keys = KeyHome(home / "keys")
    with WriteAheadLog(home / "log", clock=clock, keys=keys, seal=seal) as log:
        for number in range(RECORDS):
            log.append("STATE", {"n": number, "text": "ä\n" * (number % 7)}, level=Level.BUFFERED)
            if number in {100, 300}:
                log.rotate()
            if number % 90 == 0:
                log.checkpoint()
            clock.advance(0.1)
    records = map(decode_line, read_lines(home / "log"))
    vkeys = [record.details["vkey"] for record in records if record.type == "KEY"]
    return home / "log", vkeys


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return written(tmp_path_factory.mktemp("raw"), seal=False)


@pytest.mark.contract("X2")
@pytest.mark.parametrize("seal", [False, True])
def test_go_verifies_a_log_that_we_wrote(verify_log, tmp_path, seal):
    """Go opens every checkpoint with our keys and proves every record and every older checkpoint from our tiles."""
    directory, vkeys = written(tmp_path, seal=seal)
    assert bool(list(directory.glob("*.log.gz"))) == seal
    found = verify_log(directory, vkeys)
    assert isinstance(found, dict), found
    assert len(vkeys) == 3
    assert found["records"] == found["size"] == len(list(read_lines(directory))) > RECORDS
    assert found["checkpoints"] == sum(
        path.read_bytes().count(b"\n\n\xe2\x80\x94") for path in directory.glob("*.checkpoints")
    )
    assert found["checkpoints"] >= 9
    # One signature for each checkpoint, a second one where an epoch began, one more for the newest, read twice.
    assert found["signatures"] == found["checkpoints"] + 2 + 1


@pytest.mark.slow
@pytest.mark.contract("X2")
def test_go_refuses_a_log_in_which_one_byte_was_changed(verify_log, log, tmp_path):
    """One changed byte in any tile, record or checkpoint makes Go refuse the log, and so does a missing tile."""
    directory, vkeys = log
    rng = Random(11)
    print("seed 11")
    twin = tmp_path / "log"
    shutil.copytree(directory, twin)
    assert isinstance(verify_log(twin, vkeys), dict)
    tiles = [path for path in twin.glob("tile/**/*") if path.is_file()]
    assert {parse_tile_path(str(path.relative_to(twin))).level for path in tiles} == {0, 1}
    victims = [*tiles, *twin.glob("audit_*.log"), twin / "checkpoint", *twin.glob("*.checkpoints")]
    for path in victims:
        content = path.read_bytes()
        end = len(content.rstrip(b"\n"))
        places = [0, rng.randrange(end), end - 1]
        if "checkpoint" in path.name:
            # In the first note's text and in its first signature. Where two keys signed, a changed name makes one of
            # them a stranger, which Go passes over and our own verification does not.
            text = content.index(b"\n\n")
            places = [0, rng.randrange(text), text + 80]
        for at in places:
            changed = bytearray(content)
            changed[at] ^= 1
            path.write_bytes(changed)
            refusal = verify_log(twin, vkeys)
            assert isinstance(refusal, str), f"{path.name} byte {at}"
            assert refusal
        path.write_bytes(content)
    for path in tiles:
        path.rename(twin / "away")
        assert "no such file" in verify_log(twin, vkeys)
        (twin / "away").rename(path)
    assert isinstance(verify_log(twin, vkeys), dict)


def test_go_refuses_a_log_whose_keys_it_was_not_given(verify_log, log):
    """With the keys of other epochs alone Go does not open the checkpoint."""
    directory, vkeys = log
    assert "no verifiable signatures" in verify_log(directory, vkeys[:-1])


def test_go_refuses_an_older_checkpoint_of_another_history(verify_log, log, tmp_path):
    """A checkpoint that our own key signed, but over other records, makes Go refuse the log."""
    directory, vkeys = log
    twin = tmp_path / "log"
    shutil.copytree(directory, twin)
    newest = parse_checkpoint(parse_note((twin / "checkpoint").read_bytes()).text)
    log_id = newest.origin.partition("/")[2]
    signer = KeyHome(directory.parent / "keys").log(log_id).current().signer
    assert str(signer.vkey) == vkeys[-1]
    older = newest._replace(size=newest.size - 3)
    true_root = root_over(read_lines(directory), older.size)
    history = max(twin.glob("*.checkpoints"))
    content = history.read_bytes().rstrip(b"\n") + b"\n\n"
    for root, accepted in ((true_root, True), (sha256(true_root).digest(), False)):
        history.write_bytes(content + sign_note(older._replace(root=root).text(), signer) + b"\n")
        found = verify_log(twin, vkeys)
        assert isinstance(found, dict) == accepted, found
        assert accepted or f"checkpoint of size {older.size}" in found


def root_over(lines, size):
    frontier = Frontier()
    frontier.extend([leaf_hash(line) for line in lines][:size])
    return frontier.root()


@pytest.mark.contract("X2")
def test_go_checks_a_proof_file_that_we_wrote(build, log):
    """Go accepts our proof of a record with the signer's key alone, and refuses it once a byte of it is changed."""
    binary = build("check_proof")
    directory, vkeys = log
    with Prover(directory) as prover:
        (proof,) = prover.prove([300])
    assert len(proof.key_notes) == 2

    def holds(data):
        done = subprocess.run([binary, vkeys[-1]], input=data, capture_output=True, check=False, timeout=60)
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode == 0

    data = proof.encode()
    assert holds(data)
    signed = data.index(b"\n\n")
    path = data.index(b"\nindex ") + len(b"\nindex 299\n")
    # In the record, the index, the first and the last hash, origin, size and root of the checkpoint, its signature.
    for at in (
        50,
        path - 2,
        path + 1,
        signed - 5,
        signed + 3,
        data.index(b"\n", signed + 2) + 1,
        signed + 60,
        -30,
    ):
        changed = bytearray(data)
        changed[at] ^= 1
        assert not holds(bytes(changed)), at

"""`holdfast audit witness` under kill -9: what it cosigned, it knows."""

import json
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from support.anchors import MemoryLog

from holdfast.anchors.http import post
from holdfast.anchors.wire import MAX_ANSWER_BYTES
from holdfast.core.errors import AnchorUnreachable

COMMAND = [sys.executable, "-m", "holdfast", "audit", "witness"]
SEED = 8720
ROUNDS = 6


class Process:
    """The command, and what it said when it was ready."""

    def __init__(self, folder, *words):
        self.child = subprocess.Popen(
            [*COMMAND, "--dir", str(folder), "--port", "0", "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.child.stdout.readline()
        assert line, self.child.stderr.read()
        self.ready = json.loads(line)

    def add(self, body):
        return post(f"{self.ready['url']}/add-checkpoint", body, "text/plain", most=MAX_ANSWER_BYTES)

    def end(self, number):
        self.child.send_signal(number)
        out, err = self.child.communicate(timeout=20)
        return self.child.returncode, out + err


@pytest.mark.slow
@pytest.mark.contract("X2")
@pytest.mark.invariant("I8")
def test_a_killed_witness_knows_what_it_cosigned(tmp_path):
    """Killed at random moments amid submissions, it never forgets a size it answered, and takes no fork of it."""
    print("seed", SEED)
    randomly = random.Random(SEED)
    log = MemoryLog(400)
    size, key = 0, None
    for _ in range(ROUNDS):
        witness = Process(tmp_path / "w", "--log", str(log.vkey))
        key = key or witness.ready["vkey"]
        assert witness.ready["vkey"] == key
        (known,) = witness.ready["logs"]
        assert known["size"] >= size, "a cosigned size was forgotten"
        size = known["size"]
        if size:
            fork = MemoryLog(size - 1).grow(2, b"fork")
            assert witness.add(fork.request(size, size)).status == 409
        for _ in range(randomly.randrange(1, 6)):
            assert witness.add(log.request(size, size + 1)).status == 200
            size += 1
        with ThreadPoolExecutor(1) as pool:
            on_its_way = pool.submit(witness.add, log.request(size, size + 1))
            if randomly.random() < 0.8:
                wait([on_its_way], timeout=randomly.uniform(0.0, 0.02))
            witness.child.kill()
            if on_its_way.exception() is None:
                assert on_its_way.result().status == 200
                size += 1
            else:
                assert isinstance(on_its_way.exception(), AnchorUnreachable)
        assert witness.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert size >= ROUNDS


def test_ctrl_c_ends_a_witness_cleanly(tmp_path):
    """SIGINT ends it with exit 0 and nothing on stderr; a second one over the same directory is refused."""
    log = MemoryLog(3)
    witness = Process(tmp_path / "w", "--log", str(log.vkey), "--name", "witness.example/w1")
    assert witness.ready["vkey"].startswith("witness.example/w1+")
    assert witness.add(log.request(0)).status == 200
    second = subprocess.run(
        [*COMMAND, "--dir", str(tmp_path / "w"), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 4
    assert "runs already" in second.stderr
    assert witness.end(signal.SIGINT) == (0, "")
    assert (tmp_path / "w" / "key").stat().st_mode & 0o777 == 0o600

"""What was signed stays signed: any crash of a signed log, and any older copy of it beside the keys of today."""

from __future__ import annotations

from pathlib import Path
from random import Random
from unittest import mock

import pytest
from support.crash import SteppedLog
from support.signed import SignedLog

from holdfast.audit import segment as segment_module
from holdfast.audit import signing
from holdfast.audit.keys import KeyHome
from holdfast.audit.signing import LogSigner
from holdfast.audit.wal import Entry, Level
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption
from holdfast.testing.storage import SimulatedStorage

LOG = Path("/log")
KEYS = Path("/keys")


class Life:
    """One seeded life of a signed log, with crash states drawn at the calls it makes to the disk.

    Attributes:
        states: Each crash state with what had been promised by then: sizes and roots of all durable checkpoints.
    """

    def __init__(self, seed: int, steps: int) -> None:
        self.random = Random(seed)
        self.disk = SimulatedStorage()
        self.clock = ManualClock()
        self.promised: list[tuple[int, bytes]] = []
        self.states: list[tuple[SimulatedStorage, list[tuple[int, bytes]]]] = []
        self.disk.on_call = self._draw
        real_sign = LogSigner._sign

        def sign(signer, reach, *others):
            before = signer.signed
            real_sign(signer, reach, *others)
            if signer.signed > before:
                self.promised.append((reach.size, reach.frontier.root()))

        with mock.patch.object(LogSigner, "_sign", sign):
            for _ in range(steps):
                log = open_log(self.disk, self.random, self.clock)
                for _ in range(self.random.randrange(1, 7)):
                    self._step(log)
                log.close()

    def _draw(self, operation: str, name: str) -> None:
        if operation not in {"pread", "names", "open"} and self.random.random() < 0.25:
            twin = (
                self.disk.after_kill()
                if self.random.random() < 0.3
                else self.disk.after_power_cut(self.random)
            )
            self.states.append((twin, list(self.promised)))

    def _step(self, log: SteppedLog) -> None:
        step = self.random.randrange(6)
        tag = "x" * self.random.choice([1, 200, 900])
        if step < 3:
            log.append("NOTE", {"tag": tag}, level=self.random.choice([Level.WRITTEN, Level.DURABLE]))
        elif step == 3:
            log.append_many([Entry("NOTE", {"tag": tag})] * self.random.randrange(1, 6))
        elif step == 4:
            log.checkpoint()
        else:
            self.clock.advance(self.random.choice([1, 3]))
            log._keep()


def open_log(disk: SimulatedStorage, random: Random, clock: ManualClock) -> SteppedLog:
    keys = KeyHome(KEYS, disk, random_bytes=random.randbytes)
    log = SteppedLog(
        LOG,
        clock=clock,
        storage=disk,
        seal=False,
        keys=keys,
        rotate_bytes=6000,
        random_bytes=random.randbytes,
    )
    log.append("OPENED", {})
    return log


def read(disk: SimulatedStorage) -> SignedLog:
    return SignedLog({name: bytes(content) for name, content in disk.content(LOG).items()})


@pytest.fixture(autouse=True)
def small_pages():
    with (
        mock.patch.multiple(segment_module, FIRST_FILL_BYTES=4096, FILL_STEP_BYTES=8192),
        mock.patch.multiple(signing, HISTORY_FILL_BYTES=4096, HISTORY_STEP_BYTES=4096),
    ):
        yield


def restarted(disk: SimulatedStorage, random: Random) -> SignedLog:
    log = open_log(disk, random, ManualClock())
    log.close()
    return read(disk)


@pytest.mark.slow
@pytest.mark.invariant("I7")
@pytest.mark.invariant("I9")
def test_no_restart_signs_another_root_than_was_signed_before():
    """After any crash state of a signed log the restart goes on over every checkpoint that was durable by then:
    the records have its root, and all notes of the history are valid, by the right keys, of growing sizes."""
    checked = 0
    for seed in range(4):
        life = Life(seed, steps=6)
        for disk, promised in life.states:
            found = restarted(disk, Random(seed))
            for size, root in promised:
                assert size <= len(found.records), f"seed {seed}: {size} signed, {len(found.records)} there"
                assert found.root(size) == root, f"seed {seed}: another root at {size}"
            sizes = [one.size for one in found.checkpoints()]
            assert sizes == sorted(set(sizes)), f"seed {seed}: {sizes}"
            for one in found.checkpoints():
                assert one.root == found.root(one.size), f"seed {seed}: wrong root signed at {one.size}"
                assert all(one.by), f"seed {seed}: a signature of no key at {one.size}"
            assert sizes[-1] == len(found.records)
            checked += 1
    assert checked > 300


@pytest.mark.invariant("I8")
def test_older_copy_beside_newer_keys_is_refused_and_left_alone():
    """Whatever older state of the directory is put back, a start beside today's keys refuses it without a change
    if it holds fewer records than the high-water mark says; never does it go on over them."""
    life = Life(99, steps=6)
    now = life.disk.after_kill()
    newest = life.promised[-1][0]
    refused = 0
    for disk, _ in life.states:
        disk._root.names[str(KEYS)] = now.after_kill()._root.names[str(KEYS)]
        if str(LOG) not in disk._root.names:
            continue
        before = {name: bytes(content) for name, content in disk.content(LOG).items()}
        content = b"".join(content for name, content in before.items() if name.endswith(".log"))
        whole = [line for line in content.split(b"\n") if line.startswith(b'{"crc"') and line.endswith(b"}")]
        if not whole or len(whole) >= newest:
            continue  # nothing there that names a log, or nothing lost
        with pytest.raises(AuditCorruption):
            open_log(disk, Random(1), ManualClock())
        assert {name: bytes(content) for name, content in disk.content(LOG).items()} == before
        refused += 1
    assert refused > 50
    assert len(restarted(now, Random(2)).records) > newest

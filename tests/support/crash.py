"""Crash states of the log on a simulated disk, and the one checker that judges them.

A `Story` drives a log through a seeded workload: DURABLE, WRITTEN and BUFFERED records, batches, writes that
overlap a sync, rotations, a wall clock that is stepped back, clean closes and reopenings. At every call the log
makes to the disk, crash states are drawn, a kill or a power cut, and `judge` opens each the way a restart does
and holds it against what had been acknowledged at that moment.

The planted bugs of tests/crash/test_recovery_finds_planted_bugs.py run through the same `judge`.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest import mock

from holdfast.audit import segment as segment_module
from holdfast.audit.schemas import JOURNALS_OWN
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, AuditError
from holdfast.testing.storage import SimulatedStorage

LOG = Path("/log")
SMALL_PAGES = {"FIRST_FILL_BYTES": 4096, "FILL_STEP_BYTES": 16384}


class SteppedLog(WriteAheadLog):
    """A log without its flusher thread: what the thread would do is done by the story, at its seeded moment.

    Nor is it closed at the end of the process: most of these die.
    """

    def _start_flusher(self) -> None:
        pass


LogClass = type[WriteAheadLog]


class Violation(AssertionError):
    """A crash state in which a promise of the log is broken."""


@dataclass
class Acked:
    """What the callers had been told, and what every sequence held."""

    durable: int = 0
    written: int = 0
    tags: dict[int, str] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)

    def copy(self) -> Acked:
        return Acked(self.durable, self.written, dict(self.tags), list(self.pending))


def lines_on(disk: SimulatedStorage) -> list[tuple[int, str, dict]]:
    """Every line of the log by an independent reading: sequence, type, details; filler must follow the last."""
    files = disk.content(LOG)
    segments = sorted((int(name[22:34]), name) for name in files if name.startswith("audit_"))
    found: list[tuple[int, str, dict]] = []
    for first_seq, name in segments:
        lines = bytes(files[name]).rstrip(b"\n").split(b"\n")
        if lines == [b""]:
            continue
        if first_seq != len(found) + 1:
            raise Violation(f"{name} follows sequence {len(found)}")
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                raise Violation(f"{name}: not a line behind sequence {len(found)}: {line[:80]!r}") from None
            if record["crc"] != f"{zlib.crc32(line[18:]):08x}" or record["seq"] != len(found) + 1:
                raise Violation(f"{name}: sequence {record['seq']} in place of {len(found) + 1}")
            found.append((record["seq"], record["type"], record["details"]))
    return found


def check_prefix(found: list[tuple[int, str, dict]], acked: Acked, at_least: int) -> None:
    """The log holds what was appended, in order, and everything acknowledged.

    A record whose append had not returned may be there or not.
    """
    pending = list(acked.pending)
    for seq, type_, details in found:
        expected = acked.tags.get(seq)
        if type_ in JOURNALS_OWN:
            if expected is not None and seq <= at_least:
                raise Violation(f"sequence {seq} is {type_}, was {expected}")
            if seq > at_least and (type_ == "RECOVERY" or expected is not None):
                break  # from here on it is the restart's own log
        elif expected is None and pending and details["tag"] == pending[0]:
            del pending[0]
        elif details["tag"] != expected:
            raise Violation(f"sequence {seq} holds {details['tag']}, was {expected}")
    if len(found) < at_least:
        raise Violation(f"acknowledged up to {at_least}, found up to {len(found)}")


def judge(  # noqa: PLR0917
    disk: SimulatedStorage,
    acked: Acked,
    at_least: int,
    random: Random,
    log_class: LogClass = SteppedLog,
    depth: int = 1,
    thorough: bool = False,
) -> int:
    """Restart on *disk*; returns how many states were checked, this one and those inside its recovery.

    Raises:
        Violation: A promise is broken.
    """
    checked = 1
    inside: list[tuple[SimulatedStorage, int]] = []

    def crash_inside(operation: str, name: str) -> None:
        if random.random() < 0.08 and len(inside) < 2:
            kill = random.random() < 0.4
            state = disk.after_kill() if kill else disk.after_power_cut(random)
            inside.append((state, at_least if kill else min(at_least, acked.durable)))

    disk.on_call = crash_inside if depth else None
    log = log_class(
        LOG, clock=ManualClock(), storage=disk, rotate_bytes=4096, seal=False, random_bytes=random.randbytes
    )
    try:
        log.open()
        log.append("RESTARTED", {"tag": "restarted"})
    except AuditCorruption as why:
        raise Violation(f"a legal state is called damaged: {why}") from why
    finally:
        disk.on_call = None
    found = lines_on(disk)
    if found[-1][2].get("tag") != "restarted":
        raise Violation(f"the first record after the restart is not the last: {found[-1]}")
    before = [line for line in found if line[2].get("tag") != "restarted"]
    check_prefix(before, acked, at_least)
    # What a restart built on must not vanish in the next crash.
    after = lines_on(disk.after_power_cut(random))
    if after != found:
        raise Violation(f"{len(found)} records after recovery, {len(after)} after the next power cut")
    if thorough:
        report = verify(LOG, storage=disk)
        if report.problems:
            raise Violation(f"verify finds {report.problems[0]}")
    log.close()
    for state, bound in inside:
        checked += judge(state, acked, bound, random, log_class, depth - 1)
    return checked


class Story:
    """A seeded life of one log, crashed at every call.

    Args:
        seed: Everything follows from it.
        log_class: The log to drive, the real one or one with a planted bug.
        states_per_call: Crash states drawn at each call to the disk, on average.
        steps: How many things happen.
    """

    def __init__(
        self, seed: int, log_class: LogClass = SteppedLog, *, states_per_call: float = 1.0, steps: int = 30
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.log_class = log_class
        self.states_per_call = states_per_call
        self.steps = steps
        self.disk = SimulatedStorage()
        self.clock = ManualClock()
        self.acked = Acked()
        self.checked = 0
        self.violation: Violation | None = None
        self.log = self._open()

    def _open(self) -> WriteAheadLog:
        return self.log_class(
            LOG,
            clock=self.clock,
            storage=self.disk,
            rotate_bytes=4096,
            seal=False,
            random_bytes=self.random.randbytes,
        )

    def run(self) -> int:
        """Live the whole life; returns how many crash states were checked."""
        self.disk.on_call = self._crash_here
        with mock.patch.multiple(segment_module, **SMALL_PAGES):
            for _ in range(self.steps):
                self._step()
                if self.violation is not None:
                    raise self.violation
            self.log.close()
            self._crash_here("end", "")
            if self.violation is not None:
                raise self.violation
        return self.checked

    def _step(self) -> None:
        action = self.random.choices(
            [self._durable, self._weak, self._many, self._overlapping, self._sync, self._reopen, self._back],
            [8, 6, 4, 4, 2, 1, 1],
        )[0]
        action()

    def _tag(self) -> str:
        return f"{self.random.randrange(10**9)}-" + "x" * self.random.choice([1, 20, 300, 700])

    def _append(self, level: Level) -> None:
        tag = self._tag()
        self.acked.pending = [tag]
        self._settle([self.log.append("NOTE", {"tag": tag}, level=level)], level)

    def _settle(self, seqs: list[int], level: Level) -> None:
        for seq, tag in zip(seqs, self.acked.pending, strict=True):
            self.acked.tags[seq] = tag
        self.acked.pending = []
        if level is Level.DURABLE:
            self.acked.durable = max(self.acked.durable, seqs[-1])
        if level >= Level.WRITTEN:
            self.acked.written = max(self.acked.written, seqs[-1])

    def _durable(self) -> None:
        self._append(Level.DURABLE)

    def _weak(self) -> None:
        self._append(self.random.choice([Level.WRITTEN, Level.BUFFERED]))

    def _many(self) -> None:
        tags = [self._tag() for _ in range(self.random.randrange(2, 9))]
        self.acked.pending = tags
        level = self.random.choice([Level.DURABLE, Level.DURABLE, Level.WRITTEN])
        self._settle(self.log.append_many([Entry("NOTE", {"tag": tag}) for tag in tags], level=level), level)

    def _overlapping(self) -> None:
        """Records are written while the sync of another one runs."""
        tags = [self._tag() for _ in range(self.random.randrange(1, 4))]

        def write() -> None:
            for tag in tags:
                if (
                    self.log.state != "open"
                    or self.log._io.locked()
                    or self.log._queue.plan_bytes + 1200 > 4096
                ):
                    return  # it would wait for the sync that waits for it
                self.acked.pending.append(tag)
                seq = self.log.append("NOTE", {"tag": tag}, level=Level.WRITTEN)
                self.acked.tags[seq] = self.acked.pending.pop()
                self.acked.written = max(self.acked.written, seq)

        self.disk.during_sync = write
        self._append(Level.DURABLE)
        self.disk.during_sync = None

    def _sync(self) -> None:
        if self.log.state == "open":
            last = self.log.last_seq
            self.log.sync()
            self.acked.durable = self.acked.written = max(self.acked.written, last)

    def _reopen(self) -> None:
        last = self.log.last_seq
        self.log.close()
        self.acked.durable = self.acked.written = max(self.acked.written, last)
        self.log = self._open()

    def _back(self) -> None:
        self.clock.step_wall_secs(-self.random.choice([3600, 90_000]))

    def _crash_here(self, operation: str, name: str) -> None:
        draws = int(self.states_per_call) + (self.random.random() < self.states_per_call % 1)
        for _ in range(draws):
            kill = self.random.random() < 0.3
            disk = self.disk.after_kill() if kill else self.disk.after_power_cut(self.random)
            at_least = self.acked.written if kill else self.acked.durable
            acked = self.acked.copy()
            try:
                self.checked += judge(
                    disk, acked, at_least, self.random, self.log_class, thorough=self.random.random() < 0.03
                )
            except (Violation, AuditError) as why:
                what = "kill" if kill else "power cut"
                # Raised when the step is over: an exception inside a call to the disk would poison the log.
                self.violation = Violation(f"seed {self.seed}, {what} at {operation} {name}: {why}")
                self.disk.on_call = None
                return

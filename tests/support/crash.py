"""Crash states of the log, and the one checker that judges them.

A `Story` drives a log, signed as a running one is, through a seeded workload: DURABLE, WRITTEN and BUFFERED records,
batches, writes that overlap a sync, the keeper's checkpoints, rotations with their change of keys, a wall clock
that is stepped back, clean closes and reopenings, deaths and recoveries. At every call that changes the disk, crash
states are drawn; `judge` opens each the way a restart does and holds it against what had been acknowledged at that
moment. A state that was judged before is drawn again and not counted.

The disk is a `SimulatedStorage`, or the ext4 image of `support.image`: one story, two disks. The planted bugs of
`support.planted` run through the same `judge` on both.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Protocol
from unittest import mock

from holdfast.audit import evidence, highwater, keys, lifecycle, note, signing
from holdfast.audit import format as format_module
from holdfast.audit import segment as segment_module
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import VerifierKey
from holdfast.audit.storage import Directory
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, AuditError
from holdfast.testing.storage import SimulatedStorage

LOG = Path("/log")
KEYS = Path("/keys")
SMALL_PAGES = {"FIRST_FILL_BYTES": 4096, "FILL_STEP_BYTES": 16384}
OWN = frozenset({"SEGMENT", "KEY", "RECOVERY", "GAP", "CLOCK_STEP", "LATE", "SEALED"})
"""What the log writes by itself, at sequences that nobody was told."""
CHANGING = frozenset(
    {
        "create",
        "pwrite",
        "truncate",
        "fdatasync",
        "fsync",
        "flush",
        "rename",
        "unlink",
        "sync directory",
        "end",
    }
)
"""The calls before which the set of crash states differs from the one before the last of them."""


ACTIONS = {
    "durable": 8,
    "weak": 6,
    "many": 4,
    "overlapping": 3,
    "sync": 2,
    "flush": 3,
    "checkpoint": 1,
    "rotate": 1,
    "reopen": 1,
    "die": 2,
    "back": 1,
    "seal": 2,
}
"""What can happen in a story, and how often."""


class SteppedLog(WriteAheadLog):
    """A log without its flusher thread: what the thread would do is done by the story, at its seeded moment.

    Nor is it closed at the end of the process: most of these die.
    """

    def _start_flusher(self) -> None:
        pass


LogClass = type[WriteAheadLog]


class Disk(Protocol):
    """What a story needs of a disk besides being a `Storage`."""

    on_call: Callable[[str, str], None] | None
    during_sync: Callable[[], None] | None

    def directory(self, path: Path, *, create: bool) -> Directory: ...
    def after_power_cut(self, random: Random) -> Disk: ...
    def content(self, path: Path) -> dict[str, bytearray]: ...
    def fingerprint(self) -> int: ...
    def release(self) -> None: ...


class Violation(AssertionError):
    """A crash state in which a promise of the log is broken."""


@dataclass
class Acked:
    """What the callers had been told, and what every sequence held."""

    durable: int = 0
    written: int = 0
    tags: dict[int, str] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)


_verify_once = lru_cache(maxsize=1 << 12)(VerifierKey.verify)
_parse_once = lru_cache(maxsize=1 << 12)(note.parse_note)
_key_once = lru_cache(maxsize=1 << 12)(note.SigningKey)
_page_once = lru_cache(maxsize=1 << 12)(highwater.decode_page)
_line_once = lru_cache(maxsize=1 << 12)(format_module.decode_line)
_vkey_once = lru_cache(maxsize=1 << 12)(VerifierKey.parse)


def _no_note(*_: object) -> None:
    """Instead of `run/pid`: it is no evidence, it is not synced, and it is a tenth of a start's calls."""


@contextmanager
def small_pages() -> Iterator[None]:
    """Everything is filled in the smallest steps, so that a disk's state is small.

    The states of a story share their notes and keys; each is checked, parsed and made once, which is a third of what
    a restart costs.
    """
    with (
        mock.patch.multiple(keys, SigningKey=_key_once, parse_note=_parse_once),
        mock.patch.multiple(evidence, parse_note=_parse_once, decode_line=_line_once),
        mock.patch.multiple(keys, decode_page=_page_once),
        mock.patch.multiple(highwater, decode_page=_page_once),
        mock.patch.object(VerifierKey, "parse", staticmethod(_vkey_once)),
        mock.patch.object(highwater, "parse_note", _parse_once),
        mock.patch.multiple(segment_module, **SMALL_PAGES),
        mock.patch.multiple(signing, HISTORY_FILL_BYTES=4096, HISTORY_STEP_BYTES=4096),
        mock.patch.object(lifecycle, "write_pid", _no_note),
        mock.patch.object(VerifierKey, "verify", lambda *told: _verify_once(*told)),  # noqa: PLW0108  binds self
    ):
        yield


def open_log(
    log_class: LogClass, disk: Disk, random: Random, *, clock: ManualClock | None = None, **options: Any
) -> WriteAheadLog:
    """A signed log on *disk*, its keys beside it on the same disk."""
    options = {"seal": True, "rotate_bytes": 6000, **options}
    return log_class(
        LOG,
        clock=clock or ManualClock(),
        storage=disk,
        random_bytes=random.randbytes,
        keys=KeyHome(KEYS, disk, random_bytes=random.randbytes),
        **options,
    )


def abandon(log: WriteAheadLog) -> None:
    """What the kernel does with the descriptors of a process that dies."""
    for thing in (log._segment, log._head, log._signer, log._last_words, log._home):
        if thing is not None:
            thing.close()


@lru_cache(maxsize=1 << 16)
def _parsed(line: bytes) -> tuple[int, str, dict] | None:
    """Sequence, type and details of a line whose crc holds."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if record["crc"] != f"{zlib.crc32(line[18:]):08x}":
        return None
    return record["seq"], record["type"], record["details"]


def lines_on(disk: Disk) -> list[tuple[int, str, dict]]:
    """Every line of the log by an independent reading: sequence, type, details; filler must follow the last."""
    files = disk.content(LOG)
    segments = {
        name.removesuffix(".gz"): name
        for name in sorted(files, reverse=True)
        if name.endswith((".log", ".log.gz"))
    }
    found: list[tuple[int, str, dict]] = []
    for raw_name in sorted(segments, key=lambda name: int(name[22:34])):
        name = segments[raw_name]
        content = bytes(files[name])
        lines = (gzip.decompress(content) if name.endswith(".gz") else content).rstrip(b"\n").split(b"\n")
        if lines == [b""]:
            continue
        if int(raw_name[22:34]) != len(found) + 1:
            raise Violation(f"{name} follows sequence {len(found)}")
        for line in lines:
            record = _parsed(line)
            if record is None:
                raise Violation(f"{name}: not a line behind sequence {len(found)}: {line[:80]!r}")
            if record[0] != len(found) + 1:
                raise Violation(f"{name}: sequence {record[0]} in place of {len(found) + 1}")
            found.append(record)
    return found


def check_prefix(found: list[tuple[int, str, dict]], acked: Acked, at_least: int) -> None:
    """The log holds what was appended, in order, and everything acknowledged.

    A record whose append had not returned may be there or not.
    """
    pending = list(acked.pending)
    for seq, type_, details in found:
        expected = acked.tags.get(seq)
        if type_ in OWN:
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


def judge(  # noqa: PLR0917  what a crash is judged by
    disk: Disk,
    acked: Acked,
    at_least: int,
    random: Random,
    log_class: LogClass = SteppedLog,
    depth: int = 1,
    thorough: bool = False,
    rotate_bytes: int = 6000,
) -> int:
    """Restart on *disk*; returns how many states were checked, this one and those inside its recovery.

    Raises:
        Violation: A promise is broken.
    """
    checked = 1
    inside: list[tuple[Disk, int]] = []

    def crash_inside(operation: str, name: str) -> None:
        if operation in CHANGING and random.random() < 0.1 and len(inside) < 2:
            inside.append((disk.after_power_cut(random), min(at_least, acked.durable)))

    disk.on_call = crash_inside if depth else None
    log = open_log(log_class, disk, random, rotate_bytes=rotate_bytes)
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
    check_prefix([line for line in found if line[2].get("tag") != "restarted"], acked, at_least)
    if depth and random.random() < 0.5:
        # What a restart built on must not vanish in the next crash.
        again = disk.after_power_cut(random)
        after = lines_on(again)
        again.release()
        if after != found:
            raise Violation(f"{len(found)} records after recovery, {len(after)} after the next power cut")
    if thorough:
        pins = KeyHome(KEYS, disk).log(log.log_id).pins()
        for moment in ("beside the writer", "closed"):
            report = verify(LOG, storage=disk, keys=pins, jobs=1)
            if report.problems:
                raise Violation(f"verify, {moment}, finds {report.problems[0]}")
            log.close()
    else:
        abandon(log)
    for state, bound in inside:
        try:
            checked += judge(state, acked, bound, random, log_class, depth - 1, rotate_bytes=rotate_bytes)
        finally:
            state.release()
    return checked


class Story:
    """A seeded life of one log, crashed at every call.

    Args:
        seed: Everything follows from it.
        log_class: The log to drive, the real one or one with a planted bug.
        disk: Where; a new simulated one by default.
        states_per_call: Crash states drawn at each call to the disk, on average; four times as many before a
            segment's sync.
        steps: How many things happen.
        depth: How deep recoveries are crashed in turn.
        focus: Things that are to happen ten times as often, by the names of `ACTIONS`.
        script: What happens, in order, by the names of `ACTIONS`, instead of *steps* things drawn by the seed.
        moment: A call and the end of its file's name: one state at each of these, and none elsewhere.
        rotate_bytes: Bound of a segment.
        longest: Bytes of the longest record's text.

    Attributes:
        checked: How many crash states were judged, each a distinct one.
    """

    def __init__(
        self,
        seed: int,
        log_class: LogClass = SteppedLog,
        *,
        disk: Disk | None = None,
        states_per_call: float = 1.0,
        steps: int = 30,
        depth: int = 1,
        focus: Collection[str] = (),
        script: Sequence[str] = (),
        moment: tuple[str, str] | None = None,
        rotate_bytes: int = 6000,
        longest: int = 700,
    ) -> None:
        self.script = script
        self.moment = moment
        self.rotate_bytes = rotate_bytes
        self.longest = longest
        self.seed = seed
        self.random = Random(seed)
        self.log_class = log_class
        self.states_per_call = states_per_call
        self.steps = steps
        self.depth = depth
        self.weights = [weight * (10 if name in focus else 1) for name, weight in ACTIONS.items()]
        self.disk: Disk = SimulatedStorage() if disk is None else disk
        self.clock = ManualClock()
        self.acked = Acked()
        self.checked = 0
        self.violation: Violation | None = None
        self._seen: set[tuple[int, int]] = set()
        self.log = self._open()

    def _open(self) -> WriteAheadLog:
        return open_log(
            self.log_class, self.disk, self.random, clock=self.clock, rotate_bytes=self.rotate_bytes
        )

    def run(self) -> int:
        """Live the whole life; returns how many crash states were judged."""
        self.disk.on_call = self._crash_here
        with small_pages():
            for name in self.script or (self._drawn() for _ in range(self.steps)):
                getattr(self, f"_{name}")()
                self._complain()
            self.log.close()
            self._crash_here("end", "")
            self._complain()
        return self.checked

    def _complain(self) -> None:
        if self.violation is not None:
            self.disk.on_call = None
            abandon(self.log)
            raise self.violation

    def _drawn(self) -> str:
        (name,) = self.random.choices(list(ACTIONS), self.weights)
        return name

    def _tag(self) -> str:
        return f"{self.random.randrange(10**9)}-" + "x" * self.random.choice([1, 20, 300, self.longest])

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
                    or self.log._segment.filling.locked()
                    or self.log._queue.plan_bytes + self.longest + 500 > self.rotate_bytes
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

    def _flush(self) -> None:
        """A round of the flusher, with its keeper: a checkpoint, filler, the end of a day."""
        if self.log.state == "open":
            self.clock.advance(self.random.choice([0.0, 0.5, 3.0, 40_000.0]))
            self.log._flush(0, wanted=False)

    def _checkpoint(self) -> None:
        if self.acked.tags:
            last = self.log.last_seq
            self.log.checkpoint()
            self.acked.durable = self.acked.written = max(self.acked.written, last)

    def _rotate(self) -> None:
        last = self.log.last_seq
        self.log.rotate()
        self.acked.durable = self.acked.written = max(self.acked.written, last)

    def _reopen(self) -> None:
        last = self.log.last_seq
        self.log.close()
        self.acked.durable = self.acked.written = max(self.acked.written, last)
        self.log = self._open()

    def _die(self) -> None:
        """The process is killed; the next one recovers on the same disk, which still owes what was not synced.

        Four of five die with something unsynced, and recovery is crashed four times as often as the rest.
        """
        if self.log.state != "open":
            return
        for _ in range(self.random.randrange(5)):
            self._append(Level.WRITTEN)
        abandon(self.log)
        # What no call had handed over died with the process.
        found = lines_on(self.disk)
        check_prefix(found, self.acked, self.acked.written)
        self.acked.tags = {seq: details["tag"] for seq, type_, details in found if type_ not in OWN}
        self.log = self._open()
        self.states_per_call *= 4
        try:
            self.log.open()
        except AuditCorruption as why:
            self.violation = self.violation or Violation(f"seed {self.seed}, kill: called damaged: {why}")
            return
        finally:
            self.states_per_call /= 4
        found = lines_on(self.disk)
        self.acked.durable = self.acked.written = len(found)

    def _seal(self) -> None:
        """What the sealer does: compress, index, hash tiles, vouch, replace."""
        sealer = self.log._sealer
        if self.log.state == "open" and sealer is not None:
            self.log._tell_sealer(sealer)
            sealer.run_pending()
            if sealer.failures:
                raise Violation(f"seed {self.seed}: {sealer.failures[0]}")
            self.acked.durable = max(self.acked.durable, self.log.durable_seq)
            self.acked.written = max(self.acked.written, self.acked.durable)

    def _back(self) -> None:
        self.clock.step_wall_secs(-self.random.choice([3600, 90_000]))

    def _crash_here(self, operation: str, name: str) -> None:
        if operation not in CHANGING or self.violation is not None:
            return
        for _ in range(self._wanted(operation, name)):
            state = self.disk.after_power_cut(self.random)
            try:
                self._judge(state, f"{operation} {name}")
            finally:
                state.release()
            if self.violation is not None:
                return

    def _wanted(self, operation: str, name: str) -> int:
        """How many states to draw before a call."""
        if self.moment is not None:
            return operation == self.moment[0] and name.endswith(self.moment[1])
        # Before a segment is synced there is most to lose.
        wanted = self.states_per_call * (4 if operation == "fdatasync" and name.endswith(".log") else 1)
        return int(wanted) + (self.random.random() < wanted % 1)

    def _judge(self, state: Disk, where: str) -> None:
        key = (state.fingerprint(), self.acked.durable)
        if key in self._seen:
            return
        self._seen.add(key)
        thorough = self.random.random() < 0.005
        try:
            self.checked += judge(
                state,
                self.acked,
                self.acked.durable,
                self.random,
                self.log_class,
                self.depth,
                thorough,
                self.rotate_bytes,
            )
        except (Violation, AuditError) as why:
            # Raised when the step is over: an exception inside a call to the disk would poison the log.
            self.violation = Violation(f"seed {self.seed}, power cut at {where}: {why}")

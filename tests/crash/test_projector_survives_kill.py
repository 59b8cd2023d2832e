"""Projectors that are killed, and their rivals: every row of the journal is in the lake exactly once.

First many stories in one process, whose kills fall on every step of a commit, with planted bugs that must be found;
then real processes and kill -9, on a disk and on S3. `python tests/crash/lake_torture.py` does the same for longer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.lake import record
from support.moto_process import moto_process
from support.projectors import assert_exact, finish, rival_kills, writer

from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.lake import commit as commit_module
from holdfast.lake import durable
from holdfast.lake.commit import Span, TableWriter
from holdfast.lake.projector import Projector, ProjectorPolicy
from holdfast.lake.store import LakeStore, store_of

SMALL = ProjectorPolicy(rows=10, most_rows=40, age_secs=0.5, idle_secs=20.0, idle_records=500)

pytestmark = [pytest.mark.invariant("I10"), pytest.mark.contract("B7")]


class Killed(BaseException):
    """kill -9 fell here."""


class Story:
    """A journal that grows, rivals that project it, and kills at the steps of their commits.

    Args:
        folder: An empty directory.
        seed: Everything follows from it.
        patch: Undone by the caller.
        rivals: How many projectors work at once.
    """

    def __init__(self, folder: Path, seed: int, patch: pytest.MonkeyPatch, *, rivals: int = 3) -> None:
        self.random = Random(seed)
        self.clock = ManualClock()
        self.log = WriteAheadLog(
            folder / "log",
            clock=self.clock,
            random_bytes=self.random.randbytes,
            rotate_bytes=20_000,
            seal=False,
        )
        self.store = store_of(str(folder / "lake"))
        self.steps_left = 0  # steps of a commit until the kill; 0 for no kill
        self.others: list[Projector] = []  # who may come between in this round
        self.kills = 0
        self.lost = 0
        self.records = 0
        self._watch(patch)
        self._append()
        self.rivals = [self._start() for _ in range(rivals)]

    def _watch(self, patch: pytest.MonkeyPatch) -> None:
        """Count the steps of a commit: each sync, and what follows delta-rs's commit."""
        fsync, made, tidy = os.fsync, TableWriter._make_commit, TableWriter.tidy

        def step() -> None:
            if self.steps_left:
                self.steps_left -= 1
                if not self.steps_left:
                    raise Killed

        def counted(descriptor: int) -> None:
            step()
            fsync(descriptor)
            step()

        def committed(writer: TableWriter, *told) -> None:
            made(writer, *told)
            step()

        def tidied(writer: TableWriter) -> None:
            """Let a rival work between a commit and what follows it."""
            left, self.steps_left = self.steps_left, 0
            if self.random.random() < 0.2 and self.others:
                rival = self.others.pop()
                for _ in range(3):
                    self._append()
                    self.clock.advance(1.0)
                    rival._round(look=True)
            self.steps_left = left
            tidy(writer)

        patch.setattr(TableWriter, "tidy", tidied)
        patch.setattr(durable.os, "fsync", counted)
        patch.setattr(TableWriter, "_make_commit", committed)

    def _start(self) -> Projector:
        one = Projector([self.log.directory], self.store, clock=self.clock, policy=SMALL)
        one.start()
        return one

    def _append(self) -> None:
        entries = []
        for _ in range(self.random.choice([1, 5, 30])):
            type_, details, component = record(self.random, 0, self.records)
            entries.append(Entry(type_, {**details, "tag": str(self.records)}, "desk", component))
            self.records += 1
        left, self.steps_left = self.steps_left, 0
        self.log.append_many(entries, level=Level.DURABLE)
        self.steps_left = left

    def run(self, steps: int) -> int:
        """So many things happen, then one projector brings the rest; how many rows there are."""
        for _ in range(steps):
            self.clock.advance(self.random.choice([0.0, 0.1, 1.0]))
            if self.random.random() < 0.4:
                self._append()
            else:
                self._let_work(self.random.randrange(len(self.rivals)))
        self.log.close()
        self.others = []
        for one in self.rivals:
            self.lost += one.lost
            one.close()
        last = self._start()
        last.run(follow=False, wait=lambda _: False)
        last.close()
        return assert_exact([self.log.directory], self.store)

    def _let_work(self, at: int) -> None:
        one = self.rivals[at]
        self.others = [other for other in self.rivals if other is not one]
        self.steps_left = self.random.choice([0, 0, *range(1, 24)])
        try:
            one._round(look=True)
        except Killed:
            self.kills += 1
            self.lost += one.lost
            one.close()  # what the kernel does with its descriptors
            self.steps_left = 0
            self.rivals[at] = self._start()
        self.steps_left = 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_rivals_that_are_killed_write_each_row_once(tmp_path, seed, monkeypatch):
    """Three rivals, killed at the steps of their commits while the journal grows, leave each row exactly once."""
    story = Story(tmp_path, seed, monkeypatch)
    rows = story.run(50)
    assert rows > 100
    assert story.kills >= 3
    assert story.lost >= 1, "no rival ever lost a commit: they did not meet"


class WithoutTransaction(TableWriter):
    """Planted: the watermark is the highest sequence among the rows, and no app transaction is written."""

    def watermark(self, log_id: str) -> int:
        self.open()
        sequences = self.handle.to_pyarrow_table(columns=["seq"])["seq"].to_pylist()
        return max(sequences, default=0)

    def commit(self, rows: Any, spans: Sequence[Span]) -> None:
        handle = self.handle
        if rows:
            self._make_commit(handle, self._write_files(rows), [])


class WatermarkOfAnotherHandle(TableWriter):
    """Planted: the watermark is read from one handle, and a fresh one commits: the store cannot see the rival."""

    def commit(self, rows: Any, spans: Sequence[Span]) -> None:
        self.open()
        self._watermarks = {span.log_id: span.first - 1 for span in spans}
        super().commit(rows, spans)


class ForgetsToCompare(TableWriter):
    """Planted: a handle that was opened anew for its age is believed to be where the one before was."""

    def tidy(self) -> None:
        known = dict(self._watermarks)
        super().tidy()
        self._watermarks = known


class CommitsRowsFirst(TableWriter):
    """Planted: rows in one commit, the watermark in the next."""

    def commit(self, rows: Any, spans: Sequence[Span]) -> None:
        if rows:
            handle = self.handle
            self._make_commit(handle, self._write_files(rows), [])
        super().commit([], spans)


@pytest.mark.slow
@pytest.mark.parametrize(
    "planted", [WithoutTransaction, WatermarkOfAnotherHandle, CommitsRowsFirst, ForgetsToCompare]
)
def test_planted_bug_is_found_by_rivals(tmp_path, planted, monkeypatch):
    """Each way to break the protocol leaves rows twice, or none, within a few stories."""
    monkeypatch.setattr("holdfast.lake.projector.TableWriter", planted)
    monkeypatch.setattr(commit_module, "CHECKPOINT_COMMITS", 1)
    with pytest.raises(AssertionError, match=r"rows (twice|missing)"):
        many_stories(tmp_path)


def many_stories(folder: Path) -> None:
    for seed in range(5):
        (folder / str(seed)).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            Story(folder / str(seed), seed, patch).run(30)


FAST = ("--age", "0.02", "--rows", "200")


@pytest.mark.slow
def test_killed_processes_leave_each_row_once(tmp_path):
    """Three real projectors, killed with kill -9 beside a live writer, leave each row exactly once."""
    store, log = store_of(str(tmp_path / "lake")), tmp_path / "log"
    with writer(log, seed=5, rate=1000):
        ended = rival_kills([log], store, *FAST, kills=4, rivals=3, random=Random(5))
    finish([log], store)
    assert assert_exact([log], store) > 500
    assert set(ended) == {"killed"}


@pytest.mark.slow
def test_killed_processes_leave_each_row_once_on_s3(tmp_path):
    """The same with the lake on an S3 server: the fence is the store's put-if-absent."""
    log = tmp_path / "log"
    with moto_process() as place:
        store: LakeStore = store_of(f"s3://{place.make(lock=False)}/lake", place.environ)
        with writer(log, seed=6, rate=200):
            ended = rival_kills(
                [log], store, *FAST, kills=2, rivals=2, random=Random(6), environ=place.environ
            )
        finish([log], store, place.environ)
        assert assert_exact([log], store) > 50
    assert set(ended) == {"killed"}


@pytest.mark.slow
def test_checkpoints_do_not_disturb_rivals(tmp_path, monkeypatch):
    """Handles that are opened anew after a few commits, with checkpoints of rivals between, keep the promise."""
    monkeypatch.setattr(commit_module, "CHECKPOINT_COMMITS", 3)
    story = Story(tmp_path, 77, monkeypatch)
    assert story.run(50) > 100

"""Every single byte of a small signed log, flipped, and every file of it cut at every length, is reported.

The closed log has a sealed segment with its index, checkpoint histories, tiles and a reserve; the open one is as
`kill -9` left it. A byte of a record is reported at that record, any other by its file.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path
from unittest import mock

import pytest
from support.crash import SMALL_PAGES
from support.forge import KeyThief, signed_log
from support.journal import small_log

from holdfast.audit import note
from holdfast.audit import segment as segment_module
from holdfast.audit.verify import VerifyReport, verify

pytestmark = [pytest.mark.slow, pytest.mark.invariant("I8"), pytest.mark.contract("A13")]

NO_EVIDENCE = {"run/pid"}


class Subject:
    """A log whose files are damaged one at a time, and repaired again."""

    def __init__(self, home: Path, *keys: note.VerifierKey) -> None:
        self.home = home
        self.keys = keys
        self.files = {
            str(path.relative_to(home)): path.read_bytes()
            for path in sorted(home.rglob("*"))
            if path.is_file()
        }

    def verify(self) -> VerifyReport:
        return verify(self.home, keys=self.keys)

    def cut(self, name: str, length: int) -> VerifyReport:
        path = self.home / name
        os.truncate(path, length)
        report = self.verify()
        with path.open("r+b") as file:
            file.seek(length)
            file.write(self.files[name][length:])
        return report

    def flipped(self, name: str, offset: int) -> VerifyReport:
        byte = self.files[name][offset]
        with (self.home / name).open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes([byte ^ 0x01]), offset)
            report = self.verify()
            os.pwrite(file.fileno(), bytes([byte]), offset)
        return report


@pytest.fixture(scope="module", autouse=True)
def remembered_signatures():
    """A signature that was parsed and verified once is not again: the test asks thousands of times."""
    key = note.VerifierKey
    with (
        mock.patch.multiple(
            key,
            verify=lru_cache(1 << 12)(key.verify),
            parse=staticmethod(lru_cache(1 << 12)(key.parse)),
        ),
        mock.patch.object(note, "parse_signature", lru_cache(1 << 12)(note.parse_signature)),
    ):
        yield


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    root = tmp_path_factory.mktemp("bytes")
    thief = KeyThief(root / "keys")
    signed_log(root / "closed", thief.home, (2, 2), text="q")
    report = verify(root / "closed")
    assert report.ok, report.problems
    thief_2 = KeyThief(root / "keys2")
    with mock.patch.multiple(segment_module, **SMALL_PAGES):
        log = signed_log(root / "live", thief_2.home, (2, 2), close=False, seal=False, text="q")
        log.checkpoint()
        shutil.copytree(root / "live", root / "open")
        (root / "open").chmod(0o700)
        log.close()
    report_2 = verify(root / "open")
    assert report_2.ok, report_2.problems
    assert not report_2.needs_recovery, report_2.recovery_range
    small_log(root / "unsigned", (3, 2))
    return {
        "unsigned": Subject(root / "unsigned"),
        "closed": Subject(root / "closed", thief.home.log(report.log_id).pins()[0]),
        "open": Subject(root / "open", thief_2.home.log(report_2.log_id).pins()[0]),
    }


def sequences(name: str, content: bytes) -> list[int]:
    """For each byte of a segment the record that it belongs to; 0 in filler."""
    sequence = int(name.split("_")[3][:12])
    places: list[int] = []
    for line in content.rstrip(b"\n").split(b"\n"):
        places += [sequence] * (len(line) + 1)
        sequence += 1
    return places + [0] * (len(content) - len(places))


def expect_named(report: VerifyReport, name: str, content: bytes, offset: int) -> None:
    """The report names the record that *offset* of *name* lies in, or else the file."""
    said = (name, offset, report.problems[:3])
    assert not report.ok, said
    if name.endswith(".log"):
        sequence = sequences(name, content)[offset]
        assert report.first_bad.file == name, said
        assert (
            report.first_bad.sequence in {sequence, sequence + 1} if content[offset] == 0x0A else sequence
        ), said
        assert report.first_bad.offset <= offset, said
    elif name.endswith(".gz"):
        assert name in {problem.file for problem in report.problems}, said
    else:
        # A checkpoint that is not the one in the history: which of the two changed, nobody knows.
        files = {name, "checkpoint"} if name.endswith(".checkpoints") else {name}
        assert any(one.file in files and one.offset <= offset for one in report.problems), said


def test_the_logs_hold_every_kind_of_file(logs):
    """What is flipped below is everything that a log may consist of."""
    names = set(logs["closed"].files)
    for ending in (".log", ".log.gz", ".idx", ".checkpoints", "head", "checkpoint"):
        assert any(name.endswith(ending) for name in names), (ending, names)
    assert any(name.startswith("tile/") for name in names)


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        *(("closed", kind) for kind in ("head", "checkpoint", ".checkpoints", ".idx", "tile", ".log", ".gz")),
        ("unsigned", ".log"),
    ],
)
def test_every_flipped_byte_of_a_closed_log_is_reported(logs, which, kind):
    """Whichever byte of whichever file is flipped, it is named."""
    subject = logs[which]
    chosen = [name for name in subject.files if name not in NO_EVIDENCE and (name.endswith(kind) or name.startswith(kind + "/"))]  # fmt: skip
    assert chosen
    for name in chosen:
        content = subject.files[name]
        for offset in range(len(content)):
            expect_named(subject.flipped(name, offset), name, content, offset)
    assert subject.verify().ok


@pytest.mark.parametrize("which", ["closed", "open", "unsigned"])
def test_every_cut_of_every_file_is_reported(logs, which):
    """A file cut at any length is named; of an open log's filler, which may end anywhere, only its records count."""
    subject = logs[which]
    for name, content in subject.files.items():
        if name in NO_EVIDENCE:
            continue
        end = len(content)
        if which == "open" and name.endswith((".log", ".checkpoints")):
            end = len(content.rstrip(b"\n")) + 1
        for length in range(0, end, 1 if name != "head" else 31):
            report = subject.cut(name, length)
            assert not report.ok, (name, length)
            files = {one.file for one in report.problems}
            assert name in files or name.endswith((".log", ".checkpoints")), (name, length, files)
    assert subject.verify().ok


def test_every_flipped_byte_of_an_open_log_is_reported_up_to_its_head(logs):
    """A log that is open, as a writer or its death leaves it, hides no changed byte up to its head."""
    subject = logs["open"]
    for name, content in subject.files.items():
        if name in NO_EVIDENCE:
            continue
        end = len(content.rstrip(b"\n")) + 1 if name.endswith((".log", ".checkpoints")) else len(content)
        for offset in range(len(content)):
            if offset > end + 2 and offset % 97:
                continue  # filler is all alike
            if name == "head" and offset % 512 >= 104 and offset % 31:
                continue  # so are the zeros between the slots, which the closed log's test flips one by one
            report = subject.flipped(name, offset)
            if offset < end:
                expect_named(report, name, content, offset)
            else:
                assert report.needs_recovery or not report.ok, (name, offset)
    assert subject.verify().ok

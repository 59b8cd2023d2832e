"""Verification of arbitrary bytes ends, and no change to a closed log goes unseen."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.forge import KeyThief, signed_log
from support.journal import small_log

from holdfast.audit.query import query
from holdfast.audit.verify import verify
from holdfast.core.errors import AuditCorruption, BadInput

NAMES = [
    "head",
    "audit_20251120_102000_000000000001.log",
    "audit_20251120_102000_000000000001.log.gz",
    "audit_20251120_102006_000000000007.log",
    "audit_20251120_102006_000000000007.log.gz.tmp",
    "audit_20251120_102000_000000000001.idx",
    "audit_20251120_102000_000000000001.checkpoints",
    "audit_20251120_102000_000000000001.pruned",
    "checkpoint",
    "tile/0/000",
    "tile/0/000.p/3",
    "run/reserve",
    "quarantine/audit_20251120_102000_000000000001.log-0-0123456789abcdef",
]
PIECE = st.one_of(
    st.binary(max_size=80),
    st.just(b"\n" * 50),
    st.just(bytes(200)),
    st.just(
        b'{"crc":"00000000","seq":1,"synced":0,"ts":0,"type":"","user":"","component":"","details":{}}\n'
    ),
    st.just(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
    st.just(b'{"crc":"' + b"[" * 3000 + b"\n"),
)


@pytest.mark.invariant("I8")
@given(files=st.dictionaries(st.sampled_from(NAMES), st.lists(PIECE, max_size=4).map(b"".join), min_size=1))
def test_arbitrary_files_neither_crash_nor_hang_verification(files):
    """Whatever bytes stand under the log's names, verify returns a report and a query returns or names damage."""
    with tempfile.TemporaryDirectory() as root:
        home = Path(root) / "audit"
        home.mkdir(mode=0o700)
        for name, content in files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError, IsADirectoryError):
                (home / name).write_bytes(content)
        report = verify(home)
        assert report.ok or report.problems
        assert report.to_dict()["integrity_ok"] is report.ok
        with contextlib.suppress(AuditCorruption, BadInput):
            query(home)


@pytest.fixture(scope="module")
def closed_logs(tmp_path_factory):
    root = tmp_path_factory.mktemp("logs")
    small_log(root / "raw", (5, 4, 3))
    small_log(root / "sealed", (9, 4), seal_first=True)
    signed_log(root / "signed", KeyThief(root / "keys").home, (3, 3, 2))
    return root


@pytest.mark.invariant("I8")
@given(data=st.data(), which=st.sampled_from(["raw", "sealed", "signed"]))
def test_any_edit_of_a_closed_log_is_reported(closed_logs, data, which):
    """Inserting, deleting, replacing or moving bytes, and swapping or copying files, is always a problem."""
    with tempfile.TemporaryDirectory() as root:
        home = Path(root) / "audit"
        shutil.copytree(closed_logs / which, home)
        home.chmod(0o700)
        paths = sorted(path for path in home.rglob("*") if path.is_file() and path.name != "pid")
        victim = data.draw(st.sampled_from(paths))
        before = victim.read_bytes()
        start = data.draw(st.integers(0, len(before)))
        end = data.draw(st.integers(start, min(len(before), start + 400)))
        put = data.draw(
            st.binary(max_size=20)
            | st.sampled_from([before[a : a + 300] for a in range(0, len(before), 97)])
            | st.sampled_from(paths).map(lambda path: path.read_bytes()[:600])
        )
        after = before[:start] + put + before[end:]
        if after == before:
            assert verify(home).ok
            return
        victim.write_bytes(after)
        assert not verify(home).ok

"""kill -9 in the middle of archiving: the next run goes on with what the store holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from support.s3 import Fault, FaultProxy, Store, make_log, moto_store

from holdfast.archive.restore import restore
from holdfast.audit.keys import KeyHome
from holdfast.audit.verify import verify

pytestmark = [pytest.mark.contract("A19"), pytest.mark.slow]


def _run(tmp_path, endpoint: str, *arguments: str) -> subprocess.Popen:
    environ = {**os.environ, **Store(endpoint).environ, "HOLDFAST_HOME": str(tmp_path / "home")}
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "audit", *arguments],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("containing", [".idx", "manifest.json", "/head"])
def test_killed_archive_is_continued(tmp_path, containing):
    """Killed while it puts a file, a manifest or the log's rest, the archive is completed by a repeat and restores."""
    make_log(tmp_path / "log", tmp_path / "home", segments=2, records=30)
    with moto_store() as store, FaultProxy(store) as proxy:
        url = f"s3://{store.make()}/desk"
        proxy.faults.append(Fault("stop", "PUT", containing))
        first = _run(tmp_path, proxy.endpoint, "archive", str(tmp_path / "log"), url)
        try:
            assert proxy.stopped.wait(60), first.communicate(timeout=10)
        finally:
            first.send_signal(signal.SIGKILL)
            first.communicate()
        assert verify(tmp_path / "log").ok
        there = {name for name in store.bucket(url).sizes() if "selftest" not in name}
        again = _run(tmp_path, store.endpoint, "archive", str(tmp_path / "log"), url, "--json")
        out, err = again.communicate(timeout=60)
        assert again.returncode == 0, err
        whole = {name for name in store.bucket(url).sizes() if "selftest" not in name}
        assert there < whole
        assert f'"new_objects":{len(whole) - len(there)}' in out
        keys = KeyHome(tmp_path / "home")
        restored = restore(store.bucket(url), tmp_path / "back", lambda log_id: keys.log(log_id).pins())
        assert restored.whole

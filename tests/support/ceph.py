"""One machine's Ceph with an S3 gateway, from Debian's packages, as ordinary processes in one directory.

A monitor, a manager, one storage daemon on a sparse file and a RADOS gateway; no systemd, no network but loopback,
no authentication inside. Every process is ended by its id, whatever happens. Started in about 20 s.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph-common")
PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph", "monmaptool", "radosgw-admin")
READY_SECS = 120

_CONFIG = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon data = {root}/mon
mgr data = {root}/mgr
osd data = {root}/osd
osd objectstore = bluestore
bluestore block size = 2147483648
osd memory target = 939524096
run dir = {root}/run
admin socket = {root}/run/$name.$pid.asok
log file = {root}/log/$name.log
pid file = {root}/run/$name.pid
mon data avail crit = 1
mon data avail warn = 2
ms bind msgr2 = false
public addr = 127.0.0.1
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {root}/rgw
rgw thread pool size = 16
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def gateway(root: Path) -> Iterator[str]:
    """A running gateway with its data under *root*; its address. The user's keys are `test` and `testtest`."""
    mon_port, port = _free_ports(2)
    for name in ("mon", "mgr", "osd", "rgw", "run", "log"):
        (root / name).mkdir(parents=True)
    fsid = str(uuid.uuid4())
    config = root / "ceph.conf"
    config.write_text(_CONFIG.format(fsid=fsid, mon_port=mon_port, port=port, root=root))
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *arguments: str) -> None:
        with (root / "log" / f"{program}.out").open("wb") as out:
            started.append(
                subprocess.Popen([program, "-c", str(config), *arguments, "-f"], stdout=out, stderr=out)
            )

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [program, "-c", str(config), *arguments], capture_output=True, text=True, timeout=READY_SECS, check=False
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    try:
        monmap = str(root / "monmap")
        subprocess.run(
            ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"v1:127.0.0.1:{mon_port}", monmap],
            check=True, capture_output=True,
        )  # fmt: skip
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        start("ceph-mon", "-i", "a")
        _wait(started, lambda: _answers(mon_port), "the monitor")
        start("ceph-mgr", "-i", "x")
        osd = str(uuid.uuid4())
        number = run("ceph", "osd", "new", osd).strip()
        run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", number)
        _wait(started, lambda: "1 up" in run("ceph", "osd", "stat"), "the storage daemon")
        start("radosgw", "-n", "client.rgw")
        _wait(started, lambda: _serves(port), "the gateway")
        run(
            "radosgw-admin",
            "user",
            "create",
            "--uid=t",
            "--display-name=t",
            "--access-key=test",
            "--secret=testtest",
        )
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(started: list[subprocess.Popen[bytes]], ready: Callable[[], bool], what: str) -> None:
    """Ask until *ready*; a daemon that ended, or took too long, is an error with its name."""
    until = time.monotonic() + READY_SECS
    while not ready():
        ended = [process for process in started if process.poll() is not None]
        if ended:
            raise RuntimeError(f"{what} is not ready: {ended[0].args} ended with {ended[0].returncode}")
        if time.monotonic() > until:
            raise RuntimeError(f"{what} is not ready after {READY_SECS} s")
        time.sleep(0.2)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

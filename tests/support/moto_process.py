"""moto's S3 server in a process of its own.

In the test's process it could not answer while delta-rs holds the interpreter's lock.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.s3 import Store

TESTS = Path(__file__).parents[1]


@contextmanager
def moto_process() -> Iterator[Store]:
    """A server on a free port, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.moto_process"], cwd=TESTS, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Store(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def serve() -> None:
    """Serve until killed; the address is the first line."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    serve()

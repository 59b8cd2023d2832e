"""S3 for tests: moto's server on loopback, a real signed log to archive, and a proxy that makes trouble."""

from __future__ import annotations

import http.client
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from holdfast.archive.store import AlreadyThere, Bucket, Lock, LockState, ObjectMissing, Place
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import ArchiveRefused, AuditCorruption

START_NS = 1_763_634_000 * 10**9


class Store:
    """A running S3 server.

    Attributes:
        endpoint: Its address.
        environ: What a process needs to reach it.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environ = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "testtest",
            "AWS_REGION": "us-east-1",
        }

    def make(self, *, lock: bool = True) -> str:
        """A new bucket, with object lock unless told otherwise; its name."""

        name = f"bucket-{secrets.token_hex(6)}"
        self.boto().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        return name

    def boto(self):
        """Somebody else's client, for looking at what is there."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def bucket(self, url: str, *, endpoint: str | None = None, retries: int = 0) -> Bucket:
        """Our own client."""
        return Bucket(url, self.environ, endpoint=endpoint, retries=retries)


@contextmanager
def moto_store() -> Iterator[Store]:
    """moto's S3 server on a free port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Store(f"http://{host}:{port}")
    finally:
        server.stop()


class Interrupted(Exception):
    """A test ended a run here, as kill -9 does."""


class MemoryBucket(Bucket):
    """A correct store in memory, for what need not cross a socket.

    Attributes:
        objects: Every object's bytes.
        locks: Every object's lock.
        calls: How many operations were asked for.
        stop_at: The operation, from 1, that raises `Interrupted` in place of being done; 0 for none.
    """

    def __init__(self, url: str = "s3://memory/desk") -> None:
        self.place = Place.parse(url)
        self.objects: dict[str, bytes] = {}
        self.locks: dict[str, LockState] = {}
        self.calls = 0
        self.stop_at = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.stop_at:
            raise Interrupted(self.calls)

    def sizes(self, folder: str = "") -> dict[str, int]:
        self._count()
        return {name: len(data) for name, data in self.objects.items() if name.startswith(folder)}

    def stream(self, name: str, limit: int, *, version: str = "") -> Iterator[bytes]:
        self._count()
        if name not in self.objects:
            raise ObjectMissing(f"archive object {name!r} is missing in {self}")
        data = self.objects[name]
        if len(data) > limit:
            raise AuditCorruption(
                f"archive damaged: {name!r} is longer than the {limit} bytes it should have"
            )
        for at in range(0, len(data), 5000):
            yield data[at : at + 5000]

    def lock_of(self, name: str) -> LockState:
        self._count()
        return self.locks[name]

    def put_new(self, name: str, data: bytes, lock: Lock | None) -> str:
        self._count()
        if name in self.objects:
            raise AlreadyThere(name)
        self.objects[name] = data
        self.locks[name] = LockState("", None, legal_hold=False)
        if lock is not None:
            self.locks[name] = LockState(lock.mode, lock.until.replace(microsecond=0), lock.legal_hold)
        return ""

    def put_with_wrong_checksums(self, name: str, data: bytes) -> None:
        self._count()
        raise ArchiveRefused("BadDigest")

    def forget(self, name: str) -> None:
        self._count()
        del self.objects[name]

    def set_legal_hold(self, name: str, *, hold: bool) -> None:
        self._count()
        self.locks[name] = self.locks[name]._replace(legal_hold=hold)

    def replace(self, name: str, data: bytes) -> None:
        """What only somebody else's hand does: put other bytes in the place of an object."""
        self.objects[name] = data


class Fault:
    """What a `FaultProxy` does with the requests that `matches` names, from the *after*-th on, *times* times.

    Attributes:
        seen: How many requests matched.
    """

    def __init__(
        self, kind: str, method: str = "PUT", containing: str = "", *, after: int = 0, times: int = 10**9
    ) -> None:
        self.kind = kind
        self.method = method
        self.containing = containing
        self.after = after
        self.times = times
        self.seen = 0

    def applies(self, method: str, path: str) -> bool:
        if method != self.method or self.containing not in path:
            return False
        self.seen += 1
        return self.after < self.seen <= self.after + self.times


_ANSWERS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "denied": (403, "AccessDenied"),
    "no bucket": (404, "NoSuchBucket"),
    "key": (403, "InvalidAccessKeyId"),
    "secret": (403, "SignatureDoesNotMatch"),
    "region": (400, "AuthorizationHeaderMalformed"),
    "expired": (400, "ExpiredToken"),
    "clock": (403, "RequestTimeTooSkewed"),
    "full": (507, "InsufficientStorage"),
}


class FaultProxy:
    """Hands every request on to a store, except where a fault applies.

    Kinds of faults: the keys of `_ANSWERS`; `cut` closes the connection in the middle of the request, `lose`
    hands the request on and drops the answer, `overwrite` takes `If-None-Match` away, as servers do that do not
    know it, `unlocked` takes the object lock away, `flip` changes a byte of the answer, `long` lengthens it,
    `stop` answers nothing and lets the test know.

    Attributes:
        faults: Those in force.
        requests: Method and path of every request, with its headers.
    """

    def __init__(self, store: Store) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.stopped = threading.Event()
        self._target = urlsplit(store.endpoint).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

        def hand_over(request: BaseHTTPRequestHandler) -> None:
            proxy.handle(request)

        for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
            setattr(Handler, f"do_{method}", hand_over)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.command, request.path, headers))
        fault = next((one for one in self.faults if one.applies(request.command, request.path)), None)
        kind = fault.kind if fault is not None else ""
        if kind == "cut":
            request.rfile.read(min(10, int(headers.get("content-length", "0"))))
            request.close_connection = True
            request.connection.close()
            return
        body = request.rfile.read(int(headers.get("content-length", "0")))
        if kind == "stop":
            self.stopped.set()
            request.rfile.read(1)  # until the client is gone
            request.close_connection = True
            return
        if kind in _ANSWERS:
            status, code = _ANSWERS[kind]
            self._answer(request, status, {}, f"<Error><Code>{code}</Code></Error>".encode())
            return
        if kind == "overwrite":
            headers.pop("if-none-match", None)
        if kind == "unlocked":
            headers = {name: value for name, value in headers.items() if "object-lock" not in name}
        connection = http.client.HTTPConnection(self._target, timeout=30)
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            length = answer.getheader("content-length", "0")
        finally:
            connection.close()
        if kind == "lose":
            request.close_connection = True
            request.connection.close()
            return
        if kind == "flip" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if kind == "long":
            data += bytes(1 << 20)
        self._answer(request, answer.status, kept, data, length if request.command == "HEAD" else None)

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: Mapping[str, str],
        data: bytes,
        length: str | None = None,
    ) -> None:
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("content-length", length or str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)


_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}


def make_log(
    directory: Path,
    home: Path,
    *,
    segments: int = 3,
    records: int = 300,
    signed: bool = True,
    log_id: bytes | None = None,
) -> None:
    """A closed log with *segments* sealed segments, a day and *records* records each, and a few in the last one."""
    clock = ManualClock(START_NS)
    log = WriteAheadLog(
        directory,
        clock=clock,
        keys=KeyHome(home) if signed else None,
        random_bytes=os.urandom if log_id is None else lambda _: log_id,
    )
    for number in range(segments):
        for n in range(records):
            log.append("NOTE", {"n": n, "order_id": f"o-{number}-{n}"}, user=f"u{n % 3}", level=Level.WRITTEN)
        clock.advance(86_400)
        log.rotate()
    log.append("NOTE", {"last": True}, user="u0")
    log.close()

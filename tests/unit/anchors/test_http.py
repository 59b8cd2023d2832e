"""One bounded POST."""

import asyncio
import socket
import threading
from contextlib import contextmanager

import pytest
from support.anchor_servers import answering, closed_port

from holdfast.anchors.http import HttpAnswer, post
from holdfast.core.errors import AnchorUnreachable


@contextmanager
def raw(respond):
    """The URL of a server that hands each connection to *respond*."""
    server = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                respond(connection, done)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    finally:
        done.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def test_an_answer_comes_back_as_it_is():
    """Status, content type and body of any status are returned, and the request arrives as given."""
    seen = []

    def respond(path, body):
        seen.append((path, body))
        return 409, "text/x.tlog.size", b"12\n"

    with answering(respond) as url:
        answer = post(f"{url}/add-checkpoint", b"old 0\n", "text/plain", most=100)
    assert answer == HttpAnswer(409, "text/x.tlog.size", b"12\n")
    assert seen == [("/add-checkpoint", b"old 0\n")]


def test_a_running_event_loop_is_no_hindrance():
    """A caller inside an event loop gets its answer too."""

    async def inside(url):
        return post(url, b"", "text/plain", most=100)

    with answering(lambda path, body: (200, "text/plain", b"yes")) as url:
        assert asyncio.run(inside(url)).body == b"yes"


def test_an_answer_that_is_too_long_is_none():
    """A body beyond the bound is AnchorUnreachable; one at the bound passes."""
    with answering(lambda path, body: (200, "text/plain", bytes(100))) as url:
        assert len(post(url, b"", "text/plain", most=100).body) == 100
        with pytest.raises(AnchorUnreachable, match="more than 99 bytes"):
            post(url, b"", "text/plain", most=99)


def silent(connection, done):
    done.wait(10)


def dripping(connection, done):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not done.wait(0.01):
        try:
            connection.sendall(b"x")
        except OSError:
            return


@pytest.mark.parametrize("respond", [silent, dripping])
def test_a_server_that_never_ends_is_given_up(respond):
    """A server that says nothing, or drips its answer, is AnchorUnreachable after the deadline for all of it."""
    with raw(respond) as url, pytest.raises(AnchorUnreachable, match=r"within 0\.2 s"):
        post(url, b"", "text/plain", most=2_000_000, timeout_secs=0.2)


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01 rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_half_an_answer_is_none(said):
    """A connection that closes early, or speaks another protocol, is AnchorUnreachable."""
    with raw(lambda connection, done: connection.sendall(said)) as url, pytest.raises(AnchorUnreachable):
        post(url, b"", "text/plain", most=100)


def test_nobody_there_is_unreachable():
    """A port that nobody listens on is AnchorUnreachable, exit code 5."""
    with pytest.raises(AnchorUnreachable) as refused:
        post(f"http://127.0.0.1:{closed_port()}/", b"", "text/plain", most=100)
    assert refused.value.exit_code == 5


def test_a_redirect_is_not_followed():
    """A 307 is returned as an answer; nothing is sent to where it points."""

    def redirect(connection, done):
        connection.sendall(b"HTTP/1.1 307 X\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")

    with raw(redirect) as url:
        assert post(url, b"", "text/plain", most=100).status == 307


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    """HTTP_PROXY does not come between a log and its witness."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with answering(lambda path, body: (200, "text/plain", b"yes")) as url:
        assert post(url, b"", "text/plain", most=100).body == b"yes"

"""The witness over HTTP: statuses, types, bounds."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from support.anchor_servers import serving_witness
from support.anchors import MemoryLog

from holdfast.anchors import wire
from holdfast.anchors.http import HttpAnswer, post
from holdfast.anchors.witness import Witness
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput
from holdfast.serve.witness import WitnessPortTaken, WitnessServer


@pytest.fixture
def log():
    return MemoryLog(9)


@pytest.fixture
def witness(tmp_path, log):
    witness = Witness(tmp_path / "w", clock=ManualClock())
    witness.pin(log.vkey)
    yield witness
    witness.close()


@pytest.fixture
def url(witness):
    with serving_witness(witness, read_secs=0.3) as url:
        yield url


def add(url, body):
    return post(f"{url}/add-checkpoint", body, "text/plain", most=1 << 16)


@pytest.mark.contract("X2")
def test_the_protocol_s_statuses_go_over_the_wire(url, log):
    """200, 400, 403, 404, 409 and 422 come back with the bodies and types that tlog-witness asks for."""
    other = MemoryLog(9, log_id="cd" * 16)
    stranger = MemoryLog(9, seed=b"z")
    assert add(url, log.request(0, 4)).status == 200
    assert add(url, log.request(0)) == HttpAnswer(409, "text/x.tlog.size", b"4\n")
    assert add(url, b"rubbish").status == 400
    assert add(url, stranger.request(4)).status == 403
    assert add(url, other.request(0)).status == 404
    assert add(url, wire.encode_add_checkpoint(4, [], log.note())).status == 422
    answer = add(url, log.request(4))
    assert answer.status == 200
    assert answer.body.startswith("— holdfast-witness/".encode())
    assert answer.body.endswith(b"\n")
    taught = post(f"{url}/add-key", log.notes[0], "text/plain", most=100)
    assert taught == HttpAnswer(200, "text/x.holdfast.epoch", b"1\n")


def raw(url, request):
    """What the server answers to these bytes, up to its closing the connection."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
        return answer


def http(method, path, headers=""):
    return f"{method} {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n{headers}\r\n".encode()


def test_only_the_two_calls_are_served(url):
    """Another path is 404, another method 405."""
    assert raw(url, http("GET", "/")).startswith(b"HTTP/1.1 404")
    assert raw(url, http("GET", "/add-checkpoint")).startswith(b"HTTP/1.1 405")
    assert raw(url, http("POST", "/add-checkpoint/x")).startswith(b"HTTP/1.1 404")


def test_a_body_beyond_the_bound_is_refused(url, witness, log):
    """One byte more than 64 KiB is 413 and changes nothing; a body at the bound is read."""
    note = log.request(0)
    assert add(url, note.ljust(wire.MAX_REQUEST_BYTES + 1, b"\n")).status == 413
    assert witness.logs()[log.origin].size == 0
    assert add(url, note.ljust(wire.MAX_REQUEST_BYTES, b"\n")).status == 400


def test_a_request_that_drips_is_given_up(url, log):
    """A body that does not arrive within the deadline is 408, while others are served."""
    slow = http("POST", "/add-checkpoint", "Content-Length: 1000\r\n") + b"old 0\n"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(raw, url, slow)
        assert add(url, log.request(0)).status == 200
        assert waiting.result(4).startswith(b"HTTP/1.1 408")


def test_two_logs_of_one_name_cannot_both_win_over_the_wire(url, log):
    """Of submissions at once from the same old size one is cosigned, the others are told the new size."""
    add(url, log.request(0))
    forks = [MemoryLog(9).grow(3, b"%d" % number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda fork: add(url, fork.request(9)), forks))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    assert {answer.body for answer in answers if answer.status == 409} == {b"12\n"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "witness.example"])  # noqa: S104  refused
def test_another_address_than_loopback_must_be_said(witness, host):
    """Without `expose` only loopback addresses are listened on."""
    with pytest.raises(BadInput, match="not a loopback address"):
        asyncio.run(WitnessServer(witness).start(host=host))


def test_an_exposed_witness_listens_where_it_is_told(witness):
    """With `expose` an address that others reach is taken."""

    async def scenario():
        server = WitnessServer(witness)
        url = await server.start(host="0.0.0.0", expose=True)  # noqa: S104  the point
        await server.stop()
        return url

    assert asyncio.run(scenario()).startswith("http://0.0.0.0:")


def test_a_taken_port_is_named(witness, url):
    """A port that another server has is refused with a hint."""
    with pytest.raises(WitnessPortTaken) as refused:
        asyncio.run(WitnessServer(witness).start(port=urlsplit(url).port))
    assert "address already in use" in str(refused.value)
    assert "--port" in refused.value.hint

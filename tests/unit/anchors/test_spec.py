"""Names of sinks."""

import sys

import pytest
from support.anchors import MemoryLog

from holdfast.anchors.opening import open_sink
from holdfast.anchors.read import read_anchor
from holdfast.anchors.receipts import Receipts
from holdfast.anchors.spec import SinkSpec, parse_sink
from holdfast.audit.keys import KeyHome
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("file:/mnt/b c", SinkSpec("file", "/mnt/b c")),
        ("witness:http://w:8720 w+1+A", SinkSpec("witness", "http://w:8720", "w+1+A")),
        ("rfc3161:https://t/tsr /etc/my ca.pem", SinkSpec("rfc3161", "https://t/tsr", "/etc/my ca.pem")),
        ("s3://bucket/prefix", SinkSpec("s3", "s3://bucket/prefix")),
    ],
)
def test_a_name_says_kind_address_and_trust(text, spec):
    """Each kind of name is taken apart as its line in the page says."""
    assert parse_sink(text) == spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "file:DIRECTORY"),
        ("/mnt/b", "file:DIRECTORY"),
        ("files:/mnt/b", "file:DIRECTORY"),
        ("file:", "file:DIRECTORY"),
        ("witnes:http://w k", "witness:URL VKEY"),
        ("witness:http://w", "witness:URL VKEY"),
        ("rfc3161:http://w ", "rfc3161:URL"),
        ("s3:bucket", "s3://BUCKET"),
        ("s3://", "s3://BUCKET"),
    ],
)
def test_a_name_that_is_none_is_told_what_it_should_be(text, expected):
    """A wrong name is BadInput whose hint shows the nearest right one."""
    with pytest.raises(BadInput) as refused:
        parse_sink(text)
    assert expected in refused.value.hint


@pytest.mark.parametrize(
    "text",
    ["witness:http://w key", f"witness:http://w {MemoryLog().vkey}", "rfc3161:http://t /none.pem", "s3://B_"],
)
def test_what_cannot_be_used_is_refused_when_it_is_opened(text, tmp_path):
    """A wrong key, a log's key, missing certificates and an impossible bucket are refused before anything is sent."""
    receipts = Receipts(KeyHome(tmp_path))
    with pytest.raises(BadInput):
        open_sink(parse_sink(text), receipts, ManualClock(), environ={})


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    """Without rfc3161-client a time-stamping sink and a .tsr are refused with what to install."""
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    monkeypatch.delitem(sys.modules, "holdfast.anchors.rfc3161", raising=False)
    with pytest.raises(BadInput, match="rfc3161_client") as refused:
        open_sink(parse_sink("rfc3161:http://t ca.pem"), Receipts(KeyHome(tmp_path)), ManualClock())
    assert "pip install -e '.[anchors" in refused.value.hint
    (tmp_path / "a.tsr").write_bytes(b"0")
    with pytest.raises(BadInput, match="rfc3161_client"):
        read_anchor(tmp_path / "a.tsr")

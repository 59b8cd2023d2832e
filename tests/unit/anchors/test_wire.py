"""The witness protocol in bytes."""

from base64 import b64decode

import pytest

from holdfast.anchors import wire
from holdfast.anchors.wire import Answer
from holdfast.audit.note import parse_checkpoint, parse_note
from holdfast.core.errors import BadInput

PUBLISHED = """\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()
"""The example request of C2SP tlog-witness."""


@pytest.mark.contract("X2")
def test_the_published_request_is_read_and_written_byte_for_byte():
    """The specification's example is taken apart as it says, and put together again to the same bytes."""
    request = wire.parse_add_checkpoint(PUBLISHED)
    assert request.old == 20_852_014
    assert request.proof[0] == b64decode("PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=")
    assert len(request.proof) == 4
    checkpoint = parse_checkpoint(parse_note(request.note).text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert wire.encode_add_checkpoint(*request) == PUBLISHED


def test_a_request_without_proof_has_its_empty_line():
    """From old size 0 the line, an empty line and the checkpoint follow each other."""
    note = wire.parse_add_checkpoint(PUBLISHED).note
    assert wire.encode_add_checkpoint(0, [], note) == b"old 0\n\n" + note


@pytest.mark.parametrize(
    "old", [b"old", b"old ", b"old x", b"old 01", b"old -1", b"old +1", b"OLD 1", b" old 1", b"old 1 "]
)
def test_the_old_size_has_one_spelling(old):
    """Another spelling of the first line is refused."""
    with pytest.raises(BadInput):
        wire.parse_add_checkpoint(old + b"\n\na\n")


@pytest.mark.parametrize(
    "body", [b"1", b"01\n", b"1\n\n", b"-1\n", b" 1\n", b"", b"1\r\n", b"1" * 30 + b"\n"]
)
def test_a_count_has_one_spelling(body):
    """A size or epoch in an answer is a plain decimal and a newline."""
    with pytest.raises(BadInput):
        wire.parse_count(Answer(409, body, wire.SIZE_TYPE), wire.SIZE_TYPE)
    assert wire.parse_count(Answer(409, b"10\n", f"{wire.SIZE_TYPE}; charset=utf-8"), wire.SIZE_TYPE) == 10

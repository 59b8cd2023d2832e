r"""The tlog-witness protocol in bytes: what goes over the wire between a log and a witness.

Promise: requests and answers of `add-checkpoint` as C2SP tlog-witness has them, byte for byte, one spelling of
every value. Beside it `add-key`, our own, in the same manner, because our logs change their signing key:

    POST /add-checkpoint    old <size>\n, at most 63 lines of base64 hashes, an empty line, the checkpoint
    200                     signature lines
    409                     text/x.tlog.size: the size the witness knows, and a newline
    POST /add-key           notes of KEY records, oldest first, each followed by an empty line
    200                     text/x.holdfast.epoch: the epoch whose key the witness now trusts, and a newline
    409                     the same: the notes do not begin behind that epoch

`add-checkpoint`: 400 the request cannot be read, or its old size is above the checkpoint's; 403 no signature of
a trusted key; 404 a log the witness does not know; 422 the proof proves nothing. `add-key`: 400, 403 and 404
likewise.

Source: https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holdfast.core.errors import BadInput

MAX_PROOF_LINES = 63
MAX_REQUEST_BYTES = 64 << 10
"""A proof takes 63 lines of 45 bytes; the rest is room for a checkpoint with many cosignatures, or for KEY notes."""
MAX_ANSWER_BYTES = 64 << 10

SIZE_TYPE = "text/x.tlog.size"
EPOCH_TYPE = "text/x.holdfast.epoch"
TEXT_TYPE = "text/plain; charset=utf-8"

_OLD = re.compile(rb"old (0|[1-9][0-9]{0,19})")
_COUNT = re.compile(rb"(0|[1-9][0-9]{0,19})\n")
_BLOCK_END = re.compile(rb"(?<=\n)\n(?!\xe2\x80\x94 )")


class AddCheckpoint(NamedTuple):
    """A request to cosign.

    Attributes:
        old: The size of the checkpoint the witness is believed to have cosigned last.
        proof: From there to the checkpoint.
        note: The signed checkpoint.
    """

    old: int
    proof: tuple[bytes, ...]
    note: bytes


class Answer(NamedTuple):
    """What a witness answers.

    Attributes:
        status: HTTP status.
        body: As it goes out.
        content_type: Of the body.
    """

    status: int
    body: bytes
    content_type: str = TEXT_TYPE


def encode_add_checkpoint(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of an `add-checkpoint` request."""
    return b"old %d\n%b\n%b" % (old, b"".join(b64encode(step) + b"\n" for step in proof), note)


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """The request that *body* carries; its checkpoint is not taken apart here.

    Raises:
        BadInput: It carries none; the message says in what way.
    """
    head, gap, note = body.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    old = _OLD.fullmatch(first)
    if not gap or old is None:
        raise BadInput(
            "request refused: it does not begin with a line 'old <size>' and end with a checkpoint"
        )
    if len(lines) > MAX_PROOF_LINES:
        raise BadInput(f"request refused: {len(lines)} proof lines > {MAX_PROOF_LINES}")
    return AddCheckpoint(int(old[1]), tuple(map(_hash, lines)), note)


def encode_count(number: int, content_type: str, status: int) -> Answer:
    """An answer that says how far the witness is."""
    return Answer(status, b"%d\n" % number, content_type)


def parse_count(answer: Answer, content_type: str) -> int:
    """The number that an answer of this type carries.

    Raises:
        BadInput: It is of another type, or carries none.
    """
    given = answer.content_type.split(";", 1)[0].strip()
    match = _COUNT.fullmatch(answer.body)
    if given != content_type or match is None:
        raise BadInput(f"no {content_type} in the answer with status {answer.status}")
    return int(match[1])


def encode_notes(notes: Iterable[bytes]) -> bytes:
    """Notes one behind the other, each followed by an empty line."""
    return b"".join(note + b"\n" for note in notes)


def split_notes(data: bytes) -> list[bytes]:
    """The notes that stand one behind the other in *data*; nothing in them is checked.

    An empty line that no signature follows ends a note. What a broken write left between two notes comes back as
    a piece of its own, or as the beginning of the next one.
    """
    return [piece for piece in _BLOCK_END.split(data) if piece.strip(b"\n")]


def _hash(line: bytes) -> bytes:
    try:
        value = b64decode(line, validate=True)
    except (Base64Error, ValueError):
        value = b""
    if len(value) != 32 or b64encode(value) != line:
        raise BadInput("request refused: a proof line is not the base64 of 32 bytes")
    return value

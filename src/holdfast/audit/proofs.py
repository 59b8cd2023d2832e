"""Proof files: one record, its place in the tree and the signed root, checked without the log.

Promise: a proof file is a C2SP tlog-proof, byte for byte, that any tool for that format reads. `check` accepts it
only where a trusted key signed the checkpoint and the record is in the tree that it signed; everything else is
refused, in words: `BadInput` where the file is no proof or no key was named that could vouch for it,
`ProofRefused` where it says something false.

    c2sp.org/tlog-proof@v1
    extra <base64 of the record's line, a newline, and the KEY notes of epochs 2, 3 … each with an empty line behind>
    index <sequence - 1>
    <base64 of a hash, from the leaf's sibling up to the root's child>
    …
    <an empty line>
    <the checkpoint as it was signed and cosigned>

The key of epoch 1 is pinned by whoever checks; the KEY notes lead from it to the key that signed the checkpoint:
a key is trusted if it is pinned, or if the key of the epoch before it is trusted and signed its note.

Pure: no I/O, no clock. Limits: a proof shows that the record was logged before the checkpoint was signed, and by a
cosignature's time at the latest; it cannot show that the log's keeper has shown everybody the same log, which is
what witnesses are for, nor that a private key was not stolen before its epoch ended.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import NamedTuple

from holdfast.audit.format import Record, decode_line, leaf_hash
from holdfast.audit.keys import log_name, parse_key_note
from holdfast.audit.note import (
    ED25519,
    Checkpoint,
    Note,
    Opened,
    VerifierKey,
    cosigned_at,
    decode_base64,
    open_note,
    parse_checkpoint,
    parse_note,
)
from holdfast.audit.tree import HASH_BYTES, check_inclusion
from holdfast.core.errors import BadInput, ProofRefused

PROOF_HEADING = b"c2sp.org/tlog-proof@v1"
PROOF_SUFFIX = ".tlog-proof"
MAX_PROOF_BYTES = 4 << 20
"""A record of the greatest length and the keys of some six thousand epochs fit."""
MAX_PATH = 64

_MAX_NOTES = 10_000
_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,19})")


class TlogProof(NamedTuple):
    """A C2SP tlog-proof, whatever it is about.

    Attributes:
        leaf_index: Of the leaf, from 0.
        path: From the leaf's sibling up to the root's child.
        checkpoint: The signed note, as it was signed.
        extra: What else is needed to know the leaf; not covered by any signature.
    """

    leaf_index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The file's bytes."""
        lines = [PROOF_HEADING]
        if self.extra is not None:
            lines.append(b"extra " + b64encode(self.extra))
        lines.append(b"index %d" % self.leaf_index)
        lines.extend(map(b64encode, self.path))
        return b"\n".join(lines) + b"\n\n" + self.checkpoint


class RecordProof(NamedTuple):
    """The proof of one record.

    Attributes:
        line: The record as it is stored, without newline.
        leaf_index: As `TlogProof.leaf_index`.
        path: As `TlogProof.path`.
        checkpoint: As `TlogProof.checkpoint`.
        key_notes: The notes of the KEY records, in order of their epochs without gap, up to that of the
            checkpoint's signer; none where that is epoch 1.
    """

    line: bytes
    leaf_index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    key_notes: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The file's bytes."""
        extra = self.line + b"\n" + b"".join(note + b"\n" for note in self.key_notes)
        return TlogProof(self.leaf_index, self.path, self.checkpoint, extra).encode()


class Proven(NamedTuple):
    """What a proof shows.

    Attributes:
        record: What was logged.
        checkpoint: The tree that it is in.
        signers: The trusted keys that signed the checkpoint: of the log, and of witnesses that were named.
        cosigned_at: Of each witness among them: when, in seconds since 1970, UTC.
        others: Names of the keys that signed it besides and that nobody named.
    """

    record: Record
    checkpoint: Checkpoint
    signers: tuple[VerifierKey, ...]
    cosigned_at: dict[VerifierKey, int]
    others: tuple[str, ...]


def parse_tlog_proof(data: bytes) -> TlogProof:
    """The proof that a file holds; nothing in it is verified.

    Raises:
        BadInput: It holds none.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise BadInput(f"proof refused: more than {MAX_PROOF_BYTES} bytes")
    head, separator, checkpoint = data.partition(b"\n\n")
    lines = head.split(b"\n", MAX_PATH + 4)
    if lines.pop(0) != PROOF_HEADING:
        raise BadInput("not a proof file: its first line is another", hint=_HINT)
    if not separator or not checkpoint:
        raise BadInput("not a whole proof: it ends before the checkpoint", hint=_HINT)
    extra: bytes | None = None
    if lines and lines[0].startswith(b"extra "):
        extra = decode_base64(lines.pop(0)[6:], "extra line of the proof")
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if index is None or int(index[1]) >= 2**64:
        raise BadInput("not a proof file: it has no index")
    if len(lines) > MAX_PATH:
        raise BadInput(f"proof refused: its path has more than {MAX_PATH} hashes")
    path = tuple(decode_base64(line, "hash of the proof") for line in lines)
    for value in path:
        if len(value) != HASH_BYTES:
            raise BadInput(f"proof refused: a hash has {len(value)} bytes, not {HASH_BYTES}")
    return TlogProof(int(index[1]), path, checkpoint, extra)


def parse_record_proof(data: bytes) -> RecordProof:
    """The proof of a record that a file holds; nothing in it is verified.

    Raises:
        BadInput: It holds none.
    """
    proof = parse_tlog_proof(data)
    if proof.extra is None:
        raise BadInput("the proof carries no record", hint="it was made by another tool, for another log")
    extra, notes = proof.extra, list[bytes]()
    line, newline, _ = extra.partition(b"\n")
    at = len(line + newline)
    while at < len(
        extra
    ):  # text, empty line, signatures, empty line; a slice of the rest each time would be quadratic
        end = extra.find(b"\n\n", extra.find(b"\n\n", at) + 2)
        if end < at or len(notes) == _MAX_NOTES:
            raise BadInput("not a whole proof: a KEY note has no end, or there are too many")
        notes.append(extra[at : end + 1])
        at = end + 2
    return RecordProof(line, proof.leaf_index, proof.path, proof.checkpoint, tuple(notes))


class ProofChecker:
    """Checks proofs against the keys that somebody trusts.

    Proofs of one checkpoint are cheap after the first: its signatures are verified once.

    Args:
        keys: Of the log, the one of its first epoch or a later one; and of witnesses.
    """

    def __init__(self, keys: Iterable[VerifierKey]) -> None:
        self._pins = tuple(dict.fromkeys(keys))
        self._last: tuple[bytes, tuple[bytes, ...]] | None = None
        self._opened: tuple[Checkpoint, Opened] | None = None

    def check(self, proof: RecordProof) -> Proven:
        """What *proof* shows, once it does.

        Raises:
            BadInput: It is not whole, or signed by keys that were not named.
            ProofRefused: A signature is wrong, or the record is not the one that was logged.
        """
        record = decode_line(proof.line)
        checkpoint, opened = self.open(proof.checkpoint, proof.key_notes)
        if record.seq != proof.leaf_index + 1:
            raise ProofRefused(
                f"proof refused: its record has sequence {record.seq}, its place is {proof.leaf_index + 1}"
            )
        try:
            check_inclusion(
                leaf_hash(proof.line), proof.leaf_index, checkpoint.size, proof.path, checkpoint.root
            )
        except BadInput as why:
            raise ProofRefused(
                f"proof refused: record {record.seq} is not in the tree that was signed: {why}"
            ) from why
        times: dict[VerifierKey, int] = {}
        if any(map(_is_witness, opened.verified)):
            times = _cosigned_at(parse_note(proof.checkpoint), opened)
        others = tuple(signature.name for signature in opened.unknown)
        return Proven(record, checkpoint, opened.verified, times, others)

    def open(self, note: bytes, key_notes: tuple[bytes, ...]) -> tuple[Checkpoint, Opened]:
        """The checkpoint that *note* is, signed by the key that the named keys and *key_notes* lead to.

        Raises:
            BadInput: It is no checkpoint, or signed by keys that were not named.
            ProofRefused: A signature is wrong.
        """
        if self._opened is None or self._last != (note, key_notes):
            checkpoint = parse_checkpoint(parse_note(note).text)
            self._opened = checkpoint, self._verified(note, key_notes, checkpoint.origin)
            self._last = note, key_notes
        return self._opened

    def _verified(self, note: bytes, key_notes: tuple[bytes, ...], origin: str) -> Opened:
        trusted, last = self._follow(key_notes, origin)
        opened = _open(note, [*trusted, *filter(_is_witness, self._pins)], "checkpoint")
        signed = () if opened is None else opened.verified
        if opened is None or not (last in signed if last else trusted.intersection(signed)):
            raise self._unknown(origin)
        return opened

    def _follow(self, notes: tuple[bytes, ...], origin: str) -> tuple[set[VerifierKey], VerifierKey | None]:
        """The log's keys that are trusted, and the one of the last KEY note; None where there are no notes."""
        trusted = {key for key in self._pins if _is_log_key(key, origin)}
        before: VerifierKey | None = None
        epoch = 0
        for note in notes:
            said = parse_key_note(note)
            if log_name(said.origin, said.log_id) != origin or not _is_log_key(said.vkey, origin):
                raise ProofRefused(f"proof refused: a KEY note is about {said.vkey.name!r}, not {origin!r}")
            if epoch and said.epoch != epoch + 1:
                raise ProofRefused(f"proof refused: the key of epoch {epoch + 1} is missing")
            # Which key the epoch before the first note had is not said; it can only be a pinned one.
            signers = trusted if before is None else trusted & {before}
            if _open(note, signers, f"KEY note of epoch {said.epoch}") is not None:
                trusted.add(said.vkey)
            before, epoch = said.vkey, said.epoch
        return trusted, before

    def _unknown(self, origin: str) -> BadInput:
        named = sum(_is_log_key(key, origin) for key in self._pins)
        return BadInput(
            f"proof not checked: it is signed by keys of {origin!r}, of which {named} were named, none of these",
            hint="name the log's key as it was given to you: --key VKEY or --key FILE",
        )


_HINT = "holdfast audit prove DIR SEQ --out FOLDER makes proof files"


def _is_log_key(key: VerifierKey, origin: str) -> bool:
    return key.algorithm == ED25519 and key.name == origin


def _is_witness(key: VerifierKey) -> bool:
    return key.algorithm != ED25519


def _open(data: bytes, keys: Iterable[VerifierKey], what: str) -> Opened | None:
    """The note, or None where none of *keys* is among its signers.

    Raises:
        ProofRefused: A signature of one of *keys* is wrong.
    """
    note = parse_note(data)
    signers = {(signature.name, signature.key_id) for signature in note.signatures}
    known = [key for key in keys if (key.name, key.key_id) in signers]
    if not known:
        return None
    try:
        return open_note(data, known)
    except BadInput as why:
        raise ProofRefused(f"proof refused: its {what} is forged: {why}") from why


def _cosigned_at(note: Note, opened: Opened) -> dict[VerifierKey, int]:
    values = {(signature.name, signature.key_id): signature.value for signature in note.signatures}
    return {key: cosigned_at(values[key.name, key.key_id]) for key in opened.verified if _is_witness(key)}

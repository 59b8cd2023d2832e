"""A signed log read without the writer's own code: lines, roots by their definition, notes and who signed them."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@cache
def root_of(leaves: tuple[bytes, ...]) -> bytes:
    """RFC 9162 section 2.1.1, as it is written there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


@dataclass(frozen=True)
class Signed:
    """One checkpoint of the history.

    Attributes:
        size: Records covered.
        root: The root it names.
        by: The epochs whose keys signed it, in the order of its lines; 0 for a signature that no key made.
        file: Where it stands.
        note: Its bytes.
    """

    size: int
    root: bytes
    by: tuple[int, ...]
    file: str
    note: bytes


class SignedLog:
    """The files of a log, by name, as an outsider reads them."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        segments = sorted((name for name in files if name.endswith(".log")), key=lambda name: name[-16:])
        self.lines = [line for name in segments for line in files[name].split(b"\n") if line]
        self.records = [json.loads(line) for line in self.lines]
        self.leaves = [sha256(b"\0" + line).digest() for line in self.lines]
        self.keys = {
            record["details"]["epoch"]: b64decode(record["details"]["vkey"].split("+", 2)[2])[1:]
            for record in self.records
            if record["type"] == "KEY"
        }

    def root(self, size: int) -> bytes:
        return root_of(tuple(self.leaves[:size]))

    def types(self) -> list[str]:
        return [record["type"] for record in self.records]

    def checkpoints(self) -> list[Signed]:
        """Every note of the history, in order."""
        found: list[Signed] = []
        for name in sorted(
            (name for name in self.files if name.endswith(".checkpoints")), key=lambda n: n[-24:]
        ):
            rest = self.files[name].rstrip(b"\n") + b"\n"
            if rest == b"\n":
                continue
            blocks = rest.removesuffix(b"\n").split(b"\n\n")
            for text, lines in zip(blocks[::2], blocks[1::2], strict=True):
                found.append(self.note(text + b"\n\n" + lines + b"\n", name))
        return found

    def note(self, note: bytes, file: str = "") -> Signed:
        text, _, lines = note.partition(b"\n\n")
        _, size, root = text.split(b"\n")
        by = [self._signer(text + b"\n", line) for line in lines.splitlines()]
        return Signed(int(size), b64decode(root), tuple(by), file, note)

    def _signer(self, text: bytes, line: bytes) -> int:
        signature = b64decode(line.split(b" ")[2])[4:]
        for epoch, key in self.keys.items():
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
            except InvalidSignature:
                continue
            return epoch
        return 0

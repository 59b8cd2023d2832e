"""One proof checked: the tree's part apart from the signature's, in a tree of a million records.

The path is made of random hashes and the root computed from it, so that no million records are needed. Every
figure is the median of interleaved rounds.
"""

from __future__ import annotations

import os
import time
from statistics import median

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from holdfast.audit.format import encode_line, leaf_hash
from holdfast.audit.note import Checkpoint, SigningKey, sign_note
from holdfast.audit.proofs import ProofChecker, RecordProof, parse_record_proof
from holdfast.audit.tree import check_inclusion, node_hash

SIZE, INDEX = 1 << 20, 123_456
ROUNDS, CALLS = 21, 200
DETAILS = b'{"order_id":"hf-000000000001e240","ticker":"KXNBAGAME-26MAR07GSWOKC-GSW","quantity":"10.00","price":"0.4242"}'


def run() -> list[dict]:
    line = encode_line(INDEX + 1, INDEX - 2, 1_763_634_000 * 10**9, "TRADE", "desk-1", "engine", DETAILS)
    path = tuple(os.urandom(32) for _ in range(20))
    root, place = leaf_hash(line), INDEX
    for sibling in path:
        root = node_hash(sibling, root) if place & 1 else node_hash(root, sibling)
        place >>= 1
    signer = SigningKey("holdfast/" + "ab" * 16, os.urandom(32))
    text = Checkpoint(signer.name, SIZE, root).text()
    data = RecordProof(line, INDEX, path, sign_note(text, signer)).encode()
    proof, leaf = parse_record_proof(data), leaf_hash(line)
    known = ProofChecker([signer.vkey])
    known.check(proof)
    public, signature = Ed25519PublicKey.from_public_bytes(signer.vkey.public), signer.sign(text).value

    cases = {
        "inclusion of a leaf hash": lambda: check_inclusion(leaf, INDEX, SIZE, path, root),
        "record's proof, checkpoint known": lambda: known.check(proof),
        "the same, read from its file": lambda: known.check(parse_record_proof(data)),
        "proof file, nothing known": lambda: ProofChecker([signer.vkey]).check(parse_record_proof(data)),
        "Ed25519 verification alone": lambda: public.verify(signature, text),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, call in cases.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - began) / CALLS * 1e6)
    middle = {name: median(values) for name, values in times.items()}
    bars = {"record's proof, checkpoint known": "<= 50 µs"}
    verification = middle["Ed25519 verification alone"]
    return [
        {
            "name": f"proof check: {name}",
            "value": micros,
            "unit": "µs",
            "beside": f"Ed25519 verification {verification:.0f} µs",
            "ratio": micros / verification,
            "bar": bars.get(name, ""),
        }
        for name, micros in middle.items()
    ]

r"""A witness: it cosigns a log's checkpoints, and never two that contradict each other.

Promise: `judge` decides from what is remembered and what is asked, and from nothing else. A cosignature leaves
only after the checkpoint it covers is durable, check and store are one step under one lock, and what is stored
never gets smaller: whoever holds cosignatures of this witness holds checkpoints of one growing history. After a
kill at any moment the witness goes on from the record before or after, of which it answered neither twice.
After a failed write it answers nothing more until it is started again.

Our logs change their signing key with every segment. `learn` follows the chain of KEY notes from the pinned key:
a note is believed when the key in force before it signed it; from then on the older key counts no more.

    key                                one JSON line {"name", "seed"}: the witness's own, made at the first start
    logs/<32 hex of SHA-256(origin)>.keys         `pin <vkey>` and `key <epoch> <vkey>` lines; epoch 0 = not known
    logs/<32 hex of SHA-256(origin)>.checkpoint   the newest checkpoint with the log's signatures and our own
    logs/<32 hex of SHA-256(origin)>.fork         the first checkpoint that contradicted it at the same size, if any

Limits: a witness remembers; whoever can delete its directory makes it forget. Keep it on a machine of its own.

Source: https://c2sp.org/tlog-witness, https://c2sp.org/tlog-cosignature.
"""

from __future__ import annotations

import contextlib
import os
import threading
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.anchors import wire
from holdfast.anchors.keep import read_file, replace_file
from holdfast.anchors.wire import Answer
from holdfast.audit.keys import log_name, parse_key_note
from holdfast.audit.note import (
    COSIGNATURE_ED25519,
    ED25519,
    Checkpoint,
    SigningKey,
    VerifierKey,
    cosign,
    open_note,
    parse_checkpoint,
    parse_note,
)
from holdfast.audit.storage import LocalStorage, Storage
from holdfast.audit.tree import EMPTY_ROOT, HASH_BYTES, check_consistency
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, LogHeld

_RECORD_BYTES = 256 << 10


class TrustedKey(NamedTuple):
    """A key whose signature makes a checkpoint the log's own.

    Attributes:
        vkey: The key.
        epoch: Which of the log's epochs it belongs to; 0 where no KEY note has told yet.
    """

    vkey: VerifierKey
    epoch: int = 0


@dataclass(frozen=True)
class LogState:
    """What the witness knows of one log.

    Attributes:
        origin: Its name.
        keys: What its checkpoints may be signed by.
        pins: Every key a person ever named for it.
        size: Of the last checkpoint cosigned; 0 before the first.
        root: Of that checkpoint.
    """

    origin: str
    keys: tuple[TrustedKey, ...]
    pins: frozenset[VerifierKey] = field(default_factory=frozenset[VerifierKey])
    size: int = 0
    root: bytes = EMPTY_ROOT

    @property
    def epoch(self) -> int:
        """The newest epoch whose key is trusted; 0 where that is not known."""
        return max(key.epoch for key in self.keys)


class Accepted(NamedTuple):
    """A checkpoint to cosign.

    Attributes:
        state: What is known once it is.
        text: What is cosigned.
        note: The checkpoint with the signatures that were verified.
    """

    state: LogState
    text: bytes
    note: bytes


class Forked(NamedTuple):
    """A checkpoint, signed by the log, that contradicts one cosigned before: proof that the log shows two histories.

    Attributes:
        origin: The log.
        note: The signed checkpoint.
        answer: What its sender is told.
    """

    origin: str
    note: bytes
    answer: Answer


# -- decisions ---------------------------------------------------------------------------------------------


def judge(states: Mapping[str, LogState], body: bytes) -> Accepted | Forked | Answer:
    """What to do with the `add-checkpoint` request *body*: cosign, or answer why not."""
    try:
        return _judge(states, body)
    except _Refused as no:
        return no.answer


def _judge(states: Mapping[str, LogState], body: bytes) -> Accepted | Forked | Answer:
    with _refusing(400):
        request = wire.parse_add_checkpoint(body)
        checkpoint = parse_checkpoint(parse_note(request.note).text)
    if len(checkpoint.root) != HASH_BYTES:
        raise _Refused(
            400, f"checkpoint refused: its root has {len(checkpoint.root)} bytes, not {HASH_BYTES}"
        )
    state = _known(states, checkpoint.origin)
    with _refusing(403):
        opened = open_note(request.note, [key.vkey for key in state.keys])
    if request.old > checkpoint.size:
        raise _Refused(400, f"old size {request.old} > checkpoint size {checkpoint.size}")
    conflict = wire.encode_count(state.size, wire.SIZE_TYPE, 409)
    if request.old != state.size:
        return conflict
    signed = _with_signatures(request.note, opened.verified)
    if checkpoint.size == state.size and checkpoint.root != state.root:
        return Forked(state.origin, signed, conflict)
    with _refusing(422):
        _check_growth(state, checkpoint, request.proof)
    return Accepted(replace(state, size=checkpoint.size, root=checkpoint.root), opened.text, signed)


def learn(states: Mapping[str, LogState], body: bytes) -> LogState | Answer:
    """What is known after the KEY notes of the `add-key` request *body*, or the answer why they teach nothing."""
    try:
        return _learn(states, body)
    except _Refused as no:
        return no.answer


def _learn(states: Mapping[str, LogState], body: bytes) -> LogState | Answer:
    with _refusing(400):
        notes = [(note, *_told(note)) for note in wire.split_notes(body)]
    origins = {origin for _, origin, _ in notes}
    if len(origins) != 1:
        raise _Refused(400, f"request refused: notes of {len(origins)} logs, expected those of one")
    state = _known(states, origins.pop())
    keys = state.keys
    for note, _, told in notes:
        keys = tuple(dict.fromkeys(_step(key, note, told) for key in keys))
    if keys != state.keys or not {told for _, _, told in notes}.isdisjoint(keys):
        return replace(state, keys=keys)
    if not state.epoch or notes[0][2].epoch != state.epoch + 1:
        return wire.encode_count(state.epoch, wire.EPOCH_TYPE, 409)
    raise _Refused(403, f"the key of epoch {state.epoch} did not sign that of epoch {state.epoch + 1}")


def _told(note: bytes) -> tuple[str, TrustedKey]:
    """The log that the note of a KEY record speaks of, and the key it names; nothing is verified."""
    said = parse_key_note(note)
    origin = log_name(said.origin, said.log_id)
    if said.vkey.name != origin or said.vkey.algorithm != ED25519 or said.epoch < 1:
        raise BadInput(f"key {said.vkey.name!r} of epoch {said.epoch} is no signing key of log {origin!r}")
    return origin, TrustedKey(said.vkey, said.epoch)


def _step(trusted: TrustedKey, note: bytes, told: TrustedKey) -> TrustedKey:
    """The key to trust once *note* is read: the one it names, where *trusted* signed it in its turn."""
    expected = told.epoch if told.vkey == trusted.vkey else told.epoch - 1
    if trusted.epoch not in {0, expected}:
        return trusted
    try:
        open_note(note, [trusted.vkey])
    except BadInput:
        return trusted
    return told


def _check_growth(state: LogState, checkpoint: Checkpoint, proof: tuple[bytes, ...]) -> None:
    if state.size == 0:
        # Nothing to be consistent with; that the tree of no records has its one root was compared before.
        if proof:
            raise BadInput(f"consistency proof refused: {len(proof)} hashes from an empty log")
        return
    check_consistency(state.size, state.root, checkpoint.size, checkpoint.root, proof)


def _with_signatures(note: bytes, signers: Iterable[VerifierKey]) -> bytes:
    """*note* with the signatures of *signers* alone: what others added is not kept."""
    known = {(key.name, key.key_id) for key in signers}
    text, signatures = parse_note(note)
    lines = dict.fromkeys(mine.line() for mine in signatures if (mine.name, mine.key_id) in known)
    return text + b"\n" + b"".join(lines)


def _known(states: Mapping[str, LogState], origin: str) -> LogState:
    state = states.get(origin)
    if state is None:
        raise _Refused(404, f"log {origin!r} is not known here")
    return state


class _Refused(Exception):
    """Ends a decision with an answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.answer = Answer(status, why.encode() + b"\n")


@contextlib.contextmanager
def _refusing(status: int) -> Generator[None]:
    """What cannot be read inside is refused with *status*."""
    try:
        yield
    except BadInput as why:
        raise _Refused(status, str(why)) from why


# -- memory ------------------------------------------------------------------------------------------------


class Witness:
    """One witness over one directory; safe from any thread.

    Args:
        directory: Its key and its records; made 0700 where it is missing.
        clock: The time in its cosignatures.
        name: Of its key, when that is made; None invents one.
        storage: The disk; the machine's own by default.
        random_bytes: Where the key and an invented name come from.

    Raises:
        LogHeld: Another process is this witness.
        BadInput: A record or the key cannot be read; the witness does not start on half of its memory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        name: str | None = None,
        storage: Storage | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = ""
        with contextlib.ExitStack() as opened:
            self._home = (storage or LocalStorage()).directory(directory, create=True)
            opened.callback(self._home.close)
            if not self._home.try_lock():
                raise LogHeld(
                    f"witness {str(directory)!r} runs already",
                    hint="stop the other one, or choose another --dir",
                )
            self._key = self._own_key(name, random_bytes)
            self._logs = self._home.subdirectory("logs")
            opened.callback(self._logs.close)
            self._states = self._load()
            opened.pop_all()

    @property
    def vkey(self) -> VerifierKey:
        """What its cosignatures are verified by."""
        return self._key.vkey

    def logs(self) -> Mapping[str, LogState]:
        """What is known, by origin."""
        with self._lock:
            return dict(self._states)

    def close(self) -> None:
        """Let go of the directory; a second call does nothing."""
        self._logs.close()
        self._home.close()

    def pin(self, vkey: VerifierKey) -> None:
        """Take *vkey* for a key of the log it is named after, from now on; durable when this returns.

        A key pinned before changes nothing: the chain may have gone on from it.

        Raises:
            BadInput: It is a cosigner's key.
        """
        if vkey.algorithm != ED25519:
            raise BadInput(f"key {vkey.name!r} is a cosigner's, a log signs with Ed25519")
        with self._lock:
            state = self._states.get(vkey.name, LogState(vkey.name, ()))
            if vkey not in state.pins:
                trusted = dict.fromkeys((*state.keys, TrustedKey(vkey)))
                self._keep_keys(replace(state, keys=tuple(trusted), pins=state.pins | {vkey}))

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign what `add-checkpoint` asks for, or say why not."""
        return self._answer(self._cosign, body)

    def add_key(self, body: bytes) -> Answer:
        """Follow the KEY notes that `add-key` brings, or say why not."""
        return self._answer(self._follow, body)

    def _answer(self, act: Callable[[bytes], Answer], body: bytes) -> Answer:
        with self._lock:
            if not self._failed:
                try:
                    return act(body)
                except OSError as why:
                    # Nobody knows what the disk holds now: nothing more is answered from memory.
                    self._failed = f"the witness cannot keep its records: {why.strerror or why}"
            return Answer(500, self._failed.encode() + b"\n")

    def _cosign(self, body: bytes) -> Answer:
        decision = judge(self._states, body)
        if isinstance(decision, Answer):
            return decision
        if isinstance(decision, Forked):
            self._keep_fork(decision)
            return decision.answer
        line = cosign(decision.text, self._key, self._clock.now_ns() // NANOS).line()
        origin = decision.state.origin
        replace_file(self._logs, f"{_file_name(origin)}.checkpoint", decision.note + line)
        self._states[origin] = decision.state
        return Answer(200, line)

    def _follow(self, body: bytes) -> Answer:
        decision = learn(self._states, body)
        if isinstance(decision, Answer):
            return decision
        self._keep_keys(decision)
        return wire.encode_count(decision.epoch, wire.EPOCH_TYPE, 200)

    def _keep_keys(self, state: LogState) -> None:
        lines = [f"pin {pin}\n" for pin in sorted(map(str, state.pins))]
        lines += [f"key {key.epoch} {key.vkey}\n" for key in state.keys]
        if state != self._states.get(state.origin):
            replace_file(self._logs, f"{_file_name(state.origin)}.keys", "".join(lines).encode())
            self._states[state.origin] = state

    def _keep_fork(self, fork: Forked) -> None:
        name = f"{_file_name(fork.origin)}.fork"
        if name not in self._logs.names():
            replace_file(self._logs, name, fork.note)

    def _own_key(self, name: str | None, random_bytes: Callable[[int], bytes]) -> SigningKey:
        if "key" not in self._home.names():
            named = name or f"holdfast-witness/{random_bytes(8).hex()}"
            key = SigningKey(named, random_bytes(32), COSIGNATURE_ED25519)
            kept = _KeyFile(name=named, seed=b64encode(key.seed).decode())
            replace_file(self._home, "key", msgspec.json.encode(kept) + b"\n")
            return key
        try:
            kept = msgspec.json.decode(read_file(self._home, "key", _RECORD_BYTES), type=_KeyFile)
            seed = b64decode(kept.seed, validate=True)
            key = SigningKey(kept.name, seed, COSIGNATURE_ED25519)
        except (msgspec.DecodeError, UnicodeDecodeError, Base64Error, BadInput) as why:
            # Nothing of the content is shown: it is a private key.
            raise BadInput(
                f"witness key {str(self._home.path / 'key')!r} cannot be read", hint=_RETIRE
            ) from why
        if name is not None and name != key.name:
            raise BadInput(
                f"this witness is called {key.name!r}, not {name!r}",
                hint="leave out --name, or choose another --dir",
            )
        return key

    def _load(self) -> dict[str, LogState]:
        names = sorted(self._logs.names())
        states: dict[str, LogState] = {}
        for name in names:
            stem, _, kind = name.rpartition(".")
            if kind == "tmp":
                self._logs.unlink(name)
            elif kind == "keys":
                state = self._load_log(stem, has_checkpoint=f"{stem}.checkpoint" in names)
                states[state.origin] = state
            elif kind not in {"checkpoint", "fork"} or f"{stem}.keys" not in names:
                raise BadInput(f"{str(self._logs.path / name)!r} is no record of a witness", hint=_RETIRE)
        return states

    def _load_log(self, stem: str, *, has_checkpoint: bool) -> LogState:
        try:
            state = _read_keys(read_file(self._logs, f"{stem}.keys", _RECORD_BYTES))
            if has_checkpoint:
                note = read_file(self._logs, f"{stem}.checkpoint", _RECORD_BYTES)
                checkpoint = parse_checkpoint(open_note(note, [self.vkey]).text)
                _check_name(checkpoint.origin, stem)
                state = replace(state, size=checkpoint.size, root=checkpoint.root)
            _check_name(state.origin, stem)
        except BadInput as why:
            raise BadInput(f"record {str(self._logs.path / stem)!r} is damaged: {why}", hint=_RETIRE) from why
        return state


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    seed: str


_RETIRE = "restore it from a copy taken after the last cosignature, or start a new witness elsewhere"


def _file_name(origin: str) -> str:
    return sha256(origin.encode()).hexdigest()[:32]


def _check_name(origin: str, stem: str) -> None:
    if _file_name(origin) != stem:
        raise BadInput(f"it speaks of log {origin!r}")


def _read_keys(data: bytes) -> LogState:
    pins: set[VerifierKey] = set()
    keys: list[TrustedKey] = []
    try:
        for line in data.decode().splitlines():
            kind, _, rest = line.partition(" ")
            epoch, _, text = rest.partition(" ") if kind == "key" else ("", "", rest)
            vkey = VerifierKey.parse(text)
            if kind == "key":
                keys.append(TrustedKey(vkey, int(epoch)))
            elif kind == "pin":
                pins.add(vkey)
            else:
                raise BadInput(f"line {line[:40]!r} is neither a pin nor a key")
    except ValueError as why:  # bad UTF-8 and numbers; BadInput is one too
        raise BadInput(f"its keys cannot be read: {why}") from why
    if not keys or len({key.name for key in (*pins, *(key.vkey for key in keys))}) != 1:
        raise BadInput("its keys are not those of one log")
    return LogState(keys[0].vkey.name, tuple(keys), frozenset(pins))

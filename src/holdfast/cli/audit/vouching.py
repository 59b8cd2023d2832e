"""Who vouches for a log: the keys and anchors that a check is given, and those that this user's configuration has."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast.cli.output import tell
from holdfast.core.errors import AnchorUnreachable, BadInput, ConfigError

if TYPE_CHECKING:
    from holdfast.audit.anchor import Anchor
    from holdfast.audit.note import VerifierKey


class Vouchers(NamedTuple):
    """What one log is held against.

    Attributes:
        keys: The public keys that count.
        anchors: What is remembered of it elsewhere.
        unasked: What could not be asked, one sentence each; whether the log went back is unknown to that extent.
    """

    keys: list[VerifierKey]
    anchors: list[Anchor]
    unasked: list[str]


def read_keys(named: Iterable[str]) -> list[VerifierKey]:
    """The keys that `--key` names, of logs and of witnesses: each a verifier key, or a file with one a line.

    Raises:
        BadInput: One of them is neither.
    """
    from holdfast.audit.note import VerifierKey

    keys: list[VerifierKey] = []
    for text in named:
        if os.path.lexists(text):
            keys += _keys_in(Path(text))
        elif "+" in text:
            keys.append(VerifierKey.parse(text))
        else:
            raise BadInput(
                f"--key {text!r} is neither a file nor a verifier key",
                hint="check the path; `holdfast audit keys show DIR` prints a log's key: name+12345678+A…",
            )
    return keys


def _keys_in(path: Path) -> list[VerifierKey]:
    from holdfast.audit.note import VerifierKey
    from holdfast.core.files import read_named

    keys: list[VerifierKey] = []
    for number, line in enumerate(read_named(path, _MAX_KEY_FILE, "key file").splitlines(), 1):
        for word in line.split():
            try:
                keys.append(VerifierKey.parse(word.decode()))
            except ValueError as why:  # bad UTF-8, or no key
                # Nothing of the line is shown: the file may be that of a private key.
                raise BadInput(
                    f"key file {str(path)!r} line {number} is not a verifier key",
                    hint="one public key a line, as `holdfast audit keys show` prints it: name+12345678+A…",
                ) from why
    if not keys:
        raise BadInput(
            f"key file {str(path)!r} holds no key", hint="holdfast audit keys show DIR prints a log's own"
        )
    return keys


_MAX_KEY_FILE = 1 << 20


def pins_of(log_id: str) -> Sequence[VerifierKey]:
    """The keys that are pinned here for a log; none where it has no id that a log can have."""
    from holdfast.audit.keys import KeyHome
    from holdfast.config import key_home

    try:
        keys = KeyHome(key_home()).log(log_id)
    except (BadInput, ConfigError):
        return ()
    try:
        return keys.pins()
    except PermissionError:
        tell(
            f"the pins under {str(key_home())!r} may not be read by this user: no key counts that --key does not name"
        )
        return ()


def vouchers(directories: Iterable[Path], keys: list[VerifierKey], files: Iterable[Path]) -> list[Vouchers]:
    """For each directory its keys and anchors: those given that are of its log, and those of the configuration.

    Pins count only where no key was named for a log. A key or anchor that is of none of the logs goes to all of
    them, so that verification refuses it by name.

    Raises:
        BadInput: An anchor's file cannot be read; or a key is of none of the logs.
    """
    from holdfast.anchors.read import read_anchor
    from holdfast.audit.keys import log_name
    from holdfast.audit.note import ED25519
    from holdfast.audit.verify import log_name_of

    given = [anchor for path in files for anchor in read_anchor(path, keys)]
    identities = [log_name_of(directory) for directory in directories]
    names = {log_name(*identity) for identity in identities if identity is not None}
    for key in keys:
        if names and key.algorithm == ED25519 and key.name not in names:
            raise BadInput(
                f"key {key.name!r} is of none of these logs: {', '.join(sorted(names))}",
                hint="another log stands there, or it is another log's key: ask whoever gave you the key, not the log",
            )
    found: list[Vouchers] = []
    for identity in identities:
        name = None if identity is None else log_name(*identity)
        of_this = [anchor for anchor in given if anchor.origin == name or anchor.origin not in names]
        configured = Vouchers([], [], []) if identity is None else _configured(*identity)
        named = [key for key in keys if key.algorithm == ED25519 and (key.name == name or not names)]
        found.append(Vouchers(named or configured.keys, [*of_this, *configured.anchors], configured.unasked))
    return found


def _configured(origin: str, log_id: str) -> Vouchers:
    """Pins, high-water mark, kept receipts and local sinks of this user, as far as they concern one log."""
    from holdfast.anchors.marks import anchor_marks
    from holdfast.audit.anchor import Anchor
    from holdfast.audit.keys import KeyHome, log_name
    from holdfast.config import key_home, load_config

    try:
        home = KeyHome(key_home(os.environ))
    except ConfigError:
        return Vouchers([], [], [])
    anchors: list[Anchor] = []
    unasked: list[str] = []
    try:
        kept = home.log(log_id)
        for source in anchor_marks(home, load_config().anchors.sinks):
            try:
                anchors += [
                    Anchor(log_name(origin, log_id), mark.size, mark.root, mark.source)
                    for mark in source(log_id)
                ]
            except AnchorUnreachable as why:
                unasked.append(f"whether the log went back, as far as an anchor could tell: {why}")
        water = kept.high_water()
        if water is not None:
            said = water.checkpoint
            place = f"high-water mark {str(kept.path / 'high-water')!r}"
            anchors.append(Anchor(said.origin, said.size, said.root, place, water.note))
        return Vouchers(kept.pins(), anchors, unasked)
    except OSError as why:
        unasked.append(f"what the keys and anchors of log {log_id} say: they cannot be read: {why}")
        return Vouchers([], anchors, unasked)


class Progress:
    """One line on stderr that says how far a check is; nothing where that is no terminal, or it takes no time.

    Args:
        directory: The log.
    """

    def __init__(self, directory: Path) -> None:
        self._name = directory.name
        self._total = _size(directory) or 1
        self._on_terminal = sys.stderr.isatty()
        self._began = self._told = time.monotonic()
        self._shown = False

    def __call__(self, done: int) -> None:
        """So many bytes were read."""
        now = time.monotonic()
        if not self._on_terminal or now - self._told < 0.2:
            return
        self._told, self._shown = now, True
        rate = done / max(now - self._began, 0.001)
        left = max(0.0, (self._total - done) / max(rate, 1.0))
        print(
            f"\r\x1b[K{self._name}: {min(100, 100 * done // self._total)} % of {self._total >> 20} MiB,"
            f" {rate / 2**20:.0f} MiB/s, {left:.0f} s left",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _size(directory: Path) -> int:
    """Bytes of the segments there; a writer may seal or prune one meanwhile."""
    total = 0
    for path in directory.glob("audit_*.log*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total

"""Receipts: what sinks confirmed, kept where the log's keys are.

Promise: every receipt is durable before it is told of; the newest of each sink and UTC day stays, older ones of the
same day go once the newer one is durable. What lies here is what `audit verify --anchor` reads and what a writer asks
at its start; a receipt that cannot be read stops both, by name.

    <key home>/logs/<log id>/anchors/<kind>-<8 hex>/<YYYYMMDD>-<size, 12 digits>.note   the checkpoint, cosigned
                                                                              ….tsr    a time stamp over its bytes
                                                             authority.pem             whom that stamp was checked by

The folder's name is the sink's kind and the first bytes of SHA-256 of its name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

from holdfast.anchors.keep import read_file, replace_file
from holdfast.anchors.sink import Receipt, checkpoint_of
from holdfast.audit.anchor import Mark
from holdfast.audit.keys import KeyHome
from holdfast.audit.storage import Directory
from holdfast.core.clock import utc
from holdfast.core.errors import BadInput

FOLDER = "anchors"
AUTHORITY = "authority.pem"

_NOTE_BYTES = 1 << 20
_NAME = re.compile(r"(\d{8})-(\d{12,20})\.(note|tsr)", re.ASCII)


class _Kept(NamedTuple):
    name: str
    day: str
    size: int
    kind: str


def folder_name(sink: str) -> str:
    """The folder of the sink called *sink*."""
    return f"{sink.partition(':')[0]}-{sha256(sink.encode()).hexdigest()[:8]}"


class Receipts:
    """The receipts of this user's logs.

    Args:
        home: Where the keys are.
        random_bytes: Where names of temporary files come from.
    """

    def __init__(self, home: KeyHome, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._home = home
        self._random_bytes = random_bytes

    def keep(self, log_id: str, receipt: Receipt, now_ns: int) -> None:
        """Keep *receipt*, durably."""
        folder = self._folder(log_id, folder_name(receipt.sink))
        try:
            day = f"{utc(now_ns):%Y%m%d}"
            stem = f"{day}-{receipt.size:012d}"
            # The note before the token: a note alone is true, a token without what it stamps says nothing.
            contents = (
                (AUTHORITY, receipt.authority),
                (f"{stem}.note", receipt.note),
                (f"{stem}.tsr", receipt.token),
            )
            # A writer's ANCHORED record and `audit anchor --follow` may keep a receipt at the same moment.
            temporary = f"{day}-{self._random_bytes(8).hex()}.tmp"
            for name, content in contents:
                if content:
                    replace_file(folder, name, content, temporary)
            self._tidy(folder, day, receipt.size)
        finally:
            folder.close()

    def newest(self, log_id: str, sink: str) -> Mark | None:
        """What *sink* confirmed last, or None.

        Raises:
            BadInput: The receipt cannot be read.
        """
        return next((mark for mark in self._marks(log_id, folder_name(sink))), None)

    def marks(self, log_id: str) -> Iterator[Mark]:
        """The newest receipt of every sink.

        Raises:
            BadInput: One cannot be read.
        """
        yield from self._marks(log_id, None)

    def _marks(self, log_id: str, only: str | None) -> Iterator[Mark]:
        keys = self._home.open_folder(log_id, create=False)
        if keys is None:
            return
        try:
            if FOLDER not in keys.names():
                return
            sinks = keys.subdirectory(FOLDER)
        finally:
            keys.close()
        try:
            for name in sorted(sinks.names()):
                if only in {None, name}:
                    folder = sinks.subdirectory(name)
                    try:
                        yield from _newest_mark(folder, log_id, name)
                    finally:
                        folder.close()
        finally:
            sinks.close()

    def _tidy(self, folder: Directory, day: str, size: int) -> None:
        """Remove the day's older receipts, and what writers that were killed on other days left."""
        older = [kept.name for kept in _listed(folder) if kept.day == day and kept.size < size]
        left = [name for name in folder.names() if name.endswith(".tmp") and not name.startswith(day)]
        for name in (*older, *left):
            with contextlib.suppress(FileNotFoundError):  # another process tidies too
                folder.unlink(name)

    def _folder(self, log_id: str, sink: str) -> Directory:
        keys = self._home.open_folder(log_id, create=True)
        if keys is None:
            raise FileNotFoundError(log_id)
        try:
            sinks = keys.subdirectory(FOLDER)
        finally:
            keys.close()
        try:
            return sinks.subdirectory(sink)
        finally:
            sinks.close()


def _newest_mark(folder: Directory, log_id: str, sink: str) -> Iterator[Mark]:
    while notes := [kept for kept in _listed(folder) if kept.kind == "note"]:
        name = max(notes, key=lambda kept: kept.size).name
        try:
            data = read_file(folder, name, _NOTE_BYTES)
        except FileNotFoundError:
            continue  # a newer one has taken its place
        yield _mark(folder, name, data, log_id, sink)
        return


def _mark(folder: Directory, name: str, data: bytes, log_id: str, sink: str) -> Mark:
    try:
        checkpoint = checkpoint_of(data, log_id)
    except BadInput as why:
        raise BadInput(
            f"receipt {str(folder.path / name)!r} cannot be read: {why}",
            hint="if another anchor confirms the log, move that file away",
        ) from why
    return Mark(checkpoint.size, checkpoint.root, f"receipt {sink}/{name}")


def _listed(folder: Directory) -> list[_Kept]:
    found = (_NAME.fullmatch(name) for name in folder.names())
    return [_Kept(match[0], match[1], int(match[2]), match[3]) for match in found if match is not None]

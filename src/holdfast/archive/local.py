"""A log's directory as an archive sees it: which segments are complete, and the bytes of its files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from holdfast.archive.manifest import MAX_FILE_BYTES
from holdfast.audit.format import parse_segment_name
from holdfast.audit.pruned import Pruned, read_pruned
from holdfast.audit.seal import read_blocks
from holdfast.audit.storage import Directory, LocalStorage, Storage
from holdfast.audit.tiles import TileStore, parse_tile_path
from holdfast.core.errors import BadInput


def open_log(path: Path, storage: Storage | None) -> Directory:
    """The directory of an existing log.

    Raises:
        BadInput: There is none.
    """
    try:
        return (storage or LocalStorage()).directory(path, create=False)
    except FileNotFoundError as why:
        raise BadInput(
            f"no audit log at {str(path)!r}", hint="name the directory that holds audit_….log"
        ) from why


class Segments(NamedTuple):
    """The segments of a log, as far as an archive is concerned.

    Attributes:
        pruned: The beginning that is only in the archive.
        sealed: The raw names of the sealed segments that follow, up to the first that is not sealed.
        others: Every other segment's file name.
    """

    pruned: Pruned
    sealed: list[str]
    others: list[str]


def list_log(directory: Directory) -> Segments:
    """What stands in *directory*.

    Raises:
        BadInput: It is no log.
    """
    pruned = read_pruned(directory)
    names = {*directory.names(), *directory.names()}
    present = sorted(
        filter(None, map(parse_segment_name, names)), key=lambda one: (one.first_seq, one.sealed)
    )
    if not present:
        raise BadInput(
            f"no audit log at {str(directory.path)!r}", hint="name the directory that holds audit_….log"
        )
    sealed: list[str] = []
    for one in present:
        raw = one.name.removesuffix(".gz")
        if not one.sealed or raw in names:
            break
        sealed.append(raw)
    done = {name + ".gz" for name in sealed}
    return Segments(pruned, sealed, [one.name for one in present if one.name not in done])


def read_file(directory: Directory, name: str) -> bytes:
    """The whole of a file in the log, its folder's name before a slash included.

    Raises:
        FileNotFoundError: It is not there.
    """
    folder, _, base = name.rpartition("/")
    if folder:
        if folder not in directory.names():
            raise FileNotFoundError(name)
        inner = directory.subdirectory(folder)
        try:
            return read_file(inner, base)
        finally:
            inner.close()
    file = directory.open(base)
    try:
        if file.size() > MAX_FILE_BYTES:
            raise BadInput(f"{name!r} refused: {file.size()} bytes > {MAX_FILE_BYTES} bytes")
        return b"".join(read_blocks(file))
    finally:
        file.close()


def read_tiles(directory: Directory, names: list[str]) -> bytes | None:
    """The tiles *names*, one behind the other, or None where one is missing: then they can be made anew."""
    found: list[bytes] = []
    with TileStore(directory) as tiles:
        for name in names:
            place = parse_tile_path(name)
            tile = tiles.read(*place) if place is not None else None
            if tile is None:
                return None
            found.append(tile)
    return b"".join(found)

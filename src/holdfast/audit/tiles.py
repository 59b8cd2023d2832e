"""Hash tiles: the tree cut into files of 256 hashes, as C2SP tlog-tiles names them.

Promise: `write_tiles` leaves under `tile/` exactly the bytes that tlog-tiles prescribes, each file whole or
absent after any crash; `tile_reader` gives the hashes of the tree from the tiles that are there and from the
records where one is missing. Tiles are derived: nobody believes them. Whoever makes a proof from them checks it
against a signed root, and verification recomputes every one.

    tile/<level>/<number>             256 hashes of 32 bytes: leaf hashes on level 0, above it one hash for each
                                      full tile of the level below
    tile/<level>/<number>.p/<width>   the same for the last, unfinished tile of a level: 1 to 255 hashes
    <number>                          three digits; from 1000 on x001/000, from 1,000,000 on x001/x000/000

Limits: one writer per log. Reading creates nothing. The store keeps what it saw in a folder, so a reader that
must see what another process writes meanwhile takes a new store.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from types import TracebackType
from typing import NamedTuple, Self

from holdfast.audit.storage import Directory, File, fsync_all
from holdfast.audit.tree import HASH_BYTES, Frontier, HashReader
from holdfast.core.errors import AuditCorruption

TILE_WIDTH = 256
TILE_ROOT = "tile"

Leaves = Callable[[int, int], Iterable[bytes]]
"""The leaf hashes from one index up to another, the end excluded."""

_HEIGHT = 8  # levels of the tree in one tile
_MAX_LEVEL = 63
_MAX_DEPTH = 9  # of folders below tile/: the level, six of a number below 2**63, the partial tile's
_TEMPORARY = ".tmp"
_OPEN_FOLDERS = 32
_MOST_GROWING = 256
_CACHED_TILES = 256
_PATH = re.compile(
    r"tile/(0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
).fullmatch
_FOLDER = re.compile(r"x[0-9]{3}|[0-9]{3}\.p", re.ASCII).fullmatch
_LEVEL = re.compile(r"0|[1-9][0-9]?", re.ASCII).fullmatch
_Path = tuple[str, ...]


class TilePlace(NamedTuple):
    """Which tile a path names.

    Attributes:
        level: Of tiles, 0 to 63; each is eight levels of the tree.
        number: From the left, on that level, from 0.
        width: How many hashes, 1 to 256.
    """

    level: int
    number: int
    width: int


class _Folder(NamedTuple):
    directory: Directory
    names: set[str]


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """Where a tile lies, relative to the log."""
    place = f"{number % 1000:03}"
    while number := number // 1000:
        place = f"x{number % 1000:03}/{place}"
    return f"{TILE_ROOT}/{level}/{place}" + (f".p/{width}" if width < TILE_WIDTH else "")


def parse_tile_path(text: str) -> TilePlace | None:
    """The tile that *text* names, or None where it names none, or not in the one way allowed."""
    match = _PATH(text)
    if match is None or len(text) > 100:
        return None
    number = int("".join(filter(str.isdigit, match[2])))
    place = TilePlace(int(match[1]), number, int(match[3] or TILE_WIDTH))
    if place.level > _MAX_LEVEL or number >= 2**63 or tile_path(*place) != text:
        return None
    return place


def partial_width(level: int, size: int) -> int:
    """How many hashes the unfinished tile of *level* has in a log of *size* records; 0 where none is."""
    return (size >> _HEIGHT * level) % TILE_WIDTH


def tile_root(tile: bytes) -> bytes:
    """The hash of the subtree over a full tile."""
    return _fold(_nodes(tile))


class TileStore:
    """The tiles of one log.

    Args:
        directory: The log's directory; it stays the caller's to close.
    """

    def __init__(self, directory: Directory) -> None:
        self._log = directory
        self._folders: dict[_Path, _Folder] = {}
        self._unsynced: set[_Path] = set()
        self._growing: list[
            tuple[_Path, str, File]
        ] = []  # written under their temporary names, not synced yet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def has(self, level: int, number: int, width: int = TILE_WIDTH) -> bool:
        """Whether there is a file at the tile's place."""
        path, name = _split(tile_path(level, number, width))
        folder = self._folder(path)
        return folder is not None and name in folder.names

    def read(self, level: int, number: int, width: int = TILE_WIDTH) -> bytes | None:
        """The tile's bytes, or None where it is missing.

        Raises:
            AuditCorruption: The file has not the length of such a tile.
        """
        place = tile_path(level, number, width)
        path, name = _split(place)
        folder = self._folder(path)
        if folder is None or name not in folder.names:
            return None
        try:
            file = folder.directory.open(name)
        except FileNotFoundError:  # a partial tile that was superseded meanwhile
            return None
        try:
            data = _whole(file.pread, width * HASH_BYTES + 1)
        finally:
            file.close()
        if len(data) != width * HASH_BYTES:
            raise AuditCorruption(
                f"audit log damaged: tile {place!r} has not {width * HASH_BYTES} bytes",
                file=place,
                offset=min(len(data), width * HASH_BYTES),
                hint="tiles are derived: with the log's writer stopped, delete it and run holdfast audit checkpoint",
            )
        return data

    def write(self, level: int, number: int, tile: bytes) -> None:
        """Put a tile of 1 to 256 hashes in its place, with others at the latest by `sync`; durable after that."""
        path, name = _split(tile_path(level, number, len(tile) // HASH_BYTES))
        folder = self._make(path)
        temporary = name + _TEMPORARY
        if temporary in folder.names:  # of a writer that was killed
            folder.directory.unlink(temporary)
        file = folder.directory.create(temporary)
        folder.names.add(temporary)
        self._growing.append((path, name, file))
        if file.pwrite(tile, 0) != len(tile):
            raise OSError(errno.EIO, f"short write to {temporary!r}")
        if len(self._growing) == _MOST_GROWING:
            self.settle()

    def settle(self) -> None:
        """Give the tiles written so far their places; they can be read from here on."""
        growing, self._growing = self._growing, []
        try:
            fsync_all([file for _, _, file in growing])
        finally:
            for _, _, file in growing:
                file.close()
        for path, name, _ in growing:
            folder = self._make(path)
            folder.directory.rename(name + _TEMPORARY, name)
            folder.names.discard(name + _TEMPORARY)
            folder.names.add(name)
            self._unsynced.add(path)

    def remove_partial(self, level: int, number: int, keep: int = 0) -> None:
        """Remove the unfinished tiles at a place, but for the one with *keep* hashes."""
        path, _ = _split(tile_path(level, number, 1))
        folder = self._folder(path)
        if folder is None:
            return
        for name in folder.names - {str(keep)}:
            folder.directory.unlink(name)
            folder.names.discard(name)
            self._unsynced.add(path)

    def remove_temporary(self) -> None:
        """Remove what a writer that was killed, or found the disk full, left behind; this store's own included."""
        self._forget_growing()
        for place in self.names():
            path, name = _split(place)
            folder = self._folder(path) if path and name.endswith(_TEMPORARY) else None
            if folder is not None:
                folder.directory.unlink(name)
                folder.names.discard(name)
                self._unsynced.add(path)

    def sync(self) -> None:
        """Return once every tile written, and every removal, is on the disk."""
        self.settle()
        for path in sorted(self._unsynced):
            self._make(path).directory.sync()
            self._unsynced.discard(path)

    def names(self) -> list[str]:
        """Every file under `tile/`, and whatever else lies there, as paths relative to the log; sorted.

        What cannot be entered, a link for instance, is named like a file.
        """
        found: list[str] = []
        waiting: list[_Path] = [()]
        while waiting:
            path = waiting.pop()
            for name in self._log.names() if not path else self._listing(path, found):
                inner = (*path, name)
                if path and not (len(path) < _MAX_DEPTH and (_LEVEL if len(path) == 1 else _FOLDER)(name)):
                    found.append("/".join(inner))
                elif path or name == TILE_ROOT:
                    waiting.append(inner)
        return sorted(found)

    def close(self) -> None:
        """Give up the descriptors; the store can be used again, but tiles that no `sync` followed are lost."""
        self._forget_growing()
        self._leave_folders()

    def _forget_growing(self) -> None:
        growing, self._growing = self._growing, []
        for _, _, file in growing:
            file.close()

    def _leave_folders(self) -> None:
        for folder in self._folders.values():
            folder.directory.close()
        self._folders.clear()

    def _listing(self, path: _Path, found: list[str]) -> Iterable[str]:
        try:
            folder = self._folder(path)
        except OSError:
            found.append("/".join(path))
            return ()
        return () if folder is None else folder.names

    def _folder(self, path: _Path) -> _Folder | None:
        """A folder below the log, or None where it is missing."""
        folder = self._folders.get(path)
        if folder is None:
            *above, name = path
            parent = self._folder(tuple(above)) if above else _Folder(self._log, set(self._log.names()))
            if parent is None or name not in parent.names:
                return None
            folder = self._enter(parent.directory, path)
        return folder

    def _make(self, path: _Path) -> _Folder:
        """A folder below the log, created where it is missing."""
        folder = self._folders.get(path)
        if folder is None:
            *above, name = path
            parent = self._make(tuple(above)) if above else _Folder(self._log, set())
            folder = self._enter(parent.directory, path)
            parent.names.add(name)
        return folder

    def _enter(self, parent: Directory, path: _Path) -> _Folder:
        directory = parent.subdirectory(path[-1])
        folder = _Folder(directory, set(directory.names()))
        if len(self._folders) >= _OPEN_FOLDERS:
            self._leave_folders()
        self._folders[path] = folder
        return folder


def write_tiles(store: TileStore, size: int, leaves: Leaves, *, start: int = 0, partial: bool) -> None:
    """Write the tiles of the first *size* leaves that are missing, and sync them.

    Args:
        store: Where to.
        size: How many leaves the tree has.
        leaves: Asked for as few leaves as possible, in order.
        start: Tiles that end at or before this leaf are there and are not looked at.
        partial: Whether the unfinished tiles of *size* are written as well, and those of smaller sizes removed.

    Raises:
        AuditCorruption: A tile of a lower level, from which one above is made, has not the length of a tile; or
            *leaves* gave too few.
    """
    source = _Source(store, leaves)
    level = 0
    while entries := size >> _HEIGHT * level:
        first = start >> _HEIGHT * (level + 1)
        full, width = divmod(entries, TILE_WIDTH)
        for run in _runs([number for number in range(first, full) if not store.has(level, number)]):
            hashes = source.entries(level, run[0] * TILE_WIDTH, (run[-1] + 1) * TILE_WIDTH)
            for number in run:
                nodes = list(islice(hashes, TILE_WIDTH))
                store.write(level, number, b"".join(nodes))
                source.roots[level, number] = _fold(nodes)
        if partial and width and not store.has(level, full, width):
            nodes = list(source.entries(level, entries - width, entries))
            store.write(level, full, b"".join(nodes))
        store.settle()
        if partial:
            for number in range(first, full + 1):
                store.remove_partial(level, number, keep=width if number == full else 0)
        level += 1
    store.sync()


def tile_reader(store: TileStore | None, size: int, leaves: Leaves) -> HashReader:
    """A reader of the tree over the first *size* leaves: from tiles, and from *leaves* where one is missing.

    What it returns is as good as the tiles are: check every proof against a root that is signed. Without a store
    everything comes from *leaves*.
    """
    source = _Source(store, leaves)
    cached: dict[tuple[int, int], list[list[bytes]]] = {}

    def tile_at(level: int, number: int) -> list[list[bytes]]:
        levels = cached.get((level, number))
        if levels is None:
            begin = number * TILE_WIDTH
            width = min(TILE_WIDTH, (size >> _HEIGHT * level) - begin)
            tile = source.tile(level, number, width)
            if tile is None and width < TILE_WIDTH:  # the log has grown since
                tile = source.tile(level, number)
            nodes = list(source.entries(level, begin, begin + width)) if tile is None else _nodes(tile)
            if len(cached) >= _CACHED_TILES:
                cached.clear()
            cached[level, number] = levels = _levels(nodes)
        return levels

    def read(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, _HEIGHT)
        first = index << height
        return tile_at(tile_level, first // TILE_WIDTH)[height][first % TILE_WIDTH >> height]

    return read


class _Source:
    """The hashes that tiles are made of: leaves on level 0, above it the roots of the tiles below.

    Where a tile below is missing too, its root comes from the leaves under it.

    Attributes:
        roots: Of full tiles, by level and number, as far as they are known without reading.
    """

    def __init__(self, store: TileStore | None, leaves: Leaves) -> None:
        self.roots: dict[tuple[int, int], bytes] = {}
        self._store = store
        self._leaves = leaves

    def tile(self, level: int, number: int, width: int = TILE_WIDTH) -> bytes | None:
        """A tile as it is stored."""
        return None if self._store is None else self._store.read(level, number, width)

    def entries(self, level: int, begin: int, end: int) -> Iterator[bytes]:
        """The hashes *begin* to *end* of a level of tiles, the end excluded."""
        if level == 0:
            yield from _all(self._leaves, begin, end)
            return
        missing: list[int] = []  # consecutive entries without a tile: their leaves are read in one go
        for number in range(begin, end):
            root = self._root(level - 1, number)
            if root is None:
                missing.append(number)
                continue
            yield from self._from_leaves(level, missing)
            missing.clear()
            yield root
        yield from self._from_leaves(level, missing)

    def _root(self, level: int, number: int) -> bytes | None:
        root = self.roots.get((level, number))
        if root is None:
            tile = self.tile(level, number)
            root = None if tile is None else tile_root(tile)
        return root

    def _from_leaves(self, level: int, numbers: list[int]) -> Iterator[bytes]:
        """The hashes of consecutive entries of a level, from the leaves under them."""
        if not numbers:
            return
        leaves_each = 1 << _HEIGHT * level
        hashes = _all(self._leaves, numbers[0] * leaves_each, (numbers[-1] + 1) * leaves_each)
        for _ in numbers:
            frontier = Frontier()
            while frontier.size < leaves_each:
                frontier.extend(list(islice(hashes, TILE_WIDTH)))
            yield frontier.root()


def _all(leaves: Leaves, begin: int, end: int) -> Iterator[bytes]:
    """The leaf hashes from *begin* to *end*, every one of them."""
    count = 0
    for count, leaf in enumerate(leaves(begin, end), 1):  # noqa: B007  counted for what follows
        yield leaf
    if count != end - begin:
        raise AuditCorruption(
            f"audit log damaged: {count} records from sequence {begin + 1} on, not {end - begin}",
            sequence=begin + count + 1,
        )


def _nodes(tile: bytes) -> list[bytes]:
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


def _fold(nodes: list[bytes]) -> bytes:
    """The root over a power of two of nodes."""
    return _levels(nodes)[-1][0]


def _levels(nodes: list[bytes]) -> list[list[bytes]]:
    """The nodes of a tile, and the levels of the tree above them as far as they are complete."""
    hasher = sha256
    levels = [nodes]
    while len(nodes) > 1:
        nodes = [
            hasher(b"\1" + left + right).digest()
            for left, right in zip(nodes[::2], nodes[1::2], strict=False)
        ]
        levels.append(nodes)
    return levels


def _runs(indexes: list[int]) -> Iterator[range]:
    """Ascending *indexes* as ranges of consecutive ones."""
    start = 0
    for at in range(1, len(indexes) + 1):
        if at == len(indexes) or indexes[at] != indexes[at - 1] + 1:
            yield range(indexes[start], indexes[at - 1] + 1)
            start = at


def _split(path: str) -> tuple[_Path, str]:
    *folders, name = path.split("/")
    return tuple(folders), name


def _whole(pread: Callable[[int, int], bytes], size: int) -> bytes:
    """At most *size* bytes of a file from its start, however few each call gives."""
    data = pread(size, 0)
    while len(data) < size and (more := pread(size - len(data), len(data))):
        data += more
    return data

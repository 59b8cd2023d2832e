"""Sealing: a rotated segment is compressed and indexed, proved equal, and only then replaced.

Who does what, so that there is one writer and no step that cannot be repeated:

    child process      compress to `….log.gz.tmp`, index to `….idx.tmp` → fsync files and directory → read both
                       back, decompress, compare with the raw file byte by byte → write and sync the hash tiles
                       that end in this segment → print the facts and end
    writer's process   append SEALED with those facts (DURABLE) → rename to `.idx` → sync the directory → rename
                       to `.log.gz` → sync the directory → unlink the raw file → sync the directory

So a `.log.gz` never stands without its index, and no index without a SEALED record that names its hash.

The child (`python -m holdfast.audit.seal`, started by exec with descriptors closed) takes no lock and decides
nothing; in a thread the same work would double the log's p99. A thread of the writer's process only waits for
it. After a crash the next writer deletes temporary files and starts over; where `.log` and `.log.gz` both
stand, the raw file goes if they are equal, and both stay, named as corruption, if they are not.

The compressed file is a series of gzip members, each of at most `MEMBER_BYTES` of whole lines, which every
gzip reads as one file and a search may enter at any member. A failed attempt leaves the raw file as it was;
`Sealer.failures` says why, and the next start tries again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from holdfast.audit.format import leaf_hash, parse_segment_name
from holdfast.audit.index import INDEX_SUFFIX, Index, index_name
from holdfast.audit.storage import Directory, File, LocalDirectory, LocalStorage
from holdfast.audit.tree import HASH_BYTES
from holdfast.core.errors import AuditCorruption, AuditError, BadInput, TradingError

if TYPE_CHECKING:
    import subprocess

MEMBER_BYTES = 128 * 1024
"""Raw bytes in one gzip member, at most; a line is shorter. No reader needs more memory."""
CUT_BYTES = 32 * 1024
"""Raw bytes in the members made here, unless one line is longer. A search unpacks whole members: a quarter of the
bound is unpacked in a quarter of the time and costs 6 % of the compression."""
TEMPORARY_SUFFIX = ".gz.tmp"
TEMPORARY_ENDING = ".tmp"
_INDEX_TEMPORARY = INDEX_SUFFIX + TEMPORARY_ENDING
CLOSE_WAIT_SECS = 30.0
"""How long `Sealer.close` lets a running seal finish."""

_BLOCK = 1 << 20
_READ = 1 << 18
_WINDOW_BITS = 15
_GZIP = 16 + _WINDOW_BITS
_HEADER_BYTES = 10
_MEMBER_START = b"\x1f\x8b\x08" + bytes(5)
_LEVEL = 6


class Readable(Protocol):
    """What can be searched."""

    def pread(self, size: int, offset: int) -> bytes:
        """As `File.pread`."""
        ...


class SealFacts(msgspec.Struct, frozen=True):
    """What a SEALED record says about one segment; the fields are those of `schemas.SealedDetails`."""

    segment: str
    first_seq: int
    last_seq: int
    raw_sha256: str
    raw_bytes: int
    gzip_sha256: str
    gzip_bytes: int
    members: int
    index_sha256: str
    index_bytes: int


# -- reading and writing compressed segments ------------------------------------------------------------------


def read_blocks(file: File, *, end: int | None = None) -> Iterator[bytes]:
    """The bytes of *file* in order, up to offset *end* or its end."""
    offset = 0
    while end is None or offset < end:
        block = file.pread(_BLOCK if end is None else min(_BLOCK, end - offset), offset)
        if not block:
            return
        offset += len(block)
        yield block


def read_members(file: File, *, start: int = 0, step: int = _READ) -> Iterator[tuple[int, bytes]]:
    """Each gzip member of *file* from offset *start*: where it begins, and its raw bytes; read *step* bytes at a time.

    Raises:
        AuditCorruption: Not a series of gzip members of at most `MEMBER_BYTES`; the offset says where.
    """
    pending, offset = b"", start  # *offset* is where the next read begins
    while True:
        began = offset - len(pending)
        unpack = zlib.decompressobj(_GZIP)
        raw, size = list[bytes](), 0
        fed = False
        while not unpack.eof:
            if not pending:
                pending = file.pread(step, offset)
                offset += len(pending)
                if not pending:
                    if not fed:
                        return
                    raise _damaged(file, began, "compressed data ends inside a member")
            fed = True
            try:
                piece = unpack.decompress(pending, MEMBER_BYTES + 1 - size)
            except zlib.error as why:
                raise _damaged(file, began, f"not gzip: {why}") from why
            raw.append(piece)
            size += len(piece)
            if size > MEMBER_BYTES:
                raise _damaged(file, began, f"gzip member holds more than {MEMBER_BYTES} bytes")
            pending = unpack.unconsumed_tail
        pending = unpack.unused_data
        yield began, b"".join(raw)


def salvage_member(file: File, start: int) -> tuple[bytes, bool]:
    """What can be read of the damaged gzip member at *start*, and whether that is all of its content.

    Header and trailer are passed over, so that damage there costs no line; inside, everything up to the byte
    that makes no sense is given.
    """
    unpack = zlib.decompressobj(-_WINDOW_BITS)
    raw, size = list[bytes](), 0
    data = file.pread(2 * MEMBER_BYTES, start)
    for at in range(_HEADER_BYTES, len(data)):
        try:
            piece = unpack.decompress(data[at : at + 1], MEMBER_BYTES + 1 - size)
        except zlib.error:
            break
        raw.append(piece)
        size += len(piece)
        if unpack.eof or size > MEMBER_BYTES:
            break
    return b"".join(raw)[:MEMBER_BYTES], unpack.eof


def find_member(file: Readable, start: int) -> int | None:
    """Where the next gzip member begins at or after *start*, or None."""
    data, offset = b"", start
    while block := file.pread(_BLOCK, offset):
        found = (data + block).find(_MEMBER_START)
        if found >= 0:
            return offset - len(data) + found
        offset += len(block)
        data = (data + block)[-len(_MEMBER_START) :]
    return None


def _damaged(file: File, offset: int, why: str) -> AuditCorruption:
    return AuditCorruption(
        f"audit log damaged: {file.name!r} at byte {offset}: {why}", file=file.name, offset=offset
    )


def _whole_line_pieces(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """*blocks* cut anew into pieces that end behind a newline, each of one line or of at most `CUT_BYTES`."""
    rest, is_begun = b"", False
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > CUT_BYTES:
            cut = rest.rfind(b"\n", start, start + CUT_BYTES) + 1
            cut = cut or rest.find(b"\n", start, start + MEMBER_BYTES) + 1
            if not cut:
                if len(rest) - start > MEMBER_BYTES:
                    raise BadInput(f"no line end within {MEMBER_BYTES} bytes")
                break
            yield rest[start:cut]
            start, is_begun = cut, True
        rest = rest[start:]
    if (rest or not is_begun) and not rest.endswith(b"\n"):
        raise BadInput("it is empty, or its last line has no end")
    if rest:
        yield rest


def compress_segment(directory: Directory, name: str) -> SealFacts:
    """Compress and index segment *name* into temporary files, sync them, prove them; the raw file is not touched.

    Raises:
        AuditCorruption: The segment is not a closed, orderly series of records; nothing is sealed over damage.
        OSError: The disk.
    """
    parsed = parse_segment_name(name)
    if parsed is None or parsed.sealed:
        raise BadInput(f"not a raw segment: {name!r}")
    index, digest, size = Index(parsed.first_seq), sha256(), 0
    hashes = bytearray()
    raw = directory.open(name)
    try:
        packed = directory.create(name + TEMPORARY_SUFFIX)
        try:
            offset = 0
            for piece in _whole_line_pieces(read_blocks(raw)):
                index.begin_block(size, offset)
                lines = piece[:-1].split(b"\n")
                index.take(lines)
                hashes += b"".join(map(leaf_hash, lines))
                digest.update(piece)
                size += len(piece)
                offset = _write(packed, zlib.compress(piece, _LEVEL, wbits=_GZIP), offset)
            packed.fsync()
        except BadInput as why:
            raise AuditCorruption(
                f"audit log damaged: {name!r} cannot be sealed: {why}",
                sequence=parsed.first_seq + index.records,
                file=name,
            ) from why
        finally:
            packed.close()
    finally:
        raw.close()
    content = index.encode(digest.digest())
    _write_index(directory, index_name(name) + TEMPORARY_ENDING, content)
    directory.sync()
    gzip_sha256, gzip_bytes = _prove_equal(directory, name, name + TEMPORARY_SUFFIX)
    last_seq = parsed.first_seq + index.records - 1
    _write_tiles(directory, parsed.first_seq, last_seq, hashes)
    return SealFacts(
        name,
        parsed.first_seq,
        last_seq,
        digest.hexdigest(),
        size,
        gzip_sha256,
        gzip_bytes,
        len(index.blocks),
        sha256(content).hexdigest(),
        len(content),
    )


def _write_tiles(directory: Directory, first_seq: int, last_seq: int, hashes: bytearray) -> None:
    """Write the full tiles of the tree whose last leaf lies in this segment, of which *hashes* are the leaves.

    Where the records before it are damaged or pruned, the tile that begins there stays missing, which is legal.
    """
    from holdfast.audit.logfiles import checked_lines, read_batches  # noqa: PLC0415  it reads with this module
    from holdfast.audit.tiles import TileStore, write_tiles  # noqa: PLC0415  readers of the formats need none

    def leaves(begin: int, end: int) -> Iterator[bytes]:
        if begin < first_seq - 1:
            before = (pair for batch in read_batches(directory, begin + 1) for pair in checked_lines(batch))
            for _, line in islice(before, min(end, first_seq - 1) - begin):
                yield leaf_hash(line)
        for at in range(max(begin - first_seq + 1, 0), end - first_seq + 1):
            yield bytes(hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES])

    with TileStore(directory) as store, contextlib.suppress(AuditCorruption, BadInput):
        write_tiles(store, last_seq, leaves, start=first_seq - 1, partial=False)


def _write_index(directory: Directory, name: str, content: bytes) -> None:
    file = directory.create(name)
    try:
        _write(file, content, 0)
        file.fsync()
        if b"".join(read_blocks(file)) != content:
            raise OSError(f"{name!r} does not read back as it was written")
    finally:
        file.close()


def _write(file: File, data: bytes, offset: int) -> int:
    while data:
        taken = file.pwrite(data, offset)
        offset += taken
        data = data[taken:]
    return offset


def _prove_equal(directory: Directory, raw_name: str, packed_name: str) -> tuple[str, int]:
    """Read both files back from the disk; the compressed one's SHA-256 and length.

    Raises:
        AuditCorruption: They differ.
    """
    raw, packed = directory.open(raw_name), directory.open(packed_name)
    try:
        offset = 0
        for _, piece in read_members(packed):
            if raw.pread(len(piece), offset) != piece:
                raise _differ(raw_name, packed_name, offset)
            offset += len(piece)
        if offset != raw.size():
            raise _differ(raw_name, packed_name, offset)
        digest, size = sha256(), 0
        for block in read_blocks(packed):
            digest.update(block)
            size += len(block)
    finally:
        raw.close()
        packed.close()
    return digest.hexdigest(), size


def _differ(raw_name: str, packed_name: str, offset: int) -> AuditCorruption:
    return AuditCorruption(
        f"audit log damaged: {raw_name!r} and {packed_name!r} differ at byte {offset} of the raw file",
        file=raw_name,
        offset=offset,
        hint="both are kept; restore the right one from a copy",
    )


# -- the writer's half ----------------------------------------------------------------------------------------


def replace_raw(directory: Directory, name: str) -> None:
    """Put the proved temporary files in the place of segment *name*; SEALED must be durable before."""
    index = index_name(name)
    directory.rename(index + TEMPORARY_ENDING, index)
    directory.sync()
    directory.rename(name + TEMPORARY_SUFFIX, name + ".gz")
    directory.sync()
    directory.unlink(name)
    directory.sync()


def finish_interrupted(directory: Directory, closed: Iterable[str]) -> list[str]:
    """Clear up what a crash left of earlier seals; the segments among *closed* still to be sealed, in order.

    Raises:
        AuditCorruption: A segment stands there twice, raw and compressed, with different content.
    """
    remove_temporary(directory)
    present = set(directory.names())
    waiting: list[str] = []
    for name in closed:
        parsed = parse_segment_name(name)
        if parsed is None or parsed.sealed or name not in present:
            continue
        if name + ".gz" in present:
            _prove_equal(directory, name, name + ".gz")
            directory.unlink(name)
            directory.sync()
        else:
            waiting.append(name)
    return waiting


def remove_temporary(directory: Directory) -> None:
    """Delete what a seal that did not end has left."""
    stray = [name for name in directory.names() if name.endswith((TEMPORARY_SUFFIX, _INDEX_TEMPORARY))]
    for name in stray:
        directory.unlink(name)
    if stray:
        directory.sync()


class Sealer:
    """Seals segments for the process that writes them.

    On a real disk a thread waits for a child process that compresses; on any other `Directory` nothing happens
    until `run_pending` is called, in the caller's thread.

    Attributes:
        failures: Why segments stayed raw, one sentence each; they are tried again at the next start.
    """

    def __init__(self, directory: Directory, append: Callable[[str, dict[str, Any]], int]) -> None:
        """Seal in *directory*, writing SEALED records through *append*, which returns once they are durable."""
        self.failures: list[str] = []
        self._directory = directory
        self._append = append
        self._in_child = isinstance(directory, LocalDirectory)
        from queue import SimpleQueue  # noqa: PLC0415  readers of this file's formats start without it

        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._ended = threading.Event()

    def start(self, closed_segments: Iterable[str]) -> None:
        """Finish what an earlier process left half done; call once, after recovery, before new records.

        Raises:
            AuditCorruption: A segment stands there twice with different content; nothing was removed.
        """
        for name in finish_interrupted(self._directory, closed_segments):
            self.rotated(name)

    def rotated(self, name: str) -> None:
        """Segment *name* is closed: seal it when time allows; returns at once."""
        with self._lock:
            if self._closed:
                return
            self._queue.put(name)
            if self._in_child and self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="holdfast-sealer", daemon=True)
                self._thread.start()

    def run_pending(self) -> None:
        """Seal everything that waits, here and now; for disks that no child process can see."""
        while not self._queue.empty():
            name = self._queue.get()
            if name is not None:
                self._seal([name], lambda names: (compress_segment(self._directory, one) for one in names))

    def close(self, wait_secs: float = CLOSE_WAIT_SECS) -> None:
        """Let the seals that wait finish, at most *wait_secs*; the rest is done by the next start."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            # Not by join: one that a Ctrl-C interrupts takes the thread for ended (CPython 3.11), and the child
            # would go on writing beside a log that is closed.
            if not self._ended.wait(wait_secs):
                with self._lock:
                    child = self._child
                if child is not None:
                    child.kill()
                self._ended.wait()
            thread.join()
        try:
            remove_temporary(self._directory)
            if self.failures:
                # A sync of the directory may have failed: no name may come back behind the close.
                self._directory.sync()
        except OSError as why:
            self.failures.append(f"temporary files stay: {why}")

    def _serve(self) -> None:
        try:
            while (names := self._next_names()) is not None:
                if not self._seal(names, self._compress_in_child):
                    return
        finally:
            self._ended.set()

    def _next_names(self) -> list[str] | None:
        name = self._queue.get()
        names: list[str] = []
        while name is not None:
            names.append(name)
            if self._queue.empty():
                return names
            name = self._queue.get()
        if names:
            self._queue.put(None)
            return names
        return None

    def _seal(self, names: list[str], compress: Callable[[list[str]], Iterable[SealFacts]]) -> bool:
        """Seal *names*; False where the log takes no more records and sealing ends with it."""
        try:
            for facts in compress(names):
                self._append("SEALED", msgspec.structs.asdict(facts))
                replace_raw(self._directory, facts.segment)
        except AuditCorruption as why:
            self.failures.append(str(why))
        except AuditError as why:
            self.failures.append(f"sealing stopped: {why}")
            return False
        except (OSError, ValueError, RuntimeError, TradingError, msgspec.MsgspecError) as why:
            # RuntimeError: the interpreter is ending and starts no process any more.
            self.failures.append(f"{', '.join(names)} stay raw: {why}")
        return True

    def _compress_in_child(self, names: list[str]) -> Iterator[SealFacts]:
        command = [sys.executable, "-m", "holdfast.audit.seal", str(self._directory.path), *names]
        import subprocess  # noqa: PLC0415  as above

        with self._lock:
            child = subprocess.Popen(  # noqa: S603  our own module, arguments checked by compress_segment
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                close_fds=True,
                # A Ctrl-C on the terminal is for the trader; it lets this finish.
                start_new_session=True,
            )
            self._child = child
        out, err = child.communicate()
        with self._lock:
            self._child = None
        for line in out.splitlines():
            yield msgspec.json.decode(line, type=SealFacts)
        if child.returncode != 0:
            said = err.decode(errors="replace").strip().splitlines()
            raise OSError(f"the sealer ended with {child.returncode}: {said[-1] if said else 'no message'}")


def main(argv: list[str]) -> int:
    """Compress the segments named after the directory in *argv*; print one line of facts for each."""
    import os  # noqa: PLC0415  only the child process needs it

    os.nice(5)
    path, *names = argv
    directory = LocalStorage().directory(Path(path), create=False)
    try:
        for name in names:
            facts: Mapping[str, Any] = msgspec.structs.asdict(compress_segment(directory, name))
            sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
            sys.stdout.buffer.flush()
    except (OSError, TradingError) as why:
        print(why, file=sys.stderr)  # noqa: T201  the parent reads it
        return 1
    finally:
        directory.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Export: what a search finds, as a file for other tools, with a manifest that says what it is and proves it.

Promise: rows stream, none is held; the file and its manifest appear under their names only when both are whole
and on the disk; the manifest names the query, the number of rows, the SHA-256 of the file, one SHA-256 over the
leaf hashes of all rows, and the newest checkpoint of the log. With proofs, every row covered by that checkpoint
carries its stored line and its path to the root, and `check_export` holds all of it together offline.

Formats: `jsonl` is the stored lines as they are; `csv` and `parquet` have the columns `COLUMNS`, and `line`, the
stored line, where proofs were asked for. In CSV a cell that a spreadsheet would read as a formula begins with
an apostrophe.

The proofs are a file beside the export, JSON Lines: `{"sequence", "leaf", "path": [base64 …]}`.

Limits: rows younger than the newest checkpoint are exported and counted, but not proven. Parquet needs pyarrow.
"""

from __future__ import annotations

import csv
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, cast

import msgspec

from holdfast.audit.format import Record, decode_line, encode_details, leaf_hash
from holdfast.audit.note import Checkpoint, VerifierKey, parse_checkpoint, parse_note
from holdfast.audit.proofs import ProofChecker
from holdfast.audit.prove import Prover
from holdfast.audit.tree import check_inclusion
from holdfast.core.clock import iso_utc
from holdfast.core.errors import BadInput, ProofRefused
from holdfast.core.files import read_named

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "jsonl", "parquet")
COLUMNS = (
    "sequence", "timestamp", "timestamp_ns", "event_type", "user_id", "component", "details", "leaf",
)  # fmt: skip
MANIFEST_SUFFIX = ".manifest.json"
PROOFS_SUFFIX = ".proofs.jsonl"

_BATCH_ROWS = 16_384
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MAX_PROOF_LINE = 1 << 16
_MAX_MANIFEST = 64 << 20  # the notes of a log that changed its key every hour for seven years fit


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """What stands beside an export.

    Attributes:
        holdfast_export: 1, the version of this manifest.
        file, format, bytes, sha256: The exported file.
        rows: Records in it.
        first_sequence, last_sequence: Of its first and last row, 0 without rows.
        query: The conditions, as given.
        log_id: The log's own id, or "".
        checkpoint: The signed note that was the log's newest when the export began, or "".
        key_notes: The notes of the log's KEY records that lead from its first key to the signer.
        checkpoint_size: Records that it covers; 0 without one.
        rows_beyond_checkpoint: Rows younger than that.
        leaves_sha256: SHA-256 over the leaf hashes of all rows, in order.
        proofs, proofs_sha256: The file of proofs, or "".
        proven_rows: Rows in it.
    """

    holdfast_export: int = 1
    file: str
    format: str
    bytes: int
    sha256: str
    rows: int
    first_sequence: int
    last_sequence: int
    query: dict[str, Any]
    log_id: str
    checkpoint: str
    key_notes: list[str]
    checkpoint_size: int
    rows_beyond_checkpoint: int
    leaves_sha256: str
    proofs: str = ""
    proofs_sha256: str = ""
    proven_rows: int = 0


class Source(NamedTuple):
    """Where an export comes from.

    Attributes:
        lines: Each match with its sequence, as it is stored.
        query: The conditions, for the manifest.
        log_id: The log's own id.
        prover: Proves rows under the checkpoint that was the newest before the search; None for an unsigned log.
    """

    lines: Iterable[tuple[int, bytes]]
    query: Mapping[str, Any]
    log_id: str
    prover: Prover | None


def export(
    source: Source,
    target: Path,
    format_: Format,
    *,
    proofs: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Write *source* to *target*, its manifest beside it.

    Args:
        source: What to write.
        target: The file; neither it nor its manifest may exist.
        format_: One of `FORMATS`.
        proofs: Whether each row gets its stored line and its proof.
        progress: Called now and then with the number of rows so far.

    Raises:
        BadInput: A file is in the way, a library is missing, or proofs are asked of a log without checkpoint.
        AuditCorruption: The log is damaged where it had to be read; nothing is left behind.
    """
    names = _Names(target)
    names.refuse_existing()
    if proofs and source.prover is None:
        raise BadInput(
            "no proofs: the log is not signed", hint="a log that is written with keys can prove its records"
        )
    rows = _Rows(source, progress)
    try:
        with names.temporary(names.target) as out:
            sink = _sink(format_, out, with_lines=proofs)
            if proofs and source.prover is not None:
                with names.temporary(names.proofs) as proof_file:
                    _copy(rows.proving(source.prover, proof_file), sink)
            else:
                _copy(rows, sink)
        manifest = rows.manifest(names, format_, proofs=proofs)
        with names.temporary(names.manifest) as out:
            out.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        names.publish()
    except BaseException as why:
        names.discard()
        if isinstance(why, OSError):
            why.filename = str(target)  # a failed write does not say where
        raise
    return manifest


class _Names:
    """The files of one export and the temporary names under which they grow."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.manifest = target.with_name(target.name + MANIFEST_SUFFIX)
        self.proofs = target.with_name(target.name + PROOFS_SUFFIX)
        self._begun: list[Path] = []

    def refuse_existing(self) -> None:
        try:
            self.target.name.encode()
        except UnicodeEncodeError as why:
            raise BadInput(
                f"{str(self.target)!r} cannot be named in a manifest: not UTF-8", hint="name another file"
            ) from why
        for path in (self.target, self.manifest, self.proofs):
            if path.exists() or path.is_symlink():
                raise BadInput(f"{str(path)!r} exists", hint="name another file, or remove that one")
        if not self.target.parent.is_dir():
            raise BadInput(f"no directory {str(self.target.parent)!r}", hint="make it, or name another file")

    def temporary(self, path: Path) -> IO[bytes]:
        descriptor = os.open(
            self.growing(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        self._begun.append(path)
        return os.fdopen(descriptor, "w+b")

    @staticmethod
    def growing(path: Path) -> Path:
        return path.with_name(f"{path.name}.{os.getpid()}.tmp")

    def publish(self) -> None:
        """Sync what was written and give it its names, the manifest last."""
        for path in self._begun:
            with self.growing(path).open("rb") as file:
                os.fsync(file.fileno())
        given: list[Path] = []
        try:
            for path in self._begun:
                _give_name(self.growing(path), path)
                given.append(path)
        except BaseException:
            for path in given:
                path.unlink(missing_ok=True)
            raise
        folder = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        for path in self._begun:
            self.growing(path).unlink(missing_ok=True)


def _give_name(growing: Path, path: Path) -> None:
    """Rename *growing*, never over a file that somebody else gave this name meanwhile."""
    try:
        path.hardlink_to(growing)
    except FileExistsError as why:
        raise BadInput(f"{str(path)!r} exists", hint="name another file, or remove that one") from why
    except OSError:  # a file system without hard links
        growing.rename(path)
        return
    growing.unlink()


class Row(NamedTuple):
    """One match: its record, its line as stored, its leaf hash."""

    record: Record
    line: bytes
    leaf: bytes


class _Rows:
    """The rows of a source, counted and hashed as they pass."""

    def __init__(self, source: Source, progress: Callable[[int], None] | None) -> None:
        self._source = source
        self._progress = progress
        self._covered = 0 if source.prover is None else source.prover.checkpoint.size
        self._leaves = sha256()
        self._first = self._last = self._count = self._beyond = self._proven = 0

    def __iter__(self) -> Iterator[Row]:
        for sequence, line in self._source.lines:
            leaf = leaf_hash(line)
            self._leaves.update(leaf)
            self._first = self._first or sequence
            self._last = sequence
            self._count += 1
            self._beyond += sequence > self._covered
            if self._progress is not None and self._count % _BATCH_ROWS == 0:
                self._progress(self._count)
            yield Row(decode_line(line), line, leaf)

    def proving(self, prover: Prover, out: IO[bytes]) -> Iterator[Row]:
        """The rows, the proof of each covered one written to *out* on the way."""
        for row in self:
            sequence = row.record.seq
            if sequence <= self._covered:
                path = [b64encode(one).decode() for one in prover.proof_of(sequence, row.line).path]
                proof = {"sequence": sequence, "leaf": row.leaf.hex(), "path": path}
                out.write(msgspec.json.encode(proof) + b"\n")
                self._proven += 1
            yield row

    def manifest(self, names: _Names, format_: Format, *, proofs: bool) -> Manifest:
        file, prover = names.growing(names.target), self._source.prover
        return Manifest(
            file=names.target.name,
            format=format_,
            bytes=file.stat().st_size,
            sha256=_file_sha256(file),
            rows=self._count,
            first_sequence=self._first,
            last_sequence=self._last,
            query=dict(self._source.query),
            log_id=self._source.log_id,
            checkpoint="" if prover is None else prover.note.decode(),
            key_notes=[] if prover is None else [note.decode() for note in prover.key_notes],
            checkpoint_size=self._covered,
            rows_beyond_checkpoint=self._beyond,
            leaves_sha256=self._leaves.hexdigest(),
            proofs=names.proofs.name if proofs else "",
            proofs_sha256=_file_sha256(names.growing(names.proofs)) if proofs else "",
            proven_rows=self._proven,
        )


def _file_sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# -- the formats ----------------------------------------------------------------------------------------------


class _Sink(Protocol):
    def put(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


def _copy(rows: Iterable[Row], sink: _Sink) -> None:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            sink.put(batch)
            batch = []
    sink.put(batch)
    sink.close()


def _sink(format_: Format, out: IO[bytes], *, with_lines: bool) -> _Sink:
    if format_ == "jsonl":
        return _Lines(out)
    if format_ == "csv":
        return _Csv(out, with_lines=with_lines)
    from holdfast.archive.parquet import ParquetSink  # noqa: PLC0415  pyarrow is an extra, and slow to import

    return ParquetSink(out, with_lines=with_lines)


class _Lines:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def put(self, rows: list[Row]) -> None:
        self._out.writelines(row.line + b"\n" for row in rows)

    def close(self) -> None:
        self._out.flush()


class _Csv:
    def __init__(self, out: IO[bytes], *, with_lines: bool) -> None:
        import io  # noqa: PLC0415  with the format that needs it

        self._text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._with_lines = with_lines
        self._writer.writerow((*COLUMNS, "line") if with_lines else COLUMNS)

    def put(self, rows: list[Row]) -> None:
        for row in rows:
            cells = [_cell(value) for value in values_of(row)]
            self._writer.writerow([*cells, row.line.decode()] if self._with_lines else cells)

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


def values_of(row: Row) -> tuple[int | str, ...]:
    """The cells of a row, in the order of `COLUMNS`."""
    record = row.record
    return (
        record.seq,
        iso_utc(record.ts),
        record.ts,
        record.type,
        record.user,
        record.component,
        encode_details(record.details).decode(),
        row.leaf.hex(),
    )


def _cell(value: int | str) -> int | str:
    """*value* as a spreadsheet may see it: text that it would compute is marked as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


# -- checking -------------------------------------------------------------------------------------------------


class ExportCheck(NamedTuple):
    """What a check of an export found.

    Attributes:
        rows: Rows in the file.
        proven: Rows proven to be in the log that the checkpoint covers.
        beyond: Rows younger than the checkpoint.
        signed_by: The keys, trusted because of those given, that signed the checkpoint; empty where none was given.
        problems: What is wrong, one sentence each.
    """

    rows: int
    proven: int
    beyond: int
    signed_by: tuple[str, ...]
    problems: tuple[str, ...]


def read_manifest(manifest_path: Path) -> Manifest:
    """What an export's manifest says; nothing in it is checked.

    Raises:
        BadInput: It is none, or of a newer version.
    """
    content = read_named(manifest_path, _MAX_MANIFEST, "manifest")
    try:
        manifest = msgspec.json.decode(content, type=Manifest, strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise BadInput(
            f"{str(manifest_path)!r} is no manifest of an export: {why}",
            hint=f"it stands beside the exported file, its name ends in {MANIFEST_SUFFIX}",
        ) from why
    if manifest.holdfast_export != 1 or manifest.format not in FORMATS:
        raise BadInput(
            f"{str(manifest_path)!r} is of a newer version or format",
            hint="check it with the version that wrote it, or a newer one",
        )
    return manifest


def check_export(manifest_path: Path, keys: Iterable[VerifierKey] = ()) -> ExportCheck:
    """Hold an export against its manifest, its proofs and its checkpoint, without the log.

    Raises:
        BadInput: The manifest cannot be read.
    """
    manifest = read_manifest(manifest_path)
    check = _Check(manifest, manifest_path.parent)
    check.run(tuple(keys))
    return ExportCheck(
        manifest.rows, check.proven, manifest.rows_beyond_checkpoint, check.signed_by, tuple(check.problems)
    )


class _Check:
    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.manifest = manifest
        self.folder = folder
        self.problems: list[str] = []
        self.proven = 0
        self.signed_by: tuple[str, ...] = ()

    def run(self, keys: tuple[VerifierKey, ...]) -> None:
        manifest = self.manifest
        file = self._file(manifest.file, manifest.sha256)
        if file is not None and file.stat().st_size != manifest.bytes:
            self.problems.append(
                f"{manifest.file}: {file.stat().st_size} bytes, the manifest says {manifest.bytes}"
            )
        checkpoint = self._checkpoint(keys)
        if file is None or self.problems:
            return
        lines = _stored_lines(file, cast("Format", manifest.format), with_lines=bool(manifest.proofs))
        if lines is not None:
            try:
                self._check_rows(lines, checkpoint)
            except BadInput as why:  # who wrote the manifest wrote the file's hash too
                self.problems.append(str(why))

    def _file(self, name: str, digest: str) -> Path | None:
        path = self.folder / Path(name).name
        if not path.is_file():
            self.problems.append(f"{name}: missing")
            return None
        if _file_sha256(path) != digest:
            self.problems.append(f"{name}: its SHA-256 is not the one in the manifest")
            return None
        return path

    def _checkpoint(self, keys: tuple[VerifierKey, ...]) -> Checkpoint | None:
        note = self.manifest.checkpoint.encode()
        if not note:
            if keys:
                self.problems.append("checkpoint: there is none, so nothing of it is signed by a key given")
            return None
        try:
            checkpoint = parse_checkpoint(parse_note(note).text)
            if keys:
                notes = tuple(one.encode() for one in self.manifest.key_notes)
                self.signed_by = tuple(str(key) for key in ProofChecker(keys).open(note, notes)[1].verified)
        except (BadInput, ProofRefused) as why:
            self.problems.append(f"checkpoint: {why}")
            return None
        if checkpoint.size != self.manifest.checkpoint_size:
            self.problems.append("checkpoint: its size is not the one in the manifest")
        return checkpoint

    def _check_rows(self, lines: Iterator[bytes], checkpoint: Checkpoint | None) -> None:
        manifest = self.manifest
        proofs = self._proofs()
        leaves, count = sha256(), 0
        for line in lines:
            count += 1
            leaf = leaf_hash(line)
            leaves.update(leaf)
            try:
                sequence = decode_line(line).seq
                if proofs is not None and checkpoint is not None and sequence <= checkpoint.size:
                    _check_proof(next(proofs, b""), sequence, leaf, checkpoint)
                    self.proven += 1
            except BadInput as why:
                self.problems.append(f"row {count}: {why}")
                return
        if count != manifest.rows:
            self.problems.append(f"{count} rows, the manifest says {manifest.rows}")
        if leaves.hexdigest() != manifest.leaves_sha256:
            self.problems.append("the rows are not the ones that the manifest was made of")
        if self.proven != manifest.proven_rows:
            self.problems.append(f"{self.proven} rows proven, the manifest says {manifest.proven_rows}")

    def _proofs(self) -> Iterator[bytes] | None:
        if not self.manifest.proofs:
            return None
        path = self._file(self.manifest.proofs, self.manifest.proofs_sha256)
        return iter(()) if path is None else _bounded_lines(path)


def _check_proof(text: bytes, sequence: int, leaf: bytes, checkpoint: Checkpoint) -> None:
    try:
        proof = msgspec.json.decode(text)
        same = proof["sequence"] == sequence and proof["leaf"] == leaf.hex()
        path = [b64decode(one, validate=True) for one in proof["path"]]
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError) as why:
        raise BadInput(f"its proof cannot be read: {why}") from why
    if not same:
        raise BadInput(f"its proof is of another record than sequence {sequence}")
    check_inclusion(leaf, sequence - 1, checkpoint.size, path, checkpoint.root)


def _stored_lines(file: Path, format_: Format, *, with_lines: bool) -> Iterator[bytes] | None:
    """The stored lines in an export, or None where it holds only what was made of them."""
    if format_ == "jsonl":
        return _bounded_lines(file)
    if not with_lines:
        return None
    if format_ == "csv":
        return _csv_lines(file)
    from holdfast.archive.parquet import parquet_lines  # noqa: PLC0415  as above

    return parquet_lines(file)


def _csv_lines(file: Path) -> Iterator[bytes]:
    with file.open(encoding="utf-8", newline="") as text:
        try:
            for cells in csv.DictReader(text):
                yield (cells.get("line") or "").encode()
        except (csv.Error, UnicodeDecodeError) as why:
            raise BadInput(f"{file.name}: {why}") from why


def _bounded_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_MAX_PROOF_LINE + 1):
            yield line.removesuffix(b"\n")

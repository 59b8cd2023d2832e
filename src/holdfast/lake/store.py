"""Where a lake lies: a directory, or a prefix of an S3 bucket; opened, proven and refused by name.

    LAKE/{risk_events,orders,fills,api_calls,decisions}/_delta_log/…        one Delta table for each name

Promise: `prove` tries the store before anything is entrusted to it. A Delta table is safe only where of two writers
of one new name exactly one succeeds; a server that answers `If-None-Match: *` with success and overwrites (rclone's
and s3rver's do) loses acknowledged rows silently and is refused. Every failure of the store or of delta-rs becomes
`LakeRefused` (a person changes something), `LakeUnreachable` (repeat the command) or `LakeDamaged`.

S3 is reached as the usual AWS variables say: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN. An endpoint is addressed by path; plain http is for this machine alone.

Limits: `prove` shows how the store behaves now. It leaves nothing behind unless the store refuses deletions.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from holdfast.archive.signed import Account
from holdfast.archive.store import AlreadyThere, Bucket, Place
from holdfast.audit.segment import NO_SPACE
from holdfast.core.errors import (
    ArchiveRefused,
    ArchiveUnreachable,
    BadInput,
    LakeDamaged,
    LakeRefused,
    LakeUnreachable,
)
from holdfast.lake.extras import load

if TYPE_CHECKING:
    from deltalake import DeltaTable

LOG_FOLDER = "_delta_log"
SELF_TEST = "_selftest"
RACERS = 4
"""How many writers meet on one name in the self-test."""

_LIMIT = 1 << 16
_LAST_CHECKPOINT = "_last_checkpoint"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ARROW = re.compile(r"\s*(?:↳\s*)?\n\s*(?:↳\s*)?")
_UNSAFE = frozenset('%#?[]{}*\\^|<>"`')
_NO_ANSWER = re.compile(
    r"error sending request|connect error|connection (?:refused|reset|closed)|timed out|dns error"
    r"|status code: 5\d\d|Server returned (?:non-2xx|error).*5\d\d|after \d+ retries",
    re.IGNORECASE,
)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_REFUSED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|NoSuchBucket|status code: 40[13]\b"
)


class Listed(NamedTuple):
    """What a listing shows of one table.

    Attributes:
        log_bytes: Length of everything under `_delta_log`.
        log_files: How many files that are.
        data_bytes: Length of everything else, also of what no version names any more.
        data_files: How many files that are.
    """

    log_bytes: int
    log_files: int
    data_bytes: int
    data_files: int


class LakeStore:
    """The place of a lake.

    Attributes:
        uri: Absolute path or s3://bucket/prefix, without a slash at its end.
        is_local: Whether it is a directory of this machine.
        options: What delta-rs and polars take as `storage_options`; empty for a directory. Holds secrets.
    """

    def __init__(self, uri: str, environ: Mapping[str, str]) -> None:
        """Name the place *uri*; nothing is asked of it yet.

        Raises:
            BadInput: It is no such place, or an AWS variable cannot be read.
        """
        self._environ = environ
        self.is_local = "://" not in uri or uri.startswith("file://")
        self.options: dict[str, str] = {}
        self._opened: Bucket | None = None
        if self.is_local:
            self.uri = str(_local_path(uri))
            return
        try:
            self.uri = str(Place.parse(uri))
            self.options = _options(Account.of(environ))
        except BadInput as why:
            raise BadInput(_as_lake(str(why)), hint=why.hint) from why

    def __str__(self) -> str:
        """The place; no secret."""
        return self.uri

    def __repr__(self) -> str:
        """The place; no secret."""
        return f"LakeStore({self.uri!r})"

    @property
    def path(self) -> Path:
        """The directory of a lake on this machine."""
        return Path(self.uri)

    def table_uri(self, name: str) -> str:
        """Where the table *name* lies."""
        return f"{self.uri}/{name}"

    def beside(self, suffix: str) -> LakeStore:
        """The place of the same store whose name ends with *suffix*; a rebuilt lake grows there."""
        return LakeStore(f"{self.uri}{suffix}", self._environ)

    # -- the tables --------------------------------------------------------------------------------------------

    def open(self, name: str) -> DeltaTable:
        """The newest version of the table *name*.

        Raises:
            BadInput: There is no Delta table of that name, or deltalake is not installed.
            LakeDamaged: Its log cannot be read.
            LakeUnreachable: The store gave no usable answer.
        """
        delta: type[DeltaTable] = load("deltalake").DeltaTable
        with self.failures(f"open {name!r}"):
            return delta(self.table_uri(name), storage_options=self.options or None)

    def has(self, name: str) -> bool:
        """Whether there is a Delta table *name*; nothing but its log's folder is looked at."""
        if self.is_local:
            return (self.path / name / LOG_FOLDER).is_dir()
        return bool(self._sizes_in_bucket(f"{name}/{LOG_FOLDER}"))

    def refuse_other_files(self, name: str) -> None:
        """Refuse a directory that holds something else where the table *name* is to be made; a bucket passes.

        Raises:
            BadInput: There is a file, a link, or a directory with files in it.
        """
        path = self.path / name
        if not self.is_local:
            return
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise BadInput(f"lake {self}: {name!r} is no directory", hint=_AWAY)
        others = sorted(one.name for one in path.iterdir() if one.name[0] != "_") if path.exists() else []
        if others:
            raise BadInput(f"lake {self}: {name!r} is no Delta table: it holds {others[0]!r}", hint=_AWAY)

    def listed(self, name: str) -> Listed:
        """What a listing shows of the table *name*; zeros where it is not there."""
        sizes = self._local_sizes(name) if self.is_local else self._sizes_in_bucket(name)
        log = [size for key, size in sizes.items() if f"/{LOG_FOLDER}/" in f"/{key}"]
        return Listed(sum(log), len(log), sum(sizes.values()) - sum(log), len(sizes) - len(log))

    def last_checkpoint(self, name: str) -> int:
        """The version of the newest checkpoint of the table *name*; -1 for none."""
        try:
            if self.is_local:
                data = (self.path / name / LOG_FOLDER / _LAST_CHECKPOINT).read_bytes()
            else:
                with self._as_lake():
                    data = self._bucket().read(f"{name}/{LOG_FOLDER}/{_LAST_CHECKPOINT}", _LIMIT)
            return int(msgspec.json.decode(data)["version"])
        except (FileNotFoundError, LakeRefused, msgspec.DecodeError, KeyError, TypeError, ValueError):
            return -1  # it is only a hint, to delta-rs too

    def empty(self, name: str) -> int:
        """Remove every object of the table *name* from a bucket, its log last; how many there were."""
        with self._as_lake():
            names = sorted(self._bucket().sizes(name), key=lambda one: f"/{LOG_FOLDER}/" in one)
            for one in names:
                self._bucket().forget(one)
        return len(names)

    def _local_sizes(self, name: str) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for folder, _, files in os.walk(self.path / name):
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # a rival's clean-up was there first
                    sizes[f"{folder}/{file}"] = os.lstat(f"{folder}/{file}").st_size
        return sizes

    def _sizes_in_bucket(self, folder: str) -> dict[str, int]:
        with self._as_lake():
            return self._bucket().sizes(folder)

    def put_new(self, name: str, data: bytes) -> None:
        """Create the object *name* of a bucket in one request, never replacing another one.

        Raises:
            LakeRefused: It is there with other bytes, or the store refused.
            LakeUnreachable: The store gave no usable answer; the object may be there.
        """
        with self._as_lake():
            try:
                self._bucket().put_new(name, data, None)
            except AlreadyThere:
                # An answer that was lost is tried again by the client and then finds its own object.
                if self._bucket().read(name, len(data) + 1) != data:
                    raise

    @contextlib.contextmanager
    def failures(self, what: str) -> Generator[None]:
        """Give what fails inside its name: our error, with *what* was tried in it.

        Conflicts of a commit (`CommitFailedError`) pass as they are: whoever commits decides what they mean.
        """
        known = load("deltalake.exceptions")
        try:
            yield
        except known.CommitFailedError:
            raise
        except known.TableNotFoundError as why:
            raise self._no_table(what, why) from why
        except (known.DeltaError, OSError) as why:
            raise self._failure(what, plain(why), why) from why

    def _no_table(self, what: str, why: Exception) -> BadInput:
        if self.is_local and not self.path.exists():
            said = "the directory does not exist"
        elif self.is_local:
            said = "the directory holds none"
        else:
            said = plain(why)[:200]
        return BadInput(
            f"lake {self}: there is no Delta table ({what}): {said}",
            hint="name the directory that holds risk_events; `holdfast lake project` makes it",
        )

    def _failure(self, what: str, text: str, why: Exception) -> Exception:
        if not self.is_local and _REFUSED.search(text):
            return LakeRefused(f"lake {self}: the store refused ({what}): {text[:300]}", hint=_KEYS)
        if not self.is_local and _NO_ANSWER.search(text):
            return LakeUnreachable(f"lake {self}: no usable answer ({what}): {text[:300]}", hint=_AGAIN)
        if isinstance(why, OSError) and why.errno is not None:
            return why  # the operating system's own words are told where the command ends
        number = _OS_ERROR.search(text)
        if self.is_local and number is not None and int(number[1]) in NO_SPACE:
            return OSError(int(number[1]), os.strerror(int(number[1])), self.uri)
        if "does not exist" in text or "Not a Delta table" in text or "No files in log" in text:
            return self._no_table(what, why)
        return LakeDamaged(f"lake {self} damaged ({what}): {text[:400]}", hint=_REBUILD)

    # -- whether it may be trusted ----------------------------------------------------------------------------

    def prove(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """Try the store with a file of its own, made and removed; *random_bytes* name it.

        Raises:
            LakeRefused: Of two writers of one new name both succeed, or the second replaces the first; it does not
                return or list what it was given; it refuses.
            LakeUnreachable: It gave no usable answer.
            BadInput: obstore is not installed.
        """
        name = f"{SELF_TEST}/{random_bytes(8).hex()}"
        if self.is_local:
            self._prove_directory(name)
            return
        with self._as_lake():
            self._prove_bucket(self._bucket(), name)

    @contextlib.contextmanager
    def _as_lake(self) -> Generator[None]:
        """Give the failures of the archive's client, which this store borrows, the lake's names."""
        try:
            yield
        except ArchiveUnreachable as why:
            raise LakeUnreachable(_as_lake(str(why)), hint=_AGAIN) from why
        except ArchiveRefused as why:
            raise LakeRefused(_as_lake(str(why)), hint=_hint_of(why)) from why

    def _bucket(self) -> Bucket:
        if self._opened is None:
            load("obstore")
            self._opened = Bucket(self.uri, self._environ, retries=2)
        return self._opened

    def _prove_bucket(self, bucket: Bucket, name: str) -> None:
        first = b"first"
        bucket.put_new(name, first, None)
        if bucket.read(name, _LIMIT) != first:
            raise LakeRefused(f"lake {self}: the store did not return what it was given", hint=_ANOTHER)
        if name not in bucket.sizes(SELF_TEST):
            raise LakeRefused(f"lake {self}: the store does not list what it was given", hint=_ANOTHER)
        if _creates(bucket, name, b"second") or bucket.read(name, _LIMIT) != first:
            raise self._overwrites()
        with ThreadPoolExecutor(RACERS) as racers:
            together = f"{name}-race"
            won = sum(racers.map(partial(_creates, bucket, together), (b"%d" % n for n in range(RACERS))))
        if won != 1:
            raise self._overwrites()
        for one in (name, together):
            with contextlib.suppress(ArchiveRefused):  # a store that keeps it is no worse
                bucket.forget(one)

    def _prove_directory(self, name: str) -> None:
        """Delta commits here by a hard link that must fail where the name exists."""
        folder = self.path / SELF_TEST
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as why:
            raise LakeRefused(
                f"lake {self}: the directory cannot be made: {(why.strerror or str(why)).lower()}",
                hint="choose a directory that this user may write",
            ) from why
        own, taken = self.path / f"{name}-own", self.path / name
        try:
            own.write_bytes(b"first")
            os.link(own, taken)
            with contextlib.suppress(FileExistsError):
                os.link(own, taken)
                raise self._overwrites()
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as why:
            raise LakeRefused(
                f"lake {self}: the volume cannot hold a Delta table: {(why.strerror or str(why)).lower()}",
                hint="it needs hard links and synced directories; choose a local disk",
            ) from why
        finally:
            for one in (own, taken):
                one.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another self-test is at work there
                folder.rmdir()

    def _overwrites(self) -> LakeRefused:
        return LakeRefused(
            f"lake {self}: the store ignores put-if-absent and overwrites what is there",
            hint="two writers would lose each other's rows there; use another store",
        )


def store_of(uri: str, environ: Mapping[str, str] | None = None) -> LakeStore:
    """The store at *uri*: a path, file:///PATH or s3://BUCKET/PREFIX.

    Args:
        uri: As a person wrote it.
        environ: Holds the AWS variables; None takes the process's.

    Raises:
        BadInput: It is no such place.
    """
    return LakeStore(uri, os.environ if environ is None else environ)


def plain(why: BaseException) -> str:
    """The words of an error of delta-rs on one line, without colours."""
    return _ARROW.sub(": ", _ANSI.sub("", str(why))).strip()


def _local_path(uri: str) -> Path:
    text = uri.removeprefix("file://")
    if not text:
        raise BadInput("no lake is named: the word is empty", hint="name a directory or s3://BUCKET/PREFIX")
    bad = sorted({char for char in text if char in _UNSAFE or not char.isprintable()})
    if bad:
        raise BadInput(
            f"lake {uri!r} cannot be used: {', '.join(map(repr, bad))} in its path",
            hint="delta-rs reads paths as URLs; choose another name",
        )
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise BadInput(f"lake {uri!r} is not a directory", hint="name the directory that holds its tables")
    return path


def _options(account: Account) -> dict[str, str]:
    """What delta-rs is told: commits are conditional puts, never renames; a store that is away is told within seconds."""
    options = {
        "aws_region": account.region,
        "conditional_put": "etag",
        "max_retries": "4",
        "retry_timeout": "60s",
        "connect_timeout": "10s",
        "timeout": "120s",
    }
    if account.access_key:
        options["aws_access_key_id"] = account.access_key
        options["aws_secret_access_key"] = account.secret_key
        if account.token:
            options["aws_session_token"] = account.token
    if account.endpoint:
        options["aws_endpoint_url"] = account.endpoint
        options["aws_virtual_hosted_style_request"] = "false"
        options["aws_allow_http"] = str(account.endpoint.startswith("http://")).lower()
    return options


def _creates(bucket: Bucket, name: str, data: bytes) -> bool:
    try:
        bucket.put_new(name, data, None)
    except AlreadyThere:
        return False
    return True


def _as_lake(text: str) -> str:
    """A sentence of the archive's client, which this store borrows, about a lake."""
    return text.replace("archive", "lake", 1)


def _hint_of(why: ArchiveRefused) -> str:
    """The archive's advice without its locks: a lake has none."""
    if "Retention" in why.hint:
        return _KEYS
    return why.hint.replace(" with object lock", "")


_AGAIN = "what was committed stays; run the same command again"
_AWAY = "move it away, or choose another lake"
_ANOTHER = "use another store; nothing was entrusted to this one"
_KEYS = (
    "check the bucket, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the key needs s3:PutObject, s3:GetObject, "
    "s3:ListBucket and s3:DeleteObject"
)
_REBUILD = "the journal is the truth: `holdfast lake rebuild` makes the lake anew"

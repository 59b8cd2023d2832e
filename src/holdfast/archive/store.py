"""The object store that holds an archive: a few operations, each with its checksum, its lock and its named failure.

Promise: `put_new` creates and never replaces; its bytes carry Content-MD5, x-amz-checksum-sha256 and the signed
hash of the payload, and its object lock travels in the same request, so that no copy ever exists unlocked. Every
answer of the store that is not the expected one becomes `ArchiveRefused` (a person must change something) or
`ArchiveUnreachable` (repeat the command), with the store's own code in it.

How: obstore does the transport, the credentials of roles and the retries. It has no argument for an object lock,
but it signs the default headers of its client with each request, so a client is made for each put; that costs
3.5 ms and needs no second library. Reading a lock back is a HEAD of a URL that obstore signs. Only the legal
hold, a subresource that obstore cannot name, is a signed request of our own (`signed.py`).

Limits: one request per object, without parts: a segment is 100 MB at most, and S3 takes 5 GiB. Between this
machine and the store others may still remove what is not locked; whoever reads compares hashes.
"""

from __future__ import annotations

import http.client
import importlib
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from holdfast.archive.signed import Account, send_signed
from holdfast.core.errors import ArchiveRefused, ArchiveUnreachable, AuditCorruption, BadInput
from holdfast.core.extras import how_to_install

if TYPE_CHECKING:
    from obstore.store import S3Store

COMPLIANCE, GOVERNANCE = "COMPLIANCE", "GOVERNANCE"
MAX_OBJECT_BYTES = 1 << 30
"""More is in no file of a log; it would have to fit into memory."""
RETRIES = 4

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=-]+(/[A-Za-z0-9!_.*'()=-]+)*", re.ASCII)
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,32})</Region>")
_CHUNK = 1 << 20
_HEAD_TIMEOUT_SECS = 30


class Lock(NamedTuple):
    """The object lock that a new object is given.

    Attributes:
        mode: `COMPLIANCE`: nobody removes or shortens it; `GOVERNANCE`: whoever has the right to does.
        until: Until when, aware.
        legal_hold: Whether it is held beyond that, until somebody releases it.
    """

    mode: str
    until: datetime
    legal_hold: bool = False


class LockState(NamedTuple):
    """What the store says of an object's lock.

    Attributes:
        mode: "" where it has none.
        until: None where it has none.
        legal_hold: Whether it is held.
    """

    mode: str
    until: datetime | None
    legal_hold: bool

    def __str__(self) -> str:
        """For messages."""
        held = ", legal hold" if self.legal_hold else ""
        return (f"{self.mode} until {self.until:%Y-%m-%d}" if self.mode and self.until else "no lock") + held

    def covers(self, lock: Lock) -> bool:
        """Whether this keeps an object at least as long and as firmly as *lock* asks; times to the second."""
        firm = self.mode in {lock.mode, COMPLIANCE}
        return firm and self.until is not None and self.until >= lock.until.replace(microsecond=0)


class AlreadyThere(ArchiveRefused):
    """The object exists; nothing was written."""


class ObjectMissing(ArchiveRefused):
    """There is no such object."""


class Place(NamedTuple):
    """Where an archive lies.

    Attributes:
        bucket: The bucket's name.
        prefix: What every key begins with, without a slash at its end; may be "".
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Place:
        """The place that `s3://bucket/prefix` names.

        Raises:
            BadInput: It is no such address.
        """
        scheme, separator, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.rstrip("/")
        dots = {".", ".."} & set(prefix.split("/"))
        if scheme != "s3" or not separator or not _BUCKET.fullmatch(bucket):
            raise BadInput(f"archive {url!r} is not an address", hint="expected s3://BUCKET/PREFIX")
        if prefix and (not _PREFIX.fullmatch(prefix) or dots):
            raise BadInput(
                f"archive {url!r} has an unusable prefix",
                hint="letters, digits and !_.*'()=- between single slashes",
            )
        return cls(bucket, prefix)

    def __str__(self) -> str:
        """The address."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of the object *name* of this archive."""
        return f"{self.prefix}/{name}" if self.prefix else name


class Bucket:
    """The objects under one place of an S3 store.

    Attributes:
        place: Where.
    """

    def __init__(
        self, url: str, environ: Mapping[str, str], *, endpoint: str | None = None, retries: int = RETRIES
    ) -> None:
        """Reach *url* as the usual AWS variables in *environ* say; *endpoint* wins over them.

        Raises:
            BadInput: The address cannot be read, or obstore is not installed.
        """
        self.place = Place.parse(url)
        self.account = Account.of(environ, endpoint)
        self._retries = retries
        try:
            self._obstore: Any = importlib.import_module("obstore")
            self._s3: type[S3Store] = importlib.import_module("obstore.store").S3Store
            base: type[Exception] = importlib.import_module("obstore.exceptions").BaseError
        except ModuleNotFoundError as why:
            raise BadInput("an archive needs obstore", hint=how_to_install("archive")) from why
        # obstore says "not found" by Python's own error, everything else by its own.
        self._errors: tuple[type[Exception], ...] = (base, OSError)
        self._plain = self._client({})

    def __str__(self) -> str:
        """The archive's address."""
        return str(self.place)

    # -- reading -----------------------------------------------------------------------------------------------

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The names under this place, or in *folder* of it, with their lengths in bytes.

        Only what a listing shows: names that no archive has are included.
        """
        prefix = self.place.key(folder) if folder else self.place.prefix
        cut = len(self.place.prefix) + 1 if self.place.prefix else 0
        found: dict[str, int] = {}
        try:
            for page in self._obstore.list(self._plain, prefix or None, chunk_size=1000):
                for one in page:
                    name = str(one["path"])[cut:]
                    if name:  # consoles make an object for the prefix itself
                        found[name] = int(one["size"])
        except self._errors as why:
            self._fail("list", folder, why)
        return found

    def stream(self, name: str, limit: int, *, version: str = "") -> Iterator[bytes]:
        """The bytes of object *name*, in pieces.

        Raises:
            AuditCorruption: It is longer than *limit*; nothing beyond that was taken.
            ObjectMissing: There is none.
        """
        taken = 0
        for piece in self._pieces(name, version):
            taken += len(piece)
            if taken > limit:
                raise AuditCorruption(
                    f"archive damaged: {name!r} is longer than the {limit} bytes it should have", file=name
                )
            yield piece

    def _pieces(self, name: str, version: str) -> Iterator[bytes]:
        options = {"version": version} if version else None
        try:
            answer = self._obstore.get(self._plain, self.place.key(name), options=options)
            for piece in answer.stream(min_chunk_size=_CHUNK):
                yield bytes(piece)
        except self._errors as why:
            self._fail("get", name, why)

    def read(self, name: str, limit: int, *, version: str = "") -> bytes:
        """The whole of object *name*, as `stream`."""
        return b"".join(self.stream(name, limit, version=version))

    def lock_of(self, name: str) -> LockState:
        """What the store says of the lock of object *name*."""
        url = self._sign("HEAD", name)
        status, headers = _head(url)
        if status == 404:
            raise ObjectMissing(f"archive object {name!r} is missing in {self}")
        if status >= 500:
            raise ArchiveUnreachable(
                f"archive {self}: the store answered {status} (head {name!r})", hint=_AGAIN
            )
        if status != 200:
            raise ArchiveRefused(f"archive {self}: the store answered {status} (head {name!r})", hint=_RIGHTS)
        until = headers.get("x-amz-object-lock-retain-until-date", "")
        try:
            moment = datetime.fromisoformat(until[:19]).replace(tzinfo=UTC) if until else None
        except ValueError as why:
            raise ArchiveRefused(f"archive {self}: {name!r} is locked until {until!r}, no date") from why
        return LockState(
            headers.get("x-amz-object-lock-mode", ""),
            moment,
            headers.get("x-amz-object-lock-legal-hold", "") == "ON",
        )

    # -- writing -----------------------------------------------------------------------------------------------

    def put_new(self, name: str, data: bytes, lock: Lock | None) -> str:
        """Create object *name*; its version id, "" in a bucket without versions.

        Raises:
            AlreadyThere: It exists, as far as the store says.
        """
        headers = lock_headers(lock)
        headers["content-md5"] = b64encode(md5(data, usedforsecurity=False).digest()).decode()
        return self._put(name, data, headers)

    def put_with_wrong_checksums(self, name: str, data: bytes) -> None:
        """Try what the store must refuse: *data* with the checksums of something else."""
        other = data + b"?"
        headers = {
            "content-md5": b64encode(md5(other, usedforsecurity=False).digest()).decode(),
            "x-amz-checksum-sha256": b64encode(sha256(other).digest()).decode(),
        }
        self._put(name, data, headers)

    def forget(self, name: str) -> None:
        """Remove object *name*; where versions are kept, only its name goes."""
        try:
            self._obstore.delete(self._plain, self.place.key(name))
        except self._errors as why:
            self._fail("delete", name, why)

    def set_legal_hold(self, name: str, *, hold: bool) -> None:
        """Put object *name* under a legal hold, or release it.

        Raises:
            BadInput: The environment holds no credentials for a request of our own.
        """
        body = f"<LegalHold><Status>{'ON' if hold else 'OFF'}</Status></LegalHold>".encode()
        status, answer = send_signed(
            self.account, "PUT", self.place.bucket, self.place.key(name), "legal-hold", body
        )
        if status != 200:
            self._refuse(f"(legal hold {name!r})", status, answer)

    # -- the client --------------------------------------------------------------------------------------------

    def _client(self, headers: Mapping[str, str]) -> S3Store:
        account = self.account
        config: Any = {"checksum_algorithm": "SHA256", "region": account.region}
        if account.endpoint:
            config["endpoint"] = account.endpoint
        if account.access_key:
            config["access_key_id"] = account.access_key
            config["secret_access_key"] = account.secret_key
            if account.token:
                config["session_token"] = account.token
        return self._s3(
            self.place.bucket,
            config=config,
            client_options={
                "allow_http": account.endpoint.startswith("http://"),
                "default_headers": dict(headers),
                "connect_timeout": timedelta(seconds=10),
                "timeout": timedelta(minutes=10),
            },
            retry_config={
                "max_retries": self._retries,
                "retry_timeout": timedelta(minutes=3),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=10),
                    "base": 2,
                },
            },
        )

    def _put(self, name: str, data: bytes, headers: Mapping[str, str]) -> str:
        if len(data) > MAX_OBJECT_BYTES:
            raise BadInput(f"{name!r} refused: {len(data)} bytes > {MAX_OBJECT_BYTES} bytes")
        try:
            client = self._client(headers)
            done = self._obstore.put(client, self.place.key(name), data, mode="create", use_multipart=False)
        except self._errors as why:
            self._fail("put", name, why)
        return str(done.get("version") or "")

    def _sign(self, method: str, name: str) -> str:
        try:
            url: str = self._obstore.sign(self._plain, method, self.place.key(name), timedelta(minutes=1))
        except self._errors as why:
            self._fail("sign", name, why)
        return url

    def _fail(self, action: str, name: str, why: Exception) -> NoReturn:
        """Raise what *why* means."""
        text = str(why).split("\n\nDebug source", maxsplit=1)[0]
        code, status = _code(text), _STATUS.search(text)
        if type(why).__name__ == "AlreadyExistsError":
            raise AlreadyThere(f"archive object {name!r} exists already in {self}") from why
        if isinstance(why, FileNotFoundError) and code != "NoSuchBucket":
            raise ObjectMissing(f"archive object {name!r} is missing in {self}") from why
        where = f"({action} {name!r})" if name else f"({action})"
        self._refuse(where, int(status[1]) if status else 0, text, why)

    def _refuse(self, where: str, status: int, text: str, why: Exception | None = None) -> NoReturn:
        code, region = _code(text), _REGION.search(text)
        if code in _SENTENCES:
            sentence, hint = _SENTENCES[code]
            if region is not None:
                hint = f"set AWS_REGION={region[1]}"
            raise ArchiveRefused(f"archive {self}: {sentence} {where}: {code}", hint=hint) from why
        if "redirect without LOCATION" in text:
            sentence, hint = _SENTENCES["PermanentRedirect"]
            raise ArchiveRefused(f"archive {self}: {sentence} {where}", hint=hint) from why
        if "invalid path" in text:
            raise ArchiveRefused(
                f"archive {self}: an object there has a name that no archive gives {where}: {text[-200:]}",
                hint="somebody else put it there; remove it, or use a prefix of its own",
            ) from why
        if 400 <= status < 500 and status not in {408, 429}:
            said = code or f"status {status}"
            hint = _RIGHTS if status in {401, 403} else ""
            raise ArchiveRefused(f"archive {self}: the store refused {where}: {said}", hint=hint) from why
        if "169.254.169.254" in text or "credential" in text.lower():
            raise ArchiveRefused(
                f"archive {self}: no credentials {where}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from why
        said = code or (f"status {status}" if status else text.rpartition(" - ")[2].strip()[:200])
        raise ArchiveUnreachable(f"archive {self}: no usable answer {where}: {said}", hint=_AGAIN) from why


def lock_headers(lock: Lock | None) -> dict[str, str]:
    """The headers that lock an object as it is created."""
    if lock is None:
        return {}
    headers = {
        "x-amz-object-lock-mode": lock.mode,
        "x-amz-object-lock-retain-until-date": f"{lock.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    if lock.legal_hold:
        headers["x-amz-object-lock-legal-hold"] = "ON"
    return headers


def _head(url: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a HEAD; http.client gives the headers that obstore does not."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=_HEAD_TIMEOUT_SECS)
    try:
        connection.request("HEAD", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException) as why:
        raise ArchiveUnreachable(f"archive: no answer from {parts.netloc}: {why}", hint=_AGAIN) from why
    finally:
        connection.close()


def _code(text: str) -> str:
    found = _CODE.search(text)
    return found[1] if found else ""


_AGAIN = "what was stored stays; run the same command again"
_RIGHTS = (
    "give this key s3:PutObject, s3:GetObject, s3:ListBucket, s3:PutObjectRetention and s3:GetObjectRetention"
)
_KEY = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_REGION_HINT = "set AWS_REGION to the bucket's region"
_SENTENCES: Mapping[str, tuple[str, str]] = {
    "NoSuchBucket": ("there is no such bucket", "make the bucket with object lock, or correct the address"),
    "AccessDenied": ("access denied", _RIGHTS),
    "AllAccessDisabled": ("access denied", _RIGHTS),
    "InvalidAccessKeyId": ("the store does not know this key", _KEY),
    "SignatureDoesNotMatch": ("the secret key is wrong", _KEY),
    "ExpiredToken": ("the session token has expired", _KEY),
    "InvalidToken": ("the session token is not valid", _KEY),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set the clock"),
    "AuthorizationHeaderMalformed": ("wrong region", _REGION_HINT),
    "PermanentRedirect": ("wrong region or endpoint", _REGION_HINT),
    "IllegalLocationConstraintException": ("wrong region", _REGION_HINT),
}

"""A sink that is a time-stamping authority: it signs that a checkpoint existed at a moment.

Promise: ANCHORED means that the authority's token was verified, before it was kept: over the bytes of the signed
checkpoint, with the nonce that was sent, by a certificate for time stamping that leads to one of the certificates
the person named, valid at the time in the token. Whoever has the file and the token verifies them without us:

    openssl ts -verify -data 20261121-000000000412.note -in 20261121-000000000412.tsr -CAfile authority.pem

Limits: an authority remembers nothing of a log, so it cannot refuse one that went back; the receipt it gave before
can. Name the root of its chain, not only its own certificate, unless that one signed itself. A token whose
certificates are not in the order DER wants is refused by the library (several authorities' are not).

Source: RFC 3161; rfc3161-client, at least 1.0.3 (CVE-2025-52556).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256, sha384, sha512
from pathlib import Path
from typing import NamedTuple

import rfc3161_client as tsp
from cryptography import x509

from holdfast.anchors.http import HttpAnswer, check_url, post
from holdfast.anchors.sink import Outcome, Receipt, Submission
from holdfast.audit.anchor import Mark
from holdfast.core.clock import iso_utc
from holdfast.core.errors import AnchorUnreachable, BadInput
from holdfast.core.files import read_named

MAX_TOKEN_BYTES = 64 << 10
MAX_AUTHORITY_BYTES = 1 << 20

_HASHERS = {32: sha256, 48: sha384, 64: sha512}
_QUERY = "application/timestamp-query"


class Stamp(NamedTuple):
    """What a verified token says.

    Attributes:
        time_ns: When the authority saw the data, UTC ns.
        serial: Its number of the token.
    """

    time_ns: int
    serial: int


class TimestampSink:
    """A time-stamping authority that is asked over HTTP.

    Args:
        url: Where it listens.
        authority: PEM file of the certificates that its own must lead to.

    Raises:
        BadInput: The URL is none, or the file holds no certificate.
    """

    def __init__(self, url: str, authority: Path) -> None:
        self._url = check_url(url)
        self._authority = read_named(authority, MAX_AUTHORITY_BYTES, "file of certificates")
        self._certificates = read_certificates(self._authority, str(authority))

    @property
    def name(self) -> str:
        """Kind and address."""
        return f"rfc3161:{self._url}"

    def submit(self, submission: Submission) -> Receipt:
        """Have the checkpoint's bytes stamped."""
        size = submission.checkpoint.size
        query = (
            tsp.TimestampRequestBuilder()
            .data(submission.note)
            .hash_algorithm(tsp.HashAlgorithm.SHA256)
            .cert_request(cert_request=True)
            .build()
        )
        try:
            answer = post(self._url, query.as_bytes(), _QUERY, most=MAX_TOKEN_BYTES)
            _check_status(self._url, answer)
        except AnchorUnreachable as why:
            return Receipt(self.name, Outcome.UNKNOWN, size, str(why))
        try:
            stamp = check_token(answer.body, submission.note, self._certificates, nonce=query.nonce)
        except BadInput as why:
            return Receipt(self.name, Outcome.REFUSED, size, str(why))
        return Receipt(
            self.name,
            Outcome.ANCHORED,
            size,
            f"stamped at {iso_utc(stamp.time_ns)}, serial {stamp.serial}",
            submission.note,
            answer.body,
            self._authority,
        )

    def marks(self, log_id: str) -> Iterable[Mark]:
        """None: an authority remembers nothing."""
        del log_id
        return ()


def read_certificates(pem: bytes, source: str) -> list[x509.Certificate]:
    """The certificates in a PEM file.

    Raises:
        BadInput: It holds none, or something that is none.
    """
    try:
        if len(pem) > MAX_AUTHORITY_BYTES:
            raise ValueError(f"more than {MAX_AUTHORITY_BYTES} bytes")  # noqa: TRY301  one message for all
        return x509.load_pem_x509_certificates(pem)
    except ValueError as why:
        raise BadInput(
            f"{source!r} holds no certificates: {why}", hint="expected a PEM file of the authority's root"
        ) from why


def check_token(
    token: bytes, data: bytes, certificates: Iterable[x509.Certificate], *, nonce: int | None = None
) -> Stamp:
    """What *token* (an RFC 3161 response, DER) says of *data*, once it is verified.

    Raises:
        BadInput: It cannot be read, does not speak of *data*, was refused, or is not by whom it must be.
    """
    builder = tsp.VerifierBuilder(nonce=nonce)
    for certificate in dict.fromkeys(certificates):
        builder = builder.add_root_certificate(certificate)
    try:
        response = tsp.decode_timestamp_response(token)
        builder.build().verify_message(response, data)
        info = response.tst_info
        return Stamp(round(info.gen_time.timestamp() * 1_000_000) * 1000, info.serial_number)
    except (tsp.VerificationError, ValueError) as why:
        raise BadInput(f"time stamp refused: {why}") from why


def check_unsigned(token: bytes, data: bytes) -> None:
    """Return if *token* claims to speak of *data*; who made it is not known.

    Raises:
        BadInput: It cannot be read, or speaks of something else.
    """
    try:
        imprint = tsp.decode_timestamp_response(token).tst_info.message_imprint
    except ValueError as why:
        raise BadInput(f"time stamp refused: {why}") from why
    hasher = _HASHERS.get(len(imprint.message))
    if hasher is None or hasher(data).digest() != imprint.message:
        raise BadInput("time stamp refused: it speaks of something else than the checkpoint beside it")


def _check_status(url: str, answer: HttpAnswer) -> None:
    if answer.status != 200:
        raise AnchorUnreachable(f"{url} answered with status {answer.status}")

"""One S3 request signed by ourselves: AWS Signature Version 4 over the standard library.

For the one call that obstore cannot make, a PUT on a subresource of an object. It takes its credentials from the
usual variables alone; roles are exported into them first (`aws configure export-credentials --format env`).

Source: AWS General Reference, "Signature Version 4 signing process".
"""

from __future__ import annotations

import hmac
import http.client
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import md5, sha256
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from holdfast.core.errors import ArchiveUnreachable, BadInput

_TIMEOUT_SECS = 60
_MAX_ANSWER = 1 << 16


class Account(NamedTuple):
    """Where a store is and who asks; credentials never stand in a message.

    Attributes:
        endpoint: Its address, or "" for AWS itself.
        region: Its region.
        access_key: Or "", where obstore finds the credentials of a role itself.
        secret_key: Belongs to it.
        token: Of a session, or "".
    """

    endpoint: str
    region: str
    access_key: str
    secret_key: str
    token: str

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Account(endpoint={self.endpoint!r}, region={self.region!r}, access_key={self.access_key!r})"

    @classmethod
    def of(cls, environ: Mapping[str, str], endpoint: str | None = None) -> Account:
        """What the usual variables say; *endpoint* wins over them.

        Raises:
            BadInput: The endpoint is no address, or would send the data in clear over a network.
        """
        address = (
            endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        ).rstrip("/")
        parts = urlsplit(address)
        if address and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path):
            raise BadInput(
                f"endpoint {address!r} is not an address", hint="for instance https://s3.example.com"
            )
        if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
            raise BadInput(
                f"endpoint {address!r} is not encrypted", hint="use https; http is for this machine alone"
            )
        return cls(
            address,
            environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            environ.get("AWS_ACCESS_KEY_ID", ""),
            environ.get("AWS_SECRET_ACCESS_KEY", ""),
            environ.get("AWS_SESSION_TOKEN", ""),
        )


def send_signed(  # noqa: PLR0917  the parts of a request in their order
    account: Account, method: str, bucket: str, key: str, subresource: str, body: bytes
) -> tuple[int, str]:
    """Send one request for the *subresource* of an object; status and text of the answer.

    Raises:
        BadInput: The account has no credentials of its own.
        ArchiveUnreachable: There was no answer.
    """
    if not account.access_key or not account.secret_key:
        raise BadInput(
            "this request is signed here and needs credentials in the environment",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY;"
            " of a role: eval $(aws configure export-credentials --format env)",
        )
    if account.endpoint:
        parts = urlsplit(account.endpoint)
        host, path = parts.netloc, f"/{bucket}/{quote(key, safe='/-_.~')}"
    else:
        parts = urlsplit("https://s3")
        host, path = f"{bucket}.s3.{account.region}.amazonaws.com", f"/{quote(key, safe='/-_.~')}"
    now = datetime.now(UTC)
    headers = {
        "content-md5": b64encode(md5(body, usedforsecurity=False).digest()).decode(),
        "host": host,
        "x-amz-content-sha256": sha256(body).hexdigest(),
        "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
    }
    if account.token:
        headers["x-amz-security-token"] = account.token
    headers["authorization"] = authorization(account, method, path, subresource, headers)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, timeout=_TIMEOUT_SECS)
    try:
        connection.request(method, f"{path}?{subresource}=", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_ANSWER).decode(errors="replace")
    except (OSError, http.client.HTTPException) as why:
        raise ArchiveUnreachable(
            f"archive: no answer from {host}: {why}", hint="run the same command again"
        ) from why
    finally:
        connection.close()


def authorization(
    account: Account, method: str, path: str, subresource: str, headers: Mapping[str, str]
) -> str:
    """The value of a request's Authorization header; every one of *headers*, in lower case, is signed."""
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        [
            method,
            path,
            f"{subresource}=",
            *(f"{name}:{headers[name]}" for name in sorted(headers)),
            "",
            names,
            headers["x-amz-content-sha256"],
        ]
    )
    moment = headers["x-amz-date"]
    parts = (moment[:8], account.region, "s3", "aws4_request")
    scope = "/".join(parts)
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{account.secret_key}".encode()
    for part in parts:
        key = hmac.new(key, part.encode(), sha256).digest()
    signature = hmac.new(key, to_sign.encode(), sha256).hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={account.access_key}/{scope},SignedHeaders={names},Signature={signature}"

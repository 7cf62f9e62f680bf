"""Requests to an S3 service, signed and typed, over one pool of connections; everything here blocks.

`minio` gives the signature; its client's own calls are not used for objects, because they know no condition
on a write, hash each body once more, and repeat requests while they hold a thread.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import urllib3
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse

from services.runtime.errors import Internal, KinoError
from services.runtime.objects import ObjectStoreFailed, ObjectStoreFull

#: Ends the name of every object, and no folder: for SeaweedFS `a` and `a/b` are a file and a folder.
SUFFIX = "@"
CONNECT_TIMEOUT_S = 3.0
#: Without a byte for so long a request is given up.
READ_TIMEOUT_S = 20.0
EMPTY_SHA256 = hashlib.sha256().hexdigest()
#: Answers to read-only questions and errors are XML of at most this size.
_MAX_XML_BYTES = 8 << 20
_FULL = frozenset(
    {"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
)
#: Besides 5xx: what the service itself asks to repeat, and bytes damaged on their way.
_REPEATABLE = frozenset(
    {
        *("SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "TooManyRequests"),
        *("XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody", "InvalidDigest"),
        # Versity while it makes or removes the folder; none of our names is another's.
        *("ExistingObjectIsDirectory", "ObjectParentIsFile"),
    }
)
#: Errors that may come after a 200 was sent, by the status they have otherwise.
_LATE = {"PreconditionFailed": 412, "NoSuchUpload": 404}
_HINTS = {
    "AccessDenied": "allow the access key to read, write, list and delete in the bucket",
    "InvalidAccessKeyId": "set KINO_S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "set KINO_S3_SECRET_KEY",
    "NoSuchBucket": "start Kino, which makes the bucket, or set KINO_S3_BUCKET",
    "RequestTimeTooSkewed": "set this machine's clock, and keep it by NTP",
    "AuthorizationHeaderMalformed": "set KINO_S3_REGION",
    "PermanentRedirect": "set KINO_S3_URL and KINO_S3_REGION to where the bucket is",
}


class ObjectStoreRefuses(Internal):
    """The object store refuses {operation} ({cause}): {hint}."""

    reason = "OBJECT_STORE_REFUSES"
    fields: tuple[str, ...] = ("operation", "cause", "hint")


class ClockDiffers(ObjectStoreRefuses):
    """The object store refuses {operation}: clocks differ by {difference_s} s; {hint}."""

    reason = "CLOCK_DIFFERS"
    fields: tuple[str, ...] = ("operation", "cause", "hint", "difference_s")


class Passing(Exception):
    """No answer, or one that says that a repetition may help; what happened, in words."""


@dataclass(kw_only=True)
class Call:
    """What one thread does at the moment; `stop` ends it from another."""

    connection: HTTPConnection | None = None
    stopped: bool = False

    def stop(self) -> None:
        """Break the connection, which frees the thread."""
        self.stopped = True
        connection_socket = self.connection and self.connection.sock
        if connection_socket:
            with suppress(OSError):
                connection_socket.shutdown(socket.SHUT_RDWR)


class _Current(threading.local):
    call: Call | None = None


_current = _Current()


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """The requests of this thread inside the block belong to `call`."""
    _current.call = call
    try:
        if call.stopped:
            raise Passing("stopped before it began")
        yield
    finally:
        _current.call = None


def waited_on() -> HTTPConnection | None:
    """The connection of this thread's latest request."""
    return None if _current.call is None else _current.call.connection


def wait_on(connection: HTTPConnection | None) -> None:
    """This thread goes on with a connection that another began to use."""
    if _current.call is not None:
        _current.call.connection = connection


class _Noting(HTTPConnection):
    """Tells the thread's `Call` which connection it waits on."""

    def request(self, *args: Any, **options: Any) -> None:
        if _current.call is not None:
            _current.call.connection = self
        super().request(*args, **options)


class _NotingTls(_Noting, HTTPSConnection):
    """The same over TLS."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A request that succeeded, or a refusal that the caller wants to see."""

    status: int
    headers: Mapping[str, str]
    #: Empty when the body is left to be read from `response`.
    body: bytes = b""
    response: BaseHTTPResponse | None = None
    #: S3's word for a refusal: `NoSuchKey`; empty for a success.
    code: str = ""

    def xml(self) -> ElementTree.Element:
        """The body. Raises `Passing` when it is none."""
        try:
            return ElementTree.fromstring(self.body)
        except ElementTree.ParseError:
            raise Passing("the answer is not whole XML") from None


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bucket of an S3 service, addressed path-style; for any number of threads."""

    url: str
    name: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    #: Kept open; more are made when needed.
    connections: int = 16
    _pool: HTTPConnectionPool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        tls = parts.scheme == "https"
        pool = (HTTPSConnectionPool if tls else HTTPConnectionPool)(
            parts.hostname or "",
            parts.port,
            maxsize=self.connections,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=False,
        )
        pool.ConnectionCls = _NotingTls if tls else _Noting
        object.__setattr__(self, "_pool", pool)

    def close(self) -> None:
        """Close the connections that rest."""
        self._pool.close()

    def call(
        self,
        operation: str,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        sha256: str | None = None,
        expected: tuple[int, ...] = (200,),
        seen: tuple[int, ...] = (),
        leave_body: bool = False,
    ) -> Answer:
        """Send one request, once, about the object `key` or the bucket.

        The service verifies the body by its `sha256`. Statuses in `expected` are success; those in `seen` are
        returned too. Raises `Passing` when a repetition may help, else `ObjectStoreRefuses`,
        `ObjectStoreFull`, `ObjectStoreFailed`.
        """
        path = quote(f"/{self.name}/{key}{SUFFIX}" if key else f"/{self.name}", safe="/-_.~")
        target = f"{path}?{urlencode(sorted((query or {}).items()), quote_via=quote)}" if query else path
        sha256 = sha256 or _digest(body)
        given = dict(headers or {})
        if method == "PUT" and key:
            # SeaweedFS verifies this one, and not the one of the signature.
            given["x-amz-checksum-sha256"] = in_base64(sha256)
        signed = self._signed(method, target, given, sha256)
        if body or method in ("PUT", "POST"):
            signed["Content-Length"] = str(len(body))
        try:
            response = self._pool.urlopen(
                method, target, body=body or None, headers=signed, preload_content=False, redirect=False
            )
            if leave_body and response.status in expected:
                return Answer(status=response.status, headers=response.headers, response=response)
            content = response.read(_MAX_XML_BYTES + 1)
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Passing(_said(error)) from error
        code = _code(response.status, content)
        status = _LATE.get(code, response.status)
        answer = Answer(status=status, headers=response.headers, body=content, code=code)
        if len(content) > _MAX_XML_BYTES:
            raise ObjectStoreFailed(operation, "an answer of endless length")
        if (status in expected and not code) or (status in seen and code != "NoSuchBucket"):
            return answer
        raise _error(operation, answer)

    def _signed(self, method: str, target: str, headers: Mapping[str, str], sha256: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        parts = urlsplit(self.url)._replace(path=target.partition("?")[0], query=target.partition("?")[2])
        wanted: dict[str, Any] = {
            **headers,
            "Host": parts.netloc,
            "x-amz-content-sha256": sha256,
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        return dict(
            sign_v4_s3(
                method=method,
                url=parts,
                region=self.region,
                headers=wanted,
                credentials=Credentials(self.access_key, self.secret_key),
                content_sha256=sha256,
                date=now,
            )
        )


def in_base64(sha256: str) -> str:
    """A hexadecimal checksum as S3 writes it."""
    return b64encode(bytes.fromhex(sha256)).decode()


def text_of(element: ElementTree.Element, name: str) -> str:
    """The text of the child `name`, whatever its namespace; empty without one."""
    found = element.find(f"{{*}}{name}")
    return "" if found is None else found.text or ""


def difference_s(headers: Mapping[str, str]) -> float | None:
    """How far the service's clock is ahead of ours, to a second; None when it didn't tell."""
    try:
        told = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None
    return (told - datetime.now(UTC)).total_seconds()


def refusal(operation: str, code: str) -> ObjectStoreRefuses:
    """The error for S3's `code`, with what to do."""
    return ObjectStoreRefuses(operation, code, _HINTS[code])


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256


def _said(error: Exception) -> str:
    """What happened, without the addresses that urllib3 puts into its sentences."""
    # The first of these is also a time-out, for urllib3.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "it can't be reached"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return "the connection broke"


def _code(status: int, content: bytes) -> str:
    """The code of an error in the body: also a success may carry one, after it was begun."""
    if status < 300 and b"<Error" not in content[:400]:
        return ""
    with suppress(ElementTree.ParseError):
        found = ElementTree.fromstring(content)
        if found.tag.rpartition("}")[2] == "Error":
            return text_of(found, "Code") or "Unknown"
    return "" if status < 300 else f"HTTP {status}"


def _error(operation: str, answer: Answer) -> KinoError | Passing:
    code, status = answer.code, answer.status
    if status == 507 or code in _FULL:
        return ObjectStoreFull(quota="object store")
    if code == "RequestTimeTooSkewed":
        seconds = round(difference_s(answer.headers) or 0)
        return ClockDiffers(operation, code, _HINTS[code], seconds)
    if (status >= 500 and status != 501) or status in (408, 429) or code in _REPEATABLE or status < 300:
        return Passing(f"it answered {code or status}")
    if status in (301, 307):
        code = "PermanentRedirect"
    if status == 403 and code not in _HINTS:
        code = "AccessDenied"
    if code in _HINTS:
        return refusal(operation, code)
    return ObjectStoreFailed(operation, code)

"""A call of gRPC over HTTP/2, as a handler sees it (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
import grpc.aio

from services.runtime.streams.connection import Connection, Headers

#: Not percent-encoded in `grpc-message`: printable ASCII but the percent sign.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
#: Headers that belong to the transport.
_TRANSPORT = frozenset({"te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"})
_CONTENT = (":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity")

Metadata = Sequence[tuple[str, str | bytes]]


class BadRequest(Exception):
    """What came isn't a call of gRPC: the HTTP status that says so."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Call:
    """Has what our handlers and the interceptor use of gRPC's `ServicerContext`."""

    def __init__(self, connection: Connection, stream_id: int, headers: Headers) -> None:
        """Raises `BadRequest`."""
        known = dict(headers)
        if known.get(":method") != "POST" or not known.get("content-type", "").startswith("application/grpc"):
            raise BadRequest(415)
        self._connection = connection
        self._stream_id = stream_id
        self.path = known.get(":path", "")
        self._metadata = tuple(_decoded(headers))
        timeout_s = _timeout_s(known.get("grpc-timeout", ""))
        self._end_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self._code = grpc.StatusCode.OK
        self._begun = False
        self.serialize: Callable[[Any], bytes] = bytes

    def invocation_metadata(self) -> Metadata:
        """What the client sent beside the request."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline."""
        return None if self._end_s is None else max(0.0, self._end_s - asyncio.get_running_loop().time())

    def peer(self) -> str:
        """Who calls: `ipv4:127.0.0.1:50000`."""
        return self._connection.peer

    def code(self) -> grpc.StatusCode:
        """The status so far."""
        return self._code

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Begin the answer with these headers."""
        self._begin(metadata)

    async def write(self, message: Any) -> None:
        """Send one message, or its finished parts as a tuple; returns when the kernel has it."""
        self._begin(())
        parts = message if isinstance(message, tuple) else (self.serialize(message),)
        prefix = b"\0" + sum(map(len, parts)).to_bytes(4, "big")
        await self._connection.send(self._stream_id, (prefix, *parts))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with this status. Raises `grpc.aio.AbortError`."""
        self._code = code
        self.end(code, details, trailing_metadata)
        raise grpc.aio.AbortError

    def end(self, code: grpc.StatusCode, details: str = "", metadata: Metadata = ()) -> None:
        """Send the status, after all that was written; a second one is not sent."""
        trailers = [("grpc-status", str(code.value[0])), *_encoded(metadata)]
        if details:
            trailers.insert(1, ("grpc-message", quote(details, safe=_PLAIN)))
        head = () if self._begun else _CONTENT
        self._connection.end(self._stream_id, [*head, *trailers])

    def _begin(self, metadata: Metadata) -> None:
        if not self._begun:
            self._begun = True
            self._connection.send_headers(self._stream_id, [*_CONTENT, *_encoded(metadata)])


def message_of(body: bytes) -> bytes:
    """The one message of a request. Raises `ValueError` for another number of them, or a compressed one."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise ValueError("not one uncompressed message")
    return body[5:]


def _decoded(headers: Headers) -> list[tuple[str, str | bytes]]:
    found = list[tuple[str, str | bytes]]()
    for key, value in headers:
        if key.startswith(":") or key in _TRANSPORT:
            continue
        if key.endswith("-bin"):
            try:
                found += [
                    (key, base64.b64decode(one + "=" * (-len(one) % 4), validate=True))
                    for one in value.split(",")
                ]
            except (binascii.Error, ValueError):
                raise BadRequest(400) from None
        else:
            found.append((key, value))
    return found


def _encoded(metadata: Metadata) -> list[tuple[str, str]]:
    return [
        (key, base64.b64encode(value).decode() if isinstance(value, bytes) else value)
        for key, value in metadata
    ]


def _timeout_s(text: str) -> float | None:
    if not text:
        return None
    number, unit = text[:-1], text[-1]
    if unit not in _UNITS_S or not number.isascii() or not number.isdigit() or len(number) > 8:
        raise BadRequest(400)
    return int(number) * _UNITS_S[unit]

"""Between `KinoError` and `google.rpc.Status`: what the server sends and what a client reads back.

A status travels in HTTP/2 trailers, which many clients cap at 8 KiB, and its message twice: so everything in
it has a limit.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from services.runtime.errors import Code, KinoError, RemoteError, Unavailable, Violation

DOMAIN = "kino"
DETAILS_KEY = "grpc-status-details-bin"
MAX_MESSAGE_BYTES = 1024
_MAX_STATUS_BYTES = 3072
_MAX_VALUE_BYTES = 256

#: Answers of another service that say nothing to our own caller: our credential, our bug, or theirs.
_PRIVATE = frozenset({Code.UNAUTHENTICATED, Code.INTERNAL, Code.UNKNOWN, Code.UNIMPLEMENTED, Code.DATA_LOSS})


def status_of(error: KinoError) -> status_pb2.Status:
    """The status of an error, with `ErrorInfo` first and the other details that fit it."""
    status = status_pb2.Status(code=error.code.value, message=_cut(error.message, MAX_MESSAGE_BYTES))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    for key, value in list(error.metadata.items())[:16]:
        info.metadata[key[:64]] = _cut(value, _MAX_VALUE_BYTES)
    for detail in [info, *_details(error)]:
        status.details.add().Pack(detail)
        if status.ByteSize() > _MAX_STATUS_BYTES:
            del status.details[-1]
    return status


def _details(error: KinoError) -> list[Any]:
    details: list[Any] = []
    if error.retry_after_ms is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=0)))
        details[-1].retry_delay.FromMilliseconds(error.retry_after_ms)
    sentence = _cut(error.message, _MAX_VALUE_BYTES)
    if error.code is Code.RESOURCE_EXHAUSTED:
        subject = error.metadata.get("quota", "")
        details.append(
            error_details_pb2.QuotaFailure(
                violations=[error_details_pb2.QuotaFailure.Violation(subject=subject, description=sentence)]
            )
        )
    if error.code is Code.FAILED_PRECONDITION:
        subject = error.metadata.get("subject", "")
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type=error.reason, subject=subject, description=sentence
                    )
                ]
            )
        )
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, 128), description=_cut(violation.description, _MAX_VALUE_BYTES)
        )
        for violation in error.violations[:5]
    ]
    if violations:
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    return details


def error_of(error: grpc.aio.AioRpcError) -> RemoteError:
    """What another service answered, typed; an answer without Kino's details gets its code as the reason."""
    code = Code(error.code().value[0]) if error.code().value[0] in Code._value2member_map_ else Code.UNKNOWN
    info = error_details_pb2.ErrorInfo(reason=code.name)
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    with suppress(DecodeError):  # a proxy's or a stranger's details: the code alone is read
        for detail in _status_in(error).details:
            for message in (info, bad_request, retry):
                if detail.Is(message.DESCRIPTOR):
                    detail.Unpack(message)
    violations = (Violation(field=v.field, description=v.description) for v in bad_request.field_violations)
    return RemoteError(
        code=code,
        reason=info.reason,
        message=error.details() or "",
        metadata=dict(info.metadata),
        violations=tuple(violations),
        retry_after_ms=retry.retry_delay.ToMilliseconds() if retry.HasField("retry_delay") else None,
    )


def forwarded(error: grpc.aio.AioRpcError) -> KinoError | None:
    """What our caller gets when a handler lets another service's answer through; None: treat as a bug.

    What that service said about the request is passed on; that it can't be reached becomes `Unavailable`.
    """
    remote = error_of(error)
    if remote.code in _PRIVATE:
        return None
    if remote.code in (Code.UNAVAILABLE, Code.CANCELLED):
        return Unavailable(remote.retry_after_ms or 1_000)
    return remote


def _status_in(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _cut(text: str, limit_bytes: int) -> str:
    raw = text.encode(errors="replace")
    if len(raw) <= limit_bytes:
        return text
    return raw[: limit_bytes - 3].decode(errors="ignore") + "…"

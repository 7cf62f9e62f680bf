from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KinoError,
    NotFound,
    OutcomeUnknown,
    OutOfRange,
    PermissionDenied,
    RemoteError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
    Violation,
)
from services.runtime.status import DETAILS_KEY, error_of, forwarded, status_of

MESSAGES = (
    details.ErrorInfo,
    details.BadRequest,
    details.RetryInfo,
    details.QuotaFailure,
    details.PreconditionFailure,
)


def unpacked(status: status_pb2.Status) -> list[Any]:
    found = []
    for detail in status.details:
        for message in MESSAGES:
            if detail.Is(message.DESCRIPTOR):
                found.append(message.FromString(detail.value))
    assert len(found) == len(status.details)
    return found


def info(reason: str, **metadata: str) -> details.ErrorInfo:
    return details.ErrorInfo(reason=reason, domain="kino", metadata=metadata)


def bad_request(field: str, description: str) -> details.BadRequest:
    violation = details.BadRequest.FieldViolation(field=field, description=description)
    return details.BadRequest(field_violations=[violation])


def rpc_error(
    status: status_pb2.Status | None, code: grpc.StatusCode, message: str = ""
) -> grpc.aio.AioRpcError:
    trailing = () if status is None else ((DETAILS_KEY, status.SerializeToString()),)
    return grpc.aio.AioRpcError(
        code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*trailing),
        details=message or (status.message if status else ""),
    )


def as_received(error: KinoError) -> grpc.aio.AioRpcError:
    status = status_of(error)
    return rpc_error(status, next(code for code in grpc.StatusCode if code.value[0] == status.code))


RETRY = details.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
EXPECTED: list[tuple[KinoError, Code, list[Any]]] = [
    (
        InvalidArgument("offset", "is negative"),
        Code.INVALID_ARGUMENT,
        [
            info("INVALID_ARGUMENT", field="offset", problem="is negative"),
            bad_request("offset", "is negative"),
        ],
    ),
    (
        ValidationFailed((Violation(field="a", description="b"),)),
        Code.INVALID_ARGUMENT,
        [info("VALIDATION_FAILED"), bad_request("a", "b")],
    ),
    (
        OutOfRange("offset", "is past the end"),
        Code.OUT_OF_RANGE,
        [info("OUT_OF_RANGE", field="offset", problem="is past the end")],
    ),
    (NotFound("titles/x"), Code.NOT_FOUND, [info("NOT_FOUND", resource="titles/x")]),
    (AlreadyExists("users/x"), Code.ALREADY_EXISTS, [info("ALREADY_EXISTS", resource="users/x")]),
    (PermissionDenied(), Code.PERMISSION_DENIED, [info("PERMISSION_DENIED")]),
    (Unauthenticated(), Code.UNAUTHENTICATED, [info("UNAUTHENTICATED")]),
    (
        FailedPrecondition("It is closed.", "titles/x"),
        Code.FAILED_PRECONDITION,
        [
            info("FAILED_PRECONDITION", problem="It is closed.", subject="titles/x"),
            details.PreconditionFailure(
                violations=[
                    details.PreconditionFailure.Violation(
                        type="FAILED_PRECONDITION", subject="titles/x", description="It is closed."
                    )
                ]
            ),
        ],
    ),
    (Aborted("Somebody else won."), Code.ABORTED, [info("ABORTED", problem="Somebody else won.")]),
    (
        ResourceExhausted("uploads", 1500),
        Code.RESOURCE_EXHAUSTED,
        [
            info("RESOURCE_EXHAUSTED", quota="uploads", retry_after_ms="1500"),
            RETRY,
            details.QuotaFailure(
                violations=[
                    details.QuotaFailure.Violation(
                        subject="uploads", description="The limit uploads is used up."
                    )
                ]
            ),
        ],
    ),
    (Unavailable(1500), Code.UNAVAILABLE, [info("UNAVAILABLE", retry_after_ms="1500"), RETRY]),
    (DeadlineExceeded(), Code.DEADLINE_EXCEEDED, [info("DEADLINE_EXCEEDED")]),
    (OutcomeUnknown(), Code.UNKNOWN, [info("OUTCOME_UNKNOWN")]),
    (Internal("01abc"), Code.INTERNAL, [info("INTERNAL", incident="01abc")]),
]


@pytest.mark.parametrize(("error", "code", "expected"), EXPECTED, ids=lambda v: type(v).__name__)
def test_each_error_has_its_code_and_details(error: KinoError, code: Code, expected: list[Any]) -> None:
    status = status_of(error)
    assert (status.code, status.message, unpacked(status)) == (code.value, error.message, expected)


def test_every_generic_error_is_in_the_table() -> None:
    generic = {cls for cls in KinoError.__subclasses__() if cls.__module__ == "services.runtime.errors"}
    assert generic - {RemoteError} <= {type(error) for error, _, _ in EXPECTED}


@pytest.mark.parametrize("error", [error for error, _, _ in EXPECTED], ids=lambda e: type(e).__name__)
def test_a_client_reads_back_what_the_server_raised(error: KinoError) -> None:
    remote = error_of(as_received(error))
    assert (remote.code, remote.reason, remote.message, remote.metadata) == (
        error.code,
        error.reason,
        error.message,
        error.metadata,
    )
    assert (remote.violations, remote.retry_after_ms) == (error.violations, error.retry_after_ms)


@given(st.text(max_size=20_000), st.dictionaries(st.text(max_size=300), st.text(max_size=5_000), max_size=40))
def test_no_status_is_too_large_for_a_clients_trailers(text: str, metadata: dict[str, str]) -> None:
    violations = tuple(Violation(field=key, description=value) for key, value in metadata.items())
    error = RemoteError(
        code=Code.INVALID_ARGUMENT, reason="R", message=text, metadata=metadata, violations=violations
    )
    status = status_of(error)
    assert len(status.message.encode()) <= 1024
    assert status.ByteSize() <= 3072


def test_an_answer_without_details_is_read_by_its_code() -> None:
    remote = error_of(rpc_error(None, grpc.StatusCode.UNAVAILABLE, "connection refused"))
    assert (remote.code, remote.reason, remote.message) == (
        Code.UNAVAILABLE,
        "UNAVAILABLE",
        "connection refused",
    )


def test_details_that_are_no_status_are_ignored() -> None:
    trailing = grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, details="gone")
    assert (error_of(error).reason, error_of(error).message) == ("NOT_FOUND", "gone")


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "INTERNAL", "UNKNOWN", "UNIMPLEMENTED", "DATA_LOSS"])
def test_what_another_service_says_of_our_own_fault_is_not_passed_on(code: str) -> None:
    assert forwarded(rpc_error(None, grpc.StatusCode[code])) is None


def test_an_unreachable_service_makes_us_unavailable() -> None:
    passed = forwarded(rpc_error(None, grpc.StatusCode.UNAVAILABLE, "10.0.0.7: refused"))
    assert passed is not None
    assert (type(passed), passed.retry_after_ms) == (Unavailable, 1_000)
    assert "10.0.0.7" not in passed.message


def test_a_refusal_by_another_service_is_passed_on_whole() -> None:
    passed = forwarded(as_received(NotFound("titles/x")))
    assert passed is not None
    assert (passed.code, passed.reason, passed.metadata) == (
        Code.NOT_FOUND,
        "NOT_FOUND",
        {"resource": "titles/x"},
    )

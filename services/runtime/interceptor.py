"""What happens around every RPC: request id, access, deadline, validation, typed errors, metrics, log.

One interceptor instead of five: each kind of RPC is wrapped once, and the order is plain to read.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from services.runtime import metrics
from services.runtime.access import Access, access_of, check_allowed
from services.runtime.auth import Principal, TokenVerifier, set_principal
from services.runtime.call import REQUEST_ID_KEY, set_deadline, set_request_id
from services.runtime.errors import DeadlineExceeded, Internal, KinoError, Unauthenticated
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.runtime.status import DETAILS_KEY, forwarded, status_of
from services.runtime.validation import validate

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = logger("rpc")


@dataclass(frozen=True, kw_only=True)
class _Method:
    """What is known of a method before a call of it is handled."""

    path: str
    service: str
    name: str
    access: Access
    unary: bool


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server."""

    def __init__(self, verifier: TokenVerifier, *, unary_deadline_s: float) -> None:
        """`unary_deadline_s` is the deadline of unary calls that come without one."""
        self._verifier = verifier
        self._unary_deadline_s = unary_deadline_s
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The method's handler with everything around it; wrapped once, then reused."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            handler: Any = await continuation(handler_call_details)
            if handler is None:
                # gRPC answers UNIMPLEMENTED.
                return handler  # type: ignore[return-value]
            wrapped = self._wrapped[path] = self._wrap(path, handler)
        return wrapped

    def _wrap(self, path: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        service, _, name = path.strip("/").rpartition("/")
        unary = not handler.request_streaming and not handler.response_streaming
        method = _Method(path=path, service=service, name=name, access=access_of(path), unary=unary)
        behaviour = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        make = _HANDLERS[handler.request_streaming, handler.response_streaming]
        serve = (
            self._streaming(method, behaviour)
            if handler.response_streaming
            else self._single(method, behaviour)
        )
        made: grpc.RpcMethodHandler[Any, Any] = make(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made

    def _single(self, method: _Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> Any:
            async with self._around(method, context):
                return await behaviour(_checked(request), context)

        return serve

    def _streaming(self, method: _Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        # A coroutine that writes, not a generator: when the call is cancelled, the handler is closed here and
        # now, not when the garbage collector finds it.
        async def serve(request: Any, context: Any) -> None:
            async with self._around(method, context):
                answers = behaviour(_checked(request), context)
                if inspect.isawaitable(answers):
                    await answers  # the handler writes to the context itself
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        await context.write(answer)

        return serve

    @asynccontextmanager
    async def _around(self, method: _Method, context: Any) -> AsyncIterator[None]:
        started = time.perf_counter()
        metadata = dict(context.invocation_metadata() or ())
        request_id = _request_id(metadata)
        set_request_id(request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id, rpc=method.path)
        active = metrics.ACTIVE_CALLS.labels(method.service, method.name)
        active.inc()
        code = grpc.StatusCode.OK
        deadline = asyncio.timeout(self._limit(method, context))
        try:
            async with deadline:
                set_principal(self._authenticate(metadata, method.access))
                yield
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.InternalError:
            # A message could not be sent: the client left in the middle of it. gRPC tells that only later.
            code = grpc.StatusCode.CANCELLED
            raise asyncio.CancelledError from None
        except grpc.aio.AbortError:
            code = context.code()
            raise
        except Exception as error:
            status = status_of(DeadlineExceeded() if deadline.expired() else _typed(error, method))
            code = _CODES[status.code]
            await context.abort(
                code, status.message, trailing_metadata=((DETAILS_KEY, status.SerializeToString()),)
            )
        finally:
            active.dec()
            seconds = time.perf_counter() - started
            metrics.CALL_SECONDS.labels(method.service, method.name, code.name).observe(seconds)
            _log.debug("call", code=code.name, ms=round(seconds * 1000, 1))

    def _limit(self, method: _Method, context: Any) -> float | None:
        """Seconds this call may take; also what the calls it makes inherit."""
        remaining: float | None = context.time_remaining()
        if remaining is None and method.unary:
            remaining = self._unary_deadline_s
        set_deadline(remaining)
        return remaining

    def _authenticate(self, metadata: dict[str, Any], access: Access) -> Principal | None:
        """The caller, checked against the method's rule. A bad token where none is needed is ignored."""
        caller = None
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() == "bearer" and token:
            try:
                caller = self._verifier.verify(token.strip())
            except Unauthenticated:
                if access not in (Access.PUBLIC, Access.LEASE):
                    raise
        check_allowed(access, caller)
        return caller


_HANDLERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _checked(request: Any) -> Any:
    """The request after validation; a stream is validated message by message as it is read."""
    if isinstance(request, Message):
        validate(request)
        return request
    return _checked_stream(request) if hasattr(request, "__aiter__") else request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Message):
            validate(request)
        yield request


def _typed(error: Exception, method: _Method) -> KinoError:
    """The error to answer with; an unforeseen one is logged whole and answered with its entry's id."""
    if isinstance(error, KinoError):
        return error
    if isinstance(error, grpc.aio.AioRpcError) and (passed := forwarded(error)) is not None:
        return passed
    incident = new_id()
    metrics.INCIDENTS.inc()
    _log.error("incident", incident=incident, method=method.path, exc_info=error)
    return Internal(incident)


def _request_id(metadata: dict[str, Any]) -> str:
    given = metadata.get(REQUEST_ID_KEY)
    return given[:64] if isinstance(given, str) and given.isprintable() and given else new_id()

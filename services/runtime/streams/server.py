"""Listens, finds each call's handler, and ends in order."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from services.runtime.logs import logger
from services.runtime.streams.call import BadRequest, Call, message_of
from services.runtime.streams.connection import Connection, Headers

_LOOK_EVERY_S = 5.0
#: Connections taken up in one round of the loop, and those that may wait for it.
_ACCEPTS, _BACKLOG = 64, 4096
_log = logger("streams")


@dataclass(frozen=True)
class _Details:
    """gRPC's `HandlerCallDetails`."""

    method: str
    invocation_metadata: Any


class StreamServer:
    """Serves methods with one request; handlers are added as to `grpc.aio.Server`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        interceptor: grpc.aio.ServerInterceptor,
        max_calls: int,
        max_request_bytes: int,
    ) -> None:
        """Binds at once; port 0 picks a free one. Raises `OSError`."""
        self._interceptor = interceptor
        self._max_calls = max_calls
        self._max_request_bytes = max_request_bytes
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._tasks: set[asyncio.Task[None]] = set()
        #: Tasks of calls by stream, for each connection.
        self._connections: dict[Connection, dict[int, asyncio.Task[None]]] = {}
        self._looking: asyncio.Task[None] | None = None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As gRPC's server has it."""
        self._handlers += handlers

    def add_registered_method_handlers(
        self, service: str, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Not needed: generated code adds the same methods as generic handlers."""

    async def start(self) -> None:
        """Accept calls."""
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        self._looking = asyncio.create_task(self._look())

    async def stop(self, grace_s: float | None) -> None:
        """Refuse new calls, let the others finish for so long, then end them."""
        loop = asyncio.get_running_loop()
        if self._listener.fileno() >= 0:
            loop.remove_reader(self._listener)
            self._listener.close()
        for connection in list(self._connections):
            connection.leave()
        if self._tasks and grace_s:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in list(self._connections):
            connection.close()
        if self._looking is not None:
            self._looking.cancel()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    continue  # it was gone before it was taken up
                _log.error("no connection can be taken up", problem=str(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(1.0, self._accept_again)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind = "ipv6" if sock.family == socket.AF_INET6 else "ipv4"
            connection = Connection(
                sock,
                f"{kind}:{address[0]}:{address[1]}",
                max_streams=self._max_calls,
                max_request_bytes=self._max_request_bytes,
                asked=self._asked,
                reset=self._taken_back,
                lost=self._gone,
            )
            self._connections[connection] = {}

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for connection in list(self._connections):
                connection.look()

    def _asked(self, connection: Connection, stream_id: int, headers: Headers, body: bytes | None) -> None:
        try:
            call = Call(connection, stream_id, headers)
        except BadRequest as error:
            connection.end(stream_id, [(":status", str(error.status))])
            return
        if body is None:
            message = f"A request has at most {self._max_request_bytes} bytes."
            call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        elif len(self._tasks) >= self._max_calls:
            call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many calls at once: try again later.")
        else:
            task = asyncio.create_task(self._serve(call, body))
            self._tasks.add(task)
            tasks = self._connections[connection]
            tasks[stream_id] = task
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: tasks.pop(stream_id, None))

    def _taken_back(self, connection: Connection, stream_id: int) -> None:
        task = self._connections[connection].get(stream_id)
        if task is not None:
            task.cancel()

    def _gone(self, connection: Connection) -> None:
        for task in self._connections.pop(connection, {}).values():
            task.cancel()

    async def _serve(self, call: Call, body: bytes) -> None:
        try:
            await self._answer(call, body)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            call.end(grpc.StatusCode.UNAVAILABLE, "The server ends: go on at another one.")
            raise
        except Exception:
            _log.exception("a handler failed", rpc=call.path)
            call.end(grpc.StatusCode.INTERNAL, "Internal error.")

    async def _answer(self, call: Call, body: bytes) -> None:
        details: Any = _Details(call.path, call.invocation_metadata())
        wrapped: Any = await self._interceptor.intercept_service(self._found, details)
        if wrapped is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, f"No method {call.path} is served on this port.")
            return
        try:
            message = message_of(body)
            request = wrapped.request_deserializer(message) if wrapped.request_deserializer else message
        except Exception:
            call.end(
                grpc.StatusCode.INTERNAL, "The request could not be read: send one uncompressed message."
            )
            return
        call.serialize = wrapped.response_serializer or bytes
        if wrapped.response_streaming:
            await wrapped.unary_stream(request, call)
        else:
            await call.write(await wrapped.unary_unary(request, call))
        call.end(grpc.StatusCode.OK)

    async def _found(self, details: grpc.HandlerCallDetails) -> Any:
        found = (handlers.service(details) for handlers in self._handlers)
        return next((handler for handler in found if handler and not handler.request_streaming), None)

"""The gRPC server of a process: one port, any number of services, health, reflection, orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from services.runtime.access import check_declared
from services.runtime.auth import TokenVerifier
from services.runtime.channels import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES
from services.runtime.errors import FailedPrecondition
from services.runtime.interceptor import RpcInterceptor
from services.runtime.streams import StreamServer
from services.runtime.validation import prepare

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

#: Calls a process holds at once, streams included; more are answered RESOURCE_EXHAUSTED.
MAX_CALLS = 8192

SERVER_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Two processes must never share a port silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # A client that froze or vanished is noticed after 40 s; without the ping time-out never.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Mobile clients ping often; none is thrown out for it.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # By itself gRPC cancels calls at random while 1,000 wait to be taken up, as when a premiere starts.
    # `MAX_CALLS` is the one limit, and it is told to the client.
    ("grpc.server.max_pending_requests", MAX_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_CALLS),
)


_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class PortInUse(FailedPrecondition):
    """The address {address} is in use: set KINO_GRPC_PORT, or KINO_STREAM_PORT, to another."""

    reason = "PORT_IN_USE"
    fields: tuple[str, ...] = ("address",)


class CertificateUnusable(FailedPrecondition):
    """The TLS certificate or its key cannot be read: {problem}"""

    reason = "CERTIFICATE_UNUSABLE"
    fields: tuple[str, ...] = ("problem",)


class GrpcServer:
    """Binds at once, so that the port is known before the services are built; serves after `start`."""

    def __init__(self, bind: str, port: int, verifier: TokenVerifier, *, unary_deadline_s: float) -> None:
        """Port 0 picks a free one. Raises `PortInUse`. Needs a running event loop."""
        self._interceptor = RpcInterceptor(verifier, unary_deadline_s=unary_deadline_s)
        self.inner = grpc.aio.server(
            interceptors=[self._interceptor],
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        host = f"[{bind}]" if ":" in bind else bind
        try:
            self.port = self.inner.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            raise PortInUse(f"{host}:{port}") from None
        self._host = host
        #: Serves media without a copy, on a port of its own; None where no service asks for it.
        self.streams: StreamServer | None = None
        #: Port for native clients over TLS; 0 without a certificate.
        self.tls_port = 0
        #: Where this process itself, and others on this machine, reach the server.
        self.address = f"{_WILDCARDS.get(host, host)}:{self.port}"
        self._health = HealthServicer()
        self._names: list[str] = []
        self._serving: dict[str, bool] = {}

    def add_streams(self, port: int) -> StreamServer:
        """Serve media on this port, once for the process. Raises `PortInUse`."""
        if self.streams is None:
            try:
                self.streams = StreamServer(
                    self._host.strip("[]"),
                    port,
                    interceptor=self._interceptor,
                    max_calls=MAX_CALLS,
                    max_request_bytes=MAX_MESSAGE_BYTES,
                )
            except OSError:
                raise PortInUse(f"{self._host}:{port}") from None
        return self.streams

    @property
    def stream_address(self) -> str:
        """Where media is best asked for; `address` where no service has a port for it."""
        return (
            f"{_WILDCARDS.get(self._host, self._host)}:{self.streams.port}" if self.streams else self.address
        )

    def add_tls(self, port: int, certificate: Path, key: Path) -> None:
        """Serve over TLS too, beside the plain port. Raises `PortInUse`, `CertificateUnusable`."""
        try:
            pair = (key.read_bytes(), certificate.read_bytes())
        except OSError as error:
            raise CertificateUnusable(str(error)) from None
        credentials = grpc.ssl_server_credentials([pair])
        try:
            self.tls_port = self.inner.add_secure_port(f"{self._host}:{port}", credentials)
        except RuntimeError:
            raise PortInUse(f"{self._host}:{port}") from None

    def announce(self, names: Sequence[str], parts: Sequence[str] = ()) -> None:
        """Declare services by full name, and the parts of them whose health is told apart.

        Raises `ValueError` when a method declares no access rule.
        """
        check_declared(names)
        self._names += names
        self._serving |= dict.fromkeys([*names, *parts], False)

    async def start(self) -> None:
        """Accept calls; every service reports NOT_SERVING until `set_serving`."""
        prepare()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.inner)
        names = [*self._names, "grpc.health.v1.Health", reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self.inner)
        await self.set_serving([*self._serving], False)
        await self.inner.start()
        if self.streams is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, cast(grpc.aio.Server, self.streams))
            await self.streams.start()

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuse new calls, and end the others after so long."""
        await asyncio.gather(
            self.inner.stop(grace_s), *([self.streams.stop(grace_s)] if self.streams is not None else [])
        )

    async def set_serving(self, names: Sequence[str], serving: bool) -> None:
        """Report the health of services, and with it that of the process: well when all of it is."""
        self._serving |= dict.fromkeys(names, serving)
        for name in names:
            await self._health.set(name, _SERVING if serving else _NOT_SERVING)
        await self._health.set("", _SERVING if all(self._serving.values()) else _NOT_SERVING)

    async def drain(self, *, wait_s: float, grace_s: float, leave: Sequence[Callable[[], None]] = ()) -> None:
        """Report NOT_SERVING, wait for the gateway to notice, refuse new calls, let the others finish.

        `leave` is called when no new call is sent here any more, before the others are waited for.
        """
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(wait_s)
        for ask in leave:
            ask()
        await self.stop(grace_s)

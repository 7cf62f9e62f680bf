"""Calls to other services: one channel per target, our own service token, the deadline, retries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio

from services.runtime.auth import ServiceTokens
from services.runtime.call import REQUEST_ID_KEY, remaining_s, request_id

Stub = TypeVar("Stub")

#: Cap of a unary call's deadline where neither the call nor its own caller sets a shorter one.
UNARY_CAP_S = 10.0
MAX_MESSAGE_BYTES = 8 << 20
MAX_METADATA_BYTES = 64 << 10

#: Only UNAVAILABLE is repeated, and no more once a tenth of the calls fail (gRFC A6).
_SERVICE_CONFIG = json.dumps(
    {
        # Where a service has several nodes, calls go around among those that answer.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    }
)

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # Notices a peer that vanished without closing, or is frozen; the server allows pings as often as that.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted peer is found again within a second, not after the default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Channels:
    """The channels of one process; `of_service` gives the view of one service, with that service's token."""

    def __init__(self, endpoints: Mapping[str, str], local: str, tokens: ServiceTokens) -> None:
        """`endpoints` maps a service to `host:port,…`; services not in it are at `local`."""
        self._endpoints = dict(endpoints)
        self._local = local
        self._tokens = tokens
        self._open: dict[str, grpc.aio.Channel] = {}
        self._service = "kino"

    def of_service(self, service: str) -> Channels:
        """The same channels, calling as `services/{service}`."""
        view = Channels(self._endpoints, self._local, self._tokens)
        view._open = self._open
        view._service = service
        return view

    def address(self, service: str) -> str:
        """Where a service is, `host:port`, of several nodes joined by commas."""
        return self._endpoints.get(service, self._local)

    def stub(self, stub_class: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """A stub of the service that owns this class (`kino.<service>.v1…`).

        Its calls carry our service token and end with the RPC being handled, unary ones after 10 s at most.
        """
        return stub_class(self.channel(stub_class.__module__.split(".")[1]))

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service by name, for calls without a generated stub."""
        address = self.address(service)
        if address not in self._open:
            self._open[address] = grpc.aio.insecure_channel(_target(address), options=CHANNEL_OPTIONS)
        return CallerChannel(self._open[address], self._metadata)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = ("authorization", f"Bearer {self._tokens.token(self._service)}")
        request = request_id()
        return (token,) if request is None else (token, (REQUEST_ID_KEY, request))

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._open.values():
            await channel.close()


def _target(address: str) -> str:
    """The address as gRPC's name resolvers take it: only numeric ones may be several."""
    return f"ipv4:{address}" if "," in address else address


class CallerChannel(grpc.aio.Channel):
    """A channel whose every call gets metadata and a deadline; everything else is the inner channel's."""

    def __init__(
        self,
        inner: grpc.aio.Channel,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        *,
        unary_cap_s: float | None = UNARY_CAP_S,
    ) -> None:
        """`metadata` is asked at each call; `unary_cap_s` ends unary calls whose caller sets no limit."""
        self._unary_cap_s = unary_cap_s
        self._inner = inner
        self._metadata = metadata

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        """A callable for a unary method, capped in time."""
        return self._caller(self._inner.unary_unary(*args, **options), self._unary_cap_s)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        """A callable for a server-streaming method."""
        return self._caller(self._inner.unary_stream(*args, **options), None)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        """A callable for a client-streaming method."""
        return self._caller(self._inner.stream_unary(*args, **options), None)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        """A callable for a bidirectional method."""
        return self._caller(self._inner.stream_stream(*args, **options), None)

    def _caller(self, call: Any, cap_s: float | None) -> Callable[..., Any]:
        def start(*requests: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
            limits = [
                limit
                for limit in (timeout, cap_s if timeout is None else None, remaining_s())
                if limit is not None
            ]
            return call(
                *requests,
                timeout=min(limits, default=None),
                metadata=(*(metadata or ()), *self._metadata()),
                **options,
            )

        return start

    async def close(self, grace: float | None = None) -> None:
        """Close the inner channel."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The inner channel's state."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As the inner channel's."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> CallerChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

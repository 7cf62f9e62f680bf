"""Fixtures every service's tests share; they use the real parts, in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from services.runtime.app import Build, Running, running
from services.runtime.auth import ServiceTokens
from services.runtime.channels import CHANNEL_OPTIONS, CallerChannel
from services.runtime.clock import Clock, ManualClock
from services.runtime.keys import open_keys
from services.runtime.settings import Settings

Metadata = tuple[tuple[str, str], ...]

__all__ = ["ManualClock", "bearer", "channel_of", "service_token", "serving", "settings_in", "user_token"]


def settings_in(folder: Path, **overrides: Any) -> Settings:
    """Settings for a test: everything in `folder`, free ports, quick end."""
    return Settings(data_dir=folder, **{"drain_s": 0.0, "grace_s": 1.0, "grpc_port": 0, **overrides})


@asynccontextmanager
async def serving(
    folder: Path, *, clock: Clock | None = None, settings: Settings | None = None, **services: Build
) -> AsyncIterator[Running]:
    """A process that serves these services on a free port: `serving(tmp_path, catalog=build)`."""
    async with running(settings or settings_in(folder), services, clock=clock) as process:
        yield process


@asynccontextmanager
async def channel_of(
    process: Running, token: str | None = None, *, media: str = "/kino.playback."
) -> AsyncIterator[grpc.aio.Channel]:
    """A client's channel to a served process, with a token on every call or without.

    Methods with one request whose path begins with `media` go to the port of media, as they do behind the
    gateway.
    """
    metadata = bearer(token) if token else ()
    async with (
        grpc.aio.insecure_channel(process.address, options=CHANNEL_OPTIONS) as channel,
        grpc.aio.insecure_channel(process.server.stream_address, options=CHANNEL_OPTIONS) as streams,
    ):
        yield _AsBehindTheGateway(channel, streams, media, lambda: metadata)


class _AsBehindTheGateway(CallerChannel):
    def __init__(
        self, inner: grpc.aio.Channel, streams: grpc.aio.Channel, media: str, metadata: Callable[[], Metadata]
    ) -> None:
        super().__init__(inner, metadata, unary_cap_s=None)
        self._rest = CallerChannel(inner, metadata, unary_cap_s=None)
        self._streams = CallerChannel(streams, metadata, unary_cap_s=None)
        self._media = media

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return self._of(method).unary_unary(method, *args, **options)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return self._of(method).unary_stream(method, *args, **options)

    def _of(self, method: str) -> CallerChannel:
        return self._streams if method.startswith(self._media) else self._rest


def user_token(process: Running, user: str, *roles: str, session: str = "sessions/test") -> str:
    """An access token of `user` (`users/{user}`), valid for 15 minutes of the process's clock."""
    return process.context.signer.sign(user, frozenset(roles), session)[0]


def service_token(process: Running, service: str) -> str:
    """A token of `services/{service}`."""
    keys = open_keys(process.context.settings.keys_folder)
    return ServiceTokens(keys.internal, process.context.clock).token(service)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)

"""Fixtures every service's tests share; they use the real parts, in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
async def channel_of(process: Running, token: str | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """A client's channel to a served process, with a token on every call or without."""
    metadata = bearer(token) if token else ()
    async with grpc.aio.insecure_channel(process.address, options=CHANNEL_OPTIONS) as channel:
        yield CallerChannel(channel, lambda: metadata, unary_cap_s=None)


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

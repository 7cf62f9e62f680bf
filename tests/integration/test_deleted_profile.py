"""A deleted profile leaves nothing with the other services."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from kino.catalog.v1 import resources_pb2, series_pb2, series_pb2_grpc, watchlist_pb2, watchlist_pb2_grpc
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.identity.v1 import identity_pb2, identity_pb2_grpc
from kino.identity.v1.resources_pb2 import Profile
from kino.playback.v1.resources_pb2 import LeaseClaims
from services.catalog import bootstrap as catalog
from services.history import bootstrap as history
from services.identity import bootstrap as identity
from services.identity.usecases import LAST_ERASURE_AFTER
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.testing import bearer, channel_of, service_token, serving, user_token
from tests.integration.test_identity_rpc import cheap_passwords, sign_up

__all__ = ["cheap_passwords"]


class World:
    """Three services in one process, called as another service: it may see every profile."""

    def __init__(self, process: Running, channel: Any, clock: ManualClock) -> None:
        self.process, self.clock = process, clock
        self.identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)
        self.history: Any = history_pb2_grpc.HistoryServiceStub(channel)
        self.series: Any = series_pb2_grpc.SeriesServiceStub(channel)
        self.lists: Any = watchlist_pb2_grpc.WatchlistServiceStub(channel)

    @property
    def service(self) -> Any:
        return bearer(service_token(self.process, "playback"))

    async def watch(self, profile: str, lease: str) -> None:
        claims = LeaseClaims(
            lease=f"leases/{lease}",
            profile=profile,
            title="titles/solaris",
            device="tv",
            title_duration=Duration(seconds=100),
        )
        claims.start_time.FromDatetime(self.clock.now())
        sealer, expires = self.process.context.sealer, self.clock.now() + timedelta(hours=1)
        token = sealer.seal("lease", claims.SerializeToString(), expires)
        request = history_pb2.RecordProgressRequest(
            lease_token=token, sequence=1, position=Duration(seconds=7)
        )
        await self.history.RecordProgress(request)

    async def want(self, profile: str) -> None:
        made = await self.series.CreateSeries(
            series_pb2.CreateSeriesRequest(
                series=resources_pb2.Series(display_name="Dekalog"), request_id=str(uuid.uuid4())
            ),
            metadata=self.service,
        )
        entry = resources_pb2.WatchlistEntry(subject=made.series.name)
        await self.lists.CreateWatchlistEntry(
            watchlist_pb2.CreateWatchlistEntryRequest(
                parent=profile, entry=entry, request_id=str(uuid.uuid4())
            ),
            metadata=self.service,
        )

    async def join(self, user: str) -> str:
        request = identity_pb2.CreateProfileRequest(
            parent=user, profile=Profile(display_name="Kim"), request_id=str(uuid.uuid4())
        )
        made = await self.identity.CreateProfile(request, metadata=self.user(user))
        return str(made.profile.name)

    async def leave(self, profile: str) -> None:
        user = profile.partition("/profiles")[0]
        await self.identity.DeleteProfile(
            identity_pb2.DeleteProfileRequest(name=profile), metadata=self.user(user)
        )

    async def kept(self, profile: str) -> tuple[int, int]:
        """How many views, and how many entries of the watchlist."""
        views = await self.history.ListViews(
            history_pb2.ListViewsRequest(parent=profile), metadata=self.service
        )
        wanted = await self.lists.ListWatchlist(
            watchlist_pb2.ListWatchlistRequest(parent=profile), metadata=self.service
        )
        return len(views.views), len(wanted.entries)

    def user(self, name: str) -> Any:
        return bearer(user_token(self.process, name))


async def test_a_deleted_profile_leaves_no_history_and_no_watchlist_and_others_keep_theirs(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    services: dict[str, Any] = {
        "identity": identity.build,
        "history": history.build,
        "catalog": catalog.build,
    }
    async with serving(tmp_path, clock=clock, **services) as process, channel_of(process) as channel:
        world = World(process, channel, clock)
        joined = await sign_up(world.identity)
        first, kim, lee = (
            joined.profile.name,
            await world.join(joined.user.name),
            await world.join(joined.user.name),
        )
        for profile in (first, kim):
            await world.watch(profile, "l1")
            await world.want(profile)
            assert await world.kept(profile) == (1, 1)

        await world.leave(first)
        await until(lambda: world.kept(first), (0, 0))
        clock.advance(60)
        await world.watch(first, "late")
        assert await world.kept(first) == (1, 0)
        clock.advance(LAST_ERASURE_AFTER)
        await world.leave(lee)  # wakes the eraser, which finds the first one due again
        await until(lambda: world.kept(first), (0, 0))
        assert await world.kept(kim) == (1, 1)


async def until(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    deadline = time.monotonic() + 30
    while await look() != wanted:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

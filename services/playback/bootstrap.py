"""Builds playback."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from kino.billing.v1.billing_pb2_grpc import BillingServiceStub
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.history.v1.history_pb2_grpc import HistoryServiceStub
from kino.identity.v1.identity_pb2_grpc import IdentityServiceStub
from services.playback.cache import ChunkCache
from services.playback.clients import BillingClient, CatalogClient, HistoryClient, IdentityClient
from services.playback.disk import Edge
from services.playback.leases import Leases
from services.playback.player import Player
from services.playback.readers import Readers
from services.playback.rpc import SERVICE, PlaybackServicer, register
from services.playback.store_sql import SqlLeases
from services.playback.titles import Titles
from services.playback.tokens import LeaseTokens
from services.playback.usecases import TOKEN_TTL, Resume, StartPlayback
from services.runtime.app import Context, ServiceApp
from services.runtime.memory import keep_freed_memory
from services.runtime.region import Regions

_PURGE_EVERY_S = 3600.0


async def _edge(ctx: Context) -> Edge | None:
    """The disk tier, where this node has one."""
    budget_bytes = ctx.settings.edge_disk_bytes
    if not budget_bytes:
        return None
    folder = ctx.settings.edge_dir or ctx.settings.data_dir / "edge"
    return await asyncio.to_thread(Edge, ctx.objects, folder, budget_bytes, ctx.clock)


async def build(ctx: Context) -> ServiceApp:
    """Playback on its database, the origin, and the services it asks."""
    keep_freed_memory()
    database = ctx.database("playback")
    ttl = timedelta(seconds=ctx.settings.lease_ttl_s)
    store = SqlLeases(database)
    leases = Leases(store, ctx.clock, ttl)
    catalog = CatalogClient(ctx.channels.stub(CatalogServiceStub))
    titles = Titles(catalog, ctx.clock)
    resume = Resume(HistoryClient(ctx.channels.stub(HistoryServiceStub)))
    edge = await _edge(ctx)
    cache = ChunkCache(ctx.objects, ctx.settings.playback_cache_bytes, edge)
    regions = Regions(ctx.settings.region_header, ctx.settings.region)
    start = StartPlayback(
        entitlements=BillingClient(ctx.channels.stub(BillingServiceStub)),
        rights=catalog,
        profiles=IdentityClient(ctx.channels.stub(IdentityServiceStub)),
        resume=resume,
        titles=titles,
        leases=leases,
        clock=ctx.clock,
        staff_streams=ctx.settings.staff_streams,
    )
    player = Player(titles=titles, cache=cache, leases=leases, resume=resume, clock=ctx.clock)
    tokens = LeaseTokens(ctx.sealer, ttl)
    readers = Readers(leases, ctx.clock)
    servicer = PlaybackServicer(
        start=start,
        player=player,
        leases=leases,
        readers=readers,
        titles=titles,
        tokens=tokens,
        clock=ctx.clock,
        regions=regions,
        objects=ctx.objects,
    )

    async def purge() -> None:
        """Forget leases whose tokens can't be opened any more."""
        while True:
            await store.purge(ctx.clock.now() - 2 * TOKEN_TTL)
            await asyncio.sleep(_PURGE_EVERY_S)

    return ServiceApp(
        name="playback",
        grpc_services=[SERVICE],
        register=lambda server: register(servicer, server),
        # Not the object store: what the cache holds is served without it.
        dependencies=[database.dependency("services.playback", f"{SERVICE}.StartPlayback")],
        background=[purge, readers.watch, *([edge.keep_saving] if edge else [])],
        leave=readers.leave,
        close=cache.close,
    )

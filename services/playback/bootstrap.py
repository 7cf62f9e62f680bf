"""Builds playback."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio

from kino.billing.v1.billing_pb2_grpc import BillingServiceStub
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.catalog.v1.series_pb2_grpc import SeriesServiceStub
from kino.history.v1.history_pb2_grpc import HistoryServiceStub
from kino.identity.v1.identity_pb2_grpc import IdentityServiceStub
from kino.playback.v1.edges_pb2_grpc import (
    EdgeRegistryServiceStub,
    add_EdgeRegistryServiceServicer_to_server,
)
from services.playback.beat import Beat
from services.playback.cache import ChunkCache
from services.playback.clients import (
    BillingClient,
    CatalogClient,
    HistoryClient,
    IdentityClient,
    SeriesClient,
)
from services.playback.disk import Edge
from services.playback.edges import EdgeRegistry, EdgeReport, Edges
from services.playback.folder import Folder
from services.playback.lease_memory import LeaseMemory
from services.playback.leases import Leases
from services.playback.plan import Hours, Planner
from services.playback.player import Player
from services.playback.readers import Readers
from services.playback.rpc import SERVICE, PlaybackServicer, register
from services.playback.rpc_edge import EDGE_SERVICE, EdgeServicer, register_edge
from services.playback.rpc_edges import SERVICE as EDGES_SERVICE
from services.playback.rpc_edges import EdgeRegistryServicer, RemoteLeases, RemoteRegistry
from services.playback.rpc_remembered import RememberedCatalog
from services.playback.store import LeaseStore
from services.playback.store_edges import SqlEdges
from services.playback.store_sql import SqlLeases
from services.playback.titles import Titles
from services.playback.tokens import LeaseTokens
from services.playback.usecases import TOKEN_TTL, Resume, StartPlayback
from services.runtime.app import Context, ServiceApp
from services.runtime.life import Dependency
from services.runtime.memory import keep_freed_memory
from services.runtime.region import Regions

_PURGE_EVERY_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class _Books:
    """Where leases and edges are kept."""

    leases: LeaseStore
    registry: EdgeRegistry
    #: None where they are kept by another node.
    edges: Edges | None
    dependencies: Sequence[Dependency]


def _books(ctx: Context) -> _Books:
    """In this node's database; of an edge that is told where the playback service is, at that one."""
    if ctx.settings.edge_disk_bytes and ctx.settings.edge_address and "playback" in ctx.settings.endpoints:
        stub = ctx.channels.stub(EdgeRegistryServiceStub)
        return _Books(leases=RemoteLeases(stub), registry=RemoteRegistry(stub), edges=None, dependencies=())
    database = ctx.database("playback")
    edges = Edges(SqlEdges(database), ctx.clock)
    # Not the object store: what the cache holds is served without it.
    stands_on = database.dependency("services.playback", f"{SERVICE}.StartPlayback", EDGES_SERVICE)
    return _Books(leases=SqlLeases(database), registry=edges, edges=edges, dependencies=[stands_on])


def _folder(ctx: Context) -> Folder | None:
    """Where the disk tier is, where this node has one."""
    settings = ctx.settings
    return Folder(settings.edge_dir or settings.data_dir / "edge") if settings.edge_disk_bytes else None


async def _lease_memory(ctx: Context, leases: Leases, folder: Folder | None) -> LeaseMemory | None:
    """Where this node has a disk, what an earlier process knew of leases, told by now."""
    if folder is None:
        return None
    memory = LeaseMemory(leases, folder, ctx.clock)
    await asyncio.to_thread(memory.recall)
    return memory


async def _edge(ctx: Context, folder: Folder | None) -> Edge | None:
    if folder is None:
        return None
    return await asyncio.to_thread(Edge, ctx.objects, folder, ctx.settings.edge_disk_bytes, ctx.clock)


def _remembered(ctx: Context, folder: Folder | None) -> RememberedCatalog | None:
    """What catalog told, over a restart too, where this node has a disk and may serve it."""
    stale = timedelta(seconds=ctx.settings.playback_stale_s)
    if folder is None or not stale:
        return None
    return RememberedCatalog(ctx.channels.stub(CatalogServiceStub), folder, stale, ctx.clock)


def _planner(ctx: Context, edge: Edge | None, titles: Titles) -> Planner | None:
    if edge is None:
        return None
    return Planner(
        edge=edge,
        titles=titles,
        episodes=SeriesClient(ctx.channels.stub(SeriesServiceStub)),
        clock=ctx.clock,
        hours=Hours.of(ctx.settings.edge_fill_hours),
        bytes_per_s=ctx.settings.edge_fill_bytes_per_s,
    )


def _beat(
    ctx: Context, registry: EdgeRegistry, edge: Edge | None, cache: ChunkCache, readers: Readers
) -> Beat | None:
    """What tells the playback service of this node, where it is an edge with an address."""
    settings = ctx.settings
    if edge is None or not settings.edge_address:
        return None

    def measure() -> EdgeReport:
        return EdgeReport(
            address=settings.edge_address,
            stream_count=readers.lease_count,
            stream_capacity=settings.edge_streams,
            sent_bytes_per_second=0,
            sent_bytes=readers.taken_bytes,
            origin_bytes=edge.origin_bytes,
            memory_used_bytes=cache.kept_bytes,
            memory_budget_bytes=settings.playback_cache_bytes,
            disk_used_bytes=edge.kept_bytes,
            disk_budget_bytes=settings.edge_disk_bytes,
        )

    beat = Beat(registry, measure, ctx.clock)
    readers.when_leaving(beat.leave)
    return beat


async def build(ctx: Context) -> ServiceApp:
    """Playback on its database, the origin, and the services it asks."""
    keep_freed_memory()
    books = _books(ctx)
    ttl = timedelta(seconds=ctx.settings.lease_ttl_s)
    leases = Leases(books.leases, ctx.clock, ttl)
    folder = _folder(ctx)
    lease_memory = await _lease_memory(ctx, leases, folder)
    remembered = _remembered(ctx, folder)
    catalog = CatalogClient(remembered or ctx.channels.stub(CatalogServiceStub))
    # What is remembered on the disk has its own limit; both would add up.
    titles = Titles(catalog, ctx.clock, 0.0 if remembered else ctx.settings.playback_stale_s)
    resume = Resume(HistoryClient(ctx.channels.stub(HistoryServiceStub)))
    edge = await _edge(ctx, folder)
    cache = ChunkCache(ctx.objects, ctx.settings.playback_cache_bytes, edge)
    readers = Readers(leases, ctx.clock)
    beat = _beat(ctx, books.registry, edge, cache, readers)
    start = StartPlayback(
        entitlements=BillingClient(ctx.channels.stub(BillingServiceStub)),
        rights=catalog,
        profiles=IdentityClient(ctx.channels.stub(IdentityServiceStub)),
        resume=resume,
        titles=titles,
        leases=leases,
        routes=books.edges,
        clock=ctx.clock,
        staff_streams=ctx.settings.staff_streams,
    )
    servicer = PlaybackServicer(
        start=start,
        player=Player(titles=titles, cache=cache, leases=leases, resume=resume, clock=ctx.clock),
        leases=leases,
        readers=readers,
        titles=titles,
        tokens=LeaseTokens(ctx.sealer, ttl),
        clock=ctx.clock,
        regions=Regions(ctx.settings.region_header, ctx.settings.region),
        objects=ctx.objects,
    )
    edges = books.edges

    planner = _planner(ctx, edge, titles)
    explains = EdgeServicer(
        edge=edge, planner=planner, cache=cache, titles=titles, readers=readers, clock=ctx.clock
    )

    def add(server: grpc.aio.Server) -> None:
        register(servicer, server)
        register_edge(explains, server)
        if edges is not None:
            registry = EdgeRegistryServicer(edges, books.leases, ctx.clock)
            add_EdgeRegistryServiceServicer_to_server(registry, server)

    async def purge() -> None:
        """Forget leases whose tokens can't be opened any more, and edges that are gone."""
        while True:
            if remembered is not None:
                await asyncio.to_thread(remembered.purge)
            await books.leases.purge(ctx.clock.now() - 2 * TOKEN_TTL)
            if edges is not None:
                await edges.forget()
            await asyncio.sleep(_PURGE_EVERY_S)

    async def close() -> None:
        if beat is not None:
            await beat.close()
        if lease_memory is not None:
            await lease_memory.save()
        await cache.close()

    return ServiceApp(
        name="playback",
        grpc_services=[SERVICE, EDGE_SERVICE, *([EDGES_SERVICE] if edges else [])],
        register=add,
        streams=True,
        dependencies=books.dependencies,
        background=[
            purge,
            readers.watch,
            *([edge.keep_saving] if edge else []),
            *([lease_memory.keep_saving] if lease_memory else []),
            *([planner.run] if planner and planner.hours else []),
            *([beat.run] if beat else []),
        ],
        leave=readers.leave,
        close=close,
    )

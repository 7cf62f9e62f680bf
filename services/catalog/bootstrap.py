"""Builds the catalog's graph."""

from __future__ import annotations

import asyncio

import grpc.aio

from kino.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from kino.catalog.v1.series_pb2_grpc import add_SeriesServiceServicer_to_server
from kino.catalog.v1.watchlist_pb2_grpc import add_WatchlistServiceServicer_to_server
from kino.preprocessor.v1.preprocessor_pb2_grpc import PreprocessorServiceStub
from kino.search.v1.search_pb2_grpc import SearchServiceStub
from services.catalog.artwork import Artwork
from services.catalog.background import Collector, Outbox, Renewer
from services.catalog.peers import GrpcPictures
from services.catalog.rpc import CatalogServicer
from services.catalog.rpc_series import SeriesServicer
from services.catalog.rpc_watchlist import WatchlistServicer
from services.catalog.series_usecases import Shelf
from services.catalog.store_sql import SqlStore
from services.catalog.usecases import Catalog
from services.catalog.watchlist import Watchlist
from services.catalog.wire import Callers
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager
from services.runtime.region import Regions

#: All that the catalog serves.
SERVICES = [f"kino.catalog.v1.{name}" for name in ("CatalogService", "SeriesService", "WatchlistService")]


async def build(ctx: Context) -> ServiceApp:
    """The catalog over its SQL database."""
    database = ctx.database("catalog")
    sending, collecting = asyncio.Event(), asyncio.Event()

    def changed() -> None:
        sending.set()
        collecting.set()

    store, pager = SqlStore(database), Pager(ctx.sealer, ctx.clock)
    callers = Callers(Regions(ctx.settings.region_header, ctx.settings.region), ctx.clock)
    catalog = Catalog(store, ctx.clock, changed)
    pictures = GrpcPictures(ctx.channels.stub(PreprocessorServiceStub))
    artwork = Artwork(store, ctx.objects, pictures, ctx.clock, changed)

    def register(server: grpc.aio.Server) -> None:
        titles = CatalogServicer(catalog, artwork, pager, callers)
        add_CatalogServiceServicer_to_server(titles, server)
        shelf = SeriesServicer(Shelf(store, ctx.clock, changed), pager, callers)
        add_SeriesServiceServicer_to_server(shelf, server)
        watchlist = WatchlistServicer(Watchlist(store, ctx.clock), pager, callers)
        add_WatchlistServiceServicer_to_server(watchlist, server)

    return ServiceApp(
        name="catalog",
        grpc_services=SERVICES,
        register=register,
        dependencies=[database.dependency("services.catalog", *SERVICES)],
        background=[
            Outbox(catalog, ctx.channels.stub(SearchServiceStub).IndexTitles, sending).run,
            Collector(catalog, ctx.objects, ctx.clock, collecting).run,
            Renewer(artwork).run,
        ],
    )

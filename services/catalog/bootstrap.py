"""Builds the catalog's graph."""

from __future__ import annotations

import asyncio

from kino.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from kino.search.v1.search_pb2_grpc import SearchServiceStub
from services.catalog.background import Collector, Outbox
from services.catalog.rpc import CatalogServicer
from services.catalog.store_sql import SqlStore
from services.catalog.usecases import Catalog
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager


async def build(ctx: Context) -> ServiceApp:
    """The catalog over its SQL database."""
    database = ctx.database("catalog")
    sending, collecting = asyncio.Event(), asyncio.Event()

    def changed() -> None:
        sending.set()
        collecting.set()

    catalog = Catalog(SqlStore(database), ctx.clock, changed)
    servicer = CatalogServicer(catalog, Pager(ctx.sealer, ctx.clock))
    return ServiceApp(
        name="catalog",
        grpc_services=["kino.catalog.v1.CatalogService"],
        register=lambda server: add_CatalogServiceServicer_to_server(servicer, server),
        dependencies=[database.dependency("services.catalog", "kino.catalog.v1.CatalogService")],
        background=[
            Outbox(catalog, ctx.channels.stub(SearchServiceStub).IndexTitles, sending).run,
            Collector(catalog, ctx.objects, ctx.clock, collecting).run,
        ],
    )

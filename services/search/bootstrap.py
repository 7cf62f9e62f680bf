"""Builds the graph of search."""

from __future__ import annotations

from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.search.v1.search_pb2_grpc import add_SearchServiceServicer_to_server
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager
from services.search.rpc import SearchServicer, catalog_titles
from services.search.store_sqlite import SqliteIndex
from services.search.usecases import Search


async def build(ctx: Context) -> ServiceApp:
    """Search over the embedded index."""
    database = ctx.database("search")
    index = SqliteIndex(database)
    stub = ctx.channels.stub(CatalogServiceStub)
    search = Search(index, lambda: catalog_titles(stub))
    servicer = SearchServicer(search, Pager(ctx.sealer, ctx.clock))
    return ServiceApp(
        name="search",
        grpc_services=["kino.search.v1.SearchService"],
        register=lambda server: add_SearchServiceServicer_to_server(servicer, server),
        dependencies=[database.dependency("services.search", "kino.search.v1.SearchService")],
        background=[search.ensure_built],
        close=search.close,
    )

"""Builds the graph of search."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.search.v1.search_pb2_grpc import add_SearchServiceServicer_to_server
from services.runtime.app import Context, ServiceApp
from services.runtime.life import Dependency, nothing
from services.runtime.paging import Pager
from services.search.rpc import SearchServicer, catalog_titles
from services.search.store import TitleIndex
from services.search.usecases import Search

_NAME = "kino.search.v1.SearchService"


async def build(ctx: Context) -> ServiceApp:
    """Search over the embedded index, or Elasticsearch where the settings say so."""
    index, engine, close_index = _index(ctx)
    stub = ctx.channels.stub(CatalogServiceStub)
    search = Search(index, lambda: catalog_titles(stub))
    servicer = SearchServicer(search, Pager(ctx.sealer, ctx.clock))

    async def close() -> None:
        await search.close()
        await close_index()

    return ServiceApp(
        name="search",
        grpc_services=[_NAME],
        register=lambda server: add_SearchServiceServicer_to_server(servicer, server),
        dependencies=[engine],
        background=[search.keep_built],
        close=close,
    )


def _index(ctx: Context) -> tuple[TitleIndex, Dependency, Callable[[], Awaitable[None]]]:
    """The index, what it stands on, and how it is closed. An engine's client is imported where it is used."""
    if ctx.settings.search_store == "elasticsearch":
        from services.search.store_elastic import open_index

        elastic = open_index(ctx.settings)
        return elastic, elastic.dependency(_NAME), elastic.close
    from services.search.store_sqlite import SqliteIndex

    database = ctx.database("search")
    return SqliteIndex(database), database.dependency("services.search", _NAME), nothing

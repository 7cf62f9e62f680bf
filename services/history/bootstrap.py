"""Builds the graph of history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kino.history.v1.history_pb2_grpc import add_HistoryServiceServicer_to_server
from services.history.rpc import HistoryServicer
from services.history.store import HistoryStore
from services.history.store_sql import SqlHistory
from services.history.usecases import History
from services.runtime.app import Context, ServiceApp
from services.runtime.life import Dependency, nothing
from services.runtime.paging import Pager

_SERVICE = "kino.history.v1.HistoryService"


async def build(ctx: Context) -> ServiceApp:
    """History over the engine that the settings name."""
    store, dependency, close = (_on_cassandra if ctx.settings.history_store == "cassandra" else _on_sql)(ctx)
    servicer = HistoryServicer(History(store, ctx.clock), ctx.sealer, Pager(ctx.sealer, ctx.clock), ctx.clock)
    return ServiceApp(
        name="history",
        grpc_services=[_SERVICE],
        register=lambda server: add_HistoryServiceServicer_to_server(servicer, server),
        dependencies=[dependency],
        close=close,
    )


_Engine = tuple[HistoryStore, Dependency, Callable[[], Awaitable[None]]]


def _on_sql(ctx: Context) -> _Engine:
    database = ctx.database("history")
    # The process closes its databases itself.
    return SqlHistory(database), database.dependency("services.history", _SERVICE), nothing


def _on_cassandra(ctx: Context) -> _Engine:
    # Here, because the driver takes half a second to import.
    from services.history.cassandra import Cassandra
    from services.history.store_cassandra import CassandraHistory

    cassandra = Cassandra(ctx.settings)
    return CassandraHistory(cassandra), cassandra.dependency(_SERVICE), cassandra.close

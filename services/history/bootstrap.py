"""Builds the graph of history."""

from __future__ import annotations

from kino.history.v1.history_pb2_grpc import add_HistoryServiceServicer_to_server
from services.history.rpc import HistoryServicer
from services.history.store_sql import SqlHistory
from services.history.usecases import History
from services.runtime.app import Context, ServiceApp
from services.runtime.paging import Pager


async def build(ctx: Context) -> ServiceApp:
    """History over its SQL database."""
    database = ctx.database("history")
    history = History(SqlHistory(database), ctx.clock)
    servicer = HistoryServicer(history, ctx.sealer, Pager(ctx.sealer, ctx.clock), ctx.clock)
    return ServiceApp(
        name="history",
        grpc_services=["kino.history.v1.HistoryService"],
        register=lambda server: add_HistoryServiceServicer_to_server(servicer, server),
        dependencies=[database.dependency("services.history", "kino.history.v1.HistoryService")],
    )

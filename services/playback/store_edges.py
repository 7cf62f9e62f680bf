"""Reports of edges in SQL."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from services.playback.edges import EdgeReport, KnownEdge
from services.runtime.columns import UtcTime
from services.runtime.sql import Database

EDGES = Table(
    "edges",
    MetaData(),
    Column("address", String(255), primary_key=True),
    Column("stream_count", Integer, nullable=False),
    Column("stream_capacity", Integer, nullable=False),
    Column("sent_bytes_per_second", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("origin_bytes", BigInteger, nullable=False),
    Column("memory_used_bytes", BigInteger, nullable=False),
    Column("memory_budget_bytes", BigInteger, nullable=False),
    Column("disk_used_bytes", BigInteger, nullable=False),
    Column("disk_budget_bytes", BigInteger, nullable=False),
    Column("leaving", Boolean, nullable=False),
    Column("report_time", UtcTime, nullable=False),
)


def _edge(row: Row[Any]) -> KnownEdge:
    report = EdgeReport(**{field.name: getattr(row, field.name) for field in fields(EdgeReport)})
    return KnownEdge(report=report, report_time=row.report_time)


class SqlEdges:
    """An `EdgeStore` in one table."""

    def __init__(self, database: Database) -> None:
        """The schema must be there (`services.playback` migrations)."""
        self._database = database

    async def report(self, edge: KnownEdge) -> None:
        """See `EdgeStore.report`."""
        values = {**vars(edge.report), "report_time": edge.report_time}

        def transaction(conn: Connection) -> None:
            known = EDGES.c.address == edge.report.address
            if not conn.execute(update(EDGES).where(known).values(values)).rowcount:
                conn.execute(insert(EDGES).values(values))

        await self._database.write(transaction)

    async def edges(self) -> list[KnownEdge]:
        """See `EdgeStore.edges`."""
        query = select(EDGES).order_by(EDGES.c.address)
        return await self._database.read(lambda conn: [_edge(row) for row in conn.execute(query)])

    async def forget(self, before: datetime) -> int:
        """See `EdgeStore.forget`."""
        old = delete(EDGES).where(EDGES.c.report_time < before)
        return await self._database.write(lambda conn: conn.execute(old).rowcount)

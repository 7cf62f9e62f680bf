"""What holds for an `EdgeStore` on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.playback.edges import EdgeReport, EdgeStore, KnownEdge
from services.playback.store_edges import SqlEdges
from services.runtime.sql import Database
from tests.support.databases import sql_database_fixture

NOW = datetime(2026, 1, 1, tzinfo=UTC)
sql_database = sql_database_fixture("services.playback")


@pytest.fixture
def store(sql_database: Database) -> EdgeStore:
    return SqlEdges(sql_database)


def edge(number: int, at: datetime = NOW) -> KnownEdge:
    report = EdgeReport(
        address=f"https://edge-{number}.example.org:9443",
        stream_count=3,
        stream_capacity=1000,
        sent_bytes_per_second=1 << 33,
        sent_bytes=1 << 50,
        origin_bytes=1 << 49,
        memory_used_bytes=1,
        memory_budget_bytes=2,
        disk_used_bytes=1 << 42,
        disk_budget_bytes=1 << 43,
    )
    return KnownEdge(report=report, report_time=at)


async def test_an_edge_comes_back_as_it_reported(store: EdgeStore) -> None:
    await store.report(edge(2))
    await store.report(edge(1))
    assert await store.edges() == [edge(1), edge(2)]


async def test_a_report_takes_the_place_of_the_one_before(store: EdgeStore) -> None:
    later = KnownEdge(
        report=replace(edge(1).report, stream_count=0, leaving=True), report_time=NOW + timedelta(seconds=2)
    )
    for each in (edge(1), later):
        await store.report(each)
    assert await store.edges() == [later]


async def test_reports_at_the_same_time_leave_one_row(store: EdgeStore) -> None:
    await asyncio.gather(*(store.report(edge(1)) for _ in range(8)))
    assert await store.edges() == [edge(1)]


async def test_an_edge_not_heard_of_is_forgotten(store: EdgeStore) -> None:
    await store.report(edge(1, NOW - timedelta(microseconds=1)))
    await store.report(edge(2))
    assert await store.forget(NOW) == 1
    assert await store.edges() == [edge(2)]

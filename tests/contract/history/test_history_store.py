from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import inspect

from services.history.model import Key, Order, Report, View
from services.history.store import HistoryStore
from services.history.store_sql import SqlHistory
from services.history.tables import metadata
from services.runtime.sql import Database

NOW = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ANN, KIDS = "users/ann/profiles/ann", "users/ann/profiles/kids"
SECOND = 1_000_000_000


@pytest.fixture
def store(sql_database: Database) -> HistoryStore:
    return SqlHistory(sql_database)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def report(
    title: int = 1, *, started: float = 0, sequence: int = 1, profile: str = ANN, **fields: object
) -> Report:
    made = Report(
        key=Key(profile=profile, title=f"titles/t{title}"),
        order=Order(start_time=after(started), lease="leases/a", sequence=sequence),
        position_ns=5 * SECOND,
        intervals=((0, 5 * SECOND), (7 * SECOND, 8 * SECOND)),
        duration_ns=100 * SECOND,
        device="телевизор",
        receive_time=after(started + sequence),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


async def test_the_migrations_make_the_schema_the_store_uses(sql_database: Database) -> None:
    def schema(connection: object) -> dict[str, set[str]]:
        found = inspect(connection)
        assert found is not None
        return {
            name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()
        }

    expected = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
    assert await sql_database.read(schema) == expected | {"alembic_version": {"version_num"}}


async def test_a_view_comes_back_as_it_was_recorded(store: HistoryStore) -> None:
    recorded = await store.record(report())
    assert recorded == View.of(report()) == await store.view(report().key)
    assert await store.view(Key(profile=KIDS, title="titles/t1")) is None


async def test_reports_are_merged_whatever_their_order(store: HistoryStore) -> None:
    heard = [
        report(sequence=3, position_ns=9 * SECOND),
        report(sequence=1, intervals=((20 * SECOND, 30 * SECOND),)),
        report(started=-50, sequence=99, position_ns=77 * SECOND),
        report(sequence=3, position_ns=9 * SECOND, receive_time=after(500)),
    ]
    expected = View.of(heard[0])
    for one in heard:
        expected = expected.merged(View.of(one))
        assert await store.record(one) == expected
    assert (expected.position_ns, expected.last_watch_time) == (9 * SECOND, after(3))
    assert await store.view(report().key) == expected


async def test_concurrent_reports_are_all_kept(store: HistoryStore) -> None:
    many = [report(sequence=n, intervals=((2 * n * SECOND, (2 * n + 1) * SECOND),)) for n in range(1, 41)]
    await asyncio.gather(*map(store.record, many))
    view = await store.view(report().key)
    assert view is not None
    assert view.intervals == tuple(one.intervals[0] for one in many)
    assert view.order.sequence == 40


async def test_views_are_listed_last_watched_first_without_gaps_or_repetitions(store: HistoryStore) -> None:
    for title in range(1, 8):
        await store.record(report(title, started=title // 2))
    await store.record(report(1, profile=KIDS))
    await store.record(report(2, started=100))
    seen: list[View] = []
    cursor = None
    while page := await store.views(ANN, cursor, 2):
        seen += page
        cursor = (page[-1].last_watch_time, page[-1].key.title)
    assert [view.key.title for view in seen] == [f"titles/t{n}" for n in (2, 7, 6, 5, 4, 3, 1)]


async def test_finished_views_are_not_continued_until_they_are_begun_again(store: HistoryStore) -> None:
    await store.record(report(1))
    await store.record(report(2, position_ns=99 * SECOND))
    assert [view.key.title for view in await store.unfinished(ANN, 9)] == ["titles/t1"]
    await store.record(report(2, started=60, position_ns=2 * SECOND))
    assert [view.key.title for view in await store.unfinished(ANN, 9)] == ["titles/t2", "titles/t1"]
    assert [view.key.title for view in await store.unfinished(ANN, 1)] == ["titles/t2"]


async def test_a_deleted_view_stays_deleted_for_playbacks_started_before(store: HistoryStore) -> None:
    await store.record(report())
    await store.record(report(2))
    await store.delete(report().key, after(10))
    await store.delete(report().key, after(9))
    assert await store.view(report().key) is None
    assert await store.record(report(sequence=2)) is None
    assert await store.record(report(started=10)) is None
    assert [view.key.title for view in await store.views(ANN, None, 9)] == ["titles/t2"]
    fresh = report(started=10.000001)
    assert await store.record(fresh) == View.of(fresh) == await store.view(fresh.key)


async def test_a_cleared_history_stays_cleared_but_not_for_other_profiles(store: HistoryStore) -> None:
    for profile in (ANN, KIDS):
        await store.record(report(1, profile=profile))
    await store.clear(ANN, after(10))
    assert await store.views(ANN, None, 9) == []
    assert await store.record(report(2, started=9)) is None
    assert await store.record(report(2, started=11)) is not None
    assert len(await store.views(KIDS, None, 9)) == 1


async def test_a_deletion_covers_playbacks_whose_node_has_a_fast_clock(store: HistoryStore) -> None:
    await store.record(report(started=30))
    await store.delete(report().key, after(10))
    assert await store.record(report(started=30, sequence=2)) is None
    assert await store.record(report(started=31)) is not None

"""What is Cassandra's own: the schema's versions, partitions that stay small, wrong settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cassandra import InvalidRequest
from cassandra.protocol import SyntaxException

from services.history import cql_migrations
from services.history.cassandra import Cassandra
from services.history.cql_migrations import KeyspaceTooNew
from services.history.errors import HistoryMisconfigured, HistoryUnavailable
from services.history.store_cassandra import CassandraHistory
from services.runtime.call import set_deadline
from services.runtime.errors import DeadlineExceeded
from services.runtime.ids import new_id
from services.runtime.settings import Settings
from tests.contract.history.reports import SECOND, after, report
from tests.engines.process import free_port

pytestmark = pytest.mark.engine
DAY_S = 24 * 3600


@pytest.fixture
async def opened(cassandra: dict[str, Any]) -> AsyncIterator[Cassandra]:
    opened = Cassandra(Settings(**cassandra))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def ann() -> str:
    return f"users/{new_id()}/profiles/ann"


async def test_processes_that_start_at_once_change_the_schema_once(cassandra: dict[str, Any]) -> None:
    settings = Settings(**cassandra | {"cassandra_keyspace": f"test_{new_id()}"})
    many = [Cassandra(settings) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in many))
    rows = await many[0].run("SELECT version, name, owner FROM schema_versions WHERE service = 'history'")
    assert rows == [(version, path.name, None) for version, path in cql_migrations.files().items()]
    await many[0].run(f"DROP KEYSPACE {settings.cassandra_keyspace}")
    await asyncio.gather(*(one.close() for one in many))


async def test_a_change_of_the_schema_that_broke_off_is_made_again(opened: Cassandra, tmp_path: Path) -> None:
    first, second = tmp_path / "0001_views.cql", tmp_path / "0002_more.cql"
    first.write_text("")
    second.write_text("-- comment\nCREATE TABLE IF NOT EXISTS a (k int PRIMARY KEY);\nCREATE TABLE b;\n")

    def upgrade() -> None:
        session = opened._connected()
        cql_migrations.upgrade(session, str(session.keyspace), {}, tmp_path)

    with pytest.raises(SyntaxException):
        await asyncio.to_thread(upgrade)
    second.write_text(second.read_text().replace("TABLE b", "TABLE IF NOT EXISTS b (k int PRIMARY KEY)"))
    await asyncio.to_thread(upgrade)
    await opened.run("INSERT INTO b (k) VALUES (1)")
    with pytest.raises(KeyspaceTooNew) as caught:
        await opened.open()
    assert caught.value.details["version"] == 2
    await opened.run("DELETE FROM schema_versions WHERE service = 'history' AND version = 2")


async def test_a_view_watched_for_years_stays_small(opened: Cassandra, ann: str) -> None:
    store = CassandraHistory(opened)
    for n in range(20):
        for part in range(1, 6):
            stretch = ((part - 1) * SECOND, part * SECOND)
            await store.record(
                report(ann, started=n * 40 * DAY_S, lease=str(n), sequence=part, intervals=(stretch,))
            )
    rows = await opened.run(
        "SELECT watched, days FROM views WHERE profile = ? AND title = ?", ann, "titles/t1"
    )
    assert len(rows) <= 5
    assert all(dict(watched.items()) == {0: 5 * SECOND} and len(days) == 1 for watched, days in rows)
    listed = [
        row
        for year in (2025, 2026, 2027)
        for row in await opened.run("SELECT day FROM watch_days WHERE profile = ? AND year = ?", ann, year)
    ]
    assert len(listed) == len(rows)


async def test_a_report_told_again_writes_nothing(
    opened: Cassandra, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, told = CassandraHistory(opened), report(ann)
    await store.record(told)
    written: list[object] = []
    run, batch = opened.run, opened.batch

    async def counted_run(cql: str, *values: Any) -> Any:
        written.extend([cql] if not cql.startswith("SELECT") else [])
        return await run(cql, *values)

    async def counted_batch(statements: Any) -> None:
        written.extend(statements)
        await batch(statements)

    monkeypatch.setattr(opened, "run", counted_run)
    monkeypatch.setattr(opened, "batch", counted_batch)
    assert await store.record(told) == await store.view(told.key)
    assert written == []


async def test_deleted_history_leaves_nothing_but_its_mark(opened: Cassandra, ann: str) -> None:
    store = CassandraHistory(opened)
    for title in (1, 2):
        for n in range(7):
            await store.record(report(ann, title, started=n * DAY_S, lease=str(n)))
    await store.delete(report(ann).key, after(9 * DAY_S))
    listed = "SELECT title FROM watch_days WHERE profile = ? AND year = 2025"
    assert {title for (title,) in await opened.run(listed, ann)} == {"titles/t2"}
    await store.clear(ann, after(10 * DAY_S))
    for name in ("titles/t1", "titles/t2"):
        rows = await opened.run("SELECT start_us FROM views WHERE profile = ? AND title = ?", ann, name)
        assert [start for (start,) in rows if start is not None] == []
    assert await opened.run(listed, ann) == []


async def test_a_call_ends_with_its_deadline(opened: Cassandra, ann: str) -> None:
    await CassandraHistory(opened).view(report(ann).key)
    set_deadline(0)
    with pytest.raises(DeadlineExceeded):
        await CassandraHistory(opened).view(report(ann).key)


async def test_a_mistake_in_a_statement_is_not_taken_for_an_engine_that_is_away(opened: Cassandra) -> None:
    with pytest.raises(InvalidRequest):
        await opened.run("SELECT nothing FROM views")


async def test_a_table_that_a_node_has_yet_to_learn_of_is_waited_for(opened: Cassandra) -> None:
    with pytest.raises(HistoryUnavailable):
        await opened.run("SELECT profile FROM not_there_yet")


async def test_settings_that_name_no_cluster_are_refused_with_what_to_do(cassandra: dict[str, Any]) -> None:
    for wrong, sentence in (
        ({"cassandra_datacenter": "moon"}, "KINO_CASSANDRA_DATACENTER to one of datacenter1"),
        ({"cassandra_hosts": []}, "set KINO_CASSANDRA_HOSTS"),
    ):
        with pytest.raises(HistoryMisconfigured, match=sentence):
            await Cassandra(Settings(**cassandra | wrong)).open()


async def test_a_cluster_that_does_not_answer_is_waited_for(cassandra: dict[str, Any]) -> None:
    away = Cassandra(Settings(**cassandra | {"cassandra_hosts": [f"127.0.0.1:{free_port()}"]}))
    for call in (away.open, away.check):
        with pytest.raises(HistoryUnavailable) as caught:
            await call()
        assert caught.value.retry_after_ms == 1_000

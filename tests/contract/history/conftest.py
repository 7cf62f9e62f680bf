from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.history.store import HistoryStore
from services.history.store_sql import SqlHistory
from services.runtime.ids import new_id
from services.runtime.settings import Settings
from tests.support.databases import DIALECTS, migrated_database, sql_database_fixture

sql_database = sql_database_fixture("services.history")


@pytest.fixture(params=[*DIALECTS, pytest.param("cassandra", marks=pytest.mark.engine)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HistoryStore]:
    async with AsyncExitStack() as stack:
        if request.param == "cassandra":
            from services.history.cassandra import Cassandra
            from services.history.store_cassandra import CassandraHistory

            cassandra = Cassandra(Settings(**request.getfixturevalue("cassandra")))
            stack.push_async_callback(cassandra.close)
            await cassandra.open()
            yield CassandraHistory(cassandra)
        else:
            migrated = migrated_database(request, tmp_path, "services.history")
            yield SqlHistory(await stack.enter_async_context(migrated))


@pytest.fixture
def ann() -> str:
    """A profile that no other test knows."""
    return f"users/{new_id()}/profiles/ann"


@pytest.fixture
def kids(ann: str) -> str:
    return ann.replace("profiles/ann", "profiles/kids")

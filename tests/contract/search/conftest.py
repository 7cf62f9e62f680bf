from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.ids import new_id
from services.runtime.sql import Database
from services.search.store import TitleIndex
from services.search.store_elastic import ElasticIndex
from services.search.store_sqlite import SqliteIndex
from tests.engines.elasticsearch import drop_indexes


@pytest.fixture(params=["sqlite", pytest.param("elasticsearch", marks=pytest.mark.engine)])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TitleIndex]:
    """An empty index that was never built, once for each engine."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'search.db'}")
        await database.migrate("services.search")
        yield SqliteIndex(database)
        await database.close()
        return
    url: str = request.getfixturevalue("elasticsearch")
    alias = f"kino-test-{new_id()}"
    elastic = ElasticIndex([url], alias)
    await elastic.prepare()
    yield elastic
    await elastic.close()
    drop_indexes(url, alias)

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.sql import Database
from services.search.store import TitleIndex
from services.search.store_sqlite import SqliteIndex
from tests.support.elastic import elastic_index


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
    async with elastic_index(url) as elastic:
        await elastic.prepare()
        yield elastic

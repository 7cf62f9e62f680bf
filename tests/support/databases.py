"""Databases for contract tests: the same assertions on every engine there is."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from services.runtime.ids import new_id
from services.runtime.sql import Database

#: URL of a server (`postgresql+psycopg://user:password@host/postgres`) on which the tests may make databases.
POSTGRES_URL = os.environ.get("KINO_TEST_POSTGRES_URL", "")
DIALECTS = ["sqlite", *(["postgresql"] if POSTGRES_URL else [])]


@asynccontextmanager
async def empty_database(dialect: str, folder: Path) -> AsyncIterator[Database]:
    """A database of that dialect that holds nothing yet."""
    name = f"kino_test_{new_id()}"
    if dialect == "postgresql":
        _administer(f"CREATE DATABASE {name}")
        url = make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    else:
        url = f"sqlite:///{folder / name}.db"
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()
        if dialect == "postgresql":
            _administer(f"DROP DATABASE {name}")


def _administer(statement: str) -> None:
    engine = create_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def sql_database_fixture(package: str) -> Callable[..., AsyncIterator[Database]]:
    """A fixture that gives `package`'s migrated database, once for each engine."""

    @pytest.fixture(params=DIALECTS)
    async def sql_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
        async with empty_database(request.param, tmp_path) as database:
            await database.migrate(package)
            yield database

    fixture: Callable[..., AsyncIterator[Database]] = sql_database
    return fixture

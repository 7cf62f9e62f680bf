"""Databases for contract tests: the same assertions on every engine there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.runtime.ids import new_id
from services.runtime.sql import Database
from tests.engines.postgres import Postgres

#: The parameters of a fixture that gives a database; the second one needs the real engine.
DIALECTS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.engine)]


@asynccontextmanager
async def empty_database(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Database]:
    """A database of the dialect that the fixture's parameter names, which holds nothing yet."""
    if request.param == "sqlite":
        async with sqlite_database(folder) as database:
            yield database
        return
    async with _postgres_database(request.getfixturevalue("postgres")) as database:
        yield database


@asynccontextmanager
async def sqlite_database(folder: Path) -> AsyncIterator[Database]:
    """A new SQLite file."""
    database = Database(f"sqlite:///{folder / f'kino_test_{new_id()}'}.db")
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def migrated_database(
    request: pytest.FixtureRequest, folder: Path, package: str
) -> AsyncIterator[Database]:
    """The same with the schema of `package`."""
    if request.param == "sqlite":
        async with sqlite_database(folder) as database:
            await database.migrate(package)
            yield database
        return
    server = request.getfixturevalue("postgres")
    template = await request.getfixturevalue("postgres_templates").of(package)
    async with _postgres_database(server, template) as database:
        yield database


def sql_database_fixture(package: str) -> Callable[..., AsyncIterator[Database]]:
    """A fixture that gives `package`'s migrated database, once for each engine."""

    @pytest.fixture(params=DIALECTS)
    async def sql_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
        async with migrated_database(request, tmp_path, package) as database:
            yield database

    fixture: Callable[..., AsyncIterator[Database]] = sql_database
    return fixture


class PostgresTemplates:
    """A migrated database for each package; to copy one is cheaper than to migrate again."""

    def __init__(self, server: Postgres) -> None:
        """Nothing is made yet."""
        self._server = server
        self._made: dict[str, str] = {}

    async def of(self, package: str) -> str:
        """Its name."""
        if package not in self._made:
            name = self._server.new_database()
            self._made[package] = name
            database = Database(self._server.url(name))
            await database.migrate(package)
            await database.close()
        return self._made[package]

    def drop(self) -> None:
        """Drop them all."""
        for name in self._made.values():
            self._server.drop_database(name)


@asynccontextmanager
async def _postgres_database(server: Postgres, template: str = "") -> AsyncIterator[Database]:
    name = server.new_database(template=template)
    database = Database(server.url(name))
    try:
        yield database
    finally:
        await database.close()
        server.drop_database(name)

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from operator import methodcaller
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from services.catalog.model import Media
from services.catalog.store_sql import SqlStore
from services.runtime.migrations import folder_of
from services.runtime.sql import Database
from tests.support.databases import DIALECTS, empty_database

OLD = ("0001", "0002", "0003", "0004")


@pytest.fixture(params=DIALECTS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database(request, tmp_path) as made:
        yield made


async def test_media_from_before_replacements_is_kept_as_that_of_its_job(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "packages" / "catalog_before" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for path in folder_of("services.catalog").glob("*.py"):
        if path.name.startswith(OLD):
            shutil.copy(path, folder)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    await db.migrate("catalog_before")

    def fill(connection: Connection) -> None:
        for name in ("t1", "t2"):
            for statement in (
                "INSERT INTO media VALUES (:title, :job, 3, 1, 20, 4, :yes, 2)",
                "INSERT INTO media_details (title_id, frames, starts, highlights) "
                "VALUES (:title, :bytes, :bytes, :bytes)",
                "INSERT INTO renditions (title_id, rendition_id, position, kind, h264, height, encoded, "
                "published_count, ready_count, size_sum_bytes, duration_sum_ticks, peak_bits_per_second) "
                "VALUES (:title, 'h264-480', 0, 'video', :yes, 480, :bytes, 2, 1, 0, 0, 0)",
            ):
                values = {"title": name, "job": f"jobs/{name}", "yes": True, "bytes": b"12345678"}
                connection.execute(text(statement), {k: v for k, v in values.items() if f":{k}" in statement})

    await db.write(fill)
    await db.migrate("services.catalog")

    store = SqlStore(db)
    for name in ("t1", "t2"):
        media = await store.read(methodcaller("media", name, f"jobs/{name}"))
        assert isinstance(media, Media)
        assert (media.version, media.replaced, media.renditions[0].ready_count) == (3, False, 1)
        details = await store.read(methodcaller("details", name, f"jobs/{name}"))
        assert (details.frames, len(details.starts)) == (b"12345678", 1)

    def keys(connection: Connection) -> list[list[str]]:
        tables = ("media", "media_details", "renditions")
        return [inspect(connection).get_pk_constraint(table)["constrained_columns"] for table in tables]

    expected = [["title_id", "job"], ["title_id", "job"], ["title_id", "job", "rendition_id"]]
    assert [sorted(key) for key in await db.read(keys)] == [sorted(key) for key in expected]

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from services.catalog.background import Collector
from services.catalog.model import Viewer
from services.catalog.store_sql import SqlStore
from services.catalog.text import TitleText
from services.catalog.usecases import Catalog
from services.runtime.clock import ManualClock
from services.runtime.objects_local import LocalObjects
from services.runtime.sql import Database

ANN = Viewer(subject="users/ann")


async def test_objects_of_a_deleted_title_are_collected_and_once_more_an_hour_later(
    sql_database: Database, tmp_path: Path
) -> None:
    clock, objects = ManualClock(), LocalObjects(tmp_path / "objects")
    catalog = Catalog(SqlStore(sql_database), clock)
    collector = Collector(catalog, objects, clock, asyncio.Event())
    title = await catalog.create(ANN.subject, TitleText(display_name="Solaris"), "id", b"")
    neighbour = f"media/{title.title_id}x/j1/init.mp4"
    await objects.put(f"media/{title.title_id}/j1/h264-480/000000-1.m4s", b"segment")
    await objects.put(neighbour, b"of another title")

    await catalog.delete(ANN, title.title_id)
    assert await collector.collect_some() == 0
    assert [entry.key async for entry in objects.list("media/")] == [neighbour]

    await objects.put(f"media/{title.title_id}/j1/h264-480/000001-1.m4s", b"by a task that was still running")
    assert await collector.collect_some() == 3600
    clock.advance(timedelta(hours=1))
    assert await collector.collect_some() == 0
    assert [entry.key async for entry in objects.list("media/")] == [neighbour]
    assert await catalog.next_sweep() is None
    await objects.close()


async def test_objects_of_replaced_media_are_collected_when_nobody_plays_them_any_more(
    sql_database: Database, tmp_path: Path
) -> None:
    clock, objects = ManualClock(), LocalObjects(tmp_path / "objects")
    catalog = Catalog(SqlStore(sql_database), clock)
    collector = Collector(catalog, objects, clock, asyncio.Event())
    title = await catalog.create(ANN.subject, TitleText(display_name="Solaris"), "id", b"")
    keys = [f"media/{title.title_id}/{job}/h264-480/init.mp4" for job in ("j1", "j2")]
    for key in keys:
        await objects.put(key, b"init")
    await catalog.begin_media(title.title_id, "jobs/j1", None, [])
    await catalog.fail_media(title.title_id, "jobs/j1", b"")
    await catalog.begin_media(title.title_id, "jobs/j2", None, [])
    assert await collector.collect_some() == 3600
    clock.advance(timedelta(hours=1))
    assert await collector.collect_some() == 0
    assert [entry.key async for entry in objects.list("media/")] == keys[1:]
    await objects.close()

from __future__ import annotations

import asyncio
import random

import pytest

from services.catalog.media_usecases import Publication
from services.catalog.model import Frames, InitSegment, Kind, Rendition, Segment, State
from services.catalog.store_sql import SqlStore
from services.catalog.text import TitleText
from services.catalog.usecases import Catalog
from services.runtime.clock import ManualClock
from services.runtime.errors import Unavailable
from services.runtime.sql import Database

COUNT = 40


def publication(title_id: str, numbers: list[int], attempt: int) -> Publication:
    base = f"media/{title_id}/j1/h264-480"
    return Publication(
        title_id=title_id,
        job="jobs/j1",
        rendition_id="h264-480",
        init=InitSegment(object_key=f"{base}/init.mp4", sha256=bytes(32), codecs="avc1", timescale=1),
        segments=tuple(
            Segment(
                number=number,
                duration_ticks=5,
                object_key=f"{base}/{number:06d}-{attempt}.m4s",
                size_bytes=100 * attempt + number,
                sha256=bytes([attempt]) * 32,
                encoded=b"",
            )
            for number in numbers
        ),
        last=False,
    )


async def patiently(catalog: Catalog, call: Publication) -> tuple[State, list[str]]:
    """Publish as callers do: what is told to be unavailable left nothing behind and is asked again."""
    while True:
        try:
            return await catalog.publish(call)
        except Unavailable:
            continue


@pytest.mark.parametrize("seed", range(3))
async def test_attempts_that_race_publish_each_segment_once_and_are_told_what_lost(
    sql_database: Database, seed: int
) -> None:
    catalog, chance = Catalog(SqlStore(sql_database), ManualClock()), random.Random(seed)
    title = await catalog.create("users/ann", TitleText(display_name="Solaris"), f"id-{seed}", b"")
    frames = Frames(
        timescale=1, duration_ticks=5 * COUNT, encoded=b"", starts=tuple(range(0, 5 * COUNT, 5)), planned=True
    )
    rendition = Rendition(rendition_id="h264-480", kind=Kind.VIDEO, h264=True, height=480, encoded=b"")
    await catalog.begin_media(title.title_id, "jobs/j1", frames, [rendition])
    calls = []
    for attempt in (1, 2):
        numbers = chance.sample(range(COUNT), COUNT)
        calls += [publication(title.title_id, numbers[at : at + 3], attempt) for at in range(0, COUNT, 3)]
    chance.shuffle(calls)
    answers = await asyncio.gather(*(patiently(catalog, call) for call in calls))

    kept = {one.object_key: one for one in await catalog.list_segments(title.title_id, "h264-480", 0, COUNT)}
    offered = {one.object_key for call in calls for one in call.segments}
    lost = [key for _, keys in answers for key in keys]
    assert (len(kept), len(lost)) == (COUNT, COUNT)
    assert kept.keys() | set(lost) == offered
    view = await catalog.get_media(title.title_id)
    assert (view.title.state, view.title.complete_time) == (State.COMPLETE, view.title.create_time)
    assert view.media is not None
    counted = view.media.renditions[0]
    assert (counted.published_count, counted.ready_count) == (COUNT, COUNT)
    assert counted.size_sum_bytes == sum(one.size_bytes for one in kept.values())
    assert counted.peak_bits_per_second == max(-(-one.size_bytes * 8 // 5) for one in kept.values())

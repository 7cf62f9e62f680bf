"""A newer source for a title: who plays what, whose reports count, and what is collected when."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest

from services.catalog.background import Collector
from services.catalog.errors import MediaExists, MediaNotFound, MediaReplaced, NotTheJob
from services.catalog.media_usecases import Publication
from services.catalog.model import Frames, InitSegment, Kind, Rendition, Segment, State
from services.catalog.store_sql import SqlStore
from services.catalog.text import TitleText
from services.catalog.usecases import Catalog
from services.runtime.clock import ManualClock
from services.runtime.objects import ObjectNotFound
from services.runtime.objects_local import LocalObjects
from services.runtime.sql import Database

STARTS = (0, 5, 10, 15)
DAY = timedelta(hours=25)


class House:
    """A catalog on a database, with one title."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.catalog = Catalog(SqlStore(database), self.clock)
        self.title_id = ""

    async def begin(self, job: str, *, replaces: bool = True) -> None:
        """What ingest and the scheduler say at the start of a job."""
        if not self.title_id:
            title = await self.catalog.create("users/ann", TitleText(display_name="Solaris"), "id", b"")
            self.title_id = title.title_id
        await self.catalog.begin_media(self.title_id, f"jobs/{job}", None, [], replaces=replaces)

    async def publish(self, job: str, *numbers: int, seconds: int = 20) -> State:
        """Read the source if that wasn't done, and publish segments of it."""
        frames = Frames(timescale=1, duration_ticks=seconds, encoded=b"", starts=STARTS, planned=True)
        rendition = Rendition(rendition_id="h264-480", kind=Kind.VIDEO, h264=True, height=480, encoded=b"")
        await self.catalog.begin_media(self.title_id, f"jobs/{job}", frames, [rendition])
        base = f"media/{self.title_id}/{job}/h264-480"
        segments = tuple(
            Segment(
                number=number,
                duration_ticks=5,
                object_key=f"{base}/{number}.m4s",
                size_bytes=1,
                sha256=bytes(32),
                encoded=b"",
            )
            for number in numbers
        )
        init = InitSegment(object_key=f"{base}/init.mp4", sha256=bytes(32), codecs="avc1", timescale=1)
        publication = Publication(
            title_id=self.title_id,
            job=f"jobs/{job}",
            rendition_id="h264-480",
            init=init,
            segments=segments,
            last=False,
        )
        return (await self.catalog.publish(publication))[0]

    async def plays(self) -> tuple[str, State, int]:
        """The job whose media is played, how far it is, and how many segments of it are listed."""
        view = await self.catalog.get_media(self.title_id)
        listed = await self.catalog.list_segments(self.title_id, "h264-480", 0, 9)
        assert view.media is not None
        return view.media.job, view.state, len(listed)

    async def kept(self, job: str) -> tuple[bool, State, int]:
        """Whether a job's media was replaced, how far it is, and how many segments of it are listed."""
        view = await self.catalog.get_media(self.title_id, f"jobs/{job}")
        listed = await self.catalog.list_segments(self.title_id, "h264-480", 0, 9, f"jobs/{job}")
        assert view.media is not None
        return view.media.replaced, view.state, len(listed)


async def swept(collector: Collector) -> None:
    """Make all sweeps that are due."""
    while await collector.collect_some() == 0:
        pass


@pytest.fixture
def house(sql_database: Database) -> House:
    return House(sql_database)


async def test_a_complete_title_plays_on_until_its_replacement_is_playable(house: House) -> None:
    await house.begin("j1")
    assert await house.publish("j1", 0, 1, 2, 3) is State.COMPLETE
    with pytest.raises(MediaExists):
        await house.begin("j2", replaces=False)
    await house.begin("j2")
    await house.begin("j2")
    assert await house.publish("j2", 0) is State.PROCESSING
    assert await house.plays() == ("jobs/j1", State.COMPLETE, 4)
    assert await house.publish("j2", 1) is State.PLAYABLE
    assert await house.plays() == ("jobs/j2", State.PLAYABLE, 2)
    # Who began before still reads the old one, whole.
    assert await house.kept("j1") == (True, State.COMPLETE, 4)
    with pytest.raises(NotTheJob):
        await house.catalog.publish_extras(house.title_id, "jobs/j1", b"")
    with pytest.raises(MediaReplaced):
        await house.begin("j1")
    assert await house.publish("j2", 2, 3) is State.COMPLETE


async def test_a_title_that_still_grows_grows_on_until_it_is_replaced(house: House) -> None:
    await house.begin("j1")
    await house.publish("j1", 0, 1)
    await house.begin("j2")
    assert await house.publish("j1", 2) is State.PLAYABLE
    assert await house.plays() == ("jobs/j1", State.PLAYABLE, 3)
    await house.publish("j2", 0, 1)
    assert await house.kept("j1") == (True, State.PLAYABLE, 3)
    with pytest.raises(NotTheJob):
        await house.catalog.fail_media(house.title_id, "jobs/j1", b"late")


async def test_a_source_that_shows_nothing_yet_is_replaced_at_once(house: House) -> None:
    await house.begin("j1")
    await house.publish("j1", 0)
    await house.begin("j2")
    view = await house.catalog.get_media(house.title_id)
    assert (view.title.job, view.title.next_job, view.state) == ("jobs/j2", "", State.PROCESSING)
    with pytest.raises(MediaReplaced):
        await house.publish("j1", 1)


async def test_a_failed_replacement_changes_nothing_and_may_be_replaced_itself(house: House) -> None:
    await house.begin("j1")
    await house.publish("j1", 0, 1, 2, 3)
    await house.begin("j2")
    await house.publish("j2", 0)
    await house.catalog.fail_media(house.title_id, "jobs/j2", b"why")
    await house.catalog.fail_media(house.title_id, "jobs/j2", b"why")
    assert await house.plays() == ("jobs/j1", State.COMPLETE, 4)
    title = (await house.catalog.get_media(house.title_id)).title
    assert (title.next_job, title.next_error) == ("jobs/j2", b"why")
    await house.begin("j3")
    assert await house.kept("j2") == (True, State.PROCESSING, 1)
    assert await house.publish("j3", 0, 1) is State.PLAYABLE
    title = (await house.catalog.get_media(house.title_id)).title
    assert (title.job, title.next_job, title.next_error) == ("jobs/j3", "", None)


async def test_of_many_replacements_at_once_one_plays_and_the_others_are_told(house: House) -> None:
    await house.begin("j0")
    await house.publish("j0", 0, 1)
    jobs = [f"j{number}" for number in range(1, 6)]
    for job in jobs:
        await house.begin(job)

    async def work(job: str) -> State | None:
        try:
            return await house.publish(job, 0, 1)
        except (NotTheJob, MediaReplaced):
            return None

    assert await asyncio.gather(*map(work, jobs)) == [None] * 4 + [State.PLAYABLE]
    assert await house.plays() == ("jobs/j5", State.PLAYABLE, 2)


async def test_replaced_media_is_collected_with_its_source_when_no_playback_can_read_it_any_more(
    house: House, tmp_path: Path
) -> None:
    objects = LocalObjects(tmp_path / "objects")
    collector = Collector(house.catalog, objects, house.clock, asyncio.Event())
    await house.begin("j1")
    await house.publish("j1", 0, 1)
    files = {
        job: [f"media/{house.title_id}/{job}/h264-480/init.mp4", f"sources/{house.title_id}/{job}"]
        for job in ("j1", "j10", "j2")
    }
    for key in chain(*files.values()):
        await objects.put(key, b"bytes")
    await house.begin("j2")
    await house.publish("j2", 0, 1)
    house.clock.advance(DAY - timedelta(seconds=1))
    assert await collector.collect_some() == 1
    assert (await house.kept("j1"))[2] == 2
    house.clock.advance(timedelta(seconds=1))
    assert await collector.collect_some() == 0
    left = [entry.key async for entry in objects.list("")]
    assert sorted(left) == sorted(files["j10"] + files["j2"])
    with pytest.raises(MediaNotFound):
        await house.kept("j1")
    with pytest.raises(MediaReplaced):
        await house.begin("j1")
    assert await house.plays() == ("jobs/j2", State.PLAYABLE, 2)
    with pytest.raises(ObjectNotFound):
        await objects.stat(files["j1"][1])
    await objects.close()


async def test_a_failed_replacement_is_kept_for_a_retry_and_given_up_after_a_week(
    house: House, tmp_path: Path
) -> None:
    objects = LocalObjects(tmp_path / "objects")
    collector = Collector(house.catalog, objects, house.clock, asyncio.Event())
    await house.begin("j1")
    await house.publish("j1", 0, 1, 2, 3)
    await house.begin("j2")
    await house.publish("j2", 0)
    key = f"media/{house.title_id}/j2/h264-480/0.m4s"
    await objects.put(key, b"bytes")
    await house.catalog.fail_media(house.title_id, "jobs/j2", b"why")
    house.clock.advance(timedelta(days=6))
    await swept(collector)
    # A retry goes on with it, for as long as it takes.
    await house.begin("j2", replaces=False)
    house.clock.advance(timedelta(days=9))
    await swept(collector)
    assert [entry.key async for entry in objects.list()] == [key]
    await house.catalog.fail_media(house.title_id, "jobs/j2", b"why")
    house.clock.advance(timedelta(days=7))
    await swept(collector)
    title = (await house.catalog.get_media(house.title_id)).title
    assert (title.job, title.next_job, title.next_error) == ("jobs/j1", "", None)
    with pytest.raises(MediaReplaced):
        await house.begin("j2", replaces=False)
    house.clock.advance(timedelta(hours=1))
    await swept(collector)
    assert [entry.key async for entry in objects.list()] == []
    assert await house.plays() == ("jobs/j1", State.COMPLETE, 4)
    await objects.close()

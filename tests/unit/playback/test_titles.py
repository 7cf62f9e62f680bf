from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from services.playback.errors import TitleNotFound, TitleReplaced
from services.playback.model import Segment, TitleMedia
from services.playback.titles import COMPLETE_S, GROWING_S, Titles
from services.runtime.clock import ManualClock
from services.runtime.errors import KinoError, Unavailable
from tests.unit.playback.media import audio, segments, title, video

STALE_S = 600.0
WHOLE = title([video("h264-720"), audio("aac-128-und-0")])
OLD = title([video("h264-720")], job="jobs/old", replaced=True)
GROWING = title([video("h264-720", 1)], complete=False)


@dataclass
class Shelf:
    """A catalog that counts what it is asked."""

    media_now: TitleMedia = WHOLE
    old: TitleMedia = OLD
    failure: KinoError | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)
    media_count: int = 0

    async def media(self, title: str, job: str) -> TitleMedia:
        self.media_count += 1
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return self.old if job == self.old.job else self.media_now

    async def segments(
        self, title: str, job: str, rendition_id: str, first: int, page_size: int
    ) -> list[Segment]:
        self.asked.append((rendition_id, first))
        found = segments(self.media_now.rendition(rendition_id))
        return [segment for segment in found if segment.number >= first][:page_size]


@dataclass
class Room:
    clock: ManualClock
    catalog: Shelf
    titles: Titles

    async def get(self) -> TitleMedia:
        return await self.titles.get("titles/film")


@pytest.fixture
def room() -> Room:
    clock, catalog = ManualClock(), Shelf()
    return Room(clock=clock, catalog=catalog, titles=Titles(catalog, clock, STALE_S))


@pytest.mark.parametrize(("media", "fresh_s"), [(WHOLE, COMPLETE_S), (GROWING, GROWING_S)])
async def test_a_title_is_asked_for_again_when_it_may_have_changed(
    room: Room, media: TitleMedia, fresh_s: float
) -> None:
    room.catalog.media_now = media
    await room.get()
    room.clock.advance(fresh_s - 0.001)
    await room.get()
    assert room.catalog.media_count == 1
    room.clock.advance(0.001)
    await room.get()
    assert room.catalog.media_count == 2


async def test_all_who_ask_at_once_share_one_question(room: Room) -> None:
    got = await asyncio.gather(*(room.get() for _ in range(100)))
    assert (got, room.catalog.media_count) == ([WHOLE] * 100, 1)


async def test_a_deleted_title_is_gone_when_it_is_asked_for_again(room: Room) -> None:
    await room.get()
    room.catalog.failure = TitleNotFound("titles/film")
    room.clock.advance(COMPLETE_S)
    for _ in range(2):
        with pytest.raises(TitleNotFound):
            await room.get()


async def test_an_old_answer_serves_while_catalog_is_down_but_not_for_ever(room: Room) -> None:
    await room.get()
    room.catalog.failure = Unavailable(1_000)
    room.clock.advance(STALE_S)
    assert await room.get() == WHOLE
    room.clock.advance(1)
    with pytest.raises(Unavailable):
        await room.get()


async def test_segments_are_asked_for_once(room: Room) -> None:
    media = await room.get()
    rendition = media.renditions[0]
    found = [await room.titles.segment(media, rendition, number) for number in (1, 2, 1, 0)]
    assert [segment.number for segment in found if segment] == [1, 2, 1, 0]
    assert room.catalog.asked == [("h264-720", 1), ("h264-720", 0)]


async def test_a_finished_rendition_is_not_asked_beyond_its_end(room: Room) -> None:
    media = await room.get()
    assert await room.titles.segment(media, media.renditions[0], 3) is None
    assert room.catalog.asked == []


async def test_a_segment_that_is_not_there_yet_is_asked_for_once_a_second(room: Room) -> None:
    room.catalog.media_now = GROWING
    media = await room.get()
    for _ in range(5):
        assert await room.titles.segment(media, media.renditions[0], 1) is None
    assert len(room.catalog.asked) == 1
    room.catalog.media_now = title([video("h264-720", 2)], complete=False)
    room.clock.advance(GROWING_S)
    found = await room.titles.segment(media, media.renditions[0], 1)
    assert found is not None
    assert (found.number, len(room.catalog.asked)) == (1, 2)


async def test_the_prefix_grows_by_asking_only_for_what_is_new(room: Room) -> None:
    for ready in (1, 2, 3):
        room.catalog.media_now = title([video("h264-720", ready)])
        media = await room.titles.asked("titles/film")
        prefix = await room.titles.prefix(media, media.renditions[0])
        assert [segment.number for segment in prefix] == list(range(ready))
    assert room.catalog.asked == [("h264-720", 0), ("h264-720", 1), ("h264-720", 2)]


async def test_another_job_starts_with_empty_shelves(room: Room) -> None:
    media = await room.get()
    await room.titles.segment(media, media.renditions[0], 0)
    room.catalog.media_now = replace(WHOLE, job="jobs/two")
    other = await room.titles.asked("titles/film")
    assert room.titles.known(other, "h264-720", 0) is None
    assert room.titles.known(media, "h264-720", 0) is not None


async def test_who_reads_what_a_job_made_reads_on_when_it_is_replaced(room: Room) -> None:
    room.catalog.media_now = replace(OLD, replaced=False)
    started = await room.titles.asked("titles/film")
    assert (await room.titles.get("titles/film", started.job), room.catalog.media_count) == (started, 1)
    room.catalog.media_now = WHOLE
    room.clock.advance(COMPLETE_S)
    assert await room.titles.get("titles/film", started.job) == OLD
    assert await room.titles.asked("titles/film") == WHOLE
    room.catalog.failure = TitleReplaced("titles/film")
    room.clock.advance(COMPLETE_S)
    for _ in range(2):
        with pytest.raises(TitleReplaced):
            await room.titles.get("titles/film", started.job)

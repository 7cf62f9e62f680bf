from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.playback.disk import Edge
from services.playback.errors import TitleNotFound
from services.playback.folder import Folder
from services.playback.misses import Cause
from services.playback.model import Segment, TitleMedia
from services.playback.plan import Hours, Planner
from services.playback.titles import Titles
from services.runtime.clock import ManualClock
from services.runtime.objects_local import LocalObjects
from tests.unit.playback.media import title as media_title
from tests.unit.playback.media import video

SIZE = 1000
SEGMENTS = 16
#: The second follows the first in a series; the third stands alone.
TITLES = "abc"


def folder_of(name: str) -> str:
    return f"media/{name}/one/h264-360"


def key(name: str, number: int) -> str:
    return f"{folder_of(name)}/{number:06}-1.m4s"


def content(object_key: str) -> bytes:
    return object_key.encode().ljust(SIZE, b".")


def digest(object_key: str) -> bytes:
    return hashlib.sha256(content(object_key)).digest()


class Series:
    """A catalog of three titles, two of them episodes."""

    async def media(self, title: str, job: str) -> TitleMedia:
        name = title.removeprefix("titles/")
        if name not in TITLES:
            raise TitleNotFound(title)
        init = f"{folder_of(name)}/init.mp4"
        rendition = replace(
            video("h264-360", SEGMENTS), init_key=init, init_sha256=digest(init), complete=True
        )
        return media_title([rendition], title=title)

    async def segments(
        self, title: str, job: str, rendition_id: str, first: int, page_size: int
    ) -> list[Segment]:
        name = title.removeprefix("titles/")
        keys = [(number, key(name, number)) for number in range(first, min(SEGMENTS, first + page_size))]
        return [Segment(number, 0, 1, one, SIZE, digest(one), ()) for number, one in keys]

    async def after(self, title: str) -> str | None:
        return "titles/b" if title == "titles/a" else None


@dataclass
class Room:
    clock: ManualClock
    origin: LocalObjects
    edge: Edge
    planner: Planner

    def watched(self, name: str, *numbers: int, times: int = 4) -> None:
        for number in numbers * times:
            self.edge.asked(key(name, number))

    async def planned(self) -> list[tuple[str, int]]:
        wishes = (await self.planner.plan()).wishes
        return [(wish.item.group.split("/")[1], wish.item.number) for wish in wishes]


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    store = LocalObjects(tmp_path / "origin")
    for name in TITLES:
        for one in (f"{folder_of(name)}/init.mp4", *(key(name, number) for number in range(SEGMENTS))):
            await store.put(one, content(one))
    yield store
    await store.close()


def room_of(
    tmp_path: Path, origin: LocalObjects, hours: str = "02:00-06:00", budget: int = 1 << 20, rate: int = 10**9
) -> Room:
    clock, series = ManualClock(), Series()
    edge = Edge(origin, Folder(tmp_path / "edge"), budget, clock)
    planner = Planner(
        edge=edge,
        titles=Titles(series, clock, 0.0),
        episodes=series,
        clock=clock,
        hours=Hours.of(hours),
        bytes_per_s=rate,
    )
    return Room(clock=clock, origin=origin, edge=edge, planner=planner)


async def test_what_is_watched_is_planned_where_its_viewers_go_the_best_first(
    tmp_path: Path, origin: LocalObjects
) -> None:
    room = room_of(tmp_path, origin)
    room.watched("c", 0)
    room.watched("c", 9, times=1)
    await room.edge.read(key("c", 0), digest(key("c", 0)))
    planned = await room.planned()
    # Four came to the first part and one to the second, where nobody is known to come before the tenth.
    assert planned == [("c", -1), *(("c", number) for number in range(1, SEGMENTS) if number != 8)]


async def test_the_opening_of_the_next_episode_is_planned_when_the_end_of_one_is_watched(
    tmp_path: Path, origin: LocalObjects
) -> None:
    room = room_of(tmp_path, origin)
    room.watched("a", 0)
    room.clock.advance(3600)
    assert "b" not in {name for name, _ in await room.planned()}
    room.watched("a", SEGMENTS - 1)
    opening = [number for name, number in await room.planned() if name == "b"]
    assert opening == [-1, *range(8)]


async def test_what_is_planned_displaces_only_what_is_worth_clearly_less(
    tmp_path: Path, origin: LocalObjects
) -> None:
    room = room_of(tmp_path, origin, budget=2 * SIZE)
    for name in ("b", "c"):
        room.watched(name, 0, 1)
    for number in (0, 1):
        await room.edge.read(key("b", number), digest(key("b", number)))
    assert [number for _, number in await room.planned() if number >= 0] == []
    room.watched("c", 0, 1)
    assert [one for one in await room.planned() if one[1] >= 0] == [("c", 0), ("c", 1)]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 -- what is awaited tells nobody when it changes
        await asyncio.sleep(0.01)


async def test_what_is_planned_waits_for_its_hours_and_a_miss_until_then_is_told_as_such(
    tmp_path: Path, origin: LocalObjects
) -> None:
    room = room_of(tmp_path, origin)
    room.watched("c", 0)
    running = asyncio.create_task(room.planner.run())
    async with asyncio.timeout(30):
        await until(lambda: bool(room.edge.waiting))
        await room.edge.read(key("c", 3), digest(key("c", 3)))
        assert {cause: count.reads for cause, count in room.edge.misses.counts.items()} == {
            Cause.WINDOW_CLOSED: 1
        }
        assert (room.edge.filled_bytes, room.edge.kept_count) == (0, 1)
        room.clock.advance(2 * 3600)
        await until(lambda: not room.edge.waiting)
    running.cancel()
    before = room.edge.origin_bytes
    assert room.edge.filled_bytes == before - SIZE > 0
    for number in range(8):
        await origin.delete(key("c", number))
        assert await room.edge.read(key("c", number), digest(key("c", number))) == content(key("c", number))
    assert room.edge.origin_bytes == before


class Slow(LocalObjects):
    """Takes ten minutes of the clock for an object."""

    clock = ManualClock()

    async def get(
        self, key: str, start: int = 0, length: int | None = None, *, checked: bool = True
    ) -> bytes:
        self.clock.advance(600)
        return await super().get(key, start, length, checked=checked)


async def test_fetching_stops_where_the_hours_end(tmp_path: Path, origin: LocalObjects) -> None:
    slow = Slow(tmp_path / "origin")
    room = room_of(tmp_path, slow, hours="00:00-00:30")
    slow.clock = room.clock
    room.watched("c", 0)
    plan = await room.planner.plan()
    left = await room.planner.fill(plan.wishes)
    assert (room.edge.kept_count, left) == (3, plan.wishes[3:])
    await slow.close()


async def test_fetching_keeps_to_its_rate(tmp_path: Path, origin: LocalObjects) -> None:
    room = room_of(tmp_path, origin, hours="00:00-23:00", rate=100_000)
    room.watched("c", 0)
    began_s = asyncio.get_running_loop().time()
    await room.planner.fill((await room.planner.plan()).wishes)
    assert asyncio.get_running_loop().time() - began_s >= room.edge.filled_bytes / 100_000


async def test_a_title_that_is_gone_leaves_the_plan(tmp_path: Path, origin: LocalObjects) -> None:
    room = room_of(tmp_path, origin)
    room.edge.asked(key("gone", 0))
    room.watched("c", 0)
    assert {name for name, _ in await room.planned()} == {"c"}


@pytest.mark.parametrize(
    ("hours", "hour", "is_open"),
    [
        ("02:00-06:00", 1, False),
        ("02:00-06:00", 2, True),
        ("02:00-06:00", 6, False),
        ("22:00-04:00", 23, True),
        ("22:00-04:00", 3, True),
        ("22:00-04:00", 12, False),
    ],
)
def test_hours_may_pass_midnight(hours: str, hour: int, is_open: bool) -> None:
    parsed = Hours.of(hours)
    assert parsed is not None
    assert parsed.open(datetime(2026, 1, 1, hour, tzinfo=UTC)) is is_open

"""What an edge should keep and doesn't yet: computed from measured plays, fetched in the hours set for it.

A title that is watched here is fetched where its viewers go: the parts played most, those that viewers are on
their way to, and the opening of the episode after one that is watched to its end. What is asked for is kept
at any hour, since that costs the origin nothing more; the rest waits for the hours of low load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Protocol

from services.playback.disk import Edge, item_of
from services.playback.model import Rendition, Segment, TitleMedia
from services.playback.placement import HYSTERESIS, INIT, PART_SEGMENTS, Item
from services.playback.titles import Titles
from services.runtime.clock import Clock
from services.runtime.errors import KinoError
from services.runtime.logs import logger

#: How often the plan is made anew.
PLAN_EVERY = timedelta(minutes=30)
#: Renditions are looked at, the most watched first, until what might be fetched fills the disk so many times.
_BUDGETS = 4
#: What is worth less than this is not fetched: about one viewer, two days ago.
_LEAST_WORTH = 0.25
#: Part of those who see the end of an episode that begin the next.
GOES_ON = 0.5
#: How often the hours are looked at.
_LOOK_EVERY_S = 1.0
_log = logger("playback.edge")


@dataclass(frozen=True, kw_only=True)
class Hours:
    """A time of day in UTC, every day; past midnight where the end is not after the start."""

    start: time
    end: time

    @classmethod
    def of(cls, text: str) -> Hours | None:
        """From `02:00-06:00`; None from nothing."""
        if not text:
            return None
        start, end = (time.fromisoformat(part) for part in text.split("-"))
        return cls(start=start, end=end)

    def open(self, now: datetime) -> bool:
        """Whether it is that time."""
        at = now.time()
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A segment worth its room that is not on the disk."""

    key: str
    sha256: bytes
    #: 0 for an init segment, whose size catalog doesn't tell.
    size_bytes: int
    worth: float
    #: Whether it is the opening of an episode after one that is watched.
    next_episode: bool = False

    @property
    def item(self) -> Item:
        """What it is."""
        return item_of(self.key)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be fetched, what is worth most first."""

    time: datetime
    wishes: Sequence[Wish]


class Episodes(Protocol):
    """The order of series."""

    async def after(self, title: str) -> str | None:
        """The title after an episode; None after the last and for what is no episode."""


class Planner:
    """Makes the plan and carries it out."""

    def __init__(
        self,
        *,
        edge: Edge,
        titles: Titles,
        episodes: Episodes,
        clock: Clock,
        hours: Hours | None,
        bytes_per_s: int,
    ) -> None:
        """`hours`: when to fetch; None: never. `bytes_per_s` bounds what is then read from the origin."""
        self._edge = edge
        self._titles = titles
        self._episodes = episodes
        self._clock = clock
        self.hours = hours
        self.bytes_per_s = bytes_per_s

    @property
    def filling(self) -> bool:
        """Whether it is time to fetch."""
        return self.hours is not None and self.hours.open(self._clock.now())

    async def plan(self) -> Plan:
        """What is worth its room now and not on the disk; fits in the budget with what stays."""
        wishes: list[Wish] = []
        expected: dict[tuple[str, int], float] = {}
        wished_bytes = 0
        for group in self._edge.ranks(least_worth=_LEAST_WORTH):
            try:
                found = await self._of(group, expected)
            except KinoError:  # deleted or replaced, or catalog is away
                continue
            wishes += found
            wished_bytes += sum(wish.size_bytes for wish in found)
            if wished_bytes > _BUDGETS * self._edge.budget_bytes:
                break
            await asyncio.sleep(0)  # for the streams
        self._edge.expect(expected)
        fitting = await asyncio.to_thread(self._fitting, wishes)
        return Plan(time=self._clock.now(), wishes=tuple(fitting))

    async def run(self) -> None:
        """Make plans and carry them out in the hours for it, until cancelled."""
        plan = await self.plan()
        while True:
            if self._clock.now() >= plan.time + PLAN_EVERY:
                plan = await self.plan()
            self._edge.waiting = frozenset(wish.item for wish in plan.wishes)
            plan = replace(plan, wishes=await self.fill(plan.wishes))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def fill(self, wishes: Sequence[Wish]) -> Sequence[Wish]:
        """Fetch what is planned, as long as it is time to; what is left."""
        for at, wish in enumerate(wishes):
            if not self.filling:
                return wishes[at:]
            try:
                size_bytes = await self._edge.fill(wish.key, wish.sha256)
            except KinoError as error:
                _log.warning("a planned segment can't be fetched", key=wish.key, reason=error.reason)
                size_bytes = 0
            await asyncio.sleep(size_bytes / self.bytes_per_s)
        return ()

    async def _of(self, group: str, expected: dict[tuple[str, int], float]) -> list[Wish]:
        """Of a rendition that plays are known of; adds to `expected` what follows for the next episode."""
        *_, title, job, rendition_id = group.split("/")
        media = await self._titles.get(f"titles/{title}", f"jobs/{job}")
        rendition = media.rendition(rendition_id)
        segments = await self._titles.prefix(media, rendition)
        wishes = _init(rendition, self._edge.worth(Item(group, INIT)))
        for segment in segments:
            worth = self._edge.worth(item_of(segment.object_key))
            if worth >= _LEAST_WORTH:
                wishes.append(_wish(segment, worth))
        if segments and rendition.complete and media.planned:
            end = self._edge.worth(item_of(segments[-1].object_key))
            wishes += await self._after(media, rendition_id, end * GOES_ON, expected)
        return wishes

    async def _after(
        self, media: TitleMedia, rendition_id: str, worth: float, expected: dict[tuple[str, int], float]
    ) -> list[Wish]:
        title = await self._episodes.after(media.title) if worth >= _LEAST_WORTH else None
        if title is None:
            return []
        following = await self._titles.get(title)
        rendition = following.rendition(rendition_id)
        opening = (await self._titles.prefix(following, rendition))[:PART_SEGMENTS]
        if opening:
            expected[item_of(rendition.init_key).group, 0] = worth
        wishes = [*_init(rendition, worth), *(_wish(segment, worth) for segment in opening)]
        return [replace(wish, next_episode=True) for wish in wishes]

    def _fitting(self, wishes: Iterable[Wish]) -> list[Wish]:
        """Those that have a place when each displaces only what is worth clearly less; each once."""
        best: dict[Item, Wish] = {}
        for wish in wishes:
            known = best.get(wish.item)
            if known is None or wish.worth > known.worth:
                best[wish.item] = wish
        new = [wish for item, wish in best.items() if not self._edge.keeps(item)]
        ranked: list[tuple[float, int, Wish | None]] = [
            (HYSTERESIS * wish.worth, wish.size_bytes, wish) for wish in new
        ]
        ranked += [(self._edge.worth(file.item), file.size_bytes, None) for file in self._edge.files()]
        left_bytes, fitting = self._edge.budget_bytes, list[Wish]()
        for _, size_bytes, one in sorted(ranked, key=lambda one: -one[0]):
            left_bytes -= size_bytes
            if left_bytes < 0:
                break
            if one is not None:
                fitting.append(one)
        return fitting


def _init(rendition: Rendition, worth: float) -> list[Wish]:
    if not rendition.init_key:
        return []
    return [Wish(key=rendition.init_key, sha256=rendition.init_sha256, size_bytes=0, worth=worth)]


def _wish(segment: Segment, worth: float) -> Wish:
    return Wish(key=segment.object_key, sha256=segment.sha256, size_bytes=segment.size_bytes, worth=worth)

"""What catalog tells about titles, remembered as long as it may be."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from services.playback.errors import TitleNotFound, TitleReplaced
from services.playback.model import Rendition, Segment, TitleMedia
from services.runtime.clock import Clock
from services.runtime.errors import KinoError
from services.runtime.logs import logger

#: A complete title is asked for again after this: a deleted one stops within it.
COMPLETE_S = 60.0
#: One that is still growing.
GROWING_S = 1.0
#: Segments per question: little where one is awaited, much where all are wanted.
PAGE = 100
LONG_PAGE = 2000
#: Segments remembered over all titles, about 1 KiB each.
_REMEMBERED = 200_000
_log = logger("playback.titles")

_Key = tuple[str, str]


class Catalog(Protocol):
    """Where titles come from."""

    async def media(self, title: str, job: str) -> TitleMedia:
        """What `job` made, empty: what can be played now.

        Raises `TitleNotFound`, `TitleReplaced`, and other errors when catalog can't be reached.
        """

    async def segments(
        self, title: str, job: str, rendition_id: str, first: int, page_size: int
    ) -> list[Segment]:
        """Published segments from that number on, by number, at most so many."""


@dataclass
class _Shelf:
    """What is remembered of what one job made of a title."""

    media: TitleMedia
    loaded_s: float
    segments: dict[str, dict[int, Segment]] = field(default_factory=lambda: defaultdict(dict))
    #: When catalog last said that there is nothing from this rendition's number on.
    missing_s: dict[tuple[str, int], float] = field(default_factory=dict)
    #: One question for the same segments at a time.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        return sum(map(len, self.segments.values()))


class Titles:
    """Titles as catalog last told them. Published segments never change, so they are asked for once."""

    def __init__(self, catalog: Catalog, clock: Clock, stale_s: float) -> None:
        """`stale_s` is how long an old answer serves while catalog can't be reached."""
        self._catalog = catalog
        self._clock = clock
        self._stale_s = stale_s
        #: By title and job.
        self._shelves: OrderedDict[_Key, _Shelf] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[TitleMedia]] = {}

    async def get(self, title: str, job: str = "") -> TitleMedia:
        """What a job made of a title (empty: what plays now), from memory while that is fresh enough.

        Raises `TitleNotFound`, `TitleReplaced`.
        """
        key = title, job
        shelf = self._shelves.get(key)
        if shelf is None:
            return await self.asked(title, job)
        self._shelves.move_to_end(key)
        age_s = self._clock.monotonic() - shelf.loaded_s
        if age_s < (COMPLETE_S if shelf.media.complete else GROWING_S):
            return shelf.media
        try:
            return await self.asked(title, job)
        except (TitleNotFound, TitleReplaced):
            raise
        except KinoError as error:
            if age_s > self._stale_s:
                raise
            _log.warning("catalog does not answer, an older answer serves", title=title, reason=error.reason)
            return shelf.media

    async def asked(self, title: str, job: str = "") -> TitleMedia:
        """The same as catalog tells it now; those who ask at the same time share one question."""
        key = title, job
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(title, job))
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def _answered(self, key: _Key, task: asyncio.Task[TitleMedia]) -> None:
        del self._asking[key]
        if not task.cancelled() and isinstance(task.exception(), TitleNotFound | TitleReplaced):
            self._shelves.pop(key, None)

    async def _ask(self, title: str, job: str) -> TitleMedia:
        """Ask, and remember under the job that was asked for and the one that was told."""
        media = await self._catalog.media(title, job)
        for key in {(title, job), (title, media.job)}:
            shelf = self._shelves.get(key)
            if shelf is None:
                self._shelves[key] = _Shelf(media=media, loaded_s=self._clock.monotonic())
                self._make_room(key)
            else:
                shelf.media, shelf.loaded_s = media, self._clock.monotonic()
        return media

    def known(self, media: TitleMedia, rendition_id: str, number: int) -> Segment | None:
        """A segment that is remembered, without asking."""
        shelf = self._shelves.get((media.title, media.job))
        return shelf.segments[rendition_id].get(number) if shelf else None

    async def segment(self, media: TitleMedia, rendition: Rendition, number: int) -> Segment | None:
        """A segment, or None while it isn't published."""
        found = self.known(media, rendition.rendition_id, number)
        if found is not None or rendition.ends_before(number):
            return found
        await self._fetch(media, rendition.rendition_id, number, PAGE)
        return self.known(media, rendition.rendition_id, number)

    async def prefix(self, media: TitleMedia, rendition: Rendition) -> list[Segment]:
        """The segments published without a gap from the start."""
        found: list[Segment] = []
        while len(found) < rendition.ready_segment_count:
            number = len(found)
            segment = self.known(media, rendition.rendition_id, number)
            if segment is None:
                await self._fetch(media, rendition.rendition_id, number, LONG_PAGE)
                segment = self.known(media, rendition.rendition_id, number)
            if segment is None:
                break
            found.append(segment)
        return found

    async def _fetch(self, media: TitleMedia, rendition_id: str, first: int, page_size: int) -> None:
        """Ask for a page of segments unless somebody just did."""
        key = media.title, media.job
        shelf = self._shelves.get(key)
        if shelf is None:
            await self.asked(*key)
            shelf = self._shelves[key]
        async with shelf.lock:
            known, now_s = shelf.segments[rendition_id], self._clock.monotonic()
            if first in known or now_s - shelf.missing_s.get((rendition_id, first), -GROWING_S) < GROWING_S:
                return
            page = await self._catalog.segments(*key, rendition_id, first, page_size)
            known.update((segment.number, segment) for segment in page)
            if first in known:
                shelf.missing_s.pop((rendition_id, first), None)
            else:
                shelf.missing_s[rendition_id, first] = now_s
        self._make_room(key)

    def _make_room(self, kept: _Key) -> None:
        """Forget the titles not asked for longest, but never the one at hand."""
        total = sum(shelf.size for shelf in self._shelves.values())
        while total > _REMEMBERED and next(iter(self._shelves)) != kept:
            _, dropped = self._shelves.popitem(last=False)
            total -= dropped.size

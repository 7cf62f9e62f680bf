"""Beside the calls: tell the search index, and collect the objects of what was deleted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import grpc.aio
from prometheus_client import Gauge

from kino.search.v1 import resources_pb2, search_pb2
from services.catalog.artwork import Artwork
from services.catalog.model import Title
from services.catalog.usecases import Catalog
from services.runtime.clock import Clock, woken
from services.runtime.logs import logger
from services.runtime.metrics import REGISTRY
from services.runtime.objects import ObjectStore

_log = logger("catalog")

IndexTitles = Callable[[search_pb2.IndexTitlesRequest], Awaitable[search_pb2.IndexTitlesResponse]]

#: 50 titles of the greatest size stay below the size of a message.
_BATCH = 50
_FIRST_WAIT_S = 0.2
_MAX_WAIT_S = 30.0
#: How search says that it will never take a title as it is, or fails over it; other codes concern all titles.
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
    }
)
#: A title that was refused is tried again after so long, doubled each time, while the others go on.
_FIRST_DELAY, _MAX_DELAY = timedelta(seconds=5), timedelta(hours=1)
#: From so many refusals on it is the operator's: about half a minute.
_TELL_AFTER = 4
REFUSED = Gauge(
    "kino_catalog_titles_search_refuses",
    "Titles that the search service refuses again and again: what it says of each is in the log.",
    registry=REGISTRY,
)
#: What a node left behind that was killed before it sent is sent by another within this time.
_LOOK_EVERY_S = 5.0
#: A sweep is never waited for longer, so that a clock that is set forward is noticed.
_SWEEP_WAIT_S = 60.0


class Outbox:
    """Sends changed titles to the search index: at least once, each title's versions in order.

    Nodes on one database may send the same title at once: the index keeps the newer version.
    """

    def __init__(self, catalog: Catalog, index_titles: IndexTitles, wake: asyncio.Event) -> None:
        """`wake` is set after every change."""
        self._catalog = catalog
        self._index_titles = index_titles
        self._wake = wake
        #: How often each title was refused, in the version that it has.
        self._refusals: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Send for ever; waits longer each time the search service can't be reached."""
        wait_s = _FIRST_WAIT_S
        while True:
            self._wake.clear()
            try:
                while await self.send_some():
                    pass
            except grpc.aio.AioRpcError as error:
                _log.warning("search index not told", code=error.code().name, retry_s=round(wait_s, 1))
                await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                wait_s = min(wait_s * 2, _MAX_WAIT_S)
                continue
            wait_s = _FIRST_WAIT_S
            await woken(self._wake, _LOOK_EVERY_S)

    async def send_some(self) -> bool:
        """Send what has waited longest; False when there was nothing.

        Where search refuses them each is sent alone, so that one doesn't keep the others back.
        """
        titles = await self._catalog.unsent(_BATCH)
        try:
            await self._send(titles)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _REFUSED:
                raise
            for title in titles:
                await self._send_alone(title)
        return bool(titles)

    async def _send(self, titles: Sequence[Title]) -> None:
        if titles:
            await self._index_titles(search_pb2.IndexTitlesRequest(documents=documents(titles)))
            await self._catalog.mark_sent(titles)
            for title in titles:
                self._refusals.pop(title.title_id, None)
            self._tell()

    async def _send_alone(self, title: Title) -> None:
        try:
            await self._send([title])
        except grpc.aio.AioRpcError as error:
            if error.code() not in _REFUSED:
                raise
            version, count = self._refusals.get(title.title_id, (title.version, 0))
            count = count + 1 if version == title.version else 1
            self._refusals[title.title_id] = title.version, count
            await self._catalog.put_off(title, min(_FIRST_DELAY * 2 ** min(count - 1, 16), _MAX_DELAY))
            if count >= _TELL_AFTER:
                name = f"titles/{title.title_id}"
                _log.error("search refuses a title", title=name, tries=count, problem=error.details())
            self._tell()

    def _tell(self) -> None:
        REFUSED.set(sum(count >= _TELL_AFTER for _, count in self._refusals.values()))


def documents(titles: Sequence[Title]) -> list[resources_pb2.TitleDocument]:
    """Titles as the search index takes them; of deleted ones only that they are gone."""
    return [_tombstone(title) if title.delete_time is not None else _document(title) for title in titles]


def _tombstone(title: Title) -> resources_pb2.TitleDocument:
    return resources_pb2.TitleDocument(title=f"titles/{title.title_id}", version=title.version, deleted=True)


def _document(title: Title) -> resources_pb2.TitleDocument:
    document = resources_pb2.TitleDocument(
        title=f"titles/{title.title_id}",
        version=title.version,
        display_name=title.text.display_name,
        description=title.text.description,
        release_year=title.text.release_year,
        genres=title.text.genres,
        owner=title.owner,
        visible=title.visible,
    )
    if title.place is not None:
        document.series = f"series/{title.place.series_id}"
        document.series_display_name = title.place.series_name
        document.season_number = title.place.season_number
        document.episode_number = title.place.number
    return document


class Renewer:
    """Takes pictures anew that are frames of replaced sources; of several nodes the first one's stays."""

    def __init__(self, artwork: Artwork) -> None:
        self._artwork = artwork

    async def run(self) -> None:
        """Look for ever; what failed is tried again."""
        while True:
            await self._artwork.renew()
            await asyncio.sleep(_LOOK_EVERY_S)


class Collector:
    """Deletes the objects of deleted titles and of replaced media, each prefix again a while later."""

    def __init__(self, catalog: Catalog, objects: ObjectStore, clock: Clock, wake: asyncio.Event) -> None:
        """`wake` is set after every change."""
        self._catalog = catalog
        self._objects = objects
        self._clock = clock
        self._wake = wake

    async def run(self) -> None:
        """Collect for ever. A sweep that a crash broke off is begun again."""
        while True:
            self._wake.clear()
            due_s = await self.collect_some()
            if due_s > 0:
                await woken(self._wake, min(due_s, _SWEEP_WAIT_S))

    async def collect_some(self) -> float:
        """Make the next sweep if it is due; seconds until one may be, 0 when it was."""
        sweep = await self._catalog.next_sweep()
        if sweep is None:
            return _SWEEP_WAIT_S
        wait_s = (sweep.due_time - self._clock.now()).total_seconds()
        if wait_s > 0:
            return wait_s
        if not await self._catalog.give_up(sweep):
            return 0.0
        for prefix in sweep.prefixes:
            async for entry in self._objects.list(prefix):
                await self._objects.delete(entry.key)
        if sweep.source_key:
            await self._objects.delete(sweep.source_key)
        await self._catalog.swept(sweep)
        return 0.0

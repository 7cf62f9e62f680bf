"""What search does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass

from services.runtime.clock import woken
from services.search.model import Document, Hit, Viewer
from services.search.store import IndexLost, SearchUnavailable, TitleIndex

#: How deep the pages of one query go.
MAX_HITS = 200
#: An index that was lost is noticed within this time, also when nobody searches.
_LOOK_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some hits of a query."""

    hits: list[Hit]
    #: Whether others follow.
    more: bool


class Search:
    """The use cases of search, over an index and the catalog it follows."""

    def __init__(self, index: TitleIndex, catalog: Callable[[], AsyncIterator[Sequence[Document]]]) -> None:
        """`catalog` walks all titles there are, in batches."""
        self._index = index
        self._catalog = catalog
        self._rebuilding: asyncio.Task[int] | None = None
        self._whole = False
        self._failed = asyncio.Event()

    async def find(self, query: str, viewer: Viewer, offset: int, limit: int) -> Page:
        """Hits `offset` to `offset + limit` of all that `viewer` may see.

        Raises `IndexLost` while the index is being built: half of one would deny titles that there are.
        """
        if not self._whole and not await self._index.built():
            raise IndexLost(retry_after_ms=1_000)
        with self._noticing():
            hits = await self._index.search(query, viewer, MAX_HITS)
        return Page(hits=hits[offset : offset + limit], more=offset + limit < len(hits))

    async def put(self, documents: Sequence[Document]) -> None:
        """Put titles into the index or take them out; older versions change nothing."""
        with self._noticing():
            await self._index.put(documents)

    async def rebuild(self) -> int:
        """Build the index anew and let it answer; the number of its titles.

        Goes on to its end when the caller leaves; who calls meanwhile waits for the same one.
        """
        if self._rebuilding is None or self._rebuilding.done():
            # A context of its own: the caller's deadline isn't the rebuild's.
            self._rebuilding = asyncio.create_task(self._rebuild(), context=Context())
        return await asyncio.shield(self._rebuilding)

    async def keep_built(self) -> None:
        """Build the index whenever it isn't there, for ever: a lost one comes back by itself."""
        while True:
            self._failed.clear()
            self._whole = await self._index.built()
            if not self._whole:
                await self.rebuild()
                self._whole = True
            await woken(self._failed, _LOOK_EVERY_S)

    async def close(self) -> None:
        """Give up a rebuild that is under way; the old index stays."""
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.wait([self._rebuilding])

    async def _rebuild(self) -> int:
        generation = await self._index.begin()
        async for documents in self._catalog():
            await self._index.fill(generation, documents)
        return await self._index.finish(generation)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Have the index looked at when it fails."""
        try:
            yield
        except SearchUnavailable as error:
            self._whole = self._whole and not isinstance(error, IndexLost)
            self._failed.set()
            raise

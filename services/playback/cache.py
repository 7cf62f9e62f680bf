"""Segments in memory: a budget in bytes, and one read of the origin however many wait for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

from services.playback.chunks import Chunks, Outline, Piece
from services.playback.disk import Edge
from services.playback.errors import SegmentCorrupt, SegmentMissing
from services.runtime.logs import logger
from services.runtime.objects import ObjectNotFound, ObjectStore, RangeOutside

#: Reads of the origin at the same time; the others wait their turn.
_LOADS = 16
_log = logger("playback.cache")


class ChunkCache:
    """Finds the messages of an object, by its key; objects never change, so neither does what is cached."""

    def __init__(self, objects: ObjectStore, budget_bytes: int, edge: Edge | None = None) -> None:
        """Keeps at most `budget_bytes`; a larger object is served and not kept. `edge`: the tier below."""
        self._objects = objects
        self._edge = edge
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[str, Chunks] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Chunks]] = {}
        self._turn = asyncio.Semaphore(_LOADS)
        self.kept_bytes = 0
        #: Whole objects, and parts of them, read from below so far.
        self.load_count = self.piece_count = 0

    async def get(self, key: str, sha256: bytes, pack: Callable[[bytes], Chunks]) -> Chunks:
        """The messages of an object, read and verified when they aren't here; `pack` makes them, in a thread.

        A waiter that is cancelled doesn't cancel the read for the others. Raises `SegmentCorrupt`,
        `SegmentMissing`, and what the object store raises; nothing of a failed read is kept.
        """
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        return await asyncio.shield(self._load(key, sha256, pack))

    def reading(self, key: str, sha256: bytes, pack: Callable[[bytes], Chunks]) -> Reading:
        """An object, to be taken piece by piece."""
        return Reading(self, key, sha256, pack)

    def holds(self, key: str) -> bool:
        """Whether the object is in memory."""
        return key in self._kept

    async def piece(self, key: str, outline: Outline, start: int, end: int) -> Piece | None:
        """A part of an object that was verified before; None where it can't be read or isn't what it was."""
        first, last = outline.blocks(start, end)
        async with self._turn:
            self.piece_count += 1
            try:
                if self._edge is not None:
                    data = await self._edge.part(key, first, last - first)
                else:
                    data = await self._objects.get(key, first, last - first)
            except (ObjectNotFound, RangeOutside):
                return None
        piece = Piece(outline, first, data)
        return piece if len(data) == last - first and piece.right else None

    def asked(self, key: str, sha256: bytes) -> None:
        """A viewer wants that object now, whether or not it is here."""
        if self._edge is not None:
            self._edge.asked(key)
            chunks = self._kept.get(key)
            if chunks is not None:
                self._edge.offer(key, chunks.size_bytes, sha256, chunks.data)

    def warm(self, key: str, sha256: bytes, pack: Callable[[bytes], Chunks]) -> None:
        """Start reading an object that will be wanted soon; a failure shows when it is."""
        if key not in self._kept:
            self._load(key, sha256, pack)

    async def close(self) -> None:
        """Wait for the reads under way."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        if self._edge is not None:
            await self._edge.close()

    def _load(self, key: str, sha256: bytes, pack: Callable[[bytes], Chunks]) -> asyncio.Task[Chunks]:
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._read(key, sha256, pack))
            task.add_done_callback(lambda done: self._loaded(key, done))
        return task

    def _loaded(self, key: str, task: asyncio.Task[Chunks]) -> None:
        del self._loading[key]
        if not task.cancelled() and task.exception() is None:
            self._keep(key, task.result())

    async def _read(self, key: str, sha256: bytes, pack: Callable[[bytes], Chunks]) -> Chunks:
        async with self._turn:
            self.load_count += 1
            try:
                if self._edge is not None:
                    data = await self._edge.read(key, sha256)
                else:
                    data = await self._objects.get(key, checked=False)  # against the catalogue's, below
            except ObjectNotFound:
                _log.error("published object is missing", key=key)
                raise SegmentMissing() from None
            return await asyncio.to_thread(_verified, key, data, sha256, pack)

    def _keep(self, key: str, chunks: Chunks) -> None:
        if chunks.memory_bytes > self.budget_bytes:
            return
        self._kept[key] = chunks
        self.kept_bytes += chunks.memory_bytes
        while self.kept_bytes > self.budget_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.kept_bytes -= dropped.memory_bytes


class Reading:
    """An object as one reader takes it, who holds none of it between pieces: one that stalls costs little.

    What memory has dropped meanwhile is read again only as far as it is wanted now. At the pace of a film a
    segment is taken in a dozen pieces, and more films are on than memory has room for.
    """

    def __init__(self, cache: ChunkCache, key: str, sha256: bytes, pack: Callable[[bytes], Chunks]) -> None:
        """Reads nothing yet; arguments as for `ChunkCache.get`."""
        self._cache = cache
        self._key = key
        self._sha256 = sha256
        self._pack = pack
        self._outline: Outline | None = None

    async def size_bytes(self) -> int:
        """How large the object is. Raises as `ChunkCache.get`."""
        return self._outline.size_bytes if self._outline else (await self.whole()).size_bytes

    async def at(self, start: int, end: int) -> Chunks | Piece:
        """What holds the bytes `start` ≤ i < `end`. Raises as `ChunkCache.get`."""
        if self._outline is None or self._cache.holds(self._key):
            return await self.whole()
        return await self._cache.piece(self._key, self._outline, start, end) or await self.whole()

    async def whole(self) -> Chunks:
        """All of it. Raises as `ChunkCache.get`."""
        chunks = await self._cache.get(self._key, self._sha256, self._pack)
        self._outline = chunks.outline
        return chunks


def _verified(key: str, data: bytes, sha256: bytes, pack: Callable[[bytes], Chunks]) -> Chunks:
    if hashlib.sha256(data).digest() != sha256:
        _log.error("object does not have its checksum", key=key, size_bytes=len(data))
        raise SegmentCorrupt()
    return pack(data)

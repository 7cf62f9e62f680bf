from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.playback.cache import ChunkCache
from services.playback.chunks import BLOCK_BYTES, Chunks, Track
from services.playback.errors import SegmentCorrupt, SegmentMissing
from services.runtime.objects_local import LocalObjects

PACK = partial(Chunks, Track.VIDEO, 0)


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    store = LocalObjects(tmp_path)
    yield store
    await store.close()


def content(index: int, size_bytes: int = 1000) -> bytes:
    return bytes([index]) * size_bytes


async def load(cache: ChunkCache, index: int, size_bytes: int = 1000) -> bytes:
    digest = hashlib.sha256(content(index, size_bytes)).digest()
    return (await cache.get(f"object-{index}", digest, PACK)).data()


async def filled(objects: LocalObjects, count: int, size_bytes: int = 1000) -> None:
    for index in range(count):
        await objects.put(f"object-{index}", content(index, size_bytes))


async def test_a_thousand_waiters_are_one_read(objects: LocalObjects) -> None:
    await filled(objects, 1)
    cache = ChunkCache(objects, 1 << 20)
    got = await asyncio.gather(*(load(cache, 0) for _ in range(1000)))
    assert (set(got), cache.load_count) == ({content(0)}, 1)


async def test_what_was_read_is_not_read_again(objects: LocalObjects) -> None:
    await filled(objects, 1)
    cache = ChunkCache(objects, 1 << 20)
    await load(cache, 0)
    await objects.delete("object-0")
    assert (await load(cache, 0), cache.load_count) == (content(0), 1)


async def test_the_budget_holds_and_the_least_recently_used_goes_first(objects: LocalObjects) -> None:
    await filled(objects, 4)
    cache = ChunkCache(objects, 3100)
    for index in (0, 1, 2, 0, 3):
        await load(cache, index)
    assert (cache.kept_bytes <= 3100, cache.load_count) == (True, 4)
    await load(cache, 0)
    assert cache.load_count == 4
    await load(cache, 1)
    assert cache.load_count == 5


async def test_an_object_beyond_the_budget_is_served_and_not_kept(objects: LocalObjects) -> None:
    await filled(objects, 1, 5000)
    cache = ChunkCache(objects, 3000)
    assert await load(cache, 0, 5000) == content(0, 5000)
    assert cache.kept_bytes == 0


async def test_a_wrong_checksum_is_refused_to_all_waiters_and_never_kept(objects: LocalObjects) -> None:
    await filled(objects, 1)
    cache = ChunkCache(objects, 1 << 20)
    wrong = bytes(32)
    tasks = (cache.get("object-0", wrong, PACK) for _ in range(3))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [SegmentCorrupt] * 3
    assert (cache.kept_bytes, await load(cache, 0)) == (0, content(0))


async def test_a_missing_object_is_named_as_such_and_looked_for_again(objects: LocalObjects) -> None:
    cache = ChunkCache(objects, 1 << 20)
    with pytest.raises(SegmentMissing):
        await load(cache, 0)
    await filled(objects, 1)
    assert await load(cache, 0) == content(0)


async def test_a_cancelled_waiter_takes_nothing_from_the_others(objects: LocalObjects) -> None:
    await filled(objects, 1)
    cache = ChunkCache(objects, 1 << 20)
    waiters = [asyncio.ensure_future(load(cache, 0)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    assert await asyncio.gather(*waiters[1:]) == [content(0)] * 2
    assert (waiters[0].cancelled(), cache.load_count) == (True, 1)


async def test_warming_reads_ahead_and_keeps_a_failure_to_itself(objects: LocalObjects) -> None:
    await filled(objects, 1)
    cache = ChunkCache(objects, 1 << 20)
    cache.warm("object-0", hashlib.sha256(content(0)).digest(), PACK)
    cache.warm("object-9", bytes(32), PACK)
    await cache.close()
    assert (await load(cache, 0), cache.load_count) == (content(0), 2)


FILM = os.urandom(5 * BLOCK_BYTES + 1000)
DIGEST = hashlib.sha256(FILM).digest()


async def test_what_memory_dropped_is_read_again_only_as_far_as_it_is_wanted(objects: LocalObjects) -> None:
    await objects.put("film", FILM)
    cache = ChunkCache(objects, 1000)
    reading = cache.reading("film", DIGEST, PACK)
    assert await reading.size_bytes() == len(FILM)
    whole = Chunks(Track.VIDEO, 0, FILM)
    for start, end in (
        (0, 10),
        (10, BLOCK_BYTES),
        (BLOCK_BYTES - 5, 3 * BLOCK_BYTES + 7),
        (len(FILM) - 9, len(FILM)),
    ):
        part = await reading.at(start, end)
        assert b"".join(part.message(start, end)) == b"".join(whole.message(start, end))
        assert b"".join(part.views(start, end)) == FILM[start:end]
    assert (cache.load_count, cache.piece_count, cache.kept_bytes) == (1, 4, 0)


async def test_what_memory_holds_is_not_read_again_for_a_piece(objects: LocalObjects) -> None:
    await objects.put("film", FILM)
    cache = ChunkCache(objects, 2 * len(FILM))
    reading = cache.reading("film", DIGEST, PACK)
    await reading.size_bytes()
    assert (await reading.at(0, 10)).message(0, 10) == Chunks(Track.VIDEO, 0, FILM).message(0, 10)
    assert (cache.load_count, cache.piece_count) == (1, 0)


async def test_a_piece_that_is_not_what_it_was_is_never_handed_out(objects: LocalObjects) -> None:
    await objects.put("film", FILM)
    cache = ChunkCache(objects, 1000)
    reading = cache.reading("film", DIGEST, PACK)
    await reading.size_bytes()
    await objects.delete("film")
    with pytest.raises(SegmentMissing):
        await reading.at(0, 10)
    await objects.put("film", FILM[:BLOCK_BYTES] + bytes(len(FILM) - BLOCK_BYTES))
    assert b"".join((await reading.at(0, 10)).views(0, 10)) == FILM[:10]
    with pytest.raises(SegmentCorrupt):
        await reading.at(BLOCK_BYTES, BLOCK_BYTES + 10)

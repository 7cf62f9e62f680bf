"""What every object store must do; an engine's tests subclass `ObjectsContract` and give it a `store`."""

from __future__ import annotations

import asyncio
import hashlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.runtime.errors import InvalidArgument
from services.runtime.objects import (
    ChecksumMismatch,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    RangeOutside,
)

#: More than two parts, where a store writes in parts of 5 MiB.
LARGE_BYTES = (11 << 20) + 7
CONTENT = bytes(range(256)) * 40
NO_KEYS = [
    *("", "/a", "a/", "a//b", "../a", "a/../b", ".", ".tmp/x", "a/.b", "a\0b", "a b", "é", "a@", "a\n"),
    "a" * 201,
    "/".join(["a" * 100] * 10),
]
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class ObjectsContract:
    async def test_what_was_put_comes_back_whole(self, store: ObjectStore) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        info = await store.put("media/t1/a.mp4", CONTENT)
        assert (info.key, info.size_bytes, info.sha256) == ("media/t1/a.mp4", len(CONTENT), SHA256)
        assert before <= info.create_time <= datetime.now(UTC) + timedelta(seconds=2)
        assert await store.get("media/t1/a.mp4") == CONTENT
        assert await store.stat("media/t1/a.mp4") == info
        assert await store.verify("media/t1/a.mp4") == info

    async def test_an_object_may_be_empty(self, store: ObjectStore) -> None:
        assert (await store.put("empty", b"")).size_bytes == 0
        assert await store.get("empty") == b""
        assert [piece async for piece in store.stream("empty")] == []

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, None, CONTENT),
            (0, 0, b""),
            (5, 7, CONTENT[5:12]),
            (len(CONTENT) - 3, 100, CONTENT[-3:]),
            (len(CONTENT), None, b""),
            (1, len(CONTENT), CONTENT[1:]),
        ],
    )
    async def test_a_range_is_cut_at_the_end(
        self, store: ObjectStore, start: int, length: int | None, expected: bytes
    ) -> None:
        await store.put("a", CONTENT)
        assert await store.get("a", start, length) == expected
        assert b"".join([piece async for piece in store.stream("a", start, length)]) == expected

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (len(CONTENT) + 1, None), (0, -1)])
    async def test_a_range_outside_is_refused(
        self, store: ObjectStore, start: int, length: int | None
    ) -> None:
        await store.put("a", CONTENT)
        with pytest.raises(RangeOutside):
            await store.get("a", start, length)
        with pytest.raises(RangeOutside):
            await anext(aiter(store.stream("a", start, length)))

    async def test_a_stream_has_pieces_of_the_size_asked_for(self, store: ObjectStore) -> None:
        await store.put("a", CONTENT)
        pieces = [piece async for piece in store.stream("a", 10, 2_500, piece_bytes=1_000)]
        assert ([len(piece) for piece in pieces], b"".join(pieces)) == (
            [1_000, 1_000, 500],
            CONTENT[10:2_510],
        )

    async def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        for ask in (
            store.get("a/b"),
            store.stat("a/b"),
            store.verify("a/b"),
            anext(aiter(store.stream("a/b"))),
        ):
            with pytest.raises(ObjectNotFound, match="a/b"):
                await ask
        assert await store.delete("a/b") is False

    async def test_the_same_content_again_changes_nothing(self, store: ObjectStore) -> None:
        first = await store.put("a", CONTENT)
        assert await store.put("a", CONTENT) == first

    async def test_other_content_under_a_taken_key_is_refused(self, store: ObjectStore) -> None:
        await store.put("a", CONTENT)
        with pytest.raises(ObjectExists):
            await store.put("a", b"other")
        assert await store.get("a") == CONTENT

    async def test_of_concurrent_writers_one_wins(self, store: ObjectStore) -> None:
        contents = [b"%d" % n * 1_000 for n in range(16)]
        results = await asyncio.gather(*(store.put("a", data) for data in contents), return_exceptions=True)
        won = [
            data for data, result in zip(contents, results, strict=True) if not isinstance(result, Exception)
        ]
        assert [await store.get("a")] == won
        assert sum(isinstance(result, ObjectExists) for result in results) == 15

    async def test_bytes_without_the_announced_checksum_are_not_stored(self, store: ObjectStore) -> None:
        with pytest.raises(ChecksumMismatch):
            await store.put("a", CONTENT, "0" * 64)
        with pytest.raises(ObjectNotFound):
            await store.stat("a")
        assert (await store.put("a", CONTENT, SHA256)).sha256 == SHA256

    async def test_a_file_is_copied_and_stays(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "upload"
        source.write_bytes(CONTENT)
        await store.put("sources/u1", source)
        source.write_bytes(b"changed later")
        assert await store.get("sources/u1") == CONTENT

    async def test_a_moved_file_is_gone_once_it_is_stored(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "upload"
        source.write_bytes(CONTENT)
        assert (await store.put("sources/u1", source, SHA256, move=True)).sha256 == SHA256
        assert not source.exists()
        assert await store.get("sources/u1") == CONTENT

    async def test_a_file_whose_move_is_refused_stays(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "upload"
        source.write_bytes(CONTENT)
        with pytest.raises(ChecksumMismatch):
            await store.put("sources/u1", source, "0" * 64, move=True)
        await store.put("sources/u1", b"taken")
        with pytest.raises(ObjectExists):
            await store.put("sources/u1", source, move=True)
        assert source.read_bytes() == CONTENT

    async def test_a_writer_shows_nothing_before_its_commit(self, store: ObjectStore) -> None:
        async with store.writer("big") as writer:
            await writer.write(CONTENT[:1_000])
            await writer.write(CONTENT[1_000:])
            with pytest.raises(ObjectNotFound):
                await store.stat("big")
            info = await writer.commit(SHA256)
        assert (info.size_bytes, info.sha256, await store.get("big")) == (len(CONTENT), SHA256, CONTENT)

    async def test_a_writer_without_commit_leaves_nothing(self, store: ObjectStore) -> None:
        async with store.writer("big") as writer:
            await writer.write(CONTENT)
        with pytest.raises(ObjectNotFound):
            await store.stat("big")
        assert [entry async for entry in store.list()] == []

    async def test_a_writer_checks_and_respects_what_is_there(self, store: ObjectStore) -> None:
        async with store.writer("big") as writer:
            await writer.write(CONTENT)
            with pytest.raises(ChecksumMismatch):
                await writer.commit("0" * 64)
        await store.put("big", b"first")
        async with store.writer("big") as writer:
            await writer.write(CONTENT)
            with pytest.raises(ObjectExists):
                await writer.commit()
        assert await store.get("big") == b"first"

    @pytest.mark.parametrize("way", ["bytes", "file", "writer"])
    async def test_what_is_large_comes_back_whole(self, store: ObjectStore, tmp_path: Path, way: str) -> None:
        content = random.Random(1).randbytes(LARGE_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        if way == "writer":
            async with store.writer("large") as writer:
                for start in range(0, len(content), 1 << 20):
                    await writer.write(content[start : start + (1 << 20)])
                info = await writer.commit(digest)
        else:
            source = tmp_path / "source"
            source.write_bytes(content)
            info = await store.put("large", content if way == "bytes" else source)
        assert (info.size_bytes, info.sha256) == (len(content), digest)
        assert await store.stat("large") == info
        assert await store.get("large") == content
        assert await store.get("large", 5_000_000, 1_000_000) == content[5_000_000:6_000_000]
        assert b"".join([piece async for piece in store.stream("large")]) == content
        assert await store.put("large", content, digest) == info
        with pytest.raises(ObjectExists):
            await store.put("large", content[:-1] + b"!")

    async def test_a_large_object_is_not_stored_without_its_announced_checksum(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(bytes(LARGE_BYTES))
        with pytest.raises(ChecksumMismatch):
            await store.put("large", source, "0" * 64)
        with pytest.raises(ObjectNotFound):
            await store.stat("large")

    async def test_of_concurrent_large_writers_one_wins(self, store: ObjectStore) -> None:
        contents = [bytes([n]) * LARGE_BYTES for n in range(3)]
        results = await asyncio.gather(*(store.put("a", data) for data in contents), return_exceptions=True)
        won = [n for n, result in enumerate(results) if not isinstance(result, Exception)]
        assert [await store.get("a")] == [contents[n] for n in won]
        assert sum(isinstance(result, ObjectExists) for result in results) == 2

    async def test_a_deleted_object_is_gone_and_its_key_free(self, store: ObjectStore) -> None:
        await store.put("a/b/c", CONTENT)
        assert await store.delete("a/b/c") is True
        assert await store.delete("a/b/c") is False
        with pytest.raises(ObjectNotFound):
            await store.get("a/b/c")
        assert (await store.put("a/b/c", b"other")).size_bytes == 5

    async def test_a_listing_is_sorted_and_by_prefix(self, store: ObjectStore) -> None:
        keys = ["b", "a/2", "a/10", "a/1/x", "a-1", "a/1", "ab/c"]
        for key in keys:
            await store.put(key, key.encode())

        async def listed(prefix: str) -> list[tuple[str, int]]:
            return [(entry.key, entry.size_bytes) async for entry in store.list(prefix)]

        assert await listed("") == [(key, len(key)) for key in sorted(keys)]
        assert await listed("a/") == [(key, len(key)) for key in ["a/1", "a/1/x", "a/10", "a/2"]]
        assert await listed("a/1") == [(key, len(key)) for key in ["a/1", "a/1/x", "a/10"]]
        assert await listed("zz/") == []

    async def test_a_key_may_be_the_beginning_of_another(self, store: ObjectStore) -> None:
        for key in ("a/b", "a", "a/b/c"):
            await store.put(key, key.encode())
        await store.delete("a/b")
        assert [await store.get(key) for key in ("a", "a/b/c")] == [b"a", b"a/b/c"]

    @pytest.mark.parametrize("key", NO_KEYS, ids=ascii)
    async def test_what_is_no_key_is_refused_everywhere(self, store: ObjectStore, key: str) -> None:
        for ask in (
            store.put(key, b""),
            store.get(key),
            store.stat(key),
            store.delete(key),
            store.file(key).__aenter__(),
        ):
            with pytest.raises(InvalidArgument):
                await ask
        with pytest.raises(InvalidArgument):
            store.writer(key)

    async def test_the_longest_key_is_stored(self, store: ObjectStore) -> None:
        key = "/".join(["k" * 200] * 4)
        await store.put(key, b"x")
        assert [entry.key async for entry in store.list("k")] == [key]

    async def test_a_file_has_the_content_while_it_is_open(self, store: ObjectStore) -> None:
        await store.put("a", CONTENT)
        async with store.file("a") as first, store.file("a") as second:
            assert first == second
            assert first.read_bytes() == CONTENT
        with pytest.raises(ObjectNotFound):
            await store.file("b").__aenter__()

    async def test_a_read_under_way_survives_a_delete(self, store: ObjectStore) -> None:
        await store.put("a", CONTENT)
        stream = aiter(store.stream("a", piece_bytes=1_000))
        first = await anext(stream)
        await store.delete("a")
        assert first + b"".join([piece async for piece in stream]) == CONTENT

    async def test_puts_and_deletes_of_neighbours_do_not_disturb_each_other(self, store: ObjectStore) -> None:
        async def churn(n: int) -> None:
            for _ in range(20):
                await store.put(f"dir/{n % 3}/{n}", b"x")
                assert await store.delete(f"dir/{n % 3}/{n}")

        await asyncio.gather(*(churn(n) for n in range(6)))
        assert [entry async for entry in store.list()] == []

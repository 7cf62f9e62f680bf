from __future__ import annotations

import asyncio
import errno
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.runtime.file_cache import FileCache, NoRoomForCopies
from services.runtime.objects import ObjectStoreUnavailable

ROOT = Path(__file__).parents[3]
SIZE = 1_000


def content(name: str) -> bytes:
    return name.encode() * (SIZE // len(name))


def digest(name: str) -> str:
    return hashlib.sha256(content(name)).hexdigest()


class Origin:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def read(self, name: str) -> Callable[[], AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            self.reads.append(name)
            for start in range(0, SIZE, 100):
                await asyncio.sleep(0)
                yield content(name)[start : start + 100]

        return pieces


@pytest.fixture
def origin() -> Origin:
    return Origin()


async def use(cache: FileCache, origin: Origin, *names: str) -> None:
    for name in names:
        async with cache.file(digest(name), SIZE, origin.read(name)) as path:
            assert path.read_bytes() == content(name)


def copies(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.stat().st_size}


async def test_many_who_want_a_file_at_once_fetch_it_once(tmp_path: Path, origin: Origin) -> None:
    caches = [FileCache(tmp_path, 10 * SIZE) for _ in range(2)]
    await asyncio.gather(*(use(caches[n % 2], origin, "a") for n in range(10)))
    assert origin.reads == ["a"]


async def test_the_longest_unused_goes_when_there_is_no_room(tmp_path: Path, origin: Origin) -> None:
    cache = FileCache(tmp_path, 2 * SIZE)
    await use(cache, origin, "a", "b", "a", "c")
    assert copies(tmp_path) == {digest("a"), digest("c")}
    await use(cache, origin, "a", "c", "b")
    assert origin.reads == ["a", "b", "c", "b"]


async def test_what_is_in_use_stays(tmp_path: Path, origin: Origin) -> None:
    cache = FileCache(tmp_path, SIZE)
    async with cache.file(digest("a"), SIZE, origin.read("a")) as path:
        await use(cache, origin, "b")
        assert path.read_bytes() == content("a")
    assert copies(tmp_path) == {digest("a")}


async def test_a_file_larger_than_the_budget_goes_with_its_last_user(tmp_path: Path, origin: Origin) -> None:
    cache = FileCache(tmp_path, SIZE - 1)
    await use(cache, origin, "a")
    assert copies(tmp_path) == set()


async def test_a_fetch_that_fails_leaves_nothing_and_is_done_again(tmp_path: Path, origin: Origin) -> None:
    cache = FileCache(tmp_path, 10 * SIZE)

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ObjectStoreUnavailable("gone", 1)

    with pytest.raises(ObjectStoreUnavailable):
        await cache.file(digest("a"), SIZE, broken).__aenter__()
    assert copies(tmp_path) == set()
    await use(cache, origin, "a")


async def test_a_disk_without_room_is_told_from_a_full_origin(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(NoRoomForCopies):
        await use(FileCache(tmp_path, 10 * SIZE), origin, "a")
    assert copies(tmp_path) == set()


FETCHER = """
import asyncio, sys
from pathlib import Path
from services.runtime.file_cache import FileCache

async def read():
    yield b"half"
    print("half", flush=True)
    await asyncio.Event().wait()

asyncio.run(FileCache(Path(sys.argv[1]), 10_000).file(sys.argv[2], 1_000, read).__aenter__())
"""


def fetcher(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FETCHER, str(folder), digest("a")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)


async def test_what_a_killed_process_was_fetching_is_fetched_by_another(
    tmp_path: Path, origin: Origin
) -> None:
    with fetcher(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        waiting = asyncio.create_task(use(FileCache(tmp_path, 10_000), origin, "a"))
        await asyncio.sleep(0)
        assert origin.reads == []
        process.kill()
    await waiting
    assert origin.reads == ["a"]

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from services.runtime import s3_objects
from services.runtime.objects import PATIENCE_S, ObjectStoreUnavailable
from services.runtime.objects_s3 import S3Objects
from services.runtime.s3 import Bucket
from tests.contract.objects_contract import ObjectsContract
from tests.engines.s3 import KINDS, S3Server

pytestmark = pytest.mark.engine


def bucket_of(server: S3Server, name: str = "contract") -> Bucket:
    return Bucket(
        url=server.url,
        name=name,
        region="us-east-1",
        access_key=server.access_key,
        secret_key=server.secret_key,
    )


@pytest.fixture(params=["seaweedfs", "minio"], scope="module")
def server(request: pytest.FixtureRequest, s3_server: Callable[[str], S3Server]) -> S3Server:
    return s3_server(request.param)


@pytest.fixture
async def store(server: S3Server, tmp_path: Path) -> AsyncIterator[S3Objects]:
    limits = {"whole_bytes": 6 << 20, "part_bytes": 5 << 20, "page_keys": 3}
    made = S3Objects(bucket_of(server), scratch=tmp_path / "scratch", **limits)
    await made.open()
    yield made
    for entry in [entry async for entry in made.list()]:
        await made.delete(entry.key)
    await made.close()


class TestS3Objects(ObjectsContract):
    pass


@pytest.mark.parametrize("kind", ["seaweedfs", "minio"])
async def test_what_was_acknowledged_outlives_a_crash_of_the_store(kind: str, tmp_path: Path) -> None:
    (tmp_path / kind).mkdir()
    server = KINDS[kind](tmp_path / kind)
    server.start()
    store = S3Objects(bucket_of(server), scratch=tmp_path)
    await store.open()
    crash = Crash(store)
    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            writers = [group.create_task(crash.write(name)) for name in "abcd"]
            await crash.until(lambda: len(crash.stored) >= 40)
            await asyncio.to_thread(server.kill)
            await crash.until(lambda: crash.refused >= 4)
            with pytest.raises(ObjectStoreUnavailable):
                await store.check()
            await asyncio.to_thread(server.start)
            before = len(crash.stored)
            await crash.until(lambda: len(crash.stored) >= before + 40)
            for writer in writers:
                writer.cancel()
        await store.check()
        assert {key: (await store.verify(key)).sha256 for key in crash.stored} == crash.stored
    finally:
        await store.close()
        server.stop()


class Crash:
    """Writes all the time, and notes what was acknowledged and how often it was refused."""

    def __init__(self, store: S3Objects) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self.stored: dict[str, str] = {}
        self.refused = 0

    async def write(self, name: str) -> None:
        PATIENCE_S.set(0.3)
        for number in count():
            key = f"{name}/{number}"
            try:
                self.stored[key] = (await self._store.put(key, key.encode() * 5_000)).sha256
            except ObjectStoreUnavailable:
                self.refused += 1
            self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()


async def test_uploads_that_crashed_writers_left_are_given_up(server: S3Server, tmp_path: Path) -> None:
    bucket = bucket_of(server)
    s3_objects.open_bucket(bucket)
    upload = s3_objects.begin_parts(bucket, "left", {})
    assert s3_objects.drop_stale_parts(bucket) == 0
    assert s3_objects.drop_stale_parts(bucket, timedelta(seconds=-5)) == 1
    s3_objects.drop_parts(bucket, "left", upload)

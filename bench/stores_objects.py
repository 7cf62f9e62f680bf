"""Objects through the port against the bare `minio` client in threads and against `obstore`; local beside S3.

Each kind of call runs in turns, ours and the others' (A B C A B C …), eight at a time, on one SeaweedFS.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore.store
from minio import Minio

from bench.report import Row
from bench.timing import Times, rows
from services.runtime.claims import temporary
from services.runtime.objects import ObjectStore
from services.runtime.objects_local import LocalObjects
from services.runtime.objects_s3 import S3Objects
from services.runtime.s3 import Bucket
from tests.engines.s3 import S3Server, seaweedfs

_AT_A_TIME = 8
_BUCKET = "bench"
#: Size of an object, and how many are moved in a round.
_SIZES = {"64 KiB": (64 << 10, 64), "1 MiB": (1 << 20, 24), "16 MiB": (16 << 20, 8)}
_KINDS = ("put", "get", "checked get", "stream")
_BARE = "bare minio client in threads"
Call = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One client, by the calls that are measured."""

    name: str
    put: Callable[[str, bytes], Awaitable[object]]
    #: As playback asks, which compares the checksum itself.
    get: Call
    #: Our own compares the checksum, the others' don't.
    stream: Call
    #: Whole, with its checksum compared.
    checked_get: Call


async def measure(rounds: int) -> list[Row]:
    """Rates with their ratio to the bare client, and waits."""
    with _server() as server:
        async with AsyncExitStack() as stack:
            scratch = stack.enter_context(temporary("bench"))
            s3, local = S3Objects(_bucket(server), scratch=scratch), LocalObjects(scratch / "local")
            pool = ThreadPoolExecutor(16)
            stack.push_async_callback(s3.close)
            stack.push_async_callback(local.close)
            stack.callback(pool.shutdown)
            await s3.open()
            ways = [_ours("s3", s3), _bare(server, pool), _obstore(server), _ours("local", local)]
            return [row for size in _SIZES for row in await _measured(ways, size, rounds)]


async def _measured(ways: list[Way], size: str, rounds: int) -> list[Row]:
    size_bytes, count = _SIZES[size]
    content = bytes(range(256)) * (size_bytes // 256)
    numbers = itertools.count()
    times = {kind: {way.name: Times() for way in ways} for kind in _KINDS}
    for round_number in range(rounds + 1):
        for way in ways:
            keys = [f"{size_bytes}/{way.name}/{next(numbers)}" for _ in range(count)]
            kinds: dict[str, Call] = {
                "put": lambda key, way=way: way.put(key, content),  # type: ignore[misc]
                "get": way.get,
                "checked get": way.checked_get,
                "stream": way.stream,
            }
            for kind, call in kinds.items():
                # The first round opens connections and volumes.
                counted = times[kind][way.name] if round_number else Times()
                await counted.round(call, keys, at_a_time=_AT_A_TIME)
    return [
        row for kind in _KINDS for row in rows(f"objects: {kind} {size}", times[kind], peer=_BARE, ours="s3")
    ]


def _ours(name: str, store: ObjectStore) -> Way:
    async def stream(key: str) -> None:
        async for _ in store.stream(key):
            pass

    def get(key: str) -> Awaitable[object]:
        return store.get(key, checked=False)

    return Way(name=name, put=store.put, get=get, stream=stream, checked_get=store.get)


def _bare(server: S3Server, pool: ThreadPoolExecutor) -> Way:
    client = Minio(
        urlsplit(server.url).netloc, server.access_key, server.secret_key, secure=False, region="us-east-1"
    )

    def put(key: str, data: bytes) -> None:
        client.put_object(_BUCKET, key, io.BytesIO(data), len(data), part_size=32 << 20)

    def get(key: str) -> bytes:
        with client.get_object(_BUCKET, key) as response:
            return response.read()

    def checked_get(key: str) -> bytes:
        content = get(key)
        hashlib.sha256(content).hexdigest()
        return content

    def stream(key: str) -> None:
        with client.get_object(_BUCKET, key) as response:
            for _ in response.stream(1 << 20):
                pass

    def threaded(call: Callable[..., object]) -> Callable[..., Awaitable[object]]:
        return lambda *args: asyncio.get_running_loop().run_in_executor(pool, call, *args)

    return Way(
        name=_BARE,
        put=threaded(put),
        get=threaded(get),
        stream=threaded(stream),
        checked_get=threaded(checked_get),
    )


def _obstore(server: S3Server) -> Way:
    store = obstore.store.S3Store(
        _BUCKET,
        endpoint=server.url,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def put(key: str, data: bytes) -> Any:
        return await store.put_async(key, data, use_multipart=False)

    async def get(key: str) -> Any:
        return await (await store.get_async(key)).bytes_async()

    async def stream(key: str) -> None:
        async for _ in (await store.get_async(key)).stream(min_chunk_size=1 << 20):
            pass

    async def checked_get(key: str) -> None:
        content = await get(key)
        await asyncio.to_thread(hashlib.sha256, content)

    return Way(name="obstore", put=put, get=get, stream=stream, checked_get=checked_get)


def _bucket(server: S3Server) -> Bucket:
    return Bucket(
        url=server.url,
        name=_BUCKET,
        region="us-east-1",
        access_key=server.access_key,
        secret_key=server.secret_key,
        connections=48,
    )


@contextmanager
def _server() -> Iterator[S3Server]:
    with temporary("bench-s3") as folder:
        server = seaweedfs(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()

"""The object store in a bucket of any S3 service: MinIO, SeaweedFS, Versity, AWS.

Layout: the object `a/b` is the S3 object `a/b`, with its SHA-256 and its time of creation as metadata.

*Write-once.* A write carries `If-None-Match: *`, so that of two writers the first wins. Whether the service
keeps that is tried before the first write; where it doesn't, a write looks first and then writes, and of two
at the same moment the later wins (the log and `kino doctor` say so). A large object is written in parts, by
the one writer who holds its claim, a small object written in the same way.

*Checksums.* The service verifies each body it takes by the SHA-256 that is sent with it. Whole reads,
in one piece or as a stream, are compared with the object's SHA-256 before their last byte is handed out. Of a
range the position, length and total size are compared; a stream that goes on after a broken connection asks
for the same ETag. An answer cut short is never a success.

Requests run in a bounded pool of threads and are repeated from the event loop: all of them may be. Cancelling
a call breaks its connection, so that its thread is free at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from services.runtime import s3_objects as blocking
from services.runtime.call import remaining_s
from services.runtime.errors import KinoError
from services.runtime.file_cache import FileCache
from services.runtime.logs import logger
from services.runtime.objects import (
    PATIENCE_S,
    PIECE_BYTES,
    ChecksumMismatch,
    ObjectDamaged,
    ObjectEntry,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    ObjectStoreUnavailable,
    check_key,
    file_errors,
)
from services.runtime.s3 import Bucket, Call, Passing, calling
from services.runtime.settings import Settings, SettingsError

T = TypeVar("T")

_log = logger("objects")
_THREADS = 16
#: Streams that are read at the same time; each holds a connection.
_STREAMS = 32
#: How often an object may come and go while one is written in its place.
_ATTEMPTS = 5
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
#: How long another writer of the same large object is waited for.
_CLAIM_PATIENCE_S = 300.0
#: Larger objects are written in parts.
_WHOLE_BYTES = 32 << 20
_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
#: Parts of one object on their way at the same time.
_PARALLEL_PARTS = 4


class S3Objects:
    """An `ObjectStore` in a bucket; several processes may use one bucket at the same time."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        scratch: Path,
        copies_bytes: int = 64 << 30,
        whole_bytes: int = _WHOLE_BYTES,
        part_bytes: int = _PART_BYTES,
        page_keys: int = 1_000,
    ) -> None:
        """Connects to nothing yet. S3 takes parts of 5 MiB and more.

        `scratch` is a folder of this machine for what writers write and for copies of whole objects, of
        which it keeps `copies_bytes`; processes may share it.
        """
        self._bucket = bucket
        self._scratch = scratch
        self._files = FileCache(scratch / "copies", copies_bytes)
        self._whole_bytes, self._part_bytes, self._page_keys = whole_bytes, part_bytes, page_keys
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
        self._streams = asyncio.Semaphore(_STREAMS)
        self._opening, self._trying = asyncio.Lock(), asyncio.Lock()
        self._conditions: bool | None = None
        self._cleanups: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """See `ObjectStore.open`: makes a missing bucket, and gives up uploads that crashed writers left."""
        async with self._opening:
            await self._once(blocking.open_bucket, self._bucket)
            with suppress(KinoError):  # not every key may, and not every service can
                dropped = await self._once(blocking.drop_stale_parts, self._bucket)
                if dropped:
                    _log.warning("removed unfinished writes of crashed processes", count=dropped)

    async def check(self) -> None:
        """See `ObjectStore.check`: asks once for the bucket."""
        await self._once(blocking.look, self._bucket)

    async def close(self) -> None:
        """Wait for what runs and close the connections."""
        await asyncio.gather(*self._cleanups, return_exceptions=True)
        await asyncio.to_thread(self._pool.shutdown)
        self._bucket.close()

    async def put(
        self, key: str, data: bytes | Path, sha256: str | None = None, *, move: bool = False
    ) -> ObjectInfo:
        """See `ObjectStore.put`; `move` removes the file once it is stored."""
        check_key(key)
        if isinstance(data, bytes):
            return await self.store(key, data, sha256)
        with await self._run(FileIO, data) as file:
            info = await self.store(key, file, sha256)
        if move:
            await self._run(data.unlink, True)
        return info

    async def store(self, key: str, content: bytes | FileIO, sha256: str | None) -> ObjectInfo:
        """Write an object, a large one in parts. Errors as for `put`."""
        source = blocking.Source(content)
        if source.size_bytes > self._whole_bytes:
            return await self._put_parts(key, source, sha256)
        data = content if isinstance(content, bytes) else await self._run(source.all)
        return await self._put_whole(key, data, sha256)

    def writer(self, key: str) -> S3Writer:
        """See `ObjectStore.writer`: collects in a scratch file, since the checksum is written first."""
        return S3Writer(self, check_key(key), self._scratch)

    async def get(
        self, key: str, start: int = 0, length: int | None = None, *, checked: bool = True
    ) -> bytes:
        """See `ObjectStore.get`."""
        return await self._do(blocking.get, self._bucket, check_key(key), start, length, checked, key=key)

    async def stream(
        self, key: str, start: int = 0, length: int | None = None, piece_bytes: int = PIECE_BYTES
    ) -> AsyncIterator[bytes]:
        """See `ObjectStore.stream`; goes on where it was when the connection breaks."""
        async with self._streams:
            reader = blocking.Reader(self._bucket, check_key(key), start, length)
            try:
                left = await self._do(reader.open)
                while left:
                    piece = await self._do(reader.read, min(piece_bytes, left), key=key)
                    left -= len(piece)
                    yield piece
            finally:
                reader.close()

    async def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        return await self._do(blocking.stat, self._bucket, check_key(key))

    async def verify(self, key: str) -> ObjectInfo:
        """See `ObjectStore.verify`."""
        info = await self.stat(key)
        async for _ in self.stream(key):
            pass
        return info

    async def delete(self, key: str) -> bool:
        """See `ObjectStore.delete`; two at the same moment may both be told that there was one."""
        return await self._do(blocking.delete, self._bucket, check_key(key))

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectEntry]:
        """See `ObjectStore.list`; all in memory, because services sort by folder or by whole key."""
        base, _, _ = prefix.rpartition("/")
        if base:
            check_key(base)
        found: list[ObjectEntry] = []
        token = ""
        while True:
            page, token = await self._do(blocking.list_page, self._bucket, prefix, token, self._page_keys)
            found += page
            if not token:
                break
        for entry in sorted(found, key=lambda entry: entry.key):
            yield entry

    @asynccontextmanager
    async def file(self, key: str) -> AsyncIterator[Path]:
        """See `ObjectStore.file`: a copy, fetched once for all who want it on this machine."""
        info = await self.stat(key)
        async with self._files.file(info.sha256, info.size_bytes, lambda: self.stream(key)) as path:
            yield path

    async def has_conditions(self) -> bool:
        """Whether of two writers at the same moment the first wins; tried once."""
        if self._conditions is not None:
            return self._conditions
        async with self._trying:
            if self._conditions is None:
                self._conditions = await self._do(blocking.has_conditions, self._bucket)
                if not self._conditions:
                    _log.warning("the object store knows no conditional writes: the later writer wins")
            return self._conditions

    async def _put_whole(self, key: str, data: bytes, expected: str | None) -> ObjectInfo:
        digest = await self._run(_sha256, data) if len(data) > PIECE_BYTES else _sha256(data)
        if expected not in (None, digest):
            raise ChecksumMismatch(key)
        once = await self.has_conditions()
        for _ in range(_ATTEMPTS):
            found = None if once else await self._found(key, digest)
            if found is None:
                info = _info(key, len(data), digest)
                headers = blocking.metadata(digest, info.create_time)
                if await self._do(blocking.put_whole, self._bucket, key, data, headers, once):
                    return info
                found = await self._found(key, digest)
            if found is not None:
                return found
        raise ObjectStoreUnavailable("the object comes and goes", 1_000)

    async def _put_parts(self, key: str, source: blocking.Source, expected: str | None) -> ObjectInfo:
        digest: str = await self._run(source.sha256) if expected is None else expected
        once = await self.has_conditions()
        claim = await self._do(blocking.claim, self._bucket, key, digest, once, patience_s=_CLAIM_PATIENCE_S)
        try:
            found = await self._found(key, digest)
            if found is None:
                info = _info(key, source.size_bytes, digest)
                if await self._send(info, source):
                    return info
                found = await self.stat(key)
        finally:
            await self._after(self._do(blocking.drop, self._bucket, claim))
        if digest == expected and await self._run(source.sha256) != digest:
            raise ChecksumMismatch(key)
        return found

    async def _found(self, key: str, digest: str) -> ObjectInfo | None:
        """The object when it has this content, None without one. Raises `ObjectExists` for another."""
        try:
            info = await self.stat(key)
        except ObjectNotFound:
            return None
        if info.sha256 != digest:
            raise ObjectExists(key)
        return info

    async def _send(self, info: ObjectInfo, source: blocking.Source) -> bool:
        """A multipart upload, given up unless all of it succeeds; False when an earlier attempt did."""
        headers = blocking.metadata(info.sha256, info.create_time)
        upload = await self._do(blocking.begin_parts, self._bucket, info.key, headers)
        done = False
        try:
            parts = await self._send_parts(info, source, upload)
            done = await self._do(blocking.end_parts, self._bucket, info.key, upload, parts)
        finally:
            if not done:
                await self._after(self._do(blocking.drop_parts, self._bucket, info.key, upload))
        return done

    async def _send_parts(
        self, info: ObjectInfo, source: blocking.Source, upload: str
    ) -> Sequence[blocking.Part]:
        """The parts in order, a few at the same time. Raises `ChecksumMismatch`."""
        size_bytes = max(self._part_bytes, -(-source.size_bytes // _MAX_PARTS))
        turns, whole = asyncio.Semaphore(_PARALLEL_PARTS), hashlib.sha256()
        sending: deque[asyncio.Task[blocking.Part]] = deque()

        async def send(number: int, part: bytes, digest: str) -> blocking.Part:
            try:
                return await self._do(blocking.put_part, self._bucket, info.key, upload, number, part, digest)
            finally:
                turns.release()

        try:
            async with asyncio.TaskGroup() as group:
                for number, start in enumerate(range(0, source.size_bytes, size_bytes), 1):
                    await turns.acquire()
                    part, digest = await self._run(source.part, start, size_bytes, whole)
                    sending.append(group.create_task(send(number, part, digest)))
        except* KinoError as failed:
            raise failed.exceptions[0] from None
        if whole.hexdigest() != info.sha256:
            raise ChecksumMismatch(info.key)
        return [task.result() for task in sending]

    async def _after(self, work: Coroutine[Any, Any, None]) -> None:
        """Tidy up, also when the caller is cancelled; what fails is done by the next `open`."""

        async def run() -> None:
            with suppress(KinoError):
                await work

        task = asyncio.create_task(run())
        self._cleanups.add(task)
        task.add_done_callback(self._cleanups.discard)
        await asyncio.shield(task)

    async def _do(
        self, fn: Callable[..., T], *args: Any, key: str = "", patience_s: float | None = None
    ) -> T:
        """Run `fn` in a thread, again while it says that it may help; `key` is what it reads."""
        patience_s, left_s = patience_s or PATIENCE_S.get(), remaining_s()
        give_up = time.monotonic() + (patience_s if left_s is None else min(patience_s, left_s))
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await self._run(fn, *args)
            except Passing as problem:
                if isinstance(problem, blocking.Differs) and wait_s > _FIRST_WAIT_S:
                    raise ObjectDamaged(key) from problem
                if time.monotonic() + wait_s > give_up:
                    raise ObjectStoreUnavailable(str(problem), 1_000) from problem
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _once(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn` in a thread without repetition: the caller has its own."""
        try:
            return await self._run(fn, *args)
        except Passing as problem:
            raise ObjectStoreUnavailable(str(problem), 1_000) from problem

    async def _run(self, fn: Callable[..., T], *args: Any) -> T:
        call = Call()

        def run() -> T:
            with calling(call), file_errors(fn.__name__.strip("_")):
                return fn(*args)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, run)
        except asyncio.CancelledError:
            call.stop()
            raise


def open_s3(settings: Settings) -> S3Objects:
    """The store that the settings name; connects to nothing yet. Raises `SettingsError`."""
    scratch = settings.data_dir / "scratch"
    return S3Objects(bucket_of(settings), scratch=scratch, copies_bytes=settings.s3_copies_bytes)


def bucket_of(settings: Settings) -> Bucket:
    """The bucket that the settings name. Raises `SettingsError`."""
    address = urlsplit(settings.s3_url)
    if address.scheme not in ("http", "https") or not address.hostname or address.path.strip("/"):
        raise SettingsError("KINO_S3_URL must be the address of an S3 service, like http://s3:9000.")
    if not settings.s3_access_key or not settings.s3_secret_key.get_secret_value():
        raise SettingsError("Set KINO_S3_ACCESS_KEY and KINO_S3_SECRET_KEY.")
    return Bucket(
        url=f"{address.scheme}://{address.netloc}",
        name=settings.s3_bucket,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        connections=_THREADS + _STREAMS,
    )


class S3Writer:
    """See `ObjectWriter`."""

    def __init__(self, store: S3Objects, key: str, scratch: Path) -> None:
        self._store, self._key, self._scratch = store, key, scratch
        self._hash = hashlib.sha256()
        self._file: FileIO | None = None

    async def __aenter__(self) -> S3Writer:
        self._file = await self._store._run(_scratch_file, self._scratch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    async def write(self, data: bytes) -> None:
        """See `ObjectWriter.write`."""
        await self._store._run(self._append, data)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            raise ValueError("the writer isn't open")
        self._file.write(data)
        self._hash.update(data)

    async def commit(self, sha256: str | None = None) -> ObjectInfo:
        """See `ObjectWriter.commit`."""
        if self._file is None:
            raise ValueError("the writer isn't open")
        digest = self._hash.hexdigest()
        if sha256 not in (None, digest):
            raise ChecksumMismatch(self._key)
        return await self._store.store(self._key, self._file, digest)


def _scratch_file(folder: Path) -> FileIO:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _info(key: str, size_bytes: int, digest: str) -> ObjectInfo:
    return ObjectInfo(key=key, size_bytes=size_bytes, create_time=datetime.now(UTC), sha256=digest)

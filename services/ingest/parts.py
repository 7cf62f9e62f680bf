"""Unfinished uploads as files: `{upload}.part`, and `{upload}.source` while the origin takes it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from services.runtime.sql import StorageFull

T = TypeVar("T")

_THREADS = 4


class PartFiles:
    """See `services.ingest.store.Parts`."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="parts")

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()

    async def append(self, upload_id: str, offset_bytes: int, data: bytes) -> None:
        """See `Parts.append`."""
        await self._run(lambda: _append(self._part(upload_id), offset_bytes, data))

    async def read(self, upload_id: str, offset_bytes: int, size_bytes: int) -> bytes:
        """See `Parts.read`."""
        return await self._run(lambda: _read(self._part(upload_id), offset_bytes, size_bytes))

    async def hand_over(self, upload_id: str) -> Path | None:
        """See `Parts.hand_over`: a hard link, so that a crash while the origin takes it loses nothing."""
        return await self._run(lambda: _link(self._part(upload_id), self._source(upload_id)))

    async def remove(self, upload_id: str) -> None:
        """See `Parts.remove`."""

        def run() -> None:
            self._part(upload_id).unlink(missing_ok=True)
            self._source(upload_id).unlink(missing_ok=True)

        await self._run(run)

    async def recover(self, receiving: dict[str, int]) -> dict[str, int]:
        """See `Parts.recover`."""
        return await self._run(lambda: self._recover(receiving))

    def _recover(self, receiving: dict[str, int]) -> dict[str, int]:
        for path in self._folder.iterdir():
            if path.suffix != ".part" or path.stem not in receiving:
                path.unlink()
        short = {}
        for upload_id, length in receiving.items():
            path = self._part(upload_id)
            found = path.stat().st_size if path.exists() else 0
            if found > length:
                os.truncate(path, length)
            elif found < length:
                short[upload_id] = found
        return short

    async def _run(self, fn: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn)

    def _part(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"

    def _source(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.source"


def _append(path: Path, offset_bytes: int, data: bytes) -> None:
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, offset_bytes)
            view, offset_bytes = view[written:], offset_bytes + written
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(quota="disk") from error
        raise
    finally:
        os.close(handle)
    if new:
        _sync(path.parent)


def _read(path: Path, offset_bytes: int, size_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset_bytes)
        return file.read(size_bytes)


def _link(part: Path, source: Path) -> Path | None:
    source.unlink(missing_ok=True)
    try:
        os.link(part, source)
    except FileNotFoundError:
        return None
    return source


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Copies of remote content on disk, within a budget, shared by the processes that use one folder.

A copy is named by its content's SHA-256 and never changes. Who uses one holds a shared lock on the file; who
needs room removes the copies that nobody holds, the longest unused first. The kernel frees the locks of a
process that died.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from services.runtime.errors import ResourceExhausted
from services.runtime.objects import ObjectStoreFull, file_errors

_POLL_S = 0.1


class NoRoomForCopies(ResourceExhausted):
    """The disk of this process has no room for a copy of the object: another process may have."""

    reason = "NO_ROOM_FOR_COPIES"


class FileCache:
    """See above."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        """A copy larger than the whole budget is kept while it is used, and no longer."""
        self._folder = folder
        self._budget_bytes = budget_bytes

    @asynccontextmanager
    async def file(
        self, sha256: str, size_bytes: int, read: Callable[[], AsyncIterator[bytes]]
    ) -> AsyncIterator[Path]:
        """The copy, there while the context is open; `read` gives the content where there is none.

        However many want it at once, one fetches it. Raises what `read` raises, `NoRoomForCopies`.
        """
        while (handle := await asyncio.to_thread(self._hold, sha256)) is None:
            await self._fetch(sha256, size_bytes, read)
        try:
            yield self._folder / sha256
        finally:
            os.close(handle)
            await asyncio.to_thread(self._make_room, 0)

    def _hold(self, sha256: str) -> int | None:
        """The copy, open and locked against removal; None when there is none."""
        path = self._folder / sha256
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # locked, or gone, by who removes it
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(handle).st_ino:
                os.utime(handle)
                return handle
        os.close(handle)
        return None

    async def _fetch(self, sha256: str, size_bytes: int, read: Callable[[], AsyncIterator[bytes]]) -> None:
        """Make the copy, or wait a little while another does."""
        # One of sixteen, so that what a crash leaves is bounded; the next fetch in its place writes over it.
        part = self._folder / f"part-{sha256[0]}"
        try:
            with file_errors("fetching"):
                self._folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    if not _locked(part, handle):
                        await asyncio.sleep(_POLL_S)
                    elif not (self._folder / sha256).exists():
                        await self._fill(handle, size_bytes, read)
                        part.rename(self._folder / sha256)
                finally:
                    os.close(handle)
        except ObjectStoreFull as error:
            raise NoRoomForCopies() from error

    async def _fill(self, handle: int, size_bytes: int, read: Callable[[], AsyncIterator[bytes]]) -> None:
        try:
            await asyncio.to_thread(self._prepare, handle, size_bytes)
            async for piece in read():
                await asyncio.to_thread(_write, handle, piece)
            await asyncio.to_thread(os.fsync, handle)
        except BaseException:
            os.truncate(handle, 0)
            raise

    def _prepare(self, handle: int, size_bytes: int) -> None:
        """Take the room at once: others count it, and a full disk shows before the fetch."""
        os.truncate(handle, 0)
        self._make_room(size_bytes)
        if size_bytes:
            os.posix_fallocate(handle, 0, size_bytes)

    def _make_room(self, size_bytes: int) -> None:
        """Remove copies that nobody holds until so much fits, on the disk too."""
        copies = sorted(self._copies(), key=lambda copy: copy[1].st_mtime_ns)
        used = sum(found.st_size for _, found in copies)
        for path, found in copies:
            free_bytes = shutil.disk_usage(self._folder).free
            if used + size_bytes <= self._budget_bytes and free_bytes >= size_bytes:
                return
            if _removed(path):
                used -= found.st_size

    def _copies(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                yield path, path.stat()


def _locked(path: Path, handle: int) -> bool:
    """Whether the file is ours alone now, and still the one of that name."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(handle).st_ino
    return False


def _removed(path: Path) -> bool:
    with _opened(path) as handle:
        if handle is None or not _locked(path, handle):
            return False
        path.unlink()
        return True


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]

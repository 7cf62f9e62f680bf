"""Locks that say which executors of workflows are alive; one holder each, freed when its process ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy.engine import URL, make_url

from services.runtime.logs import logger

_log = logger("scheduler")
#: How often somebody who waits for a lock tries it.
POLL_S = 0.5
#: A holder notices within both together that its lock is gone, and stops.
_WATCH_S, _ANSWER_S = 0.5, 1.5
#: A taker begins only then: its predecessor may still be noticing.
_SETTLE_S = _WATCH_S + _ANSWER_S
#: A holder that hasn't asked for so long is frozen, or cut off: its connection is ended.
FROZEN_S = 10
#: First half of the key of an advisory lock, the executor's number being the second: "KINO".
_CLASS = 0x4B494E4F


#: Ends the connection of a holder that said nothing for so long; by the server's clock.
_END_FROZEN = """
SELECT pg_terminate_backend(activity.pid) FROM pg_locks AS held JOIN pg_stat_activity AS activity USING (pid)
WHERE held.locktype = 'advisory' AND held.granted AND held.classid = %s AND held.objid = %s
  AND held.objsubid = 2 AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND activity.state_change < clock_timestamp() - make_interval(secs => %s)
"""


class Lock(Protocol):
    """A lock that is held."""

    @property
    def lost(self) -> asyncio.Event:
        """Set when it is gone: stop at once."""

    async def settle(self) -> None:
        """Wait until a predecessor that lost it has noticed."""

    async def release(self) -> None:
        """Give it up."""


class Locks(Protocol):
    """The locks of all executors."""

    async def attempt(self, executor_id: str) -> Lock | None:
        """Take an executor's lock (`s0`); None when somebody has it, or when the engine can't be asked."""


async def taken(locks: Locks, executor_id: str) -> Lock:
    """The lock of an executor, waited for as its standby does."""
    lock, waits = await locks.attempt(executor_id), False
    while lock is None:
        if not waits:
            _log.info("waits for the executor's lock", executor=executor_id)
        waits = True
        await asyncio.sleep(POLL_S)
        lock = await locks.attempt(executor_id)
    return lock


def locks_of(url: str, folder: Path) -> Locks:
    """The locks of executors whose workflows are in the database `url`; files of it in `folder`."""
    parsed = make_url(url)
    return FileLocks(folder) if parsed.get_backend_name() == "sqlite" else PostgresLocks(parsed)


class FileLock:
    """A lock on a file; the kernel frees it."""

    def __init__(self, handle: int) -> None:
        """`handle` is locked."""
        self._handle = handle
        self.lost = asyncio.Event()

    async def settle(self) -> None:
        """See `Lock.settle`; it can't be lost."""

    async def release(self) -> None:
        """See `Lock.release`."""
        os.close(self._handle)


class FileLocks:
    """For executors on one machine."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds one file for each executor."""
        self._folder = folder

    async def attempt(self, executor_id: str) -> FileLock | None:
        """See `Locks.attempt`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._folder / f"workflows-{executor_id}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return FileLock(handle)


class PostgresLock:
    """An advisory lock: it lasts as long as the connection, which is watched."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """`connection` has the lock and does nothing else."""
        self._connection = connection
        self.lost = asyncio.Event()
        self._watching = asyncio.create_task(self._watch())

    async def settle(self) -> None:
        """See `Lock.settle`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self.lost.wait()

    async def release(self) -> None:
        """See `Lock.release`."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._connection.close()

    async def _watch(self) -> None:
        try:
            while True:
                await asyncio.sleep(_WATCH_S)
                async with asyncio.timeout(_ANSWER_S):
                    await self._connection.execute("SELECT 1")
        except (psycopg.Error, OSError, TimeoutError) as error:
            _log.warning("lost the executor's lock", problem=str(error) or type(error).__name__)
            self.lost.set()


class PostgresLocks:
    """For executors anywhere. Tried again and again, never waited for: a waiting statement would block the
    engine's own `CREATE INDEX CONCURRENTLY`. A holder that stands still loses its lock to whoever tries.
    """

    def __init__(self, url: URL) -> None:
        """`url` is the database of the workflows."""
        self._arguments = dict(url.get_dialect()().create_connect_args(url)[1])

    async def attempt(self, executor_id: str) -> PostgresLock | None:
        """See `Locks.attempt`."""
        options = {"connect_timeout": 3, "application_name": f"kino-{executor_id}", **self._arguments}
        try:
            connection = await psycopg.AsyncConnection.connect(autocommit=True, **options)
        except (psycopg.Error, OSError):
            return None
        key = (_CLASS, int(executor_id.removeprefix("s")))
        try:
            async with asyncio.timeout(_ANSWER_S):
                cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", key)
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    return PostgresLock(connection)
                if (await connection.execute(_END_FROZEN, (*key, FROZEN_S))).rowcount:
                    _log.warning("ended an executor that stands still", executor=executor_id)
        except (psycopg.Error, OSError, TimeoutError) as error:
            _log.debug("lock not had", executor=executor_id, problem=str(error))
        await connection.close()
        return None

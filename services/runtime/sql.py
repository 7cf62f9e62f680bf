"""SQL without blocking the event loop, on SQLite or PostgreSQL.

A function given to `write` or `read` runs in a thread, inside one transaction, and may run again from the
start when the engine reports a conflict or its connection was lost: it must have no effect outside of it.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

# SQLAlchemy imports it itself at first use, in whichever thread that is; two threads at once see half of it.
import sqlalchemy.orm  # noqa: F401
from sqlalchemy import Connection, Engine, RootTransaction, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from services.runtime.call import remaining_s
from services.runtime.errors import DeadlineExceeded, KinoError, OutcomeUnknown
from services.runtime.life import Dependency, Work, nothing
from services.runtime.sql_errors import DatabaseInUse, DatabaseUnavailable, NoSynchronousStandby, StorageFull

__all__ = [
    "Database",
    "DatabaseInUse",
    "DatabaseUnavailable",
    "NoSynchronousStandby",
    "Retry",
    "StorageFull",
]

T = TypeVar("T")

_ATTEMPTS = 10
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.002, 0.5
_READERS = 4


class Retry(Exception):
    """Raised inside a transaction to roll it back and run it again."""


class Backend(Protocol):
    """What differs between the engines."""

    dialect: str
    #: How many transactions may write at once.
    writers: int
    writer: Engine
    reader: Engine
    migrator: Engine

    def open(self) -> None:
        """Take what must be this process's own."""

    def close(self) -> None:
        """Close the connections, give up what `open` took."""

    def connection(self, engine: Engine, deadline: float | None) -> AbstractContextManager[Connection]:
        """A connection, for no longer than until `deadline` (of `time.monotonic`)."""

    def before_write(self, connection: Connection) -> None:
        """Raises what forbids a write at the moment, before anything is done."""

    def commit(self, connection: Connection, transaction: RootTransaction) -> None:
        """Make it durable. Raises `OutcomeUnknown` when it may be, or not."""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether the transaction left nothing behind and may succeed when it is run again."""

    def is_stale(self, error: DBAPIError, *, write: bool) -> bool:
        """Whether a new connection may help, and nothing was committed. Old ones are used no more then."""

    def typed(self, error: DBAPIError) -> KinoError | None:
        """The error in the suite's words, where it is the engine's and not the store's."""


class Database:
    """One service's database."""

    def __init__(self, url: str, *, synchronous: bool = False) -> None:
        """Nothing is opened until the first use or `open`.

        `synchronous`: on PostgreSQL a write is acknowledged once a standby has it too, and refused while
        there is none.
        """
        self._backend = _backend(make_url(url), synchronous)
        self._write_pool = ThreadPoolExecutor(self._backend.writers, thread_name_prefix="sql-write")
        self._read_pool = ThreadPoolExecutor(_READERS, thread_name_prefix="sql-read")

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._backend.dialect

    def open(self) -> None:
        """Make the folder, take the owner's lock. Raises `DatabaseInUse` when another process has it."""
        self._backend.open()

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one read-write transaction and return what it returned, once that is durable.

        Transactions behave as if run one after the other. An exception rolls back and is raised again.
        Conflicts are retried (bounded, with jitter), then `DatabaseUnavailable`, which is also raised when
        the engine is away: nothing was stored. Raises `OutcomeUnknown` when the reply to COMMIT was lost, or
        the wait for a standby was cut short. A cancelled caller may still have committed.
        """
        return await self._submit(self._write_pool, self._backend.writer, fn, write=True)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one read-only transaction that sees a single snapshot, and return what it returned."""
        return await self._submit(self._read_pool, self._backend.reader, fn, write=False)

    async def migrate(self, package: str) -> None:
        """Bring the schema to the newest revision in `<package>/migrations`; quick when it is there."""
        from services.runtime.migrations import upgrade

        try:
            await self._submit(
                self._write_pool,
                self._backend.migrator,
                lambda connection: upgrade(connection, package),
                write=True,
            )
        except OutcomeUnknown as error:  # the next attempt sees
            raise DatabaseUnavailable(retry_after_ms=1_000) from error

    async def ping(self) -> None:
        """A sign of life. Raises `DatabaseUnavailable`."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar())

    def dependency(self, package: str, *serves: str, then: Work = nothing) -> Dependency:
        """This database, as what the health names in `serves` stand on, with the schema of `package`.

        `then` is awaited each time the schema was brought up to date.
        """

        async def open_() -> None:
            await self.migrate(package)
            await then()

        return Dependency(name="database", serves=serves, open=open_, check=self.ping)

    async def close(self) -> None:
        """Finish what runs, close the connections, give up the lock."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._write_pool.shutdown()
        self._read_pool.shutdown()
        self._backend.close()

    async def _submit(
        self, pool: ThreadPoolExecutor, engine: Engine, fn: Callable[[Connection], T], *, write: bool
    ) -> T:
        if inspect.iscoroutinefunction(fn):
            raise TypeError("a transaction is a plain function: it runs in a thread")
        self.open()
        left_s = remaining_s()
        deadline = None if left_s is None else time.monotonic() + left_s
        run = _Run(self._backend, engine, write=write, deadline=deadline)
        return await asyncio.get_running_loop().run_in_executor(pool, run.to_its_end, fn)


class _Run:
    """A transaction, as often as it takes."""

    def __init__(self, backend: Backend, engine: Engine, *, write: bool, deadline: float | None) -> None:
        self._backend = backend
        self._engine = engine
        self._write = write
        self._deadline = deadline

    def to_its_end(self, fn: Callable[[Connection], T]) -> T:
        """Run it until it is committed, fails for good, or has been tried often enough."""
        renewed = False
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, min(_FIRST_PAUSE_S * 2**attempt, _MAX_PAUSE_S)))
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise DeadlineExceeded()  # nobody waits for it any more
            try:
                return self._once(fn)
            except Retry:
                continue
            except DBAPIError as error:
                if self._backend.is_conflict(error):
                    continue
                if self._backend.is_stale(error, write=self._write):
                    if renewed:
                        raise DatabaseUnavailable(retry_after_ms=1_000) from error
                    renewed = True
                    continue
                typed = self._backend.typed(error)
                if typed is None:
                    raise
                raise typed from error
        raise DatabaseUnavailable(retry_after_ms=1_000)

    def _once(self, fn: Callable[[Connection], T]) -> T:
        with self._backend.connection(self._engine, self._deadline) as connection:
            transaction = connection.begin()
            try:
                if self._write:
                    self._backend.before_write(connection)
                result = fn(connection)
                if inspect.isawaitable(result):
                    raise TypeError("a transaction must return a value, not an awaitable")
                if self._write:
                    self._backend.commit(connection, transaction)
            finally:
                if transaction.is_active:
                    transaction.rollback()
            return result


def _backend(url: URL, synchronous: bool) -> Backend:
    if url.get_backend_name() == "sqlite":
        from services.runtime.sql_sqlite import Sqlite

        return Sqlite(url)
    from services.runtime.sql_postgres import Postgres

    return Postgres(url, synchronous=synchronous)

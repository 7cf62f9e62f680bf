"""SQL without blocking the event loop: one writer thread and a few readers per SQLite file, or PostgreSQL.

A function given to `write` or `read` runs in a thread, inside one transaction, and may run again from the
start when the engine reports a conflict: it must have no effect outside the connection.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

# SQLAlchemy imports it itself at first use, in whichever thread that is; two threads at once see half of it.
import sqlalchemy.orm  # noqa: F401
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from services.runtime.errors import FailedPrecondition, OutcomeUnknown, ResourceExhausted, Unavailable
from services.runtime.life import Dependency, Work, nothing

T = TypeVar("T")

_ATTEMPTS = 10
_MAX_PAUSE_S = 0.5
_READERS = 4
_BUSY_TIMEOUT_MS = 5_000
#: serialization_failure and deadlock_detected (PostgreSQL, appendix A): the transaction left nothing behind.
_RETRY_STATES = frozenset({"40001", "40P01"})


class DatabaseInUse(FailedPrecondition):
    """{problem}"""

    reason = "DATABASE_IN_USE"


class StorageFull(ResourceExhausted):
    """The disk is full: nothing was stored."""

    reason = "STORAGE_FULL"


class DatabaseUnavailable(Unavailable):
    """The database is not available at the moment; try again."""

    reason = "DATABASE_UNAVAILABLE"


class Retry(Exception):
    """Raised inside a transaction to roll it back and run it again."""


class Database:
    """One service's database."""

    def __init__(self, url: str) -> None:
        """Nothing is opened until the first use or `open`."""
        self._url: URL = make_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._lock_file: int | None = None
        self._writer, self._reader = self._engines()
        self._write_pool = ThreadPoolExecutor(1 if self._sqlite else _READERS, thread_name_prefix="sql-write")
        self._read_pool = ThreadPoolExecutor(_READERS, thread_name_prefix="sql-read")

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._url.get_backend_name()

    def open(self) -> None:
        """Make the folder, take the owner's lock. Raises `DatabaseInUse` when another process has it."""
        if self._sqlite and self._lock_file is None:
            path = Path(str(self._url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = _own(path)

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one read-write transaction and return what it returned, once that is durable.

        Transactions behave as if run one after the other. An exception rolls back and is raised again.
        Conflicts are retried (bounded, with jitter), then `DatabaseUnavailable`. Raises `OutcomeUnknown`
        when the reply to COMMIT was lost. A cancelled caller may still have committed.
        """
        return await self._submit(self._write_pool, self._writer, fn)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one read-only transaction that sees a single snapshot, and return what it returned."""
        return await self._submit(self._read_pool, self._reader, fn)

    async def migrate(self, package: str) -> None:
        """Bring the schema to the newest revision in `<package>/migrations`; quick when it is there."""
        from services.runtime import migrations

        self.open()
        await asyncio.get_running_loop().run_in_executor(
            self._write_pool, migrations.upgrade, self._writer, package
        )

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
        self._writer.dispose()
        self._reader.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def _submit(self, pool: ThreadPoolExecutor, engine: Engine, fn: Callable[[Connection], T]) -> T:
        if inspect.iscoroutinefunction(fn):
            raise TypeError("a transaction is a plain function: it runs in a thread")
        self.open()
        return await asyncio.get_running_loop().run_in_executor(pool, _transact, engine, fn)

    def _engines(self) -> tuple[Engine, Engine]:
        if not self._sqlite:
            options: dict[str, Any] = {"isolation_level": "SERIALIZABLE", "pool_pre_ping": True}
            writer = create_engine(self._url, pool_size=_READERS, **options)
            return writer, writer.execution_options(postgresql_readonly=True)
        writer = create_engine(self._url, pool_size=1, max_overflow=0)
        reader = create_engine(self._url, pool_size=_READERS, max_overflow=0)
        _prepare_sqlite(writer, begin="BEGIN IMMEDIATE", read_only=False)
        _prepare_sqlite(reader, begin="BEGIN", read_only=True)
        return writer, reader


def _prepare_sqlite(engine: Engine, *, begin: str, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _: object) -> None:
        # The driver's own BEGIN comes too late (before the first write) for a serialised read-modify-write.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        # NORMAL may lose the last commits at power loss in WAL mode (pragma_synchronous in its manual).
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # The journal mode stays with the file: the writer sets it.
        connection.execute("PRAGMA query_only = ON" if read_only else "PRAGMA journal_mode = WAL")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _transact(engine: Engine, fn: Callable[[Connection], T]) -> T:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, min(0.01 * 2**attempt, _MAX_PAUSE_S)))
        try:
            return _once(engine, fn)
        except Retry:
            continue
        except DBAPIError as error:
            if not _is_conflict(error):
                raise _typed(error) from error
    raise DatabaseUnavailable(retry_after_ms=1_000)


def _once(engine: Engine, fn: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            result = fn(connection)
        except BaseException:
            transaction.rollback()
            raise
        if inspect.isawaitable(result):
            transaction.rollback()
            raise TypeError("a transaction must return a value, not an awaitable")
        try:
            transaction.commit()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise OutcomeUnknown() from error
            raise
        return result


def _is_conflict(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(error.orig, "sqlstate", None) in _RETRY_STATES


def _typed(error: DBAPIError) -> Exception:
    """The error in the suite's words; constraint violations stay as they are, for the store to tell apart."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == "53100":
        return StorageFull(quota="disk")
    if error.connection_invalidated or code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return DatabaseUnavailable(retry_after_ms=1_000)
    return error


def _own(path: Path) -> int:
    """Take the file's lock for this process; it is freed by the kernel however the process ends."""
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise DatabaseInUse(
            f"The database {path} is in use by another Kino process (pid {owner}): "
            "stop it, or set KINO_DATA_DIR to another folder."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle

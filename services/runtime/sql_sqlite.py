"""SQLite under `Database`: one file, one process that owns it, one writer and a few readers."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from services.runtime.errors import KinoError, OutcomeUnknown
from services.runtime.sql_errors import DatabaseInUse, DatabaseUnavailable, StorageFull

READERS = 4
_BUSY_TIMEOUT_MS = 5_000


class Sqlite:
    """The engine of one file, see `services.runtime.sql.Backend`."""

    dialect = "sqlite"
    writers = 1

    def __init__(self, url: URL) -> None:
        """Nothing is opened yet."""
        self._path = Path(str(url.database))
        self._lock_file: int | None = None
        self.writer = create_engine(url, pool_size=1, max_overflow=0)
        self.reader = create_engine(url, pool_size=READERS, max_overflow=0)
        self.migrator = self.writer
        _prepare(self.writer, begin="BEGIN IMMEDIATE", read_only=False)
        _prepare(self.reader, begin="BEGIN", read_only=True)

    def open(self) -> None:
        """Make the folder, take the owner's lock. Raises `DatabaseInUse` when another process has it."""
        if self._lock_file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = _own(self._path)

    def close(self) -> None:
        """Close the connections, give up the lock."""
        self.writer.dispose()
        self.reader.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextmanager
    def connection(self, engine: Engine, deadline: float | None) -> Iterator[Connection]:
        """A connection; what it does is short, and waits for a lock no longer than the busy time-out."""
        with engine.connect() as connection:
            yield connection

    def before_write(self, connection: Connection) -> None:
        """Any write may go ahead."""

    def commit(self, connection: Connection, transaction: RootTransaction) -> None:
        """Raises `OutcomeUnknown` when the disk failed in the midst of it."""
        try:
            transaction.commit()
        except DBAPIError as error:
            if _code(error) == sqlite3.SQLITE_IOERR:
                raise OutcomeUnknown() from error
            raise

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether another held the file."""
        return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def is_stale(self, error: DBAPIError, *, write: bool) -> bool:
        """Never: a file has no second address."""
        return False

    def typed(self, error: DBAPIError) -> KinoError | None:
        """The error in the suite's words; None for what only the store understands, such as a constraint."""
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return StorageFull(quota="disk")
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
            return DatabaseUnavailable(retry_after_ms=1_000)
        return None


def _code(error: DBAPIError) -> int:
    """The primary result code (sqlite.org/rescode.html)."""
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF


def _prepare(engine: Engine, *, begin: str, read_only: bool) -> None:
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

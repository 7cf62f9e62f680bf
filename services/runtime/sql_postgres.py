"""PostgreSQL under `Database`: what a lost connection means, and an end to everything that hangs.

Kino talks to the node that takes writes, found among the hosts of the URL, and to no other: what is decided
is decided on the truth.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InvalidatePoolError

from services.runtime.errors import KinoError, OutcomeUnknown
from services.runtime.sql_errors import DatabaseUnavailable, NoSynchronousStandby, StorageFull

#: Threads, and connections, for writes and for reads each. They are opened when they are needed.
CONCURRENCY = 4
#: No transaction takes longer, a call's deadline may end it sooner.
TRANSACTION_LIMIT_S = 10.0
_MIGRATION_LIMIT_S = 600.0
#: From being told to end until the connection is cut.
_PATIENCE_S = 2.0
_WATCH_EVERY_S = 0.25
#: How long a standby that was seen is believed in.
_STANDBY_KNOWN_S = 1.0

#: A connection that is dead is noticed within seconds, also in the midst of a wait for an answer.
_CONNECT = {
    "connect_timeout": "3",
    "target_session_attrs": "read-write",
    "application_name": "kino",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_SESSION = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
}

#: serialization_failure and deadlock_detected (PostgreSQL, appendix A): the transaction left nothing behind.
_CONFLICTS = frozenset({"40001", "40P01"})
_READ_ONLY = "25006"
_DISK_FULL = "53100"
#: Classes 08 (connection), 53 (resources), 57 (operator's intervention) and 58 (system); besides lock_timeout
#: (55P03), the time-out of an idle transaction, and a table that another process is about to make.
_AWAY_CLASSES = frozenset({"08", "53", "57", "58"})
_AWAY = frozenset({"55P03", "25P03", "42P01"})

_STANDBY = text(
    "SELECT current_setting('synchronous_standby_names') <> '' AND EXISTS "
    "(SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum'))"
)


class Postgres:
    """The engine of one database, see `services.runtime.sql.Backend`."""

    dialect = "postgresql"
    writers = CONCURRENCY

    def __init__(self, url: URL, *, synchronous: bool) -> None:
        """`synchronous`: a write waits for a standby, and is refused while there is none."""
        self._synchronous = synchronous
        self._engine = _engine(url, synchronous)
        self.writer: Engine = self._engine.execution_options(isolation_level="SERIALIZABLE")
        # A snapshot is enough to read, and costs the writers no conflicts.
        self.reader: Engine = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        # A migration takes a lock first and must then see what the one before it did.
        self.migrator: Engine = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._watch = _Watch()

    def open(self) -> None:
        """Nothing: connections are opened when they are needed."""

    def close(self) -> None:
        """Close the connections."""
        self._watch.close()
        self._engine.dispose()

    @contextmanager
    def connection(self, engine: Engine, deadline: float | None) -> Iterator[Connection]:
        """A connection that is cut off when its time is over. Raises `DatabaseUnavailable`."""
        try:
            connection = engine.connect()
        except DBAPIError as error:
            raise DatabaseUnavailable(retry_after_ms=1_000) from error
        limit_s = _MIGRATION_LIMIT_S if engine is self.migrator else TRANSACTION_LIMIT_S
        limit = time.monotonic() + limit_s
        with connection, self._watch.over(connection, limit if deadline is None else min(limit, deadline)):
            yield connection

    def before_write(self, connection: Connection) -> None:
        """Raises `NoSynchronousStandby` where one is asked for and there is none; nothing was done then."""
        if not self._synchronous:
            return
        seen = connection.info.get("standby_seen", 0.0)
        if time.monotonic() - seen < _STANDBY_KNOWN_S:
            return
        if not connection.execute(_STANDBY).scalar():
            raise NoSynchronousStandby(retry_after_ms=1_000)
        connection.info["standby_seen"] = time.monotonic()

    def commit(self, connection: Connection, transaction: RootTransaction) -> None:
        """Raises `OutcomeUnknown` when the server did not say, or says that no standby has confirmed."""
        driver: Any = connection.connection.driver_connection
        if driver.info.transaction_status is TransactionStatus.INERROR:
            # The server would answer COMMIT with a rollback, which the driver takes for success.
            raise RuntimeError("a statement failed in this transaction, and its function went on regardless")
        warnings: list[str] = connection.info["warnings"]
        warnings.clear()
        try:
            transaction.commit()
        except DBAPIError as error:
            if error.connection_invalidated or _state(error) is None:
                raise OutcomeUnknown() from error
            raise
        if warnings:  # "canceling wait for synchronous replication": committed here, perhaps nowhere else
            connection.info.pop("standby_seen", None)
            raise OutcomeUnknown()

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether the transaction was undone for another's sake."""
        return _state(error) in _CONFLICTS

    def is_stale(self, error: DBAPIError, *, write: bool) -> bool:
        """Whether the node of the connection is gone, or takes writes no longer; another may be there."""
        if not error.connection_invalidated and not (write and _state(error) == _READ_ONLY):
            return False
        self._engine.dispose()
        return True

    def typed(self, error: DBAPIError) -> KinoError | None:
        """The error in the suite's words; None for what only the store understands, such as a constraint."""
        state = _state(error) or ""
        if state == _DISK_FULL:
            return StorageFull(quota="disk")
        if error.connection_invalidated or state in _AWAY or state[:2] in _AWAY_CLASSES:
            return DatabaseUnavailable(retry_after_ms=1_000)
        return None


def _state(error: DBAPIError) -> str | None:
    """SQLSTATE; None when the server didn't say."""
    return getattr(error.orig, "sqlstate", None)


def _engine(url: URL, synchronous: bool) -> Engine:
    session = {**_SESSION, **({"synchronous_commit": "remote_apply"} if synchronous else {})}
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    own = url.query.get("options")
    arguments = {name: value for name, value in _CONNECT.items() if name not in url.query}
    arguments["options"] = f"{options} {own}" if isinstance(own, str) else options
    engine = create_engine(
        url, pool_size=2 * CONCURRENCY, max_overflow=0, pool_use_lifo=True, connect_args=arguments
    )

    @event.listens_for(engine, "connect")
    def connect(driver: psycopg.Connection[Any], record: Any) -> None:
        warnings = record.info["warnings"] = []
        driver.add_notice_handler(
            lambda notice: (
                warnings.append(notice.message_primary) if notice.severity_nonlocalized == "WARNING" else None
            )
        )

    @event.listens_for(engine, "checkout")
    def checkout(driver: psycopg.Connection[Any], record: Any, proxy: Any) -> None:
        if not _is_open(driver):
            raise InvalidatePoolError

    return engine


def _is_open(driver: psycopg.Connection[Any]) -> bool:
    """Whether the server has said farewell meanwhile; costs no question to it."""
    connection = driver.pgconn
    try:
        connection.consume_input()
        connection.is_busy()  # reads the messages; a farewell is followed by the end of the stream
        connection.consume_input()
    except psycopg.OperationalError:
        return False
    return not driver.closed


class _Turn:
    """One transaction's hold on a connection."""

    def __init__(self, connection: Connection, limit: float) -> None:
        self.connection = connection
        self.driver: Any = connection.connection.driver_connection
        self.limit = limit
        self.told = False
        #: Held while it is told to end: its connection must not be another's by then.
        self.lock = threading.Lock()
        self.over = False


class _Watch:
    """Ends transactions that take too long: the server is asked to, then the connection is cut.

    A thread of its own, because the one that waits for the server can't.
    """

    def __init__(self) -> None:
        self._turns: set[_Turn] = set()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    @contextmanager
    def over(self, connection: Connection, limit: float) -> Iterator[None]:
        """Until the block ends, or `limit` (of `time.monotonic`) is over."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sql-watch", daemon=True)
            self._thread.start()
        turn = _Turn(connection, limit)
        self._turns.add(turn)
        try:
            yield
        finally:
            self._turns.discard(turn)
            with turn.lock:
                turn.over = True
            if turn.told:  # the order to end may still be under way
                connection.invalidate()

    def _run(self) -> None:
        while not self._closed.wait(_WATCH_EVERY_S):
            now = time.monotonic()
            for turn in self._turns.copy():
                if now > turn.limit:
                    self._end(turn, now)

    def _end(self, turn: _Turn, now: float) -> None:
        with turn.lock, suppress(OSError, psycopg.Error):
            if turn.over:
                return
            if not turn.told:
                turn.told = True
                turn.driver.cancel_safe(timeout=_PATIENCE_S)
            elif now > turn.limit + _PATIENCE_S:
                with socket.socket(fileno=os.dup(turn.driver.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)

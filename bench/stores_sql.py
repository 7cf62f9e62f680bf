"""The SQL port against the same statements on the bare driver: PostgreSQL and SQLite, each with its own peer.

Measured by history's SQL store, since its calls can be repeated with the same values: a report is a
transaction that reads twice and updates a row, a view one read, a list one read of ten rows. The bare side
sends what SQLAlchemy was seen to send for the same calls, in transactions of the same kind, repeated on
conflict, and as many at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url

from bench.report import Row
from bench.stores_history import CALLS, VIEWS, calls
from bench.timing import Times, rows
from services.history.store_sql import SqlHistory
from services.runtime.claims import temporary
from services.runtime.sql import Database
from tests.engines.postgres import PostgresServer

_AT_A_TIME = 8
_CONNECTIONS = 4
_BARE = "bare driver in threads"
#: Statements of one transaction, with their values.
Sent = list[tuple[str, Any]]


class _Bare:
    """A driver's connections, one a thread."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._local = threading.local()
        self._all: list[Any] = []
        self._sqlite = self._url.get_backend_name() == "sqlite"

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def replay(self, sent: Sent, *, write: bool) -> None:
        """One transaction, again where it conflicted."""
        connection = self._connection()
        while True:
            try:
                self._once(connection, sent, write=write)
                return
            except psycopg.errors.SerializationFailure:
                connection.rollback()

    def _once(self, connection: Any, sent: Sent, *, write: bool) -> None:
        # On SQLite the BEGIN is among the statements.
        if not self._sqlite:
            levels = psycopg.IsolationLevel
            connection.isolation_level = levels.SERIALIZABLE if write else levels.REPEATABLE_READ
            connection.read_only = not write
        for statement, values in sent:
            cursor = connection.execute(statement, values)
            if cursor.description:
                cursor.fetchall()
        connection.commit()

    def _connection(self) -> Any:
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
            self._all.append(self._local.connection)
        return self._local.connection

    def _connect(self) -> Any:
        if not self._sqlite:
            return psycopg.connect(self._url.set(drivername="postgresql").render_as_string(False))
        made = sqlite3.connect(str(self._url.database), isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA busy_timeout = 5000")
        made.execute("PRAGMA synchronous = FULL")
        return made


async def measure(rounds: int) -> list[Row]:
    """Rates and waits on PostgreSQL, then on SQLite."""
    async with AsyncExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.remove)
        await asyncio.to_thread(server.start)
        server.new_database("bench")
        scratch = stack.enter_context(temporary("bench"))
        urls = {"postgresql": server.url("bench"), "sqlite": f"sqlite:///{scratch / 'bench.db'}"}
        return [row for name, url in urls.items() for row in await _measured(name, url, rounds)]


async def _measured(name: str, url: str, rounds: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        database, bare = Database(url), _Bare(url)
        stack.push_async_callback(database.close)
        stack.callback(bare.close)
        await database.migrate("services.history")
        ours = calls(SqlHistory(database))
        noted = await _note(ours)
        writing = stack.enter_context(ThreadPoolExecutor(1 if name == "sqlite" else _CONNECTIONS))
        reading = stack.enter_context(ThreadPoolExecutor(_CONNECTIONS))
        loop, numbers = asyncio.get_running_loop(), itertools.count(2 * VIEWS)
        times = {kind: {name: Times(), _BARE: Times()} for kind in ours}
        for turn in range(rounds + 1):
            for kind, call in ours.items():
                write = kind == "record"

                def replayed(
                    number: int, sent: Sequence[Sent] = noted[kind], write: bool = write
                ) -> Awaitable[None]:
                    def work() -> None:
                        bare.replay(sent[number % len(sent)], write=write)

                    return loop.run_in_executor(writing if write else reading, work)

                keys = [next(numbers) for _ in range(CALLS)]
                for way, do in ((name, call), (_BARE, replayed)):
                    # The first round opens connections.
                    await (times[kind][way] if turn else Times()).round(do, keys, at_a_time=_AT_A_TIME)
        return [
            row for kind, found in times.items() for row in rows(f"sql: {kind}", found, peer=_BARE, ours=name)
        ]


async def _note(ours: dict[str, Callable[[int], Awaitable[object]]]) -> dict[str, list[Sent]]:
    """What each kind of call sends, once its rows are there."""
    sent: Sent = []

    def noted_down(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        sent.append((statement, values))

    noted: dict[str, list[Sent]] = {}
    event.listen(Engine, "before_cursor_execute", noted_down)
    for kind, call in ours.items():
        for number in range(2 * VIEWS):
            sent.clear()
            await call(number)
            if number >= VIEWS:
                noted.setdefault(kind, []).append(list(sent))
    event.remove(Engine, "before_cursor_execute", noted_down)
    return noted

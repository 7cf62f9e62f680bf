"""Who wants to know that a job has changed, between the schedulers on one PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from services.runtime.errors import OutcomeUnknown, Unavailable
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.runtime.sql import Database
from services.scheduler.signals import Signals

_log = logger("scheduler")
_CHANNEL = "kino_jobs"
#: News of one job within this time are told once.
_GATHER_S = 0.05
_AGAIN_S = 1.0
#: A waiter looks for itself at least so often: a scheduler may be killed between a change and its news.
_LOOK_S = 3.0


class PostgresSignals(Signals):
    """Schedulers that share a database tell each other by NOTIFY."""

    bound_s = _LOOK_S

    def __init__(self, url: str, database: Database) -> None:
        """`url` is that of `database`; listening takes a connection of its own."""
        super().__init__()
        parsed = make_url(url)
        self._arguments = dict(parsed.get_dialect()().create_connect_args(parsed)[1])
        self._database = database
        self._me = new_id()
        self._news: set[str] = set()
        self._has_news = asyncio.Event()

    def changed(self, job_id: str) -> None:
        """See `Signals.changed`."""
        self.moved(job_id)
        self._news.add(job_id)
        self._has_news.set()

    async def run(self) -> None:
        """See `Signals.run`."""
        telling = asyncio.create_task(self._tell())
        try:
            while True:
                try:
                    await self._listen()
                except (psycopg.Error, OSError) as error:
                    _log.warning("hears no other scheduler", problem=str(error), retry_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self) -> None:
        while True:
            await self._has_news.wait()
            await asyncio.sleep(_GATHER_S)
            self._has_news.clear()
            news, self._news = self._news, set()
            payloads = [f"{self._me}/{job_id}" for job_id in sorted(news)]

            def notify(connection: Connection, payloads: list[str] = payloads) -> None:
                say = text("SELECT pg_notify(:channel, news) FROM unnest(CAST(:news AS text[])) AS news")
                connection.execute(say, {"channel": _CHANNEL, "news": payloads})

            # What isn't told is found by those who wait, when they look for themselves.
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await self._database.write(notify)

    async def _listen(self) -> None:
        async with self._connected() as connection:
            await connection.execute(f"LISTEN {_CHANNEL}")
            # What happened while nobody listened is unknown.
            self.wake_all()
            self.on_heard()
            async for notification in connection.notifies():
                sender, _, job_id = notification.payload.partition("/")
                if sender != self._me:
                    self.moved(job_id)
                    self.on_heard()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        options = {"connect_timeout": 3, "application_name": "kino-signals", **self._arguments}
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **options)
        try:
            yield connection
        finally:
            await connection.close()

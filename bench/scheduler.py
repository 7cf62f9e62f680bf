"""Empty tasks of one film through the dispatcher: does it slow down, and what does the engine alone do?

The dispatcher hands tasks to workers of this process and takes their results; no stream lies between. The
peer is the workflow engine's own queue, one workflow of one step for each task, on the same database.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.report import Report, Row, conditions
from services.runtime.claims import temporary
from services.runtime.clock import SystemClock
from services.runtime.sql import Database
from services.scheduler.dispatch import Dispatcher
from services.scheduler.model import Job, Lease, NewTask, Task, TaskKind, Tier, priority
from services.scheduler.sessions import Session
from services.scheduler.signals import Signals
from services.scheduler.store_sql import SqlStore
from tests.engines.postgres import PostgresServer

TASKS = 20_000
PART = 1_000
WORKERS, SLOTS = 2, 4
NEED = "ENCODE_VIDEO/1"
#: So many workflows tell the engine's rate.
ENGINE_TASKS = 1_000
#: PostgreSQL's own rhythm of clearing up, which servers of tests lack.
_DURABLE = {"max_connections": "60", "autovacuum_naptime": "1min"}

_ENGINE = """
import asyncio, sys, time
from dbos import DBOS

url, count = sys.argv[1], int(sys.argv[2])

@DBOS.step()
async def empty() -> None:
    pass

@DBOS.workflow()
async def one() -> None:
    await empty()

async def main() -> None:
    DBOS(config=dict(name="bench", system_database_url=url, application_version="1", log_level="ERROR"))
    DBOS.launch()
    await DBOS.register_queue_async("bench", worker_concurrency=8, polling_interval_sec=0.05)
    handles = [await DBOS.enqueue_workflow_async("bench", one) for _ in range(count)]
    begun = time.monotonic()
    for handle in handles:
        await handle.get_result(polling_interval_sec=0.05)
    print(count / (time.monotonic() - begun))
    DBOS.destroy()

asyncio.run(main())
"""


class _Nobody:
    """A publisher with nothing to publish."""

    def ready(self, lease: Lease, segments: bytes) -> None:
        """Nothing."""

    def done(self, lease: Lease) -> None:
        """Nothing."""

    def collect(self, lease: Lease, keys: Sequence[str]) -> None:
        """Nothing."""


def run(rounds: int = TASKS) -> Report:
    """`rounds` is the number of tasks, of which the first thousand and the last are compared."""
    rows: list[Row] = []
    for name in ("sqlite", "postgresql"):
        with _databases(name) as (ours, engines):
            first, last, whole = asyncio.run(_measure(ours, rounds))
            alone = _engine_alone(engines)
        rows += [
            Row(name=f"{name}: last {PART} tasks", value=last, unit="tasks/s", peer=f"the first {PART}",
                ratio=last / first, goal=">=0.9"),
            Row(name=f"{name}: {rounds} tasks", value=whole, unit="tasks/s",
                peer=f"the engine's queue alone, {alone:.0f} tasks/s", ratio=whole / alone, goal=">=0.7"),
        ]  # fmt: skip
    stated = conditions(tasks=rounds, workers=WORKERS, slots=SLOTS, engine_tasks=ENGINE_TASKS)
    return Report(bench="scheduler", rows=rows, conditions=stated)


@contextmanager
def _databases(name: str) -> Iterator[tuple[str, str]]:
    """One for us, one for the engine alone; both durable."""
    if name == "sqlite":
        with temporary("bench") as folder:
            yield f"sqlite:///{folder}/scheduler.db", f"sqlite:///{folder}/engine.db"
        return
    server = PostgresServer(settings=_DURABLE)
    try:
        server.start()
        yield server.url(server.new_database()), server.url(server.new_database())
    finally:
        server.remove()


async def _measure(url: str, count: int) -> tuple[float, float, float]:
    """Tasks per second: in the first part, the last one, and the whole."""
    database = Database(url)
    await database.migrate("services.scheduler")
    store, signals, clock = SqlStore(database), Signals(), SystemClock()
    dispatcher = Dispatcher(store, signals, _Nobody(), clock)
    await _film(store, count)
    sessions = [
        (await dispatcher.hello(f"w{n}", b"", frozenset({NEED}), SLOTS, []))[0] for n in range(WORKERS)
    ]
    moments = [time.monotonic()]
    workers = [asyncio.create_task(_work(dispatcher, session, moments)) for session in sessions]
    running = asyncio.create_task(dispatcher.run())
    while len(moments) <= count:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    for task in (*workers, running):
        task.cancel()
    await asyncio.gather(*workers, running, return_exceptions=True)
    await database.close()
    rates = [PART / (moments[end] - moments[end - PART]) for end in (PART, count)]
    return rates[0], rates[1], count / (moments[count] - moments[0])


async def _film(store: SqlStore, count: int) -> None:
    moment = datetime.now(UTC)
    await store.create_job(
        Job(job_id="film", title="titles/t", owner="users/u", source=b"", given=b"", create_time=moment)
    )
    await store.start_job("film")
    tasks = [
        NewTask(
            task_id=f"video-{n:06d}", kind=TaskKind.ENCODE_VIDEO, need=NEED, frames=125, spec=bytes(500),
            priority=priority(Tier.REST, position=n), summary=f"Encoding chunk {n}",
        )
        for n in range(count)
    ]  # fmt: skip
    for first in range(0, count, PART):
        await store.add_tasks("film", tasks[first : first + PART])


async def _work(dispatcher: Dispatcher, session: Session, moments: list[float]) -> None:
    while True:
        word = await session.outbox.get()
        if isinstance(word, Task):
            await dispatcher.done(session, word.lease, bytes(500), "ffmpeg", [], publishes=False)
            moments.append(time.monotonic())


def _engine_alone(url: str) -> float:
    argv = [sys.executable, "-c", _ENGINE, url, str(ENGINE_TASKS)]
    if url.startswith("sqlite"):
        import sqlite3

        # As we run it: three times quicker than as it comes.
        connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=dict(os.environ))
    return float(done.stdout.split()[-1])

"""This process as an executor of workflows: it waits for its lock, works while it has it, and stands in for
executors that are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from services.runtime.clock import Clock
from services.runtime.logs import logger
from services.scheduler.locks import Lock, Locks, taken
from services.scheduler.store import Store

_log = logger("scheduler")
#: How often jobs that nobody runs are looked for, and executors that have died.
_LOOK_S = 3.0
TIDY_EVERY = timedelta(minutes=5)
#: A worker that stood still may write after its job has ended, but hardly as late as this.
SWEEP_AFTER = timedelta(minutes=15)
KEEP_WORKFLOWS = timedelta(days=7)


class Engine(Protocol):
    """See `services.scheduler.workflow.WorkflowEngine`."""

    async def launch(self) -> None:
        """Start, and take up what this executor left when it ended."""

    async def start(self, job_id: str, run: int) -> None:
        """Start a job's workflow, another for each run; a known one goes on undisturbed."""

    async def others(self) -> set[str]:
        """Other executors that have unfinished workflows."""

    async def adopt(self, executor_id: str) -> int:
        """Hand an executor's workflows to those that are alive; their number."""

    async def purge(self, before: datetime) -> None:
        """Forget workflows that ended before then."""

    async def close(self) -> None:
        """Stop at once."""


class Executor:
    """Runs workflows beside the service: nothing waits for it, jobs are rows already."""

    def __init__(
        self,
        executor_id: str,
        locks: Locks,
        store: Store,
        clock: Clock,
        make_engine: Callable[[], Awaitable[Engine]],
        sweep: Callable[[str], Awaitable[None]],
    ) -> None:
        """A process whose `executor_id` is another's waits as its standby.

        `sweep` removes what a job's workers wrote and nobody published.
        """
        self._id = executor_id
        self._locks = locks
        self._store = store
        self._clock = clock
        self._make_engine = make_engine
        self._sweep = sweep
        self._news = asyncio.Event()

    def wake(self) -> None:
        """A job was made: start it soon."""
        self._news.set()

    async def run(self) -> None:
        """Execute whenever the lock is ours, until cancelled."""
        while True:
            lock = await taken(self._locks, self._id)
            try:
                await lock.settle()
                if not lock.lost.is_set():
                    await self._execute(lock)
            finally:
                await lock.release()

    async def _execute(self, lock: Lock) -> None:
        """Execute until the lock is lost."""
        engine = await self._make_engine()
        work = asyncio.create_task(self._work(engine))
        lost = asyncio.create_task(lock.lost.wait())
        try:
            await asyncio.wait((work, lost), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            lost.cancel()
            await asyncio.gather(work, lost, return_exceptions=True)
            await engine.close()

    async def _work(self, engine: Engine) -> None:
        await engine.launch()
        _log.info("executes workflows", executor=self._id)
        tidying = asyncio.create_task(self._tidy(engine))
        try:
            await self._look(engine)
        finally:
            tidying.cancel()
            await asyncio.gather(tidying, return_exceptions=True)

    async def _look(self, engine: Engine) -> None:
        """Start what is not started and stand in for who is gone, for ever."""
        started: set[tuple[str, int]] = set()
        while True:
            self._news.clear()
            unfinished = set(await self._store.unfinished_jobs())
            for job_id, run in unfinished - started:
                await engine.start(job_id, run)
            started = unfinished
            for other in await engine.others():
                await self._stand_in(engine, other)
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _tidy(self, engine: Engine) -> None:
        """Now and then: remove what was written after a job's end, and what nobody needs any more."""
        while True:
            try:
                for job_id in await self._store.unswept_jobs(self._clock.now() - SWEEP_AFTER):
                    await self._sweep(job_id)
                    await self._store.swept(job_id)
                await engine.purge(self._clock.now() - KEEP_WORKFLOWS)
            except Exception as error:
                _log.warning("clearing up failed", problem=str(error), retry_s=TIDY_EVERY.total_seconds())
            await asyncio.sleep(TIDY_EVERY.total_seconds())

    async def _stand_in(self, engine: Engine, other: str) -> None:
        """Take over from an executor that is gone and has no standby: its lock is free."""
        lock = await self._locks.attempt(other)
        if lock is None:
            return
        try:
            await lock.settle()
            if not lock.lost.is_set():
                count = await engine.adopt(other)
                _log.warning("took over workflows", executor=self._id, of=other, count=count)
        finally:
            await lock.release()

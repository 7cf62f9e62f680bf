"""This process as an executor of workflows: it waits for its lock, works while it has it, and stands in for
executors that are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from services.runtime.logs import logger
from services.scheduler.locks import Lock, Locks, taken
from services.scheduler.store import Store

_log = logger("scheduler")
#: How often jobs that nobody runs are looked for, and executors that have died.
_LOOK_S = 3.0


class Engine(Protocol):
    """See `services.scheduler.workflow.WorkflowEngine`."""

    async def launch(self) -> None:
        """Start, and take up what this executor left when it ended."""

    async def start(self, job_id: str) -> None:
        """Start the workflow of a job; a known one goes on undisturbed."""

    async def others(self) -> set[str]:
        """Other executors that have unfinished workflows."""

    async def adopt(self, executor_id: str) -> int:
        """Hand an executor's workflows to those that are alive; their number."""

    async def close(self) -> None:
        """Stop at once."""


class Executor:
    """Runs workflows beside the service: nothing waits for it, jobs are rows already."""

    def __init__(
        self, executor_id: str, locks: Locks, store: Store, make_engine: Callable[[], Awaitable[Engine]]
    ) -> None:
        """A process whose `executor_id` is another's waits as its standby."""
        self._id = executor_id
        self._locks = locks
        self._store = store
        self._make_engine = make_engine
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
        started: set[str] = set()
        while True:
            self._news.clear()
            unfinished = set(await self._store.unfinished_jobs())
            for job_id in unfinished - started:
                await engine.start(job_id)
            started = unfinished
            for other in await engine.others():
                await self._stand_in(engine, other)
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue

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

"""The workflow of a job on DBOS: its order of steps survives any crash and goes on where it was.

DBOS puts its own thread pool under the event loop it runs on and takes it away when it ends. So it gets a
loop of its own in a thread; its steps run on the service's loop, where the stores, channels and workers
are.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy.engine import make_url

from services.scheduler.pipeline import Pipeline

T = TypeVar("T")

#: Recovery takes up workflows of the same version only: raise it when the order of steps changes.
APPLICATION_VERSION = "1"
_POOL_SIZE = 5
_PURGED_AT_ONCE = 500


class WorkflowEngine:
    """Runs the workflow of every job that is not closed.

    One process at a time may run as an executor: it holds that executor's lock (`services.scheduler.locks`).
    """

    def __init__(self, url: str, executor_id: str, pipeline: Pipeline) -> None:
        """`url` is the engine's own database."""
        self._url = url
        self._executor_id = executor_id
        self._pipeline = pipeline
        self._service_loop = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._job: Callable[[str], Coroutine[Any, Any, str]] | None = None
        self._steps: set[Future[Any]] = set()

    async def launch(self) -> None:
        """Start, and take up what this executor left when it ended."""
        _use_wal(self._url)
        self._thread = threading.Thread(target=self._loop.run_forever, name="workflows", daemon=True)
        self._thread.start()
        try:
            await self._there(self._launch())
        except BaseException:
            await self.close()
            raise

    async def start(self, job_id: str, run: int) -> None:
        """Start a job's workflow, another for each run; one known to any executor goes on undisturbed."""
        await self._there(self._start(job_id, run))

    async def others(self) -> set[str]:
        """Other executors that have unfinished workflows, alive or not."""
        found = await self._there(_pending(None))
        return {status.executor_id for status in found if status.executor_id} - {self._executor_id}

    async def adopt(self, executor_id: str) -> int:
        """Hand the workflows of an executor whose lock we hold to those that are alive; their number."""
        workflows = [status.workflow_id for status in await self._there(_pending(executor_id))]
        if workflows:
            await self._there(DBOS.resume_workflows_async(workflows))
        return len(workflows)

    async def purge(self, before: datetime) -> None:
        """Forget workflows that ended before then."""
        old = await self._there(_ended(before))
        if old:
            await self._there(DBOS.delete_workflows_async(old))

    async def close(self) -> None:
        """Stop at once, without ending the workflows: they go on after the next start."""
        if self._thread is not None:
            # Stands still first: a workflow must not take the end of its engine for an error of its own.
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            for running in list(self._steps):
                running.cancel()
            await asyncio.to_thread(DBOS.destroy)
            await asyncio.to_thread(_end, self._loop)

    async def _launch(self) -> None:
        DBOS(config=_config(self._url, self._executor_id))
        job = self._define()
        DBOS.launch()
        self._job = job

    def _define(self) -> Callable[[str], Coroutine[Any, Any, str]]:
        steps = self._pipeline

        async def step(fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
            return await DBOS.run_step_async({"name": fn.__name__}, self._here, fn, *args)

        @DBOS.workflow(name="job", max_recovery_attempts=None)
        async def job(job_id: str) -> str:
            if await step(steps.begin, job_id):
                windows = await step(steps.plan, job_id)
                extended = 0
                while extended < windows and await step(steps.extend, job_id, extended):
                    extended += 1
                if windows and extended == windows and await step(steps.add_audio, job_id):
                    await step(steps.wait_all, job_id)
            return await step(steps.finish, job_id)

        return job

    async def _start(self, job_id: str, run: int) -> None:
        if self._job is None:
            raise RuntimeError("the engine isn't launched")
        with SetWorkflowID(f"job-{job_id}.{run}" if run else f"job-{job_id}"):
            await DBOS.start_workflow_async(self._job, job_id)

    async def _here(self, fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run on the service's loop, from the workflows' loop."""
        future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, fn(*args), self._service_loop)
        self._steps.add(future)
        future.add_done_callback(self._steps.discard)
        return await asyncio.wrap_future(future)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the workflows' loop, from the service's loop; without the caller's deadline."""
        future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self._loop)
        inner = asyncio.wrap_future(future)
        # Who waits may be gone by then; what the engine says at its own end is nobody's news.
        inner.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(inner)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Take what stands still on the loop apart; the engine is gone, so that nothing of it is recorded."""

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop.run_until_complete(cancel())
    loop.close()


async def _pending(executor_id: str | None) -> list[Any]:
    return await DBOS.list_workflows_async(
        status="PENDING",
        executor_id=executor_id,
        app_version=APPLICATION_VERSION,
        load_input=False,
        load_output=False,
    )


async def _ended(before: datetime) -> list[str]:
    found = await DBOS.list_workflows_async(
        status=["SUCCESS", "ERROR", "CANCELLED"],
        completed_before=before.isoformat(),
        limit=_PURGED_AT_ONCE,
        load_input=False,
        load_output=False,
    )
    return [status.workflow_id for status in found]


def _config(url: str, executor_id: str) -> DBOSConfig:
    return DBOSConfig(
        name="kino",
        system_database_url=url,
        application_version=APPLICATION_VERSION,
        executor_id=executor_id,
        sys_db_pool_size=_POOL_SIZE,
        enable_otlp=False,
        log_level="ERROR",
    )


def _use_wal(url: str) -> None:
    """The engine leaves SQLite in rollback mode; WAL makes its commits three times quicker, and it sticks."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(str(parsed.database))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()

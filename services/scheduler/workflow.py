"""The workflow of a job on DBOS: its order of steps survives any crash and goes on where it was.

DBOS puts its own thread pool under the event loop it runs on and takes it away when it ends. So it gets a
loop of its own in a thread; its steps run on the service's loop, where the stores, channels and workers
are.
"""

from __future__ import annotations

import asyncio
import contextvars
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy.engine import make_url

from services.runtime.errors import FailedPrecondition
from services.runtime.logs import logger
from services.scheduler.pipeline import Pipeline

T = TypeVar("T")

_log = logger("scheduler")
#: Who recovers whose workflows: two live processes with one id would run everything twice, hence the lock.
EXECUTOR_ID = "s0"
#: Recovery takes up workflows of the same version only: raise it when the order of steps changes.
APPLICATION_VERSION = "1"


class ExecutorInUse(FailedPrecondition):
    """Another scheduler already runs as {executor} on this data: stop it first."""

    reason = "SCHEDULER_IN_USE"
    fields = ("executor",)


class WorkflowEngine:
    """Runs the workflow of every job that is not closed."""

    def __init__(self, url: str, lock_file: Path, pipeline: Pipeline) -> None:
        """`url` is the engine's own database; `lock_file` says that this executor is alive."""
        self._url = url
        self._lock_file = lock_file
        self._pipeline = pipeline
        self._service_loop = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._job: Callable[[str], Coroutine[Any, Any, str]] | None = None

    async def launch(self) -> None:
        """Start, and take up what a predecessor left. Raises `ExecutorInUse`."""
        self._lock = _lock_of(self._lock_file)
        _use_wal(self._url)
        self._thread = threading.Thread(target=self._loop.run_forever, name="workflows", daemon=True)
        self._thread.start()
        try:
            await self._there(self._launch())
        except BaseException:
            await self.close()
            raise

    @property
    def launched(self) -> bool:
        """Whether it takes jobs."""
        return self._job is not None

    async def start(self, job_id: str) -> None:
        """Start the workflow of a job; one that is known already goes on undisturbed."""
        await self._there(self._start(job_id))

    async def close(self) -> None:
        """Stop without ending the workflows: they go on after the next start."""
        if self._thread is not None:
            # Stands still first: a workflow must not take the end of its engine for an error of its own.
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(DBOS.destroy)
            await asyncio.to_thread(_end, self._loop)
            self._thread = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _launch(self) -> None:
        DBOS(config=_config(self._url))
        job = self._define()
        DBOS.launch()
        self._job = job

    def _define(self) -> Callable[[str], Coroutine[Any, Any, str]]:
        steps = self._pipeline

        async def step(fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
            return await DBOS.run_step_async({"name": fn.__name__}, self._here, fn, *args)

        @DBOS.workflow(name="job")
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

    async def _start(self, job_id: str) -> None:
        if self._job is None:
            raise RuntimeError("the engine isn't launched")
        with SetWorkflowID(f"job-{job_id}"):
            await DBOS.start_workflow_async(self._job, job_id)

    async def _here(self, fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run on the service's loop, from the workflows' loop."""
        future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, fn(*args), self._service_loop)
        return await asyncio.wrap_future(future)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the workflows' loop, from the service's loop; without the caller's deadline."""
        future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self._loop)
        return await asyncio.shield(asyncio.wrap_future(future))


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Take what stands still on the loop apart; the engine is gone, so that nothing of it is recorded."""

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop.run_until_complete(cancel())
    loop.close()


def _config(url: str) -> DBOSConfig:
    return DBOSConfig(
        name="kino",
        system_database_url=url,
        application_version=APPLICATION_VERSION,
        executor_id=EXECUTOR_ID,
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


def _lock_of(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ExecutorInUse(EXECUTOR_ID) from None
    return handle

"""Jobs: made, looked at, watched, cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta

from services.runtime.clock import Clock
from services.runtime.errors import Unavailable
from services.scheduler.dispatch import Dispatcher
from services.scheduler.model import Attempt, Job, JobState, Task, TaskState, Urgency
from services.scheduler.signals import Signals
from services.scheduler.store import Counts, Ended, KnownWorker, Store

#: How long a worker is listed after it was last heard of.
WORKER_MEMORY = timedelta(hours=1)


class Jobs:
    """What can be done with jobs."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        dispatcher: Dispatcher,
        clock: Clock,
        start: Callable[[], None],
    ) -> None:
        """`start` has the workflows of stored jobs begun."""
        self._store = store
        self._signals = signals
        self._dispatcher = dispatcher
        self._clock = clock
        self._start = start

    async def create(self, job: Job) -> Job:
        """Store a job and start it; the same job again when its id is known."""
        stored = await self._store.create_job(job)
        if not stored.state.ended:
            self._start()
        return stored

    async def get(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""
        return await self._store.job(job_id)

    async def counts(self, job_id: str) -> Counts:
        """How far a job is, from what is stored."""
        return await self._store.counts(job_id)

    async def newest(self, owner: str | None, after: str, limit: int) -> list[Job]:
        """Newest first; of everybody when `owner` is None."""
        return await self._store.jobs(owner, after, limit)

    async def cancel(self, job_id: str) -> Job:
        """End a job; an ended one stays as it is."""
        self.ended(await self._store.end_job(job_id, JobState.CANCELED, None, self._clock.now()))
        self._signals.changed(job_id)
        return await self._store.job(job_id)

    async def pause(self, job_id: str, *, paused: bool) -> Job:
        """Begin nothing more of a job, or go on with it. Raises `JobEnded`."""
        return self._steered(await self._store.pause_job(job_id, paused=paused))

    async def prioritize(self, job_id: str, urgency: Urgency) -> Job:
        """Prefer a job or put it off. Raises `JobEnded`."""
        return self._steered(await self._store.prioritize_job(job_id, urgency))

    async def retry(self, job_id: str) -> Job:
        """Try again what of a failed or cancelled job isn't done. Raises `JobEnding`."""
        job = self._steered(await self._store.retry_job(job_id))
        self._start()
        return job

    def _steered(self, job: Job) -> Job:
        self._signals.changed(job.job_id)
        self._dispatcher.wake()
        return job

    def ended(self, ended: Ended) -> None:
        """Stop the workers of a job that has ended."""
        self._dispatcher.stop(ended.stopped, "the job has ended")

    async def changes(self, job_id: str) -> AsyncIterator[Job]:
        """The job now and after each change; ends after it has ended. The caller sets the pace.

        Raises `Unavailable` when the service ends before.
        """
        with self._signals.watching(job_id) as changed:
            while True:
                changed.clear()
                job = await self._store.job(job_id)
                yield job
                if job.state.ended:
                    return
                await self._signals.wait(changed)
                if self._signals.closed:
                    raise Unavailable(retry_after_ms=1_000)

    async def explain(
        self, job_id: str, after: Sequence[object], limit: int
    ) -> list[tuple[Task, list[Attempt]]]:
        """Tasks with their attempts, the troubled first."""
        return await self._store.explain(job_id, after, limit)

    async def workers(self) -> list[KnownWorker]:
        """Workers heard of within the last hour."""
        return await self._store.workers(self._clock.now() - WORKER_MEMORY)

    async def quarantine(self, worker_id: str, reason: str) -> KnownWorker:
        """Give a worker no tasks until it is readmitted. Raises `WorkerNotFound`."""
        worker, held = await self._store.quarantine_worker(worker_id, reason)
        await self._dispatcher.take_back(held, worker.quarantine_reason)
        return worker

    async def readmit(self, worker_id: str) -> KnownWorker:
        """End a worker's quarantine. Raises `WorkerNotFound`."""
        worker = await self._store.readmit_worker(worker_id)
        self._dispatcher.wake()
        return worker

    async def held(self) -> Mapping[str, list[str]]:
        """The names of running tasks by worker."""
        names: dict[str, list[str]] = {}
        for task in await self._store.in_state(TaskState.RUNNING):
            names.setdefault(task.worker, []).append(task.name)
        return names

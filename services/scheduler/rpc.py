"""`SchedulerService`: Protobuf to domain and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from kino.scheduler.v1 import resources_pb2 as scheduler
from kino.scheduler.v1 import scheduler_pb2 as api
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceServicer
from services.runtime.auth import OPERATOR, principal, require_user
from services.runtime.clock import Clock
from services.runtime.errors import Code, PermissionDenied
from services.runtime.paging import Pager, page_size
from services.scheduler import plan, wire
from services.scheduler.dispatch import Dispatcher
from services.scheduler.model import LEASE, Failure, HelloMissing, Job, Lease, Urgency
from services.scheduler.schema import to_us
from services.scheduler.sessions import Session, Settled, Stop, Word
from services.scheduler.store import RANKS, Store
from services.scheduler.usecases import Jobs

#: The shortest time between two messages of `WatchJob`.
WATCH_PAUSE_S = 0.5
#: Time a worker has to introduce itself.
_HELLO_S = 10.0

Context = grpc.aio.ServicerContext[Any, Any]


class SchedulerServicer(SchedulerServiceServicer):
    """See the contract."""

    def __init__(
        self,
        jobs: Jobs,
        store: Store,
        dispatcher: Dispatcher,
        pager: Pager,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._dispatcher = dispatcher
        self._pager = pager
        self._clock = clock
        self._pause = pause

    async def CreateJob(self, request: api.CreateJobRequest, context: Context) -> api.CreateJobResponse:
        """See the contract."""
        job = await self._jobs.create(
            Job(
                job_id=request.job_id,
                title=request.title,
                owner=request.owner,
                source=request.source.SerializeToString(),
                given=scheduler.Job(highlights=request.highlights).SerializeToString(),
                create_time=self._clock.now(),
            )
        )
        return api.CreateJobResponse(job=await self._message(job))

    async def GetJob(self, request: api.GetJobRequest, context: Context) -> api.GetJobResponse:
        """See the contract."""
        return api.GetJobResponse(job=await self._message(await self._own(request.name)))

    async def ListJobs(self, request: api.ListJobsRequest, context: Context) -> api.ListJobsResponse:
        """See the contract."""
        caller = principal()
        owner = None if caller.has_role(OPERATOR) else caller.subject
        query = f"jobs of {owner}"
        cursor = self._pager.cursor(query, request.page_token)
        limit = page_size(request.page_size)
        jobs = await self._jobs.newest(owner, str(cursor[0]) if cursor else "", limit + 1)
        token = ""
        if len(jobs) > limit:
            last = jobs[limit - 1]
            token = self._pager.token(query, [f"{to_us(last.create_time)}/{last.job_id}"])
        messages = [await self._message(job) for job in jobs[:limit]]
        return api.ListJobsResponse(jobs=messages, next_page_token=token)

    async def WatchJob(
        self, request: api.WatchJobRequest, context: Context
    ) -> AsyncIterator[api.WatchJobResponse]:
        """See the contract."""
        await self._own(request.name)
        said = None
        async for job in self._jobs.changes(wire.job_id_of(request.name)):
            message = await self._message(job)
            if message != said:
                said = message
                yield api.WatchJobResponse(job=message)
                if not job.state.ended:
                    await self._pause(WATCH_PAUSE_S)

    async def CancelJob(self, request: api.CancelJobRequest, context: Context) -> api.CancelJobResponse:
        """See the contract."""
        job = await self._own(request.name)
        return api.CancelJobResponse(job=await self._message(await self._jobs.cancel(job.job_id)))

    async def PauseJob(self, request: api.PauseJobRequest, context: Context) -> api.PauseJobResponse:
        """See the contract."""
        job = await self._own(request.name)
        job = await self._jobs.pause(job.job_id, paused=True)
        return api.PauseJobResponse(job=await self._message(job))

    async def ResumeJob(self, request: api.ResumeJobRequest, context: Context) -> api.ResumeJobResponse:
        """See the contract."""
        job = await self._own(request.name)
        job = await self._jobs.pause(job.job_id, paused=False)
        return api.ResumeJobResponse(job=await self._message(job))

    async def RetryJob(self, request: api.RetryJobRequest, context: Context) -> api.RetryJobResponse:
        """See the contract."""
        job = await self._own(request.name)
        return api.RetryJobResponse(job=await self._message(await self._jobs.retry(job.job_id)))

    async def PrioritizeJob(
        self, request: api.PrioritizeJobRequest, context: Context
    ) -> api.PrioritizeJobResponse:
        """See the contract."""
        job = await self._own(request.name)
        urgency = wire.urgency_of(request.priority)
        if urgency > Urgency.NORMAL and not principal().has_role(OPERATOR):
            raise PermissionDenied()
        job = await self._jobs.prioritize(job.job_id, urgency)
        return api.PrioritizeJobResponse(job=await self._message(job))

    async def ExplainJob(self, request: api.ExplainJobRequest, context: Context) -> api.ExplainJobResponse:
        """See the contract."""
        job = await self._own(request.name)
        query = f"explain {job.name}"
        cursor = self._pager.cursor(query, request.page_token) or []
        limit = page_size(request.page_size, default=200, maximum=1000)
        found = await self._jobs.explain(job.job_id, cursor, limit + 1)
        token = ""
        if len(found) > limit:
            last = found[limit - 1][0]
            token = self._pager.token(query, [RANKS[last.state], last.priority, last.task_id])
        running, workers = await self._dispatcher.running(job.job_id), await self._jobs.workers()
        tasks = []
        for task, tried in found[:limit]:
            holding = running.get(task.task_id)
            left_s = self._dispatcher.lease_left(holding) if holding else LEASE.total_seconds()
            newest = tried[-1] if tried else None
            step = wire.next_step(task, newest, left_s, workers, self._clock.now())
            tasks.append(wire.explanation(task, tried, holding, step))
        return api.ExplainJobResponse(job=await self._message(job), tasks=tasks, next_page_token=token)

    async def ListEncodeRecords(
        self, request: api.ListEncodeRecordsRequest, context: Context
    ) -> api.ListEncodeRecordsResponse:
        """See the contract."""
        job = await self._jobs.get(wire.job_id_of(request.name))
        query = f"records {job.name} {request.sample_share} {request.sample_seed}"
        cursor = self._pager.cursor(query, request.page_token) or [""]
        limit = page_size(request.page_size, default=20, maximum=100)
        share, seed = request.sample_share or 1.0, request.sample_seed
        chosen = await self._store.done_encodes(
            job.job_id, str(cursor[0]), limit + 1, lambda task_id: plan.sampled(task_id, share, seed)
        )
        more = len(chosen) > limit
        return api.ListEncodeRecordsResponse(
            records=[wire.record_message(task) for task in chosen[:limit]],
            next_page_token=self._pager.token(query, [chosen[limit - 1].task_id]) if more else "",
        )

    async def ListWorkers(self, request: api.ListWorkersRequest, context: Context) -> api.ListWorkersResponse:
        """See the contract."""
        held, now = await self._jobs.held(), self._clock.now()
        workers = [
            wire.worker_message(known, held.get(known.worker_id, ()), now)
            for known in await self._jobs.workers()
        ]
        return api.ListWorkersResponse(workers=workers)

    async def QuarantineWorker(
        self, request: api.QuarantineWorkerRequest, context: Context
    ) -> api.QuarantineWorkerResponse:
        """See the contract."""
        worker = await self._jobs.quarantine(wire.worker_id_of(request.name), request.reason)
        return api.QuarantineWorkerResponse(worker=wire.worker_message(worker, (), self._clock.now()))

    async def ReadmitWorker(
        self, request: api.ReadmitWorkerRequest, context: Context
    ) -> api.ReadmitWorkerResponse:
        """See the contract."""
        worker = await self._jobs.readmit(wire.worker_id_of(request.name))
        held = (await self._jobs.held()).get(worker.worker_id, ())
        return api.ReadmitWorkerResponse(worker=wire.worker_message(worker, held, self._clock.now()))

    async def Work(
        self, requests: AsyncIterator[api.WorkRequest], context: Context
    ) -> AsyncIterator[api.WorkResponse]:
        """See the contract."""
        session, welcome = await self._hello(requests)
        reader = asyncio.create_task(self._read(session, requests))
        try:
            yield api.WorkResponse(welcome=welcome)
            while (word := await session.outbox.get()) is not None:
                yield await self._say(word)
            if reader.done():
                reader.result()
        finally:
            reader.cancel()
            await self._dispatcher.goodbye(session)

    async def _hello(self, requests: AsyncIterator[api.WorkRequest]) -> tuple[Session, api.Welcome]:
        async with asyncio.timeout(_HELLO_S):
            first = await anext(requests, None)
        if first is None or not first.HasField("hello"):
            raise HelloMissing("update", "the first message of the stream must be `hello`")
        hello = first.hello
        session, kept = await self._dispatcher.hello(
            hello.worker_id,
            hello.capabilities.SerializeToString(),
            plan.needs_of(hello.capabilities),
            hello.slot_count,
            [wire.lease_of(held.task, held.fence, hello.worker_id) for held in hello.held],
        )
        welcome = api.Welcome(kept=[api.HeldTask(task=lease.task, fence=lease.fence) for lease in kept])
        welcome.lease_duration.FromTimedelta(LEASE)
        return session, welcome

    async def _read(self, session: Session, requests: AsyncIterator[api.WorkRequest]) -> None:
        try:
            async for request in requests:
                await self._hear(session, request)
        finally:
            session.outbox.put_nowait(None)

    async def _hear(self, session: Session, request: api.WorkRequest) -> None:
        kind = request.WhichOneof("update")
        if kind == "progress":
            lease = self._lease(session, request.progress)
            self._dispatcher.progress(session, lease, request.progress.progress)
        elif kind == "segments_ready":
            rendition = request.segments_ready.rendition
            self._dispatcher.segments_ready(
                session,
                self._lease(session, request.segments_ready),
                rendition.SerializeToString(),
                [segment.object_key for segment in rendition.segments],
            )
        elif kind == "done":
            await self._done(session, request.done)
        elif kind == "failed":
            failed = request.failed
            failure = wire.failure_of_status(failed.error)
            lease = self._lease(session, failed)
            await self._dispatcher.failed(session, lease, failure, failed.command, list(failed.stderr_lines))
        else:
            raise HelloMissing("update", "`hello` is only the first message of a stream")

    async def _done(self, session: Session, done: api.TaskDone) -> None:
        lease = self._lease(session, done)
        result = wire.result_of(done)
        task = await self._store.task(lease.job_id, lease.task_id)
        problem = plan.result_problem(task, result)
        if problem is not None:
            failure = Failure(code=Code.INTERNAL, reason="RESULT_MISMATCHED", message=problem)
            await self._dispatcher.failed(session, lease, failure)
            return
        await self._dispatcher.done(
            session,
            lease,
            result.SerializeToString(),
            getattr(result, "command", ""),
            wire.keys_of(result),
            publishes=task.kind.publishes,
        )

    def _lease(
        self, session: Session, message: api.Progress | api.SegmentsReady | api.TaskDone | api.TaskFailed
    ) -> Lease:
        return wire.lease_of(message.task, message.fence, session.worker_id)

    async def _say(self, word: Word) -> api.WorkResponse:
        if isinstance(word, Stop):
            lease = word.lease
            return api.WorkResponse(stop=api.StopTask(task=lease.task, fence=lease.fence, reason=word.reason))
        if isinstance(word, Settled):
            lease = word.lease
            return api.WorkResponse(
                settled=api.Settled(task=lease.task, fence=lease.fence, accepted=word.accepted)
            )
        if word is None:
            raise ValueError("the end of a stream is not said")
        return api.WorkResponse(task=wire.task_message(word, await self._store.job(word.job_id)))

    async def _own(self, name: str) -> Job:
        job = await self._jobs.get(wire.job_id_of(name))
        require_user(job.owner)
        return job

    async def _message(self, job: Job) -> scheduler.Job:
        counts = await self._jobs.counts(job.job_id)
        return wire.job_message(job, counts, await self._dispatcher.running(job.job_id))

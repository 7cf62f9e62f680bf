"""Finished segments on their way into the catalogue, and the removal of objects that lost.

One queue for each job: publications and removals of a job run one after the other, so that nothing is
removed that is being published. A result waits in the store until it is published; segments announced early
wait in memory only, for the result names them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import islice

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.encoder.v1 import resources_pb2 as encoder
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from services.runtime.clock import Clock
from services.runtime.errors import Code, KinoError
from services.runtime.logs import logger
from services.runtime.objects import ObjectStore
from services.scheduler.model import Job, Lease, Task, TaskKind, TaskState
from services.scheduler.plan import extras_keys
from services.scheduler.remote import detached, failure_of_error, passes, patiently, through_outages
from services.scheduler.signals import Signals
from services.scheduler.store import Ended, Store

_log = logger("scheduler")
_BATCH = 500
_PLAYABLE = (titles.Title.STATE_PLAYABLE, titles.Title.STATE_COMPLETE)

Work = Callable[[], Awaitable[None]]


class SegmentPublisher:
    """See `services.scheduler.dispatch.Publisher`."""

    def __init__(
        self, store: Store, signals: Signals, stub: CatalogServiceStub, objects: ObjectStore, clock: Clock
    ) -> None:
        self._store = store
        self._signals = signals
        self._catalog = stub
        self._objects = objects
        self._clock = clock
        self._queues: dict[str, asyncio.Queue[Work]] = {}
        self._runners: set[asyncio.Task[None]] = set()
        #: Told when a publication has ended a job.
        self.on_ended: Callable[[Ended], None] = lambda ended: None

    def ready(self, lease: Lease, segments: bytes) -> None:
        """Publish segments of a task that goes on."""
        self._enqueue(
            lease.job_id, partial(self._ready, lease, encoder.EncodedRendition.FromString(segments))
        )

    def done(self, lease: Lease) -> None:
        """Publish the stored result of a task, then settle the task."""
        self._enqueue(lease.job_id, partial(self._done, lease))

    def collect(self, lease: Lease, keys: Sequence[str]) -> None:
        """Delete those of these objects that are not published; others than the job's own are left alone."""
        if keys:
            self._enqueue(lease.job_id, partial(self._collect, lease.job_id, tuple(keys)))

    async def collect_orphans(self, job_id: str) -> None:
        """Delete what an ended job wrote and didn't publish. Waits for the publications before it."""
        finished = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await self._collect(job_id, None)
            except Exception as error:
                if not finished.done():
                    finished.set_exception(error)
            else:
                if not finished.done():
                    finished.set_result(None)

        self._enqueue(job_id, work)
        await finished

    async def end_replaced(self, job: Job, kept: Collection[str] = ()) -> None:
        """End older jobs of the title, but for those named: nothing they make would be shown any more."""
        for job_id, ended in (await self._store.end_replaced(job, kept, self._clock.now())).items():
            if ended.changed:
                _log.info("job replaced", job=f"jobs/{job_id}", by=job.name)
                self.on_ended(ended)
                self._signals.changed(job_id)

    async def close(self) -> None:
        """Stop; what isn't published yet is taken up after the next start."""
        for runner in list(self._runners):
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)

    def _enqueue(self, job_id: str, work: Work) -> None:
        if job_id not in self._queues:
            self._queues[job_id] = asyncio.Queue()
            runner = detached(self._run(job_id, self._queues[job_id]))
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)
        self._queues[job_id].put_nowait(work)

    async def _run(self, job_id: str, queue: asyncio.Queue[Work]) -> None:
        while not queue.empty():
            work = queue.get_nowait()
            try:
                await through_outages(work)
            except Exception as error:
                _log.error("publication failed", job=job_id, exc_info=error)
        del self._queues[job_id]

    async def _ready(self, lease: Lease, rendition: encoder.EncodedRendition) -> None:
        job = await self._store.job(lease.job_id)
        try:
            await self._publish(job, rendition)
        except KinoError as error:
            if passes(error):
                raise
            # The result of the task brings the same segments again; then it counts.
            _log.warning("early publication refused", task=lease.task, reason=error.reason)
        self._signals.changed(job.job_id)

    async def _done(self, lease: Lease) -> None:
        job, task = await self._store.job(lease.job_id), await self._store.task(lease.job_id, lease.task_id)
        if task.state is not TaskState.PUBLISHING:
            return
        try:
            if await self._publish_result(job, task):
                await self._store.settle(job.job_id, task.task_id)
        except Exception as error:
            if passes(error):
                raise
            _log.error("publication refused", task=task.name, exc_info=error)
            now = self._clock.now()
            self.on_ended(
                await self._store.fail_publication(job.job_id, task.task_id, failure_of_error(error), now)
            )
        self._signals.changed(job.job_id)

    async def _publish_result(self, job: Job, task: Task) -> bool:
        """Publish what a task made. False when the job ended before."""
        if task.kind is TaskKind.EXTRACT:
            result = preprocessor.ExtractResult.FromString(task.result)
            await self._note_left_out(job, result.left_out)
            request = catalog.PublishExtrasRequest(title=job.title, job=job.name, extras=result.extras)
            alive = partial(self._alive, job.job_id)
            return await patiently(partial(self._catalog.PublishExtras, request), alive) is not None
        if task.kind is TaskKind.ENCODE_VIDEO:
            renditions = list(encoder.EncodeVideoResult.FromString(task.result).renditions)
        else:
            renditions = [encoder.EncodeAudioResult.FromString(task.result).rendition]
        return all([await self._publish(job, rendition) for rendition in renditions])

    async def _note_left_out(self, job: Job, left_out: Sequence[preprocessor.Treatment]) -> None:
        """Add to the job's report the tracks that turned out not to be had, once."""
        probe = preprocessor.ProbeResult.FromString(job.probe)
        new = [one for one in left_out if one not in probe.report.steps]
        if new:
            probe.report.steps.extend(new)
            probe.report.treatments.extend(one.reason for one in new)
            await self._store.set_probe(job.job_id, probe.SerializeToString(), job.ladder, job.frame_count)

    async def _publish(self, job: Job, rendition: encoder.EncodedRendition) -> bool:
        """Publish segments. False when the job ended before. Raises `KinoError` when they are refused."""
        segments = iter(rendition.segments)
        while batch := list(islice(segments, _BATCH)):
            request = catalog.PublishSegmentsRequest(
                title=job.title,
                job=job.name,
                rendition_id=rendition.rendition_id,
                init_object_key=rendition.init_object_key,
                init_sha256=rendition.init_sha256,
                codecs=rendition.codecs,
                timescale=rendition.timescale,
                segments=batch,
            )
            answer = await patiently(
                partial(self._catalog.PublishSegments, request), partial(self._alive, job.job_id)
            )
            if answer is None:
                return False
            await self._note(job, rendition.rendition_id, request, answer)
        return True

    async def _note(
        self,
        job: Job,
        rendition_id: str,
        request: catalog.PublishSegmentsRequest,
        answer: catalog.PublishSegmentsResponse,
    ) -> None:
        lost = set(answer.superseded_object_keys)
        keys = {s.number: "" if s.object_key in lost else s.object_key for s in request.segments}
        playable = self._clock.now() if answer.state in _PLAYABLE else None
        if playable and job.playable_time is None:
            # Before that is noted: after a crash in between the publication is repeated.
            await self.end_replaced(job)
        await self._store.published(job.job_id, rendition_id, keys, playable)
        for key in lost & {segment.object_key for segment in request.segments}:
            await self._objects.delete(key)

    async def _alive(self, job_id: str) -> bool:
        return not (await self._store.job(job_id)).state.ended

    async def _collect(self, job_id: str, keys: Sequence[str] | None) -> None:
        """Delete the unpublished of `keys`, or of all the job's objects."""
        job = await self._store.job(job_id)
        prefix = job.output_prefix + "/"
        published = await self._published(job)
        found = [entry.key async for entry in self._objects.list(prefix)] if keys is None else list(keys)
        orphans = [key for key in found if key.startswith(prefix) and key not in published]
        for key in orphans:
            await self._objects.delete(key)
        if orphans:
            _log.info("orphans deleted", job=job.name, count=len(orphans))

    async def _published(self, job: Job) -> set[str]:
        """Keys of the job's objects that the catalogue names, replaced too; none when its media is gone."""
        request = catalog.GetMediaRequest(title=job.title, job=job.name)
        try:
            answer = await patiently(partial(self._catalog.GetMedia, request), _always)
        except KinoError as error:
            if error.code is Code.NOT_FOUND:
                return set()
            raise
        if answer is None or answer.media.job != job.name:
            return set()
        keys = set(extras_keys(answer.media.extras))
        for rendition in answer.media.renditions:
            keys |= {rendition.init_object_key} | await self._segments(job, rendition.rendition_id)
        return keys

    async def _segments(self, job: Job, rendition_id: str) -> set[str]:
        keys: set[str] = set()
        first = 0
        while True:
            request = catalog.ListSegmentsRequest(
                title=job.title,
                job=job.name,
                rendition_id=rendition_id,
                first_segment=first,
                page_size=2000,
            )
            page = await patiently(partial(self._catalog.ListSegments, request), _always)
            if page is None:
                return keys
            keys |= {segment.object_key for segment in page.segments}
            if not page.next_segment:
                return keys
            first = page.next_segment


async def _always() -> bool:
    return True
